//! What a job is: plain data and the rules for its fields.
//!
//! Everything else speaks in these types. This file does no I/O, reads no clock and knows neither Redis nor HTTP.

pub mod backoff;
pub mod duration;
pub mod json;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// Attempts of a job when neither the job nor its handler says how many.
pub const DEFAULT_MAX_ATTEMPTS: u32 = 5;
/// How long an attempt may take when neither the job nor its handler says it.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
/// The queue of a job that names none.
pub const DEFAULT_QUEUE: &str = "default";
/// The most characters of an error message that are kept.
pub const MAX_ERROR_CHARS: usize = 1_000;
/// The most bytes of a result that are kept; a longer one is cut and kept as a string.
pub const MAX_RESULT_BYTES: usize = 64 * 1024;

/// A job's id: the time of its submission in microseconds of Redis's clock, made unique. Below 2^53.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct JobId(u64);

impl JobId {
    /// The largest id, so that every JSON reader keeps it exact.
    pub(crate) const MAX: u64 = (1 << 53) - 1;

    /// The id with this number; `None` for 0 and from 2^53 on.
    pub fn new(number: u64) -> Option<JobId> {
        (1..=JobId::MAX).contains(&number).then_some(JobId(number))
    }

    /// The id as a number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// When the job was submitted, in milliseconds since 1970 by Redis's clock.
    pub fn created_at_ms(self) -> u64 {
        self.0 / 1000
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = InvalidId;

    /// Reads decimal digits without sign, leading zero or white space.
    fn from_str(text: &str) -> Result<JobId, InvalidId> {
        let canonical = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        let number = if canonical { text.parse().ok() } else { None };
        number.and_then(JobId::new).ok_or(InvalidId)
    }
}

impl TryFrom<u64> for JobId {
    type Error = InvalidId;

    fn try_from(number: u64) -> Result<JobId, InvalidId> {
        JobId::new(number).ok_or(InvalidId)
    }
}

/// A text or number that is no [`JobId`].
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidId;

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a job id is a whole number from 1 to 9007199254740991")
    }
}

impl std::error::Error for InvalidId {}

/// Where a job stands in its life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Waits for its time.
    Scheduled,
    /// In the work queue.
    Queued,
    /// A worker has it.
    Processing,
    /// Failed, waits out its backoff.
    Retrying,
    /// Done.
    Completed,
    /// In the dead letter queue.
    Failed,
    /// Stopped by a person.
    Cancelled,
}

impl Status {
    /// All statuses, in the order of a job's life.
    pub const ALL: [Status; 7] = [
        Status::Scheduled,
        Status::Queued,
        Status::Processing,
        Status::Retrying,
        Status::Completed,
        Status::Failed,
        Status::Cancelled,
    ];

    /// The word for it in the API and in Redis.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Scheduled => "scheduled",
            Status::Queued => "queued",
            Status::Processing => "processing",
            Status::Retrying => "retrying",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more happens to the job by itself.
    pub fn is_final(self) -> bool {
        matches!(self, Status::Completed | Status::Failed | Status::Cancelled)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Status, UnknownStatus> {
        Status::ALL.into_iter().find(|status| status.as_str() == text).ok_or(UnknownStatus)
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A text that is no [`Status`].
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownStatus;

impl fmt::Display for UnknownStatus {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(
            "a status is one of scheduled, queued, processing, retrying, completed, failed, cancelled",
        )
    }
}

impl std::error::Error for UnknownStatus {}

/// When a new job becomes ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Start {
    /// At once.
    #[default]
    Now,
    /// So many milliseconds after Redis has stored it.
    AfterMs(u64),
    /// At this time in milliseconds since 1970, by Redis's clock; at once if that has passed.
    AtMs(u64),
}

/// A job as it is submitted: checked, but without an id.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// The job type: the name of its handler. 1 to 100 characters without control characters.
    pub job_type: String,
    /// Any JSON value.
    pub payload: Box<RawValue>,
    /// 1 to 64 of `A-Z a-z 0-9 _ . -`.
    pub queue: String,
    /// When it becomes ready.
    pub start: Start,
    /// 1 to 100.
    pub max_attempts: u32,
    /// How long one attempt may take: 1 ms to 24 h.
    pub timeout: Duration,
    /// At most one live job holds a key. 1 to 200 characters.
    pub unique_key: Option<String>,
}

impl NewJob {
    /// A job of this type with the payload `{}` and every default.
    pub fn new(job_type: impl Into<String>) -> NewJob {
        NewJob {
            job_type: job_type.into(),
            payload: empty_payload(),
            queue: DEFAULT_QUEUE.to_owned(),
            start: Start::Now,
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            timeout: DEFAULT_TIMEOUT,
            unique_key: None,
        }
    }
}

/// The payload of a job that was submitted without one: `{}`.
pub fn empty_payload() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).expect("{} is JSON")
}

/// Whether this can be a queue's name: 1 to 64 of `A-Z a-z 0-9 _ . -`.
pub fn is_queue_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Whether this can be a job's type: 1 to 100 characters, none of them a control character.
pub fn is_job_type(name: &str) -> bool {
    (1..=100).contains(&name.chars().count()) && !name.chars().any(char::is_control)
}

/// A job as Redis has it.
#[derive(Clone, Debug)]
pub struct Job {
    /// Unique, and larger than the id of every job submitted before.
    pub id: JobId,
    /// The type.
    pub job_type: String,
    /// The queue that it goes through.
    pub queue: String,
    /// Where it stands.
    pub status: Status,
    /// As it was submitted.
    pub payload: Box<RawValue>,
    /// Runs that ended or failed since it was submitted or sent back by a person; crashes don't count.
    pub attempts: u32,
    /// After so many failed attempts it goes to the dead letter queue.
    pub max_attempts: u32,
    /// How often its server died while it ran and it was held to be the reason.
    pub crashes: u32,
    /// How long one attempt may take.
    pub timeout_ms: u64,
    /// When it becomes or became ready, for a job with a delay or a backoff; ms since 1970.
    pub scheduled_at_ms: Option<u64>,
    /// When it became ready again, for a job that a person has sent back or that ran on a server which died or stopped; ms
    /// since 1970. See [`Job::ready_at_ms`].
    pub ready_again_at_ms: Option<u64>,
    /// Start of the latest attempt; ms since 1970.
    pub started_at_ms: Option<u64>,
    /// When it was completed, failed or cancelled; ms since 1970.
    pub finished_at_ms: Option<u64>,
    /// The last 10 errors, oldest first.
    pub errors: Vec<AttemptError>,
    /// What the handler gave.
    pub result: Option<Box<RawValue>>,
    /// The key it holds, or held, against a second one like it.
    pub unique_key: Option<String>,
    /// The server that has or had it last.
    pub server: Option<String>,
    /// How often it was started, crashes and all: the fencing token of the latest attempt.
    pub starts: u64,
    /// The names of fields that are missing or damaged in its record, and that have a default here; they are shown as
    /// null. Such a job is never run.
    pub unreadable: Vec<&'static str>,
    /// What a listing has left out of this job because it is large, see [`Text`]. Empty everywhere else.
    pub omitted: Vec<Text>,
}

/// A part of a job that listings leave out where it is large.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Text {
    /// [`Job::payload`] is `null`.
    Payload,
    /// [`Job::result`] is `None`.
    Result,
    /// Only the last of [`Job::errors`] is there.
    Errors,
}

impl Text {
    /// All of them.
    pub const ALL: [Text; 3] = [Text::Payload, Text::Result, Text::Errors];

    /// The word for it in the API and in Redis.
    pub fn as_str(self) -> &'static str {
        match self {
            Text::Payload => "payload",
            Text::Result => "result",
            Text::Errors => "errors",
        }
    }
}

/// One attempt at a job. A job that is started again is another attempt, on whichever server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AttemptId {
    /// The job.
    pub job: JobId,
    /// How often it has been started, this time included.
    pub start: u64,
}

impl Job {
    /// The latest attempt.
    pub fn attempt_id(&self) -> AttemptId {
        AttemptId { job: self.id, start: self.starts }
    }

    /// Whether one more crash is its last, where `max_crashes` (from 1) are allowed: such a job (a suspect) runs alone. A job
    /// without a crash on its record is none, so with 1 no job is. start_jobs.lua and reclaim.lua decide the same.
    pub fn is_on_last_chance(&self, max_crashes: u32) -> bool {
        self.crashes > 0 && self.crashes.saturating_add(1) >= max_crashes
    }

    /// When it became ready last; ms since 1970: its submission, the end of its delay or backoff, or the time when it was sent
    /// back by a person or lost its server. Waits and ages count from here.
    pub fn ready_at_ms(&self) -> u64 {
        let later = [self.scheduled_at_ms, self.ready_again_at_ms].into_iter().flatten();
        later.fold(self.id.created_at_ms(), u64::max)
    }

    /// The error of the latest failure; `None` once it completed.
    pub fn last_error(&self) -> Option<&str> {
        match self.status {
            Status::Completed => None,
            _ => self.errors.last().map(|error| error.message.as_str()),
        }
    }
}

/// A job as the API gives it and as http handlers get it. The JSON is for people and programs outside; what Redis
/// keeps is not this.
impl Serialize for Job {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// The fields in the order in which they are shown.
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
            #[serde(skip_serializing_if = "<[Text]>::is_empty")]
            omitted: &'a [Text],
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
        };
        shown.serialize(serializer)
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

/// Milliseconds since 1970 that are shown as RFC 3339.
#[derive(Clone, Copy)]
struct Time(u64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

/// A time in milliseconds since 1970 as RFC 3339 in UTC, always with three digits of a second:
/// `2026-11-24T08:00:00.000Z`. What lies after the year 9999 is shown as its end.
pub fn rfc3339(ms: u64) -> String {
    const FORMAT: &[BorrowedFormatItem] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    const END: &str = "9999-12-31T23:59:59.999Z";

    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    time.ok().and_then(|time| time.format(FORMAT).ok()).unwrap_or_else(|| END.to_owned())
}

/// What ended an attempt without a result.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorKind {
    /// It failed.
    #[default]
    Error,
    /// Its server died while it ran. It is not counted as an attempt: the next one has the same number.
    Crash,
}

/// Why an attempt failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttemptError {
    /// Which attempt, from 1. Attempts count from 1 again after a person has sent the job back.
    pub attempt: u32,
    /// Which start of the job, from 1; no two attempts share it. `None` for an error that version 0.4 has stored. Shown where
    /// it differs from `attempt`.
    pub start: Option<u64>,
    /// Whether it failed or its server died.
    pub kind: ErrorKind,
    /// When, in ms since 1970.
    pub at_ms: u64,
    /// At most [`MAX_ERROR_CHARS`] characters.
    pub message: String,
}

/// How a handler says that an attempt failed.
///
/// Every error type turns into a retryable failure, so `?` in a handler means "try again later".
///
/// ```
/// use threadq::job::Failure;
///
/// fn parse(text: &str) -> Result<u32, Failure> {
///     if text.is_empty() {
///         return Err(Failure::permanent("nothing to parse"));
///     }
///     Ok(text.parse()?)
/// }
///
/// assert!(matches!(parse(""), Err(Failure::Permanent { .. })));
/// assert!(matches!(parse("x"), Err(Failure::Retryable { .. })));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Try again after the backoff.
    Retryable {
        /// What went wrong, for a person.
        message: String,
        /// The least time to wait, where the other side asked for one.
        retry_after: Option<Duration>,
    },
    /// Trying again is of no use: straight to the dead letter queue.
    Permanent {
        /// What went wrong, for a person.
        message: String,
    },
}

impl Failure {
    /// A failure that is tried again.
    pub fn retryable(message: impl Into<String>) -> Failure {
        Failure::Retryable { message: message.into(), retry_after: None }
    }

    /// A failure that is not tried again.
    pub fn permanent(message: impl Into<String>) -> Failure {
        Failure::Permanent { message: message.into() }
    }

    /// What went wrong.
    pub fn message(&self) -> &str {
        match self {
            Failure::Retryable { message, .. } | Failure::Permanent { message } => message,
        }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::retryable(error.to_string())
    }
}

/// What an attempt came to: the result as JSON, or why there is none.
pub type Outcome = Result<Box<RawValue>, Failure>;

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

    #[test]
    fn times_have_exactly_milliseconds_in_every_year() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(253_402_300_800_000), "9999-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
