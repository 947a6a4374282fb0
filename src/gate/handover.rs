//! Handed-over requests: the API writes their responses straight to the client.
//!
//! The thread of a connection that waits for a response costs two thread switches: the API wakes the thread by its
//! response, and the client wakes the thread by its next request. So for a quick request ([`Handovers::new`] says which
//! requests are quick) the connection's thread hands its exchange over and waits for the next request at once. The
//! thread of the API that makes the response writes it to the client's socket, and returns the connection to tiny_http
//! and the permit.
//!
//! Why no two threads wait for each other:
//!
//! * The API never waits for a client: a request is handed over only if the client's socket has room for the response.
//! * The API never waits for tiny_http, because the response does not go through the socket of tiny_http.
//! * The connection's thread waits for the API only on the lock of the exchange, which the API holds while it writes.
//! * An exchange has one owner: the first thread that takes it out of [`Handover`] ends it. If the client sends more,
//!   hangs up or is silent for long before the response is there, the connection's thread takes the exchange, and waits
//!   for the response on the socket of tiny_http like for any other request. The API finds no exchange then, and sends
//!   the response there.
//! * A request that tiny_http or the API drops without a response ends in that same way.

use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use rustix::net::{SendFlags, send};

use crate::gate::connections::{Connection, Connections};
use crate::gate::error::GateError;
use crate::gate::permits::{Permit, Permits};
use crate::gate::upstream::{Exchange, Outgoing, Upstreams};
use crate::sync;

/// The longest body of a request that is handed over: its memory is not charged.
pub(crate) const MAX_BODY: usize = 16 << 10;

/// The connections whose requests may be handed over.
pub struct Handovers {
    quick: &'static [&'static str],
    permits: Arc<Permits>,
    connections: Mutex<HashMap<u64, Arc<Handover>>>,
}

impl Handovers {
    /// The most handed-over requests at a time.
    pub const LIMIT: usize = 32;

    /// `quick` are the requests that may be handed over, as method, space and target. Their responses must be short, and
    /// must not need a thread of the API for long.
    pub fn new(quick: &'static [&'static str]) -> Arc<Handovers> {
        Arc::new(Handovers { quick, permits: Permits::new(Self::LIMIT), connections: Mutex::default() })
    }

    /// Whether the request with this head, as tiny_http gets it, is quick.
    pub(crate) fn is_quick(&self, head: &[u8]) -> bool {
        let is_line =
            |line: &&str| head.strip_prefix(line.as_bytes()).is_some_and(|rest| rest.starts_with(b" HTTP/"));
        self.quick.iter().any(is_line)
    }

    pub(crate) fn add(
        &self,
        connection: &Arc<Connection>,
        connections: &Arc<Connections>,
        upstreams: &Arc<Upstreams>,
    ) -> Arc<Handover> {
        let handover = Arc::new(Handover {
            connection: connection.clone(),
            connections: connections.clone(),
            upstreams: upstreams.clone(),
            permits: self.permits.clone(),
            state: Mutex::new(State::Nothing),
        });
        self.connections().insert(connection.id, handover.clone());
        handover
    }

    pub(crate) fn remove(&self, connection: u64) {
        self.connections().remove(&connection);
    }

    /// Writes the response to a handed-over request to its client. Returns false, and does not call `response`, if the
    /// request is not handed over: then the connection's thread waits for the response from tiny_http.
    ///
    /// `number` is the value of the request's header [`CLIENT_HEADER`](crate::gate::CLIENT_HEADER). `response` returns an
    /// HTTP/1.1 response, and ends the request in tiny_http without a response.
    pub fn deliver(&self, number: u64, response: impl FnOnce() -> Vec<u8>) -> bool {
        let handover = self.connections().get(&number).cloned();
        handover.is_some_and(|handover| handover.deliver(response))
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<Handover>>> {
        sync::lock(&self.connections)
    }
}

/// The handed-over request of one connection.
pub(crate) struct Handover {
    connection: Arc<Connection>,
    connections: Arc<Connections>,
    upstreams: Arc<Upstreams>,
    permits: Arc<Permits>,
    state: Mutex<State>,
}

/// What the connection's thread finds when it looks after its request.
pub(crate) enum State {
    /// The client has the whole response, or no request was handed over.
    Nothing,
    /// The API has not responded.
    Waits(Exchange, Permit),
}

impl Handover {
    /// Sends a request to tiny_http. From then on either the API or the connection's thread ends the exchange.
    pub fn hand_over(&self, request: &Outgoing, deadline: Instant) -> Result<(), GateError> {
        let permit = self.permits.acquire(request.connection, deadline)?;
        // Held while the request is sent, so that the response does not come too early.
        let mut state = self.state();
        *state = State::Waits(self.upstreams.send(request, deadline)?, permit);
        Ok(())
    }

    /// Takes the exchange back. Waits while the API writes the response.
    pub fn take(&self) -> State {
        std::mem::replace(&mut *self.state(), State::Nothing)
    }

    fn deliver(&self, response: impl FnOnce() -> Vec<u8>) -> bool {
        let mut state = self.state();
        let State::Waits(exchange, permit) = std::mem::replace(&mut *state, State::Nothing) else {
            return false;
        };
        let mut response = response();
        let is_stopping = self.connections.is_stopping.load(SeqCst);
        if is_stopping && let Some(end) = response.windows(4).position(|part| part == b"\r\n\r\n") {
            response.splice(end..end, *b"\r\nConnection: close");
        }
        let written = send(&self.connection.stream, &response, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        if written == Ok(response.len()) {
            self.connection.mark_idle(&self.connections);
        } else {
            // The client has disconnected.
            self.connection.shut_down();
        }
        drop(state);
        self.upstreams.keep(exchange);
        drop(permit);
        // After mark_idle(): a gate that begins to stop later closes the idle connections itself.
        if self.connections.is_stopping.load(SeqCst) {
            self.connection.wake_reader();
        }
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }
}
