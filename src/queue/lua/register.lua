-- Registers a new server, and stores the limits of its file. The server's entry has the number of its protocol as
-- `version`: a server without one does not know the type index.
-- ARGV: server, number of workers, names of the queues from which the server takes, joined by commas,
--       those of the strict queues among them, the names of the schedules in the server's file, joined by newlines,
--       then the limits in the server's file: limit, numbers, ..; see stored_limit in limits.lua
-- Returns: {limit, a living server whose file has other numbers of the limit, ..}
-- A limit keeps the numbers that a person has set in place of those of the file.
local server, now, names, others = ARGV[1], now_ms(), {}, {}
for i = 6, #ARGV, 2 do
  local limit, numbers = ARGV[i], ARGV[i + 1]
  local holds, source, of_file = limit_rules().stored_limit(limit)
  if source == 'config' and (of_file or holds) ~= numbers then
    local other = server_with('limits', limit, server)
    if other then others[#others + 1], others[#others + 2] = limit, other end
  end
  names[#names + 1] = limit
  if of_file then
    call('HSET', LIMITS, limit, holds .. ' config ' .. numbers)
  else
    call('HSET', LIMITS, limit, numbers .. ' config')
    if holds and holds ~= numbers then limit_rules().change_numbers(limit, now) end
  end
end
call('HSET', SERVERS, server, 1)
call('HSET', SERVER .. server, 'started_at', digits(now), 'workers', ARGV[2], 'beat_at', digits(now), 'version', PROTOCOL,
  'queues', ARGV[3])
if ARGV[4] ~= '' then call('HSET', SERVER .. server, 'strict', ARGV[4]) end
if ARGV[5] ~= '' then call('HSET', SERVER .. server, 'schedules', ARGV[5]) end
if #names > 0 then call('HSET', SERVER .. server, 'limits', table.concat(names, '\n')) end
if made_rules then made_rules.send_on_freed(now) end
return others
