//! Notifies systemd when the server is ready and when it stops, and sends watchdog messages while the server is live.
//!
//! The protocol of sd_notify(3): one datagram with `NAME=value` lines to the socket in `NOTIFY_SOCKET`. Without that
//! variable nothing is sent. Child processes of the server do not inherit the variable.

use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::server::Liveness;

/// The time limit for sending one message to a full socket.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The notification socket of systemd.
pub(super) struct Systemd {
    socket: UnixDatagram,
    addr: SocketAddr,
    /// systemd kills the server after this time without a watchdog message; `None` if the watchdog is off.
    watchdog: Option<Duration>,
    /// Ends the watchdog thread when it is dropped.
    watching: Option<Sender<()>>,
}

impl Systemd {
    /// The socket of the service manager that started this process; `None` without `NOTIFY_SOCKET`.
    pub(super) fn from_env(env: impl Fn(&str) -> Option<String>) -> Option<Systemd> {
        let name = env("NOTIFY_SOCKET")?;
        let opened = address(&name).and_then(|addr| Ok((addr, UnixDatagram::unbound()?)));
        match opened {
            Ok((addr, socket)) => {
                let _ = socket.set_write_timeout(Some(SEND_TIMEOUT));
                Some(Systemd { socket, addr, watchdog: watchdog(env), watching: None })
            }
            Err(error) => {
                log::warn!("NOTIFY_SOCKET {name:?} cannot be used, so systemd is not notified: {error}");
                None
            }
        }
    }

    /// Reports that the server answers requests, and starts the thread that sends watchdog messages.
    pub(super) fn ready(&mut self, url: &str, mut liveness: Liveness) -> io::Result<()> {
        self.send(&format!("READY=1\nSTATUS=listening on {url}"));
        let Some(time) = self.watchdog else { return Ok(()) };
        let (socket, addr) = (self.socket.try_clone()?, self.addr.clone());
        let (watching, stopped) = channel();
        self.watching = Some(watching);
        // A check takes up to 2/6 of the time and the pause 2/6, so each message arrives in time.
        let run = move || {
            loop {
                match liveness.check(time / 6) {
                    Ok(()) => send(&socket, &addr, "WATCHDOG=1"),
                    Err(reason) => log::error!("{reason}; no watchdog message is sent to systemd"),
                }
                if stopped.recv_timeout(time / 3) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        thread::Builder::new().name("systemd".to_owned()).spawn(run).map(drop)
    }

    /// Reports that the server stops. From now on `TimeoutStopSec` applies instead of the watchdog.
    pub(super) fn stopping(mut self) {
        self.watching = None;
        self.send("STOPPING=1\nSTATUS=draining running jobs");
    }

    fn send(&self, text: &str) {
        send(&self.socket, &self.addr, text);
    }
}

fn send(socket: &UnixDatagram, addr: &SocketAddr, text: &str) {
    if let Err(error) = socket.send_to_addr(text.as_bytes(), addr) {
        log::warn!("cannot notify systemd of {:?}: {error}", text.lines().next().unwrap_or_default());
    }
}

/// A path, or after `@` an abstract name.
fn address(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => abstract_address(name),
        None if name.starts_with('/') => SocketAddr::from_pathname(name),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "must start with / or @")),
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &str) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &str) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The watchdog time of systemd, if it is set for this process.
fn watchdog(env: impl Fn(&str) -> Option<String>) -> Option<Duration> {
    let is_meant = env("WATCHDOG_PID").is_none_or(|pid| pid == process::id().to_string());
    let micros: u64 = env("WATCHDOG_USEC")?.parse().ok()?;
    (is_meant && micros > 0).then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watchdog_of(usec: &str, pid: Option<&str>) -> Option<Duration> {
        watchdog(|name| match name {
            "WATCHDOG_USEC" => Some(usec.to_owned()),
            "WATCHDOG_PID" => pid.map(str::to_owned),
            _ => None,
        })
    }

    #[test]
    fn the_watchdog_time_is_for_the_process_in_watchdog_pid() {
        let own = process::id().to_string();
        assert_eq!(watchdog_of("1500000", None), Some(Duration::from_millis(1500)));
        assert_eq!(watchdog_of("1500000", Some(&own)), Some(Duration::from_millis(1500)));
        assert_eq!(watchdog_of("1500000", Some("1")), None);
        assert_eq!(watchdog_of("0", None), None);
        assert_eq!(watchdog_of("soon", None), None);
        assert_eq!(watchdog(|_| None), None);
    }

    #[test]
    fn only_a_path_and_an_abstract_name_are_addresses() {
        assert_eq!(address("/run/x").unwrap().as_pathname(), Some("/run/x".as_ref()));
        assert!(address("@x").is_ok());
        assert!(address("x").is_err() && address("").is_err() && address("vsock:2:1").is_err());
    }
}
