//! A taken job, its reports, and its answers.

use super::*;

#[test]
fn a_job_is_taken_reported_on_and_completed() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    assert_eq!(try_pull(&server, json!({"queues": ["q"]})), None);
    let id = submit(&server);
    let request = json!({"queues": ["other", "q"], "max": 10, "lease_ms": 60_000, "worker": "gpu-1"});
    let job = try_pull(&server, request).unwrap();
    assert_eq!((job["id"].as_u64(), job["payload"]["n"].as_u64()), (Some(id), Some(1)), "{job}");
    assert_eq!((job["status"].as_str(), job["server"].as_str()), (Some("processing"), Some("pull")));
    assert_eq!(job["worker"], "gpu-1");
    let left = |time: &Value| time_ms(time) as i64 - time_ms(&job["started_at"]) as i64;
    assert_eq!((left(&job["lease_until"]), left(&job["timeout_at"])), (60_000, 300_000), "{job}");
    let reasons = server.get(&format!("/jobs/{id}/why")).expect(200).json();
    assert_eq!(reasons["reasons"][0]["code"], "leased", "{reasons}");
    assert_eq!(reasons["reasons"][0]["worker"], "gpu-1", "{reasons}");
    let workers = server.get("/workers").expect(200).json();
    assert_eq!(workers["workers"][0]["name"], "gpu-1", "{workers}");
    assert_eq!(workers["workers"][0]["jobs"][0]["id"], id, "{workers}");

    let path = attempt(&job);
    let report =
        json!({"progress": {"value": 0.5, "message": "half"}, "log": ["a", "b"], "checkpoint": {"page": 7}});
    let answer = server.post(&path, &report).expect(200).json();
    assert_eq!(answer["cancel"], false, "{answer}");
    assert!(left(&answer["lease_until"]) >= 60_000, "{answer}");
    // An empty body extends the lease; no lease is longer than the time of the attempt.
    let longest = server.post(&path, &json!({"lease_ms": 86_400_000})).expect(200).json();
    assert_eq!(longest["lease_until"], job["timeout_at"], "{longest}");
    let same = server.act(&path).expect(200).json();
    assert_eq!(same["lease_until"], job["timeout_at"], "{same}");
    let shown = server.job(id);
    assert_eq!((&shown["progress"]["message"], &shown["checkpoint"]["page"]), (&json!("half"), &json!(7)));

    assert_eq!(server.metric("threadq_pull_leases"), 1.0);
    let done = server.post(&format!("{path}/complete"), &json!({"result": {"x": 1}})).expect(200).json();
    assert_eq!(done, json!({"status": "completed"}));
    let job = server.job(id);
    assert_eq!(
        (&job["status"], &job["result"]["x"], &job["attempts"]),
        (&json!("completed"), &json!(1), &json!(1))
    );
    assert_eq!(server.metric("threadq_pull_leases"), 0.0);
    assert_eq!(server.metric("threadq_jobs_completed_total{type=\"t\"}"), 1.0);
    // Requests that only extend the lease do not count as reports.
    assert_eq!(server.metric("threadq_job_reports_total{type=\"t\"}"), 1.0);
    assert_eq!(server.metric("threadq_job_processing_duration_seconds_count{type=\"t\"}"), 1.0);
    assert_eq!(server.metric("threadq_job_wait_seconds_count{type=\"t\"}"), 1.0);
    // The same answer again is harmless, another one is refused.
    let again = server.post(&format!("{path}/complete"), &json!({"result": 2})).expect(200).json();
    assert_eq!((again, &server.job(id)["result"]["x"]), (json!({"status": "completed"}), &json!(1)));
    for (end, body) in [("/fail", json!({"error": "no"})), ("/release", json!({})), ("", json!({}))] {
        server.post(&format!("{path}{end}"), &body).expect_error(409, "stale_attempt", end);
    }
    assert_eq!(server.metric("threadq_jobs_completed_total{type=\"t\"}"), 1.0);
}

#[test]
fn a_failure_follows_the_policy_of_the_type_and_is_logged() {
    let redis = TestRedis::start();
    let config = "[handlers.t]\npull = true\nmax_attempts = 2\nbackoff = { base = \"1ms\", cap = \"1ms\" }\n";
    let server = front(&redis).config(config).start();
    let id = submit(&server);
    let first = pull(&server, 60_000);
    let failed =
        server.post(&format!("{}/fail", attempt(&first)), &json!({"error": "disk full"})).expect(200);
    assert_eq!(failed.json(), json!({"status": "retrying"}));
    assert_eq!(server.metric("threadq_job_retries_total{type=\"t\"}"), 1.0);
    let second = until_some(LIMIT, "the second attempt", || try_pull(&server, json!({"queues": ["q"]})));
    assert_eq!((second["id"].as_u64(), second["attempts"].as_u64()), (Some(id), Some(1)), "{second}");
    // The first answer again gives the status of then, and changes nothing.
    let repeated =
        server.post(&format!("{}/fail", attempt(&first)), &json!({"error": "x", "permanent": true}));
    assert_eq!(repeated.expect(200).json(), json!({"status": "retrying"}));
    let failed =
        server.post(&format!("{}/fail", attempt(&second)), &json!({"error": "still full"})).expect(200);
    assert_eq!(failed.json(), json!({"status": "failed"}));
    let job = server.job(id);
    assert_eq!(
        (job["status"].as_str(), job["last_error"].as_str()),
        (Some("failed"), Some("still full")),
        "{job}"
    );
    assert_eq!(server.metric("threadq_jobs_failed_total{type=\"t\"}"), 1.0);
    let log = server.log_text();
    assert!(
        log.contains(&format!("job={id} type=\"t\" attempt=1: failed; retry in 0.0 s: disk full")),
        "{log}"
    );
    assert!(log.contains(&format!("job={id} type=\"t\" attempt=2: failed for good: still full")), "{log}");
}

#[test]
fn permanent_failures_and_longer_waits_are_obeyed() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    let id = submit(&server);
    let job = pull(&server, 60_000);
    let later = json!({"error": "busy", "retry_after_ms": 3_600_000});
    assert_eq!(
        server.post(&format!("{}/fail", attempt(&job)), &later).expect(200).json()["status"],
        "retrying"
    );
    assert!(time_ms(&server.job(id)["scheduled_at"]) > now_ms() + 3_500_000, "{}", server.job(id));
    let id = submit(&server);
    let job = pull(&server, 60_000);
    let never = json!({"error": "bad input", "permanent": true});
    assert_eq!(
        server.post(&format!("{}/fail", attempt(&job)), &never).expect(200).json()["status"],
        "failed"
    );
    assert_eq!(server.job(id)["attempts"], 1);
}

#[test]
fn a_released_job_is_the_first_one_again_or_waits() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    let (first, second) = (submit(&server), submit(&server));
    let job = pull(&server, 60_000);
    assert_eq!(server.act(&format!("{}/release", attempt(&job))).expect(200).json()["status"], "queued");
    let job = pull(&server, 60_000);
    assert_eq!((job["id"].as_u64(), job["attempts"].as_u64()), (Some(first), Some(0)), "{job}");
    let later = json!({"delay_ms": 3_600_000});
    let released = server.post(&format!("{}/release", attempt(&job)), &later).expect(200).json();
    assert_eq!(released["status"], "scheduled");
    assert_eq!((&server.job(first)["snoozes"], &server.job(first)["attempts"]), (&json!(1), &json!(0)));
    assert_eq!(pull(&server, 60_000)["id"], second);
}

#[test]
fn a_cancelled_job_ends_as_its_worker_says() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    for (end, body, status) in [
        ("fail", json!({"error": "stopped"}), "cancelled"),
        ("release", json!({}), "cancelled"),
        ("complete", json!({"result": 1}), "completed"),
    ] {
        let id = submit(&server);
        let path = attempt(&pull(&server, 60_000));
        assert_eq!(server.act(&path).expect(200).json()["cancel"], false);
        server.act(&format!("/jobs/{id}/cancel")).expect(202);
        assert_eq!(server.act(&path).expect(200).json()["cancel"], true);
        assert_eq!(server.post(&format!("{path}/{end}"), &body).expect(200).json()["status"], status);
        assert_eq!(server.job(id)["status"], status);
    }
}

#[test]
fn many_attempts_are_settled_each_by_itself() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    let ids: Vec<u64> = (0..3).map(|_| submit(&server)).collect();
    let jobs = server.post("/pull", &json!({"queues": ["q"], "max": 3})).expect(200).json()["jobs"].take();
    let token = |place: usize| jobs[place]["token"].as_str().unwrap();
    let long = "x".repeat(64 * 1024);
    let settle = json!({"settle": [
        {"token": token(0), "complete": {"result": 1}},
        {"token": "1-1-aaaaaaaaaaaaaaaaaaaaaa", "release": {}},
        {"token": token(1), "complete": {"result": long}},
        {"token": token(0), "fail": {"error": "no"}},
        {"token": token(2), "fail": {"error": "no", "permanent": true}},
    ]});
    let results = server.post("/attempts", &settle).expect(200).json()["results"].take();
    let words: Vec<&str> = results
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["status"].as_str().or(result["code"].as_str()).unwrap())
        .collect();
    assert_eq!(
        words,
        ["completed", "invalid_token", "body_too_large", "stale_attempt", "failed"],
        "{results}"
    );
    let status = |id| server.job(id)["status"].as_str().unwrap().to_owned();
    assert_eq!(ids.into_iter().map(status).collect::<Vec<_>>(), ["completed", "processing", "failed"]);
}

#[test]
fn pull_workers_have_ten_thousand_jobs_at_most() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    server.submit_batch(&vec![json!({"type": "t", "queue": "q"}); 10_001]);
    let many = json!({"queues": ["q"], "max": 100});
    for _ in 0..100 {
        let jobs = server.post("/pull", &many).expect(200).json()["jobs"].take();
        assert_eq!(jobs.as_array().map(Vec::len), Some(100));
    }
    let refused = server.post("/pull", &many);
    refused.expect_error(429, "too_many_leases", "one more");
    assert!(refused.header("Retry-After").is_some());
    assert_eq!((server.count("queued"), server.metric("threadq_pull_leases")), (1, 10_000.0));
}

#[test]
fn bad_requests_name_the_field_and_change_nothing() {
    let redis = TestRedis::start();
    let server = front(&redis).start();
    let id = submit(&server);
    for (body, field) in [
        (json!({}), "queues"),
        (json!({"queues": ["a b"]}), "queues"),
        (json!({"queues": ["q"], "max": 101}), "max"),
        (json!({"queues": ["q"], "wait_ms": 60_001}), "wait_ms"),
        (json!({"queues": ["q"], "lease_ms": 999}), "lease_ms"),
        (json!({"queues": ["q"], "worker": "a b"}), "worker"),
        (json!({"queues": ["q"], "type": "t"}), "type"),
    ] {
        let error = server.post("/pull", &body).expect_error(400, "invalid_pull", field);
        assert!(error.contains(field), "{error}");
    }
    assert_eq!(server.job(id)["status"], "queued");
    let path = attempt(&pull(&server, 60_000));
    for (end, body, field) in [
        ("", json!({"progress": {"value": 2}}), "progress.value"),
        ("", json!({"lease_ms": 1}), "lease_ms"),
        ("/complete", json!({"results": 1}), "results"),
        ("/fail", json!({}), "error"),
        ("/fail", json!({"error": "x", "permanent": "yes"}), "permanent"),
        ("/release", json!({"delay_ms": -1}), "delay_ms"),
    ] {
        let error = server.post(&format!("{path}{end}"), &body).expect_error(400, "invalid_attempt", field);
        assert!(error.contains(field), "{error}");
    }
    let error = server.post("/attempts", &json!({"settle": [{"token": "x"}]}));
    error.expect_error(400, "invalid_attempt", "settle[0]");
    let long = json!({"result": "x".repeat(64 * 1024)});
    server.post(&format!("{path}/complete"), &long).expect_error(413, "body_too_large", "result");
    assert_eq!(server.job(id)["status"], "processing");
    server.act(&format!("{path}/complete")).expect(200);
    assert_eq!((&server.job(id)["status"], &server.job(id)["result"]), (&json!("completed"), &Value::Null));
}
#[test]
fn the_attempt_of_a_server_can_be_reported_on_but_not_settled() {
    let redis = TestRedis::start();
    // The handler gives its token to the test.
    let config = "[handlers.speak]\nhttp = \"http://127.0.0.1:1/\"\nmax_attempts = 1\n";
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = config.replace("127.0.0.1:1", &listener.local_addr().unwrap().to_string());
    let server = TestServer::builder().redis(&redis).config(&config).start();
    let id = server.submit("speak", json!({}));
    let (mut stream, _) = listener.accept().unwrap();
    let mut head = String::new();
    let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
    while !head.ends_with("\r\n\r\n") {
        std::io::BufRead::read_line(&mut reader, &mut head).unwrap();
    }
    let token = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("threadq-attempt-token").then(|| value.to_owned())
    });
    let path = format!("/attempts/{}", token.unwrap_or_else(|| panic!("no token in {head}")));
    let answer = server.post(&path, &json!({"progress": {"value": 0.25}})).expect(200).json();
    assert!(answer.get("lease_until").is_none() && answer["cancel"] == false, "{answer}");
    assert_eq!(server.job(id)["progress"]["value"], 0.25);
    server.act(&format!("{path}/complete")).expect_error(409, "stale_attempt", "an attempt of a server");
    std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7").unwrap();
    assert_eq!(server.wait_for_status(id, "completed")["result"], 7);
}
