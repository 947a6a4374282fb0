-- Reads and checks the next entries of a list.
-- ARGV: key, index of the first entry (from the left, 0 first), number of entries
-- Returns: {length of the list, [ids], [index of a wrong entry, its fault, ..]}
local key, from = ARGV[1], tonumber(ARGV[2])
local ids, faults = try('LRANGE', key, digits(from), digits(from + tonumber(ARGV[3]) - 1)) or {}, {}
for i, id in ipairs(ids) do
  local fault = entry_fault(key, id)
  if fault then
    faults[#faults + 1] = from + i - 1
    faults[#faults + 1] = fault
  end
end
return {try('LLEN', key) or 0, ids, faults}
