//! The Redis that connections lead to, as it describes itself: finds out whether a new connection leads to another Redis
//! than the connections before it.

use std::time::{Duration, Instant};

use super::connection::Address;
use super::error::ConnectError;
use super::redis_info::InfoFields;

/// If a name leads to two masters by turns, the connections to the other one are closed at most once in this time.
const ALTERNATION_INTERVAL: Duration = Duration::from_secs(2);
/// Two masters answer by turns if a former master is back within this time. The log says that at most once in this time.
const ALTERNATION_WINDOW: Duration = Duration::from_secs(60);

/// A Redis, as its reply to INFO describes it. A missing field claims nothing.
#[derive(Default)]
pub(super) struct Node {
    /// New at every start of a Redis.
    run_id: Option<String>,
    /// `standalone`, `cluster` or `sentinel`.
    mode: Option<String>,
    is_replica: bool,
    /// The time since its start, in whole seconds.
    uptime: Option<Duration>,
}

impl Node {
    pub(super) fn read(info: Option<&str>) -> Node {
        let Some(info) = info else { return Node::default() };
        let fields = InfoFields::new(info);
        let text = |name| fields.text(name).filter(|text| !text.is_empty()).map(str::to_owned);
        Node {
            run_id: text("run_id"),
            mode: fields.mode().map(str::to_owned),
            is_replica: fields.is_replica(),
            uptime: text("uptime_in_seconds").and_then(|text| text.parse().ok()).map(Duration::from_secs),
        }
    }

    /// `standalone`, `cluster`, `sentinel` or `unknown`.
    pub(super) fn mode(&self) -> &str {
        self.mode.as_deref().unwrap_or("unknown")
    }
}

/// What a new connection shows of Redis.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// The connection leads to the same Redis as the connection before it, or Redis does not say.
    None,
    /// The connection is the first one.
    First,
    /// The connection leads to another Redis, or Redis was restarted.
    Other {
        /// Whether the address is another one.
        is_elsewhere: bool,
        uptime: Option<Duration>,
    },
}

/// The Redis that the last connection led to.
#[derive(Default)]
pub(super) struct Master {
    address: Option<Address>,
    run_id: Option<String>,
    is_replica: bool,
    /// The run id of the master before this one.
    former: Option<String>,
    /// When this master was first met.
    since: Option<Instant>,
    /// When the log said that two masters answer.
    alternation_logged: Option<Instant>,
}

impl Master {
    pub(super) fn address(&self) -> Option<Address> {
        self.address.clone()
    }

    /// The beginning of the run id, as for a log line.
    pub(super) fn short_run_id(&self) -> &str {
        self.run_id.as_ref().map_or("unknown", |run_id| run_id.get(..8).unwrap_or(run_id))
    }

    /// Whether this node is certainly the same process, and a master.
    pub(super) fn is(&self, node: &Node) -> bool {
        !node.is_replica && node.run_id.is_some() && node.run_id == self.run_id
    }

    /// Remembers the server that a new connection leads to. A replica is accepted only if the address is fixed: reads are
    /// served, and the replica may become the master.
    pub(super) fn meet(
        &mut self,
        address: &Address,
        node: Node,
        accepts_replica: bool,
    ) -> Result<Change, ConnectError> {
        if node.is_replica && !accepts_replica {
            return Err(ConnectError("this is a replica, refuses writes".to_owned()));
        }
        let is_same_run = self.run_id.is_some() && node.run_id == self.run_id;
        let is_first = self.since.is_none();
        let is_elsewhere = self.address.as_ref().is_some_and(|known| known != address);
        let is_other_run = node.run_id.is_some() && self.run_id.is_some() && !is_same_run;
        // Without run ids only the address can tell.
        let is_other = is_other_run || is_elsewhere && !is_same_run;
        let is_former = is_other_run && !is_elsewhere && node.run_id == self.former;
        let is_second_master = !self.is_replica && !node.is_replica;
        if is_former && !self.may_change_back(address, is_second_master) {
            return Ok(Change::None);
        }
        self.address = Some(address.clone());
        self.is_replica = node.is_replica;
        if is_other {
            self.former = self.run_id.take();
        }
        if is_other || is_first {
            self.since = Some(Instant::now());
        }
        if node.run_id.is_some() {
            self.run_id = node.run_id;
        }
        Ok(match (is_first, is_other) {
            (true, _) => Change::First,
            (false, true) => Change::Other { is_elsewhere, uptime: node.uptime },
            (false, false) => Change::None,
        })
    }

    /// Whether the master before this one may be the master again. Logs that two masters answer.
    fn may_change_back(&mut self, address: &Address, is_second_master: bool) -> bool {
        let within = |since: Option<Instant>, time| since.is_some_and(|since| since.elapsed() < time);
        if is_second_master
            && within(self.since, ALTERNATION_WINDOW)
            && !within(self.alternation_logged, ALTERNATION_WINDOW)
        {
            self.alternation_logged = Some(Instant::now());
            log::error!(
                "two masters answer at {address}: jobs may be lost, or run twice; stop one of the two, or make it a replica"
            );
        }
        !within(self.since, ALTERNATION_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Address {
        Address::Tcp("h".to_owned(), port)
    }

    fn node(run_id: &str) -> Node {
        Node::read(Some(&format!(
            "# Server\r\nredis_mode:standalone\r\nrun_id:{run_id}\r\nuptime_in_seconds:7\r\n"
        )))
    }

    fn replica(run_id: &str) -> Node {
        Node { is_replica: true, ..node(run_id) }
    }

    fn other(is_elsewhere: bool) -> Change {
        Change::Other { is_elsewhere, uptime: Some(Duration::from_secs(7)) }
    }

    #[test]
    fn another_run_id_is_another_redis() {
        let mut master = Master::default();
        let mut meet = |node| master.meet(&at(1), node, true).unwrap();
        assert_eq!(meet(node("a")), Change::First);
        assert_eq!(meet(node("a")), Change::None);
        assert_eq!(meet(node("b")), other(false));
        assert_eq!(meet(node("b")), Change::None);
        assert_eq!(meet(node("c")), other(false));
    }

    #[test]
    fn a_redis_that_says_nothing_of_itself_is_known_by_its_address() {
        let mut master = Master::default();
        let mut meet = |port| master.meet(&at(port), Node::read(None), false).unwrap();
        assert_eq!(meet(1), Change::First);
        assert_eq!(meet(1), Change::None);
        assert_eq!(meet(2), Change::Other { is_elsewhere: true, uptime: None });
        assert_eq!(meet(2), Change::None);
    }

    #[test]
    fn a_second_name_of_the_same_redis_is_no_change() {
        let mut master = Master::default();
        assert_eq!(master.meet(&at(1), node("a"), false).unwrap(), Change::First);
        assert_eq!(master.meet(&at(2), node("a"), false).unwrap(), Change::None);
        assert_eq!(master.address(), Some(at(2)));
        assert_eq!(master.meet(&at(3), node("b"), false).unwrap(), other(true));
    }

    #[test]
    fn a_replica_is_accepted_only_at_a_fixed_address() {
        let mut master = Master::default();
        assert_eq!(master.meet(&at(1), node("a"), true).unwrap(), Change::First);
        assert_eq!(master.meet(&at(1), replica("a"), true).unwrap(), Change::None, "it was demoted");
        assert_eq!(master.meet(&at(1), replica("b"), true).unwrap(), other(false));
        let refused = master.meet(&at(2), replica("b"), false).unwrap_err();
        assert_eq!(refused.to_string(), "this is a replica, refuses writes");
        assert_eq!(master.address(), Some(at(1)));
    }

    #[test]
    fn a_former_master_at_its_own_address_may_take_over_again_at_once() {
        let mut master = Master::default();
        let mut meet = |port, node| master.meet(&at(port), node, false).unwrap();
        meet(1, node("a"));
        assert_eq!(meet(2, node("b")), other(true));
        assert_eq!(meet(1, node("a")), other(true));
        assert_eq!(master.alternation_logged, None);
    }

    #[test]
    fn two_masters_that_answer_by_turns_do_not_close_connections_all_the_time() {
        let mut master = Master::default();
        let mut meet = |node| master.meet(&at(1), node, true).unwrap();
        meet(node("a"));
        assert_eq!(meet(node("b")), other(false));
        assert_eq!(meet(node("a")), Change::None);
        assert_eq!(meet(node("b")), Change::None);
        master.since = Instant::now().checked_sub(ALTERNATION_INTERVAL);
        assert_eq!(master.meet(&at(1), node("a"), true).unwrap(), other(false));
    }
}
