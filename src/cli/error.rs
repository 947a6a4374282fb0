//! The errors of a command, and their exit codes.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::client;
use crate::logging::escape::escape;

/// Why a command failed: one variant for each exit code and hint.
#[derive(Debug)]
pub(super) enum Error {
    /// The command line or the environment is wrong: exit code 2. The text says what is wrong and what is allowed.
    Usage(String),
    /// The server refused the request, or no response arrived: exit code 1.
    Client(client::Error),
    /// No response arrived within the time limit of all retries: exit code 1.
    NoResponse(String),
    /// Any other failure: exit code 1.
    Failed(String),
    /// The reader of stdout has closed it, as `head` does: exit code 0, without a message.
    OutputClosed,
}

impl Error {
    /// Whether the same command can succeed later: the server or its Redis is unavailable.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Error::NoResponse(_) => true,
            Error::Client(error) => error.is_transient(),
            Error::Usage(_) | Error::Failed(_) | Error::OutputClosed => false,
        }
    }

    /// The exit code of the program.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Error::Usage(_) => ExitCode::from(2),
            Error::Client(_) | Error::NoResponse(_) | Error::Failed(_) => ExitCode::FAILURE,
            Error::OutputClosed => ExitCode::SUCCESS,
        }
    }

    /// Whether no message is printed.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self, Error::OutputClosed)
    }
}

/// One line, safe to show on a terminal.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Error::Usage(text) | Error::NoResponse(text) | Error::Failed(text) => f.write_str(&escape(text)),
            Error::Client(error) => {
                f.write_str(&escape(&error.to_string()))?;
                f.write_str(hint(error))
            }
            Error::OutputClosed => f.write_str("the output was closed"),
        }
    }
}

/// What the user can do about an error of the client.
fn hint(error: &client::Error) -> &'static str {
    match error {
        client::Error::Unreachable(_) => "; start one with \"threadq serve\", or give its URL with --server",
        client::Error::Refused(refusal) if refusal.status == 401 && !refusal.code.is_empty() => {
            "; the token comes from THREADQ_API_TOKEN, or from the file that THREADQ_API_TOKEN_FILE names"
        }
        _ => "",
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Client(error) => Some(error),
            _ => None,
        }
    }
}

impl From<client::Error> for Error {
    fn from(error: client::Error) -> Error {
        Error::Client(error)
    }
}

/// The commands do no other I/O of this kind than writing to stdout.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Error::OutputClosed,
            _ => Error::Failed(format!("cannot write the output: {error}")),
        }
    }
}
