//! The audit from outside the program: each accepted job has exactly one final status, and no list or set holds a job
//! that has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::api::{Api, STATUSES, is_final};
use super::redis::TestRedis;
use super::wait::eventually;

/// The final status of each job.
pub type Outcomes = BTreeMap<u64, String>;

/// Waits until no job is scheduled, queued, running or retrying.
#[track_caller]
pub fn wait_until_quiet(api: &Api, limit: Duration) {
    let begin = std::time::Instant::now();
    loop {
        let last = api.counts();
        let live: u64 =
            ["scheduled", "queued", "processing", "retrying"].iter().filter_map(|s| last[*s].as_u64()).sum();
        if live == 0 {
            return;
        }
        if begin.elapsed() >= limit {
            let stuck: Vec<_> = ["queued", "processing", "retrying", "scheduled"]
                .iter()
                .map(|s| api.get(&format!("/jobs?status={s}&limit=3")).text())
                .collect();
            panic!("not quiet within {limit:?}: {last}\n{}", stuck.join("\n"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Asserts, when no job waits or runs: each accepted job has exactly one final status, no other job exists, and no list
/// has an entry.
#[track_caller]
pub fn audit(redis: &TestRedis, api: &Api, accepted: &[u64]) -> Outcomes {
    let unique: BTreeSet<u64> = accepted.iter().copied().collect();
    assert_eq!(unique.len(), accepted.len(), "two jobs share an id");
    let mut outcomes = Outcomes::new();
    for status in STATUSES {
        for job in api.list_all("/jobs", &format!("&status={status}")) {
            let id = job["id"].as_u64().expect("an id");
            assert_eq!(job["status"], status, "the filter: {job:#}");
            assert!(is_final(&job), "not ended: {job:#}");
            let before = outcomes.insert(id, status.to_owned());
            assert!(before.is_none(), "job {id} is {} and {status}", before.unwrap_or_default());
        }
    }
    let lost: Vec<_> = unique.iter().filter(|id| !outcomes.contains_key(id)).collect();
    assert!(lost.is_empty(), "{} accepted jobs are gone: {lost:?}", lost.len());
    let invented: Vec<_> = outcomes.keys().filter(|id| !unique.contains(id)).collect();
    assert!(invented.is_empty(), "{} jobs that nobody submitted: {invented:?}", invented.len());
    let all: BTreeSet<u64> = api.list_all("/jobs", "").iter().filter_map(|job| job["id"].as_u64()).collect();
    assert!(all == unique, "the listing without a filter differs from those with one");
    // A job that was cancelled while it waited may leave its id in a list until a fetcher meets it.
    eventually(Duration::from_secs(20), "the work, in-progress and scheduled lists are empty", || {
        redis.live_handles().is_empty()
    });
    let dead: BTreeSet<u64> = redis
        .query::<Vec<String>>(&["ZRANGE", "{threadq}:dlq_queue", "0", "-1"])
        .iter()
        .map(|id| id.parse().expect("ids in decimal"))
        .collect();
    let failed: BTreeSet<u64> =
        outcomes.iter().filter(|(_, status)| *status == "failed").map(|(id, _)| *id).collect();
    assert_eq!(dead, failed, "the dead letter queue holds the failed jobs");
    outcomes
}
