//! A master with replicas, and Sentinels that watch them.

use std::time::Duration;

use super::node::{Node, free_port};
use super::wait::{LIMIT, eventually, until_some};

/// The name of the master at the Sentinels.
pub const NAME: &str = "mymaster";

/// How to start a master, its replicas and its Sentinels.
#[derive(Clone)]
pub struct Setup {
    pub replicas: usize,
    pub sentinels: usize,
    /// After this time without an answer a Sentinel counts a Redis as down.
    pub down_after: Duration,
    /// A Sentinel begins a second failover of the same master only after twice this time.
    pub failover_timeout: Duration,
    /// How often a Sentinel asks a Redis for its role, 10 s in real life. A Sentinel makes a former master that is back
    /// a replica after one or two of these times.
    pub info_period: Duration,
    /// The host by which the Sentinels name the master; for any other than `127.0.0.1` they resolve and tell names.
    pub host: String,
    /// The password of the Sentinels.
    pub sentinel_password: Option<String>,
    /// The password of the master and the replicas.
    pub redis_password: Option<String>,
    /// Further lines of the files of the master and the replicas.
    pub redis_settings: String,
    /// Further lines of the files of the Sentinels.
    pub sentinel_settings: String,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            replicas: 2,
            sentinels: 3,
            down_after: Duration::from_secs(1),
            failover_timeout: Duration::from_secs(3),
            info_period: Duration::from_secs(1),
            host: "127.0.0.1".to_owned(),
            sentinel_password: None,
            redis_password: None,
            redis_settings: String::new(),
            sentinel_settings: String::new(),
        }
    }
}

/// A master, its replicas, and the Sentinels that watch them; all end when this is dropped.
pub struct Sentinels {
    /// The master and the replicas; the first one is the master at the start.
    pub nodes: Vec<Node>,
    pub sentinels: Vec<Node>,
    setup: Setup,
}

impl Sentinels {
    /// A master, two replicas and three Sentinels.
    pub fn start() -> Sentinels {
        Sentinels::start_with(Setup::default())
    }

    /// Starts all of them, and waits until a failover is possible.
    pub fn start_with(setup: Setup) -> Sentinels {
        let nodes = start_nodes(&setup);
        let sentinels = start_sentinels(&setup, &nodes);
        let all = Sentinels { nodes, sentinels, setup };
        all.wait_until_ready();
        all
    }

    /// The URL for `--redis-url`.
    pub fn url(&self) -> String {
        self.url_with("", &self.sentinels.iter().map(Node::address).collect::<Vec<_>>())
    }

    /// The URL with these Sentinels, and with this query.
    pub fn url_with(&self, query: &str, sentinels: &[String]) -> String {
        format!("redis+sentinel://{}/{NAME}{query}", sentinels.join(","))
    }

    /// The address of the master that a Sentinel names.
    fn named_by(&self, sentinel: &Node) -> Option<(String, u16)> {
        sentinel.try_query(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).ok()
    }

    /// The node that a Sentinel names as the master; the first Sentinel that answers decides.
    pub fn master(&self) -> &Node {
        until_some(LIMIT, "a Sentinel names the master", || {
            let (_, port) = self.sentinels.iter().find_map(|sentinel| self.named_by(sentinel))?;
            self.nodes.iter().find(|node| node.port() == port)
        })
    }

    /// All nodes but this one.
    pub fn others(&self, node: &Node) -> impl Iterator<Item = &Node> {
        let port = node.port();
        self.nodes.iter().filter(move |other| other.port() != port)
    }

    /// Waits until a majority of the Sentinels names another master than `before` and that node is a master.
    pub fn wait_until_promoted(&self, before: &Node) -> &Node {
        until_some(LIMIT, "another node is the master", || {
            let new = self.master();
            let names_new =
                |sentinel: &&Node| self.named_by(sentinel).is_some_and(|(_, port)| port == new.port());
            let votes = self.sentinels.iter().filter(names_new).count();
            (new.port() != before.port() && votes * 2 > self.sentinels.len() && new.is_master())
                .then_some(new)
        })
    }

    /// Waits until every node runs, all but the master are replicas in sync, and the Sentinels know all of them.
    pub fn wait_until_ready(&self) {
        let others = (self.setup.sentinels - 1).to_string();
        eventually(LIMIT, "master, replicas and Sentinels know each other", || {
            let master = self.master();
            let knows_all = |sentinel: &Node| {
                let fields: Vec<String> =
                    sentinel.try_query(&["SENTINEL", "MASTER", NAME]).unwrap_or_default();
                let has = |name: &str, value: &str| {
                    fields.chunks_exact(2).any(|pair| pair[0] == name && pair[1] == value)
                };
                let agree = self.named_by(sentinel).is_some_and(|(_, port)| port == master.port());
                // Whether a majority of the Sentinels is reachable, and enough of them to call the master down.
                let usable = sentinel.try_query::<String>(&["SENTINEL", "CKQUORUM", NAME]).is_ok();
                agree && usable && has("flags", "master") && has("num-other-sentinels", &others)
            };
            master.is_master()
                && master.fed_replicas() == self.setup.replicas
                && self.others(master).all(Node::is_replica_in_sync)
                && self.sentinels.iter().all(|sentinel| {
                    knows_all(sentinel) && self.good_replicas(sentinel) == self.setup.replicas
                })
        });
    }

    /// The number of replicas that this Sentinel could promote.
    fn good_replicas(&self, sentinel: &Node) -> usize {
        let replicas: Vec<Vec<String>> =
            sentinel.try_query(&["SENTINEL", "REPLICAS", NAME]).unwrap_or_default();
        let is = |replica: &[String], name: &str, value: &str| {
            replica.chunks_exact(2).any(|pair| pair[0] == name && pair[1] == value)
        };
        let good =
            |replica: &&Vec<String>| is(replica, "flags", "slave") && is(replica, "master-link-status", "ok");
        replicas.iter().filter(good).count()
    }

    /// Starts all Sentinels again after they were killed.
    pub fn start_sentinels(&self) {
        self.sentinels.iter().for_each(Node::start);
        self.sentinels.iter().for_each(|sentinel| hurry(sentinel, &self.setup));
    }

    /// Makes a Sentinel replace the master, which lives: a planned failover. Repeats the command while the Sentinel refuses
    /// it, as it does right after another failover. Returns when the Sentinel has begun.
    pub fn fail_over(&self) {
        eventually(LIMIT, "SENTINEL FAILOVER is accepted", || {
            self.sentinels
                .iter()
                .any(|sentinel| sentinel.try_query::<String>(&["SENTINEL", "FAILOVER", NAME]).is_ok())
        });
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (at, sentinel) in self.sentinels.iter().enumerate() {
                eprintln!("--- log of Sentinel {at}\n{}---", sentinel.log_text());
            }
        }
    }
}

fn start_nodes(setup: &Setup) -> Vec<Node> {
    let named = setup.host != "127.0.0.1";
    let mut settings = setup.redis_settings.clone();
    if let Some(password) = &setup.redis_password {
        settings.push_str(&format!("\nrequirepass {password}\nmasterauth {password}\n"));
    }
    let nodes: Vec<Node> = (0..=setup.replicas)
        .map(|_| {
            let node = Node::new(&settings);
            if named {
                node.configure(&format!("replica-announce-ip {}", setup.host));
            }
            node
        })
        .collect();
    for replica in &nodes[1..] {
        replica.configure(&format!("replicaof {} {}", setup.host, nodes[0].port()));
    }
    nodes.iter().for_each(Node::start);
    eventually(LIMIT, "the replicas are in sync", || nodes[1..].iter().all(Node::is_replica_in_sync));
    nodes
}

/// Starts the Sentinels with files that name all nodes: to discover each other takes up to 10 s.
fn start_sentinels(setup: &Setup, nodes: &[Node]) -> Vec<Node> {
    let (host, master) = (&setup.host, nodes[0].port());
    let mut common = String::new();
    if host != "127.0.0.1" {
        common.push_str("sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\n");
    }
    if let Some(password) = &setup.sentinel_password {
        common.push_str(&format!("requirepass {password}\nsentinel sentinel-pass {password}\n"));
    }
    common.push_str(&setup.sentinel_settings);
    let quorum = setup.sentinels / 2 + 1;
    let mut of_master = format!(
        "\nsentinel monitor {NAME} {host} {master} {quorum}\n\
         sentinel down-after-milliseconds {NAME} {}\nsentinel failover-timeout {NAME} {}\n\
         sentinel parallel-syncs {NAME} {}\n",
        setup.down_after.as_millis(),
        setup.failover_timeout.as_millis(),
        setup.replicas.max(1)
    );
    if let Some(password) = &setup.redis_password {
        of_master.push_str(&format!("sentinel auth-pass {NAME} {password}\n"));
    }
    let sentinels: Vec<Node> = (0..setup.sentinels).map(|_| Node::new_sentinel(&common)).collect();
    let id = |at: usize| format!("{:040x}", at + 1);
    for (at, sentinel) in sentinels.iter().enumerate() {
        let mut lines = format!("sentinel myid {}{of_master}", id(at));
        for replica in &nodes[1..] {
            lines.push_str(&format!("sentinel known-replica {NAME} {host} {}\n", replica.port()));
        }
        for (other, its) in sentinels.iter().enumerate().filter(|(other, _)| *other != at) {
            let its = its.port();
            lines.push_str(&format!("sentinel known-sentinel {NAME} 127.0.0.1 {its} {}\n", id(other)));
        }
        sentinel.configure(&lines);
    }
    sentinels.iter().for_each(Node::start);
    sentinels.iter().for_each(|sentinel| hurry(sentinel, setup));
    sentinels
}

/// Shortens the periods of a Sentinel.
fn hurry(sentinel: &Node, setup: &Setup) {
    let info = setup.info_period.as_millis();
    // A Sentinel pings a Redis first one period after it has come to know the Redis. If the answer came later than
    // `down_after`, it would count each new master as down, and replace it. And a Sentinel promotes no replica that it
    // asked for its role longer ago than five of these periods.
    let ping = (setup.down_after.as_millis() * 2 / 5).min(1_000);
    // Before a Sentinel makes a former master a replica, it waits for four times the period of its own messages too.
    for (name, period) in [("info-period", info), ("publish-period", info / 5), ("ping-period", ping)] {
        sentinel.query::<()>(&["SENTINEL", "DEBUG", name, &period.to_string()]);
    }
}

/// An address on which nothing listens.
pub fn dead_address() -> String {
    format!("127.0.0.1:{}", free_port())
}
