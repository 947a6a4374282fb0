//! Every step of the protocol, interrupted. Between a real server and its Redis the connection breaks before every
//! command, after it, and in the middle of its reply. For each of these points a table says what is in Redis then and
//! how the job ends. The doctor finds nothing wrong at that point and at the end, and no job is lost or runs too often.
//!
//! `THREADQ_CUTS=settle` runs only the rows that contain `settle`.

mod client_calls;
mod doctor;
mod fixture;
mod jobs;
mod limits;
mod proxy;
mod pull;
mod schedules;
mod servers;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::thread;

use threadq::internals::queue::SCRIPT_NAMES;

use fixture::{Stage, Step};
use proxy::Cut;

/// The number of plays that run at a time. Plays mostly wait.
const AT_A_TIME: usize = 12;
/// The number of plays of a row on a machine that is too slow.
const TRIES: usize = 6;

fn table() -> impl Iterator<Item = &'static Step> {
    // The longest plays first.
    [
        doctor::STEPS,
        servers::STEPS,
        jobs::STEPS,
        limits::STEPS,
        pull::STEPS,
        schedules::STEPS,
        client_calls::STEPS,
    ]
    .into_iter()
    .flatten()
}

fn name(step: &Step, cut: Cut) -> String {
    format!("{} ({}) cut {cut:?}", step.command, step.of)
}

#[test]
fn a_cut_at_any_command_loses_nothing_and_leaves_nothing_behind() {
    let only = std::env::var("THREADQ_CUTS").unwrap_or_default();
    let mut plays: Vec<(&Step, Cut)> = table().flat_map(|step| Cut::ALL.map(|cut| (step, cut))).collect();
    plays.retain(|(step, cut)| name(step, *cut).contains(&only));
    plays.reverse();
    let plays = Mutex::new(plays);
    let failed = Mutex::new(Vec::new());
    let played = || {
        while let Some((step, cut)) = { plays.lock().unwrap().pop() } {
            let begin = crate::common::Instant::now();
            let thread = thread::Builder::new().name(name(step, cut));
            let play = thread.spawn(move || play(step, cut));
            let is_good = play.unwrap().join().is_ok();
            println!("{:>5.1} s  {}", begin.elapsed().as_secs_f64(), name(step, cut));
            if !is_good {
                failed.lock().unwrap().push(name(step, cut));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(played);
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Plays a row, and repeats the play if the machine was too slow. Panics if the row is wrong.
fn play(step: &'static Step, cut: Cut) {
    assert!((1..=TRIES).any(|this| is_played(step, cut, this == TRIES)));
}

/// Plays a row once. Panics if the row is wrong. Returns false if the play failed because a reply took longer than the
/// time limit of the program: the row does not describe that case.
fn is_played(step: &'static Step, cut: Cut, is_last: bool) -> bool {
    let stage = Stage::new(step, cut);
    let played = catch_unwind(AssertUnwindSafe(|| {
        (step.play)(&stage);
        assert_known(&stage);
    }));
    match played {
        Err(panic) if !is_last && stage.was_too_slow(&*panic) => false,
        Err(panic) => resume_unwind(panic),
        Ok(()) => true,
    }
}

/// Asserts that every command that was sent to Redis has a row.
fn assert_known(stage: &Stage) {
    let known: BTreeSet<&str> = table().map(|step| step.command).collect();
    let unknown: Vec<String> =
        stage.proxy.seen().into_iter().filter(|name| !known.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "there are no rows for {unknown:?}");
}

/// The names of the queue's scripts, and the commands that the queue sends itself.
fn commands_in_the_sources() -> BTreeSet<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/queue");
    let mut found: BTreeSet<String> = SCRIPT_NAMES.iter().map(|name| (*name).to_owned()).collect();
    for file in rust_files(folder.as_ref()) {
        let text = std::fs::read_to_string(file).unwrap();
        let calls = text.split("cmd(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_lowercase());
        found.extend(calls);
    }
    found
}

fn rust_files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let mut files: Vec<_> =
        files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs")).collect();
    files.extend(folders.iter().flat_map(|folder| rust_files(folder)));
    files
}

/// Commands for Sentinels, and the one that waits for replicas: tests/scale and redis_faults/replicas.rs have their faults.
const ELSEWHERE: &[&str] = &["sentinel", "subscribe", "wait"];

#[test]
fn every_command_has_a_row() {
    // CLIENT and CONFIG are named by their first word.
    let known: BTreeSet<&str> = table().map(|step| step.command.split(' ').next().unwrap()).collect();
    let in_sources = commands_in_the_sources();
    let missing: Vec<_> = in_sources
        .iter()
        .filter(|name| !known.contains(name.as_str()) && !ELSEWHERE.contains(&name.as_str()))
        .collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
    // Commands that the client library sends.
    let gone: Vec<_> = known
        .iter()
        .chain(ELSEWHERE)
        .filter(|name| !in_sources.contains(**name) && **name != "script")
        .collect();
    assert!(gone.is_empty(), "rows for commands that are not there: {gone:?}");
}

#[test]
fn a_row_that_is_wrong_is_noticed() {
    const WRONG: Step = Step { after: "completed in dlq_queue", ..jobs::STEPS[0] };
    let played = |step: &'static Step| catch_unwind(|| play(step, Cut::After));
    assert!(played(&jobs::STEPS[0]).is_ok());
    assert!(played(&WRONG).is_err());
}
