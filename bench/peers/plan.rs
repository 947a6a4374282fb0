//! The parameters of one run of the bench.

use std::path::PathBuf;
use std::time::Duration;

/// The parameters, as set by the flags.
#[derive(Clone)]
pub struct Plan {
    pub jobs: usize,
    pub workers: usize,
    pub payload: usize,
    pub lone: usize,
    pub idle: Duration,
    pub aof: bool,
    /// Redis's `hash-max-listpack-value`; `None` for its default.
    pub listpack_value: Option<u32>,
    pub program: PathBuf,
}

impl Plan {
    /// The payload of a job: JSON of `payload` bytes.
    pub fn payload_json(&self) -> String {
        let frame = r#"{"text":""}"#.len();
        format!(r#"{{"text":"{}"}}"#, "x".repeat(self.payload.saturating_sub(frame)))
    }

    /// The number of lone jobs before the measurement, so that each worker has run a job.
    pub fn lone_warm_up(&self) -> usize {
        2 * self.workers
    }
}
