//! Cancelling in long lists, which are not searched: the entry of a cancelled job stays as a tombstone until a take
//! drops it. No count includes a tombstone.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::value::RawValue;
use threadq::internals::queue::{Quarantine, QueueInfo, Refused, RepairPolicy, Share};
use threadq::job::{JobId, NewJob, Status};

use crate::fixture::*;
use crate::invariants::{assert_sound, find_strays};

/// More entries than a list that is searched.
const LONG: usize = 2_100;
/// The number of tombstones that one take drops.
const MAX_DROPS: usize = 500;

fn submit(place: &Place, jobs: usize) -> Vec<JobId> {
    let jobs = vec![NewJob::new("t"); jobs];
    jobs.chunks(1_000).flat_map(|jobs| place.try_submit(jobs).unwrap().ids().collect::<Vec<_>>()).collect()
}

fn shown(place: &Place) -> QueueInfo {
    place.queue.queues(&["default"]).unwrap().remove(0)
}

/// The number of tombstones that are counted.
fn left(place: &Place) -> usize {
    place.redis::<Option<usize>>("HGET", "tombstones:default", &["all"]).unwrap_or(0)
}

#[track_caller]
fn assert_the_doctor_finds_nothing(place: &Place) {
    let policy = RepairPolicy { lease_timeout: Duration::from_secs(600), max_crashes: MAX_CRASHES };
    assert_eq!(place.queue.audit(policy).unwrap().findings, BTreeMap::new());
}

#[test]
fn a_job_that_is_cancelled_in_a_long_queue_is_counted_nowhere_and_dropped_by_a_take() {
    let place = Place::alone();
    let submitted = submit(&place, LONG);
    let mut expected = submitted.clone();
    for n in [2_050, 1_000, 3] {
        let id = expected.remove(n);
        place.cancel(id);
        assert_eq!(place.status(id), Status::Cancelled);
    }
    assert_eq!(place.list("work_queue:default").len(), LONG);
    assert_eq!((shown(&place).queued, left(&place)), (LONG as u64 - 3, 3));
    let counts = place.queue.stats().unwrap().counts;
    assert!(counts.contains(&(Status::Queued, LONG as u64 - 3)), "{counts:?}");
    assert_the_doctor_finds_nothing(&place);
    let a = place.server();
    let mut taken = Vec::new();
    while taken.len() < expected.len() {
        let next = ids(&place.take(&a, 100));
        assert!(!next.is_empty());
        taken.extend(next);
    }
    assert_eq!(taken, expected);
    assert_eq!((shown(&place).queued, left(&place)), (0, 0));
    assert_sound(&place);
}

#[test]
fn a_short_list_is_searched() {
    let place = Place::alone();
    let ids = submit(&place, 2_048);
    place.cancel(ids[1_000]);
    assert_eq!((place.list("work_queue:default").len(), left(&place)), (2_047, 0));
    assert_sound(&place);
}

#[test]
fn what_was_in_the_hand_of_a_fetcher_is_not_counted_in_a_short_list() {
    let place = Place::alone();
    let a = place.server();
    let ids = place.submit_many(2);
    let fetched = place.fetch(&a);
    place.cancel(ids[0]);
    assert_eq!((left(&place), shown(&place).queued), (0, 1));
    // The recovery does not count the entry as a lost job either.
    assert_eq!(place.queue.recover(&a, &[fetched.entry]).unwrap(), 0);
    assert_eq!(place.redis::<i64>("ZCARD", "lost", &[]), 0);
}

#[test]
fn a_job_that_is_cancelled_and_sent_back_again_and_again_runs_once() {
    let place = Place::of_long_lists();
    let (first, other) = (place.submit(), place.submit());
    // Behind an entry that stays, so that no tombstone is dropped at the end of the list.
    for _ in 0..3 {
        place.cancel(other);
        place.queue.retry(&[other], &[]).unwrap();
    }
    assert_eq!((place.list("work_queue:default").len(), left(&place), shown(&place).queued), (5, 3, 2));
    find_strays(&place);
    assert_the_doctor_finds_nothing(&place);
    let a = place.server();
    let taken = place.take(&a, 9);
    assert_eq!(ids(&taken), [first, other]);
    assert_eq!((left(&place), shown(&place).queued), (0, 0));
    for (lease, _) in taken {
        place.settle(&a, &completed(lease));
    }
    assert!(place.take(&a, 9).is_empty());
    assert_sound(&place);
}

#[test]
fn a_job_whose_old_entry_is_met_first_goes_on_with_the_new_one() {
    let place = Place::of_long_lists();
    let a = place.server();
    let (first, other) = (place.submit(), place.submit());
    place.cancel(other);
    place.queue.retry(&[other], &[]).unwrap();
    assert_eq!(ids(&place.take(&a, 1)), [first]);
    let lease = place.take_one(&a);
    assert_eq!((lease.id(), shown(&place).queued, left(&place)), (other, 0, 1));
    assert_the_doctor_finds_nothing(&place);
    // The job goes back to the queue, where its tombstone still is.
    place.settle(&a, &released(lease));
    assert_eq!((place.list("work_queue:default").len(), shown(&place).queued), (2, 1));
    let lease = place.take_one(&a);
    assert!(place.take(&a, 1).is_empty());
    assert_eq!((left(&place), place.status(other)), (0, Status::Processing));
    place.settle(&a, &completed(lease));
    assert_eq!(place.status(other), Status::Completed);
}

#[test]
fn what_is_left_of_a_deleted_job_is_no_lost_job() {
    let place = Place::of_long_lists();
    let a = place.server();
    let ids = place.submit_many(4);
    for id in &ids[1..] {
        place.cancel(*id);
    }
    place.queue.delete(&ids[1..3], &[]).unwrap();
    assert_eq!((shown(&place).queued, left(&place)), (1, 3));
    assert_the_doctor_finds_nothing(&place);
    let _lease = place.take_one(&a);
    let fetched = place.fetch(&a);
    assert!(place.try_take(&a, 1, Quarantine::Start, Some(&fetched)).unwrap().jobs.is_empty());
    assert_eq!((left(&place), place.list("work_queue:default").len()), (0, 0));
    assert_eq!(place.redis::<i64>("ZCARD", "lost", &[]), 0);
}

#[test]
fn what_is_left_in_the_hand_of_a_server_is_counted_no_more_when_it_is_taken_over() {
    for dies in [true, false] {
        let place = Place::of_long_lists();
        let (a, b) = (place.server(), place.server());
        let ids = place.submit_many(3);
        let fetched = place.fetch(&a);
        // A long list is not searched, so the entry counts as a tombstone although a fetcher has claimed it.
        place.cancel(ids[0]);
        place.cancel(ids[2]);
        assert_eq!((left(&place), shown(&place).queued), (2, 0));
        if dies {
            place.dies(&a);
        } else {
            assert_eq!(place.queue.recover(&a, &[fetched.entry]).unwrap(), 0);
        }
        assert_eq!((left(&place), shown(&place).queued), (1, 1));
        assert_eq!(place.take_one(&b).id(), ids[1]);
        assert!(place.take(&b, 1).is_empty());
        assert_eq!(left(&place), 0);
        assert_eq!(place.redis::<i64>("ZCARD", "lost", &[]), 0);
    }
}

#[test]
fn two_entries_of_a_job_in_the_hand_of_a_dead_server_go_back_as_one() {
    let place = Place::of_long_lists();
    let (a, b) = (place.server(), place.server());
    let id = place.submit();
    let _other = place.submit();
    place.fetch(&a);
    place.cancel(id);
    place.queue.retry(&[id], &[]).unwrap();
    for _ in 0..2 {
        place.fetch(&a);
    }
    assert_eq!(place.list(&in_progress(&a)).len(), 3);
    place.dies(&a);
    assert_eq!((left(&place), shown(&place).queued), (0, 2));
    assert_eq!(place.take(&b, 9).len(), 2);
    assert_sound(&place);
}

#[test]
fn entries_without_a_job_take_no_room_in_a_full_queue() {
    const MAX: u64 = 4;
    let place = Place::of_long_lists();
    let submit = |jobs: usize| place.queue.submit(&vec![NewJob::new("t"); jobs], None, MAX);
    let ids: Vec<JobId> = submit(4).unwrap().ids().collect();
    let full = Err(Refused::QueueFull("default".to_owned()).into());
    assert_eq!(submit(1), full);
    place.cancel(ids[1]);
    place.cancel(ids[2]);
    assert_eq!(submit(3), full);
    submit(2).unwrap();
    assert_eq!(submit(1), full);
    // The list is bounded too: it has at most as many tombstones as the queue may have jobs.
    for _ in 0..2 {
        let newest =
            place.queue.list(&Default::default(), threadq::internals::queue::Position::Offset(0), 1).unwrap();
        place.cancel(newest.jobs[0].id);
        submit(1).unwrap();
    }
    let newest =
        place.queue.list(&Default::default(), threadq::internals::queue::Position::Offset(0), 1).unwrap();
    place.cancel(newest.jobs[0].id);
    assert_eq!((left(&place), shown(&place).queued), (5, 3));
    assert_eq!(submit(1), full);
}

#[test]
fn a_take_drops_so_many_entries_and_tells_that_there_may_be_more() {
    let place = Place::of_long_lists();
    let a = place.server();
    let first = place.submit();
    let cancelled = submit(&place, 2 * MAX_DROPS + 100);
    let last = place.submit();
    for id in &cancelled {
        place.cancel(*id);
    }
    let take = |jobs| place.try_take(&a, jobs, Quarantine::Start, None).unwrap();
    let taken = take(4);
    assert_eq!((ids(&taken.jobs), taken.has_more), (vec![first], true));
    let dropped = 2 * MAX_DROPS + 100 - left(&place);
    assert!((MAX_DROPS..MAX_DROPS + 4).contains(&dropped), "{dropped}");
    assert!(take(4).has_more);
    let taken = take(4);
    assert_eq!((ids(&taken.jobs), taken.has_more), (vec![last], false));
    assert_sound(&place);
}

#[test]
fn entries_of_large_jobs_are_not_dropped_all_at_once() {
    let place = Place::of_long_lists();
    let a = place.server();
    place.submit();
    let megabyte = RawValue::from_string(format!("\"{}\"", "x".repeat(1 << 20))).unwrap();
    let large: Vec<JobId> =
        (0..10).map(|_| place.submit_with(|job| job.payload = megabyte.clone())).collect();
    large.iter().for_each(|id| drop(place.cancel(*id)));
    let taken = place.try_take(&a, 20, Quarantine::Start, None).unwrap();
    assert_eq!((taken.jobs.len(), taken.has_more), (1, true));
    assert!((3..=6).contains(&(10 - left(&place))), "{} are left", left(&place));
    while place.try_take(&a, 20, Quarantine::Start, None).unwrap().has_more {}
    assert_sound(&place);
}

#[test]
fn suspects_are_dropped_in_steps_as_well() {
    let place = Place::of_long_lists();
    let a = place.server();
    let suspects: Vec<JobId> = (0..MAX_DROPS + 10).map(|_| place.submit_suspect()).collect();
    let good = place.submit();
    suspects.iter().for_each(|id| drop(place.cancel(*id)));
    assert_eq!(shown(&place).queued, 1);
    // Entries of deleted jobs do not wait for an idle server.
    place.queue.delete(&suspects, &[]).unwrap();
    let taken = place.try_take(&a, 1, Quarantine::Start, None).unwrap();
    assert_eq!((taken.jobs.len(), taken.has_more), (0, true));
    assert_eq!(left(&place), 10);
    assert_eq!(ids(&place.take(&a, 1)), [good]);
    assert_eq!((left(&place), place.redis::<i64>("ZCARD", "lost", &[])), (0, 0));
}

#[test]
fn a_suspect_that_is_cancelled_leaves_one_entry_in_whichever_list() {
    let place = Place::of_long_lists();
    let suspect = place.submit_suspect();
    place.submit();
    place.cancel(suspect);
    assert_eq!((left(&place), shown(&place).queued), (1, 1));
    assert_the_doctor_finds_nothing(&place);
    // Here the list of suspects is short, and the other list is long.
    let place = Place::alone();
    submit(&place, LONG);
    let suspect = place.submit_suspect();
    place.cancel(suspect);
    assert_eq!((left(&place), shown(&place).queued), (0, LONG as u64));
    assert_sound(&place);
}

#[test]
fn what_is_left_at_the_end_of_a_long_list_comes_out_at_once() {
    let place = Place::alone();
    let ids = submit(&place, LONG);
    for id in ids[1..40].iter().chain(&ids[..1]) {
        place.cancel(*id);
    }
    // Each cancel drops a few tombstones at the end of the list.
    assert_eq!(left(&place), 40 - 8);
    for id in &ids[41..45] {
        place.cancel(*id);
    }
    assert_eq!((left(&place), shown(&place).queued), (4, LONG as u64 - 44));
    assert_eq!(place.list("work_queue:default").last(), Some(&ids[40].to_string()));
    // A cancel leaves an unknown entry to a take, which records it.
    place.raw(&["RPUSH T:work_queue:default 7"]);
    place.cancel(ids[50]);
    assert_eq!(place.list("work_queue:default").last().map(String::as_str), Some("7"));
}

#[test]
fn the_last_entry_of_a_long_list_may_be_the_one_that_is_left() {
    let place = Place::of_long_lists();
    let id = place.submit();
    place.cancel(id);
    assert_eq!((place.list("work_queue:default").len(), left(&place)), (0, 0));
    assert!(!place.keys().contains(&"tombstones:default".to_owned()), "{:?}", place.keys());
    assert_sound(&place);
}

#[test]
fn what_is_counted_is_forgotten_with_the_name_of_an_empty_queue() {
    let place = Place::of_long_lists();
    let ids = place.submit_many(2);
    place.cancel(ids[1]);
    place.queue.prune_names(None).unwrap();
    assert_eq!(left(&place), 1);
    place.raw(&["DEL T:work_queue:default"]);
    assert_eq!(shown(&place).queued, 0);
    place.queue.prune_names(None).unwrap();
    assert_eq!(left(&place), 0);
}

#[test]
fn a_gap_that_a_repair_leaves_is_not_counted_as_a_job() {
    let place = Place::alone();
    let a = place.server();
    submit(&place, LONG);
    place.raw(&["LPUSH T:work_queue:default 7"]);
    submit(&place, LONG);
    let policy = RepairPolicy { lease_timeout: Duration::from_secs(600), max_crashes: MAX_CRASHES };
    let (done, after) = place.queue.repair(policy).unwrap();
    assert!(done.len() == 1 && after.findings.is_empty(), "{done:?} {after:?}");
    assert_eq!((left(&place), shown(&place).queued), (1, 2 * LONG as u64));
    let shares = [Share { queue: "default".to_owned(), jobs: 1_000 }];
    let mut taken = 0;
    while taken < 2 * LONG {
        let next = place.queue.start_jobs(&a, &shares, Quarantine::Start, MAX_CRASHES, None).unwrap();
        taken += next.jobs.len();
        next.jobs.into_iter().for_each(|(lease, _)| {
            place.settle(&a, &completed(lease));
        });
    }
    assert_eq!(left(&place), 0);
    assert_sound(&place);
}

/// Prints how long commands occupied Redis: the longest, and the median, since a busy machine affects the longest.
#[test]
#[ignore = "a minute: submits 1,000,000 jobs"]
fn no_step_holds_redis_for_long_in_a_queue_of_1000000() {
    const JOBS: usize = 1_000_000;
    let place = Place::alone();
    let _: () = place.run(redis::cmd("CONFIG").arg("SET").arg("slowlog-log-slower-than").arg(0));
    let _: () = place.run(redis::cmd("CONFIG").arg("SET").arg("slowlog-max-len").arg(100_000));
    let tell = |what: &str| {
        let entries: Vec<Vec<redis::Value>> = place.run(redis::cmd("SLOWLOG").arg("GET").arg(-1));
        // The log also has the commands that scripts call.
        let name = |entry: &Vec<redis::Value>| redis::from_redis_value_ref::<Vec<String>>(&entry[3]).unwrap();
        let is_whole = |entry: &&Vec<redis::Value>| matches!(&*name(entry)[0], "EVALSHA" | "LREM");
        let micros = |entry: &Vec<redis::Value>| redis::from_redis_value_ref::<i64>(&entry[2]).unwrap();
        let mut times: Vec<i64> = entries.iter().filter(is_whole).map(micros).collect();
        times.sort_unstable();
        let ms = |micros: Option<&i64>| *micros.unwrap() as f64 / 1000.0;
        let (median, longest) = (ms(times.get(times.len() / 2)), ms(times.last()));
        println!("{what:<55} {:>6} commands, median {median:6.2} ms, longest {longest:6.2} ms", times.len());
        let _: () = place.run(redis::cmd("SLOWLOG").arg("RESET"));
    };
    let submitted = submit(&place, JOBS);
    tell("submit, 1,000 at a time");
    for _ in 0..10 {
        place.redis::<i64>("LREM", "work_queue:default", &["-1", "7"]);
    }
    tell("LREM over the whole list, for comparison");
    for n in (1..100).map(|n| n * JOBS / 100) {
        place.cancel(submitted[n]);
    }
    tell("cancel one in each hundredth of the queue");
    for n in (1..100).map(|n| n * JOBS / 100) {
        place.queue.retry(&[submitted[n]], &[]).unwrap();
        place.cancel(submitted[n]);
    }
    tell("send each back and cancel it again");
    for id in &submitted[10..5_000] {
        place.cancel(*id);
    }
    tell("cancel 5,000 at the end where jobs are taken");
    for _ in 0..100 {
        place.queue.queues(&[]).unwrap();
    }
    tell("GET /queues");
    let a = place.server();
    for _ in 0..500 {
        for (lease, _) in place.try_take(&a, 30, Quarantine::Skip, None).unwrap().jobs {
            place.settle(&a, &completed(lease));
        }
    }
    tell("takes of 30, and settling one by one");
}

#[test]
fn a_tombstone_at_the_end_of_a_long_list_of_any_queue_is_dropped_at_once() {
    let place = Place::of_long_lists();
    for queue in ["default", "mail"] {
        let submit = || place.submit_with(|job| job.queue = queue.to_owned());
        let (next, other) = (submit(), submit());
        place.cancel(next);
        assert_eq!(place.list(&format!("work_queue:{queue}")), [other.to_string()]);
    }
    assert_sound(&place);
}
