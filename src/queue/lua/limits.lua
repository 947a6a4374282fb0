-- Functions about limits on the starts of jobs; linker.rs puts those that a script calls behind common.lua. A limit is named
-- `name` or `name:key`. A job with limits has the letter L in its ties and their names in the field `limits`, in the order
-- in which the job takes them: those with a key first, then by name. So no jobs wait for each other in a circle.
--   slots:<limit>         id -> inf: runs, or keeps its slot while it waits for a later limit
--                               ms: was sent on to its queue; its place in the limit is kept until then
--   holds:<limit>         queue -> the number of its jobs that were sent on and not taken yet
--   held:<queue>:<limit>  id -> ms since 1970 when the job became ready: the jobs that wait for room
--   tat:<limit>           ms when the next start would be due if starts were evenly spread (GCRA)
-- The field `blocked` of a waiting job is `held <ms> <limit>`, or `sent <ms> <limit>` once the job was sent on; the time
-- is that when the job began to wait.
--
-- Most calls meet no job with limits. So one function makes all others when a call needs the first of them, and
-- checks the rights that only these functions need: scripts.rs puts the checks in place of check_rights().

-- The functions about limits, once a script has needed one of them. Then the script ends with
-- made_rules.send_on_freed(now).
local made_rules = false

local function limit_rules()
  if made_rules then return made_rules end
  check_rights()
  -- How long the place of a job that was sent on is kept, in ms; the most jobs that one call sends on; the longest time in ms
  -- until a limit with waiting jobs is looked at again.
  local PLACE_KEPT, MOST_WOKEN, LONGEST_REST = 5000, 50, 60000

  -- The limits whose waiting jobs may go on when the script ends, each once.
  local freed = {}
  local function free(limit)
    if not freed[limit] then
      freed[limit] = true
      freed[#freed + 1] = limit
    end
  end

  -- The numbers of a limit: slots, 0 for any number; gap in ms between evenly spread starts, or nil; burst. Or false if the
  -- limit does not exist: then it lets all jobs start. A key may have numbers of its own.
  local numbers_by_limit = {}
  local function numbers_of(limit)
    if numbers_by_limit[limit] == nil then
      local name = string.match(limit, '^([^:]*):') or limit
      local texts = name ~= 'threadq.schedule' and call('HMGET', LIMITS, limit, name) or {'1 0 0 1'}
      local slots, starts, period, burst = string.match(texts[1] or texts[2] or '', '^(%d+) (%d+) (%d+) (%d+)')
      slots, starts = tonumber(slots), tonumber(starts)
      numbers_by_limit[limit] = slots and {slots = slots, gap = starts > 0 and period / starts, burst = tonumber(burst)} or false
    end
    return numbers_by_limit[limit]
  end

  -- The time of GCRA, which is never in the past.
  local function tat_of(limit, now) return math.max(stored_number(call('GET', TAT .. limit)) or 0, now) end

  local function set_tat(limit, tat, now)
    call('SET', TAT .. limit, string.format('%.3f', tat), 'PX', digits(math.ceil(tat - now) + 1))
  end

  -- How many starts the rate of a limit allows now, and when it allows one more if that number is 0.
  local function tokens_of(limit, numbers, now)
    if not numbers.gap then return MOST_WOKEN end
    local tat, allowance = tat_of(limit, now), numbers.burst * numbers.gap
    local tokens = math.floor((now + allowance - tat) / numbers.gap + 1e-6)
    if tokens < 1 then return 0, math.ceil(tat + numbers.gap - allowance) end
    return tokens
  end

  -- How many more jobs may start under a limit, and when one more may start if the rate is what is missing. Kept places count
  -- as taken.
  local function room_in(limit, numbers, now)
    local room, opens_at = tokens_of(limit, numbers, now)
    if numbers.gap then room = room - call('ZCOUNT', SLOTS .. limit, digits(now), '9007199254740991') end
    if numbers.slots > 0 then
      room = math.min(room, numbers.slots - call('ZCOUNT', SLOTS .. limit, digits(now), '+inf'))
    end
    return room, opens_at
  end

  -- Has the limit looked at again at this time, or earlier.
  local next_look = math.huge
  local function look_again(limit, at)
    call('ZADD', AGENDA, 'LT', digits(at), 'limit:' .. limit)
    next_look = math.min(next_look, at)
  end

  -- The time in ms until a limit that this script has looked at is looked at again, or -1.
  local function look_in(now) return next_look < math.huge and math.max(0, next_look - now) or -1 end

  -- When a job became ready, in ms since 1970: jobs start in this order under a limit.
  local function ready_since(id, scheduled_at, ready_at)
    return math.max(math.floor((tonumber(id) or 0) / 1000), stored_number(scheduled_at) or 0, stored_number(ready_at) or 0)
  end

  -- The score of a member, or false. Servers need no right to ZSCORE otherwise, and this command changes nothing either.
  local function score_of(key, member) return call('ZADD', key, 'XX', 'INCR', 0, member) end

  -- Lets jobs wait for room in a limit. `scored` is {ms when the job became ready, id, ..}; the jobs have no entry in a list.
  local function hold(limit, queue, scored)
    call('ZADD', HELD .. queue .. ':' .. limit, unpack(scored))
    call('ZADD', HOLDS .. limit, 'NX', 0, queue)
    call('ZADD', WAITING_LIMITS, 0, limit)
    call('HINCRBY', HELD_COUNT, queue, digits(#scored / 2))
    free(limit)
  end

  -- Forgets a queue at a limit if none of its jobs waits or was sent on.
  local function tidy(limit, queue)
    if call('EXISTS', HELD .. queue .. ':' .. limit) == 1 then return end
    if (stored_number(score_of(HOLDS .. limit, queue)) or 0) > 0 then return end
    call('ZREM', HOLDS .. limit, queue)
    if call('EXISTS', HOLDS .. limit) == 0 then
      call('ZREM', WAITING_LIMITS, limit)
      call('ZREM', AGENDA, 'limit:' .. limit)
    end
  end

  -- Removes a job from those that wait for room in a limit.
  local function unhold(limit, queue, id)
    if call('ZREM', HELD .. queue .. ':' .. limit, id) == 0 then return end
    if call('HINCRBY', HELD_COUNT, queue, -1) < 1 then call('HDEL', HELD_COUNT, queue) end
  end

  -- Keeps the place of a job that is sent on.
  local function keep_place(limit, queue, id, now)
    call('ZADD', SLOTS .. limit, digits(now + PLACE_KEPT), id)
    call('ZADD', HOLDS .. limit, 'INCR', 1, queue)
    look_again(limit, now + PLACE_KEPT)
  end

  -- Takes away what a waiting job has of a limit. `score` is that of the job in slots:<limit>.
  local function vacate(limit, queue, id, score)
    call('ZREM', SLOTS .. limit, id)
    if score ~= 'inf' then
      call('ZADD', HOLDS .. limit, 'INCR', -1, queue)
      tidy(limit, queue)
    end
    free(limit)
  end

  -- The state, the time and the limit of the field `blocked`.
  local function parts_of(blocked) return string.match(blocked or '', '^(%l+) (%d+) (.*)$') end

  -- Sends on as many of the jobs that wait for a limit as may start, each to the front of its queue, the one that has been
  -- ready longest first. While jobs of a queue were sent on and not taken yet, no other job of this queue is: it would
  -- overtake them. At most 32 queues are looked at. Returns the number of jobs that were sent on.
  local function send_on(limit, now)
    local queues = call('ZRANGE', HOLDS .. limit, 0, '31', 'WITHSCORES')
    if #queues == 0 then return 0 end
    local numbers, room, opens_at, sent, heads = numbers_of(limit), MOST_WOKEN, nil, {}, {}
    if numbers then room, opens_at = room_in(limit, numbers, now) end
    local function read_head(queue)
      local head = call('ZRANGE', HELD .. queue .. ':' .. limit, 0, 0, 'WITHSCORES')
      heads[queue] = head[2] and {head[1], tonumber(head[2])} or nil
    end
    local is_kept = false
    for i = 1, #queues, 2 do
      if tonumber(queues[i + 1]) > 0 then
        is_kept = true
      elseif call('SISMEMBER', PAUSED, queues[i]) == 0 then
        read_head(queues[i])
      end
    end
    local looked = 0
    while room > 0 and looked < MOST_WOKEN and next(heads) do
      looked = looked + 1
      local queue
      for i = 1, #queues, 2 do
        local head, first = heads[queues[i]], heads[queue]
        if head and (not first or head[2] < first[2]) then queue = queues[i] end
      end
      local id = heads[queue][1]
      unhold(limit, queue, id)
      local job = read(id, 'status', 'blocked', 'limits')
      local state, since, other = parts_of(job[2])
      if job[1] == 'queued' and state == 'held' and other == limit then
        call('HSET', JOB .. id, 'blocked', 'sent ' .. since .. ' ' .. limit)
        -- A slot of an earlier limit becomes a place for a time: in a paused queue the job must not keep the slot.
        for earlier in string.gmatch(job[3] or '', '[^\n]+') do
          if earlier == limit then break end
          if score_of(SLOTS .. earlier, id) then
            keep_place(earlier, queue, id, now)
            call('ZADD', WAITING_LIMITS, 0, earlier)
          end
        end
        if numbers then keep_place(limit, queue, id, now) end
        sent[#sent + 1] = {queue, id}
        room = room - 1
      end
      tidy(limit, queue)
      read_head(queue)
    end
    for i = #sent, 1, -1 do call('RPUSH', fill_list(sent[i][1]), sent[i][2]) end
    if call('EXISTS', HOLDS .. limit) == 1 then
      if looked == MOST_WOKEN then
        look_again(limit, now + 1)
      elseif opens_at then
        look_again(limit, math.min(math.max(opens_at, now + 1), now + LONGEST_REST))
      else
        look_again(limit, now + (is_kept and PLACE_KEPT or LONGEST_REST))
      end
    end
    return #sent
  end

  -- Sends on jobs that wait for limits in which this script has made room.
  local function send_on_freed(now)
    for _, limit in ipairs(freed) do send_on(limit, now) end
  end

  -- Lets a job enter its limits: takes a slot and a token of each. Returns nil, or the limit that has no room; then the
  -- job keeps its slots of earlier limits. `closed` has the limits that had no room in this call.
  local function enter_limits(id, queue, limits, blocked, closed, now)
    local passed, full = {}, nil
    for limit in string.gmatch(limits, '[^\n]+') do
      local numbers = numbers_of(limit)
      -- Only a job that has waited can have a slot or a place.
      local score = blocked and score_of(SLOTS .. limit, id)
      if full or not numbers then
        if score then vacate(limit, queue, id, score) end
      else
        local is_open
        if score and (score == 'inf' or tonumber(score) >= now) then
          is_open = tokens_of(limit, numbers, now) > 0
          -- The limit may have fewer slots than when the place was given.
          if is_open and numbers.slots > 0 then
            is_open = call('ZCOUNT', SLOTS .. limit, '+inf', '+inf') - (score == 'inf' and 1 or 0) < numbers.slots
          end
        elseif closed[limit] or (not score and call('EXISTS', HOLDS .. limit) == 1) then
          is_open = false
        else
          is_open = room_in(limit, numbers, now) > 0
        end
        if score then vacate(limit, queue, id, score) end
        if is_open then
          if numbers.slots > 0 then call('ZADD', SLOTS .. limit, '+inf', id) end
          passed[#passed + 1] = limit
        else
          full = limit
        end
      end
    end
    if full then return full end
    for _, limit in ipairs(passed) do
      local gap = numbers_of(limit).gap
      if gap then set_tat(limit, tat_of(limit, now) + gap, now) end
    end
  end

  -- Frees the slots of a job whose attempt has ended.
  local function leave_limits(id, limits)
    for limit in string.gmatch(limits or '', '[^\n]+') do
      if call('ZREM', SLOTS .. limit, id) == 1 then free(limit) end
    end
  end

  -- Lets a queued job whose attempt has not ended wait for room again, as the job that has been ready longest: it keeps the
  -- time when it became ready. The job has no slots and no entry in a list.
  local function go_back(id, queue, now)
    queue = queue or DEFAULT_QUEUE
    local limits, scheduled_at, ready_at = unpack(read(id, 'limits', 'scheduled_at', 'ready_at'))
    local first = string.match(limits or '', '^[^\n]+')
    if not first then return call('RPUSH', fill_list(queue), id) end
    call('HSET', JOB .. id, 'blocked', 'held ' .. digits(now) .. ' ' .. first)
    hold(first, queue, {digits(ready_since(id, scheduled_at, ready_at)), id})
  end

  -- Takes a queued job out of the line of its limits. Returns whether the job was held: then no list has an entry of the job.
  local function leave_line(id, queue)
    local blocked, limits = unpack(read(id, 'blocked', 'limits'))
    local state, _, held_by = parts_of(blocked)
    if not state then return false end
    call('HDEL', JOB .. id, 'blocked')
    if state == 'held' then
      unhold(held_by, queue, id)
      tidy(held_by, queue)
    end
    for limit in string.gmatch(limits or '', '[^\n]+') do
      local score = score_of(SLOTS .. limit, id)
      if score then vacate(limit, queue, id, score) end
    end
    return state == 'held'
  end

  -- Closes the rates of these limits for a time in ms, because a start in this time would be refused elsewhere.
  local function close_rates(limits, wait, now)
    for limit in string.gmatch(limits or '', '[^\n]+') do
      local numbers = numbers_of(limit)
      if numbers and numbers.gap then
        local tat = now + wait + (numbers.burst - 1) * numbers.gap
        if tat > tat_of(limit, now) then set_tat(limit, tat, now) end
      end
    end
  end

  -- Brings a limit in line with numbers that were changed: a shorter gap holds at once.
  local function apply_numbers(limit, now)
    numbers_by_limit[limit] = nil
    local numbers = numbers_of(limit)
    if numbers and numbers.gap then
      local latest = now + numbers.burst * numbers.gap
      if tat_of(limit, now) > latest then set_tat(limit, latest, now) end
    end
  end

  -- The bounds of the keys of a limit in waiting_limits. With the name '' those of all limits.
  local function key_bounds(name)
    if name == '' then return '-', '+' end
    return '[' .. name .. ':', '(' .. name .. ';'
  end

  -- The word of the agenda that looks at all limits with waiting jobs of this name and a key, behind the limit `last`.
  local function wake_word(name, last) return 'wake:' .. name .. '\n' .. last end

  -- Applies new numbers of a limit to the jobs that wait, also for its keys.
  local function change_numbers(limit, now)
    apply_numbers(limit, now)
    free(limit)
    if string.find(limit, ':', 1, true) then return end
    local first, behind = key_bounds(limit)
    if call('ZRANGE', WAITING_LIMITS, first, behind, 'BYLEX', 'LIMIT', 0, 1)[1] then
      call('ZADD', AGENDA, digits(now), wake_word(limit, ''))
      next_look = now
    end
  end

  -- The limits of this name with a key that have waiting jobs, at most `most`.
  local function waiting_keys(name, most)
    if most < 1 then return {} end
    local first, behind = key_bounds(name)
    return call('ZRANGE', WAITING_LIMITS, first, behind, 'BYLEX', 'LIMIT', 0, digits(most))
  end

  -- How many jobs have a slot of a limit, how many wait for room, and the time in ms when the rate allows the next start,
  -- or -1 if it allows a start now.
  local function figures_of(limit, now)
    local waiting = 0
    for _, queue in ipairs(call('ZRANGE', HOLDS .. limit, 0, -1)) do
      waiting = waiting + call('ZCARD', HELD .. queue .. ':' .. limit)
    end
    local numbers = numbers_of(limit)
    local _, opens_at = tokens_of(limit, numbers or {}, now)
    return call('ZCOUNT', SLOTS .. limit, '+inf', '+inf'), waiting, opens_at or -1
  end

  -- A limit as it is stored: the numbers that hold (slots, starts, period in ms, burst; 0 for what is not limited), the
  -- source, and, while an override holds in place of the numbers of a file, those numbers of the file or nil. Nothing if
  -- there is no limit.
  local function stored_limit(limit)
    local numbers, source, rest = string.match(call('HGET', LIMITS, limit) or '', '^(%d+ %d+ %d+ %d+) (%l+)(.*)$')
    return numbers, source, rest and string.match(rest, '^ (.+)$')
  end

  made_rules = {
    apply_numbers = apply_numbers,
    change_numbers = change_numbers,
    close_rates = close_rates,
    enter = enter_limits,
    figures_of = figures_of,
    free = free,
    go_back = go_back,
    hold = hold,
    key_bounds = key_bounds,
    leave = leave_limits,
    leave_line = leave_line,
    look_in = look_in,
    numbers_of = numbers_of,
    parts_of = parts_of,
    ready_since = ready_since,
    send_on = send_on,
    send_on_freed = send_on_freed,
    stored_limit = stored_limit,
    tidy = tidy,
    waiting_keys = waiting_keys,
    wake_word = wake_word,
  }
  return made_rules
end
