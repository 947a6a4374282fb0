//! The torture bench: kills, freezes and fills servers and Redis under load, and accounts for every job afterwards.
//! `cargo bench --bench torture -- --help` lists the flags.
//!
//! A run is implemented in `rig/`. `tests/torture.rs` uses `rig/` too, for a short run.

mod rig;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rig::Plan;

const HELP: &str = "\
usage: cargo bench --bench torture -- [flags]

Starts a redis-server and several threadq servers, submits mixed jobs while it kills, freezes and disturbs the servers
and Redis, and accounts for every job at the end. Prints the faults and one line of totals. Exits 1 if a job is lost,
stuck, or run too often.

  --jobs N             jobs to submit [20000]
  --servers N          servers that run at a time [3]
  --workers N          worker threads of each server [8]
  --pullers N          pull workers [4]
  --submitters N       threads that submit [4]
  --kills N            SIGKILLs of a server [10]
  --terms N            SIGTERMs of a server [2]
  --freezes N          SIGSTOPs of a server for longer than its lease, each followed by SIGCONT [2]
  --redis-faults N     faults of Redis [5]
  --redis-kinds LIST   kinds of these faults, used in turn [kill,stop,clients,scripts,full]
  --poison N           jobs that end their server's process [0]
  --gap SECONDS        mean time between two faults; the load lasts as long as all faults [3]
  --lease SECONDS      lease-timeout of the servers [2]
  --max-crashes N      max-crashes of the servers [3]
  --fsync WORD         appendfsync of Redis: always, everysec or no [always]
  --drain-limit SECONDS  the longest time without any job ending in the final drain [120]
  --seed N             seed of the jobs, the faults and their victims [random]
  --program FILE       the threadq to torture [the one built with this bench]
  --runs N             number of runs, with consecutive seeds [1]
  --keep               keep the folder with logs and data after a good run too
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
            "pullers" => plan.pullers = args.value()?.parse()?,
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
            // `cargo bench` passes this flag to every bench.
            "bench" => {}
            "help" => return Ok(None),
            _ => return Err(Long(name).unexpected()),
        }
    }
    Ok(Some((plan, runs)))
}
