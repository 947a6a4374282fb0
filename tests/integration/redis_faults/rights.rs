//! The Redis user of a server lacks a right: a server that cannot run jobs logs the reason, and is not ready.

use crate::common::*;

/// A Redis whose user `threadq` has all rights except some, and the URL with that user.
fn redis_without(rules: &[&str]) -> (TestRedis, String) {
    let redis = TestRedis::start();
    set_user(&redis, &[&["~{threadq}:*", "&*", "+@all"], rules].concat());
    let url = format!("{}?user=threadq&pass=one", redis.url());
    (redis, url)
}

fn set_user(redis: &TestRedis, rules: &[&str]) {
    redis.query::<()>(&[&["ACL", "SETUSER", "threadq", "on", ">one"], rules].concat());
}

fn start(url: &str) -> TestServer {
    TestServer::builder().env("THREADQ_REDIS_URL", url).start()
}

fn check(url: &str) -> Finished {
    TestServer::builder().env("THREADQ_REDIS_URL", url).without_demo().run("check")
}

#[test]
fn a_managed_redis_without_info_and_config_is_all_that_is_needed() {
    let (_redis, url) = redis_without(&["-@dangerous", "-info", "-config"]);
    let server = start(&url);
    server.wait_until_ready();
    server.complete("echo", json!(1));
    assert_eq!(server.server_ids().len(), 1);
    let log = server.log_text();
    assert!(!log.contains("ERROR") && !log.contains("without Redis"), "{log}");
    let checked = check(&url);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.stdout.contains("unknown") && checked.stdout.ends_with("ok\n"), "{checked:?}");
}

#[test]
fn a_server_without_a_right_that_jobs_need_is_not_ready_and_check_says_what_grants_it() {
    for (rules, grant) in [
        (&["-brpoplpush"][..], "+brpoplpush"),
        (&["-@blocking"], "+brpoplpush"),
        (&["-@scripting"], "+evalsha"),
        (&["-script|load"], "+script|load"),
        (&["-time"], "+time"),
        (&["-hset", "-zadd"], "+hset +zadd"),
        (&["resetkeys", "~threadq:*"], "~{threadq}:*"),
        (&["resetkeys", "~{threadq}:s*"], "~{threadq}:*"),
        (&["resetkeys", "%R~{threadq}:*"], "~{threadq}:*"),
    ] {
        let (redis, url) = redis_without(rules);
        let words = format!("ACL SETUSER threadq {grant}");
        let checked = check(&url);
        assert_eq!(checked.code, Some(2), "{rules:?}: {checked:?}");
        assert_eq!(checked.stderr.lines().count(), 1, "{rules:?}: {checked:?}");
        assert!(
            checked.stderr.contains("redis-url") && checked.stderr.contains(&words),
            "{rules:?}: {checked:?}"
        );

        let server = start(&url);
        let reason = server.get("/readyz").expect_error(503, "store_unavailable", grant);
        assert!(reason.contains(&words), "{rules:?}: {reason}");
        eventually(LIMIT, "the log has the reason", || server.log_text().contains(&words));
        server.get("/healthz").expect(200);
        // With exactly these rights granted, the server runs jobs.
        let mut rights: Vec<&str> = words.split(' ').skip(3).collect();
        if grant == "+evalsha" {
            rights.push("+script|load");
        }
        set_user(&redis, &rights);
        server.wait_until_ready();
        server.complete("echo", json!(1));
        eventually(LIMIT, "the log says that it is over", || {
            server.log_text().contains("Redis grants all rights")
        });
        let log = server.log_text();
        assert!(log.matches("ERROR").count() <= 3, "{rules:?}: {log}");
        assert!(!log.contains("ERROR Redis is unavailable"), "{rules:?}: {log}");
        assert_eq!(check(&url).code, Some(0));
    }
}

#[test]
fn a_right_that_jobs_do_without_is_missed_only_by_what_needs_it() {
    let (_redis, url) = redis_without(&["-zrevrange"]);
    let server = start(&url);
    let id = server.complete("echo", json!(1))["id"].clone();
    let reply = server.get("/jobs");
    let reason = reply.expect_error(503, "store_unavailable", "zrevrange");
    assert!(reason.contains("ACL SETUSER threadq +zrevrange"), "{reason}");
    server.get(&format!("/jobs/{id}")).expect(200);
    server.wait_until_ready();
    server.complete("echo", json!(2));
    let log = server.log_text();
    assert!(!log.contains("Redis denies") && !log.contains("Redis grants"), "{log}");
}

#[test]
fn rights_that_are_taken_away_while_it_runs_leave_no_half_a_job() {
    let (redis, url) = redis_without(&[]);
    let server = start(&url);
    server.wait_until_ready();
    let mut ids = Vec::new();
    for command in ["lpush", "zadd", "hset", "set", "sadd", "lrem", "rpop", "brpoplpush"] {
        ids.push(server.submit("sleep", json!({"ms": 300})));
        set_user(&redis, &[&format!("-{command}")]);
        let keys = redis.keys("*job:*").len();
        let reply = server.post("/jobs", &json!({"type": "echo", "unique_key": command}));
        match reply.status {
            202 => ids.push(reply.json()["job_id"].as_u64().expect("an id")),
            _ => {
                let reason = reply.expect_error(503, "store_unavailable", command);
                assert!(reason.contains(&format!("+{command}")), "{reason}");
                assert_eq!(redis.keys("*job:*").len(), keys, "half a job without {command}");
            }
        }
        let reason = server.get("/readyz").expect_error(503, "store_unavailable", command);
        assert!(reason.contains(&format!("+{command}")), "{reason}");
        set_user(&redis, &[&format!("+{command}")]);
        server.wait_until_ready();
    }
    wait_until_quiet(&server, LIMIT);
    let outcomes = audit(&redis, &server, &ids);
    assert!(outcomes.values().all(|status| status == "completed"), "{outcomes:?}");
}

#[test]
fn a_replica_and_a_sentinel_are_no_place_for_jobs() {
    let master = TestRedis::start();
    let replica = TestRedis::start();
    replica.query::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    let checked = check(&replica.url());
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.stderr.contains("redis-url") && checked.stderr.contains("replica"), "{checked:?}");
    let server = start(&replica.url());
    server.get("/readyz").expect_error(503, "store_unavailable", "a replica");
    drop((server, master));

    let dir = TempDir::new();
    let config = dir.write("sentinel.conf", "");
    let socket = dir.join("sentinel.sock");
    let mut sentinel = std::process::Command::new("redis-server")
        .arg(config)
        .args(["--sentinel", "--port", "0", "--unixsocket"])
        .arg(&socket)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("redis-server must be on PATH");
    let url = format!("unix://{}", socket.display());
    eventually(LIMIT, "the Sentinel answers", || socket.exists());
    let outcomes = ["check", "serve"].map(|command| {
        until_some(LIMIT, "an answer", || {
            let finished = TestServer::builder().env("THREADQ_REDIS_URL", &url).without_demo().run(command);
            Some(finished).filter(|finished| finished.code == Some(2))
        })
    });
    let _ = sentinel.kill();
    let _ = sentinel.wait();
    for finished in outcomes {
        assert!(finished.stderr.contains("Sentinel"), "{finished:?}");
    }
}

#[test]
fn check_finds_a_data_dir_that_cannot_be_written() {
    let dir = TempDir::new();
    let file = dir.write("file", "");
    for (data_dir, part) in [(file.join("data"), "is not a folder"), ("/proc/threadq-data".into(), "/proc")] {
        let data_dir = data_dir.to_str().expect("UTF-8").to_owned();
        let checked = TestServer::builder().flag("data-dir", &data_dir).without_demo().run("check");
        assert_eq!(checked.code, Some(2), "{checked:?}");
        assert!(checked.stderr.contains("data-dir") && checked.stderr.contains(part), "{checked:?}");
    }
    let whole = dir.join("a/b/c");
    let checked =
        TestServer::builder().flag("data-dir", whole.to_str().expect("UTF-8")).without_demo().run("check");
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(!dir.join("a").exists(), "it has made something");
}
