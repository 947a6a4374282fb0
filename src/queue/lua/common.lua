-- What several scripts share; scripts.rs puts it in front of each of them, after the key names.
-- Every script takes one key, the registry of servers, only to name the slot to a Redis Cluster.
-- Ids have 16 digits: as numbers they must go through digits(), since Lua's own '..' rounds them.

local call = redis.call

-- The queue of a job whose record names none.
local DEFAULT_QUEUE = 'default'

-- Redis's clock in milliseconds: the only clock that decides anything.
local function now_ms()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- A number in digits: Lua's own way takes longer and rounds.
local function digits(number) return string.format('%.0f', number) end

-- A job's fields, each false where it is missing. All false for a key that is gone or no hash: such an entry is
-- nobody's job, and must never stop a script half-way (Lua has no rollback). Nor must a field that is missing or
-- damaged: hence `tonumber(field) or 0`.
local function read(id, ...)
  local fields = redis.pcall('HMGET', JOB .. id, ...)
  if fields.err then return {} end
  return fields
end

-- Appends a text to fields that are to be set. Redis keeps a hash compact only while no value in it is longer than 64
-- bytes, so a short text is spread over pieces: name, name:1, name:2, ..; each is whole UTF-8.
local PIECE, SHORT_TEXT = 64, 1024
local function append_text(fields, name, text)
  local size, from, piece = #text > SHORT_TEXT and #text or PIECE, 1, 0
  repeat
    local to = math.min(from + size - 1, #text)
    while to < #text and to > from and string.find(text, '^[\128-\191]', to + 1) do to = to - 1 end
    fields[#fields + 1] = piece == 0 and name or name .. ':' .. piece
    fields[#fields + 1] = string.sub(text, from, to)
    from, piece = to + 1, piece + 1
  until from > #text
end

local function is_final(status)
  return status == 'completed' or status == 'failed' or status == 'cancelled'
end

-- The word in the index for a status.
local function indexed(status)
  if status == 'queued' or status == 'processing' then return READY end
  return status
end

-- Writes one or two words to a key. A script for many jobs lets these writes gather, and makes them at its end with one
-- command a key: most of what a command costs is the call from Lua. Such a script has one command for each key, and reads
-- none of them.
local gathered
local function gather() gathered = {} end

local function write(command, key, word, second)
  if not gathered then
    if second then return call(command, key, word, second) end
    return call(command, key, word)
  end
  local words = gathered[key]
  if not words then
    words = {command, key}
    gathered[key], gathered[#gathered + 1] = words, words
  end
  words[#words + 1] = word
  words[#words + 1] = second
end

local function write_gathered()
  for i = 1, #gathered do call(unpack(gathered[i])) end
end

local function index_add(id, kind, status)
  local key = INDEX .. indexed(status)
  write('ZADD', key, id, id)
  if kind then write('ZADD', key .. ':' .. kind, id, id) end
end

local function index_remove(id, kind, status)
  local key = INDEX .. indexed(status)
  write('ZREM', key, id)
  if kind then write('ZREM', key .. ':' .. kind, id) end
end

local function index_move(id, kind, from, to)
  if indexed(from) ~= indexed(to) then
    index_remove(id, kind, from)
    index_add(id, kind, to)
  end
end

-- Where a ready job waits. A job with a crash on its record waits apart.
local function ready_list(queue, crashes)
  queue = queue or DEFAULT_QUEUE
  if (tonumber(crashes) or 0) > 0 then return WORK .. queue .. SUSPECTS end
  return WORK .. queue
end

-- The same, for who puts a job there: while the queue was empty its name may have been forgotten.
local function fill_list(queue, crashes)
  call('SADD', QUEUES, queue or DEFAULT_QUEUE)
  return ready_list(queue, crashes)
end

-- The last 10 errors, one a line: attempt, ms, message as a JSON string (so that it has no line break).
local function add_error(id, attempt, now, message)
  local errors = call('HGET', JOB .. id, 'errors')
  local line = string.format('%.0f %.0f ', attempt, now) .. message
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
local function finish(id, kind, from, to, now, unique_key, ...)
  call('HSET', JOB .. id, 'status', to, 'finished_at', now, ...)
  index_move(id, kind, from, to)
  write('ZADD', to == 'failed' and DLQ or DONE, now, id)
  release_unique(id, unique_key)
end

-- Remembers an id that stood in a list and has no job behind it; not the gap that a repair has left (judge.lua).
local function note_lost(id, now)
  if id == '0' then return end
  call('ZADD', LOST, now, id)
  call('ZREMRANGEBYRANK', LOST, 0, -10001)
end

-- Whether a server may still take and beat. One that Redis does not know (it lost its data, or the server was stopped for
-- longer than the dead are remembered) counts as dead from now on: a BRPOPLPUSH of it may still move a job into its list,
-- and only the lists of known servers are watched.
local function is_registered(server)
  local beat = call('HGET', SERVERS, server)
  if not beat then call('HSET', SERVERS, server, string.format('D%.0f', now_ms())) end
  return beat and string.sub(beat, 1, 1) ~= 'D'
end
