//! The operations of an operator on a job (cancel, retry, delete), and retention.

use std::time::Duration;

use threadq::internals::queue::{Changed, DueStep, Quarantine, Settled};
use threadq::job::{JobId, NewJob, Start, Status};

use crate::fixture::*;
use crate::invariants::{assert_sound, find_strays};

fn unknown() -> JobId {
    JobId::new(7).unwrap()
}

fn completed_job(place: &Place) -> JobId {
    let server = place.server();
    let id = place.submit();
    let lease = place.take_one(&server);
    assert_eq!(place.settle(&server, &completed(lease)), Settled::Now(Status::Completed));
    id
}

fn failed_job(place: &Place) -> JobId {
    let server = place.server();
    let id = place.submit();
    let lease = place.take_one(&server);
    assert_eq!(place.settle(&server, &buried(lease)), Settled::Now(Status::Failed));
    id
}

#[test]
fn whatever_waits_is_cancelled_at_once() {
    let place = Place::new();
    let a = place.server();
    let (queued, delayed, retrying) = (place.submit(), place.submit_delayed(), place.submit());
    let (suspect, found) = (place.submit_suspect(), place.submit_crashed(MAX_CRASHES - 1));
    place.try_take(&a, 2, Quarantine::Skip, None).unwrap().jobs.into_iter().for_each(|(lease, job)| {
        let settlement = if job.id == queued { released(lease) } else { retried(lease) };
        place.settle(&a, &settlement);
    });
    assert_eq!(place.status(retrying), Status::Retrying);
    for id in [queued, delayed, retrying, suspect, found] {
        assert_eq!(place.cancel(id), Changed::Done);
        assert_eq!((place.status(id), place.handles(id)), (Status::Cancelled, vec!["done".to_owned()]));
        assert_eq!(place.cancel(id), Changed::WrongStatus);
        assert_sound(&place);
    }
    assert_eq!(place.cancel(unknown()), Changed::Missing);
    assert_eq!(place.keys().iter().filter(|key| *key == "job:7").count(), 0);
}

#[test]
fn a_running_job_is_asked_to_stop_and_its_server_told() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let lease = place.take_one(&a);
    assert_eq!(place.cancel(id), Changed::Requested(a.to_string()));
    assert_eq!(place.cancel(id), Changed::Requested(a.to_string()));
    assert_eq!((place.status(id), place.handles(id)), (Status::Processing, vec![in_progress(&a)]));
    assert_eq!(place.queue.heartbeat(&a, 1, 8, &[]).unwrap().cancels, [id]);
    assert_sound(&place);
    place.settle(&a, &released(lease));
    assert_eq!(place.queue.heartbeat(&a, 0, 8, &[]).unwrap().cancels, []);
    assert_sound(&place);
}

#[test]
fn what_has_ended_cannot_be_cancelled() {
    let place = Place::new();
    for id in [completed_job(&place), failed_job(&place)] {
        let status = place.status(id);
        assert_eq!(place.cancel(id), Changed::WrongStatus);
        assert_eq!(place.status(id), status);
    }
    assert_sound(&place);
}

#[test]
fn only_failed_and_cancelled_jobs_are_sent_back() {
    let place = Place::new();
    let a = place.server();
    let (queued, running, delayed) = (place.submit(), place.submit(), place.submit_delayed());
    let mut taken = place.take(&a, 2);
    place.settle(&a, &released(taken.remove(0).0));
    let (done, failed, cancelled) = {
        let id = place.submit();
        place.cancel(id);
        let _: i64 = place.redis("LREM", "work_queue:default", &["0", &queued.to_string()]);
        let made = (completed_job(&place), failed_job(&place), id);
        let _: i64 = place.redis("RPUSH", "work_queue:default", &[&queued.to_string()]);
        made
    };
    for id in [queued, running, delayed, done] {
        assert_eq!(place.queue.retry(&[id], &[]).unwrap(), [Changed::WrongStatus]);
    }
    assert_eq!(place.queue.retry(&[unknown()], &[]).unwrap(), [Changed::Missing]);
    assert_eq!(place.queue.retry(&[cancelled], &[Status::Failed]).unwrap(), [Changed::WrongStatus]);
    assert_eq!(place.queue.retry(&[failed], &[Status::Cancelled]).unwrap(), [Changed::WrongStatus]);
    assert_sound(&place);
    assert_eq!(
        place.queue.retry(&[failed, done, cancelled], &[]).unwrap(),
        [Changed::Done, Changed::WrongStatus, Changed::Done]
    );
    assert_sound(&place);
    for id in [failed, cancelled] {
        assert_eq!(place.job(id).attempts, 0);
        assert_eq!(
            (place.status(id), place.handles(id)),
            (Status::Queued, vec!["work_queue:default".to_owned()])
        );
    }
}

#[test]
fn a_job_that_is_sent_back_is_as_new() {
    let place = Place::new();
    let id = place.submit();
    for _ in 0..MAX_CRASHES {
        let server = place.server();
        let _lease = place.take_one(&server);
        place.dies(&server);
    }
    assert_eq!(place.status(id), Status::Failed);
    place.queue.retry(&[id], &[Status::Failed]).unwrap();
    let job = place.job(id);
    assert_eq!((job.attempts, job.crashes, job.finished_at_ms, job.server), (0, 0, None, None));
    assert_eq!(place.handles(id), ["work_queue:default"]);
    assert_sound(&place);
    // A result from before the retry is stale.
    let a = place.server();
    let lease = place.take_one(&a);
    assert_eq!(place.job(id).starts, u64::from(MAX_CRASHES) + 1);
    place.settle(&a, &completed(lease));
    assert_sound(&place);
}

#[test]
fn a_job_sent_back_while_its_old_entry_is_in_a_fetchers_hand_runs_once() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let id = place.submit();
    let fetched = place.fetch(&a);
    place.cancel(id);
    place.queue.retry(&[id], &[]).unwrap();
    assert_eq!(find_strays(&place).len(), 1);
    let lease = place.take_one(&b);
    assert!(place.try_take(&a, 1, Quarantine::Start, Some(&fetched)).unwrap().jobs.is_empty());
    assert_sound(&place);
    assert_eq!(place.settle(&b, &completed(lease)), Settled::Now(Status::Completed));
    assert_sound(&place);
}

#[test]
fn a_unique_key_is_taken_back_when_its_job_is_sent_back() {
    let place = Place::new();
    let keyed = |place: &Place| place.submit_with(|job| job.unique_key = Some("u".to_owned()));
    let first = keyed(&place);
    place.cancel(first);
    let second = keyed(&place);
    assert_eq!(place.queue.retry(&[first], &[]).unwrap(), [Changed::Duplicate(second)]);
    assert_eq!(place.status(first), Status::Cancelled);
    assert_sound(&place);
    place.cancel(second);
    assert_eq!(place.queue.retry(&[first], &[]).unwrap(), [Changed::Done]);
    assert_sound(&place);
    assert_eq!(place.queue.retry(&[second], &[]).unwrap(), [Changed::Duplicate(first)]);
    // A job without a record does not hold a unique key.
    place.cancel(first);
    let _: () = place.redis("SET", "unique:u", &["7"]);
    assert_eq!(place.queue.retry(&[second], &[]).unwrap(), [Changed::Done]);
    assert_sound(&place);
    // A job that has ended does not hold a unique key either.
    place.cancel(second);
    let _: () = place.redis("SET", "unique:u", &[&first.to_string()]);
    assert_eq!(place.queue.retry(&[second], &[]).unwrap(), [Changed::Done]);
    assert_sound(&place);
}

#[test]
fn an_old_job_does_not_release_another_ones_key() {
    let place = Place::new();
    let a = place.server();
    let first = place.submit_with(|job| job.unique_key = Some("u".to_owned()));
    let lease = place.take_one(&a);
    // Meanwhile the key belongs to another job.
    let _: () = place.redis("SET", "unique:u", &["7"]);
    place.settle(&a, &completed(lease));
    assert_eq!(place.status(first), Status::Completed);
    assert_eq!(place.redis::<String>("GET", "unique:u", &[]), "7");
}

#[test]
fn only_what_has_ended_is_deleted() {
    let place = Place::new();
    let a = place.server();
    let (done, failed, cancelled) = (completed_job(&place), failed_job(&place), place.submit());
    place.cancel(cancelled);
    let (running, queued, delayed) = (place.submit(), place.submit(), place.submit_delayed());
    let _lease = place.take_one(&a);
    for id in [running, queued, delayed] {
        assert_eq!(place.queue.delete(&[id], &[]).unwrap(), [Changed::WrongStatus]);
    }
    assert_eq!(
        place.queue.delete(&[done, cancelled], &[Status::Failed]).unwrap(),
        [Changed::WrongStatus, Changed::WrongStatus]
    );
    assert_eq!(place.queue.delete(&[unknown()], &[]).unwrap(), [Changed::Missing]);
    assert_sound(&place);
    assert_eq!(place.queue.delete(&[failed], &[Status::Failed]).unwrap(), [Changed::Done]);
    assert_eq!(place.queue.delete(&[done, cancelled], &[]).unwrap(), [Changed::Done, Changed::Done]);
    for id in [done, failed, cancelled] {
        assert!(place.queue.get(id).unwrap().is_none());
        // The list of completed jobs keeps the entry of a deleted job until the entry is the oldest one.
        assert_eq!(place.handles(id), if id == done { vec!["completed"] } else { vec![] });
    }
    assert!(place.queue.delete_old_jobs(false, Duration::from_secs(3600), 100).unwrap());
    assert!(place.handles(done).is_empty());
    assert_sound(&place);
}

#[test]
fn retention_forgets_what_is_too_old() {
    let place = Place::new();
    let (old, new, failed) = (completed_job(&place), completed_job(&place), failed_job(&place));
    let _: i64 = place.redis("HSET", &format!("job:{old}"), &["finished_at", "1000"]);
    let hour = Duration::from_secs(3600);
    assert!(place.queue.delete_old_jobs(false, hour, 100).unwrap());
    assert!(!place.queue.delete_old_jobs(false, hour, 100).unwrap());
    assert!(!place.queue.delete_old_jobs(true, hour, 100).unwrap());
    assert!(place.queue.get(old).unwrap().is_none());
    assert!(place.queue.get(new).unwrap().is_some() && place.queue.get(failed).unwrap().is_some());
    assert_sound(&place);
}

#[test]
fn retention_forgets_what_is_too_many_oldest_first() {
    let place = Place::new();
    let done: Vec<JobId> = (0..5).map(|_| completed_job(&place)).collect();
    let failed: Vec<JobId> = (0..3).map(|_| failed_job(&place)).collect();
    let hour = Duration::from_secs(3600);
    assert!(place.queue.delete_old_jobs(false, hour, 2).unwrap());
    assert!(!place.queue.delete_old_jobs(false, hour, 2).unwrap());
    assert!(place.queue.delete_old_jobs(true, hour, 1).unwrap());
    let kept = |ids: &[JobId]| ids.iter().filter(|id| place.queue.get(**id).unwrap().is_some()).count();
    assert_eq!((kept(&done), kept(&failed)), (2, 1));
    assert_eq!((kept(&done[3..]), kept(&failed[2..])), (2, 1));
    assert_sound(&place);
}

#[test]
fn retention_of_more_jobs_than_one_step_reads_keeps_the_order_of_the_ends() {
    let place = Place::new();
    let server = place.server();
    // One step of retention reads 200 entries.
    let done = place.submit_many(205);
    let leases: Vec<_> = place.take(&server, 205).into_iter().map(|(lease, _)| completed(lease)).collect();
    place.queue.settle(&server, &leases).unwrap();
    let cancelled = place.submit_many(10);
    cancelled.iter().for_each(|id| _ = place.cancel(*id));
    for (i, id) in cancelled.iter().enumerate() {
        // Redis may have cancelled them in the millisecond of the completions.
        let later = (place.job(*id).finished_at_ms.unwrap() + 1 + i as u64).to_string();
        let _: i64 = place.redis("HSET", &format!("job:{id}"), &["finished_at", &later]);
        let _: i64 = place.redis("ZADD", "done", &[&later, &id.to_string()]);
    }
    let hour = Duration::from_secs(3600);
    while place.queue.delete_old_jobs(false, hour, 12).unwrap() {}
    let kept = |ids: &[JobId]| ids.iter().filter(|id| place.queue.get(**id).unwrap().is_some()).count();
    assert_eq!((kept(&done), kept(&done[203..]), kept(&cancelled)), (2, 2, 10));
    assert_sound(&place);
}

#[test]
fn a_completed_job_without_the_time_of_its_end_does_not_stop_retention() {
    let place = Place::new();
    let jobs: Vec<JobId> = (0..3).map(|_| completed_job(&place)).collect();
    let _: i64 = place.redis("HSET", &format!("job:{}", jobs[0]), &["finished_at", "x"]);
    let _: i64 = place.redis("HDEL", &format!("job:{}", jobs[1]), &["finished_at"]);
    assert!(place.queue.delete_old_jobs(false, Duration::from_secs(3600), 100).unwrap());
    let kept: Vec<bool> = jobs.iter().map(|id| place.queue.get(*id).unwrap().is_some()).collect();
    assert_eq!(kept, [false, false, true]);
    assert_sound(&place);
}

#[test]
fn retention_ends_although_completed_jobs_are_in_no_list() {
    let place = Place::new();
    let id = completed_job(&place);
    let _: i64 = place.redis("DEL", "completed", &[]);
    assert!(!place.queue.delete_old_jobs(false, Duration::from_secs(3600), 0).unwrap());
    assert_eq!(place.status(id), Status::Completed);
}

#[test]
fn retention_never_forgets_a_job_that_lives() {
    let place = Place::new();
    let live = place.submit();
    let failed = failed_job_beside(&place);
    for (key, id) in [("done", live), ("dlq_queue", live)] {
        let _: i64 = place.redis("ZADD", key, &["1000", &id.to_string()]);
    }
    let _: i64 = place.redis("RPUSH", "completed", &[&live.to_string()]);
    assert!(place.queue.delete_old_jobs(false, Duration::from_secs(1), 0).unwrap());
    assert!(place.queue.delete_old_jobs(true, Duration::from_secs(1), 1).unwrap());
    assert_eq!(place.status(live), Status::Queued);
    assert_eq!(place.status(failed), Status::Failed);
    assert_sound(&place);
}

/// Makes a failed job without starting the waiting jobs.
fn failed_job_beside(place: &Place) -> JobId {
    let server = place.server();
    let id = place.submit_with(|job| job.queue = "beside".to_owned());
    let shares = [threadq::internals::queue::Share { queue: "beside".to_owned(), jobs: 1 }];
    let taken = place.queue.start_jobs(&server, &shares, Quarantine::Skip, 3, None).unwrap();
    for (lease, _) in taken.jobs {
        place.settle(&server, &buried(lease));
    }
    id
}

#[test]
fn a_parked_job_is_promoted_when_it_is_due_and_once() {
    let place = Place::new();
    let later = place.submit_delayed();
    let due = place.submit_delayed();
    place.make_due(due);
    let DueStep { moved, next, .. } = place.queue.work_off_due(MAX_CRASHES).unwrap();
    assert_eq!(moved, 1);
    assert!(next.unwrap() > Duration::from_secs(3500), "{next:?}");
    assert_eq!((place.status(due), place.status(later)), (Status::Queued, Status::Scheduled));
    assert_eq!(place.queue.work_off_due(MAX_CRASHES).unwrap().moved, 0);
    assert_sound(&place);
}

#[test]
fn due_jobs_start_after_the_jobs_that_wait_and_in_the_order_of_their_times() {
    let place = Place::new();
    let a = place.server();
    let (waiting, first, second) = (place.submit(), place.submit_delayed(), place.submit_delayed());
    for (id, due) in [(first, "1"), (second, "2")] {
        let _: i64 = place.redis("ZADD", "scheduled", &[due, &id.to_string()]);
    }
    place.queue.work_off_due(MAX_CRASHES).unwrap();
    assert_eq!(ids(&place.take(&a, 3)), [waiting, first, second]);
}

#[test]
fn when_more_jobs_are_due_than_one_step_moves_the_next_one_is_due_at_once() {
    let place = Place::new();
    // One step moves 200 jobs.
    let jobs = vec![NewJob { start: Start::AfterMs(3_600_000), ..NewJob::new("t") }; 201];
    place.try_submit(&jobs).unwrap().ids().for_each(|id| place.make_due(id));
    let step = place.queue.work_off_due(MAX_CRASHES).unwrap();
    assert_eq!((step.moved, step.next), (200, Some(Duration::ZERO)));
    let step = place.queue.work_off_due(MAX_CRASHES).unwrap();
    assert_eq!((step.moved, step.next), (1, None));
}

#[test]
fn only_a_job_that_waits_for_its_time_is_promoted() {
    let place = Place::new();
    let a = place.server();
    let (running, done) = (place.submit(), place.submit());
    let mut taken = place.take(&a, 2);
    let lease = taken.pop().unwrap().0;
    place.settle(&a, &completed(lease));
    let queued = place.submit();
    for id in [running, done, queued] {
        let _: i64 = place.redis("ZADD", "scheduled", &["1", &id.to_string()]);
    }
    let step = place.queue.work_off_due(MAX_CRASHES).unwrap();
    assert_eq!((step.moved, step.next), (0, None));
    assert_eq!(place.handles(running), [in_progress(&a)]);
    assert_eq!(place.handles(done), ["completed"]);
    assert_eq!(place.handles(queued), ["work_queue:default"]);
    assert_eq!(place.redis::<i64>("ZCARD", "lost", &[]), 0);
    assert_sound(&place);
}

#[test]
fn a_retried_job_keeps_nothing_of_its_last_attempt() {
    const FIELDS: [&str; 4] = ["server", "started_at", "scheduled_at", "cancel"];
    let place = Place::new();
    let id = failed_job(&place);
    let job = format!("job:{id}");
    for field in FIELDS {
        let _: i64 = place.redis("HSET", &job, &[field, "1"]);
    }
    place.queue.retry(&[id], &[]).unwrap();
    let kept: Vec<Option<String>> = place.redis("HMGET", &job, &FIELDS);
    assert_eq!(kept, [None, None, None, None]);
    assert_sound(&place);
}
