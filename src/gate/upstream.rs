//! The connections to tiny_http: a few, kept open, on a private unix socket.
//!
//! tiny_http gives each connection a thread of a pool that can starve: connections that are opened in a burst may be
//! queued behind threads that never become free. So connections are opened one at a time, and a small request proves
//! that a thread serves a new connection, before the connection is used and before the next one is opened. When
//! tiny_http no longer listens, it is restarted.

use std::cmp::Ordering;
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::gate::buffer::Buffer;
use crate::gate::connections::Connection;
use crate::gate::error::GateError;
use crate::gate::head::PROBE_PATH;
use crate::gate::permits::Permits;
use crate::gate::threads::check_threads;
use crate::sync;

/// How long a new connection may take to answer the probe. A served one takes microseconds, a starved one never answers.
const PROBE_TIMEOUT: Duration = Duration::from_millis(250);
/// How long a response may take: more than the 60 s of the longest long poll.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long tiny_http may take to read on. It reads at once, unless the process is stuck.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after tiny_http reset a new connection.
const RESET_PAUSE: Duration = Duration::from_millis(5);
/// File descriptors that must be free before a connection is opened. It takes three; other threads take some too.
const SPARE_DESCRIPTORS: usize = 8;
/// The most connections that are kept. After many requests were parked there are more.
const MOST_IDLE: usize = 40;
/// A connection that was not used for this time is closed.
const LONGEST_IDLE: Duration = Duration::from_secs(10);
/// Longest head of a response, which the API writes. A longer one is a bug.
const MAX_RESPONSE_HEAD: usize = 64 << 10;

/// The connections to tiny_http.
pub struct Upstreams {
    permits: Arc<Permits>,
    idle: Mutex<Idle>,
    /// Locked while a connection is opened.
    opening: Mutex<Opening>,
    restart: Restart,
}

/// Restarts tiny_http and returns its new socket.
type Restart = Box<dyn Fn() -> io::Result<PathBuf> + Send + Sync>;

struct Opening {
    socket: PathBuf,
    /// The last attempt failed. Only the first of several failures is logged.
    is_failing: bool,
}

#[derive(Default)]
struct Idle {
    /// With the time of its last use. The connection that was used last is used next, so that surplus ones stay unused.
    connections: Vec<(UnixStream, Instant)>,
    /// How often tiny_http was restarted. Connections to an older tiny_http are not kept.
    generation: u64,
}

/// A request to be sent to tiny_http.
pub(crate) struct Outgoing<'a> {
    /// The client connection that it came on.
    pub connection: &'a Arc<Connection>,
    pub head: &'a [u8],
    pub body: &'a [u8],
    /// The response has no body.
    pub is_head: bool,
    /// Sending the request twice does no harm.
    pub is_safe: bool,
    /// A health check: it is sent on a new connection, which is not kept.
    pub is_health_check: bool,
}

/// A request that was sent and has no response yet.
pub(crate) struct Exchange {
    connection: UnixStream,
    generation: u64,
}

impl Upstreams {
    /// Connections to the tiny_http that listens on `socket`. None is opened before it is needed. When tiny_http no
    /// longer listens, `restart` is called, which returns the new socket.
    pub fn new(
        permits: Arc<Permits>,
        socket: PathBuf,
        restart: impl Fn() -> io::Result<PathBuf> + Send + Sync + 'static,
    ) -> Upstreams {
        let opening = Mutex::new(Opening { socket, is_failing: false });
        Upstreams { permits, idle: Mutex::default(), opening, restart: Box::new(restart) }
    }

    /// Closes the idle connections, so that their tiny_http threads end.
    pub(crate) fn close_idle(&self) {
        self.idle().connections.clear();
    }

    /// Sends a request and reads the whole response into the (empty) `response`. Returns the length of its head.
    ///
    /// A kept connection may have died unnoticed. Then the request is sent again on a new connection, if that is safe.
    /// When no byte was written, tiny_http cannot have read the request. When the request was written and no response
    /// came, tiny_http may have given it to the API (it never drops what it has read), so only GET and HEAD are
    /// repeated: a job must not be submitted twice.
    pub(crate) fn exchange(
        &self,
        request: &Outgoing,
        response: &mut Buffer,
        deadline: Instant,
    ) -> Result<usize, GateError> {
        let _permit = self.permits.acquire(request.connection, deadline)?;
        if request.is_health_check {
            let mut own = self.open(deadline).map_err(|_| GateError::Overloaded)?;
            return exchange_on(&mut own, request, response).map_err(|_| GateError::Overloaded);
        }
        let (kept, generation) = self.take_idle();
        if let Some(mut kept) = kept {
            match exchange_on(&mut kept, request, response) {
                Ok(head_length) => {
                    self.keep(Exchange { connection: kept, generation });
                    return Ok(head_length);
                }
                Err(Fault::OverBudget) => return Err(GateError::Overloaded),
                Err(Fault::NothingSent) => {}
                Err(Fault::NoResponse) if request.is_safe => {}
                Err(Fault::NoResponse | Fault::Broken) => return Err(GateError::BadGateway),
            }
        }
        let mut fresh = self.open(deadline)?;
        response.clear();
        match exchange_on(&mut fresh, request, response) {
            Ok(head_length) => {
                self.keep(Exchange { connection: fresh, generation });
                Ok(head_length)
            }
            Err(Fault::OverBudget) => Err(GateError::Overloaded),
            Err(_) => Err(GateError::BadGateway),
        }
    }

    /// Sends a request that must not be sent twice, and does not wait for the response.
    pub(crate) fn send(&self, request: &Outgoing, deadline: Instant) -> Result<Exchange, GateError> {
        let (kept, generation) = self.take_idle();
        if let Some(kept) = kept {
            match send(&kept, request.head, request.body) {
                Ok(()) => return Ok(Exchange { connection: kept, generation }),
                Err(Fault::NothingSent) => {}
                Err(_) => return Err(GateError::BadGateway),
            }
        }
        let fresh = self.open(deadline)?;
        send(&fresh, request.head, request.body).map_err(|_| GateError::BadGateway)?;
        Ok(Exchange { connection: fresh, generation })
    }

    /// Reads the whole response to a request that was sent into the (empty) `response`. Returns the length of its head.
    pub(crate) fn receive(&self, exchange: Exchange, response: &mut Buffer) -> Result<usize, GateError> {
        match receive(&exchange.connection, false, response) {
            Ok(head_length) => {
                self.keep(exchange);
                Ok(head_length)
            }
            Err(Fault::OverBudget) => Err(GateError::Overloaded),
            Err(_) => Err(GateError::BadGateway),
        }
    }

    fn take_idle(&self) -> (Option<UnixStream>, u64) {
        let mut idle = self.idle();
        (idle.connections.pop().map(|(connection, _)| connection), idle.generation)
    }

    /// Keeps the connection of an answered request for the next one, unless tiny_http was restarted since.
    pub(crate) fn keep(&self, Exchange { connection, generation }: Exchange) {
        let now = Instant::now();
        let mut idle = self.idle();
        if idle.connections.len() < MOST_IDLE && idle.generation == generation {
            idle.connections.push((connection, now));
        }
        // The first one is the one that was not used for the longest time.
        if idle.connections.first().is_some_and(|(_, used)| now.duration_since(*used) > LONGEST_IDLE) {
            idle.connections.remove(0);
        }
    }

    /// Opens a connection and probes it.
    fn open(&self, deadline: Instant) -> Result<UnixStream, GateError> {
        let mut opening = sync::lock(&self.opening);
        while Instant::now() < deadline {
            let (error, gate_error) = match check_resources() {
                Err(error) => (error, GateError::Overloaded),
                Ok(()) => match try_open(&opening.socket) {
                    Ok(connection) => {
                        opening.is_failing = false;
                        return Ok(connection);
                    }
                    Err(error) if is_timeout(&error) => {
                        log::debug!("no tiny_http thread serves the new connection; opening another");
                        continue;
                    }
                    // tiny_http is about to end, or could not serve this connection and accepts no further one.
                    Err(error) if is_reset(&error) => {
                        thread::sleep(RESET_PAUSE);
                        continue;
                    }
                    Err(error) if is_refused(&error) && self.restart(&mut opening) => continue,
                    Err(error) => (error, GateError::BadGateway),
                },
            };
            if !opening.is_failing {
                log::warn!("cannot connect to tiny_http: {error}");
            }
            opening.is_failing = true;
            return Err(gate_error);
        }
        Err(GateError::Overloaded)
    }

    /// Restarts tiny_http. Returns false if that failed.
    fn restart(&self, opening: &mut Opening) -> bool {
        let Ok(socket) = (self.restart)() else { return false };
        log::warn!("the accept thread of tiny_http had ended; tiny_http was restarted");
        opening.socket = socket;
        let mut idle = self.idle();
        idle.generation += 1;
        idle.connections.clear();
        true
    }

    /// How many connections are idle.
    #[cfg(test)]
    pub(crate) fn idle_count(&self) -> usize {
        self.idle().connections.len()
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        sync::lock(&self.idle)
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

fn try_open(socket: &Path) -> io::Result<UnixStream> {
    let mut connection = UnixStream::connect(socket)?;
    connection.set_write_timeout(Some(SEND_TIMEOUT))?;
    connection.set_read_timeout(Some(PROBE_TIMEOUT))?;
    probe(&mut connection)?;
    connection.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
    Ok(connection)
}

/// How an exchange failed.
enum Fault {
    /// The connection was dead before a byte was written.
    NothingSent,
    /// The request was written, at least in part; the connection ended before a byte of the response came.
    NoResponse,
    /// The response was cut short, is malformed, or did not come in time.
    Broken,
    /// The response is too large for the memory that is left.
    OverBudget,
}

/// Fails unless a new connection finds descriptors and a thread. If tiny_http lacked either, it would never accept
/// again.
fn check_resources() -> io::Result<()> {
    let first = UnixDatagram::unbound()?;
    let _others = (1..SPARE_DESCRIPTORS).map(|_| first.try_clone()).collect::<io::Result<Vec<_>>>()?;
    check_threads(1).map_err(|(_, error)| error)
}

fn exchange_on(
    connection: &mut UnixStream,
    request: &Outgoing,
    response: &mut Buffer,
) -> Result<usize, Fault> {
    send(connection, request.head, request.body)?;
    receive(connection, request.is_head, response)
}

/// Writes head and body, in one call if the socket takes it.
fn send(mut connection: &UnixStream, head: &[u8], body: &[u8]) -> Result<(), Fault> {
    let mut sent = 0;
    while sent < head.len() + body.len() {
        let head_left = &head[sent.min(head.len())..];
        let body_left = &body[sent.saturating_sub(head.len())..];
        match connection.write_vectored(&[IoSlice::new(head_left), IoSlice::new(body_left)]) {
            Ok(count) if count > 0 => sent += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ if sent == 0 => return Err(Fault::NothingSent),
            _ => return Err(Fault::NoResponse),
        }
    }
    Ok(())
}

/// Reads a whole response and makes it an HTTP/1.1 response. Returns the length of its head.
fn receive(connection: &UnixStream, is_head: bool, response: &mut Buffer) -> Result<usize, Fault> {
    let mut head: Option<ResponseHead> = None;
    loop {
        let expected = head.as_ref().map_or(0, ResponseHead::whole_length);
        response.make_room(expected).map_err(|_| Fault::OverBudget)?;
        match response.read_from(connection) {
            Ok(count) if count > 0 => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // tiny_http still handles the request: sending it again would handle it twice.
            Err(error) if is_timeout(&error) => return Err(Fault::Broken),
            _ if response.is_empty() => return Err(Fault::NoResponse),
            _ => return Err(Fault::Broken),
        }
        if head.is_none() {
            head = parse_response_head(response.data(), is_head)?;
        }
        let Some(head) = &head else { continue };
        match response.data().len().cmp(&head.whole_length()) {
            Ordering::Less => {}
            Ordering::Equal => return Ok(head.make_http_1_1(response)),
            // More bytes than announced: the next response would begin at an unknown byte.
            Ordering::Greater => return Err(Fault::Broken),
        }
    }
}

/// The framing that the head of a response announces.
struct ResponseHead {
    length: usize,
    body_length: usize,
    is_no_content: bool,
}

impl ResponseHead {
    fn whole_length(&self) -> usize {
        self.length + self.body_length
    }

    /// Makes the head one of HTTP/1.1 and returns its new length.
    fn make_http_1_1(&self, response: &mut Buffer) -> usize {
        // tiny_http responds with the version of the request.
        response.data_mut()[..8].copy_from_slice(b"HTTP/1.1");
        // tiny_http also adds a Content-Length where the standard forbids one (RFC 9110, 8.6).
        let forbidden = b"\r\nContent-Length: 0";
        if !self.is_no_content {
            return self.length;
        }
        match response.data().windows(forbidden.len()).position(|part| part == forbidden) {
            Some(at) => {
                response.remove(at, forbidden.len());
                self.length - forbidden.len()
            }
            None => self.length,
        }
    }
}

/// Parses the head of a response. Returns `None` while it is incomplete.
fn parse_response_head(bytes: &[u8], is_head: bool) -> Result<Option<ResponseHead>, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_RESPONSE_HEAD => return Ok(None),
        _ => return Err(Fault::Broken),
    };
    let is_no_content = response.code == Some(204);
    let body_length = if is_head || is_no_content || response.code == Some(304) {
        0
    } else {
        content_length(response.headers).ok_or(Fault::Broken)?
    };
    Ok(Some(ResponseHead { length, body_length, is_no_content }))
}

fn content_length(headers: &[httparse::Header]) -> Option<usize> {
    let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"))?;
    std::str::from_utf8(header.value).ok()?.parse().ok()
}

/// Requests [`PROBE_PATH`] and waits for the 204.
fn probe(connection: &mut UnixStream) -> io::Result<()> {
    connection
        .write_all(format!("GET {PROBE_PATH} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").as_bytes())?;
    let mut response = Vec::with_capacity(256);
    let mut chunk = [0; 256];
    while !response.ends_with(b"\r\n\r\n") {
        let count = connection.read(&mut chunk)?;
        response.extend_from_slice(&chunk[..count]);
        if count == 0 || response.len() > 4096 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no response to the probe"));
        }
    }
    if response.get(8..12) == Some(b" 204") {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the response to the probe is not 204"))
    }
}

/// Whether a socket timed out. The kind of the error depends on the system.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
