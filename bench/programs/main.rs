//! Programs that are started for each attempt, and programs that stay: their rates beside that of a handler in Rust.

#[path = "../common/mod.rs"]
mod common;

use std::path::Path;
use std::process::Command;

use common::client::{load, request};
use common::drain::{Drain, done};
use common::process::usage;
use common::{BenchRedis, Rounds, Server, flag, flags, folder, list, payload, print_setup};

const HELP: &str = "\
usage: cargo bench --bench programs -- [flags]

Drains jobs whose handlers return their payload: the handler `echo` in Rust, and programs in C, Python and Node, which are
started for each attempt (once) or stay (lines). Prints for each: the rate, the µs of processor time of the server per
job, and the rate divided by that of `echo`. Needs cc, python3 and node.

  --only LIST      the cases to measure [echo,c-once,c-lines,python-once,python-lines,node-once,node-lines]
  --jobs N         jobs per round; programs that are started for each attempt get a hundredth [30000]
  --payload BYTES  payload of each job [100]
  --workers N      worker threads, and programs of each handler [8]
  --rounds N       rounds, each of which measures all cases [5]
  --aof WORD       Redis's append-only file: off, everysec or always [off]
  --program FILE   the threadq to measure [the one built with this bench]
";

const CASES: [&str; 7] =
    ["echo", "c-once", "c-lines", "python-once", "python-lines", "node-once", "node-lines"];
/// How many jobs one request submits.
const BATCH: usize = 100;

fn main() {
    flags::check(HELP);
    let cases = list("only", &CASES.map(str::to_owned));
    let folder = folder("programs");
    let config = write_config(folder.path());
    let mut redis = BenchRedis::start("programs");
    print_setup();
    let mut figures = vec![(Rounds::default(), Rounds::default()); cases.len()];
    for _ in 0..flag("rounds", 5) {
        for (case, (rates, cpu)) in cases.iter().zip(&mut figures) {
            let (rate, micros) = measure(&mut redis, case, &config);
            rates.add(rate);
            cpu.add(micros);
        }
    }
    println!("{:>14} {:>26} {:>26} {:>22}", "", "jobs/s", "server, µs of CPU per job", "of the rate of echo");
    let echo = cases.iter().position(|case| case == "echo").map(|at| figures[at].0.clone());
    for (case, (rates, cpu)) in cases.iter().zip(&figures) {
        let ratio = echo.as_ref().map(|echo| rates.ratio(echo).to_string()).unwrap_or_default();
        println!("{case:>14} {:>26} {:>26} {ratio:>22}", rates.to_string(), cpu.to_string());
    }
}

/// Compiles the program in C, and writes the configuration of all handlers. Returns the path of its file.
fn write_config(folder: &Path) -> String {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/programs");
    let binary = folder.join("echo");
    let compiled = Command::new("cc").arg("-O2").arg("-o").arg(&binary).arg(sources.join("echo.c")).status();
    assert!(compiled.is_ok_and(|status| status.success()), "cc is on PATH");
    // A wrapper on PATH, such as that of pyenv, would count as a part of the start.
    let python = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let python =
        String::from_utf8(python.expect("python3 is on PATH").stdout).expect("UTF-8").trim().to_owned();
    let source = |name: &str| sources.join(name).display().to_string();
    let mut text = String::new();
    for (language, words) in [
        ("c", vec![binary.display().to_string()]),
        ("python", vec![python, source("echo.py")]),
        ("node", vec!["node".to_owned(), source("echo.mjs")]),
    ] {
        for protocol in ["once", "lines"] {
            let mut words = words.clone();
            words.push(protocol.to_owned());
            text +=
                &format!("[handlers.{language}-{protocol}]\nexec = {words:?}\nprotocol = \"{protocol}\"\n");
        }
    }
    let file = folder.join("threadq.toml");
    std::fs::write(&file, text).expect("a configuration file");
    file.display().to_string()
}

/// Jobs per second from the first start to the last end, and the processor time of the server per job.
fn measure(redis: &mut BenchRedis, case: &str, config: &str) -> (f64, f64) {
    redis.empty();
    let jobs = flag("jobs", 30_000_usize);
    let jobs = if case.ends_with("-once") { jobs / 100 } else { jobs }.next_multiple_of(BATCH);
    let submitter = Server::start(&redis.url(), &["--queues", "other"]);
    let job = format!(r#"{{"type":"{case}","payload":{}}}"#, payload(flag("payload", 100)));
    let jobs_json = vec![job.as_str(); BATCH].join(",");
    let batch = request("POST", "/jobs/batch", &format!(r#"{{"jobs":[{jobs_json}]}}"#));
    load(submitter.addr(), 2, jobs / BATCH, &[batch]);
    submitter.stop();

    let drain = Drain::prepare(redis, &["default".to_owned()], jobs);
    let workers = flag("workers", 8).to_string();
    let server = Server::start(&redis.url(), &["--workers", &workers, "--config", config]);
    let rate = drain.rate(redis);
    assert_eq!(done(redis), jobs, "all jobs of {case} are completed");
    let micros = usage(server.pid()).cpu_ns as f64 / 1000.0 / jobs as f64;
    server.stop();
    (rate, micros)
}
