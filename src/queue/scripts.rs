//! The Lua scripts. Every change of a job that touches more than one key is a script.

use std::sync::{Arc, OnceLock};

use redis::Cmd;

use super::keys;
use super::linker;
use super::pool::{Access, Repeat};
use super::rights::{self, Right};
use crate::packed::{Files, packed};

/// A script, ready to be called. Its text is made when Redis does not know the script, and not kept: most scripts are
/// loaded seldom or never.
pub(super) struct Script {
    row: &'static Row,
    namespace: Arc<str>,
    /// The keys that each call names: the registry of servers, from which a Redis Cluster computes the slot, and
    /// [`keys::ABSENT`], which keeps the script from beginning while the slot moves. The scripts build all other keys
    /// themselves.
    named_keys: Arc<[String; 2]>,
    /// The name by which Redis knows the script, made at the first call.
    hash: OnceLock<String>,
}

impl Script {
    /// The beginning of a call; the arguments follow.
    pub(super) fn call(&self) -> Cmd {
        let hash = self.hash.get_or_init(|| redis::Script::new(&self.text()).get_hash().to_owned());
        let mut command = redis::cmd("EVALSHA");
        command.arg(hash).arg(self.named_keys.len()).arg(&*self.named_keys);
        command
    }

    pub(super) fn text(&self) -> String {
        let files = LuaFiles::unpacked();
        self.row.text(&self.namespace, |file| files.text(file))
    }

    /// The rights that the user of Redis needs for this script.
    pub(super) fn rights(&self) -> Vec<Right> {
        rights_of_rows(std::iter::once(self.row), &self.namespace)
    }

    pub(super) fn access(&self) -> Access {
        self.row.access
    }

    /// Whether a call may be repeated after its reply was lost.
    pub(super) fn repeat(&self) -> Repeat {
        self.row.repeat
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

/// A row of the table of scripts.
struct Row {
    name: &'static str,
    /// The name of its file without `.lua`.
    file: &'static str,
    access: Access,
    repeat: Repeat,
    user: User,
}

const COMMON: &str = "common";
const LIMITS: &str = "limits";
const TIES: &str = "ties";
const PAGES: &str = "pages";
const AUDIT_COMMON: &str = "audit_common";
/// The function of Lua whose rights are checked when a call needs the function.
const LATE: &str = "limit_rules";
const REQUIRE_RIGHTS: &str = "require_rights";

/// Makes the fields of [`Scripts`], and the lists of scripts and files, of one table.
macro_rules! scripts {
    ($($name:ident: $file:literal, $access:ident, $repeat:ident, $user:ident;)*) => {
        /// All scripts of one namespace.
        pub(super) struct Scripts {
            $(pub(super) $name: Script,)*
        }

        impl Scripts {
            pub(super) fn new(namespace: &str) -> Scripts {
                let named_keys = [keys::SERVERS, keys::ABSENT].map(|name| keys::prefix(namespace) + name);
                let named_keys = Arc::new(named_keys);
                let namespace: Arc<str> = namespace.into();
                // In a loop: written out for each script, this would take 17 kB.
                let [$($name),*] = TABLE.each_ref().map(|row| {
                    let (namespace, named_keys) = (namespace.clone(), named_keys.clone());
                    Script { row, namespace, named_keys, hash: OnceLock::new() }
                });
                Scripts { $($name),* }
            }
        }

        /// The names of all scripts.
        pub const SCRIPT_NAMES: &[&str] = &[$(stringify!($name)),*];
        static TABLE: [Row; SCRIPT_NAMES.len()] = [$(Row {
            name: stringify!($name),
            file: $file,
            access: Access::$access,
            repeat: Repeat::$repeat,
            user: User::$user,
        }),*];
    };
}

// Name; file; what it does to Redis; whether a second call has the same effect as one; what it is needed for.
scripts! {
    enqueue: "enqueue", Add, Never, Jobs;
    enqueue_plain: "enqueue_plain", Add, Never, Jobs;
    start_jobs: "start_jobs", Write, Safe, Jobs;
    settle: "settle", Write, Safe, Jobs;
    report: "report", Add, Never, Jobs;
    // One file, so that a full Redis refuses reports and still extends leases.
    extend: "report", Write, Safe, Jobs;
    recover: "recover", Write, Never, Jobs;
    due: "due", Write, Safe, Jobs;
    fire: "fire", Write, Safe, Jobs;
    register: "register", Write, Never, Jobs;
    heartbeat: "heartbeat", Write, Safe, Jobs;
    reclaim: "reclaim", Write, Never, Jobs;
    define: "define", Write, Safe, Operators;
    schedules: "schedules", Read, Safe, Jobs;
    schedule_figures: "schedule_figures", Read, Safe, Operators;
    define_limit: "define_limit", Write, Safe, Operators;
    limits_list: "limits_list", Read, Safe, Operators;
    limit_show: "limit_show", Read, Safe, Operators;
    cancel: "cancel", Write, Never, Operators;
    change: "change", Write, Never, Operators;
    retry: "retry", Write, Never, Operators;
    delete: "delete", Write, Never, Operators;
    delete_old_jobs: "delete_old_jobs", Write, Safe, Operators;
    prune_names: "prune_names", Write, Safe, Operators;
    pause: "pause", Write, Safe, Operators;
    // One file, so that a server is ready exactly if Redis accepts submissions, and the doctor works on a full Redis too.
    readiness: "missing_rights", Add, Safe, RightsCheck;
    missing_rights: "missing_rights", Read, Safe, RightsCheck;
    get: "get", Read, Safe, Operators;
    job_log: "job_log", Read, Safe, Operators;
    note_pulls: "note_pulls", Write, Safe, Operators;
    secret: "secret", Write, Safe, Operators;
    pull_workers: "pull_workers", Read, Safe, Operators;
    statuses: "statuses", Read, Safe, Operators;
    list: "list", Read, Safe, Operators;
    list_queue: "list_queue", Read, Safe, Operators;
    why: "why", Read, Safe, Operators;
    select: "select", Read, Safe, Operators;
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

/// Panics unless a script has this name.
fn row(name: &str) -> &'static Row {
    TABLE.iter().find(|row| row.name == name).expect("the name is in the table of scripts")
}

/// The texts of all files of Lua, without comments.
struct LuaFiles(Files);

impl LuaFiles {
    fn unpacked() -> LuaFiles {
        LuaFiles(Files::unpacked(packed!("lua")))
    }

    /// The text of a file, by its name without `.lua`.
    fn text(&self, file: &str) -> String {
        self.0.text(&format!("{file}.lua")).expect("the file is packed").to_owned()
    }
}

/// Every file of Lua by its name without `.lua`, and its text: the scripts, and the parts that stand in front of them.
pub fn lua_files() -> impl Iterator<Item = (&'static str, String)> {
    let is_first = |i: usize| TABLE[..i].iter().all(|row| row.file != TABLE[i].file);
    let names = (0..TABLE.len()).filter(move |i| is_first(*i)).map(|i| TABLE[i].file);
    let files = LuaFiles::unpacked();
    let all = [COMMON, LIMITS, TIES, PAGES, AUDIT_COMMON, REQUIRE_RIGHTS].into_iter().chain(names);
    all.map(move |file| (file, files.text(file)))
}

/// The files of which a script is made.
pub fn files_of_script(name: &str) -> impl Iterator<Item = &'static str> {
    let row = row(name);
    row.common().into_iter().chain([REQUIRE_RIGHTS, row.file])
}

/// The text of a script as Redis runs it. Its second line is a comment with the script's name. `source` returns the
/// text of a file from its name and its built-in text: tests change it.
pub fn script_text(name: &str, namespace: &str, source: impl Fn(&'static str, String) -> String) -> String {
    let files = LuaFiles::unpacked();
    row(name).text(namespace, |file| source(file, files.text(file)))
}

impl Row {
    fn common(&self) -> [&'static str; 4] {
        [COMMON, LIMITS, TIES, if self.user == User::Doctor { AUDIT_COMMON } else { PAGES }]
    }

    /// The script with the functions that it calls, and with the names of keys as constants.
    fn linked(&self, source: impl Fn(&'static str) -> String) -> String {
        let common = self.common().map(&source);
        linker::link(&common.each_ref().map(String::as_str), &source(self.file))
    }

    fn text(&self, namespace: &str, source: impl Fn(&'static str) -> String) -> String {
        let flags = match self.access {
            Access::Read => "#!lua flags=no-writes",
            // Without this flag Redis refuses to start and to settle jobs too when it reaches its `maxmemory`.
            Access::Write => "#!lua flags=allow-oom",
            Access::Add => "#!lua",
        };
        let linked = self.linked(&source);
        // A script that only reads may stop anywhere.
        let (require_rights, late_checks) = match self.access {
            Access::Read => Default::default(),
            _ => {
                // The scripts with the access `Add` read first.
                let (checks, late_checks) =
                    rights::checks_in_lua(&linked, linker::part(&linked, LATE), self.access == Access::Add);
                let require_rights = [&*source(REQUIRE_RIGHTS)];
                let used = linker::link(&require_rights, &(checks + &late_checks));
                (used[..used.len() - late_checks.len()].to_owned(), late_checks)
            }
        };
        let linked = linked.replace("check_rights()", &late_checks);
        let body = linker::with_constants(&(require_rights + &linked), &keys::lua_constants(namespace));
        format!("{flags}\n-- {}\n{body}", self.name)
    }
}

/// The rights without which no job can be run.
pub(super) fn needed_rights(namespace: &str) -> Vec<Right> {
    rights_of(User::Jobs, namespace)
}

/// The rights for reading jobs, and for changing them on request.
pub(super) fn operator_rights(namespace: &str) -> Vec<Right> {
    rights_of(User::Operators, namespace)
}

/// The rights of the scripts that check all data, and with `repairs` also of those that repair the data.
pub(super) fn doctor_rights(namespace: &str, repairs: bool) -> Vec<Right> {
    let mut rights = rights_of(User::Doctor, namespace);
    if repairs {
        rights.extend(rights_of_rows(std::iter::once(row("reclaim")), namespace));
    } else {
        rights.retain(rights::is_read);
    }
    rights
}

fn rights_of(user: User, namespace: &str) -> Vec<Right> {
    rights_of_rows(TABLE.iter().filter(|row| row.user == user), namespace)
}

fn rights_of_rows(rows: impl Iterator<Item = &'static Row>, namespace: &str) -> Vec<Right> {
    let files = LuaFiles::unpacked();
    rows.flat_map(|row| rights::of_script(&row.linked(|file| files.text(file)), namespace)).collect()
}
