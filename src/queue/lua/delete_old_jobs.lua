-- Retention: deletes ended jobs that are too old or too many, oldest first.
-- ARGV: done|failed, longest time to keep a job in ms, most jobs to keep, most entries of this step
-- Returns: how many entries were handled; if 0, nothing is left to delete
-- Completed jobs are in a list and all other ended jobs in a sorted set; both are in the order of the ends.
local is_done, limit = ARGV[1] == 'done', tonumber(ARGV[4])
local set, oldest_kept = is_done and DONE or DLQ, now_ms() - tonumber(ARGV[2])
local number = is_done and index_count('completed') + index_count('cancelled') or call('ZCARD', DLQ)
local over = number - tonumber(ARGV[3])
local scored = call('ZRANGE', set, 0, digits(limit - 1), 'WITHSCORES')
local listed = is_done and call('LRANGE', COMPLETED, digits(-limit), -1) or {}
-- The number of entries of the list that go, the entries of the sorted set that go, and completed jobs to delete, by type.
local popped, removed, completed = 0, {}, {}

-- Deletes jobs of one type and status.
local function delete(ids, job_type, status)
  index_remove(ids, job_type, status)
  for i = 1, #ids do call('UNLINK', JOB .. ids[i]) end
end

local handled = 0
while handled < limit do
  local id, scored_id = listed[#listed - popped], scored[2 * #removed + 1]
  if not id and not scored_id then break end
  local job = id and read(id, 'status', 'type', 'finished_at')
  if id and job[1] ~= 'completed' then
    -- An operator has deleted the job. A job that has not completed is not deleted here.
    popped = popped + 1
  else
    -- A job without the time of its end counts as old.
    local ended = id and (tonumber(job[3]) or 0) or math.huge
    local scored_ended = tonumber(scored[2 * #removed + 2]) or math.huge
    if over <= 0 and math.min(ended, scored_ended) > oldest_kept then break end
    if ended <= scored_ended then
      popped = popped + 1
      put(completed, job[2], id)
    else
      removed[#removed + 1] = scored_id
      local other = read(scored_id, 'status', 'type')
      if is_final(other[1]) then delete({scored_id}, other[2], other[1]) end
    end
    over = over - 1
  end
  handled = handled + 1
end
for job_type, ids in pairs(completed) do delete(ids, job_type, 'completed') end
call('LTRIM', COMPLETED, 0, digits(-1 - popped))
if #removed > 0 then call('ZREM', set, unpack(removed)) end
-- Entries of deleted jobs stay in the list behind an older job that is kept. If they are too many, the list loses its
-- oldest entries, and their jobs, which are kept, go to the sorted set.
if is_done and handled == 0 and call('LLEN', COMPLETED) + call('ZCARD', DONE) - number > number + 1000 then
  for _, id in ipairs(listed) do
    local job = read(id, 'status', 'finished_at')
    if job[1] == 'completed' then call('ZADD', DONE, digits(tonumber(job[2]) or 0), id) end
  end
  call('LTRIM', COMPLETED, 0, digits(-1 - #listed))
  return #listed
end
return handled
