//! The latency of listings with many jobs in Redis: every filter, first and deep pages.
//!
//!     cargo bench --bench listing -- --jobs 1000000 --types 128
//!
//! A server runs jobs of some types (ten by default) until there are jobs in all statuses. Then the bench requests pages
//! up to the 1,000th of each combination of filters, also between two times, and the page after each by its id. Prints p50, p99 and the slowest
//! responses, and how long the slowest script has blocked Redis (by SLOWLOG).

mod common;

use std::time::{Duration, Instant};

use common::{BenchRedis, Client, flag, percentile};
use threadq::job::Failure;
use threadq::server::Server;

const BATCH: usize = 1_000;

fn main() {
    let jobs: usize = flag("jobs", 1_000_000);
    let types: usize = flag("types", 10);
    let mut redis = BenchRedis::start("listing");
    let config = redis.config_without_limits();
    let mut server = Server::builder().config(config);
    for i in 0..types {
        server = server.handler(format!("type {i}"), |job| match job.job().id.get() % 4 {
            0 => Err(Failure::permanent("on purpose")),
            _ => Ok(()),
        });
    }
    let server = server.start().expect("a server");
    let mut client = Client::new(server.addr());

    let started = Instant::now();
    submit(&mut client, jobs * 8 / 10, types, "");
    while client.json("GET", "/stats", "")["counts"]["queued"].as_u64() > Some(0) {
        std::thread::sleep(Duration::from_millis(100));
    }
    // Jobs of a queue without a server stay queued; jobs that are due in a year stay scheduled, and some are cancelled.
    submit(&mut client, jobs / 10, types, r#","queue":"unserved""#);
    submit(&mut client, jobs / 10, types, r#","delay_ms":31536000000"#);
    let scheduled = client.json("GET", "/jobs?status=scheduled&limit=100", "");
    for job in scheduled["jobs"].as_array().expect("jobs") {
        client.json("POST", &format!("/jobs/{}/cancel", job["id"]), "");
    }
    println!("{jobs} jobs in {:.0} s", started.elapsed().as_secs_f64());

    redis.ask::<()>(&["CONFIG", "SET", "slowlog-log-slower-than", "1000"]);
    redis.ask::<()>(&["CONFIG", "SET", "slowlog-max-len", "10000"]);
    redis.ask::<()>(&["SLOWLOG", "RESET"]);
    let [after, before] = [9, 3].map(|tenth| time_of_job(&mut client, jobs * tenth / 10));
    let between = format!("created_after={after}&created_before={before}");
    let statuses = ["", "scheduled", "queued", "processing", "retrying", "completed", "failed", "cancelled"];
    let mut slowest: Vec<(f64, String)> = Vec::new();
    let mut times = Vec::new();
    for status in statuses {
        let kinds = ["", "type=type%203", "tag=tag%203", &between, &format!("tag=tag%203&{between}")];
        for kind in kinds {
            for page in [1, 10, 100, 500, 1000] {
                for limit in [10, 100] {
                    let mut path = format!("/jobs?page={page}&limit={limit}");
                    if !status.is_empty() {
                        path += &format!("&status={status}");
                    }
                    if !kind.is_empty() {
                        path += &format!("&{kind}");
                    }
                    let mut timed = |path: String| {
                        let before = Instant::now();
                        let answer = client.json("GET", &path, "");
                        let ms = before.elapsed().as_secs_f64() * 1000.0;
                        times.push(ms);
                        slowest.push((ms, path));
                        answer["next"].as_u64()
                    };
                    let by_id = |next| path.replacen(&format!("page={page}"), &format!("before={next}"), 1);
                    if let Some(next) = timed(path.clone()) {
                        timed(by_id(next));
                    }
                }
            }
        }
    }
    slowest.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (p50, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
    println!("{} pages: p50 {p50:.2} ms, p99 {p99:.2} ms, slowest:", slowest.len());
    for (ms, path) in slowest.iter().take(5) {
        println!("{ms:8.2} ms  {path}");
    }
    let slow: Vec<Vec<redis::Value>> = redis.ask(&["SLOWLOG", "GET", "-1"]);
    let slow = slow.iter().filter_map(|entry| match entry.get(2) {
        Some(redis::Value::Int(us)) => Some(*us),
        _ => None,
    });
    let mut slow: Vec<i64> = slow.collect();
    slow.sort_unstable_by(|a, b| b.cmp(a));
    let over = slow.iter().filter(|us| **us > 10_000).count();
    println!(
        "commands of Redis over 1 ms: {}, over 10 ms: {over}; slowest in µs: {:?}",
        slow.len(),
        &slow[..slow.len().min(5)]
    );
    let (_, hurry) = crossbeam_channel::bounded(0);
    server.shut_down(&hurry);
}

/// The time of creation of the job that has this number of newer jobs.
fn time_of_job(client: &mut Client, newer: usize) -> String {
    let page = client.json("GET", &format!("/jobs?limit=1&page={}", newer + 1), "");
    page["jobs"][0]["created_at"].as_str().expect("a job").to_owned()
}

fn submit(client: &mut Client, jobs: usize, types: usize, more: &str) {
    for batch in 0..jobs.div_ceil(BATCH) {
        let number = BATCH.min(jobs - batch * BATCH);
        let jobs: Vec<String> = (0..number)
            .map(|i| {
                format!(
                    r#"{{"type":"type {}","tags":["tag {}"],"payload":{{"n":{i}}}{more}}}"#,
                    i % types,
                    i % 7
                )
            })
            .collect();
        client.json("POST", "/jobs/batch", &format!(r#"{{"jobs":[{}]}}"#, jobs.join(",")));
    }
}
