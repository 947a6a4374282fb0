//! A job as the API returns it.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::error::{Cause, Error};
use crate::job::{ErrorKind, JobId, Status};

/// A job at the time of the response. Times are RFC 3339 in UTC with milliseconds, so their order as text is their order in
/// time.
///
/// Unknown fields of a newer server are ignored. If the record of a job is damaged, the server returns null for the fields
/// that it cannot read; here such a number is 0 and such a text is empty.
///
/// ```no_run
/// use threadq::client::{Client, Error};
/// use threadq::job::JobId;
///
/// fn price(client: &Client, id: JobId) -> Result<Option<u64>, Error> {
///     match client.get(id)?.result() {
///         Ok(cents) => Ok(Some(cents)),
///         // The job has not ended yet.
///         Err(Error::NotCompleted { status, .. }) if !status.is_final() => Ok(None),
///         // The job failed or was cancelled, or its result is not a number.
///         Err(error) => Err(error),
///     }
/// }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Job {
    /// Unique, and larger than the id of every job that was submitted before.
    pub id: JobId,
    /// The job type.
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub job_type: String,
    /// The queue of the job.
    pub queue: String,
    /// The status; `Queued` if the server cannot read it because the record of the job is damaged.
    #[serde(deserialize_with = "null_as_queued")]
    pub status: Status,
    /// As submitted; see [`Job::payload`].
    pub(crate) payload: Box<RawValue>,
    /// Attempts that ended since the job was submitted or last retried by an operator. Crashes do not count.
    #[serde(deserialize_with = "null_as_default")]
    pub attempts: u32,
    /// The number of failed attempts after which the job fails, 1 to 100.
    #[serde(deserialize_with = "null_as_default")]
    pub max_attempts: u32,
    /// Crashes of a server that were charged to this job.
    #[serde(deserialize_with = "null_as_default")]
    pub crashes: u32,
    /// The time limit of one attempt.
    #[serde(deserialize_with = "null_as_default")]
    pub timeout_ms: u64,
    /// The time of submission.
    pub created_at: String,
    /// The time at which a job with a delay or a backoff becomes or became ready.
    pub scheduled_at: Option<String>,
    /// The start of the latest attempt.
    pub started_at: Option<String>,
    /// The time at which the job was completed, failed or cancelled.
    pub finished_at: Option<String>,
    /// The error of the latest failed attempt; `None` once the job has completed.
    pub last_error: Option<String>,
    /// The last 10 errors, oldest first.
    pub errors: Vec<AttemptError>,
    /// As the handler returned it; see [`Job::result`].
    pub(crate) result: Option<Box<RawValue>>,
    /// The unique key that the job was submitted with.
    pub unique_key: Option<String>,
    /// The server that runs the job or ran it last.
    pub server: Option<String>,
    /// The large fields that a listing leaves out: `payload`, `result`, `checkpoint`, `errors` (all but the last). Empty for a
    /// job that was requested by its id.
    #[serde(default)]
    pub omitted: Vec<String>,
    /// What the queued job waits for.
    #[serde(default)]
    pub blocked_by: Option<BlockedBy>,
    /// The limits on the starts of the job: those that it was submitted with, and those of its type.
    #[serde(default)]
    pub limits: Vec<String>,
    /// The tags, by which the job is found.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The texts that were submitted for the handler, by name.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// The time after which no attempt starts.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// How long the job is kept after its end. `None`: as long as the settings of the server say.
    #[serde(default)]
    pub retain_ms: Option<u64>,
    /// How often the handler put the job off.
    #[serde(default)]
    pub snoozes: u64,
    /// The tick of the schedule that made the job.
    #[serde(default)]
    pub schedule: Option<ScheduleTick>,
    /// What the latest attempt said of its progress.
    #[serde(default)]
    pub progress: Option<Progress>,
    /// What an attempt left for the next one; see [`Job::checkpoint`].
    #[serde(default)]
    pub(crate) checkpoint: Option<Box<RawValue>>,
    /// The pull worker that has the job now.
    #[serde(default)]
    pub worker: Option<String>,
    /// The time at which the lease of this pull worker ends.
    #[serde(default)]
    pub lease_until: Option<String>,
    /// Why the job was cancelled: `request`, `expired` or `replaced`. `None` if the job is not cancelled.
    #[serde(default)]
    pub cancel_reason: Option<String>,
}

/// What an attempt said of its progress.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[non_exhaustive]
pub struct Progress {
    /// The part that is done, 0 to 1.
    pub value: f64,
    /// What the attempt does; may be empty.
    #[serde(default)]
    pub message: String,
    /// When the attempt said this.
    pub at: String,
}

/// A part of the log of a job.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[non_exhaustive]
pub struct JobLog {
    /// The lines, oldest first.
    pub lines: Vec<LogLine>,
    /// The number of the last line of the job; 0 if it has no line.
    pub total: u64,
}

/// A line of the log of a job.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[non_exhaustive]
pub struct LogLine {
    /// The number of the line, from 1.
    #[serde(rename = "n")]
    pub number: u64,
    /// When the line was stored.
    pub at: String,
    /// The text, one line of up to 1,000 characters.
    pub text: String,
}

/// What a queued job waits for.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[non_exhaustive]
pub struct BlockedBy {
    /// The limit that has no room for the job.
    pub limit: Option<String>,
}

/// The tick of a schedule that made a job.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[non_exhaustive]
pub struct ScheduleTick {
    /// The name of the schedule.
    pub name: String,
    /// The time for which the job was made.
    pub tick: String,
}

fn null_as_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn null_as_queued<'de, D: Deserializer<'de>>(from: D) -> Result<Status, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(Status::Queued))
}

/// Why an attempt failed.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct AttemptError {
    /// The number of the attempt, from 1. It starts at 1 again after an operator has retried the job.
    pub attempt: u32,
    /// The number of the start, from 1 and unique within the job. `None` if it equals `attempt`: it differs after a crash or
    /// a retry by an operator.
    #[serde(default)]
    pub start: Option<u64>,
    /// Whether the attempt failed or its server crashed.
    #[serde(default)]
    pub kind: ErrorKind,
    /// The time of the error.
    pub at: String,
    /// The text of the error.
    pub message: String,
}

impl Job {
    /// Whether the job is completed, failed or cancelled.
    pub fn has_ended(&self) -> bool {
        self.status.is_final()
    }

    /// The payload as a value of type `T`. `Box<RawValue>` of serde_json returns the JSON as it was submitted.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if the payload is not a `T`, or was [omitted](Job::omitted).
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.read("payload", &self.payload)
    }

    /// The result of a completed job as a value of type `T`; `()` fits a job without a result.
    ///
    /// # Errors
    /// [`Error::NotCompleted`] if the job has not completed. [`Error::Unreadable`] if the result is not a `T`, or was
    /// [omitted](Job::omitted).
    pub fn result<T: DeserializeOwned>(&self) -> Result<T, Error> {
        if self.status != Status::Completed {
            let last_error = self.last_error.clone();
            return Err(Error::NotCompleted { id: self.id, status: self.status, last_error });
        }
        match &self.result {
            Some(result) => self.read("result", result),
            None => self.read("result", RawValue::NULL),
        }
    }

    /// The checkpoint of the job as a value of type `T`; `None` if no attempt has set one.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if the checkpoint is not a `T`, or was [omitted](Job::omitted).
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        self.read("checkpoint", self.checkpoint.as_deref().unwrap_or(RawValue::NULL))
    }

    fn read<T: DeserializeOwned>(&self, field: &str, json: &RawValue) -> Result<T, Error> {
        let id = self.id;
        if self.omitted.iter().any(|omitted| omitted == field) {
            let message =
                format!("the {field} of job {id} is too large for a listing: get the job by its id");
            return Err(Error::Unreadable(Cause::new(message)));
        }
        serde_json::from_str(json.get()).map_err(|error| {
            let message = format!("the {field} of job {id} does not have the expected form: {error}");
            Error::Unreadable(Cause::of(message, error))
        })
    }
}
