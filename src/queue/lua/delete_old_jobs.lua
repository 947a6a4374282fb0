-- Retention: deletes ended jobs that are too old or too many, oldest first.
-- ARGV: done|failed, longest time to keep a job in ms, most jobs to keep, most jobs of this step
-- Returns: how many were deleted
local key = ARGV[1] == 'failed' and DLQ or DONE
local keep_ms, keep, limit = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local over = math.min(limit, call('ZCARD', key) - keep)
local ids = over > 0 and call('ZRANGE', key, 0, digits(over - 1)) or {}
if #ids == 0 then ids = call('ZRANGEBYSCORE', key, '-inf', digits(now_ms() - keep_ms), 'LIMIT', 0, digits(limit)) end
for _, id in ipairs(ids) do
  local job = read(id, 'status', 'type')
  call('ZREM', key, id)
  if job[1] and is_final(job[1]) then
    index_remove({id}, job[2], job[1])
    call('UNLINK', JOB .. id)
  end
end
return #ids
