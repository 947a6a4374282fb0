//! Why a private redis-server could not be started.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why the private redis-server could not be started. Each text is one line for the operator.
#[derive(Debug)]
pub enum StartError {
    /// No redis-server is on PATH.
    NotFound,
    /// The redis-server on PATH is older than 7.0, or did not print its version.
    Version {
        /// The version.
        found: String,
    },
    /// `redis-server --version` did not end in time.
    VersionTimeout {
        /// The program.
        program: PathBuf,
        /// The time limit.
        limit: Duration,
    },
    /// The folder cannot be created or used.
    DataDir {
        /// The folder.
        data_dir: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Another threadq server uses the folder.
    InUse {
        /// The folder.
        data_dir: PathBuf,
    },
    /// Another process, or a redis-server that does not respond, listens on the socket in the folder.
    SocketInUse {
        /// The folder.
        data_dir: PathBuf,
        /// A clause about the process.
        owner: String,
    },
    /// The program could not be executed.
    Spawn {
        /// The program.
        program: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// redis-server exited before it was ready.
    Died {
        /// The exit status.
        status: ExitStatus,
        /// The last line of its log.
        last_log_line: String,
        /// The file of its log.
        log: PathBuf,
    },
    /// The start was cancelled.
    Stopped,
}

impl StartError {
    /// Whether the operator has to change a setting or install a program (exit code 2). Otherwise the failure may be
    /// temporary (exit code 1).
    pub fn is_configuration(&self) -> bool {
        match self {
            StartError::NotFound
            | StartError::Version { .. }
            | StartError::DataDir { .. }
            | StartError::InUse { .. }
            | StartError::SocketInUse { .. } => true,
            StartError::VersionTimeout { .. }
            | StartError::Spawn { .. }
            | StartError::Died { .. }
            | StartError::Stopped => false,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            StartError::NotFound => f.write_str(
                "redis-server is not on PATH: install it (Debian, Ubuntu: apt-get install redis-server; Fedora: \
                 dnf install valkey; macOS: brew install redis), or give the URL of a running Redis with --redis-url",
            ),
            StartError::Version { found } => write!(
                f,
                "the redis-server on PATH has {found}; allowed: 7.0 or newer; install a newer one, or give the URL \
                 of a running Redis with --redis-url"
            ),
            StartError::VersionTimeout { program, limit } => write!(
                f,
                "{} --version did not end within {limit:?}: check the program, or give the URL of a running Redis \
                 with --redis-url",
                program.display()
            ),
            StartError::DataDir { data_dir, source } => {
                write!(f, "data-dir {}: {source}; must be a folder that threadq can write", data_dir.display())
            }
            StartError::InUse { data_dir } => write!(
                f,
                "data-dir {}: another threadq server uses it; give each server its own, or a shared --redis-url",
                data_dir.display()
            ),
            StartError::SocketInUse { data_dir, owner } => write!(
                f,
                "data-dir {}: {owner}; end that process, or give another --data-dir",
                data_dir.display()
            ),
            StartError::Spawn { program, source } => {
                write!(f, "cannot run {}: {source}", program.display())
            }
            StartError::Died { status, last_log_line, log } => write!(
                f,
                "the private redis-server exited during its start ({status}); last log line: {last_log_line} \
                 (log: {})",
                log.display()
            ),
            StartError::Stopped => f.write_str("the start was cancelled"),
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
