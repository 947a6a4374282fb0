//! Redis, a proxy or a router closes an idle connection: the server does not report an outage of Redis.

use super::proxy::{Does, Proxy};
use crate::common::*;

/// Sends many requests at once, so that many connections are used, and asserts that all succeed.
#[track_caller]
fn all_is_served(server: &TestServer, after: &str) {
    std::thread::scope(|scope| {
        for client in 0..16 {
            scope.spawn(move || {
                for round in 0..4 {
                    let path = ["/jobs", "/stats", "/readyz", "/queues"][(client + round) % 4];
                    let reply = server.get(path);
                    assert_eq!(reply.status, 200, "{path} after {after}: {}", reply.text());
                }
            });
        }
    });
}

#[track_caller]
fn nothing_was_said(server: &TestServer) {
    let log = server.log_text();
    let is_trouble =
        |line: &&str| line.contains(" ERROR ") || line.contains(" WARN ") || line.contains("Redis is");
    let said = log.lines().filter(|line| !line.contains("list of processes")).find(is_trouble);
    assert_eq!(said, None, "{log}");
}

/// The ids of the servers' connections that wait for a command.
fn idle_connections(redis: &TestRedis) -> Vec<String> {
    let list: String = redis.query(&["CLIENT", "LIST", "TYPE", "normal"]);
    let waiting = |line: &&str| !line.contains("cmd=brpoplpush") && !line.contains("cmd=client|list");
    let id = |line: &str| line.strip_prefix("id=").and_then(|rest| rest.split(' ').next()).map(str::to_owned);
    list.lines().filter(waiting).filter_map(id).collect()
}

#[test]
fn redis_closes_idle_connections() {
    let redis = TestRedis::start_with(&["--timeout", "1"]);
    let server = TestServer::start(&redis);
    for _ in 0..2 {
        all_is_served(&server, "a pause");
        server.complete("echo", json!(1));
        // The heartbeat keeps one connection in use.
        eventually(LIMIT, "Redis has closed them", || idle_connections(&redis).len() <= 1);
    }
    server.submit_job(json!({"type": "echo"}));
    all_is_served(&server, "a pause");
    nothing_was_said(&server);
}

#[test]
fn somebody_kills_connections_in_every_way_that_there_is() {
    let redis = TestRedis::start();
    redis.query::<()>(&["ACL", "SETUSER", "threadq", "on", ">one", "~*", "&*", "+@all"]);
    let url = format!("{}?user=threadq&pass=one", redis.url());
    let server = TestServer::builder().flag("redis-url", &url).start();
    server.wait_until_ready();
    let kill = |words: &[&str]| redis.query::<::redis::Value>(&[&["CLIENT", "KILL"], words].concat());
    for round in 0..3 {
        all_is_served(&server, "the last round");
        kill(&["TYPE", "normal", "SKIPME", "yes"]);
        all_is_served(&server, "CLIENT KILL TYPE");
        kill(&["USER", "threadq"]);
        // Without an idempotency key: a command that was not sent can always be sent again.
        server.submit_job(json!({"type": "echo", "payload": round}));
        all_is_served(&server, "CLIENT KILL USER");
        for id in idle_connections(&redis) {
            kill(&["ID", &id]);
        }
        server.submit_job(json!({"type": "echo", "payload": round}));
        let socket = format!("{}:0", redis.socket().display());
        kill(&["LADDR", &socket]);
        server.complete("echo", json!("after CLIENT KILL LADDR"));
    }
    nothing_was_said(&server);
    wait_until_quiet(&server, LIMIT);
}

#[test]
fn a_proxy_closes_idle_connections() {
    let redis = TestRedis::start();
    let proxy = Proxy::to(&redis);
    let server = TestServer::builder().flag("redis-url", &proxy.url()).start();
    server.wait_until_ready();
    for round in 0..3 {
        all_is_served(&server, "the last round");
        proxy.close_all();
        server.submit_job(json!({"type": "echo", "payload": round}));
        proxy.close_all();
        all_is_served(&server, "a proxy closed all connections");
    }
    nothing_was_said(&server);
}

#[test]
fn a_router_forgets_idle_connections() {
    let redis = TestRedis::start();
    let proxy = Proxy::to(&redis);
    let server = TestServer::builder().flag("redis-url", &proxy.url()).start();
    server.wait_until_ready();
    all_is_served(&server, "the start");
    proxy.forget_idle(Duration::ZERO);
    all_is_served(&server, "a router forgot all connections");
    // Before a command that may not be repeated the server tests a connection that was idle for long.
    std::thread::sleep(secs(6));
    proxy.forget_idle(secs(5));
    for _ in 0..8 {
        server.submit_job(json!({"type": "echo"}));
    }
    all_is_served(&server, "a router forgot all idle connections");
    nothing_was_said(&server);
}

/// Submits jobs one after the other, each with this fault between its BRPOPLPUSH and its start.
#[track_caller]
fn jobs_come_soon(does: &Does) {
    let redis = TestRedis::start();
    let proxy = Proxy::to(&redis);
    let server = TestServer::builder().flag("redis-url", &proxy.url()).start();
    server.wait_until_ready();
    let mut ids = Vec::new();
    for round in 0..4 {
        eventually(LIMIT, "a fetcher waits", || {
            redis.query::<String>(&["CLIENT", "LIST"]).contains("cmd=brpoplpush")
        });
        proxy.set(does.clone());
        // Submit past the proxy, so that the fault does not affect the submission.
        let id = TestServer::observer(&redis).submit_job(json!({"type": "echo", "payload": round}));
        server.wait_until_ready();
        server.wait_for_status(id, "completed");
        ids.push(id);
    }
    // The recovery of lost claims found nothing.
    assert!(!server.log_text().contains("hand-over was lost"), "{}", server.log_text());
    audit(&redis, &server, &ids);
}

#[test]
fn a_job_is_run_at_once_though_the_connection_for_its_start_has_died() {
    jobs_come_soon(&Does { forgets_others: true, ..Does::default() });
}

#[test]
fn a_job_is_run_at_once_though_no_connection_for_its_start_can_be_made() {
    jobs_come_soon(&Does { forgets_others: true, refuses: 4, ..Does::default() });
}

#[test]
fn a_job_is_run_at_once_though_its_id_was_lost_on_the_way() {
    jobs_come_soon(&Does { loses_jobs: true, ..Does::default() });
}
