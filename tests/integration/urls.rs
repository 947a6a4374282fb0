//! URLs that are not valid: `serve`, `check` and every command that calls a server refuse them before they send
//! anything.

use crate::common::*;

/// URLs with one wrong part each, and a word of the error that names the part.
const WRONG: [(&str, &str); 14] = [
    ("http://127.0.0.1:99999/", "port"),
    ("http://127.0.0.1:65536", "port"),
    ("http://127.0.0.1:0/", "port"),
    ("http://127.0.0.1:8080abc", "port"),
    ("http://127.0.0.1:/", "port"),
    ("http://ann:s3cret@[::1]:-1/", "port"),
    ("http:///notify", "host"),
    ("http://:8080/", "host"),
    ("http://[::1/", "host"),
    ("http://256.0.0.1/", "host"),
    ("http://a..b/", "host"),
    ("http://127.0.0.1/a b", "space"),
    ("ftp://127.0.0.1/", "scheme"),
    ("http://ann:s3cret%@127.0.0.1/", "%"),
];

#[track_caller]
fn assert_refused(finished: &Finished, setting: &str, part: &str) {
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    assert!(finished.stderr.contains(setting) && finished.stderr.contains(part), "{finished:?}");
    assert!(!finished.stderr.contains("s3cret"), "{finished:?}");
    assert!(finished.stdout.is_empty(), "{finished:?}");
}

#[test]
fn a_handler_whose_url_is_none_is_refused_at_the_start_and_by_check() {
    let redis = TestRedis::start();
    for (url, part) in WRONG {
        let builder =
            TestServer::builder().redis(&redis).config(&format!("[handlers.notify]\nhttp = '{url}'\n"));
        assert_refused(&builder.run_serve(), "handlers.\"notify\".http", part);
        assert_refused(&builder.run("check"), "handlers.\"notify\".http", part);
    }
}

#[test]
fn a_server_url_that_is_none_is_refused_by_the_commands() {
    let dir = TempDir::new();
    for (url, part) in WRONG {
        let mut by_flag = server::program(&dir);
        by_flag.args(["stats", "--server", url]).env("THREADQ_API_TOKEN", "s3cret");
        assert_refused(&server::finish(by_flag), "--server", part);
        let mut by_variable = server::program(&dir);
        by_variable.args(["enqueue", "echo"]).env("THREADQ_SERVER", url);
        assert_refused(&server::finish(by_variable), "THREADQ_SERVER", part);
    }
}

#[test]
fn a_redis_url_that_is_none_is_refused() {
    for (url, part) in [
        ("redis://127.0.0.1:99999", "port"),
        ("redis://:s3cret@127.0.0.1:6379abc/1", "port"),
        ("redis://127.0.0.1:0", "port"),
        ("redis://:s3cret@:6379", "host"),
        ("redis://127.0.0.1/one", "database"),
        ("http://127.0.0.1:6379", "scheme"),
    ] {
        let builder = TestServer::builder().flag("redis-url", url);
        assert_refused(&builder.run_serve(), "redis-url", part);
        assert_refused(&builder.run("check"), "redis-url", part);
    }
}
