-- Lets no job of a queue start, or lets them start again. A script, since a plain SADD is refused by a full Redis.
-- ARGV: queue, paused 0|1
call(ARGV[2] == '1' and 'SADD' or 'SREM', PAUSED, ARGV[1])
return 1
