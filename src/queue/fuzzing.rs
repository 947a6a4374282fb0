//! Fuzzing of what reads the answers of Redis, from its bytes on: whatever it answers, a caller gets what can be read of
//! it or an error, and no lease that could not be settled.

use redis::Value;

use super::error::Error;
use super::record::{self, Broken};
use super::{ServerId, replies};
use crate::job::{JobId, MAX_ERROR_CHARS};

/// Takes bytes for an answer of Redis, and that for an answer to every script.
pub fn check(data: &[u8]) {
    check_error_text(data);
    // What is no RESP at all is an error of the client, which ends the connection.
    let Ok(value) = redis::parse_redis_value(data) else { return };
    let id = JobId::new(1_764_000_000_000_123).expect("it is below 2^53");
    let server = ServerId("host-1-00000000".to_owned());

    if let Value::Array(fields) = &value {
        check_record(id, fields.clone());
    }
    if let Some(taken) = read(replies::started_jobs(value.clone(), &server)) {
        let leases = taken
            .jobs
            .iter()
            .map(|(lease, job)| (lease, job.id))
            .chain(taken.broken.iter().map(|broken| (&broken.lease, broken.lease.id)));
        for (lease, id) in leases {
            assert_eq!(lease.id, id);
            assert!(lease.token >= 1, "every start has a token of its own");
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
    read(replies::promoted(value.clone()));
    read(replies::heartbeat(value.clone()));
    read(replies::reclaimed(value.clone()));
    read(replies::cancelled(value.clone()));
    read(replies::changed(value.clone()));
    read(replies::job(id, value.clone()));
    read(replies::statuses(value.clone()));
    read(replies::ids(value.clone()));
    read(replies::queues(value.clone()));
    read(replies::stats(value.clone()));
    read(replies::workers(value.clone()));
    read(record::bytes(value));
}

/// What was read; an error of it is short enough for a log line.
fn read<T>(answer: Result<T, Error>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(Error::Protocol(reason)) => {
            assert!(reason.len() <= 1000, "{reason}");
            None
        }
        Err(Error::Fenced) => None,
        Err(other) => panic!("an answer that came tells nothing of Redis: {other}"),
    }
}

fn check_record(id: JobId, fields: Vec<Value>) {
    match record::to_job(id, fields) {
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

/// An error message of whatever a handler wrote is read from its line as it was, cut to what is kept.
fn check_error_text(data: &[u8]) {
    let message = String::from_utf8_lossy(data);
    let text = record::error_text(&message);
    assert_eq!(text.lines().count(), 1, "{text:?}");
    let kept: String = serde_json::from_str(&text).expect("it is a JSON string");
    assert!(message.starts_with(&kept));
    assert_eq!(kept.chars().count(), message.chars().count().min(MAX_ERROR_CHARS));
}
