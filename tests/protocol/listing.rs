//! Listings are exact for every filter and page, whatever the status of the jobs.

use serde_json::value::RawValue;
use threadq::internals::queue::{
    Changed, Filter, Position, Quarantine, ServerFacts, ServerId, Settlement, Share, Verdict,
};
use threadq::job::{Job, JobId, LargeField, NewJob, Start, Status};

use crate::fixture::*;
use crate::invariants::assert_sound;

#[test]
fn every_filter_counts_exactly_over_all_states() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    for n in 0..60 {
        place.submit_with(|job| job.job_type = format!("type {}", n % 3));
        if n % 4 == 0 {
            place.submit_delayed();
        }
    }
    for (n, (lease, job)) in place.take(&a, 40).into_iter().enumerate() {
        match n % 5 {
            0 => drop(place.settle(&a, &completed(lease))),
            1 => drop(place.settle(&a, &retried(lease))),
            2 => drop(place.settle(&a, &buried(lease))),
            3 => drop(place.cancel(job.id)),
            _ => {}
        }
    }
    place.take(&b, 5);
    assert_sound(&place);
    // Jobs of a dead server count as running until they are reclaimed.
    let observed = place.beat_value(&a).unwrap();
    let _: i64 = place.redis("HSET", "servers", &[a.as_str(), "D1000"]);
    assert_sound(&place);
    let _: i64 = place.redis("HSET", "servers", &[a.as_str(), &observed]);
    place.dies(&a);
    assert_sound(&place);
}

#[test]
fn pages_neither_overlap_nor_skip() {
    let place = Place::new();
    let a = place.server();
    let mut submitted = place.submit_many(57);
    let taken = place.take(&a, 20);
    for (n, (lease, _)) in taken.into_iter().enumerate() {
        if n % 2 == 0 {
            place.settle(&a, &completed(lease));
        }
    }
    submitted.reverse();
    let all = |status: Option<Status>| {
        let filter = Filter { status, ..Filter::default() };
        let mut listed: Vec<JobId> = Vec::new();
        // A bound, so that an endless listing fails.
        for page in 0..20 {
            let jobs = place.queue.list(&filter, Position::Offset(page * 7), 7).unwrap().jobs;
            if jobs.is_empty() {
                return listed;
            }
            listed.extend(jobs.iter().map(|job| job.id));
        }
        listed
    };
    assert_eq!(all(None), submitted);
    for status in [Status::Queued, Status::Processing, Status::Completed] {
        let expected: Vec<JobId> =
            submitted.iter().copied().filter(|id| place.status(*id) == status).collect();
        assert_eq!(all(Some(status)), expected, "{status}");
    }
}

#[test]
fn a_key_that_is_no_job_does_not_stop_a_listing() {
    let place = Place::new();
    let (bad, good) = (place.submit(), place.submit());
    let _: i64 = place.redis("DEL", &format!("job:{bad}"), &[]);
    let _: () = place.redis("SET", &format!("job:{bad}"), &["junk"]);
    for status in [None, Some(Status::Queued)] {
        let page =
            place.queue.list(&Filter { status, ..Filter::default() }, Position::Offset(0), 10).unwrap();
        assert_eq!(page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [good]);
    }
    assert!(place.queue.get(bad).unwrap().is_none());
    assert_eq!(place.queue.statuses(&[bad, good]).unwrap()[0], None);
}

#[test]
fn a_second_entry_of_a_running_job_is_not_counted() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let _lease = place.take_one(&a);
    place.submit();
    let b = place.server();
    for server in [&a, &b] {
        let _: i64 = place.redis("LPUSH", &in_progress(server), &[&id.to_string()]);
    }
    for (status, total) in [(Status::Processing, 1), (Status::Queued, 1)] {
        let page = place
            .queue
            .list(&Filter { status: Some(status), ..Filter::default() }, Position::Offset(0), 10)
            .unwrap();
        assert_eq!((page.total, page.jobs.len()), (total, 1), "{status}");
        let counts = place.queue.stats().unwrap().counts;
        assert!(counts.contains(&(status, total)), "{counts:?}");
    }
}

#[test]
fn a_claimed_job_that_has_not_started_is_listed_and_counted_as_queued() {
    let place = Place::new();
    let server = place.server();
    let id = place.submit();
    place.fetch(&server);
    assert_eq!((place.status(id), place.handles(id)), (Status::Queued, vec![in_progress(&server)]));
    assert_sound(&place);
}

#[test]
fn a_queue_shows_the_age_of_its_oldest_job_of_either_kind() {
    let place = Place::new();
    let suspect = place.submit_suspect();
    place.submit();
    let oldest = place.queue.queues(&["idle"]).unwrap();
    assert_eq!((oldest[1].name.as_str(), oldest[1].oldest_ms, oldest[1].queued), ("idle", None, 0));
    assert_eq!(oldest[0].queued, 2);
    let a = place.server();
    place.try_take(&a, 1, Quarantine::Skip, None).unwrap();
    assert_eq!((place.status(suspect), place.queue.queues(&[]).unwrap()[0].queued), (Status::Queued, 1));
}

#[test]
fn each_queue_is_shown_once_and_is_as_old_as_its_oldest_job() {
    let place = Place::new();
    place.submit();
    let shown = || {
        let queues = place.queue.queues(&["default", "default"]).unwrap();
        queues.into_iter().map(|queue| (queue.name, queue.oldest_ms.is_some())).collect::<Vec<_>>()
    };
    assert_eq!(shown(), [("default".to_owned(), true)]);
    // A tombstone of a repair, and an unknown entry.
    for entry in ["0", "nonsense"] {
        place.raw(&["DEL T:work_queue:default", &format!("LPUSH T:work_queue:default {entry}")]);
        assert_eq!(shown(), [("default".to_owned(), false)], "{entry}");
    }
}

#[test]
fn a_new_server_is_shown_with_its_start_its_workers_and_none_of_them_busy() {
    let place = Place::new();
    let before = place.submit().created_at_ms();
    let server = place.server();
    let after = place.submit().created_at_ms();
    let servers = place.queue.stats().unwrap().servers;
    let [info] = &servers[..] else { panic!("{servers:?}") };
    assert_eq!((info.id.as_str(), info.workers, info.busy), (server.as_str(), 8, 0));
    assert!((before..=after).contains(&info.started_at_ms), "{info:?}");
}

#[test]
fn a_queue_tells_how_many_living_servers_take_from_it() {
    let place = Place::new();
    let (a, b, c) = (ServerId::generate(), ServerId::generate(), ServerId::generate());
    place.queue.register(&a, &ServerFacts::new(1, &["mail", "video"])).unwrap();
    place.queue.register(&b, &ServerFacts::new(1, &["mail"])).unwrap();
    place.queue.register(&c, &ServerFacts::new(1, &["mail", "audio"])).unwrap();
    let taken = || {
        let queues = place.queue.queues(&["audio", "mai", "mail", "video"]).unwrap();
        queues.into_iter().map(|queue| queue.servers).collect::<Vec<_>>()
    };
    assert_eq!(taken(), [1, 0, 3, 1]);
    place.dies(&c);
    assert_eq!(taken(), [0, 0, 2, 1]);
    place.queue.leave(&b).unwrap();
    assert_eq!(taken(), [0, 0, 1, 1]);
    // A server as another version registers it.
    let _: i64 = place.redis("HDEL", &format!("server:{a}"), &["queues"]);
    assert_eq!(taken(), [0, 0, 0, 0]);
}

#[test]
fn pausing_tells_whether_the_queue_has_a_job() {
    let place = Place::new();
    let a = place.server();
    let has_jobs = |queue: &str| {
        let paused = place.queue.set_paused(queue, true).unwrap();
        assert_eq!(place.queue.set_paused(queue, false).unwrap(), paused);
        paused
    };
    let submit = |queue: &str| place.submit_with(|job| job.queue = queue.to_owned());
    assert!(!has_jobs("default"));
    // Running, queued, parked, with a crash on its record, ended; each in its own queue.
    place.submit();
    let lease = place.take_one(&a);
    assert!(has_jobs("default") && !has_jobs("emial"));
    submit("mail");
    assert!(has_jobs("mail") && !has_jobs("emial"));
    place.submit_with(|job| (job.queue, job.start) = ("later".to_owned(), Start::AfterMs(3_600_000)));
    assert!(has_jobs("later") && !has_jobs("emial"));
    place.submit_suspect_in("suspects", 1);
    assert!(has_jobs("suspects") && !has_jobs("emial"));
    let ended = submit("ended");
    place.cancel(ended);
    assert!(!has_jobs("ended"));
    // Entries of a list without a live job: a claimed job that was cancelled, and a deleted job.
    let (cancelled, gone) = (submit("hand"), submit("gone"));
    for id in [cancelled, gone] {
        let _: i64 = place.redis("LPUSH", &in_progress(&a), &[&id.to_string()]);
    }
    place.cancel(cancelled);
    place.raw(&["DEL T:work_queue:gone", &format!("DEL T:job:{gone}")]);
    assert!(!has_jobs("hand") && !has_jobs("gone") && has_jobs("default"));
    place.settle(&a, &completed(lease));
    assert!(!has_jobs("default"));
}

#[test]
fn behind_many_parked_jobs_there_may_be_one_of_any_queue() {
    let place = Place::new();
    let mut jobs: Vec<NewJob> = (0..2_001).map(|_| NewJob::new("t")).collect();
    jobs.iter_mut().for_each(|job| job.start = Start::AfterMs(3_600_000));
    place.try_submit(&jobs[..2_000]).unwrap();
    assert!(!place.queue.set_paused("emial", true).unwrap());
    place.try_submit(&jobs[2_000..]).unwrap();
    assert!(place.queue.set_paused("emial", true).unwrap());
}

#[test]
fn figures_of_a_minute_are_summed_and_what_workers_do_is_told() {
    let place = Place::new();
    let a = place.server();
    place.submit();
    for number in [3, 4] {
        place.queue.add_history(&[("completed".to_owned(), number)]).unwrap();
    }
    let minutes = place.queue.history(2).unwrap();
    let sum = |name: &str| minutes.iter().map(|minute| minute.figures.get(name).unwrap_or(&0)).sum::<u64>();
    assert_eq!(sum("completed"), 7, "{minutes:?}");
    assert!(sum("depth_ready") >= 1, "{minutes:?}");
    for minute in place.keys().iter().filter(|key| key.starts_with("history:")) {
        assert!(place.redis::<i64>("TTL", minute, &[]) > 0, "{minute} is never forgotten");
    }
    assert_eq!(place.queue.workers().unwrap()[0].1, None);
    place.queue.report_activity(&a, "works").unwrap();
    let workers = place.queue.workers().unwrap();
    assert_eq!((workers[0].0.workers, workers[0].1.as_deref()), (8, Some("works")));
}

/// A JSON text of this many bytes.
fn json_of(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

fn submit_payload(place: &Place, json: &str) -> JobId {
    place.submit_with(|job| job.payload = RawValue::from_string(json.to_owned()).unwrap())
}

fn page_of(place: &Place, limit: u64) -> Vec<Job> {
    place.queue.list(&Filter::default(), Position::Offset(0), limit).unwrap().jobs
}

#[test]
fn large_texts_are_left_out_of_a_page() {
    const LARGEST_SHOWN: usize = 16 * 1024;
    let place = Place::new();
    let a = place.server();
    let (shown, large) = (json_of(LARGEST_SHOWN), json_of(LARGEST_SHOWN + 1));
    for (payload, result) in
        [("{}", &large), ("{\"n\": [1.50]}", &large), (&large, &large), (&shown, &shown), (&large, &shown)]
    {
        submit_payload(&place, payload);
        let verdict = Verdict::Complete(RawValue::from_string(result.clone()).unwrap());
        place.settle(&a, &Settlement { lease: place.take_one(&a), verdict });
    }
    let page = page_of(&place, 10);
    let omitted: Vec<_> = page.iter().rev().map(|job| job.omitted.as_slice()).collect();
    let (payload, result) = (LargeField::Payload, LargeField::Result);
    assert_eq!(omitted, [&[result][..], &[result], &[payload, result], &[], &[payload]]);
    for job in &page {
        let whole = place.job(job.id);
        let is_out = |text| job.omitted.contains(&text);
        let null = RawValue::NULL.get();
        assert_eq!(job.payload.get(), if is_out(payload) { null } else { whole.payload.get() });
        let result_shown = (!is_out(result)).then(|| whole.result.as_ref().unwrap().get());
        assert_eq!(job.result.as_ref().map(|result| result.get()), result_shown);
        assert!(whole.omitted.is_empty());
        assert_eq!(
            (job.status, job.starts, job.finished_at_ms),
            (whole.status, whole.starts, whole.finished_at_ms)
        );
    }
}

/// Errors of 1,000 characters each, in the form of a record, of a character that takes six bytes in JSON.
fn ten_long_errors() -> String {
    let line = |n| format!("{n} 1764000000000 \"{}\"", "\\u0001".repeat(1_000));
    (1..=10).map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_page_is_below_4_mib_whatever_its_jobs_hold() {
    let place = Place::new();
    let (large, errors) = (json_of(16 * 1024), ten_long_errors());
    let mut jobs = Vec::new();
    for n in 0..100 {
        // The same with a payload that is stored in pieces.
        let id = match n {
            0 => submit_payload(&place, &json_of(2_000)),
            1..20 => submit_payload(&place, &json_of(600)),
            _ => submit_payload(&place, &large),
        };
        if n > 0 {
            let fields =
                ["errors", &errors, "unique_key", &"\u{10ffff}".repeat(200), "server", &"s".repeat(100)];
            let _: i64 = place.redis("HSET", &format!("job:{id}"), &fields);
        }
        if n >= 20 {
            let _: i64 = place.redis("HSET", &format!("job:{id}"), &["result", &large]);
        }
        jobs.push(id);
    }
    let page = page_of(&place, 100);
    assert_eq!(page.len(), 100);
    let bytes = serde_json::to_vec(&page).unwrap().len();
    assert!(bytes < (4 << 20) - 1_000, "{bytes} bytes");
    for job in &page {
        let place_in_line = jobs.iter().position(|id| *id == job.id).unwrap();
        let whole = place.job(job.id);
        assert_eq!(job.last_error(), whole.last_error());
        match place_in_line {
            0 => assert_eq!(job.omitted, []),
            1..20 => {
                assert_eq!(
                    (&*job.omitted, job.payload.get()),
                    (&[LargeField::Errors][..], whole.payload.get())
                );
                assert_eq!(job.errors, whole.errors[9..]);
            }
            _ => assert!(job.omitted.contains(&LargeField::Result), "{:?}", job.omitted),
        }
    }
    // Ten of these jobs fit into one listing.
    assert!(page_of(&place, 10).iter().all(|job| job.omitted.is_empty()));
}

/// Errors of this many bytes in all, in ten lines of a record.
fn errors_of(bytes: usize) -> String {
    let line = |n| {
        let head = format!("{n} 1764000000000 1 ");
        format!("{head}{}", json_of(bytes / 10 - head.len() - 1))
    };
    (0..10).map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_page_that_is_too_large_leaves_out_texts_until_each_job_has_its_share() {
    use LargeField::{Payload, Result};
    const LARGE: usize = 16 * 1024;
    // The bytes of payload, result and errors of each of 100 jobs, and the texts that are left out.
    let cases: [(usize, usize, usize, &[LargeField]); 4] = [
        (LARGE, LARGE, 0, &[]),
        (9_500, 9_500, 10_000, &[]),
        (LARGE, LARGE, 10_000, &[Result]),
        (LARGE + 1, LARGE, 29_500, &[Payload, Result]),
    ];
    for (payload, result, errors, omitted) in cases {
        let place = Place::new();
        let job = NewJob { payload: RawValue::from_string(json_of(payload)).unwrap(), ..NewJob::new("t") };
        for id in place.try_submit(&vec![job; 100]).unwrap().ids() {
            let _: i64 = place.redis("HSET", &format!("job:{id}"), &["result", &json_of(result)]);
            if errors > 0 {
                let _: i64 = place.redis("HSET", &format!("job:{id}"), &["errors", &errors_of(errors)]);
            }
        }
        let page = page_of(&place, 100);
        assert!(page.iter().all(|job| job.omitted == omitted), "{errors}: {:?}", page[0].omitted);
        let lines = if errors > 0 { 10 } else { 0 };
        assert!(page.iter().all(|job| job.errors.len() == lines), "{errors}: {}", page[0].errors.len());
        assert!(serde_json::to_vec(&page).unwrap().len() < (4 << 20) - 1_000);
    }
}

#[test]
fn an_only_error_stays_and_other_fields_are_whole_where_texts_are_left_out() {
    let place = Place::new();
    let error = format!("1 1764000000000 1 {}", json_of(50_000));
    for _ in 0..100 {
        let id = place.submit_with(|job| job.unique_key = Some(format!("{}\n2", fastrand::u64(..))));
        let _: i64 = place.redis("HSET", &format!("job:{id}"), &["errors", &error]);
    }
    for job in page_of(&place, 100) {
        assert_eq!((&*job.omitted, job.errors.len()), (&[LargeField::Errors][..], 1));
        assert!(job.unique_key.unwrap().ends_with("\n2"));
    }
}

#[test]
fn a_page_that_is_not_too_large_shows_all_of_a_job_that_is_larger_than_the_others() {
    let place = Place::new();
    let id = place.submit_many(100)[50];
    let _: i64 = place.redis("HSET", &format!("job:{id}"), &["errors", &errors_of(60_000)]);
    assert!(page_of(&place, 100).iter().all(|job| job.omitted.is_empty()));
}

/// Walks through a listing by ids; calls `meanwhile` between two pages.
fn walk(place: &Place, filter: &Filter, mut meanwhile: impl FnMut(&[JobId])) -> Vec<JobId> {
    let (mut seen, mut from) = (Vec::new(), Position::Offset(0));
    // A bound, so that an endless walk fails.
    for _ in 0..200 {
        let page = place.queue.list(filter, from, 3).unwrap();
        let ids: Vec<JobId> = page.jobs.iter().map(|job| job.id).collect();
        meanwhile(&ids);
        seen.extend(ids);
        let Some(next) = page.next else { return seen };
        from = Position::Before(next);
    }
    panic!("a walk without an end: {seen:?}");
}

#[test]
fn a_walk_by_id_meets_once_what_is_there_all_the_time() {
    let place = Place::new();
    let (a, b) = (place.server(), place.server());
    let mut all = Vec::new();
    for n in 0..60 {
        all.push(place.submit_with(|job| job.job_type = format!("type {}", n % 2)));
    }
    for (n, (lease, _)) in place.take(&a, 30).into_iter().enumerate() {
        match n % 3 {
            0 => drop(place.settle(&a, &completed(lease))),
            1 => drop(place.settle(&a, &buried(lease))),
            _ => {}
        }
    }
    for status in
        [None, Some(Status::Queued), Some(Status::Processing), Some(Status::Completed), Some(Status::Failed)]
    {
        for kind in [None, Some("type 1")] {
            let filter = Filter { status, job_type: kind.map(str::to_owned), ..Filter::default() };
            // The newest jobs run, and older ones are queued.
            all.extend((0..3).map(|_| {
                place.submit_with(|job| (job.job_type, job.queue) = ("type 1".to_owned(), "other".to_owned()))
            }));
            let other = [Share { queue: "other".to_owned(), jobs: 3 }];
            let taken = place.queue.start_jobs(&b, &other, Quarantine::Skip, 3, None).unwrap();
            assert_eq!(taken.jobs.len(), 3);
            let matches = |id: &JobId| {
                let job = place.job(*id);
                status.is_none_or(|status| job.status == status)
                    && kind.is_none_or(|kind| job.job_type == kind)
            };
            let before: Vec<JobId> = all.iter().copied().filter(matches).collect();
            let mut new = Vec::new();
            let seen = walk(&place, &filter, |_| {
                // New jobs come, an old one starts, a running one ends.
                for kind in ["type 0", "type 1"] {
                    new.push(place.submit_with(|job| job.job_type = kind.to_owned()));
                }
                let lease = place.take_one(&b);
                if new.len() % 4 == 0 {
                    place.settle(&b, &completed(lease));
                }
            });
            let stays: Vec<JobId> = before.into_iter().rev().filter(matches).collect();
            let of_these: Vec<JobId> = seen.iter().copied().filter(|id| stays.contains(id)).collect();
            assert_eq!(of_these, stays, "{filter:?}");
            all.extend(new);
        }
    }
}

#[test]
fn a_walk_through_dead_letters_that_deletes_what_it_sees_skips_none() {
    let place = Place::new();
    let a = place.server();
    let dead = place.submit_many(20);
    for (lease, _) in place.take(&a, 20) {
        place.settle(&a, &buried(lease));
    }
    let filter = Filter { status: Some(Status::Failed), ..Filter::default() };
    let seen = walk(&place, &filter, |ids| drop(place.queue.delete(ids, &[]).unwrap()));
    assert_eq!(seen.into_iter().rev().collect::<Vec<_>>(), dead);
    assert_eq!(place.queue.list(&filter, Position::Offset(0), 10).unwrap().total, 0);
}

/// A job from long ago, in the dead letter queue.
fn forge_dead_letter(place: &Place) -> JobId {
    place.raw(&[
        "HSET T:job:1000000 type t status failed finished_at 1 attempts 5",
        "ZADD T:dlq_queue 1 1000000",
        "ZADD T:index:failed 1000000 1000000",
        "ZADD T:index:failed:t 1000000 1000000",
    ]);
    JobId::new(1_000_000).unwrap()
}

/// Less than any age that is counted from long ago.
const LONG: u64 = 365 * 24 * 3_600_000;

fn oldest(place: &Place) -> u64 {
    place.queue.queues(&["default"]).unwrap()[0].oldest_ms.expect("a queued job")
}

#[test]
fn ages_and_waits_count_from_when_a_job_became_ready_again() {
    let place = Place::new();
    let a = place.server();
    let old = forge_dead_letter(&place);
    assert_eq!(place.queue.retry(&[old], &[]).unwrap(), [Changed::Done]);
    assert!(oldest(&place) < LONG);
    assert!(place.job(old).ready_at_ms() > LONG);
    // The same for a job that was put back.
    place.raw(&["HDEL T:job:1000000 ready_at"]);
    assert!(oldest(&place) > LONG);
    let (lease, job) = place.take(&a, 1).remove(0);
    assert!(job.ready_at_ms() < LONG);
    place.settle(&a, &released(lease));
    assert!(oldest(&place) < LONG);
    assert!(place.take(&a, 1)[0].1.ready_at_ms() > LONG);
}

#[test]
fn the_end_of_a_backoff_is_later_than_what_was_before() {
    let place = Place::new();
    let a = place.server();
    let old = forge_dead_letter(&place);
    place.queue.retry(&[old], &[]).unwrap();
    let sent_back = place.job(old).ready_at_ms();
    let lease = place.take_one(&a);
    place.settle(&a, &retried(lease));
    assert!(place.job(old).ready_at_ms() > sent_back + 3_000_000);
    // An ordinary job with a delay that has passed.
    let delayed = place.submit_delayed();
    place.make_due(delayed);
    place.queue.work_off_due(3).unwrap();
    let later = place.job(delayed).id.created_at_ms() + 3_000;
    let _: i64 = place.redis("HSET", &format!("job:{delayed}"), &["scheduled_at", &later.to_string()]);
    assert_eq!((oldest(&place), place.job(delayed).ready_at_ms()), (0, later));
}

#[test]
fn a_job_that_is_ready_again_hides_no_older_one_behind_it() {
    let place = Place::new();
    let a = place.server();
    place.submit_many(150);
    for (lease, _) in place.take(&a, 150).into_iter().rev() {
        place.settle(&a, &released(lease));
    }
    assert!(oldest(&place) < LONG);
    let push_old = |id: &str| {
        let record = format!("HSET T:job:{id} type t status queued");
        place.raw(&[&record, &format!("LPUSH T:work_queue:default {id}")]);
    };
    push_old("1000000000000000");
    assert!(oldest(&place) > LONG);
    // The job became ready once. Jobs behind it are younger, so they are not read.
    let before = oldest(&place);
    push_old("1000000");
    assert!(oldest(&place) < before + LONG);
    // Entries at the front without a queued job have no age: a running job, a deleted job, and an invalid id.
    place.raw(&[
        "HSET T:job:998 type t status processing server x",
        "RPUSH T:work_queue:default 998 997 nonsense",
        "HSET T:job:nonsense type t status queued",
        "RPUSH T:work_queue:other nonsense 998",
        "SADD T:queues other",
    ]);
    let shown = place.queue.queues(&["other"]).unwrap();
    assert_eq!(shown[1].oldest_ms, None);
}
