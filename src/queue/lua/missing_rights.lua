-- Finds the rights that the user of Redis lacks. As `readiness` Redis refuses this script exactly when it refuses a
-- submission, since the script may write and has no allow-oom: on a replica, or if memory or disk is full. As
-- `missing_rights` it has no-writes, and Redis refuses it nowhere.
-- ARGV: the rights that the user of Redis needs: command or COMMAND|SUBCOMMAND, key, ..
-- Returns: the rights that the user lacks: {command or '' if only the key is refused, key, ..}
local lacking = {}
for i = 1, #ARGV, 2 do
  local words, key = {}, ARGV[i + 1]
  for word in string.gmatch(ARGV[i], '[^|]+') do words[#words + 1] = word end
  -- An error means that this Redis does not know the command: it was renamed.
  local is_known, is_allowed = pcall(redis.acl_check_cmd, words[1], words[2] or key, key, key)
  if not is_known or not is_allowed then
    -- The user may use SERVERS, the key of the call, or this script would not run.
    local is_for_key = is_known and redis.acl_check_cmd(words[1], words[2] or SERVERS, SERVERS, SERVERS)
    lacking[#lacking + 1] = is_for_key and '' or ARGV[i]
    lacking[#lacking + 1] = key
  end
end
return lacking
