//! Whether a server still works, for a service manager that restarts a server that does not.
//!
//! An unreachable Redis is not a reason for a restart: the server waits for Redis, and a new process could do no
//! better.

use std::error::Error;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::sync;

/// How long a part of the server may not respond. A round of the heartbeat thread makes several calls to Redis, each of
/// at most 3 s, so a slow Redis alone does not exceed this time.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);

/// When the heartbeat thread last began a round. Clones share the value.
#[derive(Clone, Debug)]
pub struct LastBeat(Arc<Mutex<Instant>>);

impl Default for LastBeat {
    fn default() -> LastBeat {
        LastBeat(Arc::new(Mutex::new(Instant::now())))
    }
}

impl LastBeat {
    /// Records that the heartbeat thread begins a round.
    pub fn beat(&self) {
        *sync::lock(&self.0) = Instant::now();
    }

    fn age(&self) -> Duration {
        sync::lock(&self.0).elapsed()
    }
}

/// The part of a server that has not responded for longer than the longest silence.
#[derive(Debug)]
#[non_exhaustive]
pub enum Unresponsive {
    /// The HTTP API.
    Api {
        /// The time since the last response of the API.
        silence: Duration,
        /// Why the last request failed.
        source: io::Error,
    },
    /// The heartbeat thread.
    Heartbeat {
        /// The time since the heartbeat thread began its last round.
        silence: Duration,
    },
}

impl fmt::Display for Unresponsive {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Unresponsive::Api { silence, source } => {
                write!(f, "the API has not answered for {silence:.0?}: {source}")
            }
            Unresponsive::Heartbeat { silence } => {
                write!(f, "the heartbeat thread has made no progress for {silence:.0?}")
            }
        }
    }
}

impl Error for Unresponsive {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Unresponsive::Api { source, .. } => Some(source),
            Unresponsive::Heartbeat { .. } => None,
        }
    }
}

/// Checks a server from outside: its heartbeat, and its API by an HTTP request like that of any client.
///
/// ```no_run
/// use std::time::Duration;
/// # fn notify_service_manager() {}
///
/// let server = threadq::server::Server::builder().start()?;
/// let mut liveness = server.liveness();
/// std::thread::spawn(move || {
///     while liveness.check(Duration::from_secs(5)).is_ok() {
///         notify_service_manager();
///         std::thread::sleep(Duration::from_secs(10));
///     }
/// });
/// # Ok::<(), threadq::server::StartError>(())
/// ```
#[derive(Debug)]
pub struct Liveness {
    heartbeat: LastBeat,
    addr: SocketAddr,
    answered: Instant,
    longest_silence: Duration,
}

impl Liveness {
    /// A check of the server that listens on `addr`.
    pub(crate) fn new(heartbeat: LastBeat, addr: SocketAddr) -> Liveness {
        Liveness {
            heartbeat,
            addr: reachable(addr),
            answered: Instant::now(),
            longest_silence: LONGEST_SILENCE,
        }
    }

    /// How long a part of the server may not respond. Default: one minute, longer than load or a slow Redis can take.
    pub fn longest_silence(mut self, time: Duration) -> Liveness {
        self.longest_silence = time;
        self
    }

    /// Sends a request to the API, which must be answered within `time`, and looks at the heartbeat.
    ///
    /// # Errors
    /// A part of the server has not responded for longer than the longest silence.
    pub fn check(&mut self, time: Duration) -> Result<(), Unresponsive> {
        let failure = ask(self.addr, time).err();
        if failure.is_none() {
            self.answered = Instant::now();
        }
        let (api, heartbeat) = (self.answered.elapsed(), self.heartbeat.age());
        match failure {
            Some(source) if api > self.longest_silence => Err(Unresponsive::Api { silence: api, source }),
            _ if heartbeat > self.longest_silence => Err(Unresponsive::Heartbeat { silence: heartbeat }),
            _ => Ok(()),
        }
    }
}

/// An address at which this machine reaches a server that listens on `addr`.
fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        ip if !ip.is_unspecified() => addr,
        ip if ip.is_ipv4() => (Ipv4Addr::LOCALHOST, addr.port()).into(),
        _ => (Ipv6Addr::LOCALHOST, addr.port()).into(),
    }
}

/// Whether `GET /healthz`, which needs no token, is answered with 200.
fn ask(addr: SocketAddr, time: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&addr, time)?;
    stream.set_read_timeout(Some(time))?;
    stream.set_write_timeout(Some(time))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
    let mut start = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut start)?;
    match &start {
        b"HTTP/1.1 200" => Ok(()),
        other => Err(io::Error::other(String::from_utf8_lossy(other).into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A server that sends each connection this answer, or nothing if the answer is empty.
    fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            // Kept open, so that a client waits for an answer.
            let mut streams = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 200]).and_then(|_| stream.write_all(answer.as_bytes()));
                streams.push(stream);
            }
        });
        addr
    }

    /// The result of a check if the API has last answered, and the heartbeat last made a round, this long ago.
    fn check(addr: SocketAddr, api: Duration, heartbeat: Duration, time: Duration) -> Result<(), String> {
        let ago = |age| Instant::now().checked_sub(age).unwrap();
        let last_beat = LastBeat::default();
        *last_beat.0.lock().unwrap() = ago(heartbeat);
        let mut liveness = Liveness::new(last_beat, addr);
        liveness.answered = ago(api);
        liveness.check(time).map_err(|error| error.to_string())
    }

    const NOW: Duration = Duration::ZERO;
    const LONG_AGO: Duration = Duration::from_secs(61);
    const SOON: Duration = Duration::from_millis(50);
    const IN_TIME: Duration = Duration::from_secs(45);

    #[test]
    fn a_server_that_answers_is_alive() {
        assert_eq!(check(answering("HTTP/1.1 200 OK\r\n\r\n"), LONG_AGO, NOW, IN_TIME), Ok(()));
    }

    #[test]
    fn a_heartbeat_that_makes_no_progress_is_found_although_the_api_answers() {
        let addr = answering("HTTP/1.1 200 OK\r\n\r\n");
        let error = check(addr, NOW, LONG_AGO, IN_TIME).unwrap_err();
        assert!(error.starts_with("the heartbeat thread has made no progress for "), "{error}");
        let last_beat = LastBeat::default();
        *last_beat.0.lock().unwrap() = Instant::now().checked_sub(LONG_AGO).unwrap();
        last_beat.beat();
        assert!(Liveness::new(last_beat, addr).check(IN_TIME).is_ok());
    }

    #[test]
    fn an_api_that_answers_nothing_or_503_is_found_after_the_longest_silence() {
        for (answer, time) in [("", SOON), ("HTTP/1.1 503 Service Unavailable\r\n\r\n", IN_TIME)] {
            let addr = answering(answer);
            let error = check(addr, LONG_AGO, NOW, time).unwrap_err();
            assert!(error.starts_with("the API has not answered for "), "{error}");
            assert_eq!(check(addr, NOW, NOW, time), Ok(()), "one failed request is not enough");
        }
    }

    #[test]
    fn a_server_that_listens_on_all_addresses_is_asked_on_the_loopback_one() {
        for (listen, at) in
            [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("10.0.0.1:80", "10.0.0.1:80")]
        {
            assert_eq!(reachable(listen.parse().unwrap()), at.parse().unwrap());
        }
    }
}
