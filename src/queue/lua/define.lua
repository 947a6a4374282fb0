-- Stores, deletes, pauses or resumes a schedule.
-- ARGV: name, then
--       put, source (api|config), spec, body, template, what a tick does while an earlier job lives: 0 start a job,
--       1 start nothing, 2 cancel the last job and start a job,
--       next tick in ms, '' for none, or ? if the caller has not computed it, the time in ms when the next tick is due, or
--       '', most schedules, the server whose file has the schedule, or '' |
--       delete | pause | resume
--       template: the job of each tick as a JSON list: queue, type, options, field, value, ..
-- Returns: created | updated | done | missing | managed_by_config | too_many | compute and the time in ms: the caller has
--          to compute the first tick after this time
-- A changed spec gets the new next tick. An unchanged spec keeps its next tick, so that a restart moves no tick.
local name, what = ARGV[1], ARGV[2]
local key, now = SCHEDULE .. name, now_ms()
local old = call('HMGET', key, 'source', 'spec', 'next')
local exists = old[1] ~= false

if what == 'pause' or what == 'resume' then
  if not exists then return 'missing' end
  if what == 'pause' then call('HSET', key, 'paused', 1) else call('HDEL', key, 'paused') end
  return 'done'
end

if what == 'delete' then
  if not exists then return 'missing' end
  if old[1] == 'config' then return 'managed_by_config' end
  forget_schedule(name)
  return 'done'
end

local source, spec, body, template, skips, next, due, most, server = unpack(ARGV, 3)
if exists and old[1] == 'config' and source == 'api' then return 'managed_by_config' end
if not exists and call('ZCARD', SCHEDULES) >= tonumber(most) then return 'too_many' end
if next == '?' and not (exists and old[2] == spec) then return 'compute ' .. digits(now) end
call('ZADD', SCHEDULES, 0, name)
call('HSET', key, 'source', source, 'spec', spec, 'body', body, 'template', template, 'skips', skips, 'seen_at', digits(now),
  'server', server)
if exists and old[2] == spec then
  -- The word of an orphan is much later than its tick.
  if old[3] then call('ZADD', AGENDA, old[3], 'tick:' .. name) end
elseif next == '' then
  call('HDEL', key, 'next')
  call('ZREM', AGENDA, 'tick:' .. name)
else
  call('HSET', key, 'next', next)
  call('ZADD', AGENDA, due, 'tick:' .. name)
end
return exists and 'updated' or 'created'
