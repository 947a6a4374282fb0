//! `threadq check` and `threadq doctor` say where Redis is, and what of it endangers jobs, with the right exit code.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};

use crate::common::cluster::Cluster;
use crate::common::node::Node;
use crate::common::sentinels::{NAME, Sentinels, Setup, dead_address};
use crate::common::*;

fn run(command: &str, url: &str, flags: &[(&str, &str)]) -> Finished {
    let builder = TestServer::builder().flag("redis-url", url).without_demo();
    flags.iter().fold(builder, |builder, (name, value)| builder.flag(name, value)).run(command)
}

fn check(url: &str) -> Finished {
    run("check", url, &[])
}

/// Asserts that a server would work there, and that each of these texts is in its own line of the report.
#[track_caller]
fn assert_works(checked: &Finished, lines: &[&str]) {
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.stdout.ends_with("ok\n"), "{checked:?}");
    for line in lines {
        assert_eq!(
            checked.stdout.lines().filter(|said| said.contains(line)).count(),
            1,
            "{line}: {checked:?}"
        );
    }
}

/// Asserts that a server would not work there, for the reason with these texts.
#[track_caller]
fn assert_fails(checked: &Finished, code: i32, reasons: &[&str]) {
    assert_eq!(checked.code, Some(code), "{checked:?}");
    assert_eq!(checked.stderr.lines().count(), 1, "{checked:?}");
    assert!(checked.stderr.starts_with("threadq: redis-url: "), "{checked:?}");
    for reason in reasons {
        assert!(checked.stderr.contains(reason), "{reason}: {checked:?}");
    }
}

fn doctor(url: &str) -> (Finished, Value) {
    let finished = TestServer::builder().flag("redis-url", url).without_demo().arg("--json").run("doctor");
    let json = serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("{e}: {finished:?}"));
    (finished, json)
}

fn kinds(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["kind"].as_str().unwrap()).collect()
}

fn started(settings: &str) -> Node {
    let node = Node::new(settings);
    node.start();
    node
}

/// A master, and a replica that is in sync.
fn pair(settings: &str) -> (Node, Node) {
    let master = started(settings);
    let replica = started(&format!("replicaof 127.0.0.1 {}", master.port()));
    eventually(LIMIT, "the replica is in sync", || {
        replica.is_replica_in_sync() && master.info("slave0").contains("state=online")
    });
    (master, replica)
}

#[test]
fn a_server_that_is_no_master_is_told_by_name() {
    let (_master, replica) = pair("");
    assert_fails(&check(&replica.url()), 1, &["this is a replica, which refuses writes"]);
    let sentinel = Node::new_sentinel("");
    sentinel.start();
    for command in ["check", "doctor"] {
        let told = "this is a Sentinel: use redis+sentinel://";
        assert_fails(&run(command, &sentinel.url(), &[]), 2, &[told]);
    }
    let cluster = Cluster::start(3, 0, secs(2));
    for node in &cluster.nodes {
        assert_fails(&check(&node.url()), 2, &["this is a node of a Redis Cluster: use redis+cluster://"]);
    }
}

#[test]
fn a_redis_that_takes_no_jobs_does_not_work() {
    let node = started("");
    assert_works(&check(&node.url()), &[]);
    node.query::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_fails(&check(&node.url()), 1, &["Redis is full"]);
    node.query::<()>(&["CONFIG", "SET", "maxmemory", "0", "min-replicas-to-write", "1"]);
    assert_fails(&check(&node.url()), 1, &["NOREPLICAS"]);
    node.query::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    let url = node.url().replace("redis://", "redis://reader:one@");
    node.query::<()>(&["ACL", "SETUSER", "reader", "on", ">one", "~*", "+@all", "-@write"]);
    assert_fails(&check(&url), 2, &["NOPERM", "+hset"]);
    drop(node);
    assert_fails(&check(&format!("redis://{}", dead_address())), 1, &["Connection refused"]);
}

#[test]
fn what_a_failover_may_lose_is_said() {
    let (master, _replica) = pair("");
    let (loses, unsaid) =
        ("min-replicas-to-write is 0: a failover may lose jobs", "not allowed to ask Redis for");
    let checked = check(&master.url());
    assert_works(&checked, &[&format!("warning: {loses}")]);
    assert!(!checked.stdout.contains(unsaid), "{checked:?}");
    assert!(kinds(&doctor(&master.url()).1).contains(&"min_replicas"));
    let server = TestServer::builder().flag("redis-url", &master.url()).start();
    assert_eq!(server.log_text().matches(loses).count(), 1);
    drop(server);

    // A user who may not use CONFIG gets to know that nothing was asked.
    master.query::<()>(&["ACL", "SETUSER", "managed", "on", ">one", "~*", "&*", "+@all", "-config"]);
    let url = master.url().replace("redis://", "redis://managed:one@");
    let checked = check(&url);
    assert_works(&checked, &[&format!("note: {unsaid} min-replicas-to-write")]);
    assert!(!checked.stdout.contains(loses), "{checked:?}");
    assert!(kinds(&doctor(&url).1).contains(&"not_allowed"));

    // With redis-replicas an acknowledged job is not lost.
    let checked = run("check", &master.url(), &[("redis-replicas", "1")]);
    assert!(checked.code == Some(0) && !checked.stdout.contains(loses), "{checked:?}");
    let checked = run("check", &master.url(), &[("redis-replicas", "2")]);
    assert_fails(&checked, 1, &["Redis has 1 of the 2 replicas that redis-replicas asks for"]);
    master.query::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let checked = check(&master.url());
    assert!(checked.code == Some(0) && !checked.stdout.contains(loses), "{checked:?}");
}

#[test]
fn sentinels_and_the_master_that_they_name() {
    let all = Sentinels::start_with(Setup {
        redis_settings: "min-replicas-to-write 1".to_owned(),
        ..Setup::default()
    });
    let at = format!("master {NAME} at {} (2 replicas)", all.master().address());
    let checked = check(&all.url());
    assert_works(&checked, &[&format!("sentinel: 3 of 3 answer, {at}")]);
    assert!(
        !checked.stdout.contains("warning: the Sentinel") && !checked.stdout.contains("min-replicas"),
        "{checked:?}"
    );
    let (finished, report) = doctor(&all.url());
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(report["redis"]["place"], json!(format!("sentinel: 3 of 3 answer, {at}")));

    // Dead, silent, and one that monitors another master.
    all.sentinels[0].kill9();
    all.sentinels[1].pause();
    let other = started("");
    let stranger = Node::new_sentinel(&format!("sentinel monitor {NAME} 127.0.0.1 {} 1", other.port()));
    stranger.start();
    let addresses = [0, 1, 2].map(|at| all.sentinels[at].address());
    let mut hosts = addresses.to_vec();
    hosts.push(stranger.address());
    let url = all.url_with("", &hosts);
    let lines = [
        format!("sentinel: 2 of 4 answer, {at}"),
        format!("warning: the Sentinel {} does not answer: Connection refused", addresses[0]),
        format!("warning: the Sentinel {} does not answer: ", addresses[1]),
        format!("warning: the Sentinel {} names another master: {}", stranger.address(), other.address()),
    ];
    assert_works(&check(&url), &lines.each_ref().map(String::as_str));
    let (finished, report) = doctor(&url);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(kinds(&report).iter().filter(|kind| **kind == "sentinel_down").count(), 2, "{report}");
    assert!(kinds(&report).contains(&"sentinel_differs"), "{report}");
    all.sentinels[1].resume();

    // What was found is said also if nothing works.
    all.nodes.iter().for_each(Node::pause);
    let checked = check(&url);
    assert_fails(&checked, 1, &["cannot be reached from here"]);
    assert!(checked.stdout.contains(&lines[1]), "{checked:?}");
    all.nodes.iter().for_each(Node::resume);
    assert_fails(&check(&all.url().replace(NAME, "another")), 1, &["knows no master \"another\""]);
    assert_fails(&check(&all.url_with("", &[dead_address(), dead_address()])), 1, &["no Sentinel answers"]);
}

#[test]
fn a_master_that_cannot_be_reached_from_here_has_another_address_there() {
    let sentinel =
        Node::new_sentinel(&format!("sentinel monitor {NAME} {} 1", dead_address().replace(':', " ")));
    sentinel.start();
    let url = format!("redis+sentinel://{}/{NAME}", sentinel.address());
    for command in ["check", "doctor"] {
        let reasons =
            ["that the Sentinels name cannot be reached from here: Connection refused", "announce-ip"];
        assert_fails(&run(command, &url, &[]), 1, &reasons);
    }
    // A wrong password is no question of the address.
    let master = started("requirepass right");
    let sentinel = Node::new_sentinel(&format!("sentinel monitor {NAME} 127.0.0.1 {} 1", master.port()));
    sentinel.start();
    let checked = check(&format!("redis+sentinel://:wrong@{}/{NAME}", sentinel.address()));
    assert_fails(&checked, 1, &["WRONGPASS"]);
    assert!(!checked.stderr.contains("announce-ip"), "{checked:?}");
}

#[test]
fn a_master_of_sentinels_without_a_replica_has_nothing_that_takes_over() {
    let master = started("");
    let sentinel = Node::new_sentinel(&format!("sentinel monitor {NAME} 127.0.0.1 {} 1", master.port()));
    sentinel.start();
    let url = format!("redis+sentinel://{}/{NAME}", sentinel.address());
    assert_works(&check(&url), &["(no replica)", "warning: this master has no replica: nothing takes over"]);
    assert!(kinds(&doctor(&url).1).contains(&"no_replica"));
    assert!(!kinds(&doctor(&master.url()).1).contains(&"no_replica"), "a single Redis has none");
}

#[test]
fn a_cluster_and_the_owner_of_the_slot() {
    let cluster = Cluster::start(3, 0, secs(2));
    let slot = cluster.slot("threadq");
    let owner = cluster.owner(slot);
    let line = format!("cluster: 3 masters, ours is {} (slot {slot}, no replica)", owner.address());
    let url = cluster.url();
    assert_works(&check(&url), &[&line, "warning: this master has no replica"]);
    let (finished, report) = doctor(&url);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(report["redis"]["place"], json!(line));
    assert!(kinds(&report).contains(&"no_replica"));

    // Where CLUSTER is forbidden, as by some managed services.
    for node in &cluster.nodes {
        node.query::<()>(&["ACL", "SETUSER", "managed", "on", ">one", "~*", "&*", "+@all", "-cluster"]);
    }
    let managed = url.replace("redis+cluster://", "redis+cluster://managed:one@");
    assert_works(&check(&managed), &["cluster: not allowed to ask for its masters"]);

    let target = cluster.another_master(slot);
    let moving = cluster.begin_move(slot, target);
    let on_its_way = format!("slot {slot} is on its way to {}", target.address());
    assert_fails(&check(&url), 1, &[&on_its_way, "calls are refused"]);
    let (finished, report) = doctor(&url);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(kinds(&report).contains(&"slot_moving"), "{report}");
    moving.finish();
    assert_works(&check(&url), &[&format!("ours is {} (", target.address())]);
}

/// A port where every INFO has this line in front.
fn with_info_line(node: &Node, line: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, node) = (listener.local_addr().unwrap(), node.address());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(&node).unwrap());
            std::thread::spawn(move || add_line(client, server, line));
        }
    });
    format!("redis://{address}")
}

fn add_line(mut client: TcpStream, mut server: TcpStream, line: &str) -> Option<()> {
    let mut from_client = BufReader::new(client.try_clone().ok()?);
    let mut from_server = BufReader::new(server.try_clone().ok()?);
    loop {
        let words = resp::read_command(&mut from_client).ok()?;
        server.write_all(&resp::command(&words)).ok()?;
        let mut answer = Vec::new();
        resp::read_answer(&mut from_server, &mut answer).ok()?;
        if words[0].eq_ignore_ascii_case(b"INFO") {
            let text = String::from_utf8(answer).ok()?;
            let text = text.split_once("\r\n")?.1;
            answer = format!("${}\r\n{line}\r\n{text}", text.len() + line.len()).into_bytes();
        }
        client.write_all(&answer).ok()?;
    }
}

#[test]
fn another_product_is_named() {
    let node = started("");
    for (line, product) in [
        ("dragonfly_version:df-v1.27.1", "Dragonfly df-v1.27.1"),
        ("kvrocks_version:2.11.0", "Kvrocks 2.11.0"),
        ("garnet_version:1.0.60", "Garnet 1.0.60"),
    ] {
        let url = with_info_line(&node, line);
        let name = product.split(' ').next().unwrap();
        let lines = [format!("redis: {product} at "), format!("warning: threadq is not tested with {name}")];
        assert_works(&check(&url), &lines.each_ref().map(String::as_str));
        assert!(kinds(&doctor(&url).1).contains(&"product"));
    }
    let old = with_info_line(&node, "kvrocks_version:2.0.0\r\nredis_version:4.0.0\r\nvalkey_version:4.0.0");
    assert_fails(&check(&old), 2, &["this is Kvrocks 2.0.0"]);
}
