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
-- The number of entries of the list that go, the entries of the sorted set that go, completed jobs without ties to delete,
-- by type, and score, id, .. of jobs that stay longer.
local popped, removed, completed, later = 0, {}, {}, {}

-- The score with which a job with a retention of its own stays in the set until that retention is over, or nil if the
-- job is deleted now.
local function later_score(job)
  if over > 0 or not is_tied(job[4], 'R') then return nil end
  local score = (stored_number(job[3]) or 0) + own_retention(job[5]) - tonumber(ARGV[2])
  return score > oldest_kept and digits(math.max(0, score)) or nil
end

local handled = 0
while handled < limit do
  local id, scored_id = listed[#listed - popped], scored[2 * #removed + 1]
  if not id and not scored_id then break end
  local job = id and read(id, 'status', 'type', 'finished_at', 'ties', 'retain_ms')
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
      local score = later_score(job)
      if score then
        later[#later + 1], later[#later + 2] = score, id
      elseif job[4] then
        forget_job(id, job[2], job[4], 'completed')
      else
        put(completed, job[2], id)
      end
    else
      removed[#removed + 1] = scored_id
      local other = read(scored_id, 'status', 'type', 'finished_at', 'ties', 'retain_ms')
      local score = later_score(other)
      if score then
        later[#later + 1], later[#later + 2] = score, scored_id
      elseif is_final(other[1]) then
        forget_job(scored_id, other[2], other[4], other[1])
      end
    end
    over = over - 1
  end
  handled = handled + 1
end
for job_type, ids in pairs(completed) do
  index_remove(ids, job_type, 'completed')
  for i = 1, #ids do call('UNLINK', JOB .. ids[i], LOG .. ids[i]) end
end
call('LTRIM', COMPLETED, 0, digits(-1 - popped))
if #removed > 0 then call('ZREM', set, unpack(removed)) end
if #later > 0 then call('ZADD', set, unpack(later)) end
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
