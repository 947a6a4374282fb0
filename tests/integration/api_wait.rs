//! `GET /jobs/ID?wait=..`: the response comes as soon as the job has ended, other requests are served meanwhile, and
//! the number of waiting requests is limited.

use crate::common::*;

use std::sync::atomic::{AtomicUsize, Ordering};

/// Waits for five jobs through this server, and asserts that the responses come within 250 ms of the ends of the jobs.
fn assert_waits_end_in_time(server: &TestServer) {
    let mut lags: Vec<u64> = (0..5)
        .map(|_| {
            let id = server.submit("sleep", json!({"ms": 400}));
            let job = server.get(&format!("/jobs/{id}?wait=30s")).expect(200).json();
            let now = now_ms();
            assert_eq!(job["status"], "completed", "{job:#}");
            now - time_ms(&job["finished_at"])
        })
        .collect();
    lags.sort_unstable();
    // The median, because one of five requests may be slow on a busy machine.
    assert!(lags[2] <= 250, "ms after the end: {lags:?}");
}

#[test]
fn wait_answers_within_250_ms_of_the_end() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    assert_waits_end_in_time(&server);
}

#[test]
fn wait_sees_a_job_that_another_server_ran() {
    let redis = TestRedis::start();
    let front = TestServer::observer(&redis);
    let _worker = TestServer::start(&redis);
    assert_waits_end_in_time(&front);
}

#[test]
fn wait_answers_for_failed_and_cancelled_jobs_too() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let failed = server.submit("fail", json!({"permanent": true}));
    assert_eq!(server.get(&format!("/jobs/{failed}?wait=30s")).expect(200).json()["status"], "failed");
    let id = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    let api = (*server).clone();
    let waiter = std::thread::spawn(move || api.get(&format!("/jobs/{id}?wait=30s")).expect(200).json());
    // Give the waiter a moment to arrive first; either order must work.
    std::thread::sleep(ms(200));
    server.act(&format!("/jobs/{id}/cancel")).expect(200);
    assert_eq!(waiter.join().expect("no panic")["status"], "cancelled");
}

#[test]
fn wait_gives_the_job_as_it_stands_when_the_time_is_over() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let id = server.submit("echo", json!({}));
    let begin = Instant::now();
    let job = server.get(&format!("/jobs/{id}?wait=1s")).expect(200).json();
    let took = begin.elapsed();
    assert_eq!(job["status"], "queued");
    assert!(took >= ms(950) && took < secs(15), "{took:?}");
    let begin = Instant::now();
    server.get(&format!("/jobs/{id}?wait=250ms")).expect(200);
    assert!(begin.elapsed() < secs(10));
}

#[test]
fn wait_answers_at_once_for_a_job_that_has_ended() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let id = server.complete("echo", json!(1))["id"].clone();
    let begin = Instant::now();
    let job = server.get(&format!("/jobs/{id}?wait=60s")).expect(200).json();
    assert_eq!(job["result"], 1);
    assert!(begin.elapsed() < secs(10), "{:?}", begin.elapsed());
}

#[test]
fn a_hundred_may_wait_and_the_next_is_told_so_and_nobody_else_is_held_up() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let id = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    let path = format!("/jobs/{id}?wait=60s");
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                loop {
                    let reply = server.get(&path);
                    if reply.status == 200 {
                        assert_eq!(reply.json()["status"], "cancelled", "{}", reply.text());
                        done.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                    // The probe below can hold the last place for a moment.
                    reply.expect_error(503, "too_many_waiting", "a waiter");
                    std::thread::sleep(ms(50));
                }
            });
        }
        let mut refused_in_a_row = 0;
        eventually(LIMIT, "a request beyond the hundred is refused", || {
            let reply = server.get(&format!("/jobs/{id}?wait=50ms"));
            refused_in_a_row = if reply.status == 503 { refused_in_a_row + 1 } else { 0 };
            refused_in_a_row >= 3
        });
        server.get(&format!("/jobs/{id}?wait=50ms")).expect_error(
            503,
            "too_many_waiting",
            "the hundred and first",
        );
        // Other requests are served.
        let begin = Instant::now();
        for n in 0..10 {
            let job = server.complete("echo", json!(n));
            assert_eq!(job["result"], n);
            server.get("/stats").expect(200);
        }
        assert!(begin.elapsed() < secs(20), "ten jobs took {:?} beside the waiters", begin.elapsed());
        assert_eq!(done.load(Ordering::SeqCst), 0);
        server.act(&format!("/jobs/{id}/cancel")).expect(200);
        eventually(secs(20), "all waiters have their answer", || done.load(Ordering::SeqCst) == 100);
    });
    // The places are free again.
    let other = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    server.get(&format!("/jobs/{other}?wait=50ms")).expect(200);
}

/// Opens connections, each with a request that waits up to a minute for this job.
fn waiters(server: &TestServer, id: u64, count: usize) -> Vec<http::Connection> {
    let waiter = |_| {
        let mut connection = http::Connection::open(server.addr()).expect("connects");
        connection.send("GET", &format!("/jobs/{id}?wait=60s"), &[], None).expect("sent");
        connection
    };
    (0..count).map(waiter).collect()
}

#[test]
fn waiters_that_go_away_free_their_places_at_once() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let id = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    let probe = || server.get(&format!("/jobs/{id}?wait=1ms")).status;
    // More requests than places, because the probe can hold a place when a waiter comes.
    let waiters = waiters(&server, id, 130);
    eventually(LIMIT, "all places are taken", || probe() == 503);
    drop(waiters);
    let begin = Instant::now();
    eventually(LIMIT, "a new waiter is let in", || probe() == 200);
    // Without the stop the requests would end only after a minute.
    assert!(begin.elapsed() < secs(30), "{:?}", begin.elapsed());
    assert_eq!(server.job(id)["status"], "scheduled");
}

#[test]
fn a_waiter_that_closes_its_sending_half_gets_the_job_as_it_stands() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let id = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    let mut waiter = waiters(&server, id, 1).remove(0);
    waiter.end_sending().expect("half closed");
    let begin = Instant::now();
    let job = waiter.receive(false).expect("an answer").expect(200).json();
    assert_eq!(job["status"], "scheduled");
    assert!(begin.elapsed() < secs(30), "{:?}", begin.elapsed());
}
