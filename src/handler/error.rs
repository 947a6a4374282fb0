//! Why a handler cannot be made.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use super::limits::LimitsError;

/// Why an [`ExecHandler`](super::exec::ExecHandler) or an [`HttpHandler`](super::http::HttpHandler) cannot be made.
///
/// As text it is one line for the operator. The text of a URL, which may hold a secret, is not in it.
#[derive(Debug)]
#[non_exhaustive]
pub enum HandlerError {
    /// The command is empty.
    NoProgram,
    /// An argument has a NUL character, which the system cannot pass to a program.
    NulInArgument {
        /// The first word of the command.
        program: String,
    },
    /// The folder of the configuration has no absolute path.
    Folder(io::Error),
    /// No folder on PATH has this program.
    NotOnPath {
        /// The name of the program.
        program: String,
    },
    /// The system cannot execute the file.
    NotExecutable {
        /// The path of the file.
        program: PathBuf,
        /// Why, as the end of a sentence that begins with the file.
        problem: String,
    },
    /// The limits cannot be set.
    Limits(LimitsError),
    /// The URL is not valid.
    Url {
        /// What is wrong with the URL, as the end of a sentence that begins with "the URL".
        problem: String,
    },
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            HandlerError::NoProgram => f.write_str("exec needs at least the name of a program"),
            HandlerError::NulInArgument { program } => {
                write!(f, "an argument of {program:?} has a NUL character in it")
            }
            HandlerError::Folder(error) => write!(f, "the folder of the configuration: {error}"),
            HandlerError::NotOnPath { program } => write!(f, "the program {program:?} is not on PATH"),
            HandlerError::NotExecutable { program, problem } => {
                write!(f, "the program {} {problem}", program.display())
            }
            HandlerError::Limits(error) => write!(f, "limits: {error}"),
            HandlerError::Url { problem } => write!(f, "http: the URL {problem}"),
        }
    }
}

impl Error for HandlerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            HandlerError::Folder(error) => Some(error),
            HandlerError::Limits(error) => Some(error),
            _ => None,
        }
    }
}
