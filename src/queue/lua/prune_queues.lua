-- Forgets names of queues that are empty; a name comes back with the next job.
-- ARGV: where to go on, '0' at first
-- Returns: where to go on, '0' at the end
-- Protects from: made-up names that pile up for ever.
local found = call('SSCAN', QUEUES, ARGV[1], 'COUNT', '200')
for _, queue in ipairs(found[2]) do
  if call('EXISTS', WORK .. queue, WORK .. queue .. SUSPECTS) == 0 then
    call('SREM', QUEUES, queue)
    call('DEL', TOMBSTONES .. queue)
  end
end
return found[1]
