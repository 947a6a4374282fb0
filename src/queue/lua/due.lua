-- Works off what is due: moves jobs into their queues (scheduled | retrying -> queued), and works off words of the
-- agenda. A word stays in the agenda until its step is done, so that a crash loses nothing.
-- expire:<id>: a job that has not started is over -> cancelled | failed
-- forget:<id>: the retention of an ended job is over; the job is deleted
-- tick:<schedule>: the caller fires the schedule; if it does not, the word is due again after 2 s
-- limit:<limit>: jobs that wait for the limit may go on
-- wake:<name>, newline, <limit>: so may those that wait for the limits of this name with a key, or of all names if the
-- name is '', behind this limit
-- ARGV: most jobs, most words of this step
-- Returns: {moved, ms until the next job or word is due or -1, [type, status, .. of each job that expired],
--           [the schedules to fire], now in ms}
-- Protects from: two servers that move the same job; a server that dies before it has fired a schedule.
local now, moved, expired, ticks = now_ms(), 0, {}, {}
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
  if kind == 'limit' or kind == 'wake' then limit_rules() end
  call('ZREM', AGENDA, word)
  if work[kind] then work[kind](rest) end
end

if made_rules then made_rules.send_on_freed(now) end
return {moved, due_in(now), expired, ticks, now}
