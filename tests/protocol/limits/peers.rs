//! What other systems got wrong, as cases.

use threadq::job::Status;

use super::*;
use crate::fixture::{completed, released};
use crate::invariants::assert_sound;

/// rails/solid_queue#546: after a kill the semaphore stayed taken, and no job of the limit ran any more.
#[test]
fn solid_queue_546_a_killed_server_leaves_no_slot_taken() {
    let place = Place::with_moving_clock();
    let (a, b) = (place.server(), place.server());
    place.define("smtp", slots(2));
    let all = place.submit_limited_many(5, &["smtp"]);
    let taken = place.take(&a, 9);
    assert_eq!(ids(&taken), all[..2]);
    assert!(place.take(&b, 9).is_empty());
    place.dies(&a);
    assert_sound(&place);
    let mut ended = vec![];
    for _ in 0..10 {
        let taken = place.take(&b, 9);
        assert!(taken.len() <= 2);
        for (lease, job) in taken {
            ended.push(job.id);
            place.ends(&b, &completed(lease));
        }
    }
    ended.sort();
    assert_eq!(ended, all);
    place.assert_no_trace();
}

/// rails/solid_queue#546: the same for a server that dies again and again, at a job on its last chance.
#[test]
fn solid_queue_546_a_job_that_kills_its_servers_takes_no_slot_with_it() {
    let place = Place::with_moving_clock();
    place.define("smtp", slots(1));
    let poison = place.submit_limited(&["smtp"]);
    let other = place.submit_limited(&["smtp"]);
    let mut started = vec![];
    for _ in 0..MAX_CRASHES + 2 {
        let server = place.server();
        for (lease, job) in place.take(&server, 9) {
            started.push(job.id);
            if job.id == other {
                place.ends(&server, &completed(lease));
            }
        }
        place.dies(&server);
        assert_sound(&place);
    }
    assert_eq!((place.status(poison), place.status(other)), (Status::Failed, Status::Completed));
    assert_eq!(started.iter().filter(|id| **id == poison).count(), MAX_CRASHES as usize);
    place.assert_no_trace();
}

/// rails/solid_queue#735: after a restart jobs ran beside those that ran already.
#[test]
fn solid_queue_735_a_restart_does_not_pass_by_the_limit() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(1));
    let all = place.submit_limited_many(4, &["smtp"]);
    let first = place.take(&a, 1).remove(0).0;
    // Other servers come and go, in order and by a crash. They claim jobs, and some start none.
    for n in 0..6 {
        let server = place.server();
        let claimed = (!place.list("work_queue:default").is_empty()).then(|| place.fetch(&server));
        assert!(place.try_take(&server, 9, Quarantine::Start, claimed.as_ref()).unwrap().jobs.is_empty());
        if n % 2 == 0 {
            place.dies(&server);
        } else {
            place.queue.leave(&server).unwrap();
        }
        assert_eq!(place.holders("smtp"), all[..1]);
        assert_sound(&place);
    }
    // Its own server stops and gives it back: there is one slot as before.
    place.ends(&a, &released(first));
    place.queue.leave(&a).unwrap();
    let b = place.server();
    let mut ended = vec![];
    while let Some((lease, job)) = place.take(&b, 9).pop() {
        assert!(place.take(&b, 9).is_empty());
        ended.push(job.id);
        place.ends(&b, &completed(lease));
    }
    ended.sort();
    assert_eq!(ended, all);
    place.assert_no_trace();
}

/// rails/solid_queue PR#761: a slot was given back twice, and 11 jobs ran under a limit of 1.
#[test]
fn solid_queue_pr_761_a_slot_is_given_back_once() {
    let place = Place::with_moving_clock();
    let (a, b) = (place.server(), place.server());
    place.define("smtp", slots(1));
    let all = place.submit_limited_many(12, &["smtp"]);
    let lease = place.take(&a, 9).remove(0).0;
    let settlement = completed(lease);
    place.ends(&a, &settlement);
    let second = place.take(&b, 9);
    assert_eq!(ids(&second), all[1..2]);
    for _ in 0..11 {
        // The same settlement once more, as after a lost reply.
        assert_eq!(place.settle(&a, &settlement), Settled::Repeated);
        assert_eq!(place.queue.recover(&a, &[all[0].to_string().into()]).unwrap(), 0);
        place.cancel(all[0]);
        assert!(place.take(&a, 9).is_empty());
        assert_eq!(place.holders("smtp"), all[1..2]);
    }
    assert_sound(&place);
}

/// rails/solid_queue PR#761: the same for an attempt that another server has taken over.
#[test]
fn solid_queue_pr_761_a_late_settlement_frees_no_slot_of_another_attempt() {
    let place = Place::with_moving_clock();
    let (a, b) = (place.server(), place.server());
    place.define("smtp", slots(1));
    let all = place.submit_limited_many(3, &["smtp"]);
    let lease = place.take(&a, 9).remove(0).0;
    // It was frozen, and is held to be dead.
    place.dies(&a);
    let again = place.take(&b, 9);
    assert_eq!(ids(&again), all[..1]);
    let late = completed(lease);
    for _ in 0..3 {
        assert_eq!(place.settle(&a, &late), Settled::Stale);
        assert_eq!(place.holders("smtp"), all[..1]);
        assert!(place.take(&b, 9).is_empty());
    }
    place.dies(&a);
    assert_eq!(place.holders("smtp"), all[..1]);
    assert_sound(&place);
}

/// rails/solid_queue#456 and #476: a slot that was left taken kept all jobs waiting until it expired. Here nothing expires:
/// the next job goes on in the step that ends the attempt, and a long attempt keeps its slot.
#[test]
fn solid_queue_456_and_476_nobody_waits_for_an_expiry() {
    let (place, a, all, lease) = one_runs(3);
    for _ in 0..30 {
        place.waits(100 * HOUR);
        assert!(place.take(&a, 9).is_empty());
        assert_eq!(place.holders("smtp"), all[..1]);
    }
    place.dies(&a);
    let b = place.server();
    // No time passes, and nothing is worked off.
    let taken = place.take(&b, 9);
    assert_eq!(taken.len(), 1);
    assert_sound(&place);
    drop(lease);
}

/// mperham/sidekiq, Enterprise limiters: a blocked job was put off for 5, 10, 15 minutes, lost its turn, and failed after
/// some 20 times.
#[test]
fn sidekiq_limiters_a_blocked_job_keeps_its_turn_and_loses_no_attempt() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(1));
    let all = place.submit_limited_many(3, &["smtp"]);
    let mut lease = place.take(&a, 9).remove(0).0;
    for id in &all[1..] {
        for _ in 0..30 {
            assert!(place.take(&a, 9).is_empty());
            place.waits(15 * MINUTE);
        }
        let waiting = place.job(*id);
        assert_eq!((waiting.status, waiting.attempts, waiting.starts), (Status::Queued, 0, 0));
        place.ends(&a, &completed(lease));
        let next = place.take(&a, 9).remove(0);
        assert_eq!(next.1.id, *id);
        lease = next.0;
    }
}

/// ixti/sidekiq-throttled: blocked jobs went to the end of their queue, again and again, and kept the servers busy.
#[test]
fn sidekiq_throttled_a_blocked_job_is_moved_once() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(1));
    place.submit_limited_many(50, &["smtp"]);
    let _lease = place.take(&a, 9);
    // From now on BRPOPLPUSH sleeps.
    assert_eq!(place.list("work_queue:default"), [""; 0]);
    for _ in 0..10 {
        assert!(place.take(&a, 9).is_empty());
        place.waits(2 * MINUTE);
        assert_eq!(place.list("work_queue:default"), [""; 0]);
    }
    assert_eq!(place.held("smtp").len(), 49);
}

/// oban-bg, elixirforum.com/t/53388: a tenant that flooded its partition stopped the others.
#[test]
fn oban_53388_a_tenant_that_floods_does_not_stop_the_others() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("tenant", LimitNumbers { concurrency: Some(1), ..rate(1, HOUR, 1) });
    let flood = vec![limited(&["tenant:flood"]); 1_000];
    place.try_submit(&flood).unwrap();
    let others: Vec<JobId> = (0..9).map(|n| place.submit_limited(&[&format!("tenant:{n}")])).collect();
    let mut started = vec![];
    for _ in 0..8 {
        started.extend(place.started(&a));
    }
    assert_eq!(started.len(), 10);
    assert_eq!(started[1..], others);
    assert_sound(&place);
}

/// taskforcesh/bullmq#1322 and #908: rates of keys went out of the free version, as too complex.
#[test]
fn bullmq_1322_and_908_each_key_has_its_own_rate() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("tenant", rate(2, HOUR, 2));
    for key in ["tenant:x", "tenant:y", "tenant:z"] {
        place.submit_limited_many(3, &[key]);
    }
    assert_eq!(place.started(&a).len(), 6);
    place.waits(HOUR / 2 + MINUTE);
    assert_eq!(place.started(&a).len(), 3);
    assert_sound(&place);
}
