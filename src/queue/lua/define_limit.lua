-- Stores or deletes the numbers of a limit.
-- ARGV: put, limit, numbers, most limits | delete, limit
--       numbers: slots, starts, period in ms, burst; 0 for what is not limited
-- Returns: put: created | updated | missing: the key is of a limit that does not exist, or the name is reserved | too_many
--          delete: done | missing | managed_by_config
-- Jobs that may start with the new numbers go on. register.lua stores the limits of files.
local what, limit, now = ARGV[1], ARGV[2], now_ms()
local holds, source, of_file = limit_rules().stored_limit(limit)
if what == 'put' then
  local name, numbers = string.match(limit, '^([^:]*):'), ARGV[3]
  if not holds and (is_reserved(limit) or (name and not call('HGET', LIMITS, name))) then return 'missing' end
  if not holds and #call('HKEYS', LIMITS) >= tonumber(ARGV[4]) then return 'too_many' end
  local file = source == 'config' and ' ' .. (of_file or holds) or ''
  call('HSET', LIMITS, limit, numbers .. ' ' .. (source or 'api') .. file)
else
  if not holds then return 'missing' end
  if source == 'config' and not of_file then return 'managed_by_config' end
  if of_file then
    call('HSET', LIMITS, limit, of_file .. ' config')
  else
    call('HDEL', LIMITS, limit)
    for _, other in ipairs(call('HKEYS', LIMITS)) do
      if string.find(other, limit .. ':', 1, true) == 1 then call('HDEL', LIMITS, other) end
    end
  end
end
limit_rules().change_numbers(limit, now)
limit_rules().send_on_freed(now)
if what == 'delete' then return 'done' end
return holds and 'updated' or 'created'
