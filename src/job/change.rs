//! The change of a job that has not started.

use std::time::Duration;

use serde_json::value::RawValue;

use super::bounds::{Expiry, Start};

/// New values for a job that waits: each field that is `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Any JSON value.
    pub payload: Option<Box<RawValue>>,
    /// The queue to which the job moves: 1 to 64 of `A-Z a-z 0-9 _ . -`.
    pub queue: Option<String>,
    /// When the job becomes ready, at most 365 days from now.
    pub start: Option<Start>,
    /// 1 to 100.
    pub max_attempts: Option<u32>,
    /// 1 ms to 24 h.
    pub timeout: Option<Duration>,
    /// The time after which no attempt starts.
    pub expiry: Option<Expiry>,
    /// All tags of the job: 0 to 5 of 1 to 64 characters.
    pub tags: Option<Vec<String>>,
}
