//! The Lua scripts: every change of a job that touches more than one key is one of them.

use redis::{Cmd, Script};

use super::keys;
use super::rights::{self, Right};
use crate::queue::pool::{Access, Repeat};

/// One script, ready to be called.
pub(super) struct Atomic {
    pub(super) script: Script,
    pub(super) access: Access,
    /// What it may be if its answer was lost.
    pub(super) repeat: Repeat,
    /// What the user of Redis must be allowed to do for it.
    pub(super) rights: Vec<Right>,
    /// Names the slot to a Redis Cluster; the scripts know all keys themselves.
    slot: String,
}

impl Atomic {
    /// The beginning of a call; the arguments follow.
    pub(super) fn call(&self) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.script.get_hash()).arg(1).arg(&self.slot);
        command
    }
}

/// All scripts of one namespace.
pub(super) struct Scripts {
    pub(super) enqueue: Atomic,
    pub(super) start_jobs: Atomic,
    pub(super) settle: Atomic,
    pub(super) recover: Atomic,
    pub(super) promote: Atomic,
    pub(super) register: Atomic,
    pub(super) heartbeat: Atomic,
    pub(super) reclaim: Atomic,
    pub(super) cancel: Atomic,
    pub(super) retry: Atomic,
    pub(super) delete: Atomic,
    pub(super) expire_jobs: Atomic,
    pub(super) prune_queues: Atomic,
    pub(super) pause: Atomic,
    pub(super) ready: Atomic,
    pub(super) get: Atomic,
    pub(super) statuses: Atomic,
    pub(super) list: Atomic,
    pub(super) dead_ids: Atomic,
    pub(super) queues: Atomic,
    pub(super) stats: Atomic,
    pub(super) add_history: Atomic,
    pub(super) history: Atomic,
    pub(super) workers: Atomic,
    pub(super) report_activity: Atomic,
    pub(super) audit_jobs: Atomic,
    pub(super) audit_record: Atomic,
    pub(super) audit_list: Atomic,
    pub(super) audit_set: Atomic,
    pub(super) audit_servers: Atomic,
    pub(super) recheck: Atomic,
    pub(super) repair: Atomic,
}

/// At its `maxmemory` Redis refuses even to take or to settle a job, unless a script says that it may.
const ALWAYS: &str = "#!lua flags=allow-oom";
const NOT_WHEN_FULL: &str = "#!lua";
const READ_ONLY: &str = "#!lua flags=no-writes";

impl Scripts {
    pub(super) fn new(namespace: &str) -> Scripts {
        let keys = keys::as_lua(namespace);
        let slot = keys::prefix(namespace) + keys::SERVERS;
        let script = |flags: &str, body: &str| {
            let common = include_str!("lua/common.lua");
            let access = match flags {
                READ_ONLY => Access::Read,
                NOT_WHEN_FULL => Access::Add,
                _ => Access::Write,
            };
            let rights = rights::of_script(common, body, namespace);
            // What changes nothing may stop anywhere.
            let permit = match access {
                Access::Read => String::new(),
                _ => include_str!("lua/permit.lua").to_owned() + &rights::check_in_lua(&rights),
            };
            let script = Script::new(&format!("{flags}\n{keys}{common}{permit}{body}"));
            let repeat = if access == Access::Read { Repeat::Safe } else { Repeat::Never };
            Atomic { script, access, repeat, rights, slot: slot.clone() }
        };
        // What does the same a second time, or nothing.
        let repeatable = |flags: &str, body: &str| Atomic { repeat: Repeat::Safe, ..script(flags, body) };
        let doctors = |flags: &str, body: &str| {
            script(flags, &format!("{}{body}", include_str!("lua/audit_common.lua")))
        };
        Scripts {
            enqueue: script(NOT_WHEN_FULL, include_str!("lua/enqueue.lua")),
            start_jobs: repeatable(ALWAYS, include_str!("lua/start_jobs.lua")),
            settle: repeatable(ALWAYS, include_str!("lua/settle.lua")),
            recover: script(ALWAYS, include_str!("lua/recover.lua")),
            promote: repeatable(ALWAYS, include_str!("lua/promote.lua")),
            register: script(ALWAYS, include_str!("lua/register.lua")),
            heartbeat: repeatable(ALWAYS, include_str!("lua/heartbeat.lua")),
            reclaim: script(ALWAYS, include_str!("lua/reclaim.lua")),
            cancel: script(ALWAYS, include_str!("lua/cancel.lua")),
            retry: script(ALWAYS, include_str!("lua/retry.lua")),
            delete: script(ALWAYS, include_str!("lua/delete.lua")),
            expire_jobs: repeatable(ALWAYS, include_str!("lua/expire_jobs.lua")),
            prune_queues: repeatable(ALWAYS, include_str!("lua/prune_queues.lua")),
            pause: repeatable(ALWAYS, include_str!("lua/pause.lua")),
            ready: repeatable(NOT_WHEN_FULL, include_str!("lua/ready.lua")),
            get: script(READ_ONLY, include_str!("lua/get.lua")),
            statuses: script(READ_ONLY, include_str!("lua/statuses.lua")),
            list: script(READ_ONLY, include_str!("lua/list.lua")),
            dead_ids: script(READ_ONLY, include_str!("lua/dead_ids.lua")),
            queues: script(READ_ONLY, include_str!("lua/queues.lua")),
            stats: script(READ_ONLY, include_str!("lua/stats.lua")),
            add_history: script(ALWAYS, include_str!("lua/add_history.lua")),
            history: script(READ_ONLY, include_str!("lua/history.lua")),
            workers: repeatable(ALWAYS, include_str!("lua/workers.lua")),
            report_activity: repeatable(ALWAYS, include_str!("lua/report_activity.lua")),
            audit_jobs: doctors(READ_ONLY, include_str!("lua/audit_jobs.lua")),
            audit_record: doctors(READ_ONLY, include_str!("lua/audit_record.lua")),
            audit_list: doctors(READ_ONLY, include_str!("lua/audit_list.lua")),
            audit_set: doctors(READ_ONLY, include_str!("lua/audit_set.lua")),
            audit_servers: doctors(READ_ONLY, include_str!("lua/audit_servers.lua")),
            // The same twice, so that whatever is mended is judged as it was when it was reported.
            recheck: doctors(READ_ONLY, include_str!("lua/repair.lua")),
            repair: doctors(ALWAYS, include_str!("lua/repair.lua")),
        }
    }
    /// What the user of Redis must be allowed to do for a job's whole way: to be submitted, taken and settled, by a server
    /// that registers and beats.
    pub(super) fn needed_rights(&self) -> Vec<Right> {
        let scripts = [
            &self.enqueue,
            &self.start_jobs,
            &self.settle,
            &self.promote,
            &self.recover,
            &self.register,
            &self.heartbeat,
            &self.reclaim,
        ];
        scripts.iter().flat_map(|script| script.rights.iter().cloned()).collect()
    }

    /// The same for what people do with jobs besides, and for looking at them.
    pub(super) fn further_rights(&self) -> Vec<Right> {
        let scripts = [
            &self.cancel,
            &self.retry,
            &self.delete,
            &self.expire_jobs,
            &self.prune_queues,
            &self.pause,
            &self.get,
            &self.statuses,
            &self.list,
            &self.dead_ids,
            &self.queues,
            &self.stats,
            &self.add_history,
            &self.history,
            &self.workers,
            &self.report_activity,
        ];
        scripts.iter().flat_map(|script| script.rights.iter().cloned()).collect()
    }
}
