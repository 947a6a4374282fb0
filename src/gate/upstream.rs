//! The connections to tiny_http: a few, kept open, on a private unix socket.
//!
//! tiny_http gives each connection a thread of a pool that can starve: connections opened in a burst may be queued
//! behind threads that never become free. So connections are opened one at a time, and each one proves with a small
//! request that a thread serves it, before it is used and before the next one is opened. Where nobody listens any more,
//! tiny_http is started again.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::gate::PROBE_PATH;
use crate::gate::buffer::Buffer;
use crate::gate::connections::Client;
use crate::gate::error::Refusal;
use crate::gate::threads::check_threads;
use crate::sync;

/// How long a new connection may take to prove itself. Answering is a matter of microseconds; a starved one never
/// answers.
const HELLO_PATIENCE: Duration = Duration::from_millis(250);
/// How long an answer may take: a long poll's 60 s and a good deal more.
const ANSWER_PATIENCE: Duration = Duration::from_secs(90);
/// How long tiny_http may take to read on. It reads at once, unless the process is stuck.
const SEND_PATIENCE: Duration = Duration::from_secs(10);
/// The pause after tiny_http cut a new connection off.
const CUT_OFF_PAUSE: Duration = Duration::from_millis(5);
/// A new connection takes three descriptors; so many must be free, since others take some too.
const SPARE_DESCRIPTORS: usize = 8;
/// Heads of answers are the API's own; more than this is a fault.
const MAX_ANSWER_HEAD: usize = 64 << 10;

/// The pool of connections to tiny_http: so many requests at a time, the others wait for their turn. It comes in the
/// order in which they asked, so that a client with many requests in a row does not keep the others out.
pub struct Upstreams {
    limit: usize,
    pool: Mutex<Pool>,
    /// Held while a connection is opened.
    opening: Mutex<Opening>,
    revive: OnceLock<Revive>,
}

/// Starts tiny_http again and gives its new socket.
type Revive = Box<dyn Fn() -> io::Result<PathBuf> + Send + Sync>;

#[derive(Default)]
struct Opening {
    socket: PathBuf,
    /// It failed the last time: a streak is logged once.
    is_failing: bool,
}

struct Pool {
    /// Requests that may begin now. Negative when parked requests have come back while others took their place.
    permits: isize,
    /// Requests that wait for a permit. There are none while there are permits.
    queue: VecDeque<Arc<Turn>>,
    /// The last one used is used next, so that surplus ones stay untouched.
    idle: Vec<UnixStream>,
    /// Which tiny_http they lead to. Those that lead to an older one are not kept.
    generation: u64,
    /// The clients whose requests are at work, by their numbers.
    clients: HashMap<u64, Arc<Client>>,
}

/// The turn of a request that waits for a permit.
struct Turn {
    thread: Thread,
    has_come: AtomicBool,
}

/// A request on its way to tiny_http.
pub(crate) struct Outgoing<'a> {
    /// Who sent it.
    pub client: &'a Arc<Client>,
    pub head: &'a [u8],
    pub body: &'a [u8],
    /// Its answer has no body.
    pub is_head: bool,
    /// Sending it twice does no harm.
    pub is_safe: bool,
    /// It goes out on a new connection, which is not kept.
    pub is_probe: bool,
}

impl Upstreams {
    /// Connections to tiny_http, for `limit` requests at a time. There should be at least as many threads that take
    /// requests from it, lest new connections seem dead.
    ///
    /// Nothing is opened before it is needed.
    pub fn new(limit: usize) -> Upstreams {
        let limit = limit.max(1);
        let pool = Pool {
            permits: limit.try_into().unwrap_or(isize::MAX),
            queue: VecDeque::new(),
            idle: Vec::new(),
            generation: 0,
            clients: HashMap::new(),
        };
        Upstreams { limit, pool: Mutex::new(pool), opening: Mutex::default(), revive: OnceLock::new() }
    }

    /// From now on connections are opened to this unix socket.
    pub fn lead_to(&self, socket: PathBuf) {
        self.opening().socket = socket;
    }

    /// Has tiny_http started again by this function when nobody listens on its socket any more.
    pub fn revive_with(&self, revive: impl Fn() -> io::Result<PathBuf> + Send + Sync + 'static) {
        let _ = self.revive.set(Box::new(revive));
    }

    /// Gives the place of this request, which waits long (`GET /jobs/ID?wait=`), to another one, until the guard is
    /// dropped. Never blocks. It limits nothing: the caller should, each parked request holds a connection. And it
    /// frees no thread: unless another one takes requests from tiny_http meanwhile, new connections seem dead.
    ///
    /// `number` is the value of the request's header [`CLIENT_HEADER`](super::CLIENT_HEADER).
    pub fn park(self: &Arc<Self>, number: Option<u64>) -> Parked {
        let pool = self.pool();
        let client = number.and_then(|number| pool.clients.get(&number).cloned());
        self.give_permit(pool);
        Parked { upstreams: self.clone(), client }
    }

    /// Closes the connections that nobody uses, so that tiny_http's threads end.
    pub(crate) fn close_idle(&self) {
        self.pool().idle.clear();
    }

    /// Sends a request and reads the whole answer into the (empty) `answer`. Gives the length of the answer's head.
    ///
    /// A kept connection may have died unnoticed. Then the request is sent again on a new one, if that is safe:
    /// when not one byte of it was written, nobody can have seen it; when it was written and no answer came, tiny_http
    /// may have handed it to the API (it never drops what it has read), so only GET and HEAD are repeated.
    /// A job must not be submitted twice.
    pub(crate) fn exchange(
        &self,
        request: &Outgoing,
        answer: &mut Buffer,
        deadline: Instant,
    ) -> Result<usize, Refusal> {
        let mut place = self.take_place(request.client, deadline)?;
        if request.is_probe {
            let mut own = self.open(deadline).map_err(|_| Refusal::Overloaded)?;
            return exchange_on(&mut own, request, answer).map_err(|_| Refusal::Overloaded);
        }
        if let Some(mut kept) = place.connection.take() {
            match exchange_on(&mut kept, request, answer) {
                Ok(head_length) => {
                    place.connection = Some(kept);
                    return Ok(head_length);
                }
                Err(Fault::OverBudget) => return Err(Refusal::Overloaded),
                Err(Fault::NothingSent) => {}
                Err(Fault::NoAnswer) if request.is_safe => {}
                Err(Fault::NoAnswer | Fault::Broken) => return Err(Refusal::BadGateway),
            }
        }
        let mut fresh = self.open(deadline)?;
        answer.clear();
        match exchange_on(&mut fresh, request, answer) {
            Ok(head_length) => {
                place.connection = Some(fresh);
                Ok(head_length)
            }
            Err(Fault::OverBudget) => Err(Refusal::Overloaded),
            Err(_) => Err(Refusal::BadGateway),
        }
    }

    /// Waits for a permit, and takes a kept connection along if there is one.
    fn take_place(&self, client: &Arc<Client>, deadline: Instant) -> Result<Place<'_>, Refusal> {
        let mut pool = self.pool();
        if pool.permits > 0 {
            pool.permits -= 1;
        } else {
            pool = self.wait_for_turn(pool, deadline)?;
        }
        pool.clients.insert(client.id, client.clone());
        Ok(Place {
            upstreams: self,
            client: client.id,
            generation: pool.generation,
            connection: pool.idle.pop(),
        })
    }

    /// Waits until a permit is handed over.
    fn wait_for_turn<'a>(
        &'a self,
        mut pool: MutexGuard<'a, Pool>,
        deadline: Instant,
    ) -> Result<MutexGuard<'a, Pool>, Refusal> {
        let turn = Arc::new(Turn { thread: thread::current(), has_come: AtomicBool::new(false) });
        pool.queue.push_back(turn.clone());
        drop(pool);
        while !turn.has_come.load(SeqCst) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::park_timeout(left);
        }
        let mut pool = self.pool();
        if !turn.has_come.load(SeqCst) {
            pool.queue.retain(|other| !Arc::ptr_eq(other, &turn));
            return Err(Refusal::Overloaded);
        }
        Ok(pool)
    }

    /// Gives a permit back, or hands it to the request that waits longest.
    fn give_permit(&self, mut pool: MutexGuard<Pool>) {
        pool.permits += 1;
        if pool.permits > 0
            && let Some(turn) = pool.queue.pop_front()
        {
            pool.permits -= 1;
            turn.has_come.store(true, SeqCst);
            drop(pool);
            turn.thread.unpark();
        }
    }

    /// Opens a connection that is known to be served.
    fn open(&self, deadline: Instant) -> Result<UnixStream, Refusal> {
        let mut opening = self.opening();
        while Instant::now() < deadline {
            let (error, refusal) = match check_room() {
                Err(error) => (error, Refusal::Overloaded),
                Ok(()) => match try_open(&opening.socket) {
                    Ok(connection) => {
                        opening.is_failing = false;
                        return Ok(connection);
                    }
                    Err(error) if is_timeout(&error) => {
                        log::debug!("a connection to tiny_http starved, opening another");
                        continue;
                    }
                    // It is about to be gone, or this was the last connection that it could not take.
                    Err(error) if is_cut_off(&error) => {
                        thread::sleep(CUT_OFF_PAUSE);
                        continue;
                    }
                    Err(error) if is_refused(&error) && self.revive(&mut opening) => continue,
                    Err(error) => (error, Refusal::BadGateway),
                },
            };
            if !opening.is_failing {
                log::warn!("no connection to tiny_http: {error}");
            }
            opening.is_failing = true;
            return Err(refusal);
        }
        Err(Refusal::Overloaded)
    }

    /// Has tiny_http started again; whether there is a new one.
    fn revive(&self, opening: &mut Opening) -> bool {
        let Some(Ok(socket)) = self.revive.get().map(|revive| revive()) else { return false };
        log::warn!("tiny_http had lost its accept thread: it was started again");
        opening.socket = socket;
        let mut pool = self.pool();
        pool.generation += 1;
        pool.idle.clear();
        true
    }

    fn opening(&self) -> MutexGuard<'_, Opening> {
        sync::lock(&self.opening)
    }

    /// How many requests wait for their turn.
    #[cfg(test)]
    pub(crate) fn queue_length(&self) -> usize {
        self.pool().queue.len()
    }

    /// How many kept connections nobody uses.
    #[cfg(test)]
    pub(crate) fn idle_count(&self) -> usize {
        self.pool().idle.len()
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        sync::lock(&self.pool)
    }
}

fn is_cut_off(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

fn try_open(socket: &Path) -> io::Result<UnixStream> {
    let mut connection = UnixStream::connect(socket)?;
    connection.set_write_timeout(Some(SEND_PATIENCE))?;
    connection.set_read_timeout(Some(HELLO_PATIENCE))?;
    say_hello(&mut connection)?;
    connection.set_read_timeout(Some(ANSWER_PATIENCE))?;
    Ok(connection)
}

/// A request's right to be at work. Dropping it gives back the permit, and the connection unless it was taken out.
struct Place<'a> {
    upstreams: &'a Upstreams,
    generation: u64,
    client: u64,
    connection: Option<UnixStream>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut pool = self.upstreams.pool();
        pool.clients.remove(&self.client);
        // After a wave of parked requests there are more connections than can be used.
        if pool.idle.len() < self.upstreams.limit && pool.generation == self.generation {
            pool.idle.extend(self.connection.take());
        }
        self.upstreams.give_permit(pool);
    }
}

/// A request that waits has given its place to another; dropping this takes it back.
#[must_use = "the place is taken back when this is dropped"]
pub struct Parked {
    upstreams: Arc<Upstreams>,
    client: Option<Arc<Client>>,
}

impl Parked {
    /// Whether nobody may be there any more to wait for the answer: the client has closed its connection, or its
    /// sending half. As long as nothing is sent to it the two look the same, so it should get an answer soon.
    pub fn client_has_hung_up(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.has_hung_up())
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.upstreams.pool().permits -= 1;
    }
}

/// How an exchange failed.
enum Fault {
    /// The connection was dead before a byte was written.
    NothingSent,
    /// The request was written, at least in part; the connection ended before a byte of an answer came.
    NoAnswer,
    /// The answer was cut short, is none, or does not come in time.
    Broken,
    /// The answer is too large for the memory that is left.
    OverBudget,
}

/// Fails unless a new connection finds descriptors and a thread: if tiny_http lacked one of them, it would never accept
/// again.
fn check_room() -> io::Result<()> {
    let first = UnixDatagram::unbound()?;
    let _others = (1..SPARE_DESCRIPTORS).map(|_| first.try_clone()).collect::<io::Result<Vec<_>>>()?;
    check_threads(1).map_err(|(_, error)| error)
}

fn exchange_on(connection: &mut UnixStream, request: &Outgoing, answer: &mut Buffer) -> Result<usize, Fault> {
    send(connection, request.head, request.body)?;
    receive(connection, request.is_head, answer)
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
            _ => return Err(Fault::NoAnswer),
        }
    }
    Ok(())
}

/// Reads a whole answer, and makes it one of HTTP/1.1. Gives the length of its head.
fn receive(connection: &UnixStream, is_head: bool, answer: &mut Buffer) -> Result<usize, Fault> {
    let mut head: Option<AnswerHead> = None;
    loop {
        let expected = head.as_ref().map_or(0, AnswerHead::whole_length);
        answer.make_room(expected).map_err(|_| Fault::OverBudget)?;
        match answer.read_from(connection) {
            Ok(count) if count > 0 => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // Still at work on it: asking again would only make it two.
            Err(error) if is_timeout(&error) => return Err(Fault::Broken),
            _ if answer.is_empty() => return Err(Fault::NoAnswer),
            _ => return Err(Fault::Broken),
        }
        if head.is_none() {
            head = parse_answer(answer.data(), is_head)?;
        }
        let Some(head) = &head else { continue };
        match answer.data().len().cmp(&head.whole_length()) {
            Ordering::Less => {}
            Ordering::Equal => return Ok(head.make_http_1_1(answer)),
            // More than was announced: who knows what the next read would bring.
            Ordering::Greater => return Err(Fault::Broken),
        }
    }
}

/// What the head of an answer says about its framing.
struct AnswerHead {
    length: usize,
    body_length: usize,
    is_no_content: bool,
}

impl AnswerHead {
    fn whole_length(&self) -> usize {
        self.length + self.body_length
    }

    /// Gives the length of the head as it is then.
    fn make_http_1_1(&self, answer: &mut Buffer) -> usize {
        // tiny_http repeats the version that it was asked in.
        answer.data_mut()[..8].copy_from_slice(b"HTTP/1.1");
        // It also adds a Content-Length where the standard forbids one (RFC 9110, 8.6).
        let forbidden = b"\r\nContent-Length: 0";
        if !self.is_no_content {
            return self.length;
        }
        match answer.data().windows(forbidden.len()).position(|part| part == forbidden) {
            Some(at) => {
                answer.remove(at, forbidden.len());
                self.length - forbidden.len()
            }
            None => self.length,
        }
    }
}

/// The head of an answer, once it is complete.
fn parse_answer(bytes: &[u8], is_head: bool) -> Result<Option<AnswerHead>, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_ANSWER_HEAD => return Ok(None),
        _ => return Err(Fault::Broken),
    };
    let is_no_content = response.code == Some(204);
    let body_length = if is_head || is_no_content || response.code == Some(304) {
        0
    } else {
        content_length(response.headers).ok_or(Fault::Broken)?
    };
    Ok(Some(AnswerHead { length, body_length, is_no_content }))
}

fn content_length(headers: &[httparse::Header]) -> Option<usize> {
    let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"))?;
    std::str::from_utf8(header.value).ok()?.parse().ok()
}

/// Asks for [`PROBE_PATH`] and waits for the 204.
fn say_hello(connection: &mut UnixStream) -> io::Result<()> {
    connection
        .write_all(format!("GET {PROBE_PATH} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").as_bytes())?;
    let mut answer = Vec::with_capacity(256);
    let mut piece = [0; 256];
    while !answer.ends_with(b"\r\n\r\n") {
        let count = connection.read(&mut piece)?;
        answer.extend_from_slice(&piece[..count]);
        if count == 0 || answer.len() > 4096 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no answer to the hello"));
        }
    }
    if answer.get(8..12) == Some(b" 204") {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the hello was not answered with 204"))
    }
}

/// A socket's time-out looks like either, depending on the system.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
