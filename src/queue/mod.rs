//! The queue in Redis: every change of a job, one method and one atomic step each. Reads are in `inspect.rs`.
//!
//! The protocol in short: a server takes ids into a list of its own and starts them under a fencing token; whoever
//! settles an attempt must show that token; a server whose heartbeat stands still is declared dead, its list taken
//! over, and from then on its tokens are worth nothing. Only Redis's clock decides anything.

mod audit;
pub(crate) mod connect;
pub(crate) mod connection;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod health;
mod inspect;
mod keys;
pub(crate) mod pool;
mod record;
pub(crate) mod replies;
mod rights;
mod scripts;
mod tls;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use redis::{Cmd, Value};
use serde_json::value::RawValue;

use crate::job::{AttemptId, Job, JobId, NewJob, Start, Status};
use crate::net::authorities::Authorities;

use crate::queue::pool::{Access, Link, Repeat};
pub use audit::{Audit, FindingKind, Findings, RememberedServer, RepairPolicy};
pub use error::{Error, Refused, SettingsError, SubmitError};
pub use health::{Advice, Health, Severity};
pub use inspect::{Filter, Minute, Page, Position, QueueInfo, RedisInfo, ServerInfo, Stats};
use scripts::{Atomic, Scripts};

/// How long a fetcher's BRPOPLPUSH waits: short enough to notice a lost connection soon, long enough to cost nothing.
pub const BLOCK: Duration = Duration::from_secs(2);
/// How long an Idempotency-Key is remembered.
const IDEMPOTENCY_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long a dead server's list is watched for what a late command may still move into it.
const DEAD_REMEMBERED: Duration = Duration::from_secs(3600);
/// How many entries one step of the reaper, scheduler or janitor works on, so that none holds up Redis.
const STEP: u32 = 200;
/// How many parked jobs are looked at to find out whether one of them is of a queue: 1 to 2 ms.
const PARKED_LOOK: u32 = 2_000;
/// How long the figures of a minute are kept.
const HISTORY_LIFE: Duration = Duration::from_secs(2 * 3600);
/// How long servers tell what their workers do after somebody has looked.
const WATCHED_LIFE: Duration = Duration::from_secs(10);
/// How long it is held to be true: a little longer than the longest time between two beats.
const ACTIVITY_LIFE: Duration = Duration::from_secs(4);

/// Where Redis is and how it is used. No `Debug`: the URL may hold a password.
#[derive(Clone)]
pub struct Settings {
    /// `redis://`, `redis+unix://`, or with the feature `tls` `rediss://`.
    pub url: String,
    /// For `rediss://`: the authorities of which one must have signed the server's certificate. `None`: those that the web
    /// trusts.
    pub ca: Option<Authorities>,
    /// Goes in front of every key.
    pub namespace: String,
    /// How many commands run at a time, besides the fetchers' blocking ones.
    pub connections: u32,
    /// How many fetchers block at a time.
    pub fetchers: u32,
}

/// The name of a running server, new at every start: `host-pid-random`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ServerId(String);

impl ServerId {
    /// A name that no server had before.
    pub fn generate() -> ServerId {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let host: String =
            host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')).collect();
        ServerId(format!("{host}-{}-{:08x}", std::process::id(), fastrand::u32(..)))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes a repeated submission safe.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// The client's key.
    pub key: String,
    /// Tells the request from another one with the same key. Without white space.
    pub fingerprint: String,
}

/// A submission that was accepted. Its ids are `first`, `first + 1`, and so on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Submitted {
    /// The id of the first job.
    pub first: JobId,
    /// How many jobs there are.
    pub count: u64,
    /// What the first job waits for: its time, or a worker.
    pub status: Status,
    /// Until the earliest of them is due, if any waits for its time.
    pub due_in: Option<Duration>,
    /// Whether this is the answer to an earlier request with the same Idempotency-Key.
    pub replayed: bool,
}

impl Submitted {
    /// The ids, in the order of submission.
    pub fn ids(&self) -> impl Iterator<Item = JobId> {
        let first = self.first.get();
        (first..first + self.count).filter_map(JobId::new)
    }
}

/// The right to settle one attempt. Whoever has it settles it once: it is not `Clone`, and settling takes it.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a lease that is dropped leaves its job in progress"]
pub struct Lease {
    id: JobId,
    token: u64,
}

impl Lease {
    /// The job's id.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// The attempt that it is for.
    pub fn attempt_id(&self) -> AttemptId {
        AttemptId { job: self.id, start: self.token }
    }

    #[cfg(test)]
    pub(crate) fn for_tests(attempt: AttemptId) -> Lease {
        Lease { id: attempt.job, token: attempt.start }
    }
}

/// How an attempt is settled.
#[derive(Debug)]
pub enum Verdict {
    /// The result.
    Complete(Box<RawValue>),
    /// The error, and how long to wait for the next attempt. The dead letter queue if it was the last.
    Retry(String, Duration),
    /// The error; straight to the dead letter queue.
    Fail(String),
    /// Back to the front of the queue, nothing charged.
    Release,
}

/// An attempt with its verdict.
#[derive(Debug)]
pub struct Settlement {
    /// The right to settle it.
    pub lease: Lease,
    /// How.
    pub verdict: Verdict,
}

/// What a settlement came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// The job's status now.
    Now(Status),
    /// It had been settled before: the answer to that was lost.
    Repeated,
    /// The job is someone else's by now; nothing was changed.
    Stale,
}

/// A queue to take from, and how many of a take's jobs should come from it.
#[derive(Clone, Debug)]
pub struct Share {
    /// The queue.
    pub queue: String,
    /// At first; what is left over is filled up from any queue, in the order of the shares.
    pub jobs: usize,
}

/// What a call of [`Queue::start_jobs`] does about quarantined jobs: those whose next crash is the last one allowed, each of
/// which runs alone on a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quarantine {
    /// It starts none: the other jobs come first now and then, or they would wait for ever.
    Skip,
    /// It starts none, since jobs run on this server. It may reserve this server for them, which then has to drain.
    Reserve,
    /// It starts one, if one waits, and then nothing else. Nothing may run on this server.
    Start,
}

/// An id that BRPOPLPUSH has moved into this server's list.
#[derive(Debug)]
pub struct Claimed {
    /// As it stood in the list; not checked, perhaps not even text.
    pub entry: Vec<u8>,
    /// From this queue.
    pub queue: String,
}

/// A job that was started though its record cannot be read.
#[derive(Debug)]
pub struct Broken {
    /// The right to fail it.
    pub lease: Lease,
    /// What could be read of it; a type that could not is `unknown`.
    pub job: Job,
    /// What could not be read.
    pub reason: String,
}

/// What a take came to.
#[derive(Debug, Default)]
pub struct StartedJobs {
    /// Started: each is to be run and settled.
    pub jobs: Vec<(Lease, Job)>,
    /// Started, but unreadable: to be failed.
    pub broken: Vec<Broken>,
    /// All paused queues.
    pub paused: Vec<String>,
    /// There may be more than what was taken: there were many entries without a job, or large jobs, for one step.
    pub has_more: bool,
    /// Redis's time of the start in ms since 1970.
    pub now_ms: u64,
    /// Quarantined jobs wait and this server is reserved for them: it must start nothing else until it runs no job.
    pub must_drain: bool,
}

/// What a heartbeat brings back.
#[derive(Debug)]
pub struct HeartbeatReply {
    /// How many jobs Redis holds to be in progress here.
    pub in_progress: usize,
    /// Running jobs that someone wants stopped.
    pub cancels: Vec<JobId>,
    /// The beats of all servers, and the dead ones that still have jobs.
    pub servers: Vec<(String, String)>,
    /// Somebody looks at what workers do.
    pub is_watched: bool,
    /// Quarantined jobs wait in this server's queues. They wake no fetcher, since BRPOPLPUSH does not see them.
    pub quarantine_waits: bool,
    /// Until the next parked job is due, if there is one.
    pub due_in: Option<Duration>,
}

/// What taking over a dead server came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reclaimed {
    /// Jobs that went back to their queue or ended.
    pub moved: usize,
    /// Of these, charged with the crash.
    pub crashed: Vec<CrashedJob>,
}

/// A job that was held to be the reason why its server died.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CrashedJob {
    /// The job.
    pub id: JobId,
    /// Its type.
    pub job_type: String,
    /// The attempt that was cut off, from 1.
    pub attempt: u32,
    /// How often this has happened to it by now.
    pub crashes: u32,
    /// That was too often: it was moved to the dead letter queue.
    pub has_failed: bool,
}

/// What cancelling came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cancelled {
    /// It waited, and is cancelled now.
    Done,
    /// It runs on this server, which will be told.
    Requested(String),
    /// It had ended.
    AlreadyFinal,
    /// There is no such job.
    Missing,
}

/// What sending back or deleting one job came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Changed {
    /// Done.
    Done,
    /// Its status does not allow it.
    WrongStatus,
    /// This live job holds its unique key.
    Duplicate(JobId),
    /// There is no such job.
    Missing,
}

/// The queue in one Redis, under one namespace. Shared by all threads.
pub struct Queue {
    link: Link,
    scripts: Scripts,
    prefix: String,
    namespace: String,
    user: Option<String>,
    /// What the user of Redis must be allowed to do, as the arguments of the script that asks.
    needed_rights: Vec<String>,
}

impl Queue {
    /// Prepares the connections; the first one is made when it is needed.
    pub fn new(settings: &Settings) -> Result<Queue, SettingsError> {
        let target = crate::queue::connect::target(&settings.url, settings.ca.as_ref())?;
        let prefix = keys::prefix(&settings.namespace);
        let scripts = Scripts::new(&settings.namespace);
        let mut needed: BTreeSet<_> = scripts.needed_rights().into_iter().collect();
        needed.extend([
            ("SCRIPT|LOAD".to_owned(), prefix.clone()),
            ("BRPOPLPUSH".to_owned(), format!("{prefix}{}", keys::WORK)),
            ("LRANGE".to_owned(), format!("{prefix}{}", keys::IN_PROGRESS)),
            ("HGET".to_owned(), format!("{prefix}{}", keys::SERVERS)),
        ]);
        Ok(Queue {
            user: target.user.clone(),
            link: Link::new(target, settings.connections, settings.fetchers, BLOCK),
            scripts,
            prefix,
            namespace: settings.namespace.clone(),
            needed_rights: needed.into_iter().flat_map(|(command, key)| [command, key]).collect(),
        })
    }

    /// Whether Redis could not be reached when it was last tried.
    pub fn is_away(&self) -> bool {
        self.link.is_away()
    }

    /// Stores the jobs of each submission, all or none of each, as if they came one after the other.
    ///
    /// # Errors
    /// [`Error::Full`] where Redis is full; [`Error::Unavailable`] leaves open which were stored.
    pub fn submit_all(
        &self,
        submissions: &[(&[NewJob], Option<&Idempotency>)],
        max_queue_length: u64,
    ) -> Result<Vec<Result<Submitted, Refused>>, Error> {
        let mut call = self.scripts.enqueue.call();
        call.arg(max_queue_length).arg(IDEMPOTENCY_LIFE.as_millis() as u64);
        for (jobs, idempotency) in submissions {
            call.arg(jobs.len());
            match idempotency {
                Some(request) => call.arg(&request.key).arg(&request.fingerprint),
                None => call.arg("").arg(""),
            };
            jobs.iter().for_each(|job| add_job(&mut call, job));
        }
        let sizes = submissions.iter().map(|(jobs, _)| jobs.len());
        crate::queue::replies::submitted(self.run(&self.scripts.enqueue, &call)?, sizes)
    }

    /// Stores new jobs, all or none.
    ///
    /// # Errors
    /// As of [`Queue::submit_all`].
    pub fn submit(
        &self,
        jobs: &[NewJob],
        idempotency: Option<&Idempotency>,
        max_queue_length: u64,
    ) -> Result<Submitted, SubmitError> {
        let mut outcomes = self.submit_all(&[(jobs, idempotency)], max_queue_length)?;
        let outcome = outcomes.pop();
        Ok(outcome.ok_or_else(|| Error::Protocol("no answer to a submission".to_owned()))??)
    }

    /// Waits up to [`BLOCK`] for a job in an empty queue and moves it into this server's list. It is not started.
    ///
    /// # Errors
    /// [`Error::Full`] where Redis is full: BRPOPLPUSH is refused then, [`Queue::start_jobs`] is not.
    pub fn wait_for_job(&self, server: &ServerId, queue: &str) -> Result<Option<Claimed>, Error> {
        let mut command = redis::cmd("BRPOPLPUSH");
        command
            .arg(format!("{}{}{queue}", self.prefix, keys::WORK))
            .arg(self.in_progress(server))
            .arg(BLOCK.as_secs());
        match self.explained(self.link.query_blocking(&command), Access::Add)? {
            Value::Nil => Ok(None),
            entry => Ok(Some(Claimed { entry: record::bytes(entry)?, queue: queue.to_owned() })),
        }
    }

    /// Frees all fetchers of this process from [`Queue::wait_for_job`].
    pub fn unblock_fetchers(&self) {
        self.link.unblock();
    }

    /// Takes and starts up to as many jobs as the shares say; the claimed one comes first.
    ///
    /// # Errors
    /// [`Error::Fenced`] where this server is not registered.
    pub fn start_jobs(
        &self,
        server: &ServerId,
        shares: &[Share],
        quarantine: Quarantine,
        max_crashes: u32,
        claimed: Option<&Claimed>,
    ) -> Result<StartedJobs, Error> {
        let mut call = self.scripts.start_jobs.call();
        call.arg(server.as_str());
        call.arg(match quarantine {
            Quarantine::Skip => "skip",
            Quarantine::Reserve => "reserve",
            Quarantine::Start => "start",
        });
        call.arg(max_crashes);
        match claimed {
            Some(claimed) => call.arg(&claimed.entry).arg(&claimed.queue),
            None => call.arg("").arg(""),
        };
        for share in shares {
            call.arg(&share.queue).arg(share.jobs);
        }
        crate::queue::replies::started_jobs(self.run(&self.scripts.start_jobs, &call)?, server)
    }

    /// Settles attempts, each by itself, in their order. Sending the same again after a lost answer is harmless.
    ///
    /// # Errors
    /// [`Error::Unavailable`] leaves open which were settled.
    pub fn settle(&self, server: &ServerId, settlements: &[Settlement]) -> Result<Vec<Settled>, Error> {
        let mut call = self.scripts.settle.call();
        call.arg(server.as_str());
        for Settlement { lease, verdict } in settlements {
            call.arg(lease.id.get()).arg(lease.token);
            match verdict {
                Verdict::Complete(result) => call.arg("complete").arg(result.get()).arg(0),
                Verdict::Retry(error, delay) => {
                    call.arg("retry").arg(record::error_text(error)).arg(delay.as_millis() as u64)
                }
                Verdict::Fail(error) => call.arg("fail").arg(record::error_text(error)).arg(0),
                Verdict::Release => call.arg("release").arg("").arg(0),
            };
        }
        crate::queue::replies::settled(self.run(&self.scripts.settle, &call)?)
    }

    /// Settles a failed attempt and starts the next one under the same lease, for a backoff that is slept by the worker.
    /// Anything but `Now(Processing)` ends the lease. While the queue is paused the job is parked for `delay` instead: after
    /// that it waits in the queue.
    ///
    /// # Errors
    /// [`Error::Unavailable`] leaves open whether it was done.
    pub fn retry_inline(
        &self,
        server: &ServerId,
        lease: &mut Lease,
        error: &str,
        delay: Duration,
    ) -> Result<Settled, Error> {
        let mut call = self.scripts.settle.call();
        call.arg(server.as_str()).arg(lease.id.get()).arg(lease.token);
        call.arg("retry_inline").arg(record::error_text(error)).arg(delay.as_millis() as u64);
        // Unlike the others: what was done is refused the second time, since the lease has a new token by then.
        let Atomic { script, access, .. } = &self.scripts.settle;
        let answer = self.link.run_script(*access, Repeat::Never, script, &call);
        let settled = crate::queue::replies::settled(self.explained(answer, *access)?)?;
        let settled = settled.first().copied().unwrap_or(Settled::Stale);
        if settled == Settled::Now(Status::Processing) {
            lease.token += 1;
        }
        Ok(settled)
    }

    /// The entries of this server's list, newest first: what Redis holds to be in progress here.
    pub fn in_progress_here(&self, server: &ServerId) -> Result<Vec<Vec<u8>>, Error> {
        let mut command = redis::cmd("LRANGE");
        command.arg(self.in_progress(server)).arg(0).arg(-1);
        record::array(self.link.query(&command)?)?.into_iter().map(record::bytes).collect()
    }

    /// Puts entries of this server's list, which it does not know of, back to the front of their queues. Newest first.
    /// How many went back.
    pub fn recover(&self, server: &ServerId, entries: &[Vec<u8>]) -> Result<usize, Error> {
        let mut call = self.scripts.recover.call();
        call.arg(server.as_str()).arg(entries);
        record::count(&self.run(&self.scripts.recover, &call)?)
    }

    /// Moves due jobs into their queues. How many, and how long until the next one is due.
    pub fn promote(&self) -> Result<(usize, Option<Duration>), Error> {
        let mut call = self.scripts.promote.call();
        call.arg(STEP);
        crate::queue::replies::promoted(self.run(&self.scripts.promote, &call)?)
    }

    /// Enters a new server, with how many workers it has and the queues that it takes from.
    pub fn register(&self, server: &ServerId, workers: usize, queues: &[String]) -> Result<(), Error> {
        let mut call = self.scripts.register.call();
        call.arg(server.as_str()).arg(workers).arg(queues);
        self.run(&self.scripts.register, &call).map(|_| ())
    }

    /// Whether a server is entered and was not declared dead.
    pub fn is_registered(&self, server: &ServerId) -> Result<bool, Error> {
        let mut command = redis::cmd("HGET");
        command.arg(format!("{}{}", self.prefix, keys::SERVERS)).arg(server.as_str());
        let beat: Option<String> = self.link.query(&command)?;
        Ok(beat.is_some_and(|beat| !beat.starts_with('D')))
    }

    /// Says that this server, which takes from these queues, lives, and brings back what it should know.
    pub fn heartbeat(
        &self,
        server: &ServerId,
        busy: usize,
        workers: usize,
        queues: &[String],
    ) -> Result<HeartbeatReply, Error> {
        let mut call = self.scripts.heartbeat.call();
        call.arg(server.as_str()).arg(busy).arg(workers).arg(DEAD_REMEMBERED.as_millis() as u64);
        call.arg(queues);
        crate::queue::replies::heartbeat(self.run(&self.scripts.heartbeat, &call)?)
    }

    /// Declares a server dead whose beat still is what was observed, and takes over what it had in progress.
    /// `None` where it has beaten after all.
    pub fn reclaim(
        &self,
        server: &str,
        observed: &str,
        max_crashes: u32,
    ) -> Result<Option<Reclaimed>, Error> {
        self.reclaim_until(server, observed, max_crashes, || false)
    }

    /// As [`Queue::reclaim`], but ends early once `ends` says so: whoever takes it over next goes on from there.
    pub fn reclaim_until(
        &self,
        server: &str,
        observed: &str,
        max_crashes: u32,
        ends: impl Fn() -> bool,
    ) -> Result<Option<Reclaimed>, Error> {
        self.take_over(server, observed, max_crashes, "crash", ends)
    }

    /// The orderly end of a server: what it has left goes back to the queue, nothing charged.
    pub fn leave(&self, server: &ServerId) -> Result<Option<Reclaimed>, Error> {
        self.take_over(server.as_str(), "", 1, "leave", || false)
    }

    fn take_over(
        &self,
        server: &str,
        observed: &str,
        max_crashes: u32,
        mode: &str,
        ends: impl Fn() -> bool,
    ) -> Result<Option<Reclaimed>, Error> {
        let mut total = Reclaimed::default();
        let mut observed = observed.to_owned();
        loop {
            let mut call = self.scripts.reclaim.call();
            call.arg(server).arg(&observed).arg(max_crashes).arg(mode).arg(STEP);
            let Some(step) = crate::queue::replies::reclaimed(self.run(&self.scripts.reclaim, &call)?)?
            else {
                return Ok(None);
            };
            total.moved += step.done.moved;
            total.crashed.extend(step.done.crashed);
            if step.left == 0 || ends() {
                return Ok(Some(total));
            }
            observed = step.beat;
        }
    }

    /// Stops a job that waits, or asks its server to stop it.
    pub fn cancel(&self, id: JobId) -> Result<Cancelled, Error> {
        let mut call = self.scripts.cancel.call();
        call.arg(id.get());
        crate::queue::replies::cancelled(self.run(&self.scripts.cancel, &call)?)
    }

    /// Sends failed or cancelled jobs back to their queues as new, each by itself; with `wanted` only those of this status.
    pub fn retry(&self, ids: &[JobId], wanted: Option<Status>) -> Result<Vec<Changed>, Error> {
        self.change(&self.scripts.retry, ids, wanted)
    }

    /// Forgets jobs that are completed, failed or cancelled, each by itself; with `wanted` only those of this status.
    pub fn delete(&self, ids: &[JobId], wanted: Option<Status>) -> Result<Vec<Changed>, Error> {
        self.change(&self.scripts.delete, ids, wanted)
    }

    fn change(&self, script: &Atomic, ids: &[JobId], wanted: Option<Status>) -> Result<Vec<Changed>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = script.call();
        call.arg(wanted.map_or("", Status::as_str));
        for id in ids {
            call.arg(id.get());
        }
        crate::queue::replies::changed(self.run(script, &call)?)
    }

    /// Forgets finished jobs that are too old or too many: one step of it. Whether there may be more.
    pub fn expire_jobs(&self, failed: bool, keep_for: Duration, keep: u64) -> Result<bool, Error> {
        let mut call = self.scripts.expire_jobs.call();
        call.arg(if failed { "failed" } else { "done" }).arg(keep_for.as_millis() as u64).arg(keep).arg(STEP);
        Ok(record::int(&self.run(&self.scripts.expire_jobs, &call)?)? > 0)
    }

    /// Forgets the names of empty queues: one step of it. Where the next step goes on; `None` at the end.
    pub fn prune_queues(&self, from: Option<String>) -> Result<Option<String>, Error> {
        let mut call = self.scripts.prune_queues.call();
        call.arg(from.as_deref().unwrap_or("0"));
        let next = record::text(&self.run(&self.scripts.prune_queues, &call)?)?;
        Ok(Some(next).filter(|next| next != "0"))
    }

    /// Lets no job of a queue start, or lets them start again. Gives whether the queue has a job that has not ended; of
    /// many parked jobs only some are looked at, and then the answer is that it may have one: `true`.
    pub fn set_paused(&self, queue: &str, paused: bool) -> Result<bool, Error> {
        let mut call = self.scripts.pause.call();
        call.arg(queue).arg(u8::from(paused)).arg(PARKED_LOOK);
        Ok(record::int(&self.run(&self.scripts.pause, &call)?)? == 1)
    }

    /// Whether the jobs of a queue are held back.
    pub fn is_paused(&self, queue: &str) -> Result<bool, Error> {
        let mut command = redis::cmd("SISMEMBER");
        command.arg(format!("{}{}", self.prefix, keys::PAUSED)).arg(queue);
        self.link.query(&command)
    }

    /// Adds to the figures of this minute, for charts.
    pub fn add_history(&self, figures: &[(String, u64)]) -> Result<(), Error> {
        let mut call = self.scripts.add_history.call();
        call.arg(HISTORY_LIFE.as_secs());
        for (name, number) in figures {
            call.arg(name).arg(number);
        }
        self.run(&self.scripts.add_history, &call).map(|_| ())
    }

    /// Tells what this server's workers do, while somebody looks.
    pub fn report_activity(&self, server: &ServerId, activity: &str) -> Result<(), Error> {
        let mut call = self.scripts.report_activity.call();
        call.arg(server.as_str()).arg(activity).arg(ACTIVITY_LIFE.as_millis() as u64);
        self.run(&self.scripts.report_activity, &call).map(|_| ())
    }

    fn in_progress(&self, server: &ServerId) -> String {
        format!("{}{}{server}", self.prefix, keys::IN_PROGRESS)
    }

    fn run(&self, script: &Atomic, call: &Cmd) -> Result<Value, Error> {
        self.explained(
            self.link.run_script(script.access, script.repeat, &script.script, call),
            script.access,
        )
    }

    /// Says with a refusal what would grant the right that is lacking.
    fn explained<T>(&self, answer: Result<T, Error>, access: Access) -> Result<T, Error> {
        answer.map_err(|error| match error {
            Error::Denied(text) => {
                let lacking = rights::of_error(&text);
                // Jobs run without the right to expire the figures of the charts, say: the server is ready all the same.
                // EVALSHA, which calls every script, is not among the rights that a script can ask for.
                let is_needed = lacking.as_ref().is_none_or(|(command, _)| {
                    let mut needed = self.needed_rights.iter().map(String::as_str).chain(["EVALSHA"]);
                    command.is_empty() || needed.any(|word| word.eq_ignore_ascii_case(command))
                });
                let reason = lacking.map_or(text, |right| self.lack(&[right]));
                if access != Access::Read && is_needed {
                    self.link.note_lack(&reason);
                }
                Error::Denied(reason)
            }
            error => error,
        })
    }

    fn lack(&self, rights: &[rights::Right]) -> String {
        rights::sentence(rights, self.user.as_deref(), &self.namespace)
    }
}

fn first(values: &[Value]) -> Result<&Value, Error> {
    values.first().ok_or_else(|| Error::Protocol("an empty answer".to_owned()))
}

fn add_job(call: &mut Cmd, job: &NewJob) {
    call.arg(&job.queue);
    match job.start {
        Start::Now => call.arg("").arg(""),
        Start::AfterMs(ms) => call.arg(ms).arg(""),
        Start::AtMs(ms) => call.arg("").arg(ms),
    };
    call.arg(&job.job_type)
        .arg(job.payload.get())
        .arg(job.max_attempts)
        .arg(job.timeout.as_millis() as u64)
        .arg(job.unique_key.as_deref().unwrap_or(""));
}
