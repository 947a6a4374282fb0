//! Jobs of pull workers, and what attempts report.

use super::fixture::{Stage, Step};
use super::proxy::Call;
use crate::common::http::Reply;
use crate::common::*;

pub const STEPS: &[Step] = &[
    Step {
        command: "start_jobs",
        of: "queued -> processing, of a pull worker",
        before: "queued in work_queue:outside",
        after: "processing in in_progress_queue",
        end: "completed",
        play: is_taken,
    },
    Step {
        command: "note_pulls",
        of: "a pull worker waits",
        before: "queued in work_queue:elsewhere",
        after: "queued in work_queue:elsewhere",
        end: "completed",
        play: waits,
    },
    Step {
        command: "secret",
        of: "the key of the attempt tokens is made",
        before: "0 keys",
        after: "1 keys",
        end: "completed",
        play: makes_the_secret,
    },
    Step {
        command: "settle",
        of: "a pull worker completes a job",
        before: "processing in in_progress_queue",
        after: "completed in completed",
        end: "completed: 0 runs, 1 attempts, 0 crashes",
        play: is_completed,
    },
    Step {
        command: "settle",
        of: "a pull worker gives a job back",
        before: "processing in in_progress_queue",
        after: "queued in work_queue:outside",
        end: "completed: 0 runs, 1 attempts, 0 crashes",
        play: is_given_back,
    },
    Step {
        command: "due",
        of: "the lease of a pull worker ends",
        before: "processing in in_progress_queue",
        after: "queued in work_queue:outside",
        end: "completed: 0 runs, 1 attempts, 1 crashes",
        play: lets_its_lease_end,
    },
    Step {
        command: "report",
        of: "a pull worker reports",
        before: "0 lines",
        after: "1 lines",
        end: "completed: 0 runs, 1 attempts, 0 crashes",
        play: reports,
    },
    Step {
        command: "extend",
        of: "a pull worker reports while Redis is full",
        before: "a lease of 30 s",
        after: "a lease of 60 s",
        end: "completed: 0 runs, 1 attempts, 0 crashes",
        play: reports_while_redis_is_full,
    },
];

fn submit(stage: &Stage) -> u64 {
    stage.submit_with("note", |job| job.queue = "outside".to_owned())
}

fn pull(server: &Api, lease_ms: u64) -> Reply {
    server.post("/pull", &json!({"queues": ["outside"], "lease_ms": lease_ms, "worker": "w"}))
}

/// The token of the job, taken as soon as the job can be taken.
#[track_caller]
fn take(stage: &Stage, server: &Api) -> String {
    until_some(LIMIT, "a job", || {
        let reply = stage.until_answered(|| pull(server, 30_000)).expect(200).json();
        reply["jobs"][0]["token"].as_str().map(str::to_owned)
    })
}

/// Sends a request until there is an answer, and asserts that it is 200.
#[track_caller]
fn ask(stage: &Stage, server: &Api, path: &str, body: &Value) -> Value {
    stage.until_answered(|| server.post(path, body)).expect(200).json()
}

fn complete(stage: &Stage, server: &Api, token: &str) {
    let answer = ask(stage, server, &format!("/attempts/{token}/complete"), &json!({"result": 1}));
    assert_eq!(answer["status"], "completed");
}

fn is_of_pull_workers(call: &Call) -> bool {
    call.arg(0) == b"pull"
}

/// Asserts that the job is taken again and completed.
fn is_completed_in_the_end(stage: &Stage, server: &Api, id: u64) {
    let token = take(stage, server);
    complete(stage, server, &token);
    assert_eq!(stage.job(id).unwrap().status.to_string(), "completed");
    stage.ends("completed");
}

fn is_taken(stage: &Stage) {
    let server = stage.server();
    let id = submit(stage);
    let look = || {
        stage.assert_sound();
        stage.place(id)
    };
    // The server may send the call again. Nobody works on a job that it gets by that.
    stage.at_step_when(is_of_pull_workers, || pull(&server, 1_000), look);
    is_completed_in_the_end(stage, &server, id);
}

fn waits(stage: &Stage) {
    let server = stage.server();
    // A job that the waiting worker does not want.
    let other = stage.submit_with("note", |job| job.queue = "elsewhere".to_owned());
    let pull = |queue: &str| {
        let body = json!({"queues": [queue], "wait_ms": 60_000, "lease_ms": 60_000, "worker": "w"});
        server.post("/pull", &body).expect(200).json()["jobs"][0]["token"].as_str().map(str::to_owned)
    };
    std::thread::scope(|scope| {
        let token = scope.spawn(|| pull("outside"));
        stage.at_step(|| (), || stage.place(other));
        // The worker waits on, and gets a job.
        let id = submit(stage);
        let token = token.join().unwrap().expect("a job");
        complete(stage, &server, &token);
        assert_eq!(stage.job(id).unwrap().status.to_string(), "completed");
    });
    let token = pull("elsewhere").expect("a job");
    complete(stage, &server, &token);
    stage.ends(&stage.job(other).unwrap().status.to_string());
}

fn makes_the_secret(stage: &Stage) {
    let server = stage.server();
    let id = submit(stage);
    let keys = || format!("{} keys", stage.redis_says::<u64>("EXISTS T:secret"));
    stage.at_step(|| pull(&server, 1_000), keys);
    eventually(LIMIT, "the job waits again", || stage.place(id) == "queued in work_queue:outside");
    is_completed_in_the_end(stage, &server, id);
}

/// Sends an answer twice, the first time where it is cut.
fn is_answered(stage: &Stage, server: &Api, id: u64, token: &str, verdict: &str, status: &str) {
    let path = format!("/attempts/{token}/{verdict}");
    let look = || {
        stage.assert_sound();
        stage.place(id)
    };
    stage.at_step_when(is_of_pull_workers, || server.post(&path, &json!({})), look);
    // The same again, as often as the worker asks.
    for _ in 0..2 {
        assert_eq!(ask(stage, server, &path, &json!({}))["status"], status);
    }
}

fn is_completed(stage: &Stage) {
    let server = stage.server();
    let id = submit(stage);
    let token = take(stage, &server);
    is_answered(stage, &server, id, &token, "complete", "completed");
    stage.all_end(&server, &[id]);
}

fn is_given_back(stage: &Stage) {
    let server = stage.server();
    let id = submit(stage);
    let token = take(stage, &server);
    is_answered(stage, &server, id, &token, "release", "queued");
    let token = take(stage, &server);
    complete(stage, &server, &token);
    stage.all_end(&server, &[id]);
}

fn lets_its_lease_end(stage: &Stage) {
    let server = stage.server();
    let id = submit(stage);
    let reply = stage.until_answered(|| pull(&server, 2_000)).expect(200).json();
    let lease_until = time_ms(&reply["jobs"][0]["lease_until"]);
    let leases = stage.question("LLEN T:in_progress_queue:pull");
    let ends_it =
        move |call: &Call| if call.answer.is_empty() { now_ms() >= lease_until } else { leases() == 0 };
    let look = || {
        stage.assert_sound();
        stage.place(id)
    };
    stage.at_step_when(ends_it, || (), look);
    let token = take(stage, &server);
    complete(stage, &server, &token);
    stage.all_end(&server, &[id]);
}

fn reports(stage: &Stage) {
    let server = stage.server();
    let id = submit(stage);
    let token = take(stage, &server);
    let path = format!("/attempts/{token}");
    let report = json!({"log": ["a line"], "progress": {"value": 0.5}});
    let lines = || format!("{} lines", stage.redis_says::<u64>(&format!("LLEN T:log:{id}")));
    let look = || {
        stage.assert_sound();
        lines()
    };
    stage.at_step_when(|_| true, || server.post(&path, &report), look);
    // A line may be there twice, and is never missing.
    ask(stage, &server, &path, &report);
    assert!(["1 lines", "2 lines", "3 lines"].contains(&&*lines()), "{}", lines());
    complete(stage, &server, &token);
    stage.all_end(&server, &[id]);
}

fn reports_while_redis_is_full(stage: &Stage) {
    let server = stage.server();
    let id = submit(stage);
    let token = take(stage, &server);
    let path = format!("/attempts/{token}");
    stage.redis_says::<()>("CONFIG SET maxmemory 1");
    let report = json!({"progress": {"value": 0.5}, "lease_ms": 60_000});
    let lease = || {
        let lease_ms: u64 = stage.redis_says(&format!("HGET T:job:{id} lease_ms"));
        format!("a lease of {} s", lease_ms / 1_000)
    };
    stage.at_step_when(|_| true, || server.post(&path, &report), lease);
    ask(stage, &server, &path, &report);
    stage.redis_says::<()>("CONFIG SET maxmemory 0");
    complete(stage, &server, &token);
    stage.all_end(&server, &[id]);
}
