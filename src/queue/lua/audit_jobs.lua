-- Checks jobs, and their entries in lists, sets and indexes.
-- ARGV: ids
-- Returns: per job {status or '', {field, value, ..}, fault, ..}; a fault is one of job_faults, `wrong_type`, or
--          `large`: the fields of a large record are left out, and audit_record.lua has to read them
local answers = {}
for _, id in ipairs(ARGV) do
  local key = JOB .. id
  local redis_type = call('TYPE', key).ok
  local answer = {'', {}}
  if redis_type == 'hash' then
    answer[1] = call('HGET', key, 'status') or ''
    local size = call('HSTRLEN', key, 'payload') + call('HSTRLEN', key, 'result') + call('HSTRLEN', key, 'errors')
    if size > 4096 or call('HLEN', key) > 64 then answer[3] = 'large' else answer[2] = call('HGETALL', key) end
    for fault in pairs(job_faults(id)) do answer[#answer + 1] = fault end
  elseif redis_type ~= 'none' then
    answer[3] = 'wrong_type'
  end
  answers[#answers + 1] = answer
end
return answers
