//! POST /pull: which jobs are given out, and what the record says of them.

use threadq::internals::queue::Quarantine;
use threadq::job::{Expiry, Extras, Start};

use super::*;
use crate::fixture::{completed, ids, shares};
use crate::invariants::assert_sound;
use crate::lua_proxy::Loses;

#[test]
fn a_pulled_job_has_a_lease_that_the_agenda_watches() {
    let place = Place::new();
    let id = place.submit();
    let pulled = place.try_pull(&request(1));
    let [job] = &pulled.jobs[..] else { panic!("{pulled:?}") };
    assert_eq!((job.attempt, job.job.id), (AttemptId { job: id, start: 1 }, id));
    assert_eq!(job.job.status, Status::Processing);
    assert_eq!((job.job.server.as_deref(), job.job.worker.as_deref()), (Some("pull"), Some("w")));
    assert_eq!((job.lease_until_ms, job.timeout_at_ms), (pulled.now_ms + LEASE, pulled.now_ms + TIMEOUT));
    assert_eq!(job.job.lease_until_ms, Some(job.lease_until_ms));
    assert_eq!(place.lease_word(id), Some(job.lease_until_ms));
    assert_eq!(place.handles(id), [PULLED]);
    assert_eq!(place.queue.pull_leases().unwrap(), 1);
    let stored = place.job(id);
    assert_eq!((stored.worker.as_deref(), stored.lease_until_ms), (Some("w"), Some(job.lease_until_ms)));
    assert_eq!((pulled.has_more, pulled.is_full), (false, false));
    assert_sound(&place);
}

#[test]
fn a_lease_ends_at_the_timeout_at_the_latest() {
    let place = Place::new();
    for (lease_ms, timeout_ms) in [(None, None), (Some(TIMEOUT + 1), None), (Some(5_000), Some(2_000))] {
        let timeout = Duration::from_millis(timeout_ms.unwrap_or(TIMEOUT));
        place.submit_with(|job| job.timeout = timeout);
        let pulled =
            place.try_pull(&PullRequest { lease: lease_ms.map(Duration::from_millis), ..request(1) });
        let job = &pulled.jobs[0];
        assert_eq!(job.timeout_at_ms, pulled.now_ms + timeout_ms.unwrap_or(TIMEOUT));
        assert_eq!(job.lease_until_ms, job.timeout_at_ms);
        assert_eq!(place.lease_word(job.job.id), Some(job.timeout_at_ms));
        assert_sound(&place);
    }
}

#[test]
fn the_shortest_lease_is_a_lease_whatever_numbers_the_job_has() {
    let place = Place::new();
    place.submit_with(|job| {
        job.timeout = Duration::from_secs(60);
        job.max_attempts = 7;
        job.payload = json("3");
    });
    let pulled = place.try_pull(&PullRequest { lease: Some(Duration::from_secs(1)), ..request(1) });
    let (id, lease_until) = (pulled.jobs[0].job.id, Some(pulled.now_ms + 1_000));
    assert_eq!((place.job(id).lease_until_ms, place.lease_word(id)), (lease_until, lease_until));
    // A take that asks for no lease: the lease ends at the timeout of the attempt.
    place.is_answered(pulled.jobs[0].attempt, Verdict::Release);
    let pulled = place.try_pull(&PullRequest { lease: None, ..request(1) });
    assert_eq!(place.lease_word(id), Some(pulled.now_ms + 60_000));
}

#[test]
fn pull_workers_and_servers_take_from_the_same_end_of_a_queue() {
    let place = Place::new();
    let a = place.server();
    let submitted = place.submit_many(6);
    assert_eq!(place.pull(2).len(), 2);
    assert_eq!(ids(&place.take(&a, 2)), submitted[2..4]);
    assert_eq!(place.pulled(), submitted[4..]);
    assert!(place.pulled().is_empty());
    assert_sound(&place);
}

#[test]
fn several_queues_give_out_at_most_the_wanted_number() {
    let place = Place::new();
    for n in 0..6 {
        place.submit_with(|job| job.queue = ["x", "y"][n % 2].to_owned());
    }
    let wanted =
        PullRequest { queues: vec!["x".to_owned(), "y".to_owned(), "none".to_owned()], ..request(4) };
    let first = place.try_pull(&wanted);
    let queues: Vec<&str> = first.jobs.iter().map(|pulled| pulled.job.queue.as_str()).collect();
    assert_eq!(queues, ["x", "x", "x", "y"], "jobs of the first queue first");
    let second = place.try_pull(&wanted);
    assert_eq!(second.jobs.len(), 2);
    let mut all: Vec<JobId> = first.jobs.iter().chain(&second.jobs).map(|pulled| pulled.job.id).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 6);
    assert_sound(&place);
}

#[test]
fn a_paused_queue_gives_out_nothing() {
    let place = Place::new();
    let paused = place.submit_with(|job| job.queue = "paused".to_owned());
    let open = place.submit();
    place.queue.set_paused("paused", true).unwrap();
    let wanted = PullRequest { queues: vec!["paused".to_owned(), "default".to_owned()], ..request(9) };
    let pulled = place.try_pull(&wanted);
    assert_eq!(pulled.paused, ["paused"]);
    assert_eq!(pulled.jobs.iter().map(|pulled| pulled.job.id).collect::<Vec<_>>(), [open]);
    assert_eq!(place.handles(paused), ["work_queue:paused"]);
    assert_sound(&place);
}

#[test]
fn a_job_on_its_last_chance_is_given_out_alone() {
    let place = Place::new();
    let good = place.submit_many(2);
    let suspects = [place.submit_suspect(), place.submit_suspect()];
    let mut given: Vec<Vec<JobId>> = Vec::new();
    for _ in 0..4 {
        let pulled = place.pulled();
        if !pulled.is_empty() {
            given.push(pulled);
        }
        assert_sound(&place);
    }
    let alone = given.iter().filter(|ids| ids.iter().any(|id| suspects.contains(id)));
    assert!(alone.clone().all(|ids| ids.len() == 1), "{given:?}");
    assert_eq!(alone.count(), 2, "{given:?}");
    let mut all = given.concat();
    all.sort();
    assert_eq!(all, [&good[..], &suspects[..]].concat());
}

#[test]
fn a_job_that_needs_quarantine_is_not_given_out_beside_others() {
    let place = Place::new();
    let first = place.submit();
    let crashed = place.submit_crashed(MAX_CRASHES - 1);
    let last = place.submit();
    let mut given: Vec<Vec<JobId>> = Vec::new();
    while given.concat().len() < 3 {
        let pulled = place.pulled();
        assert!(!pulled.is_empty(), "{given:?}");
        given.push(pulled);
        assert_sound(&place);
    }
    assert!(given.contains(&vec![crashed]), "{given:?}");
    let mut all = given.concat();
    all.sort();
    assert_eq!(all, [first, crashed, last]);
}

#[test]
fn what_is_kept_back_stays_in_front_in_its_order_and_no_later_queue_overtakes() {
    let place = Place::new();
    let [first, crashed, second, third] =
        [(); 4].map(|()| place.submit_with(|job| job.queue = "x".to_owned()));
    let later = place.submit();
    place.raw(&[
        &format!("HSET T:job:{crashed} crashes {}", MAX_CRASHES - 1),
        // With one more crash this job is not on its last chance yet.
        &format!("HSET T:job:{third} crashes {}", MAX_CRASHES - 2),
    ]);
    let wanted = PullRequest { queues: vec!["x".to_owned(), "default".to_owned()], ..request(9) };
    for (given, left) in [
        (vec![first], vec![crashed, second, third]),
        (vec![crashed], vec![second, third]),
        (vec![second, third, later], vec![]),
    ] {
        let pulled = place.try_pull(&wanted);
        assert_eq!(pulled.jobs.iter().map(|pulled| pulled.job.id).collect::<Vec<_>>(), given);
        assert_eq!(pulled.has_more, !left.is_empty());
        // The next job is the last entry.
        let waits: Vec<String> = left.iter().rev().map(JobId::to_string).collect();
        assert_eq!(place.list("work_queue:x"), waits);
        assert_sound(&place);
    }
}

#[test]
fn pull_workers_reserve_no_server_for_a_job_that_waits_until_it_is_alone() {
    let place = Place::new();
    // The older one needs no quarantine, although it is in the list of those that do.
    let [free, alone] = [place.submit_suspect_in("default", 0), place.submit_suspect()];
    let good = place.submit();
    assert_eq!(place.pulled(), [free, good]);
    assert!(!place.keys().iter().any(|key| key.starts_with("last_chance")), "{:?}", place.keys());
    assert_eq!(place.pulled(), [alone]);
    assert_sound(&place);
}

#[test]
fn a_job_with_a_damaged_timeout_is_given_out_or_fails() {
    for damage in ["x", "-1", "1e300", "inf", "nan", "18446744073709551616"] {
        let place = Place::new();
        let [bad, good] = [place.submit(), place.submit()];
        place.raw(&[&format!("HSET T:job:{bad} timeout_ms {damage}")]);
        let pulled = place.pulled();
        assert!(pulled.contains(&good), "{damage}: {pulled:?}");
        let end: Option<String> = place.redis("HGET", &format!("job:{bad}"), &["status"]);
        assert!(pulled.contains(&bad) || end.as_deref() == Some("failed"), "{damage}: {end:?}");
        assert!(pulled.contains(&bad) || place.lease_word(bad).is_none(), "{damage}");
    }
}

#[test]
fn pull_workers_and_a_server_that_runs_a_job_alone_do_not_disturb_each_other() {
    let place = Place::new();
    let a = place.server();
    let suspect = place.submit_suspect();
    let good = place.submit();
    place.submit_with(|job| job.queue = "other".to_owned());
    // The server is reserved for the suspect.
    let reserved = place.try_take(&a, 1, Quarantine::Reserve, None).unwrap();
    assert!(reserved.jobs.is_empty(), "{reserved:?}");
    let mut all = Vec::new();
    for _ in 0..3 {
        all.extend(place.pulled());
    }
    all.extend(ids(&place.take(&a, 9)));
    all.sort();
    assert_eq!(all, [suspect, good]);
    assert_sound(&place);
}

#[test]
fn a_claimed_job_is_given_out_first_and_is_nobodys_if_its_server_is_dead() {
    let place = Place::new();
    let a = place.server();
    let submitted = place.submit_many(3);
    let claimed = place.fetch(&a);
    let pulled = place.queue.pull(&request(2), Some((&a, &claimed)), MAX_CRASHES).unwrap();
    let given: Vec<JobId> = pulled.jobs.iter().map(|pulled| pulled.job.id).collect();
    assert_eq!(given, submitted[..2]);
    assert!(place.list(&crate::fixture::in_progress(&a)).is_empty());
    assert_sound(&place);
    // The same for a server that was declared dead, and whose list another server has reclaimed meanwhile.
    let claimed = place.fetch(&a);
    place.dies(&a);
    let pulled =
        place.queue.pull(&request(2), Some((&a, &claimed)), MAX_CRASHES).map(|pulled| pulled.jobs.len());
    let again = place.pulled();
    let given = pulled.unwrap_or(0) + again.len();
    assert_eq!(given, 1, "the last job is given out once");
    assert_sound(&place);
}

#[test]
fn a_claim_that_was_put_back_meanwhile_is_not_taken_from_whoever_has_the_job() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let claimed = place.fetch(&a);
    // The server has put back the entry, which it did not know, and has started the job.
    place.queue.recover(&a, &[id.to_string().into()]).unwrap();
    let lease = place.take_one(&a);
    assert!(place.queue.pull(&request(9), Some((&a, &claimed)), MAX_CRASHES).unwrap().jobs.is_empty());
    assert_eq!(place.handles(id), [crate::fixture::in_progress(&a)]);
    assert_sound(&place);
    place.ends(&a, &completed(lease));
    // Or the job was cancelled: its entry is put back as any other one that nobody knows.
    let id = place.submit();
    let claimed = place.fetch(&a);
    place.cancel(id);
    assert!(place.queue.pull(&request(9), Some((&a, &claimed)), MAX_CRASHES).unwrap().jobs.is_empty());
    let unknown = place.queue.in_progress_here(&a).unwrap();
    place.queue.recover(&a, &unknown).unwrap();
    assert_sound(&place);
}

#[test]
fn a_claim_whose_pull_was_lost_goes_back_to_the_front() {
    for loses in [Loses::Request, Loses::Answer] {
        let place = Place::new();
        let a = place.server();
        let submitted = place.submit_many(2);
        let claimed = place.fetch(&a);
        place.wire.lose("start_jobs", loses);
        assert!(place.another_queue().pull(&request(1), Some((&a, &claimed)), MAX_CRASHES).is_err());
        assert!(place.wire.has_lost());
        let unknown = place.queue.in_progress_here(&a).unwrap();
        place.queue.recover(&a, &unknown).unwrap();
        assert_sound(&place);
        let left = match loses {
            Loses::Request => &submitted[..],
            Loses::Answer => &submitted[1..],
        };
        assert_eq!(ids(&place.take(&a, 9)), left);
    }
}

#[test]
fn what_has_expired_or_was_cancelled_is_not_given_out() {
    let place = Place::with_moving_clock();
    let extras =
        |expiry| Some(Box::new(Extras { expiry: Some(Expiry::AfterMs(expiry)), ..Extras::default() }));
    let expired = place.submit_with(|job| job.extras = extras(1_000));
    let good = place.submit_with(|job| job.extras = extras(60_000));
    let cancelled = place.submit();
    place.cancel(cancelled);
    place.passes(2_000);
    let pulled = place.try_pull(&request(9));
    assert_eq!(pulled.jobs.iter().map(|pulled| pulled.job.id).collect::<Vec<_>>(), [good]);
    assert_eq!(pulled.expired, [("t".to_owned(), Status::Cancelled)]);
    assert_eq!(place.status(expired), Status::Cancelled);
    assert_sound(&place);
}

#[test]
fn a_pulled_job_is_no_servers_to_recover_or_to_reclaim() {
    let place = Place::new();
    let a = place.server();
    let id = place.submit();
    let pulled = place.pull_one();
    assert_eq!(place.queue.recover(&a, &[id.to_string().into()]).unwrap(), 0);
    place.dies(&a);
    // Nobody sees a dead server in the pseudo-server.
    let b = place.server();
    let heard = place.queue.heartbeat(&b, 0, 8, &[]).unwrap();
    assert!(!heard.servers.iter().any(|(server, _)| server == "pull"), "{heard:?}");
    assert!(place.queue.stats().unwrap().servers.iter().all(|server| server.id != "pull"));
    assert_eq!(place.handles(id), [PULLED]);
    assert_eq!(place.is_answered(pulled.attempt, complete()), Status::Completed);
    assert_sound(&place);
}

#[test]
fn nobody_pulls_where_ten_thousand_leases_are_out() {
    let place = Place::new();
    let id = place.submit();
    let filler = format!("RPUSH T:{PULLED}{}", " 1".repeat(9_999));
    place.raw(&[&filler]);
    let pulled = place.try_pull(&request(9));
    assert_eq!((pulled.jobs.len(), pulled.is_full), (1, false), "one more has room");
    let next = place.submit();
    let pulled = place.try_pull(&request(9));
    assert_eq!((pulled.jobs.len(), pulled.is_full), (0, true));
    assert_eq!(place.handles(next), ["work_queue:default"]);
    assert_eq!(place.is_answered(AttemptId { job: id, start: 1 }, complete()), Status::Completed);
    assert_eq!(place.pulled(), [next]);
}

#[test]
fn a_pull_of_a_claim_puts_the_claim_back_where_no_more_leases_are_possible() {
    let place = Place::new();
    let a = place.server();
    let submitted = place.submit_many(2);
    let claimed = place.fetch(&a);
    place.raw(&[&format!("RPUSH T:{PULLED}{}", " 1".repeat(10_000))]);
    let pulled = place.queue.pull(&request(9), Some((&a, &claimed)), MAX_CRASHES).unwrap();
    assert_eq!((pulled.jobs.len(), pulled.is_full), (0, true));
    place.raw(&[&format!("DEL T:{PULLED}")]);
    let unknown = place.queue.in_progress_here(&a).unwrap();
    place.queue.recover(&a, &unknown).unwrap();
    assert_eq!(ids(&place.take(&a, 9)), submitted);
}

#[test]
fn workers_are_listed_with_their_jobs_and_queues_are_remembered() {
    let place = Place::with_moving_clock();
    let [first, second] = [place.submit(), place.submit_with(|job| job.job_type = "other".to_owned())];
    let pulled = place.pull_one();
    place.passes(1_000);
    let other = place.try_pull(&PullRequest { worker: Some("a.b-c".to_owned()), ..request(1) });
    let workers = place.queue.pull_workers().unwrap();
    let of = |name: &str| {
        workers.iter().find(|worker| worker.name == name).unwrap_or_else(|| panic!("{workers:?}"))
    };
    assert_eq!(of("w").jobs, [(first, "t".to_owned(), pulled.lease_until_ms)]);
    assert_eq!(of("a.b-c").jobs, [(second, "other".to_owned(), other.jobs[0].lease_until_ms)]);
    let seen = |name| of(name).last_seen_ms.unwrap();
    assert!(seen("a.b-c") >= seen("w") + 1_000);
    // A worker that reports is seen too.
    place.passes(1_000);
    place.reports(pulled.attempt, Report::default());
    let workers = place.queue.pull_workers().unwrap();
    assert_eq!(workers[0].name, "w");
    assert!(workers[0].last_seen_ms >= workers[1].last_seen_ms.map(|at| at + 1_000), "{workers:?}");
    // A worker that is never seen again is gone after an hour; one that waits is seen.
    place.is_answered(pulled.attempt, complete());
    place.is_answered(other.jobs[0].attempt, complete());
    place.passes(3_700_000);
    place.queue.saw_pull_workers(&["waits".to_owned()], &["default".to_owned()]).unwrap();
    let names: Vec<String> =
        place.queue.pull_workers().unwrap().into_iter().map(|worker| worker.name).collect();
    assert_eq!(names, ["waits"]);
    let queues: Vec<String> = place.redis("ZRANGE", "pulled_queues", &["0", "-1"]);
    assert_eq!(queues, ["default"]);
    assert_sound(&place);
}

#[test]
fn the_names_of_workers_and_queues_are_bounded() {
    let place = Place::new();
    let names = |from: usize| -> Vec<String> { (from..from + 600).map(|n| format!("n{n}")).collect() };
    for from in [0, 600] {
        place.queue.saw_pull_workers(&names(from), &names(from)).unwrap();
    }
    let number = |set: &str| place.redis::<usize>("ZCARD", set, &[]);
    assert_eq!([number("pull_workers"), number("pulled_queues")], [1_000, 1_000]);
    let queues = ["x", "y", "z"].map(str::to_owned).to_vec();
    place.try_pull(&PullRequest { queues, worker: Some("one more".to_owned()), ..request(1) });
    assert_eq!([number("pull_workers"), number("pulled_queues")], [1_000, 1_000]);
    assert_eq!(place.queue.pull_workers().unwrap().len(), 1_000);
}

#[test]
fn entries_that_are_no_jobs_of_pull_workers_are_not_shown_as_theirs() {
    let place = Place::new();
    let a = place.server();
    let [pulled, runs, waits, damaged] = [
        place.submit(),
        place.submit(),
        place.submit(),
        place.submit_with(|job| job.queue = "other".to_owned()),
    ];
    place.pull_one();
    let _lease = place.take_one(&a);
    place.try_pull(&PullRequest { queues: vec!["other".to_owned()], ..request(1) });
    place.raw(&[
        &format!("RPUSH T:{PULLED} {runs} {waits} 7 x"),
        &format!("HDEL T:job:{damaged} type worker lease_until"),
        &format!("HSET T:job:{waits} server pull"),
    ]);
    let workers = place.queue.pull_workers().unwrap();
    let shown: Vec<(&str, JobId, &str)> = workers
        .iter()
        .flat_map(|worker| worker.jobs.iter().map(|(id, kind, _)| (worker.name.as_str(), *id, kind.as_str())))
        .collect();
    assert_eq!(shown, [("w", pulled, "t"), ("", damaged, "")]);
}

#[test]
fn workers_without_a_name_are_one_worker_in_the_list() {
    let place = Place::new();
    let id = place.submit();
    place.try_pull(&PullRequest { worker: None, ..request(1) });
    assert_eq!(place.job(id).worker, None);
    let [nameless] = &place.queue.pull_workers().unwrap()[..] else { panic!() };
    assert_eq!((nameless.name.as_str(), nameless.last_seen_ms, nameless.jobs.len()), ("", None, 1));
    assert_eq!(place.queue.pull_leases().unwrap(), 1);
    assert_sound(&place);
}

#[test]
fn a_job_that_a_server_runs_after_a_pull_worker_has_no_lease() {
    let place = Place::with_moving_clock();
    let a = place.server();
    let id = place.submit();
    let pulled = place.pull_one();
    assert_eq!(place.is_answered(pulled.attempt, Verdict::Release), Status::Queued);
    assert_eq!((place.handles(id), place.lease_word(id)), (vec!["work_queue:default".to_owned()], None));
    let lease = place.take_one(&a);
    let job = place.job(id);
    assert_eq!((job.server.as_deref(), job.worker, job.lease_until_ms), (Some(a.as_str()), None, None));
    assert_sound(&place);
    place.waits(2 * TIMEOUT);
    assert_eq!(place.status(id), Status::Processing);
    place.ends(&a, &completed(lease));
    assert_sound(&place);
}

#[test]
fn a_delayed_job_is_given_out_when_it_is_due() {
    let place = Place::with_moving_clock();
    let id = place.submit_with(|job| job.start = Start::AfterMs(1_000));
    assert!(place.pulled().is_empty());
    place.waits(1_000);
    assert_eq!(place.pulled(), [id]);
    assert_sound(&place);
}

#[test]
fn the_name_of_the_pseudo_server_is_nobodys() {
    let place = Place::new();
    let id = place.submit();
    let pulled = place.pull_one();
    let a = place.server();
    // A server that claims in its own name gets nothing of a pulled job.
    assert!(
        place.queue.start_jobs(&a, &shares(9), Quarantine::Start, MAX_CRASHES, None).unwrap().jobs.is_empty()
    );
    assert_eq!(place.status(id), Status::Processing);
    assert_eq!(place.is_answered(pulled.attempt, complete()), Status::Completed);
    assert_sound(&place);
}

#[test]
fn a_queue_tells_whether_pull_workers_have_asked_for_its_jobs_lately() {
    let place = Place::new();
    let pulled = || {
        let queues = place.queue.queues(&["default", "other"]).unwrap();
        queues.into_iter().map(|queue| (queue.is_pulled, queue.servers)).collect::<Vec<_>>()
    };
    // The queues that a request without names lists.
    let listed = || place.queue.queues(&[]).unwrap().into_iter().map(|queue| queue.name).collect::<Vec<_>>();
    assert_eq!((pulled(), listed()), (vec![(false, 0), (false, 0)], vec![]));
    let now = place.try_pull(&request(1)).now_ms;
    assert_eq!((pulled(), listed()), (vec![(true, 0), (false, 0)], vec!["default".to_owned()]));
    place.raw(&[&format!("ZADD T:pulled_queues {} default", now - 300_001)]);
    assert_eq!((pulled(), listed()), (vec![(false, 0), (false, 0)], vec![]));
}

#[test]
fn each_pull_says_when_its_worker_was_seen_and_its_queue_was_asked_for() {
    let place = Place::with_moving_clock();
    place.try_pull(&request(1));
    place.passes(3_000_000);
    let now = place.try_pull(&request(1)).now_ms;
    let [worker] = &place.queue.pull_workers().unwrap()[..] else { panic!() };
    assert_eq!(worker.last_seen_ms, Some(now));
    assert_eq!(place.redis::<Option<f64>>("ZSCORE", "pulled_queues", &["default"]), Some(now as f64));
}

#[test]
fn a_new_name_takes_the_place_of_the_one_that_was_seen_least_lately() {
    let place = Place::new();
    let old: String = (1..=1_000).map(|n| format!(" {n} n{n}")).collect();
    place.raw(&[&format!("ZADD T:pull_workers{old}"), &format!("ZADD T:pulled_queues{old}")]);
    place.try_pull(&request(1));
    for (set, new) in [("pull_workers", "w"), ("pulled_queues", "default")] {
        let is_there = |name: &str| place.redis::<Option<f64>>("ZSCORE", set, &[name]).is_some();
        assert_eq!([is_there("n1"), is_there("n2"), is_there(new)], [false, true, true], "{set}");
    }
}
