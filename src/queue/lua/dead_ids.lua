-- Reads the next ids of dead letters. Steps by id meet no job twice, even if jobs come and go meanwhile.
-- ARGV: type or '', the id above which to begin, most ids
-- Returns: ids, oldest first
local most, ids = tonumber(ARGV[3]), {}
for _, set in ipairs(index_sets('failed', ARGV[1])) do
  for _, id in ipairs(call('ZRANGEBYSCORE', set, '(' .. ARGV[2], '+inf', 'LIMIT', 0, ARGV[3])) do ids[#ids + 1] = id end
end
table.sort(ids, function(a, b) return tonumber(a) < tonumber(b) end)
for i = #ids, most + 1, -1 do ids[i] = nil end
return ids
