//! Calls of clients and operators: they change jobs and queues, and read them.
//!
//! A call that is safe to repeat is sent again on a fresh connection, and its caller gets the normal response. For
//! every other call the error says that the change may have been made.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::fixture::{Stage, Step};
use super::proxy::Call;
use crate::common::http::Reply;
use crate::common::*;
use threadq::job::Start;
use threadq::job::limit::{LimitName, LimitNumbers};

const ONCE: &str = "completed: 1 runs, 1 attempts, 0 crashes";
/// A retried dead letter counts its attempts from 0.
const AGAIN: &str = "completed: 2 runs, 1 attempts, 0 crashes";

/// A row for a command that changes nothing.
const fn reads(command: &'static str, of: &'static str, play: fn(&Stage)) -> Step {
    Step { command, of, before: "completed in completed", after: "completed in completed", end: ONCE, play }
}

pub const STEPS: &[Step] = &[
    Step {
        command: "cancel",
        of: "queued -> cancelled",
        before: "queued in work_queue:elsewhere",
        after: "cancelled in done",
        end: "cancelled: 0 runs, 0 attempts, 0 crashes",
        play: cancels_one_that_waits,
    },
    Step {
        command: "cancel",
        of: "a running job is asked to stop",
        before: "processing, its server is told of 0 jobs",
        after: "processing, its server is told of 1 jobs",
        end: "cancelled: 1 runs, 0 attempts, 0 crashes",
        play: cancels_one_that_runs,
    },
    Step {
        command: "change",
        of: "scheduled -> queued",
        before: "scheduled in scheduled",
        after: "queued in work_queue:elsewhere",
        end: "cancelled: 0 runs, 0 attempts, 0 crashes",
        play: runs_now,
    },
    Step {
        command: "retry",
        of: "failed -> queued",
        before: "failed",
        after: "queued",
        end: AGAIN,
        play: |stage| {
            let ask = |server: &Api, id: u64| server.act(&format!("/jobs/{id}/retry"));
            let (server, id, reply) = is_sent_back(stage, ask);
            is_away(&reply);
            stage.until_answered(|| ask(&server, id)).expect(stage.repeated(202, 409));
            goes_on(stage, &server, id);
        },
    },
    Step {
        command: "retry",
        of: "all dead letters -> queued",
        before: "failed",
        after: "queued",
        end: AGAIN,
        play: |stage| sends_all_back(stage, stage.repeated(1, 0)),
    },
    Step {
        command: "select",
        of: "all dead letters -> queued",
        before: "failed",
        after: "failed",
        end: AGAIN,
        play: |stage| is_sent_back_at_once(stage, |_| json!({})),
    },
    Step {
        command: "delete",
        of: "failed -> gone",
        before: "failed in dlq_queue",
        after: "gone",
        end: "gone",
        play: |stage| {
            forgets(
                stage,
                |server, id| server.delete(&format!("/jobs/{id}")),
                |reply| {
                    reply.expect(stage.repeated(204, 404));
                },
            );
        },
    },
    Step {
        command: "delete",
        of: "all dead letters -> gone",
        before: "failed in dlq_queue",
        after: "gone",
        end: "gone",
        play: |stage| {
            forgets(
                stage,
                |server, _| server.delete("/dlq"),
                |reply| {
                    assert_eq!(reply.expect(200).json()["deleted"], stage.repeated(1, 0));
                },
            );
        },
    },
    Step {
        command: "pause",
        of: "a queue is paused",
        before: "paused: []",
        after: r#"paused: ["default"]"#,
        end: ONCE,
        play: pauses,
    },
    Step {
        command: "pause",
        of: "a queue is resumed",
        before: r#"paused: ["default"]"#,
        after: "paused: []",
        end: ONCE,
        play: resumes,
    },
    Step {
        command: "statuses",
        of: "waiting for a job's end",
        before: "a request waits",
        after: "a request waits",
        end: ONCE,
        play: waits_for_an_end,
    },
    reads("get", "GET /jobs/ID", |stage| looks(stage, "/jobs/ID")),
    reads("job_log", "GET /jobs/ID/log", |stage| looks(stage, "/jobs/ID/log")),
    reads("pull_workers", "GET /workers", |stage| looks(stage, "/workers")),
    reads("llen", "GET /metrics", |stage| looks(stage, "/metrics")),
    reads("list", "GET /jobs", |stage| looks(stage, "/jobs")),
    reads("why", "GET /jobs/ID/why", |stage| looks(stage, "/jobs/ID/why")),
    reads("list_queue", "GET /queues/NAME/jobs", |stage| looks(stage, "/queues/default/jobs")),
    reads("queues", "GET /queues", |stage| looks(stage, "/queues")),
    reads("schedules", "GET /schedules", |stage| looks(stage, "/schedules")),
    reads("schedule_figures", "GET /metrics", |stage| looks(stage, "/metrics")),
    reads("limits_list", "GET /limits", |stage| looks(stage, "/limits")),
    reads("limit_show", "GET /limits/NAME", |stage| {
        let numbers = LimitNumbers { concurrency: Some(1), rate: None, burst: 1 };
        stage.queue.put_limit(&LimitName::parse("narrow").unwrap(), &numbers).unwrap();
        looks(stage, "/limits/narrow");
    }),
    reads("stats", "GET /stats", |stage| looks(stage, "/stats")),
    reads("history", "GET /stats/history", |stage| looks(stage, "/stats/history")),
    reads("workers", "GET /stats/workers", |stage| looks(stage, "/stats/workers")),
    Step {
        command: "report_activity",
        of: "what workers do, while somebody looks",
        before: "nothing is told",
        after: "it is told",
        end: ONCE,
        play: tells_what_workers_do,
    },
    reads("readiness", "GET /readyz", |stage| looks(stage, "/readyz")),
];

fn tells_what_workers_do(stage: &Stage) {
    let server = stage.server();
    let id = stage.submit("note");
    let look = || server.get("/stats/workers");
    stage.at_step(look, || {
        let told: Vec<String> = stage.redis_says("KEYS T:activity:*");
        if told.is_empty() { "nothing is told" } else { "it is told" }.to_owned()
    });
    stage.all_end(&server, &[id]);
}

fn is_away(reply: &Reply) {
    reply.expect_error(503, "store_unavailable", "cut off");
}

fn cancels_one_that_waits(stage: &Stage) {
    let server = stage.server();
    let id = stage.submit_with("note", |job| job.queue = "elsewhere".to_owned());
    let cancel = || server.act(&format!("/jobs/{id}/cancel"));
    is_away(&stage.at_step(cancel, || stage.place(id)));
    stage.until_answered(cancel).expect(stage.repeated(200, 409));
    stage.all_end(&server, &[id]);
}

/// The second request finds the job ready, and changes nothing.
fn runs_now(stage: &Stage) {
    let server = stage.server();
    let id = stage.submit_with("note", |job| {
        job.queue = "elsewhere".to_owned();
        job.start = Start::AfterMs(3_600_000);
    });
    let run = || server.act(&format!("/jobs/{id}/run"));
    is_away(&stage.at_step(run, || stage.place(id)));
    stage.until_answered(run).expect(200);
    server.act(&format!("/jobs/{id}/cancel")).expect(200);
    stage.all_end(&server, &[id]);
}

fn cancels_one_that_runs(stage: &Stage) {
    let server = stage.server();
    let id = stage.submit("slow");
    eventually(LIMIT, "it runs", || stage.fate(id).contains(": 1 runs"));
    let cancel = || server.act(&format!("/jobs/{id}/cancel"));
    let cancels = format!("{{threadq}}:cancels:{}", server.server_id());
    let look = || {
        let told: u64 = stage.redis.query(&["SCARD", &cancels]);
        format!("{}, its server is told of {told} jobs", stage.job(id).unwrap().status)
    };
    is_away(&stage.at_step(cancel, look));
    // The server receives the cancel request with a heartbeat, perhaps before the client repeats its request.
    let reply = stage.until_answered(cancel);
    assert!(reply.status == 202 || stage.repeated(false, reply.status == 409), "{}", reply.text());
    stage.all_end(&server, &[id]);
}

/// A server, and a job that has failed on that server.
fn with_a_dead_letter(stage: &Stage) -> (TestServer, u64) {
    let server = stage.server_with_used_connections();
    let id = stage.submit("bad");
    eventually(LIMIT, "it has failed", || stage.place(id) == "failed in dlq_queue");
    (server, id)
}

/// Asks to retry a dead letter while the connection breaks, and returns the response. The queue is paused, so that the
/// job does not start.
fn is_sent_back(stage: &Stage, ask: impl Fn(&Api, u64) -> Reply + Sync) -> (TestServer, u64, Reply) {
    let (server, id) = with_a_dead_letter(stage);
    // Pause the queue: otherwise a waiting fetcher would claim the job at once.
    stage.queue.set_paused("default", true).unwrap();
    let look = || stage.place(id).split(' ').next().unwrap().to_owned();
    let reply = stage.at_step(|| ask(&server, id), look);
    (server, id, reply)
}

fn goes_on(stage: &Stage, server: &Api, id: u64) {
    stage.queue.set_paused("default", false).unwrap();
    stage.all_end(server, &[id]);
}

/// Retries all dead letters: the first response leaves open whether they were retried; the second request retries
/// `retried_then`.
fn sends_all_back(stage: &Stage, retried_then: u64) {
    let ask = |server: &Api, _: u64| server.post("/dlq/retry", &json!({}));
    let (server, id, reply) = is_sent_back(stage, ask);
    is_away(&reply);
    let again = stage.until_answered(|| ask(&server, id));
    assert_eq!(again.expect(200).json()["retried"], retried_then);
    goes_on(stage, &server, id);
}

/// The dead letters that the body names go back at the first request, though the connection breaks.
fn is_sent_back_at_once(stage: &Stage, body: impl Fn(u64) -> Value + Sync) {
    let ask = |server: &Api, id: u64| server.post("/dlq/retry", &body(id));
    let (server, id, reply) = is_sent_back(stage, ask);
    assert_eq!(reply.expect(200).json()["retried"], 1);
    goes_on(stage, &server, id);
}

fn forgets(stage: &Stage, ask: impl Fn(&Api, u64) -> Reply + Sync, repeated: impl Fn(Reply)) {
    let (server, id) = with_a_dead_letter(stage);
    is_away(&stage.at_step(|| ask(&server, id), || stage.place(id)));
    repeated(stage.until_answered(|| ask(&server, id)));
    stage.ends(&stage.fate(id));
}

fn paused(stage: &Stage) -> String {
    format!("paused: {:?}", stage.redis_says::<Vec<String>>("SMEMBERS T:paused"))
}

fn pauses(stage: &Stage) {
    let server = stage.server_with_used_connections();
    let reply = stage.at_step(|| server.act("/queues/default/pause"), || paused(stage));
    assert_eq!(reply.expect(200).json()["paused"], true);
    assert_eq!(paused(stage), r#"paused: ["default"]"#);
    let id = stage.submit("note");
    holds_for(ms(300), "it does not start", || !stage.place(id).starts_with("processing"));
    stage.until_answered(|| server.act("/queues/default/resume")).expect(200);
    stage.all_end(&server, &[id]);
}

fn resumes(stage: &Stage) {
    let server = stage.server_with_used_connections();
    stage.queue.set_paused("default", true).unwrap();
    let id = stage.submit("note");
    let reply = stage.at_step(|| server.act("/queues/default/resume"), || paused(stage));
    assert_eq!(reply.expect(200).json()["paused"], false);
    assert_eq!(paused(stage), "paused: []");
    stage.all_end(&server, &[id]);
}

fn waits_for_an_end(stage: &Stage) {
    let server = stage.server();
    let id = stage.submit_delayed("note", secs(1));
    let wait = || server.get(&format!("/jobs/{id}?wait=45s"));
    // The first read decides whether the request waits at all.
    let looks = AtomicUsize::new(0);
    let is_later = move |_: &Call| looks.fetch_add(1, Ordering::SeqCst) > 0;
    let reply = stage.at_step_when(is_later, wait, || "a request waits".to_owned());
    // The request has waited until the end of the job.
    assert_eq!(reply.expect(200).json()["status"], "completed");
    stage.all_end(&server, &[id]);
}

fn looks(stage: &Stage, path: &str) {
    let server = stage.server_with_used_connections();
    let id = stage.submit("note");
    eventually(LIMIT, "it ends", || stage.place(id) == "completed in completed");
    let path = path.replace("ID", &id.to_string());
    stage.at_step(|| server.get(&path), || stage.place(id)).expect(200);
    stage.all_end(&server, &[id]);
}
