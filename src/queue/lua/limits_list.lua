-- Reads limits with their figures.
-- ARGV: most limits
-- Returns: {limit, value as in `limits`, running, waiting, ms when the rate allows the next start or -1}, .., sorted by name
-- Of a limit that is used with keys the figures are sums over the keys with waiting jobs, at most 300 keys in all.
local now, left = now_ms(), 300
local values, names, answers = {}, {}, {}
local all = call('HGETALL', LIMITS)
for i = 1, #all, 2 do
  local name = all[i]
  if not string.find(name, ':', 1, true) or is_reserved(name) then
    names[#names + 1] = name
    values[name] = all[i + 1]
  end
end
table.sort(names)
for i = 1, math.min(#names, tonumber(ARGV[1])) do
  local name = names[i]
  local running, waiting, opens_at = limit_rules().figures_of(name, now)
  for _, limit in ipairs(limit_rules().waiting_keys(name, left)) do
    local more_running, more_waiting = limit_rules().figures_of(limit, now)
    running, waiting, left = running + more_running, waiting + more_waiting, left - 1
  end
  answers[i] = {name, values[name], running, waiting, opens_at}
end
return answers
