//! The example workers in other languages.

use super::deaths::WorkerProcess;
use super::*;

const ALL: &str = "the-api-token-of-this-test";
const WORKER: &str = "the-worker-token-of-this-test";

/// Runs jobs with an example worker: one that completes, and one that is cancelled while it runs.
fn assert_works(program: &[&str]) {
    let redis = TestRedis::start();
    let server = front(&redis).flag("api-token", ALL).flag("worker-token", WORKER).start();
    let api = server.with_token(ALL);
    let submit = |steps: u32| {
        let payload = json!({"n": steps, "seconds": 0.05});
        api.submit_job(json!({"type": "t", "queue": "q", "payload": payload}))
    };
    let ids: Vec<u64> = (0..3).map(|_| submit(2)).collect();
    let _worker = WorkerProcess::start(program, &format!("http://{}", server.addr()), WORKER, 15_000);
    for id in ids {
        let job = api.wait_for_status(id, "completed");
        assert_eq!((&job["result"], &job["attempts"]), (&json!({"done": 2}), &json!(1)), "{job}");
        assert_eq!(
            (&job["progress"]["value"], &job["progress"]["message"]),
            (&json!(1.0), &json!("step 2 of 2"))
        );
    }
    let id = submit(100_000);
    api.wait_for(id, LIMIT, "progress", |job| job["progress"]["value"].as_f64().is_some());
    api.act(&format!("/jobs/{id}/cancel")).expect(202);
    api.wait_for_status(id, "cancelled");
    // The worker goes on with the next job, for which it waits.
    api.wait_for_status(submit(1), "completed");
    let bad = api.submit_job(json!({"type": "t", "queue": "q", "payload": {"n": "x"}, "max_attempts": 1}));
    api.wait_for_status(bad, "failed");
}

#[test]
fn the_worker_in_python() {
    assert_works(&["python3", "pull_worker.py"]);
}

#[test]
fn the_worker_in_node() {
    assert_works(&["node", "pull_worker.mjs"]);
}

#[test]
fn the_worker_in_shell() {
    assert_works(&["sh", "pull_worker.sh"]);
}
