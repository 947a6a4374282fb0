//! Limits over HTTP: definitions of files and of the API, jobs that wait for room, and what each response says of them.

use crate::common::*;

use threadq::client::limits::{Limit, MINUTE, SECOND};
use threadq::client::{Client, Submission};
use threadq::config::{Config, Secret};
use threadq::server::Server;

fn put(server: &TestServer, path: &str, body: Value) -> Reply {
    let json_type = [("Content-Type", "application/json")];
    server.request("PUT", path, &json_type, Some(body.to_string().as_bytes()))
}

fn limit(server: &TestServer, path: &str) -> Value {
    server.get(&format!("/limits/{path}")).expect(200).json()
}

const LIMITS: &str = r#"
    [limits.smtp]
    rate = "10/s"

    [limits.tenant]
    concurrency = 1

    [handlers.sleep]
    concurrency = 2

    [handlers.echo]
    limited_by = ["smtp"]
"#;

#[test]
fn a_limit_of_the_file_is_overridden_and_gets_its_numbers_back() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(LIMITS).start();
    let names = || -> Vec<Value> {
        let limits = server.get("/limits").expect(200).json()["limits"].as_array().cloned().unwrap();
        limits.iter().map(|limit| limit["name"].clone()).collect()
    };
    eventually(LIMIT, "the limits of the file", || names() == ["smtp", "tenant", "threadq.type:sleep"]);
    let smtp = limit(&server, "smtp");
    assert_eq!(
        smtp,
        json!({"name": "smtp", "rate": "10/s", "burst": 1, "source": "config", "overridden": false, "running": 0,
               "waiting": 0, "running_ids": [], "waiting_jobs": [], "page": 1, "limit": 10})
    );
    server.delete("/limits/smtp").expect_error(409, "managed_by_config", "smtp");

    let changed = put(&server, "/limits/smtp", json!({"rate": "100/m", "burst": 5, "concurrency": 3}))
        .expect(200)
        .json();
    let numbers =
        |shown: &Value| (shown["concurrency"].clone(), shown["rate"].clone(), shown["burst"].clone());
    let overridden = (json!(3), json!("100/m"), json!(5));
    assert_eq!((numbers(&changed), &changed["overridden"]), (overridden.clone(), &json!(true)));
    let second = TestServer::builder().redis(&redis).config(LIMITS).start();
    second.wait_until_ready();
    assert_eq!(numbers(&limit(&second, "smtp")), overridden, "another server with the file keeps it");
    second.delete("/limits/smtp").expect(204);
    assert_eq!(limit(&server, "smtp"), smtp);

    // The limit of a job type: the server's name, which no one else can use.
    let of_type = "threadq.type?key=sleep";
    assert_eq!(limit(&server, of_type), limit(&server, "threadq.type:sleep"));
    let listed = server.get("/limits").expect(200).json()["limits"][2].clone();
    for (field, value) in listed.as_object().unwrap() {
        assert_eq!(limit(&server, of_type)[field], *value, "{field}");
    }
    assert_eq!((&listed["name"], &listed["overridden"]), (&json!("threadq.type:sleep"), &json!(false)));
    put(&server, &format!("/limits/{of_type}"), json!({"concurrency": 9})).expect(200);
    assert_eq!(limit(&server, of_type)["concurrency"], 9);
    server.delete(&format!("/limits/{of_type}")).expect(204);
    let error = put(&server, "/limits/threadq.type?key=other", json!({"concurrency": 9}));
    error.expect_error(400, "invalid_limit", "a name of the server");
}

#[test]
fn a_limit_of_the_api_is_defined_changed_and_deleted_and_so_are_its_keys() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    put(&server, "/limits/tenant?key=42", json!({"concurrency": 7})).expect_error(
        404,
        "not_found",
        "no such limit",
    );
    let created = put(&server, "/limits/tenant", json!({"concurrency": 2})).expect(201).json();
    assert_eq!((&created["source"], &created["concurrency"]), (&json!("api"), &json!(2)));
    put(&server, "/limits/tenant", json!({"concurrency": 3})).expect(200);
    let key = put(&server, "/limits/tenant?key=a%20%2Fb", json!({"concurrency": 7})).expect(201).json();
    assert_eq!(
        (&key["name"], &key["key"], &key["concurrency"], &key["overridden"]),
        (&json!("tenant"), &json!("a /b"), &json!(7), &json!(true))
    );
    put(&server, "/limits/tenant?key=0", json!({"rate": "5/30s"})).expect(201);
    let own = limit(&server, "tenant")["keys"].clone();
    let expected = json!([{"key": "0", "rate": "5/30s", "burst": 1, "source": "api", "running": 0, "waiting": 0},
                          {"key": "a /b", "concurrency": 7, "source": "api", "running": 0, "waiting": 0}]);
    assert_eq!(own, expected);
    let other = limit(&server, "tenant?key=other");
    assert_eq!((&other["concurrency"], &other["overridden"]), (&json!(3), &json!(false)));
    server.delete("/limits/tenant?key=other").expect_error(404, "not_found", "no numbers of its own");
    server.delete("/limits/tenant?key=a%20%2Fb").expect(204);
    assert_eq!(limit(&server, "tenant?key=a%20%2Fb")["concurrency"], 3);
    server.delete("/limits/tenant").expect(204);
    server.get("/limits/tenant").expect_error(404, "not_found", "deleted");
    server.delete("/limits/tenant").expect_error(404, "not_found", "deleted");

    for (body, sentence) in [
        (json!({}), "concurrency or rate must be given"),
        (json!({"rate": "10"}), "rate must be a string N/PERIOD"),
        (json!({"concurrency": 100_001}), "concurrency must be a whole number from 1 to 100000"),
        (json!({"concurrency": 1, "colour": 1}), "unknown field \"colour\""),
    ] {
        let error = put(&server, "/limits/x", body).expect_error(400, "invalid_limit", sentence);
        assert!(error.starts_with(sentence), "{error}");
    }
    put(&server, "/limits/a%20b", json!({"concurrency": 1})).expect_error(404, "not_found", "no name");
    put(&server, "/limits/a?key=", json!({"concurrency": 1})).expect_error(400, "invalid_query", "no key");
    server.get("/limits/a:b?key=c").expect_error(400, "invalid_query", "two keys");
    server.get("/limits/a?limit=0").expect_error(400, "invalid_query", "limit");
    assert_eq!(server.get("/limits").expect(200).json(), json!({"limits": []}));
}

#[test]
fn a_job_without_room_says_what_it_waits_for() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(LIMITS).start();
    server.wait_until_ready();
    eventually(LIMIT, "the limits of the file", || server.get("/limits/tenant").status == 200);
    let sleep = |limits: &[&str]| {
        server.submit_job(json!({"type": "sleep", "payload": {"ms": 600_000}, "limits": limits}))
    };
    let first = sleep(&["tenant:42"]);
    let running = server.wait_for_status(first, "processing");
    assert_eq!(running["limits"], json!(["tenant:42", "threadq.type:sleep"]));
    assert!(running["blocked_by"].is_null());
    let (second, third) = (sleep(&["tenant:42"]), sleep(&["tenant:42"]));
    let blocked_by = |id: u64| server.job(id)["blocked_by"].clone();
    eventually(LIMIT, "they wait", || {
        [second, third].iter().all(|id| blocked_by(*id)["limit"] == "tenant:42")
    });
    assert_eq!(server.job(second)["status"], "queued");

    let reasons = server.get(&format!("/jobs/{third}/why")).expect(200).json();
    let reason = &reasons["reasons"][0];
    assert_eq!(
        (&reason["code"], &reason["limit"], &reason["max"], &reason["running"], &reason["place"]),
        (&json!("limit_full"), &json!("tenant:42"), &json!(1), &json!([first]), &json!(2))
    );
    let shown = limit(&server, "tenant?key=42&limit=1&page=2");
    assert_eq!((&shown["running"], &shown["waiting"]), (&json!(1), &json!(2)));
    assert_eq!((&shown["running_ids"], &shown["waiting_jobs"][0]["id"]), (&json!([first]), &json!(third)));
    let keys = limit(&server, "tenant")["keys"].clone();
    assert_eq!(keys, json!([{"key": "42", "running": 1, "waiting": 2}]));
    let listed = server.get("/limits").expect(200).json()["limits"][1].clone();
    assert_eq!(
        (&listed["name"], &listed["running"], &listed["waiting"]),
        (&json!("tenant"), &json!(1), &json!(2))
    );
    let queue = server.get("/queues").expect(200).json()["queues"][0].clone();
    assert_eq!((&queue["queued"], &queue["held"]), (&json!(2), &json!(2)));
    assert_eq!(server.metric("threadq_limit_running{limit=\"tenant\"}"), 1.0);
    assert_eq!(server.metric("threadq_limit_waiting{limit=\"tenant\"}"), 2.0);

    // Room for one more: the job that has waited longest starts.
    put(&server, "/limits/tenant?key=42", json!({"concurrency": 2})).expect(201);
    let started = server.wait_for_status(second, "processing");
    assert!(started["blocked_by"].is_null() && started["limits"].is_array());
    let waits = "threadq_limit_wait_seconds_count{limit=\"tenant\"}";
    eventually(LIMIT, "the wait is counted, just after the start", || server.metric(waits) == 1.0);
    // Now the limit of the type has no room.
    put(&server, "/limits/tenant?key=42", json!({"concurrency": 3})).expect(200);
    eventually(LIMIT, "it waits for the type", || blocked_by(third)["limit"] == "threadq.type:sleep");
    server.act(&format!("/jobs/{first}/cancel")).expect(202);
    server.wait_for_status(third, "processing");
}

#[test]
fn a_rate_says_when_the_next_job_starts() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    put(&server, "/limits/slow", json!({"rate": "1/30d"})).expect(201);
    let job = json!({"type": "echo", "limits": ["slow"]});
    let (first, second) = (server.submit_job(job.clone()), server.submit_job(job));
    server.wait_for_status(first, "completed");
    eventually(LIMIT, "it waits", || server.job(second)["blocked_by"]["limit"] == "slow");
    let reason = server.get(&format!("/jobs/{second}/why")).expect(200).json()["reasons"][0].clone();
    assert_eq!(
        (&reason["code"], &reason["limit"], &reason["place"]),
        (&json!("limit_rate"), &json!("slow"), &json!(1))
    );
    let opens_at = limit(&server, "slow")["opens_at"].clone();
    assert_eq!(opens_at, reason["opens_at"]);
    assert!(time_ms(&opens_at) > time_ms(&server.job(first)["started_at"]) + 29 * 86_400_000);
    server.delete("/limits/slow").expect(204);
    server.wait_for_status(second, "completed");
}

#[test]
fn limits_of_a_submission_are_checked_with_the_field() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(LIMITS).start();
    server.wait_until_ready();
    eventually(LIMIT, "the limits of the file", || server.get("/limits/tenant").status == 200);
    for (limits, sentence) in [
        (json!("smtp"), "limits must be an array of up to 4 different strings"),
        (json!(["smtp", "smtp"]), "limits must be an array of up to 4 different strings"),
        (json!(["threadq.type:sleep"]), "limits must not name threadq.type:sleep"),
        (
            json!(["tenant:1", "tenant:2", "tenant:3", "tenant:4"]),
            "limits must be at most 4 together with those of the type",
        ),
        (json!(["unknown:1"]), "limits: there is no limit "),
    ] {
        let job = json!({"type": "echo", "limits": limits});
        let error = server.post("/jobs", &job).expect_error(400, "invalid_job", sentence);
        assert!(error.starts_with(sentence), "{error}");
        let batch = json!({"jobs": [{"type": "echo"}, job]});
        let error = server.post("/jobs/batch", &batch).expect_error(400, "invalid_job", sentence);
        assert!(error.starts_with(sentence) || error.starts_with(&format!("jobs[1].{sentence}")), "{error}");
    }
    let schedule = json!({"every": "1h", "job": {"type": "echo", "limits": ["unknown"]}});
    let error =
        put(&server, "/schedules/x", schedule).expect_error(400, "invalid_schedule", "an unknown limit");
    assert!(error.starts_with("job.limits: there is no limit "), "{error}");
    let schedule = json!({"every": "1h", "job": {"type": "echo", "limits": ["tenant:1"]}});
    put(&server, "/schedules/x", schedule).expect(201);
    let id = server.act("/schedules/x/run").expect(202).json()["job_id"].as_u64().unwrap();
    let job = server.wait_for_status(id, "completed");
    assert_eq!(job["limits"], json!(["tenant:1", "smtp"]), "with those of the type");
    assert_eq!(server.get("/jobs").expect(200).json()["total"], 1, "nothing else was stored");
}

#[test]
fn the_rust_client_defines_shows_and_deletes_limits() {
    let redis = TestRedis::start();
    let server = Server::builder()
        .config(Config {
            redis_url: Some(Secret::new(redis.url())),
            listen: "127.0.0.1:0".parse().unwrap(),
            ..Config::default()
        })
        .handler("add", |job| job.payload::<u64>())
        .limit(Limit::named("smtp").rate(10, SECOND))
        .start()
        .expect("the server starts");
    let client = Client::new(&format!("http://{}", server.addr())).unwrap();
    let limits = client.limits();
    eventually(LIMIT, "the limit of the program", || !limits.list().unwrap().is_empty());
    let smtp = limits.get("smtp", 1, 10).unwrap();
    assert_eq!((smtp.rate.as_deref(), smtp.burst, smtp.source.as_str()), (Some("10/s"), Some(1), "config"));
    let tenant = limits.put(&Limit::named("tenant").concurrency(2).rate(100, MINUTE).burst(20)).unwrap();
    assert_eq!(
        (tenant.concurrency, tenant.rate.as_deref(), tenant.burst),
        (Some(2), Some("100/m"), Some(20))
    );
    let key = limits.put(&Limit::named("tenant:4 2").concurrency(3)).unwrap();
    assert_eq!((key.name.as_str(), key.key.as_deref(), key.overridden), ("tenant", Some("4 2"), true));
    assert_eq!(limits.get("tenant", 1, 10).unwrap().keys[0].concurrency, Some(3));
    let job = Submission::new("add").payload(&5).unwrap().limit("tenant:4 2").limit("smtp");
    let id = client.submit(&job).unwrap().id;
    let job = client.wait(id, LIMIT).unwrap();
    assert_eq!(
        (job.limits.clone(), job.blocked_by.is_none()),
        (vec!["tenant:4 2".to_owned(), "smtp".to_owned()], true)
    );
    assert_eq!(job.result::<u64>().unwrap(), 5);
    limits.delete("tenant:4 2").unwrap();
    limits.delete("tenant").unwrap();
    assert_eq!(limits.get("tenant", 1, 10).unwrap_err().code(), Some("not_found"));
    assert_eq!(limits.delete("smtp").unwrap_err().code(), Some("managed_by_config"));
    assert_eq!(limits.put(&Limit::named("x")).unwrap_err().code(), Some("invalid_limit"));
    server.stop();
}
