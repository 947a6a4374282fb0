-- Reads the figures of schedules for the metrics.
-- ARGV: most schedules
-- Returns: {ms by which the oldest word of the agenda is overdue, [name, time of the last success in ms, ..]}
local now, successes = now_ms(), {}
local first = call('ZRANGE', AGENDA, 0, 0, 'WITHSCORES')
for _, name in ipairs(call('ZRANGE', SCHEDULES, 0, digits(ARGV[1] - 1))) do
  local at = call('HGET', SCHEDULE .. name, 'succeeded_at')
  if at then successes[#successes + 1], successes[#successes + 2] = name, at end
end
return {digits(math.max(0, now - (tonumber(first[2]) or now))), successes}
