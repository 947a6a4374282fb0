//! Random interleavings under limits: servers that die, freeze and come back, and operators who cancel, change, retry, pause
//! and give limits other numbers, while time passes. No limit is ever exceeded, no more jobs start in a period than its
//! rate and its burst allow, jobs of one limit and queue start in their order, all jobs end, and nothing is left behind.
//!
//! `THREADQ_SEEDS` and `THREADQ_STEPS` make the test longer; a failure names its seed, and `THREADQ_SEED` runs only that seed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use fastrand::Rng;
use threadq::internals::queue::Error;
use threadq::job::{Change, Expiry, Start, Status};

use super::*;
use crate::fixture::{buried, completed, released, retried};
use crate::invariants::{assert_sound, find_strays};
use crate::random::{number, seeds};

const QUEUES: [&str; 2] = ["default", "other"];
/// Slots; a rate; slots for each key; both; each alone, and in all kinds of mixtures.
const MIXTURES: &[&[&str]] = &[
    &[],
    &[],
    &["a"],
    &["b"],
    &["t:1"],
    &["t:2"],
    &["a", "t:1"],
    &["b", "t:2"],
    &["m"],
    &["a", "m"],
    &["a", "b", "t:3", "m"],
];

#[test]
fn whatever_happens_no_limit_is_exceeded_and_all_jobs_end() {
    for seed in seeds(6) {
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

struct Server {
    id: ServerId,
    leases: Vec<Lease>,
}

struct Run {
    place: Place,
    random: Rng,
    servers: Vec<Server>,
    /// Servers that were held to be dead, with the attempts that they still run.
    frozen: Vec<Server>,
    /// All jobs, each with its queue and its limits.
    jobs: BTreeMap<JobId, Vec<String>>,
    numbers: HashMap<String, LimitNumbers>,
    /// The attempts that run by what Redis says, by limit.
    running: HashMap<String, BTreeSet<JobId>>,
    /// The times of the starts since the numbers of the limit were changed.
    starts: HashMap<String, Vec<u64>>,
    /// The first starts of jobs with one limit, by queue and limit.
    order: BTreeMap<(String, String), Vec<JobId>>,
    /// Jobs that became ready again, or later than they were submitted.
    out_of_order: HashSet<JobId>,
    paused: HashSet<&'static str>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let place = Place::with_moving_clock();
        let mut random = Rng::with_seed(seed);
        let servers = (0..2).map(|_| Server::new(&place)).collect();
        let numbers = [
            ("a", slots(random.u32(1..4))),
            ("b", rate(random.u32(2..6), [1_000, 5_000][random.usize(..2)], random.u32(1..6))),
            ("t", slots(random.u32(1..3))),
            ("m", LimitNumbers { concurrency: Some(2), ..rate(10, 10_000, 3) }),
        ];
        let mut run = Run {
            place,
            random,
            servers,
            frozen: vec![],
            jobs: BTreeMap::new(),
            numbers: HashMap::new(),
            running: HashMap::new(),
            starts: HashMap::new(),
            order: BTreeMap::new(),
            out_of_order: HashSet::new(),
            paused: HashSet::new(),
        };
        numbers.into_iter().for_each(|(name, numbers)| run.define(name, numbers));
        run
    }

    fn define(&mut self, name: &str, numbers: LimitNumbers) {
        self.check_rates();
        self.place.define(name, numbers);
        self.numbers.insert(name.to_owned(), numbers);
        self.starts.retain(|limit, _| name_of(limit) != name);
    }

    fn step(&mut self) {
        match self.random.u32(..100) {
            0..28 => self.submit(),
            28..48 => {
                let who = self.random.usize(..self.servers.len());
                let jobs = self.random.usize(1..5);
                self.take(who, jobs);
            }
            48..74 => self.settle(),
            74..76 => self.die(),
            76 => self.thaw(),
            77..80 => self.cancel(),
            80..82 => self.change(),
            82 => self.send_back(),
            83..85 => self.pause(),
            85 => self.renumber(),
            _ => {
                let ms = self.random.choice([1, 10, 100, 1_000, 6_000]).unwrap();
                self.place.waits(ms);
            }
        }
    }

    fn any_job(&mut self) -> Option<JobId> {
        let ids: Vec<JobId> = self.jobs.keys().copied().collect();
        self.random.choice(ids)
    }

    fn submit(&mut self) {
        let limits = *self.random.choice(MIXTURES).unwrap();
        let queue = self.random.choice(QUEUES).unwrap();
        let is_delayed = self.random.u32(..10) == 0;
        let mut job = NewJob { queue: queue.to_owned(), ..limited(limits) };
        if limits.is_empty() {
            job.extras = None;
        }
        if is_delayed {
            job.start = Start::AfterMs(self.random.u64(1..5_000));
        }
        let id = self.place.try_submit(&[job]).unwrap().first;
        self.place.passes(self.random.u64(..3));
        self.jobs.insert(id, limits.iter().map(|limit| (*limit).to_owned()).collect());
        if is_delayed {
            self.out_of_order.insert(id);
        }
    }

    /// Starts jobs, and checks every start. Returns how many started.
    fn take(&mut self, who: usize, jobs: usize) -> usize {
        let server = &self.servers[who];
        let quarantine = if server.leases.is_empty() { Quarantine::Start } else { Quarantine::Reserve };
        let shares = QUEUES.map(|queue| Share { queue: queue.to_owned(), jobs });
        let taken = self.place.try_start(&server.id, &shares, quarantine);
        if matches!(taken, Err(Error::Fenced)) {
            self.servers[who] = Server::new(&self.place);
            return 0;
        }
        let taken = taken.unwrap();
        let number = taken.jobs.len();
        for (lease, job) in taken.jobs {
            for limit in &self.jobs[&job.id] {
                self.starts.entry(limit.clone()).or_default().push(taken.now_ms);
                let running = self.running.entry(limit.clone()).or_default();
                assert!(running.insert(job.id), "job {} runs twice", job.id);
                let room = self.numbers[name_of(limit)].concurrency;
                assert!(
                    room.is_none_or(|room| running.len() <= room as usize),
                    "{} of {room:?} run under {limit}: {running:?}",
                    running.len()
                );
            }
            if let [limit] = &self.jobs[&job.id][..]
                && !self.out_of_order.contains(&job.id)
            {
                self.order.entry((job.queue.clone(), limit.clone())).or_default().push(job.id);
            }
            self.servers[who].leases.push(lease);
        }
        number
    }

    /// The attempt at a job does not run any more.
    fn forget(&mut self, id: JobId) {
        self.out_of_order.insert(id);
        self.running.values_mut().for_each(|running| _ = running.remove(&id));
    }

    fn settle(&mut self) {
        let who = self.random.usize(..self.servers.len());
        let server = &mut self.servers[who];
        if server.leases.is_empty() {
            return;
        }
        let lease = server.leases.swap_remove(self.random.usize(..server.leases.len()));
        let (id, server) = (lease.id(), server.id.clone());
        let settlement = match self.random.u32(..12) {
            0..6 => completed(lease),
            6 => buried(lease),
            7 => retried(lease),
            8 => snoozed(lease, Duration::from_millis(self.random.u64(1..4_000))),
            9 => released(lease),
            _ => {
                let delay = Duration::from_millis(self.random.u64(..3_000));
                let throttle = self.random.bool().then_some(delay);
                Settlement { lease, verdict: Verdict::Retry { error: "no".to_owned(), delay, throttle } }
            }
        };
        self.place.settle(&server, &settlement);
        self.forget(id);
        if self.random.u32(..4) == 0 {
            // The same again, as after a lost reply.
            let again = self.place.settle(&server, &settlement);
            assert!(matches!(again, Settled::Repeated | Settled::Stale), "{again:?}");
        }
    }

    fn die(&mut self) {
        let who = self.random.usize(..self.servers.len());
        let server = std::mem::replace(&mut self.servers[who], Server::new(&self.place));
        self.place.dies(&server.id);
        server.leases.iter().for_each(|lease| self.forget(lease.id()));
        self.frozen.push(server);
    }

    /// A server that was held to be dead settles its attempts, which are not its own any more.
    fn thaw(&mut self) {
        let Some(server) = self.frozen.pop() else { return };
        for lease in server.leases {
            let settled = self.place.settle(&server.id, &completed(lease));
            assert_eq!(settled, Settled::Stale);
        }
    }

    fn cancel(&mut self) {
        if let Some(id) = self.any_job() {
            self.place.cancel(id);
        }
    }

    fn change(&mut self) {
        let Some(id) = self.any_job() else { return };
        let queue = self.random.choice(QUEUES).unwrap();
        let change = match self.random.u32(..3) {
            0 => Change { queue: Some(queue.to_owned()), ..Change::default() },
            1 => Change { start: Some(Start::AfterMs(self.random.u64(1..3_000))), ..Change::default() },
            _ => Change { expiry: Some(Expiry::AfterMs(self.random.u64(1..3_000))), ..Change::default() },
        };
        self.place.queue.change_waiting(&[id], &[], &change).unwrap();
        self.out_of_order.insert(id);
    }

    fn send_back(&mut self) {
        if let Some(id) = self.any_job() {
            self.place.queue.retry(&[id], &[]).unwrap();
            self.out_of_order.insert(id);
        }
    }

    fn pause(&mut self) {
        let queue = self.random.choice(QUEUES).unwrap();
        let pauses = self.paused.insert(queue) || !self.paused.remove(queue);
        self.place.queue.set_paused(queue, pauses).unwrap();
    }

    fn renumber(&mut self) {
        let (few, burst) = (self.random.u32(1..4), self.random.u32(1..6));
        match self.random.u32(..3) {
            0 => self.define("a", slots(few)),
            1 => self.define("t", slots(few)),
            _ => self.define("b", rate(few + 1, 1_000, burst)),
        }
    }

    /// In any period at most as many jobs have started as the rate and the burst allow.
    fn check_rates(&self) {
        for (limit, times) in &self.starts {
            let numbers = self.numbers[name_of(limit)];
            let Some(rate) = numbers.rate else { continue };
            let period = rate.period.as_millis() as u64;
            for (n, first) in times.iter().enumerate() {
                let number = times[n..].iter().take_while(|time| **time < first + period).count();
                let most = (rate.count + numbers.burst) as usize;
                assert!(number <= most, "{number} of {most} starts in a period of {limit}: {times:?}");
            }
        }
    }

    /// All queues go on, and every job ends.
    fn drain(&mut self) {
        for queue in QUEUES {
            self.place.queue.set_paused(queue, false).unwrap();
        }
        for _ in 0..3_000 {
            let mut moved = 0;
            for who in 0..self.servers.len() {
                moved += self.take(who, 4);
                for lease in std::mem::take(&mut self.servers[who].leases) {
                    let id = lease.id();
                    self.place.settle(&self.servers[who].id.clone(), &completed(lease));
                    self.forget(id);
                }
            }
            let next = self.place.works_off();
            if moved == 0 {
                let is_idle = self.jobs.keys().all(|id| self.place.status(*id).is_final());
                if is_idle {
                    break;
                }
                let next = next.map_or(1_000, |next| next.as_millis() as u64);
                self.place.waits(next.clamp(1, KEPT));
            }
        }
        for id in self.jobs.keys() {
            let job = self.place.job(*id);
            assert!(job.status.is_final(), "it never ended: {job:?}\n{:?}", self.place.agenda());
        }
        self.thaw();
        self.check_rates();
        for ((queue, limit), started) in &self.order {
            assert!(started.is_sorted(), "the order of {limit} in {queue}: {started:?}");
        }
        self.place.assert_no_trace();
        assert_sound(&self.place);
        let ends = self.jobs.keys().filter(|id| self.place.status(**id) == Status::Completed).count();
        assert!(ends > self.jobs.len() / 2, "{ends} of {} have completed", self.jobs.len());
    }
}

impl Server {
    fn new(place: &Place) -> Server {
        Server { id: place.server(), leases: vec![] }
    }
}

fn name_of(limit: &str) -> &str {
    limit.split(':').next().unwrap_or_default()
}
