-- Counts the jobs by status, and reads the live servers.
-- Returns: {scheduled, queued, processing, retrying, completed, failed, cancelled, [{server, started_at, workers, busy,
--          ms since its last heartbeat}, ..]}
local all, running, seen = call('HGETALL', SERVERS), 0, {}
for i = 1, #all, 2 do
  for _, id in ipairs(call('LRANGE', IN_PROGRESS .. all[i], 0, -1)) do
    if not seen[id] and read(id, 'status')[1] == 'processing' then running = running + 1 end
    seen[id] = true
  end
end
local function size(word) return call('ZCARD', INDEX .. word) end
return {size('scheduled'), size(READY) - running, running, size('retrying'), size('completed'), size('failed'),
  size('cancelled'), living(all, now_ms())}
