//! What hangs on a job: tags, expiry, an own retention, and modes of the unique key.

use std::time::Duration;

use threadq::internals::queue::{
    ChangeResult, Changed, Conflict, Filter, Idempotency, Position, Quarantine, Refused, Settled, Settlement,
    Verdict,
};
use threadq::job::{
    CancelReason, Change, Expiry, Extras, Hold, JobId, NewJob, OnConflict, Start, Status, UniqueMode,
};

use crate::fixture::{NO_LIMIT, Place, buried, completed, ids, in_progress, released, retried};
use crate::invariants::assert_sound;

const HOUR: Duration = Duration::from_secs(3600);

fn with(extras: Extras) -> NewJob {
    NewJob { extras: Some(Box::new(extras)), ..NewJob::new("t") }
}

fn tagged(tags: &[&str]) -> NewJob {
    with(Extras { tags: tags.iter().map(|tag| (*tag).to_owned()).collect(), ..Extras::default() })
}

fn expiring() -> NewJob {
    with(Extras { expiry: Some(Expiry::AfterMs(3_600_000)), ..Extras::default() })
}

fn unique(hold: Hold, on_conflict: OnConflict) -> NewJob {
    let unique = UniqueMode { hold, on_conflict };
    NewJob { unique_key: Some("k".to_owned()), ..with(Extras { unique, ..Extras::default() }) }
}

fn replacing(change: Change, max_wait: Option<Duration>) -> NewJob {
    unique(Hold::UntilStart, OnConflict::Replace { change: Box::new(change), max_wait })
}

fn submit(place: &Place, job: NewJob) -> JobId {
    place.try_submit(&[job]).unwrap().first
}

fn snoozed(lease: threadq::internals::queue::Lease, delay: Duration) -> Settlement {
    Settlement { lease, verdict: Verdict::Snooze(delay) }
}

/// The words of the index in which the job has this tag.
fn words_of(place: &Place, tag: &str, id: JobId) -> Vec<String> {
    let mut words = Vec::new();
    for key in place.keys() {
        let word = key.strip_prefix("tag_index:").and_then(|rest| rest.strip_suffix(&format!(":{tag}")));
        if let Some(word) = word
            && place.redis::<Option<f64>>("ZSCORE", &key, &[&id.to_string()]).is_some()
        {
            words.push(word.to_owned());
        }
    }
    words
}

fn agenda(place: &Place) -> Vec<String> {
    place.redis("ZRANGE", "agenda", &["0", "-1"])
}

/// Lets the expiry of a job pass.
fn expire(place: &Place, id: JobId) {
    let _: i64 = place.redis("HSET", &format!("job:{id}"), &["expires_at", "1"]);
    if agenda(place).contains(&format!("expire:{id}")) {
        let _: i64 = place.redis("ZADD", "agenda", &["1", &format!("expire:{id}")]);
    }
}

fn expired(place: &Place) -> Vec<(String, Status)> {
    place.queue.work_off_due(3).unwrap().expired
}

#[test]
fn tags_are_indexed_through_the_whole_life_of_a_job() {
    let place = Place::new();
    let a = place.server();
    let id = submit(&place, NewJob { start: Start::AfterMs(3_600_000), ..tagged(&["x", "a b:c"]) });
    let tags = |word: &str| {
        for tag in ["x", "a b:c"] {
            assert_eq!(words_of(&place, tag, id), [word]);
        }
        assert_sound(&place);
    };
    assert_eq!(place.job(id).tags, ["x", "a b:c"]);
    tags("scheduled");
    place.make_due(id);
    place.queue.work_off_due(3).unwrap();
    tags("ready");
    let lease = place.take_one(&a);
    tags("ready");
    place.settle(&a, &retried(lease));
    tags("retrying");
    place.make_due(id);
    place.queue.work_off_due(3).unwrap();
    place.settle(&a, &buried(place.take_one(&a)));
    tags("failed");
    place.queue.retry(&[id], &[]).unwrap();
    tags("ready");
    place.cancel(id);
    tags("cancelled");
    place.queue.retry(&[id], &[]).unwrap();
    let _lost = place.take_one(&a);
    place.dies(&a);
    tags("ready");
    let b = place.server();
    place.settle(&b, &completed(place.take_one(&b)));
    tags("completed");
    assert_eq!(place.queue.delete(&[id], &[]).unwrap(), [Changed::Done]);
    assert!(!place.keys().iter().any(|key| key.starts_with("tag_index:")), "{:?}", place.keys());
}

#[test]
fn retention_takes_the_tags_with_the_job() {
    let place = Place::new();
    let a = place.server();
    submit(&place, tagged(&["x"]));
    place.settle(&a, &completed(place.take_one(&a)));
    while place.queue.delete_old_jobs(false, HOUR, 0).unwrap() {}
    assert!(!place.keys().iter().any(|key| key.starts_with("tag_index:")), "{:?}", place.keys());
}

#[test]
fn a_job_that_has_not_started_before_its_expiry_is_cancelled() {
    let place = Place::new();
    let queued = submit(&place, expiring());
    let mut job = expiring();
    job.start = Start::AfterMs(1_000_000);
    let scheduled = submit(&place, job);
    assert_eq!(expired(&place), []);
    for id in [queued, scheduled] {
        expire(&place, id);
        assert_eq!(expired(&place), [("t".to_owned(), Status::Cancelled)]);
        let job = place.job(id);
        assert_eq!((job.status, job.cancel_reason), (Status::Cancelled, Some(CancelReason::Expired)));
        assert_sound(&place);
    }
    assert_eq!(agenda(&place), [""; 0]);
}

#[test]
fn a_take_starts_no_job_after_its_expiry() {
    let place = Place::new();
    let a = place.server();
    let id = submit(&place, expiring());
    let next = place.submit();
    expire(&place, id);
    let taken = place.try_take(&a, 2, Quarantine::Skip, None).unwrap();
    assert_eq!(ids(&taken.jobs), [next]);
    assert_eq!(taken.expired, [("t".to_owned(), Status::Cancelled)]);
    assert_eq!(place.job(id).cancel_reason, Some(CancelReason::Expired));
    assert_eq!(agenda(&place), [""; 0]);
    assert_sound(&place);
}

#[test]
fn a_job_that_has_failed_before_its_expiry_becomes_a_dead_letter() {
    let place = Place::new();
    let a = place.server();
    let id = submit(&place, expiring());
    let delay = Duration::from_secs(60);
    let lease = place.take_one(&a);
    let settlement =
        Settlement { lease, verdict: Verdict::Retry { error: "no".to_owned(), delay, throttle: None } };
    assert_eq!(place.settle(&a, &settlement), Settled::Now(Status::Retrying));
    expire(&place, id);
    assert_eq!(expired(&place), [("t".to_owned(), Status::Failed)]);
    assert_eq!(place.job(id).last_error(), Some("no"));
    assert_sound(&place);
}

#[test]
fn a_retry_that_would_start_after_the_expiry_is_not_waited_for() {
    let place = Place::new();
    let a = place.server();
    let id = submit(&place, expiring());
    let lease = place.take_one(&a);
    let settlement = Settlement {
        lease,
        verdict: Verdict::Retry { error: "no".to_owned(), delay: 2 * HOUR, throttle: None },
    };
    assert_eq!(place.settle(&a, &settlement), Settled::Expired(Status::Failed));
    assert_eq!(place.job(id).last_error(), Some("no"));
    assert_eq!(agenda(&place), [""; 0]);
    assert_sound(&place);
}

#[test]
fn a_running_job_is_left_alone_at_its_expiry_and_ends_by_it_when_it_goes_back() {
    let place = Place::new();
    let a = place.server();
    let id = submit(&place, expiring());
    let lease = place.take_one(&a);
    expire(&place, id);
    assert_eq!(expired(&place), []);
    assert_eq!(place.status(id), Status::Processing);
    assert_eq!(place.settle(&a, &released(lease)), Settled::Now(Status::Queued));
    assert_eq!(expired(&place), [("t".to_owned(), Status::Cancelled)]);

    let id = submit(&place, expiring());
    let _lost = place.take_one(&a);
    expire(&place, id);
    assert_eq!(expired(&place), []);
    place.dies(&a);
    assert_eq!(expired(&place), [("t".to_owned(), Status::Cancelled)]);
    assert_sound(&place);
}

#[test]
fn an_expiry_that_has_passed_is_dropped_by_a_retry() {
    let place = Place::new();
    let id = submit(&place, expiring());
    expire(&place, id);
    expired(&place);
    assert_eq!(place.queue.retry(&[id], &[]).unwrap(), [Changed::Done]);
    let job = place.job(id);
    assert_eq!((job.status, job.expires_at_ms, job.cancel_reason), (Status::Queued, None, None));
    assert_eq!(expired(&place), []);

    let id = submit(&place, expiring());
    place.cancel(id);
    assert_eq!(agenda(&place), [""; 0]);
    place.queue.retry(&[id], &[]).unwrap();
    assert_eq!(agenda(&place), [format!("expire:{id}")]);
    assert_sound(&place);
}

#[test]
fn an_expiry_before_the_start_is_refused() {
    let place = Place::new();
    for (expiry, start) in [
        (Expiry::AtMs(1), Start::Now),
        (Expiry::AfterMs(1_000), Start::AfterMs(1_000)),
        (Expiry::AfterMs(1_000), Start::AtMs(u64::from(u32::MAX) * 1_000)),
    ] {
        let job = NewJob { start, ..with(Extras { expiry: Some(expiry), ..Extras::default() }) };
        assert_eq!(place.try_submit(&[NewJob::new("t"), job]), Err(Refused::Expired(1)));
    }
    assert_eq!(place.keys(), [""; 0]);
}

#[test]
fn a_job_with_a_retention_of_its_own_is_kept_for_that_time_and_at_least_a_minute() {
    let place = Place::new();
    let a = place.server();
    let retained = |retain| submit(&place, with(Extras { retain: Some(retain), ..Extras::default() }));
    let (short, long) = (retained(Duration::ZERO), retained(10 * HOUR));
    for _ in 0..2 {
        place.settle(&a, &completed(place.take_one(&a)));
    }
    let due = |id: JobId| {
        let score: f64 = place.redis("ZSCORE", "agenda", &[&format!("forget:{id}")]);
        Duration::from_millis(score as u64 - place.job(id).finished_at_ms.unwrap())
    };
    assert_eq!((due(short), due(long)), (Duration::from_secs(60), 10 * HOUR));
    // The janitor of a server that keeps completed jobs for no time leaves both jobs to the agenda.
    while place.queue.delete_old_jobs(false, Duration::ZERO, NO_LIMIT).unwrap() {}
    assert_eq!((place.status(short), place.status(long)), (Status::Completed, Status::Completed));
    assert_sound(&place);
    // A minute passes.
    let _: i64 = place.redis("HSET", &format!("job:{short}"), &["finished_at", "1"]);
    let _: i64 = place.redis("ZADD", "agenda", &["1", &format!("forget:{short}")]);
    place.queue.work_off_due(3).unwrap();
    assert!(place.queue.get(short).unwrap().is_none());
    assert_eq!(agenda(&place), [format!("forget:{long}")]);
    // The greatest number of kept jobs holds for them too.
    while place.queue.delete_old_jobs(false, HOUR, 0).unwrap() {}
    assert!(place.queue.get(long).unwrap().is_none());
    assert_eq!(agenda(&place), [""; 0]);
}

#[test]
fn a_retry_of_a_job_with_a_retention_of_its_own_takes_it_off_the_agenda() {
    let place = Place::new();
    let id = submit(&place, with(Extras { retain: Some(HOUR), ..Extras::default() }));
    place.cancel(id);
    assert_eq!(agenda(&place), [format!("forget:{id}")]);
    place.queue.retry(&[id], &[]).unwrap();
    assert_eq!(agenda(&place), [""; 0]);
    place.cancel(id);
    place.queue.delete(&[id], &[]).unwrap();
    assert_eq!(agenda(&place), [""; 0]);
}

#[test]
fn a_key_until_the_start_is_free_from_the_first_start_on() {
    let place = Place::new();
    let a = place.server();
    let first = submit(&place, unique(Hold::UntilStart, OnConflict::Reject));
    assert_eq!(
        place.try_submit(&[unique(Hold::UntilStart, OnConflict::Reject)]),
        Err(Refused::Duplicate(first))
    );
    let lease = place.take_one(&a);
    let second = submit(&place, unique(Hold::UntilStart, OnConflict::Reject));
    // The first one holds the key no more, not even after a failure.
    place.settle(&a, &retried(lease));
    place.make_due(first);
    place.queue.work_off_due(3).unwrap();
    assert_eq!(ids(&place.take(&a, 2)), [second, first]);
    submit(&place, unique(Hold::UntilStart, OnConflict::Reject));
    assert_sound(&place);
}

#[test]
fn a_key_for_a_fixed_time_is_held_however_the_job_ends() {
    let place = Place::new();
    let first = submit(&place, unique(Hold::For(HOUR), OnConflict::Reject));
    place.cancel(first);
    let again = || {
        place
            .try_submit(&[unique(Hold::For(HOUR), OnConflict::Existing)])
            .map(|it| (it.first, it.status, it.conflict))
    };
    assert_eq!(
        place.try_submit(&[unique(Hold::UntilEnd, OnConflict::Reject)]),
        Err(Refused::Duplicate(first))
    );
    assert_eq!(again(), Ok((first, Some(Status::Cancelled), Some(Conflict::Existing))));
    place.queue.delete(&[first], &[]).unwrap();
    assert_eq!(again(), Ok((first, None, Some(Conflict::Existing))));
    let _: i64 = place.redis("PEXPIRE", "unique:k", &["1"]);
    while place.redis::<i64>("EXISTS", "unique:k", &[]) == 1 {}
    assert_ne!(again().unwrap().0, first);
}

#[test]
fn an_existing_job_answers_for_the_new_one() {
    let place = Place::new();
    let first = submit(&place, unique(Hold::UntilEnd, OnConflict::Reject));
    let key = Idempotency { key: "i".to_owned(), fingerprint: "f".to_owned() };
    for replayed in [false, true] {
        let jobs = [unique(Hold::UntilEnd, OnConflict::Existing)];
        let answer = place.queue.submit(&jobs, Some(&key), NO_LIMIT).unwrap();
        assert_eq!(
            (answer.first, answer.status, answer.conflict),
            (first, Some(Status::Queued), Some(Conflict::Existing))
        );
        assert_eq!(answer.replayed, replayed);
    }
    assert_eq!(place.list("work_queue:default").len(), 1);
}

#[test]
fn a_replaced_job_gets_the_given_values_and_keeps_the_others() {
    let place = Place::new();
    let a = place.server();
    let first =
        submit(&place, NewJob { start: Start::AfterMs(3_600_000), ..replacing(Change::default(), None) });
    let due = place.job(first).scheduled_at_ms;
    let payload = serde_json::value::to_raw_value(&"x".repeat(200)).unwrap();
    let change = Change { payload: Some(payload), tags: Some(vec!["n".to_owned()]), ..Change::default() };
    let answer = place.try_submit(&[replacing(change, None)]).unwrap();
    assert_eq!(
        (answer.first, answer.status, answer.conflict),
        (first, Some(Status::Scheduled), Some(Conflict::Replaced))
    );
    let job = place.job(first);
    assert_eq!((job.payload.get().len(), job.scheduled_at_ms), (202, due));
    assert_eq!(words_of(&place, "n", first), ["scheduled"]);
    // A shorter payload leaves nothing of the longer one.
    let payload = serde_json::value::to_raw_value(&1).unwrap();
    let change = Change {
        payload: Some(payload),
        start: Some(Start::AfterMs(0)),
        tags: Some(Vec::new()),
        ..Change::default()
    };
    let answer = place.try_submit(&[replacing(change, None)]).unwrap();
    assert_eq!((answer.first, answer.status), (first, Some(Status::Queued)));
    assert_sound(&place);
    let (_, job) = place.take(&a, 1).remove(0);
    assert_eq!((job.id, job.payload.get(), job.tags.len()), (first, "1", 0));
    // A job that runs is never changed.
    assert_ne!(submit(&place, replacing(Change::default(), None)), first);
    assert_sound(&place);
}

#[test]
fn a_debounced_job_becomes_due_at_the_latest_after_the_longest_wait() {
    let place = Place::new();
    let later = |ms| Change { start: Some(Start::AfterMs(ms)), ..Change::default() };
    let job = |ms| NewJob { start: Start::AfterMs(ms), ..replacing(later(ms), Some(2 * HOUR)) };
    let first = submit(&place, job(3_600_000));
    let due = || place.job(first).scheduled_at_ms.unwrap() - first.created_at_ms();
    place.try_submit(&[job(5_400_000)]).unwrap();
    assert!((5_400_000..7_200_000).contains(&due()), "{}", due());
    place.try_submit(&[job(9_000_000)]).unwrap();
    assert_eq!(due(), 7_200_000);
    assert_sound(&place);
}

#[test]
fn submissions_of_one_call_see_each_other() {
    let place = Place::new();
    let payload = |n: u64| Some(serde_json::value::to_raw_value(&n).unwrap());
    let jobs: Vec<NewJob> =
        (0..4).map(|n| replacing(Change { payload: payload(n), ..Change::default() }, None)).collect();
    let calls: Vec<(&[NewJob], Option<&Idempotency>)> =
        jobs.iter().map(|job| (std::slice::from_ref(job), None)).collect();
    let answers: Vec<_> =
        place.queue.submit_all(&calls, NO_LIMIT).unwrap().into_iter().map(Result::unwrap).collect();
    let first = answers[0].first;
    assert!(answers.iter().all(|answer| answer.first == first));
    assert_eq!(answers.iter().filter(|answer| answer.conflict == Some(Conflict::Replaced)).count(), 3);
    assert_eq!(place.job(first).payload.get(), "3");
    assert_eq!(place.list("work_queue:default"), [first.to_string()]);
    assert_sound(&place);
}

#[test]
fn only_a_holder_until_the_start_of_the_same_type_is_replaced() {
    let place = Place::new();
    let first = submit(&place, unique(Hold::UntilEnd, OnConflict::Reject));
    let refused = || place.try_submit(&[replacing(Change::default(), None)]);
    assert_eq!(refused(), Err(Refused::Duplicate(first)));
    place.cancel(first);
    let first = submit(&place, NewJob { job_type: "other".to_owned(), ..replacing(Change::default(), None) });
    assert_eq!(refused(), Err(Refused::Duplicate(first)));
}

#[test]
fn a_key_that_is_held_once_is_not_taken_by_a_retry() {
    let place = Place::new();
    for hold in [Hold::UntilStart, Hold::For(HOUR)] {
        let id = submit(&place, unique(hold, OnConflict::Reject));
        place.cancel(id);
        let _: i64 = place.redis("DEL", "unique:k", &[]);
        assert_eq!(place.queue.retry(&[id], &[]).unwrap(), [Changed::Done]);
        assert_eq!(place.redis::<i64>("EXISTS", "unique:k", &[]), 0);
        place.cancel(id);
    }
    assert_sound(&place);
}

#[test]
fn a_waiting_job_moves_to_another_queue_and_time() {
    for place in [Place::new(), Place::of_long_lists()] {
        let a = place.server();
        let id = place.submit();
        let change = |change: Change| place.queue.change_waiting(&[id], &[], &change).unwrap().remove(0);
        let status = |result| match result {
            ChangeResult::Changed { status, .. } => status,
            other => panic!("{other:?}"),
        };
        let to_queue = |name: &str| Change { queue: Some(name.to_owned()), ..Change::default() };
        assert_eq!(status(change(to_queue("other"))), Status::Queued);
        assert_eq!(place.list("work_queue:other"), [id.to_string()]);
        assert_eq!(ids(&place.take(&a, 1)), []);
        assert_sound(&place);
        let at = |start| Change { start: Some(start), ..Change::default() };
        assert_eq!(status(change(at(Start::AfterMs(3_600_000)))), Status::Scheduled);
        assert_eq!(status(change(to_queue("default"))), Status::Scheduled);
        assert_eq!(place.job(id).queue, "default");
        assert_eq!(place.queue.work_off_due(3).unwrap().moved, 0);
        assert_eq!(status(change(at(Start::Now))), Status::Queued);
        assert_eq!(place.job(id).scheduled_at_ms, None);
        assert_sound(&place);
        assert_eq!(ids(&place.take(&a, 1)), [id]);
        assert_eq!(place.list(&in_progress(&a)), [id.to_string()]);
        assert_eq!(change(at(Start::Now)), ChangeResult::WrongStatus(Status::Processing));
        let missing = JobId::new(7).unwrap();
        assert_eq!(
            place.queue.change_waiting(&[missing], &[], &Change::default()).unwrap(),
            [ChangeResult::Missing]
        );
    }
}

#[test]
fn a_change_that_would_expire_before_the_start_changes_nothing() {
    let place = Place::new();
    let id = submit(&place, expiring());
    for change in [
        Change { start: Some(Start::AfterMs(7_200_000)), ..Change::default() },
        Change { expiry: Some(Expiry::AtMs(1)), ..Change::default() },
    ] {
        assert_eq!(place.queue.change_waiting(&[id], &[], &change).unwrap(), [ChangeResult::Expired]);
    }
    let change = Change {
        expiry: Some(Expiry::AfterMs(60_000)),
        max_attempts: Some(7),
        timeout: Some(HOUR),
        ..Change::default()
    };
    let result = place.queue.change_waiting(&[id], &[], &change).unwrap().remove(0);
    assert!(
        matches!(result, ChangeResult::Changed { due_in: Some(time), .. } if time <= Duration::from_secs(60)),
        "{result:?}"
    );
    let job = place.job(id);
    assert_eq!((job.max_attempts, job.timeout_ms), (7, 3_600_000));
    let page = place.queue.list(&Filter::default(), Position::Offset(0), 10).unwrap();
    assert_eq!(page.total, 1);
    assert_sound(&place);
}

#[test]
fn a_snooze_counts_neither_as_an_attempt_nor_as_an_error() {
    let place = Place::new();
    let a = place.server();
    let id = submit(&place, tagged(&["x"]));
    let lease = place.take_one(&a);
    assert_eq!(place.settle(&a, &snoozed(lease, HOUR)), Settled::Now(Status::Scheduled));
    let job = place.job(id);
    assert_eq!((job.status, job.attempts, job.snoozes), (Status::Scheduled, 0, 1));
    assert!(job.errors.is_empty());
    assert_eq!(words_of(&place, "x", id), ["scheduled"]);
    place.make_due(id);
    place.queue.work_off_due(3).unwrap();
    let lease = place.take_one(&a);
    place.cancel(id);
    assert_eq!(place.settle(&a, &snoozed(lease, HOUR)), Settled::Now(Status::Cancelled));
    assert_sound(&place);
}

#[test]
fn a_snooze_beyond_the_expiry_ends_the_job() {
    let place = Place::new();
    let a = place.server();
    let id = submit(&place, expiring());
    let lease = place.take_one(&a);
    assert_eq!(place.settle(&a, &snoozed(lease, 2 * HOUR)), Settled::Expired(Status::Cancelled));
    assert_eq!(place.job(id).cancel_reason, Some(CancelReason::Expired));
    assert_sound(&place);
}

#[test]
fn a_word_that_comes_too_early_waits_for_its_time_and_one_without_a_use_vanishes() {
    let place = Place::new();
    let a = place.server();
    let job = || NewJob {
        extras: Some(Box::new(Extras { retain: Some(HOUR), ..*expiring().extras.unwrap() })),
        ..NewJob::new("t")
    };
    let (ended, waiting, plain) = (submit(&place, job()), submit(&place, job()), place.submit());
    place.settle(&a, &completed(place.take_one(&a)));
    let due = |word: String| place.redis::<Option<u64>>("ZSCORE", "agenda", &[&word]);
    let words = [format!("forget:{ended}"), format!("expire:{waiting}")];
    let times = words.clone().map(due);
    for word in words.iter().chain(&[
        format!("expire:{ended}"),
        format!("forget:{waiting}"),
        format!("expire:{plain}"),
        "expire:77".to_owned(),
        "forget:77".to_owned(),
        "unknown".to_owned(),
    ]) {
        let _: i64 = place.redis("ZADD", "agenda", &["1", word]);
    }
    assert!(expired(&place).is_empty());
    assert_eq!(words.map(due), times);
    assert_eq!(agenda(&place).len(), 2);
    assert_sound(&place);
}

#[test]
fn a_failed_and_a_cancelled_job_with_a_retention_of_their_own_leave_nothing_behind() {
    let place = Place::new();
    let a = place.server();
    let job = || with(Extras { retain: Some(HOUR), ..Extras::default() });
    let failed = submit(&place, job());
    place.settle(&a, &buried(place.take_one(&a)));
    let cancelled = submit(&place, job());
    place.cancel(cancelled);
    for id in [failed, cancelled] {
        let _: i64 = place.redis("HSET", &format!("job:{id}"), &["finished_at", "1"]);
        let _: i64 = place.redis("ZADD", "agenda", &["1", &format!("forget:{id}")]);
    }
    place.queue.work_off_due(3).unwrap();
    for id in [failed, cancelled] {
        assert!(place.queue.get(id).unwrap().is_none());
        assert!(place.handles(id).is_empty(), "{:?}", place.handles(id));
    }
    assert_sound(&place);
}

#[test]
fn a_replacement_that_would_expire_before_its_start_is_refused() {
    let place = Place::new();
    let expires = |job: NewJob| {
        let mut extras = job.extras.unwrap();
        extras.expiry = Some(Expiry::AfterMs(600_000));
        NewJob { extras: Some(extras), ..job }
    };
    let first = submit(&place, expires(replacing(Change::default(), None)));
    let later = Change { start: Some(Start::AfterMs(1_200_000)), ..Change::default() };
    assert_eq!(place.try_submit(&[replacing(later, None)]), Err(Refused::Expired(0)));
    let soon = Change { start: Some(Start::AfterMs(300_000)), ..Change::default() };
    assert_eq!(place.try_submit(&[replacing(soon, None)]).unwrap().status, Some(Status::Scheduled));
    let early = Change { expiry: Some(Expiry::AfterMs(1_000)), ..Change::default() };
    assert_eq!(place.try_submit(&[replacing(early, None)]), Err(Refused::Expired(0)));
    assert_eq!(place.status(first), Status::Scheduled);
    assert_sound(&place);
}

#[test]
fn the_longest_wait_holds_for_the_first_submission_too() {
    let place = Place::new();
    let job = NewJob { start: Start::AfterMs(7_200_000), ..replacing(Change::default(), Some(HOUR)) };
    let id = submit(&place, job);
    let wait = place.job(id).scheduled_at_ms.unwrap() - id.created_at_ms();
    assert!((3_600_000..3_600_010).contains(&wait), "{wait}");
}

#[test]
fn no_attempt_starts_after_the_expiry_without_a_backoff_either() {
    let place = Place::new();
    let a = place.server();
    for inline in [true, false] {
        let id = submit(&place, expiring());
        let mut lease = place.take_one(&a);
        expire(&place, id);
        let settled = if inline {
            place.queue.retry_inline(&a, &mut lease, "no", Duration::ZERO).unwrap()
        } else {
            let verdict = Verdict::Retry { error: "no".to_owned(), delay: Duration::ZERO, throttle: None };
            place.settle(&a, &Settlement { lease, verdict })
        };
        assert_eq!(settled, Settled::Expired(Status::Failed));
        assert_eq!(place.status(id), Status::Failed);
    }
    assert_sound(&place);
}

#[test]
fn a_repeated_replacement_gets_the_first_answer() {
    let place = Place::new();
    let at = |ms| Change { start: Some(Start::AfterMs(ms)), ..Change::default() };
    submit(&place, NewJob { start: Start::AfterMs(3_600_000), ..replacing(Change::default(), None) });
    for (number, (change, status)) in [
        (Change::default(), Status::Scheduled),
        (Change { start: Some(Start::Now), ..Change::default() }, Status::Queued),
        (at(3_600_000), Status::Scheduled),
        (at(0), Status::Queued),
    ]
    .into_iter()
    .enumerate()
    {
        let key = Idempotency { key: number.to_string(), fingerprint: "f".to_owned() };
        for replayed in [false, true] {
            let answer =
                place.queue.submit(&[replacing(change.clone(), None)], Some(&key), NO_LIMIT).unwrap();
            assert_eq!((answer.status, answer.replayed), (Some(status), replayed), "{change:?}");
        }
    }
    assert_sound(&place);
}

#[test]
fn a_job_that_moves_while_it_is_claimed_starts_from_its_new_queue_alone() {
    let place = Place::new();
    let a = place.server();
    for has_entry in [true, false] {
        let id = place.submit();
        let claimed = place.queue.wait_for_job(&a, "default").unwrap();
        let change = Change { queue: Some("other".to_owned()), ..Change::default() };
        place.queue.change_waiting(&[id], &[], &change).unwrap();
        if !has_entry {
            let _: i64 = place.redis("DEL", "work_queue:other", &[]);
        }
        let taken = place.try_take(&a, 1, Quarantine::Skip, claimed.as_ref()).unwrap();
        assert_eq!(ids(&taken.jobs), []);
        assert_eq!(place.status(id), Status::Queued);
        assert_eq!(place.list("work_queue:other"), [id.to_string()]);
        assert_sound(&place);
        place.cancel(id);
    }
}
