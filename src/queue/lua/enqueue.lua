-- Stores submissions, of each all jobs or none: new -> queued | scheduled.
-- ARGV: max queue length, life of an idempotency key in ms, number of replicas that WAIT will ask for,
--       then per submission: number of jobs, idempotency key or '', fingerprint of the request, and its jobs, each
--       queue, start, unique key or '', type, options or '', number of the texts that follow, [field, value, ..]
--       start: '' for now, + and a delay in ms, or a time in ms
--       options: a JSON object of
--       ties | limits: a list | expires_at or expires_in in ms | held_for: how long the unique key is held, in ms | on_conflict: what becomes
--       of this job if its unique key is held: existing, or replace with `set` (see change_job) and max_wait: the time in ms
--       after the submission of the holder when the holder must be due
-- Returns: per submission {'stored', first id, ms until the earliest job or word of the agenda is due or -1, status} |
--          {'replayed', first id, count, status, '' | existing | replaced} | {'mismatch'} | {'duplicate', holder's id} |
--          {'existing', holder's id, its status or ''} | {'replaced', holder's id, its status, ms until it is due or -1} |
--          {'full', queue} | {'expired', place of the job in the submission, from 0} | {'unknown_limit', the limit}
-- Protects from: a request that is repeated after a lost reply (with a key); two jobs with one id; half a batch;
-- a repeated request that is acknowledged although no replica has its jobs.
-- A full Redis refuses this script, since it has no allow-oom. All reads come before the first write: see rights.rs.
local max_length, life, replicas = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local JOB_HEAD = 6
local time = call('TIME')
local now = ms_of(time)
local next_id = first_id(time)

-- Whether a reply of this call acknowledges a job that an earlier call has stored.
local is_known = false
-- The accepted jobs: {id, place in ARGV, due time or nil, options or nil}.
local accepted = {}
-- The changes of jobs that hold a unique key, in place of new jobs: {id, what to set}.
local replacements = {}
-- What earlier submissions of this call change: the number of ready jobs in each queue, the replies by idempotency key,
-- and the holders of unique keys: {id, status, whether the key is free from the start on, type, due time or nil, time of
-- the expiry or nil}.
local lengths, kept, holders = {}, {}, {}
-- The index of each type, and the number of types that this call adds.
local indexes, added = {}, 0

-- The live holder of a unique key, as in `holders`, or nil.
local function find_holder(unique)
  if holders[unique] then return holders[unique] end
  local id, status = holder_of(unique)
  if not id then return nil end
  local job = read(id, 'ties', 'type', 'scheduled_at', 'expires_at')
  local due = status == 'scheduled' and tonumber(job[3]) or nil
  return {id, status or '', is_tied(job[1], 'S'), job[2], due, tonumber(job[4])}
end

-- Decides about a job whose unique key is held. Returns the reply of its submission.
local function decide_conflict(holder, job_type, options)
  local how = options and options.on_conflict
  if how == 'existing' then
    is_known = true
    return {'existing', holder[1], holder[2]}
  end
  local can_change = holder[2] == 'queued' or holder[2] == 'scheduled'
  if how ~= 'replace' or not can_change or not holder[3] or holder[4] ~= job_type then return {'duplicate', holder[1]} end
  local set = options.set
  if options.max_wait then set.latest = math.floor(holder[1] / 1000) + options.max_wait end
  local due = due_after(set, holder[5], now)
  local expires_at = expiry_of(set, now) or holder[6]
  if expires_at and expires_at <= math.max(now, due or 0) then return {'expired', 0} end
  if not due or due <= now then due = nil end
  holder[2], holder[5], holder[6] = due and 'scheduled' or 'queued', due, expires_at
  replacements[#replacements + 1] = {holder[1], set}
  is_known = true
  return {'replaced', holder[1], holder[2], due and due - now or -1}
end

-- Decides about a submission whose jobs begin at these places in ARGV. Returns its reply.
local function decide(places, key, fingerprint)
  if key ~= '' then
    local answer = kept[key] or call('GET', IDEMPOTENCY .. key)
    if answer then
      local print, id, number, status, how = string.match(answer, '^(%S+) (%d+) (%d+) (%w*) ?(%l*)$')
      if print ~= fingerprint then return {'mismatch'} end
      is_known = true
      return {'replayed', id, number, status, how}
    end
  end

  local due, ready, options, earliest, has_limits = {}, {}, {}, -1, false
  local function note_due(ms) if earliest < 0 or ms < earliest then earliest = ms end end
  for i = 1, #places do
    local queue, start, unique = ARGV[places[i]], ARGV[places[i] + 1], ARGV[places[i] + 2]
    options[i] = options_of(ARGV[places[i] + 4])
    local at, expires_at = due_time(start, now), options[i] and expiry_of(options[i], now)
    for _, limit in ipairs(options[i] and options[i].limits or {}) do
      has_limits = true
      if not is_reserved(limit) and not limit_rules().numbers_of(limit) then return {'unknown_limit', limit} end
    end
    if at and options[i] and options[i].max_wait then at = math.min(at, now + options[i].max_wait) end
    local is_due_later = at and at > now
    if expires_at then
      if expires_at <= (is_due_later and at or now) then return {'expired', i - 1} end
      note_due(expires_at - now)
    end
    if is_due_later then
      due[i] = at
      note_due(at - now)
    else
      ready[queue] = (ready[queue] or 0) + 1
    end
    local holder = unique ~= '' and find_holder(unique)
    if holder then
      local reply = decide_conflict(holder, ARGV[places[i] + 3], options[i])
      if key ~= '' and (reply[1] == 'existing' or reply[1] == 'replaced') then
        kept[key] = fingerprint .. ' ' .. reply[2] .. ' 1 ' .. holder[2] .. ' ' .. reply[1]
      end
      return reply
    end
  end
  for queue, number in pairs(ready) do
    lengths[queue] = lengths[queue] or count_entries(queue)
    local over = lengths[queue] + number - max_length
    -- Jobs that wait for room in a limit leave the list of the queue.
    if has_limits then over = over + count_held(queue) end
    -- Tombstones do not count, up to as many as the queue may have jobs.
    if over > 0 and over > math.min(count_tombstones(queue), max_length) then return {'full', queue} end
  end
  for queue, number in pairs(ready) do lengths[queue] = lengths[queue] + number end

  local first = digits(next_id)
  for i = 1, #places do
    local id, unique, job_type = digits(next_id + i - 1), ARGV[places[i] + 2], ARGV[places[i] + 3]
    if unique ~= '' then
      holders[unique] = {id, due[i] and 'scheduled' or 'queued', options[i] and is_tied(options[i].ties, 'S'), job_type,
        due[i], options[i] and expiry_of(options[i], now)}
    end
    if not indexes[job_type] then
      indexes[job_type] = index_of(job_type, added)
      if indexes[job_type] == 'new' then added = added + 1 end
    end
    accepted[#accepted + 1] = {id, places[i], due[i], options[i]}
  end
  next_id = next_id + #places
  local status = due[1] and 'scheduled' or 'queued'
  if key ~= '' then kept[key] = fingerprint .. ' ' .. first .. ' ' .. digits(#places) .. ' ' .. status end
  return {'stored', first, earliest, status}
end

local answers, at = {}, 4
while at <= #ARGV do
  local key, fingerprint, places = ARGV[at + 1], ARGV[at + 2], {}
  local number = tonumber(ARGV[at])
  at = at + 3
  for i = 1, number do
    places[i] = at
    at = at + JOB_HEAD + ARGV[at + 5]
  end
  answers[#answers + 1] = decide(places, key, fingerprint)
end

-- What the jobs write together: ids by queue, ids of queued and scheduled jobs by type.
local queues, queued, scheduled = {}, {}, {}
for i = 1, #accepted do
  local id, place, due, options = accepted[i][1], accepted[i][2], accepted[i][3], accepted[i][4]
  local queue, unique, job_type = ARGV[place], ARGV[place + 2], ARGV[place + 3]
  write_job(id, due and 'scheduled' or 'queued', job_type, unique, options, due, now,
    unpack(ARGV, place + JOB_HEAD, place + JOB_HEAD - 1 + ARGV[place + 5]))
  if due then
    call('ZADD', SCHEDULED, digits(due), id)
    call('SADD', QUEUES, queue)
    put(scheduled, job_type, id)
  else
    put(queued, job_type, id)
    put(queues, queue, id)
  end
end
for job_type, ids in pairs(queued) do index_add(ids, job_type, 'queued', indexes[job_type]) end
for job_type, ids in pairs(scheduled) do index_add(ids, job_type, 'scheduled', indexes[job_type]) end
for queue, ids in pairs(queues) do push_new(queue, ids) end
for _, replacement in ipairs(replacements) do change_job(replacement[1], replacement[2], now) end
if made_rules then made_rules.send_on_freed(now) end
-- WAIT looks at the last write of its connection. So a call that stores nothing writes too if WAIT follows: a replica
-- that has this write has all earlier ones.
if accepted[1] or (is_known and replicas > 0) then call('SET', LAST_ID, digits(next_id - 1)) end
for key, answer in pairs(kept) do call('SET', IDEMPOTENCY .. key, answer, 'PX', life) end
return answers
