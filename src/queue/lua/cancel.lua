-- Cancels jobs, each by itself: scheduled | queued | retrying -> cancelled. A running job is marked, and its server's
-- heartbeat gets the id.
-- ARGV: the statuses that the jobs must have, separated by spaces, or '' for any; ids
-- Returns: per job the result of cancel_job in ties.lua
local wanted, now, answers = ARGV[1], now_ms(), {}
local at = digits(now)
for i = 2, #ARGV do answers[#answers + 1] = cancel_job(ARGV[i], wanted, at) end
if made_rules then made_rules.send_on_freed(now) end
return answers
