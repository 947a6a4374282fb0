//! What a job is: plain data, and the rules for its fields.
//!
//! All other parts of the crate use these types. This part does no I/O and knows neither Redis nor HTTP.

pub mod backoff;
mod bounds;
mod change;
pub(crate) mod duration;
mod extras;
mod failure;
mod id;
pub(crate) mod json;
pub mod limit;
pub mod report;
pub(crate) mod rules;
mod status;
pub(crate) mod time;

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

pub use self::bounds::{Expiry, Start};
pub use self::change::Change;
pub use self::extras::{CancelReason, Extras, Hold, OnConflict, ScheduleTick, UniqueMode};
pub use self::failure::{Failure, Outcome};
pub use self::id::{InvalidId, JobId};
use self::limit::{Blocked, LimitName};
pub use self::report::{Progress, Report};
pub use self::rules::{
    DEFAULT_MAX_ATTEMPTS, DEFAULT_QUEUE, DEFAULT_TIMEOUT, MAX_ERROR_CHARS, MAX_RESULT_BYTES, is_job_type,
    is_queue_name,
};
pub use self::status::{Status, UnknownStatus};
use self::time::Time;
pub use self::time::rfc3339;

/// A job to submit: its fields are valid, and it has no id yet.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// The job type, which names its handler: 1 to 100 characters, none of them a control character.
    pub job_type: String,
    /// Any JSON value.
    pub payload: Box<RawValue>,
    /// The name of its queue: 1 to 64 of `A-Z a-z 0-9 _ . -`.
    pub queue: String,
    /// When the job becomes ready, at most 365 days after its submission.
    pub start: Start,
    /// After this many failed attempts the job goes to the dead letter queue: 1 to 100.
    pub max_attempts: u32,
    /// How long one attempt may take: 1 ms to 24 h.
    pub timeout: Duration,
    /// A key of 1 to 200 characters. Redis refuses the job while another live job holds the same key.
    pub unique_key: Option<String>,
    /// What the job has besides these fields; `None` for most jobs.
    pub extras: Option<Box<Extras>>,
}

impl NewJob {
    /// A job of this type with the payload `{}` and the defaults of this module.
    pub fn new(job_type: impl Into<String>) -> NewJob {
        NewJob {
            job_type: job_type.into(),
            payload: empty_payload(),
            queue: DEFAULT_QUEUE.to_owned(),
            start: Start::Now,
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            timeout: DEFAULT_TIMEOUT,
            unique_key: None,
            extras: None,
        }
    }
}

/// The payload of a job that was submitted without one: `{}`.
pub fn empty_payload() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).expect("{} is JSON")
}

/// A job as it is stored in Redis.
#[derive(Clone, Debug)]
pub struct Job {
    /// Unique, and larger than the id of every job that was submitted before.
    pub id: JobId,
    /// The job type, which names its handler.
    pub job_type: String,
    /// The name of its queue.
    pub queue: String,
    /// Where the job stands in its life.
    pub status: Status,
    /// The payload, byte for byte as it was submitted.
    pub payload: Box<RawValue>,
    /// How many attempts have ended since the job was submitted or retried by an operator. A crash of the server does not
    /// count.
    pub attempts: u32,
    /// After this many failed attempts the job goes to the dead letter queue.
    pub max_attempts: u32,
    /// How often a server died while it ran this job, and the job was charged with the crash.
    pub crashes: u32,
    /// How long one attempt may take, in milliseconds.
    pub timeout_ms: u64,
    /// When a job with a delay or a backoff becomes or became ready, in milliseconds since 1970.
    pub scheduled_at_ms: Option<u64>,
    /// When the job went back to its queue, in milliseconds since 1970: an operator retried it, or its server died or
    /// stopped. See [`Job::ready_at_ms`].
    pub ready_again_at_ms: Option<u64>,
    /// When the latest attempt started, in milliseconds since 1970.
    pub started_at_ms: Option<u64>,
    /// When the job was completed, failed or cancelled, in milliseconds since 1970.
    pub finished_at_ms: Option<u64>,
    /// The last 10 errors, oldest first.
    pub errors: Vec<AttemptError>,
    /// The result of a completed job.
    pub result: Option<Box<RawValue>>,
    /// The key that the job was submitted with. The job holds the key until it has ended.
    pub unique_key: Option<String>,
    /// The id of the server that ran the latest attempt.
    pub server: Option<String>,
    /// How often the job was started, crashes included. This is the fencing token of the latest attempt.
    pub starts: u64,
    /// The limits on its starts, in the order in which the job takes them.
    pub limits: Vec<LimitName>,
    /// The limit for which the job waits; `None` from its start on.
    pub blocked: Option<Blocked>,
    /// The words by which the job is found.
    pub tags: Vec<String>,
    /// Names and values that the submission has passed on, sorted by name.
    pub meta: Vec<(String, String)>,
    /// After this time, in milliseconds since 1970, no attempt starts.
    pub expires_at_ms: Option<u64>,
    /// How long the job is kept after its end, in milliseconds. `None`: as long as the server's settings say.
    pub retain_ms: Option<u64>,
    /// How often an attempt ended with a request to run the job later.
    pub snoozes: u64,
    /// The tick of the schedule that made the job.
    pub schedule: Option<ScheduleTick>,
    /// Why the job was cancelled; `None` for a job that is not cancelled.
    pub cancel_reason: Option<CancelReason>,
    /// What the job has reported last of how far it has come.
    pub progress: Option<Progress>,
    /// What an attempt has stored for the next one. Listings leave the checkpoint out.
    pub checkpoint: Option<Box<RawValue>>,
    /// The name of the pull worker that has the latest attempt; `None` if a server runs it, or if the worker has no name.
    pub worker: Option<String>,
    /// When the lease of a running attempt of a pull worker ends, in milliseconds since 1970.
    pub lease_until_ms: Option<u64>,
    /// The names of the fields that are missing or damaged in the job's record. They have a default here and are null in
    /// JSON. Such a job is never run.
    pub unreadable: Vec<&'static str>,
    /// The fields that a listing left out because they are large. Empty outside listings.
    pub omitted: Vec<LargeField>,
}

/// A field of a job that listings leave out where it is large.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LargeField {
    /// [`Job::payload`] was left out; it is `null`.
    Payload,
    /// [`Job::result`] was left out; it is `None`.
    Result,
    /// [`Job::errors`] was shortened to its last entry.
    Errors,
    /// [`Job::checkpoint`] was left out, as in every listing.
    Checkpoint,
}

impl LargeField {
    /// All large fields.
    pub const ALL: [LargeField; 4] =
        [LargeField::Payload, LargeField::Result, LargeField::Errors, LargeField::Checkpoint];

    /// The name of the field in the API and in Redis.
    pub fn as_str(self) -> &'static str {
        match self {
            LargeField::Payload => "payload",
            LargeField::Result => "result",
            LargeField::Errors => "errors",
            LargeField::Checkpoint => "checkpoint",
        }
    }
}

/// Names one attempt at a job. Each start of the job, on any server, is a new attempt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AttemptId {
    /// The job.
    pub job: JobId,
    /// How often the job had been started, this attempt included.
    pub start: u64,
}

impl Job {
    /// A queued job that has only an id.
    pub(crate) fn empty(id: JobId) -> Job {
        Job {
            id,
            job_type: String::new(),
            queue: DEFAULT_QUEUE.to_owned(),
            status: Status::Queued,
            payload: empty_payload(),
            attempts: 0,
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            crashes: 0,
            timeout_ms: DEFAULT_TIMEOUT.as_millis() as u64,
            scheduled_at_ms: None,
            ready_again_at_ms: None,
            started_at_ms: None,
            finished_at_ms: None,
            errors: Vec::new(),
            result: None,
            unique_key: None,
            server: None,
            starts: 0,
            limits: Vec::new(),
            blocked: None,
            tags: Vec::new(),
            meta: Vec::new(),
            expires_at_ms: None,
            retain_ms: None,
            snoozes: 0,
            schedule: None,
            cancel_reason: None,
            progress: None,
            checkpoint: None,
            worker: None,
            lease_until_ms: None,
            unreadable: Vec::new(),
            omitted: Vec::new(),
        }
    }

    /// The latest attempt.
    pub fn attempt_id(&self) -> AttemptId {
        AttemptId { job: self.id, start: self.starts }
    }

    /// Whether the job runs in quarantine: its next crash would be the last of the `max_crashes` (from 1) that are allowed.
    /// A job without a crash is never quarantined, so with `max_crashes` 1 no job is. start_jobs.lua and reclaim.lua use
    /// the same rule.
    pub fn needs_quarantine(&self, max_crashes: u32) -> bool {
        self.crashes > 0 && self.crashes.saturating_add(1) >= max_crashes
    }

    /// When the job last became ready, in milliseconds since 1970: at its submission, at the end of its delay or backoff, or
    /// when it went back to its queue. Waiting times are measured from here.
    pub fn ready_at_ms(&self) -> u64 {
        let later = [self.scheduled_at_ms, self.ready_again_at_ms].into_iter().flatten();
        later.fold(self.id.created_at_ms(), u64::max)
    }

    /// The error of the latest failed attempt; `None` for a completed job.
    pub fn last_error(&self) -> Option<&str> {
        match self.status {
            Status::Completed => None,
            _ => self.errors.last().map(|error| error.message.as_str()),
        }
    }
}

/// The JSON of the API, which `http` handlers receive too. Redis stores jobs in another form.
impl Serialize for Job {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            id: JobId,
            r#type: Option<&'a str>,
            queue: &'a str,
            status: Option<Status>,
            payload: Option<&'a RawValue>,
            attempts: Option<u32>,
            max_attempts: Option<u32>,
            crashes: Option<u32>,
            timeout_ms: Option<u64>,
            created_at: Time,
            scheduled_at: Option<Time>,
            started_at: Option<Time>,
            finished_at: Option<Time>,
            last_error: Option<&'a str>,
            errors: &'a [AttemptError],
            result: Option<&'a RawValue>,
            unique_key: Option<&'a str>,
            server: Option<&'a str>,
            #[serde(skip_serializing_if = "<[LargeField]>::is_empty")]
            omitted: &'a [LargeField],
            #[serde(skip_serializing_if = "Option::is_none")]
            blocked_by: Option<BlockedBy<'a>>,
            #[serde(skip_serializing_if = "<[LimitName]>::is_empty")]
            limits: &'a [LimitName],
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            tags: &'a [String],
            #[serde(skip_serializing_if = "Meta::is_empty")]
            meta: Meta<'a>,
            #[serde(skip_serializing_if = "Option::is_none")]
            expires_at: Option<Time>,
            #[serde(skip_serializing_if = "Option::is_none")]
            retain_ms: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            snoozes: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            schedule: Option<&'a ScheduleTick>,
            #[serde(skip_serializing_if = "Option::is_none")]
            cancel_reason: Option<CancelReason>,
            #[serde(skip_serializing_if = "Option::is_none")]
            progress: Option<&'a Progress>,
            #[serde(skip_serializing_if = "Option::is_none")]
            checkpoint: Option<&'a RawValue>,
            #[serde(skip_serializing_if = "Option::is_none")]
            worker: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            lease_until: Option<Time>,
        }

        #[derive(Serialize)]
        struct BlockedBy<'a> {
            limit: &'a LimitName,
        }

        let can_read = |field| !self.unreadable.contains(&field);
        let shown = Shown {
            id: self.id,
            r#type: can_read("type").then_some(&*self.job_type),
            queue: &self.queue,
            status: can_read("status").then_some(self.status),
            payload: can_read("payload").then_some(&*self.payload),
            attempts: can_read("attempts").then_some(self.attempts),
            max_attempts: can_read("max_attempts").then_some(self.max_attempts),
            crashes: can_read("crashes").then_some(self.crashes),
            timeout_ms: can_read("timeout_ms").then_some(self.timeout_ms),
            created_at: Time(self.id.created_at_ms()),
            scheduled_at: self.scheduled_at_ms.map(Time),
            started_at: self.started_at_ms.map(Time),
            finished_at: self.finished_at_ms.map(Time),
            last_error: self.last_error(),
            errors: &self.errors,
            result: self.result.as_deref(),
            unique_key: self.unique_key.as_deref(),
            server: self.server.as_deref(),
            omitted: &self.omitted,
            blocked_by: (self.blocked.as_ref())
                .filter(|blocked| blocked.is_held && self.status == Status::Queued)
                .map(|blocked| BlockedBy { limit: &blocked.limit }),
            limits: &self.limits,
            tags: &self.tags,
            meta: Meta(&self.meta),
            expires_at: self.expires_at_ms.map(Time),
            retain_ms: self.retain_ms,
            snoozes: Some(self.snoozes).filter(|snoozes| *snoozes > 0),
            schedule: self.schedule.as_ref(),
            cancel_reason: self.cancel_reason,
            progress: self.progress.as_ref(),
            checkpoint: self.checkpoint.as_deref(),
            worker: self.worker.as_deref(),
            lease_until: self.lease_until_ms.map(Time),
        };
        shown.serialize(serializer)
    }
}

impl Serialize for Progress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            value: f64,
            message: &'a str,
            at: Time,
        }

        Shown { value: self.value, message: &self.message, at: Time(self.at_ms) }.serialize(serializer)
    }
}

/// The JSON object of names and values.
struct Meta<'a>(&'a [(String, String)]);

impl Meta<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Meta<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Serialize for AttemptError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            attempt: u32,
            at: Time,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            start: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            kind: Option<ErrorKind>,
        }

        Shown {
            attempt: self.attempt,
            at: Time(self.at_ms),
            message: &self.message,
            start: self.start.filter(|start| *start != u64::from(self.attempt)),
            kind: Some(self.kind).filter(|kind| *kind != ErrorKind::Error),
        }
        .serialize(serializer)
    }
}

/// Why an attempt ended without a result.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorKind {
    /// The attempt failed.
    #[default]
    Error,
    /// The server died during the attempt. The attempt is not counted: the next one has the same number.
    Crash,
}

/// The record of an attempt that failed or crashed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttemptError {
    /// The number of the attempt, from 1. It starts from 1 again after an operator has retried the job.
    pub attempt: u32,
    /// The number of the start, from 1, which no two attempts of a job share. `None` for an error that version 0.4 has
    /// stored. In JSON only where it differs from `attempt`.
    pub start: Option<u64>,
    /// Whether the attempt failed or its server died.
    pub kind: ErrorKind,
    /// When the attempt ended, in milliseconds since 1970.
    pub at_ms: u64,
    /// What went wrong, at most [`MAX_ERROR_CHARS`] characters.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::testing::job;

    #[test]
    fn a_new_job_is_shown_with_every_field_in_order() {
        let shown = serde_json::to_string(&job(r#"{"n": 1.000000000000000000001}"#)).unwrap();
        assert_eq!(
            shown,
            r#"{"id":1764000000000123,"type":"Encode Video","queue":"default","status":"processing","#
                .to_owned()
                + r#""payload":{"n": 1.000000000000000000001},"attempts":0,"max_attempts":5,"crashes":0,"#
                + r#""timeout_ms":300000,"created_at":"2025-11-24T16:00:00.000Z","scheduled_at":null,"#
                + r#""started_at":null,"finished_at":null,"last_error":null,"errors":[],"result":null,"#
                + r#""unique_key":null,"server":null}"#
        );
    }

    #[test]
    fn a_job_with_a_past_is_shown_with_it() {
        let failed = Job {
            status: Status::Failed,
            attempts: 1,
            finished_at_ms: Some(1_764_000_001_050),
            errors: vec![AttemptError {
                attempt: 1,
                start: Some(3),
                kind: ErrorKind::Error,
                at_ms: 1_764_000_001_007,
                message: "no".to_owned(),
            }],
            result: Some(RawValue::from_string("[1.0]".to_owned()).unwrap()),
            server: Some("host-1".to_owned()),
            ..job("1e400")
        };
        let shown = serde_json::to_string(&failed).unwrap();
        for part in [
            r#""payload":1e400"#,
            r#""finished_at":"2025-11-24T16:00:01.050Z","last_error":"no","#,
            r#""errors":[{"attempt":1,"at":"2025-11-24T16:00:01.007Z","message":"no","start":3}],"result":[1.0]"#,
            r#""server":"host-1"}"#,
        ] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
    }
}
