//! The pull worker of the Rust client.

use super::*;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::value::RawValue;
use threadq::client::Client;
use threadq::client::pull::Worker;
use threadq::job::Failure;

fn client(server: &TestServer) -> Client {
    Client::new(&format!("http://{}", server.addr())).unwrap()
}

#[test]
fn closures_run_jobs_and_their_outcomes_are_stored() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    let submit = |job_type: &str, payload: Value| {
        server.submit_job(
            json!({"type": job_type, "payload": payload, "queue": "q", "max_attempts": 2, "tags": ["x"]}),
        )
    };
    let double = submit("double", json!(21));
    let text = submit("double", json!("x"));
    let resumes = submit("resume", json!({}));
    let (panics, unknown) = (submit("panic", json!({})), submit("unknown", json!({})));
    let (snoozes, long) = (submit("snooze", json!({})), submit("long", json!({})));
    let worker = Worker::new(&client(&server))
        .queue("other")
        .queue("q")
        .name("rust-1")
        .handler("double", |job| Ok(job.payload::<u32>()? * 2))
        .handler("resume", |job| match job.checkpoint::<u32>()? {
            None => {
                job.progress(0.5, "half");
                job.log("first attempt");
                job.set_checkpoint(&7)?;
                Err(Failure::Retryable { message: "again".to_owned(), retry_after: None })
            }
            Some(page) => Ok(page),
        })
        .handler("panic", |_| -> Result<(), Failure> { panic!("no {}", "way") })
        .handler("snooze", |_| -> Result<(), Failure> { Err(Failure::snooze(secs(3600))) })
        .handler("long", |_| Ok("x".repeat(70_000)));
    let stop = worker.stop();
    let running = thread::spawn(move || worker.run());
    assert_eq!(server.wait_for_status(double, "completed")["result"], 42);
    let failed = server.wait_for_status(text, "failed");
    assert!(failed["last_error"].as_str().unwrap().starts_with("the payload does not fit"), "{failed}");
    let job = server.wait_for_status(resumes, "completed");
    assert_eq!(
        (&job["result"], &job["checkpoint"], &job["progress"]["message"]),
        (&json!(7), &json!(7), &json!("half"))
    );
    assert_eq!(server.wait_for_status(panics, "failed")["last_error"], "panicked: no way");
    assert_eq!(server.wait_for_status(unknown, "failed")["last_error"], "no handler for type \"unknown\"");
    server.wait_for(snoozes, LIMIT, "snoozed", |job| job["status"] == "scheduled");
    let failed = server.wait_for_status(long, "failed");
    assert!(failed["last_error"].as_str().unwrap().starts_with("result has 70002 bytes"), "{failed}");
    assert_eq!(server.get("/workers").expect(200).json()["workers"][0]["name"], "rust-1");
    stop.stop();
    running.join().unwrap().unwrap();
}

#[test]
fn leases_are_extended_and_several_jobs_run_at_a_time() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    let ids: Vec<u64> = (0..4).map(|_| submit(&server)).collect();
    let running = std::sync::Arc::new(AtomicUsize::new(0));
    let seen = running.clone();
    let worker =
        Worker::new(&client(&server)).queue("q").at_a_time(4).lease(secs(3)).handler("t", move |_| {
            seen.fetch_add(1, Ordering::SeqCst);
            // Longer than two leases.
            thread::sleep(secs(7));
            Ok(seen.load(Ordering::SeqCst))
        });
    let stop = worker.stop();
    let thread = thread::spawn(move || worker.run());
    for id in ids {
        let job = server.wait_for_status(id, "completed");
        assert_eq!((&job["crashes"], &job["result"]), (&json!(0), &json!(4)), "{job}");
    }
    stop.stop();
    thread.join().unwrap().unwrap();
}

#[test]
fn a_cancelled_job_is_told_and_a_stopping_worker_gives_its_job_back() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    let worker =
        Worker::new(&client(&server)).queue("q").lease(secs(3)).handler("t", |job| -> Result<(), Failure> {
            job.progress(0.1, "");
            while !job.is_cancelled() && !job.is_stopping() {
                thread::sleep(ms(10));
            }
            Err(Failure::retryable("stopped"))
        });
    let stop = worker.stop();
    let running = thread::spawn(move || worker.run());
    let first = submit(&server);
    server.wait_for(first, LIMIT, "progress", |job| !job["progress"].is_null());
    server.act(&format!("/jobs/{first}/cancel")).expect(202);
    server.wait_for_status(first, "cancelled");
    let second = submit(&server);
    server.wait_for(second, LIMIT, "progress", |job| !job["progress"].is_null());
    stop.stop();
    running.join().unwrap().unwrap();
    let job = server.job(second);
    assert_eq!((&job["status"], &job["attempts"]), (&json!("queued"), &json!(0)), "{job}");
}

#[test]
fn a_report_that_the_server_refuses_is_not_sent_again() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    let worker = Worker::new(&client(&server)).queue("q").handler("t", |job| {
        // As many levels as the client allows, inside of the body: one more than the server allows.
        let deep = format!("{}{}", "[".repeat(128), "]".repeat(128));
        job.set_checkpoint(&RawValue::from_string(deep).unwrap())?;
        while !job.is_stopping() {
            job.log("a line");
            thread::sleep(ms(10));
        }
        Ok(())
    });
    let stop = worker.stop();
    let running = thread::spawn(move || worker.run());
    let id = submit(&server);
    let lines = || server.get(&format!("/jobs/{id}/log")).expect(200).json()["total"].as_u64();
    eventually(LIMIT, "later reports are stored", || lines() > Some(0));
    let refused = "threadq_http_requests_total{method=\"POST\",path=\"/attempts/{token}\",code=\"400\"}";
    assert_eq!(server.metric(refused), 1.0);
    stop.stop();
    running.join().unwrap().unwrap();
    assert_eq!(server.wait_for_status(id, "completed")["checkpoint"], Value::Null);
}

#[test]
fn a_worker_with_a_wrong_token_or_queue_says_so() {
    let redis = TestRedis::start();
    let server = front(&redis).flag("api-token", "the-token").start();
    let with = |token: &str, queue: &str| {
        let client = client(&server).token(token).unwrap();
        Worker::new(&client).queue(queue).at_a_time(3).run().unwrap_err().to_string()
    };
    assert!(with("wrong", "q").contains("unauthorized"));
    assert!(with("the-token", "a b").contains("invalid_pull"));
}
