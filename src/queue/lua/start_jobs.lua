-- Takes ready jobs and starts them in one step: queued -> processing.
-- ARGV: server, quarantine skip|reserve|start, max crashes, id that BRPOPLPUSH brought or '', its queue,
--       then per queue, in the order to fill up from: name, share of this take
--       quarantine: what to do about quarantined jobs, each of which runs alone on a server: skip: start none |
--       reserve: start none, since jobs run here, but this server may be reserved for them and then drains |
--       start: nothing runs here, so one may start
-- Returns: {'fenced'} | {'taken', now ms, 1 if this server is to empty itself, [paused ones of the queues],
--          1 if the step has ended before its time, so that there may be more, job, ..},
--          a job being [field, value, .., id] as it was before the start, packed (MessagePack) into one text: both Redis
--          and its client take far longer for an array
-- Protects from: a start by a server that was declared dead, by a list entry that is not this server's, of a job that
-- is not queued (cancelled, taken over, twice in a list), in a paused queue; an id without a job wedging a fetcher; a
-- call that is carried out so late that its claimed job was put back and taken again (it runs, and must keep its entry);
-- a job that is blamed, and fails, for what another one beside it did.
local server, quarantine, max_crashes, claimed, claimed_from = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
if not is_registered(server) then return {'fenced'} end
local list, now = IN_PROGRESS .. server, now_ms()
local at, paused, is_paused = digits(now), {}, {}
for i = 6, #ARGV, 2 do
  if call('SISMEMBER', PAUSED, ARGV[i]) == 1 then
    paused[#paused + 1] = ARGV[i]
    is_paused[ARGV[i]] = true
  end
end
local taken = {'taken', now, 0, paused, 0}
local HEAD = #taken

-- An entry that can be an id, or a token that can be counted on: 1 to 2^53 - 1 in plain digits.
local function is_id(entry)
  return #entry <= 16 and string.find(entry, '^[1-9]%d*$') and tonumber(entry) < 9007199254740992
end

-- Large jobs are not taken all at once: an answer that takes longer than the server waits for it is a lost one.
local MAX_BYTES, bytes = 4 * 1024 * 1024, 0
-- Nor are more entries without a job dropped in one step.
local MAX_DROPS, drops = 500, 0

-- Takes what is not to be started out of the list. A job that runs here keeps one entry: without it nobody would find it
-- when this server dies.
local function drop(id, status, owner, queue)
  drops = drops + 1
  local runs_here = status == 'processing' and owner == server
  if runs_here and #call('LPOS', list, id, 'COUNT', 2) < 2 then return end
  call('LREM', list, 1, id)
  if not forget_entry(queue, id) and not status then note_lost(id, at) end
end

-- Queues of which a job was found to be on its last chance.
local found = {}

-- Starts a job. One on its last chance that comes from an ordinary list goes to the suspects of that queue instead.
local function start(id, queue, is_suspect)
  local status, starts, owner, crashes
  local fields = try_call('HGETALL', JOB .. id)
  if not fields.err and is_id(id) then
    for i = 1, #fields, 2 do
      if fields[i] == 'status' then status = fields[i + 1]
      elseif fields[i] == 'starts' then starts = fields[i + 1]
      elseif fields[i] == 'server' then owner = fields[i + 1]
      elseif fields[i] == 'crashes' then crashes = fields[i + 1]
      end
    end
  end
  if status ~= 'queued' then
    for i = 2, fields.err and 0 or #fields, 2 do bytes = bytes + #fields[i] end
    drop(id, status, owner, queue)
    return false
  end
  if not is_suspect and is_last_chance(crashes, max_crashes) then
    call('LREM', list, 1, id)
    call('LPUSH', fill_list(queue) .. SUSPECTS, id)
    found[queue] = true
    return false
  end
  starts = starts and is_id(starts) and digits(starts + 1) or '1'
  call('HSET', JOB .. id, 'status', 'processing', 'server', server, 'starts', starts, 'started_at', at)
  fields[#fields + 1] = id
  local job = cmsgpack.pack(fields)
  bytes = bytes + #job
  taken[#taken + 1] = job
  return true
end

local left = 0
for i = 6, #ARGV, 2 do left = left + tonumber(ARGV[i + 1]) end

-- What BRPOPLPUSH has moved already comes first; without a free worker, or in a paused queue, it goes back in front.
if claimed ~= '' and call('LPOS', list, claimed) then
  if left > 0 and not is_paused[claimed_from] then
    if start(claimed, claimed_from) then left = left - 1 end
  else
    local job = read(claimed, 'status', 'server')
    if job[1] == 'queued' then
      call('LREM', list, 1, claimed)
      call('RPUSH', WORK .. claimed_from, claimed)
    else
      drop(claimed, job[1], job[2], claimed_from)
    end
  end
end

-- Whether this is the one server that empties itself for the suspects of a queue. It stays the one until none is left or
-- it is dead, so that all other servers go on with the other jobs.
local function makes_room(queue)
  local chosen = call('GET', LAST_CHANCE .. queue)
  if chosen and chosen ~= server and is_registered(chosen) then return false end
  call('SET', LAST_CHANCE .. queue, server)
  return true
end

-- The suspects of a queue: one starts on an empty server only, and nothing beside it. Whether one was started. Another job
-- among them (a list of version 0.4, or more crashes are allowed by now) is one like any other.
local function start_quarantined(queue)
  local waiting = WORK .. queue .. SUSPECTS
  while left > 0 and bytes < MAX_BYTES and drops < MAX_DROPS do
    local id = call('LINDEX', waiting, -1)
    if not id then return false end
    local alone = is_last_chance(read(id, 'crashes')[1], max_crashes)
    if alone and (quarantine ~= 'start' or #taken > HEAD) then
      if makes_room(queue) then taken[3] = 1 end
      return false
    end
    call('LPUSH', list, call('RPOP', waiting))
    if start(id, queue, true) then
      if call('EXISTS', waiting) == 0 then call('DEL', LAST_CHANCE .. queue) end
      if alone then return true end
      left = left - 1
    end
  end
end
if quarantine ~= 'skip' then
  for i = 6, #ARGV, 2 do
    if not is_paused[ARGV[i]] and start_quarantined(ARGV[i]) then return taken end
  end
end
if taken[3] == 1 then return taken end

-- As many again are taken as were dropped: behind 1,000,000 jobs that were cancelled one may wait.
local function take(queue, number)
  while number > 0 and not is_paused[queue] and drops < MAX_DROPS do
    local ids, dropped_before = call('RPOP', WORK .. queue, digits(number)), drops
    if not ids then return end
    call('LPUSH', list, unpack(ids))
    for i = 1, #ids do
      if bytes >= MAX_BYTES then
        for back = #ids, i, -1 do
          call('LREM', list, 1, ids[back])
          call('RPUSH', WORK .. queue, ids[back])
        end
        left, taken[5] = 0, 1
        return
      end
      if start(ids[i], queue) then left = left - 1 end
    end
    number = drops - dropped_before
  end
end
for i = 6, #ARGV, 2 do take(ARGV[i], math.min(left, tonumber(ARGV[i + 1]))) end
for i = 6, #ARGV, 2 do take(ARGV[i], left) end
if drops >= MAX_DROPS then taken[5] = 1 end
for queue in pairs(found) do
  if quarantine ~= 'skip' and start_quarantined(queue) then return taken end
end
return taken
