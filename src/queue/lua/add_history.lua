-- Adds a server's figures to those of this minute, and stores how many jobs wait now. A crash may lose figures and a
-- lost reply may count them twice: only charts use them.
-- ARGV: expiry in s, field, number, ..
local key = HISTORY .. digits(math.floor(now_ms() / 60000))
for i = 2, #ARGV, 2 do call('HINCRBY', key, ARGV[i], ARGV[i + 1]) end
for _, word in ipairs({'scheduled', READY, 'retrying'}) do call('HSET', key, 'depth_' .. word, digits(call('ZCARD', INDEX .. word))) end
call('EXPIRE', key, ARGV[1])
return 1
