-- Stores submissions, of each all jobs or none: new -> queued | scheduled.
-- ARGV: max queue length, life of an idempotency key in ms,
--       then per submission: number of jobs, idempotency key or '', fingerprint of the request, and its jobs, each
--       queue, delay ms or '', time ms or '', type, payload, max attempts, timeout ms, unique key or ''
-- Returns: per submission {'stored', first id, ms until the earliest job is due or -1} |
--          {'replayed', first id, count, scheduled 0|1} | {'mismatch'} | {'duplicate', holder's id} | {'full', queue}
-- Protects from: a request that is repeated after a lost reply (with a key); two jobs with one id; half a batch.
-- A full Redis refuses this script, since it has no allow-oom.
local max_length, life = tonumber(ARGV[1]), ARGV[2]
local HEAD, WIDTH = 3, 8
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local next_id = math.max(time[1] * 1000000 + time[2], (tonumber(call('GET', LAST_ID) or 0)) + 1)

-- What all submissions write together: ids by queue, ids of queued and scheduled jobs by type, replies by idempotency
-- key.
local queues, queued, scheduled, kept = {}, {}, {}, {}
-- The number of ready jobs in each queue, with those of earlier submissions of this call.
local lengths = {}
local function length(queue)
  lengths[queue] = lengths[queue] or call('LLEN', WORK .. queue) + call('LLEN', WORK .. queue .. SUSPECTS)
  return lengths[queue]
end

local function submit(start, count, key, fingerprint)
  if key ~= '' then
    local answer = kept[key] or call('GET', IDEMPOTENCY .. key)
    if answer then
      local print, id, number, parked = string.match(answer, '^(%S+) (%d+) (%d+) (%d)$')
      if print ~= fingerprint then return {'mismatch'} end
      return {'replayed', id, number, parked}
    end
  end

  local due, ready = {}, {}
  for i = 1, count do
    local at = start + (i - 1) * WIDTH
    local queue, delay, time_ms, unique = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 7]
    if delay ~= '' then due[i] = now + tonumber(delay) elseif time_ms ~= '' then due[i] = tonumber(time_ms) end
    if not due[i] or due[i] <= now then
      due[i] = nil
      ready[queue] = (ready[queue] or 0) + 1
    end
    if unique ~= '' then
      local holder = call('GET', UNIQUE .. unique)
      if holder then
        local status = read(holder, 'status')[1]
        if status and not is_final(status) then return {'duplicate', holder} end
      end
    end
  end
  for queue, number in pairs(ready) do
    local over = length(queue) + number - max_length
    -- Tombstones do not count, up to as many as the queue may have jobs.
    if over > 0 and over > math.min(count_tombstones(queue), max_length) then return {'full', queue} end
  end
  for queue, number in pairs(ready) do lengths[queue] = lengths[queue] + number end

  local first, earliest = digits(next_id), -1
  for i = 1, count do
    local at = start + (i - 1) * WIDTH
    local id = i == 1 and first or digits(next_id + i - 1)
    local queue, job_type, max_attempts, timeout, unique = ARGV[at], ARGV[at + 3], ARGV[at + 5], ARGV[at + 6], ARGV[at + 7]
    call('HSET', JOB .. id, 'status', due[i] and 'scheduled' or 'queued', 'type', job_type, in_pieces('payload', ARGV[at + 4]))
    -- A record leaves out these fields if they have their defaults.
    if queue ~= DEFAULT_QUEUE or max_attempts ~= DEFAULT_MAX_ATTEMPTS or timeout ~= DEFAULT_TIMEOUT_MS then
      call('HSET', JOB .. id, 'queue', queue, 'max_attempts', max_attempts, 'timeout_ms', timeout)
    end
    if unique ~= '' then
      call('HSET', JOB .. id, 'unique_key', unique)
      call('SET', UNIQUE .. unique, id)
    end
    if due[i] then
      call('HSET', JOB .. id, 'scheduled_at', digits(due[i]))
      call('ZADD', SCHEDULED, digits(due[i]), id)
      put(scheduled, job_type, id)
      if earliest < 0 or due[i] - now < earliest then earliest = due[i] - now end
      queues[queue] = queues[queue] or {}
    else
      put(queued, job_type, id)
      put(queues, queue, id)
    end
  end
  next_id = next_id + count
  if key ~= '' then kept[key] = fingerprint .. ' ' .. first .. ' ' .. digits(count) .. ' ' .. (due[1] and 1 or 0) end
  return {'stored', first, earliest}
end

local answers, at = {}, 3
while at <= #ARGV do
  local count = tonumber(ARGV[at])
  answers[#answers + 1] = submit(at + HEAD, count, ARGV[at + 1], ARGV[at + 2])
  at = at + HEAD + count * WIDTH
end
for job_type, ids in pairs(queued) do index_add(ids, job_type, 'queued') end
for job_type, ids in pairs(scheduled) do index_add(ids, job_type, 'scheduled') end
for queue, ids in pairs(queues) do
  call('SADD', QUEUES, queue)
  if ids[1] then call('LPUSH', WORK .. queue, unpack(ids)) end
end
call('SET', LAST_ID, digits(next_id - 1))
for key, answer in pairs(kept) do call('SET', IDEMPOTENCY .. key, answer, 'PX', life) end
return answers
