-- Reads and checks the next ids of a set or sorted set.
-- ARGV: key, cursor, approximate number of ids
-- Returns: {cursor of the next step, [wrong id, its fault, ..]}
local key, faults = ARGV[1], {}
local is_plain = rest(key, CANCELS)
local page = try(is_plain and 'SSCAN' or 'ZSCAN', key, ARGV[2], 'COUNT', ARGV[3]) or {'0', {}}
for i = 1, #page[2], is_plain and 1 or 2 do
  local id = page[2][i]
  local fault = entry_fault(key, id)
  if fault then
    faults[#faults + 1] = id
    faults[#faults + 1] = fault
  end
end
return {page[1], faults}
