//! Failed attempts: which are retried, when, how often, which errors are kept, and when the job becomes a dead letter.

use crate::common::*;

fn quick(redis: &TestRedis) -> TestServer {
    TestServer::builder().redis(redis).config(QUICK_BACKOFF).start()
}

#[test]
fn a_job_that_fails_twice_completes_at_the_third_attempt() {
    let redis = TestRedis::start();
    let server = quick(&redis);
    let id = server.submit("fail", json!({"times": 2, "message": "no luck"}));
    let job = server.wait_for_status(id, "completed");
    assert_eq!(job["attempts"], 3, "{job:#}");
    assert_eq!(job["last_error"], Value::Null, "{job:#}");
    let errors = job["errors"].as_array().expect("errors");
    assert_eq!(errors.len(), 2, "{job:#}");
    for (at, error) in errors.iter().enumerate() {
        assert_eq!(error["attempt"], at + 1, "{job:#}");
        assert!(error["message"].as_str().is_some_and(|m| m.contains("no luck")), "{job:#}");
        time_ms(&error["at"]);
        assert_eq!(error.as_object().map(serde_json::Map::len), Some(3), "{job:#}");
    }
}

#[test]
fn an_exhausted_job_goes_to_the_dead_letter_queue() {
    let redis = TestRedis::start();
    let server = quick(&redis);
    let id = server.submit("fail", json!({"message": "never"}));
    let job = server.wait_for_status(id, "failed");
    assert_eq!(job["attempts"], 5, "{job:#}");
    assert_eq!(job["errors"].as_array().map(Vec::len), Some(5), "{job:#}");
    assert!(job["last_error"].as_str().is_some_and(|m| m.contains("never")), "{job:#}");
    assert_eq!(job["last_error"], job["errors"][4]["message"]);
    time_ms(&job["finished_at"]);
    assert_eq!(server.list_all("/dlq", ""), [job]);
    let members: Vec<String> = redis.query(&["ZRANGE", "{threadq}:dlq_queue", "0", "-1"]);
    assert_eq!(members, [id.to_string()]);
}

#[test]
fn a_permanent_failure_is_not_tried_again() {
    let redis = TestRedis::start();
    let server = quick(&redis);
    let id = server.submit("fail", json!({"permanent": true, "message": "bad address"}));
    let job = server.wait_for_status(id, "failed");
    assert_eq!(job["attempts"], 1, "{job:#}");
    assert!(job["last_error"].as_str().is_some_and(|m| m.contains("bad address")), "{job:#}");
}

#[test]
fn max_attempts_of_the_job_beats_that_of_the_handler() {
    let redis = TestRedis::start();
    let config = "[handlers.fail]\nmax_attempts = 3\nbackoff = { base = \"1ms\", cap = \"1ms\" }\n";
    let server = TestServer::builder().redis(&redis).config(config).start();
    let by_handler = server.submit("fail", json!({}));
    let by_job = server.submit_job(json!({"type": "fail", "max_attempts": 2}));
    let job = server.wait_for_status(by_handler, "failed");
    assert_eq!((&job["attempts"], &job["max_attempts"]), (&json!(3), &json!(3)), "{job:#}");
    let job = server.wait_for_status(by_job, "failed");
    assert_eq!((&job["attempts"], &job["max_attempts"]), (&json!(2), &json!(2)), "{job:#}");
}

#[test]
fn the_last_ten_errors_are_kept_each_cut_at_a_thousand_characters() {
    let redis = TestRedis::start();
    let server = quick(&redis);
    let message = "ä€".repeat(1500);
    let id = server.submit_job(json!({"type": "fail", "payload": {"message": message}, "max_attempts": 14}));
    let job = server.wait_for_status(id, "failed");
    assert_eq!(job["attempts"], 14);
    let errors = job["errors"].as_array().expect("errors");
    let attempts: Vec<_> = errors.iter().filter_map(|e| e["attempt"].as_u64()).collect();
    assert_eq!(attempts, (5..=14).collect::<Vec<u64>>());
    for error in errors {
        assert_eq!(error["message"].as_str().map(|m| m.chars().count()), Some(1000));
    }
    assert_eq!(job["last_error"].as_str().map(|m| m.chars().count()), Some(1000));
}

#[test]
fn a_long_backoff_is_parked_and_holds_no_worker() {
    let redis = TestRedis::start();
    let config = "[handlers.fail]\nbackoff = { base = \"10h\", cap = \"10h\" }\n";
    let server = TestServer::builder().redis(&redis).config(config).flag("workers", "1").start();
    let id = server.submit("fail", json!({"times": 1, "message": "later"}));
    let job = server.wait_for_status(id, "retrying");
    assert_eq!(job["attempts"], 1, "{job:#}");
    assert!(job["last_error"].as_str().is_some_and(|m| m.contains("later")), "{job:#}");
    assert_eq!(job["finished_at"], Value::Null, "{job:#}");
    let wait = time_ms(&job["scheduled_at"]) as i64 - time_ms(&job["errors"][0]["at"]) as i64;
    assert!((0..=36_000_100).contains(&wait), "parked for {wait} ms: {job:#}");
    let members: Vec<String> = redis.query(&["ZRANGE", "{threadq}:scheduled", "0", "-1"]);
    assert_eq!(members, [id.to_string()]);
    server.complete("echo", json!({}));
    assert_eq!(server.job(id)["status"], "retrying");
    assert_eq!(server.count("retrying"), 1);
}

#[test]
fn a_parked_job_comes_back_by_itself() {
    let redis = TestRedis::start();
    let config = "[handlers.fail]\nbackoff = { base = \"1s\", cap = \"1s\" }\n";
    let server = TestServer::builder().redis(&redis).config(config).flag("inline-backoff", "0").start();
    let ids = server.submit_batch(&vec![json!({"type": "fail", "payload": {"times": 1}}); 8]);
    for id in ids {
        let job = server.wait_for_status(id, "completed");
        assert_eq!(job["attempts"], 2, "{job:#}");
    }
}

#[test]
fn full_jitter_spreads_the_backoffs_over_the_whole_range() {
    let redis = TestRedis::start();
    let config = "[handlers.fail]\nbackoff = { base = \"12h\", cap = \"24h\" }\n";
    let server = TestServer::builder().redis(&redis).config(config).start();
    let ids = server.submit_batch(&vec![json!({"type": "fail"}); 60]);
    let jobs: Vec<Value> = ids.iter().map(|id| server.wait_for_status(*id, "retrying")).collect();
    // A job whose backoff was shorter than this test has run again: its second backoff has another range.
    let waits: Vec<i64> = jobs
        .iter()
        .filter(|job| job["attempts"] == 1)
        .map(|job| time_ms(&job["scheduled_at"]) as i64 - time_ms(&job["errors"][0]["at"]) as i64)
        .collect();
    assert!(waits.len() > 50, "{} of 60 jobs have run once", waits.len());
    let base = 12 * 3_600_000;
    let (least, most) = (waits.iter().min().expect("50"), waits.iter().max().expect("50"));
    assert!(*least >= -1 && *most <= base + 100, "outside [0, base]: {waits:?}");
    // Each of these assertions fails by chance once in (4/3)^50 = 1.7 million runs.
    assert!(*least < base / 4 && *most > base * 3 / 4, "not spread over [0, base]: {waits:?}");
}

#[test]
fn a_dead_letter_that_is_retried_begins_at_its_first_attempt() {
    let redis = TestRedis::start();
    let server = quick(&redis);
    let id = server.submit_job(json!({"type": "fail", "max_attempts": 2}));
    let before = server.wait_for_status(id, "failed");
    assert_eq!(before["attempts"], 2);
    server.act("/queues/default/pause").expect(200);
    let reply = server.act(&format!("/jobs/{id}/retry")).expect(202).json();
    assert_eq!(reply["id"], id);
    assert_eq!(reply["attempts"], 0, "{reply:#}");
    assert!(matches!(reply["status"].as_str(), Some("queued" | "processing")), "{reply:#}");
    assert_eq!(reply["finished_at"], Value::Null, "{reply:#}");
    server.act("/queues/default/resume").expect(200);
    let after = server.wait_for_status(id, "failed");
    assert_eq!(after["attempts"], 2, "{after:#}");
    assert!(time_ms(&after["finished_at"]) >= time_ms(&before["finished_at"]));
}

#[test]
fn a_panicking_handler_is_retried_with_message_and_place() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(QUICK_BACKOFF).flag("workers", "2").start();
    let id = server.submit("panic", json!({"times": 2}));
    let job = server.wait_for_status(id, "completed");
    assert_eq!(job["attempts"], 3, "{job:#}");
    for error in job["errors"].as_array().expect("errors") {
        let message = error["message"].as_str().expect("text");
        assert!(message.contains("panic") && message.contains(".rs:"), "no place: {message}");
    }
    let always = server.submit_batch(&vec![json!({"type": "panic"}); 10]);
    for id in always {
        let job = server.wait_for_status(id, "failed");
        assert_eq!(job["attempts"], 5, "{job:#}");
    }
    // After 52 panics both workers still run jobs.
    let sleeps = server.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 300}}); 2]);
    for id in sleeps {
        server.wait_for_status(id, "completed");
    }
    server.get("/healthz").expect(200);
}

#[test]
fn a_type_without_a_handler_fails_its_attempt_with_its_name() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let id = server.submit_job(json!({"type": "Encode Video", "max_attempts": 1}));
    let job = server.wait_for_status(id, "failed");
    assert_eq!(job["last_error"], r#"no handler for type "Encode Video""#);
    assert_eq!(job["attempts"], 1, "{job:#}");
    // The attempt is retried like any other failed attempt.
    let id = server.submit_job(json!({"type": "other", "max_attempts": 3}));
    let job = server.wait_for_status(id, "failed");
    assert_eq!(job["attempts"], 3, "{job:#}");
}

#[test]
fn without_demo_none_of_its_handlers_exists() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).without_demo().start();
    assert!(server.log_text().contains("no handlers: every job will fail"), "{}", server.log_text());
    for kind in ["echo", "sleep", "fail", "panic", "exit", "hang"] {
        let id = server.submit_job(json!({"type": kind, "max_attempts": 1}));
        let job = server.wait_for_status(id, "failed");
        assert_eq!(job["last_error"], format!("no handler for type \"{kind}\""));
    }
}
