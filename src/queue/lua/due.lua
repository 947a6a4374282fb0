-- Works off what is due: moves jobs into their queues (scheduled | retrying -> queued), and works off words of the
-- agenda. A word stays in the agenda until its step is done, so that a crash loses nothing.
-- expire:<id>: a job that has not started is over -> cancelled | failed
-- forget:<id>: the retention of an ended job is over; the job is deleted
-- lease:<id>: the lease of a pull worker is over: the job gets a crash -> queued | failed | cancelled. If the timeout of the
-- attempt is over, the caller settles the attempt; if it does not, the word is due again after 2 s
-- tick:<schedule>: the caller fires the schedule; if it does not, the word is due again after 2 s
-- limit:<limit>: jobs that wait for the limit may go on
-- wake:<name>, newline, <limit>: so may those that wait for the limits of this name with a key, or of all names if the
-- name is '', behind this limit
-- ARGV: most jobs, most words of this step, max crashes
-- Returns: {moved, ms until the next job or word is due or -1, [type, status, .. of each job that expired],
--           [the schedules to fire], now in ms, [job whose lease is over {id, type, attempt, crashes, 1 if it failed}, ..],
--           [id, token, .. of attempts whose timeout is over]}
-- Protects from: two servers that move the same job; a server that dies before it has fired a schedule; a pull worker that
-- dies with its jobs.
local now, max_crashes, moved, expired, ticks, lost, timed_out = now_ms(), tonumber(ARGV[3]), 0, {}, {}, {}, {}
local at = digits(now)
for _, id in ipairs(call('ZRANGEBYSCORE', SCHEDULED, '-inf', at, 'LIMIT', 0, ARGV[1])) do
  call('ZREM', SCHEDULED, id)
  local job = read(id, 'status', 'type', 'queue', 'ties')
  if job[1] == 'scheduled' or job[1] == 'retrying' then
    admit(id, job[2], job[4], job[1], job[3], nil, now)
    moved = moved + 1
  elseif not job[1] then
    note_lost(id, at)
  end
end

-- The number of words and of jobs that were sent on: a step ends when it reaches the most words.
local work, worked = {}, 0

-- A running attempt is left alone. The script that puts its job back into a queue adds the word again.
function work.expire(id)
  local job = read(id, 'status', 'queue', 'crashes', 'ties')
  local status = job[1]
  if not is_expired(id, job[4], now) then return watch_expiry(id, status and not is_final(status) and job[4]) end
  if status == 'queued' then
    leave_queue(id, job[2], job[3], job[4])
  elseif status == 'scheduled' or status == 'retrying' then
    call('ZREM', SCHEDULED, id)
  else
    return
  end
  local to, job_type = finish_expired(id, at)
  expired[#expired + 1], expired[#expired + 2] = job_type, to
end

function work.forget(id)
  local job = read(id, 'status', 'type', 'ties', 'finished_at', 'retain_ms')
  if not is_final(job[1]) then return end
  local due = (tonumber(job[4]) or 0) + own_retention(job[5])
  if due > now then return call('ZADD', AGENDA, digits(due), 'forget:' .. id) end
  call('ZREM', job[1] == 'failed' and DLQ or DONE, id)
  forget_job(id, job[2], job[3], job[1])
end

function work.lease(id)
  local job = read(id, 'status', 'server', 'type', 'queue', 'crashes', 'cancel', 'unique_key', 'attempts', 'starts',
    'ties', 'lease_until', 'started_at', 'timeout_ms')
  if job[1] ~= 'processing' or job[2] ~= PULL then return end
  local lease_until = stored_number(job[11]) or 0
  if lease_until > now then return call('ZADD', AGENDA, digits(lease_until), 'lease:' .. id) end
  local timeout_at = (stored_number(job[12]) or 0) + (stored_number(job[13]) or DEFAULT_TIMEOUT_MS)
  -- An attempt without a valid token cannot be settled, so its job gets a crash.
  if timeout_at <= now and not job[6] and is_id(job[9] or '') then
    call('ZADD', AGENDA, digits(now + 2000), 'lease:' .. id)
    timed_out[#timed_out + 1], timed_out[#timed_out + 2] = id, job[9]
    return
  end
  call('LREM', IN_PROGRESS .. PULL, -1, id)
  if is_tied(job[10], 'L') then limit_rules().leave(id, read(id, 'limits')[1]) end
  if job[6] then
    finish(id, job[3], job[10], 'processing', 'cancelled', at, job[7])
    call('HDEL', JOB .. id, 'cancel', 'server')
    call('SREM', CANCELS .. PULL, id)
    return
  end
  local fails = needs_quarantine(job[5], max_crashes) or max_crashes == 1
  lost[#lost + 1] = charge_crash(id, job, fails, at, 'its worker let the lease run out', '')
  if not fails then
    send_back(id, job[4], job[10], at)
    moved = moved + 1
  end
end

function work.tick(schedule)
  call('ZADD', AGENDA, digits(now + 2000), 'tick:' .. schedule)
  ticks[#ticks + 1] = schedule
end

function work.limit(limit) worked = worked + limit_rules().send_on(limit, now) end

function work.wake(rest)
  local name, last = string.match(rest, '^(.-)\n(.*)$')
  local first, behind = limit_rules().key_bounds(name)
  if last ~= '' then first = '(' .. last end
  local limits = call('ZRANGE', WAITING_LIMITS, first, behind, 'BYLEX', 'LIMIT', 0, '50')
  for _, limit in ipairs(limits) do
    if name ~= '' then limit_rules().apply_numbers(limit, now) end
    call('ZADD', AGENDA, at, 'limit:' .. limit)
  end
  if #limits == 50 then call('ZADD', AGENDA, at, limit_rules().wake_word(name, limits[50])) end
  worked = worked + #limits
end

for _, word in ipairs(call('ZRANGEBYSCORE', AGENDA, '-inf', at, 'LIMIT', 0, ARGV[2])) do
  if worked >= tonumber(ARGV[2]) then break end
  worked = worked + 1
  local kind, rest = string.match(word, '^(%l+):(.*)$')
  -- A missing right ends the script here, and the word stays.
  local is_limited = kind == 'lease' and is_tied(read(rest, 'ties')[1], 'L')
  if kind == 'limit' or kind == 'wake' or is_limited then limit_rules() end
  call('ZREM', AGENDA, word)
  if work[kind] then work[kind](rest) end
end

if made_rules then made_rules.send_on_freed(now) end
return {moved, due_in(now), expired, ticks, now, lost, timed_out}
