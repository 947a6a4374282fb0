-- Enters a new server.
-- ARGV: server, workers
local now = now_ms()
call('HSET', SERVERS, ARGV[1], 1)
call('HSET', SERVER .. ARGV[1], 'started_at', now, 'workers', ARGV[2], 'busy', 0, 'beat_at', now)
return 1
