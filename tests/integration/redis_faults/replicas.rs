//! With `redis-replicas` a submission is acknowledged only when so many replicas of Redis have it.

use super::failover::{follow, reachable};
use crate::common::*;

/// A master with this many replicas that are in sync.
fn master_with(replicas: usize) -> (TestRedis, Vec<TestRedis>) {
    let (master, address) = reachable();
    let replicas: Vec<TestRedis> = (0..replicas).map(|_| reachable().0).collect();
    replicas.iter().for_each(|replica| follow(replica, &address));
    let facts = || master.query::<String>(&["INFO", "replication"]);
    eventually(LIMIT, "the master knows its replicas", || {
        facts().matches("state=online").count() == replicas.len()
    });
    (master, replicas)
}

fn server_with(redis: &TestRedis, replicas: &str) -> TestServer {
    let server = TestServer::builder().redis(redis).flag("redis-replicas", replicas).start();
    server.wait_until_ready();
    server
}

/// Submits a job. The server answers within its time limit of 3 s (plus 1 s for a busy machine).
#[track_caller]
fn submit(server: &TestServer, headers: &[(&str, &str)]) -> Reply {
    let begin = Instant::now();
    let reply = server.post_with("/jobs", headers, &json!({"type": "echo"}));
    assert!(begin.elapsed() < secs(4), "answered after {:?}", begin.elapsed());
    reply
}

/// Asserts that the job is stored, but not acknowledged.
#[track_caller]
fn assert_not_replicated(reply: &Reply, numbers: &str) {
    let sentence = reply.expect_error(503, "not_replicated", numbers);
    assert_eq!(sentence, format!("stored, but only {numbers} replicas have it"));
    assert_eq!(reply.header("Retry-After"), Some("1"));
}

fn calls_of(redis: &TestRedis, command: &str) -> u64 {
    let facts: String = redis.query(&["INFO", "commandstats"]);
    let line = facts.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |rest| rest.split(',').next().expect("a number").parse().expect("a number"))
}

#[test]
fn a_submission_without_its_replica_is_503_until_the_replica_has_it() {
    let (master, replicas) = master_with(1);
    let server = server_with(&master, "1");
    submit(&server, &[]).expect(202);
    let mark = server.log_text().len();
    replicas[0].pause();
    let key = [("Idempotency-Key", "k")];
    assert_not_replicated(&submit(&server, &key), "0 of 1");
    // On a fresh connection too, whose first write is the one that WAIT looks at.
    for _ in 0..2 {
        master.query::<i64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        assert_not_replicated(&submit(&server, &key), "0 of 1");
    }
    std::thread::scope(|scope| {
        let replies: Vec<_> = (0..40).map(|_| scope.spawn(|| submit(&server, &[]))).collect();
        for reply in replies {
            let reply = reply.join().expect("no panic");
            reply.expect_error(503, "not_replicated", "many");
        }
    });
    // The jobs that are stored run to their end, for which no replica is needed.
    let is_first = |job: &Value| job["status"] == "completed";
    eventually(LIMIT, "they run", || server.list_all("/jobs", "").iter().all(is_first));
    assert!(server.list_all("/jobs", "").len() >= 3);
    server.get("/readyz").expect(200);
    replicas[0].resume();
    let reply = until_some(LIMIT, "the replica is back", || {
        Some(submit(&server, &key)).filter(|reply| reply.status != 503)
    });
    assert_eq!((reply.status, reply.header("Idempotency-Replayed")), (200, Some("true")));
    let stored: Vec<String> =
        replicas[0].query(&["HVALS", &format!("{{threadq}}:job:{}", reply.json()["job_id"])]);
    assert!(!stored.is_empty(), "the replica has the job");
    eventually(LIMIT, "the end of it is said", || {
        submit(&server, &[]);
        server.log_text().contains("replicas have new jobs again")
    });
    let log = server.log_text();
    let about = log[mark..].lines().filter(|line| line.contains("replicas have"));
    assert_eq!(about.count(), 2, "{log}");
}

#[test]
fn each_replica_that_is_missing_counts() {
    for (attached, wanted, numbers) in [(0, "1", "0 of 1"), (1, "2", "1 of 2")] {
        let (master, _replicas) = master_with(attached);
        let server = server_with(&master, wanted);
        assert_not_replicated(&submit(&server, &[]), numbers);
        let batch = json!({"jobs": [{"type": "echo"}, {"type": "echo", "unique_key": "u"}]});
        assert_not_replicated(&server.post("/jobs/batch", &batch), numbers);
        // A refusal stores nothing, and needs no replica.
        let taken = json!({"type": "echo", "delay_ms": 3_600_000, "unique_key": "v"});
        assert_not_replicated(&server.post("/jobs", &taken), numbers);
        server.post("/jobs", &taken).expect_error(409, "duplicate", numbers);
        let log = server.log_text();
        assert_eq!(log.matches("new jobs are stored, but only").count(), 1, "{log}");
        assert!(log.contains(&format!("only {numbers} replicas have them")), "{log}");
    }
}

#[test]
fn a_submission_sends_one_wait_and_nothing_else_does() {
    let (master, _replicas) = master_with(2);
    let server = server_with(&master, "2");
    let waits = || calls_of(&master, "wait");
    assert_eq!(waits(), 0);
    for number in 1..=3 {
        let id = submit(&server, &[]).expect(202).json()["job_id"].as_u64().expect("an id");
        server.wait_for_status(id, "completed");
        assert_eq!(waits(), number);
    }
    drop(server);
    let server = TestServer::start(&master);
    server.complete("echo", json!(1));
    assert_eq!(waits(), 3, "without the setting");
}

#[test]
fn a_master_that_becomes_a_replica_meanwhile_is_no_internal_error() {
    let (master, replicas) = master_with(1);
    let server = server_with(&master, "1");
    replicas[0].pause();
    std::thread::scope(|scope| {
        let reply = scope.spawn(|| submit(&server, &[]));
        eventually(LIMIT, "it waits", || {
            master.query::<String>(&["INFO", "clients"]).contains("blocked_clients:2")
        });
        master.query::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
        reply.join().expect("no panic").expect_error(503, "store_unavailable", "demoted");
    });
    submit(&server, &[]).expect_error(503, "store_unavailable", "a replica");
    replicas[0].resume();
}

#[test]
fn the_right_to_wait_is_needed_only_with_the_setting() {
    let (master, _replicas) = master_with(1);
    let rules = ["~{threadq}:*", "&*", "+@all", "-wait"];
    master.query::<()>(&[&["ACL", "SETUSER", "threadq", "on", ">one"], &rules[..]].concat());
    let url = format!("{}?user=threadq&pass=one", master.url());
    let without = TestServer::builder().flag("redis-url", &url);
    without.start().complete("echo", json!(1));
    assert_eq!(without.clone().without_demo().run("check").code, Some(0));

    let with = without.flag("redis-replicas", "1");
    let checked = with.clone().without_demo().run("check");
    assert_eq!(checked.code, Some(2), "{checked:?}");
    let grant = "ACL SETUSER threadq +wait";
    assert!(checked.stderr.trim_end().ends_with(grant), "{checked:?}");
    let server = with.start();
    for reply in [server.get("/readyz"), submit(&server, &[])] {
        let reason = reply.expect_error(503, "store_unavailable", "no right to WAIT");
        assert!(reason.contains(grant), "{reason}");
    }
    master.query::<()>(&["ACL", "SETUSER", "threadq", "+wait"]);
    server.wait_until_ready();
    submit(&server, &[]).expect(202);
    let log = server.log_text();
    assert!(log.matches(grant).count() <= 2 && log.contains("Redis grants all rights"), "{log}");
}

#[test]
fn the_private_redis_has_no_replicas() {
    let finished = TestServer::builder().flag("redis-replicas", "1").without_demo().run_serve();
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(
        finished.stderr.contains("redis-replicas") && finished.stderr.contains("redis-url"),
        "{finished:?}"
    );
}
