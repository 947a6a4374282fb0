//! Programs that exceed their limits: the attempt fails with a reason, and the server goes on.

use super::program::{Redis, Server, threadq};
use crate::common::TempDir;

const HANDLERS: &str = r#"
[handlers.memory]
exec = ["sh", "-c", "tail -n 1 < /dev/zero"]
limits = { memory = "64MiB" }
[handlers.cpu]
exec = ["sh", "-c", "while :; do :; done"]
limits = { cpu = "1s", niceness = 5 }
[handlers.files]
exec = ["paste", "/dev/null", "/dev/null", "/dev/null", "/dev/null", "/dev/null", "/dev/null", "/dev/null"]
limits = { open_files = 8 }
[handlers.fine]
exec = ["sh", "-c", "cat; nice"]
limits = { memory = "512MiB", cpu = "60s", open_files = 64, niceness = 19 }
"#;

#[test]
fn a_program_over_its_limit_fails_its_attempt_and_harms_nobody() {
    let redis = Redis::start(&[]);
    let folder = TempDir::new();
    let config = folder.secret("threadq.toml", HANDLERS);
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let server = Server::start(&["--config", &config], &[("THREADQ_REDIS_URL", &url)]);
    for (kind, part, detail) in [
        ("memory", "exit code 1, under the limits memory=64MiB: ", "memory exhausted"),
        ("cpu", "killed by signal 24 (SIGXCPU), under the limits cpu=1s niceness=5", ""),
        ("files", "under the limits open_files=8: ", "Too many open files"),
    ] {
        let job = server.run(&format!(r#"{{"type": "{kind}", "max_attempts": 1}}"#));
        assert_eq!(job["status"], "failed", "{job}");
        let error = job["last_error"].as_str().unwrap();
        assert!(error.contains(part) && error.contains(detail), "{kind}: {error}");
    }
    let fine = server.run(r#"{"type": "fine", "payload": {"n": 1}}"#);
    assert_eq!(fine["result"], "{\"n\": 1}19", "{fine}");
    assert!(server.stop().0.success());
}

#[test]
fn limits_that_cannot_be_set_end_the_start() {
    let folder = TempDir::new();
    let check = |limits: &str, path: &str| {
        let text = format!("[handlers.x]\nexec = ['/bin/sh']\nlimits = {limits}");
        let config = folder.secret("threadq.toml", &text);
        let output = threadq(&["check", "--config", &config]).env("PATH", path).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let error = check("{ open_files = 64 }", "/nonexistent");
    assert!(
        error.starts_with("threadq: handlers.\"x\": limits: the program \"prlimit\" is not on PATH"),
        "{error}"
    );
    let error = check("{ niceness = 1 }", "/nonexistent");
    assert!(error.contains("\"nice\" is not on PATH"), "{error}");
    let error = check("{ memory = '1MiB' }", "/usr/bin:/bin");
    assert!(error.contains("no program runs under memory=1MiB"), "{error}");
    let error = check("{ swap = '1MiB' }", "/usr/bin:/bin");
    assert!(error.contains("unknown key \"swap\"") && error.lines().count() == 1, "{error}");
}
