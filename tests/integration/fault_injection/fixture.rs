//! The fixture of one row of the table: a Redis, the proxy in front of it, servers behind the proxy, and a direct
//! connection to Redis.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;

use threadq::internals::queue::{Queue, RepairPolicy, Settings};
use threadq::job::{JobId, NewJob, Start};

use super::proxy::{Call, Cut, Proxy};
use crate::common::http::Reply;
use crate::common::*;

/// The audit reports a server without a heartbeat for this long. The limit is high, because at a cut everything stands
/// still.
const POLICY: RepairPolicy = RepairPolicy { lease_timeout: Duration::from_secs(600), max_crashes: 3 };

/// The number of the database: not 0, so that connections must send SELECT.
const DATABASE: u8 = 3;
/// Clearly less than the time limits of the program: it waits 1 s for a connection and 1.8 s for a reply. After
/// that the call is an error, and the program does not send the command again.
const STILL_IN_TIME: Duration = Duration::from_millis(700);
/// More connections than the threads of a server normally use at the same moment.
const USED_CONNECTIONS: usize = 6;

/// One row of the table: a command of a transition, and what is in Redis when the connection breaks there.
pub struct Step {
    /// The name of a script's file, or a command in lower case.
    pub command: &'static str,
    /// The transition to which the command belongs.
    pub of: &'static str,
    /// The expected result of the play's look when the cut is before the command.
    pub before: &'static str,
    /// The expected result of the play's look when the cut is after Redis has executed the command.
    pub after: &'static str,
    /// The expected result of the play's last look, for every cut.
    pub end: &'static str,
    pub play: fn(&Stage),
}

pub struct Stage {
    pub redis: TestRedis,
    pub proxy: Proxy,
    /// A queue on a connection that is never cut.
    pub queue: Queue,
    pub cut: Cut,
    step: &'static Step,
    dir: TempDir,
    /// A proxy that never cuts.
    beside: Proxy,
}

impl Stage {
    pub fn new(step: &'static Step, cut: Cut) -> Stage {
        let redis = TestRedis::start_with(&["--appendonly", "no"]).in_database(DATABASE);
        // With a password, so that connections send their commands for the login too.
        redis.query::<()>(&["ACL", "SETUSER", "threadq", "on", ">secret", "~*", "+@all"]);
        let proxy = Proxy::new(redis.socket());
        let beside = proxy.beside(redis.socket());
        let settings = Settings { connections: 4, ..Settings::new(redis_url(&beside), "threadq") };
        let queue = Queue::new(&settings).unwrap();
        Stage { proxy, queue, redis, cut, step, dir: TempDir::new(), beside }
    }

    /// The Redis behind the proxy.
    pub fn redis_url(&self) -> String {
        redis_url(&self.proxy)
    }

    /// A server with the shortest lease. Its handlers write down each run.
    pub fn builder(&self) -> ServerBuilder {
        let handler = |name: &str, then: &str| {
            let ran = self.dir.join("ran");
            let ran = ran.display();
            let script =
                format!("echo $THREADQ_JOB_ID >> {ran}; runs=$(grep -c $THREADQ_JOB_ID {ran}); {then}");
            let backoff = "backoff = { base = \"20ms\", cap = \"20ms\" }";
            format!("[handlers.{name}]\nexec = [\"/bin/sh\", \"-c\", '{script}']\n{backoff}\n")
        };
        let config = [
            handler("note", "echo null"),
            // On its first run each: takes long, fails, fails for good, kills its server.
            handler("slow", "[ $runs -gt 1 ] || exec sleep 20"),
            handler("again", "[ $runs -gt 1 ]"),
            handler("bad", "[ $runs -gt 1 ] || exit 64"),
            handler("crash", "[ $runs -gt 1 ] || kill -9 $PPID"),
        ];
        TestServer::builder()
            .flag("redis-url", &self.redis_url())
            .flag("lease-timeout", "1s")
            .flag("workers", "4")
            .config(&config.concat())
    }

    /// Starts a server and waits until it is idle: it sends heartbeats, and its fetcher waits in BRPOPLPUSH.
    pub fn server(&self) -> TestServer {
        let server = self.builder().start();
        self.is_at_rest(&server);
        server
    }

    pub fn is_at_rest(&self, server: &TestServer) {
        server.wait_until_ready();
        let begin = Instant::now();
        loop {
            let (servers, clients) = (self.live_servers(), self.redis.query::<String>(&["CLIENT", "LIST"]));
            if servers == 1 && clients.contains("cmd=brpoplpush") {
                return;
            }
            assert!(begin.elapsed() < LIMIT, "{servers} servers, clients:\n{clients}\n{}", server.log_text());
            std::thread::sleep(ms(10));
        }
    }

    /// The same, and all its connections to Redis have carried a command before. A cut of such a connection does not
    /// count as an outage: the server repeats a command that is safe to repeat on a fresh connection.
    pub fn server_with_used_connections(&self) -> TestServer {
        let server = self.server();
        // The first request loads the script.
        self.until_answered(|| server.get("/jobs/1")).expect(404);
        eventually(LIMIT, "many connections are used at the same time", || {
            let crowd = self.proxy.gather("get", USED_CONNECTIONS);
            std::thread::scope(|scope| {
                let asks = || scope.spawn(|| server.get("/jobs/1").status);
                let asked: Vec<_> = (0..USED_CONNECTIONS).map(|_| asks()).collect();
                let is_met = crowd.meets(secs(1));
                asked.into_iter().all(|ask| ask.join().unwrap() == 404) && is_met
            })
        });
        server
    }

    /// Runs `act` until this step is reached, compares the result of `look` with the row, and breaks the connection.
    /// Returns the result of `act`.
    #[track_caller]
    pub fn at_step<T: Send>(&self, act: impl FnOnce() -> T + Send, look: impl FnOnce() -> String) -> T {
        self.at_step_when(
            |_| true,
            act,
            || {
                self.assert_sound();
                look()
            },
        )
    }

    /// The same for the first command that matches; `look` must check itself that the data is sound.
    #[track_caller]
    pub fn at_step_when<T: Send>(
        &self,
        matches: impl Fn(&Call) -> bool + Send + 'static,
        act: impl FnOnce() -> T + Send,
        look: impl FnOnce() -> String,
    ) -> T {
        self.proxy.arm(self.step.command, self.cut, matches);
        std::thread::scope(|scope| {
            let act = scope.spawn(act);
            let seen = catch_unwind(AssertUnwindSafe(|| {
                assert!(self.proxy.is_reached(LIMIT), "{} was not reached", self.step.command);
                look()
            }));
            self.proxy.release();
            let given = act.join().unwrap_or_else(|panic| resume_unwind(panic));
            let expected = if self.cut == Cut::Before { self.step.before } else { self.step.after };
            assert_eq!(seen.unwrap_or_else(|panic| resume_unwind(panic)), expected, "where it was cut");
            given
        })
    }

    /// Whether a reply or the look at the cut took so long that the program may have reached its time limit: the row
    /// does not describe that case. `panic` is the failure of the play.
    pub fn was_too_slow(&self, panic: &(dyn Any + Send)) -> bool {
        // The proxy `beside` never cuts, and Redis always runs: these errors come only from a slow machine. A program
        // that reached its time limit before the step never reaches the step.
        let signs = ["`Err` value: Unavailable(", "no reply in time", "was not reached"];
        let text = panic.downcast_ref::<String>();
        let has_given_up = text.is_some_and(|text| signs.iter().any(|sign| text.contains(sign)));
        has_given_up || self.proxy.longest_answer().max(self.beside.longest_answer()) > STILL_IN_TIME
    }

    /// The command of the row.
    pub fn step_command(&self) -> &'static str {
        self.step.command
    }

    /// Compares the last look with the row, and asserts that all lists are empty.
    #[track_caller]
    pub fn ends(&self, last: &str) {
        assert_eq!(last, self.step.end, "at last");
        eventually(LIMIT, "no list holds anything", || self.redis.live_handles().is_empty());
        self.assert_sound();
    }

    /// Asserts that these jobs end as the row says, that no other job exists, and that the server is ready.
    #[track_caller]
    pub fn all_end(&self, server: &Api, ids: &[u64]) {
        for id in ids {
            eventually(LIMIT, "the job ends", || self.job(*id).is_some_and(|job| job.status.is_final()));
            assert_eq!(self.fate(*id), self.step.end, "at last");
        }
        self.ends(self.step.end);
        assert_eq!(self.ids(), ids);
        server.wait_until_ready();
    }

    /// Asserts that the doctor finds nothing.
    #[track_caller]
    pub fn assert_sound(&self) {
        assert_eq!(self.queue.audit(POLICY).unwrap().findings, BTreeMap::new());
    }

    /// Submits a job on a connection that is never cut.
    pub fn submit(&self, kind: &str) -> u64 {
        self.submit_with(kind, |_| {})
    }

    pub fn submit_with(&self, kind: &str, change: impl FnOnce(&mut NewJob)) -> u64 {
        let mut job = NewJob::new(kind);
        change(&mut job);
        self.queue.submit(&[job], None, 1_000_000).unwrap().first.get()
    }

    /// Submits jobs of this type until one of them has led to the step: a fetcher between two commands claims a job in
    /// another way. Returns the ids of all these jobs.
    pub fn submit_until_reached(&self, kind: &str) -> Vec<u64> {
        let mut ids = vec![self.submit(kind)];
        while !self.proxy.is_reached(ms(200)) {
            let job = self.job(ids[ids.len() - 1]).expect("it was submitted");
            assert!(ids.len() < 100, "no job leads to {}", self.step.command);
            if job.status.is_final() {
                ids.push(self.submit(kind));
            }
        }
        ids
    }

    pub fn submit_delayed(&self, kind: &str, delay: Duration) -> u64 {
        self.submit_with(kind, |job| job.start = Start::AfterMs(delay.as_millis() as u64))
    }

    pub fn job(&self, id: u64) -> Option<threadq::job::Job> {
        self.queue.get(JobId::new(id).unwrap()).unwrap()
    }

    /// The ids of all jobs in Redis.
    pub fn ids(&self) -> Vec<u64> {
        let keys = self.redis.keys("{threadq}:job:*");
        keys.iter().filter_map(|key| key.rsplit(':').next()?.parse().ok()).collect()
    }

    /// A job's status, and every list and sorted set that contains the job: `queued in work_queue:default`.
    pub fn place(&self, id: u64) -> String {
        let Some(job) = self.job(id) else { return "gone".to_owned() };
        let text = id.to_string();
        let mut places = Vec::new();
        for (key, members) in self.redis.live_handles() {
            let name = key.trim_start_matches("{threadq}:");
            let name = if name.starts_with("in_progress_queue:") { "in_progress_queue" } else { name };
            places.extend(members.iter().filter(|member| **member == text).map(|_| name.to_owned()));
        }
        for name in ["done", "dlq_queue"] {
            let score: Option<f64> = self.redis.query(&["ZSCORE", &format!("{{threadq}}:{name}"), &text]);
            places.extend(score.map(|_| name.to_owned()));
        }
        let completed: Vec<String> = self.redis.query(&["LRANGE", "{threadq}:completed", "0", "-1"]);
        places.extend(completed.iter().filter(|id| **id == text).map(|_| "completed".to_owned()));
        format!("{} in {}", job.status, places.join(" and "))
    }

    /// The places of all jobs, without duplicates.
    pub fn places(&self) -> String {
        let mut places: Vec<String> = self.ids().into_iter().map(|id| self.place(id)).collect();
        places.sort();
        places.dedup();
        if places.is_empty() { "nothing".to_owned() } else { places.join(", ") }
    }

    /// A job's status, runs, attempts and crashes.
    pub fn fate(&self, id: u64) -> String {
        let Some(job) = self.job(id) else { return "gone".to_owned() };
        let runs = self.dir.read("ran").lines().filter(|line| *line == id.to_string()).count();
        format!("{}: {runs} runs, {} attempts, {} crashes", job.status, job.attempts, job.crashes)
    }

    /// The number of servers in the registry that are not dead.
    pub fn live_servers(&self) -> usize {
        let beats: Vec<String> = self.redis.query(&["HVALS", "{threadq}:servers"]);
        beats.iter().filter(|beat| !beat.starts_with('D')).count()
    }

    /// Runs a command; `T:` stands for the namespace.
    pub fn redis_says<T: ::redis::FromRedisValue>(&self, command: &str) -> T {
        let words: Vec<String> = command.split(' ').map(|word| word.replace("T:", "{threadq}:")).collect();
        self.redis.query(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// A function that runs a command past the proxy, for use in `matches`.
    pub fn question(&self, command: &str) -> impl Fn() -> u64 + Send + 'static {
        let connection = Mutex::new(self.redis.connection().unwrap());
        let words: Vec<String> = command.split(' ').map(|word| word.replace("T:", "{threadq}:")).collect();
        move || {
            let mut call = ::redis::cmd(&words[0]);
            call.arg(&words[1..]).query(&mut *connection.lock().unwrap()).unwrap()
        }
    }

    /// Repeats a request until its status is not 503.
    #[track_caller]
    pub fn until_answered(&self, ask: impl Fn() -> Reply) -> Reply {
        until_some(LIMIT, "an answer", || Some(ask()).filter(|reply| reply.status != 503))
    }

    /// The expectation for a repeated command: `anew` if Redis has not executed it before, else `again`.
    pub fn repeated<T>(&self, anew: T, again: T) -> T {
        if self.cut == Cut::Before { anew } else { again }
    }
}

fn redis_url(proxy: &Proxy) -> String {
    format!("redis://threadq:secret@{}/{DATABASE}", proxy.addr())
}
