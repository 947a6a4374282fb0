//! Every key in Redis, with its type. The Lua scripts get these names from here too (see `scripts.rs`).
//!
//! Each key begins with the namespace in braces, so that all keys are in one slot of a Redis Cluster.

use crate::job::{DEFAULT_MAX_ATTEMPTS, DEFAULT_QUEUE, DEFAULT_TIMEOUT};

/// A row of the table of keys.
struct Key {
    /// The name of the constant, in Rust and in Lua.
    name: &'static str,
    /// The key; with a colon at the end it is the prefix of many keys.
    key: &'static str,
    /// The type that Redis's TYPE returns; `any` if the doctor does not check the type, `none` if the key must not exist.
    redis_type: &'static str,
}

/// Makes a constant and a row of [`TABLE`] of each key.
macro_rules! keys {
    ($($(#[doc = $doc:literal])* $name:ident = $key:literal: $type:ident;)*) => {
        $($(#[doc = $doc])* pub(super) const $name: &str = $key;)*
        const TABLE: &[Key] =
            &[$(Key { name: stringify!($name), key: $name, redis_type: stringify!($type) }),*];
    };
}

keys! {
    /// `job:<id>`: the job itself; all other keys refer to the job by its id. `record.rs` describes the fields.
    JOB = "job:": hash;
    /// `work_queue:<queue>`, ids: queued jobs, pushed left, taken right. The list with [`SUSPECTS`] at the end has the
    /// quarantined jobs.
    WORK = "work_queue:": list;
    /// `tombstones:<queue>`, id → number, and `all` → their sum: entries of the two lists above without a job. To
    /// remove such an entry from a long list at once would take too long, so `start_jobs.lua` drops it when its turn comes.
    TOMBSTONES = "tombstones:": hash;
    /// `in_progress_queue:<server>`, ids: jobs that a server has claimed or started and not settled, newest first.
    IN_PROGRESS = "in_progress_queue:": list;
    /// Due time in ms → id: scheduled and retrying jobs.
    SCHEDULED = "scheduled": zset;
    /// Time of the failure in ms → id: dead letters.
    DLQ = "dlq_queue": zset;
    /// Ids of completed jobs in the order of their ends, newest first, for retention. A job that was deleted keeps its
    /// entry until the entry is the oldest one, or until there are too many of these entries.
    COMPLETED = "completed": list;
    /// Time of the end in ms → id, for retention: cancelled jobs, the completed jobs of versions up to 0.6, and
    /// jobs that had too many entries of deleted jobs before them in [`COMPLETED`].
    DONE = "done": zset;
    /// 0 → job type: the types that have a type index, at most 16. A sorted set needs no Redis right that servers did
    /// not need before.
    TYPES = "types": zset;
    /// `type_index:<status>:<type>`, id → id: the only index of a job whose type is in [`TYPES`]. Queued and processing
    /// jobs share the word [`READY`], so that starting a job writes to no index; in-progress lists tell the two apart.
    TYPE_INDEX = "type_index:": zset;
    /// `index:<status>` and `index:<status>:<type>`, id → id: the indexes of every other job. These are jobs of
    /// further types, jobs of versions up to 0.6, and jobs that were submitted while such a server was alive.
    INDEX = "index:": zset;
    /// `tag_index:<status>:<tag>`, id → id: the jobs with this tag, beside the index of their type. The words are those of
    /// [`TYPE_INDEX`].
    TAG_INDEX = "tag_index:": zset;
    /// Time in ms → word: everything that becomes due besides jobs. `expire:<id>`: a job that has not started is over.
    /// `forget:<id>`: the own retention of an ended job is over. `tick:<schedule>`: the schedule's next tick.
    /// `lease:<id>`: the lease of a pull worker ends.
    /// `limit:<limit>`: jobs that wait for the limit may go on. `wake:<name>`, newline, `<limit>`: so may those of its keys.
    AGENDA = "agenda": zset;
    /// Limit → its numbers and their source, see `define_limit.lua`. A limit is a name, or a name, a colon and a key.
    LIMITS = "limits": hash;
    /// `slots:<limit>`, id → inf: the job has a slot; ms: the job was sent on to its queue, and its place is kept until then.
    SLOTS = "slots:": zset;
    /// `tat:<limit>`, with expiry: the time in ms when the next start would be due if starts were evenly spread.
    TAT = "tat:": string;
    /// `held:<queue>:<limit>`, ms when the job became ready → id: queued jobs that wait for room in the limit. These jobs have
    /// no entry in a list.
    HELD = "held:": zset;
    /// `holds:<limit>`, queue → how many of its jobs were sent on and not taken yet; the queues with held jobs too.
    HOLDS = "holds:": zset;
    /// Queue → the number of its held jobs.
    HELD_COUNT = "held_count": hash;
    /// 0 → limit: the limits for which jobs wait, or from which jobs were sent on.
    WAITING_LIMITS = "waiting_limits": zset;
    /// 0 → name: all schedules, sorted by name.
    SCHEDULES = "schedules": zset;
    /// `schedule:<name>`: the schedule itself.
    SCHEDULE = "schedule:": hash;
    /// `ticks:<name>`: the last ticks of a schedule and what became of them, newest first.
    TICKS = "ticks:": list;
    /// Server → heartbeat counter, or `D<ms>[:<id>]` after the server was declared dead; `id`: the job that ran alone; or `P` for
    /// [`PULL`], which is no server.
    SERVERS = "servers": hash;
    /// Never exists. Each call of a script names this key beside [`SERVERS`]. While a slot moves to another node of a Redis
    /// Cluster, Redis answers TRYAGAIN to a call that names an existing and a missing key, before the script begins. A
    /// call that names existing keys alone would begin, and end at the first key that has moved, after half of its
    /// changes.
    ABSENT = "absent": none;
    /// `server:<server>`: started_at, workers, busy, beat_at, queues and strict (the strict queues among them), separated by
    /// commas, schedules and limits (those of its file), separated by newlines, and version, which servers of versions up to 0.6 do not have.
    SERVER = "server:": hash;
    /// `cancels:<server>`, ids: running jobs that this server was asked to stop.
    CANCELS = "cancels:": set;
    /// `log:<id>`, `<ms since 1970> <text>`: the last 1,000 log lines of the job, oldest first.
    LOG = "log:": list;
    /// The key of the attempt tokens, made once.
    SECRET = "secret": string;
    /// Time of its last request for jobs or last report in ms → name: pull workers.
    PULL_WORKERS = "pull_workers": zset;
    /// Time of the last request in ms → queue: the queues from which pull workers take.
    PULLED_QUEUES = "pulled_queues": zset;
    /// The names of queues that have jobs or had jobs lately.
    QUEUES = "queues": set;
    /// The names of paused queues.
    PAUSED = "paused": set;
    /// `unique:<key>`: the id of the live job that holds the unique key.
    UNIQUE = "unique:": string;
    /// `idempotency:<key>`, with expiry: the fingerprint of the request, and the reply.
    IDEMPOTENCY = "idempotency:": string;
    /// The newest job id.
    LAST_ID = "last_id": string;
    /// `last_chance:<queue>`: the server that is reserved for the quarantined jobs of this queue. This server drains, while
    /// all other servers go on.
    LAST_CHANCE = "last_chance:": any;
    /// Time in ms → id: ids without a readable job that were met in a list, the last 10,000.
    LOST = "lost": zset;
    /// `history:<minute>`, with expiry: the figures of this minute since 1970, summed over all servers, and the
    /// number of waiting jobs at its end. Only for charts.
    HISTORY = "history:": hash;
    /// `activity:<server>`, with expiry: what the server's workers do, as JSON.
    ACTIVITY = "activity:": string;
    /// Exists, with expiry, while a client watches the activity of workers.
    WATCHED = "watched": string;
    /// `set_aside:<name>`: keys that the doctor has renamed, unchanged: keys of a wrong type and unreadable records.
    SET_ASIDE = "set_aside:": any;
}

/// The end of the key of a list of quarantined jobs. A quarantined job waits for a server that runs no other job, so it
/// must not stand in front of other jobs.
pub(super) const SUSPECTS: &str = ":suspects";
/// The name under which the jobs of pull workers are in progress: that of a server which does not exist.
pub const PULL: &str = "pull";
/// The word in [`TYPE_INDEX`], [`INDEX`] and [`TAG_INDEX`] for queued and processing jobs.
const READY: &str = "ready";

/// The number of the rules by which servers work on the same jobs. Servers with different numbers must not run side by side:
/// 2 is that of versions 0.7 and 0.8, 3 that of version 0.9, 4 that of version 0.10; older versions have none.
pub(super) const PROTOCOL: u32 = 5;

/// The prefix of every key.
pub(super) fn prefix(namespace: &str) -> String {
    format!("{{{namespace}}}:")
}

/// The Lua name of each key, and the key.
pub(super) fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.iter().map(|row| (row.name, row.key))
}

/// The names by which scripts refer to the keys and to the values that a record leaves out because they are defaults,
/// each with its value as Lua.
pub(super) fn lua_constants(namespace: &str) -> Vec<(String, String)> {
    let prefix = prefix(namespace);
    let keys = names().map(|(name, key)| (name, format!("{prefix}{key}")));
    let others = [
        ("PREFIX", prefix.clone()),
        ("SUSPECTS", SUSPECTS.to_owned()),
        ("READY", READY.to_owned()),
        ("PULL", PULL.to_owned()),
        ("PROTOCOL", PROTOCOL.to_string()),
        ("DEFAULT_QUEUE", DEFAULT_QUEUE.to_owned()),
        ("DEFAULT_MAX_ATTEMPTS", DEFAULT_MAX_ATTEMPTS.to_string()),
        ("DEFAULT_TIMEOUT_MS", DEFAULT_TIMEOUT.as_millis().to_string()),
    ];
    keys.chain(others).map(|(name, value)| (name.to_owned(), format!("'{value}'"))).collect()
}

/// The type that Redis's TYPE should return for a key with this name (without the prefix); `None` for other names and
/// for keys that may have any type.
pub(super) fn right_type(name: &str) -> Option<&'static str> {
    let is_it = |row: &&Key| if row.key.ends_with(':') { name.starts_with(row.key) } else { name == row.key };
    TABLE.iter().find(is_it).map(|row| row.redis_type).filter(|redis_type| *redis_type != "any")
}
