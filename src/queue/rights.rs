//! The rights that the user of Redis needs. They are read from the scripts themselves, so that none is forgotten.

use std::collections::HashSet;

use super::keys;
use super::linker::words;
use crate::sorting;

/// A command, such as `SET` or `SCRIPT|LOAD`, and a key on which the command is used.
pub(super) type Right = (String, String);

/// Commands without a key.
const WITHOUT_KEY: &[&str] = &["TIME"];

/// Commands that change nothing.
const READS: &[&str] = &[
    "EXISTS",
    "GET",
    "HGET",
    "HGETALL",
    "HLEN",
    "HMGET",
    "HSTRLEN",
    "LINDEX",
    "LLEN",
    "LPOS",
    "LRANGE",
    "SCAN",
    "SISMEMBER",
    "SMEMBERS",
    "TIME",
    "TYPE",
    "ZCARD",
    "ZRANGE",
    "ZREVRANGE",
    "ZREVRANK",
    "ZSCAN",
    "ZSCORE",
];

/// Whether the command of a right changes nothing.
pub(super) fn is_read((command, _): &Right) -> bool {
    READS.contains(&command.as_str())
}

/// The rights that a script needs: each of its commands, and each of its kinds of keys, at least once. `text` is the
/// script with the functions that it calls, and with the names of keys as constants.
pub(super) fn of_script(text: &str, namespace: &str) -> Vec<Right> {
    let prefix = keys::prefix(namespace);
    let keys: Vec<String> = keys_of(text).iter().map(|(_, key)| format!("{prefix}{key}")).collect();
    let (bare, keyed): (Vec<&str>, Vec<&str>) =
        commands(text).iter().partition(|command| WITHOUT_KEY.contains(command));
    let bare = bare.into_iter().map(|command| (command.to_owned(), keys[0].clone()));
    let number = if keyed.is_empty() { 0 } else { keyed.len().max(keys.len()) };
    let keyed = (0..number).map(|i| (keyed[i % keyed.len()].to_owned(), keys[i % keys.len()].clone()));
    bare.chain(keyed).collect()
}

/// The lines of Lua that end a script at its beginning if a right is missing, and those that end the script at the
/// beginning of the part `late`, for the rights that only this part needs. Each check costs as much as a short command,
/// so one check covers all keys that no other check covers. A script that `reads_first`, before it writes, may stop at
/// any read. The lines have the constants of the keys: a namespace may have the name of a constant.
pub(super) fn checks_in_lua(text: &str, late: &str, reads_first: bool) -> (String, String) {
    let early = text.replacen(late, "", 1);
    let is_read = |command: &&str| reads_first && READS.contains(command);
    let early_commands: Vec<&str> =
        commands(&early).into_iter().filter(|command| !is_read(command)).collect();
    let early_keys = keys_of(&early);
    let is_new = |command: &&str| !early_commands.contains(command) && !is_read(command);
    let late_commands: Vec<&str> = commands(late).into_iter().filter(is_new).collect();
    let late_keys: Vec<_> = if late.is_empty() {
        Vec::new()
    } else {
        keys_of(late).into_iter().filter(|key| !early_keys.contains(key)).collect()
    };
    let first = early_keys[0].0;
    (
        checks(&early_commands, &early_keys, first, "return"),
        checks(&late_commands, &late_keys, first, "error"),
    )
}

/// A check of each command with a key, and of the keys that are left over. `ends` ends the script with a refusal.
fn checks(commands: &[&str], keys: &[(&str, &str)], first: &str, ends: &str) -> String {
    let mut keys: Vec<&str> = keys.iter().map(|(name, _)| *name).collect();
    let mut lua = String::new();
    for command in commands {
        let has_key = !WITHOUT_KEY.contains(command) && !keys.is_empty();
        let key = if has_key { keys.remove(0) } else { first };
        lua.push_str(&format!(
            "if not may('{command}', {key}) then {ends}(refusal('{command}', {key})) end\n"
        ));
    }
    if let Some(key) = keys.first() {
        let list = keys.join(", ");
        lua.push_str(&format!(
            "if not may('EVALSHA', '', '{}', {list}) then {ends}(refusal('EVALSHA', {key})) end\n",
            keys.len()
        ));
    }
    lua
}

/// The kinds of keys that a text names, at least one: the constant and the key.
fn keys_of(text: &str) -> Vec<(&'static str, &'static str)> {
    let words: HashSet<&str> = words(text).collect();
    let keys: Vec<_> = keys::names().filter(|(name, _)| words.contains(name)).collect();
    if keys.is_empty() { keys::names().filter(|(_, key)| *key == keys::SERVERS).collect() } else { keys }
}

/// The commands that a text calls: what stands in quotes and capitals in the first argument of `call`, `try_call`,
/// `try`.
fn commands(text: &str) -> Vec<&str> {
    let calls = text.match_indices("call(").chain(text.match_indices("try("));
    let arguments = calls.filter_map(|(at, call)| {
        let argument = &text[at + call.len()..];
        argument.split([',', ')']).next()
    });
    let words = arguments.flat_map(|argument| argument.split('\'').skip(1).step_by(2));
    sorting::distinct(
        words.filter(|word| word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase())),
    )
}

/// Says which rights are missing, and which command of Redis grants them to this user.
pub(super) fn sentence(missing: &[Right], user: Option<&str>, namespace: &str) -> String {
    let commands = missing.iter().map(|(command, _)| command.to_lowercase());
    let commands = sorting::distinct(commands.filter(|command| !command.is_empty()));
    let has_keys = missing.iter().any(|(command, _)| command.is_empty());
    let pattern = format!("~{}*", keys::prefix(namespace));
    let (mut what, mut grants) = (Vec::new(), Vec::new());
    if !commands.is_empty() {
        what.push(format!("may not run {}", commands.join(", ")));
        grants.extend(commands.iter().map(|command| format!("+{command}")));
    }
    if has_keys {
        what.push(format!("may not use the keys {}*", keys::prefix(namespace)));
        grants.push(pattern);
    }
    let user = user.unwrap_or("default");
    let words: Vec<String> = std::iter::once(format!("ACL SETUSER {user}")).chain(grants).collect();
    format!("NOPERM the Redis user {user:?} {}; grant it with: {}", what.join(" and "), words.join(" "))
}

/// The missing right that an error of Redis names; `None` if the error names no right. Both parts are empty for a key.
pub(super) fn of_error(text: &str) -> Option<Right> {
    if text.contains("access") && text.contains("key") {
        return Some((String::new(), String::new()));
    }
    // "... no permissions to run the 'script|load' command", in some versions "... or its subcommand".
    let command = text.split_once("run the '")?.1.split('\'').next()?;
    Some((command.to_owned(), String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_read_from_the_text_of_a_script() {
        let rights = |text| {
            let rights = of_script(text, "n");
            rights.into_iter().map(|(command, key)| format!("{command} {key}")).collect::<Vec<_>>()
        };
        assert_eq!(
            rights("try_call('HGET', JOB .. x) call(x and 'SADD' or 'SREM', PAUSED, 'LIMIT') call('TIME')"),
            ["TIME {n}:job:", "HGET {n}:job:", "SADD {n}:paused", "SREM {n}:job:"]
        );
        assert_eq!(rights("call('SET', LAST_ID, QUEUES)"), ["SET {n}:queues", "SET {n}:last_id"]);
        assert_eq!(rights("return 1"), [""; 0]);
    }

    #[test]
    fn a_missing_right_is_named_with_the_command_that_grants_it() {
        let missing = [("SET".to_owned(), "k".to_owned()), ("SCRIPT|LOAD".to_owned(), "k".to_owned())];
        assert_eq!(
            sentence(&missing, Some("ann"), "n"),
            "NOPERM the Redis user \"ann\" may not run script|load, set; grant it with: ACL SETUSER ann +script|load +set"
        );
        let keys = [(String::new(), "k".to_owned())];
        assert_eq!(
            sentence(&keys, None, "n"),
            "NOPERM the Redis user \"default\" may not use the keys {n}:*; grant it with: ACL SETUSER default ~{n}:*"
        );
    }

    #[test]
    fn a_missing_right_is_read_from_each_wording_of_redis() {
        for (text, command) in [
            ("NOPERM this user has no permissions to run the 'evalsha' command", "evalsha"),
            ("NOPERM User threadq has no permissions to run the 'script|load' command", "script|load"),
            ("NOPERM this user has no permissions to run the 'info' command or its subcommand", "info"),
            ("NOPERM this user has no permissions to access one of the keys used as arguments", ""),
            ("NOPERM No permissions to access a key", ""),
        ] {
            assert_eq!(of_error(text).unwrap().0, command, "{text}");
        }
        assert_eq!(of_error("NOPERM for another reason"), None);
    }
}
