//! The job queue in Redis. `changes.rs` has the methods that change jobs, one atomic step each; `inspect.rs` the methods
//! that read jobs.
//!
//! The id of a job waits in a list. A server moves the id into its own list and starts the job under a fencing token,
//! which is new at every start. Redis settles an attempt only for the latest token. A server that sends no heartbeats is
//! declared dead: from then on Redis refuses its tokens, and another server takes over its list. Only Redis's clock
//! decides anything.

// Public only for tests and benches, so that an item whose name says everything needs no comment.
#![allow(missing_docs)]

mod attempts;
mod audit;
mod availability;
mod changes;
mod connect;
mod connection;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod inspect;
mod keys;
mod limits;
mod linker;
mod master;
mod options;
mod place;
mod pool;
mod record;
mod redis_info;
mod redis_report;
mod replies;
mod reply_value;
mod rights;
mod schedules;
mod scripts;
mod sentinel;
mod sentinel_watch;
mod tls;
mod types;

use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use redis::{Cmd, Value};

pub use audit::{Audit, FindingKind, Findings, RememberedServer, RepairPolicy};
pub use error::{Error, Refused, SettingsError, SubmitError};
pub use keys::PULL;
pub use limits::{LimitDeleted, LimitDetails, LimitKey, LimitPut, LimitRecord};
pub use place::report::PlaceReport;
pub use pool::BLOCK;
pub use redis_info::RedisInfo;
pub use redis_report::{Advice, RedisReport, Severity};
pub use schedules::{
    Defined, Fired, Ran, ScheduleChange, ScheduleDefinition, ScheduleRecord, Tick, TickOutcome, TickOverlap,
};
pub use scripts::{SCRIPT_NAMES, files_of_script, lua_files, script_text};
pub use types::{
    Answered, AttemptReport, Broken, ChangeResult, Changed, Claimed, Conflict, CrashedJob, DueStep, Expired,
    Filter, HeartbeatReply, Idempotency, JobLog, JobState, Lease, LimitRoom, LogLine, Minute, Page, Place,
    Position, PullRequest, PullWorker, Pulled, PulledJob, Quarantine, QueueInfo, Reclaimed, Reported,
    Selection, ServerFacts, ServerId, ServerInfo, Settings, Settled, SettledStep, Settlement, Share,
    Situation, Source, StartedJobs, Stats, Submitted, Turns, Verdict, Walk,
};

use crate::sorting;
use pool::{Access, Connections, Repeat};
use rights::Right;
use scripts::{Script, Scripts};

/// The job queue in one Redis under one namespace. All threads share it.
pub struct Queue {
    connections: Connections,
    scripts: Scripts,
    prefix: String,
    namespace: String,
    /// The user of Redis, if the URL names one.
    user: Option<String>,
    /// How many replicas must have a submission before it is acknowledged.
    replicas: u32,
    /// The rights without which no job can be run.
    needed_rights: Vec<Right>,
    /// The key of the attempt tokens, once it is known.
    secret: Mutex<Option<String>>,
}

impl Queue {
    /// Prepares the connections; each is made when it is first needed.
    pub fn new(settings: &Settings) -> Result<Queue, SettingsError> {
        let (place, user) = connect::place(&settings.url, &settings.certificates, &settings.namespace)?;
        let prefix = keys::prefix(&settings.namespace);
        let mut needed = scripts::needed_rights(&settings.namespace);
        needed.extend([
            ("SCRIPT|LOAD".to_owned(), prefix.clone()),
            ("BRPOPLPUSH".to_owned(), format!("{prefix}{}", keys::WORK)),
            ("LRANGE".to_owned(), format!("{prefix}{}", keys::IN_PROGRESS)),
            ("HGET".to_owned(), format!("{prefix}{}", keys::SERVERS)),
        ]);
        if settings.replicas > 0 {
            needed.push(("WAIT".to_owned(), prefix.clone()));
        }
        Ok(Queue {
            user,
            connections: Connections::new(place, settings.connections, settings.fetchers),
            scripts: Scripts::new(&settings.namespace),
            prefix,
            namespace: settings.namespace.clone(),
            replicas: settings.replicas,
            needed_rights: sorting::distinct(needed),
            secret: Mutex::default(),
        })
    }

    /// Whether Redis was unavailable at the last call.
    pub fn is_unavailable(&self) -> bool {
        self.connections.is_unavailable()
    }

    /// Why `redis-url` cannot lead to the server that answered last: a Sentinel or a node of a Cluster behind `redis://`.
    pub fn wrong_url(&self) -> Option<&'static str> {
        self.connections.place().wrong_url()
    }

    /// Whether Sentinels name the master, so that [`Queue::watch`] has something to do.
    pub fn has_sentinels(&self) -> bool {
        self.connections.place().sentinels().is_some()
    }

    /// Listens to the Sentinels until the other side of `end` is closed, so that no command goes to a master that was
    /// replaced.
    pub fn watch(&self, end: &UnixStream) {
        self.connections.watch(end);
    }

    /// How often another Redis took over since the start.
    pub fn failovers(&self) -> u64 {
        self.connections.failovers()
    }

    /// The error of a submission that need not be sent, since too few replicas have earlier ones. One submission at a time is
    /// to be sent all the same, and finds out whether enough replicas are back.
    pub fn too_few_replicas(&self) -> Option<Error> {
        let wanted = Some(self.replicas).filter(|wanted| *wanted > 0)?;
        let have = self.connections.too_few_replicas()?;
        Some(Error::NotReplicated { have, wanted, is_stored: false })
    }

    fn in_progress_key(&self, server: &ServerId) -> String {
        format!("{}{}{server}", self.prefix, keys::IN_PROGRESS)
    }

    fn run(&self, script: &Script, call: &Cmd) -> Result<Value, Error> {
        self.run_repeated(script, script.repeat(), call)
    }

    fn run_repeated(&self, script: &Script, repeat: Repeat, call: &Cmd) -> Result<Value, Error> {
        let reply = self.connections.run_script(script.access(), repeat, &|| script.text(), call);
        reply.map_err(|error| self.script_error(script, error))
    }

    /// Runs a script that stores jobs, and waits for replicas if the settings ask for replicas and the reply needs them.
    /// Returns the reply, and the error if too few replicas have what the script wrote.
    fn run_replicated(
        &self,
        script: &Script,
        call: &Cmd,
        need: fn(&Value) -> bool,
    ) -> Result<(Value, Option<Error>), Error> {
        if self.replicas == 0 {
            return self.run(script, call).map(|reply| (reply, None));
        }
        let kind = (script.access(), script.repeat());
        let reply = self.connections.run_replicated(kind, &|| script.text(), call, self.replicas, need);
        let (reply, have) = reply.map_err(|error| self.script_error(script, error))?;
        let too_few = Error::NotReplicated { have, wanted: self.replicas, is_stored: true };
        Ok((reply, (have < self.replicas).then_some(too_few)))
    }

    /// As [`Queue::explained`], also for a script that was stopped without the name of the denied command.
    fn script_error(&self, script: &Script, error: Error) -> Error {
        match error {
            // A script that reads first stops at a denied read, and then the error of Redis does not name the command.
            Error::Denied(text) if rights::of_error(&text).is_none() => {
                let missing = match self.missing_rights(&script.rights()) {
                    Ok(missing) => missing,
                    Err(error) => return error,
                };
                let reason = if missing.is_empty() { text } else { self.explain(&missing) };
                if script.access() != Access::Read {
                    self.connections.note_missing_rights(&reason);
                }
                Error::Denied(reason)
            }
            error => self.explained(error, script.access()),
        }
    }

    /// Adds to [`Error::Denied`] which right is missing and how to grant it.
    fn explained(&self, error: Error, access: Access) -> Error {
        match error {
            Error::Denied(text) => {
                let missing = rights::of_error(&text);
                // A missing right that no job needs, such as one for the figures of charts, does not make the server
                // unready. EVALSHA runs every script, but is not among the rights that a script can ask for.
                let is_needed = missing.as_ref().is_none_or(|(command, _)| {
                    let mut needed =
                        self.needed_rights.iter().map(|(needed, _)| needed.as_str()).chain(["EVALSHA"]);
                    command.is_empty() || needed.any(|needed| needed.eq_ignore_ascii_case(command))
                });
                let reason = missing.map_or(text, |right| self.explain(&[right]));
                if access != Access::Read && is_needed {
                    self.connections.note_missing_rights(&reason);
                }
                Error::Denied(reason)
            }
            error => error,
        }
    }

    /// Says which rights are missing and how to grant them.
    fn explain(&self, missing: &[Right]) -> String {
        rights::sentence(missing, self.user.as_deref(), &self.namespace)
    }
}
