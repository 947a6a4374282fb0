//! A distant Redis: a proxy in front of it delays every byte by the same time, and does not limit the rate.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A proxy with a delay; its threads end with the process.
pub struct Distant {
    socket: PathBuf,
}

impl Distant {
    /// Starts a proxy to the Redis on this socket; it adds `round_trip` to each round trip. The proxy's socket is in
    /// the same folder.
    pub fn from(redis: &Path, round_trip: Duration) -> Distant {
        let socket = redis.with_file_name("distant.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let redis = redis.to_owned();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = UnixStream::connect(&redis) else { continue };
                let clone = |stream: &UnixStream| stream.try_clone().expect("a descriptor");
                carry(clone(&client), clone(&server), round_trip / 2);
                carry(server, client, round_trip / 2);
            }
        });
        Distant { socket }
    }

    /// The proxy's URL, for `--redis-url`.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

/// Carries one direction: writes each read after `delay`, and keeps reading meanwhile.
fn carry(mut from: UnixStream, mut to: UnixStream, delay: Duration) {
    let (under_way, arrives) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        for (at, bytes) in arrives {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if under_way.send((Instant::now() + delay, buffer[..n].to_vec())).is_err() {
                return;
            }
        }
    });
}
