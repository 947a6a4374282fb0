//! Job records that were damaged from outside, one field at a time. No such record ends a script half-way, and the
//! other jobs of the same call are done.

use std::time::Duration;

use serde_json::Value;
use threadq::internals::queue::{
    Filter, Lease, Position, Quarantine, ServerId, Settled, Settlement, StartedJobs, Verdict,
};
use threadq::job::{Expiry, Extras, JobId, Status};

use crate::fixture::{Place, buried, completed, ids, in_progress, released, retried};

/// The fields of a record that the scripts read, besides the status.
const FIELDS: [&str; 9] = [
    "type",
    "queue",
    "payload",
    "max_attempts",
    "timeout_ms",
    "attempts",
    "crashes",
    "starts",
    "scheduled_at",
];

/// Calls `work` for each possible damage, with a function that damages a job's record.
fn with_each_damage(work: impl Fn(&Place, &ServerId, &dyn Fn(JobId))) {
    let place = Place::new();
    for field in FIELDS {
        for text in [None, Some("x"), Some(""), Some("1e400"), Some("18446744073709551615")] {
            eprintln!("{field} is {text:?}");
            let server = place.server();
            work(&place, &server, &|id| {
                let record = format!("job:{id}");
                let _: i64 = match text {
                    None => place.redis("HDEL", &record, &[field]),
                    Some(text) => place.redis("HSET", &record, &[field, text]),
                };
            });
            let left: i64 = place.redis("LLEN", &in_progress(&server), &[]);
            assert_eq!(left, 0, "nothing is left in progress");
        }
    }
}

/// Completes readable jobs, and fails unreadable jobs.
fn settle_all(place: &Place, server: &ServerId, taken: StartedJobs) {
    let mut settlements: Vec<_> = taken.broken.into_iter().map(|broken| buried(broken.lease)).collect();
    settlements.extend(taken.jobs.into_iter().map(|(lease, _)| completed(lease)));
    for settled in place.queue.settle(server, &settlements).unwrap().results {
        assert!(matches!(settled, Settled::Now(Status::Completed | Status::Failed)), "{settled:?}");
    }
}

#[test]
fn a_damaged_job_that_waits_is_run_or_failed_and_the_others_run() {
    with_each_damage(|place, server, damage| {
        let (bad, good) = (place.submit(), place.submit());
        damage(bad);
        // A damaged number of crashes may make the job run alone.
        for _ in 0..2 {
            settle_all(place, server, place.try_take(server, 2, Quarantine::Start, None).unwrap());
        }
        assert_eq!(place.status(good), Status::Completed);
    });
}

#[test]
fn a_job_that_is_damaged_while_it_runs_ends_and_the_others_too() {
    with_each_damage(|place, server, damage| {
        let (bad, good) = (place.submit(), place.submit());
        let mut taken = place.take(server, 2);
        damage(bad);
        let (good_lease, _) = taken.pop().unwrap();
        let (bad_lease, _) = taken.pop().unwrap();
        let settled =
            place.queue.settle(server, &[retried(bad_lease), completed(good_lease)]).unwrap().results;
        assert_eq!(settled[1], Settled::Now(Status::Completed));
        assert_eq!(place.status(good), Status::Completed);
        if settled[0] == Settled::Stale {
            // The job has no token any more, so it is recovered like a job whose claim was lost.
            let left = place.queue.in_progress_here(server).unwrap();
            place.queue.recover(server, &left).unwrap();
        }
        place.queue.cancel(&[bad], &[]).unwrap();
        place.queue.retry(&[bad], &[]).unwrap();
        place.queue.queues(&[]).unwrap();
        place.queue.cancel(&[bad], &[]).unwrap();
        place.queue.delete(&[bad], &[]).unwrap();
    });
}

#[test]
fn a_damaged_job_of_a_dead_server_goes_on_and_the_others_too() {
    with_each_damage(|place, server, damage| {
        let (bad, good) = (place.submit(), place.submit());
        drop(place.take(server, 2));
        damage(bad);
        place.dies(server);
        assert_eq!(place.status(good), Status::Queued);
        let heir = place.server();
        // A damaged number of crashes may make the job run alone.
        for _ in 0..2 {
            settle_all(place, &heir, place.try_take(&heir, 2, Quarantine::Start, None).unwrap());
        }
        assert_eq!(place.status(good), Status::Completed);
        place.queue.leave(&heir).unwrap();
    });
}

#[test]
fn a_damaged_job_is_shown_with_null_for_what_cannot_be_read() {
    let place = Place::new();
    let (bad, good) = (place.submit(), place.submit());
    let record = format!("job:{bad}");
    let shown = || {
        let job = serde_json::to_value(place.queue.get(bad).unwrap()).unwrap();
        let page = place.queue.list(&Filter::default(), Position::Offset(0), 10).unwrap();
        assert_eq!(page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [good, bad]);
        assert_eq!(serde_json::to_value(&page.jobs[1]).unwrap(), job);
        job
    };
    let whole = shown();
    let fields =
        ["type", "status", "attempts", "max_attempts", "crashes", "timeout_ms", "payload", "started_at"];
    for field in fields {
        let before: Option<String> = place.redis("HGET", &record, &[field]);
        for text in ["{x", "1.5", "-1", "1e400", "18446744073709551616"] {
            if field == "type" || (field == "payload" && text != "{x") {
                continue;
            }
            let _: i64 = place.redis("HSET", &record, &[field, text]);
            let mut expected = whole.clone();
            expected[field] = Value::Null;
            assert_eq!(shown(), expected, "{field} is {text}");
        }
        let _: i64 = place.redis("HDEL", &record, &[field]);
        // A missing field has its default, except these fields.
        let expected = if matches!(field, "type" | "status") { &Value::Null } else { &whole[field] };
        assert_eq!(&shown()[field], expected, "{field} is missing");
        if let Some(before) = before {
            let _: i64 = place.redis("HSET", &record, &[field, &before]);
        }
    }
    assert_eq!(shown(), whole);
}

/// Numbers in the form in which Redis 7.2.0 to 7.2.4 stored them for the scripts of version 0.4.
#[test]
fn a_short_number_is_read_as_what_it_is() {
    let place = Place::new();
    let id = place.submit();
    let _: i64 =
        place.redis("HSET", &format!("job:{id}"), &["started_at", "1.8e+12", "scheduled_at", "1.79e+12"]);
    let job = place.job(id);
    assert_eq!((job.started_at_ms, job.scheduled_at_ms), (Some(1_800_000_000_000), Some(1_790_000_000_000)));
    let a = place.server();
    assert_eq!(ids(&place.take(&a, 1)), [id]);
}

/// The fields of a record that the scripts read only if `ties` names them, and the number of snoozes.
const TIED_FIELDS: [&str; 6] = ["ties", "tags", "expires_at", "retain_ms", "snoozes", "unique_key"];

#[test]
fn a_damaged_field_of_a_tied_job_strands_neither_this_job_nor_the_others() {
    let hour = Duration::from_secs(3600);
    let verdicts: [fn(Lease) -> Settlement; 4] = [completed, retried, released, |lease| Settlement {
        lease,
        verdict: Verdict::Snooze(Duration::from_secs(60)),
    }];
    let place = Place::new();
    for field in TIED_FIELDS {
        for text in ["x", "", "1e400", "nan", "-1", "18446744073709551615"] {
            for settlement in verdicts {
                let server = place.server();
                let extras = Extras {
                    tags: vec!["a".to_owned()],
                    expiry: Some(Expiry::AfterMs(7_200_000)),
                    retain: Some(hour),
                    ..Extras::default()
                };
                let bad = place.submit_with(|job| {
                    job.unique_key = Some("k".to_owned());
                    job.extras = Some(Box::new(extras));
                });
                let good = place.submit();
                let mut leases = place.take(&server, 2).into_iter().map(|(lease, _)| lease);
                let _: i64 = place.redis("HSET", &format!("job:{bad}"), &[field, text]);
                let settlements = [settlement(leases.next().unwrap()), completed(leases.next().unwrap())];
                let settled = place.queue.settle(&server, &settlements);
                assert!(settled.is_ok(), "{field} is {text:?}, {:?}: {settled:?}", settlements[0].verdict);
                assert_eq!(place.status(good), Status::Completed);
                let handles = place.handles(bad);
                assert_eq!(
                    handles.len(),
                    1,
                    "{field} is {text:?}, {:?}: {handles:?}",
                    settlements[0].verdict
                );
                let due = place.queue.work_off_due(3);
                assert!(due.is_ok(), "{field} is {text:?}, {:?}: {due:?}", settlements[0].verdict);
                let change = threadq::job::Change { queue: Some("other".to_owned()), ..Default::default() };
                place.queue.change_waiting(&[bad], &[], &change).unwrap();
                place.queue.cancel(&[bad], &[]).unwrap();
                place.queue.retry(&[bad], &[]).unwrap();
                place.queue.cancel(&[bad], &[]).unwrap();
                place.queue.delete(&[bad], &[]).unwrap();
                place.queue.leave(&server).unwrap();
            }
        }
    }
}
