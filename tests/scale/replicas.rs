//! With `redis-replicas` no acknowledged job is lost in a failover that loses jobs without the setting.

use crate::common::sentinels::Sentinels;
use crate::common::*;
use crate::load::Load;

/// The number of further acknowledged jobs after which all is well.
const SOME: usize = 50;

fn server_with(all: &Sentinels, replicas: &str) -> TestServer {
    let server = TestServer::builder().flag("redis-url", &all.url()).flag("redis-replicas", replicas).start();
    server.wait_until_ready();
    server
}

#[track_caller]
fn assert_all_complete(server: &TestServer, acknowledged: &[(u64, Instant)]) {
    for (id, _) in acknowledged {
        server.wait_for_status(*id, "completed");
    }
}

#[test]
fn a_master_that_dies_without_its_replicas_takes_no_acknowledged_job_with_it() {
    let all = Sentinels::start();
    let server = server_with(&all, "1");
    let load = Load::start(&[&server]);
    load.wait_for(SOME, "with replicas");
    let master = all.master();
    master.cut_replicas();
    let cut = Instant::now();
    eventually(LIMIT, "it is noticed", || server.log_text().contains("only 0 of 1 replicas have them"));
    master.kill9();
    let killed = Instant::now();
    all.wait_until_promoted(master);
    load.wait_for(SOME, "by the new master");
    let acknowledged = load.stop();
    // The last submissions before the cut may be answered a moment after it.
    let while_cut = acknowledged.iter().filter(|(_, at)| *at > cut + ms(500) && *at < killed).count();
    assert_eq!(while_cut, 0, "acknowledged without a replica");
    assert_all_complete(&server, &acknowledged);
}

#[test]
fn a_planned_failover_loses_no_job_that_all_replicas_have() {
    let all = Sentinels::start();
    let server = server_with(&all, "2");
    let load = Load::start(&[&server]);
    load.wait_for(SOME, "before the failover");
    let master = all.master();
    all.fail_over();
    all.wait_until_promoted(master);
    // The former master is a replica again.
    all.wait_until_ready();
    load.wait_for(SOME, "after the failover");
    assert_all_complete(&server, &load.stop());
}
