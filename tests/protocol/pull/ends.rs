//! Limits of pulled jobs: every end of an attempt gives its room back in the same step.

use threadq::job::Expiry;

use super::*;
use crate::fixture::completed;
use crate::invariants::assert_sound;
use crate::limits::{limited, slots};

type End = fn(&Place, AttemptId);

/// The ends of an attempt after which the job does not start again, or later.
const ENDS: &[(&str, End)] = &[
    ("completed", |place, attempt| _ = place.is_answered(attempt, complete())),
    ("failed", |place, attempt| _ = place.is_answered(attempt, Verdict::Fail("no".to_owned()))),
    ("failed, with a retry later", |place, attempt| _ = place.is_answered(attempt, fail())),
    ("given back for later", |place, attempt| {
        _ = place.is_answered(attempt, Verdict::Snooze(Duration::from_secs(3600)));
    }),
    ("cancelled, and given back", |place, attempt| {
        place.cancel(attempt.job);
        assert_eq!(place.is_answered(attempt, Verdict::Release), Status::Cancelled);
    }),
    ("cancelled, and its lease has ended", |place, attempt| {
        place.cancel(attempt.job);
        place.waits(LEASE);
        assert_eq!(place.status(attempt.job), Status::Cancelled);
    }),
    ("its lease has ended for the last time", |place, attempt| {
        place.raw(&[&format!("HSET T:job:{} crashes {}", attempt.job, MAX_CRASHES - 1)]);
        place.waits(LEASE);
        assert_eq!(place.status(attempt.job), Status::Failed);
    }),
    ("its timeout was over", |place, attempt| {
        let error =
            Verdict::Retry { error: "timed out".to_owned(), delay: Duration::from_secs(60), throttle: None };
        _ = place.queue.time_out(attempt, error).unwrap();
        assert_eq!(place.status(attempt.job), Status::Retrying);
    }),
];

/// The ends after which the job goes back to its queue.
const RETURNS: &[(&str, End)] = &[
    ("given back", |place, attempt| _ = place.is_answered(attempt, Verdict::Release)),
    ("its lease has ended", |place, _| _ = place.waits(LEASE)),
];

/// A pull worker has the first job, and the second one waits for its room.
fn with_a_waiting_job() -> (Place, [JobId; 2], AttemptId) {
    let place = Place::with_moving_clock();
    place.define("smtp", slots(1));
    let first = place.submit_limited(&["smtp"]);
    let attempt = place.pull_one().attempt;
    let second = place.submit_limited(&["smtp"]);
    assert!(place.pulled().is_empty());
    assert_eq!((place.holders("smtp"), place.held("smtp")), (vec![first], vec![second]));
    assert_sound(&place);
    (place, [first, second], attempt)
}

#[test]
fn every_end_of_a_pulled_attempt_frees_its_slot_and_sends_the_next_job_on() {
    for (end, act) in ENDS {
        println!("{end}");
        let (place, [_, second], attempt) = with_a_waiting_job();
        act(&place, attempt);
        assert_sound(&place);
        assert_eq!((place.holders("smtp"), place.kept("smtp")), (vec![], vec![second]));
        let a = place.server();
        let mut started = place.take(&a, 9);
        assert_eq!(started.len(), 1);
        assert_eq!(started[0].1.id, second);
        assert_sound(&place);
        place.ends(&a, &completed(started.remove(0).0));
        assert_sound(&place);
        assert_eq!(place.holders("smtp"), []);
    }
}

#[test]
fn a_job_that_goes_back_to_its_queue_gives_up_its_slot_too() {
    for (end, act) in RETURNS {
        println!("{end}");
        let (place, [first, second], attempt) = with_a_waiting_job();
        act(&place, attempt);
        assert_sound(&place);
        // The older one is the first again.
        for id in [first, second] {
            let pulled = place.pull_one();
            assert_eq!(pulled.job.id, id);
            assert_eq!(place.holders("smtp"), [id]);
            assert_sound(&place);
            place.is_answered(pulled.attempt, complete());
        }
        place.assert_no_trace();
        assert_sound(&place);
    }
}

#[test]
fn own_and_pull_workers_share_the_room_of_a_limit() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(3));
    for _ in 0..12 {
        place.submit_limited(&["smtp"]);
    }
    let mut done = 0;
    for round in 0..40 {
        let pulled = place.pull(2);
        let taken = place.take(&a, 2);
        assert!(place.holders("smtp").len() <= 3);
        done += pulled.len() + taken.len();
        assert_sound(&place);
        for pulled in pulled {
            if round % 3 == 0 {
                place.is_answered(pulled.attempt, complete())
            } else {
                place.status(pulled.job.id)
            };
        }
        for (lease, _) in taken {
            place.ends(&a, &completed(lease));
        }
        // Some workers die.
        place.waits(LEASE);
        assert_sound(&place);
        if place
            .queue
            .stats()
            .unwrap()
            .counts
            .iter()
            .all(|(status, number)| status.is_final() || *number == 0)
        {
            break;
        }
    }
    assert!(done >= 12, "{done}");
    place.assert_no_trace();
}

#[test]
fn a_limited_job_whose_lease_ends_waits_in_its_own_queue_until_it_expires() {
    let place = Place::with_moving_clock();
    place.define("smtp", slots(1));
    let id = place.submit_with(|job| {
        job.queue = "other".to_owned();
        job.extras = limited(&["smtp"]).extras;
        job.extras.as_mut().unwrap().expiry = Some(Expiry::AfterMs(3_600_000));
    });
    let wanted = PullRequest { queues: vec!["other".to_owned()], ..request(1) };
    for _ in 1..MAX_CRASHES {
        assert_eq!(place.try_pull(&wanted).jobs[0].job.id, id);
        // The word of the expiry is worked off while the job runs.
        place.raw(&[&format!("ZREM T:agenda expire:{id}")]);
        place.waits(LEASE);
        assert_sound(&place);
    }
    assert_eq!(place.try_pull(&wanted).jobs[0].job.id, id);
}
