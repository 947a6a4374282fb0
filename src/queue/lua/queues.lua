-- Reads the named queues, those from which pull workers take, and at most 1,000 other queues, since clients may make up more
-- names than one reply can hold.
-- ARGV: names of queues to return in any case
-- Returns: per queue {name, queued, paused 0|1, age of its oldest ready job in ms or -1, number of live servers that
--           take from it, 1 if one of them takes its jobs before those of other queues, how many of the queued jobs wait for
--           room in a limit, 1 if a pull worker has asked for its jobs within 5 minutes}
local now, seen, answers = now_ms(), {}, {}

-- The number of live servers that take from each queue, and the queues that are strict for one of them.
local takers, strict, pulled, servers = {}, {}, {}, call('HGETALL', SERVERS)
for i = 1, #servers, 2 do
  if is_living(servers[i + 1]) then
    local names = call('HMGET', SERVER .. servers[i], 'queues', 'strict')
    for queue in string.gmatch(names[1] or '', '[^,]+') do takers[queue] = (takers[queue] or 0) + 1 end
    for queue in string.gmatch(names[2] or '', '[^,]+') do strict[queue] = 1 end
  elseif servers[i] == PULL then
    local queues = call('ZRANGEBYSCORE', PULLED_QUEUES, digits(now - 300000), '+inf')
    for _, queue in ipairs(queues) do pulled[queue] = 1 end
  end
end

-- The age of the job that has waited longest in a list, or -1. It is the first one from the right end that has become
-- ready only once: jobs that became ready again, and entries without a job, may stand in front of it. The search ends
-- when this many records have been read for all queues.
local left = 5000
local function oldest_in(list)
  local oldest, first, last = -1, -1, -1
  repeat
    local ids = call('LRANGE', list, digits(first), digits(last))
    for i = #ids, 1, -1 do
      local job = read(ids[i], 'status', 'scheduled_at', 'ready_at')
      if job[1] == 'queued' and tonumber(ids[i]) then
        local ready_at = math.max(math.floor(tonumber(ids[i]) / 1000), tonumber(job[2]) or 0, tonumber(job[3]) or 0)
        oldest = math.max(oldest, now - ready_at, 0)
        if not job[3] then return oldest end
      end
    end
    left = left - #ids
    local is_end = #ids <= last - first
    first, last = first - 100, first - 1
  until is_end or left <= 0
  return oldest
end

local function add(queue)
  if seen[queue] then return end
  seen[queue] = true
  local list = WORK .. queue
  -- Servers may have claimed some of the tombstones, so that there are fewer in the lists.
  local queued, held = math.max(0, count_entries(queue) - count_tombstones(queue)), count_held(queue)
  answers[#answers + 1] = {queue, queued + held, call('SISMEMBER', PAUSED, queue),
    math.max(oldest_in(list), oldest_in(list .. SUSPECTS)), takers[queue] or 0, strict[queue] or 0, held, pulled[queue] or 0}
end
for _, queue in ipairs(ARGV) do add(queue) end
for queue in pairs(pulled) do add(queue) end
for _, queue in ipairs(call('SRANDMEMBER', QUEUES, '1000')) do add(queue) end
for _, queue in ipairs(call('SRANDMEMBER', PAUSED, '1000')) do add(queue) end
return answers
