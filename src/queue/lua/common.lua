-- What several scripts share; scripts.rs puts it in front of each of them, after the key names.
-- Every script takes one key, the registry of servers, only to name the slot to a Redis Cluster.
-- A number goes to Redis as text, through digits(): of the numbers themselves Redis makes texts that differ by its version
-- (1.8e+12), and Lua's own '..' rounds those of more than 14 digits, as ids are. Only 0, 1, 2 and -1 may stand as they are.

local call, try_call = redis.call, redis.pcall

-- Redis's clock in milliseconds: the only clock that decides anything.
local function now_ms()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- A whole number in digits. In two halves: Lua's own ways round it, or take five times as long.
local function digits(number)
  if number < 1e8 then return string.format('%d', number) end
  return string.format('%d%08d', math.floor(number / 1e8), number % 1e8)
end

-- A job's fields, each false where it is missing. All false for a key that is gone or no hash: such an entry is
-- nobody's job, and must never stop a script half-way (Lua has no rollback). Nor must a field that is missing or
-- damaged: hence `tonumber(field) or 0`.
local function read(id, ...)
  local fields = try_call('HMGET', JOB .. id, ...)
  if fields.err then return {} end
  return fields
end

-- A text as fields and values: name, text. Redis keeps a hash compact only while no value in it is longer than 64 bytes, so
-- a short text is spread over pieces: name, name:1, name:2, ..; each is whole UTF-8.
local PIECE, SHORT_TEXT = 64, 1024
local function in_pieces(name, text, piece)
  local field = piece and name .. ':' .. digits(piece) or name
  if #text <= PIECE or (not piece and #text > SHORT_TEXT) then return field, text end
  local size, next = PIECE, string.byte(text, PIECE + 1)
  while next >= 128 and next < 192 and size > 1 do
    next, size = string.byte(text, size), size - 1
  end
  return field, string.sub(text, 1, size), in_pieces(name, string.sub(text, size + 1), (piece or 0) + 1)
end

local function is_final(status)
  return status == 'completed' or status == 'failed' or status == 'cancelled'
end

-- The word in the index for a status.
local function indexed(status)
  if status == 'queued' or status == 'processing' then return READY end
  return status
end

-- The index takes all jobs of one type at once: most of what a command costs is the call from Lua.
local function index_add(ids, kind, status)
  local key, scored, n = INDEX .. indexed(status), {}, #ids
  for i = 1, n do scored[2 * i - 1], scored[2 * i] = ids[i], ids[i] end
  call('ZADD', key, unpack(scored))
  if kind then call('ZADD', key .. ':' .. kind, unpack(scored)) end
end

local function index_remove(ids, kind, status)
  local key = INDEX .. indexed(status)
  call('ZREM', key, unpack(ids))
  if kind then call('ZREM', key .. ':' .. kind, unpack(ids)) end
end

local function index_move(ids, kind, from, to)
  if indexed(from) ~= indexed(to) then
    index_remove(ids, kind, from)
    index_add(ids, kind, to)
  end
end

-- The list where a job that becomes ready waits. Whether a job is on its last chance is decided when it is taken (start_jobs.lua).
-- The name of the queue is noted again: while the queue was empty it may have been forgotten.
local function fill_list(queue)
  queue = queue or DEFAULT_QUEUE
  call('SADD', QUEUES, queue)
  return WORK .. queue
end

-- A list that is longer is not searched: to take one entry out of 1,000,000 holds up Redis for 80 ms.
local SHORT = 2048

-- Leaves an entry in a list of a queue where it stands for no job any more.
local function leave_entry(queue, id)
  local key = TOMBSTONES .. (queue or DEFAULT_QUEUE)
  call('HINCRBY', key, id, 1)
  call('HINCRBY', key, 'all', 1)
end

-- An entry is dropped: whether it was one of those that were left.
local function forget_entry(queue, id)
  local key = TOMBSTONES .. (queue or DEFAULT_QUEUE)
  local number = tonumber(call('HGET', key, id) or 0) or 0
  if number < 1 then return false end
  if number == 1 then call('HDEL', key, id) else call('HINCRBY', key, id, -1) end
  if call('HINCRBY', key, 'all', -1) < 1 then call('DEL', key) end
  return true
end

-- How many entries of the lists of a queue stand there for no job.
local function entries_left(queue) return tonumber(call('HGET', TOMBSTONES .. queue, 'all') or 0) or 0 end

-- Whether one more crash is a job's last. Such a job (a suspect) runs alone. A job without a crash on its record is none,
-- or no two jobs would ever run side by side where one crash is the limit.
local function is_last_chance(crashes, max_crashes)
  crashes = tonumber(crashes) or 0
  return crashes > 0 and crashes + 1 >= max_crashes
end

-- The last 10 errors, one a line: attempt, ms, the number of its start (with a c behind it for a crash), message as a JSON
-- string (so that it has no line break). Starts are never counted from 1 again, as attempts are after a person's retry.
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

-- Ends a job: completed, failed or cancelled, with everything that hangs on it. `from` is its status until now; the
-- fields behind are set besides.
local function finish(id, kind, from, to, at, unique_key, ...)
  call('HSET', JOB .. id, 'status', to, 'finished_at', at, ...)
  index_move({id}, kind, from, to)
  call('ZADD', to == 'failed' and DLQ or DONE, at, id)
  release_unique(id, unique_key)
end

-- The servers that are alive, of all entries of the registry: {server, started_at, workers, busy, ms since its last beat}.
local function living(all, now)
  local servers = {}
  for i = 1, #all, 2 do
    if string.sub(all[i + 1], 1, 1) ~= 'D' then
      local facts = call('HMGET', SERVER .. all[i], 'started_at', 'workers', 'busy', 'beat_at')
      servers[#servers + 1] = {all[i], tonumber(facts[1] or 0), tonumber(facts[2] or 0), tonumber(facts[3] or 0),
        now - tonumber(facts[4] or now)}
    end
  end
  return servers
end

-- Ids by a word, in the order in which they came.
local function put(groups, word, id)
  local ids = groups[word]
  if ids then ids[#ids + 1] = id else groups[word] = {id} end
end

-- Remembers an id that stood in a list and has no job behind it; not the gap that a repair has left (audit_common.lua).
local function note_lost(id, at)
  if id == '0' then return end
  call('ZADD', LOST, at, id)
  call('ZREMRANGEBYRANK', LOST, 0, '-10001')
end

-- Whether a server may still take and beat. One that Redis does not know (it lost its data, or the server was stopped for
-- longer than the dead are remembered) counts as dead from now on: a BRPOPLPUSH of it may still move a job into its list,
-- and only the lists of known servers are watched. `beat` is for who knows its entry already, false if there is none.
local function is_registered(server, beat)
  if beat == nil then beat = call('HGET', SERVERS, server) end
  if not beat then call('HSET', SERVERS, server, 'D' .. digits(now_ms())) end
  return beat and string.sub(beat, 1, 1) ~= 'D'
end
