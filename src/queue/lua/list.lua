-- Reads one page of jobs, newest first, and counts all matching jobs.
-- ARGV: status or '', type or '', most jobs of the page, then where the page begins: the number of jobs to skip, or
--       '' and an id above all ids of the page
-- Returns: {total, id before which the next page begins or 0, job, ..}; a job is {id, names, field, value, ..}
--          The names (payload, result, errors) are the names of the texts that are left out; the last error stays.
-- The result is exact, and a late page takes no longer: the scores of the index are the ids, so that the start of a
-- page is found by rank in one set, and by bisection over counts in several sets.
local status, job_type, limit, offset, before = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
-- One job more than the page shows, to find out whether there is another page.
local wanted = limit + 1

local function index(word) return INDEX .. word .. (job_type ~= '' and ':' .. job_type or '') end
local function newest_first(a, b) return tonumber(a) > tonumber(b) end
-- The number of jobs of a set before the page.
local function skipped(set) return offset or call('ZCOUNT', set, before, '+inf') end

-- The matching running jobs; only the in-progress lists, which are short, tell them from queued jobs. An id may have
-- two entries: a claimed job that was cancelled and retried keeps its old entry until the next call of start_jobs.lua.
local function running()
  local ids, seen = {}, {}
  for _, server in ipairs(call('HKEYS', SERVERS)) do
    for _, id in ipairs(call('LRANGE', IN_PROGRESS .. server, 0, -1)) do
      local job = read(id, 'status', 'type')
      if not seen[id] and job[1] == 'processing' and (job_type == '' or job[2] == job_type) then ids[#ids + 1] = id end
      seen[id] = true
    end
  end
  table.sort(ids, newest_first)
  return ids
end

local function slice(ids, from, number)
  local page = {}
  for i = from + 1, math.min(#ids, from + number) do page[#page + 1] = ids[i] end
  return page
end

local function page_of_running()
  local ids, skip = running(), offset or 0
  while not offset and skip < #ids and tonumber(ids[skip + 1]) >= tonumber(before) do skip = skip + 1 end
  return #ids, slice(ids, skip, wanted)
end

-- Queued jobs are the ready jobs without the running jobs. To skip a number of queued jobs, the page skips the
-- running jobs among them too.
local function page_of_queued()
  local set, ids, is_running = index(READY), running(), {}
  local from = skipped(set)
  for _, id in ipairs(ids) do
    is_running[id] = true
    local rank = offset and call('ZREVRANK', set, id)
    if rank and rank <= from then from = from + 1 end
  end
  local page = {}
  for _, id in ipairs(call('ZREVRANGE', set, digits(from), digits(from + wanted + #ids - 1))) do
    if not is_running[id] and #page < wanted then page[#page + 1] = id end
  end
  return call('ZCARD', set) - #ids, page
end

local function page_of_one(set)
  local from = skipped(set)
  return call('ZCARD', set), call('ZREVRANGE', set, digits(from), digits(from + wanted - 1))
end

local function page_of_all()
  local sets, total, low, high = {}, 0, nil, nil
  for _, word in ipairs({READY, 'scheduled', 'retrying', 'completed', 'failed', 'cancelled'}) do
    local set = index(word)
    local size = call('ZCARD', set)
    if size > 0 then
      sets[#sets + 1] = set
      total = total + size
      local first, last = tonumber(call('ZRANGE', set, 0, 0)[1]), tonumber(call('ZREVRANGE', set, 0, 0)[1])
      low, high = math.min(low or first, first), math.max(high or last, last)
    end
  end
  if (offset or 0) >= total then return total, {} end
  -- The first id of the page: the largest id for which more than `offset` ids are not smaller.
  while offset and low < high do
    local middle, above = math.ceil((low + high) / 2), 0
    for _, set in ipairs(sets) do above = above + call('ZCOUNT', set, digits(middle), '+inf') end
    if above > offset then low = middle else high = middle - 1 end
  end
  local first, ids = offset and digits(low) or '(' .. before, {}
  for _, set in ipairs(sets) do
    for _, id in ipairs(call('ZREVRANGEBYSCORE', set, first, '-inf', 'LIMIT', 0, digits(wanted))) do ids[#ids + 1] = id end
  end
  table.sort(ids, newest_first)
  return total, slice(ids, 0, wanted)
end

local total, ids
if status == 'processing' then
  total, ids = page_of_running()
elseif status == 'queued' then
  total, ids = page_of_queued()
elseif status ~= '' then
  total, ids = page_of_one(index(status))
else
  total, ids = page_of_all()
end
local next_before = 0
if #ids > limit then
  ids[#ids] = nil
  next_before = ids[limit]
end

-- A payload or result that is longer (in bytes) is left out.
local LARGE = 16 * 1024
-- The most bytes of a page as JSON: a little less than 4 MiB.
local MOST = 4 * 1024 * 1024 - 4096
-- The most bytes of a job besides its large texts, and of its last error, which the page shows twice.
local REST, LAST_ERROR = 5 * 1024, 6 * 1024

-- The length of a text of a job.
local function length(id, name)
  local number = try_call('HSTRLEN', JOB .. id, name)
  return type(number) == 'number' and number or 0
end

-- The lengths of the texts of a job that the page shows.
local function lengths_of(id)
  local lengths = {errors = length(id, 'errors')}
  for _, name in ipairs({'payload', 'result'}) do
    lengths[name] = length(id, name)
    if lengths[name] > LARGE then lengths[name] = nil end
  end
  return lengths
end

local function bytes(lengths)
  local errors = lengths.errors or LAST_ERROR
  return REST + (lengths.payload or 0) + (lengths.result or 0) + errors + math.min(errors, LAST_ERROR)
end

local lengths, sum = {}, 0
for i, id in ipairs(ids) do
  lengths[i] = lengths_of(id)
  sum = sum + bytes(lengths[i])
end
-- If the page is too large, each job gets an equal share of it. A text in chunks is short enough to stay.
if sum > MOST then
  for i = 1, #ids do
    for _, name in ipairs({'result', 'payload', 'errors'}) do
      local is_long = (lengths[i][name] or 0) > SHORT_TEXT
      if is_long and bytes(lengths[i]) > MOST / #ids then lengths[i][name] = nil end
    end
  end
end

-- The fields and values of a job without the texts that are left out; the names of those texts come first. Of errors
-- the last one stays.
local function record(id, shown)
  local omitted = {}
  for _, name in ipairs({'payload', 'result', 'errors'}) do
    if not shown[name] then omitted[#omitted + 1] = name end
  end
  local fields = {id, table.concat(omitted, ' ')}
  if #omitted == 0 then
    local all = try_call('HGETALL', JOB .. id)
    for i = 1, all.err and 0 or #all do fields[i + 2] = all[i] end
  else
    for _, name in ipairs(call('HKEYS', JOB .. id)) do
      local is_text = name == 'payload' or name == 'result' or name == 'errors'
      if not is_text or shown[name] or name == 'errors' then
        local value = call('HGET', JOB .. id, name)
        if name == 'errors' and not shown[name] then value = string.match(value, '^.*\n(.*)$') or value end
        fields[#fields + 1], fields[#fields + 2] = name, value
      end
    end
  end
  return fields
end

local page = {total, next_before}
for i, id in ipairs(ids) do
  local fields = record(id, lengths[i])
  if #fields > 2 then page[#page + 1] = fields end
end
return page
