//! One client connection: requests one at a time, in order, each read whole before tiny_http sees any of it, and
//! each answer taken whole before the client gets any of it. So a slow client never holds anything that others
//! need: only its own thread.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::gate::Shared;
use crate::gate::buffer::Buffer;
use crate::gate::connections::Client;
use crate::gate::error::Refusal;
use crate::gate::head::{self, Framing, Head};
use crate::gate::request_reader::{self, Source};
use crate::gate::upstream::{Outgoing, is_timeout};

/// Reads return at least this often within `request_time`. With a fixed slice the socket's time-out need not be set anew
/// for each of them.
const SLICES: u32 = 8;
/// Writes return at least this often. A client that lets one wait for so long is slow, and may be sent away.
const WRITE_SLICE: Duration = Duration::from_millis(100);
/// A client that takes this much of an answer within `request_time` gets as much time again: one that is slower, however
/// steadily it reads, is closed.
const PROGRESS: usize = 1 << 20;
/// How long and how much is read from a client after the last answer, so that it sees the answer: closing a socket
/// with unread bytes resets the connection, which discards what is on its way.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 << 20;

/// Why a connection ends.
enum End {
    /// The gate answers with an error first.
    Refused(Refusal),
    /// The last answer has been written.
    Done,
    /// The client has gone, is idle for too long, too slow, or was sent away.
    Gone,
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> End {
        End::Refused(refusal)
    }
}

/// Serves a client until its connection ends.
pub(crate) fn serve(client: &Arc<Client>, gate: &Shared) {
    let mut connection = Connection {
        client,
        gate,
        socket: Socket { client, gate, deadline: Instant::now(), read_timeout: None },
        input: Buffer::new(&client.account),
        forward: Vec::with_capacity(512),
        answer: Buffer::new(&client.account),
        is_head: false,
    };
    match connection.run() {
        Ok(never) => match never {},
        Err(End::Gone) => {}
        Err(End::Done) => connection.linger(),
        Err(End::Refused(refusal)) => {
            let answer = refusal.to_bytes(connection.is_head);
            if connection.write_all(&answer).is_ok() {
                connection.linger();
            }
        }
    }
}

struct Connection<'a> {
    client: &'a Arc<Client>,
    gate: &'a Shared,
    socket: Socket<'a>,
    /// From the client: the rest of the current request, and perhaps the beginning of the next.
    input: Buffer,
    /// The head that goes to tiny_http.
    forward: Vec<u8>,
    answer: Buffer,
    /// The current request is a HEAD request.
    is_head: bool,
}

/// The client's end, as the source of its requests.
struct Socket<'a> {
    client: &'a Client,
    gate: &'a Shared,
    /// When the current request must have come whole.
    deadline: Instant,
    /// What is set on the socket, to spare setting it again.
    read_timeout: Option<Duration>,
}

impl Source for Socket<'_> {
    type Error = End;

    fn fill(&mut self, input: &mut Buffer, expected: usize) -> Result<(), End> {
        if !self.client.begin_reading(&self.gate.clients) {
            return Err(End::Gone);
        }
        input.make_room(expected)?;
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(End::Refused(Refusal::Timeout));
            }
            self.set_read_timeout(left.min(slice(self.gate.limits.request_time)))?;
            match input.read_from(&self.client.stream) {
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
            // Zero would mean for ever.
            let at_least = timeout.max(Duration::from_millis(1));
            self.client.stream.set_read_timeout(Some(at_least)).map_err(|_| End::Gone)?;
            self.read_timeout = Some(timeout);
        }
        Ok(())
    }
}

impl Connection<'_> {
    fn run(&mut self) -> Result<std::convert::Infallible, End> {
        let limits = &self.gate.limits;
        self.client.stream.set_write_timeout(Some(WRITE_SLICE)).map_err(|_| End::Gone)?;
        // A client that connects and says nothing is too slow, not idle.
        self.wait_for_first_byte(limits.request_time.min(limits.idle_time))?;
        loop {
            self.serve_request()?;
            self.client.rest(&self.gate.clients);
            // Only now, lest Gate::stop closes the idle ones before this one says that it is idle.
            if self.gate.is_stopping() {
                return Err(End::Done);
            }
            if self.input.is_empty() {
                self.wait_for_first_byte(limits.idle_time)?;
            }
        }
    }

    fn wait_for_first_byte(&mut self, patience: Duration) -> Result<(), End> {
        self.socket.set_read_timeout(patience)?;
        self.input.make_room(0)?;
        loop {
            match self.input.read_from(&self.client.stream) {
                Ok(count) if count > 0 => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return Err(End::Gone),
            }
        }
    }

    fn serve_request(&mut self) -> Result<(), End> {
        self.socket.deadline = Instant::now() + self.gate.limits.request_time;
        let head = self.read_head()?;
        let decoded = self.read_body(&head)?;
        if !self.client.begin_work() {
            return Err(End::Gone);
        }
        let head_length = self.exchange(&head, decoded)?;
        let keeps = head.keep_alive && !self.gate.is_stopping();
        if !keeps {
            self.add_to_answer(head_length, b"Connection: close\r\n")?;
        } else if head.is_http_1_0 {
            self.add_to_answer(head_length, b"Connection: keep-alive\r\n")?;
        }
        self.write_all(self.answer.data())?;
        self.answer.clear();
        self.answer.shrink();
        if keeps { Ok(()) } else { Err(End::Done) }
    }

    /// Reads a head, and leaves what goes to tiny_http in `forward`.
    fn read_head(&mut self) -> Result<Head, End> {
        let read = request_reader::read_head(
            &mut self.socket,
            &mut self.input,
            self.gate.limits.max_body,
            &mut self.forward,
        );
        if read.is_err() {
            // A refusal of a HEAD request has no body either.
            self.is_head = self.input.data().starts_with(b"HEAD ");
        }
        let head = read?;
        self.is_head = head.is_head;
        Ok(head)
    }

    /// Reads the body to its end. One with a Content-Length stays in `input`; a chunked one is given decoded.
    fn read_body(&mut self, head: &Head) -> Result<Option<Buffer>, End> {
        if head.expects_continue
            && self.input.is_empty()
            && !matches!(head.framing, Framing::None | Framing::Length(0))
        {
            let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
            self.write_all(go_on)?;
        }
        let (max_body, account) = (self.gate.limits.max_body, &self.client.account);
        request_reader::read_body(&mut self.socket, &mut self.input, head.framing, max_body, account)
    }

    /// Has tiny_http answer the request. Gives the length of the answer's head.
    fn exchange(&mut self, head: &Head, mut decoded: Option<Buffer>) -> Result<usize, End> {
        let mut in_input = match head.framing {
            Framing::Length(length) => length,
            Framing::None | Framing::Chunked => 0,
        };
        // The body of a GET means nothing, so the API does not read it before it answers. A long answer would then
        // wait for the gate to take it, and the gate for tiny_http to take the body. Nor may such a body keep memory
        // while the answer waits for some.
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
        head::finish(&mut self.forward, self.client.id, body.map(<[u8]>::len));
        let body = body.unwrap_or_default();
        let request = Outgoing {
            client: self.client,
            head: &self.forward,
            body,
            is_head: head.is_head,
            is_safe: head.is_safe,
            is_probe: head.is_probe,
        };
        let deadline = Instant::now() + self.gate.limits.request_time;
        let head_length = self.gate.upstreams.exchange(&request, &mut self.answer, deadline)?;
        // Before the client takes its time with the answer.
        self.input.consume(in_input);
        self.input.shrink();
        Ok(head_length)
    }

    fn add_to_answer(&mut self, head_length: usize, line: &[u8]) -> Result<(), End> {
        // Before the empty line that ends the head.
        Ok(self.answer.insert(head_length - 2, line)?)
    }

    /// Writes all, for as long as the client takes at least [`PROGRESS`] bytes in each `request_time`.
    fn write_all(&self, mut bytes: &[u8]) -> Result<(), End> {
        let mut stream = &self.client.stream;
        let patience = self.gate.limits.request_time;
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
            // The clock is only asked when one write was not enough.
            let now = Instant::now();
            if deadline.is_none() || progress >= PROGRESS {
                deadline = Some(now + patience);
                progress = 0;
                if !self.client.begin_sending(&self.gate.clients) {
                    return Err(End::Gone);
                }
            } else if deadline.is_some_and(|deadline| deadline <= now) {
                return Err(End::Gone);
            }
        }
        Ok(())
    }

    /// Waits a little until the client has closed too; what it still sends is thrown away.
    fn linger(&mut self) {
        // A connection that only lingers is the first to make room.
        self.client.rest(&self.gate.clients);
        if self.client.stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let patience = if self.gate.is_stopping() { LINGER_TIME / 10 } else { LINGER_TIME };
        let deadline = Instant::now() + patience.min(self.gate.limits.request_time);
        let mut dropped = 0;
        let mut piece = [0; 4096];
        while dropped < LINGER_BYTES {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.socket.set_read_timeout(left).is_err() {
                return;
            }
            match (&self.client.stream).read(&mut piece) {
                Ok(count) if count > 0 => dropped += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }
}

fn slice(request_time: Duration) -> Duration {
    (request_time / SLICES).max(Duration::from_millis(1))
}
