-- Returns ids from a live server's list to the front of their queues, if the server does not run their jobs:
-- processing | queued -> queued. The attempt does not count.
-- ARGV: server, ids, newest first
-- Returns: the number of jobs that went back
-- Protects from: jobs that are stranded because a reply to BRPOPLPUSH or start_jobs.lua was lost.
local server, now, moved = ARGV[1], now_ms(), 0
local at = digits(now)
local list = IN_PROGRESS .. server
if not is_registered(server) then return 0 end
for i = 2, #ARGV do
  local id = ARGV[i]
  local job = read(id, 'status', 'server', 'queue', 'cancel', 'type', 'unique_key', 'ties')
  local running = job[1] == 'processing' and job[2] == server
  local is_limited = running and is_tied(job[7], 'L')
  -- A missing right ends the script here, before it changes anything of the job.
  if is_limited then limit_rules() end
  if call('LREM', list, 1, id) == 1 then
    if is_limited then limit_rules().leave(id, read(id, 'limits')[1]) end
    if running and job[4] then
      finish(id, job[5], job[7], 'processing', 'cancelled', at, job[6])
      call('HDEL', JOB .. id, 'cancel', 'server')
      call('SREM', CANCELS .. server, id)
    elseif running or job[1] == 'queued' then
      call('HSET', JOB .. id, 'status', 'queued')
      call('HDEL', JOB .. id, 'server')
      if is_limited then limit_rules().go_back(id, job[3], now) else call('RPUSH', fill_list(job[3]), id) end
      if job[7] then watch_expiry(id, job[7]) end
      moved = moved + 1
    elseif not drop_tombstone(job[3], id) and not job[1] then
      note_lost(id, at)
    end
  end
end
if made_rules then made_rules.send_on_freed(now) end
return moved
