//! Why a command ended badly, and the exit code that says so.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::client;
use crate::logging::escape::escape;

/// Why a command ended badly: one variant for each thing that the caller does about it.
#[derive(Debug)]
pub(super) enum Error {
    /// The command line is wrong: exit 2. Says what was wrong and what is allowed.
    Usage(String),
    /// The server said no, or gave no answer.
    Client(client::Error),
    /// Nobody answered for long. Asking again later may help.
    NoResponse(String),
    /// Anything else that went wrong while running: exit 1.
    Failed(String),
    /// Whoever read our output has had enough (`| head`). No failure: exit 0, quietly.
    OutputClosed,
}

impl Error {
    /// Whether the same question may be answered later: the server, or its Redis, is away.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Error::NoResponse(_) => true,
            Error::Client(error) => error.is_transient(),
            Error::Usage(_) | Error::Failed(_) | Error::OutputClosed => false,
        }
    }

    /// The program's exit code.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Error::Usage(_) => ExitCode::from(2),
            Error::Client(_) | Error::NoResponse(_) | Error::Failed(_) => ExitCode::FAILURE,
            Error::OutputClosed => ExitCode::SUCCESS,
        }
    }

    /// Whether there is anything to tell.
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

/// What the caller of the command line can do about it.
fn hint(error: &client::Error) -> &'static str {
    match error {
        client::Error::Unreachable(_) => " (start one with \"threadq serve\", or name it with --server)",
        client::Error::Refused(refusal) if refusal.status == 401 && !refusal.code.is_empty() => {
            "; the token is taken from THREADQ_API_TOKEN or the file named by THREADQ_API_TOKEN_FILE"
        }
        _ => "",
    }
}

impl std::error::Error for Error {}

impl From<client::Error> for Error {
    fn from(error: client::Error) -> Error {
        Error::Client(error)
    }
}

/// The only plain I/O of the commands is writing to stdout.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Error::OutputClosed,
            _ => Error::Failed(format!("cannot write the output: {error}")),
        }
    }
}
