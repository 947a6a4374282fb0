//! Errors of the queue, by what the caller can do about them.

use std::fmt;

use crate::job::JobId;

/// Why a call of the queue failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// Redis is unreachable, loading, read-only or too slow. Redis may have executed the call or not; try again later.
    Unavailable(String),
    /// The user of Redis lacks the right to run a command, or this Redis does not know the command. Nothing was changed,
    /// unless the command is WAIT.
    Denied(String),
    /// All connections of this process to Redis are in use; the value is their number. Nothing was sent; try again later.
    Busy(u32),
    /// Redis has reached its `maxmemory` and stores nothing new. Nothing was changed.
    Full,
    /// Fewer replicas of Redis have new jobs than wanted.
    NotReplicated {
        /// How many replicas have them.
        have: u32,
        /// How many replicas must have them.
        wanted: u32,
        /// Whether the jobs of this submission are stored. If not, nothing was sent.
        is_stored: bool,
    },
    /// This server is not registered: another server declared it dead, or Redis lost its data. Nothing was changed.
    Fenced,
    /// The queue does not understand a reply of Redis: a bug, or data that was modified outside threadq.
    Protocol(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Error::Unavailable(reason) => write!(f, "Redis is unavailable: {reason}"),
            Error::Denied(reason) => write!(f, "Redis denied a command: {reason}"),
            Error::Busy(number) => write!(f, "this server uses all its {number} connections to Redis"),
            Error::Full => f.write_str("Redis is full: it has reached its maxmemory"),
            Error::NotReplicated { have, wanted, is_stored: true } => {
                write!(f, "stored, but only {have} of {wanted} replicas have it")
            }
            Error::NotReplicated { have, wanted, is_stored: false } => {
                write!(f, "not sent to Redis, since only {have} of {wanted} replicas have earlier jobs")
            }
            Error::Fenced => f.write_str("this server is not registered in Redis"),
            Error::Protocol(reason) => write!(f, "unexpected reply of Redis: {reason}"),
        }
    }
}

impl std::error::Error for Error {}

/// Why a submission was refused. None of its jobs was stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The Idempotency-Key belongs to a request with another body.
    Mismatch,
    /// The live job with this id holds the unique key.
    Duplicate(JobId),
    /// The queue with this name has as many jobs as allowed.
    QueueFull(String),
    /// The expiry of the job at this place of the submission, from 0, has passed, or is not after the start of the job.
    Expired(u64),
    /// No limit has this name.
    UnknownLimit(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Refused::Mismatch => f.write_str("the Idempotency-Key belongs to another request"),
            Refused::Duplicate(holder) => write!(f, "job {holder} holds the unique key"),
            Refused::QueueFull(queue) => write!(f, "the queue {queue} is full"),
            Refused::Expired(place) => write!(f, "job {place} of the submission expires before its start"),
            Refused::UnknownLimit(limit) => write!(f, "there is no limit {limit:?}"),
        }
    }
}

impl std::error::Error for Refused {}

/// Why a submission failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SubmitError {
    /// Redis was reached, and the submission was refused. None of its jobs was stored.
    Refused(Refused),
    /// The call of the queue failed. After [`Error::Unavailable`] the jobs may have been stored.
    Queue(Error),
}

impl From<Refused> for SubmitError {
    fn from(refused: Refused) -> SubmitError {
        SubmitError::Refused(refused)
    }
}

impl From<Error> for SubmitError {
    fn from(error: Error) -> SubmitError {
        SubmitError::Queue(error)
    }
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            SubmitError::Refused(refused) => refused.fmt(f),
            SubmitError::Queue(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SubmitError {}

/// Why a connection could not be made: a clause for a log line.
#[derive(Debug)]
pub(super) struct ConnectError(pub(super) String);

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConnectError {}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why connections to Redis cannot be made with these settings. The text begins with the name of the setting, and shows
/// nothing of the URL, which may hold a password.
#[derive(Debug)]
pub enum SettingsError {
    /// `redis-url` cannot be read as the URL of a Redis.
    Url(Cause),
    /// `redis-url` asks for TLS, which is not possible.
    Tls(Cause),
    /// The file of the certificate authorities for Redis cannot be used.
    Authorities(Cause),
    /// The certificate for Redis and its key cannot be used.
    ClientCertificate(Cause),
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            SettingsError::Url(cause) => {
                write!(f, "redis-url: the value cannot be read as the URL of a Redis: {cause}")
            }
            SettingsError::Tls(cause) => write!(f, "redis-url: {cause}"),
            SettingsError::Authorities(cause) => write!(f, "the authorities for Redis: the file {cause}"),
            SettingsError::ClientCertificate(cause) => {
                write!(f, "the certificate for Redis: a file {cause}")
            }
        }
    }
}

impl std::error::Error for SettingsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let (SettingsError::Url(cause)
        | SettingsError::Tls(cause)
        | SettingsError::Authorities(cause)
        | SettingsError::ClientCertificate(cause)) = self;
        Some(&**cause)
    }
}
