//! A job as the API tells it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::error::Error;
use crate::job::{ErrorKind, JobId, Status};

/// A job, as it was when the server answered. Times are RFC 3339 in UTC with milliseconds, so they sort as texts.
///
/// Fields that a newer server may add are ignored. Where a job's record is damaged, the server gives null for what it cannot
/// read; here a number is 0 then and a text empty.
///
/// ```no_run
/// use threadq::client::{Client, Error};
/// use threadq::job::JobId;
///
/// fn price(client: &Client, id: JobId) -> Result<Option<u64>, Error> {
///     match client.get(id)?.result() {
///         Ok(cents) => Ok(Some(cents)),
///         // It has not ended yet.
///         Err(Error::NotCompleted { status, .. }) if !status.is_final() => Ok(None),
///         // It failed or was cancelled, or its result is no number.
///         Err(error) => Err(error),
///     }
/// }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Job {
    /// Unique, and larger than the id of every job submitted before.
    pub id: JobId,
    /// The type.
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub job_type: String,
    /// The queue that it goes through.
    pub queue: String,
    /// Where it stands. `Queued` where the server cannot read it, because the job's record is damaged.
    #[serde(deserialize_with = "null_as_queued")]
    pub status: Status,
    /// As it was submitted; see [`Job::payload`].
    pub(crate) payload: Box<RawValue>,
    /// Runs that ended or failed since it was submitted or sent back; crashes don't count.
    #[serde(deserialize_with = "null_as_default")]
    pub attempts: u32,
    /// After so many failed attempts it is failed.
    #[serde(deserialize_with = "null_as_default")]
    pub max_attempts: u32,
    /// How often its server died while it ran and it was held to be the reason.
    #[serde(deserialize_with = "null_as_default")]
    pub crashes: u32,
    /// How long one attempt may take.
    #[serde(deserialize_with = "null_as_default")]
    pub timeout_ms: u64,
    /// When it was submitted.
    pub created_at: String,
    /// When it becomes or became ready, for a job with a delay or a backoff.
    pub scheduled_at: Option<String>,
    /// Start of the latest attempt.
    pub started_at: Option<String>,
    /// When it was completed, failed or cancelled.
    pub finished_at: Option<String>,
    /// The error of the latest failure; `None` once it completed.
    pub last_error: Option<String>,
    /// The last 10 errors, oldest first.
    pub errors: Vec<AttemptError>,
    /// What the handler gave; see [`Job::result`].
    pub(crate) result: Option<Box<RawValue>>,
    /// The key it holds, or held, against a second one like it.
    pub unique_key: Option<String>,
    /// The server that has or had it last.
    pub server: Option<String>,
    /// What a listing has left out because it is large: `payload`, `result`, `errors` (all but the last). Empty for a
    /// job that was asked for by its id.
    #[serde(default)]
    pub omitted: Vec<String>,
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
    /// Which attempt, from 1. Attempts count from 1 again after a person has sent the job back.
    pub attempt: u32,
    /// Which start of the job, from 1, where it differs from `attempt`: after a crash or a person's retry. No two attempts
    /// share it.
    #[serde(default)]
    pub start: Option<u64>,
    /// Whether it failed or its server died.
    #[serde(default)]
    pub kind: ErrorKind,
    /// When.
    pub at: String,
    /// What went wrong.
    pub message: String,
}

impl Job {
    /// Whether the job is completed, failed or cancelled.
    pub fn has_ended(&self) -> bool {
        self.status.is_final()
    }

    /// The payload as a value of the caller's type. `Box<RawValue>` of serde_json gives it as it was sent.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if it does not fit, or was [omitted](Job::omitted).
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.read("payload", &self.payload)
    }

    /// The result of a completed job as a value of the caller's type; a handler that gave none gave `()`.
    ///
    /// # Errors
    /// [`Error::NotCompleted`] if it has not completed, [`Error::Unreadable`] if its result does not fit, or was
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

    fn read<T: DeserializeOwned>(&self, what: &str, json: &RawValue) -> Result<T, Error> {
        if self.omitted.iter().any(|omitted| omitted == what) {
            return Err(Error::Unreadable(format!(
                "the {what} of job {} is too large for a listing: get the job by its id",
                self.id
            )));
        }
        serde_json::from_str(json.get()).map_err(|error| {
            Error::Unreadable(format!("the {what} of job {} does not fit: {error}", self.id))
        })
    }
}
