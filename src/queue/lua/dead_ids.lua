-- Reads the next ids of dead letters. Steps by id meet no job twice, even if jobs come and go meanwhile.
-- ARGV: type or '', the id above which to begin, most ids
-- Returns: ids, oldest first
return merged(index_sets('failed', ARGV[1]), false, '(' .. ARGV[2], tonumber(ARGV[3]))
