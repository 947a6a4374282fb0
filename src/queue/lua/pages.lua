-- Functions about pages of jobs and the order of a queue; linker.rs puts those that a script calls behind ties.lua.

-- A payload or result that is longer (in bytes) is left out of a page.
local LARGE_TEXT = 16 * 1024
-- The most bytes of a page as JSON: a little less than 4 MiB.
local MOST_PAGE_BYTES = 4 * 1024 * 1024 - 4096
-- A shorter text always stays.
local SHORT_TEXT = 1024
-- The most bytes of a job besides its large texts, and of its last error, which the page shows twice.
local OTHER_BYTES, LAST_ERROR_BYTES = 6 * 1024, 6 * 1024

-- The length of a text of a job.
local function text_length(id, name)
  local number = try_call('HSTRLEN', JOB .. id, name)
  return type(number) == 'number' and number or 0
end

-- The lengths of the texts of a job that the page shows.
local function text_lengths(id)
  local lengths = {errors = text_length(id, 'errors')}
  for _, name in ipairs({'payload', 'result'}) do
    lengths[name] = text_length(id, name)
    if lengths[name] > LARGE_TEXT then lengths[name] = nil end
  end
  return lengths
end

local function bytes_of_job(lengths)
  local errors = lengths.errors
  return OTHER_BYTES + (lengths.payload or 0) + (lengths.result or 0) + errors + math.min(errors, LAST_ERROR_BYTES)
end

-- The fields and values of a job without the texts that are left out; the names of those texts come first. Of errors
-- the last one stays; a checkpoint never stays.
local function shown_record(id, shown)
  local omitted = {}
  if text_length(id, 'checkpoint') > 0 then omitted[1] = 'checkpoint' end
  for _, name in ipairs({'payload', 'result', 'errors'}) do
    if not shown[name] then omitted[#omitted + 1] = name end
  end
  local fields = {id, table.concat(omitted, ' ')}
  if #omitted == 0 then
    local all = try_call('HGETALL', JOB .. id)
    -- An error has no fields.
    for i = 1, #all do fields[i + 2] = all[i] end
  else
    for _, name in ipairs(call('HKEYS', JOB .. id)) do
      if (name ~= 'payload' and name ~= 'result' and string.sub(name, 1, 10) ~= 'checkpoint') or shown[name] then
        local value = call('HGET', JOB .. id, name)
        if name == 'errors' and not shown[name] then value = string.match(value, '^.*\n(.*)$') or value end
        fields[#fields + 1], fields[#fields + 2] = name, value
      end
    end
  end
  return fields
end

-- Adds the records of these jobs to a page. Large texts are left out.
local function add_jobs(page, ids)
  local lengths, sum = {}, 0
  for i, id in ipairs(ids) do
    lengths[i] = text_lengths(id)
    sum = sum + bytes_of_job(lengths[i])
  end
  -- If the page is too large, each job gets an equal share of it.
  if sum > MOST_PAGE_BYTES then
    for i = 1, #ids do
      for _, name in ipairs({'result', 'payload', 'errors'}) do
        local is_long = (lengths[i][name] or 0) > SHORT_TEXT
        if is_long and bytes_of_job(lengths[i]) > MOST_PAGE_BYTES / #ids then lengths[i][name] = nil end
      end
    end
  end
  for i, id in ipairs(ids) do
    local fields = shown_record(id, lengths[i])
    if #fields > 2 then page[#page + 1] = fields end
  end
end

-- The most entries of a list that are searched for tombstones: 10,000 would take 20 ms.
local MOST_SEARCHED = 2000

-- The entries of a list in the order in which they are taken: `number` of them, behind the first `skipped` ones.
local function next_entries(list, skipped, number)
  local entries = {}
  if number < 1 then return entries end
  local ids = call('LRANGE', list, digits(-skipped - number), digits(-skipped - 1))
  for i = #ids, 1, -1 do entries[#entries + 1] = ids[i] end
  return entries
end

-- These entries of a queue, in the order in which they are taken, without tombstones.
local function without_tombstones(queue, ids)
  if count_tombstones(queue) == 0 then return ids end
  local left, met = {}, {}
  for from = 1, #ids, 1000 do
    local to = math.min(from + 999, #ids)
    local numbers = call('HMGET', TOMBSTONES .. queue, unpack(ids, from, to))
    for i = from, to do
      local id, number = ids[i], numbers[i - from + 1]
      if number then met[id] = (met[id] or 0) + 1 end
      if not number or met[id] > (tonumber(number) or 0) then left[#left + 1] = id end
    end
  end
  return left
end
