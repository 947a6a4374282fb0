//! The jobs that a take starts, and the jobs that it does not start.

use serde_json::value::RawValue;
use threadq::internals::queue::{Claimed, Error, Quarantine, Settled, Share, Turns};
use threadq::job::{JobId, Status};

use crate::fixture::*;
use crate::invariants::assert_sound;

#[test]
fn jobs_start_in_the_order_of_submission() {
    let place = Place::new();
    let a = place.server();
    let submitted = place.submit_many(5);
    let fetched = place.fetch(&a);
    let taken = place.try_take(&a, 2, Quarantine::Start, Some(&fetched)).unwrap();
    assert_eq!(ids(&taken.jobs), submitted[..2]);
    assert_eq!(ids(&place.take(&a, 9)), submitted[2..]);
    let newest_first: Vec<String> = submitted.iter().rev().map(|id| id.to_string()).collect();
    assert_eq!(place.list(&in_progress(&a)), newest_first);
    assert_sound(&place);
}

#[test]
fn a_started_job_is_marked_with_its_server_and_time() {
    let place = Place::new();
    let a = place.server();
    place.submit();
    let (_lease, job) = place.take(&a, 1).remove(0);
    let stored = place.job(job.id);
    assert_eq!((stored.status, job.status), (Status::Processing, Status::Processing));
    assert_eq!(stored.server.as_deref(), Some(a.as_str()));
    assert_eq!(stored.started_at_ms, job.started_at_ms);
    assert_eq!((stored.starts, job.starts), (1, 1));
}

#[test]
fn every_start_has_a_token_of_its_own() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let first = place.take_one(&a);
    assert_eq!(place.queue.recover(&a, &[id.to_string().into()]).unwrap(), 1);
    let second = place.take_one(&a);
    assert_ne!(first, second);
    assert_eq!(place.settle(&a, &completed(first)), Settled::Stale);
    assert_eq!(place.status(id), Status::Processing);
    assert_eq!(place.settle(&a, &completed(second)), Settled::Now(Status::Completed));
    assert_sound(&place);
}

#[test]
fn a_server_that_was_declared_dead_starts_nothing() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let id = place.submit();
    let fetched = place.fetch(&a);
    place.dies(&a);
    assert_eq!(place.try_take(&a, 1, Quarantine::Start, Some(&fetched)).unwrap_err(), Error::Fenced);
    assert_eq!(place.try_take(&a, 1, Quarantine::Start, None).unwrap_err(), Error::Fenced);
    assert_eq!(ids(&place.take(&b, 1)), [id]);
    assert_sound(&place);
}

#[test]
fn a_server_that_nobody_knows_starts_nothing() {
    let place = Place::new();
    place.submit();
    let stranger = threadq::internals::queue::ServerId::generate();
    assert_eq!(place.try_take(&stranger, 1, Quarantine::Start, None).unwrap_err(), Error::Fenced);
    assert_sound(&place);
}

#[test]
fn an_entry_in_another_servers_list_is_not_started() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let id = place.submit();
    let of_a = place.fetch(&a);
    let taken = place.try_take(&b, 1, Quarantine::Start, Some(&of_a)).unwrap();
    assert!(taken.jobs.is_empty());
    assert_eq!((place.status(id), place.handles(id)), (Status::Queued, vec![in_progress(&a)]));
    // Without a free worker a take puts its claimed job back; this entry must not be put back either.
    place.try_take(&b, 0, Quarantine::Start, Some(&of_a)).unwrap();
    assert_eq!(place.handles(id), [in_progress(&a)]);
    assert_sound(&place);
}

#[test]
fn a_second_entry_of_a_running_job_is_dropped() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let id = place.submit();
    let lease = place.take_one(&a);
    for server in [&a, &b] {
        let _: i64 = place.redis("RPUSH", "work_queue:default", &[&id.to_string()]);
        assert!(place.take(server, 1).is_empty());
        assert_eq!(place.handles(id), [in_progress(&a)]);
    }
    assert_eq!(place.settle(&a, &completed(lease)), Settled::Now(Status::Completed));
    assert_sound(&place);
}

#[test]
fn a_job_that_was_cancelled_in_a_fetchers_hand_is_dropped() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let fetched = place.fetch(&a);
    place.cancel(id);
    assert_eq!(place.handles(id), ["done".to_owned(), in_progress(&a)]);
    assert!(place.try_take(&a, 1, Quarantine::Start, Some(&fetched)).unwrap().jobs.is_empty());
    assert_eq!((place.status(id), place.handles(id)), (Status::Cancelled, vec!["done".to_owned()]));
    assert_sound(&place);
}

/// Entries of each kind without a job, for every way into a take.
fn forge_entries(place: &Place) -> Vec<String> {
    let gone = place.submit().to_string();
    let no_hash = place.submit().to_string();
    let no_status = place.submit().to_string();
    let emptied = place.submit().to_string();
    let of = |id: &str| format!("job:{id}");
    let _: i64 = place.redis("DEL", &of(&gone), &[]);
    let _: i64 = place.redis("DEL", &of(&no_hash), &[]);
    let _: () = place.redis("SET", &of(&no_hash), &["junk"]);
    let _: i64 = place.redis("HDEL", &of(&no_status), &["status"]);
    let _: i64 = place.redis("DEL", &of(&emptied), &[]);
    let _: i64 = place.redis("HSET", &of("no number"), &["status", "queued"]);
    let _: i64 = place.redis("HSET", &of("007"), &["status", "queued", "type", "t"]);
    let _: i64 = place.redis("HSET", &of("9999999999999999"), &["status", "queued", "type", "t"]);
    let _: i64 = place.redis("HSET", &of("12345678901234567"), &["status", "queued", "type", "t"]);
    let _: i64 = place.redis("DEL", "work_queue:default", &[]);
    let more = ["no number", "007", "9999999999999999", "12345678901234567"].map(str::to_owned);
    [gone, no_hash, no_status, emptied].into_iter().chain(more).collect()
}

fn assert_all_lost(place: &Place, entries: &[String]) {
    for key in place.keys().iter().filter(|key| key.contains("_queue:")) {
        assert_eq!(place.list(key), [""; 0], "{key}");
    }
    let mut lost: Vec<String> = place.redis("ZRANGE", "lost", &["0", "-1"]);
    let mut expected = entries.to_vec();
    lost.sort();
    expected.sort();
    assert_eq!(lost, expected);
}

#[test]
fn entries_without_a_job_are_noted_and_do_not_stop_a_take() {
    let place = Place::new();
    let a = place.server();
    let entries = forge_entries(&place);
    for entry in &entries {
        let _: i64 = place.redis("LPUSH", "work_queue:default", &[entry]);
    }
    let good = place.submit();
    let (lease, job) = place.take(&a, 20).remove(0);
    assert_eq!(job.id, good);
    place.settle(&a, &completed(lease));
    assert_all_lost(&place, &entries);
}

#[test]
fn entries_without_a_job_are_noted_and_do_not_stop_a_fetcher() {
    let place = Place::new();
    let a = place.server();
    let entries = forge_entries(&place);
    for entry in &entries {
        let _: i64 = place.redis("LPUSH", "work_queue:default", &[entry]);
        let fetched = place.fetch(&a);
        assert!(place.try_take(&a, 1, Quarantine::Start, Some(&fetched)).unwrap().jobs.is_empty());
    }
    assert_all_lost(&place, &entries);
}

#[test]
fn an_entry_of_a_job_that_has_ended_on_this_server_is_dropped() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    place.settle(&a, &completed(place.take_one(&a)));
    place.raw(&[&format!("LPUSH T:work_queue:default {id}")]);
    assert!(place.take(&a, 1).is_empty());
    assert_eq!(place.handles(id), ["completed"]);
}

#[test]
fn entries_without_a_job_are_noted_and_do_not_stop_a_suspect() {
    let place = Place::new();
    let a = place.server();
    let entries = forge_entries(&place);
    for entry in &entries {
        let _: i64 = place.redis("LPUSH", "work_queue:default:suspects", &[entry]);
        assert!(place.take(&a, 1).is_empty());
    }
    assert_all_lost(&place, &entries);
}

/// The forged entries without a status: a script that only moves ids does not treat them as jobs.
fn forge_dead_entries(place: &Place) -> Vec<String> {
    let mut entries = forge_entries(place);
    entries.truncate(4);
    entries
}

#[test]
fn entries_without_a_job_are_noted_and_do_not_stop_a_reaper() {
    let place = Place::new();
    let a = place.server();
    let entries = forge_dead_entries(&place);
    let good = place.submit();
    place.fetch(&a);
    for entry in &entries {
        let _: i64 = place.redis("LPUSH", &in_progress(&a), &[entry]);
    }
    assert_eq!(place.dies(&a).moved, 1);
    let b = place.server();
    assert_eq!(ids(&place.take(&b, 2)), [good]);
    place.queue.leave(&b).unwrap();
    let _: String = place.redis("RPOP", "work_queue:default", &[]);
    assert_all_lost(&place, &entries);
}

#[test]
fn entries_without_a_job_are_noted_and_do_not_stop_a_recovery() {
    let place = Place::new();
    let a = place.server();
    let entries = forge_dead_entries(&place);
    let good = place.submit();
    place.fetch(&a);
    for entry in &entries {
        let _: i64 = place.redis("LPUSH", &in_progress(&a), &[entry]);
    }
    let found = place.queue.in_progress_here(&a).unwrap();
    assert_eq!(place.queue.recover(&a, &found).unwrap(), 1);
    assert_eq!(place.redis::<String>("RPOP", "work_queue:default", &[]), good.to_string());
    assert_all_lost(&place, &entries);
}

#[test]
fn entries_without_a_job_are_noted_and_do_not_stop_the_scheduler() {
    let place = Place::new();
    let entries = forge_dead_entries(&place);
    for entry in &entries {
        let _: i64 = place.redis("ZADD", "scheduled", &["1", entry]);
    }
    let step = place.queue.work_off_due(3).unwrap();
    assert_eq!((step.moved, step.next), (0, None));
    assert_all_lost(&place, &entries);
}

#[test]
fn an_entry_that_is_no_text_is_noted_like_any_other() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let push = |name: &str| {
        let mut script = redis::cmd("LPUSH");
        script.arg(place.key(name)).arg(b"\xff\xfe".as_slice());
        place.run::<i64>(&script)
    };
    push("work_queue:default");
    let fetched = place.fetch(&a);
    assert!(place.try_take(&a, 1, Quarantine::Start, Some(&fetched)).unwrap().jobs.is_empty());
    push(&in_progress(&a));
    let found = place.queue.in_progress_here(&a).unwrap();
    assert_eq!(place.queue.recover(&a, &found).unwrap(), 0);
    push(&in_progress(&b));
    place.dies(&b);
    for server in [&a, &b] {
        assert_eq!(place.redis::<i64>("LLEN", &in_progress(server), &[]), 0);
    }
    assert_eq!(place.redis::<i64>("ZCARD", "lost", &[]), 1);
}

#[test]
fn a_job_whose_record_cannot_be_read_is_handed_out_to_be_failed() {
    let place = Place::new();
    let a = place.server();
    let (bad, good) = (place.submit(), place.submit());
    let _: i64 = place.redis("HSET", &format!("job:{bad}"), &["payload", "{no json"]);
    let mut taken = place.try_take(&a, 2, Quarantine::Start, None).unwrap();
    assert_eq!(ids(&taken.jobs), [good]);
    let broken = taken.broken.remove(0);
    assert!(broken.reason.contains("payload"), "{}", broken.reason);
    assert_eq!((broken.job.id, broken.job.job_type.as_str()), (bad, "t"), "what can be read is there");
    assert_eq!(broken.job.attempt_id(), broken.lease.attempt_id());
    assert_eq!(place.settle(&a, &buried(broken.lease)), Settled::Now(Status::Failed));
}

#[test]
fn nothing_starts_in_a_paused_queue() {
    let place = Place::new();
    let a = place.server();
    let (first, second) = (place.submit(), place.submit());
    let suspect = place.submit_suspect();
    let fetched = place.fetch(&a);
    place.queue.set_paused("default", true).unwrap();
    let taken = place.try_take(&a, 9, Quarantine::Start, Some(&fetched)).unwrap();
    assert_eq!((ids(&taken.jobs), taken.paused), (vec![], vec!["default".to_owned()]));
    let other =
        [Share { queue: "default".to_owned(), jobs: 0 }, Share { queue: "other".to_owned(), jobs: 3 }];
    assert!(place.queue.start_jobs(&a, &other, Quarantine::Start, 3, None).unwrap().jobs.is_empty());
    assert!(place.queue.queues(&[]).unwrap()[0].paused);
    assert_sound(&place);
    place.queue.set_paused("default", false).unwrap();
    // The claimed jobs are at the front again.
    assert_eq!(ids(&place.try_take(&a, 9, Quarantine::Skip, None).unwrap().jobs), [first, second]);
    assert_eq!(ids(&place.take(&a, 9)), [suspect]);
}

#[test]
fn without_a_free_worker_what_was_fetched_goes_back_in_front() {
    let place = Place::new();
    let a = place.server();
    let submitted = place.submit_many(2);
    let fetched = place.fetch(&a);
    assert!(place.try_take(&a, 0, Quarantine::Start, Some(&fetched)).unwrap().jobs.is_empty());
    assert_sound(&place);
    assert_eq!(ids(&place.take(&a, 2)), submitted);
}

#[test]
fn a_take_keeps_to_its_shares_and_fills_up_from_the_others() {
    let place = Place::new();
    let a = place.server();
    for queue in ["high", "low"] {
        (0..6).for_each(|_| {
            place.submit_with(|job| job.queue = queue.to_owned());
        });
    }
    let share = |queue: &str, jobs| Share { queue: queue.to_owned(), jobs };
    let take = |high, low| {
        let shares = [share("high", high), share("low", low)];
        let taken = place.queue.start_jobs(&a, &shares, Quarantine::Skip, 3, None).unwrap().jobs;
        let count = |queue| taken.iter().filter(|(_, job)| job.queue == queue).count();
        (count("high"), count("low"))
    };
    assert_eq!(take(2, 1), (2, 1));
    assert_eq!(take(0, 3), (0, 3));
    assert_eq!(take(4, 3), (4, 2), "what one does not have, the other does not make up for twice");
    assert_eq!(take(2, 0), (0, 0));
    place.submit_with(|job| job.queue = "low".to_owned());
    assert_eq!(take(2, 0), (0, 1), "filled up");
    assert_sound(&place);
}

#[test]
fn what_was_fetched_counts_against_the_free_workers() {
    let place = Place::new();
    let a = place.server();
    let submitted = place.submit_many(4);
    let fetched = place.fetch(&a);
    let taken = place.try_take(&a, 2, Quarantine::Start, Some(&fetched)).unwrap();
    assert_eq!(ids(&taken.jobs), submitted[..2]);
}

#[test]
fn an_entry_is_put_back_only_where_it_stands() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    // The server has recovered the job before this take: the entry is in the queue already.
    let late = Claimed { entry: id.to_string().into(), queue: "default".to_owned() };
    place.try_take(&a, 0, Quarantine::Start, Some(&late)).unwrap();
    assert_eq!(place.handles(id), ["work_queue:default"]);
    assert_sound(&place);
}

#[test]
fn large_jobs_are_not_taken_all_at_once_and_stay_in_order() {
    let place = Place::new();
    let a = place.server();
    let megabyte = format!("\"{}\"", "x".repeat(1 << 20));
    let large = || place.submit_with(|job| job.payload = RawValue::from_string(megabyte.clone()).unwrap());
    let submitted: Vec<JobId> = (0..10).map(|_| large()).collect();
    let mut taken = Vec::new();
    while taken.len() < submitted.len() {
        let next = ids(&place.take(&a, 30));
        assert!((1..=4).contains(&next.len()), "{} at once", next.len());
        taken.extend(next);
        assert_sound(&place);
    }
    assert_eq!(taken, submitted);
}

#[test]
fn the_name_of_an_empty_queue_is_forgotten_until_its_next_job() {
    let place = Place::new();
    let a = place.server();
    let names = || place.queue.queues(&[]).unwrap().into_iter().map(|queue| queue.name).collect::<Vec<_>>();
    place.submit();
    place.submit_with(|job| job.queue = "used".to_owned());
    assert_eq!(place.queue.prune_names(None).unwrap(), None);
    assert_eq!(names(), ["default", "used"]);
    let lease = place.take_one(&a);
    place.queue.prune_names(None).unwrap();
    assert_eq!(names(), ["used"]);
    place.settle(&a, &released(lease));
    assert_eq!(names(), ["default", "used"]);
}

/// A take may reach Redis long after its server has stopped waiting for the reply. Meanwhile its job was put back, and
/// the same server took it again.
#[test]
fn a_take_that_is_carried_out_late_leaves_a_running_job_its_entry() {
    for free in [0, 1] {
        let place = Place::new();
        let (a, b) = (place.server(), place.server());
        let id = place.submit();
        let fetched = place.fetch(&a);
        place.queue.recover(&a, std::slice::from_ref(&fetched.entry)).unwrap();
        let lease = place.take_one(&a);
        let late = place.try_take(&a, free, Quarantine::Start, Some(&fetched)).unwrap();
        assert!(late.jobs.is_empty());
        assert_eq!(place.handles(id), [in_progress(&a)]);
        assert_sound(&place);
        // So the reclaim finds the job when its server dies.
        assert_eq!(place.dies(&a).moved, 1);
        assert_eq!(place.settle(&a, &completed(lease)), Settled::Stale);
        assert_eq!(ids(&place.take(&b, 1)), [id]);
    }
}

#[test]
fn a_late_entry_of_a_job_that_runs_is_dropped() {
    for free in [0, 1] {
        let place = Place::new();
        let (a, b) = (place.server(), place.server());
        let id = place.submit();
        let lease = place.take_one(&a);
        // A second entry in the list of the job's server, or an entry in the list of another server.
        for (server, left) in [(&a, vec![id.to_string()]), (&b, vec![])] {
            let _: i64 = place.redis("LPUSH", &in_progress(server), &[&id.to_string()]);
            let fetched = Claimed { entry: id.to_string().into_bytes(), queue: "default".to_owned() };
            assert!(place.try_take(server, free, Quarantine::Start, Some(&fetched)).unwrap().jobs.is_empty());
            assert_eq!(place.list(&in_progress(server)), left);
        }
        assert_sound(&place);
        assert_eq!(place.settle(&a, &completed(lease)), Settled::Now(Status::Completed));
    }
}

#[test]
fn what_is_not_started_uses_up_no_worker() {
    let place = Place::new();
    let a = place.server();
    let submitted = place.submit_many(2);
    place.raw(&["RPUSH T:work_queue:default 77"]);
    assert_eq!(ids(&place.take(&a, 2)), submitted);
    assert_sound(&place);
}

#[test]
fn a_job_whose_key_has_a_zero_byte_starts_as_any_other() {
    let place = Place::new();
    let server = place.server();
    let keys = ["a\0b", "\0", "\0\0"];
    for key in keys {
        place.submit_with(|job| job.unique_key = Some(key.to_owned()));
    }
    place.submit();
    let taken = place.take(&server, 4);
    let found: Vec<Option<&str>> = taken.iter().map(|(_, job)| job.unique_key.as_deref()).collect();
    // The texts of such a job are read after the others.
    assert_eq!(found, [None, Some(keys[0]), Some(keys[1]), Some(keys[2])]);
    for (lease, job) in taken {
        assert_eq!((job.status, job.starts), (Status::Processing, 1));
        assert_eq!(place.settle(&server, &completed(lease)), Settled::Now(Status::Completed));
    }
    assert_sound(&place);
}

/// A call that starts `jobs` jobs: first from the queues `a` and `b`, which are strict, then from `low`.
fn strict_turns(jobs: usize) -> Turns {
    let shares = vec![Share { queue: "low".to_owned(), jobs }];
    Turns { jobs, strict: vec!["a".to_owned(), "b".to_owned()], shares }
}

#[test]
fn jobs_of_strict_queues_start_first_and_in_the_order_of_the_queues() {
    let place = Place::new();
    let a = place.server();
    let submit = |queue: &str| place.submit_with(|job| job.queue = queue.to_owned());
    let [low, b, a_1, a_2] = ["low", "b", "a", "a"].map(submit);
    let take = |jobs| {
        let turns = strict_turns(jobs);
        ids(&place.queue.start_jobs_in_turn(&a, &turns, Quarantine::Skip, 3, None).unwrap().jobs)
    };
    assert_eq!(take(1), [a_1]);
    assert_eq!(take(2), [a_2, b]);
    let next = submit("b");
    assert_eq!(take(3), [next, low]);
    submit("a");
    place.queue.set_paused("a", true).unwrap();
    let last = submit("low");
    assert_eq!(take(3), [last], "a paused queue has no turn");
    assert_sound(&place);
}

#[test]
fn the_shares_of_a_queue_may_come_one_by_one() {
    let place = Place::new();
    let a = place.server();
    let submit = |queue: &str| place.submit_with(|job| job.queue = queue.to_owned());
    let [high_1, high_2, high_3, low_1, low_2] = ["high", "high", "high", "low", "low"].map(submit);
    let strict = submit("a");
    let share = |queue: &str, jobs| Share { queue: queue.to_owned(), jobs };
    let turns = Turns {
        jobs: 4,
        strict: vec!["a".to_owned()],
        shares: vec![share("high", 0), share("low", 0), share("high", 1), share("low", 1), share("high", 2)],
    };
    let take = || ids(&place.queue.start_jobs_in_turn(&a, &turns, Quarantine::Skip, 3, None).unwrap().jobs);
    assert_eq!(take(), [strict, high_1, low_1, high_2]);
    assert_eq!(take(), [high_3, low_2]);
    assert_sound(&place);
}

#[test]
fn a_claimed_job_waits_for_the_jobs_of_strict_queues() {
    let place = Place::new();
    let a = place.server();
    let submit = |queue: &str| place.submit_with(|job| job.queue = queue.to_owned());
    let take = |claimed: &Claimed, jobs| {
        let turns = strict_turns(jobs);
        ids(&place.queue.start_jobs_in_turn(&a, &turns, Quarantine::Skip, 3, Some(claimed)).unwrap().jobs)
    };
    let low = submit("low");
    let claimed = place.queue.wait_for_job(&a, "low").unwrap().expect("a job");
    let (later, strict) = (submit("low"), submit("b"));
    assert_eq!(take(&claimed, 1), [strict]);
    assert_sound(&place);
    let claimed = place.queue.wait_for_job(&a, "low").unwrap().expect("a job");
    assert_eq!(take(&claimed, 1), [low], "the claimed job went back to the front of its queue");
    // The claimed job of a strict queue waits only for the strict queues before it.
    let strict = submit("b");
    let claimed = place.queue.wait_for_job(&a, "b").unwrap().expect("a job");
    let other = submit("b");
    assert_eq!(take(&claimed, 1), [strict]);
    let claimed = place.queue.wait_for_job(&a, "b").unwrap().expect("a job");
    let first = submit("a");
    assert_eq!(take(&claimed, 3), [first, other, later]);
    assert_sound(&place);
}
