//! Random interleavings of everything at once: three servers, lost replies, deaths, pauses, and operators who cancel
//! and retry. After every step the data is sound; at the end each job has ended exactly once per life.
//!
//! `THREADQ_SEEDS` and `THREADQ_STEPS` make the test longer; a failure names its seed, and `THREADQ_SEED` runs only
//! that seed.

use std::time::Duration;

use std::collections::{HashMap, HashSet};

use fastrand::Rng;
use threadq::internals::queue::{
    ChangeResult, Changed, Claimed, Error, Idempotency, Lease, Quarantine, ServerId, Settled, Settlement,
    SubmitError,
};
use threadq::job::{Change, Expiry, Extras, Hold, JobId, NewJob, OnConflict, Start, Status, UniqueMode};

use crate::fixture::*;
use crate::invariants::{assert_sound, find_strays};
use crate::limits::{HOUR, limit, rate, slots};

pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The seeds of a random test that makes this number of runs.
pub fn seeds(runs: u64) -> Vec<u64> {
    match std::env::var("THREADQ_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..number("THREADQ_SEEDS", runs)).collect(),
    }
}

#[test]
fn whatever_happens_every_job_ends_exactly_once() {
    for seed in seeds(12) {
        println!("seed {seed}");
        // In every second run a cancelled job leaves its entry, as in a long list.
        let place = if seed % 2 == 0 { Place::new() } else { Place::of_long_lists() };
        let mut world = World::new(place, seed);
        for step in 0..number("THREADQ_STEPS", 150) {
            world.step();
            if step % 25 == 24 {
                find_strays(&world.place);
            }
        }
        world.drain();
    }
}

/// The memory of one server process.
struct Worker {
    id: ServerId,
    fetched: Vec<Claimed>,
    leases: Vec<Lease>,
    /// Settlements that were sent, perhaps without a reply.
    unanswered: Vec<Settlement>,
}

struct World {
    place: Place,
    random: Rng,
    workers: Vec<Worker>,
    /// Every accepted job, and the number of its life: a retry by an operator begins a new life.
    lives: HashMap<JobId, u32>,
    /// The lives that have ended, by the replies.
    ends: HashSet<(JobId, u32)>,
    deleted: HashSet<String>,
    keys: u32,
}

impl World {
    fn new(place: Place, seed: u64) -> World {
        let workers = (0..3).map(|_| Worker::new(&place)).collect();
        let random = Rng::with_seed(seed);
        place.define("narrow", slots(1));
        place.define("keyed", slots(1));
        place.define("slow", rate(2, HOUR, 2));
        World {
            place,
            random,
            workers,
            lives: HashMap::new(),
            ends: HashSet::new(),
            deleted: HashSet::new(),
            keys: 0,
        }
    }

    fn any_job(&mut self) -> Option<JobId> {
        let mut ids: Vec<JobId> = self.lives.keys().copied().collect();
        ids.sort();
        self.random.choice(ids)
    }

    fn step(&mut self) {
        let who = self.random.usize(..self.workers.len());
        match self.random.u32(..100) {
            0..20 => self.submit(),
            20..30 => self.fetch(who),
            30..50 => self.take(who),
            50..72 => self.settle(who),
            72..76 => self.repeat(who),
            76..79 => self.start_again(who),
            79..82 => self.recover(who),
            82..85 => self.die(who),
            85..87 => self.leave(who),
            87..92 => self.cancel(),
            92..94 => self.send_back(),
            94..96 => self.promote(),
            96..98 => self.change_one(),
            98 => self.renumber(),
            _ => self.delete(),
        }
    }

    fn submit(&mut self) {
        let count = self.random.usize(1..4);
        let mut jobs: Vec<NewJob> = (0..count)
            .map(|n| NewJob {
                queue: if self.random.u32(..4) == 0 { "other".to_owned() } else { "default".to_owned() },
                start: if self.random.u32(..5) == 0 { Start::AfterMs(1) } else { Start::Now },
                max_attempts: self.random.u32(1..4),
                unique_key: (n == 0 && self.random.bool()).then(|| format!("u{}", self.random.u32(..5))),
                ..NewJob::new(format!("type {}", self.random.u32(..3)))
            })
            .collect();
        for job in &mut jobs {
            job.extras = (self.random.u32(..3) == 0).then(|| Box::new(self.extras()));
        }
        // A submission of several jobs is refused if a key is held.
        if jobs.len() > 1 {
            jobs.iter_mut()
                .filter_map(|job| job.extras.as_mut())
                .for_each(|extras| extras.unique.on_conflict = OnConflict::Reject);
        }
        self.keys += 1;
        let key = Idempotency { key: self.keys.to_string(), fingerprint: "f".to_owned() };
        let submit = || self.place.queue.submit(&jobs, Some(&key), NO_LIMIT);
        let submitted = match submit() {
            Err(SubmitError::Refused(_)) => return,
            submitted => submitted.unwrap(),
        };
        if self.random.bool() {
            let again = submit().unwrap();
            assert_eq!((again.first, again.count, again.replayed), (submitted.first, submitted.count, true));
        }
        if submitted.conflict.is_some() {
            assert!(self.lives.contains_key(&submitted.first) || submitted.status.is_none());
            return;
        }
        for id in submitted.ids() {
            assert_eq!(self.lives.insert(id, 0), None, "an id is given twice");
        }
    }

    fn extras(&mut self) -> Extras {
        let tags = (0..self.random.usize(..3)).map(|n| format!("tag {n}")).collect();
        let hold = match self.random.u32(..4) {
            0 => Hold::UntilStart,
            1 => Hold::For(Duration::from_secs(3600)),
            _ => Hold::UntilEnd,
        };
        let on_conflict = match self.random.u32(..3) {
            0 => OnConflict::Existing,
            1 if hold == Hold::UntilStart => {
                OnConflict::Replace { change: Box::new(self.change()), max_wait: None }
            }
            _ => OnConflict::Reject,
        };
        let mixtures: [&[&str]; 6] =
            [&[], &["narrow"], &["keyed:1"], &["keyed:2", "narrow"], &["slow"], &["keyed:1", "slow"]];
        let limits = self.random.choice(mixtures).unwrap().iter().map(|name| limit(name)).collect();
        Extras {
            limits,
            tags,
            expiry: self.random.bool().then_some(Expiry::AfterMs(3_600_000)),
            retain: self.random.bool().then_some(Duration::from_secs(3600)),
            unique: UniqueMode { hold, on_conflict },
            ..Extras::default()
        }
    }

    fn change(&mut self) -> Change {
        let queue = if self.random.bool() { "default" } else { "other" };
        let start = if self.random.bool() { Start::Now } else { Start::AfterMs(1) };
        Change {
            queue: self.random.bool().then(|| queue.to_owned()),
            start: self.random.bool().then_some(start),
            expiry: (self.random.u32(..4) == 0).then_some(Expiry::AfterMs(1_800_000)),
            tags: self
                .random
                .bool()
                .then(|| (0..self.random.usize(..3)).map(|n| format!("tag {n}")).collect()),
            ..Change::default()
        }
    }

    /// Changes a job that waits.
    fn change_one(&mut self) {
        let Some(id) = self.any_job() else { return };
        let change = self.change();
        let result = self.place.queue.change_waiting(&[id], &[], &change).unwrap();
        let waits = matches!(self.place.status(id), Status::Scheduled | Status::Queued | Status::Retrying);
        assert_eq!(matches!(result[0], ChangeResult::WrongStatus(_)), !waits, "{result:?}");
    }

    /// Gives a limit other numbers, or pauses a queue or lets it go on.
    fn renumber(&mut self) {
        let room = self.random.u32(1..4);
        match self.random.u32(..5) {
            0 => self.place.define("narrow", slots(room)),
            1 => self.place.define("keyed", slots(room)),
            2 => self.place.define("slow", rate(room, HOUR, room)),
            3 => _ = self.place.queue.set_paused("other", true).unwrap(),
            _ => _ = self.place.queue.set_paused("other", false).unwrap(),
        }
    }

    /// Lets the time of a word of the agenda come: the expiry of a job, the end of its own retention, or that when a limit is
    /// looked at again. Then kept places have lapsed, and tokens are there.
    fn make_word_due(&mut self) {
        let words: Vec<String> = self.place.redis("ZRANGE", "agenda", &["0", "-1"]);
        let Some(word) = self.random.choice(words) else { return };
        let (kind, id) = word.split_once(':').unwrap();
        if kind == "limit" || kind == "wake" {
            let _: i64 = self.place.redis("DEL", &format!("tat:{id}"), &[]);
            for job in self.place.kept(id) {
                if self.random.bool() {
                    let _: i64 = self.place.redis("ZADD", &format!("slots:{id}"), &["1", &job.to_string()]);
                }
            }
            let _: i64 = self.place.redis("ZADD", "agenda", &["1", &word]);
            return;
        }
        let field = if kind == "expire" { "expires_at" } else { "finished_at" };
        let id: JobId = id.parse().unwrap();
        let _: i64 = self.place.redis("HSET", &format!("job:{id}"), &[field, "1"]);
        let _: i64 = self.place.redis("ZADD", "agenda", &["1", &word]);
    }

    /// Records the jobs that expired or were deleted in a step, of which no reply has told the ids.
    fn note_ends(&mut self, has_expired: bool) {
        let unended: Vec<JobId> = self
            .lives
            .iter()
            .filter(|job| !self.ends.contains(&(*job.0, *job.1)))
            .map(|(id, _)| *id)
            .collect();
        for id in unended {
            if has_expired && self.place.status(id).is_final() {
                self.end(id);
            }
        }
        let gone: Vec<JobId> =
            self.lives.keys().copied().filter(|id| self.place.queue.get(*id).unwrap().is_none()).collect();
        for id in gone {
            let life = self.lives.remove(&id).unwrap();
            self.deleted.insert(id.to_string());
            assert!(self.ends.contains(&(id, life)), "job {id} was deleted and had not ended");
        }
    }

    fn fetch(&mut self, who: usize) {
        // BRPOPLPUSH would block on an empty queue.
        if self.place.redis::<i64>("LLEN", "work_queue:default", &[]) > 0 {
            let fetched = self.place.fetch(&self.workers[who].id);
            if self.random.u32(..5) > 0 {
                self.workers[who].fetched.push(fetched);
            }
        }
    }

    fn take(&mut self, who: usize) {
        let suspects = match self.workers[who].leases.len() {
            0 => Quarantine::Start,
            _ if self.random.bool() => Quarantine::Reserve,
            _ => Quarantine::Skip,
        };
        let room = self.random.usize(..4);
        let shares = [("default", room), ("other", self.random.usize(..2))]
            .map(|(queue, jobs)| threadq::internals::queue::Share { queue: queue.to_owned(), jobs });
        let worker = &mut self.workers[who];
        let fetched = worker.fetched.pop();
        let taken = self.place.queue.start_jobs(&worker.id, &shares, suspects, MAX_CRASHES, fetched.as_ref());
        if matches!(taken, Err(Error::Fenced)) {
            self.workers[who] = Worker::new(&self.place);
            return;
        }
        let taken = taken.unwrap();
        let has_expired = !taken.expired.is_empty();
        // A lost reply: no server runs these jobs.
        if self.random.u32(..6) > 0 {
            worker.leases.extend(taken.jobs.into_iter().map(|(lease, _)| lease));
        }
        if has_expired {
            self.note_ends(true);
        }
    }

    fn settle(&mut self, who: usize) {
        let worker = &mut self.workers[who];
        if worker.leases.is_empty() {
            return;
        }
        let lease = worker.leases.swap_remove(self.random.usize(..worker.leases.len()));
        let settlement = match self.random.u32(..10) {
            0..5 => completed(lease),
            5..8 => retried(lease),
            8 => buried(lease),
            _ => released(lease),
        };
        worker.unanswered.push(settlement);
        if self.random.u32(..5) > 0 {
            self.repeat(who);
        }
    }

    /// Sends all outcomes, including those that were sent before.
    fn repeat(&mut self, who: usize) {
        let worker = &self.workers[who];
        let answers = self.place.queue.settle(&worker.id, &worker.unanswered).unwrap().results;
        let ended: Vec<JobId> = worker
            .unanswered
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| matches!(answer, Settled::Now(status) | Settled::Expired(status) if status.is_final()))
            .map(|(settlement, _)| settlement.lease.id())
            .collect();
        ended.into_iter().for_each(|id| self.end(id));
        if self.random.bool() {
            self.workers[who].unanswered.clear();
        }
    }

    fn start_again(&mut self, who: usize) {
        let Some(mut lease) = self.workers[who].leases.pop() else { return };
        let settled =
            self.place.queue.retry_inline(&self.workers[who].id, &mut lease, "no", Duration::ZERO).unwrap();
        match settled {
            Settled::Now(Status::Processing) if self.random.bool() => self.workers[who].leases.push(lease),
            Settled::Now(status) | Settled::Expired(status) if status.is_final() => self.end(lease.id()),
            _ => {}
        }
    }

    /// Puts back entries that this server does not know.
    fn recover(&mut self, who: usize) {
        let worker = &self.workers[who];
        let leases = worker.leases.iter().chain(worker.unanswered.iter().map(|s| &s.lease));
        let known: HashSet<Vec<u8>> = leases
            .map(|lease| lease.id().to_string().into_bytes())
            .chain(worker.fetched.iter().map(|fetched| fetched.entry.clone()))
            .collect();
        let mut lost = self.place.queue.in_progress_here(&worker.id).unwrap();
        lost.retain(|entry| !known.contains(entry));
        let id = worker.id.clone();
        self.ending(
            |place| {
                place.queue.recover(&id, &lost).unwrap();
            },
            &lost,
        );
    }

    fn die(&mut self, who: usize) {
        let id = self.workers[who].id.clone();
        // A paused server keeps its leases and claimed jobs, under a name that is declared dead.
        let paused = self.random.bool();
        let entries = self.entries(&id);
        if self.place.beat_value(&id).is_some() {
            self.ending(|place| drop(place.dies(&id)), &entries);
        }
        if !paused {
            self.workers[who] = Worker::new(&self.place);
        }
    }

    fn leave(&mut self, who: usize) {
        let id = self.workers[who].id.clone();
        let entries = self.entries(&id);
        self.ending(|place| drop(place.queue.leave(&id).unwrap()), &entries);
        self.workers[who] = Worker::new(&self.place);
    }

    fn entries(&self, server: &ServerId) -> Vec<Vec<u8>> {
        self.place.queue.in_progress_here(server).unwrap()
    }

    /// Calls `act`, which may end jobs of a list, and records the jobs that end.
    fn ending(&mut self, act: impl FnOnce(&Place), entries: &[Vec<u8>]) {
        let mut ids: Vec<JobId> =
            entries.iter().map(|entry| String::from_utf8(entry.clone()).unwrap().parse().unwrap()).collect();
        ids.sort();
        ids.dedup();
        ids.retain(|id| self.place.queue.get(*id).unwrap().is_some_and(|job| !job.status.is_final()));
        act(&self.place);
        for id in ids {
            if self.place.status(id).is_final() {
                self.end(id);
            }
        }
    }

    fn end(&mut self, id: JobId) {
        assert!(self.ends.insert((id, self.lives[&id])), "job {id} ended twice");
    }

    fn cancel(&mut self) {
        let Some(id) = self.any_job() else { return };
        if self.place.cancel(id) == Changed::Done {
            self.end(id);
        }
    }

    fn send_back(&mut self) {
        let Some(id) = self.any_job() else { return };
        if self.place.queue.retry(&[id], &[]).unwrap() == [Changed::Done] {
            *self.lives.get_mut(&id).unwrap() += 1;
        }
    }

    fn delete(&mut self) {
        let Some(id) = self.any_job() else { return };
        if self.place.queue.delete(&[id], &[]).unwrap() == [Changed::Done] {
            let life = self.lives.remove(&id).unwrap();
            self.deleted.insert(id.to_string());
            assert!(self.ends.contains(&(id, life)), "job {id} was deleted and had not ended");
        }
    }

    fn promote(&mut self) {
        let parked: Vec<String> = self.place.redis("ZRANGE", "scheduled", &["0", "-1"]);
        for id in parked {
            if self.random.bool() {
                self.place.make_due(id.parse().unwrap());
            }
        }
        if self.random.u32(..3) == 0 {
            self.make_word_due();
        }
        let step = self.place.queue.work_off_due(MAX_CRASHES).unwrap();
        self.note_ends(!step.expired.is_empty());
    }

    /// All servers die, and a new server runs the remaining jobs.
    fn drain(&mut self) {
        let servers: HashMap<String, String> = self.place.redis("HGETALL", "servers", &[]);
        let mut ids: Vec<&String> = servers.keys().collect();
        ids.sort();
        for server in ids {
            let entries: Vec<String> = self.place.list(&format!("in_progress_queue:{server}"));
            let entries: Vec<Vec<u8>> = entries.into_iter().map(String::into_bytes).collect();
            let observed = &servers[server];
            self.ending(|place| drop(place.queue.reclaim(server, observed, MAX_CRASHES).unwrap()), &entries);
        }
        let last = self.place.server();
        self.place.queue.set_paused("other", false).unwrap();
        let mut idle = 0;
        for _ in 0..10_000 {
            // Time enough for tokens, and for kept places to lapse.
            for key in self.place.keys().into_iter().filter(|key| key.starts_with("tat:")) {
                let _: i64 = self.place.redis("DEL", &key, &[]);
            }
            for word in self.place.agenda().into_iter().map(|(word, _)| word) {
                if let Some(name) = word.strip_prefix("limit:") {
                    let _: i64 = self.place.redis("ZADD", "agenda", &["1", &word]);
                    for job in self.place.kept(name) {
                        let _: i64 =
                            self.place.redis("ZADD", &format!("slots:{name}"), &["1", &job.to_string()]);
                    }
                }
            }
            let parked: Vec<String> = self.place.redis("ZRANGE", "scheduled", &["0", "-1"]);
            parked.iter().for_each(|id| self.place.make_due(id.parse().unwrap()));
            let step = self.place.queue.work_off_due(MAX_CRASHES).unwrap();
            self.note_ends(!step.expired.is_empty());
            let shares = ["default", "other"]
                .map(|queue| threadq::internals::queue::Share { queue: queue.to_owned(), jobs: 4 });
            let taken =
                self.place.queue.start_jobs(&last, &shares, Quarantine::Start, MAX_CRASHES, None).unwrap();
            if !taken.expired.is_empty() {
                self.note_ends(true);
            }
            // A job that was sent on in this round is taken in the next one.
            idle = if taken.jobs.is_empty() && taken.expired.is_empty() { idle + 1 } else { 0 };
            if idle > 3 {
                break;
            }
            for (lease, job) in taken.jobs {
                assert_eq!(self.place.settle(&last, &completed(lease)), Settled::Now(Status::Completed));
                self.end(job.id);
            }
        }
        assert_sound(&self.place);
        self.place.assert_no_trace();
        for (id, life) in &self.lives {
            assert!(self.place.status(*id).is_final(), "job {id}: {:?}", self.place.job(*id));
            assert!(self.ends.contains(&(*id, *life)), "nobody heard of the end of job {id}");
        }
        let jobs = self.place.keys().iter().filter(|key| key.starts_with("job:")).count();
        assert_eq!(jobs, self.lives.len(), "jobs that nobody submitted");
        // Only a claimed job that was cancelled and deleted may leave a lost entry.
        let lost: Vec<String> = self.place.redis("ZRANGE", "lost", &["0", "-1"]);
        assert!(lost.iter().all(|id| self.deleted.contains(id)), "{lost:?}");
    }
}

impl Worker {
    fn new(place: &Place) -> Worker {
        Worker { id: place.server(), fetched: vec![], leases: vec![], unanswered: vec![] }
    }
}
