//! What happens to jobs when a Redis fails, moves or is replaced, and what several servers on one Redis cost.

mod account;
mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod failovers;
#[path = "../../tests/common/mod.rs"]
mod fixture;
mod load;
mod plain;
mod runs;
mod sentinel;
mod stage;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use common::{flag, flags, list, server};

const HELP: &str = "\
usage: cargo bench --bench scale -- [flags]

Starts Sentinels, Clusters and single Redis servers on ports of 127.0.0.1, and two threadq servers on each. Submits
jobs at a fixed rate, without Idempotency-Key, while it kills, stops, cuts off and replaces the Redis, or moves the slot.
Then looks up every job that was accepted, counts the runs of each job, and asks `threadq doctor`. Prints a table and
lines with the bars; exits 1 if a bar is missed. Takes about 8 minutes.

  --rows LIST        only these rows [all]: kill, stop, planned, planned-replicated, cut, cut-replicated, cluster-kill,
                     cluster-planned, slot, rolling, servers, size, quiet
  --rate N           POSTs a second [500]
  --rounds N         rounds of the row `servers` [3]
  --drained N        jobs of each drain of the row `servers` [30000]
  --failovers N      in place of the rows: this number of failovers in a row by kill, stop and SENTINEL FAILOVER; 50 take
                     about 5 minutes
  --jobs N           jobs that are at least accepted with --failovers [20000]
  --failover-rate N  POSTs a second with --failovers [140]
  --program FILE     the threadq to measure [the one built with this bench]
";

/// A row: whether every bar is met.
type Row = fn() -> bool;
/// A row with a load of so many POSTs a second.
type Loaded = fn(f64) -> bool;

/// The row `quiet` has several parts, which run at the same time: they wait most of the time.
const QUIET: [Row; 7] = [
    plain::killed,
    plain::frozen,
    plain::without_sentinels,
    plain::moving,
    plain::stranger,
    || plain::idle(1, 3.0),
    || plain::idle(3, 12.0),
];

fn main() -> ExitCode {
    flags::check(HELP);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{cores} cores, load {} at the start", load.split(' ').next().unwrap_or("?"));
    println!("program: {}", server::program().display());
    let failovers = flag("failovers", 0);
    let is_good = if failovers > 0 { failovers::run(failovers, flag("jobs", 20_000)) } else { rows() };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn rows() -> bool {
    let rate = flag("rate", 500.0);
    let table: [(&str, Loaded); 10] = [
        ("kill", sentinel::killed),
        ("stop", sentinel::stopped),
        ("planned", sentinel::planned),
        ("planned-replicated", sentinel::planned_replicated),
        ("cut", sentinel::cut),
        ("cut-replicated", sentinel::cut_replicated),
        ("cluster-kill", cluster::killed),
        ("cluster-planned", cluster::planned),
        ("slot", cluster::moved),
        ("rolling", plain::rolling),
    ];
    let lines: [(&str, Row); 3] = [("servers", plain::servers), ("size", size), ("quiet", quiet)];
    let all: Vec<String> =
        table.iter().map(|row| row.0).chain(lines.iter().map(|row| row.0)).map(str::to_owned).collect();
    let chosen = list("rows", &all);
    if let Some(unknown) = chosen.iter().find(|name| !all.contains(name)) {
        eprintln!("--rows: no row {unknown:?}; --help lists the rows");
        std::process::exit(2);
    }
    let is_chosen = |name: &str| chosen.iter().any(|chosen| chosen == name);
    stage::print_head();
    let mut is_good = true;
    for (name, row) in table.into_iter().filter(|(name, _)| is_chosen(name)) {
        is_good &= attempt(name, || row(rate));
    }
    println!();
    for (name, row) in lines.into_iter().filter(|(name, _)| is_chosen(name)) {
        is_good &= attempt(name, row);
    }
    is_good
}

/// Runs a row. A row that fails does not end the others.
fn attempt(name: &str, row: impl FnOnce() -> bool) -> bool {
    catch_unwind(AssertUnwindSafe(row)).unwrap_or_else(|_| {
        println!("{name}: FAILED, see above");
        false
    })
}

fn quiet() -> bool {
    std::thread::scope(|scope| {
        let parts = QUIET.map(|part| scope.spawn(move || attempt("quiet", part)));
        let results = parts.map(|part| part.join().unwrap_or(false));
        !results.contains(&false)
    })
}

fn size() -> bool {
    /// The size of the release of version 0.7, and what Sentinel and Cluster may add.
    const MOST: u64 = 4_285_632 + 60_000;
    let size = server::stripped_size();
    let is_good = size <= MOST;
    println!(
        "- size of the program, stripped: {size} bytes (bar for a release: ≤ {MOST}): {}",
        if is_good { "ok" } else { "MISSED" }
    );
    is_good
}
