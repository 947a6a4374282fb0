//! Whether an upgrade from version 0.4.0 loses a job: that version makes jobs in all states, then the program of this
//! repository takes over.

#[path = "../common/mod.rs"]
mod common;
#[path = "../torture/rig/http.rs"]
mod http;
mod look;
mod make;
mod report;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use common::{BenchRedis, Server, flag, flags, folder, server};
use http::Http;
use make::Made;
use report::Report;

const HELP: &str = "\
usage: cargo bench --bench upgrade -- [flags]

A server of version 0.4.0 makes jobs in all states. Then it is stopped or killed while jobs run, and a server
of this version starts. Checks through the API of the new server that every job is listed once and unchanged, ends
once, and that old jobs can be retried, cancelled and deleted; then the retention and `threadq doctor`. Exit code 1: a
check has failed. First `bench/peers/install threadq-0.4.0` has to build version 0.4.0.

  --jobs N         jobs that version 0.4.0 makes [100000]
  --way WORDS      stop, kill, separated by commas [stop,kill]
  --earlier FILE   the program of version 0.4.0 [bench/peers/earlier/threadq]
  --program FILE   the threadq to upgrade to [the one built with this bench]
  --aof WORD       Redis's append-only file: off, everysec or always [off]
";

/// How many completed and cancelled jobs the retention leaves at the end.
const KEPT: usize = 1_000;
/// The longest time until all jobs of a step have ended.
const LIMIT: Duration = Duration::from_secs(300);

fn main() {
    flags::check(HELP);
    let ways = common::list("way", &["stop".to_owned(), "kill".to_owned()]);
    let mut is_good = true;
    for way in &ways {
        assert!(matches!(way.as_str(), "stop" | "kill"), "--way must be stop or kill");
        let report = run(way);
        report.print(way);
        is_good &= report.is_good();
    }
    std::process::exit(i32::from(!is_good));
}

/// Upgrades in this way, and checks the result.
fn run(way: &str) -> Report {
    let mut report = Report::default();
    let mut redis = BenchRedis::start("upgrade");
    let folder = folder("upgrade-files");
    let installed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("bench/peers/earlier/threadq");
    let earlier = flag("earlier", installed);
    let runs = folder.path().join("runs");
    let config = folder.path().join("threadq.toml");
    std::fs::write(&config, make::config(&runs)).expect("a file");
    let url = redis.url();
    let start = |program: &PathBuf, queues: &str, more: &[&str]| {
        let config = config.display().to_string();
        let mut args =
            vec!["--config", &config, "--queues", queues, "--workers", "20", "--lease-timeout", "1s"];
        args.extend(["--retain-failed-max", "100000000"]);
        args.extend(more);
        Server::start_program(program, &url, &args)
    };
    let new = server::program();

    let begin = Instant::now();
    let old_server = start(&earlier, "default", &[]);
    let mut made = make::jobs(&old_server, &runs, || start(&earlier, "deadly", &[]));
    report.row("jobs made by version 0.4.0", made.ids.len());
    report.time("  time", begin);
    let before = look::samples(&mut old_server.client());
    report.row("samples of their JSON", before.len());
    made.running(&mut old_server.client());
    std::thread::sleep(Duration::from_millis(700));
    let counts = old_server.client().json("GET", "/stats", "")["counts"].clone();
    report.row("states at the upgrade", &counts);
    for status in ["queued", "processing", "scheduled", "retrying", "completed", "failed", "cancelled"] {
        report.check(counts[status].as_u64() > Some(0), || format!("no job is {status} before the upgrade"));
    }

    if way == "stop" {
        old_server.stop()
    } else {
        drop(old_server)
    }
    let new_server = start(&new, "default", &[]);
    let old_entries = entries_of_old_layout(&mut redis);
    report.row("entries of the old layout after the upgrade", &old_entries);
    let mut client = new_server.client();
    wait_for(&mut client, "the jobs of the first queue", |stats| {
        let queue =
            stats["queues"].as_array().expect("queues").iter().find(|queue| queue["name"] == "default");
        stats["counts"]["processing"] == 0 && queue.is_none_or(|queue| queue["queued"] == 0)
    });
    look::listings(&mut client, &made.ids, &mut report);
    look::compare(&mut client, &before, &mut report);
    doctor(&url, "after the upgrade", &mut report);
    keys(&mut client, new_server.addr(), &made, &mut report);
    new_server.stop();

    let last_server = start(&new, "default,later,side,deadly", &[]);
    let mut client = last_server.client();
    let all_done = |stats: &Value| stats["counts"]["processing"] == 0 && stats["counts"]["queued"] == 0;
    wait_for(&mut client, "all queued jobs", all_done);
    look::runs(&runs, &made, way == "kill", &mut report);
    let rows = look::walk(&mut client, "", &mut report);
    for row in &rows {
        let is_right = match row.job_type.as_str() {
            "fail" => matches!(row.status.as_str(), "failed" | "retrying"),
            _ => matches!(row.status.as_str(), "completed" | "scheduled" | "cancelled"),
        };
        report.check(is_right, || format!("job {} of type {} is {}", row.id, row.job_type, row.status));
        let attempts = if row.job_type == "panic" { 2 } else { 1 };
        report.check(row.status != "completed" || row.attempts == attempts, || {
            format!("job {} took {} attempts", row.id, row.attempts)
        });
    }
    change(&mut client, &rows, &mut made, &mut report);
    wait_for(&mut client, "the jobs that were retried", all_done);
    look::listings(&mut client, &made.ids, &mut report);
    let left = entries_of_old_layout(&mut redis);
    report.row("  when all jobs have ended", &left);
    report.check(left["index:ready"] == 0, || "old entries of ended jobs are in index:ready".to_owned());
    report.check(left["index"].as_u64() < old_entries["index"].as_u64(), || {
        "the old index did not shrink".to_owned()
    });
    last_server.stop();

    retention(&start(&new, "default", &["--retain-completed-max", &KEPT.to_string()]), &mut report);
    report.row("  after the retention", entries_of_old_layout(&mut redis));
    doctor(&url, "at the end", &mut report);
    report.time("whole time", begin);
    report
}

/// Unique keys and idempotency keys of version 0.4.0 still hold.
fn keys(client: &mut common::Client, addr: std::net::SocketAddr, made: &Made, report: &mut Report) {
    for (key, id) in made.unique.iter().take(50) {
        let body = json!({"type": "echo", "unique_key": key}).to_string();
        let (status, answer) = client.request("POST", "/jobs", &body);
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        report.check(status == 409 && answer["job_id"] == *id, || {
            format!("the unique key of job {id}: {answer}")
        });
    }
    let http = Http::new();
    for (key, (body, id)) in &made.idempotent {
        let answer =
            http.post(addr, "/jobs", key, body).map(|answer| (answer.status, answer.body["job_id"].clone()));
        report
            .check(answer == Ok((200, json!(id))), || format!("the idempotency key of job {id}: {answer:?}"));
    }
    report.row("unique and idempotency keys that hold", made.unique.len().min(50) + made.idempotent.len());
}

/// Retries, cancels and deletes jobs of version 0.4.0.
fn change(client: &mut common::Client, rows: &[look::Row], made: &mut Made, report: &mut Report) {
    let of = |status: &'static str, number: usize| {
        rows.iter()
            .rev()
            .filter(move |row| row.status == status)
            .take(number)
            .map(|row| row.id)
            .collect::<Vec<_>>()
    };
    let mut status_after = |method: &str, path: String, wanted: u16| {
        let (status, body) = client.request(method, &path, "");
        report.check(status == wanted, || {
            format!("{method} {path}: {status} {}", String::from_utf8_lossy(&body))
        });
    };
    let (failed, cancelled) = (of("failed", 50), of("cancelled", 50));
    for id in failed.iter().chain(&cancelled) {
        status_after("POST", format!("/jobs/{id}/retry"), 202);
    }
    let (scheduled, retrying) = (of("scheduled", 50), of("retrying", 20));
    for id in scheduled.iter().chain(&retrying) {
        status_after("POST", format!("/jobs/{id}/cancel"), 200);
    }
    let deleted = of("completed", 100);
    for id in &deleted {
        status_after("DELETE", format!("/jobs/{id}"), 204);
        status_after("GET", format!("/jobs/{id}"), 404);
        made.ids.remove(id);
    }
    let number = failed.len() + cancelled.len() + scheduled.len() + retrying.len() + deleted.len();
    report.row("jobs retried, cancelled, deleted", number);
}

/// The retention leaves the jobs that ended last.
fn retention(server: &Server, report: &mut Report) {
    let mut client = server.client();
    let ended = |client: &mut common::Client, report: &mut Report| {
        let mut rows = look::walk(client, "&status=completed", report);
        rows.extend(look::walk(client, "&status=cancelled", report));
        rows.sort_by(|a, b| b.finished_at.cmp(&a.finished_at));
        rows
    };
    // The janitor may run before this walk; then it has less to compare.
    let all = ended(&mut client, report);
    wait_for(&mut client, "the retention", |stats| {
        let counts = &stats["counts"];
        counts["completed"].as_u64().unwrap_or(0) + counts["cancelled"].as_u64().unwrap_or(0) <= KEPT as u64
    });
    let kept = ended(&mut client, report);
    report.check(kept.len() == KEPT, || format!("the retention left {} jobs of {KEPT}", kept.len()));
    let oldest = kept.last().map(|row| row.finished_at.clone());
    let newer = all.iter().filter(|row| Some(&row.finished_at) > oldest.as_ref()).count();
    report.check(newer <= kept.len(), || format!("{newer} jobs ended later than the oldest that was kept"));
    report.row("ended jobs before and after the retention", format!("{} {}", all.len(), kept.len()));
}

/// The numbers of entries in the keys that only versions up to 0.6 fill.
fn entries_of_old_layout(redis: &mut BenchRedis) -> Value {
    let script = "local sum = 0 for _, key in ipairs(redis.call('KEYS', '{threadq}:index:*')) do \
                  sum = sum + redis.call('ZCARD', key) end \
                  return {sum, redis.call('ZCARD', '{threadq}:index:ready'), redis.call('ZCARD', '{threadq}:done')}";
    let numbers: [u64; 3] = redis.ask(&["EVAL", script, "0"]);
    json!({"index": numbers[0], "index:ready": numbers[1], "done": numbers[2]})
}

fn doctor(url: &str, when: &str, report: &mut Report) {
    let begin = Instant::now();
    let mut command = Command::new(server::program());
    let output = command.args(["doctor", "--json", "--redis-url", url]).output().expect("threadq");
    report.check(output.status.success(), || {
        format!("the doctor {when}: {}", String::from_utf8_lossy(&output.stdout))
    });
    report.time(&format!("doctor {when}"), begin);
}

fn wait_for(client: &mut common::Client, what: &str, is_done: impl Fn(&Value) -> bool) {
    let end = Instant::now() + LIMIT;
    loop {
        let stats = client.json("GET", "/stats", "");
        if is_done(&stats) {
            return;
        }
        assert!(Instant::now() < end, "{what}: {stats}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
