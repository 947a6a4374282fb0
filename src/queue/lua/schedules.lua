-- Reads schedules.
-- ARGV: name | '', number of schedules to skip, most schedules
-- Returns: {number of all schedules, {name, last ticks, field, value, ..}, ..}, sorted by name; of a named schedule all
--          ticks of its history, newest first, otherwise the newest one; without the named schedule only the number
local function record(name, most)
  local fields = call('HGETALL', SCHEDULE .. name)
  local record = {name, call('LRANGE', TICKS .. name, 0, digits(most - 1))}
  for i = 1, #fields, 2 do
    if fields[i] ~= 'template' then record[#record + 1], record[#record + 2] = fields[i], fields[i + 1] end
  end
  return #fields > 0 and record or nil
end

local answer = {call('ZCARD', SCHEDULES)}
if ARGV[1] ~= '' then
  answer[2] = record(ARGV[1], 50)
  return answer
end
for _, name in ipairs(call('ZRANGE', SCHEDULES, ARGV[2], digits(ARGV[2] + ARGV[3] - 1))) do
  answer[#answer + 1] = record(name, 1)
end
return answer
