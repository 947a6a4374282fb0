//! Where the Redis is that takes the commands of this namespace: at a fixed address, at the master that Sentinels name,
//! or at the node of a Cluster that owns the slot of the namespace.
//!
//! A namespace has one slot, so one connection leads to all of its keys, and no table of slots is needed. The crate
//! `redis` has clients for Sentinel and Cluster; they send a command again after any failure of a connection, although
//! Redis may have run the command.

pub(super) mod report;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

use super::connection::{Address, Greeting, Login, Welcome, Wire, describe};
use super::error::ConnectError;
use super::master::{Change, Master, Node};
use super::sentinel;
use crate::sync;

/// How long the last known owner of the slot, or another node of a Cluster, may take to answer, connecting included. Together
/// less than the time limit for making a connection.
const ASK_OWNER: Duration = Duration::from_millis(500);
const ASK_NODE: Duration = Duration::from_millis(300);

/// How the address of Redis is found.
pub(super) enum Kind {
    Fixed(Address),
    Sentinels {
        /// The name by which the Sentinels know the master.
        name: String,
        /// The login of the Sentinels.
        login: Login,
    },
    Cluster {
        /// A key in the slot of the namespace. The key never exists.
        key: String,
    },
}

/// Finds the Redis that takes the commands of this namespace. Only one thread connects at a time.
pub(super) struct Place {
    kind: Kind,
    /// Sentinels, or nodes of a Cluster that the URL names. One that failed goes to the end.
    hosts: Mutex<VecDeque<Address>>,
    /// The login of Redis.
    login: Login,
    /// The Redis that the last connection led to.
    master: Mutex<Master>,
    /// The node of the Cluster that the last MOVED named.
    moved_to: Mutex<Option<Address>>,
    /// Why `redis-url` does not fit to the server that answered last.
    wrong_url: Mutex<Option<&'static str>>,
    /// Whether no Sentinel answered to the last connection.
    is_silent: AtomicBool,
}

/// A new connection to Redis.
pub(super) struct Opened {
    pub wire: Wire,
    /// The id for CLIENT UNBLOCK; `None` if it was not asked for, or if the user may not ask.
    pub client_id: Option<i64>,
    /// How Redis differs from the Redis of the last connection.
    pub change: Change,
}

impl Place {
    /// `hosts` are the Sentinels, or nodes of the Cluster.
    pub(super) fn new(kind: Kind, hosts: Vec<Address>, login: Login) -> Place {
        Place {
            kind,
            hosts: Mutex::new(hosts.into()),
            login,
            master: Mutex::default(),
            moved_to: Mutex::default(),
            wrong_url: Mutex::default(),
            is_silent: AtomicBool::new(false),
        }
    }

    /// Whether the URL names the only address.
    pub(super) fn is_fixed(&self) -> bool {
        matches!(self.kind, Kind::Fixed(_))
    }

    /// Why `redis-url` does not fit to the server that answered last.
    pub(super) fn wrong_url(&self) -> Option<&'static str> {
        *sync::lock(&self.wrong_url)
    }

    /// The address of the last known master and the beginning of its run id, for a log line.
    pub(super) fn description(&self) -> String {
        let master = self.master();
        let address = master.address().map_or_else(|| "no address".to_owned(), |address| address.to_string());
        format!("{address} (run {})", master.short_run_id())
    }

    /// Connects to Redis.
    ///
    /// `step` gets, before each step that may never end, the reason that applies then.
    pub(super) fn connect(
        &self,
        limit: Duration,
        wants_id: bool,
        step: &dyn Fn(&str),
    ) -> Result<Opened, ConnectError> {
        let greeting = if wants_id { Greeting::ServerAndId } else { Greeting::Server };
        let open =
            |address: &Address, limit: Duration| Wire::connect(address, &self.login, limit, greeting, step);
        match &self.kind {
            Kind::Fixed(address) => {
                let (wire, welcome) = open(address, limit)?;
                self.accept(address, wire, welcome)
            }
            Kind::Sentinels { name, login } => self.connect_to_master(name, login, limit, step, open),
            Kind::Cluster { key } => self.connect_to_owner(key, limit, open),
        }
    }

    /// Checks what answered at this address, and remembers it as the master.
    fn accept(&self, address: &Address, wire: Wire, welcome: Welcome) -> Result<Opened, ConnectError> {
        let node = Node::read(welcome.info.as_deref());
        let wrong_url = match (node.mode(), &self.kind) {
            ("sentinel", _) => Some("this is a Sentinel: use redis+sentinel://"),
            ("cluster", Kind::Fixed(_)) => Some("this is a node of a Redis Cluster: use redis+cluster://"),
            _ => None,
        };
        *sync::lock(&self.wrong_url) = wrong_url;
        if let Some(reason) = wrong_url {
            return Err(ConnectError(reason.to_owned()));
        }
        let change = self.master().meet(address, node, self.is_fixed())?;
        Ok(Opened { wire, client_id: welcome.client_id, change })
    }

    fn connect_to_master(
        &self,
        name: &str,
        login: &Login,
        limit: Duration,
        step: &dyn Fn(&str),
        open: impl Fn(&Address, Duration) -> Result<(Wire, Welcome), ConnectError>,
    ) -> Result<Opened, ConnectError> {
        let mut silence = ConnectError(String::new());
        for sentinel in self.hosts() {
            step(&format!("the Sentinel {sentinel} does not answer"));
            match sentinel::connect(&sentinel, login).and_then(|mut wire| sentinel::master(&mut wire, name)) {
                Ok(Some(master)) => {
                    if self.is_silent.swap(false, Ordering::Relaxed) {
                        log::info!("the Sentinels answer again");
                    }
                    let opened = open(&master, limit)
                        .and_then(|(wire, welcome)| self.accept(&master, wire, welcome))
                        .map_err(|error| {
                            ConnectError(format!("the master {master} of the Sentinels: {error}"))
                        });
                    if opened.is_err() {
                        // Another Sentinel may know another master.
                        self.put_last(&sentinel);
                    }
                    return opened;
                }
                Ok(None) => {
                    self.put_last(&sentinel);
                    return Err(ConnectError(format!("the Sentinel {sentinel} knows no master {name:?}")));
                }
                Err(error) => {
                    self.put_last(&sentinel);
                    silence = ConnectError(format!("{sentinel}: {error}"));
                }
            }
        }
        let silence = format!("no Sentinel answers, the last one: {silence}");
        let Some(master) = self.known_address() else { return Err(ConnectError(silence)) };
        let opened = open(&master, limit).and_then(|(wire, welcome)| {
            if !self.master().is(&Node::read(welcome.info.as_deref())) {
                return Err(ConnectError(
                    "another Redis answers at the address of the last master".to_owned(),
                ));
            }
            self.accept(&master, wire, welcome)
        });
        match opened {
            Ok(opened) => {
                if !self.is_silent.swap(true, Ordering::Relaxed) {
                    log::warn!("{silence}; the last known master {master} is still the master");
                }
                Ok(opened)
            }
            Err(error) => Err(ConnectError(format!("{silence}; the last known master {master}: {error}"))),
        }
    }

    fn connect_to_owner(
        &self,
        key: &str,
        limit: Duration,
        open: impl Fn(&Address, Duration) -> Result<(Wire, Welcome), ConnectError>,
    ) -> Result<Opened, ConnectError> {
        let begin = Instant::now();
        let known = [sync::lock(&self.moved_to).take(), self.known_address()];
        // A node is asked once, also if nodes name each other, or a node that does not answer.
        let mut asked = Vec::new();
        let mut last = ConnectError("no node of the Cluster answers".to_owned());
        for first in known.iter().flatten().cloned().chain(self.hosts()) {
            let mut next = Some(first.clone());
            while let Some(node) = next.take().filter(|node| !asked.contains(node) && begin.elapsed() < limit)
            {
                let time = if known.contains(&Some(node.clone())) { ASK_OWNER } else { ASK_NODE };
                match owns_slot(&node, key, time, &open) {
                    Ok(Owner::This(wire, welcome)) => return self.accept(&node, wire, welcome),
                    Ok(Owner::Other(other)) => {
                        let reason = format!(
                            "{node} names {other} as the owner of the slot, and {other} does not own it"
                        );
                        last = ConnectError(reason);
                        next = Some(other);
                    }
                    Err(error) => last = ConnectError(format!("the node {node} of the Cluster: {error}")),
                }
                asked.push(node);
            }
            self.put_last(&first);
        }
        Err(last)
    }

    /// Remembers where the slot is now, for the next connection. `error` is the reply MOVED of the last known owner.
    pub(super) fn note_moved(&self, error: &RedisError) {
        *sync::lock(&self.moved_to) = self.known_address().and_then(|asked| moved_to(error, &asked));
    }

    /// The Sentinels, the name of their master, and their login; `None` without Sentinels. The first Sentinel is the one
    /// that the next connection asks.
    pub(super) fn sentinels(&self) -> Option<(Vec<Address>, &str, &Login)> {
        match &self.kind {
            Kind::Sentinels { name, login } => Some((self.hosts(), name, login)),
            _ => None,
        }
    }

    /// The address of the last known master.
    pub(super) fn known_address(&self) -> Option<Address> {
        self.master().address()
    }

    fn master(&self) -> MutexGuard<'_, Master> {
        sync::lock(&self.master)
    }

    fn hosts(&self) -> Vec<Address> {
        sync::lock(&self.hosts).iter().cloned().collect()
    }

    /// Asks this host before all others next time.
    pub(super) fn put_first(&self, host: &Address) {
        let mut hosts = sync::lock(&self.hosts);
        if let Some(at) = hosts.iter().position(|other| other == host) {
            hosts.make_contiguous()[..=at].rotate_right(1);
        }
    }

    /// Asks all other hosts before this one next time.
    fn put_last(&self, host: &Address) {
        let mut hosts = sync::lock(&self.hosts);
        if let Some(at) = hosts.iter().position(|other| other == host) {
            let host = hosts.remove(at);
            hosts.extend(host);
        }
    }
}

/// Whether a node of a Cluster owns the slot.
enum Owner {
    This(Wire, Welcome),
    Other(Address),
}

fn owns_slot(
    node: &Address,
    key: &str,
    time: Duration,
    open: impl Fn(&Address, Duration) -> Result<(Wire, Welcome), ConnectError>,
) -> Result<Owner, ConnectError> {
    let (mut wire, welcome) = open(node, time)?;
    // A command that jobs need too, so that it takes no right of its own.
    let reply = redis::cmd("HGET").arg(key).arg("").query::<Value>(&mut wire);
    let Err(error) = reply else { return Ok(Owner::This(wire, welcome)) };
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::Moved) => moved_to(&error, node)
            .map(Owner::Other)
            .ok_or_else(|| ConnectError(format!("it names no address for the slot: {}", describe(&error)))),
        // The slot moves to another node. Until it is there, this node owns it.
        ErrorKind::Server(ServerErrorKind::Ask) => Ok(Owner::This(wire, welcome)),
        // The user may not run the command. The error of the first call names the right.
        ErrorKind::Server(ServerErrorKind::NoPerm) => Ok(Owner::This(wire, welcome)),
        _ => Err(ConnectError(describe(&error))),
    }
}

/// The address in a reply MOVED. It has no host if the node does not know its own host name.
fn moved_to(error: &RedisError, asked: &Address) -> Option<Address> {
    let (node, _) = error.redirect_node()?;
    let (host, port) = node.rsplit_once(':')?;
    let port = port.parse().ok()?;
    match (host, asked) {
        ("?", _) => None,
        ("", Address::Tcp(host, _)) => Some(Address::Tcp(host.clone(), port)),
        ("", Address::Unix(_)) => None,
        (host, _) => Some(Address::Tcp(host.trim_matches(['[', ']']).to_owned(), port)),
    }
}
