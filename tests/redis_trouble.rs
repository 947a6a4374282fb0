//! Redis away, stopped, full, or holding what it should not: the server stays up and comes back by itself.

mod common;
use common::*;

/// An answer of 503 within 3 s (and a second for a busy machine).
#[track_caller]
fn assert_unavailable(server: &TestServer, context: &str) {
    for (method, path) in [("POST", "/jobs"), ("POST", "/jobs/batch"), ("GET", "/jobs"), ("GET", "/jobs/1")] {
        let begin = Instant::now();
        let body: &[u8] =
            if path == "/jobs" { br#"{"type":"echo"}"# } else { br#"{"jobs":[{"type":"echo"}]}"# };
        let body = (method == "POST").then_some(body);
        let reply = server.request(method, path, &[("Content-Type", "application/json")], body);
        let took = begin.elapsed();
        reply.expect_error(503, "store_unavailable", &format!("{context}: {method} {path}"));
        assert!(took <= secs(4), "{context}: {method} {path} answered after {took:?}");
        let after = reply.header("Retry-After").unwrap_or_else(|| panic!("{context}: no Retry-After"));
        assert!(after.parse::<u32>().is_ok_and(|s| s >= 1), "Retry-After: {after}");
    }
    server.get("/healthz").expect(200);
    let begin = Instant::now();
    server.get("/readyz").expect(503);
    assert!(begin.elapsed() <= secs(4), "{context}: readyz answered after {:?}", begin.elapsed());
}

#[test]
fn while_redis_is_away_the_server_says_so_and_comes_back_by_itself() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    server.complete("echo", json!({}));
    server.wait_until_ready();
    for round in 0..2 {
        redis.kill9();
        assert_unavailable(&server, "Redis is away");
        let bad = server.request("POST", "/jobs", &[("Content-Type", "application/json")], Some(b"{}"));
        assert!(matches!(bad.status, 400 | 503), "{}", bad.text());
        redis.restart();
        let begin = Instant::now();
        server.wait_until_ready();
        assert!(begin.elapsed() < secs(15), "back after {:?}", begin.elapsed());
        server.complete("echo", json!(round));
        server.wait_until_ready();
    }
    assert_eq!(server.metric("threadq_redis_up"), 1.0);
}

#[test]
fn jobs_that_ended_while_redis_was_away_are_written_when_it_is_back() {
    let redis = TestRedis::start();
    let config = format!(
        "{QUICK_BACKOFF}\n[handlers.note]\nexec = [\"/bin/sh\", \"-c\", \"echo $THREADQ_JOB_ID >> ran; sleep 2\"]\n"
    );
    let server = TestServer::builder().redis(&redis).config(&config).flag("workers", "8").start();
    let notes = server.submit_batch(&vec![json!({"type": "note"}); 6]);
    let bad = server.submit_job(
        json!({"type": "sleep", "payload": {"ms": 60_000}, "timeout_ms": 2000, "max_attempts": 1}),
    );
    eventually(LIMIT, "all run", || server.dir().read("ran").lines().count() == 6);
    server.wait_for_status(bad, "processing");
    redis.kill9();
    // They end in this time, and nobody can be told.
    std::thread::sleep(secs(4));
    redis.restart();
    server.wait_until_ready();
    for id in &notes {
        let job = server.wait_for_status(*id, "completed");
        assert_eq!((&job["attempts"], &job["crashes"]), (&json!(1), &json!(0)), "{job:#}");
    }
    let job = server.wait_for_status(bad, "failed");
    assert!(job["last_error"].as_str().is_some_and(|m| m.contains("timed out")), "{job:#}");
    assert_eq!(server.dir().read("ran").lines().count(), 6, "none ran twice");
    audit(&redis, &server, &[notes, vec![bad]].concat());
}

#[test]
fn a_stopped_redis_is_answered_within_three_seconds() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let running = server.submit("sleep", json!({"ms": 3000}));
    server.wait_for_status(running, "processing");
    redis.pause();
    let results = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        assert_unavailable(&server, "Redis is stopped");
        // Many at once: nobody waits for the others.
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| server.post("/jobs", &json!({"type": "echo"})).expect(503));
            }
        });
        assert!(begin.elapsed() <= secs(6), "twenty at once took {:?}", begin.elapsed());
    }));
    redis.resume();
    if let Err(panic) = results {
        std::panic::resume_unwind(panic);
    }
    server.wait_until_ready();
    let job = server.wait_for_status(running, "completed");
    assert_eq!(job["crashes"], 0, "{job:#}");
    server.complete("echo", json!({}));
    // What the stopped Redis was sent it did later: those may be there, but all end.
    wait_until_quiet(&server, LIMIT);
    eventually(LIMIT, "no list holds anything", || redis.live_handles().is_empty());
}

#[test]
fn an_outage_longer_than_the_lease_is_no_reason_to_take_jobs_from_the_living() {
    let redis = TestRedis::start();
    let start = || TestServer::builder().redis(&redis).flag("lease-timeout", "1s").start();
    let servers = [start(), start()];
    let ids = servers[0].submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 7000}}); 10]);
    for id in &ids {
        servers[0].wait_for_status(*id, "processing");
    }
    redis.kill9();
    std::thread::sleep(secs(3));
    redis.restart();
    for server in &servers {
        server.wait_until_ready();
    }
    for id in &ids {
        let job = servers[1].wait_for_status(*id, "completed");
        assert_eq!((&job["attempts"], &job["crashes"]), (&json!(1), &json!(0)), "{job:#}");
    }
    audit(&redis, &servers[0], &ids);
}

#[test]
fn a_full_redis_refuses_new_jobs_and_drains_those_that_it_has() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(QUICK_BACKOFF).flag("workers", "2").start();
    let running = server.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 800}}); 2]);
    for id in &running {
        server.wait_for_status(*id, "processing");
    }
    let queued = server.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 40}}); 20]);
    let failing = server.submit_batch(&vec![json!({"type": "fail", "payload": {"times": 1}}); 3]);
    let buried = server.submit_batch(&vec![json!({"type": "fail", "payload": {"permanent": true}}); 3]);
    let delayed = server.submit_batch(&vec![json!({"type": "echo", "delay_ms": 1500}); 3]);
    let held = server.submit_job(json!({"type": "echo", "queue": "nobody"}));
    redis.query::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    for body in [json!({"type": "echo"}), json!({"type": "echo", "delay_ms": 5000})] {
        let reply = server.post("/jobs", &body);
        reply.expect_error(503, "store_unavailable", "a full Redis");
        assert!(reply.header("Retry-After").is_some());
    }
    server.get("/healthz").expect(200);
    eventually(LIMIT, "it is not ready while Redis is full", || server.get("/readyz").status == 503);
    for id in running.iter().chain(&queued).chain(&failing).chain(&delayed) {
        server.wait_for_status(*id, "completed");
    }
    for id in &buried {
        server.wait_for_status(*id, "failed");
    }
    // What people do goes on too.
    server.act(&format!("/jobs/{held}/cancel")).expect(200);
    server.delete(&format!("/jobs/{held}")).expect(204);
    assert_eq!(server.delete("/dlq").expect(200).json(), json!({"deleted": 3}));
    server.act("/queues/other/pause").expect(200);
    server.act("/queues/other/resume").expect(200);
    server.post("/jobs", &json!({"type": "echo"})).expect(503);
    redis.query::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    server.wait_until_ready();
    server.complete("echo", json!({}));
}

#[test]
fn a_full_redis_does_not_stop_a_take_over() {
    let redis = TestRedis::start();
    let start = || TestServer::builder().redis(&redis).flag("lease-timeout", "1s").start();
    let mut dead = start();
    let survivor = start();
    let ids = survivor.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 2500}}); 10]);
    for id in &ids {
        survivor.wait_for_status(*id, "processing");
    }
    redis.query::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    dead.kill9();
    for id in &ids {
        let job = survivor.wait_for_status(*id, "completed");
        assert!(job["crashes"].as_u64() <= Some(1), "{job:#}");
    }
    // The survivor's own beat goes on, so nobody took its jobs.
    audit(&redis, &survivor, &ids);
}

#[test]
fn a_read_only_redis_is_unavailable_for_submissions() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    server.complete("echo", json!({}));
    // A master that never answers: it stays a read-only replica.
    redis.query::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    let begin = Instant::now();
    let reply = server.post("/jobs", &json!({"type": "echo"}));
    reply.expect_error(503, "store_unavailable", "a read-only Redis");
    assert!(begin.elapsed() <= secs(4), "{:?}", begin.elapsed());
    eventually(LIMIT, "it is not ready", || server.get("/readyz").status == 503);
    server.get("/healthz").expect(200);
    redis.query::<()>(&["REPLICAOF", "NO", "ONE"]);
    server.wait_until_ready();
    server.complete("echo", json!({}));
}

#[test]
fn a_server_starts_while_redis_is_away() {
    let redis = TestRedis::not_started();
    let server = TestServer::start(&redis);
    assert_unavailable(&server, "Redis was never there");
    redis.restart();
    server.wait_until_ready();
    server.complete("echo", json!({}));
}

#[test]
fn an_outage_is_said_once_and_its_end_too() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    server.complete("echo", json!({}));
    let before = server.log_text().lines().count();
    redis.kill9();
    std::thread::sleep(secs(4));
    redis.restart();
    server.wait_until_ready();
    server.complete("echo", json!({}));
    let log = server.log_text();
    let lines: Vec<&str> =
        log.lines().skip(before).filter(|line| line.to_lowercase().contains("redis")).collect();
    assert!((1..=6).contains(&lines.len()), "an outage of 4 s is worth a few lines:\n{log}");
}

#[test]
fn ids_without_a_job_do_not_stop_the_queue() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("workers", "2").start();
    let gone = server.submit_batch(&vec![json!({"type": "echo", "queue": "nobody"}); 3]);
    for id in &gone {
        redis.query::<u64>(&["DEL", &format!("{{threadq}}:job:{id}")]);
        redis.query::<String>(&["RPOPLPUSH", "{threadq}:work_queue:nobody", "{threadq}:work_queue:default"]);
    }
    redis.query::<()>(&["SET", "{threadq}:job:777", "not a hash"]);
    redis.query::<u64>(&["HSET", "{threadq}:job:778", "status", "nonsense"]);
    redis.query::<u64>(&["HSET", "{threadq}:job:779", "status", "queued"]);
    for bad in
        ["garbage", "", "-5", "99999999999999999999", "1.5", "777", "778", "779", "\u{0}\u{1}", "{threadq}"]
    {
        redis.query::<u64>(&["LPUSH", "{threadq}:work_queue:default", bad]);
    }
    redis.query::<u64>(&["ZADD", "{threadq}:scheduled", "1", "garbage", "1", "780"]);
    let ids = server.submit_batch(&vec![json!({"type": "echo"}); 20]);
    for id in &ids {
        server.wait_for_status(*id, "completed");
    }
    let delayed = server.submit_job(json!({"type": "echo", "delay_ms": 200}));
    server.wait_for_status(delayed, "completed");
    eventually(LIMIT, "the broken ids are gone from the lists", || redis.live_handles().is_empty());
    server.get("/jobs").expect(200);
    server.get("/stats").expect(200);
    server.get("/dlq").expect(200);
}

#[test]
fn lost_scripts_are_loaded_again() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(QUICK_BACKOFF).start();
    for n in 0..5 {
        server.complete("echo", json!(n));
        redis.query::<()>(&["SCRIPT", "FLUSH"]);
        server.complete("fail", json!({"times": 1}));
        redis.query::<()>(&["SCRIPT", "FLUSH"]);
    }
    let ids = server.submit_batch(&vec![json!({"type": "echo", "delay_ms": 100}); 5]);
    redis.query::<()>(&["SCRIPT", "FLUSH"]);
    for id in ids {
        server.wait_for_status(id, "completed");
    }
}

#[test]
fn cut_connections_are_opened_again() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let mut ids = Vec::new();
    for round in 0..10 {
        redis.query::<u64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        let key = format!("round-{round}");
        let body = json!({"jobs": vec![json!({"type": "echo"}); 10]});
        ids.extend(until_some(LIMIT, "a batch is accepted", || {
            let reply = server.post_with("/jobs/batch", &[("Idempotency-Key", &key)], &body);
            matches!(reply.status, 200 | 202).then(|| {
                let ids = reply.json()["job_ids"].as_array().cloned().unwrap_or_default();
                ids.iter().filter_map(Value::as_u64).collect::<Vec<u64>>()
            })
        }));
    }
    wait_until_quiet(&server, LIMIT);
    audit(&redis, &server, &ids);
}

#[test]
fn redis_killed_under_load_loses_nothing_that_was_accepted() {
    let redis = TestRedis::start_with(&["--appendfsync", "always"]);
    let server = TestServer::builder().redis(&redis).flag("workers", "8").start();
    let mut ids = Vec::new();
    for round in 0..3 {
        for part in 0..10 {
            let key = format!("{round}-{part}");
            let body = json!({"jobs": vec![json!({"type": "sleep", "payload": {"ms": 5}}); 20]});
            ids.extend(until_some(LIMIT, "a batch is accepted", || {
                let reply = server.post_with("/jobs/batch", &[("Idempotency-Key", &key)], &body);
                matches!(reply.status, 200 | 202).then(|| {
                    let ids = reply.json()["job_ids"].as_array().cloned().unwrap_or_default();
                    ids.iter().filter_map(Value::as_u64).collect::<Vec<u64>>()
                })
            }));
            if part == 5 {
                redis.kill9();
                redis.restart();
            }
        }
    }
    server.wait_until_ready();
    wait_until_quiet(&server, secs(60));
    let outcomes = audit(&redis, &server, &ids);
    assert!(outcomes.values().all(|status| status == "completed"));
}
