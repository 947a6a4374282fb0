//! Permits: how many requests tiny_http handles at a time.
//!
//! The other requests wait in a queue, first in, first out, so that a client that pipelines requests does not starve
//! the others. A request that waits long (`GET /jobs/ID?wait=`) is parked: another request uses its permit meanwhile.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, Thread};
use std::time::Instant;

use crate::gate::connections::Connection;
use crate::gate::error::GateError;
use crate::sync;

/// The permits, and the connections whose requests hold one.
pub struct Permits {
    state: Mutex<State>,
}

struct State {
    /// Permits that are free. Negative when parked requests have been resumed while others hold their permits.
    free: isize,
    /// Requests that wait for a permit. Empty while there are free permits.
    queue: VecDeque<Arc<Waiter>>,
    /// The connections whose requests hold a permit or are parked, by id.
    connections: HashMap<u64, Arc<Connection>>,
}

/// A thread that waits for a permit.
struct Waiter {
    thread: Thread,
    has_permit: AtomicBool,
}

impl Permits {
    /// Permits for `limit` requests at a time. At least as many threads should take requests from tiny_http, because
    /// each new connection to it is probed, and the probe needs a free thread.
    pub fn new(limit: usize) -> Arc<Permits> {
        let free = limit.max(1).try_into().unwrap_or(isize::MAX);
        let state = State { free, queue: VecDeque::new(), connections: HashMap::new() };
        Arc::new(Permits { state: Mutex::new(state) })
    }

    /// Waits for a permit.
    ///
    /// # Errors
    /// [`GateError::Overloaded`] at `deadline`.
    pub(crate) fn acquire(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        deadline: Instant,
    ) -> Result<Permit, GateError> {
        let mut state = self.state();
        if state.free > 0 {
            state.free -= 1;
        } else {
            state = self.wait_for_permit(state, deadline)?;
        }
        state.connections.insert(connection.id, connection.clone());
        Ok(Permit { permits: self.clone(), connection: connection.id })
    }

    fn wait_for_permit<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        deadline: Instant,
    ) -> Result<MutexGuard<'a, State>, GateError> {
        let waiter = Arc::new(Waiter { thread: thread::current(), has_permit: AtomicBool::new(false) });
        state.queue.push_back(waiter.clone());
        drop(state);
        while !waiter.has_permit.load(SeqCst) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::park_timeout(left);
        }
        let mut state = self.state();
        if !waiter.has_permit.load(SeqCst) {
            state.queue.retain(|other| !Arc::ptr_eq(other, &waiter));
            return Err(GateError::Overloaded);
        }
        Ok(state)
    }

    /// Frees a permit, or hands it to the request that waits longest.
    fn release(&self, mut state: MutexGuard<State>) {
        state.free += 1;
        if state.free > 0
            && let Some(waiter) = state.queue.pop_front()
        {
            state.free -= 1;
            waiter.has_permit.store(true, SeqCst);
            drop(state);
            waiter.thread.unpark();
        }
    }

    /// Frees the permit of a request that waits long, until the returned guard is dropped. Never blocks.
    ///
    /// Each parked request keeps its connection to tiny_http, so the caller must limit their number. Parking frees no
    /// thread: another thread must take requests from tiny_http meanwhile, or new connections to it seem dead.
    ///
    /// `number` is the value of the request's header [`CLIENT_HEADER`](crate::gate::CLIENT_HEADER).
    pub fn park(self: &Arc<Self>, number: Option<u64>) -> ParkedRequest {
        let state = self.state();
        let connection = number.and_then(|number| state.connections.get(&number).cloned());
        self.release(state);
        ParkedRequest { permits: self.clone(), connection }
    }

    /// How many requests wait for a permit.
    #[cfg(test)]
    pub(crate) fn queue_length(&self) -> usize {
        self.state().queue.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }
}

/// The right of one request to be handled by tiny_http. Dropping it releases the permit.
pub(crate) struct Permit {
    permits: Arc<Permits>,
    connection: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.permits.state();
        state.connections.remove(&self.connection);
        self.permits.release(state);
    }
}

/// A request that waits and has freed its permit. Dropping this takes a permit back without waiting.
#[must_use = "dropping this takes the permit back"]
pub struct ParkedRequest {
    permits: Arc<Permits>,
    connection: Option<Arc<Connection>>,
}

impl ParkedRequest {
    /// Whether the client has closed its connection or its sending half. The two cannot be told apart until a write
    /// fails, so such a client should get a response soon.
    pub fn client_has_hung_up(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.has_hung_up())
    }
}

impl Drop for ParkedRequest {
    fn drop(&mut self) {
        self.permits.state().free -= 1;
    }
}
