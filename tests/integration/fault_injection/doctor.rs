//! The doctor, when its connection breaks. Reads are sent again on a fresh connection, and the doctor finishes its
//! work. When the connection breaks at a change, or is the first of the run, the doctor reports the error, and the next
//! run finishes the work.

use std::sync::atomic::{AtomicUsize, Ordering};

use threadq::internals::queue::{ServerFacts, ServerId};

use super::fixture::{Stage, Step};
use super::proxy::Call;
use crate::common::server::{finish, program};
use crate::common::*;

const ONCE: &str = "completed: 1 runs, 1 attempts, 0 crashes";
const STRANDED: &str = "queued in ";
const MENDED: &str = "queued in work_queue:default";

/// A row for a command that changes nothing, while the stranded job is in this place.
const fn looks(command: &'static str, place: &'static str) -> Step {
    let play = |stage: &Stage| {
        let id = damage(stage);
        heals_at_once(stage, id, |_| true, || stage.place(id));
    };
    Step { command, of: "the doctor looks", before: place, after: place, end: ONCE, play }
}

pub const STEPS: &[Step] = &[
    Step {
        command: "info",
        of: "a connection of the doctor looks which Redis this is",
        before: STRANDED,
        after: STRANDED,
        end: ONCE,
        play: |stage| {
            let id = damage(stage);
            heals_at_once(stage, id, |call| !is_question(call), || stage.place(id));
        },
    },
    Step {
        command: "info",
        of: "the doctor asks for the first time",
        before: STRANDED,
        after: STRANDED,
        end: ONCE,
        play: |stage| is_cut_off(stage, is_question),
    },
    Step {
        command: "info",
        of: "the doctor looks at memory and disk",
        before: STRANDED,
        after: STRANDED,
        end: ONCE,
        play: looks_at_redis,
    },
    looks("config get", STRANDED),
    looks("time", STRANDED),
    looks("missing_rights", STRANDED),
    looks("audit_servers", STRANDED),
    looks("scan", STRANDED),
    looks("audit_jobs", STRANDED),
    looks("audit_record", STRANDED),
    looks("audit_list", STRANDED),
    looks("audit_set", STRANDED),
    looks("recheck", STRANDED),
    looks("zcard", MENDED),
    looks("zrevrange", MENDED),
    Step {
        command: "repair",
        of: "the doctor puts back a stranded job",
        before: STRANDED,
        after: MENDED,
        end: ONCE,
        play: |stage| is_cut_off(stage, |call| call.words.iter().any(|word| word == b"stranded")),
    },
    Step {
        command: "repair",
        of: "the doctor sets a record aside that cannot be read",
        before: "0 set aside",
        after: "1 set aside",
        end: ONCE,
        play: sets_aside,
    },
    Step {
        command: "reclaim",
        of: "the doctor takes over a list of an unknown server",
        before: "queued in in_progress_queue",
        after: MENDED,
        end: ONCE,
        play: takes_over,
    },
    Step {
        command: "hget",
        of: "the doctor watches a silent server",
        before: "queued in in_progress_queue",
        after: "queued in in_progress_queue",
        end: ONCE,
        play: watches,
    },
];

fn doctor(stage: &Stage) -> Finished {
    let dir = TempDir::new();
    let mut command = program(&dir);
    command.args(["doctor", "--repair", "--lease-timeout", "1s", "--redis-url", &stage.redis_url()]);
    finish(command)
}

/// Asserts that the doctor reports the cut, that the next run finishes its work, and that the job runs.
fn heals(
    stage: &Stage,
    id: u64,
    matches: impl Fn(&Call) -> bool + Send + 'static,
    look: impl FnOnce() -> String,
) {
    let cut_off = stage.at_step_when(matches, || doctor(stage), look);
    assert_eq!(cut_off.code, Some(1), "{cut_off:?}");
    assert!(cut_off.stderr.starts_with("threadq: redis-url: Redis is unavailable"), "{cut_off:?}");
    assert_eq!(cut_off.stderr.lines().last().map(|line| line.starts_with("threadq: ")), Some(true));
    let done = doctor(stage);
    assert_eq!(done.code, Some(0), "{done:?}");
    stage.assert_sound();
    let server = stage.server();
    stage.all_end(&server, &[id]);
}

/// Asserts that the doctor succeeds despite the cut, that the next run has nothing to repair, and that the job runs.
fn heals_at_once(
    stage: &Stage,
    id: u64,
    matches: impl Fn(&Call) -> bool + Send + 'static,
    look: impl FnOnce() -> String,
) {
    let healed = stage.at_step_when(matches, || doctor(stage), look);
    assert_eq!((healed.code, healed.stderr.as_str()), (Some(0), ""), "{healed:?}");
    assert!(healed.stdout.contains("  repaired: "), "{healed:?}");
    stage.assert_sound();
    let next = doctor(stage);
    assert_eq!(next.code, Some(0), "{next:?}");
    assert!(!next.stdout.contains("  repaired: "), "{next:?}");
    let server = stage.server();
    stage.all_end(&server, &[id]);
}

/// Makes a stranded job, and damage for each of the doctor's scripts.
fn damage(stage: &Stage) -> u64 {
    let id = stage.submit("note");
    let _: u64 = stage.redis_says("DEL T:work_queue:default");
    let broken = stage.submit("note");
    let _: u64 = stage.redis_says(&format!("HSET T:job:{broken} payload {{"));
    let _: u64 = stage.redis_says("RPUSH T:work_queue:default 11");
    let _: u64 = stage.redis_says("ZADD T:dlq_queue 5 13");
    id
}

/// Whether this INFO is the doctor's own: that of a new connection names sections.
fn is_question(call: &Call) -> bool {
    call.words.len() == 1
}

fn is_cut_off(stage: &Stage, matches: impl Fn(&Call) -> bool + Send + 'static) {
    let id = damage(stage);
    heals(stage, id, matches, || stage.place(id));
}

fn looks_at_redis(stage: &Stage) {
    let id = damage(stage);
    // The first read is on a connection that has carried no command yet.
    let looks = AtomicUsize::new(0);
    let is_later = move |call: &Call| is_question(call) && looks.fetch_add(1, Ordering::SeqCst) > 0;
    heals_at_once(stage, id, is_later, || stage.place(id));
}

fn sets_aside(stage: &Stage) {
    let id = damage(stage);
    let is_it = |call: &Call| call.words.iter().any(|word| word == b"unreadable");
    heals(stage, id, is_it, || format!("{} set aside", stage.redis.keys("{threadq}:set_aside:*").len()));
}

fn moved_into_the_list_of(stage: &Stage, server: &str) -> u64 {
    let id = stage.submit("note");
    let list = format!("{{threadq}}:in_progress_queue:{server}");
    let _: String = stage.redis.query(&["RPOPLPUSH", "{threadq}:work_queue:default", &list]);
    id
}

fn takes_over(stage: &Stage) {
    let id = moved_into_the_list_of(stage, "ghost");
    heals(stage, id, |_| true, || stage.place(id));
}

fn watches(stage: &Stage) {
    let silent = ServerId::generate();
    stage.queue.register(&silent, &ServerFacts::new(1, &[])).unwrap();
    let id = moved_into_the_list_of(stage, silent.as_str());
    // Its last heartbeat was long ago.
    let _: u64 = stage.redis_says(&format!("HSET T:server:{silent} beat_at 1"));
    heals_at_once(stage, id, |_| true, || stage.place(id));
}
