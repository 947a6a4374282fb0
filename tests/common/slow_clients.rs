//! A crowd of slow and silent clients, driven by one thread.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The time between two bytes of a slow client.
pub const ROUND: Duration = Duration::from_millis(700);

/// By then the server has closed all of them, so that a client that never read may begin to read.
const LOOK_AFTER: Duration = Duration::from_secs(20);

/// The most bytes that a client reads in one look: more than the buffers of a connection hold, and less than all its answers.
const LOOK_BYTES: usize = 8 << 20;

/// The number of clients of each kind.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Ask once and stay connected, or never ask.
    pub idle: usize,
    /// Send a head byte by byte.
    pub slow_heads: usize,
    /// Send a body byte by byte.
    pub slow_bodies: usize,
    /// Ask for all queued jobs (which should be large) again and again, and read nothing.
    pub never_reading: usize,
}

/// The connected clients.
pub struct Crowd {
    idle: Vec<TcpStream>,
    slow: Vec<Slow>,
}

/// A client that keeps its connection busy for as long as the server lets it.
struct Slow {
    stream: TcpStream,
    /// When it connected or last read.
    came: Instant,
    gone_after: Option<Duration>,
    /// The bytes that it sends in each round.
    next: &'static [u8],
}

impl Crowd {
    /// Connects all clients; the idle ones first, so that the server closes them when it needs room.
    pub fn gather(addr: SocketAddr, sizes: Sizes) -> Crowd {
        let mut idle = Vec::with_capacity(sizes.idle);
        for number in 0..sizes.idle {
            let mut stream = connect(addr);
            if number % 2 == 0 {
                let _ = stream.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
            }
            idle.push(stream);
        }
        let page = b"GET /jobs?status=queued&limit=100 HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(40);
        let head = b"GET /stats HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
        let body = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                     Content-Length: 9999\r\n\r\n{";
        let mut slow = Vec::new();
        for (count, first, next) in [
            (sizes.never_reading, &page[..], &b""[..]),
            (sizes.slow_heads, head, b"x"),
            (sizes.slow_bodies, body, b" "),
        ] {
            for _ in 0..count {
                let mut stream = connect(addr);
                let _ = stream.write(first);
                slow.push(Slow { stream, came: Instant::now(), gone_after: None, next });
            }
        }
        Crowd { idle, slow }
    }

    /// One round: every slow client that is still connected sends a byte. Returns the number of these clients.
    pub fn go_on(&mut self) -> usize {
        let mut left = 0;
        for slow in self.slow.iter_mut().filter(|slow| slow.gone_after.is_none()) {
            if slow.has_gone() {
                slow.gone_after = Some(slow.came.elapsed());
            } else {
                left += 1;
                let _ = slow.stream.write(slow.next);
            }
        }
        left
    }

    /// The longest time that a slow client was connected. Panics while one is.
    pub fn longest_stay(&self) -> Duration {
        let stays = self.slow.iter().map(|slow| slow.gone_after.expect("all have gone"));
        stays.max().unwrap_or_default()
    }

    /// The number of idle clients that are still connected.
    pub fn idle_left(&self) -> usize {
        self.idle.iter().filter(|stream| !is_closed(stream)).count()
    }
}

impl Slow {
    fn has_gone(&mut self) -> bool {
        if is_closed(&self.stream) {
            return true;
        }
        if self.came.elapsed() <= LOOK_AFTER {
            return false;
        }
        // The end of a connection cannot be seen behind answers that were not read.
        let (has_ended, has_read) = read_arrived(&mut self.stream);
        if has_read && !has_ended {
            // A client that reads on would get all its answers, and then be an idle client.
            self.came = Instant::now();
        }
        has_ended
    }
}

/// Reads the bytes that have arrived. Returns whether the connection has ended, and whether there were bytes.
fn read_arrived(stream: &mut TcpStream) -> (bool, bool) {
    let mut piece = [0; 64 << 10];
    let mut bytes = 0;
    while bytes < LOOK_BYTES {
        match stream.read(&mut piece) {
            Ok(0) => return (true, bytes > 0),
            Ok(count) => bytes += count,
            Err(error) => return (error.kind() != ErrorKind::WouldBlock, bytes > 0),
        }
    }
    (false, true)
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&addr, Duration::from_secs(30)).expect("the server listens");
    stream.set_nonblocking(true).expect("a socket");
    stream
}

/// Whether the server has closed the connection, without reading from it.
fn is_closed(stream: &TcpStream) -> bool {
    let closed = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    let mut fds = [PollFd::new(stream, closed)];
    poll(&mut fds, Some(&Timespec::default())).expect("poll");
    fds[0].revents().intersects(closed)
}
