-- The next dead letters by id, so that a long list is worked off in steps without meeting a job twice.
-- ARGV: type or '', above this id, limit
-- Returns: ids, oldest first
local key = INDEX .. 'failed' .. (ARGV[1] ~= '' and ':' .. ARGV[1] or '')
return call('ZRANGEBYSCORE', key, '(' .. ARGV[2], '+inf', 'LIMIT', 0, ARGV[3])
