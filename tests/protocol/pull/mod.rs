//! Jobs of pull workers: each attempt has a lease of its own, and whoever has the attempt's id may speak for it. Each test
//! writes down one interleaving; `random.rs` makes many.

mod answers;
mod claims;
mod ends;
mod leases;
mod random;
mod reports;
mod taking;
mod tokens;

use std::time::Duration;

use serde_json::value::RawValue;
use threadq::internals::queue::{
    Answered, AttemptReport, PullRequest, Pulled, PulledJob, Reported, ServerId, Verdict,
};
use threadq::job::report::Report;
use threadq::job::{AttemptId, JobId, NewJob, Status};

use crate::fixture::{MAX_CRASHES, Place};

/// The lease of a pulled job, in ms.
pub const LEASE: u64 = 10_000;
/// The timeout of a job that gives none, in ms.
pub const TIMEOUT: u64 = 300_000;
/// The list of pulled jobs.
pub const PULLED: &str = "in_progress_queue:pull";

pub fn request(max: u32) -> PullRequest {
    PullRequest {
        queues: vec!["default".to_owned()],
        max,
        lease: Some(Duration::from_millis(LEASE)),
        worker: Some("w".to_owned()),
    }
}

pub fn json(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

pub fn complete() -> Verdict {
    Verdict::Complete(json("1"))
}

/// A failure with a retry much later.
pub fn fail() -> Verdict {
    Verdict::Retry { error: "no".to_owned(), delay: Duration::from_secs(3600), throttle: None }
}

pub fn progress(value: f64, message: &str) -> Report {
    Report { progress: Some((value, message.to_owned())), ..Report::default() }
}

pub fn lines(lines: &[&str]) -> Report {
    Report { log: lines.iter().map(|line| (*line).to_owned()).collect(), ..Report::default() }
}

pub fn checkpoint(text: &str) -> Report {
    Report { checkpoint: Some(json(text)), ..Report::default() }
}

/// The attempt of a job with another number.
pub fn other_attempt(attempt: AttemptId, later: i64) -> AttemptId {
    AttemptId { start: attempt.start.checked_add_signed(later).unwrap(), ..attempt }
}

impl Place {
    pub fn try_pull(&self, request: &PullRequest) -> Pulled {
        self.queue.pull(request, None, MAX_CRASHES).unwrap()
    }

    #[track_caller]
    pub fn pull(&self, max: u32) -> Vec<PulledJob> {
        self.try_pull(&request(max)).jobs
    }

    #[track_caller]
    pub fn pull_one(&self) -> PulledJob {
        let mut pulled = self.pull(1);
        assert_eq!(pulled.len(), 1);
        pulled.remove(0)
    }

    /// The ids of up to 9 pulled jobs.
    #[track_caller]
    pub fn pulled(&self) -> Vec<JobId> {
        self.pull(9).into_iter().map(|pulled| pulled.job.id).collect()
    }

    #[track_caller]
    pub fn answers(&self, attempt: AttemptId, verdict: Verdict) -> Answered {
        self.queue.answer(&[(attempt, verdict)]).unwrap().0.remove(0)
    }

    /// The status of the job after an answer that counts.
    #[track_caller]
    pub fn is_answered(&self, attempt: AttemptId, verdict: Verdict) -> Status {
        match self.answers(attempt, verdict) {
            Answered::Now { status, .. } => status,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn reports(&self, attempt: AttemptId, report: Report) -> Reported {
        self.reports_with(attempt, report, None)
    }

    #[track_caller]
    pub fn reports_with(&self, attempt: AttemptId, report: Report, lease_ms: Option<u64>) -> Reported {
        let lease = lease_ms.map(Duration::from_millis);
        self.queue.report(&[AttemptReport { attempt, report, lease }]).unwrap().remove(0)
    }

    /// When the lease ends after a report that counts.
    #[track_caller]
    pub fn lease_after(&self, attempt: AttemptId, report: Report, lease_ms: Option<u64>) -> Option<u64> {
        match self.reports_with(attempt, report, lease_ms) {
            Reported::Accepted { lease_until_ms, .. } => lease_until_ms,
            other => panic!("{other:?}"),
        }
    }

    /// The time at which the agenda looks at the lease of a job.
    pub fn lease_word(&self, id: JobId) -> Option<u64> {
        let score: Option<f64> = self.redis("ZSCORE", "agenda", &[&format!("lease:{id}")]);
        score.map(|score| score as u64)
    }

    /// The numbers and the texts of all log lines that are kept.
    #[track_caller]
    pub fn log(&self, id: JobId) -> Vec<(u64, String)> {
        let log = self.queue.job_log(id, 0, 1_000).unwrap().expect("a job");
        log.lines.into_iter().map(|line| (line.number, line.text)).collect()
    }

    #[track_caller]
    pub fn log_texts(&self, id: JobId) -> Vec<String> {
        self.log(id).into_iter().map(|(_, text)| text).collect()
    }
}
