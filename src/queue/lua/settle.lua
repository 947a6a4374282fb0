-- Settles attempts, each by itself: processing -> completed | retrying | failed | cancelled | queued | processing.
-- ARGV: server, then per attempt: id, fencing token (starts), what, text, delay ms
--       what: complete (text: result) | retry, retry_inline, fail (text: error) | release (back to the queue; the
--       attempt does not count)
--       retry_inline starts the next attempt at once, since the worker sleeps the backoff itself; in a paused queue it
--       is the same as retry
-- Returns: per attempt: the new status | 'stale': the token is out of date | 'repeated': an earlier call has settled it
-- Protects from: a late call of a server that was declared dead; a call that is sent again after a lost reply.
local server, now = ARGV[1], now_ms()
local list, at, answers = IN_PROGRESS .. server, digits(now), {}
local has_cancels = call('EXISTS', CANCELS .. server) == 1
-- Completed jobs are the most frequent, so they change index and list together: ids by type, and all ids.
local completed, done = {}, {}

local function is_paused(id)
  return call('SISMEMBER', PAUSED, read(id, 'queue')[1] or DEFAULT_QUEUE) == 1
end

local function settle(id, token, what, text, delay)
  local job = read(id, 'status', 'server', 'starts', 'type', 'attempts', 'unique_key')
  local status, job_type, attempts, unique_key = job[1], job[4], tonumber(job[5]) or 0, job[6]
  if job[2] ~= server or job[3] ~= token then return 'stale' end
  if status ~= 'processing' then return 'repeated' end
  -- cancel.lua writes both the set and the field.
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

  -- From the right: jobs are pushed from the left, and mostly settled in that order.
  if to ~= 'processing' then call('LREM', list, -1, id) end
  local tried = digits(attempts)
  if to == 'completed' then
    call('HSET', JOB .. id, 'status', to, 'finished_at', at, 'attempts', tried, in_pieces('result', text))
    release_unique(id, unique_key)
    put(completed, job_type, id)
    done[#done + 1] = id
  elseif is_final(to) then
    finish(id, job_type, status, to, at, unique_key, 'attempts', tried)
  elseif to == 'processing' then
    call('HSET', JOB .. id, 'attempts', tried, 'starts', digits(token + 1), 'started_at', at)
  elseif to == 'retrying' then
    local due = digits(now + delay)
    call('HSET', JOB .. id, 'status', to, 'attempts', tried, 'scheduled_at', due)
    index_move({id}, job_type, status, to)
    call('ZADD', SCHEDULED, due, id)
  else
    call('HSET', JOB .. id, 'status', to, 'ready_at', at)
    call('HDEL', JOB .. id, 'server')
    call('RPUSH', fill_list(read(id, 'queue')[1]), id)
  end
  if cancelled then
    call('HDEL', JOB .. id, 'cancel')
    call('SREM', CANCELS .. server, id)
  end
  return to
end

for i = 2, #ARGV, 5 do
  answers[#answers + 1] = settle(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
end
for job_type, ids in pairs(completed) do index_move(ids, job_type, 'processing', 'completed') end
if done[1] then call('LPUSH', COMPLETED, unpack(done)) end
return answers
