-- One page of jobs, newest first, and how many match.
-- ARGV: status or '', type or '', offset, limit
-- Returns: {total, job, ..}, a job being {id, field, value, ..}
-- Exact on one snapshot, and no slower deep in a list: the ids are the scores of the index, so that the place of a page
-- is found by rank in one set, and by bisection over counts in several.
local status, kind, offset, limit = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local function index(word) return INDEX .. word .. (kind ~= '' and ':' .. kind or '') end
local function newest_first(a, b) return tonumber(a) > tonumber(b) end

-- The running jobs that match; only the in-progress lists know them, and those are short. An id can stand in
-- them twice: a job that was cancelled in a fetcher's hand and sent back leaves its old entry behind until the next take.
local function running()
  local ids, seen = {}, {}
  for _, server in ipairs(call('HKEYS', SERVERS)) do
    for _, id in ipairs(call('LRANGE', IN_PROGRESS .. server, 0, -1)) do
      local job = read(id, 'status', 'type')
      if not seen[id] and job[1] == 'processing' and (kind == '' or job[2] == kind) then ids[#ids + 1] = id end
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
  local ids = running()
  return #ids, slice(ids, offset, limit)
end

-- Queued jobs are the ready ones without the running ones: skip as many places as running jobs stand before the page.
local function page_of_queued()
  local set, ids, is_running, from = index(READY), running(), {}, offset
  for _, id in ipairs(ids) do
    is_running[id] = true
    local rank = call('ZREVRANK', set, id)
    if rank and rank <= from then from = from + 1 end
  end
  local page = {}
  for _, id in ipairs(call('ZREVRANGE', set, digits(from), digits(from + limit + #ids - 1))) do
    if not is_running[id] and #page < limit then page[#page + 1] = id end
  end
  return call('ZCARD', set) - #ids, page
end

local function page_of_one(set)
  return call('ZCARD', set), call('ZREVRANGE', set, digits(offset), digits(offset + limit - 1))
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
  if offset >= total then return total, {} end
  -- The largest id with more than `offset` ids from it upwards: the first of the page.
  while low < high do
    local middle, above = math.ceil((low + high) / 2), 0
    for _, set in ipairs(sets) do above = above + call('ZCOUNT', set, digits(middle), '+inf') end
    if above > offset then low = middle else high = middle - 1 end
  end
  local ids = {}
  for _, set in ipairs(sets) do
    for _, id in ipairs(call('ZREVRANGEBYSCORE', set, digits(low), '-inf', 'LIMIT', 0, digits(limit))) do ids[#ids + 1] = id end
  end
  table.sort(ids, newest_first)
  return total, slice(ids, 0, limit)
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
local page = {total}
for _, id in ipairs(ids) do
  local fields = redis.pcall('HGETALL', JOB .. id)
  if not fields.err and #fields > 0 then
    table.insert(fields, 1, id)
    page[#page + 1] = fields
  end
end
return page
