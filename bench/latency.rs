//! The latency of a job from POST to start, and of POST /jobs.

mod common;

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::client::{load, request, submissions};
use common::figures::print_latencies;
use common::{Bare, BenchRedis, Client, Server, flag, flags, payload, percentile, print_setup};
use threadq::config::{Config, Secret};

const HELP: &str = "\
usage: cargo bench --bench latency -- [flags]

Prints p50, p99, p99.9 and the maximum of:
  - a lone job over the bare protocol (submit, BRPOPLPUSH, take), without HTTP and workers;
  - the API alone: GET /healthz;
  - a lone job, from before its POST is sent until its handler runs. The handler notes the time, so the server runs
    within this process, with its usual API and Redis;
  - a lone job while other clients submit at half of their full rate;
  - POST /jobs by many keep-alive clients at full speed to `threadq serve`, while no server takes the jobs, and while
    the server runs them.

  --jobs N        lone jobs [2000]
  --posts N       POSTs at full speed [50000]
  --clients N     keep-alive connections [32]
  --workers N     worker threads [30]
  --load PERCENT  rate of the other clients beside the lone job, in percent of their full rate [50]
  --aof WORD      Redis's append-only file: off, everysec or always [off]
  --program FILE  the threadq that receives the POSTs at full speed [the one built with this bench]
";

/// Connections that send the load beside lone jobs.
const LOAD_CLIENTS: usize = 4;

fn main() {
    flags::check(HELP);
    let mut redis = BenchRedis::start("latency");
    print_setup();

    let jobs = flag("jobs", 2_000);
    let mut bare = Bare::new(&redis.url()).lone(jobs);
    let bare_p50 = percentile(&mut bare, 0.5);
    print_latencies("bare protocol, lone job: submit to started", &mut bare);
    redis.empty();
    lone_jobs(&redis.url(), jobs, bare_p50);
    redis.empty();
    for (what, queue) in [("POST /jobs, no job taken", "other"), ("POST /jobs, while jobs run", "default")] {
        let workers = flag("workers", 30).to_string();
        let server = Server::start(&redis.url(), &["--workers", &workers, "--queues", queue]);
        let requests = submissions(&payload(100), &["default".to_owned()], None);
        let clients = flag("clients", 32);
        let mut load = load(server.addr(), clients, flag("posts", 50_000), &requests);
        let rate = load.ms.len() as f64 / load.time.as_secs_f64();
        print_latencies(&format!("{what}, {clients} clients, {rate:.0}/s"), &mut load.ms);
        drop(server);
        redis.empty();
    }
}

/// Measures lone jobs, with a server within this process.
fn lone_jobs(redis_url: &str, jobs: usize, bare_p50: f64) {
    let (started, starts) = channel();
    let started = Mutex::new(started);
    let config = Config {
        listen: "127.0.0.1:0".parse().expect("an address"),
        redis_url: Some(Secret::new(redis_url)),
        workers: flag("workers", 30),
        max_queue_length: u64::MAX >> 12,
        ..Config::default()
    };
    let server = threadq::server::Server::builder()
        .config(config)
        .handler("lone", move |_| {
            let now = Instant::now();
            let _ = started.lock().expect("no thread panics while it holds the lock").send(now);
            Ok(())
        })
        .handler("echo", |job| Ok(job.job().payload.clone()))
        .start()
        .expect("a server");
    let addr = server.addr();

    let mut client = Client::new(addr);
    let healthz = request("GET", "/healthz", "");
    let ask = |_| {
        std::thread::sleep(Duration::from_millis(1));
        let before = Instant::now();
        client.send(healthz.as_bytes());
        before.elapsed().as_secs_f64() * 1000.0
    };
    print_latencies("API alone: GET /healthz", &mut (0..jobs).map(ask).collect::<Vec<f64>>());
    let mut lone = starts_of(addr, &starts, jobs);
    let p50 = percentile(&mut lone, 0.5);
    print_latencies("lone job: POST sent to handler started", &mut lone);
    println!("lone job's p50 divided by the bare protocol's: {:.2}", p50 / bare_p50);

    // The full rate of the load's connections.
    let requests = submissions(&payload(100), &["default".to_owned()], None);
    let posts = flag("posts", 50_000) / 5;
    let full = load(addr, LOAD_CLIENTS, posts, &requests);
    let full = posts as f64 / full.time.as_secs_f64();
    wait_until_quiet(addr);
    let rate = full * flag("load", 50.0) / 100.0;
    let stop = AtomicBool::new(false);
    let mut loaded = std::thread::scope(|scope| {
        for _ in 0..LOAD_CLIENTS {
            scope.spawn(|| steady_load(addr, rate / LOAD_CLIENTS as f64, &requests[0], &stop));
        }
        let loaded = starts_of(addr, &starts, jobs);
        stop.store(true, Ordering::Relaxed);
        loaded
    });
    print_latencies(&format!("lone job beside {rate:.0} of {full:.0} jobs/s"), &mut loaded);
    let (_, hurry) = crossbeam_channel::bounded(0);
    server.shut_down(&hurry);
}

/// Submits jobs one after the other, each after the start of the previous one and a pause. Returns the ms from each
/// POST to the start of its handler.
fn starts_of(addr: SocketAddr, starts: &Receiver<Instant>, jobs: usize) -> Vec<f64> {
    let mut client = Client::new(addr);
    let post = request("POST", "/jobs", &format!(r#"{{"type":"lone","payload":{}}}"#, payload(100)));
    let submit = |_| {
        std::thread::sleep(Duration::from_micros(fastrand::u64(1_500..3_000)));
        let before = Instant::now();
        assert_eq!(client.send(post.as_bytes()), 202);
        let start = starts.recv_timeout(Duration::from_secs(30)).expect("the job runs");
        start.saturating_duration_since(before).as_secs_f64() * 1000.0
    };
    (0..jobs).map(submit).collect()
}

/// Sends requests at `rate` per second until `stop` is set.
fn steady_load(addr: SocketAddr, rate: f64, request: &str, stop: &AtomicBool) {
    let mut client = Client::new(addr);
    let started = Instant::now();
    for number in 0.. {
        let due = started + Duration::from_secs_f64(number as f64 / rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if stop.load(Ordering::Relaxed) {
            return;
        }
        assert_eq!(client.send(request.as_bytes()), 202);
    }
}

fn wait_until_quiet(addr: SocketAddr) {
    let mut client = Client::new(addr);
    loop {
        let counts = client.json("GET", "/stats", "")["counts"].clone();
        if counts["queued"] == 0 && counts["processing"] == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
