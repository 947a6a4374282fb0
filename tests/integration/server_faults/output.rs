//! Output that nothing reads, and output without an end: neither changes the outcome of a job.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::common::*;

/// A shell that redirects its output and then executes the server.
fn redirected(redis: &TestRedis, to: &str) -> TestServer {
    let shell = format!("exec \"$0\" \"$@\" {to}");
    let free = SocketAddr::from(([127, 0, 0, 1], node::free_port()));
    TestServer::builder()
        .redis(redis)
        .flag("workers", "4")
        .flag("log-level", "debug")
        .config(QUICK_BACKOFF)
        .under(["/bin/sh", "-c", &shell])
        .start_unheard(free)
}

/// Runs jobs that make their server log more than a pipe holds, and asserts their outcomes.
#[track_caller]
fn assert_jobs_end_as_they_should(redis: &TestRedis, server: &mut TestServer) {
    let message = "x".repeat(900);
    let fails = json!({"type": "fail", "payload": {"permanent": true, "message": message}});
    let failing = server.submit_batch(&vec![fails; 200]);
    let retried = server.submit_batch(&vec![json!({"type": "panic", "payload": {"times": 2}}); 5]);
    let timed_out = server.submit_job(
        json!({"type": "sleep", "payload": {"ms": 600_000}, "timeout_ms": 100, "max_attempts": 1}),
    );
    let good = server.submit_batch(&vec![json!({"type": "echo", "payload": 7}); 50]);
    for id in failing.iter().chain([&timed_out]) {
        let job = server.wait_for_status(*id, "failed");
        assert_eq!((&job["attempts"], &job["crashes"]), (&json!(1), &json!(0)), "{job:#}");
    }
    for (ids, attempts) in [(&retried, 3), (&good, 1)] {
        for id in ids {
            let job = server.wait_for_status(*id, "completed");
            assert_eq!((&job["attempts"], &job["crashes"]), (&json!(attempts), &json!(0)), "{job:#}");
        }
    }
    audit(redis, server, &[failing, retried, vec![timed_out], good].concat());
    assert_eq!(server.stop(secs(20)), Some(0));
}

/// A named pipe, and its reading end.
fn pipe(dir: &TempDir) -> (String, File) {
    let path = dir.join("log.pipe");
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a named pipe");
    // Opened for reading and writing, so that the open does not wait for a writer.
    let reader = OpenOptions::new().read(true).write(true).open(&path).expect("its end");
    (path.to_str().expect("a short path").to_owned(), reader)
}

#[test]
fn on_a_full_disk() {
    let redis = TestRedis::start();
    assert_jobs_end_as_they_should(&redis, &mut redirected(&redis, ">/dev/full 2>/dev/full"));
}

#[test]
fn with_stdin_stdout_and_stderr_closed() {
    let redis = TestRedis::start();
    assert_jobs_end_as_they_should(&redis, &mut redirected(&redis, "<&- >&- 2>&-"));
}

#[test]
fn into_a_pipe_whose_reader_went_away() {
    let redis = TestRedis::start();
    let dir = TempDir::new();
    let (path, reader) = pipe(&dir);
    let mut server = redirected(&redis, &format!(">'{path}' 2>&1"));
    drop(reader);
    assert_jobs_end_as_they_should(&redis, &mut server);
}

#[test]
fn into_a_pipe_whose_reader_does_not_read() {
    let redis = TestRedis::start();
    let dir = TempDir::new();
    let (path, mut reader) = pipe(&dir);
    let mut server = redirected(&redis, &format!(">'{path}' 2>&1"));
    assert_jobs_end_as_they_should(&redis, &mut server);
    let mut first = [0; 4096];
    let length = reader.read(&mut first).expect("there is something");
    assert!(
        String::from_utf8_lossy(&first[..length]).contains("failed for good"),
        "its end was busy, not closed"
    );
}

#[test]
fn once_the_pipe_is_read_again_the_log_goes_on_and_says_what_is_missing() {
    let redis = TestRedis::start();
    let dir = TempDir::new();
    let (path, reader) = pipe(&dir);
    let server = redirected(&redis, &format!(">'{path}' 2>&1"));
    let fails = json!({"type": "fail", "payload": {"permanent": true, "message": "x".repeat(900)}});
    let mut all = server.submit_batch(&vec![fails.clone(); 200]);
    for id in &all {
        server.wait_for_status(*id, "failed");
    }
    let (send, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(reader).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
    });
    let mut seen = Vec::new();
    eventually(LIMIT, "the loss is told", || {
        all.extend(server.submit_batch(std::slice::from_ref(&fails)));
        seen.extend(lines.try_iter());
        seen.iter().any(|line| line.ends_with("log lines before this one could not be written"))
    });
    let last = format!("job={}", all[all.len() - 1]);
    eventually(LIMIT, "what comes later is logged", || {
        seen.extend(lines.try_iter());
        seen.iter().any(|line| line.contains(&last))
    });
    wait_until_quiet(&server, LIMIT);
    audit(&redis, &server, &all);
}

#[test]
fn a_gigabyte_of_a_programs_output_is_cut_and_takes_no_memory() {
    let redis = TestRedis::start();
    let config = r#"
[handlers.out]
exec = ["/bin/sh", "-c", "head -c 1000000000 /dev/zero | tr '\\0' x"]
[handlers.err]
exec = ["/bin/sh", "-c", "head -c 1000000000 /dev/zero >&2; echo the end >&2; exit 65"]
"#;
    let server = TestServer::builder().redis(&redis).config(config).start();
    let peak = |server: &TestServer| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        peak.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    let first = server.submit("echo", json!({}));
    server.wait_for_status(first, "completed");
    let before = peak(&server);
    let (out, err) = (server.submit("out", json!({})), server.submit("err", json!({})));
    let beside = server.submit_batch(&vec![json!({"type": "sleep", "payload": {"ms": 10}}); 50]);
    for id in &beside {
        server.wait_for_status(*id, "completed");
    }
    let job = server.wait_for_status(out, "completed");
    assert_eq!(job["result"].as_str().map(str::len), Some(64 << 10));
    let job = server.wait_for_status(err, "failed");
    assert!(job["last_error"].as_str().is_some_and(|error| error.ends_with("the end")), "{job:#}");
    let grown = peak(&server).saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} kB more than the {before} kB before");
    audit(&redis, &server, &[vec![first, out, err], beside].concat());
}
