//! The runs of threadq: the built program with its defaults and `--demo`, over HTTP.

use std::fs::File;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Barrier, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use threadq::config::{Config, Secret};
use threadq::server::Server;

use super::common::{Client, percentile};
use super::figures::{Figure, Figures, Load, Part};
use super::limit::Limit;
use super::measure::{BATCH, CALLERS, Report, SETTLING, WARM_UP, drained, idle, in_phases, lone, set_lone};
use super::own_redis::Redis;
use super::peer::Probe;
use super::plan::Plan;
use super::process::{Program, Times};

/// The environment variable that makes the bench's own program run [`lone_server`]; its value is Redis's URL.
const LONE_SERVER: &str = "PEERS_LONE_SERVER";

const PROBE: Probe = Probe {
    waiting: &[("LLEN", "{threadq}:work_queue:default")],
    left: &[("ZCARD", "{threadq}:type_index:ready:echo"), ("ZCARD", "{threadq}:index:ready")],
    failed: &[("ZCARD", "{threadq}:dlq_queue"), ("ZCARD", "{threadq}:scheduled")],
};

/// Measures a program of threadq once. `is_this_build` says whether the program has the version of this bench: only then
/// can a server of the library run lone jobs in place of the program.
pub fn measure(
    program: &Path,
    is_this_build: bool,
    plan: &Plan,
    folder: &Path,
    limit: &Limit,
) -> (Figures, Vec<String>) {
    let run = Run { program, is_this_build, plan, folder };
    in_phases(
        plan,
        folder,
        limit,
        &[
            &|figures, redis, limit| run.submit(figures, redis, limit),
            &|figures, redis, limit| run.idle(figures, redis, limit),
            &|figures, redis, limit| run.lone(figures, redis, limit),
            &|figures, redis, limit| run.drain(figures, redis, limit),
        ],
    )
}

struct Run<'a> {
    program: &'a Path,
    is_this_build: bool,
    plan: &'a Plan,
    folder: &'a Path,
}

impl Run<'_> {
    /// Starts a server that takes jobs from `queue`. Returns the server and its address.
    fn server(&self, redis: &Redis, queue: &str, limit: &Limit) -> Result<(Program, SocketAddr), String> {
        let mut command = Command::new(self.program);
        command.args(["serve", "--demo", "--listen", "127.0.0.1:0", "--redis-url", &redis.url()]);
        command.args(["--queues", queue, "--workers", &self.plan.workers.to_string()]);
        self.listening(command, limit)
    }

    fn listening(&self, mut command: Command, limit: &Limit) -> Result<(Program, SocketAddr), String> {
        command.current_dir(self.folder).env_remove("PORT").env_remove("REDIS_URL");
        let server = Program::start("threadq", command, self.folder)?;
        let line = server.hear(limit)?;
        let addr = line.strip_prefix("threadq listening on http://").and_then(|addr| addr.parse().ok());
        Ok((server, addr.ok_or_else(|| format!("threadq printed {line:?} instead of its address"))?))
    }

    fn submit(&self, figures: &mut Figures, redis: &mut Redis, limit: &Limit) -> Result<(), String> {
        let body = format!(r#"{{"type":"echo","payload":{}}}"#, self.plan.payload_json());
        for (load, callers) in [(Load::One, 1), (Load::Concurrent, CALLERS), (Load::Bulk, 1)] {
            redis.forget_everything()?;
            // No server takes from the queue `default`: the jobs stay there.
            let (server, addr) = self.server(redis, "parked", limit)?;
            submit(addr, &body, WARM_UP, 1);
            let jobs = self.plan.jobs;
            let (redis_pids, server_pids, caller) = (redis.pids(), server.pids(), [std::process::id()]);
            let parts =
                [(Part::Redis, &redis_pids[..]), (Part::Worker, &server_pids), (Part::Caller, &caller)];
            let before = Times::read(&parts);
            let start = Instant::now();
            let seconds = if load == Load::Bulk {
                submit_batches(addr, &body, jobs);
                start.elapsed().as_secs_f64()
            } else {
                let (seconds, mut took) = submit(addr, &body, jobs, callers);
                if load == Load::Concurrent {
                    figures.set(Figure::ConcurrentP99, percentile(&mut took, 0.99));
                }
                seconds
            };
            Times::read(&parts).set(&before, figures, load, jobs as u64);
            figures.set(Figure::Rate(load), jobs as f64 / seconds);
            let (waiting, _) = redis.left(&PROBE)?;
            if waiting != (jobs + WARM_UP) as u64 {
                return Err(format!(
                    "{load:?} left {waiting} jobs in Redis, {WARM_UP} of them from the warm-up"
                ));
            }
            server.stop();
            limit.check()?;
        }
        Ok(())
    }

    fn idle(&self, figures: &mut Figures, redis: &mut Redis, limit: &Limit) -> Result<(), String> {
        let (server, addr) = self.server(redis, "default", limit)?;
        let body = format!(r#"{{"type":"echo","payload":{}}}"#, self.plan.payload_json());
        submit(addr, &body, self.plan.lone_warm_up() + self.plan.lone, 1);
        idle(self.plan, &server, redis, limit, figures)?;
        server.stop();
        Ok(())
    }

    /// Uses a server of the library: no demo handler reports the time of its start.
    fn lone(&self, figures: &mut Figures, redis: &mut Redis, limit: &Limit) -> Result<(), String> {
        if !self.is_this_build {
            return Ok(());
        }
        let report = Report::new(self.folder)?;
        let mut command = Command::new(std::env::current_exe().map_err(|error| error.to_string())?);
        command.env(LONE_SERVER, redis.url()).env("PEERS_REPORT", &report.path);
        command.env("PEERS_WORKERS", self.plan.workers.to_string());
        let (mut server, addr) = self.listening(command, limit)?;
        let mut client = Client::new(addr);
        let text = self.plan.payload_json();
        let mut send = || {
            server.check()?;
            let rest = text.trim_start_matches('{');
            let body = format!(r#"{{"type":"lone","payload":{{"sent":{},{rest}}}"#, now());
            client.json("POST", "/jobs", &body);
            Ok(())
        };
        lone(self.plan.lone_warm_up(), &report, limit, &mut send)?;
        set_lone(figures, &mut lone(self.plan.lone, &report, limit, &mut send)?);
        drop(client);
        server.stop();
        Ok(())
    }

    fn drain(&self, figures: &mut Figures, redis: &mut Redis, limit: &Limit) -> Result<(), String> {
        let jobs = self.plan.jobs;
        let body = format!(r#"{{"type":"echo","payload":{}}}"#, self.plan.payload_json());
        // Memory that Redis uses once for all jobs, such as for scripts, must not count per job.
        let (server, addr) = self.server(redis, "parked", limit)?;
        submit_batches(addr, &body, BATCH);
        server.stop();
        redis.forget_everything()?;
        limit.sleep(SETTLING)?;
        let before = redis.memory()?;
        let (server, addr) = self.server(redis, "parked", limit)?;
        submit_batches(addr, &body, jobs);
        server.stop();
        limit.sleep(SETTLING)?;
        figures.set(Figure::Bytes, (redis.memory()? - before) / jobs as f64);
        let (mut server, _) = self.server(redis, "default", limit)?;
        drained(jobs, redis, &PROBE, &mut server, limit, figures)?;
        server.stop();
        Ok(())
    }
}

/// Submits `jobs` jobs by `clients` keep-alive clients. Returns the seconds from the first request to the last
/// response, and the ms of each request.
fn submit(addr: SocketAddr, body: &str, jobs: usize, clients: usize) -> (f64, Vec<f64>) {
    let barrier = Barrier::new(clients);
    let run_client = |number| {
        let mut client = Client::new(addr);
        barrier.wait();
        let (first, mut took) = (Instant::now(), Vec::new());
        for _ in (number..jobs).step_by(clients) {
            let start = Instant::now();
            let (status, answer) = client.request("POST", "/jobs", body);
            took.push(start.elapsed().as_secs_f64() * 1e3);
            assert_eq!(status, 202, "{}", String::from_utf8_lossy(&answer));
        }
        (first, Instant::now(), took)
    };
    let run_client = &run_client;
    let runs: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|number| scope.spawn(move || run_client(number))).collect();
        clients.into_iter().map(|client| client.join().expect("all jobs are accepted")).collect()
    });
    let first = runs.iter().map(|run| run.0).min().expect("a client");
    let last = runs.iter().map(|run| run.1).max().expect("a client");
    ((last - first).as_secs_f64(), runs.into_iter().flat_map(|run| run.2).collect())
}

fn submit_batches(addr: SocketAddr, body: &str, jobs: usize) {
    let mut client = Client::new(addr);
    for first in (0..jobs).step_by(BATCH) {
        let bodies = vec![body; BATCH.min(jobs - first)].join(",");
        client.json("POST", "/jobs/batch", &format!(r#"{{"jobs":[{bodies}]}}"#));
    }
}

/// µs of a clock that both processes share.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64
}

/// Runs the server of the lone jobs if [`LONE_SERVER`] is set; otherwise returns false.
pub fn lone_server() -> bool {
    let Ok(redis) = std::env::var(LONE_SERVER) else { return false };
    let variable = |name| std::env::var(name).expect("the bench sets it");
    let config = Config {
        listen: "127.0.0.1:0".parse().expect("an address"),
        redis_url: Some(Secret::new(redis)),
        workers: variable("PEERS_WORKERS").parse().expect("a number"),
        log_level: log::LevelFilter::Off,
        ..Config::default()
    };
    let report = variable("PEERS_REPORT");
    let file = OnceLock::<File>::new();
    let server = Server::builder().config(config).handler("lone", move |job| {
        let payload: serde_json::Value = job.payload()?;
        let took = now().saturating_sub(payload["sent"].as_u64().unwrap_or(0));
        let open = || File::options().append(true).open(&report).expect("the report is there");
        let mut file = file.get_or_init(open);
        file.write_all(format!("{took}\n").as_bytes()).expect("the bench reads");
        Ok(payload)
    });
    let server = server.start().expect("a server");
    println!("threadq listening on http://{}", server.addr());
    // Wait until the bench closes stdin.
    let _ = std::io::stdin().lock().lines().count();
    let (_, hurry) = crossbeam_channel::bounded(0);
    server.shut_down(&hurry);
    true
}
