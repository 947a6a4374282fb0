//! One connection to Redis: a socket, TLS if the URL asks for it, the login, and commands with their replies.
//!
//! The crate `redis` has a connection too, but hides its socket. Then only a round trip could show that Redis has
//! closed an idle connection, and the reason why no connection could be made would be lost. So only its readers and
//! writers of URLs, commands and replies are used.

use std::cell::Cell;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use redis::{Cmd, ConnectionLike, RedisError, RedisResult, Value};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, recv, sockopt};

use super::error::ConnectError;
use super::tls::TlsConfig;

/// How long a TCP connection is idle before the system probes the other side. Routers forget connections that are
/// silent for some minutes.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// The reason when Redis sends nothing within the time limit.
pub(super) const NO_ANSWER: &str = "no reply in time";
/// What may help if Redis ends the TLS handshake.
const CERTIFICATE_HINT: &str =
    "; if Redis asks its clients for a certificate, check redis-cert-file and redis-key-file";
/// The first byte of a TLS record with an alert.
const TLS_ALERT: u8 = 0x15;
/// The first byte of a TLS record of the handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// How to talk to a server: the same for all nodes of a Cluster, or for all Sentinels.
#[derive(Clone, Default)]
pub(super) struct Login {
    /// `None`: no TLS. Not used for a unix socket.
    pub tls: Option<TlsConfig>,
    /// `None`: Redis's user `default`.
    pub user: Option<String>,
    pub password: Option<String>,
    pub database: i64,
}

/// An address of Redis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Address {
    /// Host and port. An IPv6 address has no brackets.
    Tcp(String, u16),
    /// The path of a socket.
    Unix(PathBuf),
}

/// As in a URL: `HOST:PORT`, with brackets around an IPv6 address, or the path of the socket.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Address::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp(host, port) => write!(f, "{host}:{port}"),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A connection that is logged in.
pub(super) struct Wire {
    stream: Stream,
    parser: redis::Parser,
    /// Whether the system has accepted the last command completely. If not, Redis cannot have run it.
    was_sent: bool,
}

enum Stream {
    Plain(Socket),
    #[cfg(feature = "tls")]
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, Socket>>),
}

/// A socket. Reads and writes continue after a signal.
pub(super) enum Socket {
    Tcp(TcpStream),
    /// With the time limit of a read.
    Unix(UnixStream, Cell<Duration>),
}

/// The time limit for making a connection.
struct Limit {
    end: Instant,
    whole: Duration,
}

impl Limit {
    fn left(&self) -> Result<Duration, ConnectError> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.exceeded("connecting")) } else { Ok(left) }
    }

    fn exceeded(&self, what: &str) -> ConnectError {
        ConnectError(format!("{what} takes longer than {} s", self.whole.as_secs_f64()))
    }

    /// The error of a step: `what` took too long, or the system's error.
    fn error(&self, what: &str, error: &io::Error) -> ConnectError {
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => self.exceeded(what),
            _ => ConnectError(error.to_string()),
        }
    }
}

/// What a new connection asks its server besides the login.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Greeting {
    /// Nothing.
    Login,
    /// What the server is.
    Server,
    /// What the server is, and the id of the connection for CLIENT UNBLOCK.
    ServerAndId,
}

/// The replies to a [`Greeting`]. A reply is missing if the user of Redis lacks the right to ask for it.
#[derive(Default)]
pub(super) struct Welcome {
    /// The reply to INFO.
    pub info: Option<String>,
    /// The reply to CLIENT ID.
    pub client_id: Option<i64>,
}

impl Wire {
    /// Connects and logs in.
    ///
    /// Before each step `step` gets the reason that applies if the step never ends: looking up a host name has no
    /// time limit.
    pub(super) fn connect(
        address: &Address,
        login: &Login,
        limit: Duration,
        greeting: Greeting,
        step: &dyn Fn(&str),
    ) -> Result<(Wire, Welcome), ConnectError> {
        let limit = Limit { end: Instant::now() + limit, whole: limit };
        let (socket, tls) = match address {
            Address::Unix(path) => {
                step("the socket accepts no connection");
                let socket = UnixStream::connect(path).map_err(|error| limit.error("connecting", &error))?;
                (Socket::Unix(socket, Cell::new(limit.whole)), None)
            }
            Address::Tcp(host, port) => {
                step(&format!("looking up the address of {host:?} takes too long"));
                let addresses = (host.as_str(), *port).to_socket_addrs();
                let addresses: Vec<_> = addresses
                    .map_err(|error| {
                        ConnectError(format!("cannot find the address of the host {host:?}: {error}"))
                    })?
                    .collect();
                step("connecting takes too long");
                (Socket::Tcp(connect_tcp(&addresses, &limit)?), login.tls.as_ref().map(|tls| (tls, host)))
            }
        };
        socket.set_timeouts(limit.left()?).map_err(|error| limit.error("connecting", &error))?;
        let stream = match tls {
            None => Stream::Plain(socket),
            Some((tls, host)) => {
                step(
                    "the TLS handshake takes too long; if Redis does not use TLS, write redis:// in the URL",
                );
                secure(tls, host, socket, &limit)?
            }
        };
        step(NO_ANSWER);
        let mut wire = Wire { stream, parser: redis::Parser::new(), was_sent: true };
        wire.socket().set_timeouts(limit.left()?).map_err(|error| limit.error("logging in", &error))?;
        let welcome = wire.log_in(login, &limit, greeting)?;
        Ok((wire, welcome))
    }

    /// Sends the commands that come first, and waits for their replies. After that the connection is known to work.
    fn log_in(&mut self, login: &Login, limit: &Limit, greeting: Greeting) -> Result<Welcome, ConnectError> {
        let mut commands = Vec::new();
        if let Some(password) = &login.password {
            let mut auth = redis::cmd("AUTH");
            auth.arg(login.user.as_deref()).arg(password);
            commands.push(("refuses the login", auth));
        }
        if login.database != 0 {
            commands.push(("refuses the database", redis::cmd("SELECT").arg(login.database).take()));
        }
        // For CLIENT LIST. An error does no harm: Redis before 7.2 does not know the command, or the user lacks the right.
        for (name, value) in [("LIB-NAME", "threadq"), ("LIB-VER", env!("CARGO_PKG_VERSION"))] {
            commands.push(("", redis::cmd("CLIENT").arg("SETINFO").arg(name).arg(value).take()));
        }
        if greeting != Greeting::Login {
            commands.push(("", redis::cmd("INFO").arg("server").arg("replication").take()));
        }
        if greeting == Greeting::ServerAndId {
            commands.push(("", redis::cmd("CLIENT").arg("ID").take()));
        }
        let mut packed = Vec::new();
        commands.iter().for_each(|(_, command)| command.write_packed_command(&mut packed));
        let sent = self.stream.write_all(&packed).and_then(|()| self.stream.flush());
        if let Err(error) = sent {
            // Redis may have sent the reason before it closed the connection.
            if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) {
                return Err(limit.error("logging in", &error));
            }
        }
        self.check_first_byte()?;
        let (mut welcome, mut refusal) = (Welcome::default(), None);
        for (trouble, _) in &commands {
            let reply = self.parser.parse_value(&mut self.stream);
            match reply.and_then(Value::extract_error) {
                Ok(Value::Int(number)) => welcome.client_id = Some(number),
                Ok(Value::BulkString(text)) => {
                    welcome.info = Some(String::from_utf8_lossy(&text).into_owned());
                }
                Ok(_) => {}
                Err(error) if is_refusal(&error) => {
                    let text = describe(&error);
                    if !trouble.is_empty() {
                        return Err(ConnectError(format!("Redis {trouble}: {text}")));
                    }
                    // Redis before 7.2 does not know CLIENT SETINFO, which is no reason to close the connection.
                    if !text.to_ascii_lowercase().contains("setinfo") {
                        refusal = Some(text);
                    }
                }
                // With too many clients, or for another machine, Redis sends an error and closes the connection.
                Err(error) => {
                    // With TLS 1.3 Redis refuses a client's certificate after the handshake.
                    let may_want_certificate = self.stream.is_encrypted() && !error.is_timeout();
                    let hint = if may_want_certificate { CERTIFICATE_HINT } else { "" };
                    return Err(ConnectError(refusal.unwrap_or_else(|| describe(&error) + hint)));
                }
            }
        }
        Ok(welcome)
    }

    /// Recognises a server that does not speak Redis's protocol.
    fn check_first_byte(&mut self) -> Result<(), ConnectError> {
        if self.stream.is_encrypted() {
            return Ok(());
        }
        let hint = match self.socket() {
            Socket::Tcp(_) => "; if Redis requires TLS, write rediss:// in the URL",
            Socket::Unix(..) => "",
        };
        let mut first = [0];
        let read = loop {
            match recv(self.socket(), &mut first[..], RecvFlags::PEEK) {
                Err(rustix::io::Errno::INTR) => {}
                read => break read.map(|(length, _)| length).map_err(io::Error::from),
            }
        };
        match read {
            Ok(0) => Err(ConnectError(format!("Redis closed the connection before it answered{hint}"))),
            Ok(_) if matches!(first[0], TLS_ALERT | TLS_HANDSHAKE) => {
                Err(ConnectError("this server uses TLS: write rediss:// in the URL".to_owned()))
            }
            Ok(_) if !b"+-:$*_%~,#(!=|>".contains(&first[0]) => {
                Err(ConnectError("the server at this address is not a Redis".to_owned()))
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                Err(ConnectError(format!("{error}, before it answered{hint}")))
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(ConnectError(NO_ANSWER.to_owned()))
            }
            Err(error) => Err(ConnectError(error.to_string())),
        }
    }

    fn socket(&self) -> &Socket {
        self.stream.socket()
    }

    /// Sets the time limits for a reply and for sending a command.
    pub(super) fn set_timeouts(&self, read: Duration, write: Duration) -> io::Result<()> {
        self.socket().set_read_timeout(read)?;
        self.socket().set_write_timeout(write)
    }

    /// Waits for a reply to an earlier command, or for a message of a channel.
    pub(super) fn read_reply(&mut self) -> RedisResult<Value> {
        self.parser.parse_value(&mut self.stream)
    }

    /// Sets the time limit for a reply.
    pub(super) fn set_read_timeout(&self, read: Duration) -> io::Result<()> {
        self.socket().set_read_timeout(read)
    }

    /// Whether the last command was sent completely; if not, Redis has not run it.
    pub(super) fn was_sent(&self) -> bool {
        self.was_sent
    }

    /// Whether the idle connection is unchanged: the other side has neither closed the connection nor sent a byte.
    /// Takes one system call and no round trip.
    pub(super) fn is_idle(&mut self) -> bool {
        match &mut self.stream {
            Stream::Plain(socket) => matches!(pending(socket), Pending::Nothing),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => loop {
                match pending(&stream.sock) {
                    Pending::Nothing => return true,
                    Pending::End => return false,
                    // Messages of TLS itself: a session ticket, or the end of the connection.
                    Pending::Bytes => {
                        let read = stream.conn.read_tls(&mut stream.sock);
                        if !read.is_ok_and(|length| length > 0) {
                            return false;
                        }
                        match stream.conn.process_new_packets() {
                            Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {
                            }
                            _ => return false,
                        }
                    }
                }
            },
        }
    }
}

/// What can be read from a socket now.
enum Pending {
    Nothing,
    Bytes,
    End,
}

fn pending(socket: &Socket) -> Pending {
    match recv(socket, &mut [0_u8][..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Err(rustix::io::Errno::AGAIN) => Pending::Nothing,
        Ok((1.., _)) => Pending::Bytes,
        Ok(_) | Err(_) => Pending::End,
    }
}

/// Connects to the first address that accepts. Each address gets an equal part of the time that is left.
fn connect_tcp(addresses: &[std::net::SocketAddr], limit: &Limit) -> Result<TcpStream, ConnectError> {
    let mut last = ConnectError("the host has no address".to_owned());
    for (tried, address) in addresses.iter().enumerate() {
        let part = limit.left()? / u32::try_from(addresses.len() - tried).unwrap_or(1);
        let connected = TcpStream::connect_timeout(address, part).and_then(|stream| {
            // Otherwise Nagle's algorithm delays the second packet of a large command by 40 ms.
            stream.set_nodelay(true)?;
            sockopt::set_socket_keepalive(&stream, true)?;
            sockopt::set_tcp_keepidle(&stream, KEEPALIVE)?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => last = limit.error("connecting", &error),
        }
    }
    Err(last)
}

#[cfg(feature = "tls")]
fn secure(tls: &TlsConfig, host: &str, mut socket: Socket, limit: &Limit) -> Result<Stream, ConnectError> {
    let mut connection = tls.begin(host)?;
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut socket) {
            let is_tls =
                error.kind() != ErrorKind::InvalidData || !error.to_string().contains("corrupt message");
            return Err(match error.kind() {
                ErrorKind::TimedOut | ErrorKind::WouldBlock => ConnectError(format!(
                    "{}; if Redis does not use TLS, write redis:// in the URL",
                    limit.exceeded("the TLS handshake")
                )),
                _ if !is_tls => {
                    ConnectError("this server does not use TLS: write redis:// in the URL".to_owned())
                }
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    ConnectError(format!(
                        "Redis closed the connection in the TLS handshake; if Redis does not use TLS, write redis:// in the \
                         URL{CERTIFICATE_HINT}"
                    ))
                }
                // An error of the other side, not of this one.
                _ if error.to_string().contains("received fatal alert") => {
                    ConnectError(format!("the TLS handshake failed: {error}{CERTIFICATE_HINT}"))
                }
                _ => ConnectError(format!("the TLS handshake failed: {error}")),
            });
        }
    }
    Ok(Stream::Tls(Box::new(rustls::StreamOwned::new(connection, socket))))
}

#[cfg(not(feature = "tls"))]
fn secure(tls: &TlsConfig, _: &str, _: Socket, _: &Limit) -> Result<Stream, ConnectError> {
    match *tls {}
}

/// Whether the error is a reply of Redis, not a failure of the connection.
fn is_refusal(error: &RedisError) -> bool {
    matches!(error.kind(), redis::ErrorKind::Server(_)) || error.code().is_some()
}

/// The error in the words of Redis, if it is a reply of Redis.
pub(super) fn describe(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ if error.is_timeout() => NO_ANSWER.to_owned(),
        _ if error.is_connection_dropped() => format!("the connection was closed ({error})"),
        _ => error.to_string(),
    }
}

/// To wait until the server sends something.
impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

impl ConnectionLike for Wire {
    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        self.was_sent = false;
        self.stream.write_all(command)?;
        self.stream.flush()?;
        self.was_sent = true;
        self.parser.parse_value(&mut self.stream)
    }

    fn req_packed_commands(
        &mut self,
        commands: &[u8],
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let mut replies = vec![self.req_packed_command(commands)?];
        for _ in 1..offset + count {
            replies.push(self.parser.parse_value(&mut self.stream)?);
        }
        Ok(replies.split_off(offset.min(replies.len())))
    }

    fn req_command(&mut self, command: &Cmd) -> RedisResult<Value> {
        self.req_packed_command(&command.get_packed_command())
    }

    fn get_db(&self) -> i64 {
        0
    }

    fn check_connection(&mut self) -> bool {
        self.is_idle()
    }

    fn is_open(&self) -> bool {
        true
    }
}

impl Stream {
    fn socket(&self) -> &Socket {
        match self {
            Stream::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => &stream.sock,
        }
    }

    fn is_encrypted(&self) -> bool {
        !matches!(self, Stream::Plain(_))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.flush(),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

impl Socket {
    fn set_timeouts(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(limit)?;
        self.set_write_timeout(limit)
    }

    fn set_read_timeout(&self, limit: Duration) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.set_read_timeout(Some(limit)),
            Socket::Unix(stream, read_timeout) => {
                read_timeout.set(limit);
                stream.set_read_timeout(Some(limit))
            }
        }
    }

    fn set_write_timeout(&self, limit: Duration) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.set_write_timeout(Some(limit)),
            Socket::Unix(stream, _) => stream.set_write_timeout(Some(limit)),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream, _) => stream.as_fd(),
        }
    }
}

/// Waits until a read would not block. A read that blocks on a unix socket is woken twice: when the other side reads the
/// last command, and when its reply arrives.
fn wait_for_input(stream: &UnixStream, limit: Duration) -> io::Result<()> {
    let limit = limit.try_into().map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
    match poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&limit))? {
        0 => Err(ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// Repeats the call after a signal. A process that was stopped and continued then finds the reply that came meanwhile.
fn uninterrupted(mut work: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match work() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| match self {
            Socket::Tcp(stream) => stream.read(buffer),
            Socket::Unix(stream, read_timeout) => {
                wait_for_input(stream, read_timeout.get())?;
                stream.read(buffer)
            }
        })
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        uninterrupted(|| match self {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Unix(stream, _) => stream.write(bytes),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
