//! The rows with a Cluster.

use std::time::{Duration, Instant};

use super::sentinel::{is_within, promotion};
use super::stage::{Fault, Stage, Verdict, print};
use crate::fixture::cluster::Cluster;
use crate::fixture::{Value, json, wait_until_quiet};

const SERVERS: usize = 2;
const NODE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the load runs on after a fault.
const TAIL: Duration = Duration::from_secs(12);
/// Keys of the slot that is moved, before the load.
const KEYS: usize = 10_000;
/// A step of the move: so many keys, and a pause.
const STEP: (usize, Duration) = (250, Duration::from_millis(20));

/// Three masters with a replica each, two servers, and the slot of their keys.
fn start() -> (Cluster, Stage, u16) {
    let cluster = Cluster::start(3, 1, NODE_TIMEOUT);
    let stage = Stage::start(&cluster.url(), SERVERS, &[]);
    let slot = cluster.slot("threadq");
    (cluster, stage, slot)
}

pub fn killed(rate: f64) -> bool {
    let (cluster, stage, slot) = start();
    let figures = stage.measure(rate, || {
        let owner = cluster.owner(slot);
        let replica = cluster.replica_of(owner);
        let at = Instant::now();
        owner.kill9();
        let fault = Fault { at, over: Some(promotion([replica].into_iter())) };
        fault.wait(Duration::from_secs(6));
        owner.start();
        fault.wait(TAIL);
        fault
    });
    let mut verdict = Verdict::default();
    verdict.expect("first 202 <= 1 s", is_within(figures.first, 1.0));
    verdict.expect("0 lost", figures.account.lost.is_empty());
    verdict.expect("12 log lines", figures.log_lines.iter().all(|lines| *lines <= 12));
    print("Cluster: owner killed, back after 6 s", "first 202 ≤ 1 s, 0 lost", &figures, verdict)
}

pub fn planned(rate: f64) -> bool {
    let (cluster, stage, slot) = start();
    let figures = stage.measure(rate, || {
        let replica = cluster.replica_of(cluster.owner(slot));
        let at = Instant::now();
        replica.query::<()>(&["CLUSTER", "FAILOVER"]);
        let fault = Fault { at, over: Some(promotion([replica].into_iter())) };
        fault.wait(TAIL);
        fault
    });
    let mut verdict = Verdict::default();
    verdict.expect("gap <= 0.3 s", figures.gap <= Duration::from_millis(300));
    verdict.expect("0 lost", figures.account.lost.is_empty());
    verdict.expect("0 twice", figures.account.twice.is_empty());
    print("Cluster: CLUSTER FAILOVER", "gap ≤ 0.3 s, 0 lost, 0 twice", &figures, verdict)
}

pub fn moved(rate: f64) -> bool {
    let (cluster, stage, slot) = start();
    let jobs = vec![json!({"type": "echo"}); 500];
    for _ in 0..KEYS / jobs.len() {
        stage.servers[0].submit_batch(&jobs);
    }
    wait_until_quiet(&stage.servers[0], Duration::from_secs(60));
    let mut keys = 0;
    let figures = stage.measure(rate, || {
        let (owner, other) = (cluster.owner(slot), cluster.another_master(slot));
        keys = owner.query(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]);
        let at = Instant::now();
        let moving = cluster.begin_move(slot, other);
        let mut moved = 0;
        // The load adds keys meanwhile, all of them to the new owner.
        while moved < keys {
            match moving.migrate(STEP.0) {
                0 => break,
                some => moved += some,
            }
            std::thread::sleep(STEP.1);
        }
        moving.finish();
        let fault = Fault { at, over: Some(Instant::now()) };
        fault.wait(TAIL);
        fault
    });
    let mut verdict = Verdict::default();
    verdict.expect("first 202 <= 1 s after the end", is_within(figures.first, 1.0));
    verdict.expect("0 lost", figures.account.lost.is_empty());
    let queued: Value = stage.servers[0].counts();
    verdict.expect("0 stranded", queued["queued"] == 0 && queued["scheduled"] == 0);
    let name =
        format!("Cluster: slot of {keys} keys moved in steps of {} (promoted: end of the move)", STEP.0);
    print(&name, "0 lost, 0 stranded, first 202 ≤ 1 s after its end", &figures, verdict)
}
