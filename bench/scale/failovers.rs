//! Many failovers in a row, and an account of every job.

use std::time::{Duration, Instant};

use super::account::{self, Account};
use super::stage::{Stage, Verdict};
use crate::common::flag;
use crate::fixture::node::Node;
use crate::fixture::sentinels::{Sentinels, Setup};

/// The kinds of failovers, by turns.
const KINDS: [&str; 3] = ["kill", "stop", "planned"];
const SERVERS: usize = 2;
const WORKERS: usize = 30;
/// Long enough that a busy machine delays no answer of a master that lives for this time: then Sentinel would replace it.
const DOWN_AFTER: Duration = Duration::from_secs(2);
/// How long a former master stays away after the promotion.
const BACK_AFTER: Duration = Duration::from_secs(1);
/// Accepted jobs that a planned failover without WAIT may lose: those of this time from its begin.
const PLANNED_WINDOW: Duration = Duration::from_millis(1_500);

struct Failover {
    kind: usize,
    at: Instant,
    promoted: Instant,
    /// When all nodes were in order again.
    over: Instant,
}

/// Runs this number of failovers under load, until at least this number of jobs is accepted.
pub fn run(number: usize, jobs: usize) -> bool {
    let sentinels = Sentinels::start_with(Setup { down_after: DOWN_AFTER, ..Setup::default() });
    let _logs = LogsOfFailure(&sentinels);
    let workers = WORKERS.to_string();
    let stage = Stage::start(&sentinels.url(), SERVERS, &[("workers", &workers)]);
    let load = stage.warm_up(flag("failover-rate", 140.0));
    let mut failovers = Vec::new();
    for turn in 0..number {
        failovers.push(fail_over(&sentinels, turn % KINDS.len()));
        eprintln!(
            "failover {} of {number}: {}, {} jobs acked",
            turn + 1,
            KINDS[turn % KINDS.len()],
            load.accepted()
        );
    }
    while load.accepted() < jobs {
        std::thread::sleep(Duration::from_millis(100));
    }
    let answers = load.stop();
    let switches = sentinels.sentinels[0].log_text().matches("+switch-master").count();
    let account = Account::of(&answers, stage.servers[0].addr(), &stage.runs);
    let doctor = stage.doctor();

    let during = |time: Instant| failovers.iter().rev().find(|failover| failover.at <= time);
    let mut verdict = Verdict::default();
    println!(
        "\n{number} failovers in {:.0} s: {} jobs acked{}",
        failovers.last().map_or(0.0, |last| (last.over - failovers[0].at).as_secs_f64()),
        account.accepted.len(),
        account.troubles()
    );
    for (kind, name) in KINDS.iter().enumerate() {
        let of_kind = || failovers.iter().filter(move |failover| failover.kind == kind);
        let lost = account.lost.iter().filter_map(|answer| Some((answer, during(answer.at)?)));
        let lost: Vec<Duration> = lost
            .filter(|(_, during)| during.kind == kind)
            .map(|(answer, during)| answer.at - during.at)
            .collect();
        let (first_lost, last_lost) = (lost.iter().min(), lost.iter().max());
        let latest = last_lost.copied().unwrap_or_default();
        let when = first_lost.zip(last_lost).map_or_else(String::new, |(first, last)| {
            format!(" (accepted {:.2} to {:.2} s after the begin)", first.as_secs_f64(), last.as_secs_f64())
        });
        let twice = |failover: &Failover| {
            let in_it = |second: Instant| during(second).is_some_and(|other| other.at == failover.at);
            account.twice.iter().filter(|(_, second)| in_it(*second)).count()
        };
        let most_twice = of_kind().map(twice).max().unwrap_or(0);
        let firsts: Vec<Option<Duration>> =
            of_kind().map(|failover| account::first_accepted(&answers, SERVERS, failover.promoted)).collect();
        let first = firsts.iter().flatten().max().copied().unwrap_or_default();
        let promoted = of_kind().map(|failover| failover.promoted - failover.at).max().unwrap_or_default();
        println!(
            "- {name}: {} times; promoted after {:.2} s at most, every server's first 202 {:.2} s after that at most; {} lost{when}, \
             at most {most_twice} run twice",
            of_kind().count(),
            promoted.as_secs_f64(),
            first.as_secs_f64(),
            lost.len(),
        );
        if *name == "planned" {
            verdict.expect("planned ones lose only their window", latest <= PLANNED_WINDOW);
        } else {
            verdict.expect(&format!("{name}: 0 lost"), lost.is_empty());
        }
        verdict.expect("run twice <= 2 x workers", most_twice <= 2 * SERVERS * WORKERS);
    }
    let refusals = account::refusals(&answers);
    let before = account.lost.iter().filter(|answer| during(answer.at).is_none()).count();
    verdict.expect("0 lost before the first one", before == 0);
    verdict.expect("nothing stuck", account.nothing_is_stuck());
    verdict.expect("doctor clean", doctor.is_none());
    verdict.expect("only 202 and 503", refusals.keys().all(|status| *status == 503));
    if switches > number {
        println!("- Sentinel replaced {} living masters by itself, as on a busy machine", switches - number);
    }
    println!(
        "- {} lost, {} run twice, {} charged with a crash in all; answers by status without 202: {refusals:?}, the slowest \
         {:.2} s; doctor: {}",
        account.lost.len(),
        account.twice.len(),
        account.charged,
        account::slowest(&answers).as_secs_f64(),
        doctor.as_deref().unwrap_or("clean"),
    );
    println!("- bar: 0 lost beyond the window of planned ones, 0 stuck, doctor clean: {}", verdict.text());
    if !verdict.is_good() {
        for server in &stage.servers {
            eprintln!("--- log of the server on {}\n{}", server.addr(), server.log_text());
        }
    }
    verdict.is_good()
}

fn fail_over(sentinels: &Sentinels, kind: usize) -> Failover {
    let master = sentinels.master();
    let at = Instant::now();
    match KINDS[kind] {
        "kill" => master.kill9(),
        "stop" => master.pause(),
        _ => sentinels.fail_over(),
    }
    let promoted = super::sentinel::promotion(sentinels.others(master));
    sentinels.wait_until_promoted(master);
    std::thread::sleep(BACK_AFTER);
    match KINDS[kind] {
        "kill" => Node::start(master),
        "stop" => master.resume(),
        _ => {}
    }
    sentinels.wait_until_ready();
    Failover { kind, at, promoted, over: Instant::now() }
}

/// Prints the logs of the Sentinels when the bench fails.
struct LogsOfFailure<'a>(&'a Sentinels);

impl Drop for LogsOfFailure<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in self.0.sentinels.iter().chain(&self.0.nodes) {
                eprintln!("--- log of {}\n{}", node.address(), node.log_text());
            }
        }
    }
}
