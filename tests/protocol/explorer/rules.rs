//! The rules that must hold after every step, written a second time and without Lua: what a step may change, and what a
//! state must be like. A violation is a sentence.

use std::collections::{BTreeMap, BTreeSet};

use threadq::internals::queue::Settled;
use threadq::job::Status;

use super::step::What;
use super::view::{HELD, JobView, PULL, SUSPECTS, View, WORK, in_progress};

/// The result of a step, whether or not its caller got the reply.
#[derive(Debug)]
pub enum Effect {
    /// No effect on jobs.
    Nothing,
    Entered(String),
    Submitted {
        id: String,
        delayed: bool,
    },
    /// A take or a heartbeat was refused.
    Refused(String),
    Taken {
        server: String,
        started: Vec<(String, u64)>,
    },
    Settled {
        server: String,
        id: String,
        token: u64,
        /// `None` if the next attempt begins on the same thread.
        what: Option<What>,
        /// Whether it was sent before without a reply.
        again: bool,
        answer: Settled,
    },
    TakenOver {
        dead: String,
        observed: String,
        /// Whether the server sent a heartbeat after the observation.
        beaten: bool,
        done: bool,
    },
    Left(String),
    Recovered {
        server: String,
        entries: Vec<String>,
    },
    Promoted(String),
    Cancelled(String),
    SentBack(String),
    /// The lease of a pulled job was over.
    LeaseEnded(String),
    /// An attempt has reported, and was accepted or not.
    Reported {
        id: String,
        token: u64,
        accepted: bool,
    },
}

/// The limits of an exploration.
#[derive(Clone, Copy)]
pub struct Limits {
    pub max_attempts: u32,
    pub max_crashes: u32,
    /// The number of entries that one step of a reclaim handles.
    pub step: usize,
    /// The room of the limit of all jobs.
    pub room: Option<u32>,
}

type Rule = Result<(), String>;

fn rule(holds: bool, broken: impl FnOnce() -> String) -> Rule {
    if holds { Ok(()) } else { Err(broken()) }
}

/// Checks that a step has changed exactly what it should change.
pub fn check_change(before: &View, after: &View, effect: &Effect, limits: Limits) -> Rule {
    let expected = expected(before, effect, limits)?;
    for id in expected.keys().chain(after.jobs.keys()) {
        let (expected, found) = (expected.get(id), after.jobs.get(id));
        rule(expected == found, || format!("job {id} should be {expected:?}\n    and is {found:?}"))?;
    }
    check_registry(before, after, effect)
}

fn expected(before: &View, effect: &Effect, limits: Limits) -> Result<BTreeMap<String, JobView>, String> {
    let mut jobs = before.jobs.clone();
    match effect {
        Effect::Nothing | Effect::Entered(_) => {}
        Effect::Submitted { id, delayed } => {
            // A submission that is repeated after a lost reply changes nothing.
            jobs.entry(id.clone()).or_insert(JobView {
                status: if *delayed { Status::Scheduled } else { Status::Queued },
                server: None,
                starts: 0,
                attempts: 0,
                crashes: 0,
                cancel: false,
            });
        }
        Effect::Refused(server) => {
            rule(!before.is_alive(server), || format!("{server} is alive and was refused"))?;
        }
        Effect::Taken { server, started } => {
            rule(before.is_alive(server), || format!("{server} was declared dead and took jobs"))?;
            for (id, token) in started {
                let job = jobs.get_mut(id).ok_or("a job that is not there was started")?;
                rule(job.status == Status::Queued, || format!("job {id} was started and is {job:?}"))?;
                (job.status, job.server) = (Status::Processing, Some(server.clone()));
                job.starts += 1;
                rule(job.starts == *token, || format!("job {id} was started with token {token}: {job:?}"))?;
            }
        }
        Effect::Settled { server, id, token, what, again, answer } => {
            let job = jobs.get_mut(id).ok_or("a job that is not there was settled")?;
            if job.server.as_ref() == Some(server) && job.starts == *token {
                settle(job, *what, limits);
                let expected = Settled::Now(job.status);
                rule(*answer == expected, || format!("the answer is {answer:?}, not {expected:?}"))?;
            } else {
                let harmless = *answer == Settled::Stale || (*answer == Settled::Repeated && *again);
                rule(harmless, || format!("the answer to who does not own the attempt is {answer:?}"))?;
            }
        }
        Effect::TakenOver { dead, observed, beaten, done } => {
            let is_as_observed = before.beats.get(dead) == Some(observed);
            rule(*done == is_as_observed, || format!("{dead} taken over: {done}, observed: {observed}"))?;
            if *done {
                rule(!beaten, || format!("{dead} beat and was declared dead"))?;
                take_over(&mut jobs, before, dead, limits);
            }
        }
        Effect::Left(server) => {
            before.running(server).for_each(|id| put_back(jobs.get_mut(id), false));
        }
        Effect::Recovered { server, entries } => {
            let running =
                entries.iter().filter(|id| before.is_alive(server) && before.is_running(id, server));
            running.for_each(|id| put_back(jobs.get_mut(id), false));
        }
        Effect::Promoted(id) => {
            jobs.get_mut(id).ok_or("a job that is not there was promoted")?.status = Status::Queued;
        }
        Effect::LeaseEnded(id) => {
            let job = jobs.get_mut(id).ok_or("the lease of a job that is not there has ended")?;
            rule(job.server.as_deref() == Some(PULL), || format!("job {id} has no lease: {job:?}"))?;
            let fails =
                !job.cancel && (limits.max_crashes == 1 || is_last_chance(job.crashes, limits.max_crashes));
            put_back(Some(job), true);
            if fails {
                job.status = Status::Failed;
            }
        }
        Effect::Reported { id, token, accepted } => {
            let is_own = jobs.get(id).is_some_and(|job| job.server.is_some() && job.starts == *token);
            rule(is_own == *accepted, || {
                format!("a report of token {token} on {id} was accepted: {accepted}")
            })?;
        }
        Effect::Cancelled(id) => {
            let job = jobs.get_mut(id).ok_or("a job that is not there was cancelled")?;
            if job.status == Status::Processing {
                job.cancel = true;
            } else if !job.status.is_final() {
                job.status = Status::Cancelled;
            }
        }
        Effect::SentBack(id) => {
            let job = jobs.get_mut(id).ok_or("a job that is not there was sent back")?;
            if matches!(job.status, Status::Failed | Status::Cancelled) {
                *job = JobView { status: Status::Queued, attempts: 0, crashes: 0, ..job.clone() };
            }
        }
    }
    Ok(jobs)
}

fn settle(job: &mut JobView, what: Option<What>, limits: Limits) {
    if what != Some(What::Release) {
        job.attempts += 1;
    }
    let is_last = job.attempts >= limits.max_attempts;
    job.status = match what {
        Some(What::Complete) => Status::Completed,
        _ if job.cancel => Status::Cancelled,
        Some(What::Release) => Status::Queued,
        Some(What::Fail) => Status::Failed,
        _ if is_last => Status::Failed,
        Some(What::Retry) => Status::Retrying,
        None => Status::Processing,
    };
    if job.status == Status::Processing {
        job.starts += 1;
    } else {
        (job.server, job.cancel) = (None, false);
    }
}

/// Puts a job back into its queue, or cancels it if a client asked for that.
fn put_back(job: Option<&mut JobView>, charged: bool) {
    if let Some(job) = job {
        job.status = if job.cancel { Status::Cancelled } else { Status::Queued };
        job.crashes += u32::from(charged && !job.cancel);
        (job.server, job.cancel) = (None, false);
    }
}

fn take_over(jobs: &mut BTreeMap<String, JobView>, before: &View, dead: &str, limits: Limits) {
    // Only a job on its final attempt that ran alone fails. The state at the server's declaration as dead counts.
    let alone = match before.beats[dead].strip_prefix('D') {
        Some(died) => died.split_once(':').map(|(_, id)| id.to_owned()),
        None => {
            let running: BTreeSet<&str> = before.running(dead).collect();
            let last_chance = |id: &&&str| is_last_chance(before.jobs[**id].crashes, limits.max_crashes);
            running.iter().find(|_| running.len() == 1).filter(last_chance).map(|id| (*id).to_owned())
        }
    };
    for id in before.list(&in_progress(dead)).iter().take(limits.step) {
        if before.is_running(id, dead) {
            put_back(jobs.get_mut(id), true);
            let fails = limits.max_crashes == 1 || alone.as_ref() == Some(id);
            jobs.get_mut(id)
                .filter(|job| fails && job.status == Status::Queued)
                .into_iter()
                .for_each(|job| job.status = Status::Failed);
        }
    }
}

/// Whether a job's next crash is its last one.
pub fn is_last_chance(crashes: u32, max_crashes: u32) -> bool {
    crashes > 0 && crashes + 1 >= max_crashes
}

/// A server that was declared dead stays dead, and only a reclaim or a leave declares a server dead.
fn check_registry(before: &View, after: &View, effect: &Effect) -> Rule {
    let ended = match effect {
        Effect::TakenOver { dead: server, done: true, .. } | Effect::Left(server) => Some(server),
        _ => None,
    };
    for (server, beat) in &before.beats {
        let now = after.beats.get(server);
        if beat.starts_with('D') {
            rule(now == Some(beat), || format!("{server} was dead ({beat}) and is {now:?}"))?;
        } else {
            let died = now.is_none_or(|now| now.starts_with('D'));
            rule(died == (ended == Some(server)), || format!("{server} is {now:?} after {effect:?}"))?;
        }
    }
    let is_new = |server: &&String| *server != PULL && !before.beats.contains_key(*server);
    let new: Vec<_> = after.beats.keys().filter(is_new).collect();
    let entered = match effect {
        Effect::Entered(server) => vec![server],
        _ => vec![],
    };
    rule(new == entered, || format!("entered: {new:?}"))
}

/// Every job is in exactly one list or set, the right one, and in the right indexes; these have no other entry.
///
/// `strays`: a job that was cancelled after a fetcher had claimed it may have left an entry, which the next take drops.
pub fn check_state(view: &View, strays: bool, limits: Limits) -> Rule {
    let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let lists = view.lists.iter().flat_map(|(key, ids)| ids.iter().map(move |id| (key, id)));
    let sets = view.sorted.iter().filter(|(key, _)| !is_index(key));
    for (key, id) in lists.chain(sets.flat_map(|(key, ids)| ids.iter().map(move |id| (key, id)))) {
        rule(view.jobs.contains_key(id), || format!("{key} holds {id}, which is no job"))?;
        places.entry(id).or_default().push(key);
    }
    for (id, job) in &view.jobs {
        let found = places.get(id.as_str()).map_or(&[][..], Vec::as_slice);
        let right = found.iter().filter(|place| belongs(job, place, limits)).count();
        let fits = if strays { right >= 1 } else { right == 1 && found.len() == 1 };
        rule(fits, || format!("job {id} is in {found:?}: {job:?}"))?;
    }
    check_indexes(view)?;
    check_cancels(view)?;
    check_leases(view)?;
    limits.room.map_or(Ok(()), |room| check_room(view, room))
}

/// No more jobs run than a limit allows. Each running job has a slot, and besides them only jobs that were sent on.
fn check_room(view: &View, room: u32) -> Rule {
    let running: BTreeSet<&String> =
        view.jobs.iter().filter(|(_, job)| job.status == Status::Processing).map(|(id, _)| id).collect();
    rule(running.len() <= room as usize, || {
        format!("{} jobs run, and there is room for {room}", running.len())
    })?;
    let (holders, sent): (BTreeMap<_, _>, BTreeMap<_, _>) =
        view.slots.iter().partition(|(_, score)| score.is_infinite());
    let holders: BTreeSet<&String> = holders.into_keys().collect();
    rule(holders == running, || format!("{running:?} run and {holders:?} have a slot"))?;
    let held = view.sorted.get(HELD).map_or(0, BTreeSet::len);
    for id in sent.keys() {
        let waits = view.jobs.get(*id).is_some_and(|job| job.status == Status::Queued);
        let is_held = view.sorted.get(HELD).is_some_and(|held| held.contains(*id));
        rule(waits && !is_held, || format!("{id} keeps a place, and is {:?}", view.jobs.get(*id)))?;
    }
    let expected = (held + sent.len() > 0).then_some(sent.len() as f64);
    rule(view.sent == expected, || format!("{expected:?} were sent on, and {:?} are counted", view.sent))?;
    rule(view.held_count == held, || format!("{held} wait, and {} are counted", view.held_count))?;
    rule(view.has_limit_word == expected.is_some(), || "the limit is not looked at in time".to_owned())?;
    let kept = view.kept().count() + running.len();
    let is_stuck = held > 0 && sent.is_empty() && kept < room as usize;
    rule(!is_stuck, || format!("{held} wait, and there is room"))
}

fn belongs(job: &JobView, place: &str, limits: Limits) -> bool {
    match job.status {
        Status::Queued if place == WORK || place == HELD => true,
        Status::Queued if place == SUSPECTS => is_last_chance(job.crashes, limits.max_crashes),
        // Claimed by a fetcher.
        Status::Queued => place.starts_with("in_progress_queue:"),
        Status::Processing => place == in_progress(job.server.as_deref().unwrap_or("?")),
        Status::Scheduled | Status::Retrying => place == "scheduled",
        Status::Completed => place == "completed",
        Status::Cancelled => place == "done",
        Status::Failed => place == "dlq_queue",
    }
}

fn is_index(key: &str) -> bool {
    key.starts_with("index:") || key.starts_with("type_index:")
}

fn check_indexes(view: &View) -> Rule {
    let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (id, job) in &view.jobs {
        let word = match job.status {
            Status::Queued | Status::Processing => "ready",
            other => other.as_str(),
        };
        expected.entry(format!("type_index:{word}:t")).or_default().insert(id.clone());
    }
    let found: BTreeMap<_, _> = view
        .sorted
        .iter()
        .filter(|(key, _)| is_index(key))
        .map(|(key, ids)| (key.clone(), ids.clone()))
        .collect();
    rule(found == expected, || format!("the indexes are {found:?}"))
}

/// The agenda has a word for the lease of each job that pull workers have, and for no other job.
fn check_leases(view: &View) -> Rule {
    let pulled: BTreeSet<&String> =
        view.jobs.iter().filter(|(_, job)| job.server.as_deref() == Some(PULL)).map(|(id, _)| id).collect();
    let watched: BTreeSet<&String> = view.leases.iter().collect();
    rule(pulled == watched, || {
        format!("pull workers have {pulled:?}, and the leases of {watched:?} are watched")
    })
}

/// A job with a cancel request runs, and its server has the request; no server has a request for another job.
fn check_cancels(view: &View) -> Rule {
    for (id, job) in &view.jobs {
        let told = view.cancels.iter().filter(|(server, ids)| ids.contains(id) && view.is_alive(server));
        let told: Vec<&String> = told.map(|(server, _)| server).collect();
        let owner = job.server.as_ref().filter(|server| job.cancel && view.is_alive(server));
        rule(told == Vec::from_iter(owner), || format!("{told:?} should stop job {id}: {job:?}"))?;
    }
    Ok(())
}
