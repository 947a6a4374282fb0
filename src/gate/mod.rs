//! The gate: the door to the outside, in front of tiny_http.
//!
//! tiny_http has no time-outs, no limits, reads framing leniently, and goes deaf for good when accept() fails once.
//! So it listens on a private unix socket only, and the gate owns the public port. It reads each request whole,
//! checks it, passes it on over one of a few persistent connections, and passes the answer back. What is malformed,
//! too large or too slow never gets to tiny_http.
//!
//! ```text
//! clients ──► accept loop (`gate`) ──► a thread each (`conn-N`) ──► Upstreams (8 places) ──► tiny_http
//! ```
//!
//! * `connections`: the table of connections; the one that waits longest makes room when it is full.
//! * `connection`: one client connection from request to request, and all of its deadlines.
//! * `request_reader`: from its bytes to whole requests.
//! * `head`, `target`, `chunked`: what a well-formed request is.
//! * `buffer`: memory that grows as bytes come in, within one budget.
//! * `upstream`: the connections to tiny_http.
//! * `error`: the errors that the gate answers itself.
//!
//! The gate does not know jobs. It knows two kinds of paths, [`PROBE_PATH`] and those of the health probes, and adds one
//! header, by which a waiting request learns that its client has disconnected.

mod buffer;
mod chunked;
mod connection;
pub(crate) mod connections;
pub(crate) mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod head;
pub(crate) mod request_reader;
mod target;
#[cfg(test)]
mod tests;
pub mod threads;
mod upstream;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::gate::buffer::Budget;
use crate::gate::connections::{Client, Clients};
use crate::gate::error::Refusal;
pub use crate::gate::head::CLIENT_HEADER;
pub use crate::gate::upstream::{Parked, Upstreams};
use crate::sync;

/// The API must answer `GET` of this path with 204 at once: it shows that a new connection to tiny_http is served.
/// From outside it does not exist.
pub const PROBE_PATH: &str = "/-/hello";
/// Whether all is well is asked for on a new connection to tiny_http each time: a kept one would tell nothing of those that
/// other requests may need.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// A connection's thread needs about 10 KiB, twice that in a debug build.
const STACK_SIZE: usize = 96 << 10;
/// How many connections the kernel keeps for the accept loop. The 128 of std overflow in a burst of them, and those turned
/// away then try again after a second.
const BACKLOG: i32 = 1024;
/// What the kernel holds of the answers to one client. Left to itself it takes several MB of them for a client that
/// never reads.
const SEND_BUFFER: usize = 256 << 10;
/// The pause after accept() failed: most often for lack of file descriptors, and some may be free by then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(30);
/// The soft limit of file descriptors is raised to this, if the hard limit allows it.
const MAX_DESCRIPTORS: u64 = 65_536;
/// The fewest connections that are served, however few file descriptors there are.
const MIN_CONNECTIONS: usize = 8;

/// What a gate lets through.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Client connections at a time, see [`Room`]. Default 512.
    pub max_connections: usize,
    /// The longest body of a request, in bytes. Default 1 MiB.
    pub max_body: usize,
    /// For a client to send a whole request (from its first byte to its last), and again to take an answer (or each
    /// 1 MiB of a long one). Default 10 s.
    pub request_time: Duration,
    /// How long a connection may be idle between two requests. Default 60 s.
    pub idle_time: Duration,
    /// The bytes that all buffered requests and answers together may take, the first 16 KiB of each not counted. Where
    /// they are short, the client that keeps the server waiting longest is sent away. Default 32 MiB.
    pub max_buffered: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: 512,
            max_body: 1 << 20,
            request_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(60),
            max_buffered: 32 << 20,
        }
    }
}

/// What the threads of a gate share.
struct Shared {
    limits: Limits,
    upstreams: Arc<Upstreams>,
    clients: Arc<Clients>,
    stopping: AtomicBool,
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }
}

/// A running gate. Dropping it stops it without grace.
pub struct Gate {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Another handle of the listening socket, to wake the accept loop with.
    waker: TcpStream,
    accept_thread: Mutex<Option<JoinHandle<()>>>,
}

impl Gate {
    /// Starts to accept.
    ///
    /// # Errors
    /// When the socket or the thread cannot be set up.
    pub fn start(listener: TcpListener, upstreams: Arc<Upstreams>, limits: Limits) -> io::Result<Gate> {
        let address = listener.local_addr()?;
        rustix::net::listen(&listener, BACKLOG)?;
        // std only offers shutdown() on streams, but the call is the same for a listening socket.
        let waker = TcpStream::from(OwnedFd::from(listener.try_clone()?));
        // Accepted sockets inherit both. Without the first an answer of two segments waits 40 ms for the client's ACK.
        waker.set_nodelay(true)?;
        rustix::net::sockopt::set_socket_send_buffer_size(&waker, SEND_BUFFER)?;
        let budget = Budget::new(limits.max_buffered);
        let clients = Arc::new(Clients::new(limits.max_connections.max(1), budget.clone()));
        budget.make_room_by({
            // They have the budget too.
            let clients = Arc::downgrade(&clients);
            move || {
                if let Some(clients) = clients.upgrade() {
                    clients.free_memory();
                }
            }
        });
        let shared = Arc::new(Shared { clients, limits, upstreams, stopping: AtomicBool::new(false) });
        let accept_thread = {
            let shared = shared.clone();
            thread::Builder::new().name("gate".into()).spawn(move || accept_loop(&listener, &shared))?
        };
        Ok(Gate { shared, address, waker, accept_thread: Mutex::new(Some(accept_thread)) })
    }

    /// The address that clients connect to, with the port that was chosen if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, closes idle connections, and waits up to `grace` for requests under way to be answered;
    /// those answers say `Connection: close`. What is left then is cut off. Another call changes nothing.
    pub fn stop(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.shared.stopping.store(true, SeqCst);
        self.join_accept_thread();
        self.shared.clients.close_idle();
        if !self.shared.clients.wait_until_empty(deadline) {
            self.shared.clients.close_all();
        }
        self.shared.upstreams.close_idle();
    }

    fn join_accept_thread(&self) {
        let mut accept_thread = sync::lock(&self.accept_thread);
        if let Some(thread) = accept_thread.take() {
            // On Linux this ends accept(); elsewhere a connection does.
            if self.waker.shutdown(Shutdown::Both).is_err() {
                let _ = TcpStream::connect(self.address);
            }
            if thread.join().is_err() {
                log::error!("the accept thread panicked");
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
        let outcome = listener.accept().and_then(|(stream, _)| take_in(stream, shared));
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

/// Gives a new connection its thread, or sends it away.
///
/// # Errors
/// When no thread can be started; the connection is closed then.
fn take_in(stream: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let client = match shared.clients.admit(stream) {
        Ok(admitted) => admitted,
        Err(stream) => {
            send_away(&stream);
            return Ok(());
        }
    };
    let name = format!("conn-{}", client.id);
    let guard = Leave { shared: shared.clone(), client };
    // A failed spawn drops the closure, and with it the guard.
    thread::Builder::new()
        .name(name)
        .stack_size(STACK_SIZE)
        .spawn(move || crate::gate::connection::serve(&guard.client, &guard.shared))
        .map(drop)
}

/// Removes a connection from the table, even if its thread panics.
struct Leave {
    shared: Arc<Shared>,
    client: Arc<Client>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.shared.clients.leave(self.client.id);
    }
}

/// Says that there is no place. The accept loop must not wait for anyone, so this is best effort.
fn send_away(mut stream: &TcpStream) {
    let answer = Refusal::Overloaded.to_bytes(false);
    let _ = stream.set_nonblocking(true);
    let _ = stream.write(&answer);
    let _ = stream.shutdown(Shutdown::Write);
    // Unread bytes would reset the connection before the answer is seen.
    let _ = stream.read(&mut [0; 4096]);
}

/// How many connections and parked requests the limit of file descriptors has room for.
///
/// tiny_http never accepts again once it finds no free descriptor, so some are kept back: for each connection to it three
/// (one here, two there), for parked requests as many again, and for the rest of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// For [`Limits::max_connections`].
    pub connections: usize,
    /// How many requests may be [parked](Upstreams::park) at a time: at most half of the connections.
    pub parked: usize,
}

impl Room {
    /// Looks for room for so much at most, beside `upstreams` requests at work at a time. Raises the process's soft limit
    /// of file descriptors as far as allowed.
    pub fn find(most: Room, upstreams: usize) -> Room {
        Room::within(usize::try_from(raise_descriptor_limit()).unwrap_or(usize::MAX), most, upstreams)
    }

    fn within(descriptors: usize, most: Room, upstreams: usize) -> Room {
        const REST_OF_PROCESS: usize = 128;
        let for_parked = (3 * most.parked).min(descriptors / 4);
        let left = descriptors.saturating_sub(REST_OF_PROCESS + 3 * upstreams + for_parked);
        let connections = most.connections.min(left.max(MIN_CONNECTIONS));
        Room { connections, parked: (for_parked / 3).min(connections / 2) }
    }
}

/// The soft limit of file descriptors, raised to the hard one or [`MAX_DESCRIPTORS`].
fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(MAX_DESCRIPTORS);
    let wanted = limit.maximum.unwrap_or(MAX_DESCRIPTORS).min(MAX_DESCRIPTORS);
    if wanted <= current {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        Ok(()) => wanted,
        Err(_) => current,
    }
}
