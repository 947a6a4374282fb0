//! Attempts that speak: progress, log lines, checkpoints, and the time for which an attempt may say nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use threadq::client::Client;
use threadq::config::{Config, Secret};
use threadq::handler::JobContext;
use threadq::job::{Failure, JobId};
use threadq::server::Server;

use crate::common::api::is_final;
use crate::common::process::peak_memory;
use crate::common::*;

fn start(redis: &TestRedis, config: &str) -> TestServer {
    TestServer::builder().redis(redis).config(config).start()
}

/// An entry `[handlers.TYPE]` that runs a shell script.
fn shell(job_type: &str, script: &str, more: &str) -> String {
    format!("[handlers.{job_type}]\nexec = [\"/bin/sh\", \"-c\", '''{script}''']\n{more}\n")
}

/// The texts of the log lines of a job.
fn log(api: &Api, id: u64) -> Vec<String> {
    let log = api.get(&format!("/jobs/{id}/log")).expect(200).json();
    let lines = log["lines"].as_array().unwrap();
    lines.iter().map(|line| line["text"].as_str().unwrap().to_owned()).collect()
}

fn client(server: &TestServer) -> Client {
    Client::new(&format!("http://{}", server.addr())).unwrap()
}

/// The progress and the log lines that asynq#693 asks for, for programs too; and the progress of faktory#272.
#[test]
fn programs_of_any_language_report() {
    let redis = TestRedis::start();
    let python = r#"
import os, json
with open(os.environ["THREADQ_REPORT"], "w") as report:
    print("progress 0.5 half way", file=report)
    print("log from the program", file=report)
    print("checkpoint " + json.dumps({"page": 7}), file=report)
"#;
    let node = r#"
const fs = require("fs");
const report = (line) => fs.appendFileSync(process.env.THREADQ_REPORT, line + "\n");
report("progress 0.5 half way");
report("log from the program");
report("checkpoint " + JSON.stringify({ page: 7 }));
"#;
    let in_shell = r#"
echo "progress 0.5 half way" > "$THREADQ_REPORT"
echo "log from the program" > "$THREADQ_REPORT"
echo "checkpoint {\"page\": 7}" > "$THREADQ_REPORT"
"#;
    let config = shell("shell", in_shell, "")
        + &format!("[handlers.python]\nexec = [\"python3\", \"-c\", '''{python}''']\n")
        + &format!("[handlers.node]\nexec = [\"node\", \"-e\", '''{node}''']\n");
    let server = start(&redis, &config);
    for job_type in ["shell", "python", "node"] {
        let id = server.submit(job_type, json!({}));
        let job = server.wait_for_status(id, "completed");
        assert_eq!(job["progress"]["value"], 0.5, "{job_type}: {job}");
        assert_eq!(job["progress"]["message"], "half way", "{job_type}: {job}");
        assert!(time_ms(&job["progress"]["at"]) <= time_ms(&job["finished_at"]), "{job_type}: {job}");
        assert_eq!(job["checkpoint"], json!({"page": 7}), "{job_type}: {job}");
        assert_eq!(log(&server, id), ["from the program"], "{job_type}");
        assert!(server.metric(&format!("threadq_job_reports_total{{type=\"{job_type}\"}}")) >= 1.0);
        let listed = server.get("/jobs?limit=1").expect(200).json()["jobs"][0].clone();
        assert_eq!(listed["progress"]["value"], 0.5, "{listed}");
        assert!(listed.get("checkpoint").is_none() && listed["omitted"] == json!(["checkpoint"]), "{listed}");
    }
}

#[test]
fn a_job_that_reports_nothing_shows_nothing_and_costs_no_thread() {
    let redis = TestRedis::start();
    let server = start(&redis, &shell("quiet", "exit 0", ""));
    let job = server.complete("quiet", json!({}));
    for field in ["progress", "checkpoint", "worker", "lease_until"] {
        assert!(job.get(field).is_none(), "{job}");
    }
    assert_eq!(redis.keys("*log:*"), [""; 0]);
    assert!(!threads_of(server.pid()).contains(&"reporter".to_owned()));
}

fn threads_of(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default().trim().to_owned()
    };
    tasks.map(name).collect()
}

#[test]
fn reports_are_written_four_times_a_second_and_before_the_outcome() {
    let redis = TestRedis::start();
    let script = r#"
n=100
while [ $n -lt 400 ]; do n=$((n+1)); echo "progress 0.$n at $n" > "$THREADQ_REPORT"; sleep 0.01; done
echo "progress 1 end" > "$THREADQ_REPORT"; echo "log last words" > "$THREADQ_REPORT"
"#;
    let server = start(&redis, &shell("many", script, ""));
    let begin = Instant::now();
    let id = server.submit("many", json!({}));
    server.wait_for(id, LIMIT, "progress is seen while the job runs", |job| {
        job["status"] == "processing" && job["progress"]["value"].as_f64().is_some_and(|value| value > 0.0)
    });
    let job = server.wait_for_end(id);
    assert_eq!(
        (&job["progress"]["value"], &job["progress"]["message"]),
        (&json!(1.0), &json!("end")),
        "{job}"
    );
    assert_eq!(log(&server, id), ["last words"]);
    let written = server.metric("threadq_job_reports_total{type=\"many\"}");
    let most = begin.elapsed().as_secs_f64() * 4.0 + 2.0;
    assert!(written >= 2.0 && written <= most, "{written} reports, at most {most}");
}

#[test]
fn a_failed_attempt_leaves_its_checkpoint_for_the_next_one_on_the_same_worker_and_on_others() {
    let redis = TestRedis::start();
    let script = r#"
step=${THREADQ_CHECKPOINT:-0}
echo "checkpoint $((step + 1))" > "$THREADQ_REPORT"
[ "$step" -ge 3 ] && echo "$step" && exit 0
exit 1
"#;
    let fast = shell("fast", script, "backoff = { base = \"10ms\", cap = \"10ms\" }");
    let server = start(&redis, &fast);
    assert_eq!(server.complete("fast", json!({}))["result"], 3);
    drop(server);
    let parked = format!("inline-backoff = \"0s\"\n{}", fast.replace("fast", "parked"));
    assert_eq!(start(&redis, &parked).complete("parked", json!({}))["result"], 3);
}

#[test]
fn a_timeout_and_an_orderly_stop_keep_the_checkpoint() {
    let redis = TestRedis::start();
    let script = r#"
if [ -n "$THREADQ_CHECKPOINT" ]; then echo "$THREADQ_CHECKPOINT"; exit 0; fi
echo 'checkpoint "kept"' > "$THREADQ_REPORT"
sleep 600
"#;
    let config = "drain-timeout = \"0s\"\n".to_owned()
        + &shell("late", script, "timeout = \"1s\"\nbackoff = { base = \"10ms\", cap = \"10ms\" }")
        + &shell("stopped", script, "");
    let folder = TempDir::new();
    let builder =
        TestServer::builder().redis(&redis).config(&config).env("TMPDIR", folder.path().to_str().unwrap());
    let mut server = builder.start();
    assert_eq!(server.complete("late", json!({}))["result"], "kept");

    let id = server.submit("stopped", json!({}));
    server.wait_for(id, LIMIT, "the checkpoint is stored", |job| job["checkpoint"] == "kept");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the folder of the pipes");
    assert_eq!(server.stop(LIMIT), Some(0));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let server = builder.start();
    let job = server.wait_for_status(id, "completed");
    assert_eq!((&job["result"], &job["attempts"], &job["crashes"]), (&json!("kept"), &json!(1), &json!(0)));
}

#[test]
fn a_retried_job_goes_on_at_its_checkpoint_unless_it_is_to_begin_at_the_start() {
    let redis = TestRedis::start();
    let script = r#"
echo "log had ${THREADQ_CHECKPOINT:-nothing}" > "$THREADQ_REPORT"
echo "progress 0.5" > "$THREADQ_REPORT"
echo 'checkpoint "half"' > "$THREADQ_REPORT"
exit 64
"#;
    let server = start(&redis, &shell("half", script, ""));
    let id = server.submit("half", json!({}));
    server.wait_for_status(id, "failed");
    let path = format!("/jobs/{id}/retry");
    server.act("/queues/default/pause").expect(200);
    for (body, is_dropped) in
        [(None, false), (Some(json!({})), false), (Some(json!({"from_start": true})), true)]
    {
        let reply = match &body {
            None => server.act(&path),
            Some(body) => server.post(&path, body),
        };
        let job = reply.expect(202).json();
        assert_eq!(job.get("checkpoint").is_none(), is_dropped, "{job}");
        assert_eq!(job.get("progress").is_none(), is_dropped, "{job}");
        server.act("/queues/default/resume").expect(200);
        server.wait_for_status(id, "failed");
        let expected = if is_dropped { "had nothing" } else { "had \"half\"" };
        assert_eq!(log(&server, id).last().unwrap(), expected);
        server.act("/queues/default/pause").expect(200);
    }
    for body in [json!({"from_start": 1}), json!({"from_end": true}), json!([])] {
        server.post(&path, &body).expect_error(400, "invalid_job", &body.to_string());
    }
    let job = client(&server).retry_from_start(JobId::new(id).unwrap()).unwrap();
    assert!(job.progress.is_none() && job.checkpoint::<Option<String>>().unwrap().is_none());
}

#[test]
fn an_attempt_that_says_nothing_for_too_long_is_stopped() {
    let redis = TestRedis::start();
    let speak = |how: &str| format!("for n in 1 2 3 4 5 6 7 8 9 10 11 12; do {how}; sleep 0.5; done");
    let config = shell("silent", "sleep 600", "silence = \"300ms\"\nmax_attempts = 1")
        + &shell("speaking", &speak("echo log $n > $THREADQ_REPORT"), "silence = \"4s\"\nmax_attempts = 1")
        + &shell("grumbling", &speak("echo $n >&2"), "silence = \"4s\"\nmax_attempts = 1\nlog = \"stderr\"")
        + &shell("mumbling", "while :; do echo x >&2; sleep 0.1; done", "silence = \"4s\"\nmax_attempts = 1")
        + &shell(
            "staying",
            "while read job; do sleep 600; done",
            "protocol = \"lines\"\nsilence = \"1s\"\nmax_attempts = 1",
        )
        + "[handlers.hang]\nsilence = \"2s\"\nmax_attempts = 1\n";
    let server = start(&redis, &config);
    let [speaking, grumbling, silent, mumbling, staying, hang] =
        ["speaking", "grumbling", "silent", "mumbling", "staying", "hang"]
            .map(|job_type| server.submit(job_type, json!({})));
    assert_eq!(server.wait_for_status(silent, "failed")["last_error"], "silent for 300ms");
    let error = server.wait_for_status(mumbling, "failed")["last_error"].clone();
    assert!(error.as_str().unwrap().starts_with("silent for 4s: x"), "{error}");
    assert_eq!(server.wait_for_status(staying, "failed")["last_error"], "silent for 1s");
    assert_eq!(server.wait_for_status(hang, "failed")["last_error"], "silent for 2s");
    for id in [speaking, grumbling] {
        server.wait_for_status(id, "completed");
        assert_eq!(log(&server, id).len(), 12);
    }
}

#[test]
fn reports_of_an_attempt_that_was_taken_over_change_nothing() {
    let redis = TestRedis::start();
    let script = |name: &str, condition: &str| {
        format!(
            "echo 'checkpoint \"{name}\"' > $THREADQ_REPORT; while {condition}; do echo log {name} > $THREADQ_REPORT; \
             echo progress 0.5 {name} > $THREADQ_REPORT; sleep 0.1; done"
        )
    };
    let builder = TestServer::builder().redis(&redis).flag("lease-timeout", "1s");
    let first = builder.clone().config(&shell("spoken", &script("first", "true"), "")).start();
    let id = first.submit("spoken", json!({}));
    first.wait_for(id, LIMIT, "the first server reports", |job| job["progress"]["message"] == "first");
    first.sigstop();
    let second = builder.config(&shell("spoken", &script("second", "[ ! -e go ]"), "")).start();
    second.wait_for(id, LIMIT, "the second server reports", |job| job["progress"]["message"] == "second");
    first.sigcont();
    eventually(LIMIT, "the first server has stopped its attempt", || first.log_text().contains("reclaimed"));
    second.dir().write("go", "");
    let job = second.wait_for_status(id, "completed");
    assert_eq!((&job["checkpoint"], &job["crashes"]), (&json!("second"), &json!(1)), "{job}");
    let lines = log(&second, id);
    let change = lines.iter().position(|line| line == "second").unwrap();
    assert!(change > 0 && lines[change..].iter().all(|line| line == "second"), "{lines:?}");
}

#[test]
fn an_outage_of_redis_keeps_the_reports() {
    let redis = TestRedis::start();
    let script = "echo log before > $THREADQ_REPORT; until [ -e during ]; do sleep 0.05; done; \
                  echo log during > $THREADQ_REPORT; echo progress 1 > $THREADQ_REPORT; touch reported; \
                  until [ -e end ]; do sleep 0.05; done";
    let server = start(&redis, &shell("outage", script, ""));
    let id = server.submit("outage", json!({}));
    eventually(LIMIT, "the first line is stored", || log(&server, id) == ["before"]);
    redis.kill9();
    server.dir().write("during", "");
    eventually(LIMIT, "it has reported", || server.dir().join("reported").exists());
    eventually(LIMIT, "the server has noticed the outage", || server.get("/readyz").status == 503);
    redis.restart();
    eventually(LIMIT, "the reports are stored", || {
        server
            .try_request("GET", &format!("/jobs/{id}"), &[], None)
            .is_ok_and(|reply| reply.status == 200 && reply.json()["progress"]["value"] == 1.0)
    });
    server.dir().write("end", "");
    server.wait_for_status(id, "completed");
    assert_eq!(log(&server, id), ["before", "during"]);
}

#[test]
fn a_full_redis_loses_reports_and_no_job() {
    let redis = TestRedis::start();
    let script = "until [ -e go ]; do sleep 0.05; done; \
                  for n in 1 2 3 4 5 6; do echo log $n > $THREADQ_REPORT; sleep 0.3; done";
    let server = start(&redis, &shell("full", script, ""));
    let id = server.submit("full", json!({}));
    server.wait_for_status(id, "processing");
    let _: String = redis.query(&["CONFIG", "SET", "maxmemory", "1"]);
    server.dir().write("go", "");
    server.wait_for_status(id, "completed");
    let text = server.log_text();
    assert_eq!(text.matches("cannot store the reports of attempts").count(), 1, "{text}");
    let _: String = redis.query(&["CONFIG", "SET", "maxmemory", "0"]);
    let next = server.submit("full", json!({}));
    server.wait_for_status(next, "completed");
    assert_eq!(log(&server, next).len(), 6);
}

#[test]
fn a_full_redis_that_refuses_reports_of_pull_workers_is_told_once_and_again_after_a_recovery() {
    let redis = TestRedis::start();
    let server = TestServer::builder().redis(&redis).flag("workers", "0").start();
    server.submit_job(json!({"type": "t", "queue": "q"}));
    let pulled = server.post("/pull", &json!({"queues": ["q"]})).expect(200).json();
    let path = format!("/attempts/{}", pulled["jobs"][0]["token"].as_str().unwrap());
    let full = |bytes: &str| redis.query::<String>(&["CONFIG", "SET", "maxmemory", bytes]);
    let report = |line: &str| server.post(&path, &json!({"log": [line]})).expect(200);
    let told = || server.log_text().matches("cannot store the reports of attempts: Redis is full").count();
    for (n, times) in [(1, 1), (2, 2)] {
        full("1");
        report("refused");
        report("refused");
        assert_eq!(told(), times, "{n}");
        full("0");
        report("stored");
    }
    let id = pulled["jobs"][0]["id"].as_u64().unwrap();
    assert_eq!(log(&server, id), ["stored"; 2]);
}

#[test]
fn a_program_that_reports_1_gb_costs_little_memory() {
    let redis = TestRedis::start();
    let script =
        "head -c 500000000 /dev/zero > $THREADQ_REPORT; yes log noise | head -c 500000000 > $THREADQ_REPORT";
    let server = start(&redis, &shell("flood", script, ""));
    server.complete("echo", json!({}));
    let before = peak_memory(server.pid());
    let id = server.submit("flood", json!({}));
    let job = server.wait_for(id, 3 * LIMIT, "it has ended", is_final);
    assert_eq!(job["status"], "completed", "{job}");
    let more = peak_memory(server.pid()) - before;
    assert!(more < 32 << 20, "{more} bytes more");
    assert!((1..=1000).contains(&log(&server, id).len()));
}

#[test]
fn log_lines_are_read_in_parts_and_waited_for() {
    let redis = TestRedis::start();
    let script = "echo log one > $THREADQ_REPORT; echo log two > $THREADQ_REPORT; until [ -e go ]; do sleep 0.05; done; \
                  echo log three > $THREADQ_REPORT; until [ -e end ]; do sleep 0.05; done";
    let server = start(&redis, &shell("slow", script, ""));
    let id = server.submit("slow", json!({}));
    let path = format!("/jobs/{id}/log");
    let read = |query: &str| {
        let log = server.get(&format!("{path}?{query}")).expect(200).json();
        let lines = log["lines"].as_array().unwrap().clone();
        let shown = |line: &Value| format!("{} {}", line["n"], line["text"].as_str().unwrap());
        (lines.iter().map(shown).collect::<Vec<String>>(), log["total"].as_u64().unwrap())
    };
    assert_eq!(read("wait=30s&limit=1").0, ["1 one"]);
    eventually(LIMIT, "both lines are stored", || read("").1 == 2);
    assert_eq!(read("after=1"), (vec!["2 two".to_owned()], 2));
    assert_eq!(read("after=2"), (vec![], 2));
    assert_eq!(read("after=2&wait=100ms"), (vec![], 2));

    let wait_behind = |line: u64| {
        let (addr, path) = (server.addr(), format!("{path}?after={line}&wait=60s"));
        let waiting = std::thread::spawn(move || Api::new(addr).get(&path).expect(200).json());
        eventually(LIMIT, "the request waits", || server.metric("threadq_http_requests_waiting") == 1.0);
        waiting
    };
    let waiting = wait_behind(2);
    server.dir().write("go", "");
    let got = waiting.join().unwrap();
    assert_eq!((&got["lines"][0]["text"], &got["total"]), (&json!("three"), &json!(3)), "{got}");
    let waiting = wait_behind(3);
    server.dir().write("end", "");
    assert_eq!(waiting.join().unwrap(), json!({"lines": [], "total": 3}), "the job has ended");
    // A job that has ended gets no more lines.
    let begin = Instant::now();
    assert_eq!(read("after=3&wait=60s"), (vec![], 3));
    assert!(begin.elapsed() < secs(30));

    for query in
        ["after=-1", "after=x", "limit=0", "limit=1001", "wait=61s", "before=1", "after=9007199254740992"]
    {
        server.get(&format!("{path}?{query}")).expect_error(400, "invalid_query", query);
    }
    server.get("/jobs/17/log").expect_error(404, "not_found", "no such job");
    server.get("/jobs/17/log?wait=10s").expect_error(404, "not_found", "no such job");
    server.get("/jobs/x/log").expect_error(400, "invalid_id", "no id");

    let log = client(&server).log(JobId::new(id).unwrap(), 1).unwrap();
    let texts: Vec<(u64, &str)> = log.lines.iter().map(|line| (line.number, line.text.as_str())).collect();
    assert_eq!((texts, log.total), (vec![(2, "two"), (3, "three")], 3));
}

#[test]
fn a_log_goes_with_its_job() {
    let redis = TestRedis::start();
    let server = start(&redis, &shell("logged", "echo log x > $THREADQ_REPORT", ""));
    let id = server.submit("logged", json!({}));
    server.wait_for_status(id, "completed");
    assert_eq!(redis.keys("*log:*").len(), 1);
    server.delete(&format!("/jobs/{id}")).expect(204);
    assert_eq!(redis.keys("*log:*"), [""; 0]);
}

static RUST_ATTEMPTS: AtomicU32 = AtomicU32::new(0);

fn import(job: &JobContext) -> Result<u32, Failure> {
    RUST_ATTEMPTS.fetch_add(1, Ordering::Relaxed);
    let done: u32 = job.checkpoint()?.unwrap_or_default();
    job.progress(f64::from(done) / 2.0, format!("after {done} pages"));
    job.log(format!("had {done} pages\nof 2"));
    if done == 2 {
        return Ok(done);
    }
    job.set_checkpoint(&(done + 1))?;
    let token = job.attempt_token().unwrap();
    assert!(token.starts_with(&format!("{}-{}-", job.job().id, done + 1)), "{token}");
    Err(Failure::retryable("not yet"))
}

#[test]
fn a_rust_handler_reports_too() {
    let redis = TestRedis::start();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        redis_url: Some(Secret::new(redis.url())),
        ..Config::default()
    };
    let server = Server::builder().config(config).handler("import", import).start().unwrap();
    let api = Api::new(server.addr());
    let job = api.complete("import", json!({}));
    assert_eq!((&job["result"], &job["checkpoint"]), (&json!(2), &json!(2)), "{job}");
    assert_eq!(job["progress"]["message"], "after 2 pages", "{job}");
    let id = job["id"].as_u64().unwrap();
    assert_eq!(log(&api, id), ["had 0 pages", "of 2", "had 1 pages", "of 2", "had 2 pages", "of 2"]);
    assert_eq!(RUST_ATTEMPTS.load(Ordering::Relaxed), 3);
    server.stop();
}

static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();

/// Reports as an `http` service does, and fails; the next attempt returns the checkpoint.
fn remote(job: &JobContext) -> Result<u32, Failure> {
    if let Some(checkpoint) = job.checkpoint()? {
        return Ok(checkpoint);
    }
    let path = format!("/attempts/{}", job.attempt_token().unwrap());
    let body = json!({"checkpoint": 7, "log": ["from afar"]});
    Api::new(*ADDRESS.get().unwrap()).post(&path, &body).expect(200);
    Err(Failure::retryable("not yet"))
}

#[test]
fn a_checkpoint_stored_with_the_token_reaches_the_next_attempt_on_the_same_worker() {
    let redis = TestRedis::start();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        redis_url: Some(Secret::new(redis.url())),
        inline_backoff: LIMIT,
        ..Config::default()
    };
    let server = Server::builder().config(config).handler("remote", remote).start().unwrap();
    ADDRESS.set(server.addr()).unwrap();
    let api = Api::new(server.addr());
    let job = api.complete("remote", json!({}));
    assert_eq!(
        (&job["result"], &job["checkpoint"], &job["attempts"]),
        (&json!(7), &json!(7), &json!(2)),
        "{job}"
    );
    assert_eq!(log(&api, job["id"].as_u64().unwrap()), ["from afar"]);
    assert_eq!(api.metric("threadq_job_reports_total{type=\"remote\"}"), 1.0);
    server.stop();
}

/// A long job in shell whose server and whose program are killed: it loses at most the step that was under way.
#[test]
fn a_job_of_60_steps_goes_on_where_it_was_killed() {
    const STEPS: usize = 60;
    const KILLS: usize = 10;
    let redis = TestRedis::start();
    let folder = TempDir::new();
    let script = format!(
        r#"
cd {}
echo $$ > pid
step=${{THREADQ_CHECKPOINT:-0}}
while [ $step -lt {STEPS} ]; do
  sleep 0.3
  step=$((step + 1))
  echo $step >> steps
  echo "checkpoint $step" > "$THREADQ_REPORT" || exit 1
  echo "progress $(awk "BEGIN {{ print $step / {STEPS} }}") step $step" > "$THREADQ_REPORT" || exit 1
done
"#,
        folder.path().display()
    );
    let handler =
        shell("video", &script, "max_attempts = 100\nbackoff = { base = \"10ms\", cap = \"10ms\" }");
    let builder = TestServer::builder()
        .redis(&redis)
        .config(&handler)
        .flag("lease-timeout", "1s")
        .flag("max-crashes", "100");
    let mut server = builder.start();
    let id = server.submit("video", json!({}));
    let mut seen = 0;
    for kill in 0..KILLS {
        // The next kill comes some steps later, so that no step is hit twice.
        server.wait_for(id, LIMIT, "it has gone on", |job| job["checkpoint"].as_u64() >= Some(seen + 2));
        if kill % 2 == 0 {
            server.kill9();
            server = builder.start();
        } else {
            signal::kill9(folder.read("pid").trim().parse().unwrap());
        }
        seen = server.job(id)["checkpoint"].as_u64().unwrap();
    }
    let job = server.wait_for(id, 3 * LIMIT, "it has ended", is_final);
    assert_eq!((&job["status"], &job["checkpoint"]), (&json!("completed"), &json!(STEPS)), "{job}");
    assert_eq!(job["progress"]["value"], 1.0, "{job}");
    let mut done: BTreeMap<usize, usize> = BTreeMap::new();
    for step in folder.read("steps").lines() {
        *done.entry(step.parse().unwrap()).or_default() += 1;
    }
    assert_eq!(done.keys().copied().collect::<Vec<_>>(), (1..=STEPS).collect::<Vec<_>>());
    let twice: Vec<_> = done.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.len() <= KILLS && twice.iter().all(|(_, times)| **times == 2), "{twice:?}");
}
