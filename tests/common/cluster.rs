//! A Redis Cluster.

use std::time::{Duration, Instant};

use super::node::{Node, free_port};
use super::wait::{LIMIT, eventually, until_some};

/// The number of slots of every Cluster.
const SLOTS: usize = 16_384;

/// A Redis Cluster; all nodes end when it is dropped.
pub struct Cluster {
    /// First the masters, then their replicas, in the same order by turns.
    pub nodes: Vec<Node>,
    masters: usize,
}

/// A node as CLUSTER NODES describes it.
struct Described {
    port: u16,
    flags: String,
    slots: Vec<String>,
}

impl Cluster {
    /// Starts masters that share the slots evenly, each with this number of replicas, and waits until every node agrees. A
    /// master counts as down after `node_timeout` without an answer.
    pub fn start(masters: usize, replicas: usize, node_timeout: Duration) -> Cluster {
        let nodes: Vec<Node> = (0..masters * (1 + replicas))
            .map(|_| {
                let (bus, timeout) = (free_port(), node_timeout.as_millis());
                Node::new(&format!(
                    "cluster-enabled yes\ncluster-port {bus}\ncluster-node-timeout {timeout}\n\
                     cluster-config-file nodes.conf\ncluster-migration-barrier 99\n"
                ))
            })
            .collect();
        nodes.iter().for_each(Node::start);
        let cluster = Cluster { nodes, masters };
        cluster.join();
        cluster
    }

    fn join(&self) {
        let bus: Vec<String> = self
            .nodes
            .iter()
            .map(|node| node.query::<Vec<String>>(&["CONFIG", "GET", "cluster-port"])[1].clone())
            .collect();
        for (at, node) in self.nodes.iter().enumerate() {
            node.query::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]);
            if at < self.masters {
                let bound = |at: usize| at * SLOTS / self.masters;
                let (first, last) = (bound(at).to_string(), (bound(at + 1) - 1).to_string());
                node.query::<()>(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            }
        }
        for (at, node) in self.nodes.iter().enumerate() {
            for (other, bus) in self.nodes.iter().zip(&bus).skip(at + 1) {
                node.query::<()>(&["CLUSTER", "MEET", "127.0.0.1", &other.port().to_string(), bus]);
            }
        }
        self.wait_until_agreed();
        for (at, replica) in self.nodes.iter().enumerate().skip(self.masters) {
            replica.query::<()>(&["CLUSTER", "REPLICATE", &self.id(&self.nodes[at % self.masters])]);
        }
        self.wait_until_in_sync();
    }

    /// Waits until all nodes that answer know each other and every slot is served.
    pub fn wait_until_agreed(&self) {
        eventually(LIMIT, "the nodes of the Cluster know each other", || {
            let answering: Vec<&Node> = self.answering().collect();
            let is_known =
                |node: &&Described| !node.flags.contains("handshake") && !node.flags.contains("fail");
            answering.iter().all(|node| {
                described(node).iter().filter(is_known).count() >= answering.len()
                    && node
                        .try_query::<String>(&["CLUSTER", "INFO"])
                        .is_ok_and(|info| info.contains("state:ok"))
            })
        });
    }

    /// The nodes that answer now.
    fn answering(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.answers())
    }

    /// Waits until every replica has all data of its master.
    pub fn wait_until_in_sync(&self) {
        eventually(LIMIT, "every node is a master or a replica in sync", || {
            let (masters, replicas): (Vec<&Node>, Vec<&Node>) =
                self.nodes.iter().partition(|node| node.is_master());
            masters.len() == self.masters
                && replicas.iter().all(|node| node.is_replica_in_sync())
                && masters.iter().map(|node| node.fed_replicas()).sum::<usize>() == replicas.len()
        });
        self.wait_until_agreed();
    }

    /// The URL for `--redis-url`, with the first two nodes.
    pub fn url(&self) -> String {
        self.url_with(&self.nodes[..self.nodes.len().min(2)].iter().map(Node::address).collect::<Vec<_>>())
    }

    /// The URL with these nodes.
    pub fn url_with(&self, nodes: &[String]) -> String {
        format!("redis+cluster://{}", nodes.join(","))
    }

    /// The id of a node.
    pub fn id(&self, node: &Node) -> String {
        node.query(&["CLUSTER", "MYID"])
    }

    /// The slot of the keys of a namespace.
    pub fn slot(&self, namespace: &str) -> u16 {
        let key = format!("{{{namespace}}}:");
        let slot = |node: &Node| node.try_query(&["CLUSTER", "KEYSLOT", &key]).ok();
        self.nodes.iter().find_map(slot).expect("a node answers")
    }

    /// The master that serves this slot, as most of the nodes that answer see it.
    pub fn owner(&self, slot: u16) -> &Node {
        until_some(LIMIT, "the nodes agree on the owner of a slot", || {
            let votes: Vec<Option<u16>> = self.answering().map(|node| owner_port(node, slot)).collect();
            let wins = |port: u16| votes.iter().filter(|vote| **vote == Some(port)).count() * 2 > votes.len();
            self.nodes.iter().find(|node| wins(node.port()))
        })
    }

    /// A master that does not serve this slot.
    pub fn another_master(&self, slot: u16) -> &Node {
        let owner = self.owner(slot).port();
        let other = self.nodes.iter().find(|node| node.port() != owner && node.is_master());
        other.expect("a Cluster with several masters")
    }

    /// A replica of this master, as the replicas say.
    pub fn replica_of(&self, master: &Node) -> &Node {
        let port = master.port().to_string();
        let replica = self.nodes.iter().find(|node| node.info("master_port") == port);
        replica.expect("a Cluster with replicas")
    }

    /// Makes a replica of the owner of this slot its master, without any loss: a planned failover. Returns the new owner.
    pub fn fail_over(&self, slot: u16) -> &Node {
        let old = self.owner(slot);
        loop {
            self.replica_of(old).query::<()>(&["CLUSTER", "FAILOVER"]);
            // On a busy machine Redis may give up after 5 s.
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_secs(6) {
                if self.owner(slot).port() != old.port() {
                    return self.owner(slot);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Waits until the nodes agree on another owner of this slot than `before`.
    pub fn wait_until_moved(&self, slot: u16, before: &Node) -> &Node {
        until_some(LIMIT, "another node serves the slot", || {
            Some(self.owner(slot)).filter(|owner| owner.port() != before.port())
        })
    }

    /// Begins to move a slot to another master. From now on the owner redirects calls whose keys it does not have.
    pub fn begin_move<'a>(&'a self, slot: u16, to: &'a Node) -> SlotMove<'a> {
        let from = self.owner(slot);
        let (slot_text, from_id, to_id) = (slot.to_string(), self.id(from), self.id(to));
        to.query::<()>(&["CLUSTER", "SETSLOT", &slot_text, "IMPORTING", &from_id]);
        from.query::<()>(&["CLUSTER", "SETSLOT", &slot_text, "MIGRATING", &to_id]);
        SlotMove { cluster: self, slot, from, to }
    }

    /// Moves a slot with all its keys to another master at once.
    pub fn move_slot(&self, slot: u16, to: &Node) {
        let moving = self.begin_move(slot, to);
        moving.finish();
    }
}

/// A slot on its way from one master to another.
pub struct SlotMove<'a> {
    cluster: &'a Cluster,
    slot: u16,
    from: &'a Node,
    to: &'a Node,
}

impl SlotMove<'_> {
    /// Moves at most this number of keys. Returns how many keys were moved.
    pub fn migrate(&self, keys: usize) -> usize {
        let (slot, number) = (self.slot.to_string(), keys.to_string());
        let keys: Vec<Vec<u8>> = self.from.query(&["CLUSTER", "GETKEYSINSLOT", &slot, &number]);
        self.migrate_keys(&keys);
        keys.len()
    }

    /// Moves these keys.
    pub fn migrate_keys(&self, keys: &[Vec<u8>]) {
        if keys.is_empty() {
            return;
        }
        let mut command = redis::cmd("MIGRATE");
        command.arg("127.0.0.1").arg(self.to.port()).arg("").arg(0).arg(10_000).arg("KEYS").arg(keys);
        let reply: String =
            self.from.try_command(&command).unwrap_or_else(|error| panic!("MIGRATE: {error}"));
        assert!(reply == "OK" || reply == "NOKEY", "MIGRATE: {reply}");
    }

    /// Moves the remaining keys, and gives the slot to the new owner.
    pub fn finish(self) {
        let (slot, to_id) = (self.slot.to_string(), self.cluster.id(self.to));
        let set = |node: &Node| node.query::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
        while self.migrate(1_000) > 0 {}
        set(self.to);
        set(self.from);
        eventually(LIMIT, "all nodes know the new owner", || {
            self.cluster.answering().all(|node| owner_port(node, self.slot) == Some(self.to.port()))
        });
    }

    /// Ends the move and leaves the slot where it was; only if no key has moved.
    pub fn abandon(self) {
        for node in [self.from, self.to] {
            node.query::<()>(&["CLUSTER", "SETSLOT", &self.slot.to_string(), "STABLE"]);
        }
    }
}

/// All nodes that this node knows.
fn described(node: &Node) -> Vec<Described> {
    let text: String = node.try_query(&["CLUSTER", "NODES"]).unwrap_or_default();
    let describe = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let (_, port) = words.get(1)?.split('@').next()?.rsplit_once(':')?;
        Some(Described {
            port: port.parse().ok()?,
            flags: (*words.get(2)?).to_owned(),
            slots: words.iter().skip(8).map(|word| (*word).to_owned()).collect(),
        })
    };
    text.lines().filter_map(describe).collect()
}

/// The port of the master that serves a slot, as this node sees it.
fn owner_port(node: &Node, slot: u16) -> Option<u16> {
    let holds = |range: &String| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bounds = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
        bounds.is_some_and(|(first, last)| (first..=last).contains(&slot))
    };
    let nodes = described(node);
    nodes
        .iter()
        .find(|node| node.flags.contains("master") && node.slots.iter().any(holds))
        .map(|node| node.port)
}
