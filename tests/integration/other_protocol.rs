//! A start beside a server of another version, which cannot share jobs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::common::{TestRedis, TestServer};

/// Registers a server as version 0.8.0 does.
fn register_old_server(redis: &TestRedis) {
    redis.query::<i64>(&["HSET", "{threadq}:servers", "old-1", "1"]);
    redis.query::<i64>(&["HSET", "{threadq}:server:old-1", "version", "2", "queues", "default"]);
}

#[test]
fn a_server_refuses_to_start_beside_a_living_server_of_another_version() {
    let redis = TestRedis::start();
    register_old_server(&redis);
    let ends = AtomicBool::new(false);
    let finished = thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                redis.query::<i64>(&["HINCRBY", "{threadq}:servers", "old-1", "1"]);
                thread::sleep(Duration::from_millis(100));
            }
        });
        let finished = TestServer::builder().redis(&redis).run_serve();
        ends.store(true, Ordering::Relaxed);
        finished
    });
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("the server old-1 runs another version of threadq"), "{finished:?}");
    assert_eq!(redis.list_len("{threadq}:work_queue:default"), 0);
    assert_eq!(redis.query::<Vec<String>>(&["HKEYS", "{threadq}:servers"]), ["old-1"]);
}

#[test]
fn a_dead_server_of_another_version_only_delays_the_start_by_a_lease() {
    let redis = TestRedis::start();
    register_old_server(&redis);
    let server = TestServer::builder().redis(&redis).flag("lease-timeout", "1s").start();
    server.complete("echo", json!(1));
}

#[test]
fn a_server_of_another_version_that_stops_meanwhile_does_not_delay_the_start() {
    let redis = TestRedis::start();
    register_old_server(&redis);
    let server = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(500));
            redis.query::<i64>(&["HDEL", "{threadq}:servers", "old-1"]);
        });
        TestServer::builder().redis(&redis).flag("lease-timeout", "1h").start()
    });
    server.complete("echo", json!(1));
}
