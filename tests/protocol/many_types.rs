//! Many types, names with special signs, and the list of completed jobs behind a job that is kept for long.

use std::time::Duration;

use threadq::internals::queue::{SCRIPT_NAMES, Selection, script_text};
use threadq::job::{JobId, NewJob, Status};

use crate::fixture::*;
use crate::invariants::assert_sound;
use crate::layout::{ids_in, of_type};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_namespace_may_have_the_names_of_constants() {
    let place = Place::new();
    for namespace in ["SERVERS", "JOB.READY-TYPES", "SET"] {
        for name in SCRIPT_NAMES {
            let text = script_text(name, namespace, |_, text| text);
            let loaded = place.try_run(redis::cmd("SCRIPT").arg("LOAD").arg(text));
            assert!(loaded.is_ok(), "{name} in the namespace {namespace}: {loaded:?}");
        }
        let queue = open_queue(place.wire.url(), namespace);
        let id = queue.submit(&[NewJob::new("t")], None, NO_LIMIT).unwrap().first;
        assert_eq!(queue.get(id).unwrap().unwrap().status, Status::Queued);
    }
}

#[test]
fn one_submission_adds_no_more_types_than_fit() {
    let place = Place::new();
    of_type(&place, "type 5");
    let jobs: Vec<NewJob> = (0..300).map(|i| NewJob::new(format!("type {}", i / 2))).collect();
    place.try_submit(&jobs).unwrap();
    assert_eq!(ids_in(&place, "types").len(), 16);
    assert_sound(&place);
}

#[test]
fn types_with_colons_and_other_signs_are_kept_apart() {
    let place = Place::new();
    let (old, new) = (place.server(), place.server());
    place.make_old(&old);
    let long = "\u{1f980}".repeat(100);
    let types = [":", "ready", "ready:", "x:y", "x", "{x}", "'\"\\", "%d*?[a]", "completed:x", &long];
    let submit = || types.iter().map(|name| of_type(&place, name)).collect::<Vec<_>>();
    submit();
    assert_sound(&place);
    place.dies(&old);
    submit();
    assert_sound(&place);
    let leases: Vec<_> = place.take(&new, 13).into_iter().map(|(lease, _)| completed(lease)).collect();
    place.queue.settle(&new, &leases).unwrap();
    assert_sound(&place);
    let audit = place.queue.audit(crate::repair::POLICY).unwrap();
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
}

#[test]
fn jobs_of_many_types_are_selected_in_the_order_of_their_ids() {
    let place = Place::new();
    let server = place.server();
    let ids: Vec<JobId> = (0..50).map(|i| of_type(&place, &format!("type {}", i * i % 7))).collect();
    let leases: Vec<_> = place.take(&server, 50).into_iter().map(|(lease, _)| buried(lease)).collect();
    place.queue.settle(&server, &leases).unwrap();
    let failed = Selection { statuses: vec![Status::Failed], ..Selection::default() };
    for most in [1, 3, 8, 49, 50, 99] {
        assert_eq!(select_all(&place, &failed, most), ids, "in steps of {most}");
    }
}

#[test]
fn entries_of_deleted_jobs_do_not_collect_behind_a_job_that_is_kept() {
    let place = Place::new();
    let server = place.server();
    let ids = place.submit_many(3);
    let of_first = place.take(&server, 3).into_iter().map(|(lease, _)| completed(lease)).collect::<Vec<_>>();
    place.queue.settle(&server, &of_first).unwrap();
    let delete_old = || while place.queue.delete_old_jobs(false, HOUR, 100).unwrap() {};
    let add_deleted = |number: u64| {
        let deleted: Vec<String> = (1..=number).map(|id| id.to_string()).collect();
        let deleted: Vec<&str> = deleted.iter().map(String::as_str).collect();
        let _: i64 = place.redis("LPUSH", "completed", &deleted);
    };
    add_deleted(1_003);
    delete_old();
    assert_eq!(place.list("completed").len(), 1_006);
    add_deleted(1);
    delete_old();
    assert!(place.list("completed").len() < 1_006);
    assert_eq!(ids_in(&place, "done"), ids.iter().map(JobId::to_string).collect::<Vec<_>>());
    assert_sound(&place);
    let forever = Duration::from_secs(1 << 32);
    assert!(place.queue.delete_old_jobs(false, forever, 1).unwrap());
    assert!(place.queue.get(ids[0]).unwrap().is_none());
    assert_eq!(place.status(ids[2]), Status::Completed);
    assert_sound(&place);
}
