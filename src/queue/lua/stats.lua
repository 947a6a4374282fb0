-- Counts the jobs by status, and reads the live servers.
-- Returns: {[status, number of jobs, ..], [{server, started_at, workers, busy, ms since its last heartbeat}, ..]}
local all, running, seen = call('HGETALL', SERVERS), 0, {}
for i = 1, #all, 2 do
  -- Jobs of pull workers are all running; there may be 10,000.
  local is_pull = all[i] == PULL
  if is_pull then running = running + call('LLEN', IN_PROGRESS .. PULL) end
  for _, id in ipairs(is_pull and {} or call('LRANGE', IN_PROGRESS .. all[i], 0, -1)) do
    if not seen[id] and read(id, 'status')[1] == 'processing' then running = running + 1 end
    seen[id] = true
  end
end
local counts = {'queued', index_count(READY) - running, 'processing', running}
for _, status in ipairs({'scheduled', 'retrying', 'completed', 'failed', 'cancelled'}) do
  counts[#counts + 1] = status
  counts[#counts + 1] = index_count(status)
end
return {counts, living(all, now_ms())}
