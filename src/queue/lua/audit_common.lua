-- The rules of the doctor's scripts: what is right, and what is wrong. linker.rs puts those that a script calls behind common.lua.
-- Keys are full names. A key of a wrong type counts as empty: data that was modified outside threadq must not stop a
-- check. A list up to the length SHORT is read as a whole; of a longer list only that many entries at its ends or
-- around an index.

-- The tombstone in place of an entry that was removed from the middle of a long list, where removing it would take
-- too long. No job has this id; a script that meets a tombstone drops it.
local TOMBSTONE = '0'

local KNOWN = {scheduled = true, queued = true, processing = true, retrying = true, completed = true, failed = true,
  cancelled = true}

local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then return false end
  return answer
end

-- The part of a key behind `start`, or false if the key does not begin with it.
local function rest(key, start)
  return string.sub(key, 1, #start) == start and string.sub(key, #start + 1)
end

local function is_list(key) return rest(key, WORK) or rest(key, IN_PROGRESS) or key == COMPLETED end

-- The queue of a list of ready jobs, or false.
local function queue_of(key)
  local name = rest(key, WORK)
  return name and (string.match(name, '^(.*)' .. SUSPECTS .. '$') or name)
end

-- The number of tombstones with this id in the lists of a queue.
local function tombstones_of(queue, id) return tonumber(try('HGET', TOMBSTONES .. queue, id) or 0) or 0 end

-- The ids in a list, each with its indexes (from the left, 0 first). Of a long list only those at both ends, where
-- entries are pushed. A list is read once per call; `spent` counts the entries that were read.
local spent, lists = 0, {}
local function entries(key)
  if lists[key] then return lists[key] end
  local length, ids = try('LLEN', key) or 0, {}
  local function add(from, to)
    local page = try('LRANGE', key, digits(from), digits(to)) or {}
    for i, id in ipairs(page) do
      ids[id] = ids[id] or {}
      table.insert(ids[id], from + i - 1)
    end
    spent = spent + #page
  end
  if length <= SHORT then
    add(0, length)
  else
    add(0, SHORT / 2 - 1)
    add(length - SHORT / 2, length)
  end
  lists[key] = ids
  return ids
end

-- The indexes of an id in a list; in a long list only near `hint`, its distance from the right end when the scan met
-- it. Entries are taken from that end, so the id may be nearer to it now.
local function places(key, id, hint)
  local length = try('LLEN', key) or 0
  if length <= SHORT then return entries(key)[id] or {} end
  local seen, found = length - 1 - tonumber(hint), {}
  local from = math.max(0, seen - 64)
  local page = try('LRANGE', key, digits(from), digits(seen + SHORT / 2)) or {}
  for i, entry in ipairs(page) do
    if entry == id then found[#found + 1] = from + i - 1 end
  end
  spent = spent + #page
  return found
end

-- Whether the type index has this id, and listings of all types read that part of the index.
local function is_in_type_index(id, word, job_type)
  return try('ZREVRANK', TYPES, job_type) and try('ZSCORE', TYPE_INDEX .. word .. ':' .. job_type, id)
end

-- The word that a job needs in the agenda, and when it is due at the latest, in ms; or nil. While the job runs, the word for
-- its expiry may be there or not. due.lua puts off the word of an attempt that has timed out by 2 s.
local function agenda_word(id)
  local job = read(id, 'status', 'ties', 'expires_at', 'finished_at', 'retain_ms', 'server', 'lease_until')
  if job[1] == 'processing' and job[6] == PULL then
    return 'lease:' .. id, math.max(stored_number(job[7]) or 0, now_ms() + 2000)
  elseif is_tied(job[2], 'R') and is_final(job[1]) then
    return 'forget:' .. id, (stored_number(job[4]) or 0) + own_retention(job[5])
  elseif is_tied(job[2], 'X') and not is_final(job[1]) and job[1] ~= 'processing' and stored_number(job[3]) then
    return 'expire:' .. id, stored_number(job[3])
  end
end

-- Whether the agenda has a word of no use: its job or schedule does not exist, or does not need the word.
local function is_word_stale(word)
  local kind, rest_of_word = string.match(word, '^(%l+):(.*)$')
  if kind == 'tick' then return try('EXISTS', SCHEDULE .. rest_of_word) ~= 1 end
  if kind == 'limit' then return try('EXISTS', HOLDS .. rest_of_word) ~= 1 end
  if kind ~= 'expire' and kind ~= 'forget' and kind ~= 'lease' then return false end
  local job = read(rest_of_word, 'status', 'ties', 'server')
  if kind == 'lease' then return job[1] ~= 'processing' or job[3] ~= PULL end
  if kind == 'forget' then return not (is_final(job[1]) and is_tied(job[2], 'R')) end
  return not job[1] or is_final(job[1]) or not is_tied(job[2], 'X')
end

-- Whether a schedule has a next tick, but no word in the agenda.
local function lacks_tick(name)
  return try('HGET', SCHEDULE .. name, 'next') and not try('ZSCORE', AGENDA, 'tick:' .. name)
end

-- The tags of a job that lack their entry in the index.
local function missing_tags(id)
  local job, missing = read(id, 'status', 'ties', 'tags'), {}
  if not job[1] or not is_tied(job[2], 'T') then return missing end
  for tag in string.gmatch(job[3] or '', '[^\n]+') do
    if not try('ZSCORE', TAG_INDEX .. indexed(job[1]) .. ':' .. tag, id) then missing[#missing + 1] = tag end
  end
  return missing
end

-- The state and the limit of the field `blocked`: see limits.lua.
local function parts_of_blocked(blocked) return string.match(blocked or '', '^(%l+) %d+ (.*)$') end

-- Whether a queued job waits for room in a limit: then the job has no entry in a list.
local function is_held(id)
  local job = read(id, 'status', 'queue', 'blocked')
  local state, limit = parts_of_blocked(job[3])
  return job[1] == 'queued' and state == 'held'
    and try('ZSCORE', HELD .. (job[2] or DEFAULT_QUEUE) .. ':' .. limit, id)
end

-- Whether a job may have this score in the slots of a limit.
local function may_have_slot(id, limit, score)
  local job = read(id, 'status', 'blocked', 'limits')
  local limits = '\n' .. (job[3] or '') .. '\n'
  local function place(name) return string.find(limits, '\n' .. name .. '\n', 1, true) end
  local own, state, waits_for = place(limit), parts_of_blocked(job[2])
  if job[1] == 'processing' then return own and score == 'inf' end
  local until_then = job[1] == 'queued' and own and waits_for and place(waits_for)
  if not until_then then return false end
  -- A job that waits keeps its slots of the limits before that one; a job that was sent on keeps places for a time.
  if state == 'held' then return score == 'inf' and own < until_then end
  return score ~= 'inf' and own <= until_then
end

-- The limit that a key or an entry is about, and the queue of a set of waiting jobs.
local function limit_of(key, id)
  if key == WAITING_LIMITS then return id end
  local queue, limit = string.match(rest(key, HELD) or '', '^([^:]*):(.*)$')
  if queue then return limit, queue end
  return rest(key, HOLDS) or rest(key, SLOTS)
end

-- A limit with more kept places, and queues with jobs that wait for more limits, are not counted: it would take too long.
local MOST_COUNTED = 2000

-- By queue, how many jobs were sent on under a limit and not taken yet, by their kept places: 0 for a queue whose jobs
-- only wait. Returns nil if there are too many.
local function count_sent(limit, queue)
  local ids = try('ZRANGEBYSCORE', SLOTS .. limit, '-inf', '(inf', 'WITHSCORES', 'LIMIT', 0, digits(MOST_COUNTED)) or {}
  if #ids == 2 * MOST_COUNTED then return nil end
  local numbers = {}
  for i = 1, #ids, 2 do
    if may_have_slot(ids[i], limit, ids[i + 1]) then
      local queue_of_job = read(ids[i], 'queue')[1] or DEFAULT_QUEUE
      numbers[queue_of_job] = (numbers[queue_of_job] or 0) + 1
    end
  end
  local queues = try('ZRANGE', HOLDS .. limit, 0, -1) or {}
  queues[#queues + 1] = queue
  for _, name in ipairs(queues) do
    if try('EXISTS', HELD .. name .. ':' .. limit) == 1 then numbers[name] = numbers[name] or 0 end
  end
  return numbers
end

-- Whether the numbers of a limit differ from what is counted: those in holds:<limit>, or, for another key or an entry of
-- waiting_limits, whether there are numbers at all.
local function is_limit_miscounted(key, id)
  local limit, queue = limit_of(key, id)
  local stored = try('ZRANGE', HOLDS .. limit, 0, -1, 'WITHSCORES') or {}
  if key == WAITING_LIMITS then return #stored == 0 end
  if queue then return not try('ZSCORE', HOLDS .. limit, queue) end
  local is_own = rest(key, HOLDS)
  if is_own and not try('ZSCORE', WAITING_LIMITS, limit) then return true end
  local numbers = (is_own or #stored == 0) and count_sent(limit)
  if not numbers then return false end
  for i = 1, #stored, 2 do
    if numbers[stored[i]] ~= tonumber(stored[i + 1]) then return true end
    numbers[stored[i]] = nil
  end
  return next(numbers) ~= nil
end

-- How many jobs of each queue wait for room, by the sets of all limits. Returns nil if there are too many limits.
local function count_held()
  local limits, numbers = try('ZRANGE', WAITING_LIMITS, 0, digits(MOST_COUNTED)) or {}, {}
  if #limits > MOST_COUNTED then return nil end
  for _, limit in ipairs(limits) do
    for _, queue in ipairs(try('ZRANGE', HOLDS .. limit, 0, -1) or {}) do
      local number = try('ZCARD', HELD .. queue .. ':' .. limit) or 0
      if number > 0 then numbers[queue] = (numbers[queue] or 0) + number end
    end
  end
  return numbers
end

-- Whether the numbers of waiting jobs differ from what is counted.
local function is_held_miscounted()
  local numbers = count_held()
  if not numbers then return false end
  local stored = try('HGETALL', HELD_COUNT) or {}
  for i = 1, #stored, 2 do
    if numbers[stored[i]] ~= tonumber(stored[i + 1]) then return true end
    numbers[stored[i]] = nil
  end
  return next(numbers) ~= nil
end

-- Whether a limit with jobs that wait or were sent on is not looked at again.
local function lacks_look(limit)
  return try('EXISTS', HOLDS .. limit) == 1 and not try('ZSCORE', AGENDA, 'limit:' .. limit)
end

-- The fault of an entry of a list or set: dangling | misplaced | index_stale | cancel_stale | agenda_stale
-- | tick_missing | agenda_missing | limit_miscounted | slot_stale, or nil.
local function entry_fault(key, id)
  if key == AGENDA then return is_word_stale(id) and 'agenda_stale' or nil end
  if key == SCHEDULES then return lacks_tick(id) and 'tick_missing' or nil end
  if key == WAITING_LIMITS then
    if lacks_look(id) then return 'agenda_missing' end
    return is_limit_miscounted(key, id) and 'limit_miscounted' or nil
  end
  if rest(key, SLOTS) then
    return not may_have_slot(id, rest(key, SLOTS), try('ZSCORE', key, id)) and 'slot_stale' or nil
  end
  local job = read(id, 'status', 'type', 'server', 'queue', 'crashes', 'cancel')
  local status = job[1]
  if id == TOMBSTONE and is_list(key) then return nil end
  local queue = queue_of(key)
  if queue and tombstones_of(queue, id) > 0 then return nil end
  local index, type_index, cancels = rest(key, INDEX), rest(key, TYPE_INDEX), rest(key, CANCELS)
  local tag_index = rest(key, TAG_INDEX)
  if tag_index then
    local word, tag = string.match(tag_index, '^([^:]*):(.*)$')
    local ties, tags = unpack(read(id, 'ties', 'tags'))
    if not status or word ~= indexed(status) or not is_tied(ties, 'T') or not has_tag(tags, tag)
      or tonumber(try('ZSCORE', key, id) or 0) ~= tonumber(id) then return 'index_stale' end
    return nil
  elseif index or type_index then
    local word, job_type = string.match(index or type_index, '^([^:]*):?(.*)$')
    if not status or word ~= indexed(status) or (job_type ~= '' and job_type ~= job[2])
      or tonumber(try('ZSCORE', key, id) or 0) ~= tonumber(id) then return 'index_stale' end
    -- A job in the type index is in no other index.
    local in_type_index = is_in_type_index(id, word, job[2])
    if (index and in_type_index) or (type_index and not in_type_index) then return 'index_stale' end
    return nil
  elseif cancels then
    if status ~= 'processing' or job[3] ~= cancels or not job[6] then return 'cancel_stale' end
    return nil
  elseif not status then
    -- A deleted job keeps its entry in the list of completed jobs.
    if key == COMPLETED then return nil end
    return 'dangling'
  end
  local fits
  if rest(key, HELD) then
    local limit, held_queue = limit_of(key)
    local state, waits_for = parts_of_blocked(read(id, 'blocked')[1])
    fits = status == 'queued' and state == 'held' and waits_for == limit and held_queue == (job[4] or DEFAULT_QUEUE)
  elseif key == SCHEDULED then
    fits = status == 'scheduled' or status == 'retrying'
  elseif key == DLQ then
    fits = status == 'failed'
  elseif key == DONE then
    fits = status == 'completed' or status == 'cancelled'
  elseif key == COMPLETED then
    fits = status == 'completed'
  elseif rest(key, WORK) then
    -- Any job with a crash may be quarantined, since each server has its own setting max-crashes.
    local list = WORK .. (job[4] or DEFAULT_QUEUE)
    fits = status == 'queued' and not is_held(id)
      and (key == list or (key == list .. SUSPECTS and (tonumber(job[5]) or 0) > 0))
  else
    -- BRPOPLPUSH has moved a queued job here; it is not started yet. Pull workers have only jobs that are started.
    local server = rest(key, IN_PROGRESS)
    fits = (status == 'queued' and server ~= PULL) or (status == 'processing' and job[3] == server)
  end
  if not fits then return 'misplaced' end
end

-- Whether a job with this status should be in an index of its type and is in none.
local function is_unindexed(id, status, job_type)
  local word = indexed(status)
  local in_index = try('ZSCORE', INDEX .. word, id) and try('ZSCORE', INDEX .. word .. ':' .. job_type, id)
  return not in_index and not is_in_type_index(id, word, job_type)
end

-- The faults of a job: stranded | unlisted | index_missing | unique_missing | agenda_missing; and `held`, which is none, of
-- a queued job that waits for room in a limit. Whether another queued job is stranded is not checked here, since that
-- takes a walk through all lists. A completed job is right if it is in the list of completed
-- jobs, although it is `unlisted` here.
local function job_faults(id)
  local job = read(id, 'status', 'type', 'server', 'unique_key', 'ties')
  local status, job_type, server, unique, ties = job[1], job[2], job[3], job[4], job[5]
  local faults = {}
  if not KNOWN[status] or not job_type then return faults end
  if is_tied(ties, 'L') and is_held(id) then faults.held = true end
  if status == 'scheduled' or status == 'retrying' then
    if not try('ZSCORE', SCHEDULED, id) then faults.stranded = true end
  elseif status == 'processing' then
    -- Pull workers may have 10,000 jobs: entries() reads only the ends of their list.
    local is_listed = server and (server == PULL and try('LPOS', IN_PROGRESS .. PULL, id) or entries(IN_PROGRESS .. server)[id])
    if not is_listed then faults.stranded = true end
  elseif is_final(status) then
    if not try('ZSCORE', status == 'failed' and DLQ or DONE, id) then faults.unlisted = true end
  end
  if is_unindexed(id, status, job_type) or #missing_tags(id) > 0 then faults.index_missing = true end
  -- A key that is held until the start or for a fixed time may be free.
  local may_be_free = is_final(status) or is_tied(ties, 'S') or is_tied(ties, 'W')
  if unique and not may_be_free and try('GET', UNIQUE .. unique) ~= id then faults.unique_missing = true end
  local word, due = agenda_word(id)
  if word and (tonumber(try('ZSCORE', AGENDA, word) or 'inf') > due) then faults.agenda_missing = true end
  return faults
end

-- Whether a log has no job, or more lines than its job has had or keeps.
local function is_log_stale(key)
  local job, length = read(rest(key, LOG), 'status', 'log_last'), try('LLEN', key) or 0
  return length > 0 and (not job[1] or length > math.min(stored_number(job[2]) or 0, 1000))
end

-- Whether the holder of a unique key is a live job with that key. A key that is held for a fixed time ends by itself.
local function holds(holder, unique)
  if not holder then return false end
  if string.find(holder, ':w', 1, true) then return true end
  local job = read(holder, 'status', 'unique_key', 'ties', 'starts')
  return job[1] and not is_final(job[1]) and job[2] == unique and not (job[4] and is_tied(job[3], 'S'))
end

-- A hash of a job's whole record, to find out whether it has changed since it was checked.
local function fingerprint(id)
  return redis.sha1hex(table.concat(try('HGETALL', JOB .. id) or {}, '\n'))
end
