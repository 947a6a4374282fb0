//! The system refuses a thread: at the start the server ends with an error; later it works again as soon as it gets the
//! thread.

use std::process::Command;

use rustix::process::getuid;

use crate::common::http::Connection;
use crate::common::private::Cleanup;
use crate::common::*;

/// The command that runs a program as a new user without any process: the limit of processes does not apply to root.
/// The user may read and write all files like root. Empty if the test does not run as root.
fn as_bound_user() -> Vec<String> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if !getuid().is_root() {
        return Vec::new();
    }
    let user = 400_000_000 + std::process::id() % 1_000_000 * 10 + NEXT.fetch_add(1, Ordering::Relaxed);
    let words =
        ["setpriv", &format!("--reuid={user}"), "--inh-caps=+dac_override", "--ambient-caps=+dac_override"];
    words.map(str::to_owned).to_vec()
}

/// A server with a limit of threads that the test can change.
struct Bound {
    server: TestServer,
    launcher: Vec<String>,
}

impl std::ops::Deref for Bound {
    type Target = TestServer;

    fn deref(&self) -> &TestServer {
        &self.server
    }
}

impl Bound {
    fn start(builder: ServerBuilder) -> Bound {
        let launcher = as_bound_user();
        Bound { server: builder.under(launcher.clone()).start(), launcher }
    }

    /// From now on the server can start no thread and no program.
    fn refuse_threads(&self) {
        self.limit_threads("1:");
    }

    fn allow_threads(&self) {
        self.limit_threads("1000:");
    }

    fn limit_threads(&self, limit: &str) {
        let prlimit =
            ["prlimit".to_owned(), format!("--pid={}", self.server.pid()), format!("--nproc={limit}")];
        let words: Vec<&String> = self.launcher.iter().chain(&prlimit).collect();
        let done = Command::new(words[0]).args(&words[1..]).status();
        assert!(done.is_ok_and(|status| status.success()), "{words:?}");
    }
}

#[test]
fn a_start_without_threads_says_so() {
    let redis = TestRedis::start();
    for (workers, limit) in [("200", "150"), ("4", "1"), ("4", "2"), ("4", "10"), ("4", "20"), ("4", "30")] {
        let mut words = as_bound_user();
        // A user other than root has other threads already: only a limit of 1 surely refuses a thread.
        let limit = if words.is_empty() { "1" } else { limit };
        words.extend(["prlimit".to_owned(), format!("--nproc={limit}:")]);
        let ended = TestServer::builder().redis(&redis).flag("workers", workers).under(words).run_serve();
        assert_eq!(ended.code, Some(1), "{limit}: {ended:?}");
        assert_eq!(ended.stdout, "");
        let wanted = match limit {
            "1" => "threadq: cannot set the signal handler: ",
            _ => "threadq: cannot start the threads that this server needs (",
        };
        assert!(ended.stderr.starts_with(wanted), "{limit}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{limit}: {}", ended.stderr);
    }
}

#[test]
fn a_running_server_lives_through_a_time_without_new_threads() {
    let redis = TestRedis::start();
    let config = "[handlers.program]\nexec = [\"/bin/sh\", \"-c\", \"echo 1\"]\nbackoff = { base = \"2s\", cap = \"2s\" }\n";
    let server = Bound::start(TestServer::builder().redis(&redis).flag("workers", "2").config(config));
    let observer = TestServer::observer(&redis);
    let mut kept = Connection::open(server.addr()).expect("a connection");
    let mut ask = |path: &str| kept.request("GET", path, &[], None).expect("an answer").status;
    // Open a connection to tiny_http, which is kept and served without a new thread. /healthz would not open one.
    assert_eq!(ask("/stats"), 200);
    let running = observer.submit("sleep", json!({"ms": 4000}));
    observer.wait_for_status(running, "processing");
    server.refuse_threads();

    // A handler that does not return, on a thread that cannot be replaced; and a program that cannot be started.
    let hangs = observer.submit_job(json!({"type": "hang", "timeout_ms": 100, "max_attempts": 1}));
    let program = observer.submit_job(json!({"type": "program", "max_attempts": 100}));
    observer.wait_for(program, LIMIT, "failed to start", |job| {
        job["last_error"].as_str().is_some_and(|error| error.contains("cannot run"))
    });
    // New connections are closed at once; the old connection is served.
    let begin = Instant::now();
    for _ in 0..10 {
        assert!(server.try_request("GET", "/healthz", &[], None).is_err(), "there is a thread for it");
    }
    assert!(begin.elapsed() < secs(10), "{:?}", begin.elapsed());
    assert_eq!(ask("/stats"), 200);
    observer.wait_for_status(hangs, "failed");
    observer.wait_for_status(running, "completed");
    eventually(LIMIT, "the lost thread is told", || {
        server.log_text().contains("cannot replace a worker thread")
    });
    let beside = observer.submit_batch(&vec![json!({"type": "echo"}); 20]);
    for id in &beside {
        let job = observer.wait_for_status(*id, "completed");
        assert_eq!((&job["attempts"], &job["crashes"]), (&json!(1), &json!(0)), "{job:#}");
    }
    assert_eq!(ask("/stats"), 200);

    // Everything works again.
    server.allow_threads();
    assert_eq!(observer.wait_for_status(program, "completed")["crashes"], 0);
    server.wait_until_ready();
    eventually(LIMIT, "both workers are there", || {
        let stats = server.get("/stats").expect(200).json();
        let servers = stats["servers"].as_array().expect("servers");
        servers.iter().any(|server| server["workers"] == 2)
    });
    let later = server.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 20}}); 20]);
    for id in &later {
        server.wait_for_status(*id, "completed");
    }
    audit(&redis, &server, &[vec![running, hangs, program], beside, later].concat());
    let refusals = server.log_text().matches("cannot accept connections").count();
    assert!((1..=2).contains(&refusals), "once per trouble:\n{}", server.log_tail());
}

#[test]
fn the_api_is_not_deaf_after_requests_that_found_no_thread() {
    let redis = TestRedis::start();
    let server = Bound::start(TestServer::builder().redis(&redis).flag("workers", "2"));
    let open = || -> Vec<Connection> {
        let mut all: Vec<_> =
            (0..60).map(|_| Connection::open(server.addr()).expect("a connection")).collect();
        for connection in &mut all {
            assert_eq!(connection.request("GET", "/healthz", &[], None).expect("an answer").status, 200);
        }
        all
    };
    let id = server.submit("sleep", json!({"ms": 600_000}));
    // Each waiting request occupies a connection to tiny_http: every other request needs a new one, with a new thread.
    let wait_on = |mut connections: Vec<Connection>| -> Vec<u16> {
        let path = format!("/jobs/{id}?wait=1s");
        for connection in &mut connections {
            connection.send("GET", &path, &[], None).expect("sent");
        }
        connections.iter_mut().map(|one| one.receive(false).expect("an answer").status).collect()
    };
    let connections = open();
    server.refuse_threads();
    let answers = wait_on(connections);
    assert!(
        answers.contains(&200) && answers.iter().any(|status| matches!(status, 502 | 503)),
        "some found a way in, and some did not: {answers:?}"
    );
    server.allow_threads();
    // The first request that needs tiny_http restarts it if it was broken.
    assert_eq!(wait_on(open()), [200; 60], "{}", server.log_tail());
    let log = server.log_text();
    assert_eq!(log.matches("cannot connect to tiny_http").count(), 1, "{log}");
    assert!(log.matches("tiny_http was restarted").count() <= 1, "{log}");
    server.act(&format!("/jobs/{id}/cancel")).expect(202);
    server.wait_for_status(id, "cancelled");
    audit(&redis, &server, &[id]);
}

#[test]
fn every_thread_has_a_name_that_says_what_it_does() {
    // With a private Redis, so that its threads exist too.
    let data = TempDir::new();
    let _cleanup = Cleanup(data.path().to_owned());
    let queues = "default,mail,a-queue-with-a-long-name,a-queue-with-a-long-nose";
    let builder = TestServer::builder().flag("data-dir", data.path().to_str().expect("text"));
    let server = builder.flag("queues", queues).flag("workers", "12").start();
    server.wait_until_ready();
    server.complete("echo", json!({}));
    let names = || {
        let mut names = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("it runs").flatten() {
            // A thread may end before its name is read.
            names
                .extend(std::fs::read_to_string(task.path().join("comm")).map(|name| name.trim().to_owned()));
        }
        names.sort();
        names
    };
    let names = names();
    // tiny_http does not name its threads: they have the name of the thread that starts them.
    let (inner, own): (Vec<&String>, Vec<&String>) = names.iter().partition(|name| *name == "tiny_http");
    assert!(inner.len() >= 5, "{names:?}");
    assert!(own.windows(2).all(|pair| pair[0] != pair[1]), "two threads of one name: {names:?}");
    let known = [
        ["api-", "worker-", "conn-", "redis-connect-"].as_slice(),
        &["threadq", "ctrl-c", "gate", "api-waits", "redis-watch"],
        &["heartbeat", "reaper", "figures", "scheduler", "janitor", "committer", "watchdog"],
        &["fetch-default", "fetch-mail", "fetch-a-queue~2", "fetch-a-queue~3"],
    ]
    .concat();
    let is_known = |name: &str| {
        known.iter().any(|known| if known.ends_with('-') { name.starts_with(known) } else { name == *known })
    };
    let unknown: Vec<_> = own.iter().filter(|name| !is_known(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    for known in known.iter().filter(|known| !["conn-"].contains(known)) {
        let there = own.iter().any(|name| name == known || known.ends_with('-') && name.starts_with(known));
        assert!(there, "no thread {known}: {names:?}");
    }
}
