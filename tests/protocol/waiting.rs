//! What is said of jobs that wait: the pages of a queue, and what decides when a job starts.

use std::time::Duration;

use threadq::internals::queue::{Page, Place as At, Quarantine, ServerFacts, Situation, Turns};
use threadq::job::{Change, JobId, NewJob, Status};

use crate::fixture::*;

/// The ids of a page of the queue `default`, and the number of all its jobs.
fn page(place: &Place, skipped: u64, limit: u64) -> (Vec<JobId>, u64) {
    let Page { jobs, total, next } = place.queue.list_queue("default", skipped, limit).unwrap();
    assert_eq!(next, None);
    (jobs.iter().map(|job| job.id).collect(), total)
}

#[track_caller]
fn situation(place: &Place, id: JobId) -> Situation {
    place.queue.situation(id).unwrap().expect("a job")
}

/// Where the entry of a job is, and the number of jobs before it.
#[track_caller]
fn stand(place: &Place, id: JobId) -> (At, u64, bool) {
    let Situation { place, before, is_more, .. } = situation(place, id);
    (place, before, is_more)
}

fn submit(place: &Place, jobs: usize) -> Vec<JobId> {
    let jobs = vec![NewJob::new("t"); jobs];
    jobs.chunks(1_000).flat_map(|jobs| place.try_submit(jobs).unwrap().ids().collect::<Vec<_>>()).collect()
}

#[test]
fn the_next_job_of_a_queue_comes_first_and_suspects_before_it() {
    let place = Place::new();
    let a = place.server();
    let submitted = place.submit_many(5);
    place.submit_with(|job| job.queue = "other".to_owned());
    place.submit_delayed();
    let suspects = [place.submit_suspect(), place.submit_suspect()];
    let all = [&suspects[..], &submitted].concat();
    assert_eq!(page(&place, 0, 10), (all.clone(), 7));
    for skipped in 0..8 {
        let end = all.len().min(skipped + 2);
        assert_eq!(page(&place, skipped as u64, 2), (all[skipped.min(end)..end].to_vec(), 7));
    }
    assert_eq!(place.queue.list_queue("empty", 0, 10).unwrap().total, 0);
    // The order is that of takes.
    let taken = ids(&place.try_take(&a, 9, Quarantine::Skip, None).unwrap().jobs);
    assert_eq!(taken, submitted);
    assert_eq!(page(&place, 0, 10), (suspects.to_vec(), 2));
}

#[test]
fn a_page_of_a_queue_has_no_jobs_that_are_gone() {
    let place = Place::alone();
    let submitted = submit(&place, 2_100);
    let mut waiting = submitted.clone();
    for n in (0..2_100).rev().filter(|n| n % 3 == 0) {
        place.cancel(waiting.remove(n));
    }
    let entries = place.list("work_queue:default").len();
    assert!(entries > waiting.len(), "tombstones stay");
    let mut total = waiting.len() as u64;
    for skipped in [0, 1, 99, 1_000, 1_320] {
        let (jobs, shown) = page(&place, skipped as u64, 10);
        assert_eq!(jobs, waiting[skipped..skipped + 10], "{skipped}");
        assert!(shown >= total && shown < entries as u64, "{shown}");
        total = shown;
    }
    // A job that was cancelled and retried has a tombstone and an entry.
    waiting.push(submitted[3]);
    place.queue.retry(&[submitted[3]], &[]).unwrap();
    let walked: Vec<JobId> = (0..total + 1).step_by(100).flat_map(|from| page(&place, from, 100).0).collect();
    assert!(walked == waiting, "a walk meets all of them");
    // An entry whose job is gone, or is not queued, is no job that waits.
    let place = Place::new();
    let (first, second) = (place.submit(), place.submit());
    let delayed = place.submit_delayed();
    place.raw(&["RPUSH T:work_queue:default 77", &format!("RPUSH T:work_queue:default {delayed} {first}")]);
    assert_eq!(page(&place, 0, 10).0, [first, second]);
}

#[test]
fn pages_behind_the_searched_entries_neither_repeat_nor_skip_a_job() {
    let searched =
        crate::guards::Change::new("pages", "local MOST_SEARCHED = 2000", "local MOST_SEARCHED = 6");
    let place = Place::with_changes(vec![long_lists(), searched]);
    let mut waiting = place.submit_many(20);
    for n in [17, 15, 10, 9, 7, 3, 2] {
        place.cancel(waiting.remove(n));
    }
    // The take's end of the list keeps no tombstones.
    let (_, total) = page(&place, 0, 3);
    let found: Vec<JobId> = (0..total).step_by(3).flat_map(|from| page(&place, from, 3).0).collect();
    assert_eq!(found, waiting);
    // As far as the search goes, the pages are full.
    assert_eq!(page(&place, 0, 4).0, waiting[..4]);
}

#[test]
fn a_large_payload_is_left_out_of_a_page_of_a_queue() {
    let place = Place::new();
    let text = format!("\"{}\"", "x".repeat(20_000));
    place.submit_with(|job| job.payload = serde_json::value::RawValue::from_string(text).unwrap());
    let page = place.queue.list_queue("default", 0, 10).unwrap();
    assert_eq!((page.jobs[0].payload.get(), page.jobs[0].omitted.len()), ("null", 1));
}

#[test]
fn the_jobs_before_a_job_are_counted() {
    let place = Place::new();
    let a = place.server();
    let submitted = place.submit_many(4);
    for (n, id) in submitted.iter().enumerate() {
        assert_eq!(stand(&place, *id), (At::Queue, n as u64, false));
    }
    let suspects = [place.submit_suspect(), place.submit_suspect()];
    assert_eq!(stand(&place, suspects[1]), (At::Suspects, 1, false));
    let claimed = place.fetch(&a);
    assert_eq!(stand(&place, submitted[0]), (At::Claimed(a.to_string()), 0, false));
    assert_eq!(stand(&place, submitted[3]), (At::Queue, 2, false));
    place.try_take(&a, 1, Quarantine::Skip, Some(&claimed)).unwrap();
    assert_eq!(stand(&place, submitted[0]), (At::Server, 0, false));
    let delayed = place.submit_delayed();
    assert_eq!(stand(&place, delayed), (At::Scheduled, 0, false));
    place.cancel(delayed);
    assert_eq!(stand(&place, delayed), (At::None, 0, false));
    assert!(place.queue.situation(JobId::new(1).unwrap()).unwrap().is_none());
}

#[test]
fn tombstones_are_not_before_a_job() {
    let place = Place::alone();
    let submitted = submit(&place, 2_100);
    for id in &submitted[10..500] {
        place.cancel(*id);
    }
    assert_eq!(stand(&place, submitted[2_000]), (At::Queue, 2_000 - 490, false));
    // Only the least number is known: there may be tombstones among the entries that are not searched.
    assert_eq!(stand(&place, submitted[2_001]), (At::Queue, 2_001 - 490, true));
    for id in &submitted[2_010..] {
        place.cancel(*id);
    }
    assert_eq!(stand(&place, submitted[2_005]), (At::Queue, 2_000 - 490, true));
    assert_eq!(stand(&place, submitted[9]), (At::Queue, 9, false));
}

#[test]
fn a_job_far_behind_is_not_searched_for() {
    let place = Place::alone();
    let submitted = submit(&place, 10_002);
    assert_eq!(stand(&place, submitted[9_999]), (At::Queue, 9_999, false));
    assert_eq!(stand(&place, submitted[10_000]), (At::Queue, 10_000, true));
    // A claimed job is found also while the list is long.
    let a = place.server();
    place.fetch(&a);
    assert_eq!(stand(&place, submitted[0]), (At::Claimed(a.to_string()), 0, false));
}

/// Redis has a job in no list any more: kue#451.
#[test]
fn a_job_without_an_entry_has_no_place() {
    let place = Place::new();
    let a = place.server();
    let (queued, delayed) = (place.submit(), place.submit_delayed());
    let lease = place.take_one(&a);
    assert_eq!(lease.id(), queued);
    let queued = place.submit();
    place.raw(&["DEL T:work_queue:default", "DEL T:scheduled", &format!("DEL T:{}", in_progress(&a))]);
    for id in [queued, delayed, lease.id()] {
        assert_eq!(stand(&place, id).0, At::None);
    }
}

#[test]
fn servers_and_their_workers_are_counted() {
    let place = Place::new();
    let job = place.submit_with(|job| job.queue = "mail".to_owned());
    let counts = || {
        let it = situation(&place, job);
        (it.servers, it.takers, it.workers, it.busy)
    };
    assert_eq!(counts(), (0, 0, 0, 0));
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let a = place.server();
    assert_eq!(counts(), (1, 0, 0, 0), "it takes from default");
    let register = |queues: &[&str], strict: &[&str]| {
        let server = threadq::internals::queue::ServerId::generate();
        let facts = ServerFacts { strict: names(strict), ..ServerFacts::new(5, queues) };
        place.queue.register(&server, &facts).unwrap();
        server
    };
    let b = register(&["voicemail", "mail", "default"], &[]);
    register(&["voicemail", "mail.eu"], &[]);
    assert_eq!(counts(), (3, 1, 5, 0));
    place.queue.heartbeat(&b, 3, 4, &names(&["mail"])).unwrap();
    assert_eq!(counts(), (3, 1, 4, 3));
    place.dies(&a);
    place.dies(&b);
    assert_eq!(counts(), (1, 0, 0, 0));
}

#[test]
fn strict_queues_with_jobs_come_before_other_queues() {
    let place = Place::new();
    let queues = ["a", "default", "b"].map(str::to_owned);
    let strict = ["b", "a"].map(str::to_owned);
    let server = threadq::internals::queue::ServerId::generate();
    let facts = ServerFacts {
        workers: 8,
        queues: queues.to_vec(),
        strict: strict.to_vec(),
        ..ServerFacts::default()
    };
    place.queue.register(&server, &facts).unwrap();
    let submit = |queue: &str| place.submit_with(|job| job.queue = queue.to_owned());
    let (low, a, _) = (submit("default"), submit("a"), submit("a"));
    let before = |id| situation(&place, id).strict;
    assert_eq!(before(low), [("a".to_owned(), 2)]);
    assert_eq!(before(a), []);
    let b = submit("b");
    assert_eq!(before(low), [("b".to_owned(), 1), ("a".to_owned(), 2)]);
    assert_eq!((before(a), before(b)), (vec![("b".to_owned(), 1)], vec![]));
    // A second server that takes from them in the same way counts no job twice.
    let other = threadq::internals::queue::ServerId::generate();
    place.queue.register(&other, &facts).unwrap();
    assert_eq!(before(a), [("b".to_owned(), 1)]);
    place.queue.set_paused("b", true).unwrap();
    assert_eq!(before(a), []);
    assert!(situation(&place, b).is_paused && !situation(&place, a).is_paused);
    // What is said is what takes do.
    let turns = Turns { jobs: 3, strict: strict.to_vec(), shares: Vec::new() };
    let taken = place.queue.start_jobs_in_turn(&server, &turns, Quarantine::Skip, MAX_CRASHES, None).unwrap();
    assert_eq!(taken.jobs.len(), 2);
    assert_eq!(before(low), []);
}

#[test]
fn a_server_that_is_reserved_for_a_suspect_is_named() {
    let place = Place::new();
    let a = place.server();
    place.submit();
    let _running = place.take_one(&a);
    let suspect = place.submit_suspect();
    let other = place.submit();
    assert_eq!(situation(&place, other).reserved, None);
    assert!(place.try_take(&a, 1, Quarantine::Reserve, None).unwrap().must_drain);
    for id in [other, suspect] {
        assert_eq!(situation(&place, id).reserved, Some(a.to_string()));
    }
    let elsewhere = place.submit_with(|job| job.queue = "elsewhere".to_owned());
    assert_eq!(situation(&place, elsewhere).reserved, None, "the server does not take from there");
}

#[test]
fn a_running_job_is_told_of_its_server() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    assert_eq!(situation(&place, id).beat_age_ms, None);
    let _running = place.take_one(&a);
    let age = situation(&place, id).beat_age_ms.expect("it lives");
    assert!(age < Duration::from_secs(600).as_millis() as u64, "{age}");
    let _: i64 = place.redis("HSET", &format!("server:{a}"), &["beat_at", "1"]);
    let it = situation(&place, id);
    assert_eq!(it.beat_age_ms, Some(it.now_ms - 1));
    assert!(!it.is_stopping);
    place.cancel(id);
    let it = situation(&place, id);
    assert!(it.is_stopping);
    assert_eq!(it.job.status, Status::Processing);
    let _: i64 = place.redis("HSET", "servers", &[a.as_str(), "D5"]);
    assert_eq!(situation(&place, id).beat_age_ms, None);
}

#[test]
fn a_queue_is_strict_while_a_living_server_takes_from_it_so() {
    let place = Place::new();
    let register = |queues: &[&str], strict: &[&str]| {
        let strict = strict.iter().map(|name| (*name).to_owned()).collect();
        let server = threadq::internals::queue::ServerId::generate();
        place.queue.register(&server, &ServerFacts { strict, ..ServerFacts::new(1, queues) }).unwrap();
        server
    };
    register(&["a", "b", "c"], &[]);
    let strict = || {
        let queues = place.queue.queues(&["a", "b", "c"]).unwrap();
        queues.iter().filter(|queue| queue.strict).map(|queue| queue.name.clone()).collect::<Vec<_>>()
    };
    assert!(strict().is_empty());
    let server = register(&["a", "b", "c"], &["c", "a"]);
    assert_eq!(strict(), ["a", "c"]);
    place.dies(&server);
    assert!(strict().is_empty());
    assert!(!place.keys().iter().any(|key| {
        key.starts_with("server:")
            && place.redis::<bool>("HEXISTS", key, &["strict"])
            && !key.ends_with(server.as_str())
    }));
}

#[test]
fn a_damaged_entry_of_a_server_or_a_job_does_not_stop_the_search_for_reasons() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let _running = place.take_one(&a);
    place.raw(&[&format!("DEL T:server:{a}")]);
    assert_eq!(situation(&place, id).beat_age_ms, Some(0));
    place.raw(&[&format!("HSET T:server:{a} queues default")]);
    let it = situation(&place, id);
    assert_eq!((it.takers, it.workers, it.busy), (1, 0, 0));
    place.raw(&[&format!("HDEL T:job:{id} server")]);
    assert_eq!(situation(&place, id).place, At::None);
    place.raw(&[&format!("DEL T:job:{id}"), &format!("SET T:job:{id} text")]);
    assert!(place.queue.situation(id).unwrap().is_none());
}

#[test]
fn the_total_of_a_short_queue_has_no_tombstones_and_no_jobs_that_have_moved() {
    let place = Place::of_long_lists();
    let ids = place.submit_many(5);
    place.cancel(ids[2]);
    assert_eq!(page(&place, 0, 10), (vec![ids[0], ids[1], ids[3], ids[4]], 4));
    // A damaged count of tombstones does not show a job in a queue from which the job has moved.
    let change = Change { queue: Some("other".to_owned()), ..Change::default() };
    place.queue.change_waiting(&[ids[3]], &[], &change).unwrap();
    place.raw(&["DEL T:tombstones:default"]);
    assert_eq!(page(&place, 0, 10).0, [ids[0], ids[1], ids[4]]);
    let moved = place.queue.list_queue("other", 0, 10).unwrap();
    assert_eq!((moved.jobs[0].id, moved.jobs.len()), (ids[3], 1));
}
