-- Reads the status and type of jobs.
-- ARGV: ids
-- Returns: per job its status and its type, or '' and '' if the job was deleted
local answers = {}
for _, id in ipairs(ARGV) do
  local job = read(id, 'status', 'type')
  answers[#answers + 1] = job[1] or ''
  answers[#answers + 1] = job[2] or ''
end
return answers
