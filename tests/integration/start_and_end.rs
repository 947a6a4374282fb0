//! Signals while a server starts, starts that fail, and the end of a server's child processes: no process stays behind.

use crate::common::private::{Cleanup, redis_servers_in};
use crate::common::*;

use std::io::Read;
use std::net::TcpListener;

/// A folder with a script `redis-server` that runs these commands; `$real` is the path of the real program.
fn with_redis_server(script: &str) -> TempDir {
    let dir = TempDir::new();
    let path = std::env::var_os("PATH").expect("PATH");
    let real =
        std::env::split_paths(&path).map(|folder| folder.join("redis-server")).find(|file| file.exists());
    let real = real.expect("redis-server is on PATH");
    let real = real.display();
    dir.script(
        "redis-server",
        &format!("real='{real}'; [ \"$1\" = --version ] && exec \"$real\" --version\n{script}"),
    );
    dir
}

/// A server with a private Redis in `data` that uses the `redis-server` of `programs`.
fn builder(data: &TempDir, programs: Option<&TempDir>) -> ServerBuilder {
    let path = std::env::var("PATH").expect("PATH");
    let path = programs.map_or(path.clone(), |dir| format!("{}:{path}", dir.path().display()));
    TestServer::builder().flag("data-dir", data.join("d").to_str().expect("text")).env("PATH", &path)
}

fn has_started_redis(server: &Launched) -> bool {
    server.stderr().contains("redis-server, pid ")
}

#[test]
fn a_signal_ends_the_start_while_the_private_redis_loads() {
    let data = TempDir::new();
    let _cleanup = Cleanup(data.path().to_owned());
    let mut server = builder(&data, None).start();
    server.submit_batch(&vec![json!({"type": "echo", "delay_ms": 3_600_000}); 500]);
    assert_eq!(server.stop(secs(20)), Some(0), "{}", server.log_tail());
    // Redis needs minutes to load this many commands.
    let slow = with_redis_server("exec \"$real\" \"$@\" --key-load-delay 500000");
    for send in [signal::term, signal::int, signal::hup] {
        let mut starting = builder(&data, Some(&slow)).launch();
        eventually(LIMIT, "its Redis loads", || !redis_servers_in(data.path()).is_empty());
        send(starting.pid());
        let finished = starting.wait();
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), ""), "{finished:?}");
        assert_eq!(redis_servers_in(data.path()), Vec::<u32>::new(), "{finished:?}");
        assert!(!data.join("d/redis.sock").exists(), "{finished:?}");
    }
    // The kill has lost no data.
    let server = builder(&data, None).start();
    server.wait_until_ready();
    assert_eq!(server.total("?status=scheduled"), 500);
}

#[test]
fn a_signal_ends_the_start_while_the_private_redis_does_not_answer() {
    let data = TempDir::new();
    let mute = with_redis_server("exec sleep 1000");
    let mut starting = builder(&data, Some(&mute)).launch();
    eventually(LIMIT, "its Redis was started", || has_started_redis(&starting));
    signal::term(starting.pid());
    let finished = starting.wait();
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), ""), "{finished:?}");
    assert_eq!(signal::working_in(data.path()), Vec::<u32>::new(), "{finished:?}");
}

#[test]
fn a_second_signal_kills_a_private_redis_that_does_not_end() {
    let data = TempDir::new();
    let stubborn = with_redis_server("trap '' TERM; echo ready > trapped; while :; do sleep 1; done");
    let mut starting = builder(&data, Some(&stubborn)).launch();
    eventually(LIMIT, "its Redis was started", || data.join("d/trapped").exists());
    signal::term(starting.pid());
    holds_for(secs(1), "it waits for its Redis", || !starting.has_ended());
    let begin = Instant::now();
    signal::term(starting.pid());
    let finished = starting.wait();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(begin.elapsed() < secs(8), "it did not hurry: {finished:?}");
    // A `sleep` of the script may still run for its second.
    eventually(LIMIT, "nothing is left", || signal::working_in(data.path()).is_empty());
}

#[test]
fn a_signal_ends_the_start_while_a_redis_elsewhere_does_not_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("redis://{}", listener.local_addr().expect("bound"));
    let mut starting = TestServer::builder().flag("redis-url", &url).launch();
    let (mut stream, _) = listener.accept().expect("it asks");
    assert!(stream.read(&mut [0; 16]).expect("it asks") > 0);
    signal::term(starting.pid());
    let finished = starting.wait();
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), ""), "{finished:?}");
}

#[test]
fn a_hangup_ends_a_server_unless_it_was_ignored_at_the_start() {
    let redis = TestRedis::start();
    let mut server = TestServer::start(&redis);
    signal::hup(server.pid());
    assert_eq!(server.wait_exit(LIMIT), Some(0), "{}", server.log_tail());

    let mut server = TestServer::builder().redis(&redis).under(["nohup"]).start();
    for _ in 0..3 {
        signal::hup(server.pid());
    }
    server.complete("echo", json!(1));
    holds_for(secs(1), "it goes on", || signal::is_running(server.pid()));
    assert_eq!(server.stop(LIMIT), Some(0), "{}", server.log_tail());
}

#[test]
fn a_start_that_fails_leaves_nothing_that_runs() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("bound").to_string();
    let bad_handler = "[handlers.x]\nexec = [\"/nowhere/x\"]\n";
    let mut failures: Vec<(String, ServerBuilder)> = vec![
        ("the port is taken".to_owned(), TestServer::builder().listen(&taken)),
        ("a handler is wrong".to_owned(), TestServer::builder().config(bad_handler)),
        ("no folder for temporary files".to_owned(), TestServer::builder().env("TMPDIR", "/nowhere/x")),
    ];
    // Limits from too low for any thread to high enough for all.
    for descriptors in (5..48).step_by(4) {
        let words = ["prlimit".to_owned(), format!("--nofile={descriptors}:{descriptors}")];
        failures.push((words.join(" "), TestServer::builder().under(words)));
    }
    let mut failed = 0;
    for (what, server) in failures {
        let data = TempDir::new();
        let _cleanup = Cleanup(data.path().to_owned());
        let mut starting = server.flag("data-dir", data.join("d").to_str().expect("text")).launch();
        let is_ready = |starting: &Launched| starting.stdout().contains("listening");
        eventually(LIMIT, "it is ready or gone", || starting.has_ended() || is_ready(&starting));
        if is_ready(&starting) {
            signal::term(starting.pid());
        }
        let finished = starting.wait();
        failed += u32::from(finished.code != Some(0));
        assert_eq!(signal::working_in(data.path()), Vec::<u32>::new(), "{what}: {finished:?}");
        assert!(!data.join("d/redis.sock").exists(), "{what}: {finished:?}");
        // The lock of the data directory is free too.
        let next = builder(&data, None).start();
        next.wait_until_ready();
    }
    assert!(failed >= 2, "only {failed} starts failed");
}

#[test]
fn a_private_redis_ends_with_its_server_whatever_happened_to_its_files() {
    for gone in ["d", "d/redis.sock", "d/redis.lock", "d/server.lock", "d/appendonlydir"] {
        for adopted in [false, true] {
            let data = TempDir::new();
            let _cleanup = Cleanup(data.path().to_owned());
            let mut server = builder(&data, None).start();
            if adopted {
                server.kill9();
                server = builder(&data, None).start();
            }
            server.complete("echo", json!(1));
            assert_eq!(redis_servers_in(data.path()).len(), 1);
            let place = data.join(gone);
            let removed =
                if place.is_dir() { std::fs::remove_dir_all(&place) } else { std::fs::remove_file(&place) };
            removed.unwrap_or_else(|error| panic!("{gone}: {error}"));
            assert_eq!(server.stop(secs(30)), Some(0), "without {gone}: {}", server.log_tail());
            assert_eq!(
                redis_servers_in(data.path()),
                Vec::<u32>::new(),
                "without {gone}, adopted: {adopted}"
            );
        }
    }
}
