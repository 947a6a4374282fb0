//! The order in which jobs go on, and jobs with several limits.

use super::*;
use crate::fixture::{completed, released};
use crate::invariants::assert_sound;

#[test]
fn several_that_are_sent_on_at_once_keep_their_order() {
    let (place, a, all, lease) = one_runs(8);
    let free = place.submit();
    place.define("smtp", slots(5));
    let waiting = place.list("work_queue:default");
    let expected: Vec<String> =
        [free].iter().chain(all[1..5].iter().rev()).map(ToString::to_string).collect();
    assert_eq!(waiting, expected);
    assert_sound(&place);
    assert_eq!(ids(&place.take(&a, 2)), all[1..3]);
    // Of a queue of which jobs are on their way no further one is sent on: it would pass them.
    place.ends(&a, &completed(lease));
    assert_eq!(place.held("smtp"), all[5..]);
    assert_eq!(place.started(&a), [all[3], all[4], free]);
    assert_eq!((place.kept("smtp"), place.held("smtp")), (all[5..6].to_vec(), all[6..].to_vec()));
    assert_sound(&place);
    assert_eq!(place.started(&a), all[5..6]);
    assert_sound(&place);
}

#[test]
fn nobody_passes_a_job_that_was_sent_on() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(2));
    let all = place.submit_limited_many(6, &["smtp"]);
    let mut taken = place.take(&a, 9);
    assert_eq!(ids(&taken), all[..2]);
    place.ends(&a, &completed(taken.remove(0).0));
    assert_eq!(place.list("work_queue:default"), [all[2].to_string()]);
    place.ends(&a, &completed(taken.remove(0).0));
    // A newcomer has no better right.
    let late = place.submit_limited(&["smtp"]);
    assert_eq!(ids(&place.take(&a, 1)), all[2..3]);
    assert_eq!(ids(&place.take(&a, 9)), all[3..4]);
    assert_eq!(place.held("smtp"), [&all[4..], &[late]].concat());
    assert_sound(&place);
}

#[test]
fn jobs_of_several_queues_go_on_in_the_order_in_which_they_became_ready() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(1));
    let mut all = vec![];
    for queue in ["x", "y", "x", "y", "y", "x"] {
        all.push(place.submit_limited_to(queue, &["smtp"]));
    }
    let queues = ["y", "x"];
    let mut taken = place.take_from(&a, &["x"], 9);
    assert!(place.take_from(&a, &queues, 9).is_empty());
    for id in &all {
        assert_eq!(ids(&taken), [*id]);
        place.ends(&a, &completed(taken.remove(0).0));
        taken = place.take_from(&a, &queues, 9);
        assert_sound(&place);
    }
    assert!(taken.is_empty());
    place.assert_no_trace();
}

#[test]
fn a_queue_that_no_server_takes_from_does_not_stop_the_others() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(1));
    let orphan = place.submit_limited_to("nobody", &["smtp"]);
    let all = place.submit_limited_many(3, &["smtp"]);
    // It was taken once, and had no room.
    let lease = place.take(&a, 9).remove(0).0;
    assert!(place.take_from(&a, &["nobody"], 9).is_empty());
    assert_eq!(place.held_in("nobody", "smtp"), [orphan]);
    place.ends(&a, &completed(lease));
    // Its place lapses each time.
    let mut started = vec![];
    for _ in 0..6 {
        place.waits(KEPT + 1);
        for (lease, job) in place.take(&a, 9) {
            started.push(job.id);
            place.ends(&a, &completed(lease));
        }
    }
    assert_eq!(started, all[1..]);
    assert_sound(&place);
}

#[test]
fn a_job_takes_limits_with_a_key_first_whatever_its_own_order() {
    let place = Place::with_moving_clock();
    let a = place.server();
    for name in ["a", "b", "tenant", "user"] {
        place.define(name, slots(1));
    }
    let expected = ["tenant:1", "user:2", "a", "b"].map(limit);
    for given in
        [["b", "a", "user:2", "tenant:1"], ["tenant:1", "user:2", "a", "b"], ["user:2", "b", "tenant:1", "a"]]
    {
        let id = place.submit_limited(&given);
        assert_eq!(place.job(id).limits, expected);
    }
    // So they cannot wait for one another in a circle.
    let mut started = 0;
    loop {
        let taken = place.take(&a, 9);
        let Some((lease, _)) = taken.into_iter().next() else { break };
        started += 1;
        place.ends(&a, &completed(lease));
    }
    assert_eq!(started, 3);
    place.assert_no_trace();
}

#[test]
fn a_job_that_waits_for_a_later_limit_keeps_its_slot_of_an_earlier_one() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(1));
    place.define("tenant", slots(1));
    let first = place.submit_limited(&["smtp"]);
    let wide = place.submit_limited(&["tenant:1", "smtp"]);
    let narrow = place.submit_limited(&["tenant:1"]);
    let mut taken = place.take(&a, 9);
    assert_eq!(ids(&taken), [first]);
    assert_eq!((place.held("smtp"), place.holders("tenant:1")), (vec![wide], vec![wide]));
    assert_eq!(place.held("tenant:1"), [narrow]);
    assert_sound(&place);
    place.ends(&a, &completed(taken.remove(0).0));
    // Once it is sent on, both are kept places.
    assert_eq!((place.kept("smtp"), place.kept("tenant:1")), (vec![wide], vec![wide]));
    assert_sound(&place);
    let mut taken = place.take(&a, 9);
    assert_eq!(ids(&taken), [wide]);
    assert_sound(&place);
    place.ends(&a, &completed(taken.remove(0).0));
    let mut taken = place.take(&a, 9);
    assert_eq!(ids(&taken), [narrow]);
    place.ends(&a, &completed(taken.remove(0).0));
    place.assert_no_trace();
}

#[test]
fn nothing_is_kept_of_an_earlier_limit_in_a_paused_queue() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(1));
    place.define("tenant", slots(1));
    let first = place.submit_limited(&["smtp"]);
    let mut taken = place.take(&a, 9);
    assert_eq!(ids(&taken), [first]);
    let wide = place.submit_limited_to("other", &["tenant:1", "smtp"]);
    assert!(place.take_from(&a, &["other"], 9).is_empty());
    let narrow = place.submit_limited(&["tenant:1"]);
    assert!(place.take(&a, 9).is_empty());
    place.ends(&a, &completed(taken.remove(0).0));
    assert_eq!(place.kept("tenant:1"), [wide]);
    place.queue.set_paused("other", true).unwrap();
    place.waits(KEPT + 1);
    assert_eq!(place.started(&a), [narrow]);
    assert_sound(&place);
}

#[test]
fn a_job_that_waits_for_a_later_limit_spends_no_token() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(1));
    place.define("tenant", rate(1, HOUR, 1));
    let first = place.submit_limited(&["smtp"]);
    let wide = place.submit_limited(&["tenant:1", "smtp"]);
    let narrow = place.submit_limited(&["tenant:1"]);
    let taken = place.take(&a, 9);
    assert_eq!(ids(&taken), [first, narrow]);
    assert_eq!(place.held("smtp"), [wide]);
    for (lease, _) in taken {
        place.ends(&a, &completed(lease));
    }
    // Now there is room in the later one, and no token of the earlier one.
    assert!(place.take(&a, 9).is_empty());
    assert_eq!((place.held("smtp"), place.held("tenant:1")), (vec![], vec![wide]));
    assert_sound(&place);
    let other = place.submit_limited(&["smtp"]);
    let taken = place.take(&a, 9);
    assert_eq!(ids(&taken), [other], "a job that waits for a token holds nobody up");
    taken.into_iter().for_each(|(lease, _)| place.ends(&a, &completed(lease)));
    place.waits(HOUR + MINUTE);
    assert_eq!(place.started(&a), [wide]);
    assert_sound(&place);
}

#[test]
fn jobs_that_are_given_back_together_keep_the_limit_and_all_start_again() {
    let place = Place::with_moving_clock();
    let (a, b) = (place.server(), place.server());
    place.define("smtp", slots(3));
    let all = place.submit_limited_many(7, &["smtp"]);
    let taken = place.take(&a, 9);
    assert_eq!(ids(&taken), all[..3]);
    let settlements: Vec<Settlement> = taken.into_iter().map(|(lease, _)| released(lease)).collect();
    place.queue.settle(&a, &settlements).unwrap();
    assert_sound(&place);
    let mut started = vec![];
    for _ in 0..20 {
        let taken = place.take(&b, 9);
        assert!(place.holders("smtp").len() <= 3);
        started.extend(ids(&taken));
        let settlements: Vec<Settlement> = taken.into_iter().map(|(lease, _)| completed(lease)).collect();
        place.queue.settle(&b, &settlements).unwrap();
        assert_sound(&place);
    }
    started.sort();
    assert_eq!(started, all);
    place.assert_no_trace();
}

#[test]
fn a_flood_of_two_limits_ends() {
    let place = Place::with_moving_clock();
    let (a, b) = (place.server(), place.server());
    place.define("smtp", slots(2));
    place.define("tenant", slots(1));
    let mut expected = 0;
    for n in 0..60 {
        let key = format!("tenant:{}", n % 3);
        let limits: &[&str] = match n % 4 {
            0 => &["smtp"],
            1 => &[&key],
            _ => &[&key, "smtp"],
        };
        place.submit_limited(limits);
        expected += 1;
    }
    let mut ended = 0;
    let mut running: Vec<(ServerId, Lease)> = vec![];
    for step in 0..400 {
        let server = if step % 2 == 0 { &a } else { &b };
        running.extend(place.take(server, 3).into_iter().map(|(lease, _)| (server.clone(), lease)));
        assert!(place.holders("smtp").len() + place.kept("smtp").len() <= 2);
        if !running.is_empty() {
            let (server, lease) = running.remove(0);
            place.ends(&server, &completed(lease));
            ended += 1;
        }
        if step % 20 == 0 {
            assert_sound(&place);
        }
    }
    assert_eq!(ended, expected);
    place.assert_no_trace();
}
