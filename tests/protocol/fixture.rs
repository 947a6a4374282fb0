//! The fixture of one test: a namespace in Redis, a queue that works in it, and a direct connection.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use redis::FromRedisValue;
use serde_json::value::RawValue;
use threadq::internals::queue::{
    Changed, Claimed, Error, Lease, Quarantine, Queue, Reclaimed, Refused, Selection, ServerFacts, ServerId,
    Settings, Settled, Settlement, Share, StartedJobs, SubmitError, Submitted, Verdict, Walk,
};
use threadq::job::{Job, JobId, NewJob, Start, Status};

use crate::common::TestRedis;
use crate::guards::Change;
use crate::lua_proxy::LuaProxy;

pub const MAX_CRASHES: u32 = 3;
pub const NO_LIMIT: u64 = 1_000_000;

pub struct Place {
    pub queue: Queue,
    pub wire: LuaProxy,
    connection: RefCell<redis::Connection>,
    namespace: String,
    /// Ends after everything above.
    shared: Arc<TestRedis>,
}

/// A redis-server for a test that changes how Redis works.
pub fn new_redis() -> TestRedis {
    TestRedis::start_with(&["--appendonly", "no"])
}

/// The number of places that share a redis-server. Redis keeps the scripts of each place, whose text has its namespace, and
/// looks at the keys of all places for KEYS: with hundreds of places it is slow, and may reply too late.
const PLACES: usize = 50;

/// A redis-server that several tests share; it ends with the last of its places.
fn shared_redis() -> Arc<TestRedis> {
    static RUNNING: Mutex<(Weak<TestRedis>, usize)> = Mutex::new((Weak::new(), 0));
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.1 += 1;
    match running.0.upgrade() {
        Some(redis) if running.1 <= PLACES => redis,
        _ => {
            let redis = Arc::new(new_redis());
            *running = (Arc::downgrade(&redis), 1);
            redis
        }
    }
}

impl Place {
    pub fn new() -> Place {
        Place::on(shared_redis())
    }

    /// A place with its own Redis.
    pub fn alone() -> Place {
        Place::on(Arc::new(new_redis()))
    }

    /// A place where every list with an entry counts as a long one.
    pub fn of_long_lists() -> Place {
        Place::changed(shared_redis(), vec![long_lists()])
    }

    /// A place where a test moves the clock of the scripts ahead, see [`Place::passes`].
    pub fn with_moving_clock() -> Place {
        Place::changed(shared_redis(), moving_clock().into())
    }

    /// A place whose scripts have these changes.
    pub fn with_changes(changes: Vec<Change>) -> Place {
        Place::changed(shared_redis(), changes)
    }

    fn on(redis: Arc<TestRedis>) -> Place {
        Place::changed(redis, Vec::new())
    }

    fn changed(redis: Arc<TestRedis>, changes: Vec<Change>) -> Place {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let namespace = format!("p{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let wire = LuaProxy::changing(redis.socket().with_file_name(&namespace), redis.socket(), changes);
        let connection = RefCell::new(redis.connection().unwrap());
        let queue = open_queue(wire.url(), &namespace);
        Place { queue, wire, connection, namespace, shared: redis }
    }

    /// Lets this time pass, in ms.
    pub fn passes(&self, ms: u64) {
        let _: i64 = self.redis("INCRBY", "clock", &[&ms.to_string()]);
    }

    /// The queue of another process: it does not know that the first queue lost its connection.
    pub fn another_queue(&self) -> Queue {
        open_queue(self.wire.url(), &self.namespace)
    }

    /// A queue of the same jobs that waits for one replica. This Redis has none.
    pub fn queue_with_replica(&self) -> Queue {
        open_replicated_queue(self.wire.url(), &self.namespace, 1)
    }

    pub fn key(&self, name: &str) -> String {
        format!("{{{}}}:{name}", self.namespace)
    }

    /// Runs any command; `name` is a key without its namespace.
    #[track_caller]
    pub fn redis<T: FromRedisValue>(&self, command: &str, name: &str, words: &[&str]) -> T {
        let mut call = redis::cmd(command);
        call.arg(self.key(name)).arg(words);
        let answer = call.query(&mut *self.connection.borrow_mut());
        answer.unwrap_or_else(|e| panic!("{command} {name}: {e}"))
    }

    /// Runs a command.
    #[track_caller]
    pub fn run<T: FromRedisValue>(&self, command: &redis::Cmd) -> T {
        command.query(&mut *self.connection.borrow_mut()).unwrap()
    }

    /// Runs a command and returns an error of Redis.
    pub fn try_run(&self, command: &redis::Cmd) -> redis::RedisResult<redis::Value> {
        command.query(&mut *self.connection.borrow_mut())
    }

    /// Runs commands with `T:` in place of the namespace.
    #[track_caller]
    pub fn raw(&self, commands: &[&str]) {
        for command in commands {
            let answer: redis::Value = self.run(&self.command(command));
            assert!(!matches!(answer, redis::Value::ServerError(_)), "{command}: {answer:?}");
        }
    }

    /// Runs a command right before the next call of a script with these words.
    pub fn meanwhile(&self, script: &str, words: &[&str], command: &str) {
        let command = self.command(command);
        let mut connection = self.shared.connection().unwrap();
        self.wire.meanwhile(script, words, move || {
            let _: redis::Value = command.query(&mut connection).unwrap();
        });
    }

    fn command(&self, text: &str) -> redis::Cmd {
        let mut words = text.split(' ').map(|word| word.replace("T:", &self.key("")));
        let mut command = redis::cmd(&words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        command
    }

    /// All keys, without their namespace.
    pub fn keys(&self) -> Vec<String> {
        let prefix = self.key("");
        let mut call = redis::cmd("KEYS");
        call.arg(format!("{prefix}*"));
        let keys: Vec<String> = call.query(&mut *self.connection.borrow_mut()).unwrap();
        keys.into_iter().map(|key| key[prefix.len()..].to_owned()).collect()
    }

    pub fn list(&self, name: &str) -> Vec<String> {
        self.redis("LRANGE", name, &["0", "-1"])
    }

    pub fn server(&self) -> ServerId {
        let server = ServerId::generate();
        self.queue.register(&server, &ServerFacts::new(8, &["default"])).unwrap();
        server
    }

    /// Makes a registered server look like a server of version 0.6, which does not know the type index.
    pub fn make_old(&self, server: &ServerId) {
        let _: i64 = self.redis("HDEL", &format!("server:{server}"), &["version"]);
    }

    pub fn try_submit(&self, jobs: &[NewJob]) -> Result<Submitted, Refused> {
        self.queue.submit(jobs, None, NO_LIMIT).map_err(|error| match error {
            SubmitError::Refused(refused) => refused,
            SubmitError::Queue(error) => panic!("{error}"),
        })
    }

    #[track_caller]
    pub fn submit_with(&self, change: impl FnOnce(&mut NewJob)) -> JobId {
        let mut job = NewJob::new("t");
        change(&mut job);
        self.try_submit(&[job]).unwrap().first
    }

    pub fn submit(&self) -> JobId {
        self.submit_with(|_| {})
    }

    pub fn submit_many(&self, count: usize) -> Vec<JobId> {
        (0..count).map(|_| self.submit()).collect()
    }

    /// Submits a job that is scheduled for much later.
    pub fn submit_delayed(&self) -> JobId {
        self.submit_with(|job| job.start = Start::AfterMs(3_600_000))
    }

    /// Makes a scheduled job due.
    pub fn make_due(&self, id: JobId) {
        let _: i64 = self.redis("HSET", &format!("job:{id}"), &["scheduled_at", "1"]);
        let _: i64 = self.redis("ZADD", "scheduled", &["1", &id.to_string()]);
    }

    /// A ready job with crashes on its record.
    pub fn submit_crashed(&self, crashes: u32) -> JobId {
        let id = self.submit();
        let _: i64 = self.redis("HSET", &format!("job:{id}"), &["crashes", &crashes.to_string()]);
        id
    }

    /// A ready job on its final attempt, in the list of these jobs.
    pub fn submit_suspect(&self) -> JobId {
        self.submit_suspect_in("default", MAX_CRASHES - 1)
    }

    /// A ready job with crashes on its record, in the list of jobs on their final attempt.
    pub fn submit_suspect_in(&self, queue: &str, crashes: u32) -> JobId {
        let id = self.submit_with(|job| job.queue = queue.to_owned());
        let _: i64 = self.redis("HSET", &format!("job:{id}"), &["crashes", &crashes.to_string()]);
        let _: i64 = self.redis("LREM", &format!("work_queue:{queue}"), &["1", &id.to_string()]);
        let _: i64 = self.redis("LPUSH", &format!("work_queue:{queue}:suspects"), &[&id.to_string()]);
        id
    }

    #[track_caller]
    pub fn fetch(&self, server: &ServerId) -> Claimed {
        self.queue.wait_for_job(server, "default").unwrap().expect("a job")
    }

    pub fn try_take(
        &self,
        server: &ServerId,
        jobs: usize,
        suspects: Quarantine,
        fetched: Option<&Claimed>,
    ) -> Result<StartedJobs, Error> {
        self.queue.start_jobs(server, &shares(jobs), suspects, MAX_CRASHES, fetched)
    }

    /// Takes ready jobs, including jobs in quarantine.
    #[track_caller]
    pub fn take(&self, server: &ServerId, jobs: usize) -> Vec<(Lease, Job)> {
        let taken = self.try_take(server, jobs, Quarantine::Start, None).expect("not fenced");
        assert!(taken.broken.is_empty(), "{:?}", taken.broken);
        taken.jobs
    }

    /// Starts jobs of these shares.
    pub fn try_start(
        &self,
        server: &ServerId,
        shares: &[Share],
        quarantine: Quarantine,
    ) -> Result<StartedJobs, Error> {
        self.queue.start_jobs(server, shares, quarantine, MAX_CRASHES, None)
    }

    #[track_caller]
    pub fn take_one(&self, server: &ServerId) -> Lease {
        let mut taken = self.take(server, 1);
        assert_eq!(taken.len(), 1);
        taken.remove(0).0
    }

    #[track_caller]
    pub fn settle(&self, server: &ServerId, settlement: &Settlement) -> Settled {
        self.queue.settle(server, std::slice::from_ref(settlement)).unwrap().results[0]
    }

    pub fn beat_value(&self, server: &ServerId) -> Option<String> {
        self.redis("HGET", "servers", &[server.as_str()])
    }

    /// Reclaims the jobs of this server, whose heartbeat has stopped.
    #[track_caller]
    pub fn dies(&self, server: &ServerId) -> Reclaimed {
        let observed = self.beat_value(server).expect("a registered server");
        self.queue.reclaim(server.as_str(), &observed, MAX_CRASHES).unwrap().expect("nobody beat meanwhile")
    }

    #[track_caller]
    pub fn cancel(&self, id: JobId) -> Changed {
        self.queue.cancel(&[id], &[]).unwrap().remove(0)
    }

    #[track_caller]
    pub fn job(&self, id: JobId) -> Job {
        self.queue.get(id).unwrap().expect("a job")
    }

    #[track_caller]
    pub fn status(&self, id: JobId) -> Status {
        self.job(id).status
    }

    /// The lists and sorted sets in which a job waits, runs or is kept that contain this id; once per entry.
    pub fn handles(&self, id: JobId) -> Vec<String> {
        let id = id.to_string();
        let mut handles = Vec::new();
        for key in self.keys() {
            if key.starts_with("work_queue:") || key.starts_with("in_progress_queue:") || key == "completed" {
                handles.extend(self.list(&key).iter().filter(|entry| **entry == id).map(|_| key.clone()));
            } else if (key.starts_with("held:")
                || matches!(key.as_str(), "scheduled" | "done" | "dlq_queue" | "lost"))
                && self.redis::<Option<f64>>("ZSCORE", &key, &[&id]).is_some()
            {
                handles.push(key);
            }
        }
        handles.sort();
        handles
    }
}

/// The change with which scripts treat every non-empty list as a long one, which they do not search.
pub fn long_lists() -> Change {
    Change::new("common", "local SHORT = 2048", "local SHORT = 0")
}

/// The changes with which the clock of scripts is ahead of Redis's clock by the ms in the key `clock`. What Redis deletes
/// at a time of its own it deletes too late by this clock.
pub fn moving_clock() -> [Change; 2] {
    let ahead = "tonumber(call('GET', PREFIX .. 'clock') or 0)";
    let ms = "return time[1] * 1000 + math.floor(time[2] / 1000)";
    let id = "time[1] * 1000000 + time[2]";
    [(ms, format!("{ms} + {ahead}")), (id, format!("{id} + 1000 * {ahead}"))]
        .map(|(text, moved)| Change::new("common", text, &moved))
}

pub fn open_queue(url: String, namespace: &str) -> Queue {
    open_replicated_queue(url, namespace, 0)
}

/// A queue that acknowledges a submission when this number of replicas has it.
fn open_replicated_queue(url: String, namespace: &str, replicas: u32) -> Queue {
    let settings = Settings { connections: 2, replicas, ..Settings::new(url, namespace) };
    Queue::new(&settings).unwrap()
}

pub fn shares(jobs: usize) -> [Share; 1] {
    [Share { queue: "default".to_owned(), jobs }]
}

pub fn in_progress(server: &ServerId) -> String {
    format!("in_progress_queue:{server}")
}

pub fn completed(lease: Lease) -> Settlement {
    Settlement { lease, verdict: Verdict::Complete(RawValue::from_string("1".to_owned()).unwrap()) }
}

/// A settlement of a failed attempt with a retry much later.
pub fn retried(lease: Lease) -> Settlement {
    Settlement {
        lease,
        verdict: Verdict::Retry { error: "no".to_owned(), delay: Duration::from_secs(3600), throttle: None },
    }
}

pub fn buried(lease: Lease) -> Settlement {
    Settlement { lease, verdict: Verdict::Fail("never".to_owned()) }
}

pub fn released(lease: Lease) -> Settlement {
    Settlement { lease, verdict: Verdict::Release }
}

/// All jobs of a selection, by steps that look at `most` jobs each.
#[track_caller]
pub fn select_all(place: &Place, selection: &Selection, most: usize) -> Vec<JobId> {
    let (mut all, mut walk) = (Vec::new(), Some(Walk::default()));
    // A bound, so that an endless walk fails.
    for _ in 0..10_000 {
        let Some(here) = walk else { return all };
        let (ids, next) = place.queue.select(selection, here, most).unwrap();
        assert!(ids.len() <= most, "{} of {most}", ids.len());
        all.extend(ids);
        walk = next;
    }
    panic!("a walk without an end: {all:?}");
}

pub fn ids<T>(taken: &[(T, Job)]) -> Vec<JobId> {
    taken.iter().map(|(_, job)| job.id).collect()
}
