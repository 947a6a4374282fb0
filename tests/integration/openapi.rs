//! /openapi.json is true: it has every error code of the sources, and a tour through the API gets no response that it
//! does not describe. A test beside the route table compares the paths and methods; `script/schemathesis` does the tour
//! with far more input.

use crate::common::*;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The document, as a server returns it.
struct Document(Value);

impl Document {
    fn of(server: &TestServer) -> Document {
        Document(server.get("/openapi.json").expect(200).json())
    }

    /// Returns the target of a reference, or the value itself. A reference may have more members beside it.
    fn follow<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => self.0.pointer(&reference[1..]).unwrap_or_else(|| panic!("no {reference}")),
            None => value,
        }
    }

    /// The description of a response with this status.
    fn answer(&self, method: &str, path: &str, status: u16) -> &Value {
        let operation = &self.0["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{method} {path} is not described");
        let answer = &operation["responses"][status.to_string()];
        assert!(answer.is_object(), "{method} {path}: {status} is not described");
        self.follow(answer)
    }

    /// Asserts that the document describes the response, with all its headers and its body.
    fn check(&self, method: &str, path: &str, reply: &Reply) {
        let place = format!("{method} {path} {}", reply.status);
        let answer = self.answer(method, path, reply.status);
        for (name, header) in answer["headers"].as_object().into_iter().flatten() {
            let is_there = reply.header(name).is_some();
            assert!(is_there || header["required"] == false, "{place}: no header {name}");
        }
        let Some(content) = answer["content"].as_object() else {
            assert!(reply.body.is_empty(), "{place}: a body that is not described");
            return;
        };
        let kind = reply.header("Content-Type").unwrap_or_default().split(';').next().unwrap_or_default();
        let described = content.get(kind).unwrap_or_else(|| panic!("{place}: {kind} is not described"));
        if kind == "application/json" {
            self.check_value(&described["schema"], &reply.json(), &place);
        }
    }

    /// Checks a value against a schema. Stricter than JSON Schema: a member without a description is an error.
    fn check_value(&self, schema: &Value, value: &Value, place: &str) {
        if schema["$ref"].is_string() {
            self.check_value(self.follow(schema), value, place);
        }
        if let Some(kinds) = kinds(schema) {
            let kind = kind_of(value);
            let fits = kinds.contains(&kind) || kind == "integer" && kinds.contains(&"number");
            assert!(fits, "{place}: {value} is none of {kinds:?}");
        }
        if let Some(allowed) = schema["enum"].as_array() {
            assert!(allowed.contains(value), "{place}: {value} is none of {allowed:?}");
        }
        if schema["format"] == "date-time" && value.is_string() {
            time_ms(value);
        }
        for required in schema["required"].as_array().into_iter().flatten() {
            assert!(
                value.is_null() || value.get(required.as_str().expect("a name")).is_some(),
                "{place}: no {required}"
            );
        }
        if let (Some(described), Some(members)) = (schema["properties"].as_object(), value.as_object()) {
            for (name, member) in members {
                // A schema with a reference describes only the members that differ.
                match described.get(name) {
                    Some(schema) => self.check_value(schema, member, &format!("{place}.{name}")),
                    None => assert!(schema["$ref"].is_string(), "{place}: {name} is not described"),
                }
            }
        }
        for (at, item) in value.as_array().into_iter().flatten().enumerate() {
            self.check_value(&schema["items"], item, &format!("{place}[{at}]"));
        }
    }
}

/// The types that a schema allows; `None` for any.
fn kinds(schema: &Value) -> Option<Vec<&str>> {
    match &schema["type"] {
        Value::String(kind) => Some(vec![kind]),
        Value::Array(kinds) => Some(kinds.iter().filter_map(Value::as_str).collect()),
        _ => None,
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Status and code of each error that the sources of the API and of the gate can make.
fn errors_in_the_sources() -> BTreeSet<(u16, String)> {
    let mut errors = BTreeSet::new();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![sources.join("api"), sources.join("gate")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the sources are there") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source");
                let code = text.split("#[cfg(test)]\nmod tests {").next().expect("the part before its tests");
                collect_errors(code, &mut errors);
            }
        }
    }
    errors
}

/// An error is made by `error(404, "not_found", ..)`, by `json(409, .. "code": "duplicate" ..)`, or in the gate by
/// `("431 Request Header Fields Too Large", "headers_too_large", ..)`.
fn collect_errors(source: &str, errors: &mut BTreeSet<(u16, String)>) {
    let words: Vec<&str> = source.split_whitespace().collect();
    let source = words.join(" ");
    let status = |text: &str| text.get(..3)?.parse::<u16>().ok().filter(|status| *status >= 400);
    let word = |text: &str| {
        let (word, _) = text.split_once('"')?;
        word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_').then(|| word.to_owned())
    };
    // Remove the space that a line break leaves after a parenthesis.
    let source = source.replace("( ", "(");
    for (start, between) in [("error(", ", \""), ("json(", "\"code\": \""), ("(\"", "\", \"")] {
        for (at, _) in source.match_indices(start) {
            let rest = &source[at + start.len()..];
            let code = rest.split_once(between).and_then(|(_, rest)| word(rest));
            if let (Some(status), Some(code)) = (status(rest), code) {
                errors.insert((status, code));
            }
        }
    }
}

#[test]
fn the_document_lists_every_error_that_can_be_answered_and_no_other() {
    let redis = TestRedis::start();
    let document = Document::of(&TestServer::observer(&redis));
    let mut described = BTreeSet::new();
    for (name, answer) in document.0["components"]["responses"].as_object().expect("responses") {
        let status: u16 = name.trim_start_matches("Error").parse().expect("a status");
        let codes = &answer["content"]["application/json"]["schema"]["properties"]["code"]["enum"];
        for code in codes.as_array().expect("codes") {
            described.insert((status, code.as_str().expect("a code").to_owned()));
        }
    }
    assert_eq!(described, errors_in_the_sources());
}

#[test]
fn every_error_is_described_where_it_can_occur() {
    let redis = TestRedis::start();
    let document = Document::of(&TestServer::observer(&redis));
    // Statuses of errors that every path can return.
    let everywhere = [400, 403, 405, 408, 413, 417, 431, 500, 501, 502, 503, 505];
    for (path, item) in document.0["paths"].as_object().expect("paths") {
        for (method, operation) in
            item.as_object().expect("methods").iter().filter(|(key, _)| *key != "parameters")
        {
            let mut wanted = BTreeSet::from(everywhere);
            let is_open = matches!(path.as_str(), "/" | "/healthz" | "/readyz");
            if !is_open && !path.starts_with("/ui/") && !path.starts_with("/attempts/") {
                wanted.insert(401);
            }
            if path.contains("/{") {
                wanted.insert(404);
            }
            if matches!(method.as_str(), "post" | "put" | "patch") {
                wanted.insert(415);
            }
            match (method.as_str(), path.as_str()) {
                ("post", "/jobs" | "/jobs/batch") => wanted.extend([409, 422, 429]),
                ("post", "/pull") => wanted.extend([429]),
                ("post", path) if path.starts_with("/attempts/") => wanted.extend([409]),
                (
                    "post",
                    "/jobs/{id}/cancel" | "/jobs/{id}/retry" | "/jobs/{id}/run" | "/schedules/{name}/run",
                )
                | ("delete" | "patch", "/jobs/{id}")
                | ("delete" | "put", "/schedules/{name}" | "/limits/{name}") => {
                    wanted.insert(409);
                }
                _ => {}
            }
            let responses = operation["responses"].as_object().expect("responses");
            let told: BTreeSet<u16> = responses.keys().filter_map(|status| status.parse().ok()).collect();
            let errors: BTreeSet<u16> = told.into_iter().filter(|status| *status >= 400).collect();
            assert_eq!(errors, wanted, "{method} {path}");
        }
    }
}

#[test]
fn a_tour_through_the_api_gets_nothing_but_what_is_described() {
    let redis = TestRedis::start();
    let server = TestServer::builder()
        .redis(&redis)
        .flag("max-queue-length", "5")
        .flag("max-body", "4KiB")
        .flag("queues", "default,limited")
        .start();
    let document = Document::of(&server);
    let json_type = ("Content-Type", "application/json");
    let mut seen: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
    let mut ask = |method: &str, path: &str, url: &str, headers: &[(&str, &str)], body: Option<&str>| {
        let reply = server.request(method, url, headers, body.map(str::as_bytes));
        document.check(method, path, &reply);
        seen.entry(format!("{method} {path}")).or_default().insert(reply.status);
        reply
    };
    let id_of = |reply: Reply| reply.json()["job_id"].as_u64().expect("an id");
    let key = [json_type, ("Idempotency-Key", "k")];

    // Jobs in every status, and every response to a submission.
    let done = id_of(ask("POST", "/jobs", "/jobs", &key, Some(r#"{"type": "echo", "payload": [1.5, {}]}"#)));
    ask("POST", "/jobs", "/jobs", &key, Some(r#"{"type": "echo", "payload": [1.5, {}]}"#)).expect(200);
    ask("POST", "/jobs", "/jobs", &key, Some(r#"{"type": "echo"}"#)).expect(422);
    let failing = r#"{"type": "fail", "payload": {"permanent": true}}"#;
    let failed = id_of(ask("POST", "/jobs", "/jobs", &[json_type], Some(failing)));
    let held = r#"{"type": "echo", "queue": "nobody", "unique_key": "u"}"#;
    let queued = id_of(ask("POST", "/jobs", "/jobs", &[json_type], Some(held)));
    ask("POST", "/jobs", "/jobs", &[json_type], Some(held)).expect(409);
    let found = r#"{"type": "echo", "unique": {"key": "u", "on_conflict": "existing"}}"#;
    assert_eq!(id_of(ask("POST", "/jobs", "/jobs", &[json_type], Some(found)).expect(200)), queued);
    let replacing = r#"{"type": "echo", "delay_ms": 3600000, "tags": ["a"], "meta": {"b": "c"}, "retain_ms": 5,
        "expires_in_ms": 7200000, "unique": {"key": "v", "on_conflict": "replace"}}"#;
    let replaced = id_of(ask("POST", "/jobs", "/jobs", &[json_type], Some(replacing)).expect(202));
    assert_eq!(id_of(ask("POST", "/jobs", "/jobs", &[json_type], Some(replacing)).expect(200)), replaced);
    let early = r#"{"type": "echo", "expires_at": "2001-01-01T00:00:00Z"}"#;
    ask("POST", "/jobs", "/jobs", &[json_type], Some(early)).expect(400);
    let running = id_of(ask(
        "POST",
        "/jobs",
        "/jobs",
        &[json_type],
        Some(r#"{"type": "sleep", "payload": {"ms": 600000}}"#),
    ));
    let delayed =
        id_of(ask("POST", "/jobs", "/jobs", &[json_type], Some(r#"{"type": "echo", "delay_ms": 3600000}"#)));
    ask("POST", "/jobs", "/jobs", &[json_type], Some("{")).expect(400);
    ask("POST", "/jobs", "/jobs", &[("Content-Type", "text/plain")], Some("{}")).expect(415);
    ask("POST", "/jobs", "/jobs", &[json_type], Some(&" ".repeat(5000))).expect(413);
    ask("POST", "/jobs", "/jobs", &[json_type, ("Origin", "http://evil.example")], Some("{}")).expect(403);
    let batch = r#"{"jobs": [{"type": "echo", "queue": "nobody"}, {"type": "echo", "queue": "nobody"}]}"#;
    ask("POST", "/jobs/batch", "/jobs/batch", &[json_type], Some(batch)).expect(202);
    ask("POST", "/jobs/batch", "/jobs/batch", &[json_type], Some(batch)).expect(202);
    ask("POST", "/jobs/batch", "/jobs/batch", &[json_type], Some(batch)).expect(429);
    for (id, status) in [(done, "completed"), (failed, "failed"), (running, "processing")] {
        server.wait_for_status(id, status);
    }

    ask("GET", "/jobs", "/jobs?limit=100", &[], None).expect(200);
    ask("GET", "/jobs", "/jobs?limit=101", &[], None).expect(400);
    for id in [done, failed, queued, running, delayed, replaced] {
        ask("GET", "/jobs/{id}", &format!("/jobs/{id}?wait=1ms"), &[], None).expect(200);
    }
    for id in [done, failed, queued, running, delayed] {
        ask("GET", "/jobs/{id}/why", &format!("/jobs/{id}/why"), &[], None).expect(200);
    }
    ask("GET", "/jobs/{id}/why", "/jobs/1/why", &[], None).expect(404);
    ask("GET", "/jobs/{id}/log", &format!("/jobs/{done}/log?after=0&limit=1000&wait=1s"), &[], None)
        .expect(200);
    ask("GET", "/jobs/{id}/log", "/jobs/1/log", &[], None).expect(404);
    ask("GET", "/jobs/{id}", "/jobs/1", &[], None).expect(404);
    ask("GET", "/jobs/{id}", "/jobs/x", &[], None).expect(400);
    ask("POST", "/jobs/{id}/cancel", &format!("/jobs/{queued}/cancel"), &[], Some("")).expect(200);
    ask("POST", "/jobs/{id}/cancel", &format!("/jobs/{running}/cancel"), &[], Some("")).expect(202);
    ask("POST", "/jobs/{id}/cancel", &format!("/jobs/{done}/cancel"), &[], Some("")).expect(409);
    let change = r#"{"max_attempts": 3}"#;
    ask("PATCH", "/jobs/{id}", &format!("/jobs/{delayed}"), &[json_type], Some(change)).expect(200);
    ask("PATCH", "/jobs/{id}", &format!("/jobs/{done}"), &[json_type], Some(change)).expect(409);
    ask("POST", "/jobs/{id}/run", &format!("/jobs/{done}/run"), &[], Some("")).expect(409);
    let later = r#"{"type": "echo", "queue": "nobody", "delay_ms": 3600000}"#;
    let later = id_of(ask("POST", "/jobs", "/jobs", &[json_type], Some(later)));
    ask("POST", "/jobs/{id}/run", &format!("/jobs/{later}/run"), &[], Some("")).expect(200);
    for body in
        [r#"{"action": "cancel", "filter": {"ids": [1]}}"#, r#"{"action": "cancel", "filter": {"tag": "x"}}"#]
    {
        ask("POST", "/jobs/bulk", "/jobs/bulk", &[json_type], Some(body)).expect(200);
    }
    ask("POST", "/jobs/bulk", "/jobs/bulk", &[json_type], Some(r#"{"action": "cancel", "filter": {}}"#))
        .expect(400);
    ask("GET", "/dlq", "/dlq", &[], None).expect(200);
    ask("POST", "/dlq/retry", "/dlq/retry", &[json_type], Some(r#"{"dry_run": true}"#)).expect(200);
    ask("POST", "/jobs/{id}/retry", &format!("/jobs/{failed}/retry"), &[], Some("")).expect(202);
    let anew = r#"{"from_start": true}"#;
    ask("POST", "/jobs/{id}/retry", &format!("/jobs/{done}/retry"), &[json_type], Some(anew)).expect(409);
    ask("DELETE", "/jobs/{id}", &format!("/jobs/{delayed}"), &[], None).expect(409);
    ask("DELETE", "/jobs/{id}", &format!("/jobs/{done}"), &[], None).expect(204);
    ask("DELETE", "/dlq", "/dlq?type=fail", &[], None).expect(200);
    ask("GET", "/queues/{name}/jobs", "/queues/nobody/jobs?limit=1", &[], None).expect(200);
    ask("GET", "/queues/{name}/jobs", "/queues/a%20b/jobs", &[], None).expect(400);
    ask("POST", "/queues/{name}/pause", "/queues/nobody/pause", &[], Some("")).expect(200);
    ask("POST", "/queues/{name}/pause", "/queues/a%20b/pause", &[], Some("")).expect(400);
    ask("POST", "/queues/{name}/resume", "/queues/nobody/resume", &[], Some("")).expect(200);
    let hourly = r#"{"every": "1h", "overlap": "skip", "job": {"type": "sleep", "payload": {"ms": 600000}}}"#;
    let path = "/schedules/{name}";
    ask("PUT", path, "/schedules/hourly", &[json_type], Some(hourly)).expect(201);
    ask("PUT", path, "/schedules/hourly", &[json_type], Some(hourly)).expect(200);
    ask("PUT", path, "/schedules/hourly", &[json_type], Some(r#"{"every": "1h"}"#)).expect(400);
    ask("POST", "/schedules/{name}/run", "/schedules/hourly/run", &[], Some("")).expect(202);
    ask("POST", "/schedules/{name}/run", "/schedules/hourly/run", &[], Some("")).expect(409);
    ask("GET", path, "/schedules/hourly", &[], None).expect(200);
    ask("GET", "/schedules", "/schedules?limit=5", &[], None).expect(200);
    ask("POST", "/schedules/{name}/pause", "/schedules/hourly/pause", &[], Some("")).expect(200);
    ask("POST", "/schedules/{name}/resume", "/schedules/hourly/resume", &[], Some("")).expect(200);
    ask("DELETE", path, "/schedules/hourly", &[], None).expect(204);
    ask("GET", path, "/schedules/hourly", &[], None).expect(404);
    let preview = r#"{"cron": "@daily", "count": 2}"#;
    ask("POST", "/schedules/preview", "/schedules/preview", &[json_type], Some(preview)).expect(200);
    let pull = r#"{"queues": ["pulled"], "lease_ms": 60000, "worker": "w"}"#;
    let for_workers = r#"{"type": "t", "queue": "pulled"}"#;
    for (end, body) in
        [("complete", "{}"), ("fail", r#"{"error": "no"}"#), ("release", r#"{"delay_ms": 3600000}"#)]
    {
        let id = id_of(ask("POST", "/jobs", "/jobs", &[json_type], Some(for_workers)));
        let token = |reply: Reply| reply.json()["jobs"][0]["token"].as_str().map(str::to_owned);
        let token = until_some(LIMIT, "the job", || {
            token(ask("POST", "/pull", "/pull", &[json_type], Some(pull)).expect(200))
        });
        ask("GET", "/jobs/{id}", &format!("/jobs/{id}"), &[], None).expect(200);
        ask("GET", "/jobs/{id}/why", &format!("/jobs/{id}/why"), &[], None).expect(200);
        ask("GET", "/workers", "/workers", &[], None).expect(200);
        let report = r#"{"progress": {"value": 0.5}, "checkpoint": 1}"#;
        let path = "/attempts/{token}";
        ask("POST", path, &format!("/attempts/{token}"), &[json_type], Some(report)).expect(200);
        let (path, url) = (format!("{path}/{end}"), format!("/attempts/{token}/{end}"));
        ask("POST", &path, &url, &[json_type], Some(r#"{"x": 1}"#)).expect(400);
        ask("POST", &path, &url, &[json_type], Some(body)).expect(200);
        let settle = format!(
            r#"{{"settle": [{{"token": "{token}", "{end}": {body}}}, {{"token": "x", "release": {{}}}}]}}"#
        );
        ask("POST", "/attempts", "/attempts", &[json_type], Some(&settle)).expect(200);
        let stale = format!("/attempts/{token}");
        ask("POST", "/attempts/{token}", &stale, &[json_type], Some("{}")).expect(409);
        ask("POST", "/attempts/{token}", "/attempts/x", &[json_type], Some("{}")).expect(404);
    }
    ask("POST", "/pull", "/pull", &[json_type], Some("{}")).expect(400);
    let path = "/limits/{name}";
    ask("PUT", path, "/limits/tenant", &[json_type], Some(r#"{"concurrency": 1}"#)).expect(201);
    ask("PUT", path, "/limits/tenant", &[json_type], Some(r#"{"concurrency": 1, "rate": "1/30d"}"#))
        .expect(200);
    ask("PUT", path, "/limits/tenant", &[json_type], Some("{}")).expect(400);
    ask("PUT", path, "/limits/tenant?key=b", &[json_type], Some(r#"{"concurrency": 5}"#)).expect(201);
    let limited =
        r#"{"type": "sleep", "payload": {"ms": 600000}, "queue": "limited", "limits": ["tenant:a"]}"#;
    let limited =
        [(); 2].map(|()| id_of(ask("POST", "/jobs", "/jobs", &[json_type], Some(limited)).expect(202)));
    eventually(LIMIT, "a job waits for the limit", || {
        let url = format!("/jobs/{}", limited[1]);
        ask("GET", "/jobs/{id}", &url, &[], None).expect(200).json()["blocked_by"].is_object()
    });
    ask("GET", "/jobs/{id}/why", &format!("/jobs/{}/why", limited[1]), &[], None).expect(200);
    ask("GET", "/queues", "/queues", &[], None).expect(200);
    ask("GET", path, "/limits/tenant", &[], None).expect(200);
    ask("GET", path, "/limits/tenant?key=a&limit=5", &[], None).expect(200);
    ask("GET", path, "/limits/tenant?key=b", &[], None).expect(200);
    ask("GET", path, "/limits/x", &[], None).expect(404);
    ask("GET", "/limits", "/limits", &[], None).expect(200);
    ask("DELETE", path, "/limits/tenant", &[], None).expect(204);
    ask("DELETE", path, "/limits/tenant", &[], None).expect(404);
    // A history begins when the first figures are written.
    eventually(LIMIT, "the last minutes have figures", || {
        !ask("GET", "/stats/history", "/stats/history", &[], None).expect(200).json()["minutes"]
            .as_array()
            .is_none_or(|minutes| minutes.iter().all(|minute| minute["depth"].is_null()))
    });
    let stats = ["/queues", "/stats", "/stats/workers", "/metrics", "/healthz", "/readyz", "/openapi.json"];
    for path in stats.into_iter().chain(["/"]) {
        ask("GET", path, path, &[], None).expect(200);
        ask("GET", path, &format!("{path}?x=1"), &[], None).expect(400);
    }
    for path in ["/ui/app.js", "/ui/style.css", "/ui/icon.svg"] {
        ask("GET", "/ui/{file}", path, &[], None).expect(200);
        ask("GET", "/ui/{file}", &format!("{path}?x=1"), &[], None).expect(400);
    }
    ask("GET", "/ui/{file}", "/ui/other", &[], None).expect(404);
    let long = "x".repeat(20_000);
    ask("GET", "/jobs", "/jobs", &[("X-Long", &long)], None).expect(431);

    redis.kill9();
    ask("GET", "/stats", "/stats", &[], None).expect(503);
    ask("GET", "/readyz", "/readyz", &[], None).expect(503);
    ask("POST", "/jobs", "/jobs", &[json_type], Some(r#"{"type": "echo"}"#)).expect(503);

    // Every described response was seen, except those that other tests cover.
    for (path, item) in document.0["paths"].as_object().expect("paths") {
        for (method, operation) in
            item.as_object().expect("methods").iter().filter(|(key, _)| *key != "parameters")
        {
            let seen = seen.get(&format!("{} {path}", method.to_uppercase()));
            let seen = seen.unwrap_or_else(|| panic!("{method} {path} was not asked"));
            let responses = operation["responses"].as_object().expect("responses");
            let good =
                responses.keys().filter_map(|status| status.parse().ok()).filter(|status| *status < 400);
            for status in good {
                assert!(
                    seen.contains(&status) || path == "/jobs/batch",
                    "{method} {path}: no {status} was seen"
                );
            }
        }
    }
}

#[test]
fn a_token_is_asked_for_as_described() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("api-token", "s3cret-t0ken").start();
    let document = Document(server.with_token("s3cret-t0ken").get("/openapi.json").expect(200).json());
    for (path, item) in document.0["paths"].as_object().expect("paths") {
        for (method, operation) in
            item.as_object().expect("methods").iter().filter(|(key, _)| *key != "parameters")
        {
            let method = method.to_uppercase();
            let reply = server.request(&method, &path.replace(['{', '}'], ""), &[], None);
            document.check(&method, path, &reply);
            let is_open = operation["security"][0] == json!({});
            assert_eq!(reply.status == 401, !is_open, "{method} {path}: {}", reply.status);
        }
    }
}
