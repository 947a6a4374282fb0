-- Stores what attempts report, each by itself: progress, log lines, a checkpoint. Extends the lease of a pull worker.
-- ARGV: per attempt: id, fencing token (starts), lease in ms from now on or '' for as long as before, progress (value, space,
--       message) or '', number of log lines, number of log lines that are missing, number of the texts of the checkpoint,
--       [log lines], [texts of the checkpoint: field, value, ..]
-- Returns: per attempt {} if the job is in another attempt or has ended, otherwise
--          {ms when the lease of the pull worker ends or -1, ms when the attempt times out, 1 if it was told to stop,
--          job type}
-- Protects from: a report of an attempt whose job was taken over; a job that fills Redis with its log.
local now, answers = now_ms(), {}
local at, second = digits(now), math.floor(now / 1000)
-- The log lines that a job keeps.
local MOST_KEPT = 1000

-- Appends log lines; a log that is not a list gets none. What is over the limit of this second is counted.
local function add_lines(id, window, last, from, to, missing)
  local key, lines = LOG .. id, {}
  local of, number, dropped = log_window(window)
  if of ~= second then
    if dropped > 0 then lines[1] = missing_lines(of, dropped) end
    number, dropped = 0, 0
  end
  for i = from, to do
    if number < MOST_A_SECOND and dropped == 0 then
      lines[#lines + 1] = at .. ' ' .. ARGV[i]
      number = number + 1
    else
      missing = missing + 1
    end
  end
  if #lines > 0 then
    local length = try_call('RPUSH', key, unpack(lines))
    if type(length) ~= 'number' then return end
    if length > MOST_KEPT then call('LTRIM', key, digits(-MOST_KEPT), -1) end
  end
  local counted = table.concat({digits(second), digits(number), digits(dropped + missing)}, ' ')
  call('HSET', JOB .. id, 'log_last', digits(last + #lines), 'log_second', counted)
end

-- Returns the time when the lease ends.
local function extend(id, lease, timeout_at, worker)
  local lease_until = digits(lease > 0 and math.min(now + lease, timeout_at) or timeout_at)
  call('HSET', JOB .. id, 'lease_ms', digits(lease), 'lease_until', lease_until)
  call('ZADD', AGENDA, lease_until, 'lease:' .. id)
  if worker and worker ~= '' then call('ZADD', PULL_WORKERS, 'XX', at, worker) end
  return lease_until
end

local function report(place)
  local id, lines, missing, texts = ARGV[place], tonumber(ARGV[place + 4]), tonumber(ARGV[place + 5]), tonumber(ARGV[place + 6])
  local job = read(id, 'status', 'starts', 'server', 'started_at', 'timeout_ms', 'lease_ms', 'cancel', 'log_second',
    'log_last', 'checkpoint', 'type', 'worker')
  if job[1] ~= 'processing' or job[2] ~= ARGV[place + 1] then return {} end
  if ARGV[place + 3] ~= '' then call('HSET', JOB .. id, 'progress', at .. ' ' .. ARGV[place + 3]) end
  local first = place + 7
  if lines + missing > 0 then
    add_lines(id, job[8], stored_number(job[9]) or 0, first, first + lines - 1, missing)
  end
  if texts > 0 then
    if job[10] then delete_text(id, 'checkpoint') end
    call('HSET', JOB .. id, unpack(ARGV, first + lines, first + lines + texts - 1))
  end
  local timeout_at = (stored_number(job[4]) or now) + (stored_number(job[5]) or DEFAULT_TIMEOUT_MS)
  local lease = tonumber(ARGV[place + 2]) or stored_number(job[6]) or 0
  local lease_until = job[3] == PULL and extend(id, lease, timeout_at, job[12]) or '-1'
  return {lease_until, digits(timeout_at), job[7] and 1 or 0, job[11] or ''}
end

local place = 1
while place <= #ARGV do
  answers[#answers + 1] = report(place)
  place = place + 7 + ARGV[place + 4] + ARGV[place + 6]
end
return answers
