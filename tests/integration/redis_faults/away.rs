//! Redis cannot be reached: killed, frozen, not there yet, or busy loading its data.

use super::fixture::{Scene, assert_away, durable_redis, start_waiting};
use crate::common::*;

#[test]
fn killed_and_restarted() {
    let fixture = Scene::start();
    fixture.redis.kill9();
    assert_away(&fixture.server, "Connection refused");
    fixture.running_jobs_end();
    assert_away(&fixture.server, "Connection refused");
    fixture.redis.restart();
    fixture.all_is_well_again(false);
    fixture.assert_said(&["ERROR Redis is unavailable: ", "INFO  Redis is available again after "]);
}

#[test]
fn killed_again_and_again_under_load() {
    let redis = durable_redis();
    let server = TestServer::builder().redis(&redis).flag("workers", "8").start();
    let mut ids = Vec::new();
    for part in 0..30 {
        let key = format!("part-{part}");
        let body = json!({"jobs": vec![json!({"type": "sleep", "payload": {"ms": 5}}); 20]});
        ids.extend(until_some(LIMIT, "a batch is accepted", || {
            let reply = server.post_with("/jobs/batch", &[("Idempotency-Key", &key)], &body);
            matches!(reply.status, 200 | 202).then(|| {
                let ids = reply.json()["job_ids"].as_array().cloned().unwrap_or_default();
                ids.iter().filter_map(Value::as_u64).collect::<Vec<u64>>()
            })
        }));
        if part % 10 == 5 {
            redis.kill9();
            redis.restart();
        }
    }
    server.wait_until_ready();
    wait_until_quiet(&server, secs(60));
    let outcomes = audit(&redis, &server, &ids);
    assert!(outcomes.values().all(|status| status == "completed"));
}

#[test]
fn frozen_and_woken() {
    let fixture = Scene::start();
    let waiter = start_waiting(&fixture.server, fixture.running[0]);
    fixture.redis.pause();
    assert_away(&fixture.server, "no reply in time");
    // Many requests at once: no request waits for the others.
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| fixture.server.post("/jobs", &json!({"type": "echo"})).expect(503));
        }
    });
    assert!(begin.elapsed() <= secs(6), "twenty at once took {:?}", begin.elapsed());
    fixture.running_jobs_end();
    fixture.redis.resume();
    // A frozen Redis executes the commands that it has received after it is resumed.
    fixture.all_is_well_again(true);
    let waited = waiter.join().expect("answered").expect(200).json();
    assert_eq!(waited["status"], "completed", "who waits notices nothing");
    fixture.assert_said(&["ERROR Redis is unavailable: ", "INFO  Redis is available again after "]);
}

#[test]
fn loading_its_data() {
    let fixture = Scene::start();
    let fill = "for i = 1, 4500 do redis.call('SET', 'filler:' .. i, i) end";
    fixture.redis.query::<()>(&["EVAL", fill, "0"]);
    fixture.redis.kill9();
    fixture.running_jobs_end();
    // Loading takes half a millisecond per key.
    fixture.redis.launch(&["--key-load-delay", "500"]);
    assert_away(&fixture.server, "loading");
    fixture.all_is_well_again(false);
    fixture.assert_said(&[
        "ERROR Redis is unavailable: ",
        "ERROR Redis is still unavailable, for another reason: LOADING",
        "INFO  Redis is available again after ",
    ]);
}

#[test]
fn not_there_yet_when_the_server_starts() {
    let redis = TestRedis::not_started();
    let server = TestServer::start(&redis);
    assert_away(&server, "Redis is unavailable");
    redis.restart();
    server.wait_until_ready();
    server.complete("echo", json!({}));
    let log = server.log_text();
    assert_eq!(log.matches("ERROR Redis is unavailable").count(), 1, "{log}");
    assert_eq!(log.matches("Redis is available again").count(), 1, "{log}");
}

#[test]
fn outcomes_of_all_kinds_are_written_when_it_is_back() {
    let redis = durable_redis();
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
    eventually(LIMIT, "all end", || server.metric("threadq_workers_busy") == 0.0);
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
fn longer_than_the_lease_is_no_reason_to_take_jobs_from_the_living() {
    let redis = durable_redis();
    let start = || TestServer::builder().redis(&redis).flag("lease-timeout", "1s").start();
    let servers = [start(), start()];
    let ids = servers[0].submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 4500}}); 10]);
    for id in &ids {
        servers[0].wait_for_status(*id, "processing");
    }
    redis.kill9();
    std::thread::sleep(secs(2));
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

/// Stops a server during an outage, with outcomes that wait and one job that still runs.
fn stops_in_time(trouble: impl Fn(&TestRedis), end_of_it: impl Fn(&TestRedis)) {
    let redis = durable_redis();
    let builder = TestServer::builder()
        .redis(&redis)
        .flag("lease-timeout", "1s")
        .flag("drain-timeout", "1s")
        .flag("queues", "default,maybe");
    let mut server = builder.start();
    let mut ids = server.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 2000}}); 3]);
    ids.push(server.submit("sleep", json!({"ms": 8000})));
    for id in &ids {
        server.wait_for_status(*id, "processing");
    }
    trouble(&redis);
    eventually(LIMIT, "the server notices", || server.get("/readyz").status == 503);
    let begin = Instant::now();
    assert_eq!(server.stop(LIMIT), Some(0), "{}", server.log_tail());
    assert!(begin.elapsed() < secs(12), "stopped after {:?}", begin.elapsed());
    end_of_it(&redis);
    let server = builder.start();
    for id in &ids {
        server.wait_for_status(*id, "completed");
    }
    wait_until_quiet(&server, LIMIT);
    eventually(LIMIT, "no list holds anything", || redis.live_handles().is_empty());
}

#[test]
fn a_stop_while_it_is_away_ends_in_time() {
    std::thread::scope(|scope| {
        scope.spawn(|| stops_in_time(TestRedis::kill9, TestRedis::restart));
        scope.spawn(|| stops_in_time(TestRedis::pause, TestRedis::resume));
    });
}

/// A server with jobs that end in different ways after Redis is gone; with the ids of the jobs by type.
fn with_outcomes_that_wait(redis: &TestRedis, drain: &str) -> (TestServer, Vec<(&'static str, u64)>) {
    let config = "[handlers.well]\nexec = [\"/bin/sleep\", \"1\"]\n\
                  [handlers.ill]\nexec = [\"/bin/sh\", \"-c\", \"sleep 1; exit 1\"]\n\
                  backoff = { base = \"24h\", cap = \"24h\" }\n\
                  [handlers.bad]\nexec = [\"/bin/sh\", \"-c\", \"sleep 1; exit 65\"]\n";
    let server = TestServer::builder()
        .redis(redis)
        .config(config)
        .flag("drain-timeout", drain)
        .flag("max-crashes", "2");
    let server = server.start();
    let jobs: Vec<(&str, u64)> = ["well", "well", "ill", "bad"]
        .map(|job_type| (job_type, server.submit_job(json!({"type": job_type}))))
        .into();
    for (_, id) in &jobs {
        server.wait_for_status(*id, "processing");
    }
    redis.kill9();
    eventually(LIMIT, "all end", || server.metric("threadq_workers_busy") == 0.0);
    (server, jobs)
}

#[test]
fn outcomes_that_a_stopping_server_cannot_write_are_in_its_log() {
    let redis = durable_redis();
    let (mut server, jobs) = with_outcomes_that_wait(&redis, "1s");
    assert_eq!(server.stop(LIMIT), Some(0), "{}", server.log_tail());
    let log = server.log_text();
    for (job_type, id) in jobs {
        let what = match job_type {
            "well" => "completed, not written",
            "ill" => "failed, not written: exit code 1",
            _ => "failed for good, not written: exit code 65",
        };
        let line = format!("job={id} type=\"{job_type}\" attempt=1: {what}");
        assert_eq!(log.matches(&line).count(), 1, "{line}\n{log}");
    }
    assert!(log.contains("stopped without Redis"), "{log}");
    assert!(!log.contains("still in flight"), "no attempt ran any more:\n{log}");
}

#[test]
fn a_job_that_a_stopping_server_cannot_give_back_is_in_its_log() {
    let redis = durable_redis();
    let mut server = TestServer::builder().redis(&redis).start();
    let id = server.submit("sleep", json!({"ms": 600_000}));
    server.wait_for_status(id, "processing");
    redis.kill9();
    server.sigterm();
    eventually(LIMIT, "it drains", || server.log_text().contains("draining"));
    assert_eq!(server.stop(LIMIT), Some(0), "{}", server.log_tail());
    let line = format!("job={id} type=\"sleep\" attempt=1: stopped before its end, not written");
    assert_eq!(server.log_text().matches(&line).count(), 1, "{}", server.log_tail());
}

#[test]
fn a_stopping_server_writes_its_outcomes_if_redis_returns_before_the_drain_ends() {
    let redis = durable_redis();
    let (mut server, jobs) = with_outcomes_that_wait(&redis, "60s");
    server.sigterm();
    // Longer than the time for the last attempts after a drain.
    std::thread::sleep(secs(5));
    redis.restart();
    assert_eq!(server.wait_exit(LIMIT), Some(0), "{}", server.log_tail());
    assert!(!server.log_text().contains("not written"), "{}", server.log_tail());
    let observer = TestServer::observer(&redis);
    for (job_type, id) in jobs {
        let job = observer.job(id);
        let status = match job_type {
            "well" => "completed",
            "ill" => "retrying",
            _ => "failed",
        };
        assert_eq!((&job["status"], &job["crashes"]), (&json!(status), &json!(0)), "{job:#}");
    }
}
