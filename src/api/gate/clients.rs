//! The table of open client connections: who is here, who can be sent away, who has left.

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the accept loop waits for the thread of a connection that it sent away. Such a thread sits in a read,
/// which the shutdown ends, so this is a matter of microseconds.
const EVICTION_PATIENCE: Duration = Duration::from_secs(1);

/// What a connection is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Between requests, or being closed.
    Idle = 0,
    /// A request has come in part.
    Reading = 1,
    /// A request is being answered.
    Busy = 2,
    /// It was sent away; its thread is about to end.
    Evicted = 3,
}

/// One client's connection, shared by its thread and the accept loop.
pub(super) struct Client {
    pub stream: TcpStream,
    /// The phase in the lowest two bits, above them the time (in ms since the table's start) when it began.
    /// One word, so that a connection can change phase without a lock, and cannot be sent away in between.
    state: AtomicU64,
}

impl Client {
    /// Nothing of a request is here: it may be sent away.
    pub fn rest(&self, clients: &Clients) {
        // No compare-and-swap: a busy connection is not sent away, and one that was is on its way out.
        self.state.store(clients.state_now(Phase::Idle), SeqCst);
    }

    /// A request has come in part. False: the connection was sent away.
    ///
    /// Only the first call for a request sets the time, lest a client that sends byte by byte stays the youngest.
    pub fn begin_reading(&self, clients: &Clients) -> bool {
        if phase(self.state.load(SeqCst)) == Phase::Reading {
            return true;
        }
        self.change(clients.state_now(Phase::Reading))
    }

    /// A request has come whole, so that the connection may no longer be sent away. False: it was already.
    pub fn begin_work(&self) -> bool {
        // When work began is of no interest, so spare the clock.
        self.change(Phase::Busy as u64)
    }

    fn change(&self, new: u64) -> bool {
        let old = self.state.load(SeqCst);
        phase(old) != Phase::Evicted && self.state.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }

    /// Sends the connection away if it is still in the state `seen`.
    fn evict(&self, seen: u64) -> bool {
        let evicted = self.state.compare_exchange(seen, Phase::Evicted as u64, SeqCst, SeqCst).is_ok();
        if evicted {
            self.shut_down();
        }
        evicted
    }

    fn shut_down(&self) {
        // Fails only if the client has gone already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn phase(state: u64) -> Phase {
    match state & 3 {
        0 => Phase::Idle,
        1 => Phase::Reading,
        2 => Phase::Busy,
        _ => Phase::Evicted,
    }
}

/// All client connections whose threads have not ended.
pub(super) struct Clients {
    started: Instant,
    max: usize,
    table: Mutex<Table>,
    left: Condvar,
}

#[derive(Default)]
struct Table {
    next_id: u64,
    clients: HashMap<u64, Arc<Client>>,
}

impl Clients {
    pub fn new(max: usize) -> Clients {
        Clients { started: Instant::now(), max, table: Mutex::default(), left: Condvar::new() }
    }

    /// Takes in a new connection, with the id that it leaves by. When the table is full, the one that has been
    /// waiting longest makes room.
    ///
    /// # Errors
    /// The stream, when all connections have a request at work.
    pub fn admit(&self, stream: TcpStream) -> Result<(u64, Arc<Client>), TcpStream> {
        let mut table = self.table();
        let give_up = Instant::now() + EVICTION_PATIENCE;
        if table.clients.len() >= self.max && !evict_longest_waiting(&table.clients) {
            return Err(stream);
        }
        while table.clients.len() >= self.max {
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(stream);
            }
            table = self.left.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let id = table.next_id;
        table.next_id += 1;
        let client = Arc::new(Client { stream, state: AtomicU64::new(self.state_now(Phase::Idle)) });
        table.clients.insert(id, client.clone());
        Ok((id, client))
    }

    /// The thread of this connection ends.
    pub fn leave(&self, id: u64) {
        self.table().clients.remove(&id);
        self.left.notify_all();
    }

    /// Sends away all that are between requests.
    pub fn close_idle(&self) {
        for client in self.table().clients.values() {
            let state = client.state.load(SeqCst);
            if phase(state) == Phase::Idle {
                client.evict(state);
            }
        }
    }

    /// Cuts off all, whatever they are doing.
    pub fn close_all(&self) {
        for client in self.table().clients.values() {
            client.shut_down();
        }
    }

    /// Waits until all have left. False: it is `deadline` and some have not.
    pub fn wait_until_empty(&self, deadline: Instant) -> bool {
        let mut table = self.table();
        while !table.clients.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            table = self.left.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// How many connections are open.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.table().clients.len()
    }

    fn state_now(&self, phase: Phase) -> u64 {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        now_ms << 2 | phase as u64
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends one away. False: all are at work, or on their way out.
fn evict_longest_waiting(clients: &HashMap<u64, Arc<Client>>) -> bool {
    loop {
        let waiting = clients.values().filter_map(|client| {
            let state = client.state.load(SeqCst);
            matches!(phase(state), Phase::Idle | Phase::Reading).then_some((state, client))
        });
        // The time makes up the upper bits, so the smallest state is the oldest.
        match waiting.min_by_key(|(state, _)| *state) {
            None => return clients.values().any(|client| phase(client.state.load(SeqCst)) == Phase::Evicted),
            Some((state, client)) if client.evict(state) => return true,
            // It began to work just now: look again.
            Some(_) => {}
        }
    }
}
