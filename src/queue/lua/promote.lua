-- Moves jobs that are due into their queues: scheduled | retrying -> queued.
-- ARGV: most jobs of this step
-- Returns: {moved, ms until the next job is due or -1}
-- Protects from: two servers that move the same job.
local now, moved = now_ms(), 0
local at = digits(now)
for _, id in ipairs(call('ZRANGEBYSCORE', SCHEDULED, '-inf', at, 'LIMIT', 0, ARGV[1])) do
  call('ZREM', SCHEDULED, id)
  local job = read(id, 'status', 'type', 'queue')
  if job[1] == 'scheduled' or job[1] == 'retrying' then
    call('HSET', JOB .. id, 'status', 'queued')
    index_move({id}, job[2], job[1], 'queued')
    call('LPUSH', fill_list(job[3]), id)
    moved = moved + 1
  elseif not job[1] then
    note_lost(id, at)
  end
end
local next = call('ZRANGE', SCHEDULED, 0, 0, 'WITHSCORES')
return {moved, next[2] and math.max(0, tonumber(next[2]) - now) or -1}
