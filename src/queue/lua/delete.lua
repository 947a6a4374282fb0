-- Deletes jobs that are completed, failed or cancelled, each by itself.
-- ARGV: the statuses that the jobs must have, separated by spaces, or '' for any; ids
-- Returns: per job {'missing'} | {'wrong_status', status} | {'deleted'}
local wanted, answers = ARGV[1], {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local job = read(id, 'status', 'type', 'ties')
  local status = job[1]
  if not status then
    answers[#answers + 1] = {'missing'}
  elseif not is_final(status) or not is_one_of(wanted, status) then
    answers[#answers + 1] = {'wrong_status', status}
  else
    call('ZREM', status == 'failed' and DLQ or DONE, id)
    forget_job(id, job[2], job[3], status)
    answers[#answers + 1] = {'deleted'}
  end
end
return answers
