//! The torture bench: servers and Redis are killed, frozen and filled up under load, and afterwards every job is
//! accounted for. `cargo bench --bench torture -- --help` says how.
//!
//! What a run does is in `rig/`, which `tests/torture.rs` uses too, for a short run.

mod rig;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rig::Plan;

const HELP: &str = "\
usage: cargo bench --bench torture -- [flags]

Starts a redis-server and several threadq servers, submits mixed jobs while it kills, freezes and disturbs them, and
accounts for every job at the end. Prints one line; exits 1 if a job is lost, stuck, or run too often.

  --jobs N             jobs to submit [20000]
  --servers N          servers at a time [3]
  --workers N          worker threads of each [8]
  --submitters N       threads that submit [4]
  --kills N            kill -9 of a server [10]
  --terms N            SIGTERM of a server [2]
  --freezes N          SIGSTOP of a server for longer than its lease, then SIGCONT [2]
  --redis-faults N     faults of Redis [5]
  --redis-kinds LIST   which, in turn [kill,stop,clients,scripts,full]
  --poison N           jobs that end their server's process [0]
  --gap SECONDS        mean time between two faults; the load is spread over all of them [3]
  --lease SECONDS      lease-timeout of the servers [2]
  --max-crashes N      max-crashes of the servers [3]
  --fsync WORD         appendfsync of Redis: always, everysec or no [always]
  --drain-limit SECONDS  how long no job may end while the queue drains in the end [120]
  --seed N             decides jobs, faults and victims [random]
  --program FILE       the threadq to torture [the one built with this bench]
  --runs N             so many runs, with seeds that follow each other [1]
  --keep               keep the folder with logs and data also after a good run
";

fn main() -> ExitCode {
    let (plan, runs) = match parse() {
        Ok(Some(plan)) => plan,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("torture: {error}");
            return ExitCode::from(2);
        }
    };
    let stop = Arc::new(AtomicBool::new(false));
    let stop_by_signal = stop.clone();
    if let Err(error) = ctrlc::set_handler(move || stop_by_signal.store(true, Ordering::Relaxed)) {
        eprintln!("torture: {error}");
    }
    let mut all_good = true;
    for number in 0..runs {
        let plan = Plan { seed: plan.seed + number, ..plan.clone() };
        match rig::run(&plan, &stop) {
            Ok(report) => {
                println!("{}\ntorture: {report}", report.details());
                all_good &= report.is_good();
            }
            Err(error) => {
                println!("torture: FAILED: {error}; seed {}", plan.seed);
                return ExitCode::FAILURE;
            }
        }
    }
    if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse() -> Result<Option<(Plan, u64)>, lexopt::Error> {
    use lexopt::prelude::{Long, ValueExt};
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_threadq"));
    let mut runs = 1;
    let mut args = lexopt::Parser::from_env();
    let seconds =
        |value: std::ffi::OsString| value.parse_with(|text| text.parse().map(Duration::from_secs_f64));
    while let Some(arg) = args.next()? {
        let Long(name) = arg else { return Err(arg.unexpected()) };
        match name.to_owned().as_str() {
            "jobs" => plan.jobs = args.value()?.parse()?,
            "servers" => plan.servers = args.value()?.parse()?,
            "workers" => plan.workers = args.value()?.parse()?,
            "submitters" => plan.submitters = args.value()?.parse()?,
            "kills" => plan.kills = args.value()?.parse()?,
            "terms" => plan.terms = args.value()?.parse()?,
            "freezes" => plan.freezes = args.value()?.parse()?,
            "redis-faults" => plan.redis_faults = args.value()?.parse()?,
            "redis-kinds" => {
                plan.redis_kinds = args.value()?.string()?.split(',').map(str::to_owned).collect()
            }
            "poison" => plan.poison = args.value()?.parse()?,
            "gap" => plan.gap = seconds(args.value()?)?,
            "lease" => plan.lease = seconds(args.value()?)?,
            "max-crashes" => plan.max_crashes = args.value()?.parse()?,
            "fsync" => plan.fsync = args.value()?.string()?,
            "drain-limit" => plan.drain_limit = seconds(args.value()?)?,
            "seed" => plan.seed = args.value()?.parse()?,
            "program" => {
                plan.program = std::path::absolute(args.value()?).map_err(|error| error.to_string())?
            }
            "runs" => runs = args.value()?.parse()?,
            "keep" => plan.keep = true,
            // What `cargo bench` says to every bench.
            "bench" => {}
            "help" => return Ok(None),
            _ => return Err(Long(name).unexpected()),
        }
    }
    Ok(Some((plan, runs)))
}
