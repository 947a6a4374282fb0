//! Helpers for the unit tests of handlers.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::value::RawValue;

use super::{Attempts, JobContext, StopSignal};
use crate::job::{AttemptId, Job, JobId, Report, Status};
use crate::sync;
use crate::wait::{LIMIT, eventually};

/// A job at its first attempt.
pub(crate) fn job(payload: &str) -> Job {
    Job {
        job_type: "Encode Video".to_owned(),
        status: Status::Processing,
        payload: RawValue::from_string(payload.to_owned()).unwrap(),
        starts: 1,
        ..Job::empty(JobId::new(1_764_000_000_000_123).unwrap())
    }
}

/// The first attempt at a job with this payload, and with an id of its own; it gets no stop signal. A test that stops a
/// program would also stop a program of another test that has just begun, if both had the same id in their environment.
pub(crate) fn context(payload: &str) -> JobContext {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = JobId::new(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap();
    JobContext::new(Job { id, ..job(payload) }, StopSignal::default())
}

/// Keeps what attempts report.
#[derive(Default)]
pub(crate) struct Recorded(Mutex<Report>);

impl Recorded {
    /// All reports since the last call, merged.
    pub(crate) fn take(&self) -> Report {
        std::mem::take(&mut sync::lock(&self.0))
    }
}

impl Attempts for Recorded {
    fn report(&self, _: AttemptId, report: Report) {
        sync::lock(&self.0).merge(report);
    }

    fn token(&self, _: AttemptId) -> Option<String> {
        Some("token".to_owned())
    }
}

/// Waits until the process has ended. A zombie, which its new parent has not reaped yet, counts as ended.
pub(crate) fn assert_gone(pid: &str) {
    assert!(pid.parse::<u32>().is_ok(), "{pid:?} is not a process id");
    eventually(LIMIT, &format!("process {pid} is gone"), || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with(['Z', 'X']))
    });
}
