//! threadq beside other job queues: BullMQ, rusty-sidekiq, apalis-redis, Dramatiq, Celery, RQ and Sidekiq.
//!
//!     cargo bench --bench peers -- --rounds 3
//!
//! `bench/peers/install` installs each peer on first use, pinned by a lock file, into a folder below bench/peers. All
//! peers get the same jobs at the same concurrency on a redis-server with the same settings. Each run of a peer follows
//! a run of threadq, so that a slow moment of the machine affects both. Progress goes to stderr, the tables to stdout.

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
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use figures::{Figure, Figures};
use limit::Limit;
use peer::{PEERS, Peer};
use plan::Plan;
use table::{Pair, Row, number};

const HELP: &str = "\
usage: cargo bench --bench peers -- [flags]

Measures threadq and its peers in turn and prints tables in Markdown: the figures, and threadq's divided by each peer's.

  --rounds N        runs of each program [3]
  --jobs N          jobs per run; slow peers get fewer [50000]
  --workers N       jobs that run at a time [30]
  --payload BYTES   payload of each job [100]
  --lone N          lone jobs per run, for the latency [300]
  --idle SECONDS    how long idle workers are measured [5]
  --only LIST       peers to measure [bullmq,rusty-sidekiq,apalis,dramatiq,celery,rq,sidekiq]
  --aof             Redis with an append-only file, synced every second; without this flag Redis keeps no data on disk
  --hash-max-listpack-value BYTES  this setting of Redis [Redis's default]; the private Redis of threadq has 1024
  --limit SECONDS   time limit of each phase of a run [180]
  --program FILE    the threadq to measure [the one built with this bench]
";

struct Flags {
    plan: Plan,
    rounds: usize,
    limit: Duration,
    peers: Vec<&'static Peer>,
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
    let mut rows = Vec::new();
    for &peer in &flags.peers {
        match peer.install(stop) {
            Ok(()) => rows.push(Row { peer, pairs: Vec::new() }),
            Err(error) => note(format!("{} is left out: {error}", peer.label)),
        }
    }
    let folder = common::folder("peers");
    for round in 1..=flags.rounds {
        for row in &mut rows {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let limit = Limit::new(flags.limit, stop.clone());
            let mut report = |label: &str, start: Instant, (figures, errors): (Figures, Vec<String>)| {
                eprintln!(
                    "round {round}: {label}: {} ({:.0} s)",
                    in_short(&figures),
                    start.elapsed().as_secs_f64()
                );
                for error in errors {
                    note(format!("round {round}, {label}: {error}"));
                }
                figures
            };
            let start = Instant::now();
            let ours = report("threadq", start, ours::measure(&flags.plan, folder.path(), &limit));
            let start = Instant::now();
            let theirs = measure::peer(row.peer, &flags.plan, folder.path(), &limit);
            let peer = report(row.peer.label, start, theirs);
            row.pairs.push(Pair { ours, peer });
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
        ("drain", Figure::Drain),
        ("one", Figure::One),
        ("concurrent", Figure::Concurrent),
        ("bulk", Figure::Bulk),
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
            jobs: 50_000,
            workers: 30,
            payload: 100,
            lone: 300,
            idle: Duration::from_secs(5),
            aof: false,
            listpack_value: None,
            program: PathBuf::from(env!("CARGO_BIN_EXE_threadq")),
        },
        rounds: 3,
        limit: Duration::from_secs(180),
        peers: PEERS.iter().collect(),
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
                let named =
                    |name| PEERS.iter().find(|peer| peer.name == name).ok_or(format!("unknown peer {name}"));
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
