//! The slot of the namespace moves, its owner dies or is replaced, and nodes leave, while two servers take jobs.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::call_proxy::CallProxy;
use crate::common::cluster::Cluster;
use crate::common::node::Node;
use crate::common::sentinels::dead_address;
use crate::common::*;
use crate::load::{Load, assert_all_there, assert_all_there_but_the_last, two_servers};

/// The number of further accepted submissions after which all is well again.
const SOME: usize = 50;

/// Submits jobs that are due while the slot moves. Returns their ids.
fn submit_delayed(server: &TestServer, last_ms: u64) -> Vec<(u64, Instant)> {
    let jobs: Vec<Value> =
        (1..=100).map(|n| json!({"type": "echo", "delay_ms": n * last_ms / 100})).collect();
    server.submit_batch(&jobs).into_iter().map(|id| (id, Instant::now())).collect()
}

#[test]
fn a_slot_moves_in_steps_and_back_while_jobs_are_due() {
    let cluster = Cluster::start(3, 0, secs(5));
    let slot = cluster.slot("threadq");
    let (from, to) = (cluster.owner(slot), cluster.another_master(slot));
    // All nodes that the URL names are dead but the last one.
    let url = cluster.url_with(&[dead_address(), dead_address(), to.address()]);
    let servers = two_servers(&url);
    let load = Load::start(&servers.each_ref());
    load.wait_for(SOME, "before the move");
    let mut accepted = submit_delayed(&servers[0], 4_000);
    let moving = cluster.begin_move(slot, to);
    std::thread::sleep(ms(1_000));
    // A part of the keys is at each node.
    moving.migrate(50);
    std::thread::sleep(ms(1_000));
    while moving.migrate(200) > 0 {
        std::thread::sleep(ms(20));
    }
    // All keys are at the new node, and the old one still owns the slot.
    std::thread::sleep(ms(500));
    moving.finish();
    load.wait_for(SOME, "at the new node");
    accepted.extend(submit_delayed(&servers[1], 500));
    cluster.move_slot(slot, from);
    load.wait_for(SOME, "at the old node again");
    accepted.extend(load.stop());
    assert_all_there(&servers[0], &url, &accepted);
}

/// Moves the slot while jobs become due, without further jobs: the lists and sets that a job comes to do not exist. Returns
/// the ids of the jobs.
fn move_while_idle(cluster: &Cluster, server: &TestServer) -> Vec<(u64, Instant)> {
    let slot = cluster.slot("threadq");
    let accepted = submit_delayed(server, 3_000);
    let moving = cluster.begin_move(slot, cluster.another_master(slot));
    std::thread::sleep(ms(1_500));
    moving.migrate(60);
    std::thread::sleep(ms(1_000));
    moving.finish();
    accepted
}

#[test]
fn a_slot_moves_while_the_queue_is_idle() {
    let cluster = Cluster::start(2, 0, secs(5));
    let url = cluster.url();
    let servers = two_servers(&url);
    let accepted = move_while_idle(&cluster, &servers[0]);
    assert_all_there(&servers[1], &url, &accepted);
}

/// The mutant: the same without the key that never exists.
#[test]
fn a_slot_that_moves_under_scripts_that_name_existing_keys_alone_strands_jobs() {
    let cluster = Cluster::start(2, 0, secs(5));
    let owner = cluster.owner(cluster.slot("threadq"));
    let proxy = CallProxy::new(owner.port(), false);
    let server = TestServer::builder().flag("redis-url", &cluster.url_with(&[proxy.address()])).start();
    server.wait_until_ready();
    move_while_idle(&cluster, &server);
    let checked = TestServer::builder().flag("redis-url", &cluster.url()).run("doctor");
    assert!(checked.code == Some(1) && checked.stdout.contains("in no list"), "{checked:?}");
}

#[test]
fn an_owner_is_replaced_and_then_killed() {
    let cluster = Cluster::start(3, 1, secs(1));
    let slot = cluster.slot("threadq");
    let url = cluster.url();
    let servers = two_servers(&url);
    let load = Load::start(&servers.each_ref());
    load.wait_for(SOME, "before the failover");
    cluster.fail_over(slot);
    load.wait_for(SOME, "after the failover");
    cluster.wait_until_in_sync();
    let owner = cluster.owner(slot);
    let fault = Instant::now();
    owner.kill9();
    cluster.wait_until_moved(slot, owner);
    load.wait_for(SOME, "after the kill");
    owner.start();
    cluster.wait_until_in_sync();
    load.wait_for(SOME, "after the former owner is a replica");
    assert_all_there_but_the_last(&servers[0], &url, &load.stop(), fault);
    for server in &servers {
        let log = server.log_text();
        assert!(log.matches("Redis has moved to").count() >= 2, "{log}");
        assert!(log.lines().filter(|line| line.contains("edis")).count() <= 24, "{log}");
    }
}

#[test]
fn the_node_that_the_url_names_leaves() {
    let cluster = Cluster::start(3, 0, secs(5));
    let slot = cluster.slot("threadq");
    let leaves = cluster.owner(slot);
    let stays = cluster.another_master(slot);
    let url = cluster.url_with(&[leaves.address()]);
    let servers = two_servers(&url);
    let accepted = submit_delayed(&servers[0], 300);
    cluster.move_slot(slot, stays);
    for server in &servers {
        eventually(LIMIT, "it has followed the slot", || server.get("/jobs").status == 200);
    }
    // The node knows no other node any more, owns no slot, and the others have forgotten the node.
    let id = cluster.id(leaves);
    leaves.query::<()>(&["FLUSHALL"]);
    leaves.query::<()>(&["CLUSTER", "RESET", "HARD"]);
    for node in cluster.nodes.iter().filter(|node| node.port() != leaves.port()) {
        node.query::<()>(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
        node.query::<()>(&["CLUSTER", "FORGET", &id]);
    }
    stays.query::<u64>(&["CLIENT", "KILL", "TYPE", "normal"]);
    for server in &servers {
        eventually(LIMIT, "it connects to the owner again", || {
            server.post("/jobs", &json!({"type": "echo"})).status == 202
        });
    }
    assert_all_there(&servers[0], &cluster.url_with(&[stays.address()]), &accepted);
}

/// A broken node: forwards everything to a real one, but answers that the slot is elsewhere.
struct Liar {
    address: String,
    /// The text behind `MOVED SLOT `.
    says: Arc<Mutex<String>>,
}

impl Liar {
    fn before(node: &Node, slot: u16) -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (says, port) = (Arc::new(Mutex::new(String::new())), node.port());
        let liar = Liar { address, says: says.clone() };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let says = says.clone();
                std::thread::spawn(move || lie(client, port, slot, &says));
            }
        });
        liar
    }

    fn say(&self, owner: &str) {
        *self.says.lock().unwrap() = owner.to_owned();
    }
}

fn lie(mut client: TcpStream, port: u16, slot: u16, says: &Mutex<String>) -> std::io::Result<()> {
    let mut node = TcpStream::connect(("127.0.0.1", port))?;
    let mut from_client = BufReader::new(client.try_clone()?);
    let mut from_node = BufReader::new(node.try_clone()?);
    loop {
        let words = resp::read_command(&mut from_client)?;
        let has_key = words.iter().any(|word| word.starts_with(b"{threadq}:"));
        if has_key {
            let owner = says.lock().unwrap().clone();
            client.write_all(format!("-MOVED {slot} {owner}\r\n").as_bytes())?;
            continue;
        }
        node.write_all(&resp::command(&words))?;
        let mut answer = Vec::new();
        resp::read_answer(&mut from_node, &mut answer)?;
        client.write_all(&answer)?;
    }
}

#[test]
fn a_moved_slot_without_a_host_is_at_the_same_host() {
    let cluster = Cluster::start(2, 0, secs(5));
    let slot = cluster.slot("threadq");
    let owner = cluster.owner(slot);
    let liar = Liar::before(cluster.another_master(slot), slot);
    liar.say(&format!(":{}", owner.port()));
    let server = TestServer::builder()
        .flag("redis-url", &cluster.url_with(std::slice::from_ref(&liar.address)))
        .start();
    server.wait_until_ready();
    server.complete("echo", json!(1));
}

#[test]
fn nodes_that_name_each_other_as_the_owner_are_an_outage() {
    let cluster = Cluster::start(2, 0, secs(5));
    let slot = cluster.slot("threadq");
    let liars: Vec<Liar> = cluster.nodes.iter().map(|node| Liar::before(node, slot)).collect();
    liars[0].say(&liars[1].address);
    liars[1].say(&liars[0].address);
    let server =
        TestServer::builder().flag("redis-url", &cluster.url_with(&[liars[0].address.clone()])).start();
    let begin = Instant::now();
    while begin.elapsed() < secs(4) {
        for reply in
            [server.post("/jobs", &json!({"type": "echo"})), server.get("/jobs"), server.get("/readyz")]
        {
            reply.expect_error(503, "store_unavailable", "in circles");
        }
        std::thread::sleep(ms(50));
    }
    let log = server.log_text();
    assert!(log.lines().filter(|line| line.contains("edis")).count() <= 5, "{log}");
    // As soon as one of them tells the truth, all is well.
    liars[1].say(&cluster.owner(slot).address());
    server.wait_until_ready();
    server.complete("echo", json!(1));
}
