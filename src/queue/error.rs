//! What can go wrong between the queue and Redis, by what the caller can do about it.

use std::fmt;

/// Why a call to the queue came to nothing.
#[derive(Clone, Debug)]
pub enum Error {
    /// Redis is away, loading, read-only, or takes too long. Whether the call was carried out is open; ask again later.
    Unavailable(String),
    /// The user of Redis may not do this, or this Redis does not know the command. Nothing was changed.
    Denied(String),
    /// All connections of this process to Redis, so many, are in use. Nothing was sent; ask again later.
    Busy(u32),
    /// Redis is at its `maxmemory` and took nothing new. Nothing was changed.
    Full,
    /// Redis answered something that the queue does not understand: a bug, or a stranger's hand in the data.
    Protocol(String),
}

/// The result of a call to the queue.
pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Error::Unavailable(reason) => write!(f, "Redis is unavailable: {reason}"),
            Error::Denied(reason) => write!(f, "Redis does not allow it: {reason}"),
            Error::Busy(number) => write!(f, "this server uses all its {number} connections to Redis"),
            Error::Full => f.write_str("Redis is full: it has reached its maxmemory"),
            Error::Protocol(reason) => write!(f, "unexpected answer of Redis: {reason}"),
        }
    }
}

impl std::error::Error for Error {}
