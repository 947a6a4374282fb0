-- All servers and what their workers do, as far as they have told it. That somebody asks is noted: they tell it for a while.
-- ARGV: for how long, in ms
-- Returns: {{beat or D.., what it has told or false, server, started_at, workers, busy, ms since its last beat}, ..}
local now, servers, all = now_ms(), {}, call('HGETALL', SERVERS)
call('SET', WATCHED, 1, 'PX', ARGV[1])
for i = 1, #all, 2 do
  local server = all[i]
  local facts = call('HMGET', SERVER .. server, 'started_at', 'workers', 'busy', 'beat_at')
  servers[#servers + 1] = {all[i + 1], call('GET', ACTIVITY .. server), server, tonumber(facts[1] or 0),
    tonumber(facts[2] or 0), tonumber(facts[3] or 0), now - tonumber(facts[4] or now)}
end
return servers
