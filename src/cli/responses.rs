//! What the API answers, as far as the commands look at it. Fields that they do not show are left out, so that a
//! newer server may say more.

use std::collections::HashMap;

use serde::Deserialize;

use crate::client::Job;
use crate::job::{JobId, Status};

/// A page of jobs.
#[derive(Deserialize)]
pub(super) struct Page {
    pub jobs: Vec<Job>,
    /// Not there where the page was asked for by an id.
    pub page: Option<u64>,
    pub limit: u64,
    pub total: u64,
    /// The next page is before this id.
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

/// What a retry of dead letters came to.
#[derive(Deserialize)]
pub(super) struct Retried {
    pub matched: u64,
    pub retried: u64,
}

/// What a purge of dead letters came to.
#[derive(Deserialize)]
pub(super) struct Deleted {
    pub deleted: u64,
}

/// A queue.
#[derive(Deserialize)]
pub(super) struct QueueView {
    pub name: String,
    pub queued: u64,
    pub paused: bool,
    pub oldest_ms: Option<u64>,
    /// How many living servers take from it; a server of an older version does not tell.
    pub servers: Option<u64>,
    /// `false` in the answer to pause and resume where no server takes from it and no job is in it.
    pub known: Option<bool>,
}

impl QueueView {
    /// Whether servers take jobs from it, in a few words. A server before 0.5 does not say how many there are.
    pub(super) fn state(&self) -> &'static str {
        match (self.servers, self.paused) {
            (Some(0), true) => "paused, no server",
            (Some(0), false) => "no server",
            (_, true) => "paused",
            (_, false) => "running",
        }
    }
}

/// All queues.
#[derive(Deserialize)]
pub(super) struct Queues {
    pub queues: Vec<QueueView>,
}

/// A server that takes jobs.
#[derive(Deserialize)]
pub(super) struct ServerView {
    pub id: String,
    pub started_at: String,
    pub workers: u64,
    pub busy: u64,
    pub beat_age_ms: u64,
}

/// Everything at a glance.
#[derive(Deserialize)]
pub(super) struct Stats {
    pub counts: HashMap<String, u64>,
    pub queues: Vec<QueueView>,
    pub servers: Vec<ServerView>,
}

/// `1/5`: attempts of a job so far, or the one that runs, and at most.
pub(super) fn tries(job: &Job) -> String {
    format!("{}/{}", begun(job), job.max_attempts)
}

/// The attempts of a job that were begun: the one that runs is not among those that are over.
pub(super) fn begun(job: &Job) -> u32 {
    job.attempts + u32::from(job.status == Status::Processing)
}

/// `1 job`, `2 jobs`.
pub(super) fn count(number: u64, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{ending}")
}

/// `2026-11-24T08:00:00.000Z` as `2026-11-24 08:00:00`, for a table with the zone in its title.
pub(super) fn short_time(rfc3339: &str) -> String {
    let is_utc = rfc3339.ends_with('Z') && rfc3339.is_ascii();
    match (rfc3339.get(..10), rfc3339.get(11..19)) {
        (Some(date), Some(clock)) if is_utc => format!("{date} {clock}"),
        _ => rfc3339.to_owned(),
    }
}

/// Milliseconds in the two largest units: `850 ms`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 1 h`.
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
    fn spans_read_in_their_largest_units() {
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
