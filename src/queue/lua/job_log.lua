-- Reads log lines of a job.
-- ARGV: id, the number of the line before them, most lines
-- Returns: {} if there is no job, otherwise {status, number of the job's last line, number of the first of these lines,
--          ms and text of each}
local id, after = ARGV[1], tonumber(ARGV[2])
local job = read(id, 'status', 'log_last', 'log_second')
if not job[1] then return {} end
local last, kept = stored_number(job[2]) or 0, try_call('LLEN', LOG .. id)
if type(kept) ~= 'number' then kept = 0 end
local before = math.max(0, last - kept)
local skipped = math.min(kept, math.max(0, after - before))
local second, _, missing = log_window(job[3])
local is_counted = missing > 0 and (second < math.floor(now_ms() / 1000) or is_final(job[1]))
local lines = kept > skipped and call('LRANGE', LOG .. id, digits(skipped), digits(skipped + ARGV[3] - 1)) or {}
if is_counted then
  last = last + 1
  local is_next = skipped + #lines == kept and #lines < tonumber(ARGV[3]) and after < last
  if is_next then lines[#lines + 1] = missing_lines(second, missing) end
end
return {job[1], digits(last), digits(before + skipped + 1), unpack(lines)}
