-- Reads one job's record, to check whether it is readable.
-- ARGV: id
-- Returns: {fingerprint, {field, value, ..}}
return {fingerprint(ARGV[1]), try('HGETALL', JOB .. ARGV[1]) or {}}
