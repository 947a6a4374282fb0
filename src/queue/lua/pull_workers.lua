-- Reads the pull workers of the last hour, at most 1,000, and some of the jobs that pull workers have.
-- ARGV: number of jobs to skip, most jobs
-- Returns: {[name, ms when it last asked or reported, ..], [id, type, name of its worker or '', ms when its lease ends, ..],
--          number of jobs that were looked at}
local workers = call('ZREVRANGEBYSCORE', PULL_WORKERS, '+inf', digits(now_ms() - 3600000), 'WITHSCORES', 'LIMIT', 0, '1000')
local ids, jobs = call('LRANGE', IN_PROGRESS .. PULL, ARGV[1], digits(ARGV[1] + ARGV[2] - 1)), {}
for _, id in ipairs(ids) do
  local job = read(id, 'status', 'server', 'type', 'worker', 'lease_until')
  if job[1] == 'processing' and job[2] == PULL then
    for _, text in ipairs({id, job[3] or '', job[4] or '', job[5] or '0'}) do jobs[#jobs + 1] = text end
  end
end
return {workers, jobs, #ids}
