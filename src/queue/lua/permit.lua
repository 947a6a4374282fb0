-- What a script begins with that changes something: it stops before it has changed anything if this user of Redis lacks a
-- right that it needs. Redis itself would stop it half-way, and Lua has no rollback. scripts.rs adds the calls of `may`, for
-- all commands and keys that it finds in the script.
local may = redis.acl_check_cmd

-- The error, in Redis's words. The key that every script names is allowed, or this one would not run.
local function refusal(command, key)
  if may(command, SERVERS, SERVERS, SERVERS) then
    return redis.error_reply('NOPERM this user has no permissions to access keys such as ' .. key)
  end
  return redis.error_reply("NOPERM this user has no permissions to run the '" .. string.lower(command) .. "' command")
end
