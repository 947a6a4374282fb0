-- Tells what the workers of a server do, for those who look. It is forgotten soon: what is old is wrong.
-- ARGV: server, the text, how long it is kept in ms
return call('SET', ACTIVITY .. ARGV[1], ARGV[2], 'PX', ARGV[3])
