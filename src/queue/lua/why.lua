-- Reads what decides when a job starts.
-- ARGV: id
-- Returns: {} if there is no job, otherwise
--          {now, [field, value, .. of the job], 1 if it was told to stop, 1 if its queue is paused, number of living
--           servers, of those that take from its queue, of their workers, of their busy workers, the one of them that is
--           reserved for a quarantined job or '', [strict queue before its queue, its number of jobs, ..],
--           place queue|suspects|claimed|server|scheduled|limit|none, number of jobs before it in its list, 1 if there may be
--           more, the server that has claimed it or '', ms since the last heartbeat of the server that runs it or -1,
--           [of the limit for which the job waits: name, slots or 0, ms when the rate allows the next start or -1, ids of at
--           most 100 jobs that have a slot], ms since pull workers asked for jobs of its queue or -1}
--          place: where the entry of the job is
local id, now = ARGV[1], now_ms()
local fields = try_call('HGETALL', JOB .. id)
-- An error has no fields.
if #fields == 0 then return {} end
local job = read(id, 'status', 'queue', 'server', 'cancel', 'blocked')
local status, queue, server = job[1], job[2] or DEFAULT_QUEUE, job[3]
local list = WORK .. queue

local living, takers, workers, busy, reserved, strict, beat_age, names = 0, 0, 0, 0, '', {}, -1, {}
local seen = {}
local all = call('HGETALL', SERVERS)
for i = 1, #all, 2 do
  local name = all[i]
  names[#names + 1] = name
  if is_living(all[i + 1]) then
    living = living + 1
    local facts = call('HMGET', SERVER .. name, 'queues', 'workers', 'busy', 'beat_at', 'strict')
    if name == server then beat_age = now - (tonumber(facts[4]) or now) end
    if has_word(facts[1], ',', queue) then
      takers = takers + 1
      workers = workers + (tonumber(facts[2]) or 0)
      busy = busy + (tonumber(facts[3]) or 0)
      for other in string.gmatch(facts[1], '[^,]+') do
        if call('GET', LAST_CHANCE .. other) == name then reserved = name end
      end
      for other in string.gmatch(facts[5] or '', '[^,]+') do
        if other == queue then break end
        if not seen[other] and call('SISMEMBER', PAUSED, other) == 0 then
          local number = count_entries(other) - count_tombstones(other)
          if number > 0 then strict[#strict + 1], strict[#strict + 2] = other, number end
        end
        seen[other] = true
      end
    end
  end
end

local place, before, is_more, holder = 'none', 0, 0, ''

-- Looks for the job among the entries of a list that are taken first. Tombstones before the job are counted only among
-- the first of these entries; behind them only the least number of jobs is known.
local MOST_BEFORE = 10000
local function find_in(key, word)
  local index = call('LPOS', key, id, 'RANK', -1, 'MAXLEN', digits(MOST_BEFORE))
  if not index then return end
  place = word
  before = call('LLEN', key) - 1 - index
  local tombstones = count_tombstones(queue)
  if tombstones > 0 then
    local first = #without_tombstones(queue, next_entries(key, 0, math.min(before, MOST_SEARCHED)))
    if before > MOST_SEARCHED then
      before, is_more = math.max(first, before - tombstones), 1
    else
      before = first
    end
  end
end

-- Looks for the job among those that wait for room in a limit, and counts the jobs before it.
local room = {}
local function find_held(limit)
  local key = HELD .. queue .. ':' .. limit
  local rank = call('ZREVRANK', key, id)
  if not rank then return end
  local score = call('ZREVRANGE', key, digits(rank), digits(rank), 'WITHSCORES')[2]
  place = 'limit'
  for _, other in ipairs(call('ZRANGE', HOLDS .. limit, 0, '31')) do
    before = before + call('ZCOUNT', HELD .. other .. ':' .. limit, '-inf', '(' .. score)
  end
  local _, _, opens_at = limit_rules().figures_of(limit, now)
  local numbers = limit_rules().numbers_of(limit)
  room = {limit, numbers and numbers.slots or 0, opens_at,
    unpack(call('ZRANGEBYSCORE', SLOTS .. limit, '+inf', '+inf', 'LIMIT', 0, '100'))}
end

local pulled_at = stored_number(call('ZSCORE', PULLED_QUEUES, queue))
local pulled_age = pulled_at and math.max(0, now - pulled_at) or -1

local state, _, held_by = limit_rules().parts_of(job[5])
if status == 'queued' and state == 'held' then find_held(held_by) end
if status == 'queued' and place == 'none' then
  find_in(list, 'queue')
  if place == 'none' then find_in(list .. SUSPECTS, 'suspects') end
  if place == 'none' then
    for _, name in ipairs(names) do
      if call('LPOS', IN_PROGRESS .. name, id) then place, holder = 'claimed', name end
    end
    if place == 'none' and call('LLEN', list) > MOST_BEFORE then place, before, is_more = 'queue', MOST_BEFORE, 1 end
  end
elseif status == 'processing' then
  if server and call('LPOS', IN_PROGRESS .. server, id) then place = 'server' end
elseif call('ZREVRANK', SCHEDULED, id) then
  place = 'scheduled'
end
return {now, fields, job[4] or 0, call('SISMEMBER', PAUSED, queue), living, takers, workers, busy, reserved, strict,
  place, before, is_more, holder, beat_age, room, pulled_age}
