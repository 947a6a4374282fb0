-- Puts jobs back into their queues, each by itself: failed | cancelled -> queued, with attempts and crashes at 0.
-- ARGV: the statuses that the jobs must have, separated by spaces, or '' for any; 1 to delete progress and checkpoint; ids
-- Returns: per job {'missing'} | {'wrong_status', status} | {'duplicate', holder of its unique key} | {'queued'}
local wanted, now, answers = ARGV[1], now_ms(), {}
local at = digits(now)
for i = 3, #ARGV do
  local id = ARGV[i]
  local job = read(id, 'status', 'type', 'queue', 'unique_key', 'ties')
  local status, job_type, queue, unique_key, ties = job[1], job[2], job[3], job[4], job[5]
  -- A key that is held until the start, or for a fixed time, is held once.
  if is_tied(ties, 'S') or is_tied(ties, 'W') then unique_key = false end
  local holder = unique_key and holder_of(unique_key)
  if not status then
    answers[#answers + 1] = {'missing'}
  elseif (status ~= 'failed' and status ~= 'cancelled') or not is_one_of(wanted, status) then
    answers[#answers + 1] = {'wrong_status', status}
  elseif holder then
    answers[#answers + 1] = {'duplicate', holder}
  else
    call('ZREM', status == 'failed' and DLQ or DONE, id)
    call('HDEL', JOB .. id, 'server', 'finished_at', 'started_at', 'scheduled_at', 'cancel')
    if ARGV[2] == '1' then
      call('HDEL', JOB .. id, 'progress')
      delete_text(id, 'checkpoint')
    end
    if unique_key then call('SET', UNIQUE .. unique_key, id) end
    if ties then ties = revive_ties(id, ties, now) end
    admit(id, job_type, ties, status, queue, nil, now, 'attempts', 0, 'crashes', 0, 'ready_at', at)
    answers[#answers + 1] = {'queued'}
  end
end
return answers
