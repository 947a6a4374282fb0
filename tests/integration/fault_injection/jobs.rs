//! The life of a job: submitted, fetched, started, settled, scheduled, removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::fixture::{Stage, Step};
use super::proxy::{Call, Cut};
use crate::common::*;

const ONCE: &str = "completed: 1 runs, 1 attempts, 0 crashes";
const TWICE: &str = "completed: 2 runs, 2 attempts, 0 crashes";
/// A job whose claim was lost runs again within the lease (1 s) and 10 s, and 5 s more on a busy machine.
const RUNS_AGAIN_WITHIN: Duration = Duration::from_secs(1 + 10 + 5);

pub const STEPS: &[Step] = &[
    Step {
        command: "settle",
        of: "processing -> completed",
        before: "processing in in_progress_queue",
        after: "completed in completed",
        end: ONCE,
        play: |stage| settles(stage, "note", b"complete", "completed"),
    },
    Step {
        command: "settle",
        of: "processing -> failed",
        before: "processing in in_progress_queue",
        after: "failed in dlq_queue",
        end: "failed: 1 runs, 1 attempts, 0 crashes",
        play: |stage| settles(stage, "bad", b"fail", "failed"),
    },
    Step {
        command: "settle",
        of: "processing -> retrying",
        before: "processing in in_progress_queue",
        after: "retrying in scheduled",
        end: TWICE,
        play: parks_a_failure,
    },
    Step {
        command: "settle",
        of: "processing -> processing, the backoff is slept by the worker",
        before: "processing in in_progress_queue after 0 attempts",
        after: "processing in in_progress_queue after 1 attempts",
        end: TWICE,
        play: starts_again,
    },
    Step {
        command: "sismember",
        of: "processing -> queued, the queue was paused during the backoff",
        before: "processing in in_progress_queue",
        after: "processing in in_progress_queue",
        end: TWICE,
        play: is_held_back,
    },
    Step {
        command: "settle",
        of: "processing -> queued, at the end of the drain",
        before: "processing in in_progress_queue",
        after: "queued in work_queue:default",
        end: "completed: 2 runs, 1 attempts, 0 crashes",
        play: is_given_back,
    },
    Step {
        command: "settle",
        of: "processing -> cancelled",
        before: "processing in in_progress_queue",
        after: "cancelled in done",
        end: "cancelled: 1 runs, 0 attempts, 0 crashes",
        play: is_stopped,
    },
    Step {
        command: "enqueue",
        of: "none -> queued",
        before: "nothing",
        after: "queued",
        end: ONCE,
        play: |stage| is_submitted_with_a_key(stage, &json!({"type": "note"})),
    },
    Step {
        command: "enqueue",
        of: "none -> scheduled",
        before: "nothing",
        after: "scheduled",
        end: ONCE,
        play: |stage| is_submitted_with_a_key(stage, &json!({"type": "note", "delay_ms": 300})),
    },
    Step {
        command: "enqueue_plain",
        of: "none -> queued, a batch without a key",
        before: "nothing",
        after: "queued",
        end: ONCE,
        play: are_submitted_without_a_key,
    },
    Step {
        command: "evalsha",
        of: "a script that Redis does not know yet",
        before: "nothing",
        after: "nothing",
        end: ONCE,
        // The third argument is the type of the jobs: this call is a submission.
        play: |stage| is_submitted_first(stage, |call| call.arg(2) == b"note"),
    },
    Step {
        command: "script load",
        of: "a script that Redis does not know yet",
        before: "nothing",
        after: "nothing",
        end: ONCE,
        play: |stage| {
            is_submitted_first(stage, |call| {
                String::from_utf8_lossy(&call.words[2]).lines().nth(1) == Some("-- enqueue_plain")
            });
        },
    },
    Step {
        command: "brpoplpush",
        of: "queued, into the hand of a fetcher",
        before: "queued in work_queue:default",
        after: "queued in in_progress_queue",
        end: ONCE,
        play: is_fetched,
    },
    Step {
        command: "start_jobs",
        of: "queued -> processing",
        before: "queued in in_progress_queue",
        after: "processing in in_progress_queue",
        end: ONCE,
        play: is_taken,
    },
    Step {
        command: "due",
        of: "scheduled -> queued",
        before: "scheduled",
        after: "queued",
        end: ONCE,
        play: is_promoted,
    },
    Step {
        command: "delete_old_jobs",
        of: "completed -> gone",
        before: "completed in completed",
        after: "gone",
        end: "gone",
        play: is_forgotten,
    },
    Step {
        command: "prune_names",
        of: "forgetting the name of an empty queue",
        before: "its name is kept",
        after: "its name is forgotten",
        end: ONCE,
        play: forgets_a_name,
    },
    Step {
        command: "add_history",
        of: "figures for the charts",
        before: "no minute is noted",
        after: "a minute is noted",
        end: ONCE,
        play: notes_figures,
    },
];

fn newest(stage: &Stage) -> u64 {
    stage.ids().pop().expect("a job")
}

fn is_verdict(verdict: &'static [u8]) -> impl Fn(&Call) -> bool {
    move |call| call.arg(4) == verdict
}

fn settles(stage: &Stage, kind: &str, verdict: &'static [u8], counted: &str) {
    let server = stage.server();
    let id = stage.at_step_when(is_verdict(verdict), || stage.submit(kind), || sound_place(stage));
    stage.all_end(&server, &[id]);
    let metric = format!("threadq_jobs_{counted}_total{{type=\"{kind}\"}}");
    eventually(LIMIT, "it is counted", || server.metric(&metric) > 0.0);
    assert_eq!(server.metric(&metric), 1.0);
}

/// Asserts that the data is sound. Returns the place of the newest job.
fn sound_place(stage: &Stage) -> String {
    stage.assert_sound();
    stage.place(newest(stage))
}

fn parks_a_failure(stage: &Stage) {
    let server = stage.builder().flag("inline-backoff", "0ms").start();
    stage.is_at_rest(&server);
    let id = stage.at_step_when(is_verdict(b"retry"), || stage.submit("again"), || sound_place(stage));
    is_in_time(|| stage.fate(id).contains(": 2 runs"));
    stage.all_end(&server, &[id]);
}

fn starts_again(stage: &Stage) {
    let server = stage.server();
    let look = || {
        let attempts = stage.job(newest(stage)).unwrap().attempts;
        format!("{} after {attempts} attempts", sound_place(stage))
    };
    let id = stage.at_step_when(is_verdict(b"retry_inline"), || stage.submit("again"), look);
    stage.all_end(&server, &[id]);
}

fn is_held_back(stage: &Stage) {
    let server = stage.server_with_used_connections();
    // A reply that was cut off does not know of the pause: the worker must ask again.
    let look = || {
        let place = sound_place(stage);
        stage.queue.set_paused("default", true).unwrap();
        place
    };
    let id = stage.at_step_when(|_| true, || stage.submit("again"), look);
    eventually(LIMIT, "it went back", || stage.place(id) == "queued in work_queue:default");
    holds_for(ms(300), "it does not start", || stage.fate(id) == "queued: 1 runs, 1 attempts, 0 crashes");
    stage.queue.set_paused("default", false).unwrap();
    stage.all_end(&server, &[id]);
}

fn is_given_back(stage: &Stage) {
    let mut server = stage.builder().flag("drain-timeout", "100ms").start();
    let id = stage.submit("slow");
    eventually(LIMIT, "it runs", || stage.fate(id).contains(": 1 runs"));
    let code = stage.at_step_when(is_verdict(b"release"), || server.stop(LIMIT), || sound_place(stage));
    assert_eq!(code, Some(0), "{}", server.log_tail());
    let next = stage.server();
    stage.all_end(&next, &[id]);
}

fn is_stopped(stage: &Stage) {
    let server = stage.server();
    let id = stage.submit("slow");
    eventually(LIMIT, "it runs", || stage.fate(id).contains(": 1 runs"));
    let cancel = || server.act(&format!("/jobs/{id}/cancel"));
    stage.at_step_when(is_verdict(b"release"), cancel, || sound_place(stage)).expect(202);
    stage.all_end(&server, &[id]);
}

/// Asserts that the thread that parks a job wakes the scheduler, even if the reply was lost: on its own the scheduler
/// looks only every 5 s.
#[track_caller]
fn is_in_time(runs: impl Fn() -> bool) {
    let took = eventually(LIMIT, "the parked job runs", runs);
    assert!(took < secs(3), "{took:?}");
}

/// The statuses of all jobs; a fetcher may have claimed a queued job already. For paused queues: a waiting fetcher
/// claims a job of any other queue at once.
fn statuses(stage: &Stage) -> String {
    let places = stage.places();
    let mut statuses: Vec<&str> = places.split(", ").filter_map(|place| place.split(' ').next()).collect();
    statuses.dedup();
    statuses.join(", ")
}

fn is_submitted_with_a_key(stage: &Stage, body: &Value) {
    let server = stage.server();
    stage.queue.set_paused("default", true).unwrap();
    let submit = || server.post_with("/jobs", &[("Idempotency-Key", "k")], body);
    stage.at_step(submit, || statuses(stage)).expect_error(503, "store_unavailable", "cut off");
    let stored = stage.ids();
    is_in_time(|| stored.iter().all(|id| !stage.place(*id).starts_with("scheduled")));
    let reply = stage.until_answered(submit);
    assert_eq!(reply.status, stage.repeated(202, 200), "{}", reply.text());
    assert_eq!(reply.header("Idempotency-Replayed"), stage.repeated(None, Some("true")));
    let id = reply.json()["job_id"].as_u64().unwrap();
    assert_eq!(stored, stage.repeated(vec![], vec![id]));
    stage.queue.set_paused("default", false).unwrap();
    stage.all_end(&server, &[id]);
}

fn are_submitted_without_a_key(stage: &Stage) {
    let server = stage.server();
    stage.queue.set_paused("default", true).unwrap();
    let body = json!({"jobs": [{"type": "note"}, {"type": "note"}, {"type": "note"}]});
    let submit = || server.post("/jobs/batch", &body);
    stage.at_step(submit, || statuses(stage)).expect_error(503, "store_unavailable", "cut off");
    assert_eq!(stage.ids().len(), stage.repeated(0, 3), "all or none");
    // Without an idempotency key a repeated request is a new submission.
    stage.until_answered(submit).expect(202);
    let ids = stage.ids();
    assert_eq!(ids.len(), stage.repeated(3, 6));
    stage.queue.set_paused("default", false).unwrap();
    stage.all_end(&server, &ids);
}

fn is_submitted_first(stage: &Stage, matches: impl Fn(&Call) -> bool + Send + 'static) {
    let server = stage.server();
    let submit = || server.post("/jobs", &json!({"type": "note"}));
    let reply = stage.at_step_when(matches, submit, || stage.places());
    reply.expect_error(503, "store_unavailable", "cut off");
    assert_eq!(stage.ids(), [0; 0]);
    let id = stage.until_answered(submit).expect(202).json()["job_id"].as_u64().unwrap();
    stage.all_end(&server, &[id]);
}

fn is_fetched(stage: &Stage) {
    let server = stage.server();
    let brings_a_job = |call: &Call| {
        call.answer.is_empty() || call.answer.starts_with(b"$") && !call.answer.starts_with(b"$-1")
    };
    let is_before = stage.cut == Cut::Before;
    // A fetcher that blocks in BRPOPLPUSH already would get a job submitted before its next command.
    let submit = || if is_before { vec![] } else { stage.submit_until_reached("note") };
    stage.at_step_when(brings_a_job, submit, || {
        if is_before {
            stage.submit("note");
        }
        sound_place(stage)
    });
    runs_again(stage, &server);
}

fn is_taken(stage: &Stage) {
    let server = stage.server();
    let has_fetched = |call: &Call| !call.arg(3).is_empty();
    stage.at_step_when(has_fetched, || stage.submit_until_reached("note"), || sound_place(stage));
    runs_again(stage, &server);
}

/// Asserts that the job whose claim was lost runs soon, and once.
fn runs_again(stage: &Stage, server: &TestServer) {
    let ids = stage.ids();
    let took = eventually(LIMIT, "it ends", || stage.job(newest(stage)).unwrap().status.is_final());
    assert!(took <= RUNS_AGAIN_WITHIN, "{took:?}");
    stage.all_end(server, &ids);
}

fn is_promoted(stage: &Stage) {
    let server = stage.server();
    stage.queue.set_paused("default", true).unwrap();
    let parked = stage.question("ZCARD T:scheduled");
    // Cut before: any call while a job is parked. Cut after: the call that has moved the job.
    let matches = move |call: &Call| {
        if call.answer.is_empty() { parked() > 0 } else { !call.answer.starts_with(b"*7\r\n:0") }
    };
    let submit = || server.submit_job(json!({"type": "note", "delay_ms": 300}));
    let id = stage.at_step_when(matches, submit, || {
        stage.assert_sound();
        statuses(stage)
    });
    stage.queue.set_paused("default", false).unwrap();
    stage.all_end(&server, &[id]);
}

fn is_forgotten(stage: &Stage) {
    let server = stage.builder().flag("retain-completed", "2s").start();
    let ended = stage.question("LLEN T:completed");
    let matches = move |call: &Call| {
        if call.answer.is_empty() { call.arg(0) == b"done" && ended() > 0 } else { call.answer != b":0\r\n" }
    };
    let id = std::sync::OnceLock::new();
    let submit = || {
        id.get_or_init(|| stage.submit("note"));
    };
    stage.at_step_when(matches, submit, || {
        stage.assert_sound();
        stage.place(*id.wait())
    });
    let id = *id.wait();
    eventually(LIMIT, "it is forgotten", || stage.job(id).is_none());
    stage.until_answered(|| server.get(&format!("/jobs/{id}"))).expect(404);
    stage.ends(&stage.fate(id));
}

fn forgets_a_name(stage: &Stage) {
    // The shortest retention decides how often the janitor runs: here every second.
    let server = stage.builder().flag("retain-failed", "4s").flag("queues", "default,old").start();
    let is_named = stage.question("SISMEMBER T:queues old");
    let is_entered = Arc::new(AtomicBool::new(false));
    let entered = is_entered.clone();
    let matches = move |call: &Call| match call.answer {
        b"" => is_named() == 1,
        _ => entered.load(Ordering::SeqCst) && is_named() == 0,
    };
    let enter = || {
        let _: u64 = stage.redis_says("SADD T:queues old");
        is_entered.store(true, Ordering::SeqCst);
    };
    stage.at_step_when(matches, enter, || {
        stage.assert_sound();
        let word = if stage.redis_says("SISMEMBER T:queues old") { "kept" } else { "forgotten" };
        format!("its name is {word}")
    });
    eventually(LIMIT, "it is forgotten", || !stage.redis_says::<bool>("SISMEMBER T:queues old"));
    let submit = || server.post("/jobs", &json!({"type": "note", "queue": "old"}));
    let id = stage.until_answered(submit).expect(202).json()["job_id"].as_u64().unwrap();
    stage.all_end(&server, &[id]);
}

fn notes_figures(stage: &Stage) {
    let server = stage.server();
    let submit = || server.post("/jobs", &json!({"type": "note"}));
    let reply = stage.at_step(submit, || {
        let noted: Vec<String> = stage.redis_says("KEYS T:history:*");
        format!("{} minute is noted", if noted.is_empty() { "no" } else { "a" })
    });
    let id = reply.expect(202).json()["job_id"].as_u64().unwrap();
    stage.all_end(&server, &[id]);
}
