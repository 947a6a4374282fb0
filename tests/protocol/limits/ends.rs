//! Every step that takes a job out of `processing`, or out of the queue, gives back what the job had of its limits, in the
//! same step.

use threadq::internals::queue::{ChangeResult, Changed};
use threadq::job::{Change, Expiry, Start, Status};

use super::*;
use crate::fixture::{buried, completed, in_progress, released, retried};
use crate::invariants::assert_sound;

type End = fn(&Place, &ServerId, Lease);

/// The ends of an attempt after which the job does not start again, or later.
const ENDS: &[(&str, End)] = &[
    ("completed", |place, a, lease| place.ends(a, &completed(lease))),
    ("failed", |place, a, lease| place.ends(a, &buried(lease))),
    ("failed, with a retry later", |place, a, lease| place.ends(a, &retried(lease))),
    ("failed at the last attempt", |place, a, lease| {
        place.raw(&[&format!("HSET T:job:{} max_attempts 1", lease.id())]);
        place.ends(a, &retried(lease));
    }),
    ("failed, with a retry after the backoff of the worker", |place, a, mut lease| {
        let settled = place.queue.retry_inline(a, &mut lease, "no", Duration::from_secs(1)).unwrap();
        // The next attempt has to wait for its turn.
        assert_eq!(settled, Settled::Now(Status::Retrying));
    }),
    ("failed, and the job expires before the retry", |place, a, lease| {
        let expires_at = lease.id().created_at_ms() + 600_000;
        place.raw(&[&format!("HSET T:job:{} ties LX expires_at {expires_at}", lease.id())]);
        assert_eq!(place.settle(a, &retried(lease)), Settled::Expired(Status::Failed));
    }),
    ("given back for later", |place, a, lease| place.ends(a, &snoozed(lease, Duration::from_secs(3600)))),
    ("cancelled", |place, a, lease| {
        assert_eq!(place.cancel(lease.id()), Changed::Requested(a.to_string()));
        assert_eq!(place.settle(a, &released(lease)), Settled::Now(Status::Cancelled));
    }),
    ("its server has died after a cancel", |place, a, lease| {
        place.cancel(lease.id());
        place.dies(a);
        assert_eq!(place.status(lease.id()), Status::Cancelled);
    }),
    ("its server has died for the last time", |place, a, lease| {
        place.raw(&[&format!("HSET T:job:{} crashes {}", lease.id(), MAX_CRASHES - 1)]);
        place.dies(a);
        assert_eq!(place.status(lease.id()), Status::Failed);
    }),
    ("its start was lost, and it was cancelled", |place, a, lease| {
        place.cancel(lease.id());
        place.queue.recover(a, &[lease.id().to_string().into()]).unwrap();
        assert_eq!(place.status(lease.id()), Status::Cancelled);
    }),
];

/// The ends of an attempt after which the job goes back to its queue.
const RETURNS: &[(&str, End)] = &[
    ("given back", |place, a, lease| place.ends(a, &released(lease))),
    ("its server has died", |place, a, _| assert_eq!(place.dies(a).crashed.len(), 1)),
    ("its server has left", |place, a, _| _ = place.queue.leave(a).unwrap().unwrap()),
    ("its start was lost", |place, a, lease| {
        assert_eq!(place.queue.recover(a, &[lease.id().to_string().into()]).unwrap(), 1);
    }),
];

/// Server `a` runs the first job, which has both limits; the others wait, each for one of them.
fn with_two_waiting_jobs() -> (Place, [ServerId; 2], [JobId; 3], Lease) {
    let place = Place::with_moving_clock();
    let servers = [place.server(), place.server()];
    place.define("smtp", slots(1));
    place.define("tenant", slots(1));
    let first = place.submit_limited(&["smtp", "tenant:1"]);
    let lease = place.take(&servers[0], 9).remove(0).0;
    let (second, third) = (place.submit_limited(&["smtp"]), place.submit_limited(&["tenant:1"]));
    assert!(place.take(&servers[1], 9).is_empty());
    assert_eq!((place.held("smtp"), place.held("tenant:1")), (vec![second], vec![third]));
    (place, servers, [first, second, third], lease)
}

#[test]
fn every_end_of_an_attempt_frees_its_slots_and_sends_the_next_job_on() {
    for (end, act) in ENDS {
        println!("{end}");
        let (place, [a, b], [first, second, third], lease) = with_two_waiting_jobs();
        act(&place, &a, lease);
        assert_sound(&place);
        assert_eq!((place.kept("smtp"), place.kept("tenant:1")), (vec![second], vec![third]));
        let mut started = place.take(&b, 9);
        started.sort_by_key(|(_, job)| job.id);
        assert_eq!(ids(&started), [second, third]);
        assert_sound(&place);
        started.into_iter().for_each(|(lease, _)| place.ends(&b, &completed(lease)));
        // The first job starts again, if it is to.
        let waits = !place.status(first).is_final();
        place.waits(2 * HOUR);
        let again = place.take(&b, 9);
        assert_eq!(ids(&again), Vec::from_iter(waits.then_some(first)));
        again.into_iter().for_each(|(lease, _)| place.ends(&b, &completed(lease)));
        place.assert_no_trace();
        assert_sound(&place);
    }
}

#[test]
fn a_job_that_goes_back_to_its_queue_gives_up_its_slots_and_waits_as_the_oldest() {
    for (end, act) in RETURNS {
        println!("{end}");
        let (place, [a, b], [first, second, third], lease) = with_two_waiting_jobs();
        act(&place, &a, lease);
        assert_sound(&place);
        // The one that waited for the later limit goes on: the first job has to take the earlier one first.
        assert_eq!((place.kept("tenant:1"), place.kept("smtp")), (vec![first], vec![second]));
        for id in [second, first, third] {
            let mut started = place.take(&b, 9);
            assert_eq!(ids(&started), [id]);
            assert_sound(&place);
            place.ends(&b, &completed(started.remove(0).0));
        }
        place.assert_no_trace();
        assert_sound(&place);
    }
}

#[test]
fn a_job_in_its_backoff_has_no_slot() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(1));
    let first = place.submit_limited(&["smtp"]);
    place.ends(&a, &retried(place.take(&a, 9).remove(0).0));
    place.assert_no_trace();
    let second = place.submit_limited(&["smtp"]);
    let lease = place.take(&a, 9).remove(0).0;
    assert_eq!(lease.id(), second);
    place.waits(2 * HOUR);
    assert!(place.take(&a, 9).is_empty());
    assert_eq!(place.held("smtp"), [first]);
    assert_eq!(place.job(first).attempts, 1, "to wait for room is no attempt");
    place.ends(&a, &completed(lease));
    assert_eq!(place.started(&a), [first]);
    assert_sound(&place);
}

#[test]
fn a_job_that_is_given_back_is_the_next_one() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(1));
    let all = place.submit_limited_many(3, &["smtp"]);
    for n in [0, 0, 0, 1, 2] {
        let mut taken = place.take(&a, 9);
        assert_eq!(ids(&taken), all[n..n + 1]);
        let lease = taken.remove(0).0;
        let is_last = place.job(all[n]).starts == 3 || n > 0;
        place.ends(&a, &if is_last { completed(lease) } else { released(lease) });
        assert_sound(&place);
    }
    place.assert_no_trace();
}

type Leave = fn(&Place, JobId);

/// The steps that take a job out of its queue before it has started.
const LEAVES: &[(&str, Leave)] = &[
    ("cancelled", |place, id| assert_eq!(place.cancel(id), Changed::Done)),
    ("moved to another queue", |place, id| {
        let change = Change { queue: Some("elsewhere".to_owned()), ..Change::default() };
        changes(place, id, &change, Status::Queued);
    }),
    ("put off", |place, id| {
        let change = Change { start: Some(Start::AfterMs(HOUR)), ..Change::default() };
        changes(place, id, &change, Status::Scheduled);
    }),
    ("expired", |place, id| {
        let change = Change { expiry: Some(Expiry::AfterMs(2)), ..Change::default() };
        changes(place, id, &change, Status::Queued);
        place.passes(3);
        let expired = place.queue.work_off_due(MAX_CRASHES).unwrap().expired;
        assert_eq!(expired, [("t".to_owned(), Status::Cancelled)]);
    }),
];

#[track_caller]
fn changes(place: &Place, id: JobId, change: &Change, to: Status) {
    let result = place.queue.change_waiting(&[id], &[], change).unwrap();
    assert!(matches!(result[0], ChangeResult::Changed { status, .. } if status == to), "{result:?}");
}

#[test]
fn a_job_that_waits_for_room_leaves_nothing_behind() {
    for (how, act) in LEAVES {
        println!("{how}");
        let (place, a, all, lease) = one_runs(3);
        act(&place, all[1]);
        assert_eq!(place.held("smtp"), all[2..]);
        assert_eq!(place.job(all[1]).blocked, None);
        assert_sound(&place);
        place.ends(&a, &completed(lease));
        let lease = place.take(&a, 9).remove(0).0;
        assert_eq!(lease.id(), all[2]);
        place.ends(&a, &completed(lease));
        place.assert_no_trace();
        assert_sound(&place);
    }
}

#[test]
fn a_job_that_was_sent_on_leaves_its_place_to_the_next_one() {
    for (how, act) in LEAVES {
        println!("{how}");
        let (place, a, all, lease) = one_runs(3);
        place.ends(&a, &completed(lease));
        assert_eq!(place.kept("smtp"), all[1..2]);
        act(&place, all[1]);
        assert_eq!(place.kept("smtp"), all[2..]);
        assert_sound(&place);
        let lease = place.take(&a, 9).remove(0).0;
        assert_eq!(lease.id(), all[2]);
        place.ends(&a, &completed(lease));
        place.assert_no_trace();
        assert_sound(&place);
    }
}

#[test]
fn a_job_that_waits_for_a_later_limit_leaves_its_slots_of_the_earlier_ones() {
    for (how, act) in LEAVES {
        println!("{how}");
        let place = Place::with_moving_clock();
        let a = place.server();
        place.define("smtp", slots(1));
        place.define("tenant", slots(1));
        let first = place.submit_limited(&["smtp"]);
        let waiting = place.submit_limited(&["smtp", "tenant:1"]);
        let third = place.submit_limited(&["tenant:1"]);
        let taken = place.take(&a, 9);
        assert_eq!(ids(&taken), [first]);
        assert_eq!((place.held("smtp"), place.held("tenant:1")), (vec![waiting], vec![third]));
        assert_eq!(place.holders("tenant:1"), [waiting]);
        assert_sound(&place);
        act(&place, waiting);
        assert_eq!(place.started(&a), [third]);
        assert_sound(&place);
    }
}

#[test]
fn a_job_that_expires_while_it_is_taken_leaves_nothing_behind() {
    let (place, a, all, lease) = one_runs(3);
    place.ends(&a, &completed(lease));
    let change = Change { expiry: Some(Expiry::AfterMs(2)), ..Change::default() };
    changes(&place, all[1], &change, Status::Queued);
    // No server has worked off the agenda.
    place.passes(3);
    let taken = place.try_take(&a, 9, Quarantine::Start, None).unwrap();
    assert_eq!(taken.expired, [("t".to_owned(), Status::Cancelled)]);
    let next = place.take(&a, 9).into_iter().chain(taken.jobs);
    assert_eq!(next.map(|(_, job)| job.id).collect::<Vec<_>>(), all[2..]);
    assert_sound(&place);
}

#[test]
fn a_job_that_a_person_sends_back_waits_behind_the_others() {
    let (place, a, all, lease) = one_runs(3);
    assert_eq!(place.cancel(all[1]), Changed::Done);
    place.passes(2);
    assert_eq!(place.queue.retry(&[all[1]], &[]).unwrap(), [Changed::Done]);
    assert!(place.take(&a, 9).is_empty());
    assert_eq!(place.held("smtp"), [all[2], all[1]]);
    place.ends(&a, &buried(lease));
    place.passes(2);
    assert_eq!(place.queue.retry(&[all[0]], &[]).unwrap(), [Changed::Done]);
    assert_eq!(place.started(&a), [all[2]]);
    assert_sound(&place);
    assert_eq!(place.held("smtp"), [all[1], all[0]]);
}

#[test]
fn a_job_that_moved_to_another_queue_waits_there() {
    let (place, a, all, lease) = one_runs(2);
    let change = Change { queue: Some("elsewhere".to_owned()), ..Change::default() };
    changes(&place, all[1], &change, Status::Queued);
    assert!(place.take_from(&a, &["elsewhere"], 9).is_empty());
    assert_eq!(place.held_in("elsewhere", "smtp"), all[1..]);
    assert_sound(&place);
    place.ends(&a, &completed(lease));
    assert_eq!(ids(&place.take_from(&a, &["elsewhere"], 9)), all[1..]);
    assert_sound(&place);
}

#[test]
fn a_job_that_was_claimed_and_has_no_room_waits_too() {
    let place = Place::with_moving_clock();
    let (a, b) = (place.server(), place.server());
    place.define("smtp", slots(1));
    let all = place.submit_limited_many(2, &["smtp"]);
    let claimed = place.fetch(&a);
    let taken = place.take(&b, 1);
    assert_eq!(ids(&taken), all[1..]);
    assert!(place.try_take(&a, 1, Quarantine::Start, Some(&claimed)).unwrap().jobs.is_empty());
    assert_eq!(place.held("smtp"), all[..1]);
    assert_eq!(place.list(&in_progress(&a)), [""; 0]);
    place.ends(&b, &completed(taken.into_iter().next().unwrap().0));
    assert_eq!(place.started(&a), all[..1]);
    assert_sound(&place);
}

#[test]
fn a_429_of_one_job_closes_the_rate_for_all() {
    let later = Duration::from_millis(HOUR);
    let closings: [fn(Lease, Duration) -> Settlement; 2] = [throttled, snoozed];
    for close in closings {
        let place = Place::with_moving_clock();
        let a = place.server();
        place.define("smtp", rate(1_000, 1_000, 100));
        place.define("other", rate(1_000, 1_000, 100));
        let all = place.submit_limited_many(4, &["smtp"]);
        let lease = place.take(&a, 1).remove(0).0;
        place.ends(&a, &close(lease, later));
        assert!(place.take(&a, 9).is_empty());
        assert_eq!(place.held("smtp"), all[1..]);
        let other = place.submit_limited(&["other"]);
        assert_eq!(place.started(&a), [other]);
        assert_sound(&place);
        place.waits(HOUR - MINUTE);
        assert!(place.take(&a, 9).is_empty());
        place.waits(2 * MINUTE);
        assert_eq!(place.started(&a)[0], all[1]);
        assert_sound(&place);
    }
}

/// A failed attempt at a service that wants no requests for this long.
fn throttled(lease: Lease, wait: Duration) -> Settlement {
    let verdict = Verdict::Retry { error: "429".to_owned(), delay: wait, throttle: Some(wait) };
    Settlement { lease, verdict }
}

#[test]
fn a_failure_without_a_wait_closes_nothing() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", rate(1_000, 1_000, 100));
    let all = place.submit_limited_many(2, &["smtp"]);
    place.ends(&a, &retried(place.take(&a, 1).remove(0).0));
    assert_eq!(place.started(&a), all[1..]);
}
