//! A short run of the torture bench: killed and frozen servers and a killed Redis lose nothing.

#[path = "../bench/torture/rig/mod.rs"]
mod rig;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rig::Plan;

#[test]
fn kills_freezes_and_a_dead_redis_lose_no_job() {
    let plan = Plan {
        jobs: 1_500,
        workers: 6,
        kills: 4,
        terms: 1,
        freezes: 1,
        redis_faults: 1,
        gap: Duration::from_millis(1_800),
        drain_limit: Duration::from_secs(60),
        ..Plan::new(env!("CARGO_BIN_EXE_threadq"))
    };
    let report = rig::run(&plan, &AtomicBool::new(false)).unwrap();
    println!("{}\n{report}", report.details());
    assert!(report.is_good(), "{report}");
}
