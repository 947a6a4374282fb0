//! The table of open client connections, and which of them may be evicted.

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::gate::buffer::{Account, Budget};
use crate::sorting;
use crate::sync;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long a new connection, and all behind it, waits for a place in a full table. The thread of an evicted connection
/// blocks in a read or write, which the shutdown ends, so its place is free within microseconds. If all connections have
/// a request in progress, most of these are answered within milliseconds.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a waiting connection checks whether another one may be evicted.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// A connection is not evicted before it has waited this long for its client: a new client needs time to send its
/// request.
const GRACE: Duration = Duration::from_millis(20);
/// The same, for an eviction that frees memory.
const MEMORY_GRACE: Duration = Duration::from_secs(1);

/// Poll events that mean that the client has closed at least its sending half. Other systems report only a connection
/// that is closed in both directions.
#[cfg(target_os = "linux")]
const HANGUP: PollFlags = PollFlags::RDHUP.union(PollFlags::HUP).union(PollFlags::ERR);
#[cfg(not(target_os = "linux"))]
const HANGUP: PollFlags = PollFlags::HUP.union(PollFlags::ERR);

/// What a connection is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Between requests, or being closed.
    Idle = 0,
    /// A request has arrived in part.
    Reading = 1,
    /// A request is in progress.
    Busy = 2,
    /// The response is ready, and the client is slow to read it.
    Sending = 3,
    /// Evicted: its thread is about to end.
    Evicted = 4,
}

/// One client connection, shared by its thread and the accept loop.
pub(crate) struct Connection {
    /// Unique, never used again.
    pub id: u64,
    pub stream: TcpStream,
    /// The memory of its buffers.
    pub account: Arc<Account>,
    /// The phase in the lowest three bits, above them the time when it began, in ms since the table was made.
    /// One word, so that a connection changes phase without a lock and cannot be evicted in between.
    state: AtomicU64,
}

impl Connection {
    /// The connection is between requests: it may be evicted.
    pub fn mark_idle(&self, connections: &Connections) {
        // No compare-and-swap: a busy connection is never evicted, and the thread of an evicted one is about to end.
        self.state.store(connections.state_now(Phase::Idle), SeqCst);
    }

    /// A request has arrived in part. Returns false if the connection was evicted.
    ///
    /// Only the first call for a request sets the time. Otherwise a client that sends byte by byte would always seem
    /// to be the one that waits least.
    pub fn mark_reading(&self, connections: &Connections) -> bool {
        if phase(self.state.load(SeqCst)) == Phase::Reading {
            return true;
        }
        self.change(connections.state_now(Phase::Reading))
    }

    /// A request has arrived whole: the connection may no longer be evicted. Returns false if it already was.
    pub fn mark_busy(&self) -> bool {
        // Nothing needs the time when this phase began, so the clock is not read.
        self.change(Phase::Busy as u64)
    }

    /// Whether the client has closed its connection or its sending half. The two cannot be told apart until a write
    /// fails.
    pub fn has_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.stream, HANGUP)];
        let at_once = Timespec::default();
        poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().intersects(HANGUP)
    }

    /// The client is slow to read its response: the connection may be evicted. Returns false if it already was.
    pub fn mark_sending(&self, connections: &Connections) -> bool {
        self.change(connections.state_now(Phase::Sending))
    }

    fn change(&self, new: u64) -> bool {
        let old = self.state.load(SeqCst);
        phase(old) != Phase::Evicted && self.state.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }

    /// Whether the client has sent bytes that the connection's thread has not read yet.
    fn has_input(&self) -> bool {
        let mut fds = [PollFd::new(&self.stream, PollFlags::IN)];
        let at_once = Timespec::default();
        poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().contains(PollFlags::IN)
    }

    /// Evicts the connection if it is still in the state `seen`.
    fn evict(&self, seen: u64) -> bool {
        let evicted = self.state.compare_exchange(seen, Phase::Evicted as u64, SeqCst, SeqCst).is_ok();
        if evicted {
            self.shut_down();
        }
        evicted
    }

    /// Makes the read that the connection's thread waits in return, as if the client had closed its sending half.
    pub fn wake_reader(&self) {
        let _ = self.stream.shutdown(Shutdown::Read);
    }

    /// Whether the client's socket has room for a short response.
    pub fn is_writable(&self) -> bool {
        let mut fds = [PollFd::new(&self.stream, PollFlags::OUT)];
        let at_once = Timespec::default();
        poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().contains(PollFlags::OUT)
    }

    pub fn shut_down(&self) {
        // Fails only if the client has disconnected already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn phase(state: u64) -> Phase {
    match state & 7 {
        0 => Phase::Idle,
        1 => Phase::Reading,
        2 => Phase::Busy,
        3 => Phase::Sending,
        _ => Phase::Evicted,
    }
}

/// All client connections whose threads have not ended.
pub(crate) struct Connections {
    started: Instant,
    max: usize,
    budget: Arc<Budget>,
    table: Mutex<Table>,
    removed: Condvar,
    /// The gate accepts no further connections, and closes each connection after its response.
    pub is_stopping: AtomicBool,
}

#[derive(Default)]
struct Table {
    next_id: u64,
    connections: HashMap<u64, Arc<Connection>>,
}

impl Connections {
    pub fn new(max: usize, budget: Arc<Budget>) -> Connections {
        Connections {
            started: Instant::now(),
            max,
            budget,
            table: Mutex::default(),
            removed: Condvar::new(),
            is_stopping: AtomicBool::new(false),
        }
    }

    /// Adds a connection. When the table is full, the connection that has waited longest for its client is evicted.
    ///
    /// # Errors
    /// The stream, when all connections have a request in progress and none of these ends in time.
    pub fn accept(&self, stream: TcpStream) -> Result<Arc<Connection>, TcpStream> {
        let mut table = self.table();
        let deadline = Instant::now() + ACCEPT_TIMEOUT;
        while table.connections.len() >= self.max {
            if Instant::now() >= deadline {
                return Err(stream);
            }
            self.evict_one(&table.connections);
            table = sync::wait_timeout(&self.removed, table, POLL_INTERVAL);
        }
        let id = table.next_id;
        table.next_id += 1;
        let state = AtomicU64::new(self.state_now(Phase::Idle));
        let connection = Arc::new(Connection { id, stream, account: Account::new(&self.budget), state });
        table.connections.insert(id, connection.clone());
        Ok(connection)
    }

    /// Removes a connection whose thread ends.
    pub fn remove(&self, id: u64) {
        self.table().connections.remove(&id);
        self.removed.notify_all();
    }

    /// Evicts all connections that are between requests.
    pub fn close_idle(&self) {
        for connection in self.table().connections.values() {
            let state = connection.state.load(SeqCst);
            if phase(state) == Phase::Idle {
                connection.evict(state);
            }
        }
    }

    /// Closes all connections, whatever their phase.
    pub fn close_all(&self) {
        for connection in self.table().connections.values() {
            connection.shut_down();
        }
    }

    /// Waits until the table is empty. Returns false if it is not empty at `deadline`.
    pub fn wait_until_empty(&self, deadline: Instant) -> bool {
        let mut table = self.table();
        while !table.connections.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            table = sync::wait_timeout(&self.removed, table, left);
        }
        true
    }

    /// How many connections are open.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.table().connections.len()
    }

    /// Among the connections that hold memory, evicts the connection that has waited longest for its client. Evicts none
    /// if such a connection is being evicted already, or if all waits are shorter than [`MEMORY_GRACE`].
    pub fn free_memory(&self) {
        let table = self.table();
        let holders = || {
            let states =
                table.connections.values().map(|connection| (connection.state.load(SeqCst), connection));
            states.filter(|(_, connection)| connection.account.charged() > 0)
        };
        if holders().any(|(state, _)| phase(state) == Phase::Evicted) {
            return;
        }
        // For a client that had to wait for the memory itself, the grace period begins when it got the memory.
        let latest = self.state_at(self.started.elapsed().saturating_sub(MEMORY_GRACE), Phase::Idle);
        let may_be_evicted = |(state, connection): &(u64, &Arc<Connection>)| {
            let is_for_client = matches!(phase(*state), Phase::Reading | Phase::Sending);
            is_for_client && *state < latest && connection.account.charged_for() > MEMORY_GRACE
        };
        if let Some((state, connection)) = holders().filter(may_be_evicted).min_by_key(|(state, _)| *state) {
            connection.evict(state);
        }
    }

    /// Evicts the connection that has waited longest for its client; none if one is being evicted already, or all have a
    /// request in progress.
    fn evict_one(&self, connections: &HashMap<u64, Arc<Connection>>) {
        let states = || connections.values().map(|connection| (connection.state.load(SeqCst), connection));
        if states().any(|(state, _)| phase(state) == Phase::Evicted) {
            return;
        }
        let latest = self.state_at(self.started.elapsed().saturating_sub(GRACE), Phase::Idle);
        let mut waiting: Vec<_> = states()
            .filter(|(state, _)| matches!(phase(*state), Phase::Idle | Phase::Reading | Phase::Sending))
            .filter(|(state, _)| *state < latest)
            .collect();
        // The time is in the upper bits, so the smallest state is the oldest.
        sorting::sort_by(&mut waiting, |a, b| a.0.cmp(&b.0));
        for (state, connection) in waiting {
            let has_request = phase(state) == Phase::Idle && connection.has_input();
            if !has_request && connection.evict(state) {
                return;
            }
        }
    }

    fn state_now(&self, phase: Phase) -> u64 {
        self.state_at(self.started.elapsed(), phase)
    }

    fn state_at(&self, time: Duration, phase: Phase) -> u64 {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        ms << 3 | phase as u64
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        sync::lock(&self.table)
    }
}
