//! Schedules: how they are stored, and how a tick is claimed once.

use std::time::Duration;

use threadq::internals::queue::{
    Defined, Fired, Ran, ScheduleChange, ScheduleDefinition, ServerFacts, ServerId, Source, Tick,
    TickOutcome, TickOverlap,
};
use threadq::job::limit::LimitName;
use threadq::job::{CancelReason, Extras, Hold, JobId, NewJob, ScheduleTick, Status, UniqueMode};

use crate::fixture::{Place, completed, ids, released};
use crate::invariants::assert_sound;

fn definition(source: Source, spec: &str) -> ScheduleDefinition {
    let schedule = Some(ScheduleTick { name: "s".to_owned(), tick_ms: 0 });
    let extras = Extras { schedule, tags: vec!["x".to_owned()], ..Extras::default() };
    ScheduleDefinition {
        name: "s".to_owned(),
        source,
        spec: spec.to_owned(),
        body: "{}".to_owned(),
        job: NewJob { extras: Some(Box::new(extras)), ..NewJob::new("t") },
        overlap: TickOverlap::Skip,
        server: String::new(),
    }
}

/// Stores a schedule whose first tick is `next`, and due 5 ms later.
fn put(place: &Place, definition: &ScheduleDefinition, next: u64) -> Defined {
    place.queue.define_schedule(definition, |_| Some((next, next + 5))).unwrap()
}

fn define(place: &Place, source: Source, spec: &str, next: u64) -> Defined {
    put(place, &definition(source, spec), next)
}

fn ticks(fired: Fired) -> Vec<Tick> {
    match fired {
        Fired::Ticks(ticks) => ticks,
        other => panic!("{other:?}"),
    }
}

fn next(place: &Place) -> Option<u64> {
    place.queue.schedule("s").unwrap().unwrap().next
}

fn agenda(place: &Place) -> Vec<String> {
    place.redis("ZRANGE", "agenda", &["0", "-1", "WITHSCORES"])
}

#[test]
fn a_due_tick_is_handed_out_and_fired_once() {
    let place = Place::new();
    let a = place.server();
    assert_eq!(define(&place, Source::Api, "1", 1000), Defined::Created);
    assert_eq!(agenda(&place), ["tick:s", "1005"]);
    let step = place.queue.work_off_due(3).unwrap();
    assert_eq!(step.ticks, ["s"]);
    assert!(step.next.unwrap() > Duration::from_secs(1), "{step:?}");
    assert_eq!(place.queue.work_off_due(3).unwrap().ticks, [""; 0]);
    let later = step.now_ms + 60_000;
    let fired = ticks(place.queue.fire("s", 1000, Some(later), Some(later + 7), &[1000], 0).unwrap());
    assert_eq!((fired[0].at_ms, fired[0].outcome, fired[0].count), (1000, TickOutcome::Started, 1));
    let id = fired[0].job.unwrap();
    // Another server, or the same call again after a lost reply.
    assert_eq!(place.queue.fire("s", 1000, Some(later), Some(later), &[1000], 0).unwrap(), Fired::Changed);
    assert_eq!(agenda(&place), ["tick:s".to_owned(), (later + 7).to_string()]);
    let (lease, job) = place.take(&a, 2).remove(0);
    assert_eq!((job.id, job.schedule.unwrap().tick_ms), (id, 1000));
    assert_eq!((job.tags, job.unique_key), (vec!["x".to_owned()], Some("threadq.schedule/s".to_owned())));
    place.settle(&a, &completed(lease));
    let record = place.queue.schedule("s").unwrap().unwrap();
    assert_eq!(record.succeeded_at, place.job(id).finished_at_ms);
    assert_eq!((record.ticks[0].job, record.next), (Some(id), Some(later)));
    assert_sound(&place);
}

#[test]
fn a_tick_is_skipped_while_the_job_of_an_earlier_one_lives() {
    let place = Place::new();
    let a = place.server();
    define(&place, Source::Api, "1", 1000);
    let fired = ticks(place.queue.fire("s", 1000, Some(3000), Some(3000), &[1000, 2000], 0).unwrap());
    let outcomes: Vec<TickOutcome> = fired.iter().map(|tick| tick.outcome).collect();
    assert_eq!(outcomes, [TickOutcome::Started, TickOutcome::SkippedOverlap]);
    let id = fired[0].job.unwrap();
    assert_eq!(place.queue.run_schedule("s", false).unwrap(), Ran::Overlap(id));
    let Ran::Started(forced) = place.queue.run_schedule("s", true).unwrap() else { panic!("not started") };
    let taken = place.take(&a, 5);
    assert_eq!(ids(&taken), [id, forced]);
    for (lease, _) in taken {
        place.settle(&a, &completed(lease));
    }
    assert!(matches!(place.queue.run_schedule("s", false).unwrap(), Ran::Started(_)));
    assert_eq!(next(&place), Some(3000));
    assert_sound(&place);
}

#[test]
fn a_schedule_that_allows_overlap_starts_each_tick() {
    let place = Place::new();
    let definition = ScheduleDefinition { overlap: TickOverlap::Allow, ..definition(Source::Api, "1") };
    put(&place, &definition, 1);
    let fired = ticks(place.queue.fire("s", 1, None, None, &[1, 2], 0).unwrap());
    assert!(fired.iter().all(|tick| tick.outcome == TickOutcome::Started));
    assert_eq!(place.list("work_queue:default").len(), 2);
    // There is no further tick.
    assert_eq!((next(&place), agenda(&place).len()), (None, 0));
    assert_sound(&place);
}

/// A schedule whose jobs never run at the same time.
fn one_at_a_time(overlap: TickOverlap) -> ScheduleDefinition {
    let mut definition = ScheduleDefinition { overlap, ..definition(Source::Api, "1") };
    let extras = definition.job.extras.as_mut().unwrap();
    extras.limits = vec![LimitName::of_schedule("s")];
    extras.unique = UniqueMode { hold: Hold::UntilStart, ..UniqueMode::default() };
    definition
}

#[test]
fn a_schedule_that_waits_has_one_running_and_one_waiting_job() {
    let place = Place::new();
    let a = place.server();
    put(&place, &one_at_a_time(TickOverlap::Skip), 1);
    let fired = ticks(place.queue.fire("s", 1, Some(2), Some(2), &[1], 0).unwrap());
    let running = place.take_one(&a);
    assert_eq!(Some(running.id()), fired[0].job);
    let fired = ticks(place.queue.fire("s", 2, None, None, &[2, 3], 0).unwrap());
    assert_eq!(fired[1].outcome, TickOutcome::SkippedOverlap);
    assert!(place.take(&a, 5).is_empty(), "the second job waits for the end of the first one");
    let waiting = fired[0].job.unwrap();
    assert!(place.job(waiting).blocked.unwrap().is_held);
    place.settle(&a, &completed(running));
    let second = place.take_one(&a);
    assert_eq!(second.id(), waiting);
    place.settle(&a, &completed(second));
    assert!(place.keys().iter().all(|key| !key.starts_with("slots:") && !key.starts_with("hold")));
    assert_sound(&place);
}

#[test]
fn a_schedule_that_replaces_cancels_its_last_job_and_waits_for_the_end_of_it() {
    let place = Place::new();
    let a = place.server();
    put(&place, &one_at_a_time(TickOverlap::Replace), 1);
    place.queue.fire("s", 1, Some(2), Some(2), &[1], 0).unwrap();
    let running = place.take_one(&a);
    let first = running.id();
    // The first of the two ticks asks the running job to stop, the second one cancels the job of the first one.
    let fired = ticks(place.queue.fire("s", 2, None, None, &[2, 3], 0).unwrap());
    assert!(fired.iter().all(|tick| tick.outcome == TickOutcome::Started));
    let [replaced, last] = [0, 1].map(|i| fired[i].job.unwrap());
    assert_eq!(place.job(replaced).cancel_reason, Some(CancelReason::Replaced));
    assert!(place.take(&a, 5).is_empty(), "the handler has not returned yet");
    place.settle(&a, &released(running));
    assert_eq!(
        (place.status(first), place.job(first).cancel_reason),
        (Status::Cancelled, Some(CancelReason::Replaced))
    );
    let third = place.take_one(&a);
    assert_eq!(third.id(), last);
    place.settle(&a, &completed(third));
    // A job that has ended is not cancelled.
    let Ran::Started(by_hand) = place.queue.run_schedule("s", false).unwrap() else { panic!("not started") };
    assert_eq!(place.status(last), Status::Completed);
    place.cancel(by_hand);
    assert_sound(&place);
}

#[test]
fn a_paused_schedule_moves_on_and_starts_nothing_but_by_hand() {
    let place = Place::new();
    define(&place, Source::Config, "1", 1000);
    register_with(&place, &["s"]);
    assert_eq!(place.queue.pause_schedule("s", true).unwrap(), ScheduleChange::Done);
    let fired = ticks(place.queue.fire("s", 1000, Some(5000), Some(5000), &[4000], 3).unwrap());
    assert!(fired.iter().all(|tick| tick.outcome == TickOutcome::SkippedPaused));
    assert_eq!(fired.iter().map(|tick| tick.count).sum::<u64>(), 4);
    assert_eq!(next(&place), Some(5000));
    // A server that starts again changes nothing of that.
    assert_eq!(define(&place, Source::Config, "1", 9000), Defined::Updated);
    assert!(place.queue.schedule("s").unwrap().unwrap().paused);
    assert_eq!(next(&place), Some(5000));
    assert!(matches!(place.queue.run_schedule("s", false).unwrap(), Ran::Started(_)));
    place.queue.pause_schedule("s", false).unwrap();
    let fired = ticks(place.queue.fire("s", 5000, None, None, &[], 2).unwrap());
    assert_eq!((fired[0].outcome, fired[0].count), (TickOutcome::Missed, 2));
    assert_sound(&place);
}

fn register_with(place: &Place, schedules: &[&str]) -> ServerId {
    let server = ServerId::generate();
    let schedules = schedules.iter().map(|name| (*name).to_owned()).collect();
    let facts = ServerFacts { schedules, ..ServerFacts::new(1, &["default"]) };
    place.queue.register(&server, &facts).unwrap();
    server
}

#[test]
fn a_schedule_of_a_file_fires_only_while_a_living_server_has_it_in_its_file() {
    let place = Place::new();
    define(&place, Source::Config, "1", 1000);
    register_with(&place, &["other", "ss"]);
    let fire = || place.queue.fire("s", 1000, Some(2000), Some(2000), &[1000], 0).unwrap();
    assert_eq!(fire(), Fired::Orphaned);
    let due: f64 = place.redis("ZSCORE", "agenda", &["tick:s"]);
    assert!(due > 1e12, "{due}");
    let server = register_with(&place, &["other", "s"]);
    assert_eq!(ticks(fire())[0].outcome, TickOutcome::Started);
    place.dies(&server);
    let fire = || place.queue.fire("s", 2000, Some(3000), Some(3000), &[2000], 0).unwrap();
    assert_eq!(fire(), Fired::Orphaned);
    let _: i64 = place.redis("HSET", "schedule:s", &["seen_at", "1"]);
    assert_eq!(fire(), Fired::Orphaned);
    assert!(place.queue.schedule("s").unwrap().is_none());
    assert_eq!(agenda(&place), [""; 0]);
}

#[test]
fn the_api_cannot_change_a_schedule_of_a_file() {
    let place = Place::new();
    assert_eq!(define(&place, Source::Api, "1", 1000), Defined::Created);
    assert_eq!(define(&place, Source::Config, "1", 2000), Defined::Updated);
    assert_eq!(next(&place), Some(1000));
    assert_eq!(define(&place, Source::Api, "2", 3000), Defined::ManagedByConfig);
    assert_eq!(place.queue.delete_schedule("s").unwrap(), ScheduleChange::ManagedByConfig);
    assert_eq!(define(&place, Source::Config, "2", 3000), Defined::Updated);
    assert_eq!(next(&place), Some(3000));
}

#[test]
fn a_deleted_schedule_leaves_only_its_jobs() {
    let place = Place::new();
    define(&place, Source::Api, "1", 1000);
    let fired = ticks(place.queue.fire("s", 1000, Some(2000), Some(2000), &[1000], 0).unwrap());
    assert_eq!(place.queue.delete_schedule("s").unwrap(), ScheduleChange::Done);
    for change in [place.queue.delete_schedule("s"), place.queue.pause_schedule("s", true)] {
        assert_eq!(change.unwrap(), ScheduleChange::Missing);
    }
    assert_eq!(place.queue.run_schedule("s", false).unwrap(), Ran::Missing);
    assert_eq!(place.queue.fire("s", 2000, None, None, &[2000], 0).unwrap(), Fired::Changed);
    assert!(place.queue.schedule("s").unwrap().is_none());
    let a = place.server();
    let (lease, job) = place.take(&a, 1).remove(0);
    assert_eq!(job.id, fired[0].job.unwrap());
    place.settle(&a, &completed(lease));
    let left: Vec<String> =
        place.keys().into_iter().filter(|key| key.contains("schedule") || key.contains("tick")).collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn schedules_are_listed_by_name_and_are_at_most_10000() {
    let place = Place::new();
    for name in ["b", "a", "c"] {
        let definition = ScheduleDefinition { name: name.to_owned(), ..definition(Source::Api, "1") };
        put(&place, &definition, 1);
    }
    let (number, page) = place.queue.schedules(1, 1).unwrap();
    assert_eq!((number, page.len(), page[0].name.as_str()), (3, 1, "b"));
    let mut add = redis::cmd("ZADD");
    add.arg(place.key("schedules"));
    (3..10_000).for_each(|n| _ = add.arg(0).arg(format!("x{n}")));
    let _: i64 = place.run(&add);
    assert_eq!(define(&place, Source::Api, "1", 1), Defined::TooMany);
}

#[test]
fn the_history_keeps_50_entries() {
    let place = Place::new();
    define(&place, Source::Api, "1", 0);
    for n in 0..60 {
        place.queue.fire("s", n, Some(n + 1), Some(n + 1), &[], 1).unwrap();
    }
    let record = place.queue.schedule("s").unwrap().unwrap();
    assert_eq!((record.ticks.len(), record.ticks[0].at_ms), (50, 59));
    let job: Option<JobId> = record.ticks[0].job;
    assert_eq!(job, None);
}
