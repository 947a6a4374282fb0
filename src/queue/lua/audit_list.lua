-- One step of a walk through a list of ready or running jobs, and a look at what is there.
-- ARGV: key, from this place (from the left), how many
-- Returns: {length, [ids], [place of an entry that does not fit, what is wrong with it, ..]}
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
