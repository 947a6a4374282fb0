-- Reads one job.
-- ARGV: id
-- Returns: {field, value, ..}, empty if there is no such job
local fields = redis.pcall('HGETALL', JOB .. ARGV[1])
return fields.err and {} or fields
