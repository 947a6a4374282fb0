-- Checks candidates of the doctor's scan again, each by itself, and repairs the candidates that are still wrong.
-- ARGV: recheck|repair, number of the following keys, in-progress lists of servers that are not in the registry,
--       then per candidate: kind, key, id, hint
--       hint: for an entry of a list its distance from the right end; stranded: the number of starts, or '';
--       wrong_type: the right type; unreadable: the record's fingerprint; doubled: lines of key and distance, by turns
-- Returns: for as many candidates as fit into one step, at least one:
--          {'gone'} | {'there', note} | {'repaired', what was done} | {'left', why}
-- Protects from: a repair of data that a server has changed since the scan met it.
local repairs, now = ARGV[1] == 'repair', now_ms()
local at_now = digits(now)
local unregistered = {}
for i = 1, tonumber(ARGV[2]) do unregistered[i] = ARGV[2 + i] end

local function is_listed(id, queue)
  if is_held(id) then return true end
  if entries(WORK .. queue)[id] or entries(WORK .. queue .. SUSPECTS)[id] then return true end
  for _, server in ipairs(try('HKEYS', SERVERS) or {}) do
    if entries(IN_PROGRESS .. server)[id] then return true end
  end
  for _, key in ipairs(unregistered) do
    if entries(key)[id] then return true end
  end
  return false
end

-- Pushes a job to the front of its queue, since a stranded job has waited long. The newest comes first, so that the
-- oldest is the first at the end.
local function push_front(id, queue)
  local key = WORK .. queue
  call('RPUSH', key, id)
  call('SADD', QUEUES, queue)
  entries(key)[id] = {0}
end

-- Removes the entry at this index. In the middle of a long list a tombstone takes its place.
local function remove_entry(key, place)
  local length = call('LLEN', key)
  call('LSET', key, digits(place), TOMBSTONE)
  if place < SHORT then
    call('LREM', key, 1, TOMBSTONE)
  elseif length - place <= SHORT then
    call('LREM', key, -1, TOMBSTONE)
  elseif queue_of(key) then
    add_tombstone(queue_of(key), TOMBSTONE)
  end
  lists[key] = nil
end

local function set_aside(key)
  local to = SET_ASIDE .. rest(key, PREFIX)
  if call('EXISTS', to) == 1 then to = to .. ':' .. at_now end
  call('RENAME', key, to)
  return rest(to, PREFIX)
end

local check = {}

function check.stranded(_, id, starts)
  local job = read(id, 'status', 'queue', 'server', 'starts', 'scheduled_at')
  local status, queue = job[1], job[2] or 'default'
  if status == 'queued' then
    if is_listed(id, queue) or (starts ~= '' and starts ~= (job[4] or '0')) then return end
  elseif not job_faults(id).stranded then
    return
  end
  return job[4] or '0', function()
    if status == 'scheduled' or status == 'retrying' then
      call('ZADD', SCHEDULED, job[5] or at_now, id)
      return 'waits for its time again'
    elseif status == 'processing' and job[3] then
      -- If its server runs the job, the server settles it; if not, the server puts the unknown entry back; if the
      -- server is dead, its list is taken over.
      call('LPUSH', IN_PROGRESS .. job[3], id)
      lists[IN_PROGRESS .. job[3]] = nil
      return 'is in the list of its server again'
    end
    call('HSET', JOB .. id, 'status', 'queued', 'queue', queue)
    limit_rules().leave_line(id, queue)
    push_front(id, queue)
    return 'is at the front of its queue'
  end
end

function check.unlisted(_, id)
  if not job_faults(id).unlisted then return end
  local job = read(id, 'status', 'finished_at')
  if job[1] == 'completed' and entries(COMPLETED)[id] then return end
  return '', function()
    call('ZADD', job[1] == 'failed' and DLQ or DONE, job[2] or at_now, id)
    return 'is in the retention set again'
  end
end

function check.index_missing(_, id)
  if not job_faults(id).index_missing then return end
  return '', function()
    local job = read(id, 'status', 'type')
    if is_unindexed(id, job[1], job[2]) then index_add({id}, job[2], job[1]) end
    for _, tag in ipairs(missing_tags(id)) do call('ZADD', TAG_INDEX .. indexed(job[1]) .. ':' .. tag, id, id) end
    return 'is listed again'
  end
end

function check.tick_missing(key, name)
  if entry_fault(key, name) ~= 'tick_missing' then return end
  return '', function()
    call('ZADD', AGENDA, at_now, 'tick:' .. name)
    return 'has its next tick again'
  end
end

function check.agenda_missing(key, id)
  if key == WAITING_LIMITS then
    if not lacks_look(id) then return end
    return '', function()
      call('ZADD', AGENDA, at_now, 'limit:' .. id)
      return 'is looked at again'
    end
  end
  if not job_faults(id).agenda_missing then return end
  return '', function()
    local word, due = agenda_word(id)
    call('ZADD', AGENDA, digits(due), word)
    return 'is in the agenda again'
  end
end

function check.unique_missing(_, id)
  if not job_faults(id).unique_missing then return end
  return '', function()
    local unique = read(id, 'unique_key')[1]
    if holds(try('GET', UNIQUE .. unique), unique) then return nil, 'another live job holds the key' end
    call('SET', UNIQUE .. unique, id)
    return 'holds its key again'
  end
end

function check.unique_stale(key)
  local holder = try('GET', key)
  if not holder or holds(holder, rest(key, UNIQUE)) then return end
  return holder, function()
    call('DEL', key)
    return 'is free'
  end
end

function check.log_stale(key)
  if not is_log_stale(key) then return end
  return '', function()
    local id, job = rest(key, LOG), read(rest(key, LOG), 'status', 'log_last')
    if not job[1] then
      call('DEL', key)
      return 'deleted'
    end
    local last = math.max(stored_number(job[2]) or 0, call('LLEN', key))
    call('LTRIM', key, '-1000', -1)
    call('HSET', JOB .. id, 'log_last', digits(last))
    return 'is numbered again'
  end
end

function check.slot_stale(key, id)
  local limit, score = rest(key, SLOTS), try('ZSCORE', key, id)
  if not score or may_have_slot(id, limit, score) then return end
  return '', function()
    call('ZREM', key, id)
    limit_rules().free(limit)
    return 'is free'
  end
end

function check.limit_miscounted(key, id)
  if key == HELD_COUNT then
    if not is_held_miscounted() then return end
    return '', function()
      call('DEL', key)
      for queue, number in pairs(count_held()) do call('HSET', key, queue, digits(number)) end
      return 'is counted again'
    end
  end
  if not is_limit_miscounted(key, id) then return end
  local limit, queue = limit_of(key, id)
  return '', function()
    local numbers = count_sent(limit, queue)
    call('DEL', HOLDS .. limit)
    for name, number in pairs(numbers) do call('ZADD', HOLDS .. limit, digits(number), name) end
    if next(numbers) then
      call('ZADD', WAITING_LIMITS, 0, limit)
      limit_rules().free(limit)
    else
      call('ZREM', WAITING_LIMITS, limit)
    end
    return 'is counted again'
  end
end

function check.entry(kind, key, id, hint)
  local at
  if is_list(key) then
    at = places(key, id, hint)[1]
  elseif rest(key, CANCELS) then
    at = try('SISMEMBER', key, id) == 1
  else
    at = try('ZSCORE', key, id)
  end
  if not at or entry_fault(key, id) ~= kind then return end
  return '', function()
    if is_list(key) then
      remove_entry(key, at)
    else
      call(rest(key, CANCELS) and 'SREM' or 'ZREM', key, id)
    end
    if rest(key, HELD) then limit_rules().tidy(limit_of(key)) end
    if kind == 'dangling' then note_lost(id, at_now) end
    local job = read(id, 'status', 'queue')
    if rest(key, WORK) and job[1] == 'queued' and not is_listed(id, job[2] or 'default') then
      push_front(id, job[2] or 'default')
      return 'is at the front of its own queue'
    end
    return kind == 'dangling' and 'taken out, noted in lost' or 'taken out'
  end
end

function check.doubled(_, id, hint)
  local job = read(id, 'status', 'server', 'queue')
  local found, known = {}, {}
  for key, distance in string.gmatch(hint, '([^\n]+)\n(%d+)') do
    for _, place in ipairs(places(key, id, distance)) do
      if not known[key .. ' ' .. place] then
        known[key .. ' ' .. place] = true
        found[#found + 1] = {key, place}
      end
    end
  end
  local too_many = #found - 1 - tombstones_of(job[3] or DEFAULT_QUEUE, id)
  if too_many < 1 or (job[1] ~= 'queued' and job[1] ~= 'processing') then return end
  return '', function()
    -- Keeps the entry that the job needs: in its server's list, or the first one in its queue. Removes the others
    -- from right to left, so that the indexes of the next ones stay right.
    local home = job[1] == 'processing' and IN_PROGRESS .. (job[2] or '') or WORK .. (job[3] or 'default')
    table.sort(found, function(a, b)
      if (a[1] == home) ~= (b[1] == home) then return a[1] == home end
      if a[1] ~= b[1] then return a[1] < b[1] end
      return a[2] > b[2]
    end)
    for i = #found - too_many + 1, #found do remove_entry(found[i][1], found[i][2]) end
    return too_many .. ' taken out'
  end
end

function check.wrong_type(key, _, right)
  local redis_type = call('TYPE', key).ok
  if redis_type == 'none' or redis_type == right then return end
  return redis_type, function() return 'renamed to ' .. set_aside(key) end
end

function check.unreadable(_, id, print)
  if call('EXISTS', JOB .. id) == 0 or fingerprint(id) ~= print then return end
  return '', function()
    local job = read(id, 'status', 'type', 'unique_key')
    if job[1] == 'processing' then return nil, 'a server runs the job; that server will fail the job' end
    for _, set in ipairs({SCHEDULED, DLQ, DONE}) do call('ZREM', set, id) end
    if job[1] then index_remove({id}, job[2], job[1]) end
    release_unique(id, job[3])
    note_lost(id, at_now)
    return 'renamed to ' .. set_aside(JOB .. id)
  end
end

-- Returns the heartbeat counter with which reclaim.lua then takes over the list. For reclaim.lua the server has to be
-- in the registry. Its counter 0 never changes, so that any server completes the repair if the doctor ends here.
function check.abandoned(key)
  local server = rest(key, IN_PROGRESS) or rest(key, CANCELS)
  local beat = try('HGET', SERVERS, server)
  if (beat and string.sub(beat, 1, 1) ~= 'D') or call('EXISTS', key) == 0 then return end
  return beat or 'unknown', function()
    if rest(key, CANCELS) then
      call('DEL', key)
      return 'forgotten'
    end
    if not beat then call('HSET', SERVERS, server, 0) end
    return beat or '0'
  end
end

local answers = {}
for i = 3 + #unregistered, #ARGV, 4 do
  if spent > 2 * SHORT and #answers > 0 then break end
  local kind, key, id, hint = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local note, repair
  if check[kind] then note, repair = check[kind](key, id, hint) else note, repair = check.entry(kind, key, id, hint) end
  if not repair then
    answers[#answers + 1] = {'gone'}
  elseif not repairs then
    answers[#answers + 1] = {'there', note}
  else
    -- A key of a wrong type makes a repair fail. It is set aside in this round, and the next round repairs the rest.
    local went, done, why = pcall(repair)
    if not went then
      answers[#answers + 1] = {'left', type(done) == 'table' and done.err or tostring(done)}
    elseif done then
      answers[#answers + 1] = {'repaired', done}
    else
      answers[#answers + 1] = {'left', why}
    end
  end
end
-- Jobs that a repair has made room for go on. A key of a wrong type may prevent this too.
if repairs and made_rules then pcall(made_rules.send_on_freed, now) end
return answers
