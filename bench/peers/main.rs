//! threadq beside threadq 0.4.0 and other job queues: BullMQ, rusty-sidekiq, apalis-redis, Dramatiq, Celery, RQ and
//! Sidekiq.
//!
//!     cargo bench --bench peers -- --rounds 3
//!
//! `bench/peers/install` installs each peer on first use, pinned by a lock file, into a folder below bench/peers. All
//! peers get the same jobs at the same concurrency on a redis-server with the same settings. In each round all programs
//! run one after the other, so that a slow hour of the machine affects all of them. Progress goes to stderr, the tables
//! to stdout.

#[path = "../common/mod.rs"]
mod common;
mod figures;
mod limit;
mod measure;
mod ours;
mod own_redis;
mod peer;
mod plan;
mod process;
mod subject;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use figures::{Figure, Figures, Load};
use limit::Limit;
use plan::Plan;
use subject::Subject;
use table::{Row, number};

const HELP: &str = "\
usage: cargo bench --bench peers -- [flags]

Measures threadq, threadq 0.4.0 and other job queues in turn, and prints tables in Markdown: rates, CPU time per job, other
figures, and threadq's divided by each peer's. On two cores 3 rounds of all take about 15 minutes.

  --rounds N        runs of each program [3]
  --jobs N          jobs per run; slow peers get fewer [30000]
  --workers N       jobs that run at a time [30]
  --payload BYTES   payload of each job [100]
  --lone N          lone jobs per run, for the latency [200]
  --idle SECONDS    how long idle workers are measured [4]
  --only LIST       peers to measure [threadq-0.4.0,bullmq,rusty-sidekiq,apalis,dramatiq,celery,rq,sidekiq]
  --aof             Redis with an append-only file, synced every second; without this flag Redis keeps no data on disk
  --hash-max-listpack-value BYTES  this setting of Redis [Redis's default]; the private Redis of threadq has 1024
  --limit SECONDS   time limit of each phase of a run [180]
  --program FILE    the threadq to measure [the one built with this bench]
";

struct Flags {
    plan: Plan,
    rounds: usize,
    limit: Duration,
    peers: Vec<Subject>,
}

fn main() -> ExitCode {
    if ours::lone_server() {
        return ExitCode::SUCCESS;
    }
    let flags = match parse() {
        Ok(Some(flags)) => flags,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("peers: {error}");
            return ExitCode::from(2);
        }
    };
    let stop = Arc::new(AtomicBool::new(false));
    let stop_by_signal = stop.clone();
    if let Err(error) = ctrlc::set_handler(move || stop_by_signal.store(true, Ordering::Relaxed)) {
        eprintln!("peers: {error}");
    }
    process::adopt_orphans();
    let (rows, notes) = run(&flags, &stop);
    print!("{}", table::markdown(&flags.plan, flags.rounds, &rows, &notes));
    if notes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(flags: &Flags, stop: &Arc<AtomicBool>) -> (Vec<Row>, Vec<String>) {
    let mut notes = Vec::new();
    let mut note = |what: String| {
        eprintln!("peers: {what}");
        notes.push(what);
    };
    let mut rows = vec![Row { subject: Subject::Threadq, runs: Vec::new() }];
    for &subject in &flags.peers {
        match subject.install(stop) {
            Ok(()) => rows.push(Row { subject, runs: Vec::new() }),
            Err(error) => note(format!("{} is left out: {error}", subject.name())),
        }
    }
    let folder = common::folder("peers");
    for round in 1..=flags.rounds {
        for row in &mut rows {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let limit = Limit::new(flags.limit, stop.clone());
            let start = Instant::now();
            let (figures, errors) = row.subject.measure(&flags.plan, folder.path(), &limit);
            let name = row.subject.name();
            let seconds = start.elapsed().as_secs_f64();
            eprintln!("round {round}: {name}: {} ({seconds:.0} s)", in_short(&figures));
            for error in errors {
                note(format!("round {round}, {name}: {error}"));
            }
            row.runs.push(figures);
        }
    }
    if stop.load(Ordering::Relaxed) {
        note("stopped by a signal, the rounds are not complete".to_owned());
    }
    (rows, notes)
}

/// A summary for the progress line.
fn in_short(figures: &Figures) -> String {
    let named = [
        ("drain", Figure::Rate(Load::Drain)),
        ("one", Figure::Rate(Load::One)),
        ("concurrent", Figure::Rate(Load::Concurrent)),
        ("bulk", Figure::Rate(Load::Bulk)),
        ("lone p50", Figure::LoneP50),
        ("p99", Figure::LoneP99),
        ("rss", Figure::RssIdle),
        ("busy", Figure::RssBusy),
        ("bytes", Figure::Bytes),
        ("commands", Figure::IdleSent),
    ];
    let known =
        named.iter().filter_map(|(name, figure)| Some(format!("{name} {}", number(figures.get(*figure)?))));
    known.collect::<Vec<_>>().join(", ")
}

fn parse() -> Result<Option<Flags>, lexopt::Error> {
    use lexopt::prelude::{Long, ValueExt};
    let mut flags = Flags {
        plan: Plan {
            jobs: 30_000,
            workers: 30,
            payload: 100,
            lone: 200,
            idle: Duration::from_secs(4),
            aof: false,
            listpack_value: None,
            program: PathBuf::from(env!("CARGO_BIN_EXE_threadq")),
        },
        rounds: 3,
        limit: Duration::from_secs(180),
        peers: Subject::others(),
    };
    let seconds = |value: std::ffi::OsString| value.parse_with(|text| text.parse().map(Duration::from_secs));
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        let Long(name) = arg else { return Err(arg.unexpected()) };
        match name.to_owned().as_str() {
            "rounds" => flags.rounds = args.value()?.parse()?,
            "jobs" => flags.plan.jobs = args.value()?.parse()?,
            "workers" => flags.plan.workers = args.value()?.parse()?,
            "payload" => flags.plan.payload = args.value()?.parse()?,
            "lone" => flags.plan.lone = args.value()?.parse()?,
            "idle" => flags.plan.idle = seconds(args.value()?)?,
            "only" => {
                let list = args.value()?.string()?;
                let others = Subject::others();
                let named = |name| {
                    let subject = others.iter().find(|subject| subject.name() == name);
                    subject.copied().ok_or(format!("unknown peer {name}"))
                };
                flags.peers = list.split(',').map(named).collect::<Result<_, _>>()?;
            }
            "aof" => flags.plan.aof = true,
            "hash-max-listpack-value" => flags.plan.listpack_value = Some(args.value()?.parse()?),
            "limit" => flags.limit = seconds(args.value()?)?,
            "program" => {
                flags.plan.program = std::path::absolute(args.value()?).map_err(|error| error.to_string())?
            }
            // Tables are always in Markdown.
            "markdown" => {}
            // `cargo bench` passes this flag to every bench.
            "bench" => {}
            "help" => return Ok(None),
            _ => return Err(Long(name).unexpected()),
        }
    }
    if flags.plan.jobs < measure::BATCH
        || flags.plan.lone == 0
        || flags.plan.workers == 0
        || flags.rounds == 0
    {
        return Err("--jobs must be at least 100, and --lone, --workers and --rounds at least 1".into());
    }
    Ok(Some(flags))
}
