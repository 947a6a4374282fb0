-- Reads all servers of the registry, without PULL, which is none.
-- Returns: per server {name, heartbeat counter, length of its list, workers, busy, ms since its last heartbeat or -1}
local now, answers = now_ms(), {}
local all = try('HGETALL', SERVERS) or {}
for i = 1, #all, 2 do
  if all[i] ~= PULL then
    local facts = try('HMGET', SERVER .. all[i], 'workers', 'busy', 'beat_at') or {}
    local beat_at = tonumber(facts[3] or '')
    answers[#answers + 1] = {all[i], all[i + 1], try('LLEN', IN_PROGRESS .. all[i]) or 0, tonumber(facts[1] or 0),
      tonumber(facts[2] or 0), beat_at and now - beat_at or -1}
  end
end
return answers
