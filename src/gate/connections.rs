//! The table of open client connections: who is here, who can be sent away, who has left.

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::gate::buffer::{Account, Budget};
use crate::sync;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long a newcomer waits for a place, and all behind it too. The thread of a connection that was sent away sits in
/// a read or a write, which the shutdown ends, so its place is free in microseconds; if all have a request at work, most
/// of them are answered in milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a newcomer looks whether somebody can be sent away by now.
const LOOK: Duration = Duration::from_millis(5);
/// How long a connection is let wait for its client at least. A new one needs that to say what it came for.
const GRACE: Duration = Duration::from_millis(20);

/// How long a connection is let wait for its client at least when others need the memory that it has taken.
const MEMORY_GRACE: Duration = Duration::from_secs(1);

/// Says that the client has closed at least its sending half. Elsewhere only a connection closed on both sides shows.
#[cfg(target_os = "linux")]
const HANGUP: PollFlags = PollFlags::RDHUP.union(PollFlags::HUP).union(PollFlags::ERR);
#[cfg(not(target_os = "linux"))]
const HANGUP: PollFlags = PollFlags::HUP.union(PollFlags::ERR);

/// What a connection is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Between requests, or being closed.
    Idle = 0,
    /// A request has come in part.
    Reading = 1,
    /// A request is being answered.
    Busy = 2,
    /// The answer is there, and the client is slow to take it.
    Sending = 3,
    /// It was sent away; its thread is about to end.
    Evicted = 4,
}

/// One client's connection, shared by its thread and the accept loop.
pub(crate) struct Client {
    /// Its number, never given twice.
    pub id: u64,
    pub stream: TcpStream,
    /// What its buffers have taken.
    pub account: Arc<Account>,
    /// The phase in the lowest three bits, above them the time (in ms since the table's start) when it began.
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

    /// Whether the client has closed its connection, or only its sending half: which of the two shows no sooner than
    /// when something is sent.
    pub fn has_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.stream, HANGUP)];
        let at_once = Timespec::default();
        poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().intersects(HANGUP)
    }

    /// The client does not take its answer at once, so it may be sent away. False: it was already.
    pub fn begin_sending(&self, clients: &Clients) -> bool {
        self.change(clients.state_now(Phase::Sending))
    }

    fn change(&self, new: u64) -> bool {
        let old = self.state.load(SeqCst);
        phase(old) != Phase::Evicted && self.state.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }

    /// Whether the client has sent something that its thread has not come to read.
    fn has_input(&self) -> bool {
        let mut fds = [PollFd::new(&self.stream, PollFlags::IN)];
        let at_once = Timespec::default();
        poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().contains(PollFlags::IN)
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
    match state & 7 {
        0 => Phase::Idle,
        1 => Phase::Reading,
        2 => Phase::Busy,
        3 => Phase::Sending,
        _ => Phase::Evicted,
    }
}

/// All client connections whose threads have not ended.
pub(crate) struct Clients {
    started: Instant,
    max: usize,
    budget: Arc<Budget>,
    table: Mutex<Table>,
    left: Condvar,
}

#[derive(Default)]
struct Table {
    next_id: u64,
    clients: HashMap<u64, Arc<Client>>,
}

impl Clients {
    pub fn new(max: usize, budget: Arc<Budget>) -> Clients {
        Clients { started: Instant::now(), max, budget, table: Mutex::default(), left: Condvar::new() }
    }

    /// Takes in a new connection. When the table is full, the one that has been waiting longest, for its client, makes
    /// room.
    ///
    /// # Errors
    /// The stream, when all connections have a request at work and none of them ends it in time.
    pub fn admit(&self, stream: TcpStream) -> Result<Arc<Client>, TcpStream> {
        let mut table = self.table();
        let give_up = Instant::now() + PATIENCE;
        while table.clients.len() >= self.max {
            if Instant::now() >= give_up {
                return Err(stream);
            }
            self.make_room(&table.clients);
            table = sync::wait_timeout(&self.left, table, LOOK);
        }
        let id = table.next_id;
        table.next_id += 1;
        let state = AtomicU64::new(self.state_now(Phase::Idle));
        let client = Arc::new(Client { id, stream, account: Account::new(&self.budget), state });
        table.clients.insert(id, client.clone());
        Ok(client)
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
            table = sync::wait_timeout(&self.left, table, left);
        }
        true
    }

    /// How many connections are open.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.table().clients.len()
    }

    /// Sends the one away that waits longest for its client, of those that have taken memory which others need; unless one
    /// of them is on its way out already. Nobody is sent away for a short wait.
    pub fn free_memory(&self) {
        let table = self.table();
        let holders = || {
            let states = table.clients.values().map(|client| (client.state.load(SeqCst), client));
            states.filter(|(_, client)| client.account.taken() > 0)
        };
        if holders().any(|(state, _)| phase(state) == Phase::Evicted) {
            return;
        }
        // A client that had to wait for the memory itself has its time from then on.
        let latest = self.state_at(self.started.elapsed().saturating_sub(MEMORY_GRACE), Phase::Idle);
        let waits = |(state, client): &(u64, &Arc<Client>)| {
            let is_for_client = matches!(phase(*state), Phase::Reading | Phase::Sending);
            is_for_client && *state < latest && client.account.taken_for() > MEMORY_GRACE
        };
        if let Some((state, client)) = holders().filter(waits).min_by_key(|(state, _)| *state) {
            client.evict(state);
        }
    }

    /// Sends the one away that waits longest for its client, unless one is on its way out already. If all are at work
    /// nobody is.
    fn make_room(&self, clients: &HashMap<u64, Arc<Client>>) {
        let states = || clients.values().map(|client| (client.state.load(SeqCst), client));
        if states().any(|(state, _)| phase(state) == Phase::Evicted) {
            return;
        }
        let latest = self.state_at(self.started.elapsed().saturating_sub(GRACE), Phase::Idle);
        let mut waiting: Vec<_> = states()
            .filter(|(state, _)| matches!(phase(*state), Phase::Idle | Phase::Reading | Phase::Sending))
            .filter(|(state, _)| *state < latest)
            .collect();
        // The time makes up the upper bits, so the smallest state is the oldest.
        waiting.sort_unstable_by_key(|(state, _)| *state);
        for (state, client) in waiting {
            let is_about_to_work = phase(state) == Phase::Idle && client.has_input();
            if !is_about_to_work && client.evict(state) {
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
