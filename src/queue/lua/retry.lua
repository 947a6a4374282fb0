-- Puts jobs back into their queues, each by itself: failed | cancelled -> queued, with attempts and crashes at 0.
-- ARGV: the status that the jobs must have, or '' for both; ids
-- Returns: per job {'missing'} | {'wrong_status', status} | {'duplicate', holder of its unique key} | {'queued'}
local wanted, at, answers = ARGV[1], digits(now_ms()), {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local job = read(id, 'status', 'type', 'queue', 'unique_key')
  local status, job_type, queue, unique_key = job[1], job[2], job[3], job[4]
  local holder = unique_key and call('GET', UNIQUE .. unique_key)
  local held = holder and read(holder, 'status')[1]
  if not status then
    answers[#answers + 1] = {'missing'}
  elseif (status ~= 'failed' and status ~= 'cancelled') or (wanted ~= '' and status ~= wanted) then
    answers[#answers + 1] = {'wrong_status', status}
  elseif held and not is_final(held) then
    answers[#answers + 1] = {'duplicate', holder}
  else
    call('ZREM', status == 'failed' and DLQ or DONE, id)
    call('HSET', JOB .. id, 'status', 'queued', 'attempts', 0, 'crashes', 0, 'ready_at', at)
    call('HDEL', JOB .. id, 'server', 'finished_at', 'started_at', 'scheduled_at', 'cancel')
    if unique_key then call('SET', UNIQUE .. unique_key, id) end
    index_move({id}, job_type, status, 'queued')
    call('LPUSH', fill_list(queue), id)
    answers[#answers + 1] = {'queued'}
  end
end
return answers
