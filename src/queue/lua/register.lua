-- Registers a new server. Its entry has a version: a server without one does not know the type index.
-- ARGV: server, number of workers, the queues from which the server takes
-- Returns: 1
local now = digits(now_ms())
call('HSET', SERVERS, ARGV[1], 1)
call('HSET', SERVER .. ARGV[1], 'started_at', now, 'workers', ARGV[2], 'beat_at', now,
  'version', 2, 'queues', table.concat(ARGV, ',', 3))
return 1
