//! Jobs that have ended are kept for a time and up to a number, and no longer.

use crate::common::*;

#[test]
fn completed_jobs_are_removed_after_their_time_and_failed_ones_stay() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("retain-completed", "1s").start();
    let failed = server.submit("fail", json!({"permanent": true}));
    server.wait_for_status(failed, "failed");
    let ids = server.submit_batch(&vec![json!({"type": "echo"}); 20]);
    let waiting = server.submit_job(json!({"type": "echo", "queue": "nobody"}));
    eventually(secs(90), "the completed jobs are gone", || server.total("?status=completed") == 0);
    for id in &ids {
        server.get(&format!("/jobs/{id}")).expect_error(404, "not_found", "past its time");
        assert_eq!(redis.query::<u64>(&["EXISTS", &format!("{{threadq}}:job:{id}")]), 0);
    }
    assert_eq!(server.job(failed)["status"], "failed");
    assert_eq!(server.job(waiting)["status"], "queued");
    assert_eq!(server.total(""), 2);
    assert_eq!(server.count("completed"), 0);
}

#[test]
fn failed_jobs_are_removed_after_theirs() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("retain-failed", "1s").start();
    let completed = server.submit("echo", json!({}));
    server.wait_for_status(completed, "completed");
    let ids = server.submit_batch(&vec![json!({"type": "fail", "payload": {"permanent": true}}); 5]);
    eventually(secs(90), "the failed jobs are gone", || {
        ids.iter().all(|id| server.get(&format!("/jobs/{id}")).status == 404)
    });
    assert_eq!(server.get("/dlq").expect(200).json()["total"], 0);
    assert_eq!(server.job(completed)["status"], "completed");
}

#[test]
fn no_more_than_the_largest_number_is_kept_and_the_newest_stay() {
    let redis = TestRedis::start();
    let server = TestServer::builder()
        .redis(&redis)
        .flag("retain-completed-max", "5")
        .flag("retain-failed-max", "3")
        .flag("workers", "1")
        .start();
    let completed = server.submit_batch(&vec![json!({"type": "echo"}); 30]);
    let failed = server.submit_batch(&vec![json!({"type": "fail", "payload": {"permanent": true}}); 12]);
    eventually(secs(90), "5 completed and 3 failed ones are left", || {
        server.total("?status=completed") == 5 && server.total("?status=failed") == 3
    });
    let ids = |status: &str| -> Vec<u64> {
        server
            .list_all("/jobs", &format!("&status={status}"))
            .iter()
            .filter_map(|j| j["id"].as_u64())
            .collect()
    };
    let newest = |all: &[u64], n: usize| all.iter().rev().take(n).copied().collect::<Vec<u64>>();
    assert_eq!(ids("completed"), newest(&completed, 5));
    assert_eq!(ids("failed"), newest(&failed, 3));
    assert_eq!(server.get("/dlq").expect(200).json()["total"], 3);
    // A deleted job is in no list, set or index.
    assert_eq!(redis.keys("{threadq}:job:*").len(), 8, "{:?}", redis.keys("*"));
}
