-- Cancels a job: scheduled | queued | retrying -> cancelled. A running job is marked, and its server's heartbeat gets
-- the id.
-- ARGV: id
-- Returns: {'missing'} | {'final'} | {'cancelled'} | {'requested', server}
local id, at = ARGV[1], digits(now_ms())
local job = read(id, 'status', 'server', 'type', 'queue', 'crashes', 'unique_key', 'ties')
local status = job[1]
if not status then return {'missing'} end
if is_final(status) then return {'final'} end
if status == 'processing' then
  call('HSET', JOB .. id, 'cancel', 1)
  call('SADD', CANCELS .. job[2], id)
  return {'requested', job[2]}
end
if status == 'queued' then leave_queue(id, job[4], job[5]) else call('ZREM', SCHEDULED, id) end
finish(id, job[3], job[7], status, 'cancelled', at, job[6])
return {'cancelled'}
