//! Sends single commands to the private Redis on its unix socket.
//!
//! Each command has its own connection with time limits, because the process that listens may be stuck or may not be a
//! Redis. The Redis client only parses the reply.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use redis::{RedisError, Value};

/// The time limit for sending a command, and for each read of its reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest reply: far more than any of these commands has.
const MAX_REPLY_BYTES: u64 = 64 * 1024;

/// Why a command has no reply.
#[derive(Debug)]
pub(crate) enum AskError {
    /// No process listens on the socket.
    NotListening,
    /// The reply is an error of Redis.
    Server(RedisError),
    /// The reply does not follow the protocol of Redis, so the process is not a Redis.
    Invalid,
    /// The connection failed or timed out.
    Io(io::Error),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            AskError::NotListening => f.write_str("no process listens on its socket"),
            // As Redis sent it: the client would put its own name of the error in front.
            AskError::Server(error) => {
                write!(f, "{} {}", error.code().unwrap_or_default(), error.detail().unwrap_or_default())
            }
            AskError::Invalid => f.write_str("the reply does not follow the protocol of Redis"),
            AskError::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
                write!(f, "no reply within {REPLY_TIMEOUT:?}")
            }
            AskError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AskError::NotListening | AskError::Invalid => None,
            AskError::Server(error) => Some(error),
            AskError::Io(error) => Some(error),
        }
    }
}

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> AskError {
        AskError::Io(error)
    }
}

/// Sends a command, whose arguments contain no spaces, and returns the texts of its reply. Blocks for a second at most, or
/// longer if the reply arrives in pieces.
pub(crate) fn ask(socket: &Path, command: &str) -> Result<Vec<Vec<u8>>, AskError> {
    let mut stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotListening,
        _ => AskError::Io(error),
    })?;
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    read_reply(stream)
}

/// Reads one reply: a text or a list of texts.
pub(crate) fn read_reply(stream: impl Read) -> Result<Vec<Vec<u8>>, AskError> {
    let reply = redis::Parser::new().parse_value(stream.take(MAX_REPLY_BYTES)).map_err(no_reply)?;
    match reply.extract_error().map_err(AskError::Server)? {
        Value::Array(items) => items.into_iter().map(text).collect(),
        item => Ok(vec![text(item)?]),
    }
}

fn no_reply(error: RedisError) -> AskError {
    if error.is_timeout() {
        AskError::Io(io::ErrorKind::TimedOut.into())
    } else if error.is_io_error() {
        AskError::Io(io::Error::other(error))
    } else {
        AskError::Invalid
    }
}

fn text(item: Value) -> Result<Vec<u8>, AskError> {
    match item {
        Value::BulkString(text) => Ok(text),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        Value::Okay => Ok(b"OK".to_vec()),
        _ => Err(AskError::Invalid),
    }
}
