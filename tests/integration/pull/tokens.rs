//! Who may take, report and answer.

use super::*;

const ALL: &str = "the-api-token-of-this-test";
const WORKER: &str = "the-worker-token-of-this-test";

#[test]
fn each_token_opens_what_it_is_for() {
    let redis = TestRedis::start();
    let server = front(&redis).flag("api-token", ALL).flag("worker-token", WORKER).start();
    let (all, worker) = (server.with_token(ALL), server.with_token(WORKER));
    let id = submit(&all);
    submit(&all);
    let request = json!({"queues": ["q"], "lease_ms": 60_000});
    server.post("/pull", &request).expect_error(401, "unauthorized", "no token");
    server.with_token("other").post("/pull", &request).expect_error(401, "unauthorized", "a wrong token");
    let first = try_pull(&worker, request.clone()).unwrap();
    assert_eq!(first["id"], id);
    let second = try_pull(&all, request).unwrap();
    // The attempt token is enough for its own attempt.
    server.post(&attempt(&first), &json!({"progress": {"value": 0.5}})).expect(200);
    worker.post(&attempt(&first), &json!({"log": ["x"]})).expect(200);
    let forged = attempt(&first).replace('-', "_");
    server.act(&forged).expect_error(404, "invalid_token", "no token at all");
    let mut other = attempt(&first);
    other.replace_range(other.len() - 5.., "AAAAA");
    server.act(&format!("{other}/complete")).expect_error(404, "invalid_token", "a guessed token");
    let settle = |job: &Value| json!({"token": job["token"], "complete": {}});
    let guess = json!({"token": "1-1-aaaaaaaaaaaaaaaaaaaaaa", "release": {}});
    let both = json!({"settle": [settle(&first), guess]});
    server.post("/attempts", &both).expect_error(401, "unauthorized", "one token is not valid");
    assert_eq!(all.job(id)["status"], "processing");
    let results = worker.post("/attempts", &both).expect(200).json();
    assert_eq!(results["results"][1]["code"], "invalid_token", "{results}");
    server.post("/attempts", &json!({"settle": [settle(&second)]})).expect(200);
    assert_eq!(all.count("completed"), 2);
    // The worker token opens nothing else.
    for (method, path) in [
        ("GET", "/jobs"),
        ("GET", "/workers"),
        ("GET", "/stats"),
        ("GET", "/metrics"),
        ("POST", "/queues/q/pause"),
        ("GET", "/nowhere"),
    ] {
        let body = (method == "POST").then_some(&b""[..]);
        worker.request(method, path, &[], body).expect_error(403, "forbidden", path);
    }
    worker.post("/jobs", &json!({"type": "t"})).expect_error(403, "forbidden", "/jobs");
    worker.get("/healthz").expect(200);
    // No token is in the log, in a metric or in an error.
    let code = first["token"].as_str().unwrap().rsplit_once('-').unwrap().1;
    let texts = [server.log_text(), all.get("/metrics").text(), server.act(&other).text()];
    assert!(
        texts.iter().all(|text| ![ALL, WORKER, code].iter().any(|token| text.contains(token))),
        "{texts:?}"
    );
    assert!(texts[1].contains("path=\"/attempts/{token}/complete\""), "{}", texts[1]);
}

#[test]
fn a_worker_token_can_be_in_a_file_and_needs_an_api_token() {
    let redis = TestRedis::start();
    let dir = TempDir::new();
    let file = dir.write("token", &format!("{WORKER}\n"));
    let builder = front(&redis).flag("worker-token-file", file.to_str().unwrap());
    let refused = builder.run_serve();
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("worker-token (with the other settings): "), "{refused:?}");
    let server = builder.flag("api-token", ALL).start();
    assert_eq!(try_pull(&server.with_token(WORKER), json!({"queues": ["q"]})), None);
    // Every server checks the tokens of all.
    let id = submit(&server.with_token(ALL));
    let job = pull(&server.with_token(WORKER), 60_000);
    let other = front(&redis).flag("api-token", "another-token").start();
    other.act(&format!("{}/complete", attempt(&job))).expect(200);
    assert_eq!(server.with_token(ALL).job(id)["status"], "completed");
}
