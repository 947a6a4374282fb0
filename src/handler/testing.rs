//! Helpers for the unit tests of handlers.

use std::fs;

use serde_json::value::RawValue;

use super::{JobContext, StopSignal};
use crate::job::{DEFAULT_QUEUE, Job, JobId, Status};
use crate::wait::{LIMIT, eventually};

/// A job at its first attempt.
pub(crate) fn job(payload: &str) -> Job {
    Job {
        id: JobId::new(1_764_000_000_000_123).unwrap(),
        job_type: "Encode Video".to_owned(),
        queue: DEFAULT_QUEUE.to_owned(),
        status: Status::Processing,
        payload: RawValue::from_string(payload.to_owned()).unwrap(),
        attempts: 0,
        max_attempts: 5,
        crashes: 0,
        timeout_ms: 300_000,
        scheduled_at_ms: None,
        ready_again_at_ms: None,
        started_at_ms: None,
        finished_at_ms: None,
        errors: Vec::new(),
        result: None,
        unique_key: None,
        server: None,
        starts: 1,
        tags: Vec::new(),
        meta: Vec::new(),
        expires_at_ms: None,
        retain_ms: None,
        snoozes: 0,
        schedule: None,
        cancel_reason: None,
        unreadable: Vec::new(),
        omitted: Vec::new(),
    }
}

/// The first attempt at a job with this payload; it gets no stop signal.
pub(crate) fn context(payload: &str) -> JobContext {
    JobContext::new(job(payload), StopSignal::default())
}

/// Waits until the process has ended. A zombie, which its new parent has not reaped yet, counts as ended.
pub(crate) fn assert_gone(pid: &str) {
    assert!(pid.parse::<u32>().is_ok(), "{pid:?} is not a process id");
    eventually(LIMIT, &format!("process {pid} is gone"), || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with(['Z', 'X']))
    });
}
