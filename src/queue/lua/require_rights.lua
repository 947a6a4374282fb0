-- The beginning of each script that writes: it ends the script if the user of Redis lacks a right that the script
-- needs. Redis itself would stop the script half-way, and Lua has no rollback. rights.rs adds the calls of `may`,
-- for the commands and keys of the script.
local may = redis.acl_check_cmd

-- The error in the words of Redis. The user may use SERVERS, the key of the call, or this script would not run.
local function refusal(command, key)
  if may(command, command == 'EVALSHA' and '' or SERVERS, '1', SERVERS) then
    return redis.error_reply('NOPERM this user has no permissions to access keys such as ' .. key)
  end
  return redis.error_reply("NOPERM this user has no permissions to run the '" .. string.lower(command) .. "' command")
end
