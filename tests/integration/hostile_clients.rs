//! Clients that are slow, silent or too many, and a server that is short of descriptors or threads. Other clients are
//! served meanwhile, and afterwards the server uses no more resources than before.

use crate::common::process::{descriptor_limit, descriptors, lower, threads};
use crate::common::*;

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

const CROWD: Sizes = Sizes { idle: 2_000, slow_heads: 200, slow_bodies: 200, never_reading: 50 };
/// Slow clients get 10 s, and must be disconnected after 15 s; twice that on a busy machine.
const LONGEST_STAY: Duration = Duration::from_secs(30);
/// The resources that a server keeps after its peak: connections to tiny_http, each with a thread, and connections to Redis.
const KEPT_THREADS: usize = 12;
const KEPT_DESCRIPTORS: usize = 40;

/// Sends normal requests beside a crowd. Asserts that no request fails, that slow clients are disconnected, and that
/// the server frees all resources of the crowd.
fn serve_beside_a_crowd(change: impl FnOnce(ServerBuilder) -> ServerBuilder) {
    let redis = TestRedis::start();
    let server = change(TestServer::builder().redis(&redis)).start();
    // A page of these jobs has 600 KB: two pages do not fit into the socket buffers of a client that does not read. A
    // listing omits longer payloads.
    for _ in 0..40 {
        server.submit_job(json!({"type": "echo", "queue": "nobody", "payload": "x".repeat(15_000)}));
    }
    for number in 0..20 {
        assert_eq!(server.complete("echo", json!(number))["result"], number);
    }
    let before = (threads(server.pid()), descriptors(server.pid()).len());
    let is_over = AtomicBool::new(false);
    let mut served = 0;
    std::thread::scope(|scope| {
        let attack = scope.spawn(|| {
            let is_over = SetWhenDropped(&is_over);
            let mut crowd = Crowd::gather(server.addr(), CROWD);
            eventually(secs(180), "all slow clients are sent away", || {
                std::thread::sleep(slow_clients::ROUND);
                crowd.go_on() == 0
            });
            drop(is_over);
            crowd.longest_stay()
        });
        while !is_over.load(SeqCst) {
            let key = format!("round-{served}");
            let job = json!({"type": "echo", "payload": served});
            let submitted = persistent(|| server.try_post("/jobs", &[("Idempotency-Key", &key)], &job));
            assert!(matches!(submitted.status, 200 | 202), "{}", submitted.text());
            persistent(|| server.try_request("GET", "/stats", &[], None)).expect(200);
            served += 1;
        }
        let longest = attack.join().expect("no panic");
        assert!(longest < LONGEST_STAY, "a slow client stayed for {longest:?}");
    });
    assert!(served > 20, "only {served} rounds of requests beside the crowd");
    eventually(LIMIT, "threads and descriptors are back to the start", || {
        threads(server.pid()) <= before.0 + KEPT_THREADS
            && descriptors(server.pid()).len() <= before.1 + KEPT_DESCRIPTORS
    });
    assert_eq!(server.complete("echo", json!("after"))["result"], "after");
}

/// The server may close a connection before it has read the request: a client then sends the request again.
fn persistent(mut ask: impl FnMut() -> std::io::Result<http::Reply>) -> http::Reply {
    ask().or_else(|_| ask()).expect("an answer")
}

/// Ends the loop of the normal requests, even if the attack panics.
struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn beside_a_crowd_of_hostile_clients_requests_are_served() {
    serve_beside_a_crowd(|builder| builder);
}

#[test]
fn beside_a_crowd_requests_are_served_with_256_descriptors_too() {
    serve_beside_a_crowd(|builder| builder.under(["prlimit", "--nofile=256:256"]));
}

#[test]
fn with_few_connections_waiting_requests_leave_room_for_others() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("max-connections", "8").start();
    let id = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    let _waiting: Vec<_> = (0..8)
        .map(|_| {
            let mut connection = http::Connection::open(server.addr()).expect("connects");
            connection.send("GET", &format!("/jobs/{id}?wait=60s"), &[], None).expect("sent");
            connection
        })
        .collect();
    let path = format!("/jobs/{id}?wait=10ms");
    eventually(LIMIT, "no more may wait", || {
        let reply = server.try_request("GET", &path, &[], None);
        reply.is_ok_and(|reply| reply.status == 503 && reply.json()["code"] == "too_many_waiting")
    });
    persistent(|| server.try_request("GET", "/stats", &[], None)).expect(200);
}

#[test]
fn the_limit_of_descriptors_is_raised_at_start() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).under(["prlimit", "--nofile=200:1000"]).start();
    assert_eq!(descriptor_limit(server.pid()), 1000);
}

#[test]
fn only_its_own_user_gets_past_the_gate() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    server.get("/healthz").expect(200);
    // The file of tiny_http's socket is removed. The server reaches the socket through its descriptor of that file.
    let handles = std::path::PathBuf::from(format!("/proc/{}/fd", server.pid()));
    let doors: Vec<_> = std::fs::read_dir(&handles)
        .expect("readable")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            let name = std::fs::read_link(path).unwrap_or_default();
            name.to_string_lossy().ends_with(" (deleted)")
                && std::fs::metadata(path).is_ok_and(|file| file.file_type().is_socket())
        })
        .collect();
    assert_eq!(doors.len(), 1, "{doors:?}");
    let mode = std::fs::metadata(&doors[0]).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::os::unix::net::UnixStream::connect(&doors[0]).expect("its own user may");
    if rustix::process::geteuid().is_root() {
        let mut other = std::process::Command::new("setpriv");
        other.args(["--reuid=65534", "--regid=65534", "--clear-groups", "test", "-e"]).arg(&doors[0]);
        assert_eq!(other.status().expect("setpriv runs").code(), Some(1), "another user follows the handle");
    }
}

#[test]
fn without_descriptors_it_goes_on_and_recovers() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let waited_for = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    let mut friend = keep_alive(&server);
    let mut pair = [keep_alive(&server), keep_alive(&server)];

    // One free descriptor: enough to connect to tiny_http, but tiny_http needs another one to accept.
    let limit = lower(server.pid(), "nofile", limit_that_leaves(&server, 1), &[]);
    one_of_two_at_a_time_is_refused(waited_for, &mut pair);
    drop(limit);
    assert_eq!(server.complete("echo", json!(1))["result"], 1);

    // No free descriptor: the gate cannot accept connections.
    let limit = lower(server.pid(), "nofile", limit_that_leaves(&server, 0), &[]);
    let _strangers: Vec<_> =
        (0..5).map(|_| http::Connection::open(server.addr()).expect("in the backlog")).collect();
    eventually(LIMIT, "it says so", || server.log_text().contains("cannot accept connections for now"));
    for _ in 0..20 {
        assert_eq!(friend.request("GET", "/stats", &[], None).expect("served on").status, 200);
    }
    drop(limit);
    assert_eq!(server.complete("echo", json!(2))["result"], 2);
    let said = server.log_text().matches("cannot accept connections for now").count();
    assert_eq!(said, 1, "once is enough");
}

#[test]
fn without_threads_it_goes_on_and_recovers() {
    let redis = TestRedis::start();
    // The limit does not apply to root. With this capability another user may access all files.
    let launcher: &[&str] = &[
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
    ];
    let launcher = if rustix::process::geteuid().is_root() { launcher } else { &[] };
    let server = TestServer::builder().redis(&redis).under(launcher.iter().copied()).start();
    let waited_for = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    let mut friend = keep_alive(&server);
    let mut pair = [keep_alive(&server), keep_alive(&server)];

    let limit = lower(server.pid(), "nproc", 0, launcher);
    let mut stranger = http::Connection::open(server.addr()).expect("accepted");
    assert_eq!(stranger.read_to_close().expect("closed"), b"");
    eventually(LIMIT, "the log says so", || server.log_text().contains("cannot accept connections for now"));
    one_of_two_at_a_time_is_refused(waited_for, &mut pair);
    assert_eq!(friend.request("GET", "/stats", &[], None).expect("served on").status, 200);
    drop(limit);
    assert_eq!(server.complete("echo", json!(1))["result"], 1);
}

/// Asserts that one of two waiting requests is refused: they need two connections to tiny_http, and only one is
/// possible.
fn one_of_two_at_a_time_is_refused(waited_for: u64, pair: &mut [http::Connection; 2]) {
    let path = format!("/jobs/{waited_for}?wait=2s");
    let refused = until_some(LIMIT, "one of two requests finds no connection to tiny_http", || {
        for connection in pair.iter_mut() {
            connection.send("GET", &path, &[], None).expect("sent");
        }
        let replies = pair.each_mut().map(|connection| connection.receive(false).expect("an answer"));
        replies.into_iter().find(|reply| reply.status != 200)
    });
    refused.expect_error(503, "overloaded", "no room for a connection");
}

/// A keep-alive connection after its first response.
fn keep_alive(server: &TestServer) -> http::Connection {
    let mut connection = http::Connection::open(server.addr()).expect("connects");
    assert_eq!(connection.request("GET", "/stats", &[], None).expect("an answer").status, 200);
    connection
}

/// The limit of descriptors that leaves a server `free` more.
fn limit_that_leaves(server: &TestServer, free: usize) -> u64 {
    let taken = descriptors(server.pid());
    let mut free_ones = (0..).filter(|number| taken.binary_search(number).is_err());
    free_ones.nth(free).expect("there is always one more")
}
