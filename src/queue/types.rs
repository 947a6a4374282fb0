//! Plain data that the queue takes and returns.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::job::limit::{LimitName, LimitNumbers};
use crate::job::{AttemptId, Job, JobId, Report, Status};
use crate::net::certificates::Certificates;

/// How to connect to Redis. No `Debug`: the URL may hold a password.
#[derive(Clone)]
pub struct Settings {
    /// Any form of `redis-url`.
    pub url: String,
    /// For a `rediss://` server.
    pub certificates: Certificates,
    /// The prefix of every key.
    pub namespace: String,
    /// The most other commands that run at a time.
    pub connections: u32,
    /// The most blocking commands of fetchers that run at a time.
    pub fetchers: u32,
    /// How many replicas must have a submission before it is acknowledged.
    pub replicas: u32,
}

impl Settings {
    /// Two connections, one of them for a fetcher, to the Redis at this URL, without TLS settings and without replicas that
    /// must have a submission.
    pub fn new(url: impl Into<String>, namespace: impl Into<String>) -> Settings {
        Settings {
            url: url.into(),
            certificates: Certificates::default(),
            namespace: namespace.into(),
            connections: 1,
            fetchers: 1,
            replicas: 0,
        }
    }
}

/// The name of a running server, new at every start: `host-pid-random`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ServerId(String);

impl ServerId {
    /// A new name. Its random part makes it unique among servers of one host.
    pub fn generate() -> ServerId {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let host: String =
            host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')).collect();
        ServerId(format!("{host}-{}-{:08x}", std::process::id(), fastrand::u32(..)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn for_tests(name: &str) -> ServerId {
        ServerId(name.to_owned())
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a server tells of itself when it registers.
#[derive(Clone, Debug, Default)]
pub struct ServerFacts {
    pub workers: usize,
    /// The queues from which the server takes jobs.
    pub queues: Vec<String>,
    /// The strict queues among them.
    pub strict: Vec<String>,
    /// The names of the schedules in the server's file.
    pub schedules: Vec<String>,
    /// The limits in the server's file.
    pub limits: Vec<(LimitName, LimitNumbers)>,
}

impl ServerFacts {
    /// A server without strict queues and schedules.
    pub fn new(workers: usize, queues: &[&str]) -> ServerFacts {
        let queues = queues.iter().map(|queue| (*queue).to_owned()).collect();
        ServerFacts { workers, queues, ..ServerFacts::default() }
    }
}

/// The data by which Redis recognises a repeated submission.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// The client's Idempotency-Key.
    pub key: String,
    /// A hash of the request, without white space: two requests with the same key differ in it.
    pub fingerprint: String,
}

/// A submission that was accepted. The ids of its jobs are `first`, `first + 1`, and so on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Submitted {
    pub first: JobId,
    /// The number of jobs.
    pub count: u64,
    /// The status of the first job: scheduled or queued, or that of an existing job, which has any status. `None` if the
    /// existing job is deleted and still holds its unique key for a fixed time.
    pub status: Option<Status>,
    /// The time until the earliest job is due or expires; `None` if there is no such time.
    pub due_in: Option<Duration>,
    /// Whether this repeats the reply to an earlier request with the same Idempotency-Key.
    pub replayed: bool,
    /// What became of the job that already held the unique key; `None` if the jobs of the submission were stored.
    pub conflict: Option<Conflict>,
}

/// What became of a job that held the unique key of a submission. The submission has stored no job of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conflict {
    /// The job stays as it is.
    Existing,
    /// The job got the fields of the submission.
    Replaced,
}

impl Submitted {
    /// The ids, in the order of submission.
    pub fn ids(&self) -> impl Iterator<Item = JobId> {
        let first = self.first.get();
        (first..first + self.count).filter_map(JobId::new)
    }
}

/// The right to settle one attempt, once: a lease is not `Clone`, and settling consumes the lease.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a lease that is dropped leaves its job in progress"]
pub struct Lease {
    pub(super) id: JobId,
    /// The fencing token: the number of the job's starts. Redis settles nothing for an older token.
    pub(super) token: u64,
}

impl Lease {
    /// The job's id.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// The attempt that this lease can settle.
    pub fn attempt_id(&self) -> AttemptId {
        AttemptId { job: self.id, start: self.token }
    }

    #[cfg(test)]
    pub(crate) fn for_tests(attempt: AttemptId) -> Lease {
        Lease { id: attempt.job, token: attempt.start }
    }
}

/// The outcome of an attempt.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The handler succeeded with this result.
    Complete(Box<RawValue>),
    /// The attempt failed with this error. The next attempt starts after the delay; after the last attempt the job
    /// becomes a dead letter. With `throttle` the rates of the job's limits allow no start for that time.
    Retry { error: String, delay: Duration, throttle: Option<Duration> },
    /// The attempt failed with this error, and the job becomes a dead letter at once.
    Fail(String),
    /// The job is scheduled again after this time (from 1 ms); the attempt does not count. The rates of the job's limits
    /// allow no start for that time.
    Snooze(Duration),
    /// The job goes back to the front of its queue; the attempt does not count.
    Release,
}

/// An attempt with its verdict.
#[derive(Debug)]
pub struct Settlement {
    pub lease: Lease,
    pub verdict: Verdict,
}

/// The results of a call that has settled attempts.
#[derive(PartialEq, Eq, Debug)]
pub struct SettledStep {
    /// In the order of the settlements.
    pub results: Vec<Settled>,
    /// The time until a limit is looked at again; `None` if no limit is.
    pub next_look: Option<Duration>,
}

/// The result of a settlement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// The attempt is settled, and the job has this status now.
    Now(Status),
    /// The attempt is settled. The next one would have started after the expiry of the job, so the job has ended with this
    /// status: cancelled or failed.
    Expired(Status),
    /// An earlier call, whose reply was lost, has settled the attempt already.
    Repeated,
    /// The fencing token is out of date, because another server has reclaimed the job. Nothing was changed.
    Stale,
}

/// What an attempt reports.
#[derive(Debug)]
pub struct AttemptReport {
    pub attempt: AttemptId,
    pub report: Report,
    /// For an attempt of a pull worker: the length of its lease from now on. `None`: as long as before.
    pub lease: Option<Duration>,
}

/// The result of a report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reported {
    /// The job is in another attempt or has ended. Nothing was changed.
    Stale,
    Accepted {
        /// When the lease ends, in ms since 1970; `None` if a server runs the attempt.
        lease_until_ms: Option<u64>,
        /// When the attempt times out, in ms since 1970.
        timeout_at_ms: u64,
        /// Whether a client has cancelled the job.
        is_cancelled: bool,
        job_type: String,
    },
}

/// What a pull worker asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PullRequest {
    /// The queues, 1 to 16: jobs of the first one are taken first.
    pub queues: Vec<String>,
    /// The most jobs, 1 to 100.
    pub max: u32,
    /// How long the jobs are leased. `None`: until the attempt times out.
    pub lease: Option<Duration>,
    /// The name of the worker: 1 to 64 of `A-Z a-z 0-9 _ . -`.
    pub worker: Option<String>,
}

/// A job that was started for a pull worker.
#[derive(Debug)]
pub struct PulledJob {
    pub attempt: AttemptId,
    pub job: Job,
    /// When the lease ends, in ms since 1970.
    pub lease_until_ms: u64,
    /// When the attempt times out, in ms since 1970.
    pub timeout_at_ms: u64,
}

/// The result of [`pull`](super::Queue::pull).
#[derive(Debug, Default)]
pub struct Pulled {
    pub jobs: Vec<PulledJob>,
    /// The paused queues of the request.
    pub paused: Vec<String>,
    /// Whether more jobs may be ready, because the script ended early.
    pub has_more: bool,
    /// The time until a limit is looked at again; `None` if no limit is.
    pub next_look: Option<Duration>,
    /// Jobs that were not started because they have expired.
    pub expired: Vec<Expired>,
    /// Redis's time of the start, in ms since 1970; 0 if `is_full`.
    pub now_ms: u64,
    /// Whether pull workers have 10,000 jobs already: no job was started.
    pub is_full: bool,
}

/// The result of an answer of a pull worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answered {
    /// The attempt is settled.
    Now {
        /// The status of the job now.
        status: Status,
        /// Whether the next attempt would have started after the expiry of the job, so that the job has ended.
        has_expired: bool,
        job_type: String,
        /// How long the attempt has run.
        run_ms: u64,
    },
    /// The same answer has settled the attempt already, and the job had this status then.
    Repeated(Status),
    /// The job is in another attempt, or another answer has settled this one. Nothing was changed.
    Stale,
}

/// What a job does, for those who wait for a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobState {
    pub status: Status,
    pub job_type: String,
    /// The number of the last log line; 0 without a line.
    pub last_line: u64,
}

/// A part of the log of a job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobLog {
    /// The lines, oldest first.
    pub lines: Vec<LogLine>,
    /// The number of the last line of the job; 0 if the job has no line.
    pub last: u64,
    /// Whether the job has ended.
    pub is_final: bool,
}

/// A line of the log of a job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogLine {
    /// From 1.
    pub number: u64,
    /// When the line was stored, in ms since 1970.
    pub at_ms: u64,
    pub text: String,
}

/// A pull worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PullWorker {
    /// Empty for all workers without a name together.
    pub name: String,
    /// When the worker last asked for jobs or reported, in ms since 1970; `None` if that is more than an hour ago.
    pub last_seen_ms: Option<u64>,
    /// The id and type of its jobs, and when their leases end, in ms since 1970.
    pub jobs: Vec<(JobId, String, u64)>,
}

/// A job whose expiry has passed before a start: its type, and its status now (cancelled or failed).
pub type Expired = (String, Status);

/// The result of one step of [`work_off_due`](super::Queue::work_off_due).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DueStep {
    /// The number of jobs that became ready.
    pub moved: usize,
    /// The time until the next job is due or expires, or the next schedule has a tick; `None` if there is no such time.
    pub next: Option<Duration>,
    pub expired: Vec<Expired>,
    /// The schedules that the caller has to fire. Redis returns a schedule again after 2 s if no server has fired it.
    pub ticks: Vec<String>,
    /// Redis's time of the step, in ms since 1970.
    pub now_ms: u64,
    /// The jobs that were charged with a crash, because the lease of their pull worker is over.
    pub lost: Vec<CrashedJob>,
    /// The attempts of pull workers whose timeout is over, which the caller has to settle. Redis returns such an attempt
    /// again after 2 s if no server has settled it.
    pub timed_out: Vec<AttemptId>,
}

/// The share of one queue in a call of `start_jobs`.
#[derive(Clone, Debug)]
pub struct Share {
    pub queue: String,
    /// How many jobs to start from this queue at first. If a queue has fewer jobs, the rest is started from all queues,
    /// in the order of the shares.
    pub jobs: usize,
}

/// From which queues a call of `start_jobs` starts jobs.
#[derive(Clone, Debug)]
pub struct Turns {
    /// The most jobs to start.
    pub jobs: usize,
    /// The strict queues: no job of a later queue starts while an earlier queue has one.
    pub strict: Vec<String>,
    /// The shares of the other queues, in the order in which jobs start. A queue may have several shares.
    pub shares: Vec<Share>,
}

/// What a call of `start_jobs` does about quarantined jobs. One more crash of a quarantined job reaches `max-crashes`, so
/// the job runs alone on a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quarantine {
    /// Start no quarantined job. Other jobs get this turn, or they would wait for ever.
    Skip,
    /// Start no quarantined job, since other jobs run on this server, but allow to reserve this server for a quarantined
    /// job. A reserved server has to drain.
    Reserve,
    /// Start one quarantined job, if one waits, and then no other job. No job may run on this server.
    Start,
}

impl Quarantine {
    /// The word in `start_jobs.lua`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Quarantine::Skip => "skip",
            Quarantine::Reserve => "reserve",
            Quarantine::Start => "start",
        }
    }
}

/// A job's id that BRPOPLPUSH has moved into this server's in-progress list. The job is not started yet.
#[derive(Debug)]
pub struct Claimed {
    /// The entry as the list has it: a damaged entry may not even be text.
    pub entry: Vec<u8>,
    /// The queue from which the entry was moved.
    pub queue: String,
}

/// A job that was started although its record cannot be read. The caller has to fail the job.
#[derive(Debug)]
pub struct Broken {
    pub lease: Lease,
    /// The fields that could be read; a type that could not be read is `unknown`.
    pub job: Job,
    /// The error of the attempt, which names the field that could not be read.
    pub reason: String,
}

/// The result of `start_jobs`.
#[derive(Debug, Default)]
pub struct StartedJobs {
    /// Jobs to run and to settle.
    pub jobs: Vec<(Lease, Job)>,
    /// Jobs to fail.
    pub broken: Vec<Broken>,
    /// The paused queues of the shares.
    pub paused: Vec<String>,
    /// Whether more jobs may be ready, because the script ended early at large jobs or at many entries without a job.
    pub has_more: bool,
    /// Jobs that were not started because they have expired.
    pub expired: Vec<Expired>,
    /// The time until a limit is looked at again; `None` if no limit is.
    pub next_look: Option<Duration>,
    /// Redis's time of the start, in ms since 1970.
    pub now_ms: u64,
    /// Whether this server is reserved for a waiting quarantined job. The server must start no other job until it runs
    /// none.
    pub must_drain: bool,
}

/// The reply to a heartbeat.
#[derive(Debug)]
pub struct HeartbeatReply {
    /// The length of this server's in-progress list in Redis.
    pub in_progress: usize,
    /// Running jobs of this server that a client has cancelled.
    pub cancels: Vec<JobId>,
    /// Name and heartbeat counter of each server. A dead server is included as long as its list is not empty, with a
    /// counter that begins with `D`.
    pub servers: Vec<(String, String)>,
    /// Whether a client watches the workers' activity.
    pub is_watched: bool,
    /// Whether quarantined jobs wait in this server's queues. BRPOPLPUSH does not see these jobs, so they wake no fetcher.
    pub quarantine_waits: bool,
    /// The time until the next job is due or expires, or the next schedule has a tick; `None` if there is no such time.
    pub due_in: Option<Duration>,
}

/// The result of taking over a server's jobs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reclaimed {
    /// The number of jobs that went back to their queues or ended.
    pub moved: usize,
    /// The jobs that were running when the server died.
    pub crashed: Vec<CrashedJob>,
}

/// A job that was running when its server died.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CrashedJob {
    pub id: JobId,
    pub job_type: String,
    /// The attempt that was cut off, from 1.
    pub attempt: u32,
    /// The number of crashes of the job, this crash included.
    pub crashes: u32,
    /// Whether the job has reached `max-crashes` and became a dead letter.
    pub has_failed: bool,
}

/// The result of cancelling, retrying, deleting or changing one job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Changed {
    Done,
    /// A cancellation of a running job: the server with this id stops the attempt after its next heartbeat.
    Requested(String),
    /// The job's status does not allow the change.
    WrongStatus,
    /// The live job with this id holds the unique key of the job.
    Duplicate(JobId),
    /// There is no job with this id.
    Missing,
}

/// The result of changing one job that may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeResult {
    Changed {
        /// The status of the job now.
        status: Status,
        /// The time until the job is due or expires; `None` if there is no such time.
        due_in: Option<Duration>,
    },
    /// The job has started or has ended: it has this status.
    WrongStatus(Status),
    /// The job would expire before its start.
    Expired,
    /// There is no job with this id.
    Missing,
}

/// Which jobs a listing shows: all by default.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only jobs with this status.
    pub status: Option<Status>,
    /// Only jobs of this type.
    pub job_type: Option<String>,
    /// Only jobs with this tag. Not together with a type.
    pub tag: Option<String>,
    /// Only jobs that were created at this time or later, in µs since 1970.
    pub created_after: Option<u64>,
    /// Only jobs that were created before this time, in µs since 1970.
    pub created_before: Option<u64>,
}

/// The jobs of an operation on many jobs: those that match every field that is set.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Jobs with one of these statuses; without a status jobs of every status.
    pub statuses: Vec<Status>,
    pub job_type: Option<String>,
    pub tag: Option<String>,
    pub queue: Option<String>,
    /// Jobs that were created at this time or later, in µs since 1970.
    pub created_after: Option<u64>,
    /// Jobs that were created before this time, in µs since 1970.
    pub created_before: Option<u64>,
    /// Jobs with one of these ids, which are in rising order.
    pub ids: Option<Vec<JobId>>,
    /// Jobs whose last error contains this text.
    pub error: Option<String>,
}

/// How far an operation has walked through the jobs of its selection, by rising ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Walk {
    /// The newest job at the beginning of the walk, which leaves later jobs alone; `None` before the first step.
    pub newest: Option<JobId>,
    /// The last job that the walk has looked at.
    pub last: Option<JobId>,
}

/// Where a page of a listing begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Position {
    /// After this number of the newest matching jobs.
    Offset(u64),
    /// At the newest matching job with an id below this one.
    Before(JobId),
}

/// One page of a listing, newest job first.
#[derive(Debug)]
pub struct Page {
    /// The number of all matching jobs.
    pub total: u64,
    /// The jobs of this page. Large texts are left out, see [`Job::omitted`].
    pub jobs: Vec<Job>,
    /// The next page is [before](Position::Before) this id; `None` on the last page.
    pub next: Option<JobId>,
}

/// A queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueInfo {
    pub name: String,
    /// The number of ready jobs, those that wait for room in a limit included.
    pub queued: u64,
    /// How many of these jobs wait for room in a limit.
    pub held: u64,
    pub paused: bool,
    /// How long the oldest ready job has waited; `None` if the queue is empty.
    pub oldest_ms: Option<u64>,
    /// The number of live servers that take jobs from this queue.
    pub servers: u64,
    /// Whether one of these servers takes the jobs of this queue before those of other queues.
    pub strict: bool,
    /// Whether a pull worker has asked for jobs of this queue within the last 5 minutes.
    pub is_pulled: bool,
}

/// What decides when a job starts.
#[derive(Clone, Debug)]
pub struct Situation {
    /// Redis's time, in ms since 1970.
    pub now_ms: u64,
    pub job: Job,
    /// Whether the running attempt was told to stop.
    pub is_stopping: bool,
    pub is_paused: bool,
    /// The number of living servers.
    pub servers: u64,
    /// How many of them take jobs from the job's queue.
    pub takers: u64,
    /// The number of workers of these servers.
    pub workers: u64,
    /// How many of these workers ran a job at the last heartbeats.
    pub busy: u64,
    /// One of these servers that starts no other job until it has run a quarantined job.
    pub reserved: Option<String>,
    /// The strict queues with jobs that these servers start before the jobs of this queue, and their numbers of jobs.
    pub strict: Vec<(String, u64)>,
    pub place: Place,
    /// The number of jobs before the job in its list, or in the line of the limit.
    pub before: u64,
    /// Whether there may be more jobs before it: only a part of the list was searched.
    pub is_more: bool,
    /// The time since the last heartbeat of the server that runs the job; `None` if that server is not alive.
    pub beat_age_ms: Option<u64>,
    /// The time since pull workers asked for jobs of the job's queue; `None` if none has asked for long.
    pub pulled_age_ms: Option<u64>,
}

/// Where a schedule or a limit was defined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    Api,
    Config,
}

impl Source {
    /// The source as the API and Redis spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Api => "api",
            Source::Config => "config",
        }
    }
}

/// What a limit is about for a job that waits for room in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitRoom {
    pub limit: String,
    /// How many jobs may run at a time; `None`: any number.
    pub slots: Option<u64>,
    /// When the rate allows the next start, in ms since 1970; `None` if the rate allows a start now.
    pub opens_at_ms: Option<u64>,
    /// Jobs that have a slot, at most 100.
    pub running: Vec<JobId>,
}

/// Where the entry of a job is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the list of its queue.
    Queue,
    /// Among the quarantined jobs of its queue.
    Suspects,
    /// On its way to this server, which starts the job in a moment.
    Claimed(String),
    /// In the list of the server that runs the job.
    Server,
    /// Among the jobs that wait for their time.
    Scheduled,
    /// Among the jobs that wait for room in a limit.
    Limit(LimitRoom),
    /// Nowhere. A job that has ended needs no entry.
    None,
}

/// A live server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerInfo {
    pub id: String,
    /// The start of the server, in ms since 1970.
    pub started_at_ms: u64,
    /// The number of its worker threads.
    pub workers: u64,
    /// How many of its workers ran a job at its last heartbeat.
    pub busy: u64,
    /// The time since its last heartbeat.
    pub beat_age_ms: u64,
}

/// The number of jobs in each status, and the live servers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stats {
    pub counts: Vec<(Status, u64)>,
    pub servers: Vec<ServerInfo>,
}

/// The figures of one minute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Minute {
    /// The minute since 1970.
    pub number: u64,
    /// The figures by name: sums over all servers, and the numbers of jobs that waited at the end of the minute. A missing
    /// figure is 0 or unknown.
    pub figures: HashMap<String, u64>,
}
