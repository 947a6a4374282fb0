-- Functions that scripts share; linker.rs puts those that a script calls in front of the script.
-- Each call names two keys: the registry of servers, which tells a Redis Cluster the slot, and a key that never exists,
-- for which Redis refuses the call while the slot moves to another node.
-- A number goes to Redis as text, made by digits(): versions of Redis write numbers in different ways (1.8e+12), and
-- Lua's '..' rounds a number of more than 14 digits, such as an id. Only 0, 1, 2 and -1 need no digits().

local call, try_call = redis.call, redis.pcall

-- Redis's clock in ms since 1970: the only clock that decides anything. `time` is a reply to TIME.
local function ms_of(time) return time[1] * 1000 + math.floor(time[2] / 1000) end
local function now_ms() return ms_of(call('TIME')) end

-- A whole number in digits. In two halves, since Lua's own functions round it or take five times as long.
local function digits(number)
  if number < 1e8 then return string.format('%d', number) end
  return string.format('%d%08d', math.floor(number / 1e8), number % 1e8)
end

-- Reads fields of a job; a missing field is false. If the key does not exist or is not a hash, all fields are missing.
-- A script must never stop half-way at such an entry, since Lua has no rollback. Nor must it stop at a missing or
-- damaged field: hence `tonumber(field) or 0`.
local function read(id, ...)
  local fields = try_call('HMGET', JOB .. id, ...)
  if fields.err then return {} end
  return fields
end

-- Deletes a text of a job, which may be stored in pieces (see record.rs).
local function delete_text(id, name)
  local pieces = {name}
  for i = 1, 15 do pieces[i + 1] = name .. ':' .. i end
  call('HDEL', JOB .. id, unpack(pieces))
end

local function is_final(status)
  return status == 'completed' or status == 'failed' or status == 'cancelled'
end

-- Whether a status is among these statuses, which are separated by spaces; '' means any. No status is a part of another.
local function is_one_of(statuses, status)
  return statuses == '' or string.find(statuses, status, 1, true) ~= nil
end

-- A number of a record, or nil if the field is missing or damaged. A number that Redis refuses as a score would end a script
-- half-way.
local function stored_number(text)
  local number = tonumber(text)
  return number and number >= 0 and number < 9007199254740992 and number or nil
end

-- Whether a text is a valid id or fencing token: 1 to 2^53 - 1 in plain digits.
local function is_id(entry)
  local is_small = #entry < 16 or (#entry == 16 and entry < '9007199254740992')
  return is_small and string.find(entry, '^[1-9]%d*$')
end

-- The log lines that a job gets in a second.
local MOST_A_SECOND = 100

-- Of the last second in which a job got log lines: the second, how many lines are stored, how many are missing.
local function log_window(text)
  local second, stored, missing = string.match(text or '', '^(%d+) (%d+) (%d+)$')
  return stored_number(second) or 0, stored_number(stored) or 0, stored_number(missing) or 0
end

-- The log line that says how many lines of a second are missing. The line is shown and stored after its second, since the
-- number may grow until then.
local function missing_lines(second, missing)
  return digits(second * 1000 + 999) .. ' ' .. digits(missing) .. ' lines are missing: more than ' .. digits(MOST_A_SECOND) .. ' in a second'
end

-- Whether an entry of the registry is that of a living server: D begins that of a dead one, and P is that of PULL.
local function is_living(beat) return not string.find(beat, '^[DP]') end

-- Whether the ties of a job have this letter, see ties.lua.
local function is_tied(ties, letter) return ties and string.find(ties, letter, 1, true) end

-- Whether the server keeps the name of a limit for itself.
local function is_reserved(limit) return string.find(limit, 'threadq.', 1, true) == 1 end

-- The word of a status in the index.
local function indexed(status)
  if status == 'queued' or status == 'processing' then return READY end
  return status
end

-- The index of jobs of this type: 'type', 'all', or 'new' if this type has to be added to the types with an index of
-- their own. A type gets one, unless there are too many types already, or a server of version 0.6 or older is alive, which
-- does not know this index. A listing reads up to six sets per type, so that many types would block Redis for long.
-- `added` is the number of types that the script will add.
local MOST_TYPES = 16
local function index_of(job_type, added)
  if not job_type then return 'all' end
  if call('ZREVRANK', TYPES, job_type) then return 'type' end
  if call('ZCARD', TYPES) + (added or 0) >= MOST_TYPES then return 'all' end
  local servers = call('HGETALL', SERVERS)
  for i = 1, #servers, 2 do
    -- As is_living, which would cost each script that adds a job to an index.
    if not string.find(servers[i + 1], '^[DP]') and not call('HGET', SERVER .. servers[i], 'version') then return 'all' end
  end
  return 'new'
end

-- Adds jobs of one type and status to their index, all in one command: most of its cost is the call from Lua.
local function index_add(ids, job_type, status, index)
  local word, scored = indexed(status), {}
  for i = 1, #ids do scored[2 * i - 1], scored[2 * i] = ids[i], ids[i] end
  index = index or index_of(job_type)
  if index == 'new' then call('ZADD', TYPES, 0, job_type) end
  if index ~= 'all' then
    call('ZADD', TYPE_INDEX .. word .. ':' .. job_type, unpack(scored))
  else
    call('ZADD', INDEX .. word, unpack(scored))
    if job_type then call('ZADD', INDEX .. word .. ':' .. job_type, unpack(scored)) end
  end
end

-- Removes jobs of one type and status from their index. Returns 'type' if all were in the type index, otherwise nil.
local function index_remove(ids, job_type, status)
  local word, found = indexed(status), 0
  if job_type then found = call('ZREM', TYPE_INDEX .. word .. ':' .. job_type, unpack(ids)) end
  if found == #ids then return 'type' end
  call('ZREM', INDEX .. word, unpack(ids))
  if job_type then call('ZREM', INDEX .. word .. ':' .. job_type, unpack(ids)) end
end

local function index_move(ids, job_type, from, to)
  if indexed(from) ~= indexed(to) then index_add(ids, job_type, to, index_remove(ids, job_type, from)) end
end

-- The sorted sets that together have all jobs of an index word, each job once: with a tag, or of one type, or of all
-- types if both are ''. A script reads the names of the types once.
local type_names
local function index_sets(word, job_type, tag)
  if tag and tag ~= '' then return {TAG_INDEX .. word .. ':' .. tag} end
  if job_type ~= '' then return {TYPE_INDEX .. word .. ':' .. job_type, INDEX .. word .. ':' .. job_type} end
  local sets = {INDEX .. word}
  type_names = type_names or call('ZRANGE', TYPES, 0, -1)
  for _, name in ipairs(type_names) do sets[#sets + 1] = TYPE_INDEX .. word .. ':' .. name end
  return sets
end

-- Whether a text of words with this separator between them has this word. No text has no words.
local function has_word(text, separator, word)
  return text and string.find(separator .. text .. separator, separator .. word .. separator, 1, true) ~= nil
end

-- Whether a job has a tag. `tags` is the field of the job: the tags, joined by newlines.
local function has_tag(tags, tag) return has_word(tags, '\n', tag) end

-- The number of jobs of an index word.
local function index_count(word)
  local number = 0
  for _, set in ipairs(index_sets(word, '')) do number = number + call('ZCARD', set) end
  return number
end

-- The ids of these sets together from the score `first` on, in order of the ids and at most `number`. It reads a few ids
-- of each set at a time: to sort the first `number` ids of 100 sets would block Redis for 50 ms.
local function merged(sets, is_newest_first, first, number)
  local step, fronts, heads, ids = math.ceil(number / math.max(1, #sets)), {}, {}, {}
  -- Reads the next ids of a set from Redis. Returns the next id as a number, or nil at the end of the set.
  local function read_on(front)
    front.ids = call(is_newest_first and 'ZREVRANGEBYSCORE' or 'ZRANGEBYSCORE', front.set, first,
      is_newest_first and '-inf' or '+inf', 'LIMIT', digits(front.skipped), digits(step))
    front.skipped, front.place = front.skipped + step, 1
    return tonumber(front.ids[1])
  end
  for _, set in ipairs(sets) do
    local front = {set = set, skipped = 0}
    local head = read_on(front)
    if head then fronts[#fronts + 1], heads[#heads + 1] = front, head end
  end
  while #ids < number and heads[1] do
    local best, head = 1, heads[1]
    for i = 2, #heads do
      if (heads[i] > head) == is_newest_first then best, head = i, heads[i] end
    end
    local front = fronts[best]
    ids[#ids + 1] = front.ids[front.place]
    front.place = front.place + 1
    head = tonumber(front.ids[front.place]) or read_on(front)
    if head then
      heads[best] = head
    else
      table.remove(fronts, best)
      table.remove(heads, best)
    end
  end
  return ids
end

-- Returns the list for a job that becomes ready; start_jobs.lua decides later whether the job needs quarantine. Adds
-- the name of the queue, which prune_names.lua may have deleted while the queue was empty.
local function fill_list(queue)
  queue = queue or DEFAULT_QUEUE
  call('SADD', QUEUES, queue)
  return WORK .. queue
end

-- Pushes ids of new jobs to the list of a queue, and adds the name of the queue if the list was empty: a list
-- with jobs has its name among the queues already.
local function push_new(queue, ids)
  if call('LPUSH', WORK .. queue, unpack(ids)) == #ids then call('SADD', QUEUES, queue) end
end

-- The number of entries in the lists of a queue.
local function count_entries(queue) return call('LLEN', WORK .. queue) + call('LLEN', WORK .. queue .. SUSPECTS) end

-- The number of jobs of a queue that wait for room in a limit.
local function count_held(queue) return tonumber(call('HGET', HELD_COUNT, queue) or 0) or 0 end

-- The smallest id for a new job, from a reply to TIME: the time in µs, or more if a job has this id or a larger one.
local function first_id(time)
  return math.max(time[1] * 1000000 + time[2], tonumber(call('GET', LAST_ID) or 0) + 1)
end

-- A longer list is not searched: removing one entry from 1,000,000 blocks Redis for 80 ms.
local SHORT = 2048

-- Counts an entry without a job, which stays in a list of the queue, as a tombstone.
local function add_tombstone(queue, id)
  local key = TOMBSTONES .. (queue or DEFAULT_QUEUE)
  call('HINCRBY', key, id, 1)
  call('HINCRBY', key, 'all', 1)
end

-- Counts one tombstone with this id less, if there is one. Returns whether there was one.
local function drop_tombstone(queue, id)
  local key = TOMBSTONES .. (queue or DEFAULT_QUEUE)
  local number = tonumber(call('HGET', key, id) or 0) or 0
  if number < 1 then return false end
  if number == 1 then call('HDEL', key, id) else call('HINCRBY', key, id, -1) end
  if call('HINCRBY', key, 'all', -1) < 1 then call('DEL', key) end
  return true
end

-- The number of tombstones in the lists of a queue.
local function count_tombstones(queue) return tonumber(call('HGET', TOMBSTONES .. queue, 'all') or 0) or 0 end

-- Whether one more crash of a job reaches max_crashes. Then the job is quarantined: it runs alone on a server. A job
-- without a crash is never quarantined; otherwise no two jobs would run at a time where max_crashes is 1.
local function needs_quarantine(crashes, max_crashes)
  crashes = tonumber(crashes) or 0
  return crashes > 0 and crashes + 1 >= max_crashes
end

-- Adds to the last 10 errors of a job, one per line: attempt, ms since 1970, number of the start (followed by c for a
-- crash), message as a JSON string (which has no line break). An operator's retry resets attempts, but never starts.
local function add_error(id, attempt, at, start, message)
  local errors = call('HGET', JOB .. id, 'errors')
  local line = digits(attempt) .. ' ' .. at .. ' ' .. start .. ' ' .. message
  errors = errors and (errors .. '\n' .. line) or line
  local _, breaks = string.gsub(errors, '\n', '\n')
  for _ = 10, breaks do errors = string.sub(errors, string.find(errors, '\n', 1, true) + 1) end
  call('HSET', JOB .. id, 'errors', errors)
end

local function release_unique(id, key)
  if key and call('GET', UNIQUE .. key) == id then call('DEL', UNIQUE .. key) end
end

-- The live servers of all entries of the registry: {server, started_at, workers, busy, ms since its last heartbeat}.
local function living(all, now)
  local servers = {}
  for i = 1, #all, 2 do
    if is_living(all[i + 1]) then
      local facts = call('HMGET', SERVER .. all[i], 'started_at', 'workers', 'busy', 'beat_at')
      servers[#servers + 1] = {all[i], tonumber(facts[1] or 0), tonumber(facts[2] or 0), tonumber(facts[3] or 0),
        now - tonumber(facts[4] or now)}
    end
  end
  return servers
end

-- The time in ms until the next scheduled or retrying job, or the next word of the agenda, is due; -1 if there is none.
local function due_in(now)
  local wait = -1
  for _, set in ipairs({SCHEDULED, AGENDA}) do
    local first = call('ZRANGE', set, 0, 0, 'WITHSCORES')
    local left = first[2] and math.max(0, tonumber(first[2]) - now)
    if left and (wait < 0 or left < wait) then wait = left end
  end
  return wait
end

-- Adds an id to the list of a word.
local function put(groups, word, id)
  local ids = groups[word]
  if ids then ids[#ids + 1] = id else groups[word] = {id} end
end

-- The id of a living server, other than `except`, whose file has this schedule or limit, or nil. `field` is `schedules` or
-- `limits`.
local function server_with(field, name, except)
  local servers = call('HGETALL', SERVERS)
  for i = 1, #servers, 2 do
    if is_living(servers[i + 1]) and servers[i] ~= except and has_word(call('HGET', SERVER .. servers[i], field), '\n', name) then
      return servers[i]
    end
  end
end

-- Records an id that had an entry in a list but has no job. The id '0' is a tombstone of a repair (audit_common.lua).
local function note_lost(id, at)
  if id == '0' then return end
  call('ZADD', LOST, at, id)
  call('ZREMRANGEBYRANK', LOST, 0, '-10001')
end

-- Whether a server is registered and not declared dead. A server that is not in the registry is added as dead: Redis
-- has lost its data, or has forgotten the dead server. Its BRPOPLPUSH may still move a job into its list, and only
-- lists of servers in the registry are checked. `beat` is the server's entry if the caller has read the entry, and
-- false if the server has no entry.
local function is_registered(server, beat)
  if beat == nil then beat = call('HGET', SERVERS, server) end
  if not beat then call('HSET', SERVERS, server, 'D' .. digits(now_ms())) end
  return beat and string.sub(beat, 1, 1) ~= 'D'
end
