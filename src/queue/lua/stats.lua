-- Counts the jobs by status, and reads the live servers.
-- Returns: {[status, number of jobs, ..], [{server, started_at, workers, busy, ms since its last heartbeat}, ..]}
local all, running, seen = call('HGETALL', SERVERS), 0, {}
for i = 1, #all, 2 do
  for _, id in ipairs(call('LRANGE', IN_PROGRESS .. all[i], 0, -1)) do
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
