//! GET /jobs/ID/why: each reason why a job does not run yet, in the program as a whole.

use threadq::job::JobId;

use crate::common::server::{finish, program};
use crate::common::*;

/// The standard output of a command that succeeds.
fn cli(server: &TestServer, words: &[&str]) -> String {
    let dir = TempDir::new();
    let mut command = program(&dir);
    command.args(words).args(["--server", &format!("http://{}", server.addr())]);
    let done = finish(command);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    done.stdout
}

/// The reasons of a job.
fn why(server: &TestServer, id: u64) -> Vec<Value> {
    let reply = server.get(&format!("/jobs/{id}/why")).expect(200).json();
    let reasons = reply["reasons"].as_array().expect("reasons").clone();
    assert!(!reasons.is_empty());
    for reason in &reasons {
        let sentence = reason["sentence"].as_str().expect("a sentence");
        assert!(sentence.starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit()), "{sentence}");
        assert!(sentence.ends_with(['.', 'k']), "{sentence}");
    }
    reasons
}

fn codes(server: &TestServer, id: u64) -> Vec<String> {
    why(server, id).iter().map(|reason| reason["code"].as_str().expect("a code").to_owned()).collect()
}

/// The field of the reason with this code.
fn field(server: &TestServer, id: u64, code: &str, name: &str) -> Value {
    let reasons = why(server, id);
    let reason = reasons.iter().find(|reason| reason["code"] == code);
    reason.unwrap_or_else(|| panic!("no {code}: {reasons:?}"))[name].clone()
}

/// The job is in a queue from which no server takes, which its submitter did not know: solid_queue#140.
#[test]
fn a_queue_that_no_server_takes_from_is_the_reason() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("queues", "background,real_time").start();
    let id = server.submit("echo", json!({}));
    eventually(LIMIT, "the server is entered", || codes(&server, id) == ["no_server"]);
    assert_eq!(field(&server, id, "no_server", "queue"), "default");
    assert_eq!(field(&server, id, "no_server", "servers"), 1);
    let delayed = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    assert_eq!(codes(&server, delayed), ["scheduled", "no_server"], "it would wait after its time too");
}

/// A queue is paused, and the people who wait for its jobs do not see that: sidekiq#4885, sidekiq#6574.
#[test]
fn a_paused_queue_is_the_reason_until_it_is_resumed() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    server.act("/queues/default/pause").expect(200);
    let id = server.submit("echo", json!({}));
    eventually(LIMIT, "the queue is paused", || codes(&server, id) == ["queue_paused"]);
    holds_for(ms(300), "no job starts", || server.job(id)["status"] == "queued");
    server.act("/queues/default/resume").expect(200);
    server.wait_for_status(id, "completed");
    assert_eq!(codes(&server, id), ["ended"]);
}

/// All workers of a living server are busy, so that jobs stay in the queue: sidekiq#5028.
#[test]
fn busy_workers_and_jobs_before_it_are_the_reasons() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("workers", "1").start();
    let running = server.submit("sleep", json!({"ms": 600_000}));
    server.wait_for_status(running, "processing");
    let ids: Vec<u64> = (0..3).map(|_| server.submit("echo", json!({}))).collect();
    eventually(LIMIT, "the heartbeat tells it", || codes(&server, ids[0]) == ["workers_busy"]);
    assert_eq!(codes(&server, ids[2]), ["behind", "workers_busy"]);
    assert_eq!(field(&server, ids[2], "behind", "jobs"), 2);
    assert_eq!(codes(&server, running), ["running"]);
    assert_eq!(field(&server, running, "running", "attempt"), 1);
    assert_eq!(field(&server, running, "running", "server"), server.job(running)["server"]);
    server.act(&format!("/jobs/{running}/cancel")).expect(202);
    server.wait_for_status(ids[2], "completed");
}

#[test]
fn a_job_that_waits_for_its_time_says_so() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).config(SLOW_BACKOFF).start();
    let delayed = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    eventually(LIMIT, "the server is entered", || codes(&server, delayed) == ["scheduled"]);
    assert_eq!(field(&server, delayed, "scheduled", "at"), server.job(delayed)["scheduled_at"]);
    let failing = server.submit("fail", json!({"message": "the disk is full"}));
    server.wait_for_status(failing, "retrying");
    assert_eq!(codes(&server, failing), ["backing_off"]);
    assert_eq!(field(&server, failing, "backing_off", "error"), "the disk is full");
    assert_eq!(field(&server, failing, "backing_off", "at"), server.job(failing)["scheduled_at"]);
}

/// Backoffs of about an hour.
const SLOW_BACKOFF: &str = "[handlers.fail]\nbackoff = { base = \"24h\", cap = \"24h\" }\n";

#[test]
fn a_job_that_has_ended_says_how() {
    let redis = TestRedis::start();
    let server = TestServer::start(&redis);
    let failed = server.submit("fail", json!({"permanent": true}));
    server.wait_for_status(failed, "failed");
    assert_eq!(field(&server, failed, "ended", "status"), "failed");
    let cancelled = server.submit_job(json!({"type": "echo", "delay_ms": 3_600_000}));
    server.act(&format!("/jobs/{cancelled}/cancel")).expect(200);
    assert_eq!(field(&server, cancelled, "ended", "status"), "cancelled");
    assert_eq!(field(&server, cancelled, "ended", "at"), server.job(cancelled)["finished_at"]);
    assert_eq!(server.get("/jobs/1/why").expect(404).json()["code"], "not_found");
    assert_eq!(server.get("/jobs/x/why").expect(400).json()["code"], "invalid_id");
    assert_eq!(server.get("/jobs/1/why?x=1").expect(400).json()["code"], "invalid_query");
}

#[test]
fn a_handler_that_does_not_stop_is_named_and_so_is_a_silent_server() {
    let redis = TestRedis::start();
    let front =
        TestServer::builder().redis(&redis).flag("queues", "none").flag("lease-timeout", "600s").start();
    let mut other = TestServer::builder().redis(&redis).flag("lease-timeout", "600s").start();
    let id = front.submit("hang", json!({}));
    front.wait_for_status(id, "processing");
    assert_eq!(codes(&front, id), ["running"]);
    front.act(&format!("/jobs/{id}/cancel")).expect(202);
    assert_eq!(codes(&front, id), ["stopping", "running"]);
    other.kill9();
    // The lease is long, so that nobody has taken the job over yet.
    let server = front.job(id)["server"].as_str().expect("a server").to_owned();
    let _: i64 = redis.query(&["HSET", &format!("{{threadq}}:server:{server}"), "beat_at", "1"]);
    assert_eq!(codes(&front, id), ["server_silent", "stopping", "running"]);
}

#[test]
fn the_command_line_and_the_client_tell_the_reasons() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("queues", "other").start();
    let id = server.submit("echo", json!({}));
    eventually(LIMIT, "the server is entered", || codes(&server, id) == ["no_server"]);
    let shown = cli(&server, &["show", &id.to_string()]);
    let line = "why         No server takes jobs from the queue default: the living server takes from other queues. ";
    assert!(shown.contains(line), "{shown}");
    let client = threadq::client::Client::new(&format!("http://{}", server.addr())).unwrap();
    let reasons = client.why(JobId::new(id).unwrap()).unwrap();
    assert_eq!((reasons[0].code.as_str(), reasons.len()), ("no_server", 1));
    assert_eq!(reasons[0].fields["queue"], "default");
    let page = client.queue_jobs("default", 1, 10).unwrap();
    assert_eq!((page.jobs[0].id.get(), page.total, page.next), (id, 1, None));
    assert_eq!(client.queue_jobs("a b", 1, 10).unwrap_err().code(), Some("invalid_queue"));
    let listed = cli(&server, &["queues", "show", "default"]);
    assert!(listed.contains(&id.to_string()) && listed.ends_with("1 job\n"), "{listed}");
}
