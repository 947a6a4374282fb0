-- Notes that these pull workers wait for jobs of these queues.
-- ARGV: number of workers, their names, names of queues
local at, workers = digits(now_ms()), tonumber(ARGV[1])
for i = 2, #ARGV do call('ZADD', i <= workers + 1 and PULL_WORKERS or PULLED_QUEUES, at, ARGV[i]) end
for _, set in ipairs({PULL_WORKERS, PULLED_QUEUES}) do call('ZREMRANGEBYRANK', set, 0, '-1001') end
