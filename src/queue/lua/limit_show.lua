-- Reads a limit, and the jobs that run and wait under it.
-- ARGV: limit, number of waiting jobs to skip, most waiting jobs
-- Returns: {} if there is no limit, otherwise {value as in `limits`, 1 if a key has numbers of its own, running, waiting, ms
--          when the rate allows the next start or -1, [ids of at most 100 running jobs],
--          [key, running, waiting, opens at, its own value as in `limits` or '', ..: at most 100 keys with waiting jobs, those
--          with most jobs first, then at most 100 others with numbers of their own], a page as list.lua}
-- Behind the first 10,000 jobs that wait in several queues, no page has jobs.
local limit, skip, most, now = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), now_ms()
local name = string.match(limit, '^([^:]*):')
local own = call('HGET', LIMITS, limit)
local value = own or (name and call('HGET', LIMITS, name))
if not value then return {} end
local running, waiting, opens_at = limit_rules().figures_of(limit, now)

-- The keys with most waiting jobs among 300, and then other keys with numbers of their own. The figures are sums over the
-- 300 keys, as in limits_list.lua.
local keys, found, others, seen, values = {}, {}, {}, {}, {}
local function facts_of(other) return {string.sub(other, #limit + 2), limit_rules().figures_of(other, now)} end
local function most_first(a, b)
  if a[3] ~= b[3] then return a[3] > b[3] end
  return a[1] < b[1]
end
for _, other in ipairs(limit_rules().waiting_keys(limit, 300)) do
  local facts = facts_of(other)
  found[#found + 1] = facts
  running, waiting = running + facts[2], waiting + facts[3]
end
table.sort(found, most_first)
while #found > 100 do found[#found] = nil end
for _, facts in ipairs(found) do seen[facts[1]] = true end
local all = name and {} or call('HGETALL', LIMITS)
for i = 1, #all, 2 do
  if string.find(all[i], limit .. ':', 1, true) == 1 then
    local key = string.sub(all[i], #limit + 2)
    values[key] = all[i + 1]
    if not seen[key] and #others < 100 then others[#others + 1] = facts_of(all[i]) end
  end
end
table.sort(others, most_first)
for _, facts in ipairs(others) do found[#found + 1] = facts end
for _, facts in ipairs(found) do
  facts[5] = values[facts[1]] or ''
  for _, fact in ipairs(facts) do keys[#keys + 1] = fact end
end

-- The waiting jobs of all queues in their order, from the first one on.
local MOST_SKIPPED = 10000
local queues, heads, ids = call('ZRANGE', HOLDS .. limit, 0, '31'), {}, {}
if #queues > 1 and skip > MOST_SKIPPED then queues = {} end
local function read_on(queue, from)
  local page = call('ZRANGE', HELD .. queue .. ':' .. limit, digits(from), digits(from + 99), 'WITHSCORES')
  return page[1] and {queue = queue, page = page, at = 1, from = from} or nil
end
for _, queue in ipairs(queues) do heads[#heads + 1] = read_on(queue, #queues == 1 and skip or 0) end
local skipped = #queues == 1 and skip or 0
while #heads > 0 and #ids < most do
  local best = 1
  for i = 2, #heads do
    if tonumber(heads[i].page[heads[i].at + 1]) < tonumber(heads[best].page[heads[best].at + 1]) then best = i end
  end
  local head = heads[best]
  if skipped < skip then skipped = skipped + 1 else ids[#ids + 1] = head.page[head.at] end
  head.at = head.at + 2
  if not head.page[head.at] then
    local more = read_on(head.queue, head.from + 100)
    if more then heads[best] = more else table.remove(heads, best) end
  end
end
local page = {waiting, 0}
add_jobs(page, ids)
return {value, own and name and 1 or 0, running, waiting, opens_at,
  call('ZRANGEBYSCORE', SLOTS .. limit, '+inf', '+inf', 'LIMIT', 0, '100'), keys, page}
