-- Reads one page of jobs, newest first, and counts all matching jobs.
-- ARGV: status or '', type or '', tag or '', lowest id or '', an id above the highest one or '', most jobs of the page,
--       then where the page begins: the number of jobs to skip, or '' and an id above all ids of the page
-- Returns: {total, id before which the next page begins or 0, job, ..}; a job is {id, names, field, value, ..}
--          The names (payload, result, errors) are the names of the texts that are left out; the last error stays.
-- The result is exact, and a late page takes no longer: the scores of the index are the ids, so that the start of a
-- page is found by rank in one set, and by cuts and counts in several sets. Jobs outside of the range of ids count as
-- skipped.
local status, job_type, tag, low_end, high_end = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local limit, offset, before = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
if before and high_end and high_end < tonumber(before) then before = ARGV[5] end
-- One job more than the page shows, to find out whether there is another page.
local wanted = limit + 1

local function newest_first(a, b) return tonumber(a) > tonumber(b) end

local function is_in_range(id)
  id = tonumber(id)
  return (not low_end or id >= low_end) and (not high_end or id < high_end)
end

-- The number of ids of a set in the range.
local function size_of(set)
  if not low_end and not high_end then return call('ZCARD', set) end
  return call('ZCOUNT', set, low_end and ARGV[4] or '-inf', high_end and '(' .. ARGV[5] or '+inf')
end

-- The sorted sets with the matching jobs of these index words, without sets that have none; the number of these jobs;
-- the number of jobs in these sets that are too new.
local function matching(words)
  local sets, total, too_new = {}, 0, 0
  for _, word in ipairs(words) do
    for _, set in ipairs(index_sets(word, job_type, tag)) do
      local size = size_of(set)
      if size > 0 then
        sets[#sets + 1] = set
        total = total + size
        if high_end then too_new = too_new + call('ZCOUNT', set, ARGV[5], '+inf') end
      end
    end
  end
  return sets, total, too_new
end

-- The number of ids from `lowest` on.
local function count(sets, lowest)
  local number = 0
  for _, set in ipairs(sets) do number = number + call('ZCOUNT', set, lowest, '+inf') end
  return number
end

-- Where the id stands that has `rank` newer ids in these sets. Returns an id, and the number of ids from that one on
-- that are newer than the wanted id: less than `near`.
local function place_of(sets, rank, near)
  -- The wanted id is from `low` to `high`; `above` ids are larger than `high`, and `from` ids are not smaller than `low`.
  local low, high, above, from, active, settled, turn = nil, nil, 0, 0, {}, 0, 0
  for _, set in ipairs(sets) do
    local first, last = tonumber(call('ZRANGE', set, 0, 0)[1]), tonumber(call('ZREVRANGE', set, 0, 0)[1])
    low, high = math.min(low or first, first), math.max(high or last, last)
    active[#active + 1] = {set = set, above = 0, from = call('ZCARD', set)}
    from = from + active[#active].from
  end
  while low < high and from - above > near do
    -- Every other cut is where the ids behind the wanted one, or before it, begin if the ids are spread evenly.
    local left, wanted, part = from - above, rank - above, 0.5
    turn = turn + 1
    if turn % 2 == 1 then part = wanted < left / 2 and (wanted + 1) / left + 0.02 or wanted / left - 0.02 end
    local middle = math.max(low + 1, math.min(high, high - math.floor((high - low) * part)))
    local number = settled
    for _, it in ipairs(active) do
      it.middle = call('ZCOUNT', it.set, digits(middle), '+inf')
      number = number + it.middle
    end
    local is_above = number > rank
    if is_above then low, from = middle, number else high, above = middle - 1, number end
    -- A set without an id between `low` and `high` is not counted again.
    local others = {}
    for _, it in ipairs(active) do
      if is_above then it.from = it.middle else it.above = it.middle end
      if it.from == it.above then settled = settled + it.from else others[#others + 1] = it end
    end
    active = others
  end
  return digits(high), rank - above
end

-- The first `number` ids of these sets, newest first: behind `skipped` ids, or below the id `before` if `skipped` is nil.
local function page_of(sets, skipped, number)
  if #sets == 1 then
    local from = skipped or call('ZCOUNT', sets[1], before, '+inf')
    return call('ZREVRANGE', sets[1], digits(from), digits(from + number - 1))
  end
  local first, newer, ids = '+inf', 0, {}
  if not skipped then first = '(' .. before elseif skipped > 0 then first, newer = place_of(sets, skipped, number) end
  for i, id in ipairs(merged(sets, true, first, newer + number)) do ids[i - newer] = i > newer and id or nil end
  return ids
end

-- The matching running jobs; only the in-progress lists, which are short, tell them from queued jobs. An id may have
-- two entries: a claimed job that was cancelled and retried keeps its old entry until the next call of start_jobs.lua.
local function running()
  local ids, seen = {}, {}
  for _, server in ipairs(call('HKEYS', SERVERS)) do
    for _, id in ipairs(call('LRANGE', IN_PROGRESS .. server, 0, -1)) do
      local job = read(id, 'status', 'type', 'tags')
      local is_wanted = (job_type == '' or job[2] == job_type) and (tag == '' or has_tag(job[3], tag))
      if not seen[id] and job[1] == 'processing' and is_wanted and is_in_range(id) then ids[#ids + 1] = id end
      seen[id] = true
    end
  end
  table.sort(ids, newest_first)
  return ids
end

local function list_running()
  local ids, skip, page = running(), offset or 0, {}
  while not offset and skip < #ids and tonumber(ids[skip + 1]) >= tonumber(before) do skip = skip + 1 end
  for i = skip + 1, skip + wanted do page[#page + 1] = ids[i] end
  return #ids, page
end

-- Queued jobs are the ready jobs without the running jobs. To skip a number of queued jobs, the page skips the
-- running jobs among them too.
local function list_queued()
  local sets, total, too_new = matching({READY})
  local ids, is_running, skipped, page = running(), {}, nil, {}
  for _, id in ipairs(ids) do is_running[id] = true end
  if offset then
    -- The number of running jobs that have at most `offset` newer queued jobs, found by bisection.
    local low, high = 0, #ids
    while low < high do
      local middle = math.ceil((low + high) / 2)
      if count(sets, '(' .. ids[middle]) - too_new - (middle - 1) <= offset then low = middle else high = middle - 1 end
    end
    skipped = too_new + offset + low
  end
  if total > (skipped or too_new) - too_new then
    for _, id in ipairs(page_of(sets, skipped, wanted + #ids)) do
      if not is_running[id] and #page < wanted then page[#page + 1] = id end
    end
  end
  return total - #ids, page
end

local function list_indexed(words)
  local sets, total, too_new = matching(words)
  if total <= (offset or 0) then return total, {} end
  return total, page_of(sets, offset and offset + too_new, wanted)
end

local total, ids
if status == 'processing' then
  total, ids = list_running()
elseif status == 'queued' then
  total, ids = list_queued()
elseif status ~= '' then
  total, ids = list_indexed({status})
else
  total, ids = list_indexed({READY, 'scheduled', 'retrying', 'completed', 'failed', 'cancelled'})
end
while ids[1] and not is_in_range(ids[#ids]) do ids[#ids] = nil end
local next_before = 0
if #ids > limit then
  ids[#ids] = nil
  next_before = ids[limit]
end

local page = {total, next_before}
add_jobs(page, ids)
return page
