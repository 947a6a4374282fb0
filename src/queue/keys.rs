//! Every key in Redis, with its type. The Lua scripts take these names from here too (see `scripts.rs`).
//!
//! All begin with the namespace in braces, which puts them into one slot of a Redis Cluster.

use crate::job::{DEFAULT_MAX_ATTEMPTS, DEFAULT_QUEUE, DEFAULT_TIMEOUT};

/// `job:<id>`, hash: the truth about a job; every other entry is only a handle to it. Fields: see `record.rs`.
pub(super) const JOB: &str = "job:";
/// `work_queue:<queue>`, list of ids: ready jobs, pushed left, taken right.
pub(super) const WORK: &str = "work_queue:";
/// `work_queue:<queue>:suspects`, list of ids: ready jobs on their last chance. Each waits for a server on which nothing
/// else runs, so they must not stand in the way of the others. A take moves them here from the list above.
pub(super) const SUSPECTS: &str = ":suspects";
/// `tombstones:<queue>`, hash, id → number, and `all` → their sum: entries of the two lists above that stand there for no job
/// any more, since it would take too long to find them in a long list. A take drops those that it meets.
pub(super) const TOMBSTONES: &str = "tombstones:";
/// `in_progress_queue:<server>`, list of ids: what a server has taken and not settled, newest first.
pub(super) const IN_PROGRESS: &str = "in_progress_queue:";
/// `scheduled`, sorted set, due ms → id: jobs that wait for their time or out their backoff.
pub(super) const SCHEDULED: &str = "scheduled";
/// `dlq_queue`, sorted set, finished ms → id: failed jobs.
pub(super) const DLQ: &str = "dlq_queue";
/// `done`, sorted set, finished ms → id: completed and cancelled jobs, for retention.
pub(super) const DONE: &str = "done";
/// `index:<status>` and `index:<status>:<type>`, sorted sets, id → id: what listings read. Queued and processing jobs
/// share the status word [`READY`], so that starting a job costs no index at all; in-progress lists tell them apart.
pub(super) const INDEX: &str = "index:";
/// The word in [`INDEX`] for queued and processing jobs.
pub(super) const READY: &str = "ready";
/// `servers`, hash, server → beat counter, or `D<ms>[:<suspect id>]` once it is held to be dead.
pub(super) const SERVERS: &str = "servers";
/// `server:<server>`, hash: started_at, workers, busy, beat_at, and the queues that it takes from, with commas between.
pub(super) const SERVER: &str = "server:";
/// `cancels:<server>`, set of ids: running jobs that this server was asked to stop.
pub(super) const CANCELS: &str = "cancels:";
/// `queues`, set: the names of queues that were ever used.
pub(super) const QUEUES: &str = "queues";
/// `paused`, set: the names of paused queues.
pub(super) const PAUSED: &str = "paused";
/// `unique:<key>`, string: the id of the live job that holds the key.
pub(super) const UNIQUE: &str = "unique:";
/// `idempotency:<key>`, string with expiry: the body's fingerprint and the answer that was given.
pub(super) const IDEMPOTENCY: &str = "idempotency:";
/// `last_id`, string: the newest job id.
pub(super) const LAST_ID: &str = "last_id";
/// `last_chance:<queue>`, string: the server that empties itself for the jobs of this queue that must run alone, while
/// there are any. One server is enough; all others go on.
pub(super) const LAST_CHANCE: &str = "last_chance:";
/// `lost`, sorted set, ms → id: ids that were met in a list without a readable job, the last 10,000.
pub(super) const LOST: &str = "lost";
/// `history:<minute>`, hash with expiry: what happened in this minute since 1970, summed over all servers, and how many
/// jobs waited at its end. For charts alone.
pub(super) const HISTORY: &str = "history:";
/// `activity:<server>`, string with expiry: what the server's workers do, told while somebody looks.
pub(super) const ACTIVITY: &str = "activity:";
/// `watched`, string with expiry: there while somebody looks at what workers do.
pub(super) const WATCHED: &str = "watched";
/// `set_aside:<name>`: what the doctor took out of the way, as it was: keys of a wrong type, records that cannot be read.
pub(super) const SET_ASIDE: &str = "set_aside:";

/// The prefix of every key.
pub(super) fn prefix(namespace: &str) -> String {
    format!("{{{namespace}}}:")
}

/// The names by which scripts call the keys, each with the key, or with what all keys of its kind begin with.
pub(super) fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    [
        ("JOB", JOB),
        ("WORK", WORK),
        ("TOMBSTONES", TOMBSTONES),
        ("IN_PROGRESS", IN_PROGRESS),
        ("SCHEDULED", SCHEDULED),
        ("DLQ", DLQ),
        ("DONE", DONE),
        ("INDEX", INDEX),
        ("SERVERS", SERVERS),
        ("SERVER", SERVER),
        ("CANCELS", CANCELS),
        ("QUEUES", QUEUES),
        ("PAUSED", PAUSED),
        ("UNIQUE", UNIQUE),
        ("IDEMPOTENCY", IDEMPOTENCY),
        ("LAST_ID", LAST_ID),
        ("LAST_CHANCE", LAST_CHANCE),
        ("LOST", LOST),
        ("HISTORY", HISTORY),
        ("ACTIVITY", ACTIVITY),
        ("WATCHED", WATCHED),
        ("SET_ASIDE", SET_ASIDE),
    ]
    .into_iter()
}

/// The lines of Lua that give the scripts these names, and what a field has that a record leaves out.
pub(super) fn as_lua(namespace: &str) -> String {
    let prefix = prefix(namespace);
    let mut lua: String = names().map(|(name, key)| format!("local {name} = '{prefix}{key}'\n")).collect();
    lua.push_str(&format!("local PREFIX = '{prefix}'\n"));
    lua.push_str(&format!("local SUSPECTS = '{SUSPECTS}'\nlocal READY = '{READY}'\n"));
    lua.push_str(&format!("local DEFAULT_QUEUE = '{DEFAULT_QUEUE}'\n"));
    lua.push_str(&format!("local DEFAULT_MAX_ATTEMPTS = '{DEFAULT_MAX_ATTEMPTS}'\n"));
    lua.push_str(&format!("local DEFAULT_TIMEOUT_MS = '{}'\n", DEFAULT_TIMEOUT.as_millis()));
    lua
}

/// What Redis's TYPE says of a key with this name (without the prefix); `None` for a name that is none of ours.
pub(super) fn right_type(name: &str) -> Option<&'static str> {
    let prefixes = [
        (JOB, "hash"),
        (WORK, "list"),
        (TOMBSTONES, "hash"),
        (IN_PROGRESS, "list"),
        (INDEX, "zset"),
        (SERVER, "hash"),
        (CANCELS, "set"),
        (HISTORY, "hash"),
        (UNIQUE, "string"),
        (IDEMPOTENCY, "string"),
        (ACTIVITY, "string"),
    ];
    let by_prefix = prefixes.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, kind)| *kind);
    by_prefix.or(match name {
        SCHEDULED | DLQ | DONE | LOST => Some("zset"),
        SERVERS => Some("hash"),
        QUEUES | PAUSED => Some("set"),
        LAST_ID | WATCHED => Some("string"),
        _ => None,
    })
}
