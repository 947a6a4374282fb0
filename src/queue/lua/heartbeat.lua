-- Renews a server's registration, and returns cancels, the other servers, and the time of the next due job.
-- ARGV: server, busy workers, workers, how long a dead server stays in the registry in ms, its queues
-- Returns: {'fenced'} | {'beating', length of its own list, [ids to cancel], [server, heartbeat counter or D.., ..],
--          1 if a client watches the activity of workers, number of its queues with quarantined jobs,
--          ms until the next job or word of the agenda is due or -1}
--          A dead server is returned only if its list is not empty.
-- Protects from: a job in the list of a dead server that no server checks. The registry keeps a dead server for a
-- while, since its blocked BRPOPLPUSH may still move a job into its list.
local server, now = ARGV[1], now_ms()
local own, others, all, suspects = false, {}, call('HGETALL', SERVERS), {}
-- The keys that hold news. One EXISTS asks for all these keys, since mostly none exists.
local keys = {IN_PROGRESS .. server, CANCELS .. server, WATCHED, SCHEDULED, AGENDA}
for i = 1, #all, 2 do
  if all[i] == server then own = all[i + 1] end
  if string.sub(all[i + 1], 1, 1) == 'D' then keys[#keys + 1] = IN_PROGRESS .. all[i] end
end
if not is_registered(server, own) then return {'fenced'} end
call('HINCRBY', SERVERS, server, 1)
call('HSET', SERVER .. server, 'busy', ARGV[2], 'workers', ARGV[3], 'beat_at', digits(now))
for i = 5, #ARGV do
  suspects[#suspects + 1] = WORK .. ARGV[i] .. SUSPECTS
  keys[#keys + 1] = suspects[#suspects]
end
local is_quiet = call('EXISTS', unpack(keys)) == 0

for i = 1, #all, 2 do
  local id, beat = all[i], all[i + 1]
  local died = string.match(beat, '^D(%d+)')
  if is_living(beat) or (died and not is_quiet and call('LLEN', IN_PROGRESS .. id) > 0) then
    others[#others + 1] = id
    others[#others + 1] = beat
  elseif died and now - tonumber(died) > tonumber(ARGV[4]) then
    call('HDEL', SERVERS, id)
    call('DEL', SERVER .. id, CANCELS .. id)
  end
end
if is_quiet then return {'beating', 0, {}, others, 0, 0, -1} end
return {'beating', call('LLEN', IN_PROGRESS .. server), call('SMEMBERS', CANCELS .. server), others,
  call('EXISTS', WATCHED), #suspects > 0 and call('EXISTS', unpack(suspects)) or 0,
  due_in(now)}
