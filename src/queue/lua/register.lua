-- Registers a new server. Its entry has the number of its protocol as `version`: a server without one does not know the
-- type index.
-- ARGV: server, number of workers, names of the queues from which the server takes, joined by commas,
--       those of the strict queues among them, the names of the schedules in the server's file, joined by commas
-- Returns: 1
local now = digits(now_ms())
call('HSET', SERVERS, ARGV[1], 1)
call('HSET', SERVER .. ARGV[1], 'started_at', now, 'workers', ARGV[2], 'beat_at', now,
  'version', PROTOCOL, 'queues', ARGV[3])
if ARGV[4] ~= '' then call('HSET', SERVER .. ARGV[1], 'strict', ARGV[4]) end
if ARGV[5] ~= '' then call('HSET', SERVER .. ARGV[1], 'schedules', ARGV[5]) end
return 1
