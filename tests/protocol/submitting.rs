//! Submissions: the stored data, and the refusals.

use std::time::Duration;

use threadq::internals::queue::{Error, Idempotency, Refused, SubmitError};
use threadq::job::{JobId, NewJob, Start, Status};

use serde_json::value::RawValue;
use threadq::internals::queue::{Settlement, Verdict};

use crate::fixture::*;
use crate::invariants::assert_sound;
use crate::lua_proxy::Loses;

fn keyed(key: &str) -> NewJob {
    NewJob { unique_key: Some(key.to_owned()), ..NewJob::new("t") }
}

fn request(key: &str, fingerprint: &str) -> Idempotency {
    Idempotency { key: key.to_owned(), fingerprint: fingerprint.to_owned() }
}

/// A job that enqueue_plain.lua stores, and a job that enqueue.lua stores.
fn of_both_scripts() -> [NewJob; 2] {
    [NewJob::new("t"), NewJob { start: Start::AfterMs(3_600_000), ..NewJob::new("t") }]
}

#[test]
fn ids_grow_even_where_the_clock_goes_back() {
    for job in of_both_scripts() {
        let place = Place::new();
        let first = place.submit();
        let ahead = JobId::new(first.get() + 3_600_000_000).unwrap();
        let _: () = place.redis("SET", "last_id", &[&ahead.to_string()]);
        let batch = place.try_submit(&[job.clone(), job.clone()]).unwrap();
        assert_eq!(batch.ids().map(JobId::get).collect::<Vec<_>>(), [ahead.get() + 1, ahead.get() + 2]);
        assert_eq!(place.try_submit(&[job]).unwrap().first.get(), ahead.get() + 3);
        assert_sound(&place);
    }
}

#[test]
fn an_id_is_the_time_of_the_submission_in_microseconds() {
    for job in of_both_scripts() {
        let place = Place::new();
        let now = || {
            let (seconds, micros): (u64, u64) = place.run(&redis::cmd("TIME"));
            seconds * 1_000_000 + micros
        };
        // The second submission meets the id of the first one.
        for _ in 0..2 {
            let before = now();
            let id = place.try_submit(std::slice::from_ref(&job)).unwrap().first.get();
            assert!((before..=now()).contains(&id), "{id} is not between {before} and {}", now());
        }
    }
}

#[test]
fn each_job_of_a_batch_has_its_own_fields() {
    let place = Place::new();
    let payloads = ["1".to_owned(), format!("\"{}\"", "x".repeat(200)), "3".to_owned()];
    for job in of_both_scripts() {
        let with = |payload: &String| NewJob {
            payload: RawValue::from_string(payload.clone()).unwrap(),
            ..job.clone()
        };
        let batch = place.try_submit(&payloads.iter().map(with).collect::<Vec<_>>()).unwrap();
        let stored: Vec<String> = batch.ids().map(|id| place.job(id).payload.get().to_owned()).collect();
        assert_eq!(stored, payloads);
    }
    assert_sound(&place);
}

#[test]
fn a_batch_is_stored_as_a_whole_or_not_at_all() {
    let place = Place::new();
    let holder = place.try_submit(&[keyed("u")]).unwrap().first;
    let before = place.keys().len();
    assert_eq!(place.try_submit(&[NewJob::new("t"), keyed("u")]), Err(Refused::Duplicate(holder)));
    let full = NewJob { queue: "full".to_owned(), ..NewJob::new("t") };
    let batch = [NewJob { queue: "first".to_owned(), ..NewJob::new("t") }, full.clone(), full];
    assert_eq!(place.queue.submit(&batch, None, 1), Err(Refused::QueueFull("full".to_owned()).into()));
    assert_eq!(place.keys().len(), before);
    assert_sound(&place);
}

#[test]
fn one_live_job_holds_a_unique_key() {
    let place = Place::new();
    let a = place.server();
    let holder = place.try_submit(&[keyed("u")]).unwrap().first;
    let refused = Err(Refused::Duplicate(holder));
    assert_eq!(place.try_submit(&[keyed("u")]), refused);
    let lease = place.take_one(&a);
    assert_eq!(place.try_submit(&[keyed("u")]), refused);
    place.settle(&a, &retried(lease));
    assert_eq!(place.try_submit(&[keyed("u")]), refused);
    assert!(place.try_submit(&[keyed("v")]).is_ok());
    assert_sound(&place);
    place.cancel(holder);
    assert!(place.try_submit(&[keyed("u")]).is_ok());
    assert_sound(&place);
}

#[test]
fn a_unique_key_is_free_after_every_end() {
    let place = Place::new();
    let a = place.server();
    for settlement in [completed, buried] {
        place.try_submit(&[keyed("u")]).unwrap();
        let lease = place.take_one(&a);
        place.settle(&a, &settlement(lease));
        assert_eq!(place.redis::<i64>("EXISTS", "unique:u", &[]), 0);
        assert_sound(&place);
    }
}

#[test]
fn a_unique_key_whose_holder_is_gone_or_has_ended_is_taken_over() {
    let place = Place::new();
    let _: () = place.redis("SET", "unique:u", &["7"]);
    let first = place.try_submit(&[keyed("u")]).unwrap().first;
    assert_sound(&place);
    place.cancel(first);
    let _: () = place.redis("SET", "unique:u", &[&first.to_string()]);
    place.try_submit(&[keyed("u")]).unwrap();
    assert_sound(&place);
}

#[test]
fn the_same_request_is_answered_as_at_first() {
    let place = Place::new();
    let delayed = NewJob { start: Start::AfterMs(3_600_000), ..NewJob::new("t") };
    for (key, jobs, status) in
        [("one", vec![NewJob::new("t")], Status::Queued), ("later", vec![delayed], Status::Scheduled)]
    {
        let first = place.queue.submit(&jobs, Some(&request(key, "f")), NO_LIMIT).unwrap();
        // A repeated submission succeeds even when a new one would be refused.
        let again = place.queue.submit(&jobs, Some(&request(key, "f")), 0).unwrap();
        assert_eq!((first.status, first.replayed), (Some(status), false));
        assert_eq!(
            (again.first, again.count, again.status, again.replayed),
            (first.first, 1, Some(status), true)
        );
        let other = place.queue.submit(&jobs, Some(&request(key, "g")), NO_LIMIT);
        assert_eq!(other, Err(Refused::Mismatch.into()));
    }
    assert_eq!(place.keys().iter().filter(|key| key.starts_with("job:")).count(), 2);
    let life: i64 = place.redis("PTTL", "idempotency:one", &[]);
    assert!((86_000_000..=86_400_000).contains(&life), "{life}");
    assert_sound(&place);
}

#[test]
fn submissions_that_go_together_are_as_one_after_the_other() {
    let place = Place::new();
    let job = |kind: &str| NewJob::new(kind);
    let keyed = [NewJob { unique_key: Some("u".to_owned()), ..job("a") }];
    let (two, one) = ([job("a"), job("b")], [job("b")]);
    let delayed = [NewJob { start: Start::AfterMs(3_600_000), ..job("b") }];
    let (key, other) = (request("k", "f"), request("k", "g"));
    let group: [(&[NewJob], Option<&Idempotency>); 8] = [
        (&two, Some(&key)),
        (&keyed, None),
        // The following submissions meet the data of earlier ones.
        (&two, Some(&key)),
        (&one, Some(&other)),
        (&keyed, None),
        (&delayed, None),
        (&one, None),
        (&one, None),
    ];
    let outcomes = place.queue.submit_all(&group, 4).unwrap();
    let first = outcomes[0].as_ref().unwrap().first.get();
    let id = |n: u64| JobId::new(first + n).unwrap();
    let stored = |n: u64, count: u64, status, replayed| {
        Ok((id(n), count, Some(status), replayed)) as Result<_, SubmitError>
    };
    let seen: Vec<_> = outcomes
        .iter()
        .map(|outcome| outcome.clone().map(|it| (it.first, it.count, it.status, it.replayed)))
        .collect();
    assert_eq!(
        seen,
        [
            stored(0, 2, Status::Queued, false),
            stored(2, 1, Status::Queued, false),
            stored(0, 2, Status::Queued, true),
            Err(Refused::Mismatch.into()),
            Err(Refused::Duplicate(id(2)).into()),
            stored(3, 1, Status::Scheduled, false),
            stored(4, 1, Status::Queued, false),
            Err(Refused::QueueFull("default".to_owned()).into()),
        ]
    );
    let due: Vec<bool> = outcomes.iter().flatten().map(|submitted| submitted.due_in.is_some()).collect();
    assert_eq!(due, [false, false, false, true, false]);
    assert_eq!(place.list("work_queue:default"), [4, 2, 1, 0].map(|n| id(n).to_string()));
    assert_sound(&place);
}

#[test]
fn a_refused_request_does_not_use_up_its_key() {
    let place = Place::new();
    let jobs = [NewJob::new("t")];
    let key = request("k", "f");
    let full = Refused::QueueFull("default".to_owned());
    assert_eq!(place.queue.submit(&jobs, Some(&key), 0), Err(full.into()));
    assert_eq!(place.keys(), [""; 0], "a refused submission stores nothing");
    assert!(!place.queue.submit(&jobs, Some(&key), 1).unwrap().replayed);
}

#[test]
fn a_queue_holds_as_many_ready_jobs_as_it_may() {
    let place = Place::new();
    let a = place.server();
    let full = Err(Refused::QueueFull("default".to_owned()).into());
    let submit = |limit| place.queue.submit(&[NewJob::new("t")], None, limit);
    place.submit();
    place.submit_suspect();
    assert_eq!(submit(2), full, "suspects count");
    let batch = [NewJob::new("t"), NewJob::new("t")];
    assert_eq!(place.queue.submit(&batch, None, 3), full, "a batch counts as a whole");
    assert!(submit(3).is_ok());
    let delayed = NewJob { start: Start::AfterMs(3_600_000), ..NewJob::new("t") };
    assert!(place.queue.submit(&[delayed], None, 3).is_ok(), "what waits for its time does not count");
    let other = NewJob { queue: "other".to_owned(), ..NewJob::new("t") };
    assert!(place.queue.submit(&[other], None, 3).is_ok(), "each queue for itself");
    let _lease = place.take_one(&a);
    assert!(submit(3).is_ok(), "what runs does not count");
    assert_sound(&place);
}

#[test]
fn a_time_that_has_passed_means_at_once() {
    let place = Place::new();
    for start in [Start::AtMs(1), Start::AfterMs(0)] {
        let id = place.submit_with(|job| job.start = start);
        assert_eq!(place.status(id), Status::Queued);
    }
    let at = 4_000_000_000_000;
    let jobs = [NewJob { start: Start::AtMs(at), ..NewJob::new("t") }, NewJob::new("t")];
    let submitted = place.try_submit(&jobs).unwrap();
    let due = submitted.due_in.unwrap().as_millis() as u64;
    assert!(due > 0 && due < at, "{due}");
    assert_eq!(place.job(submitted.first).scheduled_at_ms, Some(at));
    assert_sound(&place);
}

#[test]
fn a_payload_and_a_result_of_any_length_come_back_as_they_were() {
    let place = Place::new();
    let a = place.server();
    for length in [1, 10, 61, 62, 63, 64, 127, 300, 1_021, 1_022, 1_023, 5_000] {
        // Characters of three bytes, so that pieces end in the middle of one.
        let text = format!("\"{}{}\"", "x".repeat(length % 3), "€".repeat(length / 3));
        let json = || RawValue::from_string(text.clone()).unwrap();
        let id = place.submit_with(|job| job.payload = json());
        let (lease, job) = place.take(&a, 1).remove(0);
        assert_eq!(job.payload.get(), text);
        place.settle(&a, &Settlement { lease, verdict: Verdict::Complete(json()) });
        let job = place.job(id);
        assert_eq!((job.payload.get(), job.result.unwrap().get()), (text.as_str(), text.as_str()));
    }
    assert_sound(&place);
}

#[test]
fn a_job_of_short_texts_is_stored_compactly() {
    let place = Place::new();
    let a = place.server();
    let text = format!("\"{}\"", "x".repeat(900));
    let json = || RawValue::from_string(text.clone()).unwrap();
    let id = place.submit_with(|job| job.payload = json());
    let lease = place.take_one(&a);
    place.settle(&a, &Settlement { lease, verdict: Verdict::Complete(json()) });
    let key = place.key(&format!("job:{id}"));
    let encoding: String = place.run(redis::cmd("OBJECT").arg("ENCODING").arg(key));
    assert_eq!(encoding, "listpack");
}

#[test]
fn a_job_without_a_unique_key_holds_none() {
    let place = Place::new();
    let id = place.submit();
    assert_eq!(place.job(id).unique_key, None);
    assert_eq!(place.keys().iter().find(|key| key.starts_with("unique:")), None);
}

#[test]
fn the_earliest_time_of_a_batch_is_told() {
    let place = Place::new();
    let job = |ms| NewJob { start: Start::AfterMs(ms), ..NewJob::new("t") };
    let submitted = place.try_submit(&[job(60_000), job(1_000), job(90_000)]).unwrap();
    assert_eq!(submitted.due_in, Some(Duration::from_secs(1)));
}

#[test]
fn jobs_without_keys_are_stored_whatever_else_they_have() {
    let place = Place::new();
    let first = place.submit_many(3);
    // These differ in what the short script knows, and in what it does not know.
    let change = |change: &dyn Fn(&mut NewJob)| place.submit_with(change);
    let tries = change(&|job| job.max_attempts = 9);
    let elsewhere = change(&|job| job.queue = "b".to_owned());
    let typed = change(&|job| job.job_type = "other".to_owned());
    let job = place.job(tries);
    assert_eq!((job.max_attempts, &*job.queue), (9, "default"));
    assert_eq!((place.job(elsewhere).queue.as_str(), place.job(typed).job_type.as_str()), ("b", "other"));
    let mut ids = first.clone();
    ids.extend([tries, elsewhere, typed]);
    assert!(ids.is_sorted() && place.list("work_queue:b") == [elsewhere.to_string()]);
    assert_sound(&place);
    // The last job that has room, and the first one that has none.
    let limit = place.list("work_queue:default").len() as u64 + 2;
    let two = vec![NewJob::new("t"); 2];
    let three = vec![NewJob::new("t"); 3];
    let queue = &place.queue;
    assert!(matches!(queue.submit(&three, None, limit), Err(SubmitError::Refused(Refused::QueueFull(_)))));
    queue.submit(&two, None, limit).unwrap();
    assert!(matches!(queue.submit(&two, None, limit), Err(SubmitError::Refused(Refused::QueueFull(_)))));
    assert_sound(&place);
}

#[test]
fn the_name_of_a_queue_is_known_from_its_first_job_on() {
    let place = Place::new();
    let [plain, delayed] = of_both_scripts();
    for (queue, job) in [("a", plain), ("b", delayed), ("c", keyed("u"))] {
        place.try_submit(&[NewJob { queue: queue.to_owned(), ..job }]).unwrap();
        assert_eq!(place.redis::<i64>("SISMEMBER", "queues", &[queue]), 1, "{queue}");
    }
}

const NOT_REPLICATED: SubmitError =
    SubmitError::Queue(Error::NotReplicated { have: 0, wanted: 1, is_stored: true });

#[test]
fn a_submission_without_its_replicas_is_stored_and_no_refusal_waits_for_them() {
    for job in of_both_scripts() {
        let place = Place::new();
        let queue = place.queue_with_replica();
        assert_eq!(queue.submit(std::slice::from_ref(&job), None, 1), Err(NOT_REPLICATED));
        assert_eq!(place.keys().iter().filter(|key| key.starts_with("job:")).count(), 1);
        let ready = NewJob::new("t");
        let outcomes = queue.submit_all(&[(&[keyed("u")], None), (&[keyed("u"), ready.clone()], None)], 9);
        let outcomes = outcomes.unwrap();
        assert_eq!(outcomes[0], Err(NOT_REPLICATED));
        assert!(matches!(outcomes[1], Err(SubmitError::Refused(Refused::Duplicate(_)))), "{outcomes:?}");
        assert_sound(&place);
        // A call that stores nothing sends no WAIT.
        place.wire.lose("wait", Loses::Request);
        let full = Err(Refused::QueueFull("default".to_owned()).into());
        assert_eq!(queue.submit(&[ready], None, 1), full);
        assert!(!place.wire.has_lost());
    }
}

#[test]
fn a_submission_whose_wait_is_lost_is_stored_once() {
    for job in of_both_scripts() {
        for loses in [Loses::Request, Loses::Answer] {
            let place = Place::new();
            let queue = place.queue_with_replica();
            // The next call has a connection that may have died, so that a call may be repeated.
            queue.stats().unwrap();
            place.wire.lose("wait", loses);
            let lost = queue.submit(std::slice::from_ref(&job), None, 1);
            assert!(matches!(lost, Err(SubmitError::Queue(Error::Unavailable(_)))), "{lost:?}");
            assert!(place.wire.has_lost());
            assert_eq!(place.keys().iter().filter(|key| key.starts_with("job:")).count(), 1);
            assert_sound(&place);
        }
    }
}

#[test]
fn a_repeated_request_writes_only_if_replicas_are_waited_for() {
    let place = Place::new();
    let (jobs, key, other) = ([NewJob::new("t")], request("k", "f"), request("k", "g"));
    place.queue.submit(&jobs, Some(&key), NO_LIMIT).unwrap();
    let last_id = || place.redis::<String>("GET", "last_id", &[]);
    let first = last_id();
    assert!(place.queue.submit(&jobs, Some(&key), NO_LIMIT).unwrap().replayed);
    let replicated = place.queue_with_replica();
    assert_eq!(replicated.submit(&jobs, Some(&other), NO_LIMIT), Err(Refused::Mismatch.into()));
    assert_eq!(last_id(), first);
    // WAIT proves something only behind a write of the same connection.
    assert_eq!(replicated.submit(&jobs, Some(&key), NO_LIMIT), Err(NOT_REPLICATED));
    assert!(last_id() > first);
    assert_sound(&place);
}
