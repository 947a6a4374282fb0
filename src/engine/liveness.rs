//! Whether a server still does its work: for whoever would start it again if it does not.
//!
//! A Redis that is away is no reason: the server waits for it, and a new one could do no better.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::sync;

/// How long a part of the server may seem dead. Longer than all that the heartbeat asks of a slow Redis between two of its
/// beats, each of which takes less than 3 s.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);

/// Beaten by a thread that goes round for ever. Clones are the same last_beat.
#[derive(Clone, Debug)]
pub struct LastBeat(Arc<Mutex<Instant>>);

impl Default for LastBeat {
    fn default() -> LastBeat {
        LastBeat(Arc::new(Mutex::new(Instant::now())))
    }
}

impl LastBeat {
    /// The thread is here.
    pub fn beat(&self) {
        *sync::lock(&self.0) = Instant::now();
    }

    /// How long ago it was.
    fn age(&self) -> Duration {
        sync::lock(&self.0).elapsed()
    }
}

/// Looks at a server from outside: at its heartbeat, and by HTTP as any client.
///
/// ```no_run
/// use std::time::Duration;
/// # fn tell_the_service_manager() {}
///
/// let server = threadq::server::Server::builder().start()?;
/// let mut liveness = server.liveness();
/// std::thread::spawn(move || {
///     while liveness.check(Duration::from_secs(5)).is_ok() {
///         tell_the_service_manager();
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
    /// Of the server that listens here.
    pub fn new(heartbeat: LastBeat, addr: SocketAddr) -> Liveness {
        Liveness {
            heartbeat,
            addr: reachable(addr),
            answered: Instant::now(),
            longest_silence: LONGEST_SILENCE,
        }
    }

    /// How long a part of the server may seem dead. Defaults to a minute, so that neither a busy moment nor a slow Redis
    /// is a reason.
    pub fn longest_silence(mut self, time: Duration) -> Liveness {
        self.longest_silence = time;
        self
    }

    /// Asks the API, which has so long for its answer, and looks at the heartbeat.
    ///
    /// # Errors
    /// What has not worked for longer than the longest silence.
    pub fn check(&mut self, time: Duration) -> Result<(), String> {
        let failure = match ask(self.addr, time) {
            Ok(()) => {
                self.answered = Instant::now();
                None
            }
            Err(error) => Some(error),
        };
        let silent = |age: Duration| age > self.longest_silence;
        match failure {
            Some(error) if silent(self.answered.elapsed()) => {
                Err(format!("the API has not answered for {:.0?}: {error}", self.answered.elapsed()))
            }
            _ if silent(self.heartbeat.age()) => {
                Err(format!("the heartbeat has stood still for {:.0?}", self.heartbeat.age()))
            }
            _ => Ok(()),
        }
    }
}

/// Where one who listens everywhere can be reached from here.
fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        ip if !ip.is_unspecified() => addr,
        ip if ip.is_ipv4() => (Ipv4Addr::LOCALHOST, addr.port()).into(),
        _ => (Ipv6Addr::LOCALHOST, addr.port()).into(),
    }
}

/// Whether the API itself answers that it is well. It needs no token for that.
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

    /// Gives each connection this answer; none if it is empty.
    fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            // Kept open, so that silence is silence.
            let mut streams = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 200]).and_then(|_| stream.write_all(answer.as_bytes()));
                streams.push(stream);
            }
        });
        addr
    }

    /// What a look finds, where the API and the heartbeat were last heard of so long ago.
    fn look(addr: SocketAddr, api: Duration, heartbeat: Duration, time: Duration) -> Result<(), String> {
        let ago = |age| Instant::now().checked_sub(age).unwrap();
        let last_beat = LastBeat::default();
        *last_beat.0.lock().unwrap() = ago(heartbeat);
        let mut liveness = Liveness::new(last_beat, addr);
        liveness.answered = ago(api);
        liveness.check(time)
    }

    const NOW: Duration = Duration::ZERO;
    const LONG_AGO: Duration = Duration::from_secs(61);
    const SOON: Duration = Duration::from_millis(50);
    const IN_TIME: Duration = Duration::from_secs(45);

    #[test]
    fn a_server_that_answers_is_alive() {
        assert_eq!(look(answering("HTTP/1.1 200 OK\r\n\r\n"), LONG_AGO, NOW, IN_TIME), Ok(()));
    }

    #[test]
    fn a_heartbeat_that_stands_still_is_found_though_the_api_answers() {
        let addr = answering("HTTP/1.1 200 OK\r\n\r\n");
        let error = look(addr, NOW, LONG_AGO, IN_TIME).unwrap_err();
        assert!(error.starts_with("the heartbeat has stood still for "), "{error}");
        let last_beat = LastBeat::default();
        *last_beat.0.lock().unwrap() = Instant::now().checked_sub(LONG_AGO).unwrap();
        last_beat.beat();
        assert_eq!(Liveness::new(last_beat, addr).check(IN_TIME), Ok(()));
    }

    #[test]
    fn an_api_that_says_nothing_or_only_the_gate_of_which_answers_is_found_after_a_while() {
        for (answer, time) in [("", SOON), ("HTTP/1.1 503 Service Unavailable\r\n\r\n", IN_TIME)] {
            let addr = answering(answer);
            let error = look(addr, LONG_AGO, NOW, time).unwrap_err();
            assert!(error.starts_with("the API has not answered for "), "{error}");
            assert_eq!(look(addr, NOW, NOW, time), Ok(()), "a moment is no reason");
        }
    }

    #[test]
    fn who_listens_everywhere_is_asked_at_home() {
        for (listen, at) in
            [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("10.0.0.1:80", "10.0.0.1:80")]
        {
            assert_eq!(reachable(listen.parse().unwrap()), at.parse().unwrap());
        }
    }
}
