-- Deletes names of empty queues, in one step; in the first step also names of job types without a job in their type index,
-- and limits of files that no living server has in its file.
-- A name comes back with the next job.
-- ARGV: cursor, '0' at first
-- Returns: cursor of the next step, '0' at the end
-- Protects from: names that clients have made up and that would stay for ever.
local found = call('SSCAN', QUEUES, ARGV[1], 'COUNT', '200')
for _, queue in ipairs(found[2]) do
  if call('EXISTS', WORK .. queue, WORK .. queue .. SUSPECTS) == 0 and not call('HGET', HELD_COUNT, queue) then
    call('SREM', QUEUES, queue)
    call('DEL', TOMBSTONES .. queue)
  end
end
for _, job_type in ipairs(ARGV[1] == '0' and call('ZRANGE', TYPES, 0, -1) or {}) do
  local function set(word) return TYPE_INDEX .. word .. ':' .. job_type end
  if call('EXISTS', set(READY), set('scheduled'), set('retrying'), set('completed'), set('failed'), set('cancelled')) == 0 then
    call('ZREM', TYPES, job_type)
  end
end
if ARGV[1] == '0' then
  local limits, now = call('HGETALL', LIMITS), now_ms()
  for i = 1, #limits, 2 do
    -- An override stays until a person deletes it.
    if string.find(limits[i + 1], ' config$') and not server_with('limits', limits[i]) then
      call('HDEL', LIMITS, limits[i])
      limit_rules().change_numbers(limits[i], now)
    end
  end
  if made_rules then made_rules.send_on_freed(now) end
end
return found[1]
