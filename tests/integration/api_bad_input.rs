//! Bad input: each row of the contract's table. No such request changes a job, and the server goes on serving.
//! Malformed HTTP is in `hostile_requests.rs`.

use crate::common::*;

/// A server with one job in every kind of place, to check that bad input moves no job.
struct Target {
    server: TestServer,
    before: Value,
    completed: u64,
    queued: u64,
    scheduled: u64,
    _redis: TestRedis,
}

impl Target {
    fn new() -> Target {
        Target::with(|builder| builder)
    }

    fn with(change: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Target {
        let redis = TestRedis::start();
        let server = change(TestServer::builder().redis(&redis)).start();
        let completed = server.complete("echo", json!({"a": 1}))["id"].as_u64().expect("an id");
        let queued = server.submit_job(json!({"type": "echo", "queue": "nobody", "unique_key": "held"}));
        let scheduled = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
        let failed = server.submit("fail", json!({"permanent": true}));
        server.wait_for_status(failed, "failed");
        let before = Target::look(&server);
        Target { server, before, completed, queued, scheduled, _redis: redis }
    }

    fn look(server: &TestServer) -> Value {
        json!([server.counts(), server.list_all("/jobs", "")])
    }

    /// Asserts that the server responds and that no job has changed.
    #[track_caller]
    fn assert_unharmed(&self, context: &str) {
        self.server.get("/healthz").expect(200);
        assert_eq!(Target::look(&self.server), self.before, "after {context}");
    }

    #[track_caller]
    fn refused(&self, method: &str, path: &str, body: Option<&str>, status: u16, code: &str) -> String {
        let headers: &[(&str, &str)] =
            if body.is_some() { &[("Content-Type", "application/json")] } else { &[] };
        let shown: String = body.unwrap_or_default().chars().take(150).collect();
        let context = format!("{method} {path} {shown}");
        let reply = self.server.request(method, path, headers, body.map(str::as_bytes));
        let sentence = reply.expect_error(status, code, &context);
        self.assert_unharmed(&context);
        sentence
    }
}

#[test]
fn what_is_no_json_is_refused() {
    let target = Target::new();
    let posts: [&[u8]; 18] = [
        b"",
        b" ",
        b"nonsense",
        b"{",
        b"{\"type\":\"echo\"",
        b"{\"type\":\"echo\",}",
        b"{'type':'echo'}",
        b"{\"type\":\"echo\"} x",
        b"{\"type\":\"echo\"}{\"type\":\"echo\"}",
        b"{\"type\":\"echo\",\"payload\":[1,2",
        b"{\"type\":\"echo\",\"payload\":nul}",
        b"{\"type\":\"echo\",\"payload\":01}",
        b"{\"type\":\"echo\",\"payload\":NaN}",
        b"{\"type\":\"echo\",\"payload\":\"a\nb\"}",
        b"{\"type\":\"echo\",\"payload\":\"\xff\xfe\"}",
        b"{\"type\":\"\xc3\x28\"}",
        b"\xef\xbb\xbf{\"type\":\"echo\"}",
        b"{\x00\"\x00}\x00",
    ];
    for body in posts {
        for path in ["/jobs", "/jobs/batch", "/dlq/retry"] {
            let context = format!("POST {path} {}", String::from_utf8_lossy(body));
            let reply =
                target.server.request("POST", path, &[("Content-Type", "application/json")], Some(body));
            reply.expect_error(400, "invalid_json", &context);
            target.assert_unharmed(&context);
        }
    }
}

#[test]
fn a_document_may_be_128_levels_deep_and_no_deeper() {
    let target = Target::new();
    // The object around the payload is the first level.
    let nested = |levels: usize, open: &str, close: &str| {
        let inner = levels - 1;
        format!(r#"{{"type":"echo","queue":"q","payload":{}1{}}}"#, open.repeat(inner), close.repeat(inner))
    };
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for levels in [129, 130, 1000, 100_000] {
            target.refused("POST", "/jobs", Some(&nested(levels, open, close)), 400, "invalid_json");
        }
        let reply = target.server.post_text("/jobs", &nested(128, open, close)).expect(202);
        let id = reply.json()["job_id"].as_u64().expect("an id");
        let payload = format!("{}1{}", open.repeat(127), close.repeat(127));
        let text = target.server.get(&format!("/jobs/{id}")).expect(200).text();
        assert!(text.contains(&payload), "{text}");
        target.server.act(&format!("/jobs/{id}/cancel")).expect(200);
        target.server.delete(&format!("/jobs/{id}")).expect(204);
        target.assert_unharmed("128 levels");
        let batch = |levels: usize| format!(r#"{{"jobs":[{}]}}"#, nested(levels, open, close));
        target.refused("POST", "/jobs/batch", Some(&batch(127)), 400, "invalid_json");
        let reply = target.server.post_text("/jobs/batch", &batch(126)).expect(202);
        let id = &reply.json()["job_ids"][0];
        target.server.act(&format!("/jobs/{id}/cancel")).expect(200);
        target.server.delete(&format!("/jobs/{id}")).expect(204);
    }
    target.refused("POST", "/jobs", Some(&"[".repeat(500_000)), 400, "invalid_json");
}

#[test]
fn a_job_at_the_deepest_level_runs_and_is_listed() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let payload = format!("{}1{}", "[".repeat(127), "]".repeat(127));
    let reply = server.post_text("/jobs", &format!(r#"{{"type":"echo","payload":{payload}}}"#)).expect(202);
    let id = reply.json()["job_id"].as_u64().expect("an id");
    eventually(LIMIT, "the deep job completes with its payload as result", || {
        let text = server.get(&format!("/jobs/{id}")).expect(200).text();
        text.contains("completed") && text.matches(&payload).count() == 2
    });
    assert!(server.get("/jobs").expect(200).text().contains(&payload));
}

#[test]
fn a_field_that_is_missing_wrong_out_of_range_unknown_or_twice_is_named() {
    let target = Target::new();
    let long = |n: usize| "x".repeat(n);
    let cases: Vec<(&str, String)> = vec![
        ("type", r#"{}"#.into()),
        ("type", r#"{"payload":1}"#.into()),
        ("type", r#"{"type":null}"#.into()),
        ("type", r#"{"type":7}"#.into()),
        ("type", r#"{"type":["echo"]}"#.into()),
        ("type", r#"{"type":""}"#.into()),
        ("type", format!(r#"{{"type":"{}"}}"#, long(101))),
        ("type", r#"{"type":"a\nb"}"#.into()),
        ("type", r#"{"type":"a\u0000"}"#.into()),
        ("type", r#"{"type":"\u007f"}"#.into()),
        ("type", r#"{"type":"\u0085"}"#.into()),
        ("type", r#"{"type":"echo","type":"echo"}"#.into()),
        ("type", r#"{"type":"echo","\u0074ype":"echo"}"#.into()),
        ("payload", r#"{"type":"echo","payload":1,"payload":1}"#.into()),
        ("queue", r#"{"type":"echo","queue":""}"#.into()),
        ("queue", r#"{"type":"echo","queue":7}"#.into()),
        ("queue", r#"{"type":"echo","queue":"a b"}"#.into()),
        ("queue", r#"{"type":"echo","queue":"a:b"}"#.into()),
        ("queue", r#"{"type":"echo","queue":"größe"}"#.into()),
        ("queue", r#"{"type":"echo","queue":"a\n"}"#.into()),
        ("queue", format!(r#"{{"type":"echo","queue":"{}"}}"#, long(65))),
        ("queue", r#"{"type":"echo","queue":"a","queue":"a"}"#.into()),
        ("delay_ms", r#"{"type":"echo","delay_ms":-1}"#.into()),
        ("delay_ms", r#"{"type":"echo","delay_ms":1.5}"#.into()),
        ("delay_ms", r#"{"type":"echo","delay_ms":"5"}"#.into()),
        ("delay_ms", r#"{"type":"echo","delay_ms":31536000001}"#.into()),
        ("delay_ms", r#"{"type":"echo","delay_ms":1e30}"#.into()),
        ("delay_ms", r#"{"type":"echo","delay_ms":99999999999999999999}"#.into()),
        ("delay_ms", r#"{"type":"echo","delay_ms":true}"#.into()),
        ("delay_ms", r#"{"type":"echo","delay_ms":1,"delay_ms":1}"#.into()),
        ("run_at", r#"{"type":"echo","run_at":"tomorrow"}"#.into()),
        ("run_at", r#"{"type":"echo","run_at":""}"#.into()),
        ("run_at", r#"{"type":"echo","run_at":1764000000}"#.into()),
        ("run_at", r#"{"type":"echo","run_at":"2026-13-01T00:00:00Z"}"#.into()),
        ("run_at", r#"{"type":"echo","run_at":"2026-02-30T00:00:00Z"}"#.into()),
        ("run_at", r#"{"type":"echo","run_at":"2026-11-24T08:00:00"}"#.into()),
        ("run_at", r#"{"type":"echo","run_at":"2026-11-24"}"#.into()),
        ("run_at", r#"{"type":"echo","delay_ms":1,"run_at":"2099-01-01T00:00:00Z"}"#.into()),
        ("delay_ms", r#"{"type":"echo","delay_ms":1,"run_at":"2099-01-01T00:00:00Z"}"#.into()),
        ("max_attempts", r#"{"type":"echo","max_attempts":0}"#.into()),
        ("max_attempts", r#"{"type":"echo","max_attempts":101}"#.into()),
        ("max_attempts", r#"{"type":"echo","max_attempts":-3}"#.into()),
        ("max_attempts", r#"{"type":"echo","max_attempts":"3"}"#.into()),
        ("max_attempts", r#"{"type":"echo","max_attempts":2.5}"#.into()),
        ("max_attempts", r#"{"type":"echo","max_attempts":4294967297}"#.into()),
        ("max_attempts", r#"{"type":"echo","max_attempts":1,"max_attempts":2}"#.into()),
        ("timeout_ms", r#"{"type":"echo","timeout_ms":0}"#.into()),
        ("timeout_ms", r#"{"type":"echo","timeout_ms":86400001}"#.into()),
        ("timeout_ms", r#"{"type":"echo","timeout_ms":-1}"#.into()),
        ("timeout_ms", r#"{"type":"echo","timeout_ms":"1s"}"#.into()),
        ("timeout_ms", r#"{"type":"echo","timeout_ms":[]}"#.into()),
        ("unique_key", r#"{"type":"echo","unique_key":""}"#.into()),
        ("unique_key", r#"{"type":"echo","unique_key":5}"#.into()),
        ("unique_key", r#"{"type":"echo","unique_key":{}}"#.into()),
        ("unique_key", format!(r#"{{"type":"echo","unique_key":"{}"}}"#, long(201))),
        ("priority", r#"{"type":"echo","priority":1}"#.into()),
        ("Type", r#"{"type":"echo","Type":"echo"}"#.into()),
        ("id", r#"{"type":"echo","id":5}"#.into()),
        ("status", r#"{"type":"echo","status":"completed"}"#.into()),
    ];
    for (field, body) in &cases {
        let sentence = target.refused("POST", "/jobs", Some(body), 400, "invalid_job");
        assert!(sentence.contains(field), "{body}: the sentence does not name {field}: {sentence}");
        let sentence = target.refused(
            "POST",
            "/jobs/batch",
            Some(&format!(r#"{{"jobs":[{body}]}}"#)),
            400,
            "invalid_job",
        );
        assert!(
            sentence.contains(field),
            "{body} in a batch: the sentence does not name {field}: {sentence}"
        );
    }
    for body in ["null", "7", "true", r#""echo""#, "[]", r#"[{"type":"echo"}]"#] {
        target.refused("POST", "/jobs", Some(body), 400, "invalid_job");
        target.refused("POST", "/jobs/batch", Some(body), 400, "invalid_job");
    }
    for (field, body) in [
        ("jobs", r#"{}"#),
        ("jobs", r#"{"jobs":null}"#),
        ("jobs", r#"{"jobs":{}}"#),
        ("jobs", r#"{"jobs":[]}"#),
        ("jobs", r#"{"jobs":[{"type":"echo"}],"jobs":[{"type":"echo"}]}"#),
        ("more", r#"{"jobs":[{"type":"echo"}],"more":1}"#),
    ] {
        let sentence = target.refused("POST", "/jobs/batch", Some(body), 400, "invalid_job");
        assert!(sentence.contains(field), "{body}: {sentence}");
    }
    for (field, body) in [
        ("type", r#"{"type":7}"#),
        ("ids", r#"{"ids":7}"#),
        ("ids", r#"{"ids":["x"]}"#),
        ("ids", r#"{"ids":[0]}"#),
        ("ids", r#"{"ids":[-1]}"#),
        ("ids", r#"{"ids":[1.5]}"#),
        ("dry_run", r#"{"dry_run":"yes"}"#),
        ("dry_run", r#"{"dry_run":1}"#),
        ("dry_run", r#"{"dry_run":true,"dry_run":false}"#),
        ("dryrun", r#"{"dryrun":true}"#),
    ] {
        let sentence = target.refused("POST", "/dlq/retry", Some(body), 400, "invalid_job");
        assert!(sentence.contains(field), "{body}: {sentence}");
    }
}

#[test]
fn a_query_that_is_not_allowed_is_refused() {
    let target = Target::new();
    for path in ["/jobs", "/dlq"] {
        for query in [
            "page=0",
            "page=-1",
            "page=abc",
            "page=1.5",
            "page=",
            "page=18446744073709551616",
            "before=0",
            "before=-1",
            "before=017",
            "before=abc",
            "before=",
            "before=9007199254740992",
            "before=17&before=18",
            "before=17&page=1",
            "page=2&before=17",
            "limit=0",
            "limit=101",
            "limit=-5",
            "limit=ten",
            "limit=",
            "limit=1000000000000",
            "colour=red",
            "page=1&colour=red",
            "Page=1",
            "wait=1s",
            "type=a&tag=b",
            "tag=",
            "tag=a%0Ab",
            "queue=default",
            "created_after=",
            "created_after=yesterday",
            "created_after=1764000000",
            "created_before=2026-11-24",
            "created_before=2026-11-24T08:00:00",
        ] {
            target.refused("GET", &format!("{path}?{query}"), None, 400, "invalid_query");
        }
    }
    for query in ["status=foo", "status=", "status=Completed", "status=completed,failed", "status=%zz"] {
        target.refused("GET", &format!("/jobs?{query}"), None, 400, "invalid_query");
    }
    for wait in ["61s", "abc", "-1s", "", "2m", "99999999999999999999s", "1s2"] {
        let path = format!("/jobs/{}?wait={wait}", target.completed);
        target.refused("GET", &path, None, 400, "invalid_query");
    }
    target.refused("GET", &format!("/jobs/{}?page=1", target.completed), None, 400, "invalid_query");
    target.refused("DELETE", "/dlq?colour=red", None, 400, "invalid_query");
    target.refused("GET", "/stats?x=1", None, 400, "invalid_query");
    target.refused("GET", "/queues?x=1", None, 400, "invalid_query");
}

#[test]
fn what_is_no_id_and_no_queue_name_is_refused() {
    let target = Target::new();
    for id in [
        "abc",
        "0",
        "-1",
        "1.5",
        "01",
        "+1",
        "1e3",
        "9007199254740992",
        "18446744073709551616",
        "99999999999999999999999999",
        "%00",
        "*",
        "1%20",
        "%7Bthreadq%7D",
        "%F0%9F%8E%89",
    ] {
        target.refused("GET", &format!("/jobs/{id}"), None, 400, "invalid_id");
        target.refused("DELETE", &format!("/jobs/{id}"), None, 400, "invalid_id");
        target.refused("POST", &format!("/jobs/{id}/cancel"), None, 400, "invalid_id");
        target.refused("POST", &format!("/jobs/{id}/retry"), None, 400, "invalid_id");
    }
    let long = "q".repeat(65);
    for name in ["a%20b", "%00", "gr%C3%B6%C3%9Fe", "a:b", "*", long.as_str()] {
        target.refused("POST", &format!("/queues/{name}/pause"), None, 400, "invalid_queue");
        target.refused("POST", &format!("/queues/{name}/resume"), None, 400, "invalid_queue");
    }
}

#[test]
fn a_key_that_is_not_1_to_200_visible_characters_is_refused() {
    let target = Target::new();
    let long = "k".repeat(201);
    for key in ["", "a b", "schlüssel", long.as_str(), "a\tb"] {
        let context = format!("Idempotency-Key: {key}");
        for (path, body) in
            [("/jobs", json!({"type": "echo"})), ("/jobs/batch", json!({"jobs": [{"type": "echo"}]}))]
        {
            let reply = target.server.post_with(path, &[("Idempotency-Key", key)], &body);
            reply.expect_error(400, "invalid_header", &context);
            target.assert_unharmed(&context);
        }
    }
}

#[test]
fn a_body_of_another_type_is_refused() {
    let target = Target::new();
    let body = br#"{"type":"echo"}"#;
    for headers in [
        vec![],
        vec![("Content-Type", "text/plain")],
        vec![("Content-Type", "application/x-www-form-urlencoded")],
        vec![("Content-Type", "application/jsonx")],
        vec![("Content-Type", "application/problem+json")],
        vec![("Content-Type", "")],
    ] {
        for path in ["/jobs", "/jobs/batch", "/dlq/retry"] {
            let context = format!("POST {path} {headers:?}");
            let reply = target.server.request("POST", path, &headers, Some(body));
            reply.expect_error(415, "unsupported_media_type", &context);
            target.assert_unharmed(&context);
        }
    }
}

#[test]
fn a_body_with_an_encoding_is_refused_by_its_name() {
    let target = Target::new();
    let json_type = ("Content-Type", "application/json");
    let gzip: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\x56\x2a\xa9\x2c\x48\x55\xb2\x52\x4a";
    for (encoding, body) in [
        ("gzip", gzip),
        ("gzip", br#"{"type":"echo"}"#),
        ("GZIP", br#"{"type":"echo"}"#),
        ("br", br#"{"type":"echo"}"#),
        ("deflate, gzip", br#"{"type":"echo"}"#),
        ("zstd", br#"{"type":"echo"}"#),
        ("identity", br#"{"type":"echo"}"#),
        ("x", b"x"),
    ] {
        let cancel = format!("/jobs/{}/cancel", target.queued);
        for path in ["/jobs", "/jobs/batch", "/dlq/retry", &cancel, "/queues/default/pause"] {
            let headers = [json_type, ("Content-Encoding", encoding)];
            let reply = target.server.request("POST", path, &headers, Some(body));
            let sentence = reply.expect_error(415, "unsupported_media_type", encoding);
            assert!(sentence.contains(encoding), "{path}: {sentence}");
            assert_eq!(reply.header("Accept-Encoding"), Some("identity"), "{path} {encoding}");
            target.assert_unharmed(encoding);
        }
    }
    let twice = [json_type, ("Content-Encoding", "gzip"), ("content-encoding", "br")];
    let reply = target.server.request("POST", "/jobs", &twice, Some(b"{}"));
    let sentence = reply.expect_error(415, "unsupported_media_type", "two headers");
    assert!(sentence.contains("gzip, br"), "{sentence}");
    // `Content-Encoding` is ignored without a body, and when its value is empty.
    let pause = "/queues/elsewhere/resume";
    target.server.request("POST", pause, &[("Content-Encoding", "gzip")], None).expect(200);
    let headers = [json_type, ("Content-Encoding", "")];
    let reply = target.server.request("POST", "/dlq/retry", &headers, Some(br#"{"dry_run": true}"#));
    reply.expect(200);
}

#[test]
fn a_body_over_the_limit_is_refused_declared_or_chunked() {
    let target = Target::new();
    let head = "POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    // A declared length: the response must not wait for the body.
    for length in ["1048577", "1000000000000", "9223372036854775807", "18446744073709551615"] {
        let mut connection = http::Connection::open(target.server.addr()).expect("connects");
        connection.send_raw(format!("{head}Content-Length: {length}\r\n\r\n").as_bytes()).expect("sent");
        let reply = connection.receive(false).unwrap_or_else(|e| panic!("{length}: {e}"));
        reply.expect_error(413, "body_too_large", length);
        target.assert_unharmed(length);
    }
    // Also on paths that take no body.
    let mut connection = http::Connection::open(target.server.addr()).expect("connects");
    connection
        .send_raw(b"GET /stats HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000000\r\n\r\n")
        .expect("sent");
    let reply = connection.receive(false).expect("an answer");
    reply.expect_error(413, "body_too_large", "a GET");
    // A body that is sent completely.
    let body = |size: usize| {
        let frame = r#"{"type":"echo","queue":"q","payload":""}"#.len();
        format!(r#"{{"type":"echo","queue":"q","payload":"{}"}}"#, "x".repeat(size - frame))
    };
    let over = body(1_048_577);
    match target.server.try_request(
        "POST",
        "/jobs",
        &[("Content-Type", "application/json")],
        Some(over.as_bytes()),
    ) {
        Ok(reply) => {
            reply.expect_error(413, "body_too_large", "one byte too many");
        }
        // The server need not read a body that it refuses: the response may be lost in the reset.
        Err(e) => eprintln!("closed while sending: {e}"),
    }
    target.assert_unharmed("one byte too many");
    // Chunks whose sum is over the limit.
    let mut connection = http::Connection::open(target.server.addr()).expect("connects");
    connection.send_raw(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).expect("sent");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..17 {
        if connection.send_raw(chunk.as_bytes()).is_err() {
            break;
        }
    }
    if let Ok(reply) = connection.receive(false) {
        reply.expect_error(413, "body_too_large", "chunks");
    }
    target.assert_unharmed("chunks");
    // One chunk whose declared size is over the limit.
    let mut connection = http::Connection::open(target.server.addr()).expect("connects");
    connection
        .send_raw(format!("{head}Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFF\r\n").as_bytes())
        .expect("sent");
    let reply = connection.receive(false).expect("an answer");
    assert!(matches!(reply.status, 400 | 413), "{}", reply.status);
    target.assert_unharmed("a huge chunk");
    // A body of exactly the limit is accepted.
    let id = target.server.post_text("/jobs", &body(1_048_576)).expect(202).json()["job_id"].clone();
    target.server.act(&format!("/jobs/{id}/cancel")).expect(200);
}

#[test]
fn the_limit_of_a_body_can_be_set() {
    let target = Target::with(|builder| builder.flag("max-body", "10KiB"));
    let body = json!({"type": "echo", "payload": "x".repeat(11_000)}).to_string();
    target.refused("POST", "/jobs", Some(&body), 413, "body_too_large");
    let id = target.server.submit_job(json!({"type": "echo", "payload": "x".repeat(9_000)}));
    target.server.wait_for_status(id, "completed");
}

#[test]
fn a_head_over_16_kib_is_refused_or_closed() {
    let target = Target::new();
    let big = "x".repeat(17 * 1024);
    let many = (0..2000).map(|n| format!("X-{n}: yyyyyyyy\r\n")).collect::<String>();
    for request in [
        format!("GET /stats?{big} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET /stats HTTP/1.1\r\nHost: localhost\r\nX-Big: {big}\r\n\r\n"),
        format!("GET /stats HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"),
        format!("GET /stats HTTP/1.1\r\nHost: localhost\r\nX-Big: {}", "x".repeat(200_000)),
        "x".repeat(300_000),
    ] {
        let mut connection = http::Connection::open(target.server.addr()).expect("connects");
        let sent = connection.send_raw(request.as_bytes());
        if sent.is_ok()
            && let Ok(reply) = connection.receive(false)
        {
            assert!(matches!(reply.status, 431 | 400 | 414), "{}", reply.status);
        }
        target.assert_unharmed("a big head");
    }
    // 15 KiB are accepted.
    let fine = "x".repeat(15 * 1024);
    target.server.request("GET", "/stats", &[("X-Big", &fine)], None).expect(200);
}

#[test]
fn an_unknown_path_or_id_is_not_found() {
    let target = Target::new();
    for path in [
        "/nowhere",
        "/job",
        "/jobs/1/2/3",
        "/JOBS",
        "/dlq/x",
        "/queues/default/x",
        "/jobs/5/unknown",
        "/.env",
    ] {
        target.refused("GET", path, None, 404, "not_found");
    }
    for (method, path) in [
        ("GET", "/jobs/12345"),
        ("GET", "/jobs/9007199254740991"),
        ("GET", "/jobs/12345?wait=1s"),
        ("DELETE", "/jobs/12345"),
        ("POST", "/jobs/12345/cancel"),
        ("POST", "/jobs/12345/retry"),
    ] {
        target.refused(method, path, None, 404, "not_found");
    }
}

#[test]
fn another_method_of_a_known_path_is_told_what_is_allowed() {
    let target = Target::new();
    let (id, log, cancel, retry) = (
        format!("/jobs/{}", target.queued),
        format!("/jobs/{}/log", target.queued),
        format!("/jobs/{}/cancel", target.queued),
        format!("/jobs/{}/retry", target.queued),
    );
    for (path, allowed) in [
        ("/jobs", vec!["GET", "POST"]),
        ("/jobs/batch", vec!["POST"]),
        ("/jobs/bulk", vec!["POST"]),
        (id.as_str(), vec!["GET", "PATCH", "DELETE"]),
        (cancel.as_str(), vec!["POST"]),
        (retry.as_str(), vec!["POST"]),
        (log.as_str(), vec!["GET"]),
        ("/dlq", vec!["GET", "DELETE"]),
        ("/dlq/retry", vec!["POST"]),
        ("/queues", vec!["GET"]),
        ("/queues/default/jobs", vec!["GET"]),
        ("/queues/default/pause", vec!["POST"]),
        ("/queues/default/resume", vec!["POST"]),
        ("/schedules", vec!["GET"]),
        ("/schedules/preview", vec!["POST"]),
        ("/schedules/nightly", vec!["GET", "PUT", "DELETE"]),
        ("/schedules/nightly/run", vec!["POST"]),
        ("/schedules/nightly/pause", vec!["POST"]),
        ("/schedules/nightly/resume", vec!["POST"]),
        ("/limits", vec!["GET"]),
        ("/limits/smtp", vec!["GET", "PUT", "DELETE"]),
        ("/pull", vec!["POST"]),
        ("/attempts", vec!["POST"]),
        ("/attempts/1-1-aaaaaaaaaaaaaaaaaaaaaa", vec!["POST"]),
        ("/attempts/1-1-aaaaaaaaaaaaaaaaaaaaaa/complete", vec!["POST"]),
        ("/attempts/1-1-aaaaaaaaaaaaaaaaaaaaaa/fail", vec!["POST"]),
        ("/attempts/1-1-aaaaaaaaaaaaaaaaaaaaaa/release", vec!["POST"]),
        ("/workers", vec!["GET"]),
        ("/stats", vec!["GET"]),
        ("/stats/history", vec!["GET"]),
        ("/stats/workers", vec!["GET"]),
        ("/", vec!["GET"]),
        ("/ui/app.js", vec!["GET"]),
        ("/metrics", vec!["GET"]),
        ("/healthz", vec!["GET"]),
        ("/readyz", vec!["GET"]),
        ("/openapi.json", vec!["GET"]),
    ] {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            if allowed.contains(&method) {
                continue;
            }
            let context = format!("{method} {path}");
            let reply = target.server.request(method, path, &[], None);
            reply.expect_error(405, "method_not_allowed", &context);
            let allow = reply.header("Allow").unwrap_or_else(|| panic!("{context}: no Allow"));
            let mut names: Vec<_> = allow.split(',').map(str::trim).collect();
            names.sort_unstable();
            let mut wanted = allowed.clone();
            wanted.extend(allowed.contains(&"GET").then_some("HEAD"));
            wanted.sort_unstable();
            assert_eq!(names, wanted, "{context}");
        }
        target.assert_unharmed(path);
    }
}

#[test]
fn a_job_in_another_state_is_left_alone() {
    let target = Target::new();
    for (method, path) in [
        ("DELETE", format!("/jobs/{}", target.queued)),
        ("DELETE", format!("/jobs/{}", target.scheduled)),
        ("POST", format!("/jobs/{}/retry", target.queued)),
        ("POST", format!("/jobs/{}/retry", target.scheduled)),
        ("POST", format!("/jobs/{}/retry", target.completed)),
        ("POST", format!("/jobs/{}/cancel", target.completed)),
    ] {
        target.refused(method, &path, None, 409, "wrong_status");
    }
    let body = r#"{"type":"echo","unique_key":"held"}"#;
    target.refused("POST", "/jobs", Some(body), 409, "duplicate");
}

#[test]
fn without_the_right_token_nothing_is_given_or_done() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("api-token", "s3cret-t0ken").start();
    let api = server.with_token("s3cret-t0ken");
    let id = api.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    for (method, path) in [
        ("GET", "/jobs".to_owned()),
        ("POST", "/jobs".to_owned()),
        ("POST", "/jobs/batch".to_owned()),
        ("GET", format!("/jobs/{id}")),
        ("DELETE", format!("/jobs/{id}")),
        ("POST", format!("/jobs/{id}/cancel")),
        ("POST", format!("/jobs/{id}/retry")),
        ("GET", "/dlq".to_owned()),
        ("DELETE", "/dlq".to_owned()),
        ("POST", "/dlq/retry".to_owned()),
        ("GET", "/queues".to_owned()),
        ("POST", "/queues/default/pause".to_owned()),
        ("GET", "/stats".to_owned()),
        ("GET", "/stats/history".to_owned()),
        ("GET", "/stats/workers".to_owned()),
        ("GET", "/metrics".to_owned()),
        ("GET", "/openapi.json".to_owned()),
        ("POST", "/healthz/".to_owned()),
        ("GET", "/nowhere".to_owned()),
    ] {
        for auth in [
            None,
            Some("Bearer wrong"),
            Some("Bearer s3cret-t0ke"),
            Some("Bearer s3cret-t0kenn"),
            Some("Bearer "),
            Some("Bearer"),
            Some("Basic s3cret-t0ken"),
            Some("s3cret-t0ken"),
        ] {
            let mut headers = vec![("Content-Type", "application/json")];
            headers.extend(auth.map(|auth| ("Authorization", auth)));
            let context = format!("{method} {path} {auth:?}");
            let body: Option<&[u8]> = if method == "POST" { Some(br#"{"type":"echo"}"#) } else { None };
            let reply = server.request(method, &path, &headers, body);
            reply.expect_error(401, "unauthorized", &context);
            assert_eq!(reply.header("WWW-Authenticate"), Some("Bearer"), "{context}");
        }
    }
    assert_eq!(api.job(id)["status"], "scheduled");
    assert_eq!(api.total(""), 1);
    assert!(!server.log_text().contains("s3cret"), "the token is in the log");
}

#[test]
fn a_client_too_slow_to_send_is_closed_and_nobody_notices() {
    let target = Target::new();
    let begin = Instant::now();
    let mut slow: Vec<_> =
        ["GET /st", "POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"]
            .iter()
            .map(|text| {
                let mut connection =
                    http::Connection::open_with(target.server.addr(), secs(40)).expect("connects");
                connection.send_raw(text.as_bytes()).expect("sent");
                connection
            })
            .collect();
    target.assert_unharmed("while they are slow");
    for connection in &mut slow {
        connection.read_to_close().expect("closed by the server");
    }
    let took = begin.elapsed();
    assert!(took > secs(8) && took < secs(20), "closed after {took:?}");
    target.assert_unharmed("slow clients");
}

#[test]
fn many_idle_connections_do_not_keep_a_new_one_out() {
    let target = Target::with(|builder| builder.flag("max-connections", "16"));
    let mut idle: Vec<_> =
        (0..40).map(|_| http::Connection::open(target.server.addr()).expect("connects")).collect();
    target.assert_unharmed("idle connections");
    // The gate has closed the connection that was idle longest.
    idle[0].read_to_close().expect("closed by the server");
}
