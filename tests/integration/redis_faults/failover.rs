//! Another Redis becomes the master, and the former master refuses writes.

use super::fixture::{Scene, assert_takes_nothing_new};
use super::proxy::Proxy;
use crate::common::*;

/// A Redis with a TCP port, and the arguments of REPLICAOF for it.
pub fn reachable() -> (TestRedis, [String; 2]) {
    let port = node::free_port().to_string();
    let redis =
        TestRedis::start_with(&["--port", &port, "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0"]);
    (redis, ["127.0.0.1".to_owned(), port])
}

/// Makes a Redis a replica, and waits until it has all data of its master.
#[track_caller]
pub fn follow(replica: &TestRedis, [host, port]: &[String; 2]) {
    replica.query::<()>(&["REPLICAOF", host, port]);
    eventually(LIMIT, "the replica is in sync", || {
        let info = replica.try_query::<String>(&["INFO", "replication"]).unwrap_or_default();
        info.contains("master_link_status:up")
    });
}

fn become_master(redis: &TestRedis) {
    redis.query::<()>(&["REPLICAOF", "NO", "ONE"]);
}

/// Waits until the replica has all data of its master.
fn wait_for_copy(master: &TestRedis, replica: &TestRedis) {
    let offset = |redis: &TestRedis| {
        let facts: String = redis.query(&["INFO", "replication"]);
        facts.lines().find_map(|line| line.strip_prefix("master_repl_offset:").map(str::to_owned))
    };
    eventually(LIMIT, "the replica has everything", || offset(master) == offset(replica));
}

/// A server with running jobs on a master, and a replica that has all data of the master.
struct Pair {
    fixture: Scene,
    /// The arguments of REPLICAOF for the master.
    first: [String; 2],
    replica: TestRedis,
    /// The arguments of REPLICAOF for the replica.
    second: [String; 2],
}

impl Pair {
    fn start() -> Pair {
        let (redis, first) = reachable();
        let (replica, second) = reachable();
        follow(&replica, &first);
        let url = redis.url();
        let fixture = Scene::on(redis, &url);
        wait_for_copy(&fixture.redis, &replica);
        Pair { fixture, first, replica, second }
    }
}

#[test]
fn to_a_replica_and_back() {
    let Pair { fixture, first, replica: other, second } = Pair::start();
    become_master(&other);
    follow(&fixture.redis, &second);
    assert_takes_nothing_new(&fixture.server, "READONLY");
    fixture.running_jobs_end();
    wait_for_copy(&other, &fixture.redis);
    become_master(&fixture.redis);
    follow(&other, &first);
    fixture.all_is_well_again(false);
    let said = fixture.said().join("\n");
    assert_eq!(said.matches("Redis refuses writes").count(), 1, "{said}");
    eventually(secs(15), "the end of it is said", || {
        fixture.said().join("\n").contains("Redis accepts writes again")
    });
    // The replica may have been loading its master's data for a moment.
    assert!((2..=4).contains(&fixture.said().len()), "{:#?}", fixture.said());
}

#[test]
fn new_connections_lead_to_the_new_master_and_old_ones_are_left() {
    let (redis, first) = reachable();
    let (other, _) = reachable();
    follow(&other, &first);
    let proxy = Proxy::to(&redis);
    let url = proxy.url();
    let mut fixture = Scene::on(redis, &url);
    // Open many connections to the first master.
    std::thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(|| fixture.server.get("/jobs?limit=100").expect(200));
        }
    });
    wait_for_copy(&fixture.redis, &other);
    // The old master is cut off from the new one: its data is stale.
    fixture.redis.query::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    become_master(&other);
    proxy.lead_to(&other);
    let begin = Instant::now();
    fixture.server.wait_until_ready();
    let id = fixture.server.submit_job(json!({"type": "echo", "queue": "maybe"}));
    assert!(begin.elapsed() < secs(15), "moved after {:?}", begin.elapsed());
    // At the latest a heartbeat detects the old master; until then a read may still go there.
    eventually(LIMIT, "it is noticed", || {
        fixture.said().iter().any(|line| line.contains("accepts writes again"))
    });
    // An old connection that stays in the pool would return stale data to some of these reads.
    eventually(LIMIT, "80 reads in a row come from the new master", || {
        (0..10).all(|_| {
            std::thread::scope(|scope| {
                let read = || fixture.server.get(&format!("/jobs/{id}")).status == 200;
                let reads: Vec<_> = (0..8).map(|_| scope.spawn(read)).collect();
                reads.into_iter().all(|read| read.join().expect("no panic"))
            })
        })
    });
    let _old = std::mem::replace(&mut fixture.redis, other);
    fixture.all_is_well_again(true);
    fixture.assert_said(&["ERROR Redis refuses writes: ", "INFO  Redis accepts writes again after "]);
}

#[test]
fn killed_and_back_as_a_replica() {
    let Pair { fixture, replica: other, second, .. } = Pair::start();
    fixture.redis.kill9();
    become_master(&other);
    fixture.redis.launch(&["--replicaof", &second[0], &second[1]]);
    eventually(LIMIT, "it answers reads", || fixture.server.get("/jobs").status == 200);
    assert_takes_nothing_new(&fixture.server, "READONLY");
    fixture.running_jobs_end();
    eventually(LIMIT, "in sync", || {
        fixture.redis.query::<String>(&["INFO", "replication"]).contains("master_link_status:up")
    });
    become_master(&fixture.redis);
    fixture.all_is_well_again(false);
    eventually(secs(15), "the end of it is said", || {
        fixture.said().join("\n").contains("Redis accepts writes again")
    });
    let said = fixture.said().join("\n");
    for line in ["Redis refuses writes", "Redis accepts writes again"] {
        assert_eq!(said.matches(line).count(), 1, "{said}");
    }
    assert!(
        said.matches("ERROR Redis is unavailable").count() <= 2,
        "killed, and then perhaps seen while it loads: {said}"
    );
}
