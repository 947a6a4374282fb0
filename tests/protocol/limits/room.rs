//! A job starts if there is room in all its limits; otherwise it waits aside until it is sent on.

use threadq::internals::queue::Refused;
use threadq::job::{JobId, NewJob, Start, Status};

use super::*;
use crate::fixture::completed;
use crate::invariants::assert_sound;

#[test]
fn a_job_without_room_waits_aside_and_the_one_behind_it_starts() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(2));
    let all = place.submit_limited_many(4, &["smtp"]);
    let free = place.submit();
    let mut taken = place.take(&a, 9);
    assert_eq!(ids(&taken), [all[0], all[1], free]);
    assert_eq!(place.held("smtp"), all[2..]);
    assert_eq!(place.holders("smtp"), all[..2]);
    for id in &all[2..] {
        let job = place.job(*id);
        let blocked = job.blocked.clone().expect("it waits");
        assert_eq!((job.status, blocked.limit, blocked.is_held), (Status::Queued, limit("smtp"), true));
    }
    // A server that takes again meets none of them.
    assert_eq!(place.list("work_queue:default"), [""; 0]);
    let queue = &place.queue.queues(&["default"]).unwrap()[0];
    assert_eq!((queue.queued, queue.held), (2, 2));
    assert_sound(&place);
    // The step that frees a slot sends the first one on, and keeps the slot for it.
    place.ends(&a, &completed(taken.remove(0).0));
    assert_eq!(place.list("work_queue:default"), [all[2].to_string()]);
    assert_eq!((place.kept("smtp"), place.holders("smtp")), (vec![all[2]], vec![all[1]]));
    assert!(!place.job(all[2]).blocked.expect("it was sent on").is_held);
    assert_sound(&place);
    let (lease, job) = place.take(&a, 9).remove(0);
    assert_eq!((job.id, place.job(all[2]).blocked), (all[2], None));
    assert_eq!(place.holders("smtp").len(), 2);
    assert_sound(&place);
    place.ends(&a, &completed(lease));
    for id in [all[1], free] {
        let at = taken.iter().position(|(_, job)| job.id == id).unwrap();
        place.ends(&a, &completed(taken.remove(at).0));
    }
    let (lease, job) = place.take(&a, 9).remove(0);
    assert_eq!(job.id, all[3]);
    place.ends(&a, &completed(lease));
    place.assert_no_trace();
    assert_sound(&place);
}

#[test]
fn a_place_is_kept_for_a_job_that_was_sent_on() {
    let (place, a, all, lease) = one_runs(2);
    place.ends(&a, &completed(lease));
    // A job in another queue, whose turn comes first, does not take the place.
    let other = place.submit_limited_to("other", &["smtp"]);
    assert!(place.take_from(&a, &["other"], 9).is_empty());
    assert_eq!(place.held_in("other", "smtp"), [other]);
    let taken = place.take_from(&a, &["other", "default"], 9);
    assert_eq!(ids(&taken), [all[1]]);
    assert_sound(&place);
}

#[test]
fn a_place_lapses_after_5_s_and_the_job_is_looked_at_anew() {
    let (place, a, all, lease) = one_runs(2);
    let other = place.submit_limited_to("other", &["smtp"]);
    assert!(place.take_from(&a, &["other"], 9).is_empty());
    place.ends(&a, &completed(lease));
    // Nobody takes from the queue of the first job.
    assert_eq!(place.kept("smtp"), [all[1]]);
    place.waits(KEPT / 2);
    assert!(place.take_from(&a, &["other"], 9).is_empty());
    place.waits(KEPT);
    let mut taken = place.take_from(&a, &["other"], 9);
    assert_eq!(ids(&taken), [other]);
    assert_sound(&place);
    // The first job waits again, and goes on when its turn comes.
    assert!(place.take(&a, 9).is_empty());
    assert_eq!(place.held("smtp"), [all[1]]);
    place.ends(&a, &completed(taken.remove(0).0));
    assert_eq!(place.started(&a), [all[1]]);
    assert_sound(&place);
}

#[test]
fn a_place_that_has_lapsed_is_taken_up_if_it_is_still_free() {
    let (place, a, all, lease) = one_runs(2);
    place.ends(&a, &completed(lease));
    place.passes(KEPT + 1);
    assert_eq!(place.started(&a), [all[1]]);
    assert_eq!(place.holders("smtp"), [all[1]]);
    assert_sound(&place);
}

#[test]
fn a_job_of_a_paused_queue_is_passed_over_and_goes_on_after_the_pause() {
    let (place, a, all, lease) = one_runs(2);
    let other = place.submit_limited_to("other", &["smtp"]);
    assert!(place.take_from(&a, &["other"], 9).is_empty());
    assert!(place.queue.set_paused("default", true).unwrap(), "the queue has a job that waits for room");
    place.ends(&a, &completed(lease));
    let mut taken = place.take_from(&a, &["default", "other"], 9);
    assert_eq!(ids(&taken), [other]);
    place.ends(&a, &completed(taken.remove(0).0));
    place.works_off();
    assert_eq!(place.list("work_queue:default"), [""; 0]);
    assert_sound(&place);
    place.queue.set_paused("default", false).unwrap();
    place.works_off();
    assert_eq!(place.started(&a), [all[1]]);
    assert_sound(&place);
}

#[test]
fn a_queue_that_is_paused_with_a_kept_place_gives_the_place_away() {
    let (place, a, all, lease) = one_runs(2);
    let other = place.submit_limited_to("other", &["smtp"]);
    assert!(place.take_from(&a, &["other"], 9).is_empty());
    place.ends(&a, &completed(lease));
    place.queue.set_paused("default", true).unwrap();
    place.waits(KEPT + 1);
    let mut taken = place.take_from(&a, &["default", "other"], 9);
    assert_eq!(ids(&taken), [other]);
    place.queue.set_paused("default", false).unwrap();
    place.works_off();
    assert!(place.take(&a, 9).is_empty(), "there is no room");
    place.ends(&a, &completed(taken.remove(0).0));
    assert_eq!(place.started(&a), [all[1]]);
    assert_sound(&place);
}

#[test]
fn tokens_come_one_after_the_other() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", rate(2, 2 * HOUR, 1));
    let all = place.submit_limited_many(3, &["smtp"]);
    for (n, id) in all.iter().enumerate() {
        let taken = place.take(&a, 9);
        assert_eq!(ids(&taken), [*id]);
        taken.into_iter().for_each(|(lease, _)| place.ends(&a, &completed(lease)));
        if n == 2 {
            break;
        }
        // The end of an attempt does not bring its token back.
        assert!(place.take(&a, 9).is_empty());
        let next = place.works_off().expect("a token will come");
        assert!(next <= Duration::from_millis(HOUR), "{next:?}");
        place.waits(HOUR - MINUTE);
        assert!(place.take(&a, 9).is_empty());
        assert_sound(&place);
        place.waits(2 * MINUTE);
    }
    place.assert_no_trace();
    assert_sound(&place);
}

#[test]
fn a_burst_is_spent_at_once_and_comes_back_with_time() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", rate(1, HOUR, 3));
    let all = place.submit_limited_many(9, &["smtp"]);
    assert_eq!(place.started(&a), all[..3]);
    place.waits(HOUR + MINUTE);
    assert_eq!(place.started(&a), all[3..4]);
    // Many tokens are no more than the burst.
    place.passes(100 * HOUR);
    place.works_off();
    assert_eq!(place.started(&a), all[4..7]);
    assert_sound(&place);
}

#[test]
fn a_limit_may_have_slots_and_a_rate() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", LimitNumbers { concurrency: Some(2), ..rate(1, HOUR, 3) });
    let all = place.submit_limited_many(5, &["smtp"]);
    let taken = place.take(&a, 9);
    assert_eq!(ids(&taken), all[..2]);
    for (lease, _) in taken {
        place.ends(&a, &completed(lease));
    }
    let mut taken = place.take(&a, 9);
    assert_eq!(ids(&taken), all[2..3], "there is one token left");
    place.waits(3 * HOUR);
    let second = place.take(&a, 9);
    assert_eq!(ids(&second), all[3..4], "there is one slot left");
    place.ends(&a, &completed(taken.remove(0).0));
    assert_eq!(place.started(&a), all[4..5]);
    assert_sound(&place);
}

#[test]
fn each_key_has_its_own_room() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("tenant", slots(1));
    let one = place.submit_limited_many(2, &["tenant:one"]);
    let two = place.submit_limited_many(2, &["tenant:two"]);
    let mut taken = place.take(&a, 9);
    assert_eq!(ids(&taken), [one[0], two[0]]);
    place.ends(&a, &completed(taken.remove(1).0));
    assert_eq!(place.started(&a), [two[1]]);
    assert_eq!(place.held("tenant:one"), [one[1]]);
    assert_sound(&place);
}

#[test]
fn a_limit_that_is_not_defined_is_refused_and_one_that_was_deleted_lets_all_through() {
    let place = Place::with_moving_clock();
    let a = place.server();
    assert_eq!(place.try_submit(&[limited(&["nothing"])]), Err(Refused::UnknownLimit("nothing".to_owned())));
    place.define("tenant", slots(1));
    let unknown = [limited(&["tenant:1"]), limited(&["tenant:1", "nothing:2"])];
    assert!(
        matches!(place.try_submit(&unknown), Err(Refused::UnknownLimit(name)) if name.starts_with("nothing"))
    );
    assert!(!place.keys().iter().any(|key| key.starts_with("job:")));
    let all = place.submit_limited_many(3, &["tenant:1"]);
    let taken = place.take(&a, 9);
    assert_eq!(ids(&taken), all[..1]);
    assert_eq!(place.undefine("tenant"), LimitDeleted::Done);
    assert_eq!(place.undefine("tenant"), LimitDeleted::Missing);
    place.waits(KEPT);
    let others = place.take(&a, 9);
    assert_eq!(ids(&others), all[1..]);
    for (lease, _) in taken.into_iter().chain(others) {
        place.ends(&a, &completed(lease));
    }
    place.assert_no_trace();
    assert_sound(&place);
}

#[test]
fn a_suspect_without_room_waits_and_goes_back_among_the_suspects() {
    let place = Place::with_moving_clock();
    let (a, b) = (place.server(), place.server());
    place.define("smtp", slots(1));
    let suspect = place.submit_limited(&["smtp"]);
    place.raw(&[&format!("HSET T:job:{suspect} crashes {}", MAX_CRASHES - 1)]);
    place.raw(&["DEL T:work_queue:default", &format!("LPUSH T:work_queue:default:suspects {suspect}")]);
    let first = place.submit_limited_to("other", &["smtp"]);
    let mut taken = place.take_from(&b, &["other"], 1);
    assert_eq!(ids(&taken), [first]);
    assert!(place.take(&a, 9).is_empty());
    assert_eq!(place.held("smtp"), [suspect]);
    assert_sound(&place);
    let free = place.submit();
    assert_eq!(ids(&place.take(&b, 9)), [free]);
    place.ends(&b, &completed(taken.remove(0).0));
    // A server that runs another job does not start it.
    assert!(place.try_take(&b, 9, Quarantine::Skip, None).unwrap().jobs.is_empty());
    assert_eq!(place.list("work_queue:default:suspects"), [suspect.to_string()]);
    assert_sound(&place);
    assert_eq!(place.started(&a), [suspect]);
    assert_sound(&place);
}

#[test]
fn a_take_moves_at_most_200_jobs_aside() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(1));
    let jobs = vec![limited(&["smtp"]); 501];
    place.try_submit(&jobs).unwrap();
    let free = place.submit();
    let mut steps = 0;
    let mut started = Vec::new();
    loop {
        let taken = place.try_take(&a, 2, Quarantine::Start, None).unwrap();
        started.extend(ids(&taken.jobs));
        steps += 1;
        if !taken.has_more {
            break;
        }
        assert!(place.redis::<u64>("ZCARD", "held:default:smtp", &[]) <= 200 * steps);
    }
    assert_eq!((started.len(), started.last()), (2, Some(&free)));
    assert_eq!(place.redis::<u64>("ZCARD", "held:default:smtp", &[]), 500);
    assert_eq!(steps, 3);
    assert_sound(&place);
}

/// The queue may have 3 jobs.
fn submit_to_a_queue_of_three(place: &Place, job: &NewJob) -> Result<JobId, String> {
    let submitted = place.queue.submit(std::slice::from_ref(job), None, 3);
    submitted.map(|submitted| submitted.first).map_err(|error| format!("{error:?}"))
}

#[test]
fn jobs_that_wait_for_room_count_for_the_length_of_their_queue() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(1));
    let job = limited(&["smtp"]);
    for n in 0..3 {
        submit_to_a_queue_of_three(&place, &job).unwrap();
        place.passes(2);
        assert_eq!(place.take(&a, 9).len(), usize::from(n == 0));
    }
    // 2 jobs wait aside.
    submit_to_a_queue_of_three(&place, &job).unwrap();
    assert!(submit_to_a_queue_of_three(&place, &job).unwrap_err().contains("Full"));
    assert!(place.take(&a, 9).is_empty());
    assert!(submit_to_a_queue_of_three(&place, &job).unwrap_err().contains("Full"));
    // A submission without limits counts the list of the queue alone.
    for _ in 0..3 {
        submit_to_a_queue_of_three(&place, &NewJob::new("t")).unwrap();
    }
    assert!(submit_to_a_queue_of_three(&place, &NewJob::new("t")).unwrap_err().contains("Full"));
    assert_sound(&place);
    // A cancelled job makes room.
    let held = place.held("smtp");
    for lease in place.take(&a, 9).into_iter().map(|(lease, _)| lease) {
        place.ends(&a, &completed(lease));
    }
    assert!(submit_to_a_queue_of_three(&place, &job).unwrap_err().contains("Full"));
    place.cancel(held[1]);
    submit_to_a_queue_of_three(&place, &job).unwrap();
    assert_sound(&place);
    // The limit of another queue is its own.
    submit_to_a_queue_of_three(&place, &NewJob { queue: "other".to_owned(), ..job }).unwrap();
}

#[test]
fn a_job_is_looked_at_when_its_time_has_come() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(1));
    let delayed =
        place.try_submit(&[NewJob { start: Start::AfterMs(HOUR), ..limited(&["smtp"]) }]).unwrap().first;
    let first = place.submit_limited(&["smtp"]);
    let taken = place.take(&a, 9);
    assert_eq!(ids(&taken), [first]);
    let second = place.submit_limited(&["smtp"]);
    assert!(place.take(&a, 9).is_empty());
    // It is ready after the second one, although its id is smaller.
    place.waits(2 * HOUR);
    assert!(place.take(&a, 9).is_empty());
    assert_eq!(place.held("smtp"), [second, delayed]);
    place.ends(&a, &completed(taken.into_iter().next().unwrap().0));
    assert_sound(&place);
    assert_eq!(place.started(&a), [second]);
    assert_sound(&place);
}

#[test]
fn a_queue_whose_jobs_all_wait_for_room_keeps_its_name() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(1));
    place.submit_limited_to("other", &["smtp"]);
    let _lease = place.take_from(&a, &["other"], 9);
    place.submit_limited_to("other", &["smtp"]);
    assert!(place.take_from(&a, &["other"], 9).is_empty());
    place.queue.prune_names(None).unwrap();
    let queues = place.queue.queues(&[]).unwrap();
    let other = queues.iter().find(|queue| queue.name == "other").expect("the queue is listed");
    assert_eq!((other.queued, other.held), (1, 1));
}
