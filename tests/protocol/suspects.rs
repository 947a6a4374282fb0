//! Jobs with crashes on their record: they run beside others, until the final attempt, which runs alone in quarantine.

use threadq::internals::queue::{CrashedJob, Quarantine, ServerId, Settled, Share};
use threadq::job::{JobId, Status};

use crate::fixture::*;
use crate::invariants::assert_sound;

const LIST: &str = "work_queue:default:suspects";

/// Takes jobs for a server that runs another job. Returns the jobs, and whether the server must drain.
#[track_caller]
fn take_beside(place: &Place, server: &ServerId) -> (Vec<JobId>, bool) {
    let taken = place.try_take(server, 8, Quarantine::Reserve, None).unwrap();
    (ids(&taken.jobs), taken.must_drain)
}

#[test]
fn jobs_of_a_dead_server_run_again_side_by_side_before_those_that_wait() {
    let place = Place::new();
    let submitted = place.submit_many(6);
    for crashes in 1..MAX_CRASHES {
        let server = place.server();
        assert_eq!(ids(&place.take(&server, 4)), submitted[..4]);
        assert_eq!(place.dies(&server).crashed.len(), 4);
        assert!(submitted[..4].iter().all(|id| place.job(*id).crashes == crashes));
        assert_eq!(place.list("work_queue:default").len(), 6, "all in their own queue");
        assert_sound(&place);
    }
    // On their final attempt jobs run one by one, and the other jobs pass them.
    let (a, b) = (place.server(), place.server());
    assert_eq!(ids(&place.try_take(&a, 8, Quarantine::Skip, None).unwrap().jobs), submitted[4..]);
    for id in &submitted[..4] {
        let mut taken = place.take(&b, 8);
        assert_eq!(ids(&taken), [*id]);
        place.settle(&b, &completed(taken.remove(0).0));
        assert_sound(&place);
    }
}

#[test]
fn a_job_with_a_crash_on_its_record_starts_whatever_runs_here() {
    let place = Place::new();
    let a = place.server();
    let crashed = [place.submit_crashed(1), place.submit_crashed(1)];
    assert_eq!(ids(&place.try_take(&a, 1, Quarantine::Reserve, None).unwrap().jobs), crashed[..1]);
    assert_eq!(ids(&place.try_take(&a, 1, Quarantine::Skip, None).unwrap().jobs), crashed[1..]);
    assert_sound(&place);
}

#[test]
fn where_one_crash_is_allowed_no_job_runs_alone() {
    let place = Place::new();
    let a = place.server();
    let submitted = place.submit_many(3);
    let taken = place.queue.start_jobs(&a, &shares(8), Quarantine::Start, 1, None).unwrap();
    assert_eq!(ids(&taken.jobs), submitted);
    let observed = place.beat_value(&a).unwrap();
    let charged = place.queue.reclaim(a.as_str(), &observed, 1).unwrap().unwrap().crashed;
    assert_eq!(charged.iter().filter(|job| job.has_failed).count(), 3);
    assert_sound(&place);
}

#[test]
fn the_last_chance_is_given_on_an_empty_server_only() {
    let place = Place::new();
    let a = place.server();
    let suspect = place.submit_suspect();
    let other = place.submit();
    // The server runs a job: the suspect waits, and no other job starts, so that the server becomes idle.
    assert_eq!(take_beside(&place, &a), (vec![], true));
    // Now the suspect runs, and no job beside it.
    let taken = place.try_take(&a, 8, Quarantine::Start, None).unwrap();
    assert_eq!((ids(&taken.jobs), taken.must_drain), (vec![suspect], false));
    assert_eq!(place.status(other), Status::Queued);
    assert_sound(&place);
}

#[test]
fn a_last_chance_in_an_ordinary_list_is_put_aside() {
    let place = Place::new();
    let a = place.server();
    let (first, suspect, last) = (place.submit(), place.submit_crashed(MAX_CRASHES - 1), place.submit());
    // The suspect does not start beside the others. From now on it waits for an idle server.
    assert_eq!(take_beside(&place, &a), (vec![first, last], true));
    assert_eq!((place.status(suspect), place.handles(suspect)), (Status::Queued, vec![LIST.to_owned()]));
    assert_sound(&place);
    assert_eq!(ids(&place.take(&a, 8)), [suspect]);
    // On an idle server a suspect starts in the take that finds it.
    let found = place.submit_crashed(MAX_CRASHES - 1);
    assert_eq!(ids(&place.take(&a, 8)), [found]);
    // The same for a job that BRPOPLPUSH has claimed.
    for (suspects, starts) in [(Quarantine::Reserve, false), (Quarantine::Start, true)] {
        let found = place.submit_crashed(MAX_CRASHES - 1);
        let fetched = place.fetch(&a);
        let taken = place.try_take(&a, 8, suspects, Some(&fetched)).unwrap();
        assert_eq!((ids(&taken.jobs) == [found], taken.must_drain), (starts, !starts));
        assert_sound(&place);
        place.cancel(found);
    }
}

#[test]
fn a_last_chance_keeps_the_name_of_its_queue() {
    let place = Place::new();
    let a = place.server();
    place.submit_crashed(MAX_CRASHES - 1);
    let fetched = place.fetch(&a);
    // The queue's list is empty, so its name is removed; the job's record still has the name.
    assert_eq!(place.queue.prune_names(None).unwrap(), None);
    assert!(place.queue.queues(&[]).unwrap().is_empty());
    place.try_take(&a, 8, Quarantine::Skip, Some(&fetched)).unwrap();
    assert_eq!(place.queue.queues(&[]).unwrap()[0].queued, 1);
}

#[test]
fn the_turn_of_the_others_is_theirs_alone() {
    let place = Place::new();
    let a = place.server();
    let suspects = [place.submit_suspect(), place.submit_crashed(MAX_CRASHES - 1)];
    let other = place.submit();
    let taken = place.try_take(&a, 8, Quarantine::Skip, None).unwrap();
    assert_eq!((ids(&taken.jobs), taken.must_drain), (vec![other], false));
    assert!(suspects.iter().all(|id| place.handles(*id) == [LIST]));
    assert_eq!(place.redis::<i64>("EXISTS", "last_chance:default", &[]), 0, "nobody was chosen");
    assert_sound(&place);
}

#[test]
fn no_suspect_is_started_without_a_free_worker() {
    let place = Place::new();
    let a = place.server();
    let suspect = place.submit_suspect();
    assert!(place.try_take(&a, 0, Quarantine::Start, None).unwrap().jobs.is_empty());
    assert_eq!(place.status(suspect), Status::Queued);
}

#[test]
fn one_server_empties_itself_for_the_last_chances_and_the_others_go_on() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let suspect = place.submit_suspect();
    assert_eq!(take_beside(&place, &a), (vec![], true));
    let good = place.submit();
    assert_eq!(take_beside(&place, &b), (vec![good], false));
    // The chosen server must drain at every take; after its death another server is chosen.
    assert_eq!(take_beside(&place, &a), (vec![], true));
    place.dies(&a);
    assert_eq!(take_beside(&place, &b), (vec![], true));
    // An idle server takes the suspect without being chosen.
    let c = place.server();
    assert_eq!(ids(&place.take(&c, 8)), [suspect]);
    // No suspect waited any more, so no server is chosen.
    place.submit_suspect();
    let next = place.submit_suspect();
    assert_eq!(take_beside(&place, &place.server()), (vec![], true));
    // While more suspects wait, the same server stays chosen.
    let chosen: String = place.redis("GET", "last_chance:default", &[]);
    assert_eq!(place.take(&place.server(), 8).len(), 1);
    assert_eq!(place.redis::<String>("GET", "last_chance:default", &[]), chosen);
    assert_eq!(take_beside(&place, &b), (vec![], false));
    assert_eq!(ids(&place.take(&b, 8)), [next]);
    assert_eq!(place.redis::<i64>("EXISTS", "last_chance:default", &[]), 0);
}

#[test]
fn the_last_chance_is_not_given_beside_what_was_fetched() {
    let place = Place::new();
    let a = place.server();
    let fetched_one = place.submit();
    place.submit_suspect();
    let fetched = place.fetch(&a);
    let taken = place.try_take(&a, 8, Quarantine::Start, Some(&fetched)).unwrap();
    assert_eq!((ids(&taken.jobs), taken.must_drain), (vec![fetched_one], true));
    assert_sound(&place);
}

#[test]
fn one_last_chance_at_a_time_is_started_over_all_queues() {
    let place = Place::new();
    let a = place.server();
    let suspects = ["first", "second"].map(|queue| place.submit_suspect_in(queue, MAX_CRASHES - 1));
    let shares = ["third", "first", "second"].map(|queue| Share { queue: queue.to_owned(), jobs: 2 });
    let take =
        || ids(&place.queue.start_jobs(&a, &shares, Quarantine::Start, MAX_CRASHES, None).unwrap().jobs);
    assert_eq!(take(), suspects[..1]);
    assert_eq!(take(), suspects[1..]);
    assert_sound(&place);
}

#[test]
fn suspects_of_version_0_4_run_as_the_rule_is_now() {
    let place = Place::new();
    let a = place.server();
    // Version 0.4 kept jobs with one crash of three in the list of jobs on their final attempt.
    let crashed = [1, 1, 1].map(|crashes| place.submit_suspect_in("default", crashes));
    let suspect = place.submit_suspect();
    let other = place.submit();
    assert_eq!(ids(&place.try_take(&a, 2, Quarantine::Reserve, None).unwrap().jobs), crashed[..2]);
    assert_sound(&place);
    let taken = place.try_take(&a, 8, Quarantine::Start, None).unwrap();
    assert_eq!((ids(&taken.jobs), taken.must_drain), (crashed[2..].to_vec(), true));
    assert_eq!(ids(&place.take(&a, 8)), [suspect]);
    assert_eq!(ids(&place.take(&a, 8)), [other]);
    assert_sound(&place);
}

#[test]
fn large_jobs_among_the_suspects_are_not_taken_all_at_once() {
    let place = Place::new();
    let a = place.server();
    let submitted: Vec<JobId> = (0..6).map(|_| place.submit_suspect_in("default", 1)).collect();
    let text = format!("\"{}\"", "x".repeat(1024 * 1024));
    for id in &submitted {
        let _: i64 = place.redis("HSET", &format!("job:{id}"), &["payload", &text]);
    }
    assert_eq!(ids(&place.take(&a, 8)), submitted[..4]);
    assert_eq!(ids(&place.take(&a, 8)), submitted[4..]);
}

#[test]
fn a_job_on_its_last_chance_is_charged_alone() {
    let place = Place::new();
    let a = place.server();
    let suspect = place.submit_suspect();
    let waiting = place.submit();
    assert_eq!(ids(&place.take(&a, 8)), [suspect]);
    place.fetch(&a);
    let _: i64 = place.redis("LPUSH", &in_progress(&a), &[&suspect.to_string()]);
    let reclaimed = place.dies(&a);
    assert_eq!((reclaimed.moved, reclaimed.crashed.len()), (2, 1));
    assert_eq!((place.job(suspect).crashes, place.status(suspect)), (MAX_CRASHES, Status::Failed));
    assert_eq!((place.job(waiting).crashes, place.status(waiting)), (0, Status::Queued));
    assert_sound(&place);
}

#[test]
fn a_last_chance_that_was_not_alone_is_given_again() {
    let place = Place::new();
    for first_in_the_list in [true, false] {
        let a = place.server();
        // The reply to one of these takes came so late that the server had sent the other take.
        let suspect = place.submit_suspect();
        let other = if first_in_the_list {
            assert_eq!(ids(&place.take(&a, 8)), [suspect]);
            let other = place.submit();
            assert_eq!(ids(&place.take(&a, 8)), [other]);
            other
        } else {
            let other = place.submit();
            assert_eq!(ids(&place.try_take(&a, 8, Quarantine::Skip, None).unwrap().jobs), [other]);
            assert_eq!(ids(&place.take(&a, 8)), [suspect]);
            other
        };
        assert_eq!(place.dies(&a).crashed.len(), 2);
        assert_eq!([suspect, other].map(|id| place.job(id).crashes), [MAX_CRASHES, 1]);
        assert_eq!([suspect, other].map(|id| place.status(id)), [Status::Queued; 2]);
        assert_sound(&place);
        // After a run alone the suspect fails.
        let b = place.server();
        assert_eq!(ids(&place.try_take(&b, 8, Quarantine::Skip, None).unwrap().jobs), [other]);
        let c = place.server();
        assert_eq!(ids(&place.take(&c, 8)), [suspect]);
        assert!(place.dies(&c).crashed[0].has_failed);
        assert_eq!(place.job(suspect).crashes, MAX_CRASHES + 1);
        place.queue.leave(&b).unwrap();
        place.cancel(other);
        assert_sound(&place);
    }
}

#[test]
fn a_suspect_that_does_not_run_is_not_charged() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let suspect = place.submit_suspect();
    let running = place.submit();
    place.try_take(&a, 1, Quarantine::Skip, None).unwrap();
    // The suspect is in the list of the dead server, but another server runs it.
    let _lease = place.take_one(&b);
    let _: i64 = place.redis("LPUSH", &in_progress(&a), &[&suspect.to_string()]);
    assert_eq!(place.dies(&a).crashed.len(), 1);
    assert_eq!((place.job(suspect).crashes, place.job(running).crashes), (MAX_CRASHES - 1, 1));
    assert_sound(&place);
}

/// A server that, by the data in Redis, runs a job on its final attempt and 200 other jobs, which the reclaim's first
/// step moves.
fn crowded(place: &Place, server: &ServerId) -> (JobId, Vec<JobId>) {
    let suspect = place.submit_suspect();
    assert_eq!(ids(&place.take(server, 1)), [suspect]);
    let others = place.submit_many(200);
    assert_eq!(place.take(server, 200).len(), 200);
    (suspect, others)
}

#[test]
fn whether_one_ran_alone_is_decided_once_however_many_steps_it_takes() {
    let place = Place::new();
    let a = place.server();
    let (suspect, others) = crowded(&place, &a);
    let reclaimed = place.dies(&a);
    assert_eq!((reclaimed.moved, reclaimed.crashed.len()), (201, 201));
    assert_eq!(place.status(suspect), Status::Queued, "it did not run alone");
    let b = place.server();
    assert_eq!(ids(&place.try_take(&b, 300, Quarantine::Skip, None).unwrap().jobs), others);
}

#[test]
fn a_reaper_that_dies_halfway_leaves_the_rest_to_the_next_one() {
    let place = Place::new();
    let a = place.server();
    let (suspect, others) = crowded(&place, &a);
    // The request of the second step is lost and not repeated.
    let reaper = place.another_queue();
    let observed = place.beat_value(&a).unwrap();
    place.wire.lose("reclaim", crate::lua_proxy::Loses::Answer);
    assert!(reaper.reclaim(a.as_str(), &observed, MAX_CRASHES).is_err());
    assert_eq!(place.list(&in_progress(&a)), [suspect.to_string()]);
    assert_sound(&place);
    let reclaimed = place.dies(&a);
    assert_eq!((reclaimed.moved, reclaimed.crashed.len()), (1, 1));
    assert_eq!((place.job(suspect).crashes, place.status(suspect)), (MAX_CRASHES, Status::Queued));
    assert!(others.iter().all(|id| place.job(*id).crashes == 1));
    assert_sound(&place);
}

#[test]
fn jobs_of_a_dead_server_keep_their_order_however_many_steps_it_takes() {
    let place = Place::new();
    let a = place.server();
    let submitted = place.submit_many(450);
    assert_eq!(place.take(&a, 430).len(), 430);
    assert_eq!(place.dies(&a).crashed.len(), 430);
    assert_eq!(ids(&place.take(&place.server(), 450)), submitted);
}

#[test]
fn at_max_crashes_the_job_is_buried_with_the_reason() {
    let place = Place::new();
    let id = place.submit();
    for crash in 1..MAX_CRASHES {
        let server = place.server();
        let _lease = place.take_one(&server);
        assert!(!place.dies(&server).crashed[0].has_failed);
        assert_eq!((place.job(id).crashes, place.status(id)), (crash, Status::Queued));
        assert_sound(&place);
    }
    let server = place.server();
    let late = completed(place.take_one(&server));
    let charged =
        CrashedJob { id, job_type: "t".to_owned(), attempt: 1, crashes: MAX_CRASHES, has_failed: true };
    assert_eq!(place.dies(&server).crashed, [charged]);
    let job = place.job(id);
    assert_eq!((job.crashes, job.status, job.attempts), (3, Status::Failed, 0));
    assert!(job.last_error().unwrap().contains("died 3 times"), "{:?}", job.errors);
    assert_eq!(place.settle(&server, &late), Settled::Stale);
    assert_eq!(place.handles(id), ["dlq_queue"]);
    assert_sound(&place);
}

#[test]
fn a_suspect_that_is_retried_or_delayed_stays_one() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit_suspect();
    let lease = place.take_one(&a);
    place.settle(&a, &retried(lease));
    place.make_due(id);
    place.queue.work_off_due(MAX_CRASHES).unwrap();
    assert_sound(&place);
    assert_eq!(take_beside(&place, &a), (vec![], true));
    assert_eq!(place.handles(id), [LIST]);
    assert_sound(&place);
}

#[test]
fn a_suspect_that_is_gone_leaves_room_for_another() {
    let place = Place::new();
    let a = place.server();
    place.raw(&["LPUSH T:work_queue:first:suspects 77"]);
    let suspect = place.submit_suspect_in("second", MAX_CRASHES - 1);
    // With one worker.
    let shares = [("first", 1), ("second", 0)].map(|(queue, jobs)| Share { queue: queue.to_owned(), jobs });
    let taken = place.queue.start_jobs(&a, &shares, Quarantine::Start, MAX_CRASHES, None).unwrap();
    assert_eq!(ids(&taken.jobs), [suspect]);
    assert_sound(&place);
}
