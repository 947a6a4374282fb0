//! Workers that die, freeze or are cut off. The worker is the example in Python.

use super::*;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A process of an example worker; killed when it is dropped.
pub struct WorkerProcess(pub Child);

impl WorkerProcess {
    /// Starts an example with the arguments in front of the queue `q`, for a server at this address, with leases of this time.
    pub fn start(program: &[&str], url: &str, token: &str, lease_ms: u32) -> WorkerProcess {
        let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples");
        let child = Command::new(program[0])
            .args(&program[1..])
            .arg("q")
            .current_dir(examples)
            .env("THREADQ_SERVER", url)
            .env("THREADQ_WORKER_TOKEN", token)
            .env("LEASE_MS", lease_ms.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program:?}: {error}"));
        WorkerProcess(child)
    }

    fn python(server: &TestServer) -> WorkerProcess {
        WorkerProcess::start(&["python3", "pull_worker.py"], &format!("http://{}", server.addr()), "", 3_000)
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Submits a job of this number of steps, each of this many seconds, and waits until its first step is reported.
fn submit_steps(server: &TestServer, steps: u32, seconds: f64) -> u64 {
    let payload = json!({"n": steps, "seconds": seconds});
    let id = server.submit_job(json!({"type": "t", "queue": "q", "payload": payload}));
    server.wait_for(id, LIMIT, "progress", |job| job["progress"]["value"].as_f64().is_some());
    id
}

#[test]
fn a_worker_that_reports_keeps_its_job_for_longer_than_its_lease() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    let _worker = WorkerProcess::python(&server);
    // Each step takes longer than the lease: the worker extends it meanwhile.
    let id = server.submit_job(json!({"type": "t", "queue": "q", "payload": {"n": 2, "seconds": 4}}));
    let job = server.wait_for_status(id, "completed");
    assert_eq!(
        (&job["result"]["done"], &job["attempts"], &job["crashes"]),
        (&json!(2), &json!(1), &json!(0))
    );
    assert_eq!(job["progress"]["value"], 1.0, "{job}");
}

#[test]
fn the_job_of_a_killed_worker_runs_again() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    let mut worker = WorkerProcess::python(&server);
    let id = submit_steps(&server, 600, 0.1);
    signal::kill9(worker.0.id());
    let _ = worker.0.wait();
    let job = server.wait_for(id, LIMIT, "come back", |job| job["status"] == "queued");
    assert_eq!((&job["crashes"], &job["attempts"]), (&json!(1), &json!(0)), "{job}");
    assert_eq!(server.metric("threadq_pull_leases_lost_total"), 1.0);
    let log = server.log_text();
    assert!(log.contains("its worker let the lease run out: crash 1 of 3"), "{log}");
    let _second = WorkerProcess::python(&server);
    server.wait_for(id, LIMIT, "run again", |job| job["status"] == "processing");
    server.act(&format!("/jobs/{id}/cancel")).expect(202);
    server.wait_for_status(id, "cancelled");
}

#[test]
fn the_late_answers_of_a_frozen_worker_change_nothing() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    let worker = WorkerProcess::python(&server);
    let id = submit_steps(&server, 600, 0.1);
    signal::stop(worker.0.id());
    // Another worker gets the job, and holds it while the first one goes on.
    let job = until_some(LIMIT, "the job comes back", || try_pull(&server, json!({"queues": ["q"]})));
    assert_eq!((job["id"].as_u64(), job["crashes"].as_u64()), (Some(id), Some(1)), "{job}");
    let done = submit(&server);
    signal::cont(worker.0.id());
    // The first worker finds out that it has lost the job, and takes the next one.
    server.wait_for_status(done, "completed");
    let held = server.job(id);
    assert_eq!((&held["status"], &held["attempts"]), (&json!("processing"), &json!(0)), "{held}");
    let end = server.post(&format!("{}/complete", attempt(&job)), &json!({"result": "mine"})).expect(200);
    assert_eq!(end.json()["status"], "completed");
    assert_eq!(server.job(id)["result"], "mine");
}

#[test]
fn of_two_workers_on_one_job_only_the_one_with_the_lease_completes_it() {
    let redis = TestRedis::start();
    let servers = [0, 1].map(|_| front(&redis).start());
    let id = submit(&servers[0]);
    let first = pull(&servers[0], 1_000);
    let second = until_some(LIMIT, "the lease runs out", || try_pull(&servers[1], json!({"queues": ["q"]})));
    assert_eq!(second["id"], id);
    let late = json!({"result": "late"});
    for server in &servers {
        for end in ["complete", "fail", "release"] {
            let body = if end == "fail" {
                json!({"error": "late"})
            } else if end == "complete" {
                late.clone()
            } else {
                json!({})
            };
            let refused = server.post(&format!("{}/{end}", attempt(&first)), &body);
            refused.expect_error(409, "stale_attempt", end);
        }
        server.act(&attempt(&first)).expect_error(409, "stale_attempt", "a late report");
    }
    servers[0].post(&format!("{}/complete", attempt(&second)), &json!({"result": "in time"})).expect(200);
    servers[1].post(&format!("{}/complete", attempt(&first)), &late).expect_error(
        409,
        "stale_attempt",
        "late",
    );
    assert_eq!(servers[1].job(id)["result"], "in time");
}

#[test]
fn a_job_that_kills_its_workers_ends_as_a_dead_letter() {
    let redis = TestRedis::start();
    let server = front(&redis).flag("max-crashes", "2").start();
    let id = submit(&server);
    for _ in 0..2 {
        let job = until_some(LIMIT, "the job", || {
            try_pull(&server, json!({"queues": ["q"], "wait_ms": 1_000, "lease_ms": 1_000}))
        });
        assert_eq!(job["id"], id);
    }
    let job = server.wait_for_status(id, "failed");
    let error = job["last_error"].as_str().unwrap();
    assert!(error.contains("let the lease run out 2 times"), "{error}");
}

#[test]
fn an_attempt_times_out_whatever_its_lease_is() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    let id = server.submit_job(json!({"type": "t", "queue": "q", "timeout_ms": 1_500, "max_attempts": 1}));
    let job = pull(&server, 60_000);
    assert_eq!(job["lease_until"], job["timeout_at"]);
    let failed = server.wait_for_status(id, "failed");
    assert_eq!((&failed["last_error"], &failed["crashes"]), (&json!("timed out"), &json!(0)), "{failed}");
    server.act(&format!("{}/complete", attempt(&job))).expect_error(
        409,
        "stale_attempt",
        "after the timeout",
    );
}

#[test]
fn a_worker_that_is_cut_off_from_its_server_goes_on_when_the_server_is_back() {
    let redis = TestRedis::start();
    let builder = front(&redis).listen(&format!("127.0.0.1:{}", node::free_port()));
    let mut server = builder.start();
    let _worker = WorkerProcess::python(&server);
    let id = submit_steps(&server, 30, 0.1);
    server.kill9();
    let again = builder.start();
    let job = again.wait_for_end(id);
    assert_eq!((&job["status"], &job["result"]["done"]), (&json!("completed"), &json!(30)), "{job}");
}
