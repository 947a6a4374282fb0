//! Fuzzing of the code that reads replies of Redis, from their bytes on. For any reply a caller gets the readable
//! part or an error, and never a lease that cannot be settled.

use redis::Value;

use super::error::Error;
use super::record::{self, Broken};
use super::replies;
use super::reply_value::{as_bytes, text_pairs};
use super::types::ServerId;
use crate::job::{JobId, MAX_ERROR_CHARS};

/// Reads the bytes as a reply of Redis, and this reply as one to every script.
pub fn check(data: &[u8]) {
    check_error_text(data);
    // The Redis client rejects bytes that are not RESP, and the connection ends.
    let Ok(value) = redis::parse_redis_value(data) else { return };
    let id = JobId::new(1_764_000_000_000_123).expect("it is below 2^53");
    let server = ServerId::for_tests("host-1-00000000");

    if let Value::Array(fields) = &value {
        check_record(id, fields.clone());
    }
    if let Some((taken, _)) = read(replies::started_jobs(value.clone(), server.as_str())) {
        let leases = taken
            .jobs
            .iter()
            .map(|(lease, job)| (lease, job.id))
            .chain(taken.broken.iter().map(|broken| (&broken.lease, broken.lease.id)));
        for (lease, id) in leases {
            assert_eq!(lease.id, id);
            assert!(lease.token >= 1, "every start has its own token");
        }
    }
    for submitted in read(replies::submitted(value.clone(), [1].into_iter())).into_iter().flatten().flatten()
    {
        assert!(submitted.ids().take(10).all(|id| id >= submitted.first));
    }
    if let Some(page) = read(replies::page(value.clone())) {
        for job in page.jobs {
            serde_json::to_string(&job).expect("a job that was read can be shown");
            assert!(job.ready_at_ms() >= job.id.created_at_ms());
        }
    }
    read(replies::settled(value.clone()));
    read(replies::due_step(value.clone()));
    read(replies::heartbeat(value.clone()));
    read(replies::reclaimed(value.clone()));
    read(replies::changed(value.clone()));
    read(replies::job(id, value.clone()));
    read(replies::statuses(value.clone()));
    read(replies::ids(value.clone()));
    read(replies::selected(value.clone()));
    read(replies::queues(value.clone()));
    read(replies::stats(value.clone()));
    read(replies::workers(value.clone()));
    read(as_bytes(value));
}

/// The value that was read, if there is one. An error must be short enough for a log line.
fn read<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::Protocol(reason)) => {
            assert!(reason.len() <= 1000, "{reason}");
            None
        }
        Err(Error::Fenced) => None,
        Err(other) => panic!("a reply cannot show that: {other}"),
    }
}

fn check_record(id: JobId, fields: Vec<Value>) {
    match record::to_job(id, &text_pairs(&fields)) {
        Ok(job) => {
            let shown = serde_json::to_string(&job).expect("a job that was read can be shown");
            assert!(shown.contains(&format!("\"status\":\"{}\"", job.status)));
        }
        Err(Broken { job, reason }) => {
            assert!(!reason.is_empty());
            serde_json::to_string(&job).expect("what was read of a job can be shown");
        }
    }
}

/// Any error message of a handler becomes one line, from which it can be read again, cut to the length that is kept.
fn check_error_text(data: &[u8]) {
    let message = String::from_utf8_lossy(data);
    let text = record::error_text(&message);
    assert_eq!(text.lines().count(), 1, "{text:?}");
    let kept: String = serde_json::from_str(&text).expect("it is a JSON string");
    assert!(message.starts_with(&kept));
    assert_eq!(kept.chars().count(), message.chars().count().min(MAX_ERROR_CHARS));
}
