-- Adds what a server has counted to the figures of this minute, and notes how many jobs wait now. Lost by a crash and
-- doubled by a lost answer: these are figures for charts, nothing depends on them.
-- ARGV: how long to keep them in s, [field, number, ..]
local key = HISTORY .. digits(math.floor(now_ms() / 60000))
for i = 2, #ARGV, 2 do call('HINCRBY', key, ARGV[i], ARGV[i + 1]) end
for _, word in ipairs({'scheduled', READY, 'retrying'}) do call('HSET', key, 'depth_' .. word, digits(call('ZCARD', INDEX .. word))) end
call('EXPIRE', key, ARGV[1])
return 1
