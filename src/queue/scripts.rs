//! The Lua scripts. Every change of a job that touches more than one key is a script.

use redis::Cmd;

use super::keys;
use super::pool::{Access, Repeat};
use super::rights::{self, Right};

/// A script, ready to be called.
pub(super) struct Script {
    pub(super) lua: redis::Script,
    pub(super) access: Access,
    /// Whether a call may be repeated after its reply was lost.
    pub(super) repeat: Repeat,
    /// The rights that the user of Redis needs for this script.
    rights: Vec<Right>,
    user: User,
    /// The one key that each call names, from which a Redis Cluster computes the slot. The scripts build all other keys
    /// themselves.
    slot: String,
}

impl Script {
    /// The beginning of a call; the arguments follow.
    pub(super) fn call(&self) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.lua.get_hash()).arg(1).arg(&self.slot);
        command
    }
}

/// Who needs a script.
#[derive(Clone, Copy, PartialEq, Eq)]
enum User {
    /// A registered server, to submit, run and settle jobs.
    Jobs,
    /// Operators, to read jobs and to change them on request.
    Operators,
    /// The doctor, to check the data.
    Doctor,
    /// The check of the rights of the user of Redis.
    RightsCheck,
}

const COMMON: &str = include_str!("lua/common.lua");
const REQUIRE_RIGHTS: &str = include_str!("lua/require_rights.lua");
const AUDIT_COMMON: &str = include_str!("lua/audit_common.lua");

/// Makes the fields of [`Scripts`], and the lists of scripts and files, of one table.
macro_rules! scripts {
    ($($name:ident: $file:literal, $access:ident, $repeat:ident, $user:ident;)*) => {
        /// All scripts of one namespace.
        pub(super) struct Scripts {
            $(pub(super) $name: Script,)*
        }

        impl Scripts {
            pub(super) fn new(namespace: &str) -> Scripts {
                Scripts {
                    $($name: script(
                        namespace,
                        include_str!(concat!("lua/", $file, ".lua")),
                        Access::$access,
                        Repeat::$repeat,
                        User::$user,
                    ),)*
                }
            }

            fn all(&self) -> impl Iterator<Item = &Script> {
                [$(&self.$name),*].into_iter()
            }
        }

        /// The names of all scripts.
        pub const SCRIPT_NAMES: &[&str] = &[$(stringify!($name)),*];
        /// The files of all scripts, by their names without `.lua`, and their texts; a file may be there twice.
        const SCRIPT_FILES: &[(&str, &str)] = &[$(($file, include_str!(concat!("lua/", $file, ".lua")))),*];
    };
}

// Name; file; what it does to Redis; whether a second call has the same effect as one; what it is needed for.
scripts! {
    enqueue: "enqueue", Add, Never, Jobs;
    start_jobs: "start_jobs", Write, Safe, Jobs;
    settle: "settle", Write, Safe, Jobs;
    recover: "recover", Write, Never, Jobs;
    promote: "promote", Write, Safe, Jobs;
    register: "register", Write, Never, Jobs;
    heartbeat: "heartbeat", Write, Safe, Jobs;
    reclaim: "reclaim", Write, Never, Jobs;
    cancel: "cancel", Write, Never, Operators;
    retry: "retry", Write, Never, Operators;
    delete: "delete", Write, Never, Operators;
    delete_old_jobs: "delete_old_jobs", Write, Safe, Operators;
    prune_queues: "prune_queues", Write, Safe, Operators;
    pause: "pause", Write, Safe, Operators;
    missing_rights: "missing_rights", Add, Safe, RightsCheck;
    get: "get", Read, Safe, Operators;
    statuses: "statuses", Read, Safe, Operators;
    list: "list", Read, Safe, Operators;
    dead_ids: "dead_ids", Read, Safe, Operators;
    queues: "queues", Read, Safe, Operators;
    stats: "stats", Read, Safe, Operators;
    add_history: "add_history", Write, Never, Operators;
    history: "history", Read, Safe, Operators;
    workers: "workers", Write, Safe, Operators;
    report_activity: "report_activity", Write, Safe, Operators;
    audit_jobs: "audit_jobs", Read, Safe, Doctor;
    audit_record: "audit_record", Read, Safe, Doctor;
    audit_list: "audit_list", Read, Safe, Doctor;
    audit_set: "audit_set", Read, Safe, Doctor;
    audit_servers: "audit_servers", Read, Safe, Doctor;
    // One file, so that a repair checks a finding by the rules by which it was reported.
    recheck: "repair", Read, Safe, Doctor;
    repair: "repair", Write, Never, Doctor;
}

/// Every file of Lua by its name without `.lua`, and its text: the scripts, and the parts that stand in front of them.
pub fn lua_files() -> impl Iterator<Item = (&'static str, &'static str)> {
    let parts = [("common", COMMON), ("require_rights", REQUIRE_RIGHTS), ("audit_common", AUDIT_COMMON)];
    let is_first = |i: usize| !SCRIPT_FILES[..i].contains(&SCRIPT_FILES[i]);
    let files = (0..SCRIPT_FILES.len()).filter(move |i| is_first(*i)).map(|i| SCRIPT_FILES[i]);
    parts.into_iter().chain(files)
}

fn script(namespace: &str, body: &str, access: Access, repeat: Repeat, user: User) -> Script {
    let flags = match access {
        Access::Read => "#!lua flags=no-writes",
        // Without this flag Redis refuses to start and to settle jobs too when it reaches its `maxmemory`.
        Access::Write => "#!lua flags=allow-oom",
        Access::Add => "#!lua",
    };
    let body = if user == User::Doctor { &format!("{AUDIT_COMMON}{body}") } else { body };
    let rights = rights::of_script(COMMON, body, namespace);
    // A script that only reads may stop anywhere.
    let require_rights = match access {
        Access::Read => String::new(),
        _ => REQUIRE_RIGHTS.to_owned() + &rights::check_in_lua(&rights),
    };
    let keys = keys::as_lua(namespace);
    let lua = redis::Script::new(&format!("{flags}\n{keys}{COMMON}{require_rights}{body}"));
    Script { lua, access, repeat, rights, user, slot: keys::prefix(namespace) + keys::SERVERS }
}

impl Scripts {
    /// The rights without which no job can be run.
    pub(super) fn needed_rights(&self) -> Vec<Right> {
        self.rights_of(User::Jobs)
    }

    /// The rights for reading jobs, and for changing them on request.
    pub(super) fn operator_rights(&self) -> Vec<Right> {
        self.rights_of(User::Operators)
    }

    fn rights_of(&self, user: User) -> Vec<Right> {
        self.all()
            .filter(|script| script.user == user)
            .flat_map(|script| script.rights.iter().cloned())
            .collect()
    }
}
