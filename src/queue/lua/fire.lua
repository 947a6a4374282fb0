-- Fires the ticks of a schedule that are due: stores their jobs, and sets the next tick. A tick is claimed by comparing
-- `next`: of several servers, and of a call that is repeated after a lost reply, one fires the tick.
-- ARGV: name, then
--       tick, the expected `next` in ms, the new one or '', the time in ms when the new one is due, or '', number of missed
--       ticks, ticks to start in ms, .. |
--       manual, 1 to start a job even if an earlier one lives
-- Returns: {'missing'} | {'changed'} | {'orphaned'} | {'overlap', id of the live job} |
--          {'fired', {tick in ms, outcome, id or '', number of ticks}, ..}
--          outcome: started | manual | missed | skipped_paused | skipped_overlap
-- Protects from: a tick that two servers start; a schedule that was taken out of all files and still starts jobs.
local name, what = ARGV[1], ARGV[2]
local key, word = SCHEDULE .. name, 'tick:' .. ARGV[1]
local time = call('TIME')
local now = ms_of(time)
local schedule = call('HMGET', key, 'next', 'paused', 'source', 'template', 'skips', 'seen_at')
if not schedule[4] then
  call('ZREM', AGENDA, word)
  return {'missing'}
end
local template, unique = cjson.decode(schedule[4]), schedule[5] ~= '0' and 'threadq.schedule/' .. name or ''
local replaces = schedule[5] == '2'

-- Stores the job of a tick, in place of the last job if the schedule replaces that one. Returns the id.
local function store(tick, unique_key)
  local queue, job_type = template[1], template[2]
  local id = digits(first_id(time))
  call('SET', LAST_ID, id)
  local fields = {unpack(template, 4)}
  fields[#fields + 1], fields[#fields + 2] = 'tick', digits(tick)
  write_job(id, 'queued', job_type, unique_key, options_of(template[3]), nil, now, unpack(fields))
  if replaces then call('HSET', key, 'job', id) end
  index_add({id}, job_type, 'queued')
  push_new(queue, {id})
  return id
end

-- The id of the live job that keeps a tick from starting, or nil. If the schedule replaces its last job, that job is
-- cancelled.
local function holder()
  local last = replaces and call('HGET', key, 'job')
  if last then cancel_job(last, '', digits(now), 'replaced') end
  return unique ~= '' and holder_of(unique)
end

-- Adds an entry to the history: tick, outcome, id or '-', number of ticks, time.
local fired = {'fired'}
local function note(tick, outcome, id, number)
  local entry = digits(tick) .. ' ' .. outcome .. ' ' .. (id or '-') .. ' ' .. digits(number) .. ' ' .. digits(now)
  call('LPUSH', TICKS .. name, entry)
  call('LTRIM', TICKS .. name, 0, '49')
  fired[#fired + 1] = {digits(tick), outcome, id or '', number}
end

if what == 'manual' then
  local other = holder()
  if other and ARGV[3] ~= '1' then return {'overlap', other} end
  note(now, 'manual', store(now, other and '' or unique), 1)
  if made_rules then made_rules.send_on_freed(now) end
  return fired
end

local expected, next, due, missed = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
if schedule[1] ~= expected then
  -- The word of a schedule without a next tick, or of a tick that another server has fired meanwhile.
  if not schedule[1] then call('ZREM', AGENDA, word) end
  return {'changed'}
end
if schedule[3] == 'config' then
  if not server_with('schedules', name) then
    if now - (tonumber(schedule[6]) or 0) > 7 * 24 * 3600 * 1000 then
      forget_schedule(name)
    else
      call('ZADD', AGENDA, digits(now + 3600 * 1000), word)
    end
    return {'orphaned'}
  end
  call('HSET', key, 'seen_at', digits(now))
end
if missed > 0 then note(tonumber(expected), schedule[2] and 'skipped_paused' or 'missed', nil, missed) end
for i = 7, #ARGV do
  local tick = tonumber(ARGV[i])
  if schedule[2] then
    note(tick, 'skipped_paused', nil, 1)
  else
    local other = holder()
    if other then note(tick, 'skipped_overlap', other, 1) else note(tick, 'started', store(tick, unique), 1) end
  end
end
if next == '' then
  call('HDEL', key, 'next')
  call('ZREM', AGENDA, word)
else
  call('HSET', key, 'next', next)
  call('ZADD', AGENDA, due, word)
end
if made_rules then made_rules.send_on_freed(now) end
return fired
