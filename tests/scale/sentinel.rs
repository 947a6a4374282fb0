//! A master that Sentinels watch dies, hangs, is replaced or comes back, while two servers take jobs. An accepted job is
//! never lost, and each request is answered in time.

use crate::common::node::Node;
use crate::common::sentinels::{Sentinels, Setup, dead_address};
use crate::common::*;
use crate::forwarder::silent_address;
use crate::load::{Load, assert_all_there_but_the_last, assert_sound, lost, two_servers};

/// The number of further accepted submissions after which all is well again.
const SOME: usize = 50;

/// Kills the master under load; afterwards jobs are accepted by its successor, and none is lost.
#[track_caller]
fn survives_a_kill(all: &Sentinels, url: &str) {
    let servers = two_servers(url);
    let load = Load::start(&servers.each_ref());
    load.wait_for(SOME, "before the kill");
    let old = all.master();
    let fault = Instant::now();
    old.kill9();
    all.wait_until_promoted(old);
    load.wait_for(SOME, "after the kill");
    assert_all_there_but_the_last(&servers[0], url, &load.stop(), fault);
}

#[test]
fn a_killed_master_comes_back_as_master_and_gets_no_job() {
    let all = Sentinels::start();
    let url = all.url();
    let servers = two_servers(&url);
    let load = Load::start(&servers.each_ref());
    load.wait_for(SOME, "before the kill");
    let old = all.master();
    let fault = Instant::now();
    old.kill9();
    let new = all.wait_until_promoted(old);
    load.wait_for(SOME, "after the kill");
    // Its file still says that it is a master. The Sentinels make it a replica some seconds later.
    old.start();
    assert!(old.is_master(), "the Sentinels were faster than this test");
    all.wait_until_ready();
    load.wait_for(SOME, "after the former master is a replica");
    assert_all_there_but_the_last(&servers[0], &url, &load.stop(), fault);
    for server in &servers {
        let log = server.log_text();
        assert!(log.contains(&format!("Redis has moved to {}", new.address())), "{log}");
        assert!(log.lines().filter(|line| line.contains("edis")).count() <= 14, "{log}");
        assert_eq!(server.metric("threadq_redis_failovers_total"), 1.0);
    }
}

/// The mutant: a plain URL of the master. What the former master accepts, while it is back, is lost.
#[test]
fn a_plain_url_of_a_master_that_sentinels_watch_loses_jobs() {
    let all = Sentinels::start_with(Setup { info_period: secs(3), ..Setup::default() });
    let old = all.master();
    let server = TestServer::builder().flag("redis-url", &old.url()).start();
    server.wait_until_ready();
    let load = Load::start(&[&server]);
    load.wait_for(SOME, "before the kill");
    old.kill9();
    all.wait_until_promoted(old);
    old.start();
    load.wait_for(10, "by the former master");
    eventually(LIMIT, "the former master is a replica in sync", || old.is_replica_in_sync());
    let accepted = load.stop();
    assert!(lost(&server, &accepted).len() >= 10, "the test of the former master cannot fail");
}

#[test]
fn a_master_that_hangs_is_left_and_the_first_sentinels_are_dead_and_silent() {
    let all = Sentinels::start();
    let mut sentinels = vec![silent_address(), dead_address()];
    sentinels.extend(all.sentinels.iter().map(Node::address));
    let url = all.url_with("", &sentinels);
    let servers = two_servers(&url);
    let load = Load::start(&servers.each_ref());
    load.wait_for(SOME, "before the stop");
    let old = all.master();
    let fault = Instant::now();
    old.pause();
    all.wait_until_promoted(old);
    load.wait_for(SOME, "after the stop");
    old.resume();
    eventually(LIMIT, "the former master is a replica", || !old.is_master());
    load.wait_for(SOME, "after the former master goes on");
    assert_all_there_but_the_last(&servers[0], &url, &load.stop(), fault);
    for mut server in servers {
        assert_eq!(server.stop(LIMIT), Some(0), "{}", server.log_text());
    }
}

#[test]
fn a_planned_failover_loses_only_what_the_old_master_accepted_before_the_sentinels_told_of_it() {
    let all = Sentinels::start();
    let url = all.url();
    let servers = two_servers(&url);
    // So each server is told of the failover. One that had to ask would learn of it up to 2 s later.
    let listeners = |sentinel: &Node| {
        let clients: String = sentinel.query(&["CLIENT", "LIST", "TYPE", "pubsub"]);
        clients.lines().filter(|client| client.contains(" sub=1 ")).count()
    };
    eventually(LIMIT, "each server listens to each Sentinel", || {
        all.sentinels.iter().all(|sentinel| listeners(sentinel) == servers.len())
    });
    let load = Load::start(&servers.each_ref());
    load.wait_for(SOME, "before the failover");
    let begin = Instant::now();
    let old = all.master();
    all.fail_over();
    all.wait_until_promoted(old);
    let told = Instant::now();
    load.wait_for(SOME, "after the failover");
    all.wait_until_ready();
    load.wait_for(SOME, "after the former master is a replica");
    let accepted = load.stop();
    assert_sound(&servers[0], &url);
    // On a busy machine the replica may be promoted before it has read what the master has sent, and a server may hear of the
    // failover late.
    for (id, at) in lost(&servers[0], &accepted) {
        assert!(at + secs(1) > begin, "job {id} was lost, and accepted {:?} before the failover", begin - at);
        let after = at.saturating_duration_since(told);
        assert!(
            after < secs(2),
            "job {id} was accepted by the old master {after:?} after all knew the new one"
        );
    }
}

#[test]
fn while_no_sentinel_answers_the_last_known_master_is_used() {
    let all = Sentinels::start();
    let url = all.url();
    let servers = two_servers(&url);
    let master = all.master();
    all.sentinels.iter().for_each(Node::kill9);
    let load = Load::start(&servers.each_ref());
    load.wait_for(SOME, "without Sentinels");
    // New connections lead there too.
    master.query::<u64>(&["CLIENT", "KILL", "TYPE", "normal"]);
    load.wait_for(SOME, "on new connections");
    for server in &servers {
        eventually(LIMIT, "the log says it", || server.log_text().contains("no Sentinel answers"));
    }
    let lost = lost(&servers[0], &load.stop());
    assert!(lost.is_empty(), "{lost:?}");
    // A Redis that was started again may have been replaced meanwhile.
    master.kill9();
    master.start();
    for server in &servers {
        eventually(LIMIT, "it is not used", || server.get("/readyz").status == 503);
        holds_for(secs(2), "it is not used", || {
            server.post("/jobs", &json!({"type": "echo"})).status == 503 && server.get("/jobs").status == 503
        });
    }
    all.start_sentinels();
    for server in &servers {
        eventually(LIMIT, "the Sentinels name it again", || {
            server.post("/jobs", &json!({"type": "echo"})).status == 202
        });
    }
    assert_sound(&servers[0], &url);
}

#[test]
fn sentinels_and_redis_with_passwords() {
    let setup = Setup {
        sentinel_password: Some("of-sentinels".to_owned()),
        redis_password: Some("of-redis".to_owned()),
        ..Setup::default()
    };
    let all = Sentinels::start_with(setup);
    let addresses: Vec<String> = all.sentinels.iter().map(Node::address).collect();
    let url = all.url_with("?sentinel_password=of-sentinels", &addresses);
    survives_a_kill(&all, &url.replace("://", "://:of-redis@"));
}

#[test]
fn sentinels_that_name_the_master_by_its_host_name() {
    let all = Sentinels::start_with(Setup { host: "localhost".to_owned(), ..Setup::default() });
    survives_a_kill(&all, &all.url());
}

/// A user of the Sentinels who may not listen.
#[test]
fn servers_that_may_not_listen_to_the_sentinels_ask_them() {
    let all = Sentinels::start_with(Setup {
        // The Sentinels make the former master a replica late.
        info_period: secs(10),
        sentinel_settings: "user deaf on >secret -@all +sentinel|get-master-addr-by-name\n".to_owned(),
        ..Setup::default()
    });
    let addresses: Vec<String> = all.sentinels.iter().map(Node::address).collect();
    let url = all.url_with("?sentinel_username=deaf&sentinel_password=secret", &addresses);
    let servers = two_servers(&url);
    let load = Load::start(&servers.each_ref());
    load.wait_for(SOME, "before the failover");
    let old = all.master();
    all.fail_over();
    all.wait_until_promoted(old);
    for server in &servers {
        eventually(LIMIT, "it asks", || server.log_text().contains("the Sentinels name another master"));
        assert!(server.log_text().contains("refuses to tell failovers at once"), "{}", server.log_text());
    }
    assert!(old.is_master(), "the servers may have learned of the failover by the end of the former master");
    let asked = Instant::now();
    load.wait_for(SOME, "after the failover");
    let accepted = load.stop();
    assert_sound(&servers[0], &url);
    let lost = lost(&servers[0], &accepted);
    assert!(lost.iter().all(|(_, at)| *at < asked + secs(1)), "asked at {asked:?}: {lost:?}");
}

#[test]
fn a_server_starts_and_ends_while_no_sentinel_answers() {
    let all = Sentinels::start();
    all.sentinels.iter().for_each(Node::kill9);
    let start = || TestServer::builder().flag("redis-url", &all.url()).start();
    let (server, mut other) = (start(), start());
    for reply in [server.post("/jobs", &json!({"type": "echo"})), server.get("/jobs"), server.get("/readyz")]
    {
        let reason = reply.expect_error(503, "store_unavailable", "no Sentinel");
        assert!(reason.contains("Sentinel"), "{reason}");
    }
    assert_eq!(other.stop(LIMIT), Some(0), "{}", other.log_text());
    all.start_sentinels();
    server.wait_until_ready();
    server.complete("echo", json!(1));
}
