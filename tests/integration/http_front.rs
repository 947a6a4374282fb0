//! The front of the HTTP API: HEAD beside GET, the allowed hosts, and the routes that need no token.

use crate::common::*;

/// Sends a request with this `Host`. Returns the response.
fn ask_as(server: &TestServer, request_line: &str, host: Option<&str>) -> Reply {
    let mut connection = http::Connection::open(server.addr()).expect("connects");
    let host = host.map_or(String::new(), |host| format!("Host: {host}\r\n"));
    connection
        .send_raw(format!("{request_line}\r\n{host}Connection: close\r\n\r\n").as_bytes())
        .expect("sent");
    connection.receive(false).unwrap_or_else(|e| panic!("{request_line} {host:?}: {e}"))
}

/// The headers of a response, except `Date`, which changes every second.
fn lasting_headers(reply: &Reply) -> Vec<(String, String)> {
    let all = reply.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("date"));
    let mut headers: Vec<_> = all.map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
    headers.sort();
    headers
}

#[test]
fn head_gets_what_get_gets_without_the_body() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let id = server.complete("echo", json!({"a": 1}))["id"].as_u64().expect("an id");
    let mut connection = http::Connection::open(server.addr()).expect("connects");
    let (job, batch) = (format!("/jobs/{id}"), "/jobs/batch".to_owned());
    let (wait, unknown, wrong) = (format!("{job}?wait=5s"), "/jobs/1".to_owned(), "/jobs?limit=0".to_owned());
    let fixed = ["/", "/ui/app.js", "/ui/style.css", "/ui/icon.svg", "/healthz", "/readyz", "/openapi.json"];
    let fixed = fixed.into_iter().chain(["/jobs", "/dlq", "/nowhere"]).map(str::to_owned);
    for path in fixed.chain([job, wait, unknown, wrong, batch]) {
        let get = connection.request("GET", &path, &[], None).expect("an answer");
        let head = connection.request("HEAD", &path, &[], None).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!((head.status, lasting_headers(&head)), (get.status, lasting_headers(&get)), "{path}");
        assert_eq!(get.header("Content-Length"), Some(&*get.body.len().to_string()), "{path}");
    }
    // The length of these bodies changes with the state of the server.
    for path in ["/stats", "/stats/history", "/stats/workers", "/metrics", "/queues"] {
        let head = connection.request("HEAD", path, &[], None).expect("an answer").expect(200);
        assert!(head.header("Content-Length").is_some_and(|length| length != "0"), "{path}: {head:?}");
    }
    // No byte of a body follows the head: the next response is in step.
    let several =
        "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    connection.send_raw(several.as_bytes()).expect("sent");
    assert_eq!(connection.receive(true).expect("an answer").status, 200);
    assert_eq!(connection.receive(false).expect("an answer").json(), json!({"status": "ok"}));
    // A refusal by the gate has no body either.
    connection.send_raw(b"HEAD /stats HTTP/1.1\r\n\r\n").expect("sent");
    assert_eq!(connection.receive(true).expect("an answer").status, 400);
    assert_eq!(connection.read_to_close().expect("closed"), b"");
}

#[test]
fn head_waits_as_get_does_and_changes_nothing() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let id = server.submit("sleep", json!({"ms": 600}));
    let mut connection = http::Connection::open(server.addr()).expect("connects");
    let path = format!("/jobs/{id}?wait=30s");
    connection.request("HEAD", &path, &[], None).expect("an answer").expect(200);
    assert_eq!(server.job(id)["status"], "completed");
    for path in [format!("/jobs/{id}/retry"), "/dlq/retry".to_owned(), "/queues/default/pause".to_owned()] {
        let reply = connection.request("HEAD", &path, &[], None).expect("an answer").expect(405);
        assert_eq!(reply.header("Allow"), Some("POST"), "{path}");
    }
    connection.request("HEAD", "/dlq", &[], None).expect("an answer").expect(200);
    assert_eq!(server.job(id)["status"], "completed");
}

#[test]
fn without_a_token_and_without_its_guard_any_host_may_be_asked_for() {
    let redis = TestRedis::start();
    let guarded = TestServer::start(&redis);
    let open = TestServer::builder().redis(&redis).arg("--insecure-no-token").start();
    for (host, passes) in [
        ("127.0.0.1", true),
        ("127.0.0.1:8080", true),
        ("10.0.0.7:80", true),
        ("[::1]", true),
        ("[fd00::2]:8080", true),
        ("[::FFFF:127.0.0.1]:1", true),
        ("localhost", true),
        ("LOCALHOST:8080", true),
        ("localhost.", true),
        ("localhost.:8080", true),
        ("threadq.localhost", true),
        ("threadq", false),
        ("threadq.", false),
        ("threadq.default.svc.cluster.local", false),
        ("Threadq.Example:8080", false),
        ("localhost.evil.example", false),
        ("127.0.0.1.nip.example", false),
        ("::1", false),
        ("", false),
    ] {
        for line in ["GET /stats HTTP/1.1", "HEAD /stats HTTP/1.1", "GET /healthz HTTP/1.1", "GET / HTTP/1.1"]
        {
            let line_in_old = line.replace("1.1", "1.0");
            for line in [line, &line_in_old] {
                let status = if passes { 200 } else { 403 };
                let mut connection = http::Connection::open(guarded.addr()).expect("connects");
                let raw = format!("{line}\r\nHost: {host}\r\nConnection: close\r\n\r\n");
                connection.send_raw(raw.as_bytes()).expect("sent");
                let reply = connection.receive(line.starts_with("HEAD")).expect("an answer");
                assert_eq!(reply.status, status, "{line} {host}");
            }
        }
        ask_as(&open, "GET /stats HTTP/1.1", Some(host)).expect(200);
    }
    ask_as(&guarded, "GET /stats HTTP/1.0", None).expect(200);
    ask_as(&open, "GET /stats HTTP/1.0", None).expect(200);
    for server in [&guarded, &open] {
        ask_as(server, "GET /stats HTTP/1.1", None).expect_error(400, "bad_request", "no Host");
    }
    ask_as(&open, "GET http://threadq.example/stats HTTP/1.1", Some("h")).expect(200);
    // A page of another site still may not change anything.
    let pause = |host: &str, origin: &str| {
        let line = format!("POST /queues/default/pause HTTP/1.1\r\nOrigin: {origin}");
        ask_as(&open, &line, Some(host))
    };
    pause("threadq.example:8080", "http://evil.example").expect_error(
        403,
        "forbidden_origin",
        "another site",
    );
    pause("threadq.example:8080", "http://threadq.example:8080").expect(200);
    pause("threadq.example", "https://Threadq.Example").expect(200);
}

#[test]
fn probes_and_the_dashboard_need_no_token_and_tell_nothing() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("api-token", "s3cret-t0ken").start();
    for path in ["/healthz", "/readyz", "/", "/ui/app.js", "/ui/style.css", "/ui/icon.svg"] {
        for method in ["GET", "HEAD"] {
            server.request(method, path, &[], None).expect(200);
            server.request(method, path, &[("Authorization", "Bearer wrong")], None).expect(200);
        }
        server.request("POST", path, &[], None).expect_error(405, "method_not_allowed", path);
    }
    server.request("HEAD", "/stats", &[], None).expect(401);
    redis.kill9();
    let asked = |headers: &[(&str, &str)]| server.request("GET", "/readyz", headers, None);
    let mut sentence = String::new();
    eventually(LIMIT, "the server is not ready", || {
        let reply = asked(&[]);
        let not_ready = reply.status == 503;
        if not_ready {
            sentence = reply.expect_error(503, "store_unavailable", "no token");
            assert!(reply.header("Retry-After").is_some());
        }
        not_ready
    });
    assert!(!sentence.to_lowercase().contains("redis"), "{sentence}");
    let wrong = asked(&[("Authorization", "Bearer wrong")]);
    assert_eq!(wrong.expect_error(503, "store_unavailable", "a wrong token"), sentence);
    let told = asked(&[("Authorization", "Bearer s3cret-t0ken")]);
    let reason = told.expect_error(503, "store_unavailable", "the token");
    assert!(reason.contains("Redis"), "{reason}");
    // An outage of Redis does not make the server unhealthy: a restart would not help.
    server.get("/healthz").expect(200);
}

/// The names of the entries of a folder.
fn names_in(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn no_cleaner_of_temporary_files_finds_anything_of_the_server() {
    let redis = TestRedis::start();
    let temporary = TempDir::new();
    let folder = temporary.join("tmp");
    std::fs::create_dir(&folder).expect("a folder");
    let mut server =
        TestServer::builder().redis(&redis).env("TMPDIR", folder.to_str().expect("a name")).start();
    server.get("/stats").expect(200);
    assert_eq!(names_in(&folder), [""; 0], "the server has left something there");
    std::fs::remove_dir_all(&folder).expect("removed");
    // More requests at a time than the gate can have kept connections to tiny_http.
    let ids: Vec<u64> = (0..16).map(|_| server.submit("sleep", json!({"ms": 300}))).collect();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let ask = |id: u64| {
            let mut connection = http::Connection::open(server.addr()).expect("connects");
            let path = format!("/jobs/{id}?wait=30s");
            let waited = connection.request("GET", &path, &[], None).expect("an answer").status;
            let after = ["/stats", "/healthz", "/readyz"];
            let after =
                after.map(|path| connection.request("GET", path, &[], None).expect("an answer").status);
            [&[waited][..], &after].concat()
        };
        let clients: Vec<_> = ids.into_iter().map(|id| scope.spawn(move || ask(id))).collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    });
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    std::fs::create_dir(&folder).expect("a folder");
    server.kill9();
    assert_eq!(names_in(&folder), [""; 0]);
}

#[test]
fn the_server_starts_whatever_the_folder_for_temporary_files_is_like() {
    let redis = TestRedis::start();
    let place = TempDir::new();
    let long = place.join(&"long".repeat(60)).join("deeper");
    std::fs::create_dir_all(&long).expect("a folder");
    let file = place.join("file");
    std::fs::write(&file, "").expect("a file");
    for folder in [place.join("missing"), long.clone(), file, "/proc".into(), "".into(), "relative".into()] {
        let name = folder.to_str().expect("a name");
        let server = TestServer::builder().redis(&redis).env("TMPDIR", name).start();
        server.get("/stats").expect(200);
        server.get("/healthz").expect(200);
    }
    assert_eq!(names_in(&long), [""; 0]);
}

#[test]
fn the_check_of_the_image_needs_no_token_and_no_redis() {
    let dockerfile =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Dockerfile")).expect("there");
    let check = dockerfile.lines().find(|line| line.starts_with("HEALTHCHECK ")).expect("a check");
    let words = check.split_once("CMD ").expect("a command").1;
    let words: Vec<String> = serde_json::from_str(words).expect("in JSON, so that it needs no shell");
    assert_eq!(words[0], "threadq");

    let redis = TestRedis::start();
    let dir = TempDir::new();
    let token = dir.join("token");
    std::fs::write(&token, "s3cret-t0ken\n").expect("written");
    let token = token.to_str().expect("a name");
    let mut server = TestServer::builder().redis(&redis).env("THREADQ_API_TOKEN_FILE", token).start();
    let run = |words: &[&str]| {
        let mut command = crate::common::server::program(&dir);
        command.args(words).env("THREADQ_API_TOKEN_FILE", token);
        command.env("THREADQ_SERVER", format!("http://{}", server.addr()));
        crate::common::server::finish(command)
    };
    let check: Vec<&str> = words[1..].iter().map(String::as_str).collect();
    assert_eq!(run(&check).code, Some(0));
    // The other commands read the token from the same file.
    assert_eq!(run(&["stats"]).code, Some(0));
    let submitted = run(&["enqueue", "echo", "--wait"]);
    assert_eq!(submitted.code, Some(0), "{submitted:?}");

    redis.kill9();
    eventually(LIMIT, "the server is not ready", || run(&["health", "--ready"]).code == Some(1));
    let done = run(&check);
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "ok\n"));
    let addr = server.addr();
    server.kill9();
    let mut command = crate::common::server::program(&dir);
    command.args(&check).env("THREADQ_SERVER", format!("http://{addr}"));
    assert_eq!(crate::common::server::finish(command).code, Some(1));
}
