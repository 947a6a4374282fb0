//! The doctor's findings, case by case: it leaves sound data alone, repairs damaged data, and leaves data that has
//! changed since it was found.

use std::collections::BTreeMap;
use std::time::Duration;

use threadq::internals::queue::{FindingKind, Findings, Lease, Quarantine, RepairPolicy, ServerId, Share};
use threadq::job::{AttemptId, Expiry, Extras, Hold, Job, JobId, NewJob, Start, Status, UniqueMode};

use crate::fixture::*;
use crate::invariants::assert_sound;
use crate::limits::{limit, slots};

/// A lease so long that no server counts as silent.
pub const POLICY: RepairPolicy =
    RepairPolicy { lease_timeout: Duration::from_secs(600), max_crashes: MAX_CRASHES };
/// More entries than a script reads at each end of a long list.
const LONG: usize = 2_100;
/// The tombstone: replaces an entry that was removed from the middle of a long list.
const GAP: &str = "0";

impl Place {
    /// A server whose last heartbeat is 20 s old: the doctor does not wait until the server repairs its jobs itself.
    fn resting_server(&self) -> ServerId {
        let server = self.server();
        self.rests(&server);
        server
    }

    fn rests(&self, server: &ServerId) {
        let beat: u64 = self.redis("HGET", &format!("server:{server}"), &["beat_at"]);
        self.raw(&[&format!("HSET T:server:{server} beat_at {}", beat - 20_000)]);
    }

    #[track_caller]
    fn found(&self) -> BTreeMap<FindingKind, Vec<String>> {
        let groups = self.queue.audit(POLICY).unwrap().findings;
        groups.into_iter().map(|(kind, group)| (kind, group.examples)).collect()
    }

    #[track_caller]
    fn assert_finds(&self, kind: FindingKind, examples: &[&str]) {
        let mut found = self.found().into_iter().collect::<Vec<_>>();
        found.iter_mut().for_each(|(_, examples)| examples.sort());
        let mut examples: Vec<String> = examples.iter().map(|example| (*example).to_owned()).collect();
        examples.sort();
        assert_eq!(found, [(kind, examples)]);
    }

    /// Repairs everything. Asserts that the doctor finds nothing afterwards.
    #[track_caller]
    fn repair(&self) -> BTreeMap<FindingKind, Findings> {
        let (done, left) = self.queue.repair(POLICY).unwrap();
        assert_eq!(left.findings, BTreeMap::new());
        done
    }

    /// Asserts that the doctor repairs exactly one finding of this kind, in this way, and that the data is sound
    /// afterwards.
    #[track_caller]
    fn assert_mends(&self, kind: FindingKind, how: &str) {
        let done: Vec<_> =
            self.repair().into_iter().map(|(kind, group)| (kind, group.repaired, group.done)).collect();
        assert_eq!(done, [(kind, 1, vec![how.to_owned()])]);
        assert_sound(self);
    }

    /// Makes a dead letter.
    fn dead_letter(&self, server: &ServerId) -> JobId {
        let id = self.submit();
        self.settle(server, &buried(self.take_one(server)));
        id
    }

    /// Submits jobs into the middle of a long list, far from both ends: the doctor reads only parts of the list. The
    /// other entries are tombstones of earlier repairs.
    fn in_the_middle_of_a_long_list(&self) -> Vec<JobId> {
        let gaps = format!("PUSH T:work_queue:default{}", format!(" {GAP}").repeat(LONG));
        let ids = self.submit_many(40);
        self.raw(&[&format!("L{gaps}"), &format!("R{gaps}")]);
        ids
    }
}

#[test]
fn nothing_is_wrong_where_all_is_well() {
    let place = Place::new();
    let a = place.resting_server();
    let unique = |key: &'static str| move |job: &mut NewJob| job.unique_key = Some(key.to_owned());
    // One job in each status, with its keys.
    let deleted = place.submit();
    place.settle(&a, &completed(place.take_one(&a)));
    place.queue.delete(&[deleted], &[]).unwrap();
    let completed_one = place.submit_with(unique("ended"));
    place.settle(&a, &completed(place.take_one(&a)));
    place.dead_letter(&a);
    place.submit();
    place.settle(&a, &retried(place.take_one(&a)));
    let running = place.submit_with(unique("running"));
    let _lease = place.take_one(&a);
    let asked = place.submit();
    let _asked = place.take_one(&a);
    place.cancel(asked);
    let cancelled = place.submit();
    place.cancel(cancelled);
    // Jobs with everything that can hang on a job: one that waits, one that runs and was to expire meanwhile, one that has
    // ended, and keys that are free before the end.
    place.submit_with(tie(Hold::UntilEnd, "waits"));
    place.submit_with(tie(Hold::UntilStart, "started"));
    let _tied = place.take(&a, 9);
    place.submit_with(tie(Hold::UntilStart, "started"));
    place.raw(&["ZREMRANGEBYRANK T:agenda 0 0"]);
    let ended = place.submit_with(tie(Hold::For(Duration::from_secs(3600)), "for a time"));
    place.cancel(ended);
    place.submit_with(tie(Hold::UntilEnd, "at last"));
    place.submit_delayed();
    place.submit();
    place.fetch(&a);
    place.submit_suspect();
    place.submit_crashed(1);
    place.submit_with(|job| job.queue = "mail".to_owned());
    place.submit_suspect_in("mail", MAX_CRASHES - 1);
    place.submit_with(unique("ended"));
    // Jobs that run under a limit, wait for one, keep a slot meanwhile, and were sent on.
    for name in ["smtp", "tenant", "full"] {
        place.define(name, slots(1));
    }
    let limits: [&[&str]; 5] = [&["smtp"], &["tenant:1", "smtp"], &["tenant:1"], &["full"], &["full"]];
    for limits in limits {
        place.submit_limited_to("limited", limits);
    }
    let of_full = |(_, job): &(Lease, Job)| job.limits == [limit("full")];
    let (lease, _) = place.take_from(&a, &["limited"], 9).into_iter().find(of_full).expect("it has started");
    place.settle(&a, &completed(lease));
    let held = ["smtp", "tenant:1"].map(|name| place.held_in("limited", name).len());
    assert_eq!((held, place.kept("full").len()), ([1, 1], 1));
    // Jobs in the indexes of all types.
    place.make_old(&a);
    place.submit_with(|job| job.job_type = "old".to_owned());
    place.submit_with(|job| (job.job_type, job.start) = ("old".to_owned(), Start::AfterMs(3_600_000)));
    assert_sound(&place);
    assert_eq!(place.found(), BTreeMap::new());
    assert_eq!((place.repair(), place.status(running)), (BTreeMap::new(), Status::Processing));
    assert_eq!(place.status(completed_one), Status::Completed);
}

#[test]
fn a_stranded_job_goes_back_where_it_belongs() {
    let place = Place::new();
    let a = place.resting_server();
    // A queued job goes back to its queue.
    let queued = place.submit();
    place.raw(&[&format!("LREM T:work_queue:default 1 {queued}")]);
    place.assert_mends(FindingKind::Stranded, "is at the front of its queue");
    // So does a job on its final attempt: the take that finds it puts it aside.
    let suspect = place.submit_suspect();
    place.raw(&["DEL T:work_queue:default:suspects"]);
    place.assert_mends(FindingKind::Stranded, "is at the front of its queue");
    assert_eq!(place.handles(suspect), ["work_queue:default"]);
    place.cancel(suspect);
    // A parked job goes back to the scheduled set.
    let parked = place.submit_delayed();
    place.raw(&[&format!("ZREM T:scheduled {parked}")]);
    place.assert_mends(FindingKind::Stranded, "waits for its time again");
    place.submit();
    let lease = place.take_one(&a);
    let retrying = lease.id();
    place.settle(&a, &retried(lease));
    place.raw(&[&format!("ZREM T:scheduled {retrying}")]);
    place.assert_mends(FindingKind::Stranded, "waits for its time again");
    place.cancel(retrying);
    // A running job goes back to the list of its server, which may run it.
    let lease = place.take_one(&a);
    place.raw(&[&format!("DEL T:{}", in_progress(&a))]);
    place.assert_mends(FindingKind::Stranded, "is in the list of its server again");
    place.settle(&a, &completed(lease));
    // A running job without a live server goes to its queue.
    let id = place.submit();
    let _lease = place.take_one(&a);
    place.raw(&[&format!("DEL T:{}", in_progress(&a)), &format!("HDEL T:job:{id} server")]);
    place.assert_mends(FindingKind::Stranded, "is at the front of its queue");
}

#[test]
fn indexes_sorted_sets_and_unique_keys_are_completed() {
    let place = Place::new();
    let a = place.resting_server();
    for (kind, damage) in [("x", "ZREM T:type_index:ready:x {}"), ("y", "ZREM T:types y")] {
        let id = place.submit_with(|job| {
            job.unique_key = Some("u".to_owned());
            job.job_type = kind.to_owned();
        });
        place.raw(&[&damage.replace("{}", &id.to_string())]);
        place.assert_mends(FindingKind::IndexMissing, "is listed again");
        place.raw(&["DEL T:unique:u"]);
        place.assert_mends(FindingKind::UniqueMissing, "holds its key again");
        place.cancel(id);
        place.raw(&[&format!("ZREM T:done {id}")]);
        place.assert_mends(FindingKind::Unlisted, "is in the retention set again");
    }
    let ended = place.submit();
    place.settle(&a, &completed(place.take_one(&a)));
    place.raw(&["DEL T:completed"]);
    place.raw(&[&format!("HSET T:job:{ended} finished_at 5000")]);
    let done: Vec<_> = place.repair().into_iter().map(|(kind, group)| (kind, group.done)).collect();
    assert_eq!(done, [(FindingKind::Unlisted, vec!["is in the retention set again".to_owned()])]);
    assert_eq!(place.handles(ended), ["done"]);
    assert_eq!(place.redis::<u64>("ZSCORE", "done", &[&ended.to_string()]), 5000);
    let failed = place.dead_letter(&a);
    place.raw(&[&format!("ZREM T:dlq_queue {failed}")]);
    place.assert_mends(FindingKind::Unlisted, "is in the retention set again");
    assert_eq!(place.handles(failed), ["dlq_queue"]);
    // Without the time of its end, a job is put back with the time of the repair.
    place.raw(&[&format!("ZREM T:dlq_queue {failed}"), &format!("HDEL T:job:{failed} finished_at")]);
    assert_eq!(place.repair().into_keys().collect::<Vec<_>>(), [FindingKind::Unlisted]);
    assert!(place.redis::<u64>("ZSCORE", "dlq_queue", &[&failed.to_string()]) > failed.created_at_ms());
    // An entry in the list of completed jobs is none for another job.
    let cancelled = place.submit();
    place.cancel(cancelled);
    place.raw(&[&format!("ZREM T:done {cancelled}"), &format!("LPUSH T:completed {cancelled}")]);
    let found: Vec<_> = place.found().into_keys().collect();
    assert_eq!(found, [FindingKind::Misplaced, FindingKind::Unlisted]);
}

/// A job with tags, an expiry and a retention of its own, which holds this unique key.
fn tie(hold: Hold, key: &'static str) -> impl FnOnce(&mut NewJob) {
    move |job| {
        job.unique_key = Some(key.to_owned());
        job.extras = Some(Box::new(Extras {
            tags: vec!["a".to_owned(), "b:c".to_owned()],
            expiry: Some(Expiry::AfterMs(3_600_000)),
            retain: Some(Duration::from_secs(7200)),
            unique: UniqueMode { hold, ..UniqueMode::default() },
            ..Extras::default()
        }));
    }
}

#[test]
fn what_hangs_on_a_job_is_completed() {
    let place = Place::new();
    let a = place.resting_server();
    let id = place.submit_with(tie(Hold::UntilEnd, "u"));
    // A tag in the index.
    place.raw(&[&format!("ZREM T:tag_index:ready:b:c {id}")]);
    place.assert_finds(FindingKind::IndexMissing, &[&id.to_string()]);
    place.assert_mends(FindingKind::IndexMissing, "is listed again");
    // The tags and the type.
    place.raw(&["DEL T:tag_index:ready:a T:tag_index:ready:b:c T:type_index:ready:t"]);
    place.assert_mends(FindingKind::IndexMissing, "is listed again");
    // The word for its expiry is missing, or is due too late.
    for damage in [format!("ZREM T:agenda expire:{id}"), format!("ZINCRBY T:agenda 1 expire:{id}")] {
        place.raw(&[&damage]);
        place.assert_finds(FindingKind::AgendaMissing, &[&id.to_string()]);
        place.assert_mends(FindingKind::AgendaMissing, "is in the agenda again");
    }
    let lease = place.take_one(&a);
    place.raw(&[&format!("ZREM T:agenda expire:{id}")]);
    assert_eq!(place.found(), BTreeMap::new(), "a running job needs no word");
    place.settle(&a, &completed(lease));
    // The word for the end of its retention.
    place.raw(&[&format!("ZREM T:agenda forget:{id}")]);
    place.assert_finds(FindingKind::AgendaMissing, &[&id.to_string()]);
    place.assert_mends(FindingKind::AgendaMissing, "is in the agenda again");
    let finished_at: u64 = place.redis("HGET", &format!("job:{id}"), &["finished_at"]);
    let due: u64 = place.redis("ZSCORE", "agenda", &[&format!("forget:{id}")]);
    assert_eq!(due, finished_at + 7_200_000);
}

#[test]
fn entries_of_tags_and_of_the_agenda_without_a_use_are_taken_out() {
    let place = Place::new();
    let a = place.resting_server();
    let plain = place.submit();
    let tied = place.submit_with(tie(Hold::UntilEnd, "u"));
    for (set, entry) in [
        ("tag_index:ready:x", tied),
        ("tag_index:ready:a", plain),
        ("tag_index:failed:a", tied),
        ("tag_index:ready:a", JobId::new(77).unwrap()),
    ] {
        place.raw(&[&format!("ZADD T:{set} {entry} {entry}")]);
        place.assert_finds(FindingKind::IndexStale, &[&format!("{entry} in {set}")]);
        place.assert_mends(FindingKind::IndexStale, "taken out");
    }
    // The score of an entry is its id.
    place.raw(&[&format!("ZADD T:tag_index:ready:a 5 {tied}")]);
    let found: Vec<_> = place.repair().into_keys().collect();
    assert_eq!(found, [FindingKind::IndexStale, FindingKind::IndexMissing]);
    assert_sound(&place);
    for word in [
        format!("expire:{plain}"),
        format!("forget:{tied}"),
        "expire:77".to_owned(),
        "forget:77".to_owned(),
        "tick:nightly".to_owned(),
    ] {
        place.raw(&[&format!("ZADD T:agenda 1 {word}")]);
        place.assert_finds(FindingKind::AgendaStale, &[&format!("{word} in agenda")]);
        place.assert_mends(FindingKind::AgendaStale, "taken out");
    }
    // A schedule with a next tick needs its word.
    place.raw(&["HSET T:schedule:daily spec x next 5", "ZADD T:schedules 0 daily"]);
    place.assert_finds(FindingKind::TickMissing, &["daily in schedules"]);
    place.assert_mends(FindingKind::TickMissing, "has its next tick again");
    place.raw(&["ZREM T:schedules daily", "DEL T:schedule:daily", "ZREM T:agenda tick:daily"]);
    // A word of a schedule is no fault, and a word of a later version is left alone.
    place.raw(&["HSET T:schedule:nightly spec x", "ZADD T:agenda 1 tick:nightly 1 later:7"]);
    assert_eq!(place.found(), BTreeMap::new());
    place.raw(&["ZREM T:agenda later:7"]);
    // A job that has ended needs no word for its expiry, and a job that failed none for its tags as a ready job.
    place.take_one(&a).id();
    let lease = place.take_one(&a);
    assert_eq!(lease.id(), tied);
    place.settle(&a, &buried(lease));
    place.raw(&[&format!("ZADD T:agenda 1 expire:{tied}")]);
    place.assert_mends(FindingKind::AgendaStale, "taken out");
}

/// A place where one job runs under the limit `smtp`, two wait for it, and one keeps a slot of `tenant:1` meanwhile.
fn with_limits() -> (Place, ServerId, Lease, Vec<JobId>) {
    let place = Place::with_moving_clock();
    let a = place.resting_server();
    place.define("smtp", slots(1));
    place.define("tenant", slots(2));
    let mut all = place.submit_limited_many(2, &["smtp"]);
    all.push(place.submit_limited(&["tenant:1", "smtp"]));
    let lease = place.take(&a, 9).remove(0).0;
    assert_eq!((place.held("smtp"), place.holders("tenant:1")), (all[1..].to_vec(), all[2..].to_vec()));
    assert_sound(&place);
    assert_eq!(place.found(), BTreeMap::new());
    (place, a, lease, all)
}

/// Asserts that the doctor finds this kind of fault, mends what is wrong, and leaves the data sound. Returns what was
/// done about this kind: nothing, if another repair has removed the fault too.
#[track_caller]
fn mends_among_others(place: &Place, kind: FindingKind) -> Vec<String> {
    assert!(place.found().contains_key(&kind), "{:?}", place.found());
    let mut done = place.repair();
    assert_sound(place);
    done.remove(&kind).map_or(Vec::new(), |group| group.done)
}

#[test]
fn a_slot_that_no_job_needs_is_freed_and_the_next_job_goes_on() {
    let (place, _, lease, all) = with_limits();
    let running = lease.id();
    // A job that is gone, a job that has ended, a job of another limit, and a place of a job that was never sent on.
    let ended = place.submit_limited(&["tenant:1"]);
    place.cancel(ended);
    for (id, score) in
        [(7, "inf"), (ended.get(), "inf"), (running.get(), "inf"), (ended.get(), "9000000000000")]
    {
        place.raw(&[&format!("ZADD T:slots:tenant:1 {score} {id}")]);
        place.assert_finds(FindingKind::SlotStale, &[&format!("{id} in slots:tenant:1")]);
        place.assert_mends(FindingKind::SlotStale, "is free");
    }
    // A job that waits for an earlier limit has no slot of a later one, nor a slot of the limit for which it waits.
    place.raw(&[&format!("ZADD T:slots:smtp inf {}", all[1])]);
    place.assert_mends(FindingKind::SlotStale, "is free");
    // The running job was forgotten: the slot is stuck, and nobody else would start.
    place.raw(&[&format!("DEL T:job:{running}")]);
    let freed = mends_among_others(&place, FindingKind::SlotStale);
    assert_eq!(freed, ["is free"]);
    assert_eq!(place.kept("smtp"), all[1..2]);
    assert_eq!(place.list("work_queue:default"), [all[1].to_string()]);
}

#[test]
fn a_job_that_waits_for_room_and_is_not_among_the_waiting_ones_goes_back_to_its_queue() {
    let (place, _, _lease, all) = with_limits();
    place.raw(&[&format!("ZREM T:held:default:smtp {}", all[2])]);
    let done = mends_among_others(&place, FindingKind::Stranded);
    assert_eq!(done, ["is at the front of its queue"]);
    assert_eq!(place.holders("tenant:1"), []);
    let b = place.server();
    assert!(place.take(&b, 9).is_empty());
    assert_eq!(place.held("smtp"), all[1..]);
    assert_sound(&place);
    // All of them.
    place.raw(&["DEL T:held:default:smtp"]);
    mends_among_others(&place, FindingKind::Stranded);
    assert_eq!(place.list("work_queue:default"), [all[2].to_string(), all[1].to_string()]);
    assert!(place.take(&b, 9).is_empty());
    assert_eq!(place.held("smtp"), all[1..]);
    assert_sound(&place);
}

#[test]
fn entries_among_the_waiting_ones_without_a_use_are_taken_out() {
    let (place, _, lease, all) = with_limits();
    let elsewhere = place.submit_limited_to("elsewhere", &["smtp"]);
    for (key, id, kind, how) in [
        ("held:default:smtp", 7, FindingKind::Dangling, "taken out, noted in lost"),
        ("held:default:smtp", lease.id().get(), FindingKind::Misplaced, "taken out"),
        ("held:default:smtp", elsewhere.get(), FindingKind::Misplaced, "taken out"),
    ] {
        place.raw(&[&format!("ZADD T:{key} 5 {id}")]);
        assert_eq!(mends_among_others(&place, kind), [how]);
        assert_eq!(place.held("smtp"), all[1..]);
    }
    for key in ["held:elsewhere:smtp", "held:default:tenant:1", "held:default:tenant:2"] {
        place.raw(&[&format!("ZADD T:{key} 5 {}", all[1])]);
        mends_among_others(&place, FindingKind::Misplaced);
        assert_eq!(place.held("smtp"), all[1..]);
        assert!(!place.keys().contains(&key.to_owned()));
    }
    // A job that waits for room has no entry in a list.
    place.raw(&[&format!("LPUSH T:work_queue:default {}", all[1])]);
    assert_eq!(mends_among_others(&place, FindingKind::Misplaced), ["taken out"]);
    assert_eq!(place.held("smtp"), all[1..]);
}

#[test]
fn wrong_figures_of_limits_are_counted_again() {
    let (place, a, lease, all) = with_limits();
    for damage in [
        "HINCRBY T:held_count default 1",
        "HINCRBY T:held_count default -2",
        "DEL T:held_count",
        "HSET T:held_count elsewhere 3",
    ] {
        place.raw(&[damage]);
        place.assert_finds(FindingKind::LimitMiscounted, &["held_count"]);
        place.assert_mends(FindingKind::LimitMiscounted, "is counted again");
    }
    for damage in [
        "ZADD T:holds:smtp 1 default",
        "ZADD T:holds:smtp 0 elsewhere",
        "ZREM T:waiting_limits smtp",
        "ZADD T:waiting_limits 0 tenant:7",
        "DEL T:holds:smtp",
        "ZADD T:holds:tenant:1 0 default",
    ] {
        place.raw(&[damage]);
        let done = mends_among_others(&place, FindingKind::LimitMiscounted);
        assert!(done.iter().all(|done| done == "is counted again"), "{damage}: {done:?}");
    }
    // A job that was sent on.
    place.ends(&a, &completed(lease));
    assert_eq!(place.kept("smtp"), all[1..2]);
    for damage in ["ZADD T:holds:smtp 0 default", "ZADD T:holds:smtp 2 default"] {
        place.raw(&[damage]);
        place.assert_finds(FindingKind::LimitMiscounted, &["holds:smtp"]);
        place.assert_mends(FindingKind::LimitMiscounted, "is counted again");
        assert_eq!(place.kept("smtp"), all[1..2]);
    }
}

#[test]
fn a_limit_that_nobody_would_look_at_again_is_looked_at() {
    let (place, _, _lease, _) = with_limits();
    place.raw(&["ZREM T:agenda limit:smtp"]);
    place.assert_finds(FindingKind::AgendaMissing, &["smtp in waiting_limits"]);
    place.assert_mends(FindingKind::AgendaMissing, "is looked at again");
    place.raw(&["ZADD T:agenda 1 limit:nothing"]);
    place.assert_finds(FindingKind::AgendaStale, &["limit:nothing in agenda"]);
    place.assert_mends(FindingKind::AgendaStale, "taken out");
}

/// Pull workers have two jobs; their attempts.
fn with_pulled_jobs() -> (Place, Vec<JobId>) {
    let place = Place::new();
    place.resting_server();
    let all = place.submit_many(2);
    assert_eq!(place.pulled(), all);
    (place, all)
}

#[test]
fn jobs_of_pull_workers_and_their_logs_are_left_alone() {
    let (place, all) = with_pulled_jobs();
    place.cancel(all[1]);
    for id in &all {
        let attempt = AttemptId { job: *id, start: 1 };
        place.reports(attempt, crate::pull::lines(&["a line"]));
    }
    assert_eq!(place.found(), BTreeMap::new());
    // The word of an attempt whose timeout is over is put off.
    let now: (u64, u64) = place.run(&redis::cmd("TIME"));
    let due = now.0 * 1_000 + 1_500;
    place.raw(&[
        &format!("HSET T:job:{} started_at 1000 lease_until 301000", all[0]),
        &format!("ZADD T:agenda {due} lease:{}", all[0]),
    ]);
    assert_eq!(place.found(), BTreeMap::new());
    // Nobody takes the place of a dead server where the registry has lost the pseudo-server.
    place.raw(&["HDEL T:servers pull"]);
    assert_eq!(place.found(), BTreeMap::new());
    place.repair();
    assert_eq!((place.status(all[1]), place.job(all[1]).crashes), (Status::Processing, 0));
}

#[test]
fn a_lease_that_nobody_would_end_is_in_the_agenda_again() {
    let (place, all) = with_pulled_jobs();
    let id = all[0].to_string();
    let until: String = place.redis("HGET", &format!("job:{id}"), &["lease_until"]);
    for damage in [format!("ZREM T:agenda lease:{id}"), format!("ZADD T:agenda 9000000000000 lease:{id}")] {
        place.raw(&[&damage]);
        place.assert_finds(FindingKind::AgendaMissing, &[&id]);
        place.assert_mends(FindingKind::AgendaMissing, "is in the agenda again");
        assert_eq!(place.lease_word(all[0]).map(|due| due.to_string()).as_ref(), Some(&until));
    }
    // A lease without a time ends soon.
    place.raw(&[&format!("HDEL T:job:{id} lease_until"), &format!("ZREM T:agenda lease:{id}")]);
    place.assert_finds(FindingKind::AgendaMissing, &[&id]);
    place.repair();
    let now: (u64, u64) = place.run(&redis::cmd("TIME"));
    assert!(place.lease_word(all[0]).is_some_and(|due| due <= now.0 * 1_000 + 3_000));
}

#[test]
fn words_of_leases_that_no_job_has_are_taken_out() {
    let (place, all) = with_pulled_jobs();
    let a = place.server();
    let [waits, runs, ended] = [place.submit(), place.submit(), place.submit()];
    place.raw(&[
        &format!("LREM T:work_queue:default 1 {waits}"),
        &format!("LPUSH T:work_queue:default {waits}"),
    ]);
    let mut taken = place.take(&a, 2);
    place.settle(&a, &completed(taken.pop().unwrap().0));
    place.rests(&a);
    for id in [7, waits.get(), runs.get(), ended.get()] {
        place.raw(&[&format!("ZADD T:agenda 5 lease:{id}")]);
        place.assert_finds(FindingKind::AgendaStale, &[&format!("lease:{id} in agenda")]);
        place.assert_mends(FindingKind::AgendaStale, "taken out");
    }
    assert!(all.iter().all(|id| place.lease_word(*id).is_some()));
}

#[test]
fn wrong_entries_among_the_jobs_of_pull_workers_are_taken_out() {
    let (place, all) = with_pulled_jobs();
    let a = place.server();
    let [runs, waits] = [place.submit(), place.submit()];
    let _lease = place.take_one(&a);
    place.rests(&a);
    for (id, kind, how) in [
        (7, FindingKind::Dangling, "taken out, noted in lost"),
        (runs.get(), FindingKind::Doubled, "1 taken out"),
        (waits.get(), FindingKind::Doubled, "1 taken out"),
        (all[0].get(), FindingKind::Doubled, "1 taken out"),
    ] {
        place.raw(&[&format!("LPUSH T:in_progress_queue:pull {id}")]);
        let done = place.repair();
        let kinds: Vec<_> = done.keys().copied().collect();
        assert!(kinds.contains(&kind) || kinds.contains(&FindingKind::Misplaced), "{id}: {done:?}");
        assert!(done.values().all(|group| group.repaired == group.found), "{id}: {done:?}");
        println!("{id}: {done:?}, expected {kind}: {how}");
        assert_sound(&place);
        assert_eq!(place.list("in_progress_queue:pull").len(), 2);
    }
}

#[test]
fn a_queued_job_that_only_the_list_of_pull_workers_has_goes_back_to_its_queue() {
    let (place, _) = with_pulled_jobs();
    let id = place.submit();
    place.raw(&["DEL T:work_queue:default", &format!("LPUSH T:in_progress_queue:pull {id}")]);
    let done = place.repair();
    assert!(done.contains_key(&FindingKind::Misplaced), "{done:?}");
    assert_eq!(place.handles(id), ["work_queue:default"]);
    assert_sound(&place);
}

#[test]
fn a_pulled_job_without_an_entry_gets_it_back_and_ends_with_its_lease() {
    let (place, all) = with_pulled_jobs();
    place.raw(&[&format!("LREM T:in_progress_queue:pull 1 {}", all[0])]);
    place.assert_finds(FindingKind::Stranded, &[&all[0].to_string()]);
    place.assert_mends(FindingKind::Stranded, "is in the list of its server again");
    assert_eq!(
        place.is_answered(AttemptId { job: all[0], start: 1 }, crate::pull::complete()),
        Status::Completed
    );
    assert_sound(&place);
}

#[test]
fn jobs_in_the_middle_of_a_long_list_of_pulled_jobs_are_found_there() {
    let place = Place::new();
    place.resting_server();
    let all = place.submit_many(3 * 1_000);
    let mut number = 0;
    while number < all.len() {
        number += place.pull(100).len();
    }
    assert_eq!(place.found(), BTreeMap::new());
    let middle = all[1_500];
    place.raw(&[&format!("LREM T:in_progress_queue:pull 1 {middle}")]);
    place.assert_finds(FindingKind::Stranded, &[&middle.to_string()]);
    let (_, left) = place.queue.repair(POLICY).unwrap();
    assert_eq!(left.findings, BTreeMap::new());
    assert_eq!(place.handles(middle), ["in_progress_queue:pull"]);
}

#[test]
fn logs_without_a_job_are_deleted_and_wrong_numbers_of_lines_are_mended() {
    let (place, all) = with_pulled_jobs();
    let (id, attempt) = (all[0], AttemptId { job: all[0], start: 1 });
    place.reports(attempt, crate::pull::lines(&["one", "two", "three"]));
    place.raw(&["RPUSH T:log:7 x"]);
    place.assert_finds(FindingKind::LogStale, &["log:7"]);
    place.assert_mends(FindingKind::LogStale, "deleted");
    assert!(!place.keys().contains(&"log:7".to_owned()));
    for damage in [format!("HSET T:job:{id} log_last 2"), format!("HDEL T:job:{id} log_last")] {
        place.raw(&[&damage]);
        place.assert_finds(FindingKind::LogStale, &[&format!("log:{id}")]);
        place.assert_mends(FindingKind::LogStale, "is numbered again");
        assert_eq!(place.log_texts(id), ["one", "two", "three"]);
    }
    place.raw(&[&format!("RPUSH T:log:{id}{}", " 5".repeat(1_200))]);
    place.assert_mends(FindingKind::LogStale, "is numbered again");
    assert_eq!(place.list(&format!("log:{id}")).len(), 1_000);
    // A log of another type is set aside.
    place.raw(&[
        &format!("DEL T:log:{id}"),
        &format!("SET T:log:{id} x"),
        &format!("HDEL T:job:{id} log_last"),
    ]);
    place.assert_finds(FindingKind::WrongType, &[&format!("log:{id}")]);
    place.assert_mends(FindingKind::WrongType, &format!("renamed to set_aside:log:{id}"));
}

#[test]
fn a_request_to_stop_a_job_that_no_pull_worker_has_is_taken_out() {
    let (place, _) = with_pulled_jobs();
    let waits = place.submit();
    place.raw(&[&format!("SADD T:cancels:pull {waits}")]);
    place.assert_finds(FindingKind::CancelStale, &[&format!("{waits} in cancels:pull")]);
    place.assert_mends(FindingKind::CancelStale, "taken out");
}

#[test]
fn a_key_that_is_held_until_the_start_is_freed_and_one_for_a_time_is_left() {
    let place = Place::new();
    let a = place.resting_server();
    let started = place.submit_with(tie(Hold::UntilStart, "u"));
    let waiting = place.submit_with(tie(Hold::UntilStart, "v"));
    let _lease = place.take_one(&a);
    place.raw(&[&format!("SET T:unique:u {started}"), &format!("SET T:unique:w {waiting}:w PX 1000000")]);
    place.assert_finds(FindingKind::UniqueStale, &["unique:u"]);
    place.assert_mends(FindingKind::UniqueStale, "is free");
    assert_eq!(place.redis::<String>("GET", "unique:v", &[]), waiting.to_string());
    // Nobody can tell whether such a job held its key once.
    place.raw(&["DEL T:unique:v"]);
    assert_eq!(place.found(), BTreeMap::new());
}

#[test]
fn a_key_that_another_live_job_holds_is_left_to_it() {
    let place = Place::new();
    let job = |job: &mut NewJob| job.unique_key = Some("u".to_owned());
    let first = place.submit_with(job);
    place.raw(&["DEL T:unique:u"]);
    let second = place.submit_with(job);
    let (done, left) = place.queue.repair(POLICY).unwrap();
    assert!(done.is_empty(), "{done:?}");
    let group = &left.findings[&FindingKind::UniqueMissing];
    assert_eq!(
        (group.found, group.repaired, &group.done[..]),
        (1, 0, &["another live job holds the key".to_owned()][..])
    );
    assert_eq!(place.redis::<String>("GET", "unique:u", &[]), second.to_string());
    assert_ne!(first, second);
}

#[test]
fn a_unique_key_without_a_live_holder_of_it_is_free() {
    let place = Place::new();
    let (ended, live) = (place.submit_with(|job| job.unique_key = Some("ended".to_owned())), place.submit());
    place.cancel(ended);
    place.raw(&[
        "SET T:unique:gone 12",
        &format!("SET T:unique:ended {ended}"),
        &format!("SET T:unique:other {live}"),
    ]);
    place.assert_finds(FindingKind::UniqueStale, &["unique:gone", "unique:ended", "unique:other"]);
    assert_eq!(place.repair()[&FindingKind::UniqueStale].repaired, 3);
    assert_sound(&place);
}

#[test]
fn index_entries_that_say_something_else_are_taken_out() {
    let place = Place::new();
    let id = place.submit();
    place.raw(&[
        &format!("ZADD T:index:failed {id} {id}"),
        &format!("ZADD T:index:ready:other {id} {id}"),
        "ZADD T:index:completed 77 77",
    ]);
    place.assert_finds(
        FindingKind::IndexStale,
        &[&format!("{id} in index:failed"), &format!("{id} in index:ready:other"), "77 in index:completed"],
    );
    place.repair();
    assert_sound(&place);
    // An entry with a wrong score shows the job in a wrong place.
    place.raw(&[&format!("ZADD T:type_index:ready:t 5 {id}")]);
    place.assert_finds(FindingKind::IndexStale, &[&format!("{id} in type_index:ready:t")]);
    place.repair();
    assert_sound(&place);
    // A job in two indexes is listed twice.
    place.raw(&[&format!("ZADD T:index:ready {id} {id}"), &format!("ZADD T:index:ready:t {id} {id}")]);
    place.assert_finds(
        FindingKind::IndexStale,
        &[&format!("{id} in index:ready"), &format!("{id} in index:ready:t")],
    );
    place.repair();
    assert_sound(&place);
}

#[test]
fn entries_of_a_type_index_are_for_jobs_of_its_type_if_the_type_is_known() {
    let place = Place::new();
    let a = place.resting_server();
    let id = place.submit();
    place.raw(&[&format!("ZADD T:type_index:ready:other {id} {id}")]);
    place.assert_mends(FindingKind::IndexStale, "taken out");
    place.make_old(&a);
    let old = place.submit_with(|job| job.job_type = "old".to_owned());
    place.raw(&[&format!("ZADD T:type_index:ready:old {old} {old}")]);
    place.assert_mends(FindingKind::IndexStale, "taken out");
}

#[test]
fn a_job_in_only_one_of_the_indexes_of_all_types_is_put_into_both() {
    let place = Place::new();
    let a = place.resting_server();
    place.make_old(&a);
    let id = place.submit();
    for index in ["index:ready", "index:ready:t"] {
        place.raw(&[&format!("ZREM T:{index} {id}")]);
        place.assert_mends(FindingKind::IndexMissing, "is listed again");
    }
    // A job that lost its type does not stop the doctor.
    place.raw(&[&format!("HDEL T:job:{id} type")]);
    assert!(place.repair().contains_key(&FindingKind::Unreadable));
    assert_sound(&place);
}

#[test]
fn wishes_to_cancel_are_for_what_runs_there_and_is_asked() {
    let place = Place::new();
    let (a, b) = (place.resting_server(), place.resting_server());
    let waits = place.submit();
    let runs_there = place.submit();
    let runs_unasked = place.submit();
    let taken = place.take(&a, 1);
    assert_eq!(ids(&taken), [waits]);
    let of_b = place.take(&b, 1);
    let _of_a = place.take(&a, 1);
    place.settle(&a, &released(taken.into_iter().next().unwrap().0));
    // Each entry has exactly one error.
    place.raw(&[
        &format!("HSET T:job:{waits} server {a} cancel 1"),
        &format!("HSET T:job:{runs_there} cancel 1"),
        &format!("SADD T:cancels:{a} {waits} {runs_there} {runs_unasked}"),
        &format!("SADD T:cancels:{b} {runs_there}"),
    ]);
    let set = format!("cancels:{a}");
    place.assert_finds(
        FindingKind::CancelStale,
        &[
            &format!("{waits} in {set}"),
            &format!("{runs_there} in {set}"),
            &format!("{runs_unasked} in {set}"),
        ],
    );
    assert_eq!(place.repair()[&FindingKind::CancelStale].repaired, 3);
    assert_eq!(ids(&of_b), [runs_there]);
}

#[test]
fn entries_that_do_not_belong_are_taken_out_of_every_list_and_set() {
    let place = Place::new();
    let (a, b) = (place.resting_server(), place.resting_server());
    let failed = place.dead_letter(&a);
    let running = place.submit();
    let _lease = place.take_one(&a);
    let cancelled = place.submit();
    place.cancel(cancelled);
    let queued = place.submit();
    let suspect = place.submit_suspect();
    let misplaced = [
        (queued, "scheduled".to_owned()),
        (cancelled, "dlq_queue".to_owned()),
        (failed, "done".to_owned()),
        (queued, "done".to_owned()),
        (cancelled, "work_queue:default".to_owned()),
        (cancelled, "completed".to_owned()),
        (cancelled, in_progress(&a)),
        (failed, in_progress(&a)),
        (running, in_progress(&b)),
    ];
    for (id, key) in &misplaced {
        let command = if key.contains("queue:") || key == "completed" {
            format!("LPUSH T:{key} {id}")
        } else {
            format!("ZADD T:{key} 99999999999999 {id}")
        };
        place.raw(&[&command]);
        let groups = place.queue.audit(POLICY).unwrap().findings;
        assert_eq!(groups[&FindingKind::Misplaced].examples, [format!("{id} in {key}")], "{groups:?}");
        assert_eq!(place.repair()[&FindingKind::Misplaced].repaired, 1, "{id} in {key}");
        assert_sound(&place);
    }
    assert_eq!(place.redis::<u64>("ZCARD", "lost", &[]), 0, "their jobs are not lost");
    // A queued job goes to its own queue, unless it is there already.
    let _: i64 = place.redis(
        "LMOVE",
        "work_queue:default:suspects",
        &[&place.key("work_queue:default"), "LEFT", "LEFT"],
    );
    for (id, key) in
        [(queued, "work_queue:b"), (suspect, "work_queue:b"), (queued, "work_queue:default:suspects")]
    {
        let home = place.handles(id);
        place.raw(&[&format!("LREM T:{} 1 {id}", home[0]), &format!("LPUSH T:{key} {id}")]);
        let done = place.repair();
        assert_eq!(done[&FindingKind::Misplaced].done, ["is at the front of its own queue"]);
        assert_eq!(done.len(), 1, "{done:?}");
        assert_eq!(place.handles(id), home);
        place.raw(&[&format!("LPUSH T:{key} {id}")]);
        assert_eq!(place.repair()[&FindingKind::Misplaced].done, ["taken out"]);
        assert_sound(&place);
    }
}

#[test]
fn entries_without_a_job_are_taken_out_and_noted() {
    let place = Place::new();
    let a = place.resting_server();
    place.raw(&[
        "RPUSH T:work_queue:default 11",
        &format!("LPUSH T:{} 12", in_progress(&a)),
        "ZADD T:scheduled 5 13",
        "ZADD T:done 5 14",
    ]);
    let of_a = format!("12 in {}", in_progress(&a));
    place.assert_finds(
        FindingKind::Dangling,
        &["11 in work_queue:default", &of_a, "13 in scheduled", "14 in done"],
    );
    assert_eq!(place.repair()[&FindingKind::Dangling].repaired, 4);
    assert_eq!(place.redis::<u64>("ZCARD", "lost", &[]), 4);
    assert_sound(&place);
}

#[test]
fn an_entry_that_is_a_gap_in_a_list_dangles_in_a_set() {
    let place = Place::new();
    place.raw(&[&format!("RPUSH T:work_queue:default {GAP}"), &format!("ZADD T:scheduled 5 {GAP}")]);
    place.assert_finds(FindingKind::Dangling, &[&format!("{GAP} in scheduled")]);
}

#[test]
fn a_running_job_is_found_at_either_end_of_a_long_list() {
    let place = Place::alone();
    let a = place.resting_server();
    for push in ["LPUSH", "RPUSH"] {
        place.submit();
        let lease = place.take_one(&a);
        let _: i64 = place.redis(push, &in_progress(&a), &[GAP; LONG]);
        assert_eq!(place.found(), BTreeMap::new(), "{push}");
        place.settle(&a, &completed(lease));
        place.raw(&[&format!("DEL T:{}", in_progress(&a))]);
    }
}

#[test]
fn a_job_that_stands_twice_keeps_the_entry_that_it_needs() {
    let place = Place::new();
    let (a, b) = (place.resting_server(), place.resting_server());
    let ids = place.submit_many(3);
    // In one queue the entry nearest to the front stays.
    place.raw(&[&format!("LPUSH T:work_queue:default {}", ids[0])]);
    place.assert_finds(FindingKind::Doubled, &[&ids[0].to_string()]);
    place.assert_mends(FindingKind::Doubled, "1 taken out");
    let order: Vec<String> = ids.iter().rev().map(JobId::to_string).collect();
    assert_eq!(place.list("work_queue:default"), order);
    // The entry in the queue stays if no server has claimed the job.
    place.raw(&[&format!("LPUSH T:{} {}", in_progress(&a), ids[1])]);
    place.assert_mends(FindingKind::Doubled, "1 taken out");
    assert_eq!(place.handles(ids[1]), ["work_queue:default"]);
    // The entry in the list of the job's server stays.
    let lease = place.take_one(&a);
    place.raw(&[&format!("LPUSH T:{} {}", in_progress(&b), lease.id())]);
    place.repair();
    assert_eq!(place.handles(lease.id()), [in_progress(&a)]);
    assert_sound(&place);
    // A job that has ended needs no entry.
    place.cancel(ids[2]);
    place.raw(&[&format!("RPUSH T:work_queue:default {0} {0}", ids[2])]);
    let kinds: Vec<FindingKind> = place.found().into_keys().collect();
    assert_eq!(kinds, [FindingKind::Misplaced]);
    place.repair();
    assert_sound(&place);
}

#[test]
fn keys_of_a_wrong_type_are_set_aside() {
    let place = Place::new();
    let id = place.submit();
    place.raw(&["DEL T:work_queue:default", "SET T:work_queue:default hello", "SET T:job:15 hello"]);
    // The job is stranded too: it can go back only after the wrong key is moved away.
    let found = place.found();
    assert_eq!(found[&FindingKind::WrongType].len(), 2, "{found:?}");
    let done = place.repair();
    assert_eq!((done[&FindingKind::WrongType].repaired, done[&FindingKind::Stranded].repaired), (2, 1));
    assert_eq!(place.redis::<String>("GET", "set_aside:work_queue:default", &[]), "hello");
    assert_eq!(place.handles(id), ["work_queue:default"]);
    // A second wrong key does not overwrite the first one.
    place.raw(&["SET T:job:15 again"]);
    place.repair();
    assert_eq!(place.redis::<String>("GET", "set_aside:job:15", &[]), "hello");
    assert_eq!(place.keys().iter().filter(|key| key.starts_with("set_aside:job:15")).count(), 2);
    assert_sound(&place);
}

#[test]
fn the_key_that_must_not_exist_is_set_aside() {
    let place = Place::new();
    for create in ["SET T:absent hello", "RPUSH T:absent hello", "HSET T:absent field value"] {
        place.raw(&[create]);
        assert_eq!(place.found()[&FindingKind::WrongType].len(), 1, "{create}");
        assert_eq!(place.repair()[&FindingKind::WrongType].repaired, 1, "{create}");
        assert_eq!(place.redis::<u64>("EXISTS", "absent", &[]), 0);
        assert_sound(&place);
    }
    assert_eq!(place.redis::<String>("GET", "set_aside:absent", &[]), "hello");
}

#[test]
fn a_key_in_the_way_is_no_repair() {
    // On its own Redis one step of the walk reads all keys, before the wrong key exists.
    let place = Place::alone();
    let id = place.submit();
    // The key is correct at the audit, and of a wrong type at the repair.
    place.raw(&[&format!("ZREM T:type_index:ready:t {id}")]);
    place.meanwhile("repair", &["repair", "index_missing"], "SET T:type_index:ready:t hello");
    let (done, left) = place.queue.repair(POLICY).unwrap();
    assert!(place.wire.was_meanwhile() && done.is_empty(), "{done:?}");
    let group = &left.findings[&FindingKind::IndexMissing];
    assert!(group.repaired == 0 && group.done[0].contains("WRONGTYPE"), "{group:?}");
    place.repair();
    assert_sound(&place);
}

#[test]
fn records_that_cannot_be_read_are_set_aside() {
    let place = Place::new();
    let a = place.resting_server();
    let job = |job: &mut NewJob| job.unique_key = Some("u".to_owned());
    for damage in [
        "HDEL T:job:ID type",
        "HSET T:job:ID status weird",
        "HDEL T:job:ID status",
        "HSET T:job:ID payload {",
    ] {
        let id = place.submit_with(job);
        place.raw(&[&damage.replace("ID", &id.to_string())]);
        assert_eq!(place.found().into_keys().next(), Some(FindingKind::Unreadable), "{damage}");
        let done = place.repair();
        assert!(done[&FindingKind::Unreadable].done[0].starts_with("renamed to set_aside:job:"), "{done:?}");
        assert!(place.handles(id) == ["lost"], "{:?}", place.handles(id));
        assert_sound(&place);
    }
    // All that belongs to the job goes in the same step.
    let id = place.submit_with(|job| {
        (job.unique_key, job.start) = (Some("u".to_owned()), Start::AfterMs(3_600_000));
    });
    place.raw(&[&format!("HSET T:job:{id} payload {{")]);
    assert_eq!(place.repair().into_keys().collect::<Vec<_>>(), [FindingKind::Unreadable]);
    assert_eq!(place.handles(id), ["lost"]);
    assert_sound(&place);
    // A server runs the job; that server will fail it.
    let id = place.submit();
    let lease = place.take_one(&a);
    place.raw(&[&format!("HSET T:job:{id} payload {{")]);
    let (done, left) = place.queue.repair(POLICY).unwrap();
    assert_eq!((done.len(), left.findings[&FindingKind::Unreadable].repaired), (0, 0));
    place.settle(&a, &buried(lease));
    assert_eq!(place.handles(id), ["dlq_queue"]);
}

#[test]
fn lists_of_servers_that_are_dead_or_unknown_are_taken_over() {
    let place = Place::new();
    let id = place.submit();
    place.raw(&[
        "LMOVE T:work_queue:default T:in_progress_queue:ghost RIGHT LEFT",
        "SADD T:cancels:phantom 5",
    ]);
    let done = place.repair();
    assert_eq!(done[&FindingKind::Abandoned].repaired, 2, "{done:?}");
    assert!(done[&FindingKind::Abandoned].done.contains(&"forgotten".to_owned()), "{done:?}");
    assert_eq!(place.handles(id), ["work_queue:default"]);
    let known: Vec<String> = place.redis("HKEYS", "servers", &[]);
    assert_eq!(known, ["ghost"], "whoever has only wishes is not entered");
    // A dead server stays dead.
    let dead = place.server();
    place.dies(&dead);
    let fence = place.beat_value(&dead);
    place.fetch(&dead);
    let done = place.repair();
    assert_eq!(done[&FindingKind::Abandoned].repaired, 1, "{done:?}");
    assert_eq!(place.beat_value(&dead), fence);
    assert_eq!(place.handles(id), ["work_queue:default"]);
    assert_sound(&place);
}

#[test]
fn the_middle_of_a_long_list_is_mended() {
    let place = Place::new();
    let ids = place.in_the_middle_of_a_long_list();
    // Two errors close to each other: the check of each sees the other one too.
    place.raw(&[
        &format!("LINSERT T:work_queue:default BEFORE {} nonsense", ids[10]),
        &format!("LINSERT T:work_queue:default BEFORE {} {}", ids[20], ids[11]),
    ]);
    let done = place.repair();
    assert_eq!(
        (done[&FindingKind::Doubled].repaired, done[&FindingKind::Dangling].repaired, done.len()),
        (1, 1, 2),
        "{done:?}"
    );
    let mut left = place.list("work_queue:default");
    assert_eq!(left.len(), 2 * LONG + ids.len() + 2, "what was taken out there leaves gaps");
    left.retain(|entry| entry != GAP);
    left.reverse();
    assert_eq!(left, ids.iter().map(JobId::to_string).collect::<Vec<_>>(), "in their order");
    // A take does not count a tombstone as a lost job.
    let a = place.server();
    let lost = || place.redis::<Vec<String>>("ZRANGE", "lost", &["0", "-1"]);
    place.raw(&["RPOPLPUSH T:work_queue:default T:work_queue:other"]);
    let shares = [Share { queue: "other".to_owned(), jobs: 1 }];
    let taken = place.queue.start_jobs(&a, &shares, Quarantine::Skip, MAX_CRASHES, None).unwrap();
    assert_eq!((taken.jobs.len(), lost()), (0, vec!["nonsense".to_owned()]));
}

#[test]
fn what_was_put_right_between_two_looks_is_no_finding() {
    let place = Place::new();
    let a = place.resting_server();
    let running = place.submit();
    let _lease = place.take_one(&a);
    let (queued, suspect, parked) = (place.submit(), place.submit_suspect(), place.submit_delayed());
    let unique = place.submit_with(|job| job.unique_key = Some("u".to_owned()));
    let (ended, done) = (place.submit(), place.submit_with(|job| job.queue = "mail".to_owned()));
    place.cancel(ended);
    let shares = [Share { queue: "mail".to_owned(), jobs: 1 }];
    let taken = place.queue.start_jobs(&a, &shares, Quarantine::Skip, MAX_CRASHES, None).unwrap().jobs;
    taken.into_iter().for_each(|(lease, _)| _ = place.settle(&a, &completed(lease)));
    let (work, suspects) = ("T:work_queue:default", "T:work_queue:default:suspects");
    place.raw(&["LPUSH T:in_progress_queue:ghost 0"]);
    for (damage, kind, meanwhile) in [
        (format!("LREM {work} 1 {queued}"), "stranded", format!("RPUSH {work} {queued}")),
        (format!("LREM {work} 1 {queued}"), "stranded", format!("RPUSH T:{} {queued}", in_progress(&a))),
        (
            format!("LREM T:{} 1 {queued}", in_progress(&a)),
            "stranded",
            format!("RPUSH T:in_progress_queue:ghost {queued}"),
        ),
        (format!("LREM T:in_progress_queue:ghost 1 {queued}"), "stranded", format!("RPUSH {work} {queued}")),
        (format!("LREM {suspects} 1 {suspect}"), "stranded", format!("RPUSH {suspects} {suspect}")),
        (
            format!("ZREM T:scheduled {parked}"),
            "stranded",
            format!("ZADD T:scheduled 99999999999999 {parked}"),
        ),
        (format!("ZREM T:done {ended}"), "unlisted", format!("ZADD T:done 5 {ended}")),
        ("DEL T:completed".to_owned(), "unlisted", format!("RPUSH T:completed {done}")),
        (
            format!("ZREM T:type_index:ready:t {queued}"),
            "index_missing",
            format!("ZADD T:type_index:ready:t {queued} {queued}"),
        ),
        ("DEL T:unique:u".to_owned(), "unique_missing", format!("SET T:unique:u {unique}")),
        ("SET T:unique:gone 5".to_owned(), "unique_stale", "DEL T:unique:gone".to_owned()),
        (format!("LPUSH {work} 11"), "dangling", format!("LREM {work} 1 11")),
        ("ZADD T:done 5 11".to_owned(), "dangling", "ZREM T:done 11".to_owned()),
        (format!("ZADD T:scheduled 5 {queued}"), "misplaced", format!("ZREM T:scheduled {queued}")),
        (format!("LPUSH {work} {queued}"), "doubled", format!("LREM {work} 1 {queued}")),
        (format!("SADD T:cancels:{a} {queued}"), "cancel_stale", format!("SREM T:cancels:{a} {queued}")),
        ("SET T:index:failed hello".to_owned(), "wrong_type", "DEL T:index:failed".to_owned()),
        (
            format!("HSET T:job:{queued} max_attempts x"),
            "unreadable",
            format!("HSET T:job:{queued} max_attempts 5"),
        ),
        ("SADD T:cancels:ghost 5".to_owned(), "abandoned", "DEL T:cancels:ghost".to_owned()),
        // The entry has become correct meanwhile.
        (format!("SADD T:cancels:{a} {running}"), "cancel_stale", format!("HSET T:job:{running} cancel 1")),
    ] {
        place.raw(&[&damage]);
        place.meanwhile("repair", &["recheck", kind], &meanwhile);
        let mut found = place.found();
        assert!(place.wire.was_meanwhile(), "{kind} was looked for");
        assert_eq!(
            found.remove(&FindingKind::Abandoned).unwrap(),
            ["in_progress_queue:ghost"],
            "is there on purpose"
        );
        assert_eq!(found, BTreeMap::new(), "{damage}; then {meanwhile}");
    }
}

#[test]
fn what_has_run_between_look_and_repair_is_not_put_back() {
    let place = Place::new();
    let id = place.submit();
    place.raw(&["DEL T:work_queue:default"]);
    // The job was in a list that the check had passed: it was started and released meanwhile.
    place.meanwhile("repair", &["repair", "stranded"], &format!("HSET T:job:{id} starts 1"));
    let (done, _) = place.queue.repair(POLICY).unwrap();
    assert!(place.wire.was_meanwhile());
    assert_eq!(done[&FindingKind::Stranded].done[0], "was right at the next check");
}

#[test]
fn a_gap_in_the_list_of_a_server_is_no_entry_of_a_queue() {
    let place = Place::alone();
    let a = place.resting_server();
    let gaps = format!("PUSH T:{}{}", in_progress(&a), format!(" {GAP}").repeat(LONG));
    place.raw(&[&format!("L{gaps}"), &format!("LPUSH T:{} 7", in_progress(&a)), &format!("L{gaps}")]);
    let done = place.repair();
    assert_eq!(done.keys().collect::<Vec<_>>(), [&FindingKind::Dangling]);
    assert!(place.keys().iter().all(|key| !key.starts_with("tombstones:")), "{:?}", place.keys());
}
