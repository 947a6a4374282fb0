-- The statuses and types of jobs.
-- ARGV: ids
-- Returns: per job its status and its type, or '' twice if it is gone
local answers = {}
for _, id in ipairs(ARGV) do
  local job = read(id, 'status', 'type')
  answers[#answers + 1] = job[1] or ''
  answers[#answers + 1] = job[2] or ''
end
return answers
