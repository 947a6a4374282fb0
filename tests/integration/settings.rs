//! Settings: their sources, which source wins, and the error for a wrong value.

use crate::common::*;

fn workers(server: &TestServer) -> Value {
    until_some(LIMIT, "the server is listed", || {
        let stats = server.get("/stats").expect(200).json();
        stats["servers"].as_array()?.first().map(|one| one["workers"].clone())
    })
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let builder = || TestServer::builder();
    let file = "workers = 4\n";
    for (builder, wanted) in [
        (builder(), 30),
        (builder().config(file), 4),
        (builder().config(file).env("THREADQ_WORKERS", "5"), 5),
        (builder().config(file).env("THREADQ_WORKERS", "5").flag("workers", "6"), 6),
    ] {
        let redis = TestRedis::start();
        let server = builder.redis(&redis).start();
        assert_eq!(workers(&server), wanted);
    }
}

#[test]
fn settings_with_dashes_are_read_from_everywhere() {
    let redis = TestRedis::start();
    let server = TestServer::builder()
        .env("THREADQ_REDIS_URL", &redis.url())
        .env("REDIS_URL", "redis://127.0.0.1:1/")
        .config("max-queue-length = 1\nlease-timeout = \"2s\"\nqueues = \"other\"\n")
        .env("THREADQ_API_TOKEN", "t0ken-of-the-environment")
        .start();
    let api = server.with_token("t0ken-of-the-environment");
    api.submit("echo", json!({}));
    api.post("/jobs", &json!({"type": "echo"})).expect_error(
        429,
        "queue_full",
        "max-queue-length of the file",
    );
    server.get("/jobs").expect(401);
    // REDIS_URL alone sets Redis.
    let second = TestServer::builder().env("REDIS_URL", &redis.url()).start();
    eventually(LIMIT, "the job runs there", || second.total("?status=completed") == 1);
}

#[test]
fn a_server_without_workers_answers_requests_and_takes_no_job() {
    let redis = TestRedis::start();
    let builder = TestServer::builder().redis(&redis).flag("workers", "0");
    let check = builder.clone().without_demo().run("check");
    assert!(check.code == Some(0) && !check.stdout.contains("warning: no handlers"), "{check:?}");
    let mut server = builder.start();
    assert_eq!(workers(&server), 0);
    server.wait_until_ready();
    let id = server.submit("echo", json!({}));
    let why = server.get(&format!("/jobs/{id}/why")).expect(200).json();
    assert_eq!(why["reasons"][0]["code"], "no_server", "{why}");
    let other = TestServer::start(&redis);
    other.wait_for_status(id, "completed");
    assert_eq!(server.stop(LIMIT), Some(0));
}

#[test]
fn a_type_of_pull_workers_needs_no_handler() {
    let redis = TestRedis::start();
    let config = "[handlers.train]\npull = true\ntimeout = \"6h\"\nmax_attempts = 1\n";
    let builder = TestServer::builder().redis(&redis).config(config).without_demo();
    let check = builder.run("check");
    assert!(check.code == Some(0) && check.stdout.contains("handlers: train\n"), "{check:?}");
    let server = builder.start();
    let reply = server.post("/jobs", &json!({"type": "train", "queue": "gpu"}));
    assert_eq!(reply.header("Threadq-Unserved"), Some("queue"));
    assert_eq!(server.job(reply.json()["job_id"].as_u64().unwrap())["timeout_ms"], 6 * 3_600_000);
    // In a queue of a server, the job fails with an error that says why.
    let id = server.submit("train", json!({}));
    let error = server.wait_for_status(id, "failed")["last_error"].to_string();
    assert!(error.contains("no handler for type") && error.contains("only pull workers"), "{error}");
}

#[test]
fn a_server_that_takes_the_jobs_of_pull_workers_is_warned() {
    let redis = TestRedis::start();
    let config = "[handlers.train]\npull = true\n";
    let server = |queues: &str, config: &str| {
        TestServer::builder().redis(&redis).flag("queues", queues).config(config).without_demo()
    };
    let warnings = |server: &ServerBuilder| {
        let check = server.run("check");
        assert_eq!(check.code, Some(0), "{check:?}");
        let start = server.start().log_text();
        let lines = check.stdout.lines().chain(start.lines());
        lines.filter(|line| line.contains("has jobs for pull workers")).map(str::to_owned).collect::<Vec<_>>()
    };
    let both = server("default,gpu", config);
    assert_eq!(warnings(&both), [""; 0], "no pull worker has asked");
    let front = server("default", config).start();
    front.post("/pull", &json!({"queues": ["gpu"]})).expect(200);
    let told = warnings(&both);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|line| line.contains("the queue gpu") && line.contains("(train)")), "{told:?}");
    assert_eq!(warnings(&server("default", config)), [""; 0], "another queue");
    assert_eq!(warnings(&both.clone().flag("workers", "0")), [""; 0], "a server that takes no jobs");
    assert_eq!(warnings(&server("gpu", "[handlers.train]\nexec = ['true']\n")), [""; 0], "no type with pull");
    let schedule = "[[schedules]]\nname = 'nightly'\nevery = '24h'\njob = { type = 'train' }\n";
    let told = warnings(&server("default", &format!("{config}{schedule}")));
    assert!(told.len() == 2 && told[0].starts_with("warning: the queue default"), "{told:?}");
}

#[test]
fn the_namespace_keeps_two_services_apart_on_one_redis() {
    let redis = TestRedis::start();
    let one = TestServer::builder().redis(&redis).flag("namespace", "one").start();
    let two = TestServer::builder().redis(&redis).flag("namespace", "two").start();
    let id = one.submit("echo", json!({}));
    one.wait_for_status(id, "completed");
    assert_eq!(two.total(""), 0);
    two.get(&format!("/jobs/{id}")).expect_error(404, "not_found", "another namespace");
    let keys = redis.keys("*");
    assert!(keys.contains(&format!("{{one}}:job:{id}")), "{keys:?}");
    assert!(keys.iter().all(|key| key.starts_with("{one}:") || key.starts_with("{two}:")), "{keys:?}");
}

#[test]
fn port_alone_is_honoured() {
    let free = node::free_port();
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).without_listen().env("PORT", &free.to_string()).start();
    assert_eq!(server.addr().to_string(), format!("127.0.0.1:{free}"));
    // A flag overrides it.
    let other = TestServer::builder().redis(&redis).env("PORT", &free.to_string()).start();
    assert_ne!(other.addr().port(), free);
    let third = TestServer::builder()
        .redis(&redis)
        .without_listen()
        .env("PORT", &free.to_string())
        .env("THREADQ_LISTEN", "127.0.0.1:0")
        .start();
    assert_ne!(third.addr().port(), free);
}

#[track_caller]
fn assert_refused(finished: &Finished, name: &str) {
    assert_eq!(finished.code, Some(2), "{name}: {finished:?}");
    let lines: Vec<&str> = finished.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{name}: one line on stderr: {finished:?}");
    assert!(lines[0].contains(name), "the line does not name {name}: {finished:?}");
    assert!(finished.stdout.is_empty(), "{name}: {finished:?}");
}

const BAD: [(&str, &str); 48] = [
    ("listen", "nonsense"),
    ("listen", "127.0.0.1"),
    ("listen", "127.0.0.1:99999"),
    ("redis-url", "http://x"),
    ("redis-url", "nonsense"),
    ("fsync", "sometimes"),
    ("namespace", ""),
    ("namespace", "a{b}"),
    ("queues", ""),
    ("queues", "a b"),
    ("queues", "a=0"),
    ("queues", "a=x"),
    ("queues", "a=-1"),
    ("queues", "a,a"),
    ("queues", ",,"),
    ("workers", "1001"),
    ("workers", "-1"),
    ("workers", "many"),
    ("workers", "99999999999"),
    ("workers", "1.5"),
    ("fetchers", "0"),
    ("fetchers", "x"),
    ("drain-timeout", "soon"),
    ("drain-timeout", "5"),
    ("drain-timeout", "-5s"),
    ("drain-timeout", "5 parsecs"),
    ("lease-timeout", "999ms"),
    ("lease-timeout", "0s"),
    ("lease-timeout", "x"),
    ("max-connections", "0"),
    ("max-connections", "x"),
    ("max-body", "0"),
    ("max-body", "big"),
    ("max-body", "-1MiB"),
    ("max-queue-length", "0"),
    ("max-queue-length", "x"),
    ("retain-completed", "forever"),
    ("retain-completed-max", "-1"),
    ("retain-completed-max", "x"),
    ("retain-failed", "90"),
    ("retain-failed-max", "x"),
    ("max-crashes", "0"),
    ("max-crashes", "x"),
    ("inline-backoff", "x"),
    ("inline-backoff", "-1s"),
    ("log-format", "xml"),
    ("log-level", "loud"),
    ("api-token", ""),
];

#[test]
fn a_bad_value_is_refused_with_one_line_that_names_the_setting() {
    let redis = TestRedis::start();
    for (name, value) in BAD {
        let base =
            if name == "redis-url" { TestServer::builder() } else { TestServer::builder().redis(&redis) };
        let base = if name == "listen" { base.without_listen() } else { base };
        let by_flag = base.clone().arg(&format!("--{name}={value}")).run_serve();
        assert_refused(&by_flag, name);
    }
}

#[test]
fn a_bad_value_of_the_environment_or_the_file_is_refused_too() {
    let redis = TestRedis::start();
    for (name, value) in
        [("workers", "1001"), ("lease-timeout", "999ms"), ("log-format", "xml"), ("max-body", "big")]
    {
        let variable = format!("THREADQ_{}", name.to_uppercase().replace('-', "_"));
        let finished = TestServer::builder().redis(&redis).env(&variable, value).run_serve();
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
        assert!(finished.stderr.contains(&variable) || finished.stderr.contains(name), "{finished:?}");
        let finished =
            TestServer::builder().redis(&redis).config(&format!("{name} = \"{value}\"\n")).run_serve();
        assert_refused(&finished, name);
    }
    for (text, name) in [
        ("wrokers = 5\n", "wrokers"),
        ("workers = [1]\n", "workers"),
        ("workers = 1\nworkers = 2\n", "threadq.toml"),
        ("[handlers.x]\nexce = [\"/bin/true\"]\n", "exce"),
        ("[handlers.x]\nexec = [\"/bin/true\"]\nhttp = \"http://127.0.0.1/\"\n", "x"),
        ("[handlers.x]\nexec = []\n", "exec"),
        ("[handlers.x]\nexec = \"/bin/true\"\n", "exec"),
        ("[handlers.x]\nhttp = \"ftp://127.0.0.1/\"\n", "http"),
        ("[handlers.x]\nexec = [\"/bin/true\"]\ntimeout = \"0s\"\n", "timeout"),
        ("[handlers.x]\nexec = [\"/bin/true\"]\nmax_attempts = 0\n", "max_attempts"),
        ("[handlers.x]\nexec = [\"/bin/true\"]\nmax_attempts = 101\n", "max_attempts"),
        ("[handlers.x]\nexec = [\"/bin/true\"]\nbackoff = { base = \"x\" }\n", "backoff"),
        ("[handlers.nobody-has-it]\ntimeout = \"1s\"\n", "nobody-has-it"),
        ("workers = \n", "threadq.toml"),
    ] {
        let finished = TestServer::builder().redis(&redis).config(text).run_serve();
        assert_refused(&finished, name);
    }
    let finished = TestServer::builder().redis(&redis).config_file("/nowhere/x.toml".into()).run_serve();
    assert_refused(&finished, "/nowhere/x.toml");
}

#[test]
fn a_wrong_command_line_is_refused() {
    let redis = TestRedis::start();
    for arg in ["--colour=red", "extra", "--workers"] {
        let finished = TestServer::builder().redis(&redis).arg(arg).run_serve();
        assert_eq!(finished.code, Some(2), "{arg}: {finished:?}");
        assert_eq!(finished.stderr.lines().count(), 1, "{arg}: {finished:?}");
    }
    let finished = TestServer::builder().run("sreve");
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("sreve"), "{finished:?}");
}

#[test]
fn an_open_address_needs_a_token() {
    let redis = TestRedis::start();
    for address in ["0.0.0.0:0", "[::]:0"] {
        let finished = TestServer::builder().redis(&redis).listen(address).run_serve();
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
        assert!(finished.stderr.contains("api-token"), "{finished:?}");
    }
    let open = TestServer::builder().redis(&redis).listen("0.0.0.0:0");
    open.clone().flag("api-token", "a-long-enough-token").start();
    open.arg("--insecure-no-token").start();
}

#[test]
fn a_program_that_does_not_exist_is_refused_at_the_start() {
    let redis = TestRedis::start();
    for program in ["/nowhere/encode", "./nowhere.sh", "no-such-program-anywhere"] {
        let config = format!("[handlers.\"Encode Video\"]\nexec = [\"{program}\"]\n");
        let finished = TestServer::builder().redis(&redis).config(&config).run_serve();
        assert_refused(&finished, program);
        assert!(finished.stderr.contains("Encode Video"), "{finished:?}");
    }
}

#[test]
fn an_address_in_use_is_said() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let finished = TestServer::builder().redis(&redis).listen(&server.addr().to_string()).run_serve();
    assert!(matches!(finished.code, Some(1 | 2)), "{finished:?}");
    assert!(finished.stderr.contains(&server.addr().to_string()), "{finished:?}");
}

#[test]
fn check_says_whether_all_is_well() {
    let redis = TestRedis::start();
    let good = "[handlers.ok]\nexec = [\"/bin/true\"]\n";
    let finished = TestServer::builder().redis(&redis).config(good).run("check");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("handlers: ok\n"), "{finished:?}");
    let none = TestServer::builder().redis(&redis).without_demo().run("check");
    assert_eq!(none.code, Some(0), "{none:?}");
    assert!(none.stdout.contains("handlers: none\nwarning: no handlers: every job will fail; "), "{none:?}");
    let limits = "[limits.smtp]\nrate = \"10/s\"\n[handlers.ok]\nexec = [\"/bin/true\"]\nconcurrency = 5\nlimited_by = [\"smtp\", \"other:1\"]\n";
    let finished = TestServer::builder().redis(&redis).config(limits).run("check");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let lines = "limit smtp: rate 10/s, burst 1\nlimit threadq.type:ok: concurrency 5\nwarning: handlers.\"ok\".limited_by names the limit other:1, ";
    assert!(finished.stdout.contains(lines), "{finished:?}");
    let missing = "[handlers.bad]\nexec = [\"/nowhere/encode\"]\n";
    let finished = TestServer::builder().redis(&redis).config(missing).run("check");
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("/nowhere/encode"), "{finished:?}");
    let finished = TestServer::builder().flag("redis-url", "redis://127.0.0.1:1/").config(good).run("check");
    assert!(matches!(finished.code, Some(1 | 2)), "{finished:?}");
    assert!(finished.stderr.to_lowercase().contains("redis"), "{finished:?}");
    let finished = TestServer::builder().redis(&redis).config("workers = 1001\n").run("check");
    assert_refused(&finished, "workers");
}

#[test]
fn a_program_that_cannot_be_executed_is_refused_by_check_and_at_the_start() {
    use std::os::unix::fs::PermissionsExt;
    let redis = TestRedis::start();
    let dir = TempDir::new();
    for (script, part) in [
        ("#!/bin/sh\r\necho\r\n", "carriage return"),
        ("#!/nowhere/python9\n", "/nowhere/python9"),
        ("#!/usr/bin/env python9\n", "python9"),
        ("#!python9\n", "python9"),
        ("", "is empty"),
        ("echo hello\n", "#!"),
        ("\u{7f}ELF", "cut off"),
    ] {
        let file = dir.write("encode", script);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let config = dir.write("jobs.toml", "[handlers.encode]\nexec = [\"./encode\"]\n");
        for command in ["check", "serve"] {
            let finished = TestServer::builder().redis(&redis).config_file(config.clone()).run(command);
            assert_refused(&finished, "handlers.\"encode\"");
            assert!(finished.stderr.contains(part), "{finished:?}");
        }
    }
}

#[test]
fn a_policy_that_drops_keys_is_warned_of() {
    let redis = TestRedis::start();
    redis.query::<()>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let server = TestServer::start(&redis);
    eventually(LIMIT, "the log warns", || server.log_text().contains("noeviction"));
}

#[test]
fn a_redis_that_keeps_nothing_on_disk_is_warned_of() {
    let redis = TestRedis::start();
    redis.query::<()>(&["CONFIG", "SET", "appendonly", "no"]);
    let server = TestServer::start(&redis);
    eventually(LIMIT, "the log warns", || {
        let log = server.log_text().to_lowercase();
        log.contains("appendonly") || log.contains("disk") || log.contains("persist")
    });
}

#[test]
fn logs_can_be_json_and_go_to_stderr_one_line_each() {
    let redis = TestRedis::start();
    let server =
        TestServer::builder().redis(&redis).flag("log-format", "json").flag("log-level", "debug").start();
    let id = server.submit_job(json!({"type": "fail\u{2028}\u{202e}", "max_attempts": 1}));
    server.wait_for_status(id, "failed");
    let log = server.log_text();
    assert!(!log.is_empty());
    for line in log.lines() {
        let parsed: Result<Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok_and(|value| value.is_object()), "no JSON: {line}");
    }
}
