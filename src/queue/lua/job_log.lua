-- Reads log lines of a job.
-- ARGV: id, the number of the line before them, most lines
-- Returns: {} if there is no job, otherwise {status, number of the job's last line, number of the first of these lines,
--          ms and text of each}
local id, after = ARGV[1], tonumber(ARGV[2])
local job = read(id, 'status', 'log_last')
if not job[1] then return {} end
local last, kept = stored_number(job[2]) or 0, try_call('LLEN', LOG .. id)
if type(kept) ~= 'number' then kept = 0 end
local before = math.max(0, last - kept)
local skipped = math.min(kept, math.max(0, after - before))
local lines = kept > skipped and call('LRANGE', LOG .. id, digits(skipped), digits(skipped + ARGV[3] - 1)) or {}
return {job[1], digits(last), digits(before + skipped + 1), unpack(lines)}
