//! The log as JSON: every line is one object and names its job, whatever handlers do.

use super::handlers::troubled;
use crate::common::*;

/// A text that would start a new line, end the JSON object, or be lost, if it were not escaped.
const EVIL: &str = "\n{\"time\":\"x\"}\r\u{1b}[2J\u{2028}\"} ' \\ \u{202e}é";
/// The same without control characters, which are refused in a job type.
const EVIL_TYPE: &str = "a \"type\"\u{2028}{}\u{202e}' \\ é";

/// Parses every line as an object, and asserts that it has exactly the documented fields.
fn objects(log: &str) -> Vec<Value> {
    let read = |line: &str| -> Value {
        let object: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\nin\n{log}"));
        let fields = object.as_object().unwrap_or_else(|| panic!("{line}"));
        for (name, value) in fields {
            let is_right = match name.as_str() {
                "time" => value.as_str().is_some_and(|text| text.len() == 24 && text.ends_with('Z')),
                "level" => value.as_str().is_some_and(|text| ["error", "warn", "info"].contains(&text)),
                "message" | "type" | "server" => value.is_string(),
                "job" | "attempt" => value.is_u64(),
                _ => false,
            };
            assert!(is_right, "{name}: {line}");
        }
        for name in ["time", "level", "message"] {
            assert!(fields.contains_key(name), "{name}: {line}");
        }
        let message = object["message"].as_str().unwrap_or_default();
        assert_eq!(message.starts_with("job="), fields.contains_key("job"), "{line}");
        object
    };
    log.lines().map(read).collect()
}

/// Asserts that the log has a line of this level with these fields and these words in its message.
#[track_caller]
fn assert_told(log: &[Value], level: &str, about: Value, words: &str) {
    let is_about = |line: &Value| about.as_object().is_some_and(|all| all.iter().all(|(k, v)| line[k] == *v));
    let told = |line: &&Value| {
        line["level"] == level && line["message"].as_str().is_some_and(|message| message.contains(words))
    };
    let lines: Vec<&Value> = log.iter().filter(|line| line["job"] == about["job"]).collect();
    assert!(lines.iter().any(|line| is_about(line) && told(line)), "{about}: {words:?}: {lines:#?}");
}

#[test]
fn every_line_in_json_is_an_object_and_every_failed_attempt_is_found_by_its_job() {
    let redis = TestRedis::start();
    let config = format!(
        "{QUICK_BACKOFF}
        [handlers.chatty]
        exec = ['sh', '-c', 'printf \"a line\\nanother \\377\\033[2J\\342\\200\\250\" >&2']
        [handlers.failing]
        exec = ['sh', '-c', 'printf \"no\\ndisk \\377\" >&2; exit 65']
        [handlers.slow]
        timeout = '500ms'
        exec = ['sh', '-c', 'echo so far >&2; exec sleep 60']
        "
    );
    let json = |builder: ServerBuilder| builder.redis(&redis).flag("log-format", "json");
    let server = json(TestServer::builder()).config(&config).flag("lease-timeout", "1s");
    let mut server = server.flag("max-crashes", "1").flag("drain-timeout", "1s").start();
    let own = server.server_id();

    let submit = |kind: &str, queue: &str, payload: Value, attempts: u32| {
        server.submit_job(
            json!({"type": kind, "queue": queue, "payload": payload, "max_attempts": attempts, "timeout_ms": 60_000}),
        )
    };
    let fails = submit("fail", "default", json!({"message": EVIL}), 2);
    let is_permanent = submit("fail", "default", json!({"permanent": true}), 9);
    let panics = submit("panic", "default", json!({}), 2);
    let chatty = submit("chatty", "default", json!({}), 1);
    let failing = submit("failing", "default", json!({}), 9);
    let slow = server.submit_job(json!({"type": "slow", "max_attempts": 1}));
    let unknown = submit(EVIL_TYPE, "default", json!({}), 1);
    let hangs = server.submit_job(json!({"type": "hang", "timeout_ms": 1, "max_attempts": 1}));
    for id in [fails, is_permanent, panics, failing, slow, unknown, hangs] {
        server.wait_for(id, LIMIT, "it failed", |job| job["status"] == "failed");
    }
    server.wait_for_status(chatty, "completed");

    let mut doomed = json(TestServer::builder()).flag("queues", "doomed").start();
    let crashes = submit("exit", "doomed", json!({}), 1);
    eventually(LIMIT, "it has ended the process", || doomed.try_wait().is_some());
    server.wait_for_status(crashes, "failed");
    assert_eq!(server.stop(LIMIT), Some(0));

    let dead = objects(&doomed.log_text());
    let dead = dead[0]["server"].clone();
    let log = objects(&server.log_text());
    let about = |job: u64, kind: &str, attempt: u32| json!({"job": job, "type": kind, "attempt": attempt, "server": own});
    assert_told(&log, "warn", about(fails, "fail", 1), EVIL);
    assert_told(&log, "error", about(fails, "fail", 2), EVIL);
    assert_told(&log, "error", about(is_permanent, "fail", 1), "failed for good: failed on purpose");
    assert_told(
        &log,
        "warn",
        about(panics, "panic", 1),
        "panicked: panicked on purpose (src/handler/demo.rs:",
    );
    assert_told(
        &log,
        "error",
        about(panics, "panic", 2),
        "panicked: panicked on purpose (src/handler/demo.rs:",
    );
    let output = "stderr: a line\nanother \u{fffd}\u{1b}[2J\u{2028}";
    assert_told(&log, "info", about(chatty, "chatty", 1), output.trim_end());
    assert_told(&log, "error", about(failing, "failing", 1), "exit code 65: no\ndisk \u{fffd}");
    assert_told(&log, "error", about(slow, "slow", 1), "timed out: so far");
    assert_told(&log, "error", about(slow, "slow", 1), "timed out");
    assert_told(&log, "error", about(unknown, EVIL_TYPE, 1), "no handler");
    assert_told(&log, "error", about(hangs, "hang", 1), "ignored the stop signal");
    assert_told(&log, "error", about(hangs, "hang", 1), "timed out");
    let about_the_dead = json!({"job": crashes, "type": "exit", "attempt": 1, "server": dead});
    assert_told(&log, "error", about_the_dead, "failed for good: its server died");
}

#[test]
fn panics_beside_those_of_handlers_are_lines_too_and_last_words_name_their_job() {
    let redis = TestRedis::start();
    let mut server = troubled(&redis).flag("log-format", "json").start();
    let helper = server.submit("panic on another thread", json!({}));
    server.wait_for_status(helper, "failed");
    let log = objects(&server.log_text());
    let place = "thread without a name panicked at tests/integration/server_faults/handlers.rs:";
    let words = |line: &Value| line["message"].as_str().unwrap_or_default().to_owned();
    let told = log.iter().map(words).find(|message| message.starts_with(place)).expect("the panic");
    assert!(told.ends_with("nobody's job"), "{told}");

    // With a delay, so that the job runs after the response to its submission.
    let id = server.submit_job(json!({"type": "double panic", "delay_ms": 500}));
    eventually(LIMIT, "it has ended the process", || server.try_wait().is_some());
    // The lines of the runtime about the abort are not JSON objects.
    let text = server.log_text();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('{')).collect();
    let log = objects(&lines.join("\n"));
    let about = json!({"job": id, "type": "double panic", "attempt": 1, "server": log[0]["server"]});
    assert_told(
        &log,
        "error",
        about,
        "panicked: the second panic (tests/integration/server_faults/handlers.rs:",
    );
}
