//! Handlers from the configuration file: programs and HTTP endpoints, and the outcome of each of their responses.

use crate::common::*;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

/// A handler entry whose command is a script with this body, beside the configuration file.
fn exec(name: &str, script: &str, more: &str) -> String {
    format!("[handlers.{name}]\nexec = [\"/bin/sh\", \"-c\", '''{script}''']\n{more}\n")
}

const ONCE: &str = "max_attempts = 1";

fn serve(redis: &TestRedis, config: &str) -> TestServer {
    TestServer::builder().redis(redis).config(config).start()
}

#[test]
fn a_program_gets_the_payload_on_stdin_and_gives_the_result_on_stdout() {
    let redis = TestRedis::start();
    let config = [
        exec("cat", "cat", ""),
        exec("text", "echo hello; echo world", ""),
        exec("nothing", "cat > /dev/null", ""),
        exec("ignores-stdin", "echo 7", ""),
        exec("long", "head -c 200000 /dev/zero | tr '\\0' x", ""),
        exec("no-utf8", "printf '\\377\\376'", ""),
    ]
    .concat();
    let server = serve(&redis, &config);
    let payload = json!({"deep": [1, {"x": null}], "text": "ü\n\"", "n": 12345678901234567u64});
    assert_eq!(server.complete("cat", payload.clone())["result"], payload);
    assert_eq!(server.complete("text", json!({}))["result"], "hello\nworld");
    assert_eq!(server.complete("nothing", json!({}))["result"], Value::Null);
    // The program never reads its stdin, which is larger than a pipe holds.
    let large = json!("y".repeat(600_000));
    assert_eq!(server.complete("ignores-stdin", large)["result"], 7);
    let job = server.complete("long", json!({}));
    let result = job["result"].as_str().expect("a string");
    assert!(result.len() <= 64 * 1024 && result.len() > 60_000, "{} bytes", result.len());
    assert!(result.bytes().all(|b| b == b'x'));
    assert!(server.complete("no-utf8", json!({}))["result"].is_string());
}

#[test]
fn a_large_payload_and_a_large_output_do_not_block_each_other() {
    let redis = TestRedis::start();
    let server = serve(&redis, &exec("cat", "cat; cat /dev/zero | head -c 3000000 >&2", ""));
    let id = server.submit("cat", json!("z".repeat(900_000)));
    let job = server.wait_for_status(id, "completed");
    assert!(job["result"].as_str().is_some_and(|r| r.len() <= 64 * 1024), "cut, as a string");
}

#[test]
fn a_program_sees_its_job_and_nothing_of_the_servers_environment() {
    let redis = TestRedis::start();
    let server = TestServer::builder()
        .redis(&redis)
        .env("SECRET_OF_THE_SERVER", "canary")
        .env("THREADQ_API_TOKEN", "canary-token")
        .env("TZ", "Europe/Berlin")
        .config(&exec("env", "env | sort; pwd", "max_attempts = 3"))
        .start();
    let api = server.with_token("canary-token");
    let id = api.submit_job(json!({"type": "env"}));
    let job = api.wait_for_status(id, "completed");
    let output = job["result"].as_str().expect("text").to_owned();
    for line in [format!("THREADQ_JOB_ID={id}"), "THREADQ_JOB_TYPE=env".into(), "THREADQ_ATTEMPT=1".into()] {
        assert!(output.lines().any(|l| l == line), "{line} in {output}");
    }
    assert!(output.contains("PATH=") && output.contains("TZ=Europe/Berlin"), "{output}");
    assert!(!output.contains("canary") && !output.contains("redis"), "{output}");
    for line in output.lines().filter(|line| line.contains('=')) {
        let name = line.split('=').next().unwrap_or_default();
        // The shell itself sets PWD, OLDPWD, SHLVL and _.
        let allowed = [
            "PATH",
            "HOME",
            "LANG",
            "TZ",
            "THREADQ_JOB_ID",
            "THREADQ_JOB_TYPE",
            "THREADQ_ATTEMPT",
            "THREADQ_REPORT",
            "PWD",
            "OLDPWD",
            "SHLVL",
            "_",
        ];
        assert!(allowed.contains(&name), "{name} is in its environment");
    }
    let dir = std::fs::canonicalize(server.dir().path()).expect("exists");
    assert_eq!(output.lines().last(), dir.to_str(), "it works in the configuration file's folder");
}

#[test]
fn a_relative_program_is_found_beside_the_configuration_file() {
    let redis = TestRedis::start();
    let dir = TempDir::new();
    dir.script("encode.sh", "echo \"$1 $2\"");
    let config = dir.write(
        "jobs.toml",
        "[handlers.\"Encode Video\"]\nexec = [\"./encode.sh\", \"--fast\", \"a b; $HOME\"]\n",
    );
    // The working directory of the server is another one.
    let server = TestServer::builder().redis(&redis).config_file(config).start();
    assert_eq!(
        server.complete("Encode Video", json!({}))["result"],
        "--fast a b; $HOME",
        "no shell in between"
    );
}

#[test]
fn exit_codes_decide_between_again_and_never() {
    let redis = TestRedis::start();
    let quick = "max_attempts = 2\nbackoff = { base = \"1ms\", cap = \"1ms\" }";
    let config = [
        exec("one", "echo first >&2; echo cause >&2; exit 1", quick),
        exec("sixtyfour", "echo usage >&2; exit 64", quick),
        exec("sixtyfive", "exit 65", quick),
        exec("signal", "kill -9 $$", quick),
        exec("flaky", "[ \"$THREADQ_ATTEMPT\" = 2 ] || exit 75; echo 2", quick),
        exec("chatty", "head -c 100000 /dev/zero | tr '\\0' x >&2; echo the-end >&2; exit 3", ONCE),
    ]
    .concat();
    let server = serve(&redis, &config);
    let failed = |kind: &str, attempts: u64, parts: &[&str]| {
        let id = server.submit(kind, json!({}));
        let job = server.wait_for_status(id, "failed");
        assert_eq!(job["attempts"], attempts, "{job:#}");
        let message = job["last_error"].as_str().expect("a reason");
        for part in parts {
            assert!(message.contains(part), "{part} in {message}");
        }
        assert!(message.chars().count() <= 1000);
    };
    failed("one", 2, &["1", "cause"]);
    failed("sixtyfour", 1, &["64", "usage"]);
    failed("sixtyfive", 1, &["65"]);
    failed("signal", 2, &["9"]);
    failed("chatty", 1, &["3", "the-end"]);
    let job = server.complete("flaky", json!({}));
    assert_eq!((&job["attempts"], &job["result"]), (&json!(2), &json!(2)), "{job:#}");
}

#[test]
fn at_the_timeout_the_whole_group_is_ended() {
    let redis = TestRedis::start();
    let config = [
        exec("polite", "echo $$ >> pids; sleep 300", "max_attempts = 1\ntimeout = \"2s\""),
        // The program and its children ignore SIGTERM; the children hold its stdout open.
        exec(
            "stubborn",
            "trap \"\" TERM; (trap \"\" TERM; echo \"$(exec sh -c \"echo \\$PPID\")\" >> pids; while :; do sleep 1; done) & \
             echo $$ >> pids; while :; do sleep 1; done",
            "max_attempts = 1\ntimeout = \"2s\"",
        ),
        // The program ends at once, but its child runs on and holds its stdout open.
        exec("orphan", "sleep 300 & echo $! >> pids; exit 0", "max_attempts = 1\ntimeout = \"2s\""),
    ]
    .concat();
    let server = serve(&redis, &config);
    let ran_ms = |job_type: &str| {
        let job = server.wait_for_status(server.submit(job_type, json!({})), "failed");
        assert!(job["last_error"].as_str().is_some_and(|m| m.contains("timed out")), "{job:#}");
        time_ms(&job["finished_at"]) - time_ms(&job["started_at"])
    };
    let (polite, stubborn) = (ran_ms("polite"), ran_ms("stubborn"));
    assert!(polite < 2_000 + 5_000, "SIGTERM is enough for this one: {polite} ms");
    assert!((6_500..20_000).contains(&stubborn), "SIGKILL comes 5 s after SIGTERM: {stubborn} ms");
    let orphan = server.submit("orphan", json!({}));
    server.wait_for_end(orphan);
    let pids: Vec<u32> =
        server.dir().read("pids").lines().filter_map(|line| line.trim().parse().ok()).collect();
    assert_eq!(pids.len(), 4, "{}", server.dir().read("pids"));
    eventually(secs(10), "no process of theirs is left", || pids.iter().all(|pid| !signal::is_running(*pid)));
}

#[test]
fn the_end_of_stderr_belongs_to_the_error_of_a_timeout() {
    let redis = TestRedis::start();
    let more = "max_attempts = 1\ntimeout = \"2s\"";
    let config = [
        exec("hangs", "echo connecting to the printer >&2; sleep 300", more),
        exec("tidies", "trap 'echo tidied >&2; exit 0' TERM; echo first >&2; sleep 300 & wait", more),
        exec("silent", "sleep 300", more),
    ]
    .concat();
    let server = serve(&redis, &config);
    for (kind, error) in [
        ("hangs", "timed out: connecting to the printer"),
        ("tidies", "timed out: first\ntidied"),
        ("silent", "timed out"),
    ] {
        let id = server.submit(kind, json!({}));
        assert_eq!(server.wait_for_status(id, "failed")["last_error"], error);
    }
}

#[test]
fn a_cancel_ends_the_program() {
    let redis = TestRedis::start();
    let config = exec("slow", "echo $$ >> pids; sleep 300", "");
    let server = TestServer::builder().redis(&redis).config(&config).flag("workers", "1").start();
    let id = server.submit("slow", json!({}));
    eventually(LIMIT, "it runs", || server.dir().read("pids").ends_with('\n'));
    server.act(&format!("/jobs/{id}/cancel")).expect(202);
    server.wait_for_status(id, "cancelled");
    let pid = server.dir().read("pids").trim().parse().expect("a pid");
    eventually(secs(10), "its process is gone", || !signal::is_running(pid));
}

#[test]
fn a_shutdown_does_not_leave_programs_behind() {
    let redis = TestRedis::start();
    let config = exec("slow", "echo $$ >> pids; sleep 300", "");
    let mut server =
        TestServer::builder().redis(&redis).config(&config).flag("drain-timeout", "500ms").start();
    let id = server.submit("slow", json!({}));
    eventually(LIMIT, "it runs", || server.dir().read("pids").ends_with('\n'));
    assert_eq!(server.stop(secs(20)), Some(0), "{}", server.log_tail());
    let pid = server.dir().read("pids").trim().parse().expect("a pid");
    eventually(secs(10), "its process is gone", || !signal::is_running(pid));
    let observer = TestServer::observer(&redis);
    let job = observer.job(id);
    assert_eq!((&job["status"], &job["attempts"]), (&json!("queued"), &json!(0)), "{job:#}");
}

#[test]
fn at_a_shutdown_a_program_has_five_seconds_to_tidy_up() {
    let redis = TestRedis::start();
    let config = exec(
        "slow",
        "trap 'sleep 2; echo cleaned > cleaned; exit 0' TERM; echo $$ >> pids; while :; do sleep 0.1; done",
        "",
    );
    let mut server = TestServer::builder().redis(&redis).config(&config).flag("drain-timeout", "1s").start();
    let id = server.submit("slow", json!({}));
    eventually(LIMIT, "it runs", || server.dir().read("pids").ends_with('\n'));
    assert_eq!(server.stop(secs(30)), Some(0), "{}", server.log_tail());
    assert_eq!(server.dir().read("cleaned"), "cleaned\n", "{}", server.log_tail());
    let job = TestServer::observer(&redis).job(id);
    assert_eq!((&job["status"], &job["attempts"]), (&json!("queued"), &json!(0)), "{job:#}");
}

#[test]
fn a_second_signal_leaves_a_program_no_time() {
    let redis = TestRedis::start();
    let config = exec("stubborn", "trap '' TERM; echo $$ >> pids; while :; do sleep 0.1; done", "");
    let mut server = TestServer::builder().redis(&redis).config(&config).flag("drain-timeout", "1s").start();
    let id = server.submit("stubborn", json!({}));
    eventually(LIMIT, "it runs", || server.dir().read("pids").ends_with('\n'));
    server.sigterm();
    eventually(LIMIT, "the drain is over", || server.log_text().contains("still in flight"));
    server.sigterm();
    let begin = Instant::now();
    assert_eq!(server.wait_exit(LIMIT), Some(0), "{}", server.log_tail());
    assert!(begin.elapsed() < secs(4), "it did not hurry: {:?}", begin.elapsed());
    let pid = server.dir().read("pids").trim().parse().expect("a pid");
    eventually(secs(10), "its process is gone", || !signal::is_running(pid));
    assert_eq!(TestServer::observer(&redis).job(id)["status"], "queued");
}

/// A request that the endpoint received: request line, headers in lower case, body.
#[derive(Clone, Debug)]
struct Asked {
    line: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

/// An HTTP endpoint. The path selects the response: `/200`, `/429?after=2`, `/close`, `/slow`.
struct Endpoint {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Endpoint {
    fn start() -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = log.clone();
                std::thread::spawn(move || {
                    let mut stream = BufReader::new(stream);
                    let mut lines = Vec::new();
                    loop {
                        let mut line = String::new();
                        if stream.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                        if line.trim().is_empty() {
                            break;
                        }
                        lines.push(line.trim().to_owned());
                    }
                    let headers: Vec<String> = lines.drain(1..).map(|line| line.to_lowercase()).collect();
                    let length = headers
                        .iter()
                        .find_map(|h| h.strip_prefix("content-length:")?.trim().parse().ok())
                        .unwrap_or(0);
                    let mut body = vec![0; length];
                    let _ = stream.read_exact(&mut body);
                    let line = lines[0].clone();
                    let nth = {
                        let mut log = log.lock().expect("not poisoned");
                        log.push(Asked { line: line.clone(), headers, body });
                        log.iter().filter(|asked| asked.line == line).count()
                    };
                    let path = line.split(' ').nth(1).unwrap_or("/");
                    let answer = |status: u32, extra: &str, body: &str| {
                        format!(
                            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{extra}\r\n{body}",
                            body.len()
                        )
                    };
                    let text = match path {
                        "/close" => return,
                        "/slow" => {
                            std::thread::sleep(secs(20));
                            return;
                        }
                        "/text" => answer(201, "", "plain text"),
                        "/empty" => "HTTP/1.1 204 X\r\nConnection: close\r\n\r\n".to_owned(),
                        "/large" => answer(200, "", &"x".repeat(300_000)),
                        "/redirect" => answer(302, "Location: /200\r\n", ""),
                        "/flaky" if nth == 1 => answer(503, "", "not now"),
                        "/limited" if nth == 1 => answer(429, "Retry-After: 2\r\n", ""),
                        "/flaky" | "/limited" => answer(200, "", "{\"ok\":true}"),
                        _ => match path[1..].parse() {
                            Ok(status) => answer(status, "", "{\"answer\": [1, 2]}"),
                            Err(_) => answer(404, "", "no such path"),
                        },
                    };
                    let _ = stream.get_mut().write_all(text.as_bytes());
                });
            }
        });
        Endpoint { addr, asked }
    }

    /// A handler entry for each of these paths, named after the path.
    fn config(&self, paths: &[&str], more: &str) -> String {
        paths
            .iter()
            .map(|path| format!("[handlers.{path}]\nhttp = \"http://{}/{path}\"\n{more}\n", self.addr))
            .collect()
    }

    fn asked(&self, path: &str) -> Vec<Asked> {
        let log = self.asked.lock().expect("not poisoned");
        log.iter().filter(|asked| asked.line.split(' ').nth(1) == Some(path)).cloned().collect()
    }
}

const QUICK: &str = "max_attempts = 2\nbackoff = { base = \"1ms\", cap = \"1ms\" }";

#[test]
fn an_endpoint_gets_the_job_and_its_answer_is_the_result() {
    let redis = TestRedis::start();
    let endpoint = Endpoint::start();
    let server = serve(&redis, &endpoint.config(&["200", "text", "empty", "large"], ""));
    let job = server.complete("200", json!({"to": "Ü"}));
    assert_eq!(job["result"], json!({"answer": [1, 2]}));
    let asked = endpoint.asked("/200");
    assert_eq!(asked.len(), 1);
    assert!(asked[0].line.starts_with("POST "), "{:?}", asked[0]);
    let body: Value = serde_json::from_slice(&asked[0].body).expect("the job's JSON");
    assert_eq!((&body["id"], &body["type"], &body["payload"]), (&job["id"], &job["type"], &job["payload"]));
    assert_eq!(body["status"], "processing", "{body:#}");
    let token = format!("threadq-attempt-token: {}-1-", job["id"]);
    assert!(asked[0].headers.iter().any(|header| header.starts_with(&token)), "{:?}", asked[0].headers);
    for header in [format!("threadq-job-id: {}", job["id"]), "threadq-attempt: 1".to_owned()] {
        assert!(asked[0].headers.contains(&header), "{header} in {:?}", asked[0].headers);
    }
    assert!(
        asked[0].headers.iter().any(|h| h.starts_with("content-type: application/json")),
        "{:?}",
        asked[0]
    );
    assert_eq!(server.complete("text", json!({}))["result"], "plain text");
    assert_eq!(server.complete("empty", json!({}))["result"], Value::Null);
    let job = server.complete("large", json!({}));
    assert!(job["result"].as_str().is_some_and(|r| r.len() <= 64 * 1024 && r.len() > 60_000));
}

#[test]
fn what_may_pass_is_asked_again_and_what_may_not_is_not() {
    let redis = TestRedis::start();
    let endpoint = Endpoint::start();
    let again = ["408", "425", "429", "500", "502", "503", "599", "close"];
    let never = ["400", "401", "403", "404", "410", "422", "301", "redirect"];
    let mut config = endpoint.config(&again, QUICK) + &endpoint.config(&never, QUICK);
    config += &format!("[handlers.refused]\nhttp = \"http://127.0.0.1:1/x\"\n{QUICK}\n");
    let server = serve(&redis, &config);
    let end = |kind: &str| {
        let id = server.submit(kind, json!({}));
        let job = server.wait_for_end(id);
        assert_eq!(job["status"], "failed", "{job:#}");
        job
    };
    for kind in again {
        let job = end(kind);
        assert_eq!(job["attempts"], 2, "{kind}: {job:#}");
        assert_eq!(endpoint.asked(&format!("/{kind}")).len(), 2, "{kind}");
    }
    assert_eq!(end("refused")["attempts"], 2);
    for kind in never {
        let job = end(kind);
        assert_eq!(job["attempts"], 1, "{kind}: {job:#}");
        assert_eq!(endpoint.asked(&format!("/{kind}")).len(), 1, "{kind}");
    }
    assert!(endpoint.asked("/200").is_empty(), "a redirect was followed");
}

#[test]
fn a_second_attempt_says_so_and_completes() {
    let redis = TestRedis::start();
    let endpoint = Endpoint::start();
    let server = serve(&redis, &endpoint.config(&["flaky"], QUICK));
    let job = server.complete("flaky", json!({}));
    assert_eq!((&job["attempts"], &job["result"]), (&json!(2), &json!({"ok": true})), "{job:#}");
    assert!(endpoint.asked("/flaky")[1].headers.contains(&"threadq-attempt: 2".to_owned()));
}

#[test]
fn retry_after_is_the_least_time_until_the_next_attempt() {
    let redis = TestRedis::start();
    let endpoint = Endpoint::start();
    let server = serve(&redis, &endpoint.config(&["limited"], QUICK));
    let job = server.complete("limited", json!({}));
    assert_eq!(job["attempts"], 2, "{job:#}");
    let waited = time_ms(&job["started_at"]) - time_ms(&job["errors"][0]["at"]);
    assert!(waited >= 1990, "the second attempt came after {waited} ms: {job:#}");
}

#[test]
fn an_endpoint_that_does_not_answer_times_out() {
    let redis = TestRedis::start();
    let endpoint = Endpoint::start();
    let config = endpoint.config(&["slow"], "max_attempts = 1\ntimeout = \"500ms\"");
    let server = TestServer::builder().redis(&redis).config(&config).flag("workers", "1").start();
    let begin = Instant::now();
    let id = server.submit("slow", json!({}));
    let job = server.wait_for_status(id, "failed");
    assert!(job["last_error"].as_str().is_some_and(|m| m.contains("timed out")), "{job:#}");
    assert!(begin.elapsed() < secs(10), "{:?}", begin.elapsed());
    server.complete("echo", json!({}));
}
