-- Settles attempts, each by itself: processing -> completed | retrying | failed | cancelled | queued | processing.
-- ARGV: server, then per attempt: id, fencing token (starts), what, text, delay ms
--       what: complete (text: result) | retry, again, fail (text: error) | release (back to the queue, nothing charged)
--       `again` keeps the job for its next attempt: the backoff was slept on the worker's thread
-- Returns: per attempt a word: the new status | 'stale': the job is someone else's | 'repeated': done before
-- Protects from: a late answer of a server that was held to be dead; the same answer sent twice after a lost reply.
local server, now = ARGV[1], now_ms()
local list, at, answers = IN_PROGRESS .. server, digits(now), {}
gather()
for i = 2, #ARGV, 5 do
  local id, token, what, text, delay = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4])
  local job = read(id, 'status', 'server', 'starts', 'type', 'queue', 'attempts', 'max_attempts', 'crashes', 'cancel',
    'unique_key')
  local status, kind, cancelled, unique_key = job[1], job[4], job[9], job[10]
  local attempts = tonumber(job[6]) or 0
  if job[2] ~= server or job[3] ~= token then
    answers[#answers + 1] = 'stale'
  elseif status ~= 'processing' then
    answers[#answers + 1] = 'repeated'
  else
    if what ~= 'release' then attempts = attempts + 1 end
    if what == 'retry' or what == 'again' or what == 'fail' then add_error(id, attempts, now, text) end
    local to
    if what == 'complete' then
      to = 'completed'
    elseif cancelled then
      to = 'cancelled'
    elseif what == 'release' then
      to = 'queued'
    elseif what == 'fail' or attempts >= (tonumber(job[7]) or 0) then
      to = 'failed'
    elseif what == 'retry' then
      to = 'retrying'
    else
      to = 'processing'
    end

    if to ~= 'processing' then call('LREM', list, 1, id) end
    if to == 'completed' then
      local fields = {'attempts', attempts}
      append_text(fields, 'result', text)
      finish(id, kind, status, to, at, unique_key, unpack(fields))
    elseif is_final(to) then
      finish(id, kind, status, to, at, unique_key, 'attempts', attempts)
    elseif to == 'processing' then
      call('HSET', JOB .. id, 'attempts', attempts, 'starts', token + 1, 'started_at', at)
    elseif to == 'retrying' then
      call('HSET', JOB .. id, 'status', to, 'attempts', attempts, 'scheduled_at', now + delay)
      index_move(id, kind, status, to)
      write('ZADD', SCHEDULED, now + delay, id)
    else
      call('HSET', JOB .. id, 'status', to)
      call('HDEL', JOB .. id, 'server')
      write('RPUSH', fill_list(job[5], job[8]), id)
    end
    if cancelled and to ~= 'processing' then
      call('HDEL', JOB .. id, 'cancel')
      call('SREM', CANCELS .. server, id)
    end
    answers[#answers + 1] = to
  end
end
write_gathered()
return answers
