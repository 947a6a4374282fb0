//! Redis has no room on its disk or in its memory.

use super::fixture::{Scene, assert_away, assert_takes_nothing_new};
use crate::common::*;

#[test]
fn its_disk_is_full() {
    let redis = TestRedis::start();
    let url = redis.url();
    let fixture = Scene::on(redis, &url);
    fixture.redis.limit_files(Some(1));
    eventually(LIMIT, "Redis notices", || {
        fixture.redis.try_query::<String>(&["PING"]).is_err_and(|error| error.code() == Some("MISCONF"))
    });
    assert_takes_nothing_new(&fixture.server, "MISCONF");
    fixture.running_jobs_end();
    assert_takes_nothing_new(&fixture.server, "MISCONF");
    fixture.redis.limit_files(None);
    // Redis may have accepted a write just before it noticed the full disk.
    fixture.all_is_well_again(true);
    fixture.assert_said(&["ERROR Redis refuses writes: MISCONF", "INFO  Redis accepts writes again after "]);
}

#[test]
fn its_disk_is_full_and_it_must_write_at_once() {
    let fixture = Scene::start();
    fixture.redis.limit_files(Some(1));
    let pid = fixture.redis.pid();
    eventually(LIMIT, "Redis ends itself rather than lose a write", || !signal::is_running(pid));
    assert_away(&fixture.server, "Redis is unavailable");
    fixture.running_jobs_end();
    // Reap the ended process.
    fixture.redis.kill9();
    fixture.redis.restart();
    fixture.all_is_well_again(true);
    fixture.assert_said(&["ERROR Redis is unavailable: ", "INFO  Redis is available again after "]);
}

#[test]
fn its_memory_is_full_and_what_it_has_goes_on() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(QUICK_BACKOFF).flag("workers", "2").start();
    let running = server.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 3000}}); 2]);
    for id in &running {
        server.wait_for_status(*id, "processing");
    }
    let queued = server.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 40}}); 20]);
    let failing = server.submit_batch(&vec![json!({"type": "fail", "payload": {"times": 1}}); 3]);
    let buried = server.submit_batch(&vec![json!({"type": "fail", "payload": {"permanent": true}}); 3]);
    let delayed = server.submit_batch(&vec![json!({"type": "echo", "delay_ms": 1500}); 3]);
    let held = server.submit_job(json!({"type": "echo", "queue": "nobody"}));
    redis.query::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    for body in [json!({"type": "echo"}), json!({"type": "echo", "delay_ms": 5000})] {
        let reply = server.post("/jobs", &body);
        reply.expect_error(503, "store_unavailable", "a full Redis");
        assert!(reply.header("Retry-After").is_some());
    }
    assert_takes_nothing_new(&server, "full");
    for id in running.iter().chain(&queued).chain(&failing).chain(&delayed) {
        server.wait_for_status(*id, "completed");
    }
    for id in &buried {
        server.wait_for_status(*id, "failed");
    }
    // The requests of operators succeed too.
    server.act(&format!("/jobs/{held}/cancel")).expect(200);
    server.delete(&format!("/jobs/{held}")).expect(204);
    assert_eq!(server.delete("/dlq").expect(200).json(), json!({"deleted": 3}));
    server.act("/queues/other/pause").expect(200);
    server.act("/queues/other/resume").expect(200);
    server.post("/jobs", &json!({"type": "echo"})).expect(503);
    redis.query::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    server.wait_until_ready();
    server.complete("echo", json!({}));
    eventually(secs(15), "its end is said", || server.log_text().contains("Redis has room again"));
    let log = server.log_text();
    assert_eq!(log.matches("Redis is full").count(), 1, "{log}");
    assert_eq!(log.matches("Redis has room again").count(), 1, "{log}");
}

#[test]
fn at_the_brim_of_its_memory_the_log_stays_short() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    server.complete("echo", json!({}));
    for round in 0..20 {
        redis.query::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
        server.post("/jobs", &json!({"type": "echo"})).expect(503);
        redis.query::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
        server.complete("echo", json!(round));
    }
    let log = server.log_text();
    assert!(log.matches("Redis is full").count() <= 2, "{log}");
}

#[test]
fn its_memory_is_full_and_a_dead_server_is_taken_over() {
    let redis = TestRedis::start();
    let start = |queues: &str| {
        TestServer::builder().redis(&redis).flag("lease-timeout", "1s").flag("queues", queues).start()
    };
    let mut dead = start("default");
    let mut ids = dead.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 6000}}); 3]);
    for id in &ids {
        dead.wait_for_status(*id, "processing");
    }
    let survivor = start("default,own");
    let own = survivor.submit_job(json!({"type": "sleep", "queue": "own", "payload": {"ms": 6000}}));
    survivor.wait_for_status(own, "processing");
    redis.query::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    dead.kill9();
    for id in &ids {
        let job = survivor.wait_for_status(*id, "completed");
        assert_eq!(job["crashes"], 1, "{job:#}");
    }
    let job = survivor.wait_for_status(own, "completed");
    assert_eq!(job["crashes"], 0, "the survivor's own beat goes on: {job:#}");
    ids.push(own);
    audit(&redis, &survivor, &ids);
}
