//! Serves one client connection, on a thread of its own.
//!
//! Requests are served one at a time, in order. Each request is read whole before tiny_http gets any of it, and each
//! response is read whole before the client gets any of it. So a slow client occupies its own thread and nothing that
//! other clients need.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use crate::gate::buffer::Buffer;
use crate::gate::connections::{Connection, Connections};
use crate::gate::error::GateError;
use crate::gate::handover::{self, Handover, Handovers, State};
use crate::gate::head::{self, Framing, Head};
use crate::gate::limits::Limits;
use crate::gate::request_reader::{self, ByteSource};
use crate::gate::upstream::{Outgoing, Upstreams, is_timeout};

/// A read returns at least this often within `request_time`. A fixed slice spares setting the socket's timeout before
/// each read.
const READ_SLICES: u32 = 8;
/// A write returns at least this often. A client that blocks a write for this long is slow, and may be evicted.
const WRITE_SLICE: Duration = Duration::from_millis(100);
/// A client that reads this many bytes of a response within `request_time` gets the same time again. The connection of a
/// slower client is closed, however steadily it reads.
const PROGRESS: usize = 1 << 20;
/// How long, and how many bytes, the gate reads from a client after the last response. Closing a socket with unread
/// bytes resets the connection, and the client would lose the response.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 << 20;

/// State that the threads of a gate share.
pub(crate) struct Shared {
    pub limits: Limits,
    pub upstreams: Arc<Upstreams>,
    pub handovers: Arc<Handovers>,
    pub connections: Arc<Connections>,
}

impl Shared {
    pub fn is_stopping(&self) -> bool {
        self.connections.is_stopping.load(SeqCst)
    }
}

/// Why a session ends.
enum End {
    /// The request is rejected: the gate writes an error response first.
    Rejected(GateError),
    /// The last response has been written.
    Done,
    /// The client has disconnected, was idle too long or too slow, or was evicted.
    Gone,
}

impl From<GateError> for End {
    fn from(error: GateError) -> End {
        End::Rejected(error)
    }
}

/// How a request was served.
#[derive(PartialEq, Eq)]
enum Served {
    /// The client has the response.
    Answered,
    /// The API writes the response to the client.
    HandedOver,
}

/// Serves a connection until it ends.
pub(crate) fn serve(connection: &Arc<Connection>, gate: &Shared) {
    let mut session = Session {
        connection,
        gate,
        socket: Socket { connection, gate, deadline: Instant::now(), read_timeout: None },
        input: Buffer::new(&connection.account),
        forward: Vec::with_capacity(512),
        response: Buffer::new(&connection.account),
        is_head: false,
        handover: None,
    };
    match session.run() {
        Ok(never) => match never {},
        Err(End::Gone) => {}
        Err(End::Done) => session.linger(),
        Err(End::Rejected(error)) => {
            let response = error.to_bytes(session.is_head);
            if session.write_all(&response).is_ok() {
                session.linger();
            }
        }
    }
}

struct Session<'a> {
    connection: &'a Arc<Connection>,
    gate: &'a Shared,
    socket: Socket<'a>,
    /// Bytes from the client: the rest of the current request, and perhaps the beginning of the next.
    input: Buffer,
    /// The head that tiny_http gets.
    forward: Vec<u8>,
    response: Buffer,
    /// The current request is a HEAD request.
    is_head: bool,
    /// Made for the first request that is handed over.
    handover: Option<Arc<Handover>>,
}

/// The client's socket, as the source of its requests.
struct Socket<'a> {
    connection: &'a Connection,
    gate: &'a Shared,
    /// When the current request must have arrived whole.
    deadline: Instant,
    /// The timeout that is set on the socket, to spare setting it again.
    read_timeout: Option<Duration>,
}

impl ByteSource for Socket<'_> {
    type Error = End;

    fn fill(&mut self, input: &mut Buffer, expected: usize) -> Result<(), End> {
        if !self.connection.mark_reading(&self.gate.connections) {
            return Err(End::Gone);
        }
        input.make_room(expected)?;
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(End::Rejected(GateError::Timeout));
            }
            self.set_read_timeout(left.min(read_slice(self.gate.limits.request_time)))?;
            match input.read_from(&self.connection.stream) {
                Ok(count) if count > 0 => return Ok(()),
                Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::Interrupted => {}
                _ => return Err(End::Gone),
            }
        }
    }
}

impl Socket<'_> {
    fn set_read_timeout(&mut self, timeout: Duration) -> Result<(), End> {
        if self.read_timeout != Some(timeout) {
            // A timeout of zero would mean none.
            let at_least = timeout.max(Duration::from_millis(1));
            self.connection.stream.set_read_timeout(Some(at_least)).map_err(|_| End::Gone)?;
            self.read_timeout = Some(timeout);
        }
        Ok(())
    }
}

impl Session<'_> {
    fn run(&mut self) -> Result<std::convert::Infallible, End> {
        let limits = &self.gate.limits;
        self.connection.stream.set_write_timeout(Some(WRITE_SLICE)).map_err(|_| End::Gone)?;
        // A client that connects and sends nothing is too slow, not idle.
        self.wait_for_first_byte(limits.request_time.min(limits.idle_time))?;
        loop {
            if self.serve_request()? == Served::HandedOver {
                self.wait_while_handed_over(limits.idle_time)?;
                continue;
            }
            self.connection.mark_idle(&self.gate.connections);
            // After mark_idle(): otherwise Gate::stop could close the idle connections before this one is marked idle.
            if self.gate.is_stopping() {
                return Err(End::Done);
            }
            if self.input.is_empty() {
                self.wait_for_first_byte(limits.idle_time)?;
            }
        }
    }

    /// Waits for the next request while the API responds to the last one. Looks after the last one if the API has not
    /// responded by then.
    fn wait_while_handed_over(&mut self, timeout: Duration) -> Result<(), End> {
        let next = self.wait_for_first_byte(timeout);
        let Some(handover) = &self.handover else { return next };
        match handover.take() {
            State::Nothing if next.is_err() && self.gate.is_stopping() => Err(End::Done),
            State::Nothing => next,
            State::Waits(exchange, _permit) => {
                let head_length = self.gate.upstreams.receive(exchange, &mut self.response)?;
                let keeps = next.is_ok() && !self.gate.is_stopping();
                self.respond(head_length, (!keeps).then_some(b"Connection: close\r\n"))?;
                self.connection.mark_idle(&self.gate.connections);
                if keeps { Ok(()) } else { Err(End::Done) }
            }
        }
    }

    fn wait_for_first_byte(&mut self, timeout: Duration) -> Result<(), End> {
        self.socket.set_read_timeout(timeout)?;
        self.input.make_room(0)?;
        loop {
            match self.input.read_from(&self.connection.stream) {
                Ok(count) if count > 0 => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return Err(End::Gone),
            }
        }
    }

    fn serve_request(&mut self) -> Result<Served, End> {
        self.socket.deadline = Instant::now() + self.gate.limits.request_time;
        let head = self.read_head()?;
        let decoded = self.read_body(&head)?;
        if !self.connection.mark_busy() {
            return Err(End::Gone);
        }
        if self.may_be_handed_over(&head) {
            self.hand_over()?;
            return Ok(Served::HandedOver);
        }
        let head_length = self.exchange(&head, decoded)?;
        let keeps = head.keep_alive && !self.gate.is_stopping();
        let header: Option<&[u8]> = match keeps {
            false => Some(b"Connection: close\r\n"),
            true if head.is_http_1_0 => Some(b"Connection: keep-alive\r\n"),
            true => None,
        };
        self.respond(head_length, header)?;
        if keeps { Ok(Served::Answered) } else { Err(End::Done) }
    }

    /// Writes the response to the client, with a further header line.
    fn respond(&mut self, head_length: usize, header: Option<&[u8]>) -> Result<(), End> {
        if let Some(line) = header {
            self.add_header(head_length, line)?;
        }
        self.write_all(self.response.data())?;
        self.response.clear();
        self.response.shrink();
        Ok(())
    }

    /// Whether the API may write the response to this request to the client: the request is quick, its client stays
    /// connected and has not sent a further request.
    fn may_be_handed_over(&self, head: &Head) -> bool {
        head.keep_alive
            && !head.is_http_1_0
            && matches!(head.framing, Framing::Length(length) if length <= handover::MAX_BODY && length == self.input.data().len())
            && self.gate.handovers.is_quick(&self.forward)
            && !self.gate.is_stopping()
            && self.connection.is_writable()
    }

    /// Sends the request to tiny_http and does not wait for the response.
    fn hand_over(&mut self) -> Result<(), End> {
        let gate = self.gate;
        let handover = self
            .handover
            .get_or_insert_with(|| gate.handovers.add(self.connection, &gate.connections, &gate.upstreams));
        head::finish(&mut self.forward, self.connection.id, Some(self.input.data().len()));
        let request = Outgoing {
            connection: self.connection,
            head: &self.forward,
            body: self.input.data(),
            is_head: false,
            is_safe: false,
            is_health_check: false,
        };
        handover.hand_over(&request, Instant::now() + gate.limits.request_time)?;
        self.input.clear();
        self.input.shrink();
        Ok(())
    }

    /// Reads a head, and writes the head for tiny_http into `forward`.
    fn read_head(&mut self) -> Result<Head, End> {
        let read = request_reader::read_head(
            &mut self.socket,
            &mut self.input,
            self.gate.limits.max_body,
            &mut self.forward,
        );
        if read.is_err() {
            // An error response to a HEAD request has no body either.
            self.is_head = self.input.data().starts_with(b"HEAD ");
        }
        let head = read?;
        self.is_head = head.is_head;
        Ok(head)
    }

    /// Reads the body to its end. A body with a Content-Length stays in `input`; a chunked body is returned decoded.
    fn read_body(&mut self, head: &Head) -> Result<Option<Buffer>, End> {
        if head.expects_continue
            && self.input.is_empty()
            && !matches!(head.framing, Framing::None | Framing::Length(0))
        {
            self.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let (max_body, account) = (self.gate.limits.max_body, &self.connection.account);
        request_reader::read_body(&mut self.socket, &mut self.input, head.framing, max_body, account)
    }

    /// Forwards the request to tiny_http and reads the response. Returns the length of the response's head.
    fn exchange(&mut self, head: &Head, mut decoded: Option<Buffer>) -> Result<usize, End> {
        let mut in_input = match head.framing {
            Framing::Length(length) => length,
            Framing::None | Framing::Chunked => 0,
        };
        // The body of a GET has no meaning, so the API does not read it before it responds. If the gate sent it, a long
        // response could block on the gate and the gate on tiny_http. Nor may such a body hold memory while the response
        // waits for some.
        let has_body = head.framing != Framing::None && !head.is_safe;
        if !has_body {
            decoded = None;
            self.input.consume(std::mem::take(&mut in_input));
            self.input.shrink();
        }
        let body = match &decoded {
            _ if !has_body => None,
            Some(decoded) => Some(decoded.data()),
            None => Some(&self.input.data()[..in_input]),
        };
        head::finish(&mut self.forward, self.connection.id, body.map(<[u8]>::len));
        let body = body.unwrap_or_default();
        let request = Outgoing {
            connection: self.connection,
            head: &self.forward,
            body,
            is_head: head.is_head,
            is_safe: head.is_safe,
            is_health_check: head.is_health_check,
        };
        let deadline = Instant::now() + self.gate.limits.request_time;
        let head_length = self.gate.upstreams.exchange(&request, &mut self.response, deadline)?;
        // Freed now, because the client may take long to read the response.
        self.input.consume(in_input);
        self.input.shrink();
        Ok(head_length)
    }

    fn add_header(&mut self, head_length: usize, line: &[u8]) -> Result<(), End> {
        // Before the empty line that ends the head.
        Ok(self.response.insert(head_length - 2, line)?)
    }

    /// Writes all bytes, as long as the client reads at least [`PROGRESS`] bytes in each `request_time`.
    fn write_all(&self, mut bytes: &[u8]) -> Result<(), End> {
        let mut stream = &self.connection.stream;
        let request_time = self.gate.limits.request_time;
        let mut deadline = None;
        let mut progress = 0;
        while !bytes.is_empty() {
            match stream.write(bytes) {
                Ok(count) if count > 0 => {
                    bytes = &bytes[count..];
                    progress += count;
                }
                Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::Interrupted => {}
                _ => return Err(End::Gone),
            }
            if bytes.is_empty() {
                break;
            }
            // The clock is read only when one write was not enough.
            let now = Instant::now();
            if deadline.is_none() || progress >= PROGRESS {
                deadline = Some(now + request_time);
                progress = 0;
                if !self.connection.mark_sending(&self.gate.connections) {
                    return Err(End::Gone);
                }
            } else if deadline.is_some_and(|deadline| deadline <= now) {
                return Err(End::Gone);
            }
        }
        Ok(())
    }

    /// Waits up to [`LINGER_TIME`] for the client to close, and discards what it still sends.
    fn linger(&mut self) {
        // A connection that only lingers may be evicted.
        self.connection.mark_idle(&self.gate.connections);
        if self.connection.stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let time = if self.gate.is_stopping() { LINGER_TIME / 10 } else { LINGER_TIME };
        let deadline = Instant::now() + time.min(self.gate.limits.request_time);
        let mut dropped = 0;
        let mut chunk = [0; 4096];
        while dropped < LINGER_BYTES {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.socket.set_read_timeout(left).is_err() {
                return;
            }
            match (&self.connection.stream).read(&mut chunk) {
                Ok(count) if count > 0 => dropped += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }
}

fn read_slice(request_time: Duration) -> Duration {
    (request_time / READ_SLICES).max(Duration::from_millis(1))
}
