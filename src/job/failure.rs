//! What a handler returns: a result, or why there is none.

use std::time::Duration;

use serde_json::value::RawValue;

use super::rules::SNOOZE;

/// Why an attempt failed, and whether the job is tried again.
///
/// Every error type converts into a retryable failure, so `?` in a handler means "try again later".
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
    /// The job is tried again after its backoff, or goes to the dead letter queue after its last attempt.
    Retryable {
        /// What went wrong, for the operator. 1,000 characters of it are kept.
        message: String,
        /// The shortest backoff, for example from a `Retry-After` header. `None`: the backoff of the handler alone.
        retry_after: Option<Duration>,
    },
    /// The job goes to the dead letter queue at once: another attempt would fail too.
    Permanent {
        /// What went wrong, for the operator. 1,000 characters of it are kept.
        message: String,
    },
    /// The job runs again after this time. Neither an attempt nor an error is counted.
    Snooze(Duration),
}

impl Failure {
    /// A failure after which the job is tried again.
    pub fn retryable(message: impl Into<String>) -> Failure {
        Failure::Retryable { message: message.into(), retry_after: None }
    }

    /// A failure after which the job is not tried again.
    pub fn permanent(message: impl Into<String>) -> Failure {
        Failure::Permanent { message: message.into() }
    }

    /// No failure: the job cannot run yet, and runs again after this time, 1 s to 365 days. A shorter time becomes 1 s, a
    /// longer one 365 days.
    pub fn snooze(time: Duration) -> Failure {
        Failure::Snooze(time.clamp(*SNOOZE.start(), *SNOOZE.end()))
    }

    /// What went wrong, for the operator.
    pub fn message(&self) -> &str {
        match self {
            Failure::Retryable { message, .. } | Failure::Permanent { message } => message,
            Failure::Snooze(_) => "snoozed",
        }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::retryable(error.to_string())
    }
}

/// What a handler returns: the job's result as JSON, or why the attempt failed.
pub type Outcome = Result<Box<RawValue>, Failure>;
