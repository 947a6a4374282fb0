//! Settling: only the holder of the attempt's fencing token settles a job, and only once.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::value::RawValue;
use threadq::internals::queue::{Quarantine, Settled, Settlement, Share, Verdict};
use threadq::job::Status;

use crate::fixture::*;
use crate::invariants::assert_sound;

#[test]
fn a_late_result_changes_nothing_while_someone_else_runs_the_job() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let id = place.submit();
    let late = completed(place.take_one(&a));
    place.dies(&a);
    let lease = place.take_one(&b);
    assert_eq!(place.settle(&a, &late), Settled::Stale);
    // The same under the server's new name.
    assert_eq!(place.settle(&b, &late), Settled::Stale);
    assert_eq!((place.status(id), place.handles(id)), (Status::Processing, vec![in_progress(&b)]));
    assert_eq!(place.settle(&b, &completed(lease)), Settled::Now(Status::Completed));
    assert_eq!(place.settle(&a, &late), Settled::Stale);
    assert_eq!(place.handles(id), ["completed"]);
    assert_sound(&place);
}

#[test]
fn a_late_result_changes_nothing_once_its_job_was_put_back() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let late = completed(place.take_one(&a));
    assert_eq!(place.queue.recover(&a, &[id.to_string().into()]).unwrap(), 1);
    assert_eq!(place.job(id).server, None);
    assert_eq!(place.settle(&a, &late), Settled::Stale);
    assert_eq!(place.handles(id), ["work_queue:default"]);
    assert_sound(&place);
}

#[test]
fn a_late_failure_changes_nothing_while_someone_else_runs_the_job() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let id = place.submit();
    let late = retried(place.take_one(&a));
    place.dies(&a);
    let _lease = place.take_one(&b);
    assert_eq!(place.settle(&a, &late), Settled::Stale);
    assert_eq!((place.job(id).attempts, place.handles(id)), (0, vec![in_progress(&b)]));
    assert_sound(&place);
}

#[test]
fn a_late_result_changes_nothing_while_the_job_waits_again() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let late = completed(place.take_one(&a));
    place.dies(&a);
    assert_eq!(place.settle(&a, &late), Settled::Stale);
    assert_eq!((place.status(id), place.handles(id)), (Status::Queued, vec!["work_queue:default".into()]));
    assert_sound(&place);
}

#[test]
fn a_servers_own_earlier_attempt_is_late_too() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let lease = place.take_one(&a);
    place.settle(
        &a,
        &Settlement {
            lease,
            verdict: Verdict::Retry { error: "no".to_owned(), delay: Duration::ZERO, throttle: None },
        },
    );
    place.make_due(id);
    place.queue.work_off_due(3).unwrap();
    let first = place.take_one(&a);
    assert_eq!(place.queue.recover(&a, &[id.to_string().into()]).unwrap(), 1);
    let second = place.take_one(&a);
    assert_eq!(place.settle(&a, &buried(first)), Settled::Stale);
    assert_eq!(place.settle(&a, &completed(second)), Settled::Now(Status::Completed));
    assert_sound(&place);
}

#[test]
fn a_result_sent_twice_counts_once() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let done = completed(place.take_one(&a));
    assert_eq!(place.settle(&a, &done), Settled::Now(Status::Completed));
    let job = place.job(id);
    assert_eq!(place.settle(&a, &done), Settled::Repeated);
    assert_eq!(place.job(id).finished_at_ms, job.finished_at_ms);
    assert_eq!((place.job(id).attempts, place.handles(id)), (1, vec!["completed".to_owned()]));
    assert_eq!(place.job(id).result.unwrap().get(), "1");
    assert_sound(&place);
}

#[test]
fn a_failure_sent_twice_counts_once_even_after_its_backoff() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let failure = retried(place.take_one(&a));
    assert_eq!(place.settle(&a, &failure), Settled::Now(Status::Retrying));
    assert_eq!(place.settle(&a, &failure), Settled::Repeated);
    assert_eq!((place.job(id).attempts, place.handles(id)), (1, vec!["scheduled".to_owned()]));
    assert_sound(&place);
    place.make_due(id);
    let step = place.queue.work_off_due(3).unwrap();
    assert_eq!((step.moved, step.next), (1, None));
    assert_eq!(place.settle(&a, &failure), Settled::Repeated);
    assert_eq!((place.job(id).attempts, place.handles(id)), (1, vec!["work_queue:default".to_owned()]));
    assert_sound(&place);
}

#[test]
fn a_burial_sent_twice_counts_once() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let failure = buried(place.take_one(&a));
    assert_eq!(place.settle(&a, &failure), Settled::Now(Status::Failed));
    assert_eq!(place.settle(&a, &failure), Settled::Repeated);
    let job = place.job(id);
    assert_eq!((job.attempts, job.errors.len(), place.handles(id)), (1, 1, vec!["dlq_queue".to_owned()]));
    assert_sound(&place);
}

#[test]
fn a_release_sent_twice_puts_the_job_back_once() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let back = released(place.take_one(&a));
    assert_eq!(place.settle(&a, &back), Settled::Now(Status::Queued));
    assert_eq!(place.settle(&a, &back), Settled::Stale);
    assert_eq!((place.job(id).attempts, place.handles(id)), (0, vec!["work_queue:default".to_owned()]));
    assert_sound(&place);
}

#[test]
fn a_released_job_is_the_next_to_start() {
    let place = Place::new();
    let a = place.server();
    let submitted = place.submit_many(3);
    let lease = place.take_one(&a);
    place.settle(&a, &released(lease));
    assert_eq!(ids(&place.take(&a, 3)), submitted);
}

#[test]
fn a_released_suspect_stays_one() {
    let place = Place::new();
    let a = place.server();
    let (id, other) = (place.submit_suspect(), place.submit());
    let lease = place.take_one(&a);
    place.settle(&a, &released(lease));
    assert_sound(&place);
    assert_eq!(ids(&place.try_take(&a, 9, Quarantine::Reserve, None).unwrap().jobs), [other]);
    assert_eq!(place.handles(id), ["work_queue:default:suspects"]);
    assert_sound(&place);
}

#[test]
fn the_last_attempt_ends_in_the_dead_letter_queue() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit_with(|job| job.max_attempts = 2);
    let lease = place.take_one(&a);
    assert_eq!(place.settle(&a, &retried(lease)), Settled::Now(Status::Retrying));
    place.make_due(id);
    place.queue.work_off_due(3).unwrap();
    let lease = place.take_one(&a);
    assert_eq!(place.settle(&a, &retried(lease)), Settled::Now(Status::Failed));
    let attempts: Vec<u32> = place.job(id).errors.iter().map(|error| error.attempt).collect();
    assert_eq!((attempts, place.handles(id)), (vec![1, 2], vec!["dlq_queue".to_owned()]));
    assert_sound(&place);
}

#[test]
fn one_call_settles_each_attempt_by_itself() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let submitted = place.submit_many(5);
    let foreign = place.take_one(&b);
    let mut leases = place.take(&a, 4).into_iter().map(|(lease, _)| lease);
    let settlements = [
        completed(foreign),
        completed(leases.next().unwrap()),
        retried(leases.next().unwrap()),
        buried(leases.next().unwrap()),
        released(leases.next().unwrap()),
    ];
    let answers = place.queue.settle(&a, &settlements).unwrap().results;
    let now = [Status::Completed, Status::Retrying, Status::Failed, Status::Queued].map(Settled::Now);
    assert_eq!(answers[0], Settled::Stale);
    assert_eq!(answers[1..], now);
    assert_eq!(place.status(submitted[0]), Status::Processing);
    assert_sound(&place);
}

#[test]
fn only_the_last_ten_errors_are_kept() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit_with(|job| job.max_attempts = 100);
    let mut lease = place.take_one(&a);
    for n in 1..=13 {
        place.queue.retry_inline(&a, &mut lease, &format!("line\nbreak {n}"), Duration::ZERO).unwrap();
    }
    let errors = place.job(id).errors;
    let attempts: Vec<u32> = errors.iter().map(|error| error.attempt).collect();
    assert_eq!(attempts, (4..=13).collect::<Vec<_>>());
    assert_eq!(errors[9].message, "line\nbreak 13");
}

#[test]
fn an_attempt_that_starts_again_has_a_new_token_and_stays_where_it_is() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let mut lease = place.take_one(&a);
    assert_eq!(
        place.queue.retry_inline(&a, &mut lease, "no", Duration::ZERO).unwrap(),
        Settled::Now(Status::Processing)
    );
    let job = place.job(id);
    assert_eq!((job.attempts, job.starts, job.status), (1, 2, Status::Processing));
    assert_eq!(place.handles(id), [in_progress(&a)]);
    assert_sound(&place);
    assert_eq!(place.settle(&a, &completed(lease)), Settled::Now(Status::Completed));
    assert_eq!(place.job(id).attempts, 2);
    assert_sound(&place);
}

#[test]
fn the_last_attempt_does_not_start_again() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit_with(|job| job.max_attempts = 1);
    let mut lease = place.take_one(&a);
    assert_eq!(
        place.queue.retry_inline(&a, &mut lease, "no", Duration::ZERO).unwrap(),
        Settled::Now(Status::Failed)
    );
    assert_eq!(place.handles(id), ["dlq_queue"]);
    assert_sound(&place);
}

#[test]
fn a_late_attempt_does_not_start_again() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let id = place.submit();
    let mut late = place.take_one(&a);
    place.dies(&a);
    assert_eq!(place.queue.retry_inline(&a, &mut late, "no", Duration::ZERO).unwrap(), Settled::Stale);
    let _lease = place.take_one(&b);
    assert_eq!(place.queue.retry_inline(&a, &mut late, "no", Duration::ZERO).unwrap(), Settled::Stale);
    assert_eq!(place.job(id).attempts, 0);
    assert_sound(&place);
}

#[test]
fn a_job_that_was_asked_to_stop_is_cancelled_however_it_fails() {
    let place = Place::new();
    let a = place.server();
    for (settlement, attempts) in [(retried as fn(_) -> _, 1), (buried, 1), (released, 0)] {
        let id = place.submit();
        let lease = place.take_one(&a);
        place.cancel(id);
        assert_sound(&place);
        assert_eq!(place.settle(&a, &settlement(lease)), Settled::Now(Status::Cancelled));
        assert_eq!((place.job(id).attempts, place.handles(id)), (attempts, vec!["done".to_owned()]));
        assert_sound(&place);
    }
    let id = place.submit();
    let mut lease = place.take_one(&a);
    place.cancel(id);
    assert_eq!(
        place.queue.retry_inline(&a, &mut lease, "no", Duration::ZERO).unwrap(),
        Settled::Now(Status::Cancelled)
    );
    assert_sound(&place);
}

#[test]
fn a_job_that_completes_before_it_hears_of_the_cancel_is_completed() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let lease = place.take_one(&a);
    place.cancel(id);
    assert_eq!(place.settle(&a, &completed(lease)), Settled::Now(Status::Completed));
    assert_eq!(place.queue.heartbeat(&a, 0, 8, &[]).unwrap().cancels, []);
    assert_sound(&place);
}

#[test]
fn a_job_whose_record_is_gone_settles_as_late() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let lease = place.take_one(&a);
    let _: i64 = place.redis("DEL", &format!("job:{id}"), &[]);
    assert_eq!(place.settle(&a, &completed(lease)), Settled::Stale);
    assert_eq!(place.redis::<i64>("EXISTS", &format!("job:{id}"), &[]), 0);
}

#[test]
fn a_release_is_no_error() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    place.settle(&a, &released(place.take_one(&a)));
    let errors: Option<String> = place.redis("HGET", &format!("job:{id}"), &["errors"]);
    assert_eq!(errors, None);
    assert_sound(&place);
}

#[test]
fn a_paused_queue_holds_what_would_start_again() {
    let place = Place::new();
    let a = place.server();
    let delay = Duration::from_secs(3600);
    for has_queue in [true, false] {
        let id = place.submit();
        let mut lease = place.take_one(&a);
        if !has_queue {
            let _: i64 = place.redis("HDEL", &format!("job:{id}"), &["queue"]);
        }
        place.queue.set_paused("other", true).unwrap();
        let again = |lease: &mut _| place.queue.retry_inline(&a, lease, "no", delay).unwrap();
        assert_eq!(again(&mut lease), Settled::Now(Status::Processing), "another queue is paused");
        assert!(!place.queue.is_paused("default").unwrap());
        place.queue.set_paused("default", true).unwrap();
        assert!(place.queue.is_paused("default").unwrap());
        assert_eq!(again(&mut lease), Settled::Now(Status::Retrying));
        assert_eq!((place.job(id).attempts, place.handles(id)), (2, vec!["scheduled".to_owned()]));
        assert_eq!(again(&mut lease), Settled::Repeated, "its lease has ended");
        assert_eq!(place.queue.work_off_due(3).unwrap().moved, 0, "after its backoff");
        place.make_due(id);
        assert_eq!(place.queue.work_off_due(3).unwrap().moved, 1);
        assert!(place.take(&a, 1).is_empty());
        assert_eq!(
            (place.status(id), place.handles(id)),
            (Status::Queued, vec!["work_queue:default".to_owned()])
        );
        place.queue.set_paused("default", false).unwrap();
        let lease = place.take_one(&a);
        assert_eq!(place.settle(&a, &completed(lease)), Settled::Now(Status::Completed));
    }
    assert_sound(&place);
}

#[test]
fn a_retry_on_the_same_worker_heeds_the_pause_of_its_own_queue() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit_with(|job| job.queue = "mail".to_owned());
    let shares = [Share { queue: "mail".to_owned(), jobs: 1 }];
    let taken = place.queue.start_jobs(&a, &shares, Quarantine::Skip, 3, None).unwrap();
    let (mut lease, _) = taken.jobs.into_iter().next().unwrap();
    place.queue.set_paused("default", true).unwrap();
    let settled = place.queue.retry_inline(&a, &mut lease, "no", Duration::ZERO).unwrap();
    assert_eq!(settled, Settled::Now(Status::Processing), "the queue mail is not paused");
    place.queue.set_paused("mail", true).unwrap();
    let settled = place.queue.retry_inline(&a, &mut lease, "no", Duration::ZERO).unwrap();
    assert_eq!((settled, place.status(id)), (Settled::Now(Status::Retrying), Status::Retrying));
    assert_sound(&place);
}

#[test]
fn the_cancellation_of_a_job_cancels_no_other_job_of_its_server() {
    let place = Place::new();
    let a = place.server();
    place.submit_many(2);
    let mut taken = place.take(&a, 2).into_iter();
    let ((first, cancelled_job), (second, other_job)) = (taken.next().unwrap(), taken.next().unwrap());
    place.cancel(cancelled_job.id);
    assert_eq!(place.settle(&a, &retried(second)), Settled::Now(Status::Retrying));
    assert_eq!(place.settle(&a, &retried(first)), Settled::Now(Status::Cancelled));
    assert_eq!(place.status(other_job.id), Status::Retrying);
    assert_sound(&place);
}

#[test]
fn a_retry_on_the_same_worker_has_its_own_start_time() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let mut lease = place.take_one(&a);
    let _: i64 = place.redis("HSET", &format!("job:{id}"), &["started_at", "1"]);
    place.queue.retry_inline(&a, &mut lease, "no", Duration::ZERO).unwrap();
    let started_at: String = place.redis("HGET", &format!("job:{id}"), &["started_at"]);
    assert!(started_at.len() > 10, "{started_at}");
}

#[test]
fn a_record_leaves_out_the_first_attempt_of_a_completed_job_and_the_result_null() {
    let place = Place::new();
    let server = place.server();
    let id = place.submit();
    let settlement = |lease, result: &str| Settlement {
        lease,
        verdict: Verdict::Complete(RawValue::from_string(result.to_owned()).unwrap()),
    };
    place.settle(&server, &settlement(place.take_one(&server), "null"));
    let record: HashMap<String, String> = place.redis("HGETALL", &format!("job:{id}"), &[]);
    assert!(!record.contains_key("attempts") && !record.contains_key("result"), "{record:?}");
    assert_eq!((place.job(id).attempts, place.job(id).result.is_none()), (1, true));
    // A job that failed first has both of its attempts.
    let id = place.submit();
    place.settle(&server, &retried(place.take_one(&server)));
    place.make_due(id);
    place.queue.work_off_due(3).unwrap();
    place.settle(&server, &settlement(place.take_one(&server), "[]"));
    assert_eq!((place.job(id).attempts, place.job(id).result.unwrap().get()), (2, "[]"));
    assert_sound(&place);
}

#[test]
fn a_job_that_was_sent_back_completes_with_its_number_of_attempts() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let lease = place.take_one(&a);
    place.settle(&a, &buried(lease));
    place.queue.retry(&[id], &[]).unwrap();
    let lease = place.take_one(&a);
    place.settle(&a, &completed(lease));
    assert_eq!(place.job(id).attempts, 1);
    assert_sound(&place);
}

#[test]
fn a_settlement_of_a_job_that_another_call_has_cancelled_is_late() {
    let place = Place::new();
    let a = place.server();
    for declare_dead in [false, true] {
        let id = place.submit();
        let lease = place.take_one(&a);
        place.cancel(id);
        if declare_dead {
            place.dies(&a);
        } else {
            place.queue.recover(&a, &[id.to_string().into()]).unwrap();
        }
        assert_eq!(place.settle(&a, &completed(lease)), Settled::Stale);
        assert_eq!(place.status(id), Status::Cancelled);
        assert_sound(&place);
    }
}
