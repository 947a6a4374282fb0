-- Finds the jobs of an operation on many jobs, in order of their ids, and looks only at a limited number of jobs. The
-- next call begins above the last id that this one has looked at.
-- ARGV: statuses, separated by spaces, or '' for any; type or ''; tag or ''; queue or ''; a part of the last error or
--       ''; lowest id; an id above the highest one or ''; the newest job of the first call, or '' in the first call; most
--       jobs to look at; if only certain jobs are wanted, their ids in rising order
-- Returns: {the newest job of the first call; the last id that this call has looked at, or 0 if there are no more jobs;
--          ids of matching jobs}
local statuses, job_type, tag, queue, part = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local lowest, most = ARGV[6], tonumber(ARGV[9])
-- Jobs that come after the first call are left alone.
local newest = tonumber(ARGV[8] ~= '' and ARGV[8] or call('GET', LAST_ID) or 0)
local highest = math.min(newest, tonumber(ARGV[7]) and tonumber(ARGV[7]) - 1 or newest)
-- The most bytes of errors that one call reads: a job may have 60 kB of them.
local MOST_BYTES = 1024 * 1024

-- The sorted sets with the jobs of these index words and of this type or tag, and the number of these jobs.
local function sets_of(words, job_type, tag)
  local sets, size = {}, 0
  for _, word in ipairs(words) do
    for _, set in ipairs(index_sets(word, job_type, tag)) do
      local number = call('ZCOUNT', set, lowest, digits(highest))
      if number > 0 then
        sets[#sets + 1] = set
        size = size + number
      end
    end
  end
  return sets, size
end

-- The sets of the narrowest index.
local function narrowest_sets()
  local words, seen = {}, {}
  for status in string.gmatch(statuses == '' and 'scheduled queued retrying completed failed cancelled' or statuses, '%l+') do
    local word = indexed(status)
    if not seen[word] then words[#words + 1] = word end
    seen[word] = true
  end
  local by_type, number = sets_of(words, job_type, '')
  if tag == '' then return by_type end
  local by_tag, tagged = sets_of(words, '', tag)
  return job_type ~= '' and number < tagged and by_type or by_tag
end

-- The ids at which this call may look.
local ids = {}
if ARGV[10] then
  for i = 10, #ARGV do
    local id = tonumber(ARGV[i])
    if id >= tonumber(lowest) and id <= highest and #ids <= most then ids[#ids + 1] = ARGV[i] end
  end
else
  ids = merged(narrowest_sets(), false, lowest, most + 1)
  while ids[1] and tonumber(ids[#ids]) > highest do ids[#ids] = nil end
end

-- The message of the last error in the field `errors`.
local function last_message(errors)
  local message = string.match(errors, '^.*\n%d+ %d+ %w+ (.*)$') or string.match(errors, '^%d+ %d+ %w+ (.*)$')
  local is_json, list = pcall(cjson.decode, '[' .. (message or '') .. ']')
  return is_json and type(list[1]) == 'string' and list[1] or ''
end

local looked, bytes, found = 0, 0, {digits(newest), '0'}
while looked < math.min(#ids, most) and bytes < MOST_BYTES do
  looked = looked + 1
  local id = ids[looked]
  local job = read(id, 'status', 'type', 'queue', 'tags')
  local matches = job[1] and is_one_of(statuses, job[1]) and (job_type == '' or job[2] == job_type)
    and (tag == '' or has_tag(job[4], tag)) and (queue == '' or (job[3] or DEFAULT_QUEUE) == queue)
  if matches and part ~= '' then
    local errors = read(id, 'errors')[1] or ''
    bytes = bytes + #errors
    matches = string.find(last_message(errors), part, 1, true) ~= nil
  end
  if matches then found[#found + 1] = id end
end
if looked < #ids then found[2] = ids[looked] end
return found
