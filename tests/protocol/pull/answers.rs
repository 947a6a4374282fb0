//! Complete, fail and release of pull workers: the first answer counts, the same answer again is harmless, and any other one
//! changes nothing.

use threadq::internals::queue::Changed;
use threadq::job::{Expiry, Extras};

use super::*;
use crate::fixture::{completed, retried};
use crate::invariants::assert_sound;
use crate::lua_proxy::Loses;

type Answer = fn() -> Verdict;
/// The word of the answer, the answer, and the status of the job afterwards.
const ANSWERS: &[(&str, Answer, Status)] = &[
    ("complete", complete, Status::Completed),
    ("fail", fail, Status::Retrying),
    ("fail", || Verdict::Fail("never".to_owned()), Status::Failed),
    ("release", || Verdict::Release, Status::Queued),
    ("release", || Verdict::Snooze(Duration::from_secs(60)), Status::Scheduled),
];

/// All fields of a job, and its places.
fn record(place: &Place, id: JobId) -> (Vec<(String, String)>, Vec<String>, Option<u64>) {
    let mut fields: Vec<(String, String)> = place.redis("HGETALL", &format!("job:{id}"), &[]);
    fields.sort();
    (fields, place.handles(id), place.lease_word(id))
}

#[test]
fn the_first_answer_counts_and_only_the_same_again_is_answered_as_the_first() {
    for (first, verdict, status) in ANSWERS {
        for (second, other, _) in ANSWERS {
            println!("{first} ({status}), then {second}");
            let place = Place::with_moving_clock();
            let id = place.submit();
            let attempt = place.pull_one().attempt;
            place.passes(1_500);
            match place.answers(attempt, verdict()) {
                Answered::Now { status: found, has_expired, job_type, run_ms } => {
                    assert_eq!((found, has_expired, job_type.as_str()), (*status, false, "t"));
                    assert!((1_500..60_000).contains(&run_ms), "{run_ms}");
                }
                answered => panic!("{answered:?}"),
            }
            assert_eq!((place.status(id), place.lease_word(id)), (*status, None));
            assert_sound(&place);
            let before = record(&place, id);
            let again = place.answers(attempt, other());
            let expected = if first == second { Answered::Repeated(*status) } else { Answered::Stale };
            assert_eq!(again, expected);
            assert_eq!(record(&place, id), before);
            assert_sound(&place);
        }
    }
}

#[test]
fn the_attempts_are_counted_as_those_of_servers() {
    for (answer, verdict, _) in ANSWERS {
        let place = Place::new();
        let id = place.submit();
        let attempt = place.pull_one().attempt;
        place.is_answered(attempt, verdict());
        let job = place.job(id);
        let counted = u32::from(*answer != "release");
        assert_eq!((job.attempts, job.crashes), (counted, 0), "{answer}");
        assert_eq!(job.errors.len(), usize::from(*answer == "fail"), "{answer}");
    }
}

#[test]
fn an_answer_of_an_attempt_that_was_taken_away_changes_nothing() {
    type TakeAway = fn(&Place, JobId);
    let takes_away: &[(&str, TakeAway)] = &[
        ("its lease has ended", |_, _| {}),
        ("another worker has it", |place, _| _ = place.pull_one()),
        ("a server has it", |place, _| {
            let a = place.server();
            let _lease = place.take_one(&a);
        }),
        ("a server has completed it", |place, _| {
            let a = place.server();
            place.ends(&a, &completed(place.take_one(&a)));
        }),
        ("another worker has completed it", |place, _| {
            let attempt = place.pull_one().attempt;
            place.is_answered(attempt, Verdict::Complete(json("2")));
        }),
        ("it was cancelled since", |place, id| assert_eq!(place.cancel(id), Changed::Done)),
        ("it was deleted since", |place, id| {
            place.cancel(id);
            assert_eq!(place.queue.delete(&[id], &[]).unwrap(), [Changed::Done]);
        }),
    ];
    for (what, act) in takes_away {
        let place = Place::with_moving_clock();
        let id = place.submit();
        let attempt = place.pull_one().attempt;
        place.waits(LEASE);
        act(&place, id);
        let before = record(&place, id);
        for (answer, verdict, _) in ANSWERS {
            assert_eq!(place.answers(attempt, verdict()), Answered::Stale, "{what}: {answer}");
        }
        assert_eq!(place.reports_with(attempt, checkpoint("9"), Some(60_000)), Reported::Stale, "{what}");
        assert_eq!(record(&place, id), before, "{what}");
        assert_sound(&place);
    }
}

#[test]
fn an_answer_from_before_a_restart_of_the_job_does_not_count_for_the_next_attempt() {
    let place = Place::with_moving_clock();
    place.submit();
    let first = place.pull_one().attempt;
    place.is_answered(first, Verdict::Release);
    let second = place.pull_one().attempt;
    assert_eq!(second, other_attempt(first, 1));
    for later in [0, 1] {
        // Once while the second attempt runs, and once after its end.
        for (_, verdict, _) in ANSWERS {
            let answered = place.answers(first, verdict());
            assert!(matches!(answered, Answered::Stale | Answered::Repeated(_)), "{answered:?}");
        }
        assert_eq!(place.answers(other_attempt(second, 1), complete()), Answered::Stale);
        if later == 0 {
            assert_eq!(place.status(first.job), Status::Processing);
            assert_eq!(place.is_answered(second, complete()), Status::Completed);
        }
    }
    assert_eq!(place.answers(second, complete()), Answered::Repeated(Status::Completed));
    assert_eq!(place.job(first.job).attempts, 1);
    assert_sound(&place);
}

#[test]
fn an_attempt_of_a_server_may_only_report() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let lease = place.take_one(&a);
    let attempt = lease.attempt_id();
    for (_, verdict, _) in ANSWERS {
        assert_eq!(place.answers(attempt, verdict()), Answered::Stale);
    }
    assert_eq!(place.status(id), Status::Processing);
    assert!(matches!(
        place.reports_with(attempt, progress(0.5, ""), Some(5_000)),
        Reported::Accepted { lease_until_ms: None, .. }
    ));
    assert_eq!(place.lease_word(id), None);
    place.ends(&a, &completed(lease));
    assert_sound(&place);
}

#[test]
fn after_a_cancel_only_complete_completes() {
    let place = Place::new();
    for (answer, verdict, status) in ANSWERS {
        let id = place.submit();
        let attempt = place.pull_one().attempt;
        assert_eq!(place.cancel(id), Changed::Requested("pull".to_owned()));
        let reported = place.reports(attempt, Report::default());
        assert!(matches!(reported, Reported::Accepted { is_cancelled: true, .. }), "{reported:?}");
        let expected = if *answer == "complete" { *status } else { Status::Cancelled };
        assert_eq!(place.is_answered(attempt, verdict()), expected, "{answer}");
        assert_eq!(place.answers(attempt, verdict()), Answered::Repeated(expected), "{answer}");
        assert!(!place.keys().contains(&"cancels:pull".to_owned()));
        assert_sound(&place);
    }
}

#[test]
fn an_answer_whose_reply_was_lost_is_answered_when_it_is_sent_again() {
    for (answer, verdict, status) in ANSWERS {
        for loses in [Loses::Request, Loses::Answer] {
            let place = Place::new();
            let id = place.submit();
            let attempt = place.pull_one().attempt;
            place.wire.lose("settle", loses);
            assert!(place.another_queue().answer(&[(attempt, verdict())]).is_err());
            assert!(place.wire.has_lost());
            assert_sound(&place);
            let again = place.answers(attempt, verdict());
            match loses {
                Loses::Request => {
                    assert!(matches!(again, Answered::Now { status: now, .. } if now == *status))
                }
                Loses::Answer => assert_eq!(again, Answered::Repeated(*status), "{answer}"),
            }
            assert_eq!(place.status(id), *status);
            assert_sound(&place);
        }
    }
}

#[test]
fn a_report_whose_reply_was_lost_may_be_sent_again() {
    for loses in [Loses::Request, Loses::Answer] {
        let place = Place::new();
        let id = place.submit();
        let attempt = place.pull_one().attempt;
        let report = || Report { log: vec!["a line".to_owned()], ..progress(0.5, "half") };
        place.wire.lose("report", loses);
        let lost = AttemptReport { attempt, report: report(), lease: None };
        assert!(place.another_queue().report(&[lost]).is_err());
        assert!(place.wire.has_lost());
        assert!(matches!(place.reports(attempt, report()), Reported::Accepted { .. }));
        // A line may be there twice, and is never missing.
        let texts = place.log_texts(id);
        assert!(matches!(texts.len(), 1..=2) && texts.iter().all(|text| text == "a line"), "{texts:?}");
        assert_sound(&place);
    }
}

#[test]
fn many_answers_in_one_call_are_judged_each_by_itself() {
    let place = Place::new();
    let ids = place.submit_many(4);
    let attempts: Vec<AttemptId> = place.pull(9).iter().map(|pulled| pulled.attempt).collect();
    let answers = [
        (attempts[0], complete()),
        (other_attempt(attempts[1], 1), complete()),
        (attempts[2], fail()),
        (attempts[0], complete()),
        (attempts[0], Verdict::Release),
        (attempts[3], Verdict::Release),
    ];
    let (answered, _) = place.queue.answer(&answers).unwrap();
    let words: Vec<String> = answered
        .iter()
        .map(|answered| match answered {
            Answered::Now { status, .. } => format!("now {status}"),
            Answered::Repeated(status) => format!("repeated {status}"),
            Answered::Stale => "stale".to_owned(),
        })
        .collect();
    let expected = ["now completed", "stale", "now retrying", "repeated completed", "stale", "now queued"];
    assert_eq!(words, expected);
    assert_eq!(place.status(ids[1]), Status::Processing);
    assert_sound(&place);
}

#[test]
fn two_threads_that_answer_at_the_same_time_settle_once() {
    let place = Place::new();
    let ids = place.submit_many(60);
    let attempts: Vec<AttemptId> = (0..6).flat_map(|_| place.pull(10)).map(|pulled| pulled.attempt).collect();
    let queues = [place.another_queue(), place.another_queue()];
    let answers: Vec<Vec<Answered>> = std::thread::scope(|scope| {
        let threads: Vec<_> = queues
            .iter()
            .map(|queue| {
                let attempts = &attempts;
                scope.spawn(move || {
                    let answer =
                        |attempt: &AttemptId| queue.answer(&[(*attempt, complete())]).unwrap().0.remove(0);
                    attempts.iter().map(answer).collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (n, id) in ids.iter().enumerate() {
        let both = [&answers[0][n], &answers[1][n]];
        let first = both.iter().filter(|answered| matches!(answered, Answered::Now { .. })).count();
        let again =
            both.iter().filter(|answered| ***answered == Answered::Repeated(Status::Completed)).count();
        assert_eq!((first, again), (1, 1), "{both:?}");
        assert_eq!(place.job(*id).attempts, 1);
    }
    assert_sound(&place);
}

#[test]
fn a_failure_that_would_be_retried_after_the_expiry_ends_the_job() {
    let place = Place::new();
    let extras = Extras { expiry: Some(Expiry::AfterMs(60_000)), ..Extras::default() };
    place.submit_with(|job| job.extras = Some(Box::new(extras)));
    let attempt = place.pull_one().attempt;
    let answered = place.answers(attempt, fail());
    assert!(
        matches!(answered, Answered::Now { status: Status::Failed, has_expired: true, .. }),
        "{answered:?}"
    );
    assert_eq!(place.answers(attempt, fail()), Answered::Repeated(Status::Failed));
    assert_sound(&place);
}

#[test]
fn the_last_attempt_of_a_pull_worker_makes_a_dead_letter() {
    let place = Place::with_moving_clock();
    let id = place.submit_with(|job| job.max_attempts = 2);
    let first = place.pull_one().attempt;
    assert_eq!(place.is_answered(first, fail()), Status::Retrying);
    place.waits(3_700_000);
    let second = place.pull_one().attempt;
    assert_eq!(place.is_answered(second, fail()), Status::Failed);
    assert_eq!(place.handles(id), ["dlq_queue"]);
    assert_sound(&place);
    // A server's failure after that counts from 0 again.
    place.queue.retry(&[id], &[]).unwrap();
    let a = place.server();
    let lease = place.take_one(&a);
    place.ends(&a, &retried(lease));
    assert_eq!((place.status(id), place.job(id).attempts), (Status::Retrying, 1));
    assert_eq!(place.answers(second, fail()), Answered::Repeated(Status::Failed));
    assert_eq!(place.answers(second, complete()), Answered::Stale);
    assert_eq!((place.status(id), place.job(id).attempts), (Status::Retrying, 1));
    assert_sound(&place);
}

#[test]
fn an_attempt_whose_number_ends_as_that_of_a_later_one_is_another_attempt() {
    let place = Place::new();
    let id = place.submit();
    place.raw(&[&format!("HSET T:job:{id} starts 10")]);
    let attempt = place.pull_one().attempt;
    assert_eq!(attempt.start, 11);
    place.is_answered(attempt, complete());
    assert_eq!(place.answers(AttemptId { start: 1, ..attempt }, complete()), Answered::Stale);
    assert_eq!(place.answers(attempt, complete()), Answered::Repeated(Status::Completed));
}

#[test]
fn an_attempt_that_began_at_no_time_or_in_the_future_has_taken_no_time() {
    // Redis's clock may have been set back.
    for started_at in ["x", "4000000000000"] {
        let place = Place::new();
        let id = place.submit();
        let attempt = place.pull_one().attempt;
        place.raw(&[&format!("HSET T:job:{id} started_at {started_at}")]);
        let answered = place.answers(attempt, complete());
        assert!(matches!(answered, Answered::Now { run_ms: 0, .. }), "{answered:?}");
    }
}
