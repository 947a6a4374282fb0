//! The claim of a server whose pull workers wait: the job goes back to the front of its own queue, and is there once.

use super::*;
use crate::fixture::in_progress;
use crate::invariants::assert_sound;

/// Passes a claimed job on while no more leases are possible, so that no job is started.
#[track_caller]
fn passes_on(place: &Place, a: &ServerId, claimed: &threadq::internals::queue::Claimed) {
    place.raw(&[&format!("RPUSH T:{PULLED}{}", " 1".repeat(10_000))]);
    let pulled = place.queue.pull(&request(9), Some((a, claimed)), MAX_CRASHES).unwrap();
    assert!(pulled.is_full && pulled.jobs.is_empty(), "{pulled:?}");
    place.raw(&[&format!("DEL T:{PULLED}")]);
    assert!(place.list(&in_progress(a)).is_empty());
}

#[test]
fn a_claim_goes_back_to_the_front_of_its_own_queue_and_the_queue_has_its_name_again() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit_with(|job| job.queue = "other".to_owned());
    let claimed = place.queue.wait_for_job(&a, "other").unwrap().unwrap();
    // The queue is empty, and its name is deleted meanwhile.
    place.queue.prune_names(None).unwrap();
    let is_named = || place.redis::<bool>("SISMEMBER", "queues", &["other"]);
    assert!(!is_named());
    let newer = place.submit_with(|job| job.queue = "other".to_owned());
    place.raw(&["SREM T:queues other"]);
    passes_on(&place, &a, &claimed);
    assert!(is_named());
    assert_eq!(place.list("work_queue:other"), [newer.to_string(), id.to_string()]);
    assert_sound(&place);
}

#[test]
fn a_claim_that_another_server_has_put_back_is_not_put_back_twice() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let claimed = place.fetch(&a);
    place.dies(&a);
    passes_on(&place, &a, &claimed);
    assert_eq!(place.handles(id), ["work_queue:default"]);
    assert_sound(&place);
}

#[test]
fn a_claim_of_a_job_that_has_ended_leaves_nothing() {
    // Where every list is long, the cancelled job has a tombstone.
    for place in [Place::new(), Place::of_long_lists()] {
        let a = place.server();
        let id = place.submit_with(|job| job.queue = "other".to_owned());
        let waits = place.submit_with(|job| job.queue = "other".to_owned());
        let claimed = place.queue.wait_for_job(&a, "other").unwrap().unwrap();
        place.cancel(id);
        passes_on(&place, &a, &claimed);
        assert_eq!(place.handles(id), ["done"]);
        assert_eq!(place.list("work_queue:other"), [waits.to_string()]);
        assert!(!place.keys().contains(&"tombstones:other".to_owned()));
        assert_sound(&place);
    }
}

#[test]
fn a_claim_without_a_job_is_noted_as_lost() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let claimed = place.fetch(&a);
    place.cancel(id);
    place.queue.delete(&[id], &[]).unwrap();
    place.raw(&["DEL T:done"]);
    passes_on(&place, &a, &claimed);
    assert_eq!(place.handles(id), ["lost"]);
}
