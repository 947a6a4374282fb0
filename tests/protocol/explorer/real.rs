//! The real queue on a real Redis, which can return to any earlier state.
//!
//! The result of a call depends only on the data in Redis and the call. So the explorer makes each call once in each
//! state and remembers the result: many paths with other memories of the servers meet the same data.

use std::any::Any;
use std::collections::HashMap;
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use threadq::internals::in_flight::{Capacity, InFlight};
use threadq::internals::queue::{
    Answered, AttemptReport, Changed, Claimed, Error, Idempotency, Lease, PullRequest, PulledJob, Quarantine,
    Queue, Reported, ServerFacts, ServerId, Settled, Settlement, Verdict,
};
use threadq::job::report::Report;
use threadq::job::{AttemptId, Job as QueueJob, JobId, NewJob, Start};

use super::Scenario;
use super::step::{Job, Name, What};
use super::store::{Snapshot, Store};
use super::view::{LIMIT, View, WORK};
use crate::common::TestRedis;
use crate::fixture::{NO_LIMIT, buried, completed, new_redis, open_queue, released, retried, shares};
use crate::guards::Change;
use crate::limits::{limit, limited, slots};
use crate::lua_proxy::LuaProxy;

/// The first id; the second one follows it. Higher than any id from the clock, so that ids are always the same.
const FIRST_ID: u64 = 9_000_000_000_000_001;
/// How often a call is repeated while Redis does not reply in time.
const TRIES: usize = 40;
/// The token of an attempt at no job of the scenario.
const LONG_AGO: u64 = 1_000_000;
/// The number of names that a server can have, one after the other.
const NAMES: usize = 12;

pub fn id(job: Job) -> String {
    job_id(job).to_string()
}

/// The job with this id.
pub fn job(id: &str) -> Job {
    (id.parse::<u64>().unwrap() - FIRST_ID) as Job
}

fn job_id(job: Job) -> JobId {
    JobId::new(FIRST_ID + job as u64).unwrap()
}

/// A job that was started.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    pub job: Job,
    pub token: u64,
    pub crashes: u32,
}

/// The result of a take.
#[derive(Clone, Debug)]
pub struct Took {
    pub started: Vec<Started>,
    pub must_drain: bool,
}

/// The result of a heartbeat.
#[derive(Clone, Debug)]
pub struct Heard {
    pub cancels: Vec<Job>,
    pub servers: Vec<(Name, String)>,
    /// Whether the counter has changed.
    pub counted: bool,
}

/// The result of a call, and the next state of Redis.
type Remembered = (Result<Rc<dyn Any>, String>, Snapshot);

/// The attempts of a server that decide what it may take: job, token, crashes, whether the attempt runs.
type Hands = Vec<(Job, u64, u32, bool)>;

pub struct Real {
    queue: Queue,
    store: Store,
    /// The state of Redis for the next call.
    at: Snapshot,
    calls: HashMap<(Snapshot, String), Remembered>,
    views: HashMap<Snapshot, Rc<View>>,
    names: [Vec<ServerId>; 2],
    /// Another namespace, in which jobs are started only to get leases, which hold an id and a token.
    mint: Queue,
    mint_server: ServerId,
    mint_store: Store,
    settlements: HashMap<(Job, u64, What), Settlement>,
    rooms: HashMap<(Hands, (bool, bool)), (usize, Quarantine)>,
    _wire: Option<LuaProxy>,
    /// Ends after everything above.
    _redis: TestRedis,
}

impl Real {
    pub fn new(changes: &[Change]) -> Real {
        let redis = new_redis();
        let direct = format!("redis+unix://{}", redis.socket().display());
        // Without a change the queue talks to Redis itself, which is faster.
        let wire = (!changes.is_empty()).then(|| {
            LuaProxy::changing(redis.socket().with_file_name("wire"), redis.socket(), changes.to_vec())
        });
        let queue = open_queue(wire.as_ref().map_or_else(|| direct.clone(), LuaProxy::url), "explored");
        let mint = open_queue(direct, "mint");
        let mint_server = ServerId::generate();
        mint.register(&mint_server, &ServerFacts::new(1, &[])).unwrap();
        let store = |prefix: &str| Store::new(redis.connection().unwrap(), prefix.to_owned());
        let (mut store, mint_store) = (store("{explored}:"), store("{mint}:"));
        let _: () = store.run("SET", "last_id", &[&(FIRST_ID - 1).to_string()]);
        let at = store.read();
        Real {
            queue,
            store,
            at,
            calls: HashMap::new(),
            views: HashMap::new(),
            names: [0, 1].map(|_| (0..NAMES).map(|_| ServerId::generate()).collect()),
            mint,
            mint_server,
            mint_store,
            settlements: HashMap::new(),
            rooms: HashMap::new(),
            _wire: wire,
            _redis: redis,
        }
    }

    /// The state of Redis after the last call.
    pub fn at(&self) -> Snapshot {
        self.at
    }

    /// Selects the state for the next call.
    pub fn go_to(&mut self, snapshot: Snapshot) {
        self.at = snapshot;
    }

    pub fn view(&mut self, snapshot: Snapshot) -> Rc<View> {
        let view = || Rc::new(View::new(&self.store, snapshot));
        self.views.entry(snapshot).or_insert_with(view).clone()
    }

    /// The number of calls that were made on Redis.
    pub fn count(&self) -> usize {
        self.calls.len()
    }

    pub fn name(&self, name: Name) -> &ServerId {
        &self.names[name.0][name.1]
    }

    fn named(&self, server: &str) -> Result<Name, String> {
        let slots = self.names.iter().enumerate();
        let mut found = slots.filter_map(|(slot, names)| {
            Some(Name(slot, names.iter().position(|name| name.as_str() == server)?))
        });
        found.next().ok_or_else(|| format!("who is {server}?"))
    }

    /// A text with names and ids as they are in the steps.
    pub fn readable(&self, text: &str) -> String {
        let names = self.names.iter().enumerate().flat_map(|(slot, names)| {
            names
                .iter()
                .enumerate()
                .map(move |(number, server)| (server.to_string(), Name(slot, number).to_string()))
        });
        let ids = [0, 1].map(|job| (id(job), format!("#{}", job + 1)));
        names.chain(ids).fold(text.to_owned(), |text, (real, readable)| text.replace(&real, &readable))
    }

    fn once<R: Clone + 'static>(
        &mut self,
        call: String,
        mut make: impl FnMut(&mut Real) -> Result<R, String>,
    ) -> Result<R, String> {
        let key = (self.at, call);
        if !self.calls.contains_key(&key) {
            self.store.put_back(self.at);
            let mut answer = make(self);
            // On a busy machine Redis may not reply in time: this does not concern the protocol.
            for _ in 0..TRIES {
                let unavailable =
                    answer.as_ref().is_err_and(|error| error.starts_with("Redis is unavailable"));
                if !unavailable && !self.queue.is_unavailable() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(250));
                self.store.read();
                self.store.put_back(self.at);
                answer = make(self);
            }
            let answer = answer.map(|answer| Rc::new(answer) as Rc<dyn Any>);
            let after = self.store.read();
            self.calls.insert(key.clone(), (answer, after));
        }
        let (answer, after) = &self.calls[&key];
        self.at = *after;
        let answer = answer.clone()?;
        Ok(answer.downcast_ref::<R>().expect("the answer to this call").clone())
    }

    pub fn register(&mut self, name: Name, workers: usize) -> Result<(), String> {
        self.once(format!("register {name}"), |real| {
            real.queue.register(real.name(name), &ServerFacts::new(workers, &[])).map_err(|e| e.to_string())
        })
    }

    /// Defines the limit of all jobs.
    pub fn define_limit(&mut self, room: u32) -> Result<(), String> {
        self.once(format!("limit {room}"), |real| {
            real.queue.put_limit(&limit(LIMIT), &slots(room)).map(drop).map_err(|e| e.to_string())
        })
    }

    /// Submits a job. Returns whether it got the expected id.
    pub fn submit(&mut self, job: Job, scenario: &Scenario) -> Result<bool, String> {
        let start = if scenario.delayed == Some(job) { Start::AfterMs(3_600_000) } else { Start::Now };
        let new = if scenario.room.is_some() { limited(&[LIMIT]) } else { NewJob::new("t") };
        // The time of an attempt is longer than an exploration takes.
        let timeout = if scenario.pulls { Duration::from_secs(86_400) } else { new.timeout };
        let new = NewJob { start, max_attempts: scenario.max_attempts, timeout, ..new };
        let key = Idempotency { key: job.to_string(), fingerprint: "f".to_owned() };
        self.once(format!("submit {job}"), |real| {
            let submitted = real
                .queue
                .submit(std::slice::from_ref(&new), Some(&key), NO_LIMIT)
                .map_err(|e| e.to_string())?;
            Ok(submitted.first == job_id(job))
        })
    }

    /// The queue must hold a job.
    pub fn fetch(&mut self, name: Name) -> Result<Job, String> {
        self.once(format!("fetch {name}"), |real| {
            let fetched = real.queue.wait_for_job(real.name(name), "default").map_err(|e| e.to_string())?;
            let entry = fetched.ok_or("the queue was empty")?.entry;
            Ok(job(&String::from_utf8_lossy(&entry)))
        })
    }

    /// Returns `None` if Redis refused the call.
    pub fn take(
        &mut self,
        name: Name,
        room: Capacity,
        fetched: Option<Job>,
        max_crashes: u32,
    ) -> Result<Option<Took>, String> {
        self.once(format!("take {name} {room:?} {fetched:?}"), |real| {
            let fetched =
                fetched.map(|job| Claimed { entry: id(job).into_bytes(), queue: "default".to_owned() });
            let shares = shares(room.jobs);
            let taken = real.queue.start_jobs(
                real.name(name),
                &shares,
                room.quarantine,
                max_crashes,
                fetched.as_ref(),
            );
            let taken = match taken {
                Err(Error::Fenced) => return Ok(None),
                taken => taken.map_err(|e| e.to_string())?,
            };
            let started = |(lease, taken): (Lease, QueueJob)| Started {
                job: job(&lease.id().to_string()),
                token: lease.attempt_id().start,
                crashes: taken.crashes,
            };
            let must_drain = taken.must_drain;
            Ok(Some(Took { started: taken.jobs.into_iter().map(started).collect(), must_drain }))
        })
    }

    pub fn settle(&mut self, name: Name, job: Job, token: u64, what: What) -> Result<Settled, String> {
        self.once(format!("settle {name} {job} {token} {what:?}"), |real| {
            real.prepare_settlement(job, token, what);
            let settlement = std::slice::from_ref(&real.settlements[&(job, token, what)]);
            real.queue
                .settle(real.name(name), settlement)
                .map(|all| all.results[0])
                .map_err(|e| e.to_string())
        })
    }

    fn prepare_settlement(&mut self, job: Job, token: u64, what: What) {
        if !self.settlements.contains_key(&(job, token, what)) {
            let lease = self.lease(job, token, 0).0;
            let settlement = match what {
                What::Complete => completed(lease),
                What::Retry => retried(lease),
                What::Fail => buried(lease),
                What::Release => released(lease),
            };
            self.settlements.insert((job, token, what), settlement);
        }
    }

    /// Returns the result, and the job's next token.
    pub fn start_again(&mut self, name: Name, job: Job, token: u64) -> Result<(Settled, u64), String> {
        self.once(format!("again {name} {job} {token}"), |real| {
            let mut lease = real.lease(job, token, 0).0;
            let settled = real
                .queue
                .retry_inline(real.name(name), &mut lease, "no", Duration::ZERO)
                .map_err(|e| e.to_string())?;
            Ok((settled, lease.attempt_id().start))
        })
    }

    /// Returns `None` if Redis refused the call.
    pub fn beat(&mut self, name: Name) -> Result<Option<Heard>, String> {
        self.once(format!("beat {name}"), |real| {
            let beat = match real.queue.heartbeat(real.name(name), 0, 1, &[]) {
                Err(Error::Fenced) => return Ok(None),
                beat => beat.map_err(|e| e.to_string())?,
            };
            let named = |(server, beat): (String, String)| Ok((real.named(&server)?, beat));
            let servers = beat.servers.into_iter().map(named).collect::<Result<_, String>>()?;
            let cancels = beat.cancels.iter().map(|id| job(&id.to_string())).collect();
            let own = real.name(name).to_string();
            let counted = real.store.run::<String>("HGET", "servers", &[&own]) != "1";
            Ok(Some(Heard { cancels, servers, counted }))
        })
    }

    /// Returns whether the server still had the observed heartbeat.
    pub fn reclaim(&mut self, dead: Name, observed: &str, max_crashes: u32) -> Result<bool, String> {
        self.once(format!("reclaim {dead} {observed}"), |real| {
            let taken = real.queue.reclaim(real.name(dead).as_str(), observed, max_crashes);
            taken.map(|taken| taken.is_some()).map_err(|e| e.to_string())
        })
    }

    pub fn leave(&mut self, name: Name) -> Result<(), String> {
        self.once(format!("leave {name}"), |real| {
            real.queue.leave(real.name(name)).map(drop).map_err(|e| e.to_string())
        })
    }

    /// The entries of a server's list.
    pub fn in_progress(&mut self, name: Name) -> Result<Vec<Job>, String> {
        self.once(format!("list {name}"), |real| {
            let entries = real.queue.in_progress_here(real.name(name)).map_err(|e| e.to_string())?;
            Ok(entries.iter().map(|entry| job(&String::from_utf8_lossy(entry))).collect())
        })
    }

    pub fn recover(&mut self, name: Name, jobs: &[Job]) -> Result<(), String> {
        self.once(format!("recover {name} {jobs:?}"), |real| {
            let entries: Vec<Vec<u8>> = jobs.iter().map(|job| id(*job).into_bytes()).collect();
            real.queue.recover(real.name(name), &entries).map(drop).map_err(|e| e.to_string())
        })
    }

    /// Makes a scheduled job due.
    pub fn promote(&mut self, job: Job) -> Result<(), String> {
        self.once(format!("promote {job}"), |real| {
            let _: i64 = real.store.run("HSET", &format!("job:{}", id(job)), &["scheduled_at", "1"]);
            let _: i64 = real.store.run("ZADD", "scheduled", &["1", &id(job)]);
            real.queue.work_off_due(3).map(drop).map_err(|e| e.to_string())
        })
    }

    /// Lets a server look at the limit.
    pub fn limit_due(&mut self) -> Result<(), String> {
        self.once("limit due".to_owned(), |real| {
            let _: i64 = real.store.run("ZADD", "agenda", &["1", &format!("limit:{LIMIT}")]);
            real.queue.work_off_due(3).map(drop).map_err(|e| e.to_string())
        })
    }

    /// Lets the places lapse of the jobs that were sent on.
    pub fn lapse(&mut self, kept: &[String]) -> Result<(), String> {
        self.once("lapse".to_owned(), |real| {
            for id in kept {
                let _: i64 = real.store.run("ZADD", &format!("slots:{LIMIT}"), &["1", id]);
            }
            Ok(())
        })
    }

    /// Takes jobs for pull workers. `fetched` is a job that a server has fetched.
    pub fn pull(
        &mut self,
        room: usize,
        fetched: Option<(Name, Job)>,
        max_crashes: u32,
    ) -> Result<Vec<Started>, String> {
        self.once(format!("pull {room} {fetched:?}"), |real| {
            let claim = |job| Claimed { entry: id(job).into_bytes(), queue: "default".to_owned() };
            let claimed = fetched.map(|(name, job)| (real.name(name), claim(job)));
            let claimed = claimed.as_ref().map(|(server, claimed)| (*server, claimed));
            let request = PullRequest {
                queues: vec!["default".to_owned()],
                max: room as u32,
                lease: Some(Duration::from_secs(3_600)),
                worker: None,
            };
            let pulled = real.queue.pull(&request, claimed, max_crashes).map_err(|e| e.to_string())?;
            let started = |pulled: PulledJob| Started {
                job: job(&pulled.job.id.to_string()),
                token: pulled.attempt.start,
                crashes: pulled.job.crashes,
            };
            Ok(pulled.jobs.into_iter().map(started).collect())
        })
    }

    /// Reports the progress of an attempt. Returns whether Redis has accepted the report.
    pub fn report(&mut self, job: Job, token: u64) -> Result<bool, String> {
        self.once(format!("report {job} {token}"), |real| {
            let attempt = AttemptId { job: job_id(job), start: token };
            let report = Report { progress: Some((0.5, String::new())), ..Report::default() };
            let report = AttemptReport { attempt, report, lease: None };
            let reported = real.queue.report(&[report]).map_err(|e| e.to_string())?;
            Ok(reported[0] != Reported::Stale)
        })
    }

    /// A pull worker answers.
    pub fn reply(&mut self, job: Job, token: u64, what: What) -> Result<Settled, String> {
        self.once(format!("reply {job} {token} {what:?}"), |real| {
            let verdict = match what {
                What::Complete => Verdict::Complete(RawValue::from_string("1".to_owned()).unwrap()),
                What::Retry => Verdict::Retry {
                    error: "no".to_owned(),
                    delay: Duration::from_secs(3600),
                    throttle: None,
                },
                What::Fail => Verdict::Fail("never".to_owned()),
                What::Release => Verdict::Release,
            };
            let attempt = AttemptId { job: job_id(job), start: token };
            let (answers, _) = real.queue.answer(&[(attempt, verdict)]).map_err(|e| e.to_string())?;
            Ok(match answers[0] {
                Answered::Now { status, .. } => Settled::Now(status),
                Answered::Repeated(_) => Settled::Repeated,
                Answered::Stale => Settled::Stale,
            })
        })
    }

    /// Lets the lease of a job end, and a server look at it.
    pub fn lease_end(&mut self, job: Job, max_crashes: u32) -> Result<(), String> {
        self.once(format!("lease end {job}"), |real| {
            let _: i64 = real.store.run("HSET", &format!("job:{}", id(job)), &["lease_until", "1"]);
            let _: i64 = real.store.run("ZADD", "agenda", &["1", &format!("lease:{}", id(job))]);
            real.queue.work_off_due(max_crashes).map(drop).map_err(|e| e.to_string())
        })
    }

    pub fn cancel(&mut self, job: Job) -> Result<Vec<Changed>, String> {
        self.once(format!("cancel {job}"), |real| {
            real.queue.cancel(&[job_id(job)], &[]).map_err(|e| e.to_string())
        })
    }

    pub fn send_back(&mut self, job: Job) -> Result<Changed, String> {
        self.once(format!("send back {job}"), |real| {
            let changed = real.queue.retry(&[job_id(job)], &[]).map_err(|e| e.to_string())?;
            changed.first().cloned().ok_or_else(|| "no answer".to_owned())
        })
    }

    /// The lease of an attempt, and the job as it was taken.
    fn lease(&mut self, job: Job, token: u64, crashes: u32) -> (Lease, QueueJob) {
        let (key, starts, crashes) =
            (format!("job:{}", id(job)), (token - 1).to_string(), crashes.to_string());
        let fields =
            ["status", "queued", "type", "t", "payload", "{}", "starts", &starts, "crashes", &crashes];
        let _: i64 = self.mint_store.run("DEL", &key, &[]);
        let _: i64 = self.mint_store.run("HSET", &key, &fields);
        let _: i64 = self.mint_store.run("LPUSH", WORK, &[&id(job)]);
        let mut taken =
            self.mint.start_jobs(&self.mint_server, &shares(1), Quarantine::Skip, u32::MAX, None).unwrap();
        taken.jobs.pop().unwrap()
    }

    /// What a server with these attempts may take, from the real [`InFlight`]. `waits`: whether the server drains for a
    /// job in quarantine, and whether it is the turn of the other jobs.
    pub fn room(&mut self, hands: Hands, waits: (bool, bool), workers: usize, max_crashes: u32) -> Capacity {
        let key = (hands, waits);
        let (jobs, suspects) = match self.rooms.get(&key) {
            Some(room) => *room,
            None => {
                let in_flight = InFlight::new(workers);
                let (wants_empty, others_turn) = key.1;
                if others_turn {
                    let (lease, taken) = self.lease(0, LONG_AGO, max_crashes - 1);
                    let attempt = taken.attempt_id();
                    in_flight.insert([(lease, Arc::new(taken))], max_crashes);
                    in_flight.remove([attempt]);
                }
                for (job, token, crashes, runs) in &key.0 {
                    let (lease, taken) = self.lease(*job, *token, *crashes);
                    let attempt = taken.attempt_id();
                    in_flight.insert([(lease, Arc::new(taken))], max_crashes);
                    if !runs {
                        in_flight.free_worker(attempt);
                    }
                }
                in_flight.record_take(Capacity { jobs: 0, quarantine: Quarantine::Reserve }, wants_empty);
                let room = in_flight.capacity();
                self.rooms.insert(key, (room.jobs, room.quarantine));
                (room.jobs, room.quarantine)
            }
        };
        Capacity { jobs, quarantine: suspects }
    }
}
