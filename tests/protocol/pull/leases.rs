//! Leases that end: the worker has died, or was too slow, or its time is over.

use threadq::internals::queue::{Changed, DueStep, Lease};
use threadq::job::{ErrorKind, Extras};

use super::*;
use crate::fixture::completed;
use crate::invariants::assert_sound;
use crate::lua_proxy::Loses;

impl Place {
    /// Lets this time pass, and works off what is due in one step.
    #[track_caller]
    fn due_after(&self, ms: u64) -> DueStep {
        self.passes(ms);
        self.queue.work_off_due(MAX_CRASHES).unwrap()
    }
}

#[test]
fn a_lease_that_ends_charges_a_crash_and_the_job_is_the_first_of_its_queue() {
    let place = Place::with_moving_clock();
    let [id, next] = [place.submit(), place.submit()];
    let attempt = place.pull_one().attempt;
    // Not too early.
    let step = place.due_after(LEASE / 2);
    assert_eq!((step.moved, place.status(id)), (0, Status::Processing));
    assert!(step.next.is_some_and(|next| next <= Duration::from_millis(LEASE / 2)), "{step:?}");
    let step = place.due_after(LEASE / 2);
    assert_eq!(step.moved, 1);
    let [crashed] = &step.lost[..] else { panic!("{step:?}") };
    assert_eq!((crashed.id, crashed.job_type.as_str(), crashed.attempt), (id, "t", 1));
    assert_eq!((crashed.crashes, crashed.has_failed), (1, false));
    let job = place.job(id);
    assert_eq!((job.status, job.crashes, job.attempts), (Status::Queued, 1, 0));
    assert_eq!(job.errors.last().unwrap().message, "its worker let the lease run out");
    assert_eq!((job.server, job.worker, job.lease_until_ms, place.lease_word(id)), (None, None, None, None));
    assert_sound(&place);
    assert_eq!(place.pulled(), [id, next]);
    assert_eq!(place.answers(attempt, complete()), Answered::Stale);
    assert_sound(&place);
}

#[test]
fn a_job_that_kills_its_workers_is_a_dead_letter_after_max_crashes() {
    let place = Place::with_moving_clock();
    let id = place.submit_with(|job| job.unique_key = Some("k".to_owned()));
    for crash in 1..=MAX_CRASHES {
        assert_eq!(place.pulled(), [id], "{crash}");
        let step = place.due_after(LEASE);
        assert_eq!(step.lost.len(), 1);
        assert_eq!(step.lost[0].has_failed, crash == MAX_CRASHES);
        assert_sound(&place);
    }
    let job = place.job(id);
    assert_eq!((job.status, job.crashes, job.server), (Status::Failed, MAX_CRASHES, None));
    assert_eq!(
        job.errors.last().unwrap().message,
        format!("its worker let the lease run out {MAX_CRASHES} times")
    );
    assert_eq!((place.handles(id), place.lease_word(id)), (vec!["dlq_queue".to_owned()], None));
    assert_sound(&place);
}

#[test]
fn with_one_crash_allowed_the_first_one_makes_a_dead_letter() {
    let place = Place::with_moving_clock();
    let ids = place.submit_many(2);
    // Both are given out: a job without a crash is not quarantined.
    assert_eq!(place.queue.pull(&request(9), None, 1).unwrap().jobs.len(), 2);
    place.passes(LEASE);
    assert_eq!(place.queue.work_off_due(1).unwrap().lost.len(), 2);
    for id in ids {
        assert_eq!(place.status(id), Status::Failed);
        assert_eq!(place.job(id).errors.last().unwrap().message, "its worker let the lease run out 1 times");
    }
    assert_sound(&place);
}

#[test]
fn a_dead_workers_jobs_keep_their_order() {
    let place = Place::with_moving_clock();
    let ids = place.submit_many(5);
    assert_eq!(place.pull(4).len(), 4);
    place.due_after(LEASE);
    assert_sound(&place);
    let again = place.pulled();
    assert_eq!(again.len(), 5);
    assert_eq!(again.last(), ids.last());
}

#[test]
fn a_report_extends_the_lease_as_long_as_before_or_as_it_says_and_never_past_the_timeout() {
    let place = Place::with_moving_clock();
    let id = place.submit();
    let pulled = place.pull_one();
    let attempt = pulled.attempt;
    let timeout_at = pulled.timeout_at_ms;
    let mut last = pulled.lease_until_ms;
    for (after, lease_ms, length) in
        [(1_000, None, LEASE), (5_000, Some(40_000), 40_000), (1_000, None, 40_000)]
    {
        place.passes(after);
        let until = place.lease_after(attempt, progress(0.5, ""), lease_ms).unwrap();
        let least = pulled.lease_until_ms - LEASE + length;
        assert!((least..least + 60_000).contains(&until), "{until}");
        assert_ne!(until, last);
        assert_eq!((place.lease_word(id), place.job(id).lease_until_ms), (Some(until), Some(until)));
        assert_sound(&place);
        last = until;
    }
    // A shorter lease is possible too.
    let shorter = place.lease_after(attempt, Report::default(), Some(1_000)).unwrap();
    assert!(shorter < last);
    assert_eq!(place.lease_word(id), Some(shorter));
    assert_eq!(place.lease_after(attempt, Report::default(), Some(u64::from(u32::MAX))), Some(timeout_at));
    place.passes(TIMEOUT - 60_000);
    assert_eq!(place.lease_after(attempt, Report::default(), Some(10 * TIMEOUT)), Some(timeout_at));
    assert_eq!(place.status(id), Status::Processing);
    assert_sound(&place);
}

#[test]
fn a_late_extension_finds_the_lease_gone_only_if_somebody_has_looked() {
    let place = Place::with_moving_clock();
    place.submit();
    let attempt = place.pull_one().attempt;
    // The lease is over, and no server has worked off the agenda yet.
    place.passes(LEASE + 1);
    assert!(place.lease_after(attempt, Report::default(), None).is_some());
    assert_eq!(place.due_after(1).lost, []);
    assert_sound(&place);
    place.due_after(LEASE);
    assert_eq!(place.reports(attempt, Report::default()), Reported::Stale);
    assert_sound(&place);
}

#[test]
fn a_word_that_comes_too_early_waits_for_the_lease() {
    let place = Place::with_moving_clock();
    let id = place.submit();
    let pulled = place.pull_one();
    place.raw(&[&format!("ZADD T:agenda 1 lease:{id}")]);
    assert_eq!(place.due_after(0).lost, []);
    assert_eq!(place.lease_word(id), Some(pulled.lease_until_ms));
    assert_sound(&place);
}

#[test]
fn words_of_jobs_that_no_worker_has_are_dropped() {
    let place = Place::with_moving_clock();
    let a = place.server();
    let [waits, runs, ended] = [place.submit(), place.submit(), place.submit()];
    place.raw(&[
        &format!("LREM T:work_queue:default 1 {waits}"),
        &format!("LPUSH T:work_queue:default {waits}"),
    ]);
    let mut leases: Vec<Lease> = place.take(&a, 2).into_iter().map(|(lease, _)| lease).collect();
    place.ends(&a, &completed(leases.pop().unwrap()));
    // The last server of this job is `pull`.
    let failed = place.submit_with(|job| job.queue = "other".to_owned());
    let pulled = place.try_pull(&PullRequest { queues: vec!["other".to_owned()], ..request(1) });
    assert_eq!(place.is_answered(pulled.jobs[0].attempt, fail()), Status::Retrying);
    for id in [waits, runs, ended, failed, JobId::new(5).unwrap()] {
        place.raw(&[&format!("ZADD T:agenda 1 lease:{id}")]);
    }
    let step = place.due_after(0);
    assert_eq!((step.moved, step.lost.len(), step.timed_out.len()), (0, 0, 0));
    assert_eq!(place.redis::<usize>("ZCARD", "agenda", &[]), 0);
    assert_sound(&place);
}

#[test]
fn a_cancelled_job_whose_worker_dies_is_cancelled() {
    let place = Place::with_moving_clock();
    for lease in [Some(Duration::from_millis(LEASE)), None] {
        let id = place.submit();
        let pulled = place.try_pull(&PullRequest { lease, ..request(1) });
        assert_eq!(pulled.jobs.len(), 1);
        assert_eq!(place.cancel(id), Changed::Requested("pull".to_owned()));
        let step = place.due_after(lease.map_or(TIMEOUT, |_| LEASE));
        assert_eq!((step.lost.len(), step.timed_out.len()), (0, 0));
        let job = place.job(id);
        assert_eq!((job.status, job.crashes, job.server), (Status::Cancelled, 0, None));
        assert_eq!(place.handles(id), ["done"]);
        assert!(!place.keys().contains(&"cancels:pull".to_owned()));
        assert_eq!(place.answers(pulled.jobs[0].attempt, complete()), Answered::Stale);
        assert_sound(&place);
    }
}

#[test]
fn an_attempt_whose_timeout_is_over_is_handed_to_servers_until_one_settles_it() {
    let place = Place::with_moving_clock();
    let id = place.submit();
    let attempt = place.try_pull(&PullRequest { lease: None, ..request(1) }).jobs[0].attempt;
    let step = place.due_after(TIMEOUT);
    assert_eq!((&step.timed_out[..], step.lost.len(), step.moved), (&[attempt][..], 0, 0));
    assert_eq!(place.status(id), Status::Processing);
    assert_sound(&place);
    // The server has died before it has settled the attempt: another one gets it 2 s later.
    assert_eq!(place.due_after(0).timed_out, []);
    assert_eq!(place.due_after(2_000).timed_out, [attempt]);
    let error =
        Verdict::Retry { error: "timed out".to_owned(), delay: Duration::from_secs(5), throttle: None };
    let settled = place.queue.time_out(attempt, error).unwrap();
    assert!(matches!(settled, Answered::Now { status: Status::Retrying, .. }), "{settled:?}");
    let job = place.job(id);
    assert_eq!((job.attempts, job.crashes, place.lease_word(id)), (1, 0, None));
    // Nothing that the worker says counts any more.
    for verdict in [complete(), fail(), Verdict::Release] {
        assert_eq!(place.answers(attempt, verdict), Answered::Stale);
    }
    assert_eq!(place.reports(attempt, progress(1.0, "")), Reported::Stale);
    assert_sound(&place);
    place.waits(6_000);
    assert_eq!(place.pulled(), [id]);
}

#[test]
fn a_worker_that_answers_while_its_timeout_is_being_settled_is_the_first_or_too_late() {
    let place = Place::with_moving_clock();
    place.submit();
    let attempt = place.try_pull(&PullRequest { lease: None, ..request(1) }).jobs[0].attempt;
    assert_eq!(place.due_after(TIMEOUT).timed_out, [attempt]);
    assert_eq!(place.is_answered(attempt, complete()), Status::Completed);
    let late = Verdict::Fail("timed out".to_owned());
    assert_eq!(place.queue.time_out(attempt, late).unwrap(), Answered::Stale);
    assert_eq!(place.status(attempt.job), Status::Completed);
    assert_sound(&place);
}

#[test]
fn a_lease_that_ended_with_a_lost_reply_charges_once() {
    for loses in [Loses::Request, Loses::Answer] {
        let place = Place::with_moving_clock();
        let id = place.submit();
        place.pull_one();
        place.passes(LEASE);
        place.wire.lose("due", loses);
        assert!(place.another_queue().work_off_due(MAX_CRASHES).is_err());
        assert!(place.wire.has_lost());
        place.due_after(0);
        assert_eq!((place.status(id), place.job(id).crashes), (Status::Queued, 1));
        assert_sound(&place);
    }
}

#[test]
fn many_leases_end_in_several_steps() {
    let place = Place::with_moving_clock();
    let ids = place.submit_many(250);
    let mut given = 0;
    while given < 250 {
        given += place.pull(100).len();
    }
    place.passes(LEASE);
    let mut steps = 0;
    let mut lost = 0;
    while lost < 250 {
        let step = place.queue.work_off_due(MAX_CRASHES).unwrap();
        assert!(!step.lost.is_empty() && step.lost.len() <= 200, "{}", step.lost.len());
        lost += step.lost.len();
        steps += 1;
        assert!(step.next == Some(Duration::ZERO) || lost == 250, "{step:?}");
    }
    assert!(steps > 1);
    assert!(ids.iter().all(|id| place.job(*id).crashes == 1));
    assert_sound(&place);
}

#[test]
fn a_checkpoint_of_a_dead_worker_is_given_to_the_next_one() {
    let place = Place::with_moving_clock();
    let id = place.submit();
    let attempt = place.pull_one().attempt;
    place.reports(attempt, Report { log: vec!["step 1".to_owned()], ..checkpoint(r#"{"step":1}"#) });
    place.due_after(LEASE);
    let next = place.pull_one();
    assert_eq!(next.job.checkpoint.unwrap().get(), r#"{"step":1}"#);
    assert_eq!(place.log_texts(id), ["step 1"]);
    assert_sound(&place);
}

/// Tags, so that the job is in one more index.
fn tagged() -> Option<Box<Extras>> {
    Some(Box::new(Extras { tags: vec!["a".to_owned()], ..Extras::default() }))
}

#[test]
fn a_lease_that_ends_sends_the_job_to_its_own_queue_with_the_number_of_its_start() {
    let place = Place::with_moving_clock();
    let id = place.submit_with(|job| {
        job.queue = "other".to_owned();
        job.extras = tagged();
    });
    let wanted = PullRequest { queues: vec!["other".to_owned()], ..request(1) };
    for crash in 1..MAX_CRASHES {
        let pulled = place.try_pull(&wanted);
        let [job] = &pulled.jobs[..] else { panic!("{pulled:?}") };
        assert_eq!(job.attempt.start, u64::from(crash));
        // The queue is empty, and its name is deleted meanwhile.
        place.queue.prune_names(None).unwrap();
        let step = place.due_after(LEASE);
        assert_eq!((step.lost.len(), step.lost[0].attempt, step.lost[0].crashes), (1, 1, crash), "{step:?}");
        assert_eq!(place.handles(id), ["work_queue:other"]);
        assert!(place.redis::<bool>("SISMEMBER", "queues", &["other"]));
        let stored = place.job(id);
        assert!(stored.ready_at_ms() >= job.lease_until_ms, "{stored:?}");
        let error = stored.errors.last().unwrap();
        let expected = (1, Some(u64::from(crash)), ErrorKind::Crash);
        assert_eq!((error.attempt, error.start, error.kind), expected, "{error:?}");
        assert_sound(&place);
    }
}

#[test]
fn with_two_crashes_allowed_the_first_one_sends_the_job_back() {
    let place = Place::with_moving_clock();
    let id = place.submit();
    place.queue.pull(&request(1), None, 2).unwrap();
    place.passes(LEASE);
    assert!(!place.queue.work_off_due(2).unwrap().lost[0].has_failed);
    place.queue.pull(&request(1), None, 2).unwrap();
    place.passes(LEASE);
    assert!(place.queue.work_off_due(2).unwrap().lost[0].has_failed);
    assert_eq!(place.status(id), Status::Failed);
    assert_sound(&place);
}

#[test]
fn a_job_that_ends_with_its_lease_gives_up_its_unique_key_and_its_tags() {
    for is_cancelled in [true, false] {
        let place = Place::with_moving_clock();
        let submit = || {
            place.submit_with(|job| {
                job.unique_key = Some("k".to_owned());
                job.extras = tagged();
            })
        };
        let id = submit();
        place.queue.pull(&request(1), None, 1).unwrap();
        if is_cancelled {
            place.cancel(id);
        }
        place.passes(LEASE);
        place.queue.work_off_due(1).unwrap();
        assert!(place.status(id).is_final());
        assert_sound(&place);
        assert_ne!(submit(), id, "the key is free");
        assert_sound(&place);
    }
}

#[test]
fn whether_an_attempt_has_crashed_or_timed_out_depends_on_its_own_timeout() {
    // The timeout of the job counts, not the default timeout. If the lease and the timeout are over when the server looks, the attempt
    // has timed out.
    for (timeout, lease, passes, has_crashed) in [
        (2 * TIMEOUT, TIMEOUT + 60_000, TIMEOUT + 60_000, true),
        (TIMEOUT, LEASE, TIMEOUT, false),
        (20_000, LEASE, LEASE, true),
        (20_000, LEASE, 20_000, false),
    ] {
        let place = Place::with_moving_clock();
        place.submit_with(|job| job.timeout = Duration::from_millis(timeout));
        place.try_pull(&PullRequest { lease: Some(Duration::from_millis(lease)), ..request(1) });
        let step = place.due_after(passes);
        let found = (step.lost.len(), step.timed_out.len());
        assert_eq!(found, if has_crashed { (1, 0) } else { (0, 1) }, "{timeout} {lease} {passes}");
        assert_sound(&place);
    }
}

#[test]
fn an_attempt_with_damaged_fields_ends_too() {
    for damage in [
        "lease_until x",
        "lease_until -1",
        "lease_until inf",
        "lease_until 1e300",
        "started_at x",
        "started_at inf",
        "timeout_ms x",
        "timeout_ms inf",
        "crashes x",
        "attempts x",
        "errors x",
        "starts x",
        "starts 0",
        "starts 01",
        "starts 1.5",
        "starts 18446744073709551616",
        "starts ",
        "starts",
    ] {
        for lease in [Some(Duration::from_millis(LEASE)), None] {
            let place = Place::with_moving_clock();
            let id = place.submit();
            place.try_pull(&PullRequest { lease, ..request(1) });
            let _: i64 = match damage.split_once(' ') {
                Some((field, value)) => place.redis("HSET", &format!("job:{id}"), &[field, value]),
                None => place.redis("HDEL", &format!("job:{id}"), &[damage]),
            };
            let step = place.due_after(lease.map_or(TIMEOUT, |_| LEASE));
            for attempt in step.timed_out {
                place.queue.time_out(attempt, fail()).unwrap();
            }
            let status: String = place.redis("HGET", &format!("job:{id}"), &["status"]);
            assert_ne!(status, "processing", "{damage}, lease: {lease:?}");
            assert!(place.list(PULLED).is_empty(), "{damage}, lease: {lease:?}");
            assert_eq!(place.lease_word(id), None, "{damage}, lease: {lease:?}");
        }
    }
}
