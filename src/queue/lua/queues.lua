-- The queues, at most 1,000 besides those named: more could be made up than one answer can hold.
-- ARGV: names that are shown in any case
-- Returns: per queue {name, queued, paused 0|1, age of its oldest job in ms or -1, how many living servers take from it}
local now, seen, answers = now_ms(), {}, {}

-- How many living servers take from each queue.
local takers, servers = {}, call('HGETALL', SERVERS)
for i = 1, #servers, 2 do
  if string.sub(servers[i + 1], 1, 1) ~= 'D' then
    for queue in string.gmatch(call('HGET', SERVER .. servers[i], 'queues') or '', '[^,]+') do
      takers[queue] = (takers[queue] or 0) + 1
    end
  end
end

local function add(queue)
  if seen[queue] then return end
  seen[queue] = true
  local list = WORK .. queue
  local oldest
  -- A job is as old as its submission, or the end of its delay.
  local function age(id) return now - math.max(math.floor(tonumber(id) / 1000), tonumber(read(id, 'scheduled_at')[1]) or 0) end
  for _, id in ipairs({call('LINDEX', list, -1), call('LINDEX', list .. SUSPECTS, -1)}) do
    -- An entry that is no id, such as a gap that a repair has left, has no age.
    if (tonumber(id or '') or 0) > 0 then oldest = math.max(oldest or 0, age(id)) end
  end
  answers[#answers + 1] = {queue, call('LLEN', list) + call('LLEN', list .. SUSPECTS), call('SISMEMBER', PAUSED, queue),
    oldest or -1, takers[queue] or 0}
end
for _, queue in ipairs(ARGV) do add(queue) end
for _, queue in ipairs(call('SRANDMEMBER', QUEUES, '1000')) do add(queue) end
for _, queue in ipairs(call('SRANDMEMBER', PAUSED, '1000')) do add(queue) end
return answers
