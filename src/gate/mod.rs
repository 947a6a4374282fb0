//! The gate: the public HTTP port, in front of tiny_http.
//!
//! tiny_http has no timeouts and no limits, parses message framing leniently, and never accepts again after one failed
//! accept(). So tiny_http listens on a private unix socket only, and the gate owns the public port. The gate reads each
//! request whole, checks it, forwards it over one of a few persistent connections, and passes the response back. A
//! request that is malformed, too large or too slow never reaches tiny_http.
//!
//! ```text
//! clients ──► accept loop (`gate`) ──► a thread each (`conn-N`) ──► Upstreams (permits) ──► tiny_http
//! ```
//!
//! * `connections`: the table of open connections. When it is full, the one that waits longest for its client is evicted.
//! * `session`: serves one connection from request to request, and holds its deadlines.
//! * `request_reader`: turns the bytes of a connection into whole requests.
//! * `head`, `target`, `chunked`: the rules for a well-formed request.
//! * `buffer`: memory that grows as bytes arrive, within one budget for all connections.
//! * `permits`: how many requests tiny_http handles at a time; a long poll parks and gives its permit back.
//! * `upstream`: the connections to tiny_http.
//! * `handover`: requests whose responses the API writes straight to their clients.
//! * `limits`: the limits of all of this.
//! * `error`: the error responses that the gate writes itself.
//!
//! The gate knows nothing about jobs. It treats three kinds of requests specially: [`PROBE_PATH`], the health checks, and
//! the quick requests that the API names. It adds one header, by which the API names the client connection of a request.

mod buffer;
mod chunked;
mod connections;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod handover;
mod head;
mod limits;
mod permits;
mod request_reader;
mod session;
mod target;
#[cfg(test)]
mod tests;
pub mod threads;
mod upstream;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::gate::buffer::Budget;
use crate::gate::connections::{Connection, Connections};
use crate::gate::error::GateError;
pub use crate::gate::handover::Handovers;
pub use crate::gate::head::{CLIENT_HEADER, PROBE_PATH};
pub use crate::gate::limits::{ConnectionLimits, Limits};
pub use crate::gate::permits::{ParkedRequest, Permits};
use crate::gate::session::Shared;
pub use crate::gate::upstream::Upstreams;
use crate::sync;

/// Stack of a connection's thread. It needs about 10 KiB, and twice that in a debug build.
const STACK_SIZE: usize = 96 << 10;
/// Connections that the kernel queues for the accept loop. A burst overflows the 128 of std, and a client whose
/// connection was dropped retries only after a second.
const BACKLOG: i32 = 1024;
/// Response bytes that the kernel buffers for one client. By default it buffers several MB for a client that never
/// reads.
const SEND_BUFFER: usize = 256 << 10;
/// Pause after a failed accept(). The usual cause is a lack of file descriptors, and some may be free by then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(30);

/// A running gate. Dropping it stops it without a grace period.
pub struct Gate {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Another handle of the listening socket, to wake the accept loop.
    waker: TcpStream,
    accept_thread: Mutex<Option<JoinHandle<()>>>,
}

impl Gate {
    /// Starts to accept connections.
    ///
    /// # Errors
    /// When the socket or the thread cannot be set up.
    pub fn start(
        listener: TcpListener,
        upstreams: Upstreams,
        handovers: Arc<Handovers>,
        limits: Limits,
    ) -> io::Result<Gate> {
        let address = listener.local_addr()?;
        rustix::net::listen(&listener, BACKLOG)?;
        // std only offers shutdown() on streams, but the call is the same for a listening socket.
        let waker = TcpStream::from(OwnedFd::from(listener.try_clone()?));
        // Accepted sockets inherit both options. Without the first, a response of two segments waits 40 ms for the
        // client's ACK.
        waker.set_nodelay(true)?;
        rustix::net::sockopt::set_socket_send_buffer_size(&waker, SEND_BUFFER)?;
        let budget = Budget::new(limits.max_buffered);
        let connections = Arc::new(Connections::new(limits.max_connections.max(1), budget.clone()));
        budget.on_shortage({
            // Weak, because the connections hold the budget.
            let connections = Arc::downgrade(&connections);
            move || {
                if let Some(connections) = connections.upgrade() {
                    connections.free_memory();
                }
            }
        });
        let shared = Arc::new(Shared { connections, limits, upstreams: Arc::new(upstreams), handovers });
        let accept_thread = {
            let shared = shared.clone();
            thread::Builder::new().name("gate".into()).spawn(move || accept_loop(&listener, &shared))?
        };
        Ok(Gate { shared, address, waker, accept_thread: Mutex::new(Some(accept_thread)) })
    }

    /// The address that clients connect to, with the port that the system chose if port 0 was requested.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, closes idle connections, and waits up to `grace` until the requests in progress are answered;
    /// their responses say `Connection: close`. Then closes the connections that are left. A second call does nothing.
    pub fn stop(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.shared.connections.is_stopping.store(true, SeqCst);
        self.join_accept_thread();
        self.shared.connections.close_idle();
        if !self.shared.connections.wait_until_empty(deadline) {
            self.shared.connections.close_all();
        }
        self.shared.upstreams.close_idle();
    }

    fn join_accept_thread(&self) {
        let mut accept_thread = sync::lock(&self.accept_thread);
        if let Some(thread) = accept_thread.take() {
            // On Linux shutdown() ends accept(); elsewhere a new connection does.
            if self.waker.shutdown(Shutdown::Both).is_err() {
                let _ = TcpStream::connect(self.address);
            }
            if thread.join().is_err() {
                log::error!("the accept thread of the HTTP port panicked");
            }
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

fn accept_loop(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut is_failing = false;
    while !shared.is_stopping() {
        let outcome = listener.accept().and_then(|(stream, _)| start_session(stream, shared));
        match outcome {
            Ok(()) => is_failing = false,
            Err(_) if shared.is_stopping() => return,
            Err(error) => {
                if !is_failing {
                    log::warn!("cannot accept connections for now: {error}");
                }
                is_failing = true;
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// Starts the thread of a new connection, or rejects the connection when the table is full of busy ones.
///
/// # Errors
/// When no thread can be started; the connection is closed then.
fn start_session(stream: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let connection = match shared.connections.accept(stream) {
        Ok(accepted) => accepted,
        Err(stream) => {
            reject(&stream);
            return Ok(());
        }
    };
    let name = format!("conn-{}", connection.id);
    let entry = TableEntry { shared: shared.clone(), connection };
    // A failed spawn drops the closure, and with it the entry.
    thread::Builder::new()
        .name(name)
        .stack_size(STACK_SIZE)
        .spawn(move || session::serve(&entry.connection, &entry.shared))
        .map(drop)
}

/// Removes a connection from the table when dropped, so also when its thread panics.
struct TableEntry {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
}

impl Drop for TableEntry {
    fn drop(&mut self) {
        self.shared.handovers.remove(self.connection.id);
        self.shared.connections.remove(self.connection.id);
    }
}

/// Responds 503 and closes the connection. The accept loop must not wait for a client, so this is best effort.
fn reject(mut stream: &TcpStream) {
    let response = GateError::Overloaded.to_bytes(false);
    let _ = stream.set_nonblocking(true);
    let _ = stream.write(&response);
    let _ = stream.shutdown(Shutdown::Write);
    // Unread bytes would reset the connection before the client reads the response.
    let _ = stream.read(&mut [0; 4096]);
}
