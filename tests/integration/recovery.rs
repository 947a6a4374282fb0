//! Nothing is lost: servers that die, servers that were only stopped, and jobs whose claim was lost on the way.
//!
//! `THREADQ_TEST_JOBS` and `THREADQ_TEST_KILLS` make the large test larger.

use crate::common::*;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The lease of most servers here: the shortest allowed.
const LEASE: &str = "1s";
/// `lease-timeout` + 5 s, plus a margin for a busy machine.
const RECOVERED_WITHIN: Duration = Duration::from_secs(6 + 2);

fn short_lease(redis: &TestRedis) -> ServerBuilder {
    TestServer::builder().redis(redis).flag("lease-timeout", LEASE).config(QUICK_BACKOFF)
}

#[test]
fn every_accepted_job_ends_exactly_once_whatever_is_killed() {
    let jobs = env_number("THREADQ_TEST_JOBS", 2_000);
    let kills = env_number("THREADQ_TEST_KILLS", 3);
    let redis = TestRedis::start();
    // A job may run on many killed servers without causing a crash: the limit of crashes is high, so that no job fails.
    let builder = short_lease(&redis).flag("workers", "8").flag("max-crashes", "100");
    let observer = TestServer::observer(&redis);
    let mut servers: Vec<TestServer> = (0..3).map(|_| builder.start()).collect();
    let addrs = Mutex::new(servers.iter().map(|s| (**s).clone()).collect::<Vec<Api>>());
    let accepted = Mutex::new(Vec::new());
    let stored = AtomicUsize::new(0);
    let next = AtomicUsize::new(0);
    let submit_all = |thread: usize| {
        for round in 0.. {
            let first = next.fetch_add(10, Ordering::SeqCst);
            if first >= jobs {
                return;
            }
            let batch: Vec<Value> = (first..(first + 10).min(jobs))
                .map(|n| match n % 10 {
                    0 => json!({"type": "fail", "payload": {"times": 1}}),
                    1 => json!({"type": "sleep", "payload": {"ms": 50}}),
                    2 => json!({"type": "echo", "payload": n, "delay_ms": 500}),
                    3 if n % 100 == 3 => json!({"type": "fail", "payload": {"permanent": true}}),
                    _ => json!({"type": "sleep", "payload": {"ms": 3}}),
                })
                .collect();
            let body = json!({"jobs": batch});
            let key = format!("{thread}-{round}");
            // The idempotency key makes it safe to repeat the request until there is a response.
            let ids = until_some(secs(60), "a server accepts a batch", || {
                let apis = addrs.lock().expect("not poisoned").clone();
                let api = &apis[fastrand::usize(..apis.len())];
                let reply = api.try_post("/jobs/batch", &[("Idempotency-Key", &key)], &body).ok()?;
                match reply.status {
                    200 | 202 => reply.json()["job_ids"].as_array().cloned(),
                    503 => None,
                    other => panic!("{other}: {}", reply.text()),
                }
            });
            assert_eq!(ids.len(), batch.len());
            accepted.lock().expect("not poisoned").extend(ids.iter().filter_map(Value::as_u64));
            stored.fetch_add(ids.len(), Ordering::SeqCst);
        }
    };
    std::thread::scope(|scope| {
        let submit_all = &submit_all;
        for thread in 0..3 {
            scope.spawn(move || submit_all(thread));
        }
        for kill in 0..kills {
            let enough = jobs * (kill + 1) / (kills + 1);
            eventually(secs(120), "the next kill is due", || stored.load(Ordering::SeqCst) >= enough);
            let victim = fastrand::usize(..servers.len());
            servers[victim].kill9();
            servers[victim] = builder.start();
            addrs.lock().expect("not poisoned")[victim] = (*servers[victim]).clone();
        }
    });
    // A second time without submissions: kill all servers at once, and restart only one.
    for server in &mut servers {
        server.kill9();
    }
    servers[0] = builder.start();
    // Another test checks how fast this is.
    wait_until_quiet(&observer, secs(240));
    let outcomes = audit(&redis, &observer, &accepted.into_inner().expect("not poisoned"));
    let failed = outcomes.values().filter(|status| *status == "failed").count();
    let wanted = (0..jobs).filter(|n| n % 100 == 3).count();
    assert_eq!(outcomes.len(), jobs);
    assert_eq!(failed, wanted, "only what must fail fails");
}

#[test]
fn another_server_takes_over_what_a_dead_one_ran() {
    let redis = TestRedis::start();
    let mut dead = short_lease(&redis).flag("workers", "1").start();
    let running = dead.submit("sleep", json!({"ms": 10_000}));
    let waiting = dead.submit_batch(&vec![json!({"type": "echo"}); 5]);
    dead.wait_for_status(running, "processing");
    let first_server = dead.job(running)["server"].clone();
    let other = short_lease(&redis).start();
    dead.kill9();
    let begin = Instant::now();
    let job = other.wait_for(running, LIMIT, "been taken over", |job| job["crashes"] == 1);
    let took = begin.elapsed();
    assert!(took <= RECOVERED_WITHIN, "back after {took:?}: {job:#}");
    let job = other.wait_for_status(running, "completed");
    assert_ne!(job["server"], first_server, "{job:#}");
    assert_eq!(job["attempts"], 1, "a crash is no attempt: {job:#}");
    assert_eq!(job["crashes"], 1, "{job:#}");
    for id in &waiting {
        let job = other.wait_for_status(*id, "completed");
        assert_eq!(job["crashes"], 0, "it had not started: {job:#}");
    }
    assert!(other.metric("threadq_jobs_recovered_total") >= 1.0);
    audit(&redis, &other, &[vec![running], waiting].concat());
}

#[test]
fn the_same_server_started_again_takes_back_its_own_jobs() {
    let redis = TestRedis::start();
    let mut server = short_lease(&redis).flag("workers", "4").start();
    let ids = server.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 3000}}); 12]);
    for id in &ids[..4] {
        server.wait_for_status(*id, "processing");
    }
    server.kill9();
    let begin = Instant::now();
    let server = short_lease(&redis).flag("workers", "4").start();
    eventually(LIMIT, "all four are charged", || ids[..4].iter().all(|id| server.job(*id)["crashes"] == 1));
    let took = begin.elapsed();
    assert!(took <= RECOVERED_WITHIN, "back after {took:?}");
    for id in &ids {
        let job = server.wait_for_status(*id, "completed");
        assert_eq!(job["attempts"], 1, "{job:#}");
    }
    for id in &ids[4..] {
        assert_eq!(server.job(*id)["crashes"], 0, "it had not started");
    }
    audit(&redis, &server, &ids);
}

#[test]
fn after_a_crash_all_jobs_run_again_side_by_side_before_those_that_wait() {
    let redis = TestRedis::start();
    let mut dead = short_lease(&redis).flag("workers", "12").start();
    // Each job runs until it is cancelled.
    let running = dead.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 600_000}}); 12]);
    eventually(LIMIT, "all run", || dead.count("processing") == 12);
    let waiting = dead.submit_batch(&vec![json!({"type": "echo"}); 50]);
    // Pause the queue: the next server must reclaim the running jobs before it starts the waiting jobs.
    dead.act("/queues/default/pause").expect(200);
    dead.kill9();
    let server = short_lease(&redis).flag("workers", "12").start();
    eventually(LIMIT, "all are charged", || running.iter().all(|id| server.job(*id)["crashes"] == 1));
    server.act("/queues/default/resume").expect(200);
    let runs = |id: &u64| server.job(*id)["status"] == "processing";
    eventually(LIMIT, "all 12 run at the same time", || running.iter().all(runs));
    assert!(
        waiting.iter().all(|id| server.job(*id)["status"] == "queued"),
        "those that waited go on waiting"
    );
    for id in &running {
        server.act(&format!("/jobs/{id}/cancel")).expect(202);
    }
    for id in &waiting {
        server.wait_for_status(*id, "completed");
    }
    wait_until_quiet(&server, LIMIT);
    audit(&redis, &server, &[running, waiting].concat());
}

#[test]
fn a_job_on_its_last_chance_runs_alone_under_a_constant_stream_of_others() {
    let redis = TestRedis::start();
    let observer =
        TestServer::builder().redis(&redis).flag("lease-timeout", LEASE).flag("queues", "nobody").start();
    let start = || short_lease(&redis).flag("workers", "4").start();
    let long = json!({"type": "sleep", "payload": {"ms": 600_000}});
    let last_chance = observer.submit_job(long.clone());
    for crashes in 1..3 {
        let mut server = start();
        observer.wait_for_status(last_chance, "processing");
        server.kill9();
        observer.wait_for(last_chance, LIMIT, "been charged", |job| job["crashes"] == crashes);
    }
    // Two servers that are never idle, because jobs always wait.
    let stop = AtomicUsize::new(0);
    let servers = [start(), start()];
    let sent = std::thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let mut sent = Vec::new();
            while stop.load(Ordering::SeqCst) == 0 {
                if observer.count("queued") < 40 {
                    sent.extend(
                        observer.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 40}}); 40]),
                    );
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            sent
        });
        let job = observer.wait_for_status(last_chance, "processing");
        let its_server = job["server"].clone();
        // The job has this server for itself, however long it runs; the other server goes on.
        let running = |server: &Value| {
            let jobs = observer.get("/jobs?status=processing&limit=100").expect(200).json();
            let jobs = jobs["jobs"].as_array().cloned().unwrap_or_default();
            jobs.iter().filter(|job| job["server"] == *server).count()
        };
        let completed = observer.count("completed");
        eventually(LIMIT, "the other server goes on", || {
            assert_eq!(running(&its_server), 1, "something runs beside the last chance");
            observer.count("completed") >= completed + 40
        });
        observer.act(&format!("/jobs/{last_chance}/cancel")).expect(202);
        observer.wait_for_status(last_chance, "cancelled");
        // Then this server takes other jobs again.
        eventually(LIMIT, "it takes others again", || running(&its_server) > 0);
        stop.store(1, Ordering::SeqCst);
        stream.join().expect("the stream does not panic")
    });
    wait_until_quiet(&observer, LIMIT);
    audit(&redis, &observer, &[vec![last_chance], sent].concat());
    drop(servers);
}

#[test]
fn jobs_that_version_0_4_set_aside_run_like_all_others() {
    let redis = TestRedis::start();
    let server = short_lease(&redis).flag("workers", "4").flag("queues", "default,late").start();
    server.act("/queues/late/pause").expect(200);
    let ids = server.submit_batch(&vec![json!({"type": "sleep", "queue": "late", "payload": {"ms": 1}}); 12]);
    // Earlier versions kept jobs with one crash of three in a separate list. The job with two crashes is on its final
    // attempt.
    for (number, id) in ids.iter().enumerate() {
        let crashes = if number == 5 { "2" } else { "1" };
        let _: u64 = redis.query(&["HSET", &format!("{{threadq}}:job:{id}"), "crashes", crashes]);
    }
    let _: String =
        redis.query(&["RENAME", "{threadq}:work_queue:late", "{threadq}:work_queue:late:suspects"]);
    server.act("/queues/late/resume").expect(200);
    for id in &ids {
        server.wait_for_status(*id, "completed");
    }
    audit(&redis, &server, &ids);
}

#[test]
fn the_number_of_crashes_that_bury_a_job_can_be_set() {
    let redis = TestRedis::start();
    let start = |queues: &str| short_lease(&redis).flag("max-crashes", "1").flag("queues", queues).start();
    let observer = start("nobody");
    let mut server = start("default");
    let id = observer.submit("sleep", json!({"ms": 600_000}));
    observer.wait_for_status(id, "processing");
    server.kill9();
    let job = observer.wait_for_status(id, "failed");
    assert_eq!((&job["crashes"], &job["attempts"]), (&json!(1), &json!(0)), "{job:#}");
}

#[test]
fn three_crashes_bury_a_job_by_default() {
    let redis = TestRedis::start();
    let observer =
        TestServer::builder().redis(&redis).flag("lease-timeout", LEASE).flag("queues", "nobody").start();
    let id = observer.submit("sleep", json!({"ms": 600_000}));
    for crash in 1..=3 {
        let mut server = short_lease(&redis).start();
        observer.wait_for_status(id, "processing");
        server.kill9();
        observer.wait_for(id, LIMIT, "been charged", |job| job["crashes"] == crash);
    }
    let job = observer.wait_for_status(id, "failed");
    let reason = job["last_error"].as_str().unwrap_or_else(|| panic!("no reason: {job:#}")).to_lowercase();
    assert!(reason.contains("crash") || reason.contains("died"), "{job:#}");
    assert_eq!(job["attempts"], 0, "{job:#}");
    assert_eq!(observer.get("/dlq").expect(200).json()["total"], 1);
    // A retry by an operator resets attempts and crashes.
    observer.act(&format!("/jobs/{id}/retry")).expect(202);
    let _server = short_lease(&redis).start();
    observer.wait_for_status(id, "processing");
    observer.act(&format!("/jobs/{id}/cancel")).expect(202);
    observer.wait_for_status(id, "cancelled");
}

#[test]
fn a_server_that_was_only_stopped_cannot_touch_a_job_that_was_taken_over() {
    let redis = TestRedis::start();
    // Both servers take from `default`; only the first one takes from `first`.
    let first = short_lease(&redis).flag("queues", "default,first").start();
    let id = first.submit("sleep", json!({"ms": 4000}));
    let before = first.wait_for_status(id, "processing");
    first.sigstop();
    let second = short_lease(&redis).start();
    let taken = second.wait_for(id, LIMIT, "been taken over", |job| {
        job["status"] == "processing" && job["server"] != before["server"]
    });
    assert_eq!(taken["crashes"], 1, "{taken:#}");
    // The first run has slept for nearly its whole time: its handler returns soon after the server is resumed.
    first.sigcont();
    let mark = second.submit_job(json!({"type": "echo", "queue": "first"}));
    second.wait_for_status(mark, "completed");
    let job = second.wait_for_status(id, "completed");
    assert_eq!(job["server"], taken["server"], "the second one's result counts: {job:#}");
    assert_eq!(job["started_at"], taken["started_at"], "{job:#}");
    assert_eq!(job["attempts"], 1, "{job:#}");
    let ran = time_ms(&job["finished_at"]) - time_ms(&job["started_at"]);
    assert!(ran >= 3999, "it was completed after {ran} ms, by the late one: {job:#}");
    // No log line follows.
    let after = second.submit_job(json!({"type": "sleep", "queue": "first", "payload": {"ms": 1500}}));
    second.wait_for_status(after, "completed");
    assert_eq!(second.job(id), job, "a late result changed it");
    audit(&redis, &second, &[id, mark, after]);
}

#[test]
fn a_late_failure_of_a_stopped_server_changes_nothing() {
    let redis = TestRedis::start();
    let config = "[handlers.late]\nexec = [\"/bin/sh\", \"-c\", \"sleep 2; exit 64\"]\n";
    let good = "[handlers.late]\nexec = [\"/bin/sh\", \"-c\", \"sleep 2; echo 1\"]\n";
    let start = |config: &str, queues: &str| {
        TestServer::builder()
            .redis(&redis)
            .flag("lease-timeout", LEASE)
            .flag("queues", queues)
            .config(config)
            .start()
    };
    let first = start(config, "default,first");
    let id = first.submit("late", json!({}));
    first.wait_for_status(id, "processing");
    first.sigstop();
    let second = start(good, "default");
    let job = second.wait_for_status(id, "completed");
    first.sigcont();
    let mark = second.submit_job(json!({"type": "late", "queue": "first"}));
    second.wait_for_status(mark, "failed");
    assert_eq!(second.job(id), job, "the late failure changed it");
    assert_eq!(second.metric(r#"threadq_jobs_failed_total{type="late"}"#), 0.0);
    audit(&redis, &second, &[id, mark]);
}

#[test]
fn a_stopped_server_goes_on_serving_under_a_new_name() {
    let redis = TestRedis::start();
    let first = short_lease(&redis).flag("queues", "first").start();
    let name = first.server_id();
    let second = short_lease(&redis).start();
    first.sigstop();
    eventually(LIMIT, "the stopped one is no longer listed as alive", || {
        second.server_ids().iter().all(|id| *id != name)
    });
    first.sigcont();
    first.wait_until_ready();
    let ids = first.submit_batch(&vec![json!({"type": "echo", "queue": "first"}); 20]);
    for id in &ids {
        let job = first.wait_for_status(*id, "completed");
        assert_ne!(job["server"], name, "{job:#}");
    }
    audit(&redis, &first, &ids);
}

#[test]
fn a_job_whose_hand_over_was_lost_runs_without_a_restart() {
    let redis = TestRedis::start();
    let server = short_lease(&redis).flag("queues", "default,late").start();
    let name = server.server_id();
    // As after a BRPOPLPUSH with a lost reply: the job is in this server's list, and the server does not know of it.
    server.act("/queues/late/pause").expect(200);
    let ids = server.submit_batch(&vec![json!({"type": "echo", "queue": "late"}); 3]);
    let list = format!("{{threadq}}:in_progress_queue:{name}");
    // A BRPOPLPUSH from before the pause may claim a job, and the server puts that job back.
    let mut moved = 0;
    eventually(LIMIT, "all jobs are in the list of the server", || {
        let id: Option<String> = redis.query(&["RPOPLPUSH", "{threadq}:work_queue:late", &list]);
        moved += usize::from(id.is_some());
        moved == ids.len()
    });
    let begin = Instant::now();
    server.act("/queues/late/resume").expect(200);
    for id in &ids {
        let job = server.wait_for_status(*id, "completed");
        assert_eq!((&job["crashes"], &job["attempts"]), (&json!(0), &json!(1)), "{job:#}");
    }
    let took = begin.elapsed();
    assert!(took <= secs(1 + 10 + 2), "running again after {took:?}");
    assert!(redis.live_handles().is_empty(), "{:?}", redis.live_handles());
}

#[test]
fn a_busy_server_keeps_its_lease() {
    let redis = TestRedis::start();
    let first = short_lease(&redis).start();
    let _second = short_lease(&redis).start();
    let ids = first.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 5000}}); 20]);
    for id in ids {
        let job = first.wait_for_status(id, "completed");
        // A job may run far longer than the lease: no other server reclaims it while its server is alive.
        assert_eq!((&job["crashes"], &job["attempts"]), (&json!(0), &json!(1)), "{job:#}");
    }
}

#[test]
fn delayed_and_parked_jobs_survive_the_death_of_all_servers() {
    let redis = TestRedis::start();
    let config = "[handlers.fail]\nbackoff = { base = \"3s\", cap = \"3s\" }\n";
    let start = || {
        TestServer::builder()
            .redis(&redis)
            .flag("lease-timeout", LEASE)
            .flag("inline-backoff", "0ms")
            .config(config)
            .start()
    };
    let mut server = start();
    let delayed = server.submit_batch(&vec![json!({"type": "echo", "delay_ms": 2500}); 10]);
    let failing = server.submit_batch(&vec![json!({"type": "fail", "payload": {"times": 1}}); 10]);
    eventually(LIMIT, "all failing ones failed once", || {
        failing.iter().all(|id| server.job(*id)["errors"].as_array().is_some_and(|e| !e.is_empty()))
    });
    server.kill9();
    let server = start();
    // Several servers look for due jobs at once: each job must be moved once.
    let _twin = start();
    wait_until_quiet(&server, LIMIT);
    for id in &delayed {
        assert_eq!(server.job(*id)["attempts"], 1, "{:#}", server.job(*id));
    }
    for id in &failing {
        assert_eq!(server.job(*id)["attempts"], 2, "{:#}", server.job(*id));
    }
    audit(&redis, &server, &[delayed, failing].concat());
}
