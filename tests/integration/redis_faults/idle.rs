//! The cost of an outage of Redis: hardly any processor time, and no more claimed jobs than twice the workers.

use super::fixture::{durable_redis, start_waiting};
use super::proxy::{Does, Proxy};
use crate::common::*;

/// Seconds of processor time that a process has used, in user and system mode together.
fn cpu_seconds(pid: u32) -> f64 {
    /// The unit of CPU time in /proc on Linux, for every kernel configuration.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let after_name = stat.rsplit_once(')').expect("a name in parentheses").1;
    let ticks: Vec<f64> =
        after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse().ok()).collect();
    ticks.iter().sum::<f64>() / TICKS_PER_SECOND
}

/// Runs everything that retries during an outage: fetchers of five queues, the committer with outcomes, a waiting
/// client.
fn uses_little_while_away(name: &str, trouble: impl Fn(&TestRedis), end_of_it: impl Fn(&TestRedis)) {
    let redis = durable_redis();
    let server = TestServer::builder().redis(&redis).flag("queues", "default,a,b,c,d").start();
    let ids = server.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 4000}}); 10]);
    for id in &ids {
        server.wait_for_status(*id, "processing");
    }
    let late = server.submit_job(json!({"type": "echo", "delay_ms": 8000}));
    let waiter = start_waiting(&server, late);
    trouble(&redis);
    eventually(LIMIT, "outcomes wait", || server.metric("threadq_workers_busy") == 0.0);
    let (begin, before) = (Instant::now(), cpu_seconds(server.pid()));
    std::thread::sleep(secs(5));
    let cores = (cpu_seconds(server.pid()) - before) / begin.elapsed().as_secs_f64();
    end_of_it(&redis);
    server.wait_until_ready();
    assert!(cores < 0.1, "{cores} cores while Redis is {name}");
    for id in &ids {
        server.wait_for_status(*id, "completed");
    }
    assert_eq!(waiter.join().expect("answered").expect(200).json()["status"], "completed");
}

#[test]
fn an_absence_costs_hardly_any_processor_time() {
    std::thread::scope(|scope| {
        scope.spawn(|| uses_little_while_away("killed", TestRedis::kill9, TestRedis::restart));
        scope.spawn(|| uses_little_while_away("frozen", TestRedis::pause, TestRedis::resume));
        let read_only = |redis: &TestRedis| redis.query::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
        let master = |redis: &TestRedis| redis.query::<()>(&["REPLICAOF", "NO", "ONE"]);
        scope.spawn(move || uses_little_while_away("read-only", read_only, master));
    });
}

#[test]
fn outcomes_that_cannot_be_written_stop_the_taking_at_twice_the_workers() {
    std::thread::scope(|scope| {
        for fetchers in ["1", "8"] {
            scope.spawn(|| takes_at_most_twice_the_workers(fetchers));
        }
    });
}

fn takes_at_most_twice_the_workers(fetchers: &str) {
    const WORKERS: usize = 3;
    let redis = TestRedis::start();
    let proxy = Proxy::to(&redis);
    let config = "[handlers.note]\nexec = [\"/bin/sh\", \"-c\", \"echo $THREADQ_JOB_ID >> ran\"]\n";
    let server = TestServer::builder()
        .flag("redis-url", &proxy.url())
        .config(config)
        .flag("workers", &WORKERS.to_string())
        .flag("fetchers", fetchers)
        .start();
    server.wait_until_ready();
    let in_progress = format!("{{threadq}}:in_progress_queue:{}", server.server_id());
    // The server can take jobs, but cannot settle them: without a limit the outcomes in memory would grow.
    proxy.set(Does { swallows: Some(b"\r\ncomplete\r\n"), ..Does::default() });
    let ids: Vec<u64> = (0..40).map(|_| accepted(&server, json!({"type": "note"}))).collect();
    let ran = || server.dir().read("ran").lines().count();
    eventually(LIMIT, "all that may be taken have run", || ran() == 2 * WORKERS);
    holds_for(secs(3), "no more are taken", || {
        ran() == 2 * WORKERS && redis.list_len(&in_progress) == 2 * WORKERS as u64
    });
    assert_eq!(server.metric("threadq_workers_busy"), 0.0, "workers are free and stay so");
    proxy.set(Does::default());
    eventually(LIMIT, "all are written", || redis.live_handles().is_empty());
    server.wait_until_ready();
    for id in &ids {
        let job = server.wait_for_status(*id, "completed");
        assert_eq!((&job["attempts"], &job["crashes"]), (&json!(1), &json!(0)), "{job:#}");
    }
    assert_eq!(ran(), ids.len(), "none ran twice");
    audit(&redis, &server, &ids);
}

/// Repeats a POST until the job is accepted, for a Redis with outages.
fn accepted(server: &TestServer, body: Value) -> u64 {
    let key = format!("{:016x}", fastrand::u64(..));
    until_some(LIMIT, "the job is accepted", || {
        let reply = server.post_with("/jobs", &[("Idempotency-Key", &key)], &body);
        matches!(reply.status, 200 | 202).then(|| reply.json()["job_id"].as_u64().expect("an id"))
    })
}
