-- Lets no job of a queue start, or lets them start again. A script, since a plain SADD is refused by a full Redis.
-- ARGV: queue, paused 0|1, how many parked jobs are looked at
-- Returns: 1 if the queue has a job that is queued, parked or running, or may have one behind the parked jobs that were
--          looked at; 0 if it has none
local queue = ARGV[1]
call(ARGV[2] == '1' and 'SADD' or 'SREM', PAUSED, queue)

local function is_of_queue(id)
  local job = read(id, 'status', 'queue')
  return job[1] and not is_final(job[1]) and (job[2] or DEFAULT_QUEUE) == queue
end

if call('EXISTS', WORK .. queue, WORK .. queue .. SUSPECTS) > 0 or call('ZCARD', SCHEDULED) > tonumber(ARGV[3]) then return 1 end
for _, id in ipairs(call('ZRANGE', SCHEDULED, 0, -1)) do
  if is_of_queue(id) then return 1 end
end
for _, server in ipairs(call('HKEYS', SERVERS)) do
  for _, id in ipairs(call('LRANGE', IN_PROGRESS .. server, 0, -1)) do
    if is_of_queue(id) then return 1 end
  end
end
return 0
