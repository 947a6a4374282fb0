//! Text of clients and handlers in the log.

use serde_json::json;

use super::program::{Redis, Server};
use crate::common::{LIMIT, TempDir, eventually};

/// A text that would forge a line, clear the terminal, or hide or reverse the following text.
const EVIL: &str = "\n2026-11-24T08:00:00.000Z INFO  job=1 forged\r\u{1b}[2J\u{1b}]0;title\u{7}\u{8}\u{9b}1m\u{0}\u{2028}\u{202e}\u{61c}\u{2066}";

fn assert_clean(log: &str) {
    for line in log.lines() {
        let bad = line.chars().find(|c| {
            c.is_control()
                || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        });
        assert_eq!(bad, None, "{line:?}");
        let time = line.strip_prefix("{\"time\":\"").unwrap_or(line);
        assert!(time.starts_with("20") && time.as_bytes()[10] == b'T', "a line of its own: {line:?}");
        assert!(!time.starts_with("2026-11-24T08:00:00.000Z"), "a forged line: {line:?}");
    }
}

#[test]
fn nothing_that_is_sent_breaks_a_line_or_reaches_a_terminal() {
    log_all_that_is_evil("text");
    log_all_that_is_evil("json");
}

fn log_all_that_is_evil(format: &str) {
    let redis = Redis::start(&[]);
    let folder = TempDir::new();
    // The end of stderr becomes the error; a program may write anything.
    let script = folder.secret(
        "evil.sh",
        "printf '\\n2026-11-24T08:00:00.000Z INFO  forged\\r\\033[2J\\302\\2331m\\n' >&2; exit 65",
    );
    let config = folder.secret(
        "threadq.toml",
        &format!("[handlers.\"evil\u{202e}\u{2066}x\"]\nexec = ['sh', '{script}']\n"),
    );
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let flags = ["--demo", "--config", &config, "--log-level", "trace", "--log-format", format];
    let server = Server::start(&flags, &[("THREADQ_REDIS_URL", &url)]);

    let message = json!({ "type": "fail", "payload": { "permanent": true, "message": EVIL } });
    assert_eq!(server.run(&message.to_string())["status"], "failed");
    let program = json!({ "type": "evil\u{202e}\u{2066}x" });
    assert_eq!(server.run(&program.to_string())["status"], "failed");
    let unknown =
        json!({ "type": "no\u{2028}such\u{202e}type\u{61c}", "max_attempts": 1, "unique_key": EVIL });
    assert_eq!(server.run(&unknown.to_string())["status"], "failed");
    let panic = json!({ "type": "panic", "payload": { "message": EVIL }, "max_attempts": 1 });
    assert_eq!(server.run(&panic.to_string())["status"], "failed");
    // A type with control characters is refused, and a queue's name too.
    for job in [json!({ "type": EVIL }), json!({ "type": "echo", "queue": EVIL })] {
        assert_eq!(server.request("POST", "/jobs", "", &job.to_string()).0, 400);
    }
    for path in ["/jobs/%0A%1B[2J", "/queues/%0Aforged/pause", "/%1b%5b2J"] {
        server.request("POST", path, "User-Agent: %0A\u{9}x\r\nIdempotency-Key: a%0Ab\r\n", "");
    }
    // Data of another program: an entry that is not a valid id, and a record that cannot be read.
    let evil = EVIL.replace('\0', ""); // no argument of a program can hold it
    redis.cli(&["LPUSH", "{threadq}:work_queue:default", &evil]);
    redis.cli(&["HSET", "{threadq}:job:7", "status", "queued", "type", &evil, "timeout_ms", &evil]);
    redis.cli(&["LPUSH", "{threadq}:work_queue:default", "7"]);
    eventually(LIMIT, "the broken record is met", || server.log().contains("job=7"));
    server.request("GET", "/jobs/7", "", "");

    let (status, log) = server.stop();
    assert!(status.success(), "{log}");
    assert!(log.contains("forged"), "it was logged, in the middle of a line: {log}");
    assert_clean(&log);
}
