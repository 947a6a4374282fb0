-- Whether jobs can be submitted, taken and settled. A script that may write and has no allow-oom is refused exactly when a
-- submission is: by a replica, by a full Redis or disk.
-- ARGV: what this user must be allowed to do: command or COMMAND|SUBCOMMAND, key, ..
-- Returns: what it may not do: {command or '' where only the key is refused, key, ..}
local lacking = {}
for i = 1, #ARGV, 2 do
  local words, key = {}, ARGV[i + 1]
  for word in string.gmatch(ARGV[i], '[^|]+') do words[#words + 1] = word end
  -- An error where this Redis does not know the command, since it was renamed.
  local is_known, is_allowed = pcall(redis.acl_check_cmd, words[1], words[2] or key, key, key)
  if not is_known or not is_allowed then
    -- The key that every script names is allowed, or this one would not run.
    local is_for_key = is_known and redis.acl_check_cmd(words[1], words[2] or SERVERS, SERVERS, SERVERS)
    lacking[#lacking + 1] = is_for_key and '' or ARGV[i]
    lacking[#lacking + 1] = key
  end
end
return lacking
