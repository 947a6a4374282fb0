-- Stores what the workers of a server do, for clients that watch it. The report expires soon, since an old one is wrong.
-- ARGV: server, report as JSON, expiry in ms
-- Returns: OK
return call('SET', ACTIVITY .. ARGV[1], ARGV[2], 'PX', ARGV[3])
