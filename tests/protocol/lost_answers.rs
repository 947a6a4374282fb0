//! The state after a call whose request or reply is lost on the way.

use std::time::Duration;

use std::cell::RefCell;

use threadq::internals::in_flight::InFlight;
use threadq::internals::membership::Registrar;
use threadq::internals::queue::{
    Changed, Error, Idempotency, Quarantine, Queue, ServerFacts, Settled, SubmitError,
};
use threadq::job::Status;

use crate::fixture::*;
use crate::invariants::assert_sound;
use crate::lua_proxy::Loses;

/// Makes a call on a connection that breaks at the next call of this script.
#[track_caller]
fn broken<T: std::fmt::Debug, E: Into<SubmitError>>(
    place: &Place,
    script: &str,
    what: Loses,
    call: impl FnOnce(&Queue) -> Result<T, E>,
) {
    let queue = place.another_queue();
    place.wire.lose(script, what);
    let answer = call(&queue).map_err(Into::into);
    assert!(matches!(answer, Err(SubmitError::Queue(Error::Unavailable(_)))), "{answer:?}");
    assert!(place.wire.has_lost());
}

#[test]
fn a_submission_with_a_key_is_safe_to_repeat() {
    let place = Place::new();
    let jobs = [threadq::job::NewJob::new("t"), threadq::job::NewJob::new("t")];
    let key = Idempotency { key: "k".to_owned(), fingerprint: "f".to_owned() };
    let submit = |queue: &Queue| queue.submit(&jobs, Some(&key), NO_LIMIT);
    broken(&place, "enqueue", Loses::Request, submit);
    assert!(place.keys().is_empty());
    broken(&place, "enqueue", Loses::Answer, submit);
    let again = submit(&place.queue).unwrap();
    assert_eq!((again.replayed, again.count), (true, 2));
    let waiting: Vec<String> = again.ids().map(|id| id.to_string()).collect();
    assert_eq!(place.list("work_queue:default").into_iter().rev().collect::<Vec<_>>(), waiting);
    assert_sound(&place);
}

#[test]
fn what_a_lost_fetch_moved_goes_back_to_the_front() {
    let place = Place::new();
    let a = place.server();
    let submitted = place.submit_many(3);
    broken(&place, "brpoplpush", Loses::Answer, |queue| queue.wait_for_job(&a, "default"));
    assert_eq!(place.handles(submitted[0]), [in_progress(&a)]);
    assert_sound(&place);
    let found = place.queue.in_progress_here(&a).unwrap();
    assert_eq!(place.queue.recover(&a, &found).unwrap(), 1);
    assert_eq!(ids(&place.take(&a, 3)), submitted);
    assert_sound(&place);
}

#[test]
fn what_a_lost_take_started_goes_back_in_order_and_uncharged() {
    let place = Place::new();
    let a = place.server();
    let crashed = place.submit_crashed(1);
    let submitted = place.submit_many(4);
    broken(&place, "start_jobs", Loses::Answer, |queue| {
        queue.start_jobs(&a, &shares(4), Quarantine::Reserve, MAX_CRASHES, None)
    });
    place.fetch(&a);
    assert_eq!(place.status(submitted[0]), Status::Processing);
    assert_sound(&place);
    let found = place.queue.in_progress_here(&a).unwrap();
    assert_eq!(place.queue.recover(&a, &found).unwrap(), 5);
    assert_sound(&place);
    let taken = place.take(&a, 9);
    assert_eq!((ids(&taken)[0], &ids(&taken)[1..]), (crashed, &submitted[..]));
    assert!(taken.iter().all(|(_, job)| job.attempts == 0));
    assert_eq!(place.job(crashed).crashes, 1);
}

#[test]
fn a_job_that_is_asked_to_stop_after_a_lost_take_is_cancelled() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit_with(|job| job.unique_key = Some("u".to_owned()));
    broken(&place, "start_jobs", Loses::Answer, |queue| {
        queue.start_jobs(&a, &shares(1), Quarantine::Start, MAX_CRASHES, None)
    });
    assert_eq!(place.cancel(id), Changed::Requested(a.to_string()));
    assert_eq!(place.queue.recover(&a, &[id.to_string().into()]).unwrap(), 0);
    assert_eq!((place.status(id), place.handles(id)), (Status::Cancelled, vec!["done".to_owned()]));
    assert_sound(&place);
}

#[test]
fn only_what_stands_in_the_servers_own_list_is_recovered() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let (running, waiting) = (place.submit(), place.submit());
    let lease = place.take_one(&b);
    let known = [running.to_string().into(), waiting.to_string().into()];
    assert_eq!(place.queue.recover(&a, &known).unwrap(), 0);
    // The same with a second entry in the server's list, although the job was asked to stop.
    place.cancel(running);
    let _: i64 = place.redis("LPUSH", &in_progress(&a), &[&running.to_string()]);
    assert_eq!(place.queue.recover(&a, &known).unwrap(), 0);
    assert_eq!(place.handles(running), [in_progress(&b)]);
    assert_eq!(place.settle(&b, &completed(lease)), Settled::Now(Status::Completed));
    assert_sound(&place);
}

#[test]
fn a_second_entry_of_a_job_that_has_ended_on_this_server_is_not_recovered() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let lease = place.take_one(&a);
    place.settle(&a, &completed(lease));
    let _: i64 = place.redis("LPUSH", &in_progress(&a), &[&id.to_string()]);
    assert_eq!(place.queue.recover(&a, &[id.to_string().into()]).unwrap(), 0);
    assert_eq!((place.status(id), place.handles(id)), (Status::Completed, vec!["completed".to_owned()]));
    assert_sound(&place);
}

#[test]
fn a_dead_server_recovers_nothing() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    place.dies(&a);
    place.fetch(&a);
    assert_eq!(place.queue.recover(&a, &[id.to_string().into()]).unwrap(), 0);
    assert_eq!(place.handles(id), [in_progress(&a)]);
    place.dies(&a);
    assert_sound(&place);
}

#[test]
fn a_job_that_ended_meanwhile_is_not_recovered() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    place.fetch(&a);
    place.cancel(id);
    assert_eq!(place.queue.recover(&a, &[id.to_string().into()]).unwrap(), 0);
    assert_eq!(place.handles(id), ["done"]);
    assert_eq!(place.redis::<i64>("ZCARD", "lost", &[]), 0);
    assert_sound(&place);
}

#[test]
fn outcomes_are_safe_to_send_again() {
    let place = Place::new();
    let a = place.server();
    for (settlement, status) in
        [(completed as fn(_) -> _, Status::Completed), (retried, Status::Retrying), (buried, Status::Failed)]
    {
        let id = place.submit();
        let settlement = [settlement(place.take_one(&a))];
        broken(&place, "settle", Loses::Request, |queue| queue.settle(&a, &settlement));
        assert_eq!(place.status(id), Status::Processing);
        broken(&place, "settle", Loses::Answer, |queue| queue.settle(&a, &settlement));
        assert_eq!(place.settle(&a, &settlement[0]), Settled::Repeated);
        assert_eq!((place.status(id), place.job(id).attempts), (status, 1));
        assert_sound(&place);
    }
}

#[test]
fn a_lost_start_again_leaves_nobody_with_the_attempt() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let mut lease = place.take_one(&a);
    broken(&place, "settle", Loses::Answer, |queue| queue.retry_inline(&a, &mut lease, "no", Duration::ZERO));
    // The worker got no reply, so the committer settles the failure. But the next attempt has begun in Redis.
    assert_eq!(place.settle(&a, &retried(lease)), Settled::Stale);
    let job = place.job(id);
    assert_eq!((job.status, job.attempts, job.errors.len()), (Status::Processing, 1, 1));
    assert_eq!(place.queue.recover(&a, &[id.to_string().into()]).unwrap(), 1);
    assert_sound(&place);
    let lease = place.take_one(&a);
    assert_eq!(place.settle(&a, &completed(lease)), Settled::Now(Status::Completed));
    assert_eq!(place.job(id).attempts, 2);
    assert_sound(&place);
}

#[test]
fn a_start_again_that_never_arrived_is_settled_by_the_committer() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let mut lease = place.take_one(&a);
    broken(&place, "settle", Loses::Request, |queue| {
        queue.retry_inline(&a, &mut lease, "no", Duration::ZERO)
    });
    assert_eq!(place.settle(&a, &retried(lease)), Settled::Now(Status::Retrying));
    assert_eq!(place.job(id).attempts, 1);
    assert_sound(&place);
}

#[test]
fn a_lost_take_over_is_not_carried_out_twice() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let _lease = place.take_one(&a);
    let observed = place.beat_value(&a).unwrap();
    broken(&place, "reclaim", Loses::Answer, |queue| queue.reclaim(a.as_str(), &observed, MAX_CRASHES));
    assert_eq!(place.queue.reclaim(a.as_str(), &observed, MAX_CRASHES).unwrap(), None);
    assert_eq!(place.dies(&a).crashed.len(), 0);
    assert_eq!((place.job(id).crashes, place.status(id)), (1, Status::Queued));
    assert_sound(&place);
}

#[test]
fn a_registration_whose_answer_was_lost_does_not_lift_a_fence_later() {
    let place = Place::new();
    let (registrar, in_flight) = (RefCell::new(Registrar::new(ServerFacts::new(1, &[]))), InFlight::new(1));
    let membership = registrar.borrow().membership();
    let first = membership.current();
    broken(&place, "register", Loses::Answer, |queue| registrar.borrow_mut().join(queue, &in_flight));
    // The server works under that name nevertheless, until it is declared dead.
    place.queue.heartbeat(&first, 0, 1, &[]).unwrap();
    place.dies(&first);
    registrar.borrow_mut().join(&place.queue, &in_flight).unwrap();
    assert_ne!(membership.current(), first);
    assert!(place.queue.heartbeat(&first, 0, 1, &[]).is_err());
    assert!(place.queue.heartbeat(&membership.current(), 0, 1, &[]).is_ok());
    // A registered server keeps its name at a further join.
    let second = membership.current();
    registrar.borrow_mut().join(&place.queue, &in_flight).unwrap();
    assert_eq!(membership.current(), second);
}

#[test]
fn everything_else_is_safe_to_repeat() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    broken(&place, "cancel", Loses::Answer, |queue| queue.cancel(&[id], &[]));
    assert_eq!(place.cancel(id), Changed::WrongStatus);
    broken(&place, "retry", Loses::Answer, |queue| queue.retry(&[id], &[]));
    assert_eq!(place.queue.retry(&[id], &[]).unwrap(), [Changed::WrongStatus]);
    assert_eq!(place.handles(id), ["work_queue:default"]);
    broken(&place, "heartbeat", Loses::Answer, |queue| queue.heartbeat(&a, 0, 8, &[]));
    place.queue.heartbeat(&a, 0, 8, &[]).unwrap();
    broken(&place, "register", Loses::Answer, |queue| queue.register(&a, &ServerFacts::new(8, &[])));
    place.queue.register(&a, &ServerFacts::new(8, &[])).unwrap();
    let delayed = place.submit_delayed();
    place.make_due(delayed);
    broken(&place, "due", Loses::Answer, |queue| queue.work_off_due(MAX_CRASHES));
    let step = place.queue.work_off_due(MAX_CRASHES).unwrap();
    assert_eq!((step.moved, step.next), (0, None));
    assert_eq!(place.handles(delayed), ["work_queue:default"]);
    broken(&place, "reclaim", Loses::Answer, |queue| queue.leave(&a));
    assert_eq!(place.queue.leave(&a).unwrap().unwrap().moved, 0);
    place.cancel(id);
    broken(&place, "delete", Loses::Answer, |queue| queue.delete(&[id], &[]));
    assert_eq!(place.queue.delete(&[id], &[]).unwrap(), [Changed::Missing]);
    assert_sound(&place);
}
