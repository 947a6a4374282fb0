-- One step of a walk through a set or sorted set of ids, and a look at what is there.
-- ARGV: key, cursor, about how many
-- Returns: {cursor of the next step, [an id that does not fit, what is wrong with it, ..]}
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
