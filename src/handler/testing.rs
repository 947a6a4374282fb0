//! What the tests of the handlers share.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::{JobContext, StopSignal};
use crate::job::{DEFAULT_QUEUE, Job, JobId, Status};

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
        unreadable: Vec::new(),
        omitted: Vec::new(),
    }
}

/// An attempt at such a job that nobody stops.
pub(crate) fn context(payload: &str) -> JobContext {
    JobContext::new(job(payload), StopSignal::default())
}

/// A new folder that goes away with the value.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> TempDir {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("threadq-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        TempDir(path.canonicalize().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Waits until the claim holds.
pub(crate) fn eventually(what: &str, claim: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !claim() {
        assert!(Instant::now() < limit, "not within 20 s: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The process is gone, or dead and only not yet reaped by whoever inherited it.
pub(crate) fn assert_gone(pid: &str) {
    assert!(pid.parse::<u32>().is_ok(), "{pid:?} is no process id");
    eventually(&format!("process {pid} is gone"), || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with(['Z', 'X']))
    });
}
