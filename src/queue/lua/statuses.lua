-- Reads the status and type of jobs, and the numbers of their last log lines.
-- ARGV: ids
-- Returns: per job its status, its type and the number, or '', '' and 0 if the job was deleted
local answers = {}
for _, id in ipairs(ARGV) do
  local job = read(id, 'status', 'type', 'log_last')
  answers[#answers + 1] = job[1] or ''
  answers[#answers + 1] = job[2] or ''
  answers[#answers + 1] = job[3] or '0'
end
return answers
