-- One job.
-- ARGV: id
-- Returns: {field, value, ..}, empty if there is none
local fields = redis.pcall('HGETALL', JOB .. ARGV[1])
return fields.err and {} or fields
