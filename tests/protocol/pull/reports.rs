//! What an attempt says of itself: progress, log lines, a checkpoint. Only the latest attempt of a running job is heard.

use threadq::internals::queue::{Changed, Settled};

use super::*;
use crate::fixture::*;
use crate::invariants::assert_sound;

/// The most log lines that are kept.
const KEPT: usize = 1_000;

/// A server runs a job; its attempt.
fn running() -> (Place, ServerId, threadq::internals::queue::Lease) {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.submit();
    let lease = place.take_one(&a);
    (place, a, lease)
}

fn numbered(from: usize, count: usize) -> Report {
    Report { log: (from..from + count).map(|n| format!("line {n}")).collect(), ..Report::default() }
}

#[test]
fn the_latest_progress_and_checkpoint_are_kept_and_lines_are_numbered() {
    let (place, _a, lease) = running();
    let (id, attempt) = (lease.id(), lease.attempt_id());
    let accepted = place.reports(attempt, progress(0.25, "one of four"));
    let job = place.job(id);
    let Reported::Accepted { lease_until_ms, timeout_at_ms, is_cancelled, job_type } = accepted else {
        panic!("{accepted:?}")
    };
    // A server's own attempts have no lease.
    assert_eq!((lease_until_ms, is_cancelled, job_type), (None, false, job.job_type.clone()));
    assert_eq!(timeout_at_ms, job.started_at_ms.unwrap() + TIMEOUT);
    let stored = job.progress.unwrap();
    assert_eq!((stored.value, stored.message.as_str()), (0.25, "one of four"));
    assert!(stored.at_ms >= job.started_at_ms.unwrap());
    let report = Report {
        progress: Some((1.0, String::new())),
        log: vec!["first".to_owned(), "second  of two".to_owned()],
        dropped: 0,
        checkpoint: Some(json(r#"{"page":7,"text":"é \" \u0000"}"#)),
    };
    place.reports(attempt, report);
    place.reports(attempt, lines(&["third"]));
    let job = place.job(id);
    let stored = job.progress.unwrap();
    assert_eq!((stored.value, stored.message.as_str()), (1.0, ""));
    assert_eq!(job.checkpoint.unwrap().get(), r#"{"page":7,"text":"é \" \u0000"}"#);
    let kept = [(1, "first"), (2, "second  of two"), (3, "third")].map(|(n, text)| (n, text.to_owned()));
    assert_eq!(place.log(id), kept);
    place.reports(attempt, checkpoint("8"));
    assert_eq!(place.job(id).checkpoint.unwrap().get(), "8");
    assert_sound(&place);
}

#[test]
fn an_empty_report_changes_nothing_but_says_how_long_there_is_time() {
    let (place, _a, lease) = running();
    let before: Vec<(String, String)> = place.redis("HGETALL", &format!("job:{}", lease.id()), &[]);
    assert!(matches!(place.reports(lease.attempt_id(), Report::default()), Reported::Accepted { .. }));
    let after: Vec<(String, String)> = place.redis("HGETALL", &format!("job:{}", lease.id()), &[]);
    assert_eq!(before, after);
    assert!(!place.keys().iter().any(|key| key.starts_with("log:")));
}

#[test]
fn a_large_checkpoint_is_kept_whole_and_a_smaller_one_leaves_nothing_of_it() {
    let (place, a, lease) = running();
    // A text of up to 1 KiB is stored in pieces.
    for length in [1_000, 32 * 1024] {
        let text = format!("\"{}\"", "x".repeat(length - 2));
        place.reports(lease.attempt_id(), checkpoint(&text));
        assert_eq!(place.job(lease.id()).checkpoint.unwrap().get(), text);
        place.reports(lease.attempt_id(), checkpoint("[1]"));
        assert_eq!(place.job(lease.id()).checkpoint.unwrap().get(), "[1]");
    }
    let fields: Vec<String> = place.redis("HKEYS", &format!("job:{}", lease.id()), &[]);
    let chunks: Vec<&String> = fields.iter().filter(|field| field.starts_with("checkpoint")).collect();
    assert_eq!(chunks, ["checkpoint"]);
    place.ends(&a, &completed(lease));
    assert_sound(&place);
}

#[test]
fn listings_leave_the_checkpoint_out() {
    let (place, _a, lease) = running();
    place.reports(lease.attempt_id(), checkpoint("1"));
    place.reports(lease.attempt_id(), progress(0.5, "half"));
    let page =
        place.queue.list(&Default::default(), threadq::internals::queue::Position::Offset(0), 9).unwrap();
    assert!(page.jobs[0].checkpoint.is_none());
    assert_eq!(page.jobs[0].progress.as_ref().unwrap().message, "half");
}

#[test]
fn at_most_a_hundred_lines_a_second_are_kept_whichever_way_they_come() {
    let (place, _a, lease) = running();
    let (id, attempt) = (lease.id(), lease.attempt_id());
    // The beginning of a second by the clock of the scripts.
    let now: (u64, u64) = place.run(&redis::cmd("TIME"));
    place.passes(1_000 - now.1 / 1_000);
    for n in 0..13 {
        place.reports(attempt, numbered(10 * n, 10));
    }
    // The test may have taken longer than the second.
    let first = place.log(id);
    assert!(first.len() >= 100, "{first:?}");
    place.passes(3_000);
    place.reports(attempt, Report { dropped: 7, ..lines(&["later"]) });
    place.passes(3_000);
    place.reports(attempt, lines(&["last"]));
    let log = place.log(id);
    let numbers: Vec<u64> = log.iter().map(|(number, _)| *number).collect();
    assert!(numbers.is_sorted() && numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
    let texts = log.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>();
    assert!(texts.contains(&"later") && texts.contains(&"last"), "{texts:?}");
    // What was left out is told, once for each second: all numbers that are told, and the lines, are all that was reported.
    let told: u64 = texts
        .iter()
        .filter(|text| !text.starts_with("line ") && **text != "later" && **text != "last")
        .map(|text| {
            let number = text.split(' ').next().and_then(|word| word.parse::<u64>().ok());
            number.unwrap_or_else(|| panic!("{text}"))
        })
        .sum();
    let kept = texts.iter().filter(|text| text.starts_with("line ")).count() as u64;
    assert_eq!(told + kept, 130 + 7, "{texts:?}");
    assert_sound(&place);
}

/// Runs this at once within one second of the clock of the scripts, however slow the machine is.
fn within_a_second(mut act: impl FnMut() -> Place) -> Place {
    for _ in 0..50 {
        let place = act();
        let seconds: Vec<String> = place.redis("HVALS", "seconds", &[]);
        if seconds.iter().all(|second| *second == seconds[0]) {
            return place;
        }
    }
    panic!("never within one second");
}

/// Reports this, and notes the second in which Redis has stored it.
fn noted(place: &Place, attempt: AttemptId, report: Report, n: usize) {
    place.reports(attempt, report);
    let window: String = place.redis("HGET", &format!("job:{}", attempt.job), &["log_second"]);
    let _: i64 = place.redis("HSET", "seconds", &[&n.to_string(), window.split(' ').next().unwrap()]);
}

#[test]
fn a_call_with_too_many_lines_keeps_a_hundred_and_says_how_many_are_missing() {
    let (place, _a, lease) = running();
    let (id, attempt) = (lease.id(), lease.attempt_id());
    place.reports(attempt, numbered(0, 150));
    // The next second has room again.
    place.passes(1_000);
    let texts = place.log_texts(id);
    assert_eq!((texts.len(), texts[99].as_str()), (101, "line 99"));
    assert_eq!(texts[100], "50 lines are missing: more than 100 in a second");
    place.reports(attempt, numbered(200, 100));
    let texts = place.log_texts(id);
    assert_eq!((texts.len(), texts[200].as_str()), (201, "line 299"));
    assert_sound(&place);
}

#[test]
fn several_calls_in_a_second_share_its_hundred_lines_and_the_line_that_counts_the_rest() {
    let place = within_a_second(|| {
        let (place, _a, lease) = running();
        let attempt = lease.attempt_id();
        for (n, count) in [60, 40, 20, 5].into_iter().enumerate() {
            noted(&place, attempt, numbered(100 * n, count), n);
        }
        place
    });
    let id = place
        .queue
        .list(&Default::default(), threadq::internals::queue::Position::Offset(0), 1)
        .unwrap()
        .jobs[0]
        .id;
    place.passes(1_000);
    let log = place.log(id);
    assert_eq!((log.len(), &log[99]), (101, &(100, "line 139".to_owned())));
    assert_eq!(log[100], (101, "25 lines are missing: more than 100 in a second".to_owned()));
    let _: i64 = place.redis("DEL", "seconds", &[]);
    assert_sound(&place);
}

#[test]
fn lines_that_a_server_has_dropped_are_told_and_close_the_second() {
    let place = within_a_second(|| {
        let (place, _a, lease) = running();
        let attempt = lease.attempt_id();
        noted(&place, attempt, Report { dropped: 7, ..Report::default() }, 0);
        noted(&place, attempt, lines(&["one more"]), 1);
        place
    });
    let id = place
        .queue
        .list(&Default::default(), threadq::internals::queue::Position::Offset(0), 1)
        .unwrap()
        .jobs[0]
        .id;
    place.passes(1_000);
    let told = (1, "8 lines are missing: more than 100 in a second".to_owned());
    assert_eq!(place.log(id), std::slice::from_ref(&told));
    let attempt = AttemptId { job: id, start: 1 };
    place.reports(attempt, lines(&["later"]));
    assert_eq!(
        place.log(id),
        [told, (2, "later".to_owned())],
        "stored under the number under which it was read"
    );
}

#[test]
fn a_follower_reads_the_count_of_missing_lines_when_it_grows_no_more() {
    let mut early = Vec::new();
    let place = within_a_second(|| {
        let (place, _a, lease) = running();
        let attempt = lease.attempt_id();
        noted(&place, attempt, numbered(0, 110), 0);
        early = place.log(lease.id());
        noted(&place, attempt, numbered(110, 30), 1);
        place
    });
    assert_eq!(early.len(), 100, "the second is not over");
    let page =
        place.queue.list(&Default::default(), threadq::internals::queue::Position::Offset(0), 1).unwrap();
    let id = page.jobs[0].id;
    place.passes(1_000);
    let after = |number, limit| place.queue.job_log(id, number, limit).unwrap().unwrap();
    let log = after(100, 10);
    assert_eq!((log.last, log.lines.len(), log.lines[0].number), (101, 1, 101), "{log:?}");
    assert_eq!(log.lines[0].text, "40 lines are missing: more than 100 in a second");
    assert_eq!(after(101, 10).lines, []);
    assert_eq!(after(50, 50).lines.len(), 50, "no more than the reader wants");
    assert_eq!(after(50, 51).lines.last(), log.lines.first());
    let _: i64 = place.redis("DEL", "seconds", &[]);
    assert_sound(&place);
}

#[test]
fn the_log_of_an_ended_job_has_its_count_of_missing_lines_at_once() {
    let (place, a, lease) = running();
    let id = lease.id();
    place.reports(lease.attempt_id(), numbered(0, 150));
    assert_eq!(place.settle(&a, &buried(lease)), Settled::Now(Status::Failed));
    assert_eq!(place.log_texts(id).last().unwrap(), "50 lines are missing: more than 100 in a second");
}

#[test]
fn a_log_with_more_lines_than_its_job_counts_is_read_from_its_first_line() {
    let (place, _a, lease) = running();
    let (id, attempt) = (lease.id(), lease.attempt_id());
    place.reports(attempt, numbered(0, 3));
    place.raw(&[&format!("HSET T:job:{id} log_last 2")]);
    let numbers: Vec<u64> = place.log(id).into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn a_report_on_a_lease_until_the_timeout_leaves_it_there() {
    let place = Place::with_moving_clock();
    let id = place.submit();
    let pulled = place.try_pull(&PullRequest { lease: None, ..request(1) }).jobs.remove(0);
    place.passes(5_000);
    assert_eq!(place.lease_after(pulled.attempt, progress(0.5, ""), None), Some(pulled.timeout_at_ms));
    assert_eq!(place.lease_word(id), Some(pulled.timeout_at_ms));
    assert_sound(&place);
}

#[test]
fn the_last_thousand_lines_are_kept_under_their_numbers() {
    let (place, _a, lease) = running();
    let (id, attempt) = (lease.id(), lease.attempt_id());
    for n in 0..14 {
        place.reports(attempt, numbered(100 * n, 100));
        place.passes(2_000);
    }
    let log = place.queue.job_log(id, 0, 2_000).unwrap().unwrap();
    assert_eq!((log.lines.len(), log.last, log.is_final), (KEPT, 1_400, false));
    let shown = |line: &threadq::internals::queue::LogLine| (line.number, line.text.clone());
    assert_eq!(log.lines.first().map(shown), Some((401, "line 400".to_owned())));
    assert_eq!(log.lines.last().map(shown), Some((1_400, "line 1399".to_owned())));
    assert!(log.lines.is_sorted_by_key(|line| line.at_ms));
    assert_eq!(place.redis::<usize>("LLEN", &format!("log:{id}"), &[]), KEPT);
    // Pages behind a number; a number that is gone, or not there yet.
    let page = |after, limit| {
        let log = place.queue.job_log(id, after, limit).unwrap().unwrap();
        (log.lines.iter().map(|line| line.number).collect::<Vec<_>>(), log.last)
    };
    assert_eq!(page(1_398, 10), (vec![1_399, 1_400], 1_400));
    assert_eq!(page(3, 2), (vec![401, 402], 1_400));
    assert_eq!(page(700, 3), (vec![701, 702, 703], 1_400));
    assert_eq!(page(1_400, 10), (vec![], 1_400));
    assert_eq!(page(9_999_999, 10), (vec![], 1_400));
    assert_eq!(page(u64::MAX, 10), (vec![], 1_400));
    assert_sound(&place);
}

#[test]
fn a_job_without_lines_has_an_empty_log_and_no_job_has_none() {
    let (place, a, lease) = running();
    let id = lease.id();
    let log = place.queue.job_log(id, 0, 10).unwrap().unwrap();
    assert_eq!((log.lines.len(), log.last, log.is_final), (0, 0, false));
    place.ends(&a, &completed(lease));
    assert!(place.queue.job_log(id, 0, 10).unwrap().unwrap().is_final);
    assert!(place.queue.job_log(JobId::new(1).unwrap(), 0, 10).unwrap().is_none());
}

/// What takes an attempt away from its job.
type Loss = fn(&Place, &ServerId, threadq::internals::queue::Lease);
const LOSSES: &[(&str, Loss)] = &[
    ("completed", |place, a, lease| place.ends(a, &completed(lease))),
    ("failed", |place, a, lease| place.ends(a, &buried(lease))),
    ("failed, with a retry", |place, a, lease| place.ends(a, &retried(lease))),
    ("given back", |place, a, lease| place.ends(a, &released(lease))),
    ("the next attempt has begun on the same thread", |place, a, mut lease| {
        place.queue.retry_inline(a, &mut lease, "no", Duration::ZERO).unwrap();
    }),
    ("its server was declared dead", |place, a, _| _ = place.dies(a)),
    ("started again elsewhere", |place, a, _| {
        place.dies(a);
        let b = place.server();
        let _lease = place.take_one(&b);
    }),
    ("deleted", |place, a, lease| {
        let id = lease.id();
        place.ends(a, &completed(lease));
        assert_eq!(place.queue.delete(&[id], &[]).unwrap(), [Changed::Done]);
    }),
];

#[test]
fn a_report_of_an_attempt_that_is_over_changes_nothing() {
    for (loss, act) in LOSSES {
        println!("{loss}");
        let (place, a, lease) = running();
        let (id, attempt) = (lease.id(), lease.attempt_id());
        place.reports(attempt, Report { log: vec!["before".to_owned()], ..progress(0.5, "half") });
        act(&place, &a, lease);
        let fields = || -> Vec<(String, String)> {
            let mut fields: Vec<_> = place.redis("HGETALL", &format!("job:{id}"), &[]);
            fields.sort();
            fields
        };
        let log = || place.list(&format!("log:{id}"));
        let before = (fields(), log(), place.keys().len());
        let everything = Report {
            progress: Some((0.9, "late".to_owned())),
            log: vec!["late".to_owned()],
            dropped: 5,
            checkpoint: Some(json("9")),
        };
        assert_eq!(place.reports_with(attempt, everything, Some(60_000)), Reported::Stale, "{loss}");
        assert_eq!((fields(), log(), place.keys().len()), before, "{loss}");
        assert_sound(&place);
    }
}

#[test]
fn a_report_for_another_start_or_another_job_changes_nothing() {
    let (place, _a, lease) = running();
    let attempt = lease.attempt_id();
    let nobody = AttemptId { job: JobId::new(12).unwrap(), start: 1 };
    let waiting = AttemptId { job: place.submit(), start: 0 };
    for other in [other_attempt(attempt, 1), nobody, waiting, AttemptId { start: 1, ..waiting }] {
        assert_eq!(
            place.reports(other, Report { log: vec!["x".to_owned()], ..checkpoint("1") }),
            Reported::Stale
        );
    }
    assert!(!place.keys().iter().any(|key| key.starts_with("log:")));
    assert_sound(&place);
}

#[test]
fn reports_of_many_attempts_are_judged_each_by_itself() {
    let place = Place::new();
    let a = place.server();
    place.submit_many(3);
    let leases: Vec<_> = place.take(&a, 3).into_iter().map(|(lease, _)| lease).collect();
    let attempts: Vec<AttemptId> = leases.iter().map(|lease| lease.attempt_id()).collect();
    let all = [attempts[0], other_attempt(attempts[1], 1), attempts[2], attempts[0]];
    let reports: Vec<AttemptReport> = all
        .into_iter()
        .enumerate()
        .map(|(n, attempt)| AttemptReport { attempt, report: progress(0.1 * n as f64, ""), lease: None })
        .collect();
    let reported = place.queue.report(&reports).unwrap();
    let is_stale: Vec<bool> = reported.iter().map(|reported| *reported == Reported::Stale).collect();
    assert_eq!(is_stale, [false, true, false, false]);
    let value = |n: usize| place.job(attempts[n].job).progress.map(|progress| progress.value);
    assert_eq!([value(0), value(1), value(2)], [Some(0.1 * 3.0), None, Some(0.2)]);
    assert_eq!(place.queue.report(&[]).unwrap(), []);
    assert_sound(&place);
}

#[test]
fn what_was_reported_outlives_failures_crashes_and_retries() {
    let (place, a, lease) = running();
    let (id, attempt) = (lease.id(), lease.attempt_id());
    place.reports(attempt, Report { log: vec!["one".to_owned()], ..checkpoint("1") });
    place.ends(&a, &retried(lease));
    place.waits(7_200_000);
    // The next attempt gets the checkpoint.
    let (lease, job) = place.take(&a, 1).remove(0);
    assert_eq!(job.checkpoint.unwrap().get(), "1");
    place.reports(lease.attempt_id(), Report { log: vec!["two".to_owned()], ..checkpoint("2") });
    place.dies(&a);
    let b = place.server();
    let (lease, job) = place.take(&b, 1).remove(0);
    assert_eq!((job.checkpoint.unwrap().get(), job.crashes), ("2", 1));
    place.ends(&b, &released(lease));
    let (lease, job) = place.take(&b, 1).remove(0);
    assert_eq!(job.checkpoint.unwrap().get(), "2");
    place.ends(&b, &buried(lease));
    // A person's retry gives it to the next attempt too, unless the job is to begin anew.
    assert_eq!(place.queue.retry(&[id], &[]).unwrap(), [Changed::Done]);
    assert_eq!(place.job(id).checkpoint.unwrap().get(), "2");
    let (lease, job) = place.take(&b, 1).remove(0);
    assert_eq!(job.checkpoint.unwrap().get(), "2");
    assert_eq!(place.log_texts(id), ["one", "two"]);
    place.ends(&b, &buried(lease));
    assert_eq!(place.queue.retry_from_start(&[id], &[]).unwrap(), [Changed::Done]);
    let job = place.job(id);
    assert!(job.checkpoint.is_none() && job.progress.is_none(), "{job:?}");
    let (lease, job) = place.take(&b, 1).remove(0);
    assert!(job.checkpoint.is_none(), "{job:?}");
    place.reports(lease.attempt_id(), checkpoint("3"));
    place.ends(&b, &completed(lease));
    assert_eq!(place.job(id).checkpoint.unwrap().get(), "3", "a checkpoint is kept after the end");
    assert_sound(&place);
}

#[test]
fn a_retry_from_the_start_drops_all_pieces_of_a_large_checkpoint() {
    let (place, a, lease) = running();
    let id = lease.id();
    place.reports(lease.attempt_id(), checkpoint(&format!("\"{}\"", "x".repeat(1_000))));
    place.ends(&a, &buried(lease));
    place.queue.retry_from_start(&[id], &[]).unwrap();
    let fields: Vec<String> = place.redis("HKEYS", &format!("job:{id}"), &[]);
    assert!(!fields.iter().any(|field| field.starts_with("checkpoint")), "{fields:?}");
    assert_sound(&place);
}

#[test]
fn a_log_is_deleted_with_its_job() {
    let place = Place::with_moving_clock();
    let a = place.server();
    // By a person; by the number of kept jobs; by the age of a dead letter; by its own retention.
    let mut ends: Vec<JobId> = Vec::new();
    for n in 0..4 {
        let retain = Some(Box::new(threadq::job::Extras {
            retain: Some(Duration::from_secs(60)),
            ..Default::default()
        }));
        let id = place.submit_with(|job| job.extras = retain.filter(|_| n == 3));
        let lease = place.take_one(&a);
        place.reports(lease.attempt_id(), lines(&["a line"]));
        place.ends(&a, &if n == 2 { buried(lease) } else { completed(lease) });
        ends.push(id);
    }
    let logs = || place.keys().into_iter().filter(|key| key.starts_with("log:")).count();
    assert_eq!(logs(), 4);
    place.queue.delete(&ends[..1], &[]).unwrap();
    assert_eq!(logs(), 3);
    place.queue.delete_old_jobs(false, Duration::from_secs(3600), 0).unwrap();
    assert!(!place.keys().contains(&format!("log:{}", ends[1])));
    place.passes(100_000);
    place.queue.delete_old_jobs(true, Duration::ZERO, 0).unwrap();
    place.works_off();
    assert_eq!((logs(), place.keys().iter().filter(|key| key.starts_with("job:")).count()), (0, 0));
    assert_sound(&place);
}

#[test]
fn a_full_redis_refuses_reports_and_still_settles() {
    let place = Place::alone();
    let a = place.server();
    place.submit();
    let lease = place.take_one(&a);
    place.raw(&["CONFIG SET maxmemory 1"]);
    let refused = place.queue.report(&[AttemptReport {
        attempt: lease.attempt_id(),
        report: lines(&["no room"]),
        lease: None,
    }]);
    assert!(matches!(refused, Err(threadq::internals::queue::Error::Full)), "{refused:?}");
    place.ends(&a, &completed(lease));
    place.raw(&["CONFIG SET maxmemory 0"]);
    assert_sound(&place);
}

#[test]
fn damaged_fields_of_reports_stop_nothing() {
    for damage in [
        "progress x",
        "progress 1",
        "progress 9999999999999999999999 0.5 x",
        "log_last x",
        "log_last -5",
        "log_last 1e300",
        "log_second x",
        "log_second 1 2",
        "log_second 1 99999999999999999999 x",
        "lease_until x",
        "lease_until inf",
        "lease_ms -1",
        "lease_ms nan",
        "answered x",
        "worker \u{0}",
        "started_at x",
        "timeout_ms x",
    ] {
        let place = Place::with_moving_clock();
        let id = place.submit();
        let attempt = place.pull_one().attempt;
        let (field, value) = damage.split_once(' ').unwrap();
        let _: i64 = place.redis("HSET", &format!("job:{id}"), &[field, value]);
        let report = Report { log: vec!["a line".to_owned()], ..progress(0.5, "half") };
        assert!(matches!(place.reports(attempt, report), Reported::Accepted { .. }), "{damage}");
        assert_eq!(place.log_texts(id), ["a line"], "{damage}");
        assert_eq!(place.is_answered(attempt, complete()), Status::Completed, "{damage}");
        assert!(place.handles(id).contains(&"completed".to_owned()), "{damage}");
        assert_eq!(place.lease_word(id), None, "{damage}");
    }
    // A log that is not a list gets no lines, and the other reports of the call count.
    let place = Place::new();
    let ids = place.submit_many(2);
    let attempts: Vec<AttemptId> = place.pull(2).iter().map(|pulled| pulled.attempt).collect();
    place.raw(&[&format!("SET T:log:{} x", ids[0])]);
    for _ in 0..2 {
        let report =
            |attempt: &AttemptId| AttemptReport { attempt: *attempt, report: numbered(0, 120), lease: None };
        let reports: Vec<AttemptReport> = attempts.iter().map(report).collect();
        let reported = place.queue.report(&reports).unwrap();
        assert!(!reported.contains(&Reported::Stale), "{reported:?}");
    }
    assert_eq!(place.queue.job_log(ids[0], 0, 10).unwrap().unwrap().lines, []);
    assert!(place.log(ids[1]).len() >= 100);
    for attempt in attempts {
        assert_eq!(place.is_answered(attempt, complete()), Status::Completed);
    }
}
