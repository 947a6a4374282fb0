-- Cancels a job: scheduled | queued | retrying -> cancelled. A running job is marked, and its server's heartbeat gets
-- the id.
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
-- Removes the job's entry from a list that is not long. Returns whether it was there.
local is_long = false
local function remove_entry(list)
  if call('LLEN', list) <= SHORT then return call('LREM', list, -1, id) == 1 end
  is_long = true
end
if status == 'queued' then
  -- If a server has claimed the job already, the entry stays in that server's list, and start_jobs.lua drops it.
  -- A quarantined job may wait in either list.
  local list = WORK .. (job[4] or DEFAULT_QUEUE)
  if not (job[5] and remove_entry(list .. SUSPECTS)) and not remove_entry(list) and is_long then add_tombstone(job[4], id) end
else
  call('ZREM', SCHEDULED, id)
end
finish(id, job[3], status, 'cancelled', at, job[6])
-- Removes tombstones at the end where jobs are taken, so that queues.lua finds the job that has waited longest.
for _ = 1, is_long and 8 or 0 do
  local list = WORK .. (job[4] or DEFAULT_QUEUE)
  local last = call('LINDEX', list, -1)
  if not last or not drop_tombstone(job[4], last) then break end
  call('RPOP', list)
end
return {'cancelled'}
