-- Stores submissions, of each all jobs or none: new -> queued | scheduled.
-- ARGV: max queue length, life of an idempotency key in ms, number of replicas that WAIT will ask for,
--       then per submission: number of jobs, idempotency key or '', fingerprint of the request, and its jobs, each
--       queue, start, unique key or '', type, number of the texts that follow, [field, value, ..]
--       start: '' for now, + and a delay in ms, or a time in ms
-- Returns: per submission {'stored', first id, ms until the earliest job is due or -1} |
--          {'replayed', first id, count, scheduled 0|1} | {'mismatch'} | {'duplicate', holder's id} | {'full', queue}
-- Protects from: a request that is repeated after a lost reply (with a key); two jobs with one id; half a batch;
-- a repeated request that is acknowledged although no replica has its jobs.
-- A full Redis refuses this script, since it has no allow-oom. All reads come before the first write: see rights.rs.
local max_length, life, replicas = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local JOB_HEAD = 5
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local next_id = first_id(time)

-- Whether a submission of this call was stored by an earlier call.
local is_replayed = false
-- The accepted jobs: {id, place in ARGV, due time or nil}.
local accepted = {}
-- What earlier submissions of this call change: the number of ready jobs in each queue, the replies by idempotency key,
-- and the holders of unique keys.
local lengths, kept, holders = {}, {}, {}
-- The index of each type, and the number of types that this call adds.
local indexes, added = {}, 0

-- Decides about a submission whose jobs begin at these places in ARGV. Returns its reply.
local function decide(places, key, fingerprint)
  if key ~= '' then
    local answer = kept[key] or call('GET', IDEMPOTENCY .. key)
    if answer then
      local print, id, number, parked = string.match(answer, '^(%S+) (%d+) (%d+) (%d)$')
      if print ~= fingerprint then return {'mismatch'} end
      is_replayed = true
      return {'replayed', id, number, parked}
    end
  end

  local due, ready, earliest = {}, {}, -1
  for i = 1, #places do
    local queue, start, unique = ARGV[places[i]], ARGV[places[i] + 1], ARGV[places[i] + 2]
    local at = tonumber(start)
    if string.sub(start, 1, 1) == '+' then at = now + at end
    if at and at > now then
      due[i] = at
      if earliest < 0 or at - now < earliest then earliest = at - now end
    else
      ready[queue] = (ready[queue] or 0) + 1
    end
    if unique ~= '' then
      if holders[unique] then return {'duplicate', holders[unique]} end
      local holder = call('GET', UNIQUE .. unique)
      if holder then
        local status = read(holder, 'status')[1]
        if status and not is_final(status) then return {'duplicate', holder} end
      end
    end
  end
  for queue, number in pairs(ready) do
    lengths[queue] = lengths[queue] or count_entries(queue)
    local over = lengths[queue] + number - max_length
    -- Tombstones do not count, up to as many as the queue may have jobs.
    if over > 0 and over > math.min(count_tombstones(queue), max_length) then return {'full', queue} end
  end
  for queue, number in pairs(ready) do lengths[queue] = lengths[queue] + number end

  local first = digits(next_id)
  for i = 1, #places do
    local id, unique, job_type = digits(next_id + i - 1), ARGV[places[i] + 2], ARGV[places[i] + 3]
    if unique ~= '' then holders[unique] = id end
    if not indexes[job_type] then
      indexes[job_type] = index_of(job_type, added)
      if indexes[job_type] == 'new' then added = added + 1 end
    end
    accepted[#accepted + 1] = {id, places[i], due[i]}
  end
  next_id = next_id + #places
  if key ~= '' then kept[key] = fingerprint .. ' ' .. first .. ' ' .. digits(#places) .. ' ' .. (due[1] and 1 or 0) end
  return {'stored', first, earliest}
end

local answers, at = {}, 4
while at <= #ARGV do
  local key, fingerprint, places = ARGV[at + 1], ARGV[at + 2], {}
  local number = tonumber(ARGV[at])
  at = at + 3
  for i = 1, number do
    places[i] = at
    at = at + JOB_HEAD + ARGV[at + 4]
  end
  answers[#answers + 1] = decide(places, key, fingerprint)
end

-- What the jobs write together: ids by queue, ids of queued and scheduled jobs by type.
local queues, queued, scheduled = {}, {}, {}
for i = 1, #accepted do
  local id, place, due = accepted[i][1], accepted[i][2], accepted[i][3]
  local queue, unique, job_type = ARGV[place], ARGV[place + 2], ARGV[place + 3]
  call('HSET', JOB .. id, 'status', due and 'scheduled' or 'queued', 'type', job_type,
    unpack(ARGV, place + JOB_HEAD, place + JOB_HEAD - 1 + ARGV[place + 4]))
  if unique ~= '' then
    call('HSET', JOB .. id, 'unique_key', unique)
    call('SET', UNIQUE .. unique, id)
  end
  if due then
    call('HSET', JOB .. id, 'scheduled_at', digits(due))
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
-- WAIT looks at the last write of its connection. So a call that stores nothing writes too if WAIT follows: a replica
-- that has this write has all earlier ones.
if accepted[1] or (is_replayed and replicas > 0) then call('SET', LAST_ID, digits(next_id - 1)) end
for key, answer in pairs(kept) do call('SET', IDEMPOTENCY .. key, answer, 'PX', life) end
return answers
