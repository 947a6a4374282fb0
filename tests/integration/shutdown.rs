//! Stopping a server: running jobs may end, others go back to their queue uncharged, and the exit code is 0.

use crate::common::*;

#[test]
fn running_jobs_may_end_and_the_exit_is_0() {
    let redis = TestRedis::start();
    let mut server = TestServer::builder().redis(&redis).flag("workers", "4").start();
    let observer = TestServer::observer(&redis);
    let running = server.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 4000}}); 4]);
    let waiting = server.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 10}}); 40]);
    for id in &running {
        server.wait_for_status(*id, "processing");
    }
    assert_eq!(server.stop(secs(20)), Some(0), "{}", server.log_tail());
    for id in &running {
        let job = observer.job(*id);
        assert_eq!(job["status"], "completed", "{job:#}");
        assert_eq!(job["attempts"], 1, "{job:#}");
    }
    let left = waiting.iter().filter(|id| observer.job(**id)["status"] == "queued").count();
    assert!(left > 30, "a stopping server takes no more jobs: {left} of 40 are left");
    // The server is removed from the registry, and its successor runs the rest in order.
    eventually(LIMIT, "the server is no longer listed", || observer.server_ids().len() == 1);
    let _next = TestServer::builder().redis(&redis).start();
    wait_until_quiet(&observer, LIMIT);
    for id in &waiting {
        let job = observer.job(*id);
        assert_eq!(
            (&job["status"], &job["attempts"], &job["crashes"]),
            (&json!("completed"), &json!(1), &json!(0))
        );
    }
    audit(&redis, &observer, &[running, waiting].concat());
}

#[test]
fn a_job_that_outlasts_the_drain_goes_back_without_charge() {
    let redis = TestRedis::start();
    let mut server =
        TestServer::builder().redis(&redis).flag("workers", "3").flag("drain-timeout", "1s").start();
    let observer = TestServer::observer(&redis);
    let ids = [
        server.submit("sleep", json!({"ms": 600_000})),
        server.submit("hang", json!({})),
        server.submit("sleep", json!({"ms": 600_000})),
    ];
    for id in ids {
        server.wait_for_status(id, "processing");
    }
    let begin = Instant::now();
    assert_eq!(server.stop(secs(15)), Some(0), "{}", server.log_tail());
    assert!(begin.elapsed() >= ms(900), "the drain was cut short: {:?}", begin.elapsed());
    for id in ids {
        let job = observer.job(id);
        assert_eq!(job["status"], "queued", "{job:#}");
        assert_eq!((&job["attempts"], &job["crashes"]), (&json!(0), &json!(0)), "{job:#}");
        assert_eq!(job["errors"], json!([]), "{job:#}");
    }
    // The jobs that stopped at the stop signal, and the job that hangs.
    let log = server.log_text();
    assert!(log.contains("stopped; 3 jobs went back to their queues"), "{log}");
    assert_eq!(redis.list_len("{threadq}:work_queue:default"), 3);
    assert!(redis.keys("{threadq}:in_progress_queue:*").is_empty());
}

#[test]
fn jobs_that_go_back_stand_before_those_that_waited() {
    let redis = TestRedis::start();
    let mut server =
        TestServer::builder().redis(&redis).flag("workers", "1").flag("drain-timeout", "250ms").start();
    let running = server.submit("sleep", json!({"ms": 600_000}));
    server.wait_for_status(running, "processing");
    let waiting = server.submit_batch(&vec![json!({"type": "echo"}); 10]);
    assert_eq!(server.stop(secs(15)), Some(0), "{}", server.log_tail());
    let queue: Vec<String> = redis.query(&["LRANGE", "{threadq}:work_queue:default", "0", "-1"]);
    let mut wanted: Vec<String> = [vec![running], waiting].concat().iter().map(u64::to_string).collect();
    wanted.reverse();
    assert_eq!(queue, wanted);
    assert!(redis.keys("{threadq}:in_progress_queue:*").is_empty());
}

#[test]
fn a_second_signal_gives_everything_back_at_once() {
    let redis = TestRedis::start();
    for second in ["term", "int"] {
        let mut server = TestServer::builder().redis(&redis).start();
        let id = server.submit("sleep", json!({"ms": 600_000}));
        server.wait_for_status(id, "processing");
        server.sigterm();
        std::thread::sleep(ms(400));
        assert!(server.try_wait().is_none(), "it did not wait for its job: {}", server.log_tail());
        let begin = Instant::now();
        if second == "term" {
            server.sigterm()
        } else {
            server.sigint()
        }
        assert_eq!(server.wait_exit(secs(10)), Some(0), "{}", server.log_tail());
        assert!(begin.elapsed() < secs(10), "the default drain of 25 s is not waited for");
        let observer = TestServer::observer(&redis);
        let job = observer.job(id);
        assert_eq!((&job["status"], &job["attempts"]), (&json!("queued"), &json!(0)), "{job:#}");
        observer.act(&format!("/jobs/{id}/cancel")).expect(200);
    }
}

#[test]
fn sigint_stops_an_idle_server_fast() {
    let redis = TestRedis::start();
    let mut server = TestServer::start(&redis);
    server.complete("echo", json!({}));
    let begin = Instant::now();
    server.sigint();
    assert_eq!(server.wait_exit(secs(10)), Some(0), "{}", server.log_tail());
    assert!(begin.elapsed() < secs(5), "an idle server needs no drain: {:?}", begin.elapsed());
}

#[test]
fn a_backoff_that_is_slept_ends_at_the_signal_and_the_job_is_kept() {
    let redis = TestRedis::start();
    let config = "[handlers.flaky]\nexec = [\"/bin/sh\", \"-c\", \"echo x >> ran; exit 1\"]\n\
                  backoff = { base = \"10h\", cap = \"10h\" }\n";
    let mut server = TestServer::builder()
        .redis(&redis)
        .config(config)
        .flag("inline-backoff", "10h")
        .flag("workers", "2")
        .start();
    let id = server.submit("flaky", json!({}));
    eventually(LIMIT, "its first attempt failed", || !server.dir().read("ran").is_empty());
    // The backoff is not over after this pause.
    std::thread::sleep(ms(300));
    let begin = Instant::now();
    assert_eq!(server.stop(secs(15)), Some(0), "{}", server.log_tail());
    assert!(begin.elapsed() < secs(10), "{:?}", begin.elapsed());
    assert_eq!(server.dir().read("ran"), "x\n");
    let observer = TestServer::observer(&redis);
    let job = observer.job(id);
    assert!(matches!(job["status"].as_str(), Some("retrying" | "queued")), "{job:#}");
    assert_eq!((&job["attempts"], &job["crashes"]), (&json!(1), &json!(0)), "{job:#}");
    assert_eq!(job["errors"].as_array().map(Vec::len), Some(1), "{job:#}");
    assert!(redis.keys("{threadq}:in_progress_queue:*").is_empty());
}

#[test]
fn a_stopping_server_takes_no_more_requests() {
    let redis = TestRedis::start();
    let mut server = TestServer::start(&redis);
    let id = server.submit("sleep", json!({"ms": 4000}));
    server.wait_for_status(id, "processing");
    server.sigterm();
    eventually(secs(3), "submissions are refused", || {
        match server.try_post("/jobs", &[], &json!({"type": "echo"})) {
            Ok(reply) => reply.status == 503,
            Err(_) => true,
        }
    });
    assert!(server.try_wait().is_none(), "it still drains: {}", server.log_tail());
    assert_eq!(server.wait_exit(secs(20)), Some(0));
    let observer = TestServer::observer(&redis);
    assert_eq!(observer.job(id)["status"], "completed");
}

#[test]
fn a_rolling_restart_under_load_charges_nobody() {
    let redis = TestRedis::start();
    let observer = TestServer::observer(&redis);
    let builder = TestServer::builder().redis(&redis).flag("workers", "6").flag("drain-timeout", "10s");
    let mut servers = [builder.start(), builder.start()];
    let ids = observer.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 25}}); 600]);
    for round in 0..4 {
        let one = &mut servers[round % 2];
        assert_eq!(one.stop(secs(20)), Some(0), "{}", one.log_tail());
        *one = builder.start();
    }
    wait_until_quiet(&observer, secs(60));
    for job in observer.list_all("/jobs", "") {
        assert_eq!((&job["attempts"], &job["crashes"]), (&json!(1), &json!(0)), "{job:#}");
    }
    let outcomes = audit(&redis, &observer, &ids);
    assert!(outcomes.values().all(|status| status == "completed"));
}
