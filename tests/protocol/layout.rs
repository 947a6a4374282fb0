//! The type index and the list of completed jobs, beside the indexes and the sorted set of versions up to 0.6.

use std::time::Duration;

use threadq::internals::queue::{Changed, Filter, Position, Selection};
use threadq::job::{JobId, Status};

use crate::fixture::*;
use crate::invariants::assert_sound;

const HOUR: Duration = Duration::from_secs(3600);

pub fn of_type(place: &Place, job_type: &str) -> JobId {
    place.submit_with(|job| job.job_type = job_type.to_owned())
}

pub fn ids_in(place: &Place, key: &str) -> Vec<String> {
    place.redis("ZRANGE", key, &["0", "-1"])
}

#[test]
fn types_get_no_type_index_while_an_old_server_is_alive() {
    let place = Place::new();
    let (old, new) = (place.server(), place.server());
    place.make_old(&old);
    let first = of_type(&place, "x");
    assert_eq!(ids_in(&place, "index:ready"), [first.to_string()]);
    assert!(ids_in(&place, "types").is_empty());
    assert_sound(&place);
    place.dies(&old);
    let second = of_type(&place, "x");
    assert_eq!(ids_in(&place, "types"), ["x"]);
    assert_eq!(ids_in(&place, "type_index:ready:x"), [second.to_string()]);
    assert_eq!(ids_in(&place, "index:ready:x"), [first.to_string()]);
    assert_sound(&place);
    // One settlement moves jobs of both indexes to the type index.
    let leases = place.take(&new, 2).into_iter().map(|(lease, _)| completed(lease));
    place.queue.settle(&new, &leases.collect::<Vec<_>>()).unwrap();
    assert!(!place.keys().iter().any(|key| key.starts_with("index:")));
    assert_eq!(ids_in(&place, "type_index:completed:x"), [first.to_string(), second.to_string()]);
    assert_sound(&place);
}

#[test]
fn jobs_of_an_older_version_change_their_index_when_they_change_their_status() {
    let place = Place::new();
    let (old, new) = (place.server(), place.server());
    place.make_old(&old);
    let ids: Vec<JobId> = (0..4).map(|_| of_type(&place, "x")).collect();
    let parked = place.submit_with(|job| {
        job.job_type = "x".to_owned();
        job.start = threadq::job::Start::AfterMs(9_000_000);
    });
    place.dies(&old);
    place.cancel(ids[0]);
    for (lease, verdict) in place.take(&new, 3).into_iter().zip([completed, retried, buried]) {
        place.settle(&new, &verdict(lease.0));
    }
    place.make_due(parked);
    place.queue.work_off_due(MAX_CRASHES).unwrap();
    assert!(!place.keys().iter().any(|key| key.starts_with("index:")), "{:?}", place.keys());
    assert_sound(&place);
    assert_eq!(place.queue.delete(&[ids[0]], &[]).unwrap(), [Changed::Done]);
    assert_sound(&place);
}

#[test]
fn more_types_than_fit_are_in_the_indexes_of_all_jobs() {
    let place = Place::new();
    let server = place.server();
    for i in 0..16 {
        let _: i64 = place.redis("ZADD", "types", &["0", &format!("type {i}")]);
    }
    let (further, known) = (of_type(&place, "further"), of_type(&place, "type 7"));
    assert_eq!(ids_in(&place, "index:ready"), [further.to_string()]);
    assert_eq!(ids_in(&place, "type_index:ready:type 7"), [known.to_string()]);
    assert_sound(&place);
    let settlements: Vec<_> = place.take(&server, 2).into_iter().map(|(lease, _)| buried(lease)).collect();
    place.queue.settle(&server, &settlements).unwrap();
    assert_eq!(ids_in(&place, "index:failed:further"), [further.to_string()]);
    assert_eq!(ids_in(&place, "type_index:failed:type 7"), [known.to_string()]);
    let failed = Selection { statuses: vec![Status::Failed], ..Selection::default() };
    assert_eq!(select_all(&place, &failed, 1), [further, known]);
    assert_sound(&place);
    // Names without a job make room.
    place.queue.prune_names(None).unwrap();
    assert_eq!(ids_in(&place, "types"), ["type 7"]);
    of_type(&place, "further");
    assert_eq!(ids_in(&place, "types"), ["further", "type 7"]);
    assert_sound(&place);
}

#[test]
fn pages_are_exact_over_one_type_and_over_many_types() {
    for types in [1, 7] {
        pages_are_exact(types);
    }
}

fn pages_are_exact(types: u64) {
    let place = Place::new();
    let server = place.server();
    let mut ids: Vec<JobId> = (0..60).map(|i| of_type(&place, &format!("type {}", i * i % types))).collect();
    // The running jobs are the oldest ones, and some in between.
    place.take(&server, 5);
    for id in [ids[20], ids[21], ids[40]] {
        let _: i64 = place.redis("LREM", "work_queue:default", &["0", &id.to_string()]);
        let _: i64 = place.redis("RPUSH", "work_queue:default", &[&id.to_string()]);
    }
    place.take(&server, 3);
    ids.reverse();
    let (running, queued): (Vec<_>, Vec<_>) =
        ids.iter().copied().partition(|id| place.status(*id) == Status::Processing);
    assert_eq!((running.len(), queued.len()), (8, 52));
    // Every third job has the tag.
    for id in ids.iter().step_by(3) {
        let id = id.to_string();
        let _: i64 = place.redis("HSET", &format!("job:{id}"), &["tags", "a b\nx/y"]);
        let _: i64 = place.redis("ZADD", "tag_index:ready:x/y", &[&id, &id]);
    }
    for (status, all) in [(None, &ids), (Some(Status::Queued), &queued), (Some(Status::Processing), &running)]
    {
        assert_pages(&place, &Filter { status, ..Filter::default() }, all, &[1, 7, 100]);
        for tag in [None, Some("x/y"), Some("x")] {
            let tagged: Vec<JobId> = ids.iter().copied().step_by(3).collect();
            let matching = |id: &&JobId| tag.is_none_or(|tag| tag == "x/y" && tagged.contains(id));
            let all: Vec<JobId> = all.iter().filter(matching).copied().collect();
            // The bounds lie on jobs, behind the last one and before the first one.
            for (after, before) in [(0, 70), (13, 70), (0, 45), (21, 40), (30, 30), (40, 21)] {
                let bound = |n: usize| ids.iter().rev().nth(n).map(|id| id.get());
                let (after, before) = (bound(after), bound(before));
                let is_in_range = |id: &&JobId| {
                    after.is_none_or(|after| id.get() >= after)
                        && before.is_none_or(|before| id.get() < before)
                };
                let all: Vec<JobId> = all.iter().filter(is_in_range).copied().collect();
                let filter = Filter {
                    status,
                    tag: tag.map(str::to_owned),
                    created_after: after,
                    created_before: before,
                    ..Filter::default()
                };
                assert_pages(&place, &filter, &all, &[7]);
            }
        }
    }
}

/// Asserts that the listing with this filter has exactly these jobs, wherever a page begins.
fn assert_pages(place: &Place, filter: &Filter, all: &[JobId], limits: &[u64]) {
    for limit in limits {
        for skipped in 0..all.len() + 2 {
            let page = place.queue.list(filter, Position::Offset(skipped as u64), *limit).unwrap();
            let listed: Vec<JobId> = page.jobs.iter().map(|job| job.id).collect();
            let rest = all.get(skipped..).unwrap_or_default();
            let shown = &rest[..rest.len().min(*limit as usize)];
            assert_eq!(listed, shown, "{filter:?} from {skipped}");
            assert_eq!(page.total, all.len() as u64, "{filter:?}");
            let next = shown.last().copied().filter(|_| rest.len() > shown.len());
            assert_eq!(page.next, next, "{filter:?} from {skipped}");
        }
    }
    for (skipped, before) in all.iter().enumerate() {
        let page = place.queue.list(filter, Position::Before(*before), 7).unwrap();
        let listed: Vec<JobId> = page.jobs.iter().map(|job| job.id).collect();
        let rest = &all[skipped + 1..];
        assert_eq!(listed, rest[..rest.len().min(7)], "{filter:?} before {before}");
    }
    // The end of a walk that begins above all jobs.
    let last = place.queue.list(filter, Position::Before(JobId::new((1 << 53) - 1).unwrap()), 100).unwrap();
    assert_eq!(last.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), all, "{filter:?}");
}

#[test]
fn retention_deletes_in_the_order_of_the_ends_from_both_lists() {
    let place = Place::new();
    let server = place.server();
    let submitted: Vec<JobId> = (0..6).map(|_| place.submit()).collect();
    for (i, (lease, _)) in place.take(&server, 6).into_iter().enumerate() {
        place.settle(&server, &completed(lease));
        let _: i64 =
            place.redis("HSET", &format!("job:{}", submitted[i]), &["finished_at", &format!("{}000", i + 1)]);
    }
    // The second and the fourth one are jobs of version 0.6, the sixth one was deleted.
    for i in [1, 3] {
        let id = submitted[i].to_string();
        let _: i64 = place.redis("LREM", "completed", &["1", &id]);
        let _: i64 = place.redis("ZADD", "done", &[&format!("{}000", i + 1), &id]);
    }
    assert_eq!(place.queue.delete(&[submitted[5]], &[]).unwrap(), [Changed::Done]);
    let left = || submitted.iter().filter(|id| place.queue.get(**id).unwrap().is_some()).count();
    let forever = Duration::from_secs(1 << 32);
    for keep in [4, 3, 2, 1] {
        assert!(place.queue.delete_old_jobs(false, forever, keep).unwrap());
        assert!(!place.queue.delete_old_jobs(false, forever, keep).unwrap());
        assert_eq!(left(), keep as usize);
        let oldest = submitted.iter().find(|id| place.queue.get(**id).unwrap().is_some());
        assert_eq!(oldest, Some(&submitted[5 - keep as usize]));
        assert_sound(&place);
    }
    assert!(place.queue.delete_old_jobs(false, HOUR, 9).unwrap());
    assert!(!place.queue.delete_old_jobs(false, HOUR, 9).unwrap());
    assert_eq!((left(), place.list("completed").len()), (0, 0));
    assert_sound(&place);
}

#[test]
fn a_type_keeps_its_type_index_while_a_job_of_any_status_is_in_the_index() {
    for status in Status::ALL {
        let place = Place::new();
        let server = place.server();
        let id = match status {
            Status::Scheduled => place.submit_delayed(),
            _ => place.submit(),
        };
        match status {
            Status::Scheduled | Status::Queued => {}
            Status::Cancelled => drop(place.cancel(id)),
            _ => {
                let lease = place.take_one(&server);
                let settlement = match status {
                    Status::Retrying => Some(retried(lease)),
                    Status::Completed => Some(completed(lease)),
                    Status::Failed => Some(buried(lease)),
                    _ => None,
                };
                settlement.iter().for_each(|settlement| _ = place.settle(&server, settlement));
            }
        }
        assert_eq!(place.status(id), status);
        place.queue.prune_names(None).unwrap();
        assert_eq!(ids_in(&place, "types"), ["t"], "{status}");
    }
}

#[test]
fn a_queue_with_only_a_quarantined_job_keeps_its_name() {
    let place = Place::new();
    place.submit_suspect_in("mail", MAX_CRASHES - 1);
    place.queue.prune_names(None).unwrap();
    assert_eq!(place.redis::<Vec<String>>("SMEMBERS", "queues", &[]), ["mail"]);
}

#[test]
fn names_of_many_empty_queues_are_deleted_step_by_step() {
    let place = Place::new();
    place.submit();
    let names: Vec<String> = (0..1_000).map(|i| format!("queue {i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let _: i64 = place.redis("SADD", "queues", &names);
    let (mut cursor, mut steps) = (None, 0);
    loop {
        cursor = place.queue.prune_names(cursor).unwrap();
        steps += 1;
        if cursor.is_none() {
            break;
        }
    }
    assert!(steps > 1);
    assert_eq!(place.redis::<Vec<String>>("SMEMBERS", "queues", &[]), ["default"]);
    assert_eq!(ids_in(&place, "types"), ["t"]);
}
