//! The settings of programs that stay.

use std::time::Duration;

/// How many programs of a handler stay, and how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lines {
    /// The most programs at a time on one server: 1 to 1,000. `None`: as many as the server has workers.
    pub processes: Option<u32>,
    /// After so many jobs a program is ended, and another one is started for the next job: up to 1,000,000,000. 0: never.
    /// Defaults to 1,000.
    pub max_jobs: u32,
    /// A program that gets no job for so long is ended: 1 ms to 365 days. Defaults to 60 s.
    pub idle: Duration,
}

impl Default for Lines {
    fn default() -> Lines {
        Lines { processes: None, max_jobs: 1_000, idle: Duration::from_secs(60) }
    }
}
