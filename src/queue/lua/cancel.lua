-- Cancels jobs, each by itself: scheduled | queued | retrying -> cancelled. A running job is marked, and its server's
-- heartbeat gets the id.
-- ARGV: the statuses that the jobs must have, separated by spaces, or '' for any; ids
-- Returns: per job {'missing'} | {'wrong_status', status} | {'cancelled'} | {'requested', server}
local wanted, now, answers = ARGV[1], now_ms(), {}
local at = digits(now)
for i = 2, #ARGV do
  local id = ARGV[i]
  local job = read(id, 'status', 'server', 'type', 'queue', 'crashes', 'unique_key', 'ties')
  local status = job[1]
  if not status then
    answers[#answers + 1] = {'missing'}
  elseif is_final(status) or not is_one_of(wanted, status) then
    answers[#answers + 1] = {'wrong_status', status}
  elseif status == 'processing' then
    call('HSET', JOB .. id, 'cancel', 1)
    call('SADD', CANCELS .. job[2], id)
    answers[#answers + 1] = {'requested', job[2]}
  else
    if status == 'queued' then leave_queue(id, job[4], job[5], job[7]) else call('ZREM', SCHEDULED, id) end
    finish(id, job[3], job[7], status, 'cancelled', at, job[6])
    answers[#answers + 1] = {'cancelled'}
  end
end
send_on_freed(now)
return answers
