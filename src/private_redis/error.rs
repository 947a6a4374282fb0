//! Why a private redis-server could not be started, and how to say it in one line.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Why the private redis-server could not be started. Each is one line for a person.
#[derive(Debug)]
pub enum StartError {
    /// There is none on PATH.
    NotFound,
    /// The one on PATH is older than 7.0, or does not say its version.
    Version {
        /// What was found.
        found: String,
    },
    /// The folder cannot be made or used.
    DataDir {
        /// The folder.
        data_dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another server has this folder.
    InUse {
        /// The folder.
        data_dir: PathBuf,
    },
    /// Something else, or a redis-server that does not answer, has the socket in this folder.
    Foreign {
        /// The folder.
        data_dir: PathBuf,
        /// What is known of it.
        what: String,
    },
    /// The program could not be run.
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// redis-server ended instead of getting ready.
    Died {
        /// How it ended.
        status: ExitStatus,
        /// The last line that it wrote.
        last_words: String,
        /// Where the rest is.
        log: PathBuf,
    },
    /// The start was told to stop.
    Stopped,
}

impl StartError {
    /// Whether the user has to change a setting or install something (exit code 2), as against a failure at run time
    /// (exit code 1).
    pub fn is_configuration(&self) -> bool {
        !matches!(self, StartError::Spawn { .. } | StartError::Died { .. } | StartError::Stopped)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            StartError::NotFound => f.write_str(
                "redis-server is not on PATH: install it (Debian, Ubuntu: apt-get install redis-server; Fedora: \
                 dnf install valkey; macOS: brew install redis), or name a running Redis with --redis-url",
            ),
            StartError::Version { found } => write!(
                f,
                "the redis-server on PATH is {found}, allowed is 7.0 or newer: install a newer one, or name a \
                 running Redis with --redis-url"
            ),
            StartError::DataDir { data_dir, source } => {
                write!(f, "data-dir {}: {source}; it must be a folder that threadq can write", data_dir.display())
            }
            StartError::InUse { data_dir } => write!(
                f,
                "data-dir {}: another threadq server uses it; each server needs its own, or a shared --redis-url",
                data_dir.display()
            ),
            StartError::Foreign { data_dir, what } => write!(
                f,
                "data-dir {}: {what}; end that process, or choose another --data-dir",
                data_dir.display()
            ),
            StartError::Spawn { program, source } => {
                write!(f, "{} could not be run: {source}", program.display())
            }
            StartError::Died { status, last_words, log } => write!(
                f,
                "the private redis-server ended at once ({status}), its last words: {last_words} (more in {})",
                log.display()
            ),
            StartError::Stopped => f.write_str("the start was told to stop"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::DataDir { source, .. } | StartError::Spawn { source, .. } => Some(source),
            _ => None,
        }
    }
}
