//! Pull workers: they take jobs over HTTP, report and answer.

mod answers;
mod client;
mod deaths;
mod examples;
mod tokens;
mod waiting;

use crate::common::*;

/// A server that runs no job itself.
fn front(redis: &TestRedis) -> ServerBuilder {
    TestServer::builder().redis(redis).flag("workers", "0")
}

/// Takes one job of the queue `q` with a lease of this time, at once.
#[track_caller]
fn pull(api: &Api, lease_ms: u64) -> Value {
    let job = try_pull(api, json!({"queues": ["q"], "lease_ms": lease_ms}));
    job.unwrap_or_else(|| panic!("no job"))
}

/// The only job of a response, or none.
#[track_caller]
fn try_pull(api: &Api, request: Value) -> Option<Value> {
    let jobs = api.post("/pull", &request).expect(200).json()["jobs"].take();
    let jobs = jobs.as_array().expect("jobs");
    assert!(jobs.len() <= 1, "{jobs:?}");
    jobs.first().cloned()
}

/// The path of the attempt at a pulled job.
fn attempt(job: &Value) -> String {
    format!("/attempts/{}", job["token"].as_str().expect("a token"))
}

/// Submits a job to the queue `q`.
#[track_caller]
fn submit(api: &Api) -> u64 {
    api.submit_job(json!({"type": "t", "queue": "q", "payload": {"n": 1}}))
}
