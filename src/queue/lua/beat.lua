-- A server's heartbeat, and a look at the others.
-- ARGV: server, busy workers, workers, how long a dead server is remembered in ms
-- Returns: {'fenced'} | {'beating', entries in its own list, [ids to cancel], [server, beat or D.., ..],
--          whether somebody looks at what workers do}
--          with only those dead servers whose list is not empty
-- A dead server is remembered for a while, since a blocked BRPOPLPUSH of it can still move a job into its list.
local server, now = ARGV[1], now_ms()
if not is_registered(server) then return {'fenced'} end
call('HINCRBY', SERVERS, server, 1)
call('HSET', SERVER .. server, 'busy', ARGV[2], 'workers', ARGV[3], 'beat_at', now)
local others, all = {}, call('HGETALL', SERVERS)
for i = 1, #all, 2 do
  local id, beat = all[i], all[i + 1]
  local died = string.match(beat, '^D(%d+)')
  if not died or call('LLEN', IN_PROGRESS .. id) > 0 then
    others[#others + 1] = id
    others[#others + 1] = beat
  elseif now - tonumber(died) > tonumber(ARGV[4]) then
    call('HDEL', SERVERS, id)
    call('DEL', SERVER .. id, CANCELS .. id)
  end
end
return {'beating', call('LLEN', IN_PROGRESS .. server), call('SMEMBERS', CANCELS .. server), others,
  call('EXISTS', WATCHED)}
