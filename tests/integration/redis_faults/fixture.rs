//! The fixture of all faults of Redis: a Redis, a server that runs jobs on it, and checks from outside.

use std::thread::JoinHandle;

use crate::common::*;

/// The workers of the fixture's server: few, so that some jobs run and some wait.
pub const WORKERS: usize = 4;
/// The queue for submissions during a fault: they may be stored or not.
const MAYBE: &str = "maybe";

/// A server with jobs that run, jobs that wait for a worker, and jobs that are scheduled.
pub struct Scene {
    pub redis: TestRedis,
    pub server: TestServer,
    /// The jobs that run when the fault begins.
    pub running: Vec<u64>,
    waiting: Vec<u64>,
    /// The length of the log in bytes when the fault begins.
    mark: usize,
}

impl Scene {
    pub fn start() -> Scene {
        let redis = durable_redis();
        let url = redis.url();
        Scene::on(redis, &url)
    }

    /// The server reaches its Redis by this URL.
    pub fn on(redis: TestRedis, url: &str) -> Scene {
        let server = TestServer::builder()
            .flag("redis-url", url)
            .config(QUICK_BACKOFF)
            .flag("workers", &WORKERS.to_string())
            .flag("queues", &format!("default=9,{MAYBE}"))
            .start();
        server.wait_until_ready();
        let running = server.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 3000}}); WORKERS]);
        for id in &running {
            server.wait_for_status(*id, "processing");
        }
        let mut waiting = server.submit_batch(&vec![json!({"type": "echo"}); 10]);
        waiting.extend(server.submit_batch(&vec![json!({"type": "echo", "delay_ms": 700}); 2]));
        let mark = server.log_text().len();
        Scene { redis, server, running, waiting, mark }
    }

    /// Waits until the running jobs have ended; their outcomes cannot be written yet.
    #[track_caller]
    pub fn running_jobs_end(&self) {
        eventually(LIMIT, "the running jobs end all the same", || {
            self.server.metric("threadq_workers_busy") == 0.0
        });
    }

    /// `posted_may_be_stored`: jobs that were posted during the fault may be in Redis, because only the reply was lost.
    #[track_caller]
    pub fn all_is_well_again(&self, posted_may_be_stored: bool) {
        let Scene { redis, server, running, waiting, .. } = self;
        server.wait_until_ready();
        for id in running.iter().chain(waiting) {
            let job = server.wait_for_status(*id, "completed");
            assert_eq!((&job["attempts"], &job["crashes"]), (&json!(1), &json!(0)), "{job:#}");
        }
        let new = server.complete("echo", json!("new"))["id"].as_u64().expect("an id");
        wait_until_quiet(server, LIMIT);
        let posted = server.list_all("/jobs", "");
        let posted = posted.iter().filter(|job| job["queue"] == MAYBE).filter_map(|job| job["id"].as_u64());
        let posted: Vec<u64> = posted.collect();
        assert!(
            posted_may_be_stored || posted.is_empty(),
            "refused with 503, and stored all the same: {posted:?}"
        );
        let outcomes = audit(redis, server, &[running.as_slice(), waiting, &posted, &[new]].concat());
        assert!(outcomes.values().all(|status| status == "completed"), "{outcomes:?}");
        assert_eq!(server.metric("threadq_redis_up"), 1.0);
    }

    /// The messages of the log since the fault began, without their times.
    pub fn said(&self) -> Vec<String> {
        let log = self.server.log_text();
        log[self.mark..]
            .lines()
            .map(|line| line.split_once(' ').map_or(line, |(_, rest)| rest).to_owned())
            .collect()
    }

    /// Asserts that the log since the fault has exactly these lines, in this order; `parts` has a part of each line.
    /// Lines about a recovered job, whose claim was lost, do not count: they depend on chance. Neither does the line about
    /// another Redis: a Redis that has just started cannot be told from a restarted one.
    #[track_caller]
    pub fn assert_said(&self, parts: &[&str]) {
        let said = || {
            let depends_on_chance = |line: &String| {
                let parts = [
                    "hand-over was lost",
                    "Redis has moved to",
                    // Of two requests on broken connections.
                    "another reason: Connection reset by peer",
                    "another reason: Redis closed the connection",
                ];
                parts.iter().any(|part| line.contains(part))
            };
            self.said().into_iter().filter(|line| !depends_on_chance(line)).collect::<Vec<_>>()
        };
        let is_all = |said: &[String]| {
            said.len() == parts.len() && said.iter().zip(parts).all(|(line, part)| line.contains(part))
        };
        // The last line may be logged a moment after the end of the fault.
        let begin = Instant::now();
        while !is_all(&said()) {
            assert!(begin.elapsed() < secs(15), "not {parts:#?} but {:#?}", said());
            std::thread::sleep(ms(50));
        }
    }
}

/// A Redis that writes to the disk before it replies; with `everysec` a kill may lose the last two seconds.
pub fn durable_redis() -> TestRedis {
    TestRedis::start_with(&["--appendfsync", "always"])
}

/// Starts a request that waits for a job's end. Returns when the request waits, or is answered because the job has ended.
pub fn start_waiting(server: &TestServer, id: u64) -> JoinHandle<Reply> {
    let waiting = || server.metric("threadq_http_requests_waiting");
    let before = waiting();
    let api = Api::clone(server);
    let waiter = std::thread::spawn(move || api.get(&format!("/jobs/{id}?wait=60s")));
    eventually(LIMIT, "it waits", || waiting() > before || waiter.is_finished());
    waiter
}

/// One client request of each kind.
const REQUESTS: [(&str, &str, Option<&str>); 8] = [
    ("POST", "/jobs", Some(r#"{"type": "echo", "queue": "maybe"}"#)),
    ("POST", "/jobs/batch", Some(r#"{"jobs": [{"type": "echo", "queue": "maybe"}]}"#)),
    ("POST", "/jobs/1/cancel", Some("")),
    ("GET", "/jobs", None),
    ("GET", "/jobs/1", None),
    ("GET", "/dlq", None),
    ("GET", "/queues", None),
    ("GET", "/stats", None),
];

/// Sends a request. Asserts a response within 3 s (plus 1 s for a busy machine).
#[track_caller]
fn ask(server: &TestServer, (method, path, body): (&str, &str, Option<&str>)) -> Reply {
    let begin = Instant::now();
    let reply =
        server.request(method, path, &[("Content-Type", "application/json")], body.map(str::as_bytes));
    let took = begin.elapsed();
    assert!(took <= secs(4), "{method} {path} answered after {took:?}");
    reply
}

/// Asserts a 503 with a `Retry-After`.
#[track_caller]
fn assert_503(reply: &Reply, context: &str) {
    reply.expect_error(503, "store_unavailable", context);
    let after = reply.header("Retry-After").unwrap_or_else(|| panic!("{context}: no Retry-After"));
    assert!(after.parse::<u32>().is_ok_and(|s| s >= 1), "Retry-After: {after}");
}

#[track_caller]
fn assert_alive_but_not_ready(server: &TestServer, reason: &str) {
    ask(server, ("GET", "/healthz", None)).expect(200);
    let mut last = String::new();
    let begin = Instant::now();
    while !last.contains(reason) {
        assert!(begin.elapsed() < secs(10), "readyz gives no reason like {reason:?}: {last}");
        let reply = ask(server, ("GET", "/readyz", None));
        last = reply.expect_error(503, "store_unavailable", reason);
    }
}

/// Asserts that every request gets a 503 in time, and that `/readyz` has the reason: Redis cannot be reached.
#[track_caller]
pub fn assert_away(server: &TestServer, reason: &str) {
    for request in REQUESTS {
        assert_503(&ask(server, request), &format!("{reason}: {} {}", request.0, request.1));
    }
    assert_alive_but_not_ready(server, reason);
    assert_eq!(server.metric("threadq_redis_up"), 0.0, "{reason}");
}

/// Asserts that writes get a 503 and reads a 200: Redis refuses writes.
#[track_caller]
pub fn assert_takes_nothing_new(server: &TestServer, reason: &str) {
    for request in &REQUESTS[..2] {
        let reply = ask(server, *request);
        assert_503(&reply, reason);
        assert!(reply.text().contains(reason), "{reason}: {}", reply.text());
    }
    ask(server, ("GET", "/jobs", None)).expect(200);
    ask(server, ("GET", "/jobs/1", None)).expect(404);
    ask(server, ("GET", "/stats", None)).expect(200);
    assert_alive_but_not_ready(server, reason);
    assert_eq!(server.metric("threadq_redis_up"), 1.0, "{reason}");
}
