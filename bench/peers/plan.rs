//! What one call of the bench measures.

use std::path::PathBuf;
use std::time::Duration;

/// What the flags ask for.
#[derive(Clone)]
pub struct Plan {
    pub jobs: usize,
    pub workers: usize,
    pub payload: usize,
    pub lone: usize,
    pub idle: Duration,
    pub aof: bool,
    /// Redis's hash-max-listpack-value, if not its default.
    pub listpack_value: Option<u32>,
    pub program: PathBuf,
}

impl Plan {
    /// A job's payload: JSON of `payload` bytes.
    pub fn payload_json(&self) -> String {
        let frame = r#"{"text":""}"#.len();
        format!(r#"{{"text":"{}"}}"#, "x".repeat(self.payload.saturating_sub(frame)))
    }

    /// Jobs that a run of lone jobs starts with and does not count, so that each worker has run one.
    pub fn lone_warm_up(&self) -> usize {
        2 * self.workers
    }
}
