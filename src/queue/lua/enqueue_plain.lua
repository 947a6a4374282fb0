-- Stores jobs of one queue and one type that start now, without unique and idempotency keys, all or none: new -> queued.
-- enqueue.lua stores all other jobs; this script does the same with half the work of Redis.
-- ARGV: max queue length, queue, type, number of jobs,
--       then per job: number of the texts that follow, [field, value, ..]
-- Returns: the first id; nil if the queue has no room for all jobs: then enqueue.lua has to decide
-- Protects from: two jobs with one id.
-- A full Redis refuses this script, since it has no allow-oom. All reads come before the first write: see rights.rs.
local queue, job_type, number = ARGV[2], ARGV[3], tonumber(ARGV[4])
if count_entries(queue) + number > tonumber(ARGV[1]) then return false end
local first = first_id(call('TIME'))
local index = index_of(job_type)

local ids, place = {}, 5
for i = 1, number do
  local id, last = digits(first + i - 1), place + ARGV[place]
  call('HSET', JOB .. id, 'status', 'queued', 'type', job_type, unpack(ARGV, place + 1, last))
  ids[i] = id
  place = last + 1
end
index_add(ids, job_type, 'queued', index)
push_new(queue, ids)
call('SET', LAST_ID, ids[number])
return ids[1]
