//! Submitting jobs and reading them back: every field is as the contract defines it.

use crate::common::*;

use std::collections::{BTreeSet, HashMap};

use serde_json::value::RawValue;

const FIELDS: [&str; 18] = [
    "id",
    "type",
    "queue",
    "status",
    "payload",
    "attempts",
    "max_attempts",
    "crashes",
    "timeout_ms",
    "created_at",
    "scheduled_at",
    "started_at",
    "finished_at",
    "last_error",
    "errors",
    "result",
    "unique_key",
    "server",
];

fn fields(job: &Value) -> BTreeSet<&str> {
    job.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn a_submitted_job_is_answered_with_its_id_and_place() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let reply = server.post("/jobs", &json!({"type": "echo", "payload": {"a": 1}})).expect(202);
    let answer = reply.json();
    let id = answer["job_id"].as_u64().expect("a number");
    assert_eq!(answer, json!({"message": "Job submitted successfully", "job_id": id, "status": "queued"}));
    assert_eq!(reply.header("Location"), Some(format!("/jobs/{id}").as_str()));
    assert!(reply.header("Content-Type").expect("a type").starts_with("application/json"));
    assert!(id > 0 && id < 1 << 53);
}

#[test]
fn a_whole_number_may_be_written_with_a_point_or_an_exponent() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let body = r#"{"type": "echo", "delay_ms": 36e5, "max_attempts": 7.0, "timeout_ms": 2.5e3}"#;
    let id = server.post_text("/jobs", body).expect(202).json()["job_id"].as_u64().expect("an id");
    let job = server.job(id);
    assert_eq!((&job["max_attempts"], &job["timeout_ms"]), (&json!(7), &json!(2500)), "{job:#}");
    assert!(time_ms(&job["scheduled_at"]).abs_diff(id / 1000 + 3_600_000) <= 1, "{job:#}");
    for wrong in ["7.5", "-1.0", "1e300", "101.0", "0.0", "1e-9"] {
        let body = format!(r#"{{"type": "echo", "max_attempts": {wrong}}}"#);
        server.post_text("/jobs", &body).expect_error(400, "invalid_job", wrong);
    }
}

#[test]
fn a_completed_job_has_every_field_and_no_other() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let before = now_ms();
    let id = server.submit("echo", json!({"a": [1, "x", null]}));
    let job = server.wait_for_status(id, "completed");
    assert_eq!(fields(&job), BTreeSet::from(FIELDS), "{job:#}");
    assert_eq!(job["id"], id);
    assert_eq!(job["type"], "echo");
    assert_eq!(job["queue"], "default");
    assert_eq!(job["payload"], json!({"a": [1, "x", null]}));
    assert_eq!(job["result"], job["payload"]);
    assert_eq!(job["attempts"], 1, "{job:#}");
    assert_eq!(job["max_attempts"], 5);
    assert_eq!(job["crashes"], 0);
    assert_eq!(job["timeout_ms"], 300_000);
    assert_eq!(job["scheduled_at"], Value::Null);
    assert_eq!(job["last_error"], Value::Null);
    assert_eq!(job["errors"], json!([]));
    assert_eq!(job["unique_key"], Value::Null);
    assert!(server.server_ids().contains(&job["server"].as_str().expect("a server").to_owned()), "{job:#}");
    let (created, started, finished) =
        (time_ms(&job["created_at"]), time_ms(&job["started_at"]), time_ms(&job["finished_at"]));
    assert_eq!(created, id / 1000, "created_at is the id's time: {job:#}");
    assert!(before <= created + 1 && created <= started && started <= finished, "{job:#}");
    assert!(finished <= now_ms() + 1, "{job:#}");
}

#[test]
fn a_waiting_job_has_every_field_too() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let id = server.submit_job(json!({"type": "echo"}));
    let job = server.job(id);
    assert_eq!(fields(&job), BTreeSet::from(FIELDS), "{job:#}");
    assert_eq!(job["status"], "queued");
    assert_eq!(job["payload"], json!({}), "an absent payload means {{}}");
    assert_eq!(job["attempts"], 0);
    for name in ["started_at", "finished_at", "result", "last_error", "server", "scheduled_at"] {
        assert_eq!(job[name], Value::Null, "{name}: {job:#}");
    }
}

#[test]
fn every_optional_field_is_kept() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let id = server.submit_job(json!({
        "type": "Encode Video", "payload": [1, 2], "queue": "Media_1.low-prio", "delay_ms": 3_600_000,
        "max_attempts": 7, "timeout_ms": 1234, "unique_key": "video 7 ☃",
    }));
    let job = server.job(id);
    assert_eq!(job["type"], "Encode Video");
    assert_eq!(job["payload"], json!([1, 2]));
    assert_eq!(job["queue"], "Media_1.low-prio");
    assert_eq!(job["status"], "scheduled", "{job:#}");
    assert_eq!(job["max_attempts"], 7);
    assert_eq!(job["timeout_ms"], 1234);
    assert_eq!(job["unique_key"], "video 7 ☃");
    let wait = time_ms(&job["scheduled_at"]) - time_ms(&job["created_at"]);
    assert!((3_599_000..=3_601_000).contains(&wait), "{job:#}");
}

#[test]
fn a_delayed_job_runs_when_its_time_has_come_and_not_before() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let id = server.submit_job(json!({"type": "echo", "delay_ms": 3000}));
    assert_eq!(server.job(id)["status"], "scheduled");
    let job = server.wait_for_status(id, "completed");
    let waited = time_ms(&job["started_at"]) - time_ms(&job["created_at"]);
    assert!((2999..20_000).contains(&waited), "started after {waited} ms: {job:#}");
    let now = server.submit_job(json!({"type": "echo", "delay_ms": 0}));
    server.wait_for_status(now, "completed");
}

#[test]
fn run_at_names_the_time_itself() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let at = now_ms() + 4000;
    let soon = server.submit_job(json!({"type": "echo", "run_at": rfc3339(at)}));
    let job = server.job(soon);
    assert_eq!((&job["status"], time_ms(&job["scheduled_at"])), (&json!("scheduled"), at));
    let past = server.submit_job(json!({"type": "echo", "run_at": "2001-02-03T04:05:06Z"}));
    let zone = server.submit_job(json!({"type": "echo", "run_at": "2099-06-01T12:00:00.5+02:00"}));
    server.wait_for_status(past, "completed");
    let job = server.wait_for_status(soon, "completed");
    assert!(time_ms(&job["started_at"]) + 1 >= at, "{job:#}");
    let job = server.job(zone);
    assert_eq!(job["status"], "scheduled");
    assert_eq!(job["scheduled_at"], "2099-06-01T10:00:00.500Z");
}

#[test]
fn a_batch_is_stored_whole_and_in_order() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let jobs: Vec<Value> = (0..1000).map(|n| json!({"type": "echo", "payload": n})).collect();
    let reply = server.post("/jobs/batch", &json!({"jobs": jobs})).expect(202).json();
    assert_eq!(fields(&reply), BTreeSet::from(["job_ids"]));
    let ids: Vec<u64> = reply["job_ids"].as_array().expect("ids").iter().filter_map(Value::as_u64).collect();
    assert_eq!(ids.len(), 1000);
    assert!(ids.windows(2).all(|w| w[0] < w[1]));
    assert_eq!(server.total(""), 1000);
    for n in [0, 1, 500, 999] {
        assert_eq!(server.job(ids[n])["payload"], n);
    }
    let one = server.post("/jobs/batch", &json!({"jobs": [{"type": "echo", "delay_ms": 60000}]})).expect(202);
    let id = one.json()["job_ids"][0].as_u64().expect("an id");
    assert_eq!(server.job(id)["status"], "scheduled");
}

#[test]
fn a_batch_with_one_bad_job_stores_none() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let held = server.submit_job(json!({"type": "echo", "unique_key": "k"}));
    let good = json!({"type": "echo"});
    let many = vec![good.clone(); 1001];
    for (jobs, status, code) in [
        (json!([good, good, {"type": ""}]), 400, "invalid_job"),
        (json!([good, {"type": "echo", "max_attempts": 0}, good]), 400, "invalid_job"),
        (json!([good, 7]), 400, "invalid_job"),
        (json!([]), 400, "invalid_job"),
        (json!(many), 400, "invalid_job"),
        (json!([good, {"type": "echo", "unique_key": "k"}]), 409, "duplicate"),
    ] {
        let context = jobs.to_string().chars().take(200).collect::<String>();
        let reply = server.post("/jobs/batch", &json!({"jobs": jobs}));
        reply.expect_error(status, code, &context);
        assert_eq!(server.total(""), 1, "after {context}");
    }
    let twice = json!({"jobs": [{"type": "echo", "unique_key": "n"}, {"type": "echo", "unique_key": "n"}]});
    let reply = server.post("/jobs/batch", &twice);
    let sentence = reply.expect_error(400, "invalid_job", "one key twice in a batch");
    assert_eq!(sentence, "jobs[1] has the unique key of another job in this batch");
    assert_eq!(server.total(""), 1);
    assert_eq!(server.job(held)["status"], "queued");
    // A refused batch holds no unique key.
    server.submit_job(json!({"type": "echo", "unique_key": "n"}));
}

#[test]
fn a_repeated_post_with_the_same_key_gives_the_same_job() {
    let redis = TestRedis::start();
    let servers = [TestServer::observer(&redis), TestServer::observer(&redis)];
    let body = json!({"type": "echo", "payload": {"n": 1}});
    let key = [("Idempotency-Key", "order-17!~")];
    let first = servers[0].post_with("/jobs", &key, &body).expect(202);
    assert_eq!(first.header("Idempotency-Replayed"), None);
    for server in &servers {
        let again = server.post_with("/jobs", &key, &body).expect(200);
        assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
        assert_eq!(again.json()["job_id"], first.json()["job_id"]);
    }
    let other = servers[1].post_with("/jobs", &key, &json!({"type": "echo", "payload": {"n": 2}}));
    other.expect_error(422, "idempotency_mismatch", "another body");
    assert_eq!(servers[0].total(""), 1);
    let longest = "x".repeat(200);
    servers[0].post_with("/jobs", &[("Idempotency-Key", &longest)], &body).expect(202);
    assert_eq!(servers[0].total(""), 2);
}

#[test]
fn a_repeated_batch_with_the_same_key_gives_the_same_jobs() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let body = json!({"jobs": vec![json!({"type": "echo"}); 250]});
    let key = [("Idempotency-Key", "batch")];
    let first = server.post_with("/jobs/batch", &key, &body).expect(202);
    let again = server.post_with("/jobs/batch", &key, &body).expect(200);
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    assert_eq!(again.json()["job_ids"], first.json()["job_ids"]);
    server.post_with("/jobs/batch", &key, &json!({"jobs": [{"type": "echo"}]})).expect_error(
        422,
        "idempotency_mismatch",
        "another batch",
    );
    server.post_with("/jobs", &key, &json!({"type": "echo"})).expect_error(
        422,
        "idempotency_mismatch",
        "one job with a batch's key",
    );
    assert_eq!(server.total(""), 250);
}

#[test]
fn a_refused_post_does_not_use_up_its_key() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let key = [("Idempotency-Key", "k")];
    server.post_with("/jobs", &key, &json!({"type": ""})).expect_error(400, "invalid_job", "no type");
    server.post_with("/jobs", &key, &json!({"type": "echo"})).expect(202);
}

#[test]
fn parallel_posts_with_one_key_make_one_job() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let api = (*server).clone();
    let replies: Vec<Reply> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..12)
            .map(|_| {
                let api = api.clone();
                scope.spawn(move || {
                    api.post_with("/jobs", &[("Idempotency-Key", "same")], &json!({"type": "echo"}))
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect("no panic")).collect()
    });
    assert_eq!(replies.iter().filter(|r| r.status == 202).count(), 1, "{replies:?}");
    assert_eq!(replies.iter().filter(|r| r.status == 200).count(), 11, "{replies:?}");
    let ids: BTreeSet<_> = replies.iter().map(|r| r.json()["job_id"].as_u64()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(server.total(""), 1);
}

#[test]
fn a_unique_key_is_held_until_the_job_has_ended() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let body = |kind: &str, payload: Value| json!({"type": kind, "payload": payload, "unique_key": "k", "max_attempts": 1});
    let refused = |holder: u64| {
        let reply = server.post("/jobs", &body("echo", json!({})));
        reply.expect_error(409, "duplicate", "while it is held");
        assert_eq!(reply.json()["job_id"], holder, "{}", reply.text());
    };
    // Completed.
    let id = server.submit_job(body("sleep", json!({"ms": 3000})));
    refused(id);
    server.wait_for_status(id, "completed");
    // Failed.
    let id = server.submit_job(body("fail", json!({"permanent": true})));
    server.wait_for_status(id, "failed");
    // Scheduled, then cancelled.
    let id = server.submit_job(json!({"type": "echo", "unique_key": "k", "delay_ms": 3_600_000}));
    refused(id);
    server.act(&format!("/jobs/{id}/cancel")).expect(200);
    // Cancelled while it ran.
    let id = server.submit_job(body("sleep", json!({"ms": 60_000})));
    server.wait_for_status(id, "processing");
    refused(id);
    server.act(&format!("/jobs/{id}/cancel"));
    server.wait_for_status(id, "cancelled");
    server.submit_job(body("echo", json!({})));
    // Another key is free.
    server.submit_job(json!({"type": "echo", "unique_key": "l"}));
}

#[test]
fn a_failed_job_that_goes_back_to_its_queue_takes_its_key_again_or_is_refused() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let failed =
        server.submit_job(json!({"type": "fail", "payload": {"permanent": true}, "unique_key": "k"}));
    server.wait_for_status(failed, "failed");
    let holder = server.submit_job(json!({"type": "echo", "unique_key": "k", "delay_ms": 3_600_000}));
    let reply = server.act(&format!("/jobs/{failed}/retry"));
    reply.expect_error(409, "duplicate", "a live job holds its key");
    assert_eq!(server.job(failed)["status"], "failed");
    assert_eq!(server.job(holder)["status"], "scheduled");
}

#[test]
fn a_payload_keeps_its_meaning_to_the_last_digit() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    for payload in [
        "123456789012345678901234567890.123456789012345678901234567890",
        "1e400",
        "-0.0",
        "18446744073709551617",
        "[9007199254740993, 0.1000000000000000055511151231257827]",
        "null",
        "false",
        "\"\"",
        "[]",
        "{}",
        r#"{"a":{"b":[{"c":"d"}]},"":""}"#,
        r#""\u0000 \ud83d\ude00 \" \\ </script>""#,
        "\"日本語 🎉\"",
    ] {
        let reply =
            server.post_text("/jobs", &format!(r#"{{"type":"echo","payload":{payload}}}"#)).expect(202);
        let id = reply.json()["job_id"].as_u64().expect("an id");
        wait_for_completion_as_text(&server, id);
        let text = server.get(&format!("/jobs/{id}")).expect(200).text();
        let job: HashMap<String, Box<RawValue>> = serde_json::from_str(&text).expect("JSON");
        for field in ["payload", "result"] {
            let got = job[field].get();
            // Compare numbers as text: two different numbers can be the same float.
            let has_numbers = payload.contains(|c: char| c.is_ascii_digit()) && !payload.contains("\\u");
            let same = got == payload
                || (!has_numbers
                    && serde_json::from_str::<Value>(got).ok()
                        == serde_json::from_str::<Value>(payload).ok());
            assert!(same, "{field} of {payload} came back as {got}");
        }
    }
}

/// Waits for a job that exceeds the limits of serde_json: compares the response as text.
fn wait_for_completion_as_text(api: &Api, id: u64) {
    eventually(LIMIT, &format!("job {id} completes"), || {
        let text = api.get(&format!("/jobs/{id}")).expect(200).text();
        text.contains(r#""status":"completed""#) || text.contains(r#""status": "completed""#)
    });
}

#[test]
fn a_payload_may_be_as_large_as_a_body() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let text = "x".repeat(1_000_000);
    // A result of this size is over the limit, but the job completes.
    let id = server.submit("echo", json!(text));
    let job = server.wait_for_status(id, "completed");
    assert_eq!(job["payload"].as_str().map(str::len), Some(1_000_000));
    let result = job["result"].as_str().expect("a string, cut");
    assert!(result.len() <= 64 * 1024 + 16, "{} bytes of result are kept", result.len());
}

#[test]
fn a_type_may_be_any_text_of_up_to_a_hundred_characters() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let long = "ü".repeat(100);
    for kind in
        ["a", "Encode Video", "日本語 🎉", "a/b?c=d&e#f%20", "\"quoted\"\\", long.as_str(), " ", "'; --"]
    {
        let id = server.submit_job(json!({"type": kind}));
        assert_eq!(server.job(id)["type"], kind);
        let found = server.get(&format!("/jobs?type={}", http::encode(kind))).expect(200).json();
        assert_eq!(found["total"], 1, "{kind}: {found}");
        assert_eq!(found["jobs"][0]["id"], id);
    }
}

#[test]
fn the_edges_of_every_range_pass() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let (queue, key) = ("q".repeat(64), "k".repeat(200));
    for job in [
        json!({"type": "t", "delay_ms": 0}),
        json!({"type": "t", "delay_ms": 31_536_000_000u64}),
        json!({"type": "t", "max_attempts": 1}),
        json!({"type": "t", "max_attempts": 100}),
        json!({"type": "t", "timeout_ms": 1}),
        json!({"type": "t", "timeout_ms": 86_400_000}),
        json!({"type": "t", "queue": queue}),
        json!({"type": "t", "queue": "a"}),
        json!({"type": "t", "unique_key": key}),
        json!({"type": "t", "unique_key": "k"}),
    ] {
        let reply = server.post("/jobs", &job);
        assert_eq!(reply.status, 202, "{job}: {}", reply.text());
    }
}

#[test]
fn a_content_type_may_carry_a_charset_and_a_body_may_be_chunked() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    for kind in ["application/json", "application/json; charset=utf-8", "Application/JSON"] {
        server.request("POST", "/jobs", &[("Content-Type", kind)], Some(br#"{"type":"echo"}"#)).expect(202);
    }
    let mut connection = http::Connection::open(server.addr()).expect("connects");
    connection
        .send_raw(
            b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
              8\r\n{\"type\":\r\n7\r\n\"echo\"}\r\n0\r\n\r\n",
        )
        .expect("sent");
    connection.receive(false).expect("an answer").expect(202);
    assert_eq!(server.total(""), 4);
}

#[test]
fn one_connection_carries_many_requests() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let mut connection = http::Connection::open(server.addr()).expect("connects");
    for n in 0..50 {
        let body = json!({"type": "echo", "payload": n}).to_string();
        let reply = connection
            .request("POST", "/jobs", &[("Content-Type", "application/json")], Some(body.as_bytes()))
            .expect("an answer");
        assert_eq!(reply.status, 202, "{}", reply.text());
        let id = reply.json()["job_id"].as_u64().expect("an id");
        let job = connection.request("GET", &format!("/jobs/{id}"), &[], None).expect("an answer");
        assert_eq!(job.json()["payload"], n);
    }
}

#[test]
fn a_job_whose_record_is_damaged_is_shown_by_the_api_and_the_client() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let id = server.submit("echo", json!({"n": 1}));
    let _: i64 = redis.query(&["HSET", &format!("{{threadq}}:job:{id}"), "attempts", "x", "timeout_ms", "y"]);
    let job = server.get(&format!("/jobs/{id}")).expect(200).json();
    assert_eq!((&job["attempts"], &job["timeout_ms"]), (&Value::Null, &Value::Null), "{job}");
    assert_eq!((&job["payload"]["n"], &job["status"]), (&json!(1), &json!("queued")), "{job}");
    let page = server.get("/jobs?status=queued").expect(200).json();
    assert_eq!((&page["total"], &page["jobs"][0]), (&json!(1), &job));
    let client = threadq::client::Client::new(&format!("http://{}", server.addr())).expect("a client");
    let seen = client.get(id.to_string().parse().expect("an id")).expect("the job");
    assert_eq!((seen.attempts, seen.timeout_ms), (0, 0));
    // The job can be deleted.
    server.act(&format!("/jobs/{id}/cancel")).expect(200);
    server.delete(&format!("/jobs/{id}")).expect(204);
}
