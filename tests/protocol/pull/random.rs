//! Random interleavings of pull workers and servers: workers that die, freeze and come back, answers that come late or twice,
//! reports, leases and timeouts that end, and operators who cancel and retry, while time passes. Each attempt is settled at most
//! once, a late answer changes nothing, no limit is exceeded, and all jobs end.
//!
//! `THREADQ_SEEDS` and `THREADQ_STEPS` make the test longer; a failure names its seed, and `THREADQ_SEED` runs only that seed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fastrand::Rng;
use threadq::internals::queue::Lease;

use super::*;
use crate::fixture::completed;
use crate::invariants::{assert_sound, find_strays};
use crate::limits::{limit, slots};
use crate::lua_proxy::Loses;
use crate::random::{number, seeds};

const QUEUES: [&str; 2] = ["default", "other"];
/// The slots of the limit that some jobs have.
const ROOM: u32 = 2;

#[test]
fn whatever_pull_workers_do_each_job_ends_once() {
    for seed in seeds(8) {
        println!("seed {seed}");
        let mut run = Run::new(seed);
        for step in 0..number("THREADQ_STEPS", 200) {
            run.step();
            if step % 25 == 24 {
                find_strays(&run.place);
            }
        }
        run.drain();
    }
}

/// What an attempt was answered, as its worker knows.
#[derive(Default)]
struct Known {
    settled: Option<(&'static str, Status)>,
}

struct Run {
    place: Place,
    random: Rng,
    server: ServerId,
    leases: Vec<Lease>,
    jobs: BTreeSet<JobId>,
    /// Every attempt that a worker has got, also those that were taken away since.
    attempts: Vec<AttemptId>,
    known: HashMap<AttemptId, Known>,
    limited: BTreeSet<JobId>,
    /// The latest checkpoint of each job that was accepted.
    checkpoints: BTreeMap<JobId, u64>,
    /// Jobs of which a call was lost: what it did is not known.
    unsure: BTreeSet<JobId>,
    count: u64,
}

impl Run {
    fn new(seed: u64) -> Run {
        let place = Place::with_moving_clock();
        place.define("narrow", slots(ROOM));
        let server = place.server();
        Run {
            place,
            random: Rng::with_seed(seed),
            server,
            leases: vec![],
            jobs: BTreeSet::new(),
            attempts: vec![],
            known: HashMap::new(),
            limited: BTreeSet::new(),
            checkpoints: BTreeMap::new(),
            unsure: BTreeSet::new(),
            count: 0,
        }
    }

    fn step(&mut self) {
        match self.random.u32(..100) {
            0..20 => self.submit(),
            20..40 => self.pull(),
            40..62 => self.answer(),
            62..74 => self.report(),
            74..80 => self.serve(),
            80..83 => self.cancel(),
            83..85 => self.send_back(),
            85..87 => self.die(),
            _ => {
                let ms = self.random.choice([1, 100, 1_000, LEASE / 2, LEASE]).unwrap();
                self.wait(ms);
            }
        }
    }

    fn submit(&mut self) {
        let mut job = NewJob { queue: self.random.choice(QUEUES).unwrap().to_owned(), ..NewJob::new("t") };
        let is_limited = self.random.u32(..4) == 0;
        if is_limited {
            let extras = threadq::job::Extras { limits: vec![limit("narrow")], ..Default::default() };
            job.extras = Some(Box::new(extras));
        }
        if self.random.u32(..5) == 0 {
            job.timeout = Duration::from_millis(LEASE / 2);
        }
        let id = self.place.try_submit(&[job]).unwrap().first;
        self.place.passes(1);
        self.jobs.insert(id);
        if is_limited {
            self.limited.insert(id);
        }
    }

    fn request(&mut self) -> PullRequest {
        let lease = [Some(LEASE), Some(1_000), None][self.random.usize(..3)];
        PullRequest {
            queues: QUEUES.map(str::to_owned).to_vec(),
            max: self.random.u32(1..5),
            lease: lease.map(Duration::from_millis),
            worker: self.random.bool().then(|| format!("w{}", self.random.u32(..4))),
        }
    }

    fn pull(&mut self) {
        let request = self.request();
        let is_lost = self.random.u32(..12) == 0;
        let claims = self.random.bool();
        let claimed = claims.then(|| self.place.redis::<usize>("LLEN", "work_queue:default", &[]) > 0);
        let claimed = claimed.filter(|waits| *waits).map(|_| self.place.fetch(&self.server));
        let claimed = claimed.as_ref().map(|claimed| (&self.server, claimed));
        if is_lost {
            let loses = if self.random.bool() { Loses::Request } else { Loses::Answer };
            self.place.wire.lose("start_jobs", loses);
            assert!(self.place.another_queue().pull(&request, claimed, MAX_CRASHES).is_err());
            self.unsure.extend(self.jobs.iter().copied());
            let known: BTreeSet<String> = self.leases.iter().map(|lease| lease.id().to_string()).collect();
            let entries = self.place.queue.in_progress_here(&self.server).unwrap();
            let unknown: Vec<Vec<u8>> = entries
                .into_iter()
                .filter(|entry| !known.contains(&String::from_utf8_lossy(entry).into_owned()))
                .collect();
            self.place.queue.recover(&self.server, &unknown).unwrap();
            return;
        }
        let pulled = self.place.queue.pull(&request, claimed, MAX_CRASHES).unwrap();
        assert!(pulled.jobs.len() <= request.max as usize, "{pulled:?}");
        let is_alone = |pulled: &PulledJob| pulled.job.crashes > 0 && pulled.job.crashes + 1 >= MAX_CRASHES;
        assert!(!pulled.jobs.iter().any(is_alone) || pulled.jobs.len() == 1, "not alone: {:?}", pulled.jobs);
        for pulled in pulled.jobs {
            if !self.unsure.contains(&pulled.job.id) {
                let stored = pulled.job.checkpoint.as_ref().map(|text| text.get().parse::<u64>().unwrap());
                assert_eq!(stored, self.checkpoints.get(&pulled.job.id).copied(), "{:?}", pulled.job);
            }
            assert!(!self.attempts.contains(&pulled.attempt), "{:?} was given out twice", pulled.attempt);
            self.attempts.push(pulled.attempt);
        }
        self.check_room();
    }

    fn check_room(&self) {
        let running = self.limited.iter().filter(|id| self.place.status(**id) == Status::Processing).count();
        assert!(running <= ROOM as usize, "{running} run");
    }

    /// An attempt, mostly a late one.
    fn any_attempt(&mut self) -> Option<AttemptId> {
        let from = if self.random.bool() { self.attempts.len().saturating_sub(6) } else { 0 };
        (self.attempts.len() > from).then(|| self.attempts[self.random.usize(from..self.attempts.len())])
    }

    fn answer(&mut self) {
        let Some(attempt) = self.any_attempt() else { return };
        let (word, verdict) = match self.random.u32(..8) {
            0..4 => ("complete", complete()),
            4 => ("fail", Verdict::Fail("never".to_owned())),
            5 => (
                "fail",
                Verdict::Retry { error: "no".to_owned(), delay: Duration::from_millis(500), throttle: None },
            ),
            6 => ("release", Verdict::Release),
            _ => ("release", Verdict::Snooze(Duration::from_millis(700))),
        };
        let before = self.place.job(attempt.job);
        let is_own = before.status == Status::Processing && before.attempt_id() == attempt;
        if self.random.u32(..12) == 0 {
            let loses = if self.random.bool() { Loses::Request } else { Loses::Answer };
            self.place.wire.lose("settle", loses);
            assert!(self.place.another_queue().answer(&[(attempt, verdict)]).is_err());
            self.unsure.insert(attempt.job);
            return;
        }
        let answered = self.place.answers(attempt, verdict);
        let after = self.place.job(attempt.job);
        let known = self.known.entry(attempt).or_default();
        match &answered {
            Answered::Now { status, .. } => {
                assert!(is_own, "{attempt:?} was not the job's attempt: {before:?}");
                assert_eq!((*status, known.settled), (after.status, None));
                known.settled = Some((word, *status));
            }
            other => {
                assert!(!is_own, "{attempt:?} was the job's attempt, and was answered {other:?}");
                assert_eq!(format!("{before:?}"), format!("{after:?}"), "a late answer has changed the job");
                if let Answered::Repeated(status) = other {
                    let is_known = known.settled == Some((word, *status));
                    assert!(is_known || self.unsure.contains(&attempt.job), "{attempt:?}: {status}");
                }
            }
        }
    }

    fn report(&mut self) {
        let Some(attempt) = self.any_attempt() else { return };
        self.count += 1;
        let report = Report {
            log: vec![format!("line {}", self.count)],
            checkpoint: Some(json(&self.count.to_string())),
            ..progress(self.random.f64(), "under way")
        };
        let before = self.place.job(attempt.job);
        let is_own = before.status == Status::Processing && before.attempt_id() == attempt;
        let lease = self.random.bool().then_some(LEASE);
        match self.place.reports_with(attempt, report, lease) {
            Reported::Stale => {
                assert!(!is_own, "{attempt:?} is the job's attempt: {before:?}");
                assert_eq!(format!("{before:?}"), format!("{:?}", self.place.job(attempt.job)));
            }
            Reported::Accepted { lease_until_ms, timeout_at_ms, .. } => {
                assert!(is_own, "{attempt:?} is not the job's attempt: {before:?}");
                assert!(lease_until_ms.is_some_and(|until| until <= timeout_at_ms));
                self.checkpoints.insert(attempt.job, self.count);
            }
        }
    }

    /// A server takes a job or settles one.
    fn serve(&mut self) {
        if self.leases.is_empty() || self.random.bool() {
            let shares =
                QUEUES.map(|queue| threadq::internals::queue::Share { queue: queue.to_owned(), jobs: 1 });
            let quarantine = threadq::internals::queue::Quarantine::Skip;
            let taken = self.place.try_start(&self.server, &shares, quarantine).unwrap();
            self.leases.extend(taken.jobs.into_iter().map(|(lease, _)| lease));
            self.check_room();
        } else {
            let lease = self.leases.swap_remove(self.random.usize(..self.leases.len()));
            self.place.settle(&self.server.clone(), &completed(lease));
        }
    }

    fn any_job(&mut self) -> Option<JobId> {
        let ids: Vec<JobId> = self.jobs.iter().copied().collect();
        self.random.choice(ids)
    }

    fn cancel(&mut self) {
        if let Some(id) = self.any_job() {
            self.place.cancel(id);
        }
    }

    fn send_back(&mut self) {
        let Some(id) = self.any_job() else { return };
        if self.random.bool() {
            self.place.queue.retry(&[id], &[]).unwrap();
        } else {
            let changed = self.place.queue.retry_from_start(&[id], &[]).unwrap();
            if changed == [threadq::internals::queue::Changed::Done] {
                self.checkpoints.remove(&id);
            }
        }
    }

    fn die(&mut self) {
        let dead = std::mem::replace(&mut self.server, self.place.server());
        self.place.dies(&dead);
        for lease in std::mem::take(&mut self.leases) {
            assert_eq!(
                self.place.settle(&dead, &completed(lease)),
                threadq::internals::queue::Settled::Stale
            );
        }
    }

    /// Lets time pass. A server settles the attempts whose timeout is over, or dies before.
    fn wait(&mut self, ms: u64) {
        self.place.passes(ms);
        for _ in 0..20 {
            let step = self.place.queue.work_off_due(MAX_CRASHES).unwrap();
            for attempt in step.timed_out {
                if self.random.u32(..3) > 0 {
                    let delay = Duration::from_millis(300);
                    let error = Verdict::Retry { error: "timed out".to_owned(), delay, throttle: None };
                    let settled = self.place.queue.time_out(attempt, error).unwrap();
                    assert!(matches!(settled, Answered::Now { .. }), "{settled:?}");
                }
            }
            if step.next != Some(Duration::ZERO) {
                return;
            }
        }
        panic!("there is always something due: {:?}", self.place.agenda());
    }

    /// All jobs end: workers and servers answer everything, and time passes.
    fn drain(&mut self) {
        for _ in 0..2_000 {
            let all = PullRequest { max: 9, queues: QUEUES.map(str::to_owned).to_vec(), ..request(9) };
            for pulled in self.place.try_pull(&all).jobs {
                self.place.is_answered(pulled.attempt, complete());
            }
            for lease in std::mem::take(&mut self.leases) {
                self.place.settle(&self.server.clone(), &completed(lease));
            }
            self.wait(LEASE);
            if self.jobs.iter().all(|id| self.place.status(*id).is_final()) {
                break;
            }
        }
        for id in &self.jobs {
            let job = self.place.job(*id);
            assert!(job.status.is_final(), "it never ended: {job:?}\n{:?}", self.place.agenda());
        }
        let before: Vec<String> = self.jobs.iter().map(|id| format!("{:?}", self.place.job(*id))).collect();
        for attempt in &self.attempts {
            for verdict in [complete(), fail(), Verdict::Release] {
                let answered = self.place.answers(*attempt, verdict);
                assert!(!matches!(answered, Answered::Now { .. }), "{attempt:?}: {answered:?}");
            }
            assert_eq!(self.place.reports(*attempt, checkpoint("0")), Reported::Stale);
        }
        let after: Vec<String> = self.jobs.iter().map(|id| format!("{:?}", self.place.job(*id))).collect();
        assert_eq!(before, after, "a late answer has changed a job");
        self.place.assert_no_trace();
        assert_eq!(self.place.queue.pull_leases().unwrap(), 0);
        assert_sound(&self.place);
        let ends = self.jobs.iter().filter(|id| self.place.status(**id) == Status::Completed).count();
        assert!(ends > self.jobs.len() / 3, "{ends} of {} have completed", self.jobs.len());
    }
}
