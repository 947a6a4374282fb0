//! The Redis users that SECURITY.md recommends, for servers and for the doctor, have the rights that they need, and no
//! others.

use super::program::{Redis, Server, threadq};
use crate::common::{LIMIT, eventually};

/// The line in SECURITY.md, so that the test uses exactly the documented rights.
fn documented_rules(user: &str) -> Vec<String> {
    let text = include_str!("../../../SECURITY.md");
    let begin = format!("ACL SETUSER {user} ");
    let line = text.lines().find(|line| line.trim_start().starts_with(&begin)).expect("the line");
    line.split_whitespace().map(|word| word.replace(">PASSWORD", ">pass")).collect()
}

/// Makes this user with its documented rights, in place of a user of this name.
fn make_user(redis: &Redis, user: &str) {
    redis.cli(&["ACL", "DELUSER", user]);
    let rules = documented_rules(user);
    let words: Vec<&str> = rules.iter().map(String::as_str).collect();
    assert_eq!(redis.cli(&words).trim(), "OK");
}

/// The commands that Redis has denied since its last ACL LOG RESET, each in its own entry.
fn denied_commands(redis: &Redis) -> Vec<String> {
    let denied = redis.cli(&["ACL", "LOG"]);
    let lines: Vec<&str> = denied.lines().collect();
    let objects = lines.windows(2).filter(|pair| pair[0].trim_matches('"').ends_with("object"));
    objects.map(|pair| pair[1].to_owned()).collect()
}

#[test]
fn the_documented_user_is_enough_for_a_jobs_whole_life() {
    let redis = Redis::start(&[]);
    make_user(&redis, "threadq");
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
    let denied = denied_commands(&redis);
    // From 7.2 on Redis also logs the denied CLIENT SETINFO of the client library, which is optional.
    let is_harmless = |command: &String| command.contains("config") || command.contains("client|setinfo");
    assert!(denied.iter().all(is_harmless), "{denied:?}");
}

/// The exit code and the output of `threadq doctor --repair` with the documented user.
fn repair(redis: &Redis) -> (Option<i32>, String) {
    let url = format!("redis://threadq-doctor:pass@127.0.0.1:{}", redis.port);
    let output = threadq(&["doctor", "--repair", "--redis-url", &url]).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn the_documented_user_of_the_doctor_is_enough_to_repair() {
    let redis = Redis::start(&[]);
    make_user(&redis, "threadq-doctor");
    redis.cli(&["ACL", "LOG", "RESET"]);
    let server = Server::start(
        &["--demo", "--queues", "default"],
        &[("THREADQ_REDIS_URL", &format!("redis://127.0.0.1:{}", redis.port))],
    );
    assert_eq!(server.run(r#"{"type": "echo"}"#)["status"], "completed");
    let failed = server.run(r#"{"type": "fail", "payload": {"permanent": true}}"#)["id"].to_string();
    let job = |more: &str| {
        let job = format!(r#"{{"type": "t"{more}}}"#);
        server.json("POST", "/jobs", &job)["job_id"].to_string()
    };
    let scheduled = job(r#", "delay_ms": 9000000"#);
    let keyed = job(r#", "queue": "other", "unique_key": "k""#);
    let waiting = job(r#", "queue": "other""#);
    server.stop();

    // Jobs in no list and in two, wrong indexes, stale and missing keys, a server that is gone, keys of a wrong type.
    for words in [
        &["LREM", "{threadq}:work_queue:other", "1", &waiting][..],
        &["LPUSH", "{threadq}:work_queue:other", &keyed, "77", &failed],
        &["ZREM", "{threadq}:scheduled", &scheduled],
        &["ZREM", "{threadq}:dlq_queue", &failed],
        &["DEL", "{threadq}:unique:k"],
        &["SET", "{threadq}:unique:stale", &failed],
        &["ZADD", "{threadq}:index:failed", "78", "78"],
        &["LPUSH", "{threadq}:in_progress_queue:gone", "79"],
        &["HSET", "{threadq}:servers", "late", "5"],
        &["LPUSH", "{threadq}:in_progress_queue:late", "80"],
        &["SADD", "{threadq}:cancels:gone", "81"],
        &["SET", "{threadq}:paused", "x"],
        &["HSET", "{threadq}:job:82", "status", "nonsense"],
    ] {
        let reply = redis.cli(words);
        assert!(!reply.contains("ERR") && !reply.contains("WRONGTYPE"), "{words:?}: {reply}");
    }
    let (code, text) = repair(&redis);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("repaired"), "{text}");
    let (code, text) = repair(&redis);
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains("repaired"), "{text}");
    let denied = denied_commands(&redis);
    let is_harmless = |command: &String| command.contains("config") || command.contains("client|setinfo");
    assert!(denied.iter().all(is_harmless), "{denied:?}");
}

#[test]
fn the_doctor_names_each_right_that_its_user_lacks() {
    let redis = Redis::start(&[]);
    let rights: Vec<String> = documented_rules("threadq-doctor")
        .into_iter()
        .filter(|word| word.starts_with('+'))
        // For a URL with a database, and for what the doctor does without.
        .filter(|word| word != "+select" && word != "+info")
        .collect();
    assert!(rights.len() > 30, "{rights:?}");
    for right in rights {
        make_user(&redis, "threadq-doctor");
        redis.cli(&["ACL", "SETUSER", "threadq-doctor", &right.replacen('+', "-", 1)]);
        let (code, text) = repair(&redis);
        assert_eq!(code, Some(1), "{right}: {text}");
        let words = format!("grant it with: ACL SETUSER threadq-doctor {right}\n");
        assert!(text.ends_with(&words), "{right}: {text}");
    }
}

#[test]
fn the_documented_users_can_do_nothing_else() {
    let redis = Redis::start(&[]);
    make_user(&redis, "threadq");
    make_user(&redis, "threadq-doctor");
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
        // The doctor looks at all keys.
        let users = if command == "SCAN 0" { &["threadq"][..] } else { &["threadq", "threadq-doctor"] };
        for user in users {
            let mut words = vec!["--user", user, "--pass", "pass", "--no-auth-warning"];
            words.extend(command.split(' '));
            let answer = redis.cli(&words);
            assert!(answer.contains("NOPERM"), "{user}: {command}: {answer}");
        }
    }
}
