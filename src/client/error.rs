//! The client's errors: one variant for each thing that a caller can do about a failed call.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::job::{JobId, Status};

/// Why a call of the [`Client`](super::Client) failed. Its text is one line.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// An argument cannot be sent: a URL, a token, a key, or a payload that has no JSON form. No request was sent.
    Invalid(Cause),
    /// No connection to the server could be made. No request was sent.
    Unreachable(Cause),
    /// A request was sent, and no complete response arrived. The server may have carried the request out.
    NoResponse(Cause),
    /// The server refused the request.
    Refused(Refusal),
    /// A response, a payload or a result does not have the expected form.
    Unreadable(Cause),
    /// The job has no result, because it has not completed.
    NotCompleted {
        /// The job.
        id: JobId,
        /// The status of the job.
        status: Status,
        /// The error of the latest attempt.
        last_error: Option<String>,
    },
}

/// A message for the operator, and the error that caused it. Two causes are equal if their messages are.
#[derive(Clone, Debug)]
pub struct Cause {
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Cause {
    /// A cause without an error below it.
    pub(crate) fn new(message: impl Into<String>) -> Cause {
        Cause { message: message.into(), source: None }
    }

    /// A cause whose [`source`](StdError::source) is `source`.
    pub(crate) fn of(message: impl Into<String>, source: impl StdError + Send + Sync + 'static) -> Cause {
        Cause { message: message.into(), source: Some(Arc::new(source)) }
    }

    /// The message: one line.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl PartialEq for Cause {
    fn eq(&self, other: &Cause) -> bool {
        self.message == other.message
    }
}

impl Eq for Cause {}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A request that the server refused.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// The HTTP status, 300 or higher.
    pub status: u16,
    /// The `code` of the response, such as `duplicate`; empty if the response is not one of threadq.
    pub code: String,
    /// The `error` of the response: one sentence.
    pub message: String,
    /// With code `duplicate`: the job that holds the unique key.
    pub job_id: Option<JobId>,
    /// The `Retry-After` of the response.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// Whether the same request can succeed later without any change: the server or its Redis is unavailable.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Unreachable(_) | Error::NoResponse(_) => true,
            Error::Refused(refusal) => matches!(refusal.status, 502..=504),
            Error::Invalid(_) | Error::Unreadable(_) | Error::NotCompleted { .. } => false,
        }
    }

    /// The `code` of a refused request; `None` for any other error.
    ///
    /// ```
    /// use threadq::client::{Client, Error, Submission};
    ///
    /// fn ensure_one(client: &Client) -> Result<(), Error> {
    ///     match client.submit(&Submission::new("rebuild index").unique_key("index")) {
    ///         // A job with this key waits or runs already.
    ///         Err(error) if error.code() == Some("duplicate") => Ok(()),
    ///         other => other.map(drop),
    ///     }
    /// }
    /// ```
    pub fn code(&self) -> Option<&str> {
        match self {
            Error::Refused(refusal) => Some(&refusal.code),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Error::Invalid(cause)
            | Error::Unreachable(cause)
            | Error::NoResponse(cause)
            | Error::Unreadable(cause) => cause.fmt(f),
            Error::Refused(Refusal { code, message, .. }) if code.is_empty() => f.write_str(message),
            Error::Refused(Refusal { code, message, .. }) => write!(f, "{message} ({code})"),
            Error::NotCompleted { id, status, last_error: None } => {
                write!(f, "job {id} has no result: its status is {status}")
            }
            Error::NotCompleted { id, status, last_error: Some(error) } => {
                write!(f, "job {id} has no result: its status is {status}, its last error: {error}")
            }
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Invalid(cause)
            | Error::Unreachable(cause)
            | Error::NoResponse(cause)
            | Error::Unreadable(cause) => cause.source.as_deref().map(|source| source as _),
            Error::Refused(_) | Error::NotCompleted { .. } => None,
        }
    }
}
