//! Expiry, retention, tags and meta of a job: stored, shown and checked. Unique keys are in `unique_keys.rs`.

use crate::common::*;

#[test]
fn every_field_is_shown_as_submitted() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let meta = json!({"traceparent": "00-4bf9", "a_B-9": "", "quoted": "☃ \"quoted\" \\"});
    let id = server.submit_job(json!({
        "type": "echo", "expires_at": "2099-06-01T12:00:00.5+02:00", "retain_ms": 0, "tags": ["customer 42", "é/☃"],
        "meta": meta, "unique": {"key": "k", "until": "start"},
    }));
    let job = server.job(id);
    assert_eq!(job["expires_at"], "2099-06-01T10:00:00.500Z");
    assert_eq!((&job["retain_ms"], &job["tags"]), (&json!(0), &json!(["customer 42", "é/☃"])));
    assert_eq!((&job["meta"], &job["unique_key"]), (&meta, &json!("k")));
    assert_eq!(server.list_all("/jobs", "&tag=customer%2042"), [job]);

    let relative = server.job(server.submit_job(json!({"type": "echo", "expires_in_ms": 7_200_000})));
    let life = time_ms(&relative["expires_at"]) - time_ms(&relative["created_at"]);
    assert!((7_200_000..=7_200_001).contains(&life), "{relative:#}");
}

#[test]
fn a_job_with_empty_fields_shows_none_of_them() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let plain = server.job(server.submit_job(json!({"type": "echo"})));
    let empty = server.job(server.submit_job(json!({"type": "echo", "tags": [], "meta": {}})));
    let names = |job: &Value| job.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&empty), names(&plain));
    assert!(plain.get("tags").is_none() && plain.get("cancel_reason").is_none(), "{plain:#}");
}

#[test]
fn the_edges_of_every_range_pass() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let year = 31_536_000_000u64;
    let five: Vec<String> = (0..5).map(|n| n.to_string() + &"☃".repeat(63)).collect();
    for fields in [
        json!({"expires_in_ms": year}),
        json!({"expires_in_ms": 3_600_000.0}),
        json!({"expires_at": "9999-12-31T23:59:59Z"}),
        json!({"retain_ms": year}),
        json!({"tags": five}),
        json!({"meta": {"n".repeat(64): "v".repeat(1024 - 64)}}),
        json!({"unique": {"key": "☃".repeat(200), "for_ms": 1}}),
        json!({"unique": {"key": "a", "for_ms": year}}),
        json!({"unique": {"key": "b", "on_conflict": "replace", "until": "start", "max_wait_ms": year}}),
        json!({"unique": {"key": "c", "until": "end", "on_conflict": "reject"}}),
        json!({"queue": "threadq", "unique_key": "threadq/x"}),
    ] {
        let mut body = json!({"type": "Threadq.echo"});
        for (name, value) in fields.as_object().expect("fields") {
            body[name] = value.clone();
        }
        let reply = server.post("/jobs", &body);
        assert_eq!(reply.status, 202, "{body}: {}", reply.text());
    }
}

#[test]
fn a_wrong_field_is_named_on_every_route() {
    let redis = TestRedis::start();
    let server = TestServer::observer(&redis);
    let late = "2099-01-01T00:00:00Z";
    for (field, value, named) in [
        ("type", json!("threadq.x"), "type"),
        ("queue", json!("threadq.x"), "queue"),
        ("unique_key", json!("threadq.x"), "unique_key"),
        ("expires_at", json!("tomorrow"), "expires_at"),
        ("expires_at", Value::Null, "expires_at"),
        ("expires_in_ms", json!(0), "expires_in_ms"),
        ("expires_in_ms", json!(31_536_000_001u64), "expires_in_ms"),
        ("expires_in_ms", json!("1h"), "expires_in_ms"),
        ("retain_ms", json!(-1), "retain_ms"),
        ("retain_ms", json!(31_536_000_001u64), "retain_ms"),
        ("retain_ms", json!(1.5), "retain_ms"),
        ("tags", json!("a"), "tags"),
        ("tags", json!(["a", 1]), "tags"),
        ("tags", json!(["a", ""]), "tags"),
        ("tags", json!(["x".repeat(65)]), "tags"),
        ("tags", json!(["a", "b", "c", "d", "e", "f"]), "tags"),
        ("tags", json!(["a", "a"]), "tags"),
        ("meta", json!(["a"]), "meta"),
        ("meta", json!({"a": null}), "meta.a"),
        ("meta", json!({"a b": "c"}), "meta"),
        ("meta", json!({"a": "\r\nEvil: 1"}), "meta.a"),
        ("meta", json!({"a": "x".repeat(1024)}), "meta"),
        ("unique", json!({"key": "threadq.x"}), "unique.key"),
        ("unique", json!({"until": "end"}), "unique.key"),
        ("unique", json!({"key": "k", "keys": 1}), "unique.keys"),
        ("unique", json!({"key": "k", "until": "stop"}), "unique.until"),
        ("unique", json!({"key": "k", "until": "start", "for_ms": 1}), "unique.for_ms"),
        ("unique", json!({"key": "k", "for_ms": -1}), "unique.for_ms"),
        ("unique", json!({"key": "k", "on_conflict": "merge"}), "unique.on_conflict"),
        ("unique", json!({"key": "k", "on_conflict": "replace", "for_ms": 1}), "unique.on_conflict"),
        ("unique", json!({"key": "k", "on_conflict": "existing", "max_wait_ms": 1}), "unique.max_wait_ms"),
    ] {
        let mut job = json!({"type": "echo"});
        job[field] = value;
        let sentence = server.post("/jobs", &job).expect_error(400, "invalid_job", &job.to_string());
        assert!(sentence.contains(named), "{job}: {sentence}");
        let batch = json!({"jobs": [{"type": "echo"}, job]});
        let sentence =
            server.post("/jobs/batch", &batch).expect_error(400, "invalid_job", &batch.to_string());
        assert!(sentence.contains(&format!("jobs[1].{named}")), "{batch}: {sentence}");
    }
    for (one, other) in [("expires_at", "expires_in_ms"), ("unique_key", "unique")] {
        let both = json!({"type": "echo", "expires_at": late, "expires_in_ms": 1, "unique_key": "k", "unique": {"key": "k"}});
        let only = |name: &&String| [one, other, "type"].contains(&name.as_str());
        let fields = both.as_object().expect("an object").iter().filter(|(name, _)| only(name));
        let job: Value = fields
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let sentence = server.post("/jobs", &job).expect_error(400, "invalid_job", &job.to_string());
        assert_eq!(sentence, format!("{one} and {other} must not be given together"));
    }
    let twice = r#"{"type":"echo","meta":{"a":"1","a":"2"}}"#;
    server.post_text("/jobs", twice).expect_error(400, "invalid_job", twice);
    assert_eq!(server.total(""), 0);
}

#[test]
fn a_job_that_nobody_starts_in_time_says_that_it_expired() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let parked = server.submit_job(json!({"type": "echo", "queue": "nobody", "expires_in_ms": 300}));
    let waiting = server.get(&format!("/jobs/{parked}?wait=30s")).expect(200).json();
    assert_eq!((&waiting["status"], &waiting["cancel_reason"]), (&json!("cancelled"), &json!("expired")));
    assert_eq!(waiting["started_at"], Value::Null);
    let asked = server.submit_job(json!({"type": "echo", "queue": "nobody"}));
    server.act(&format!("/jobs/{asked}/cancel")).expect(200);
    assert_eq!(server.job(asked)["cancel_reason"], "request");
}
