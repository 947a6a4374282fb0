//! Jobs with a crash on their record: one at a time, and on their last chance alone.

use threadq::job::Status;
use threadq::queue::{Charged, Settled, Share, Suspects};

use crate::place::*;
use crate::sound::assert_sound;

#[test]
fn one_suspect_at_a_time_is_started() {
    let place = Place::new();
    let a = place.server();
    let (first, second) = (place.submit_suspect(1), place.submit_suspect(1));
    let good = place.submit();
    let taken = place.try_take(&a, 8, Suspects::Any, None).unwrap();
    assert_eq!((ids(&taken.jobs), taken.wants_empty_server), (vec![first, good], false));
    assert!(place.try_take(&a, 8, Suspects::None, None).unwrap().jobs.is_empty());
    assert_eq!(place.status(second), Status::Queued);
    assert_eq!(ids(&place.try_take(&a, 8, Suspects::One, None).unwrap().jobs), [second]);
    assert_sound(&place);
}

#[test]
fn one_suspect_at_a_time_is_started_over_all_queues() {
    let place = Place::new();
    let a = place.server();
    let (first, second) = (place.submit_suspect_in("first", 1), place.submit_suspect_in("second", 1));
    let shares = ["first", "second"].map(|queue| Share { queue: queue.to_owned(), jobs: 4 });
    let take = |suspects| ids(&place.queue.take(&a, &shares, suspects, 3, None).unwrap().unwrap().jobs);
    assert_eq!(take(Suspects::Any), [first]);
    assert_eq!(take(Suspects::One), [second]);
}

#[test]
fn no_suspect_is_started_without_a_free_worker() {
    let place = Place::new();
    let a = place.server();
    let suspect = place.submit_suspect(1);
    assert!(place.try_take(&a, 0, Suspects::Any, None).unwrap().jobs.is_empty());
    place.submit();
    let fetched = place.fetch(&a);
    assert_eq!(place.try_take(&a, 1, Suspects::Any, Some(&fetched)).unwrap().jobs.len(), 1);
    assert_eq!(place.status(suspect), Status::Queued);
}

#[test]
fn a_suspect_counts_against_the_free_workers() {
    let place = Place::new();
    let a = place.server();
    let suspect = place.submit_suspect(1);
    place.submit();
    assert_eq!(ids(&place.take(&a, 1)), [suspect]);
}

#[test]
fn the_last_chance_is_given_on_an_empty_server_only() {
    let place = Place::new();
    let a = place.server();
    let suspect = place.submit_suspect(MAX_CRASHES - 1);
    let other = place.submit();
    // Something runs here: it waits, and nothing else is started, so that its time comes.
    let taken = place.try_take(&a, 8, Suspects::One, None).unwrap();
    assert_eq!((ids(&taken.jobs), taken.wants_empty_server), (vec![], true));
    // Now it runs, and nothing beside it.
    let taken = place.try_take(&a, 8, Suspects::Any, None).unwrap();
    assert_eq!((ids(&taken.jobs), taken.wants_empty_server), (vec![suspect], false));
    assert_eq!(place.status(other), Status::Queued);
    assert_sound(&place);
}

#[test]
fn one_server_empties_itself_for_the_last_chance_and_the_others_go_on() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let suspect = place.submit_suspect(MAX_CRASHES - 1);
    assert!(place.try_take(&a, 8, Suspects::One, None).unwrap().wants_empty_server);
    let good = place.submit();
    let taken = place.try_take(&b, 8, Suspects::One, None).unwrap();
    assert_eq!((ids(&taken.jobs), taken.wants_empty_server), (vec![good], false));
    // The chosen one is asked again and again; once it has died it is another one's turn.
    assert!(place.try_take(&a, 8, Suspects::One, None).unwrap().wants_empty_server);
    place.dies(&a);
    assert!(place.try_take(&b, 8, Suspects::One, None).unwrap().wants_empty_server);
    // One that is empty need not be chosen.
    let c = place.server();
    assert_eq!(ids(&place.try_take(&c, 8, Suspects::Any, None).unwrap().jobs), [suspect]);
    // Who has started its suspect is free to be passed over for the next one.
    let next = place.submit_suspect(MAX_CRASHES - 1);
    assert_eq!(ids(&place.try_take(&b, 8, Suspects::Any, None).unwrap().jobs), [next]);
    place.submit_suspect(MAX_CRASHES - 1);
    assert!(place.try_take(&place.server(), 8, Suspects::One, None).unwrap().wants_empty_server);
}

#[test]
fn the_last_chance_is_not_given_beside_what_was_fetched() {
    let place = Place::new();
    let a = place.server();
    let fetched_one = place.submit();
    place.submit_suspect(MAX_CRASHES - 1);
    let fetched = place.fetch(&a);
    let taken = place.try_take(&a, 8, Suspects::Any, Some(&fetched)).unwrap();
    assert_eq!((ids(&taken.jobs), taken.wants_empty_server), (vec![fetched_one], true));
    assert_sound(&place);
}

#[test]
fn one_suspect_at_a_time_is_started_whatever_its_queue() {
    let place = Place::new();
    let a = place.server();
    let first = place.submit_suspect_in("first", 1);
    place.submit_suspect_in("second", 1);
    let shares = ["first", "second"].map(|queue| Share { queue: queue.to_owned(), jobs: 2 });
    let taken = place.queue.take(&a, &shares, Suspects::Any, MAX_CRASHES, None).unwrap().unwrap();
    assert_eq!(ids(&taken.jobs), [first]);
}

#[test]
fn suspects_of_every_queue_have_their_turn() {
    let place = Place::new();
    let a = place.server();
    let in_second = place.submit_suspect_in("second", 1);
    let share = |queue: &str| Share { queue: queue.to_owned(), jobs: 1 };
    let shares = [share("first"), share("second")];
    let taken = place.queue.take(&a, &shares, Suspects::One, 3, None).unwrap().unwrap();
    assert_eq!(ids(&taken.jobs), [in_second]);
    assert_sound(&place);
}

#[test]
fn only_the_suspect_is_charged_when_its_server_dies() {
    let place = Place::new();
    let a = place.server();
    let bystanders = [place.submit(), place.submit()];
    let suspect = place.submit_suspect(1);
    assert_eq!(place.take(&a, 8).len(), 3);
    let later = place.submit();
    place.try_take(&a, 8, Suspects::None, None).unwrap();
    let reclaimed = place.dies(&a);
    assert_eq!((reclaimed.moved, reclaimed.charged.len()), (4, 1));
    assert_eq!(place.job(suspect).crashes, 2);
    for id in [bystanders[0], bystanders[1], later] {
        assert_eq!(place.job(id).crashes, 0);
    }
    assert_sound(&place);
}

#[test]
fn a_suspect_that_does_not_run_is_not_charged() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let suspect = place.submit_suspect(1);
    let running = place.submit();
    place.try_take(&a, 1, Suspects::None, None).unwrap();
    // The suspect stands in the list of the dead server, but another server runs it.
    let _lease = place.take_one(&b);
    let _: i64 = place.redis("LPUSH", &in_progress(&a), &[&suspect.to_string()]);
    assert_eq!(place.dies(&a).charged.len(), 1);
    assert_eq!((place.job(suspect).crashes, place.job(running).crashes), (1, 1));
    assert_sound(&place);
}

#[test]
fn who_is_charged_is_decided_once_however_many_steps_it_takes() {
    let place = Place::new();
    let a = place.server();
    let suspect = place.submit_suspect(1);
    let bystanders = place.submit_many(230);
    assert_eq!(ids(&place.take(&a, 231)).len(), 231);
    let reclaimed = place.dies(&a);
    assert_eq!((reclaimed.moved, reclaimed.charged.len()), (231, 1));
    assert_eq!(place.job(suspect).crashes, 2);
    let b = place.server();
    assert_eq!(ids(&place.try_take(&b, 300, Suspects::None, None).unwrap().jobs), bystanders);
}

#[test]
fn a_reaper_that_dies_halfway_leaves_the_rest_to_the_next_one() {
    let place = Place::new();
    let a = place.server();
    let suspect = place.submit_suspect(1);
    let bystanders = place.submit_many(230);
    place.take(&a, 231);
    // The request of its second step is lost, and nobody sends it again.
    let reaper = place.another_queue();
    let observed = place.beat_value(&a).unwrap();
    place.wire.lose("reclaim", crate::wire::Loses::Answer);
    assert!(reaper.reclaim(a.as_str(), &observed, MAX_CRASHES).is_err());
    assert_eq!(place.list(&in_progress(&a)).len(), 31);
    assert_sound(&place);
    let reclaimed = place.dies(&a);
    assert_eq!((reclaimed.moved, reclaimed.charged.len()), (31, 1));
    assert_eq!(place.job(suspect).crashes, 2);
    assert!(bystanders.iter().all(|id| place.job(*id).crashes == 0));
    assert_sound(&place);
}

#[test]
fn at_max_crashes_the_job_is_buried_with_the_reason() {
    let place = Place::new();
    let id = place.submit();
    for crash in 1..MAX_CRASHES {
        let server = place.server();
        let _lease = place.take_one(&server);
        assert!(!place.dies(&server).charged[0].has_failed);
        assert_eq!((place.job(id).crashes, place.status(id)), (crash, Status::Queued));
        assert_sound(&place);
    }
    let server = place.server();
    let late = completed(place.take_one(&server));
    let charged = Charged { id, kind: "t".to_owned(), attempt: 1, crashes: MAX_CRASHES, has_failed: true };
    assert_eq!(place.dies(&server).charged, [charged]);
    let job = place.job(id);
    assert_eq!((job.crashes, job.status, job.attempts), (3, Status::Failed, 0));
    assert!(job.last_error().unwrap().contains("died 3 times"), "{:?}", job.errors);
    assert_eq!(place.settle(&server, &late), Settled::Stale);
    assert_eq!(place.handles(id), ["dlq_queue"]);
    assert_sound(&place);
}

#[test]
fn those_with_a_new_crash_wait_behind_the_other_suspects() {
    let place = Place::new();
    let a = place.server();
    let running = [place.submit(), place.submit()];
    place.take(&a, 2);
    let waiting = place.submit_suspect(1);
    assert_eq!(place.dies(&a).charged.len(), 2);
    let b = place.server();
    let mut order = Vec::new();
    for _ in 0..3 {
        let taken = place.try_take(&b, 1, Suspects::One, None).unwrap();
        order.extend(ids(&taken.jobs));
    }
    assert_eq!(order, [waiting, running[0], running[1]]);
}

#[test]
fn a_suspect_that_is_retried_or_delayed_stays_one() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit_suspect(1);
    let lease = place.take_one(&a);
    place.settle(&a, &retried(lease));
    place.make_due(id);
    place.queue.promote().unwrap();
    assert_eq!(place.handles(id), ["work_queue:default:suspects"]);
    assert_sound(&place);
}

#[test]
fn a_suspect_that_is_gone_leaves_room_for_another() {
    let place = Place::new();
    let a = place.server();
    place.raw(&["LPUSH T:work_queue:first:suspects 77"]);
    let suspect = place.submit_suspect_in("second", 1);
    let shares = ["first", "second"].map(|queue| Share { queue: queue.to_owned(), jobs: 1 });
    let taken = place.queue.take(&a, &shares, Suspects::Any, MAX_CRASHES, None).unwrap().unwrap();
    assert_eq!(ids(&taken.jobs), [suspect]);
    assert_sound(&place);
}
