//! Operations on many jobs: which jobs a selection finds, and what one call changes.

use std::collections::BTreeSet;

use threadq::internals::queue::{ChangeResult, Changed, Selection, Walk};
use threadq::job::{Change, Extras, Job, JobId, Start, Status};

use crate::fixture::*;
use crate::invariants::assert_sound;

fn tagged(tags: &[&str]) -> Option<Box<Extras>> {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    Some(Box::new(Extras { tags, ..Extras::default() }))
}

/// Jobs in every status, of some types, queues and tags, some with errors.
fn mixed(place: &Place) -> Vec<JobId> {
    let (a, b) = (place.server(), place.server());
    let tags: [&[&str]; 4] = [&["x"], &["x", "y z"], &["y z", "xx"], &[]];
    let submit = |n: usize| {
        place.submit_with(|job| {
            job.job_type = format!("type {}", n % 3);
            job.extras = tagged(tags[n % 4]);
            job.start = if n.is_multiple_of(5) { Start::AfterMs(3_600_000) } else { Start::Now };
            // Jobs of this queue stay queued.
            job.queue = if n.is_multiple_of(7) { "other".to_owned() } else { "default".to_owned() };
        })
    };
    let ids: Vec<JobId> = (0..84).map(submit).collect();
    for (n, (lease, job)) in place.take(&a, 45).into_iter().enumerate() {
        match n % 5 {
            0 => drop(place.settle(&a, &completed(lease))),
            1 => drop(place.settle(&a, &retried(lease))),
            2 => drop(place.settle(&a, &buried(lease))),
            3 => drop(place.cancel(job.id)),
            _ => {}
        }
    }
    place.take(&b, 3);
    let rest = ids.iter().copied().filter(|id| place.status(*id) == Status::Queued).step_by(3);
    rest.for_each(|id| drop(place.cancel(id)));
    ids
}

fn matches(selection: &Selection, job: &Job) -> bool {
    (selection.statuses.is_empty() || selection.statuses.contains(&job.status))
        && selection.job_type.as_ref().is_none_or(|wanted| *wanted == job.job_type)
        && selection.tag.as_ref().is_none_or(|tag| job.tags.contains(tag))
        && selection.queue.as_ref().is_none_or(|queue| *queue == job.queue)
        && selection.created_after.is_none_or(|from| job.id.get() >= from)
        && selection.created_before.is_none_or(|end| job.id.get() < end)
        && selection.ids.as_ref().is_none_or(|ids| ids.contains(&job.id))
        && selection
            .error
            .as_ref()
            .is_none_or(|part| job.last_error().is_some_and(|error| error.contains(part)))
}

#[test]
fn a_selection_finds_exactly_the_jobs_that_match() {
    let place = Place::new();
    let ids = mixed(&place);
    assert_sound(&place);
    let jobs: Vec<Job> = ids.iter().map(|id| place.job(*id)).collect();
    let seen: BTreeSet<&str> = jobs.iter().map(|job| job.status.as_str()).collect();
    assert_eq!(seen.len(), Status::ALL.len(), "{seen:?}");
    let mut random = fastrand::Rng::with_seed(7);
    let choose = |random: &mut fastrand::Rng, texts: &[&str]| {
        random.choice(texts).filter(|text| !text.is_empty()).map(|text| (*text).to_owned())
    };
    let mut found = 0;
    for _ in 0..400 {
        let any = random.bool();
        let selection = Selection {
            statuses: Status::ALL.into_iter().filter(|_| !any && random.u8(..3) == 0).collect(),
            job_type: choose(&mut random, &["", "", "type 0", "type 2", "type"]),
            tag: choose(&mut random, &["", "", "x", "y z", "xx", "z"]),
            queue: choose(&mut random, &["", "", "", "other", "default", "othe"]),
            created_after: (random.u8(..3) == 0)
                .then(|| random.choice(&ids).unwrap().get() + random.u64(..2)),
            created_before: (random.u8(..3) == 0)
                .then(|| random.choice(&ids).unwrap().get() + random.u64(..2)),
            ids: (random.u8(..4) == 0).then(|| {
                let mut ids: Vec<JobId> = ids.iter().copied().filter(|_| random.bool()).collect();
                ids.push(JobId::new((1 << 53) - 1).unwrap());
                ids
            }),
            error: choose(&mut random, &["", "", "", "no", "neve", "never", "o\n", "x"]),
        };
        let expected: Vec<JobId> =
            jobs.iter().filter(|job| matches(&selection, job)).map(|job| job.id).collect();
        let most = random.usize(1..100);
        assert_eq!(select_all(&place, &selection, most), expected, "{selection:?}, {most} at a time");
        found += expected.len();
    }
    assert!(found > 400, "{found}");
}

#[test]
fn a_walk_leaves_jobs_alone_that_come_after_its_first_step() {
    let place = Place::new();
    let old = place.submit_many(3);
    let all = Selection::default();
    let (first, walk) = place.queue.select(&all, Walk::default(), 2).unwrap();
    place.submit_many(3);
    let walk = walk.unwrap();
    assert_eq!((&*first, walk.newest, walk.last), (&old[..2], Some(old[2]), Some(old[1])));
    assert_eq!(place.queue.select(&all, walk, 2).unwrap(), (vec![old[2]], None));
    // A walk that begins later sees all of them.
    assert_eq!(select_all(&place, &all, 2).len(), 6);
    // No job at all.
    assert_eq!(Place::new().queue.select(&all, Walk::default(), 2).unwrap(), (Vec::new(), None));
}

#[test]
fn an_error_is_found_by_a_part_of_its_last_message_and_many_long_errors_are_read_in_steps() {
    let place = Place::new();
    let a = place.server();
    place.submit_many(150);
    for (n, (lease, job)) in place.take(&a, 150).into_iter().enumerate() {
        place.settle(&a, &buried(lease));
        let last = if n % 2 == 0 { "say \\\"no\\\"\\nü" } else { "yes" };
        let line = |n, text: &str| format!("{n} 1764000000000 {n} \"{text}\"");
        let errors = [line(1, &"\\u0001".repeat(5_000)), line(2, "say no"), line(3, last)].join("\n");
        let _: i64 = place.redis("HSET", &format!("job:{}", job.id), &["errors", &errors]);
    }
    for (part, number) in
        [("say \"no\"\nü", 75), ("no", 75), ("\nü", 75), ("say no", 0), ("\\n", 0), ("e", 75)]
    {
        let selection = Selection { error: Some(part.to_owned()), ..Selection::default() };
        assert_eq!(select_all(&place, &selection, 500).len(), number, "{part:?}");
        let (_, next) = place.queue.select(&selection, Walk::default(), 500).unwrap();
        assert!(next.is_some(), "one step has read 4.5 MB of errors");
    }
    // A field that threadq has not written.
    place.raw(&["DEL T:type_index:failed:t"]);
    let id = place.submit_many(1)[0];
    for errors in ["nonsense", "1 1 1 nonsense", "1 1 1 {}", "1 1 1 7", "1 1 1c \"crash\""] {
        let _: i64 = place.redis("HSET", &format!("job:{id}"), &["errors", errors]);
        for (part, is_found) in [("nonsense", false), ("crash", errors.contains("crash"))] {
            let selection = Selection { error: Some(part.to_owned()), ..Selection::default() };
            assert_eq!(select_all(&place, &selection, 9).len(), usize::from(is_found), "{errors}");
        }
    }
}

#[test]
fn a_key_that_is_no_job_is_not_selected() {
    let place = Place::new();
    let (bad, good) = (place.submit(), place.submit());
    place.raw(&[&format!("DEL T:job:{bad}"), &format!("SET T:job:{bad} junk")]);
    assert_eq!(select_all(&place, &Selection::default(), 9), [good]);
    let by_id = Selection { ids: Some(vec![bad, good]), ..Selection::default() };
    assert_eq!(select_all(&place, &by_id, 9), [good]);
}

#[test]
fn many_jobs_are_cancelled_in_one_call_each_by_itself() {
    for place in [Place::new(), Place::of_long_lists()] {
        let ids = mixed(&place);
        let before: Vec<Status> = ids.iter().map(|id| place.status(*id)).collect();
        let missing = JobId::new(7).unwrap();
        let all: Vec<JobId> = ids.iter().copied().chain([missing]).collect();
        let changed = place.queue.cancel(&all, &[Status::Queued, Status::Retrying]).unwrap();
        for ((id, before), changed) in ids.iter().zip(&before).zip(&changed) {
            let is_wanted = matches!(before, Status::Queued | Status::Retrying);
            assert_eq!(*changed, if is_wanted { Changed::Done } else { Changed::WrongStatus }, "{before}");
            assert_eq!(place.status(*id), if is_wanted { Status::Cancelled } else { *before });
        }
        assert_eq!(changed[ids.len()], Changed::Missing);
        for ((id, before), changed) in ids.iter().zip(&before).zip(place.queue.cancel(&ids, &[]).unwrap()) {
            let expected = match before {
                Status::Processing => Changed::Requested(place.job(*id).server.unwrap()),
                Status::Scheduled => Changed::Done,
                _ => Changed::WrongStatus,
            };
            assert_eq!(changed, expected, "{before}");
        }
        assert_sound(&place);
        assert!(place.queue.cancel(&[], &[]).unwrap().is_empty());
    }
}

#[test]
fn only_jobs_of_the_wanted_statuses_are_sent_back_deleted_and_changed() {
    let place = Place::new();
    let ids = mixed(&place);
    let ended = [Status::Failed, Status::Completed];
    let of = |statuses: &[Status]| -> Vec<JobId> {
        let job = |id: &JobId| place.queue.get(*id).unwrap();
        ids.iter().copied().filter(|id| job(id).is_some_and(|job| statuses.contains(&job.status))).collect()
    };
    let (failed, queued): (Vec<JobId>, Vec<JobId>) = (of(&[Status::Failed]), of(&[Status::Queued]));
    let count = |changed: Vec<Changed>| changed.iter().filter(|changed| **changed == Changed::Done).count();
    assert_eq!(count(place.queue.retry(&ids, &ended).unwrap()), failed.len());
    assert!(failed.iter().all(|id| place.status(*id) == Status::Queued));
    let completed: Vec<JobId> = of(&[Status::Completed]);
    assert_eq!(count(place.queue.delete(&ids, &ended).unwrap()), completed.len());
    let move_to = Change { queue: Some("third".to_owned()), ..Change::default() };
    let scheduled: Vec<JobId> = of(&[Status::Scheduled]);
    let changed = place.queue.change_waiting(&ids, &[Status::Queued], &move_to).unwrap();
    let changed = changed.iter().filter(|changed| matches!(changed, ChangeResult::Changed { .. })).count();
    assert_eq!(changed, queued.len() + failed.len());
    assert_eq!(place.list("work_queue:third").len(), changed);
    assert!(scheduled.iter().all(|id| place.job(*id).queue != "third"));
    assert_sound(&place);
}
