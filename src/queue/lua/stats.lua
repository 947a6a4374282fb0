-- How many jobs are in which status, and the servers that are alive.
-- Returns: {scheduled, queued, processing, retrying, completed, failed, cancelled, [server, started_at, workers, busy,
--          ms since its last beat, ..]}
local now, running, servers, seen = now_ms(), 0, {}, {}
local all = call('HGETALL', SERVERS)
for i = 1, #all, 2 do
  local server, beat = all[i], all[i + 1]
  for _, id in ipairs(call('LRANGE', IN_PROGRESS .. server, 0, -1)) do
    if not seen[id] and read(id, 'status')[1] == 'processing' then running = running + 1 end
    seen[id] = true
  end
  if string.sub(beat, 1, 1) ~= 'D' then
    local facts = call('HMGET', SERVER .. server, 'started_at', 'workers', 'busy', 'beat_at')
    servers[#servers + 1] = {server, tonumber(facts[1] or 0), tonumber(facts[2] or 0), tonumber(facts[3] or 0),
      now - tonumber(facts[4] or now)}
  end
end
local function size(word) return call('ZCARD', INDEX .. word) end
return {size('scheduled'), size(READY) - running, running, size('retrying'), size('completed'), size('failed'),
  size('cancelled'), servers}
