-- One job's record, for judging whether it can be read.
-- ARGV: id
-- Returns: {fingerprint, {field, value, ..}}
return {fingerprint(ARGV[1]), try('HGETALL', JOB .. ARGV[1]) or {}}
