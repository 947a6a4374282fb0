-- Reads the figures of the last minutes, summed over all servers.
-- ARGV: number of minutes
-- Returns: {{minute since 1970, field, number, ..}, ..}, oldest first; the last minute is not over yet
local this, minutes = math.floor(now_ms() / 60000), {}
for minute = this - tonumber(ARGV[1]) + 1, this do
  local fields = call('HGETALL', HISTORY .. digits(minute))
  table.insert(fields, 1, digits(minute))
  minutes[#minutes + 1] = fields
end
return minutes
