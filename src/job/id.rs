//! A job's id.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A job's id: the time of its submission in microseconds of Redis's clock, made unique over all servers.
///
/// From 1 to 2^53 - 1, so that every JSON reader keeps it exact. A job that was submitted later has a larger id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct JobId(u64);

impl JobId {
    /// The largest id.
    pub(crate) const MAX: u64 = (1 << 53) - 1;

    /// The id with this number; `None` for 0 and from 2^53 on.
    pub fn new(number: u64) -> Option<JobId> {
        (1..=JobId::MAX).contains(&number).then_some(JobId(number))
    }

    /// The id as a number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The time of the job's submission by Redis's clock, in milliseconds since 1970.
    pub fn created_at_ms(self) -> u64 {
        self.0 / 1000
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = InvalidId;

    /// Reads decimal digits without sign, leading zero or white space.
    fn from_str(text: &str) -> Result<JobId, InvalidId> {
        let canonical = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        let number = if canonical { text.parse().ok() } else { None };
        number.and_then(JobId::new).ok_or(InvalidId)
    }
}

impl TryFrom<u64> for JobId {
    type Error = InvalidId;

    fn try_from(number: u64) -> Result<JobId, InvalidId> {
        JobId::new(number).ok_or(InvalidId)
    }
}

/// The error for a text or number that is not a [`JobId`].
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidId;

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a job id is a whole number from 1 to 9007199254740991")
    }
}

impl std::error::Error for InvalidId {}
