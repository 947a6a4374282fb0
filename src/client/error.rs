//! Why the client has no answer to give, in variants that a program can match on.

use std::fmt;
use std::time::Duration;

use crate::job::{JobId, Status};

/// Why a call of the [`Client`](super::Client) failed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The caller gave something that cannot be sent: a URL, a token, a key, or a payload that is no JSON. Nothing was
    /// sent.
    Invalid(String),
    /// No server was reached. Nothing was sent.
    Unreachable(String),
    /// A server was reached, and no whole answer came back: the request may have been carried out or not.
    NoAnswer(String),
    /// The server answered, and said no.
    Refused(Refusal),
    /// The answer, a payload or a result is not what was expected.
    Unreadable(String),
    /// The job has no result, because it did not complete, or not yet.
    NotCompleted {
        /// Which job.
        id: JobId,
        /// Where it stands.
        status: Status,
        /// The error of its latest attempt.
        last_error: Option<String>,
    },
}

/// A request that the server refused.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The API's word for a program, such as `duplicate`; empty if the answer was none of threadq's.
    pub code: String,
    /// A sentence for a person.
    pub message: String,
    /// With `duplicate`: the job that holds the unique key.
    pub job_id: Option<JobId>,
    /// After which time the server would like to be asked again.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// Whether the same request may be answered later: the server, or its Redis, is away.
    pub fn may_pass(&self) -> bool {
        match self {
            Error::Unreachable(_) | Error::NoAnswer(_) => true,
            Error::Refused(refusal) => matches!(refusal.status, 502..=504),
            Error::Invalid(_) | Error::Unreadable(_) | Error::NotCompleted { .. } => false,
        }
    }

    /// The API's word for a refusal.
    ///
    /// ```
    /// use threadq::client::{Client, Error, Submission};
    ///
    /// fn ensure_one(client: &Client) -> Result<(), Error> {
    ///     match client.submit(&Submission::new("rebuild index").unique_key("index")) {
    ///         // Another one waits or runs: as good.
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
            Error::Invalid(text)
            | Error::Unreachable(text)
            | Error::NoAnswer(text)
            | Error::Unreadable(text) => f.write_str(text),
            Error::Refused(Refusal { code, message, .. }) if code.is_empty() => f.write_str(message),
            Error::Refused(Refusal { code, message, .. }) => write!(f, "{message} ({code})"),
            Error::NotCompleted { id, status, last_error: None } => {
                write!(f, "job {id} has no result: it is {status}")
            }
            Error::NotCompleted { id, status, last_error: Some(error) } => {
                write!(f, "job {id} has no result: it is {status}: {error}")
            }
        }
    }
}

impl std::error::Error for Error {}
