//! Reclaiming: a server is declared dead, its jobs are taken over, and a server that was only stopped is fenced.

use std::time::Duration;

use threadq::internals::in_flight::InFlight;
use threadq::internals::membership::Registrar;
use threadq::internals::queue::{Error, Quarantine, ServerFacts, Settled};
use threadq::job::{ErrorKind, JobId, Status};

use crate::fixture::*;
use crate::invariants::assert_sound;

/// The errors in a job's record: attempt, start, kind.
fn errors(place: &Place, id: JobId) -> Vec<(u32, Option<u64>, ErrorKind)> {
    place.job(id).errors.iter().map(|error| (error.attempt, error.start, error.kind)).collect()
}

#[test]
fn crashes_and_attempts_before_and_after_a_retry_are_told_apart() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    place.settle(&a, &retried(place.take_one(&a)));
    place.make_due(id);
    place.queue.work_off_due(MAX_CRASHES).unwrap();
    let _lease = place.take_one(&a);
    let before = place.job(id).started_at_ms.unwrap();
    place.dies(&a);
    let job = place.job(id);
    let crash = job.errors.last().unwrap();
    assert_eq!(crash.message, "its server died while this job was running");
    assert!(crash.at_ms >= before && (job.attempts, job.crashes) == (1, 1));
    let b = place.server();
    place.settle(&b, &buried(place.take_one(&b)));
    place.queue.retry(&[id], &[]).unwrap();
    place.settle(&b, &buried(place.take_one(&b)));
    let (failed, crashed) = (ErrorKind::Error, ErrorKind::Crash);
    let expected = [(1, Some(1), failed), (2, Some(2), crashed), (2, Some(3), failed), (1, Some(4), failed)];
    assert_eq!(errors(&place, id), expected);
    // An error that an earlier version has stored has no start.
    let _: i64 = place.redis("HSET", &format!("job:{id}"), &["errors", "2 1764000000000 \"no 7 c\""]);
    assert_eq!(errors(&place, id), [(2, None, failed)]);
    assert_eq!(place.job(id).errors[0].message, "no 7 c");
}

#[test]
fn what_ran_on_a_dead_server_waits_from_then_on_and_what_did_not_has_waited_all_the_time() {
    let place = Place::new();
    let a = place.server();
    let running = place.submit();
    let _lease = place.take_one(&a);
    let in_flight = place.submit();
    place.fetch(&a);
    let before = place.job(running).ready_at_ms();
    place.dies(&a);
    assert!(place.job(running).ready_again_at_ms.is_some_and(|ms| ms >= before));
    assert_eq!(place.job(in_flight).ready_again_at_ms, None);
}

#[test]
fn a_server_that_beat_since_it_was_looked_at_is_alive() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let observed = place.beat_value(&a).unwrap();
    let lease = place.take_one(&a);
    place.queue.heartbeat(&a, 1, 8, &[]).unwrap();
    assert_eq!(place.queue.reclaim(a.as_str(), &observed, MAX_CRASHES).unwrap(), None);
    assert_eq!(place.handles(id), [in_progress(&a)]);
    assert_eq!(place.settle(&a, &completed(lease)), Settled::Now(Status::Completed));
    place.queue.heartbeat(&a, 0, 8, &[]).unwrap();
    assert_sound(&place);
}

#[test]
fn a_beat_brings_back_what_wakes_nobody_else() {
    let place = Place::new();
    let a = place.server();
    let queues = ["default".to_owned(), "other".to_owned()];
    let beat = || place.queue.heartbeat(&a, 0, 8, &queues).unwrap();
    let quiet = beat();
    assert!(!quiet.quarantine_waits && quiet.due_in.is_none() && quiet.in_progress == 0 && !quiet.is_watched);
    let suspect = place.submit_suspect_in("other", MAX_CRASHES - 1);
    assert!(beat().quarantine_waits);
    assert!(!place.queue.heartbeat(&a, 0, 8, &queues[..1]).unwrap().quarantine_waits, "not in its queues");
    place.cancel(suspect);
    assert!(!beat().quarantine_waits);
    let delayed = place.submit_delayed();
    assert!(beat().due_in.is_some_and(|time| time > Duration::from_secs(1)));
    place.make_due(delayed);
    assert_eq!(beat().due_in, Some(Duration::ZERO));
    place.submit();
    place.fetch(&a);
    assert_eq!(beat().in_progress, 1);
}

#[test]
fn a_server_that_nobody_knows_is_not_taken_over() {
    let place = Place::new();
    let stranger = threadq::internals::queue::ServerId::generate();
    assert_eq!(place.queue.reclaim(stranger.as_str(), "1", MAX_CRASHES).unwrap(), None);
    assert_eq!(place.beat_value(&stranger), None);
}

#[test]
fn a_dead_server_cannot_beat_and_says_so() {
    let place = Place::new();
    let a = place.server();
    place.dies(&a);
    let dead = place.beat_value(&a);
    assert_eq!(place.queue.heartbeat(&a, 0, 8, &[]).unwrap_err(), Error::Fenced);
    assert_eq!(place.beat_value(&a), dead, "a refused beat leaves the mark");
    assert_eq!(place.queue.stats().unwrap().servers, []);
}

#[test]
fn what_a_zombie_fetches_after_its_death_is_swept() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let id = place.submit();
    place.dies(&a);
    place.fetch(&a);
    assert_eq!(place.handles(id), [in_progress(&a)]);
    // Other servers see the dead server, and the reclaim does not charge the job.
    let beat = place.queue.heartbeat(&b, 0, 8, &[]).unwrap();
    assert!(beat.servers.iter().any(|(server, beat)| server == a.as_str() && beat.starts_with('D')));
    let swept = place.dies(&a);
    assert_eq!((swept.moved, swept.crashed.len()), (1, 0));
    assert_eq!((place.job(id).crashes, place.handles(id)), (0, vec!["work_queue:default".to_owned()]));
    // Heartbeats do not list a dead server without jobs again.
    let beat = place.queue.heartbeat(&b, 0, 8, &[]).unwrap();
    assert_eq!(beat.servers.len(), 1);
    assert_sound(&place);
}

#[test]
fn what_a_server_fetches_after_redis_forgot_it_is_swept() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let id = place.submit();
    // An operator flushed Redis, or the server was stopped for longer than Redis keeps dead servers, during its
    // BRPOPLPUSH.
    let _: i64 = place.redis("HDEL", "servers", &[a.as_str()]);
    let fetched = place.fetch(&a);
    assert_eq!(place.try_take(&a, 1, Quarantine::Start, Some(&fetched)).unwrap_err(), Error::Fenced);
    let beat = place.queue.heartbeat(&b, 0, 8, &[]).unwrap();
    let (_, seen) = beat.servers.iter().find(|(server, _)| server == a.as_str()).expect("it is watched");
    assert_eq!(place.queue.reclaim(a.as_str(), seen, MAX_CRASHES).unwrap().unwrap().moved, 1);
    assert_eq!(place.handles(id), ["work_queue:default"]);
    assert_sound(&place);
}

#[test]
fn a_dead_server_is_forgotten_only_after_an_hour_and_with_an_empty_list() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let id = place.submit();
    place.dies(&a);
    place.queue.heartbeat(&b, 0, 8, &[]).unwrap();
    assert!(place.beat_value(&a).is_some(), "remembered at first");
    let _: i64 = place.redis("HSET", "servers", &[a.as_str(), "D1000"]);
    place.fetch(&a);
    place.queue.heartbeat(&b, 0, 8, &[]).unwrap();
    assert!(place.beat_value(&a).is_some(), "its list is not empty");
    place.dies(&a);
    place.queue.heartbeat(&b, 0, 8, &[]).unwrap();
    assert_eq!(place.beat_value(&a), None);
    assert_eq!(place.redis::<i64>("EXISTS", &format!("server:{a}"), &[]), 0);
    assert_eq!(place.handles(id), ["work_queue:default"]);
    assert_sound(&place);
}

#[test]
fn only_what_the_dead_server_ran_itself_is_taken_over() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let id = place.submit();
    let lease = place.take_one(&b);
    let _: i64 = place.redis("LPUSH", &in_progress(&a), &[&id.to_string()]);
    place.cancel(id);
    let reclaimed = place.dies(&a);
    assert_eq!((reclaimed.moved, reclaimed.crashed.len()), (0, 0));
    assert_eq!((place.status(id), place.handles(id)), (Status::Processing, vec![in_progress(&b)]));
    assert_eq!(place.settle(&b, &completed(lease)), Settled::Now(Status::Completed));
    assert_sound(&place);
}

#[test]
fn a_job_that_stands_twice_in_a_dead_servers_list_is_charged_once() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let _lease = place.take_one(&a);
    let waiting = place.submit();
    place.fetch(&a);
    for id in [id, waiting] {
        let _: i64 = place.redis("LPUSH", &in_progress(&a), &[&id.to_string()]);
    }
    let reclaimed = place.dies(&a);
    assert_eq!((reclaimed.moved, reclaimed.crashed.len()), (2, 1));
    assert_eq!(place.job(id).crashes, 1);
    assert_eq!(place.handles(id), ["work_queue:default"]);
    assert_eq!(place.handles(waiting), ["work_queue:default"]);
    assert_sound(&place);
}

#[test]
fn what_had_ended_is_only_dropped_from_a_dead_servers_list() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    place.fetch(&a);
    place.cancel(id);
    assert_eq!(place.dies(&a).moved, 0);
    assert_eq!((place.status(id), place.handles(id)), (Status::Cancelled, vec!["done".to_owned()]));
    assert_eq!(place.redis::<i64>("ZCARD", "lost", &[]), 0);
    assert_sound(&place);
}

#[test]
fn a_running_job_that_was_asked_to_stop_is_cancelled_with_its_server() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit_with(|job| job.unique_key = Some("u".to_owned()));
    let _lease = place.take_one(&a);
    place.cancel(id);
    let reclaimed = place.dies(&a);
    assert_eq!((reclaimed.moved, reclaimed.crashed.len()), (1, 0));
    assert_eq!((place.status(id), place.job(id).crashes), (Status::Cancelled, 0));
    assert_eq!(place.redis::<i64>("EXISTS", &format!("cancels:{a}"), &[]), 0);
    assert_sound(&place);
}

#[test]
fn the_order_of_submission_survives_a_death_of_started_and_unstarted_jobs() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let submitted = place.submit_many(7);
    // a: jobs 0, 1, 2 running, 3 claimed; b: 4 and 5 running; 6 waits.
    place.take(&a, 3);
    place.fetch(&a);
    place.take(&b, 2);
    place.queue.leave(&b).unwrap();
    assert_sound(&place);
    assert_eq!(place.dies(&a).crashed.len(), 3);
    assert_sound(&place);
    let c = place.server();
    assert_eq!(ids(&place.take(&c, 9)), submitted, "those with a crash on their record too");
}

#[test]
fn leaving_charges_nobody_and_fences() {
    let place = Place::new();
    let a = place.server();
    let submitted = place.submit_many(3);
    let late = completed(place.take_one(&a));
    place.take(&a, 1);
    place.fetch(&a);
    let left = place.queue.leave(&a).unwrap().unwrap();
    assert_eq!((left.moved, left.crashed.len()), (3, 0));
    assert!(submitted.iter().all(|id| place.job(*id).crashes == 0));
    assert_eq!(place.settle(&a, &late), Settled::Stale);
    assert_eq!(place.try_take(&a, 3, Quarantine::Start, None).unwrap_err(), Error::Fenced);
    assert_eq!(place.queue.heartbeat(&a, 0, 8, &[]).unwrap_err(), Error::Fenced);
    assert_sound(&place);
    let b = place.server();
    assert_eq!(ids(&place.take(&b, 3)), submitted);
}

#[test]
fn a_suspect_is_not_charged_by_leaving() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit_suspect();
    let _lease = place.take_one(&a);
    assert_eq!(place.queue.leave(&a).unwrap().unwrap().crashed.len(), 0);
    assert_eq!((place.job(id).crashes, place.status(id)), (2, Status::Queued));
    assert_sound(&place);
}

#[test]
fn what_a_blocked_fetch_brings_after_leaving_is_swept() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let queue = place.another_queue();
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| queue.wait_for_job(&a, "default").unwrap().is_some());
        std::thread::sleep(Duration::from_millis(100));
        place.queue.leave(&a).unwrap();
        let id = place.submit();
        assert!(blocked.join().unwrap());
        assert_eq!(place.handles(id), [in_progress(&a)]);
        let beat = place.queue.heartbeat(&b, 0, 8, &[]).unwrap();
        let (_, seen) = beat.servers.iter().find(|(server, _)| server == a.as_str()).expect("it is watched");
        let swept = place.queue.reclaim(a.as_str(), seen, MAX_CRASHES).unwrap().unwrap();
        assert_eq!((swept.moved, swept.crashed.len()), (1, 0));
        assert_eq!(place.handles(id), ["work_queue:default"]);
    });
    assert_sound(&place);
}

#[test]
fn taking_over_twice_charges_once() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let observed = place.beat_value(&a).unwrap();
    let _lease = place.take_one(&a);
    assert_eq!(place.dies(&a).crashed.len(), 1);
    assert_eq!(place.queue.reclaim(a.as_str(), &observed, MAX_CRASHES).unwrap(), None);
    let again = place.dies(&a);
    assert_eq!((again.moved, again.crashed.len()), (0, 0));
    assert_eq!(place.job(id).crashes, 1);
    assert_sound(&place);
}

#[test]
fn a_heartbeat_brings_what_its_server_should_know() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let (id, _) = (place.submit(), place.submit());
    let _lease = place.take_one(&a);
    place.fetch(&a);
    place.cancel(id);
    let beat = place.queue.heartbeat(&a, 1, 8, &[]).unwrap();
    assert_eq!((beat.in_progress, beat.cancels), (2, vec![id]));
    let mut servers: Vec<String> = beat.servers.into_iter().map(|(server, _)| server).collect();
    servers.sort();
    let mut expected = vec![a.to_string(), b.to_string()];
    expected.sort();
    assert_eq!(servers, expected);
    assert_eq!(place.queue.heartbeat(&b, 0, 8, &[]).unwrap().cancels, []);
    let busy: u64 = place.queue.stats().unwrap().servers.iter().map(|server| server.busy).sum();
    assert_eq!(busy, 1);
}

#[test]
fn a_server_enters_its_first_name_once_and_takes_a_new_one_after_its_death() {
    let place = Place::new();
    let mut registrar = Registrar::new(ServerFacts::new(8, &[]));
    let membership = registrar.membership();
    let in_flight = InFlight::new(8);
    let refused = membership.current();
    assert_eq!(place.queue.heartbeat(&refused, 0, 8, &[]).unwrap_err(), Error::Fenced);
    registrar.join(&place.queue, &in_flight).unwrap();
    // A second join keeps the name: jobs taken under this name meanwhile must stay this server's.
    registrar.join(&place.queue, &in_flight).unwrap();
    assert_eq!(membership.current(), refused);
    place.dies(&refused);
    registrar.join(&place.queue, &in_flight).unwrap();
    assert_ne!(membership.current(), refused);
}

#[test]
fn a_server_that_redis_does_not_know_can_leave() {
    let place = Place::new();
    let a = place.server();
    let _: i64 = place.redis("HDEL", "servers", &[a.as_str()]);
    assert!(place.queue.leave(&a).unwrap().is_none());
}

#[test]
fn a_job_that_has_ended_stays_ended_though_a_dead_server_has_an_entry_of_it() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    assert_eq!(place.settle(&a, &completed(place.take_one(&a))), Settled::Now(Status::Completed));
    let _: i64 = place.redis("LPUSH", &in_progress(&a), &[&id.to_string()]);
    let reclaimed = place.dies(&a);
    assert_eq!((reclaimed.moved, reclaimed.crashed.len()), (0, 0));
    assert_eq!((place.status(id), place.handles(id)), (Status::Completed, vec!["completed".to_owned()]));
}

#[test]
fn a_server_that_leaves_suspects_no_job() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit_suspect();
    assert_eq!(ids(&place.take(&a, 1)), [id]);
    place.queue.leave(&a).unwrap();
    let beat = place.beat_value(&a).unwrap_or_default();
    assert!(!beat.contains(':'), "{beat}");
    assert_eq!((place.job(id).crashes, place.status(id)), (MAX_CRASHES - 1, Status::Queued));
    assert_sound(&place);
}
