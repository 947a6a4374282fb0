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
if status == 'queued' then
  -- Where a fetcher has it in hand already, the entry stays in that list and the take drops it.
  -- On its last chance it may wait in either list.
  local list = WORK .. (job[4] or DEFAULT_QUEUE)
  if not job[5] or call('LREM', list .. SUSPECTS, -1, id) == 0 then call('LREM', list, -1, id) end
else
  call('ZREM', SCHEDULED, id)
end
finish(id, job[3], status, 'cancelled', at, job[6])
return {'cancelled'}
