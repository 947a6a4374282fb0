-- Reads the live servers and their activity reports. It also makes all servers send reports for a while.
-- ARGV: for how long, in ms
-- Returns: {{server, started_at, workers, busy, ms since its last heartbeat, report or false}, ..}
call('SET', WATCHED, 1, 'PX', ARGV[1])
local servers = living(call('HGETALL', SERVERS), now_ms())
for _, server in ipairs(servers) do server[#server + 1] = call('GET', ACTIVITY .. server[1]) end
return servers
