//! The rows with Sentinels.

use std::time::{Duration, Instant};

use super::stage::{Fault, Stage, Verdict, print};
use crate::fixture::node::Node;
use crate::fixture::sentinels::{Sentinels, Setup};
use crate::fixture::until_some;

/// Servers in every row.
const SERVERS: usize = 2;
/// How long the load runs on after a fault.
const TAIL: Duration = Duration::from_secs(12);
/// On a busy machine the Sentinels may need several elections.
const PROMOTION_LIMIT: Duration = Duration::from_secs(120);
/// When a master that was killed or stopped is back.
const BACK_AFTER: Duration = Duration::from_secs(6);

/// A master with two replicas, and three Sentinels with the intervals of real life.
fn sentinels() -> Sentinels {
    Sentinels::start_with(Setup {
        down_after: Duration::from_secs(1),
        failover_timeout: Duration::from_secs(10),
        info_period: Duration::from_secs(10),
        ..Setup::default()
    })
}

/// When one of these nodes became a master.
pub fn promotion<'a>(replicas: impl Iterator<Item = &'a Node>) -> Instant {
    let replicas: Vec<&Node> = replicas.collect();
    until_some(PROMOTION_LIMIT, "a replica is promoted", || {
        replicas.iter().any(|node| node.is_master()).then(Instant::now)
    })
}

pub fn killed(rate: f64) -> bool {
    dies("Sentinel: master killed, back after 6 s", rate, Node::kill9, Node::start)
}

pub fn stopped(rate: f64) -> bool {
    dies("Sentinel: master stopped (SIGSTOP) for 6 s", rate, Node::pause, Node::resume)
}

fn dies(name: &str, rate: f64, dies: impl Fn(&Node), returns: impl Fn(&Node)) -> bool {
    let sentinels = sentinels();
    let stage = Stage::start(&sentinels.url(), SERVERS, &[]);
    let figures = stage.measure(rate, || {
        let master = sentinels.master();
        let at = Instant::now();
        dies(master);
        let fault = Fault { at, over: Some(promotion(sentinels.others(master))) };
        fault.wait(BACK_AFTER);
        returns(master);
        fault.wait(TAIL);
        fault
    });
    let mut verdict = Verdict::default();
    verdict.expect("first 202 <= 2 s", is_within(figures.first, 2.0));
    verdict.expect("0 lost", figures.account.lost.is_empty());
    verdict.expect("12 log lines", figures.log_lines.iter().all(|lines| *lines <= 12));
    print(name, "first 202 ≤ 2 s, 0 lost", &figures, verdict)
}

/// Whether every server accepted a job within these seconds.
pub fn is_within(first: Option<Option<Duration>>, seconds: f64) -> bool {
    first.flatten().is_some_and(|first| first.as_secs_f64() <= seconds)
}

pub fn planned(rate: f64) -> bool {
    planned_with(rate, "0")
}

pub fn planned_replicated(rate: f64) -> bool {
    planned_with(rate, "2")
}

fn planned_with(rate: f64, replicas: &str) -> bool {
    let sentinels = sentinels();
    let stage = Stage::start(&sentinels.url(), SERVERS, &replicas_setting(replicas));
    let figures = stage.measure(rate, || {
        let master = sentinels.master();
        let at = Instant::now();
        sentinels.fail_over();
        let fault = Fault { at, over: Some(promotion(sentinels.others(master))) };
        // Until the former master is a replica again: before that too few replicas have a new job.
        fault.wait(TAIL + Duration::from_secs(13));
        fault
    });
    let mut verdict = Verdict::default();
    verdict.expect("12 log lines", figures.log_lines.iter().all(|lines| *lines <= 12));
    let lost = figures.account.lost.len();
    let name = format!("Sentinel: SENTINEL FAILOVER, redis-replicas {replicas}");
    if replicas == "0" {
        verdict.expect("lost <= 1.5 s of the load", lost as f64 <= 1.5 * rate);
        return print(&name, "lost ≤ 1.5 s of the load", &figures, verdict);
    }
    verdict.expect("0 lost", lost == 0);
    verdict.expect("accepts jobs again", figures.first.is_some_and(|first| first.is_some()));
    print(&name, "0 lost", &figures, verdict)
}

fn replicas_setting(replicas: &str) -> Vec<(&str, &str)> {
    if replicas == "0" { Vec::new() } else { vec![("redis-replicas", replicas)] }
}

pub fn cut(rate: f64) -> bool {
    cut_with(rate, "0")
}

pub fn cut_replicated(rate: f64) -> bool {
    cut_with(rate, "1")
}

fn cut_with(rate: f64, replicas: &str) -> bool {
    let sentinels = sentinels();
    let stage = Stage::start(&sentinels.url(), SERVERS, &replicas_setting(replicas));
    let mut cut_at = None;
    let figures = stage.measure(rate, || {
        let master = sentinels.master();
        cut_at = Some(Instant::now());
        master.cut_replicas();
        std::thread::sleep(Duration::from_secs(3));
        let at = Instant::now();
        master.kill9();
        let fault = Fault { at, over: Some(promotion(sentinels.others(master))) };
        fault.wait(TAIL);
        fault
    });
    let accepted = &figures.account.accepted;
    let cut_at = cut_at.expect("the fault has happened");
    let between =
        accepted.iter().filter(|answer| answer.at >= cut_at && answer.at < figures.fault.at).count();
    let mut verdict = Verdict::default();
    let name = format!(
        "Sentinel: replicas cut off 3 s before the master is killed ({between} acked meanwhile), redis-replicas {replicas}"
    );
    if replicas == "0" {
        return print(&name, "for comparison", &figures, verdict);
    }
    verdict.expect("0 lost", figures.account.lost.is_empty());
    verdict.expect("accepts jobs again", figures.first.is_some_and(|first| first.is_some()));
    print(&name, "0 lost", &figures, verdict)
}
