-- Changes jobs that have not started, each by itself: scheduled | queued | retrying.
-- ARGV: the statuses that the jobs must have, separated by spaces, or '' for any; the new values as JSON, see change_job
--       in ties.lua; ids
-- Returns: per job {'missing'} | {'wrong_status', status} | {'expired'}: the job would expire before its start |
--          {'changed', status now, ms until the job is due or expires, or -1}
local wanted, now, answers = ARGV[1], now_ms(), {}
local set = cjson.decode(ARGV[2])

local function change(id)
  local status, scheduled_at = unpack(read(id, 'status', 'scheduled_at'))
  if not status then return {'missing'} end
  local is_waiting = status == 'scheduled' or status == 'queued' or status == 'retrying'
  if not is_waiting or not is_one_of(wanted, status) then return {'wrong_status', status} end
  local due = due_after(set, status ~= 'queued' and stored_number(scheduled_at) or nil, now)
  local expires_at = expiry_of(set, now) or stored_number(read(id, 'expires_at')[1])
  if expires_at and expires_at <= math.max(now, due or 0) then return {'expired'} end
  status = change_job(id, set, now)
  due = status ~= 'queued' and stored_number(read(id, 'scheduled_at')[1]) or nil
  if set.expires_at or set.expires_in then due = math.min(due or expires_at, expires_at) end
  return {'changed', status, due and math.max(0, due - now) or -1}
end

for i = 3, #ARGV do answers[#answers + 1] = change(ARGV[i]) end
if made_rules then made_rules.send_on_freed(now) end
return answers
