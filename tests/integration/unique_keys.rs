//! Unique keys: how long a key is held, what a submission gets whose key is held, and that one of many submissions wins.

use crate::common::*;

/// A job with these fields in a queue that no server takes.
fn parked(fields: Value) -> Value {
    let mut body = json!({"type": "echo", "queue": "nobody"});
    for (name, value) in fields.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

/// The number of submissions that the server has counted for the type `echo`.
fn counted(server: &TestServer) -> f64 {
    server.metric("threadq_jobs_submitted_total{type=\"echo\"}")
}

#[test]
fn existing_answers_with_the_holder_and_stores_nothing() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let body = parked(json!({"unique": {"key": "k", "on_conflict": "existing"}}));
    let first = server.post("/jobs", &body).expect(202).json()["job_id"].clone();
    let again = server.post("/jobs", &body).expect(200);
    assert_eq!(again.json(), json!({"job_id": first, "status": "queued", "existing": true}));
    assert_eq!(again.header("Location"), Some(format!("/jobs/{first}").as_str()));
    assert_eq!(again.header("Idempotency-Replayed"), None);
    assert_eq!((server.total(""), counted(&server)), (1, 1.0));
    // The holder gives up the key at its end.
    server.act(&format!("/jobs/{first}/cancel")).expect(200);
    let next = server.post("/jobs", &body).expect(202).json()["job_id"].clone();
    assert_ne!(next, first);
}

#[test]
fn replace_gives_the_holder_the_given_fields_and_no_others() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let unique = json!({"key": "k", "on_conflict": "replace"});
    let body = parked(json!({
        "payload": 1, "unique": unique, "delay_ms": 3_600_000, "max_attempts": 7, "tags": ["a"], "meta": {"n": "1"},
    }));
    let id = server.post("/jobs", &body).expect(202).json()["job_id"].as_u64().expect("an id");
    let before = server.job(id);
    let replaced = json!({"job_id": id, "status": "scheduled", "replaced": true});
    let fewer = json!({"type": "echo", "payload": 2, "unique": unique});
    assert_eq!(server.post("/jobs", &fewer).expect(200).json(), replaced);
    let job = server.job(id);
    assert_eq!(job["payload"], 2);
    for name in ["queue", "scheduled_at", "max_attempts", "tags", "meta", "unique_key", "created_at"] {
        assert_eq!(job[name], before[name], "{name}");
    }
    let other = json!({
        "type": "echo", "queue": "other", "unique": unique, "delay_ms": 7_200_000, "max_attempts": 2, "timeout_ms": 9,
        "tags": ["b", "c"], "expires_in_ms": 8_000_000,
    });
    assert_eq!(server.post("/jobs", &other).expect(200).json(), replaced);
    let job = server.job(id);
    assert_eq!((&job["payload"], &job["queue"]), (&json!(2), &json!("other")));
    assert_eq!((&job["max_attempts"], &job["timeout_ms"]), (&json!(2), &json!(9)));
    assert_eq!(job["tags"], json!(["b", "c"]));
    assert!(time_ms(&job["scheduled_at"]) > time_ms(&before["scheduled_at"]) + 3_000_000, "{job:#}");
    assert!(time_ms(&job["expires_at"]) > time_ms(&job["scheduled_at"]), "{job:#}");
    assert_eq!((server.total(""), counted(&server)), (1, 1.0));
}

#[test]
fn a_repeated_request_gets_the_first_response_also_if_it_found_another_job() {
    let redis = TestRedis::start();
    let servers = [TestServer::observer(&redis), TestServer::observer(&redis)];
    for (on_conflict, told) in [("existing", "existing"), ("replace", "replaced")] {
        let unique = json!({"key": on_conflict, "on_conflict": on_conflict});
        let body = parked(json!({"unique": unique}));
        let id = servers[0].post("/jobs", &body).expect(202).json()["job_id"].clone();
        let key = [("Idempotency-Key", on_conflict)];
        let first = servers[0].post_with("/jobs", &key, &body).expect(200);
        assert_eq!(first.json(), json!({"job_id": id, "status": "queued", told: true}));
        assert_eq!(first.header("Idempotency-Replayed"), None);
        // The job ends. The response is still that of the first request.
        servers[0].act(&format!("/jobs/{id}/cancel")).expect(200);
        for server in &servers {
            let again = server.post_with("/jobs", &key, &body).expect(200);
            assert_eq!(again.json(), first.json());
            assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
        }
    }
    assert_eq!(servers[0].total(""), 2);
}

#[test]
fn a_deleted_job_that_still_holds_its_key_has_no_status() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let unique = json!({"key": "k", "for_ms": 3_600_000, "on_conflict": "existing"});
    let body = parked(json!({"unique": unique}));
    let id = server.post("/jobs", &body).expect(202).json()["job_id"].clone();
    server.act(&format!("/jobs/{id}/cancel")).expect(200);
    let cancelled = json!({"job_id": id, "status": "cancelled", "existing": true});
    assert_eq!(server.post("/jobs", &body).expect(200).json(), cancelled);
    server.delete(&format!("/jobs/{id}")).expect(204);
    assert_eq!(server.post("/jobs", &body).expect(200).json(), json!({"job_id": id, "existing": true}));
    let rejected = parked(json!({"unique_key": "k"}));
    server.post("/jobs", &rejected).expect_error(409, "duplicate", "the key is held for an hour");
}

#[test]
fn a_job_that_expires_before_its_start_is_refused_with_the_name_of_its_field() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let soon = rfc3339(now_ms() + 60_000);
    for (fields, name) in [
        (json!({"expires_at": "2001-01-01T00:00:00Z"}), "expires_at"),
        (json!({"expires_at": soon, "delay_ms": 3_600_000}), "expires_at"),
        (json!({"expires_in_ms": 5000, "delay_ms": 5000}), "expires_in_ms"),
        (json!({"expires_in_ms": 5000, "run_at": "2099-01-01T00:00:00Z"}), "expires_in_ms"),
    ] {
        let job = parked(fields);
        let sentence = server.post("/jobs", &job).expect_error(400, "invalid_job", &job.to_string());
        assert!(sentence.starts_with(&format!("{name} must be ")), "{sentence}");
        let batch = json!({"jobs": [{"type": "echo"}, job]});
        let sentence =
            server.post("/jobs/batch", &batch).expect_error(400, "invalid_job", &batch.to_string());
        assert!(sentence.starts_with(&format!("jobs[1].{name} must be ")), "{sentence}");
    }
    assert_eq!(server.total(""), 0);
}

#[test]
fn a_replacement_wakes_the_scheduler_for_its_new_time() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let body = |delay: u64| json!({"type": "echo", "delay_ms": delay, "unique": {"key": "k", "on_conflict": "replace"}});
    let id = server.post("/jobs", &body(3_600_000)).expect(202).json()["job_id"].as_u64().expect("an id");
    server.post("/jobs", &body(300)).expect(200);
    let job = server.wait_for_status(id, "completed");
    assert!(time_ms(&job["started_at"]) - time_ms(&job["scheduled_at"]) < 3000, "{job:#}");
}
