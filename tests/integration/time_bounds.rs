//! How late a job may start, how long it is kept, and jobs that their handler puts off.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use threadq::config::{Config, Secret};
use threadq::handler::JobContext;
use threadq::job::Failure;
use threadq::server::Server;

use crate::common::*;

fn start(redis: &TestRedis, config: &str) -> TestServer {
    TestServer::builder().redis(redis).config(config).start()
}

fn is_expired(job: &Value) -> bool {
    job["status"] == "cancelled" && job["cancel_reason"] == "expired"
}

/// bullmq#301, bull#534, sidekiq#1982: a job that has waited too long is not worth running.
#[test]
fn a_job_that_waits_beyond_its_expiry_is_cancelled_whatever_it_waits_for() {
    let redis = TestRedis::start();
    let server = start(&redis, "");
    server.act("/queues/paused/pause").expect(200);
    server.act("/queues/default/pause").expect(200);
    let bodies = [
        json!({"type": "echo", "expires_in_ms": 300}),
        json!({"type": "echo", "expires_in_ms": 300, "queue": "nobody"}),
        json!({"type": "echo", "expires_in_ms": 300, "queue": "paused"}),
        json!({"type": "echo", "expires_in_ms": 300, "delay_ms": 250}),
    ];
    for id in bodies.map(|body| server.submit_job(body)) {
        let job = server.wait_for_end(id);
        assert!(is_expired(&job), "{job}");
        assert_eq!(job["attempts"], 0);
    }
    eventually(LIMIT, "all are counted", || {
        server.metric("threadq_jobs_expired_total{type=\"echo\"}") == 4.0
    });
    // Nothing of these jobs stands in the way of others.
    server.act("/queues/default/resume").expect(200);
    server.complete("echo", json!(1));
}

/// bull#2522: a client that waits for the job hears of its expiry.
#[test]
fn a_client_that_waits_hears_of_the_expiry() {
    let redis = TestRedis::start();
    let server = start(&redis, "");
    let id = server.submit_job(json!({"type": "echo", "queue": "nobody", "expires_in_ms": 200}));
    let job = server.get(&format!("/jobs/{id}?wait=30s")).expect(200).json();
    assert!(is_expired(&job), "{job}");
}

/// exq PR#500: an attempt that has started is not touched by the expiry, and no further attempt starts after it.
#[test]
fn a_running_attempt_outlives_the_expiry_and_is_the_last_one() {
    let redis = TestRedis::start();
    // A busy machine starts the attempts late, but before the expiry.
    let config = "[handlers.late]\nexec = [\"sh\", \"-c\", \"sleep 7; exit 1\"]\n[handlers.done]\nexec = [\"sleep\", \"7\"]\n";
    let server = start(&redis, config);
    let failing = server.submit_job(json!({"type": "late", "expires_in_ms": 5000}));
    let completing = server.submit_job(json!({"type": "done", "expires_in_ms": 5000}));
    let job = server.wait_for_end(failing);
    assert_eq!((&job["status"], &job["attempts"]), (&json!("failed"), &json!(1)), "{job}");
    assert!(job["last_error"].as_str().unwrap().contains("exit"), "{job}");
    assert_eq!(server.wait_for_end(completing)["status"], "completed");
    // A person who retries the job drops its expiry.
    server.act(&format!("/jobs/{failing}/retry")).expect(202);
    assert!(server.job(failing).get("expires_at").is_none());
}

#[test]
fn a_backoff_ends_at_the_expiry_with_the_last_error() {
    let redis = TestRedis::start();
    for inline_backoff in ["0ms", "10s"] {
        let config = format!(
            "inline-backoff = \"{inline_backoff}\"\n[handlers.fail]\nbackoff = {{ base = \"1h\", cap = \"1h\" }}\n"
        );
        let server = start(&redis, &config);
        let id =
            server.submit_job(json!({"type": "fail", "payload": {"message": "no"}, "expires_in_ms": 30_000}));
        let job = server.wait_for_end(id);
        assert_eq!((&job["status"], &job["last_error"]), (&json!("failed"), &json!("no")), "{job}");
    }
}

#[test]
fn a_job_whose_server_dies_does_not_start_again_after_its_expiry() {
    let redis = TestRedis::start();
    let builder = TestServer::builder().redis(&redis).flag("lease-timeout", "1s");
    // Takes the job over, but takes no jobs from the queue of the job.
    let other = builder.clone().flag("queues", "nobody-submits-here").start();
    let mut server = builder.start();
    let body = json!({"type": "sleep", "payload": {"ms": 600_000}, "expires_in_ms": 5000});
    let id = server.submit_job(body);
    server.wait_for_status(id, "processing");
    server.kill9();
    let job = other.wait_for_end(id);
    assert!(is_expired(&job), "{job}");
    assert_eq!((&job["attempts"], &job["crashes"]), (&json!(0), &json!(1)), "{job}");
}

/// rq PR#453: how long a result is kept is a matter of the job.
#[test]
fn a_retention_of_its_own_is_shorter_or_longer_than_that_of_the_server() {
    let redis = TestRedis::start();
    let server = start(&redis, "retain-completed = \"2s\"\n[handlers.echo]\nretain = \"1h\"\n");
    let plain = server.complete("sleep", json!({"ms": 1}))["id"].clone();
    let long = server.complete("echo", json!(1));
    assert_eq!(long["retain_ms"], 3_600_000);
    let id = server.submit_job(json!({"type": "echo", "retain_ms": 0}));
    let short = server.get(&format!("/jobs/{id}?wait=30s")).expect(200).json();
    assert_eq!((&short["status"], &short["retain_ms"]), (&json!("completed"), &json!(0)));
    eventually(LIMIT, "the job without a retention of its own is gone", || {
        server.get(&format!("/jobs/{plain}")).status == 404
    });
    server.get(&format!("/jobs/{}", long["id"])).expect(200);
    // The job that is kept for no time is there for a minute.
    server.get(&format!("/jobs/{id}")).expect(200);
    let prefix = redis.keys("*agenda").remove(0);
    redis.query::<i64>(&["HSET", &prefix.replace("agenda", &format!("job:{id}")), "finished_at", "1"]);
    redis.query::<i64>(&["ZADD", &prefix, "1", &format!("forget:{id}")]);
    eventually(LIMIT, "the minute is over", || server.get(&format!("/jobs/{id}")).status == 404);
}

/// bullmq#2152, river#378: "not now" is neither an attempt nor an error. oban#476, river#720: nor does it lengthen the backoff.
#[test]
fn a_snoozed_job_runs_again_later_and_nothing_is_counted() {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let redis = TestRedis::start();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        redis_url: Some(Secret::new(redis.url())),
        ..Config::default()
    };
    let handler = |_: &JobContext| -> Result<u32, Failure> {
        match RUNS.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err(Failure::snooze(Duration::ZERO)),
            2 => Err(Failure::retryable("once")),
            runs => Ok(runs),
        }
    };
    let server = Server::builder().config(config).handler("later", handler).start().unwrap();
    let api = Api::new(server.addr());
    let id = api.submit_job(json!({"type": "later", "max_attempts": 2, "tags": ["x"]}));
    let job = api.wait_for(id, LIMIT, "is put off", |job| job["snoozes"] == 1);
    assert_eq!((&job["attempts"], &job["errors"]), (&json!(0), &json!([])), "{job}");
    let job = api.wait_for_end(id);
    assert_eq!((&job["status"], &job["result"]), (&json!("completed"), &json!(3)), "{job}");
    assert_eq!((&job["snoozes"], &job["attempts"]), (&json!(2), &json!(2)), "{job}");
    assert_eq!(job["errors"][0]["attempt"], 1);
    assert_eq!(api.metric("threadq_job_snoozes_total{type=\"later\"}"), 2.0);
    server.stop();
}

#[test]
fn meta_reaches_an_http_handler_as_headers_and_in_the_job() {
    let redis = TestRedis::start();
    let service = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", service.local_addr().unwrap());
    let server = start(&redis, &format!("[handlers.call]\nhttp = \"{url}\"\n"));
    let meta = json!({"traceparent": "00-4bf9-01", "who": "é"});
    let id = server.submit_job(json!({"type": "call", "meta": meta}));
    let (mut client, _) = service.accept().unwrap();
    let request = read_request(&mut client);
    let head = request.to_lowercase();
    assert!(head.contains("threadq-meta-traceparent: 00-4bf9-01\r\n"), "{request}");
    assert!(head.contains("threadq-meta-who: é\r\n"), "{request}");
    assert!(request.contains(r#""meta":{"traceparent":"00-4bf9-01","who":"é"}"#), "{request}");
    std::io::Write::write_all(&mut client, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1").unwrap();
    assert_eq!(server.wait_for_end(id)["status"], "completed");
}

/// Reads a request up to the end of its JSON.
fn read_request(client: &mut std::net::TcpStream) -> String {
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"}}") {
        let mut more = [0; 4096];
        let number = std::io::Read::read(client, &mut more).unwrap();
        assert!(number > 0, "{}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&more[..number]);
    }
    String::from_utf8(bytes).unwrap()
}
