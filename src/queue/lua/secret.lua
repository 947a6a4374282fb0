-- Makes the key of the attempt tokens, unless there is one. A script, since Redis refuses SET while it is full.
-- ARGV: a new key
-- Returns: the key
if call('SET', SECRET, ARGV[1], 'NX') then return ARGV[1] end
return call('GET', SECRET)
