//! With `redis-replicas` no acknowledged job is lost in a failover that loses jobs without the setting.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::sentinels::Sentinels;
use crate::common::*;

const CLIENTS: usize = 4;

/// Jobs that were acknowledged, each with the time of the response.
type Acknowledged = Vec<(Instant, u64)>;

fn server_with(all: &Sentinels, replicas: &str) -> TestServer {
    let server = TestServer::builder().flag("redis-url", &all.url()).flag("redis-replicas", replicas).start();
    server.wait_until_ready();
    server
}

/// Submits jobs from several clients while `act` runs. Every answer is 202 or 503.
fn submitting(server: &TestServer, act: impl FnOnce(&Mutex<Acknowledged>)) -> Acknowledged {
    let (is_over, acknowledged) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let reply = server.post("/jobs", &json!({"type": "sleep", "payload": {"ms": 1}}));
                    match reply.status {
                        202 => {
                            let id = reply.json()["job_id"].as_u64().unwrap();
                            acknowledged.lock().unwrap().push((Instant::now(), id));
                        }
                        // The clients of the test wait less than Retry-After says.
                        503 => std::thread::sleep(ms(20)),
                        status => panic!("{status}: {}", reply.text()),
                    }
                }
            });
        }
        act(&acknowledged);
        is_over.store(true, Ordering::Relaxed);
    });
    acknowledged.into_inner().unwrap()
}

/// Waits until a number of jobs more are acknowledged.
#[track_caller]
fn wait_for_more(acknowledged: &Mutex<Acknowledged>) {
    let number = || acknowledged.lock().unwrap().len();
    let enough = number() + 50;
    eventually(LIMIT, "jobs are acknowledged", || number() >= enough);
}

#[track_caller]
fn assert_all_complete(server: &TestServer, acknowledged: &Acknowledged) {
    for (_, id) in acknowledged {
        server.wait_for_status(*id, "completed");
    }
}

#[test]
fn a_master_that_dies_without_its_replicas_takes_no_acknowledged_job_with_it() {
    let all = Sentinels::start();
    let server = server_with(&all, "1");
    let mut cut = Instant::now();
    let mut killed = Instant::now();
    let acknowledged = submitting(&server, |acknowledged| {
        wait_for_more(acknowledged);
        let master = all.master();
        master.cut_replicas();
        cut = Instant::now();
        eventually(LIMIT, "it is noticed", || server.log_text().contains("only 0 of 1 replicas have them"));
        master.kill9();
        killed = Instant::now();
        all.wait_until_promoted(master);
        wait_for_more(acknowledged);
    });
    // The last submissions before the cut may be answered a moment after it.
    let while_cut = acknowledged.iter().filter(|(at, _)| *at > cut + ms(500) && *at < killed).count();
    assert_eq!(while_cut, 0, "acknowledged without a replica");
    assert_all_complete(&server, &acknowledged);
}

#[test]
fn a_planned_failover_loses_no_job_that_all_replicas_have() {
    let all = Sentinels::start();
    let server = server_with(&all, "2");
    let acknowledged = submitting(&server, |acknowledged| {
        wait_for_more(acknowledged);
        let master = all.master();
        all.fail_over();
        all.wait_until_promoted(master);
        // The former master is a replica again.
        all.wait_until_ready();
        wait_for_more(acknowledged);
    });
    assert_all_complete(&server, &acknowledged);
}
