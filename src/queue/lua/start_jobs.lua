-- Starts ready jobs: queued -> processing.
-- ARGV: server, quarantine skip|reserve|start (for PULL: the lease in ms or 0 for the timeout, the server that has claimed the
--       job or -, the name of the pull worker, separated by spaces), max crashes, id that BRPOPLPUSH has moved or '', its queue,
--       most jobs to start, number of strict queues, their names: no job of a later queue starts while an earlier
--       one has a job, then shares of other queues, for a queue one or several: name, number of jobs to start from it;
--       further jobs are started in the order of the first shares
--       quarantine: what to do about quarantined jobs, each of which runs alone on a server:
--       skip: start none | reserve: start none, since jobs run here, but this server may be reserved for a quarantined
--       job and then has to drain | start: start one if one waits, since nothing runs here. A call for PULL starts one, and
--       then no other job
-- Returns: {'fenced'} | {'full'}: pull workers have the most jobs that they may have | {'taken', now ms, 1 if this server has to drain, [the paused queues of ARGV],
--          1 if the step ended early and more jobs may be ready, [type, status, .. of jobs that have expired], ms until a
--          limit is looked at again or -1, job, ..}
--          A job is [field, value, .., id] as before the start, and a byte with the number of these texts modulo 256, all
--          joined by zero bytes: an array takes the client far longer. The number is wrong if a text has a zero byte.
-- Protects from: a start on a server that was declared dead, for an entry of another server, of a job that is not
-- queued (cancelled, taken over, twice in a list), or in a paused queue; an id without a job that blocks a fetcher; a
-- call that arrives so late that its claimed job was put back and started again (the job must keep its entry); a job
-- that fails for a crash of another job that ran at the same time.
local server, quarantine, max_crashes, claimed, claimed_from = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local is_pull = server == PULL
if not is_pull and not is_registered(server) then return {'fenced'} end
local list, now = IN_PROGRESS .. server, now_ms()
local at, paused, is_paused = digits(now), {}, {}
local left, strict, queues = tonumber(ARGV[6]), tonumber(ARGV[7]), {}
local function add(queue)
  if is_paused[queue] ~= nil then return end
  queues[#queues + 1] = queue
  is_paused[queue] = call('SISMEMBER', PAUSED, queue) == 1
  if is_paused[queue] then paused[#paused + 1] = queue end
end
for i = 8, 7 + strict do add(ARGV[i]) end
for i = 8 + strict, #ARGV, 2 do add(ARGV[i]) end

-- What pull workers may have at a time: LREM in a longer list takes too long.
local MOST_LEASES = 10000
-- For a pull worker: the agenda words of the leases (ms, word, ..), and a function that leases a started job.
local leases, lease
if is_pull then
  local lease_ms, claimed_by, worker = string.match(quarantine, '^(%d+) (%S+) ?(.*)$')
  lease_ms, quarantine = tonumber(lease_ms), 'start'
  call('HSET', SERVERS, PULL, 'P')
  if worker ~= '' then
    call('ZADD', PULL_WORKERS, at, worker)
    call('ZREMRANGEBYRANK', PULL_WORKERS, 0, '-1001')
  end
  for _, queue in ipairs(queues) do call('ZADD', PULLED_QUEUES, at, queue) end
  call('ZREMRANGEBYRANK', PULLED_QUEUES, 0, '-1001')
  -- The claimed job is the first one of its queue again. If it runs, the server has put it back and started it meanwhile.
  local status = claimed ~= '' and read(claimed, 'status')[1]
  if claimed ~= '' and status ~= 'processing' and call('LREM', IN_PROGRESS .. claimed_by, 1, claimed) == 1 then
    if status == 'queued' then
      call('RPUSH', fill_list(claimed_from), claimed)
    elseif not drop_tombstone(claimed_from, claimed) and not status then
      note_lost(claimed, at)
    end
  end
  claimed = ''
  left = math.min(left, MOST_LEASES - call('LLEN', list))
  if left < 1 then return {'full'} end

  leases = {}
  function lease(id, fields)
    local time = DEFAULT_TIMEOUT_MS
    for i = 1, #fields, 2 do
      if fields[i] == 'timeout_ms' then time = stored_number(fields[i + 1]) or time end
    end
    local lease_until = digits(now + (lease_ms > 0 and math.min(lease_ms, time) or time))
    call('HSET', JOB .. id, 'worker', worker, 'lease_ms', digits(lease_ms), 'lease_until', lease_until)
    leases[#leases + 1], leases[#leases + 2] = lease_until, 'lease:' .. id
  end
end

local expired = {}
local taken = {'taken', now, 0, paused, 0, expired, -1}
local HEAD = #taken

-- A step ends after this many bytes of jobs: a reply that takes longer than the server's time limit is lost.
local MAX_BYTES, bytes = 4 * 1024 * 1024, 0
-- A step ends too after this many dropped entries, and after this many expired jobs, each of which costs about 15 commands.
local MAX_DROPS, MAX_EXPIRED, drops = 500, 100, 0

-- Removes an entry from the list without starting a job. A job that runs here keeps one entry: without an entry no
-- server would find the job after this server has died.
local function drop(id, status, owner, queue)
  drops = drops + 1
  local runs_here = status == 'processing' and owner == server
  if runs_here and #call('LPOS', list, id, 'COUNT', 2) < 2 then return end
  call('LREM', list, 1, id)
  if not drop_tombstone(queue, id) and not status then note_lost(id, at) end
end

-- What this step has found out about limits: those without room, and the jobs that wait for room from now on: limit, queue,
-- {ms when the job became ready, id, ..}.
local closed, held = {}, {}
-- A step ends after this many held jobs, each of which costs about 5 commands; a limit costs as much as two jobs.
local MAX_HELD, held_number = 200, 0

-- Lets a job start if its limits have room. Otherwise the job waits for room, and no list has an entry of the job. `fields`
-- are those of the job, each name before its value.
local function passes_limits(id, queue, fields)
  local job = {}
  for i = 1, #fields, 2 do job[fields[i]] = fields[i + 1] end
  local blocked = job.blocked
  local state, since, held_by = limit_rules().parts_of(blocked)
  -- The job waits already, and this entry has stayed behind.
  if state == 'held' then
    call('LREM', list, 1, id)
    drop_tombstone(queue, id)
    drops = drops + 1
    return false
  end
  local limit = limit_rules().enter(id, queue, job.limits or '', blocked, closed, now)
  if not limit then
    if blocked then call('HDEL', JOB .. id, 'blocked') end
    return true
  end
  closed[limit] = true
  call('LREM', list, 1, id)
  call('HSET', JOB .. id, 'blocked', 'held ' .. (held_by == limit and since or at) .. ' ' .. limit)
  local key = queue .. ':' .. limit
  if not held[key] then
    held[key] = {limit, queue, {}}
    held[#held + 1] = held[key]
    held_number = held_number + 2
  end
  local scored = held[key][3]
  scored[#scored + 1], scored[#scored + 2] = digits(limit_rules().ready_since(id, job.scheduled_at, job.ready_at)), id
  drops, held_number = drops + 1, held_number + 1
  return false
end

-- Queues in which a job has been quarantined now.
local found = {}

-- Starts a job. A job that needs quarantine and does not come from the list of quarantined jobs is moved there instead.
local function start(id, queue, is_suspect)
  local status, starts, owner, crashes, ties, own_queue
  -- An error has no fields.
  local fields = try_call('HGETALL', JOB .. id)
  if is_id(id) then
    for i = 1, #fields, 2 do
      local name = fields[i]
      if name == 'status' then status = fields[i + 1]
      elseif name == 'starts' then starts = fields[i + 1]
      elseif name == 'server' then owner = fields[i + 1]
      elseif name == 'crashes' then crashes = fields[i + 1]
      elseif name == 'ties' then ties = fields[i + 1]
      elseif name == 'queue' then own_queue = fields[i + 1]
      end
    end
  end
  if status ~= 'queued' then
    for i = 2, #fields, 2 do bytes = bytes + #fields[i] end
    drop(id, status, owner, queue)
    return false
  end
  -- The job has moved to another queue, and its old entry has stayed: as a tombstone in a long list, or because BRPOPLPUSH
  -- had the entry. The new queue may be paused, or have another turn.
  if own_queue and own_queue ~= queue then
    call('LREM', list, 1, id)
    drops = drops + 1
    local has_entry = drop_tombstone(queue, id) or call('LPOS', WORK .. own_queue, id, 'MAXLEN', digits(SHORT))
    if not has_entry then call('RPUSH', fill_list(own_queue), id) end
    return false
  end
  if ties and is_expired(id, ties, now) then
    call('LREM', list, 1, id)
    drops = drops + 1
    if is_tied(ties, 'L') then limit_rules().leave_line(id, queue) end
    local to, job_type = finish_expired(id, at)
    expired[#expired + 1], expired[#expired + 2] = job_type, to
    return false
  end
  local is_alone = needs_quarantine(crashes, max_crashes)
  if is_alone and not is_suspect and not is_pull then
    call('LREM', list, 1, id)
    call('LPUSH', fill_list(queue) .. SUSPECTS, id)
    found[queue] = true
    return false
  end
  if ties and is_tied(ties, 'L') and not passes_limits(id, queue, fields) then return false end
  if ties and not starts and is_tied(ties, 'S') then release_unique(id, read(id, 'unique_key')[1]) end
  starts = starts and is_id(starts) and digits(starts + 1) or '1'
  call('HSET', JOB .. id, 'status', 'processing', 'server', server, 'starts', starts, 'started_at', at)
  if is_pull then
    lease(id, fields)
    -- No other job is handed out with this one.
    if is_alone then left = 0 end
  end
  local number = #fields + 1
  fields[number], fields[number + 1] = id, string.char(number % 256)
  local job = table.concat(fields, '\0')
  bytes = bytes + #job
  taken[#taken + 1] = job
  return true
end

-- Whether no strict queue before the queue of the claimed job has a job.
local function is_next()
  for i = 8, 7 + strict do
    if ARGV[i] == claimed_from then return true end
    if not is_paused[ARGV[i]] and call('EXISTS', WORK .. ARGV[i]) == 1 then return false end
  end
  return true
end

-- The claimed job comes first. If no worker is free, its queue is paused or a strict queue has its turn before it, the
-- job goes back to the front of its queue.
if claimed ~= '' and call('LPOS', list, claimed) then
  if left > 0 and not is_paused[claimed_from] and is_next() then
    if start(claimed, claimed_from) then left = left - 1 end
  else
    local job = read(claimed, 'status', 'server')
    if job[1] == 'queued' then
      call('LREM', list, 1, claimed)
      call('RPUSH', fill_list(claimed_from), claimed)
    else
      drop(claimed, job[1], job[2], claimed_from)
    end
  end
end

-- Reserves this server for the quarantined jobs of a queue. Returns false if another live server is reserved: one
-- server is enough, and the other servers go on with other jobs. The reservation ends when no quarantined job is left or
-- the server is dead.
local function reserve_server(queue)
  local chosen = call('GET', LAST_CHANCE .. queue)
  if chosen and chosen ~= server and is_registered(chosen) then return false end
  call('SET', LAST_CHANCE .. queue, server)
  return true
end

-- Starts one quarantined job of a queue, if this server runs no other job. Returns whether one was started. A job in
-- the list that needs no quarantine (from version 0.4, or since max_crashes has grown) starts as any other job.
local function start_quarantined(queue)
  local waiting = WORK .. queue .. SUSPECTS
  while left > 0 and bytes < MAX_BYTES and drops < MAX_DROPS and held_number < MAX_HELD do
    local id = call('LINDEX', waiting, -1)
    if not id then return false end
    local alone = needs_quarantine(read(id, 'crashes')[1], max_crashes)
    if alone and (quarantine ~= 'start' or #taken > HEAD) then
      if not is_pull and reserve_server(queue) then taken[3] = 1 end
      return false
    end
    call('LPUSH', list, call('RPOP', waiting))
    local is_started = start(id, queue, true)
    if call('EXISTS', waiting) == 0 then call('DEL', LAST_CHANCE .. queue) end
    if is_started then
      if alone then return true end
      left = left - 1
    end
  end
end

-- Stores what this step has found out about limits. Returns the reply.
local function reply()
  for _, entry in ipairs(held) do limit_rules().hold(unpack(entry)) end
  if leases and leases[1] then call('ZADD', AGENDA, unpack(leases)) end
  if made_rules then
    made_rules.send_on_freed(now)
    taken[7] = made_rules.look_in(now)
  end
  return taken
end

if quarantine ~= 'skip' then
  for _, queue in ipairs(queues) do
    if not is_paused[queue] and start_quarantined(queue) then return reply() end
  end
end
if taken[3] == 1 then return reply() end

-- Whether this step has done enough besides starting jobs.
local function is_step_full()
  return drops >= MAX_DROPS or #expired >= 2 * MAX_EXPIRED or held_number >= MAX_HELD
end

-- Repeats for as many entries as were dropped: a job may wait behind 1,000,000 entries of cancelled jobs.
local function take(queue, number)
  while number > 0 and not is_paused[queue] and not is_step_full() do
    local ids, dropped_before = call('RPOP', WORK .. queue, digits(number)), drops
    if not ids then return end
    call('LPUSH', list, unpack(ids))
    for i = 1, #ids do
      local is_kept_back = is_pull and #taken > HEAD
        and (left < 1 or needs_quarantine(read(ids[i], 'crashes')[1], max_crashes))
      if bytes >= MAX_BYTES or is_kept_back then
        for back = #ids, i, -1 do
          call('LREM', list, 1, ids[back])
          call('RPUSH', fill_list(queue), ids[back])
        end
        left, taken[5] = 0, 1
        return
      end
      if start(ids[i], queue) then left = left - 1 end
    end
    number = drops - dropped_before
  end
end
for i = 8, 7 + strict do take(ARGV[i], left) end
for i = 8 + strict, #ARGV, 2 do take(ARGV[i], math.min(left, tonumber(ARGV[i + 1]))) end
for _, queue in ipairs(queues) do take(queue, left) end
if is_step_full() then taken[5] = 1 end
for queue in pairs(found) do
  if quarantine ~= 'skip' and start_quarantined(queue) then return reply() end
end
return reply()
