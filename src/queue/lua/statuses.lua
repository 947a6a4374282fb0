-- The statuses of jobs.
-- ARGV: ids
-- Returns: per job its status, or '' if it is gone
local statuses = {}
for i, id in ipairs(ARGV) do statuses[i] = read(id, 'status')[1] or '' end
return statuses
