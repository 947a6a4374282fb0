//! Why a server did not start.

use std::error::Error;
use std::fmt;
use std::io;

use crate::handler::HandlerError;

/// Why a server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The settings cannot work. The message names the setting.
    Configuration(String),
    /// A handler of the configuration cannot be made.
    Handler {
        /// The job type of the handler.
        job_type: String,
        /// Why the handler cannot be made.
        source: HandlerError,
    },
    /// The environment failed: no thread, no socket, Redis unreachable during a check, a private Redis that ended.
    Failed {
        /// The whole sentence, with the cause.
        message: String,
        /// The cause, if it is an error of its own.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The server was told to stop before it was ready.
    Stopped,
}

impl StartError {
    /// `context: cause`.
    pub(crate) fn failed(context: &str, cause: impl Into<Box<dyn Error + Send + Sync>>) -> StartError {
        let cause = cause.into();
        StartError::Failed { message: format!("{context}: {cause}"), source: Some(cause) }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            StartError::Configuration(message) | StartError::Failed { message, .. } => f.write_str(message),
            StartError::Handler { job_type, source } => write!(f, "handlers.{job_type:?}: {source}"),
            StartError::Stopped => f.write_str("the server was told to stop before it was ready"),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            StartError::Failed { source: Some(source), .. } => Some(source.as_ref()),
            StartError::Handler { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> StartError {
        StartError::Failed { message: error.to_string(), source: Some(error.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_cause() {
        let error = StartError::failed("cannot start the thread \"janitor\"", io::Error::other("no memory"));
        assert_eq!(error.to_string(), "cannot start the thread \"janitor\": no memory");
        assert!(error.source().is_some_and(|cause| cause.is::<io::Error>()));
        assert!(StartError::Stopped.source().is_none());
    }
}
