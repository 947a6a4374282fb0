//! Cancelling, deleting and retrying a job in each status.

use crate::common::*;

#[track_caller]
fn cancel(server: &TestServer, id: u64) -> Reply {
    server.act(&format!("/jobs/{id}/cancel"))
}

/// Waits until the handler of the only running job runs. The job is processing a moment before: its server then cancels
/// the job without a run.
fn wait_until_handler_runs(server: &TestServer) {
    eventually(LIMIT, "the handler runs", || {
        let workers = server.get("/stats/workers").expect(200).json();
        workers["servers"][0]["threads"][0]["state"] == "running"
    });
}

#[test]
fn a_scheduled_a_queued_and_a_retrying_job_are_cancelled_at_once() {
    let redis = TestRedis::start();
    let config = "[handlers.fail]\nbackoff = { base = \"10h\", cap = \"10h\" }\n";
    let server = TestServer::builder().redis(&redis).config(config).start();
    let scheduled = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    let queued = server.submit_job(json!({"type": "echo", "queue": "nobody"}));
    let retrying = server.submit("fail", json!({}));
    server.wait_for_status(retrying, "retrying");
    for id in [scheduled, queued, retrying] {
        let job = cancel(&server, id).expect(200).json();
        assert_eq!(job["id"], id);
        assert_eq!(job["status"], "cancelled", "{job:#}");
        time_ms(&job["finished_at"]);
        assert_eq!(server.job(id)["status"], "cancelled");
    }
    assert_eq!(server.count("cancelled"), 3);
    assert_eq!(redis.query::<u64>(&["ZCARD", "{threadq}:scheduled"]), 0);
}

#[test]
fn a_cancelled_job_never_starts() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("workers", "1").start();
    let blocker = server.submit("sleep", json!({"ms": 600_000}));
    server.wait_for_status(blocker, "processing");
    let ids = server.submit_batch(&vec![json!({"type": "echo"}); 6]);
    let last = server.submit("echo", json!({}));
    for id in &ids {
        cancel(&server, *id).expect(200);
    }
    cancel(&server, blocker).expect(202);
    server.wait_for_status(last, "completed");
    for id in ids {
        let job = server.job(id);
        assert_eq!(job["status"], "cancelled");
        assert_eq!((&job["started_at"], &job["attempts"]), (&Value::Null, &json!(0)), "{job:#}");
    }
}

#[test]
fn a_running_job_is_told_to_stop_and_becomes_cancelled() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("workers", "1").start();
    let id = server.submit("sleep", json!({"ms": 600_000}));
    wait_until_handler_runs(&server);
    let begin = Instant::now();
    let job = cancel(&server, id).expect(202).json();
    assert_eq!(job["id"], id);
    let job = server.wait_for_status(id, "cancelled");
    assert!(begin.elapsed() < secs(10), "took {:?}", begin.elapsed());
    time_ms(&job["finished_at"]);
    assert_eq!(job["result"], Value::Null, "{job:#}");
    // The worker is free.
    server.complete("echo", json!({}));
}

#[test]
fn a_job_that_runs_on_another_server_is_cancelled_too() {
    let redis = TestRedis::start();
    let front = TestServer::observer(&redis);
    let _worker = TestServer::start(&redis);
    let id = front.submit("sleep", json!({"ms": 600_000}));
    front.wait_for_status(id, "processing");
    cancel(&front, id).expect(202);
    front.wait_for(id, secs(15), "stopped", |job| job["status"] == "cancelled");
}

#[test]
fn a_handler_that_ignores_a_cancel_is_given_up_and_its_worker_replaced() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("workers", "1").start();
    let id = server.submit("hang", json!({}));
    wait_until_handler_runs(&server);
    let begin = Instant::now();
    cancel(&server, id).expect(202);
    let next = server.submit("echo", json!({}));
    server.wait_for_status(id, "cancelled");
    server.wait_for_status(next, "completed");
    let took = begin.elapsed();
    assert!(took < secs(15), "given up after {took:?}");
    let stats = server.get("/stats").expect(200).json();
    assert_eq!(stats["servers"][0]["workers"], 1, "{stats:#}");
}

#[test]
fn a_second_cancel_of_a_running_job_is_no_error() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let id = server.submit("hang", json!({}));
    wait_until_handler_runs(&server);
    cancel(&server, id).expect(202);
    cancel(&server, id).expect(202);
    server.wait_for_status(id, "cancelled");
}

#[test]
fn what_has_ended_cannot_be_cancelled() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let completed = server.submit("echo", json!({}));
    let failed = server.submit("fail", json!({"permanent": true}));
    let cancelled = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    server.wait_for_status(completed, "completed");
    server.wait_for_status(failed, "failed");
    cancel(&server, cancelled).expect(200);
    for id in [completed, failed, cancelled] {
        let before = server.job(id);
        cancel(&server, id).expect_error(409, "wrong_status", "an ended job");
        assert_eq!(server.job(id), before);
    }
}

#[test]
fn a_cancelled_job_can_be_sent_back_to_its_queue() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let id = server.submit_job(json!({"type": "echo", "payload": 5, "delay_ms": 3_600_000}));
    cancel(&server, id).expect(200);
    let job = server.act(&format!("/jobs/{id}/retry")).expect(202).json();
    assert_eq!((&job["id"], &job["attempts"]), (&json!(id), &json!(0)), "{job:#}");
    let job = server.wait_for_status(id, "completed");
    assert_eq!(job["result"], 5);
    // A job that was cancelled while it was queued, and whose id may still be in the list, runs once.
    let id = server.submit_job(json!({"type": "fail", "queue": "nobody", "max_attempts": 1}));
    cancel(&server, id).expect(200);
    server.act(&format!("/jobs/{id}/retry")).expect(202);
    let _other = TestServer::builder().redis(&redis).flag("queues", "nobody").start();
    let job = server.wait_for_status(id, "failed");
    assert_eq!(job["attempts"], 1, "{job:#}");
    eventually(LIMIT, "the queue is empty", || redis.live_handles().is_empty());
    assert_eq!(server.job(id), job);
}

#[test]
fn only_what_has_ended_can_be_deleted() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let completed = server.submit("echo", json!({}));
    let failed = server.submit("fail", json!({"permanent": true}));
    let cancelled = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    let running = server.submit("sleep", json!({"ms": 600_000}));
    let queued = server.submit_job(json!({"type": "echo", "queue": "nobody"}));
    server.wait_for_status(completed, "completed");
    server.wait_for_status(failed, "failed");
    cancel(&server, cancelled).expect(200);
    server.wait_for_status(running, "processing");
    for id in [running, queued] {
        server.delete(&format!("/jobs/{id}")).expect_error(409, "wrong_status", "a live job");
    }
    server.act(&format!("/jobs/{running}/retry")).expect_error(409, "wrong_status", "a running job");
    for id in [completed, failed, cancelled] {
        let reply = server.delete(&format!("/jobs/{id}")).expect(204);
        assert!(reply.body.is_empty());
        server.get(&format!("/jobs/{id}")).expect_error(404, "not_found", "deleted");
        server.delete(&format!("/jobs/{id}")).expect_error(404, "not_found", "deleted");
    }
    assert_eq!(server.total(""), 2);
    assert_eq!(server.get("/dlq").expect(200).json()["total"], 0);
}
