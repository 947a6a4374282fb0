-- Reads the next ids of dead letters. Steps by id meet no job twice, even if jobs come and go meanwhile.
-- ARGV: type or '', the id above which to begin, most ids
-- Returns: ids, oldest first
local key = INDEX .. 'failed' .. (ARGV[1] ~= '' and ':' .. ARGV[1] or '')
return call('ZRANGEBYSCORE', key, '(' .. ARGV[2], '+inf', 'LIMIT', 0, ARGV[3])
