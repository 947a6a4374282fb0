-- Enters a new server.
-- ARGV: server, workers, the name under which it was known until now or ''
-- Protects from: jobs left in the list of a server that Redis has forgotten: it is dead from now on, and its list watched.
local now = now_ms()
if ARGV[3] ~= '' then call('HSETNX', SERVERS, ARGV[3], string.format('D%.0f', now)) end
call('HSET', SERVERS, ARGV[1], 1)
call('HSET', SERVER .. ARGV[1], 'started_at', now, 'workers', ARGV[2], 'busy', 0, 'beat_at', now)
return 1
