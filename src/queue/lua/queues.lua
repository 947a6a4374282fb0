-- The queues.
-- ARGV: names that are shown in any case
-- Returns: per queue {name, queued, paused 0|1, age of its oldest job in ms or -1}
local now, seen, answers = now_ms(), {}, {}
local function add(queue)
  if seen[queue] then return end
  seen[queue] = true
  local list = WORK .. queue
  local oldest
  for _, id in ipairs({call('LINDEX', list, -1), call('LINDEX', list .. SUSPECTS, -1)}) do
    -- An entry that is no id, such as a gap that a repair has left, has no age.
    if (tonumber(id or '') or 0) > 0 then oldest = math.max(oldest or 0, now - math.floor(tonumber(id) / 1000)) end
  end
  answers[#answers + 1] = {queue, call('LLEN', list) + call('LLEN', list .. SUSPECTS), call('SISMEMBER', PAUSED, queue),
    oldest or -1}
end
for _, queue in ipairs(ARGV) do add(queue) end
for _, queue in ipairs(call('SMEMBERS', QUEUES)) do add(queue) end
for _, queue in ipairs(call('SMEMBERS', PAUSED)) do add(queue) end
return answers
