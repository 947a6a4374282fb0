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
        let batch = json!({"jobs": [job]});
        let sentence =
            server.post("/jobs/batch", &batch).expect_error(400, "invalid_job", &batch.to_string());
        assert!(sentence.starts_with(&format!("jobs[0].{name} must be ")), "{sentence}");
    }
    assert_eq!(server.total(""), 0);
}

#[test]
fn a_replacement_can_bring_the_start_forward() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let body = |delay: u64| json!({"type": "echo", "delay_ms": delay, "unique": {"key": "k", "on_conflict": "replace"}});
    let id = server.post("/jobs", &body(3_600_000)).expect(202).json()["job_id"].as_u64().expect("an id");
    server.post("/jobs", &body(300)).expect(200);
    server.wait_for_status(id, "completed");
}

/// The answers to the same submission of 16 threads, of which half use either server.
fn submit_together(servers: &[TestServer; 2], body: impl Fn(usize) -> Value + Sync) -> Vec<Reply> {
    let apis = [(*servers[0]).clone(), (*servers[1]).clone()];
    let (apis, body) = (&apis, &body);
    std::thread::scope(|scope| {
        let submit = |n: usize| scope.spawn(move || apis[n % 2].post("/jobs", &body(n)));
        let threads: Vec<_> = (0..16).map(submit).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

#[test]
fn of_sixteen_submitters_one_stores_a_job_in_every_mode() {
    let redis = TestRedis::start();
    let servers = [TestServer::observer(&redis), TestServer::observer(&redis)];
    let modes = [
        (json!({}), 409, "code"),
        (json!({"until": "start"}), 409, "code"),
        (json!({"for_ms": 3_600_000}), 409, "code"),
        (json!({"on_conflict": "existing"}), 200, "existing"),
        (json!({"until": "start", "on_conflict": "existing"}), 200, "existing"),
        (json!({"for_ms": 3_600_000, "on_conflict": "existing"}), 200, "existing"),
        (json!({"on_conflict": "replace"}), 200, "replaced"),
        (json!({"on_conflict": "replace", "max_wait_ms": 1000}), 200, "replaced"),
    ];
    for (number, (mode, status, told)) in modes.iter().enumerate() {
        let mut unique = mode.clone();
        unique["key"] = json!(format!("key {number}"));
        let replies = submit_together(&servers, |n| parked(json!({"payload": n, "unique": unique})));
        let stored: Vec<&Reply> = replies.iter().filter(|reply| reply.status == 202).collect();
        assert_eq!(stored.len(), 1, "{mode}: {replies:?}");
        let id = &stored[0].json()["job_id"];
        for reply in replies.iter().filter(|reply| reply.status != 202) {
            assert_eq!((reply.status, &reply.json()["job_id"]), (*status, id), "{mode}: {}", reply.text());
            assert!(reply.json().get(told).is_some(), "{mode}: {}", reply.text());
        }
    }
    assert_eq!(servers[0].total(""), modes.len() as u64);
}

#[test]
fn every_mode_meets_a_holder_of_every_status_and_mode() {
    let redis = TestRedis::start();
    let config = "[handlers.fail]\nbackoff = { base = \"365d\", cap = \"365d\" }\n";
    let server = TestServer::builder().redis(&redis).config(config).flag("workers", "16").start();
    let statuses = [
        ("scheduled", json!({"type": "echo", "delay_ms": 3_600_000})),
        ("queued", json!({"type": "echo", "queue": "nobody"})),
        ("processing", json!({"type": "sleep", "payload": {"ms": 600_000}})),
        ("retrying", json!({"type": "fail"})),
        ("completed", json!({"type": "echo"})),
        ("failed", json!({"type": "fail", "payload": {"permanent": true}})),
        ("cancelled", json!({"type": "echo", "queue": "nobody"})),
    ];
    let holds = [json!({"until": "end"}), json!({"until": "start"}), json!({"for_ms": 3_600_000})];
    for (status, holder) in &statuses {
        for (hold_number, hold) in holds.iter().enumerate() {
            for on_conflict in ["reject", "existing", "replace"] {
                let context = format!("{status}, {hold}, {on_conflict}");
                let (mut holder, mut unique) = (holder.clone(), hold.clone());
                unique["key"] = json!(context);
                holder["unique"] = unique;
                let id = server.submit_job(holder.clone());
                if *status == "cancelled" {
                    server.act(&format!("/jobs/{id}/cancel")).expect(200);
                }
                server.wait_for_status(id, status);

                let has_ended = ["completed", "failed", "cancelled"].contains(status);
                let waits = ["scheduled", "queued"].contains(status);
                let is_held = match hold_number {
                    0 => !has_ended,
                    1 => waits,
                    _ => true,
                };
                let newcomer = json!({
                    "type": holder["type"], "queue": "nobody", "unique": {"key": context, "on_conflict": on_conflict},
                });
                let reply = server.post("/jobs", &newcomer);
                let expected = match on_conflict {
                    _ if !is_held => (202, "message"),
                    "existing" => (200, "existing"),
                    "replace" if hold_number == 1 => (200, "replaced"),
                    _ => (409, "code"),
                };
                assert_eq!(reply.status, expected.0, "{context}: {}", reply.text());
                let answer = reply.json();
                assert!(answer.get(expected.1).is_some(), "{context}: {answer}");
                assert_eq!(answer["job_id"] == id, is_held, "{context}: {answer}");
            }
        }
    }
}

#[test]
fn the_data_of_every_replacement_runs_in_the_holder_or_in_a_job_of_its_own() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    // The last data that was submitted for each job. Workers start the jobs meanwhile.
    let mut last = std::collections::BTreeMap::new();
    for n in 0..300 {
        let body = json!({"type": "echo", "payload": n, "unique": {"key": "k", "on_conflict": "replace"}});
        let reply = server.post("/jobs", &body);
        assert!(matches!(reply.status, 200 | 202), "{}", reply.text());
        last.insert(reply.json()["job_id"].as_u64().expect("an id"), n);
    }
    for (id, n) in last {
        let job = server.wait_for_status(id, "completed");
        assert_eq!(job["result"], n, "{job:#}");
    }
}

// What users asked other queues for. The number of the discussion stands at each test.

/// bull#855: each submission of a delayed job starts its delay again.
#[test]
fn a_debounced_job_waits_again_after_each_submission() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let mut last = 0;
    let mut ids = std::collections::BTreeSet::new();
    for n in 0..5 {
        let unique = json!({"key": "mail:7", "on_conflict": "replace"});
        let body = json!({"type": "echo", "payload": n, "delay_ms": 1500, "unique": unique});
        let id = server.post("/jobs", &body).json()["job_id"].as_u64().expect("an id");
        let due = time_ms(&server.job(id)["scheduled_at"]);
        assert!(due >= last, "the time moves on: {due} after {last}");
        (last, _) = (due, ids.insert(id));
    }
    let id = *ids.last().expect("a job");
    let job = server.wait_for_status(id, "completed");
    assert_eq!((job["result"].clone(), time_ms(&job["scheduled_at"])), (json!(4), last));
    assert!(time_ms(&job["started_at"]) + 1 >= last, "{job:#}");
}

/// bull#1034, bull#2521 and bullmq#3151: a submission while the job runs is not lost, and further ones make no third job.
#[test]
fn one_job_waits_with_the_newest_data_while_one_runs() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let submit = |on_conflict: &str, ms: u64| {
        let unique = json!({"key": "profile:7", "until": "start", "on_conflict": on_conflict});
        let body = json!({"type": "sleep", "payload": {"ms": ms}, "unique": unique, "queue": "default"});
        server.post("/jobs", &body)
    };
    let running = submit("replace", 600_000).expect(202).json()["job_id"].as_u64().expect("an id");
    server.wait_for_status(running, "processing");
    server.act("/queues/default/pause").expect(200);
    let waiting = submit("replace", 1).expect(202).json()["job_id"].as_u64().expect("an id");
    assert_ne!(waiting, running);
    for ms in 2..6 {
        assert_eq!(submit("replace", ms).expect(200).json()["job_id"], waiting);
        assert_eq!(submit("existing", 99).expect(200).json()["job_id"], waiting);
    }
    submit("reject", 99).expect_error(409, "duplicate", "one waits already");
    assert_eq!(server.total(""), 2);
    assert_eq!(server.job(running)["payload"]["ms"], 600_000, "the data of a running job stays");
    server.act("/queues/default/resume").expect(200);
    let job = server.wait_for_status(waiting, "completed");
    assert_eq!(job["payload"]["ms"], 5, "{job:#}");
    assert_eq!(server.job(running)["status"], "processing");
}

/// bullmq#3250: the job runs once after the last event of a series, with the data of that event.
#[test]
fn a_series_of_events_is_one_run_after_its_end() {
    let redis = TestRedis::start();
    let servers = [TestServer::start(&redis), TestServer::start(&redis)];
    let body = |n: usize| json!({"type": "echo", "payload": n, "delay_ms": 5000, "unique": {"key": "k", "on_conflict": "replace"}});
    let replies = submit_together(&servers, body);
    let last = servers[0].post("/jobs", &body(99)).expect(200).json()["job_id"].as_u64().expect("an id");
    assert!(replies.iter().all(|reply| reply.json()["job_id"] == last), "{replies:?}");
    assert_eq!(servers[1].wait_for_status(last, "completed")["result"], 99);
    assert_eq!(servers[0].total(""), 1);
}

/// arq#520: a job that is put off again and again starts all the same, and has the newest data.
#[test]
fn an_endless_series_does_not_starve_the_job() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let submit = |n: u64, delay: u64| {
        let unique = json!({"key": "k", "on_conflict": "replace", "max_wait_ms": 7_200_000});
        let body = parked(json!({"payload": n, "delay_ms": delay, "unique": unique}));
        let id = server.post("/jobs", &body).json()["job_id"].as_u64().expect("an id");
        server.job(id)
    };
    let first = submit(1, 3_600_000);
    let created = time_ms(&first["created_at"]);
    let second = submit(2, 7_000_000);
    assert!(time_ms(&second["scheduled_at"]) - created >= 7_000_000, "{second:#}");
    for n in 3..6 {
        let job = submit(n, 9_000_000);
        assert_eq!((&job["id"], &job["payload"]), (&first["id"], &json!(n)));
        assert_eq!(time_ms(&job["scheduled_at"]), created + 7_200_000, "{job:#}");
    }
}

/// boringnode/queue#12: a key with a time of its own is free after that time, also while its job still waits, and not before,
/// also if its job has ended.
#[test]
fn a_key_for_a_fixed_time_is_free_after_that_time_alone() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    for queue in ["default", "nobody"] {
        let unique = json!({"key": queue, "for_ms": 3000, "on_conflict": "existing"});
        let body = json!({"type": "echo", "queue": queue, "unique": unique});
        let first = server.post("/jobs", &body).expect(202).json()["job_id"].as_u64().expect("an id");
        if queue == "default" {
            server.wait_for_status(first, "completed");
        }
        let mut stored = None;
        eventually(LIMIT, "the time of the key is over", || {
            let reply = server.post("/jobs", &body);
            if reply.status == 202 {
                stored = reply.json()["job_id"].as_u64();
            } else {
                assert_eq!(reply.expect(200).json()["job_id"], first);
            }
            stored.is_some()
        });
        // Ids are times in microseconds.
        let between = (stored.expect("a job") - first) / 1000;
        assert!(between >= 2999, "{queue}: after {between} ms");
    }
}
