-- Stops a job: scheduled | queued | retrying -> cancelled; a running one is marked, and its server told.
-- ARGV: id
-- Returns: {'missing'} | {'final'} | {'cancelled'} | {'requested', server}
local id, at = ARGV[1], digits(now_ms())
local job = read(id, 'status', 'server', 'type', 'queue', 'crashes', 'unique_key')
local status = job[1]
if not status then return {'missing'} end
if is_final(status) then return {'final'} end
if status == 'processing' then
  call('HSET', JOB .. id, 'cancel', 1)
  call('SADD', CANCELS .. job[2], id)
  return {'requested', job[2]}
end
-- Takes the entry out of a short list.
local is_long = false
local function take_out(list)
  if call('LLEN', list) <= SHORT then return call('LREM', list, -1, id) == 1 end
  is_long = true
end
if status == 'queued' then
  -- Where a fetcher has it in hand already, the entry stays in that list and the take drops it.
  -- On its last chance it may wait in either list.
  local list = WORK .. (job[4] or DEFAULT_QUEUE)
  if not (job[5] and take_out(list .. SUSPECTS)) and not take_out(list) and is_long then leave_entry(job[4], id) end
else
  call('ZREM', SCHEDULED, id)
end
finish(id, job[3], status, 'cancelled', at, job[6])
-- What was left comes out at the end where jobs are taken, so that it is known which job has waited longest.
for _ = 1, is_long and 8 or 0 do
  local list = WORK .. (job[4] or DEFAULT_QUEUE)
  local last = call('LINDEX', list, -1)
  if not last or not forget_entry(job[4], last) then break end
  call('RPOP', list)
end
return {'cancelled'}
