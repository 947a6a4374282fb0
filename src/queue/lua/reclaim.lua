-- Takes over the jobs of a server: processing -> queued | failed | cancelled; jobs that the server had not started go
-- back to their queues. The first step declares the server dead: from then on start_jobs.lua and heartbeat.lua refuse it.
-- ARGV: server, its observed heartbeat counter, max crashes, crash|leave, most jobs of this step
--       leave: the server itself ends in order, and no job gets a crash
-- Returns: {'alive'} | {'reclaimed', moved, left, [crashed job {id, type, attempt, crashes, 1 if it failed}, ..],
--          heartbeat counter now}
-- Protects from: a server that is alive after all (its counter has changed); a reaper that dies between two steps.
local server, max_crashes, mode, limit = ARGV[1], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local beat = call('HGET', SERVERS, server)
if not beat or (mode == 'crash' and beat ~= ARGV[2]) then return {'alive'} end
local now, list = now_ms(), IN_PROGRESS .. server
local at = digits(now)

local function is_running(job) return job[1] == 'processing' and job[2] == server end

-- Every job that ran gets a crash. A quarantined job becomes a dead letter only if it ran alone: after a lost reply
-- another job may have run at the same time. The first step looks for a job that ran alone (the suspect), and stores its
-- id in the server's entry of the registry.
if string.sub(beat, 1, 1) ~= 'D' then
  beat = 'D' .. at
  if mode == 'crash' then
    local running, alone = {}, false
    for _, id in ipairs(call('LRANGE', list, 0, -1)) do
      local job = read(id, 'status', 'server', 'crashes')
      if is_running(job) and not running[id] then
        alone = not next(running) and needs_quarantine(job[3], max_crashes) and id
        running[id] = true
      end
    end
    if alone then beat = beat .. ':' .. alone end
  end
  call('HSET', SERVERS, server, beat)
end
local suspect = string.match(beat, ':(%d+)$')

-- Newest first, each to the front of its queue: so the oldest is the first again, and all keep their order.
local ids, handled, told, moved = call('LRANGE', list, 0, digits(limit - 1)), {}, {}, 0
for _, id in ipairs(ids) do
  local job = read(id, 'status', 'server', 'type', 'queue', 'crashes', 'cancel', 'unique_key', 'attempts',
    'starts', 'ties')
  local running = is_running(job)
  if running and is_tied(job[10], 'L') then limit_rules().leave(id, read(id, 'limits')[1]) end
  if handled[id] then
    drop_tombstone(job[4], id)
  elseif running and job[6] then
    finish(id, job[3], job[10], 'processing', 'cancelled', at, job[7])
    call('HDEL', JOB .. id, 'cancel', 'server')
    moved = moved + 1
  elseif running then
    local fails = mode == 'crash' and (suspect == id or max_crashes == 1)
    if mode == 'crash' then
      told[#told + 1] = charge_crash(id, job, fails, at, 'its server died', ' while this job was running')
    end
    if not fails then send_back(id, job[4], job[10], at) end
    moved = moved + 1
  elseif job[1] == 'queued' then
    call('HDEL', JOB .. id, 'server')
    call('RPUSH', fill_list(job[4]), id)
    if job[10] then watch_expiry(id, job[10]) end
    moved = moved + 1
  elseif not drop_tombstone(job[4], id) and not job[1] then
    note_lost(id, at)
  end
  handled[id] = true
end
call('LTRIM', list, digits(#ids), -1)
local left = call('LLEN', list)
if left == 0 then call('DEL', CANCELS .. server) end
if made_rules then made_rules.send_on_freed(now) end
return {'reclaimed', moved, left, told, beat}
