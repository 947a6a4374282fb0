-- Functions about what hangs on a job besides its place in lists and indexes; linker.rs puts those that a script calls
-- behind limits.lua. The field `ties` names these things by letters, so that a script reads one field more, and does
-- nothing more for a job without them:
-- T tags | X expiry | R a retention of its own | S its unique key is freed at its first start | W its unique key is held
-- for a fixed time | C made by a schedule | L limits.

-- Moves a job in the indexes of its tags. `from` or `to` is nil for a job that is new or that is deleted.
local function move_tags(id, ties, from, to)
  if not is_tied(ties, 'T') or (from and to and indexed(from) == indexed(to)) then return end
  for tag in string.gmatch(read(id, 'tags')[1] or '', '[^\n]+') do
    if from then call('ZREM', TAG_INDEX .. indexed(from) .. ':' .. tag, id) end
    if to then call('ZADD', TAG_INDEX .. indexed(to) .. ':' .. tag, id, id) end
  end
end

-- Moves a job in all of its indexes.
local function reindex(id, job_type, ties, from, to)
  index_move({id}, job_type, from, to)
  move_tags(id, ties, from, to)
end

-- The time after which a job with these ties does not start any more, or nil.
local function stored_expiry(id, ties) return is_tied(ties, 'X') and stored_number(read(id, 'expires_at')[1]) or nil end

-- Puts the expiry of a job into the agenda.
local function watch_expiry(id, ties)
  local expires_at = stored_expiry(id, ties)
  if expires_at then call('ZADD', AGENDA, digits(expires_at), 'expire:' .. id) end
end

-- Whether a job with these ties may not start at this time any more.
local function is_expired(id, ties, time)
  local expires_at = stored_expiry(id, ties)
  return expires_at ~= nil and expires_at <= time
end

-- Stores a new expiry, and puts it into the agenda.
local function set_expiry(id, expires_at)
  call('HSET', JOB .. id, 'expires_at', digits(expires_at))
  call('ZADD', AGENDA, digits(expires_at), 'expire:' .. id)
end

-- How long an ended job with a retention of its own is kept, in ms: at least a minute, so that a client that waits for the
-- end, and a server that settles the attempt again after a lost reply, find the job.
local function own_retention(retain_ms) return math.max(stored_number(retain_ms) or 0, 60000) end

-- Deletes a schedule. The jobs that it has made stay.
local function forget_schedule(name)
  call('ZREM', SCHEDULES, name)
  call('ZREM', AGENDA, 'tick:' .. name)
  call('DEL', SCHEDULE .. name, TICKS .. name)
end

-- The ties of a job with or without this letter.
local function with_tie(ties, letter, is_there)
  local others = string.gsub(ties or '', letter, '')
  return is_there and others .. letter or others
end

-- Stores the ties of a job; a job without ties has no field.
local function set_ties(id, ties)
  if ties == '' then call('HDEL', JOB .. id, 'ties') else call('HSET', JOB .. id, 'ties', ties) end
end

-- Works off the ties of an ended job that becomes ready again, by a person. An expiry that has passed is dropped. Returns
-- the ties that remain.
local function revive_ties(id, ties, now)
  call('HDEL', JOB .. id, 'cancel_reason')
  if is_tied(ties, 'R') then call('ZREM', AGENDA, 'forget:' .. id) end
  if is_expired(id, ties, now) then
    call('HDEL', JOB .. id, 'expires_at')
    ties = with_tie(ties, 'X', false)
    set_ties(id, ties)
  end
  watch_expiry(id, ties)
  return ties
end

-- Works off the ties of a job that has ended at this time.
local function end_ties(id, ties, from, to, at)
  move_tags(id, ties, from, to)
  if is_tied(ties, 'X') then call('ZREM', AGENDA, 'expire:' .. id) end
  if is_tied(ties, 'R') then call('ZADD', AGENDA, digits(at + own_retention(read(id, 'retain_ms')[1])), 'forget:' .. id) end
  if to == 'completed' and is_tied(ties, 'C') then
    local schedule = read(id, 'schedule')[1]
    if schedule and call('EXISTS', SCHEDULE .. schedule) == 1 then call('HSET', SCHEDULE .. schedule, 'succeeded_at', at) end
  end
end

-- Ends a job (completed, failed or cancelled) and updates its indexes, retention set and unique key. `from` is its
-- status until now; further arguments are fields to set.
local function finish(id, job_type, ties, from, to, at, unique_key, ...)
  call('HSET', JOB .. id, 'status', to, 'finished_at', at, ...)
  index_move({id}, job_type, from, to)
  call('ZADD', to == 'failed' and DLQ or DONE, at, id)
  release_unique(id, unique_key)
  if ties then end_ties(id, ties, from, to, at) end
end

-- Ends a job that has not started before its expiry. A job that has failed before becomes a dead letter, so that a person
-- sees its last error. Returns the new status and the job's type.
local function finish_expired(id, at)
  local job = read(id, 'status', 'type', 'ties', 'unique_key', 'attempts')
  local to = (tonumber(job[5]) or 0) > 0 and 'failed' or 'cancelled'
  if to == 'cancelled' then call('HSET', JOB .. id, 'cancel_reason', 'expired') end
  finish(id, job[2], job[3], job[1], to, at, job[4])
  return to, job[2]
end

-- Deletes an ended job, but not its entry in a list or set for retention.
local function forget_job(id, job_type, ties, status)
  index_remove({id}, job_type, status)
  if ties then
    move_tags(id, ties, status, nil)
    if is_tied(ties, 'R') then call('ZREM', AGENDA, 'forget:' .. id) end
  end
  call('UNLINK', JOB .. id, LOG .. id)
end

-- Charges a job with a crash that has cut off its latest attempt. If the job `fails`, it becomes a dead letter; otherwise
-- the caller sends the job back. `job`: status, server, type, queue, crashes, cancel, unique_key, attempts, starts, ties.
-- `what` and `when` are the error before and behind the number of crashes of a job that fails.
-- Returns {id, type, attempt, crashes, 1 if it failed}.
local function charge_crash(id, job, fails, at, what, when)
  local crashes, attempt = (tonumber(job[5]) or 0) + 1, (tonumber(job[8]) or 0) + 1
  call('HSET', JOB .. id, 'crashes', digits(crashes))
  local times = fails and ' ' .. digits(crashes) .. ' times' or ''
  add_error(id, attempt, at, digits(tonumber(job[9]) or 0) .. 'c', '"' .. what .. times .. when .. '"')
  if fails then
    finish(id, job[3], job[10], 'processing', 'failed', at, job[7])
    call('HDEL', JOB .. id, 'server')
  end
  return {id, job[3], attempt, crashes, fails and 1 or 0}
end

-- Sends a job whose attempt has ended to the front of its queue. The caller has freed the room of the job in its limits.
local function send_back(id, queue, ties, at)
  call('HSET', JOB .. id, 'status', 'queued')
  call('HDEL', JOB .. id, 'server')
  if is_tied(ties, 'L') then
    limit_rules().go_back(id, queue, tonumber(at))
  else
    call('HSET', JOB .. id, 'ready_at', at)
    call('RPUSH', fill_list(queue), id)
  end
  if ties then watch_expiry(id, ties) end
end

-- Removes a queued job from the lists of its queue, or leaves its entry in a long list as a tombstone. If a server has
-- claimed the job already, the entry stays in that server's list, and start_jobs.lua drops it. A quarantined job may wait in
-- either list.
local function leave_queue(id, queue, crashes, ties)
  if is_tied(ties, 'L') and limit_rules().leave_line(id, queue or DEFAULT_QUEUE) then return end
  local list, is_long = WORK .. (queue or DEFAULT_QUEUE), false
  for _, key in ipairs(crashes and {list .. SUSPECTS, list} or {list}) do
    if call('LLEN', key) > SHORT then
      is_long = true
    elseif call('LREM', key, -1, id) == 1 then
      return
    end
  end
  if not is_long then return end
  add_tombstone(queue, id)
  -- Removes tombstones at the end where jobs are taken, so that queues.lua finds the job that has waited longest.
  for _ = 1, 8 do
    local last = call('LINDEX', list, -1)
    if not last or not drop_tombstone(queue, last) then break end
    call('RPOP', list)
  end
end

-- Cancels a job that has not ended. A running job is marked, and the heartbeat of its server gets the id. `wanted` are the
-- statuses that the job must have, separated by spaces, or '' for any; `reason` is that of the field cancel_reason or nil.
-- Returns {'missing'} | {'wrong_status', status} | {'cancelled'} | {'requested', server}.
local function cancel_job(id, wanted, at, reason)
  local job = read(id, 'status', 'server', 'type', 'queue', 'crashes', 'unique_key', 'ties')
  local status = job[1]
  if not status then return {'missing'} end
  if is_final(status) or not is_one_of(wanted, status) then return {'wrong_status', status} end
  if reason then call('HSET', JOB .. id, 'cancel_reason', reason) end
  if status == 'processing' then
    call('HSET', JOB .. id, 'cancel', 1)
    call('SADD', CANCELS .. job[2], id)
    return {'requested', job[2]}
  end
  if status == 'queued' then leave_queue(id, job[4], job[5], job[7]) else call('ZREM', SCHEDULED, id) end
  finish(id, job[3], job[7], status, 'cancelled', at, job[6])
  return {'cancelled'}
end

-- Sends a job where it waits next: until its due time, if that is to come, or in its queue. enqueue.lua does the same for
-- many new jobs at once. Returns the new status. `from` is the status until now; further arguments are fields to set.
local function admit(id, job_type, ties, from, queue, due, now, ...)
  if due and due > now then
    local to = from == 'retrying' and from or 'scheduled'
    call('HSET', JOB .. id, 'status', to, 'scheduled_at', digits(due), ...)
    call('ZADD', SCHEDULED, digits(due), id)
    call('SADD', QUEUES, queue or DEFAULT_QUEUE)
    reindex(id, job_type, ties, from, to)
    return to
  end
  call('HSET', JOB .. id, 'status', 'queued', ...)
  reindex(id, job_type, ties, from, 'queued')
  call('LPUSH', fill_list(queue), id)
  return 'queued'
end

-- The time that a start means: '' nil | + and a delay in ms | a time in ms.
local function due_time(start, now)
  local at = tonumber(start)
  return string.sub(start, 1, 1) == '+' and now + at or at
end

-- The time when a job that waits becomes due after a change to these new values, or nil. `due` is that time until now.
local function due_after(set, due, now)
  if not set.start then return due end
  due = due_time(set.start, now)
  return due and set.latest and math.min(due, set.latest) or due
end

-- The options of a new job or of a change, which Rust writes as JSON; nil if there are none.
local function options_of(text) return text ~= '' and cjson.decode(text) or nil end

-- The time of the expiry that these options name, or nil.
local function expiry_of(options, now)
  return options.expires_in and now + options.expires_in or options.expires_at
end

-- The id of the job that holds a unique key and the job's status, or nil. The status is nil if the key is held for a
-- fixed time and the job is deleted.
local function holder_of(unique)
  local value = call('GET', UNIQUE .. unique)
  if not value then return nil end
  local id, is_window = string.match(value, '^(%d+)(:?w?)$')
  local status = id and read(id, 'status')[1] or nil
  if is_window == ':w' then return id, status end
  if status and not is_final(status) then return id, status end
end

-- Writes the record of a new job and its ties. Its entry in a list or in `scheduled`, and in the index of its type, is the
-- caller's. Further arguments are fields to set.
local function write_job(id, status, job_type, unique, options, due, now, ...)
  call('HSET', JOB .. id, 'status', status, 'type', job_type, ...)
  if due then call('HSET', JOB .. id, 'scheduled_at', digits(due)) end
  if unique ~= '' then
    call('HSET', JOB .. id, 'unique_key', unique)
    if options and options.held_for then
      call('SET', UNIQUE .. unique, id .. ':w', 'PX', digits(options.held_for))
    else
      call('SET', UNIQUE .. unique, id)
    end
  end
  if not options then return end
  local expires_at = expiry_of(options, now)
  if expires_at then set_expiry(id, expires_at) end
  move_tags(id, options.ties, nil, status)
end

-- Changes a job that has not started: scheduled | queued | retrying. `set` has the new values:
-- payload: a list of fields and values | queue | max_attempts, timeout_ms: texts | tags: a list | expires_at or expires_in in
-- ms | start: as of a new job | latest: the time in ms after which the job must not be due.
-- Returns the new status.
local function change_job(id, set, now)
  local job = read(id, 'status', 'type', 'ties', 'queue', 'crashes', 'scheduled_at')
  local status, job_type, ties, queue = job[1], job[2], job[3] or '', job[4] or DEFAULT_QUEUE
  if set.payload then
    delete_text(id, 'payload')
    call('HSET', JOB .. id, unpack(set.payload))
  end
  if set.max_attempts then call('HSET', JOB .. id, 'max_attempts', set.max_attempts) end
  if set.timeout_ms then call('HSET', JOB .. id, 'timeout_ms', set.timeout_ms) end
  if set.tags then
    move_tags(id, ties, status, nil)
    ties = with_tie(ties, 'T', #set.tags > 0)
    if #set.tags > 0 then
      call('HSET', JOB .. id, 'tags', table.concat(set.tags, '\n'))
    else
      call('HDEL', JOB .. id, 'tags')
    end
    move_tags(id, ties, nil, status)
  end
  local expires_at = expiry_of(set, now)
  if expires_at then
    ties = with_tie(ties, 'X', true)
    set_expiry(id, expires_at)
  end
  if ties ~= (job[3] or '') then set_ties(id, ties) end

  local to_queue = set.queue or queue
  if not set.start and to_queue == queue then return status end
  if to_queue ~= queue then call('HSET', JOB .. id, 'queue', to_queue) end
  local due = due_after(set, status ~= 'queued' and stored_number(job[6]) or nil, now)
  if status == 'queued' and to_queue == queue and (not due or due <= now) then return status end
  if status == 'queued' then leave_queue(id, queue, job[5], ties) else call('ZREM', SCHEDULED, id) end
  if due and due > now then
    call('HDEL', JOB .. id, 'ready_at')
    return admit(id, job_type, ties, status, to_queue, due, now)
  end
  call('HDEL', JOB .. id, 'scheduled_at')
  return admit(id, job_type, ties, status, to_queue, nil, now, 'ready_at', digits(now))
end
