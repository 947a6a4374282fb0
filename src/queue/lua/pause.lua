-- Pauses a queue, so that none of its jobs starts, or resumes the queue. A script, because a full Redis refuses a plain
-- SADD.
-- ARGV: queue, paused 0|1, most scheduled and retrying jobs to read
-- Returns: 1 if the queue has a job that has not ended, or if there are more scheduled and retrying jobs than may be
--           read;
--          0 if the queue has no such job
local queue = ARGV[1]
call(ARGV[2] == '1' and 'SADD' or 'SREM', PAUSED, queue)
local has_held = call('HGET', HELD_COUNT, queue)
-- While the queue was paused, none of its jobs was sent on.
if has_held and ARGV[2] ~= '1' then call('ZADD', AGENDA, digits(now_ms()), 'wake:\n') end

local function is_of_queue(id)
  local job = read(id, 'status', 'queue')
  return job[1] and not is_final(job[1]) and (job[2] or DEFAULT_QUEUE) == queue
end

if has_held or call('EXISTS', WORK .. queue, WORK .. queue .. SUSPECTS) > 0 or call('ZCARD', SCHEDULED) > tonumber(ARGV[3]) then return 1 end
for _, id in ipairs(call('ZRANGE', SCHEDULED, 0, -1)) do
  if is_of_queue(id) then return 1 end
end
for _, server in ipairs(call('HKEYS', SERVERS)) do
  for _, id in ipairs(call('LRANGE', IN_PROGRESS .. server, 0, -1)) do
    if is_of_queue(id) then return 1 end
  end
end
return 0
