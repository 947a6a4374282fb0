//! Rust handlers that end the process, and panics that are hard to catch.

use super::handlers::troubled;
use crate::common::*;

#[test]
fn handlers_that_end_the_process_are_found_out_and_every_good_job_completes() {
    let redis = TestRedis::start();
    let observer = TestServer::builder()
        .redis(&redis)
        .flag("lease-timeout", "1s")
        .flag("max-crashes", "2")
        .flag("queues", "nobody")
        .flag("workers", "1")
        .start();
    let server = troubled(&redis).flag("lease-timeout", "1s").flag("max-crashes", "2").flag("workers", "4");
    let server = Supervisor::start(server);
    let good = || vec![json!({"type": "sleep", "payload": {"ms": 20}}); 10];
    let mut all = observer.submit_batch(&good());
    let bad =
        ["stack overflow", "double panic", "failed allocation"].map(|kind| observer.submit(kind, json!({})));
    all.extend(observer.submit_batch(&good()));
    for id in bad {
        let job = observer.wait_for(id, secs(120), "ended", api::is_final);
        assert_eq!(job["status"], "failed", "{job:#}");
        assert_eq!((&job["crashes"], &job["attempts"]), (&json!(2), &json!(0)), "{job:#}");
        let reason = job["last_error"].as_str().unwrap_or_default();
        assert_eq!(reason, "its server died 2 times while this job was running", "{job:#}");
    }
    for id in &all {
        observer.wait_for_status(*id, "completed");
    }
    wait_until_quiet(&observer, LIMIT);
    all.extend(bad);
    audit(&redis, &observer, &all);
    // The last output of the process names the place of the crash. The server that reclaimed its jobs logs them.
    let log = server.log_text();
    for words in
        ["has overflowed its stack", "the second panic", "memory allocation of 70368744177664 bytes failed"]
    {
        assert!(log.contains(words), "{words}:\n{log}");
    }
    let log = observer.log_text();
    assert!(log.contains(": dead; jobs reclaimed: ") && log.contains("failed at max-crashes: 1"), "{log}");
}

#[test]
fn jobs_on_their_last_chance_follow_each_other_without_pauses() {
    let redis = TestRedis::start();
    let dir = TempDir::new();
    let gate = dir.join("gate");
    let script = format!("while ! test -e {}; do sleep 0.1; done", gate.display());
    let builder = TestServer::builder()
        .redis(&redis)
        .flag("lease-timeout", "1s")
        .flag("max-crashes", "2")
        .flag("workers", "12")
        .config(&format!("[handlers.gated]\nexec = [\"/bin/sh\", \"-c\", \"{script}\"]\n"));
    let mut dead = builder.start();
    let ids = dead.submit_batch(&vec![json!({"type": "gated"}); 12]);
    eventually(LIMIT, "all run", || dead.count("processing") == 12);
    dead.kill9();
    dir.write("gate", "open");
    let server = builder.start();
    let mut times: Vec<(u64, u64)> = ids
        .iter()
        .map(|id| {
            let job = server.wait_for_status(*id, "completed");
            assert_eq!((&job["crashes"], &job["attempts"]), (&json!(1), &json!(1)), "{job:#}");
            (time_ms(&job["started_at"]), time_ms(&job["finished_at"]))
        })
        .collect();
    times.sort_unstable();
    let mut pauses: Vec<u64> = times.windows(2).map(|pair| pair[1].0.saturating_sub(pair[0].1)).collect();
    pauses.sort_unstable();
    // A fetcher that is not woken waits up to 2 s.
    assert!(pauses[pauses.len() / 2] < 300, "between one and the next, in ms: {pauses:?}");
    audit(&redis, &server, &ids);
}

#[test]
fn a_panic_whose_payload_cannot_be_dropped_is_an_ordinary_failure() {
    let redis = TestRedis::start();
    let server = troubled(&redis).flag("workers", "1").start();
    let name = server.server_id();
    let mut all = Vec::new();
    for _ in 0..3 {
        let job = json!({"type": "panic that cannot be dropped", "max_attempts": 1});
        all.push(server.submit_job(job));
        let job = server.wait_for_status(all[all.len() - 1], "failed");
        assert_eq!((&job["crashes"], &job["attempts"]), (&json!(0), &json!(1)), "{job:#}");
        let reason = job["last_error"].as_str().unwrap_or_default();
        assert!(reason.starts_with("panicked: (no message) ("), "the first panic is what failed: {job:#}");
        // The same thread runs this job, because the server has only one.
        all.push(server.submit("echo", json!({})));
        server.wait_for_status(all[all.len() - 1], "completed");
    }
    assert_eq!(server.server_id(), name, "it lives on");
    assert_eq!(server.metric(r#"threadq_job_panics_total{type="panic that cannot be dropped"}"#), 3.0);
    audit(&redis, &server, &all);
}

#[test]
fn threads_of_a_handler_that_panic_or_never_end_are_its_own_business() {
    let redis = TestRedis::start();
    let server = troubled(&redis).flag("workers", "2").start();
    let panicked = server.submit("panic on another thread", json!({}));
    let job = server.wait_for_status(panicked, "failed");
    assert_eq!(job["last_error"], "its helper panicked", "{job:#}");
    assert!(server.log_text().contains("nobody's job"), "{}", server.log_tail());
    let leaks = server.submit_batch(&vec![json!({"type": "leaked threads", "payload": 40}); 5]);
    let beside = server.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 10}}); 20]);
    for id in &leaks {
        assert_eq!(server.wait_for_status(*id, "completed")["result"], 40);
    }
    for id in &beside {
        server.wait_for_status(*id, "completed");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).expect("a count");
    assert!(
        threads.trim().parse::<usize>().is_ok_and(|threads| threads > 200),
        "{threads}: they are really there"
    );
    audit(&redis, &server, &[vec![panicked], leaks, beside].concat());
}
