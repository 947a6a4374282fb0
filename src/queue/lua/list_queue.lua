-- Reads one page of the jobs that wait in a queue, in the order in which they are taken: first the quarantined jobs, each
-- of which waits until it can run alone, then the others. Also counts these jobs.
-- ARGV: queue, most jobs of the page, number of jobs to skip
-- Returns: as list.lua
-- Tombstones are left out. Only the first 2,000 entries are searched for them before the page is cut: behind these entries
-- tombstones are counted as jobs and take room on a page, so that no page skips a job.
local queue, limit, skip = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local lists = {WORK .. queue .. SUSPECTS, WORK .. queue}

-- The entries of both lists, `number` of them, behind the first `skipped` ones.
local function entries(skipped, number)
  local ids = {}
  for _, list in ipairs(lists) do
    for _, id in ipairs(next_entries(list, skipped, number - #ids)) do ids[#ids + 1] = id end
    skipped = math.max(0, skipped - call('LLEN', list))
  end
  return ids
end

local ids, total = {}, count_entries(queue)
if count_tombstones(queue) == 0 then
  ids = entries(skip, limit)
else
  local first = without_tombstones(queue, entries(0, MOST_SEARCHED))
  total = #first + math.max(0, total - MOST_SEARCHED)
  for i = skip + 1, skip + limit do ids[#ids + 1] = first[i] end
  local skipped = MOST_SEARCHED + math.max(0, skip - #first)
  for _, id in ipairs(entries(skipped, limit - #ids)) do ids[#ids + 1] = id end
end

local waiting, seen = {}, {}
for _, id in ipairs(ids) do
  local job = read(id, 'status', 'queue')
  if not seen[id] and job[1] == 'queued' and (job[2] or DEFAULT_QUEUE) == queue then waiting[#waiting + 1] = id end
  seen[id] = true
end
local page = {total, 0}
add_jobs(page, waiting)
return page
