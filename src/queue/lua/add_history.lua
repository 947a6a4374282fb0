-- Adds a server's figures to the figures of this minute, and stores how many jobs wait now. A crash may lose figures,
-- and after a lost reply they may count twice: only charts use these figures.
-- ARGV: expiry in s, field, number, ..
local key = HISTORY .. digits(math.floor(now_ms() / 60000))
for i = 2, #ARGV, 2 do call('HINCRBY', key, ARGV[i], ARGV[i + 1]) end
for _, word in ipairs({'scheduled', READY, 'retrying'}) do call('HSET', key, 'depth_' .. word, digits(index_count(word))) end
call('EXPIRE', key, ARGV[1])
return 1
