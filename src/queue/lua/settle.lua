-- Settles attempts, each by itself: processing -> completed | retrying | failed | cancelled | queued | processing.
-- ARGV: server, then per attempt: id, fencing token (starts), what, text, delay ms
--       what: complete (text: result) | retry, retry_inline, fail (text: error) | release (back to the queue, nothing charged)
--       `retry_inline` keeps the job for its next attempt, whose backoff is slept on the worker's thread; in a paused queue it is
--       as retry
-- Returns: per attempt a word: the new status | 'stale': the job is someone else's | 'repeated': done before
-- Protects from: a late answer of a server that was held to be dead; the same answer sent twice after a lost reply.
local server, now = ARGV[1], now_ms()
local list, at, answers = IN_PROGRESS .. server, digits(now), {}
local has_cancels = call('EXISTS', CANCELS .. server) == 1
-- Completed jobs, most of all, change the index together: ids by type, and with their time.
local completed, done = {}, {}

local function is_paused(id)
  return call('SISMEMBER', PAUSED, read(id, 'queue')[1] or DEFAULT_QUEUE) == 1
end

local function settle(id, token, what, text, delay)
  local job = read(id, 'status', 'server', 'starts', 'type', 'attempts', 'unique_key')
  local status, kind, attempts, unique_key = job[1], job[4], tonumber(job[5]) or 0, job[6]
  if job[2] ~= server or job[3] ~= token then return 'stale' end
  if status ~= 'processing' then return 'repeated' end
  -- Whoever cancels a job notes it in both places.
  local cancelled = has_cancels and read(id, 'cancel')[1]
  if what ~= 'release' then attempts = attempts + 1 end
  if what == 'retry' or what == 'retry_inline' or what == 'fail' then add_error(id, attempts, at, token, text) end
  local to
  if what == 'complete' then
    to = 'completed'
  elseif cancelled then
    to = 'cancelled'
  elseif what == 'release' then
    to = 'queued'
  elseif what == 'fail' or attempts >= (tonumber(read(id, 'max_attempts')[1] or DEFAULT_MAX_ATTEMPTS) or 0) then
    to = 'failed'
  elseif what == 'retry' or is_paused(id) then
    to = 'retrying'
  else
    to = 'processing'
  end

  -- Pushed from the left, and mostly settled in that order.
  if to ~= 'processing' then call('LREM', list, -1, id) end
  local tried = digits(attempts)
  if to == 'completed' then
    call('HSET', JOB .. id, 'status', to, 'finished_at', at, 'attempts', tried, in_pieces('result', text))
    release_unique(id, unique_key)
    put(completed, kind, id)
    local n = #done
    done[n + 1], done[n + 2] = at, id
  elseif is_final(to) then
    finish(id, kind, status, to, at, unique_key, 'attempts', tried)
  elseif to == 'processing' then
    call('HSET', JOB .. id, 'attempts', tried, 'starts', digits(token + 1), 'started_at', at)
  elseif to == 'retrying' then
    local due = digits(now + delay)
    call('HSET', JOB .. id, 'status', to, 'attempts', tried, 'scheduled_at', due)
    index_move({id}, kind, status, to)
    call('ZADD', SCHEDULED, due, id)
  else
    call('HSET', JOB .. id, 'status', to, 'ready_at', at)
    call('HDEL', JOB .. id, 'server')
    call('RPUSH', fill_list(read(id, 'queue')[1]), id)
  end
  if cancelled and to ~= 'processing' then
    call('HDEL', JOB .. id, 'cancel')
    call('SREM', CANCELS .. server, id)
  end
  return to
end

for i = 2, #ARGV, 5 do
  answers[#answers + 1] = settle(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
end
for kind, ids in pairs(completed) do index_move(ids, kind, 'processing', 'completed') end
if #done > 0 then call('ZADD', DONE, unpack(done)) end
return answers
