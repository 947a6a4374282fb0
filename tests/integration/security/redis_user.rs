//! The Redis user that SECURITY.md recommends has the rights that the program needs, and no others.

use super::program::{Redis, Server};
use crate::common::{LIMIT, eventually};

/// The line in SECURITY.md, so that the test uses exactly the documented rights.
fn documented_rules() -> Vec<String> {
    let text = include_str!("../../../SECURITY.md");
    let line =
        text.lines().find(|line| line.trim_start().starts_with("ACL SETUSER threadq ")).expect("the line");
    line.split_whitespace().map(|word| word.replace(">PASSWORD", ">pass")).collect()
}

#[test]
fn the_documented_user_is_enough_for_a_jobs_whole_life() {
    let redis = Redis::start(&[]);
    let rules = documented_rules();
    let words: Vec<&str> = rules.iter().map(String::as_str).collect();
    assert_eq!(redis.cli(&words).trim(), "OK");
    redis.cli(&["ACL", "LOG", "RESET"]);
    let url = format!("redis://threadq:pass@127.0.0.1:{}", redis.port);
    let flags = ["--demo", "--lease-timeout", "3s", "--queues", "default,other=2", "--inline-backoff", "0"];
    let server = Server::start(&flags, &[("THREADQ_REDIS_URL", &url)]);

    assert_eq!(server.run(r#"{"type": "echo", "unique_key": "k"}"#)["status"], "completed");
    assert_eq!(
        server.run(r#"{"type": "fail", "payload": {"times": 1}, "max_attempts": 2}"#)["status"],
        "completed"
    );
    let failed = server.run(r#"{"type": "fail", "payload": {"permanent": true}, "queue": "other"}"#);
    assert_eq!(failed["status"], "failed");
    assert_eq!(server.run(r#"{"type": "echo", "delay_ms": 50}"#)["status"], "completed");
    let batch = r#"{"jobs": [{"type": "echo"}, {"type": "sleep", "payload": {"ms": 60000}}]}"#;
    let key = "Idempotency-Key: k1\r\n";
    assert_eq!(server.request("POST", "/jobs/batch", key, batch).0, 202);
    let (status, answer) = server.request("POST", "/jobs/batch", key, batch);
    assert_eq!(status, 200, "{answer}");
    let ids: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let sleeper = format!("/jobs/{}", ids["job_ids"][1]);
    eventually(LIMIT, "it runs", || server.json("GET", &sleeper, "")["status"] == "processing");
    assert_eq!(server.request("POST", &format!("{sleeper}/cancel"), "", "").0, 202);
    assert_eq!(server.json("GET", &format!("{sleeper}?wait=10s"), "")["status"], "cancelled");
    assert_eq!(server.request("POST", &format!("{sleeper}/retry"), "", "").0, 202);
    eventually(LIMIT, "it runs again", || server.json("GET", &sleeper, "")["status"] == "processing");
    assert_eq!(server.request("POST", &format!("{sleeper}/cancel"), "", "").0, 202);
    server.json("GET", &format!("{sleeper}?wait=10s"), "");
    assert_eq!(server.request("DELETE", &sleeper, "", "").0, 204);
    for path in [
        "/jobs?status=failed&type=fail",
        "/dlq",
        "/queues",
        "/stats",
        "/stats/history",
        "/stats/workers",
        "/metrics",
        "/readyz",
    ] {
        assert_eq!(server.request("GET", path, "", "").0, 200, "{path}");
    }
    server.json("POST", "/queues/other/pause", "");
    server.json("POST", "/queues/other/resume", "");
    assert_eq!(server.json("POST", "/dlq/retry", "{}")["retried"], 1);
    eventually(LIMIT, "it has failed again", || server.json("GET", "/dlq", "")["total"] == 1);
    assert_eq!(server.json("DELETE", "/dlq", "")["deleted"], 1);

    // A crash, late enough for the response to arrive, and the reclaim by the next server.
    let crashed = server.json(
        "POST",
        "/jobs",
        r#"{"type": "exit", "payload": {"times": 1}, "delay_ms": 1000}"#,
    )["job_id"]
        .clone();
    eventually(LIMIT, "the server has died", || std::net::TcpStream::connect(server.addr()).is_err());
    let next = Server::start(&flags, &[("THREADQ_REDIS_URL", &url)]);
    let job = next.end_of(crashed.as_u64().unwrap());
    assert_eq!((&job["status"], &job["crashes"]), (&"completed".into(), &1.into()), "{job}");
    let (status, log) = next.stop();
    assert!(status.success(), "{log}");

    // The server sends CONFIG once, to warn of a Redis without persistence, and works without it.
    for text in [&log, &server.log()] {
        let errors: Vec<&str> = text.lines().filter(|line| line.contains(" ERROR ")).collect();
        assert!(errors.iter().all(|line| line.contains("failed on purpose")), "{text}");
    }
    let denied = redis.cli(&["ACL", "LOG"]);
    let objects: Vec<&str> = denied.lines().skip_while(|line| !line.contains("object")).collect();
    let denied_commands: Vec<&str> = objects
        .iter()
        .zip(objects.iter().skip(1))
        .filter(|(name, _)| name.trim_matches('"').ends_with("object"))
        .map(|(_, value)| *value)
        .collect();
    // From 7.2 on Redis also logs the denied CLIENT SETINFO of the client library, which is optional.
    let is_harmless = |command: &&str| command.contains("config") || command.contains("client|setinfo");
    assert!(denied_commands.iter().all(is_harmless), "{denied}");
}

#[test]
fn the_documented_user_can_do_nothing_else() {
    let redis = Redis::start(&[]);
    let rules = documented_rules();
    let words: Vec<&str> = rules.iter().map(String::as_str).collect();
    assert_eq!(redis.cli(&words).trim(), "OK");
    for command in [
        "CONFIG GET dir",
        "KEYS *",
        "FLUSHALL",
        "FLUSHDB",
        "SHUTDOWN",
        "MODULE LIST",
        "ACL LIST",
        "SCRIPT FLUSH",
        "REPLICAOF NO ONE",
        "GET other",
        "SET {other}:x 1",
        "CLIENT LIST",
        "MONITOR",
        "SAVE",
        "FUNCTION FLUSH",
        "MIGRATE h 1 k 0 1",
        "SUBSCRIBE x",
        "SLOWLOG GET",
        "SCAN 0",
    ] {
        let mut words = vec!["--user", "threadq", "--pass", "pass", "--no-auth-warning"];
        words.extend(command.split(' '));
        let answer = redis.cli(&words);
        assert!(answer.contains("NOPERM"), "{command}: {answer}");
    }
}
