//! Limits: defined, and what they do to jobs: one job waits for room, and goes on when there is room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use threadq::job::limit::{LimitName, LimitNumbers, Rate};
use threadq::job::{Extras, NewJob};

use super::fixture::{Stage, Step};
use super::proxy::Call;
use crate::common::http::Reply;
use crate::common::*;

const ONCE: &str = "completed: 1 runs, 1 attempts, 0 crashes";

pub const STEPS: &[Step] = &[
    Step {
        command: "define_limit",
        of: "PUT /limits/NAME",
        before: "0 limits",
        after: "1 limits",
        end: "1 limits",
        play: is_defined,
    },
    Step {
        command: "define_limit",
        of: "DELETE /limits/NAME, and the waiting job goes on",
        before: "1 limits, 1 held",
        after: "0 limits, 0 held",
        end: ONCE,
        play: is_deleted,
    },
    Step {
        command: "start_jobs",
        of: "one job starts, and one waits for room",
        before: "0 held",
        after: "1 held",
        end: ONCE,
        play: has_no_room,
    },
    Step {
        command: "settle",
        of: "a slot is free, and the waiting job goes on",
        before: "1 held",
        after: "0 held",
        end: ONCE,
        play: frees_its_slot,
    },
    Step {
        command: "due",
        of: "a token comes, and the waiting job goes on",
        before: "1 held",
        after: "0 held",
        end: ONCE,
        play: gets_a_token,
    },
];

fn narrow() -> LimitName {
    LimitName::parse("narrow").unwrap()
}

fn one_slot() -> LimitNumbers {
    LimitNumbers { concurrency: Some(1), rate: None, burst: 1 }
}

fn limits(stage: &Stage) -> String {
    format!("{} limits", stage.redis_says::<u64>("HLEN T:limits"))
}

fn held(stage: &Stage) -> String {
    format!("{} held", stage.redis_says::<u64>("ZCARD T:held:default:narrow"))
}

/// Submits two jobs with the limit at once.
fn submit_two(stage: &Stage) -> Vec<u64> {
    let extras = Extras { limits: vec![narrow()], ..Extras::default() };
    let job = NewJob { extras: Some(Box::new(extras)), ..NewJob::new("note") };
    let submitted = stage.queue.submit(&[job.clone(), job], None, 1_000).unwrap();
    submitted.ids().map(|id| id.get()).collect()
}

/// Asserts that both jobs end, and that nothing is left of their limit.
fn both_end(stage: &Stage, server: &TestServer, ids: &[u64]) {
    stage.all_end(server, ids);
    for key in ["slots:*", "held:*", "holds:*", "held_count", "waiting_limits", "agenda"] {
        assert_eq!(stage.redis.keys(&format!("{{threadq}}:{key}")), [""; 0]);
    }
}

fn put(server: &TestServer) -> Reply {
    let json_type = [("Content-Type", "application/json")];
    server.request("PUT", "/limits/narrow", &json_type, Some(br#"{"concurrency": 1}"#))
}

fn is_defined(stage: &Stage) {
    let server = stage.server_with_used_connections();
    let reply = stage.at_step(|| put(&server), || limits(stage));
    reply.expect(stage.repeated(201, 200));
    stage.ends(&limits(stage));
}

fn is_deleted(stage: &Stage) {
    let server = stage.server_with_used_connections();
    stage.queue.put_limit(&narrow(), &one_slot()).unwrap();
    let slow = stage.submit_with("slow", |job| {
        job.extras = Some(Box::new(Extras { limits: vec![narrow()], ..Extras::default() }));
    });
    eventually(LIMIT, "it runs", || stage.fate(slow).contains(": 1 runs"));
    let waiting = stage.submit_with("note", |job| {
        job.extras = Some(Box::new(Extras { limits: vec![narrow()], ..Extras::default() }));
    });
    eventually(LIMIT, "it waits", || held(stage) == "1 held");
    let delete = || server.delete("/limits/narrow");
    let reply = stage.at_step(delete, || format!("{}, {}", limits(stage), held(stage)));
    reply.expect(stage.repeated(204, 404));
    eventually(LIMIT, "it ends", || stage.job(waiting).is_some_and(|job| job.status.is_final()));
    server.act(&format!("/jobs/{slow}/cancel")).expect(202);
    eventually(LIMIT, "it is cancelled", || stage.job(slow).is_some_and(|job| job.status.is_final()));
    stage.ends(&stage.fate(waiting));
}

fn has_no_room(stage: &Stage) {
    let server = stage.server();
    stage.queue.put_limit(&narrow(), &one_slot()).unwrap();
    let has_fetched = |call: &Call| !call.arg(3).is_empty();
    let ids = stage.at_step_when(
        has_fetched,
        || submit_two(stage),
        || {
            stage.assert_sound();
            held(stage)
        },
    );
    both_end(stage, &server, &ids);
}

fn frees_its_slot(stage: &Stage) {
    let server = stage.server();
    stage.queue.put_limit(&narrow(), &one_slot()).unwrap();
    let is_complete = |call: &Call| call.arg(4) == b"complete";
    let ids = stage.at_step_when(
        is_complete,
        || submit_two(stage),
        || {
            stage.assert_sound();
            held(stage)
        },
    );
    both_end(stage, &server, &ids);
}

fn gets_a_token(stage: &Stage) {
    let server = stage.server();
    let rate = Rate::new(1, Duration::from_secs(3));
    stage.queue.put_limit(&narrow(), &LimitNumbers { concurrency: None, rate, burst: 1 }).unwrap();
    let waits = stage.question("ZCARD T:held:default:narrow");
    let is_seen = Arc::new(AtomicBool::new(false));
    let seen = is_seen.clone();
    let sends_on = move |call: &Call| {
        if call.answer.is_empty() { waits() == 1 } else { seen.load(Ordering::SeqCst) && waits() == 0 }
    };
    let submit = || {
        let ids = submit_two(stage);
        eventually(LIMIT, "one waits", || held(stage) == "1 held");
        is_seen.store(true, Ordering::SeqCst);
        ids
    };
    let look = || {
        stage.assert_sound();
        held(stage)
    };
    let ids = stage.at_step_when(sends_on, submit, look);
    both_end(stage, &server, &ids);
}
