//! Redis loses its scripts, all its data or some of it; or it holds keys that another program wrote.

use std::sync::atomic::{AtomicBool, Ordering};

use super::fixture::start_waiting;
use crate::common::*;

#[test]
fn its_scripts() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(QUICK_BACKOFF).start();
    server.server_id();
    let mark = server.log_text().lines().count();
    let mut ids = Vec::new();
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Flush also between the loading of a script and its call.
        scope.spawn(|| {
            let mut connection = redis.connection().expect("a connection");
            let begin = Instant::now();
            while !ends.load(Ordering::SeqCst) && begin.elapsed() < LIMIT {
                ::redis::cmd("SCRIPT").arg("FLUSH").query::<()>(&mut connection).expect("flushed");
                std::thread::sleep(Duration::from_micros(fastrand::u64(..3000)));
            }
        });
        for round in 0..30 {
            let key = format!("round-{round}");
            let body = json!({"jobs": [{"type": "echo"}, {"type": "fail", "payload": {"times": 1}}]});
            ids.extend(until_some(LIMIT, "a batch is accepted", || {
                let reply = server.post_with("/jobs/batch", &[("Idempotency-Key", &key)], &body);
                assert!(matches!(reply.status, 200 | 202 | 503), "{}", reply.text());
                let ids = reply.json()["job_ids"].as_array()?.clone();
                Some(ids.iter().filter_map(Value::as_u64).collect::<Vec<u64>>())
            }));
        }
        ends.store(true, Ordering::SeqCst);
    });
    for id in &ids {
        server.wait_for_status(*id, "completed");
    }
    audit(&redis, &server, &ids);
    let log = server.log_text();
    let mut said = log.lines().skip(mark).filter(|line| !line.contains("job"));
    assert_eq!(said.next(), None, "{log}");
}

/// Two servers with running, queued and scheduled jobs, and a client that waits for the end of a job.
fn loses_everything(lose: impl Fn(&TestRedis)) {
    let redis = TestRedis::start();
    let start =
        || TestServer::builder().redis(&redis).flag("workers", "2").flag("lease-timeout", "2s").start();
    let servers = [start(), start()];
    let mut old = servers[0].submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 5000}}); 4]);
    for id in &old {
        servers[0].wait_for_status(*id, "processing");
    }
    old.extend(servers[0].submit_batch(&vec![json!({"type": "echo"}); 20]));
    old.push(servers[0].submit_job(json!({"type": "echo", "delay_ms": 1500})));
    let names = servers[0].server_ids();
    let waiter = start_waiting(&servers[1], old[10]);
    let marks: Vec<usize> = servers.iter().map(|server| server.log_text().lines().count()).collect();
    lose(&redis);
    for server in &servers {
        server.wait_until_ready();
    }
    eventually(LIMIT, "both servers are entered again, under new names", || {
        let now = servers[0].server_ids();
        now.len() == 2 && now.iter().all(|name| !names.contains(name))
    });
    let new: Vec<u64> =
        servers.iter().flat_map(|s| s.submit_batch(&vec![json!({"type": "echo"}); 10])).collect();
    for id in &new {
        servers[0].wait_for_status(*id, "completed");
    }
    let waited = waiter.join().expect("answered");
    waited.expect_error(404, "not_found", "who waits for a job that is gone is told");
    for id in &old {
        servers[0].get(&format!("/jobs/{id}")).expect_error(404, "not_found", "what is lost is not invented");
    }
    assert!(new.iter().all(|id| id > old.iter().max().expect("some")), "no id is given out twice");
    eventually(LIMIT, "nothing of the old jobs runs", || {
        servers.iter().all(|server| server.metric("threadq_workers_busy") == 0.0)
    });
    audit(&redis, &servers[0], &new);
    for (server, mark) in servers.iter().zip(marks) {
        let log = server.log_text();
        let said: Vec<&str> = log.lines().skip(mark).collect();
        let about = |part: &str| said.iter().filter(|line| line.contains(part)).count();
        assert_eq!(about(": fenced ("), 1, "{log}");
        // A line for each running job, one for the outage, and one for its end.
        assert!(about("outcome discarded") <= 2 && said.len() <= 5, "{log}");
    }
}

#[test]
fn all_its_data_by_a_persons_hand() {
    loses_everything(|redis| redis.query(&["FLUSHALL"]));
}

#[test]
fn all_its_data_over_a_restart() {
    loses_everything(|redis| {
        redis.kill_and_erase();
        redis.restart();
    });
}

#[test]
fn single_jobs() {
    std::thread::scope(|scope| {
        scope.spawn(jobs_that_wait_and_there_are_ids_of_none);
        scope.spawn(jobs_that_run);
    });
}

fn jobs_that_wait_and_there_are_ids_of_none() {
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

fn jobs_that_run() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("workers", "4").start();
    let ids = server.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 3000}}); 4]);
    for id in &ids {
        server.wait_for_status(*id, "processing");
    }
    let mark = server.log_text().lines().count();
    redis.query::<u64>(&["DEL", &format!("{{threadq}}:job:{}", ids[0])]);
    let second = format!("{{threadq}}:job:{}", ids[1]);
    redis.query::<u64>(&["DEL", &second]);
    redis.query::<()>(&["SET", &second, "not a hash"]);
    for id in &ids[2..] {
        server.wait_for_status(*id, "completed");
    }
    server.complete("echo", json!({}));
    eventually(LIMIT, "no list holds anything", || redis.live_handles().is_empty());
    eventually(LIMIT, "no worker is used up", || server.metric("threadq_workers_busy") == 0.0);
    let log = server.log_text();
    assert!(log.lines().skip(mark).count() <= 6, "{log}");
}

#[test]
fn a_queue_that_is_no_list_is_said_once_and_others_go_on() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("queues", "default,spoilt").start();
    server.complete("echo", json!({}));
    redis.query::<()>(&["SET", "{threadq}:work_queue:spoilt", "by a stranger's hand"]);
    let said = || server.log_text().matches("cannot take jobs").count();
    eventually(LIMIT, "it is noticed", || said() > 0);
    holds_for(secs(2), "each fetcher says it once", || said() <= 2);
    redis.query::<u64>(&["DEL", "{threadq}:work_queue:spoilt"]);
    let id = server.submit_job(json!({"type": "echo", "queue": "spoilt"}));
    server.wait_for_status(id, "completed");
    server.complete("echo", json!({}));
}
