//! How long operations on many jobs take, and how long their slowest step blocks Redis.
//!
//!     cargo bench --bench bulk -- --jobs 1000000 [--only "cancel,retry,cancel again,delete"]
//!
//! Submits jobs with tags to a queue that no server takes from. Then cancels, retries, moves and deletes the jobs of one tag
//! by POST /jobs/bulk, while a client submits other jobs that the server runs. Prints the time of each operation, the
//! jobs that ran meanwhile, and the slowest scripts by Redis's SLOWLOG. On a busy machine
//! SLOWLOG includes the time in which Redis does not get the processor; the median shows a step without it.

mod common;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{BenchRedis, Client, SlowLog, flag};
use threadq::server::Server;

const BATCH: usize = 1_000;
/// Each customer has one job of this many.
const CUSTOMERS: usize = 1_000;
/// What each operation sends.
const OPERATIONS: [(&str, &str); 10] = [
    ("count", r#""action":"cancel","dry_run":true,"filter":{"tag":"big"}"#),
    ("count by scanning", r#""action":"cancel","dry_run":true,"filter":{"queue":"nothing"}"#),
    ("cancel a customer", r#""action":"cancel","filter":{"tag":"customer-7"}"#),
    ("cancel", r#""action":"cancel","filter":{"tag":"big"}"#),
    ("retry", r#""action":"retry","filter":{"tag":"big","status":"cancelled"}"#),
    ("move", r#""action":"change","filter":{"tag":"big"},"set":{"queue":"other"}"#),
    ("delay", r#""action":"change","filter":{"tag":"big"},"set":{"delay_ms":31536000000}"#),
    ("run now", r#""action":"run","filter":{"tag":"big"}"#),
    (
        "cancel again",
        r#""action":"cancel","filter":{"status":["queued","scheduled"],"type":"type 3","tag":"big"}"#,
    ),
    ("delete", r#""action":"delete","filter":{"tag":"big","status":"cancelled"}"#),
];

fn main() {
    let jobs: usize = flag("jobs", 1_000_000);
    let types: usize = flag("types", 10);
    let mut redis = BenchRedis::start("bulk");
    let config = redis.config_without_limits();
    let server = Server::builder().config(config).handler("load", |_| Ok(())).start().expect("a server");
    let mut client = Client::new(server.addr());
    let begun = Instant::now();
    submit(&mut client, jobs, types);
    println!("{jobs} jobs of {types} types, each with two tags, in {:.0} s", begun.elapsed().as_secs_f64());
    let slow_log = SlowLog::start(&mut redis);
    let (ends, submitted) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| keep_submitting(server.addr(), &ends, &submitted));
        let only: String = flag("only", String::new());
        let is_wanted = |name: &str| only.is_empty() || only.split(',').any(|wanted| wanted == name);
        for (name, body) in OPERATIONS.into_iter().filter(|(name, _)| is_wanted(name)) {
            slow_log.reset(&mut redis);
            let cpu_before = redis.cpu_seconds();
            let (begun, before) = (Instant::now(), submitted.load(Ordering::Relaxed));
            let (requests, matched, changed) = operate(&mut client, body);
            let seconds = begun.elapsed().as_secs_f64();
            let cpu = redis.cpu_seconds() - cpu_before;
            let meanwhile = submitted.load(Ordering::Relaxed) - before;
            println!(
                "{name:<18} {seconds:7.2} s  {requests:3} requests  {matched:8} matched  {changed:8} changed  \
                 {cpu:6.2} s of CPU in Redis  {:6.0} jobs/s ran meanwhile",
                meanwhile as f64 / seconds
            );
            println!("{:18} {}", "", slow_log.report(&mut redis));
        }
        ends.store(true, Ordering::Relaxed);
    });
    let (_, hurry) = crossbeam_channel::bounded(0);
    server.shut_down(&hurry);
}

fn submit(client: &mut Client, jobs: usize, types: usize) {
    for first in (0..jobs).step_by(BATCH) {
        let jobs: Vec<String> = (first..(first + BATCH).min(jobs))
            .map(|n| {
                let (job_type, customer) = (n % types, n % CUSTOMERS);
                format!(
                    r#"{{"type":"type {job_type}","queue":"unserved","payload":{{"n":{n}}},"tags":["big","customer-{customer}"]}}"#
                )
            })
            .collect();
        client.json("POST", "/jobs/batch", &format!(r#"{{"jobs":[{}]}}"#, jobs.join(",")));
    }
}

/// Submits jobs in small batches, which the server runs, and waits for the last job of each batch.
fn keep_submitting(addr: SocketAddr, ends: &AtomicBool, submitted: &AtomicU64) {
    let mut client = Client::new(addr);
    let jobs = [r#"{"type":"load"}"#; 10].join(",");
    while !ends.load(Ordering::Relaxed) {
        let ids = client.json("POST", "/jobs/batch", &format!(r#"{{"jobs":[{jobs}]}}"#));
        let last = ids["job_ids"][9].as_u64().expect("an id");
        let job = client.json("GET", &format!("/jobs/{last}?wait=30s"), "");
        assert_eq!(job["status"], "completed", "{job}");
        submitted.fetch_add(10, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends the requests of an operation. Returns the number of requests, of jobs that matched, and of jobs that were changed.
fn operate(client: &mut Client, body: &str) -> (u64, u64, u64) {
    let (mut requests, mut matched, mut changed) = (0, 0, 0);
    let mut cursor = String::new();
    loop {
        let report = client.json("POST", "/jobs/bulk", &format!("{{{body}{cursor}}}"));
        requests += 1;
        matched += report["matched"].as_u64().expect("a number");
        changed += report["changed"].as_u64().expect("a number");
        match report["cursor"].as_str() {
            Some(text) => cursor = format!(r#","cursor":"{text}""#),
            None => return (requests, matched, changed),
        }
    }
}
