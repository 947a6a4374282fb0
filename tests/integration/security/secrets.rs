//! Tokens and passwords appear nowhere: the tests make the program fail in many ways and search all of its output.

use std::process::Output;

use super::program::{Redis, Server, threadq};
use crate::common::{LIMIT, TempDir, eventually};

/// The value of every secret.
const CANARY: &str = "c4nary-h%75nter2";
/// The password of a URL, percent-decoded.
const DECODED: &str = "c4nary-hunter2";

fn assert_unseen(what: &str) {
    for secret in [CANARY, DECODED, "c4nary"] {
        assert!(!what.contains(secret), "{what}");
    }
}

/// The joined bodies of the responses of the API.
fn ask_all(server: &Server) -> String {
    let paths = ["/stats", "/jobs", "/queues", "/metrics", "/healthz", "/readyz", "/dlq", "/openapi.json"];
    let mut all: String = paths.iter().map(|path| server.request("GET", path, "", "").1).collect();
    all += &server.request("POST", "/jobs", "", r#"{"type": "echo"}"#).1;
    all
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_redis_that_cannot_be_reached_tells_no_password() {
    for url in [
        format!("redis://ann:{CANARY}@127.0.0.1:1/2"),
        format!("redis://:{CANARY}@no-such-host.invalid:6379"),
        format!("unix:///nonexistent/redis.sock?user=ann&pass={CANARY}"),
        format!("redis+unix:///nonexistent/redis.sock?pass={CANARY}"),
    ] {
        let env = [("THREADQ_REDIS_URL", url.as_str()), ("THREADQ_API_TOKEN", CANARY)];
        let server = Server::start(&["--demo", "--log-level", "trace"], &env);
        eventually(LIMIT, "it says that Redis is away", || server.log().contains("Redis is unavailable"));
        assert_unseen(&ask_all(&server));
        assert_unseen(&server.stop().1);
        let output = threadq(&["check"]).envs(env).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert_unseen(&text(&output));
    }
}

#[test]
fn a_wrong_or_missing_password_is_told_of_without_showing_it() {
    let redis = Redis::start(&["--requirepass", "right"]);
    for login in [format!(":{CANARY}@"), format!("ann:{CANARY}@"), String::new()] {
        let url = format!("redis://{login}127.0.0.1:{}", redis.port);
        let env = [("THREADQ_REDIS_URL", url.as_str()), ("THREADQ_API_TOKEN", CANARY)];
        let server = Server::start(&["--demo", "--log-level", "debug", "--log-format", "json"], &env);
        let says = |log: String| log.contains("Redis is unavailable") || log.contains("Redis refuses");
        eventually(LIMIT, "it says what is wrong", || says(server.log()));
        assert_unseen(&ask_all(&server));
        assert_unseen(&server.stop().1);
        let output = threadq(&["check"]).envs(env).output().unwrap();
        assert!(!output.status.success());
        assert_unseen(&text(&output));
    }
    // With a reachable Redis the password does not appear either.
    let url = format!("redis://:right-{CANARY}@127.0.0.1:{}", redis.port);
    redis.cli(&["-a", "right", "CONFIG", "SET", "requirepass", &format!("right-{DECODED}")]);
    let server = Server::start(&["--log-level", "trace"], &[("THREADQ_REDIS_URL", &url)]);
    assert_unseen(&ask_all(&server));
    let output = threadq(&["check", "--redis-url", &url]).output().unwrap();
    assert!(text(&output).contains("redis://:***@127.0.0.1"), "{}", text(&output));
    assert!(text(&output).contains("list of processes"), "{}", text(&output));
    assert_unseen(&text(&output));
    assert_unseen(&server.stop().1);
}

#[test]
fn wrong_settings_are_refused_without_showing_them() {
    let folder = TempDir::new();
    let file = |text: &str| folder.secret("threadq.toml", text);
    for url in [
        format!("redis://ann:{CANARY}@"),
        format!("redis://ann:{CANARY}@h:port/x"),
        format!("redis://ann:{CANARY}@h/notadb"),
        format!("redis://ann:{CANARY}@h /"),
        format!("redis://ann:{CANARY}@[::1/"),
        format!("http://ann:{CANARY}@h"),
        format!("rediss://ann:{CANARY}@h#insecure"),
        CANARY.to_owned(),
    ] {
        let by_env = threadq(&["serve"]).env("THREADQ_REDIS_URL", &url).output().unwrap();
        let by_flag = threadq(&["check", "--redis-url", &url]).output().unwrap();
        let config = file(&format!("redis-url = '{url}'"));
        let by_file = threadq(&["check", "--config", &config]).output().unwrap();
        for output in [by_env, by_flag, by_file] {
            assert_eq!(output.status.code(), Some(2), "{url}: {}", text(&output));
            assert!(text(&output).contains("redis-url"), "{}", text(&output));
            assert_unseen(&text(&output));
        }
    }
    for config in [
        format!("api-token = '{CANARY} x'"),
        format!("api-token = {CANARY}"),
        format!("api-token = '{CANARY}"),
        format!("[handlers.x]\nhttp = 'ftp://h/?key={CANARY}'"),
        format!("[handlers.x]\nhttp = 'http://a{CANARY}:99999999/{CANARY}'"),
        format!("[handlers.x]\nexec = ['{CANARY}\\u0000', 3]"),
    ] {
        let output = threadq(&["check", "--config", &file(&config)]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{config}: {}", text(&output));
        assert_unseen(&text(&output));
    }
    let token = folder.secret("token", &format!("{CANARY} {CANARY}"));
    for words in [
        ["serve", "--api-token-file", &token],
        ["serve", "--api-token", &format!("{CANARY}\u{e9}")],
        ["serve", "--listen", &format!("--api-token={CANARY}")],
    ] {
        let output = threadq(&words).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert_unseen(&text(&output));
    }
}

#[test]
fn a_token_on_the_command_line_works_and_is_warned_of() {
    let redis = Redis::start(&[]);
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let server = Server::start(&["--api-token", CANARY], &[("THREADQ_REDIS_URL", &url)]);
    assert_eq!(server.request("GET", "/stats", "", "").0, 401);
    for wrong in ["x", CANARY.strip_suffix('2').unwrap(), "", &format!("{CANARY}2"), &format!("{CANARY} 2")] {
        let (status, body) =
            server.request("GET", "/stats", &format!("Authorization: Bearer {wrong}\r\n"), "");
        assert_eq!(status, 401, "{wrong}");
        assert_unseen(&body);
    }
    let right = format!("Authorization: Bearer {CANARY}\r\n");
    assert_eq!(server.request("GET", "/stats", &right, "").0, 200);
    // Two `Authorization` headers: a proxy in front may have checked the other one.
    assert_eq!(server.request("GET", "/stats", &format!("{right}{right}"), "").0, 401);
    let (_, log) = server.stop();
    assert!(log.contains("api-token (flag --api-token)") && log.contains("THREADQ_API_TOKEN"), "{log}");
    assert_unseen(&log);
}

#[test]
fn a_handler_gets_neither_token_nor_password() {
    let redis = Redis::start(&["--requirepass", DECODED]);
    let folder = TempDir::new();
    let config = folder.secret("threadq.toml", "[handlers.env]\nexec = ['env']\n");
    let url = format!("redis://:{CANARY}@127.0.0.1:{}", redis.port);
    let env = [("THREADQ_REDIS_URL", url.as_str()), ("THREADQ_API_TOKEN", CANARY)];
    let server = Server::start(&["--config", &config], &env);
    let job = server.run(r#"{"type": "env"}"#);
    let result = job["result"].as_str().unwrap();
    assert!(result.contains("THREADQ_JOB_ID="), "{result}");
    assert_unseen(result);
}
