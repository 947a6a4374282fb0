//! The responses of the API: the fields that the commands print. Unknown fields of a newer server are ignored.

use std::collections::HashMap;

use serde::Deserialize;

use crate::client::{Job, Progress};
use crate::job::{JobId, Status};

/// A page of jobs.
#[derive(Deserialize)]
pub(super) struct Page {
    pub jobs: Vec<Job>,
    /// `None` if the page was requested by `before`.
    pub page: Option<u64>,
    pub limit: u64,
    pub total: u64,
    /// The `before` of the next page.
    pub next: Option<JobId>,
}

impl Page {
    /// `21 jobs, page 1 of 3`, or `21 jobs, older ones: --before 1764000000000123`.
    pub(super) fn summary(&self) -> String {
        let pages = self.total.div_ceil(self.limit.max(1));
        let jobs = count(self.total, "job");
        match (self.total, self.page, self.next) {
            (0, _, _) => "no jobs".to_owned(),
            (_, Some(1), _) if pages <= 1 => jobs,
            (_, Some(page), _) => format!("{jobs}, page {page} of {pages}"),
            (_, None, Some(next)) => format!("{jobs}, older ones: --before {next}"),
            (_, None, None) => format!("{jobs}, no older ones"),
        }
    }
}

/// The response to POST /dlq/retry.
#[derive(Deserialize)]
pub(super) struct Retried {
    pub matched: u64,
    pub retried: u64,
}

/// The response to DELETE /dlq.
#[derive(Deserialize)]
pub(super) struct Deleted {
    pub deleted: u64,
}

/// A queue in a response.
#[derive(Deserialize)]
pub(super) struct QueueView {
    pub name: String,
    pub queued: u64,
    /// How many of the `queued` jobs wait for room in a limit; 0 from a server older than 0.10.
    #[serde(default)]
    pub held: u64,
    pub paused: bool,
    pub oldest_ms: Option<u64>,
    /// The number of live servers that take jobs from the queue; `None` from a server before 0.5.
    pub servers: Option<u64>,
    /// `false` in a response to pause or resume if no server takes jobs from the queue and no job is in it.
    pub known: Option<bool>,
    /// Whether a server starts the jobs of this queue before those of its other queues; left out if none does.
    #[serde(default)]
    pub strict: bool,
    /// Whether a pull worker has asked for jobs of the queue within the last minutes; left out if none has.
    #[serde(default)]
    pub pulled: bool,
}

impl QueueView {
    /// Whether no server and no pull worker takes jobs from the queue.
    pub(super) fn is_unserved(&self) -> bool {
        self.servers == Some(0) && !self.pulled
    }

    /// Whether jobs of the queue are started, for the column STATE.
    pub(super) fn state(&self) -> &'static str {
        match (self.servers, self.paused) {
            (_, true) if self.is_unserved() => "paused, no server",
            (_, false) if self.is_unserved() => "no server",
            (Some(0), false) => "running, pulled",
            (_, true) if self.strict => "paused, strict",
            (_, true) => "paused",
            (_, false) if self.strict => "running, strict",
            (_, false) => "running",
        }
    }
}

/// The response to GET /queues.
#[derive(Deserialize)]
pub(super) struct Queues {
    pub queues: Vec<QueueView>,
}

/// A server in a response.
#[derive(Deserialize)]
pub(super) struct ServerView {
    pub id: String,
    pub started_at: String,
    pub workers: u64,
    pub busy: u64,
    pub beat_age_ms: u64,
    /// In the response to GET /stats/workers: the worker threads that have a job; `None` until the server has reported them.
    pub threads: Option<Vec<Thread>>,
}

/// A worker thread that has a job.
#[derive(Deserialize)]
pub(super) struct Thread {
    /// The name; `None` while the job waits for a thread.
    pub thread: Option<String>,
    pub job: JobId,
    #[serde(rename = "type")]
    pub job_type: String,
    pub attempt: u32,
    pub for_ms: u64,
    /// `starting`, `running`, `stopping` or `backing_off`.
    pub state: String,
}

/// The response to GET /stats.
#[derive(Deserialize)]
pub(super) struct Stats {
    pub counts: HashMap<String, u64>,
    pub queues: Vec<QueueView>,
    pub servers: Vec<ServerView>,
}

/// `1/5`: the number of the latest attempt, and `max_attempts`.
pub(super) fn tries(job: &Job) -> String {
    format!("{}/{}", begun(job), job.max_attempts)
}

/// `40 %  encoded 3 of 7`: what the running attempt of a job has said of its progress.
pub(super) fn progress(job: &Job) -> String {
    match &job.progress {
        Some(Progress { value, message, .. }) if job.status == Status::Processing => {
            format!("{:.0} %  {message}", value * 100.0).trim_end().to_owned()
        }
        _ => String::new(),
    }
}

/// The number of attempts that were started: `attempts` does not count the one that runs.
pub(super) fn begun(job: &Job) -> u32 {
    job.attempts + u32::from(job.status == Status::Processing)
}

/// `1 job`, `2 jobs`.
pub(super) fn count(number: u64, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{ending}")
}

/// `2026-11-24T08:00:00.000Z` as `2026-11-24 08:00:00`, for a column whose title names the time zone.
pub(super) fn short_time(rfc3339: &str) -> String {
    let is_utc = rfc3339.ends_with('Z') && rfc3339.is_ascii();
    match (rfc3339.get(..10), rfc3339.get(11..19)) {
        (Some(date), Some(clock)) if is_utc => format!("{date} {clock}"),
        _ => rfc3339.to_owned(),
    }
}

/// A duration in its two largest units, rounded down: `850 ms`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 1 h`.
pub(super) fn short_span(ms: u64) -> String {
    let seconds = ms / 1000;
    let two = |large: u64, large_unit, small: u64, small_unit| match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    };
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_in_their_two_largest_units() {
        let cases = [
            (0, "0 ms"),
            (850, "850 ms"),
            (12_999, "12 s"),
            (60_000, "1 min"),
            (185_000, "3 min 5 s"),
            (7_800_000, "2 h 10 min"),
            (349_200_000, "4 d 1 h"),
        ];
        for (ms, text) in cases {
            assert_eq!(short_span(ms), text);
        }
    }

    #[test]
    fn only_times_in_utc_are_shortened() {
        assert_eq!(short_time("2026-11-24T08:00:00.000Z"), "2026-11-24 08:00:00");
        assert_eq!(short_time("2026-11-24T08:00:00+02:00"), "2026-11-24T08:00:00+02:00");
        assert_eq!(short_time("ö"), "ö");
    }
}
