//! Timeouts: an attempt that takes too long ends, whether or not its handler heeds the stop signal, and the worker goes
//! on.

use crate::common::*;

#[test]
fn a_handler_past_its_timeout_is_stopped_and_the_attempt_fails() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(QUICK_BACKOFF).flag("workers", "1").start();
    let id = server.submit_job(
        json!({"type": "sleep", "payload": {"ms": 600_000}, "timeout_ms": 300, "max_attempts": 2}),
    );
    let job = server.wait_for_status(id, "failed");
    assert_eq!(job["attempts"], 2, "{job:#}");
    for error in job["errors"].as_array().expect("errors") {
        assert!(error["message"].as_str().is_some_and(|m| m.contains("timed out")), "{job:#}");
    }
    assert_eq!(job["errors"].as_array().map(Vec::len), Some(2), "{job:#}");
    let last = time_ms(&job["finished_at"]) - time_ms(&job["started_at"]);
    assert!((299..10_000).contains(&last), "the last attempt took {last} ms: {job:#}");
    server.complete("echo", json!({}));
}

#[test]
fn a_handler_that_never_returns_is_given_up_and_the_next_job_runs() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("workers", "1").start();
    let id = server.submit_job(json!({"type": "hang", "timeout_ms": 200, "max_attempts": 1}));
    server.wait_for_status(id, "processing");
    let begin = Instant::now();
    let next = server.submit("echo", json!({}));
    let job = server.wait_for_status(id, "failed");
    server.wait_for_status(next, "completed");
    assert!(begin.elapsed() < secs(15), "{:?}", begin.elapsed());
    assert!(job["last_error"].as_str().is_some_and(|m| m.contains("timed out")), "{job:#}");
    assert_eq!(job["attempts"], 1, "{job:#}");
    assert_eq!(job["crashes"], 0, "{job:#}");
    // A second time: the replacement of a worker thread must be replaceable too.
    let id = server.submit_job(json!({"type": "hang", "timeout_ms": 200, "max_attempts": 2}));
    let job = server.wait_for_status(id, "failed");
    assert_eq!(job["attempts"], 2, "{job:#}");
    server.complete("echo", json!({}));
    let stats = server.get("/stats").expect(200).json();
    assert_eq!(stats["servers"][0]["workers"], 1, "{stats:#}");
}

#[test]
fn the_timeout_of_the_handler_counts_when_the_job_names_none() {
    let redis = TestRedis::start();
    let config = "[handlers.sleep]\ntimeout = \"250ms\"\nmax_attempts = 1\n";
    let server = TestServer::builder().redis(&redis).config(config).start();
    let id = server.submit("sleep", json!({"ms": 600_000}));
    let job = server.wait_for_status(id, "failed");
    assert_eq!(job["timeout_ms"], 250, "{job:#}");
    assert!(job["last_error"].as_str().is_some_and(|m| m.contains("timed out")), "{job:#}");
    let id = server.submit_job(json!({"type": "sleep", "payload": {"ms": 600}, "timeout_ms": 60_000}));
    server.wait_for_status(id, "completed");
}

#[test]
fn a_job_within_its_timeout_is_left_alone() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let id = server.submit_job(json!({"type": "sleep", "payload": {"ms": 500}, "timeout_ms": 20_000}));
    let job = server.wait_for_status(id, "completed");
    assert_eq!(job["attempts"], 1);
    assert!(time_ms(&job["finished_at"]) - time_ms(&job["started_at"]) >= 499, "{job:#}");
}
