-- Settles attempts, each by itself: processing -> completed | retrying | failed | cancelled | queued | scheduled
-- | processing.
-- ARGV: server, 1 if these are answers of pull workers, then per attempt: id, fencing token (starts), what, delay ms, number of the texts that follow, [texts]
--       what: complete (texts: field, value, .. of the result) | retry, retry_inline, fail (text: error; for retry also
--       how long the rates of the job's limits are closed, in ms, or nothing) | release (back
--       to the queue, or scheduled after the delay if that is not 0; the attempt does not count; the rates of the job's
--       limits are closed for the delay)
--       retry_inline starts the next attempt at once, since the worker sleeps the backoff itself; in a paused queue, and
--       for a job with limits, it is the same as retry
-- Returns: {ms until a limit is looked at again or -1, per attempt: the new status, behind 'expired ' if the expiry of the
--          job has ended the job | 'stale': the token is out of date | 'repeated': an earlier call has settled the attempt;
--          for an attempt of a pull worker {the same, type, ms since its start}: 'repeated <status>' if the same answer (complete,
--          fail or release) has settled the attempt and given the job this status, else 'stale'}
-- Protects from: a late call of a server that was declared dead; a call that is sent again after a lost reply.
local server, now = ARGV[1], now_ms()
local list, at, answers, is_answer = IN_PROGRESS .. server, digits(now), {-1}, ARGV[2] == '1'
local has_cancels = call('EXISTS', CANCELS .. server) == 1
-- Completed jobs are the most frequent, so they change index and list together: ids by type, and all ids.
local completed, done = {}, {}

local function is_paused(id)
  return call('SISMEMBER', PAUSED, read(id, 'queue')[1] or DEFAULT_QUEUE) == 1
end

-- `first` and `last` are the places of the attempt's texts in ARGV.
local function settle(id, token, what, delay, first, last)
  local job = read(id, 'status', 'server', 'starts', 'type', 'attempts', 'unique_key', 'ties')
  local status, job_type, attempts, unique_key, ties = job[1], job[4], tonumber(job[5]) or 0, job[6], job[7]
  if job[2] ~= server or job[3] ~= token then return 'stale' end
  if status ~= 'processing' then return 'repeated' end
  local limits = ties and is_tied(ties, 'L') and read(id, 'limits')[1]
  -- A missing right ends the script here, before it changes anything of the job.
  if limits then limit_rules() end
  -- cancel.lua writes both the set and the field.
  local cancelled = has_cancels and read(id, 'cancel')[1]
  if what ~= 'release' then attempts = attempts + 1 end
  if what == 'retry' or what == 'retry_inline' or what == 'fail' then add_error(id, attempts, at, token, ARGV[first]) end
  local to
  if what == 'complete' then
    to = 'completed'
  elseif cancelled then
    to = 'cancelled'
  elseif what == 'release' then
    to = tonumber(delay) > 0 and 'scheduled' or 'queued'
  elseif what == 'fail' or attempts >= (tonumber(read(id, 'max_attempts')[1] or DEFAULT_MAX_ATTEMPTS) or 0) then
    to = 'failed'
  elseif what == 'retry' or is_tied(ties, 'L') or is_paused(id) then
    to = 'retrying'
  else
    to = 'processing'
  end
  -- No attempt starts after the expiry of its job. due.lua ends a job that goes back to its queue.
  local has_expired = ties and to ~= 'queued' and not is_final(to) and is_expired(id, ties, now + delay)
  if has_expired then to = attempts > 0 and 'failed' or 'cancelled' end

  -- From the right: jobs are pushed from the left, and mostly settled in that order.
  if to ~= 'processing' then call('LREM', list, -1, id) end
  if limits then
    limit_rules().leave(id, limits)
    local wait = what == 'release' and delay or (what == 'retry' and first < last and ARGV[last])
    if wait and tonumber(wait) > 0 then limit_rules().close_rates(limits, tonumber(wait), now) end
  end
  if to == 'completed' then
    -- A record leaves out the number of attempts if the job completes at its first attempt.
    if job[5] then call('HSET', JOB .. id, 'attempts', digits(attempts)) end
    call('HSET', JOB .. id, 'status', to, 'finished_at', at, unpack(ARGV, first, last))
    release_unique(id, unique_key)
    if ties then end_ties(id, ties, status, to, at) end
    put(completed, job_type, id)
    done[#done + 1] = id
  elseif is_final(to) then
    finish(id, job_type, ties, status, to, at, unique_key, 'attempts', digits(attempts))
    if has_expired and to == 'cancelled' then call('HSET', JOB .. id, 'cancel_reason', 'expired') end
  elseif to == 'processing' then
    call('HSET', JOB .. id, 'attempts', digits(attempts), 'starts', digits(token + 1), 'started_at', at)
  elseif to == 'retrying' or to == 'scheduled' then
    local due = digits(now + delay)
    call('HSET', JOB .. id, 'status', to, 'attempts', digits(attempts), 'scheduled_at', due)
    if to == 'scheduled' then
      call('HSET', JOB .. id, 'snoozes', digits((stored_number(read(id, 'snoozes')[1]) or 0) + 1))
    end
    index_move({id}, job_type, status, to)
    if ties then
      move_tags(id, ties, status, to)
      watch_expiry(id, ties)
    end
    call('ZADD', SCHEDULED, due, id)
  else
    send_back(id, read(id, 'queue')[1], ties, at)
  end
  if cancelled then
    call('HDEL', JOB .. id, 'cancel')
    call('SREM', CANCELS .. server, id)
  end
  return has_expired and 'expired ' .. to or to
end

-- As settle, for an attempt of a pull worker. Other calls do not make this function.
local settle_pulled = server == PULL and function(id, token, what, delay, first, last)
  local job = read(id, 'type', 'started_at', 'answered')
  local to, answer = settle(id, token, what, delay, first, last), what == 'retry' and 'fail' or what
  if to == 'stale' or to == 'repeated' then
    local answered, status = string.match(job[3] or '', '^' .. token .. ' (%l+) (%l+)$')
    to = is_answer and answered == answer and 'repeated ' .. status or 'stale'
  else
    call('ZREM', AGENDA, 'lease:' .. id)
    if is_answer then call('HSET', JOB .. id, 'answered', token .. ' ' .. answer .. ' ' .. string.match(to, '%l+$')) end
  end
  return {to, job[1] or '', digits(math.max(0, now - (stored_number(job[2]) or now)))}
end

local settle_one = settle_pulled or settle
local place = 3
while place <= #ARGV do
  local first = place + 5
  local last = first - 1 + ARGV[place + 4]
  answers[#answers + 1] = settle_one(ARGV[place], ARGV[place + 1], ARGV[place + 2], ARGV[place + 3], first, last)
  place = last + 1
end
for job_type, ids in pairs(completed) do index_move(ids, job_type, 'processing', 'completed') end
if done[1] then call('LPUSH', COMPLETED, unpack(done)) end
if made_rules then
  made_rules.send_on_freed(now)
  answers[1] = made_rules.look_in(now)
end
return answers
