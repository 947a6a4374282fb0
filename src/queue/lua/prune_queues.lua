-- Deletes names of empty queues, in one step. A name comes back with the next job.
-- ARGV: cursor, '0' at first
-- Returns: cursor of the next step, '0' at the end
-- Protects from: names of queues that clients have made up and that would stay for ever.
local found = call('SSCAN', QUEUES, ARGV[1], 'COUNT', '200')
for _, queue in ipairs(found[2]) do
  if call('EXISTS', WORK .. queue, WORK .. queue .. SUSPECTS) == 0 then
    call('SREM', QUEUES, queue)
    call('DEL', TOMBSTONES .. queue)
  end
end
return found[1]
