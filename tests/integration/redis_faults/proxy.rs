//! A proxy between the server and Redis that can delay, cut, drop or change replies, and lead to another Redis.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::common::*;

/// The faults that the proxy makes.
#[derive(Clone, Default)]
pub struct Does {
    /// The delay of every reply.
    pub delay: Duration,
    /// The number of next replies that are cut in the middle; each cut closes its connection.
    pub cuts: usize,
    /// A command that contains this word is lost, and its connection returns no more data.
    pub swallows: Option<&'static [u8]>,
    /// Whether a BRPOPLPUSH reply with a job is lost; its connection is closed.
    pub loses_jobs: bool,
    /// Whether the proxy forgets all other connections after a BRPOPLPUSH reply with a job.
    pub forgets_others: bool,
    /// The number of next connections that are refused.
    pub refuses: usize,
    /// Whether Redis behaves like version 6: it reports that version, and does not know the first line of a script.
    pub is_old: bool,
}

struct State {
    does: Mutex<Does>,
    redis: Mutex<PathBuf>,
    /// All connections from the server.
    connections: Mutex<Vec<(UnixStream, Arc<Fate>)>>,
}

/// The state of one connection.
struct Fate {
    /// The next command closes the connection.
    is_forgotten: AtomicBool,
    /// The time of the last data on the connection.
    used: Mutex<Instant>,
}

/// The proxy; ends with the test.
pub struct Proxy {
    dir: TempDir,
    state: Arc<State>,
}

impl Proxy {
    pub fn to(redis: &TestRedis) -> Proxy {
        let dir = TempDir::new();
        let state = Arc::new(State {
            does: Mutex::default(),
            redis: Mutex::new(redis.socket()),
            connections: Mutex::default(),
        });
        let listener = UnixListener::bind(dir.join("proxy.sock")).expect("a socket");
        let proxy = Proxy { dir, state: state.clone() };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if state.takes_one(|does| &mut does.refuses) {
                    continue;
                }
                // Redis does not listen: close the client's connection.
                let Ok(server) = UnixStream::connect(&*state.redis.lock().expect("not poisoned")) else {
                    continue;
                };
                let used = Mutex::new(Instant::now());
                let fate = Arc::new(Fate { is_forgotten: AtomicBool::new(false), used });
                let mut connections = state.connections.lock().expect("not poisoned");
                connections.push((client.try_clone().expect("a descriptor"), fate.clone()));
                drop(connections);
                carry(client, server, &state, fate);
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.dir.join("proxy.sock").display())
    }

    pub fn set(&self, does: Does) {
        *self.state.does.lock().expect("not poisoned") = does;
    }

    /// Closes all connections, as a proxy does with connections that were idle for long.
    pub fn close_all(&self) {
        for (connection, _) in self.state.connections.lock().expect("not poisoned").drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Forgets all connections that were idle for this long, as a router does: the next command on such a connection is
    /// lost, and the connection with it.
    pub fn forget_idle(&self, time: Duration) {
        self.state.forget_idle(time);
    }

    pub fn cuts_left(&self) -> usize {
        self.state.does.lock().expect("not poisoned").cuts
    }

    /// Leads new connections to another Redis; the existing connections stay where they are.
    pub fn lead_to(&self, redis: &TestRedis) {
        *self.state.redis.lock().expect("not poisoned") = Path::new(&redis.socket()).to_owned();
    }
}

/// Carries both directions, each on its own thread, until one side closes.
fn carry(client: UnixStream, server: UnixStream, state: &Arc<State>, fate: Arc<Fate>) {
    let pair = || Some((client.try_clone().ok()?, server.try_clone().ok()?));
    let is_fetcher = Arc::new(AtomicBool::new(false));
    let (Some((mut from, mut to)), Some((mut back_to, mut back_from))) = (pair(), pair()) else { return };
    {
        let state = state.clone();
        let is_fetcher = is_fetcher.clone();
        let from_again = from.try_clone().expect("a descriptor");
        std::thread::spawn(move || {
            each_piece(&mut from, |piece| {
                is_fetcher.store(contains(piece, b"BRPOPLPUSH"), Ordering::Release);
                *fate.used.lock().expect("not poisoned") = Instant::now();
                if fate.is_forgotten.load(Ordering::Acquire) {
                    let _ = from_again.shutdown(Shutdown::Both);
                    return false;
                }
                let does = state.does.lock().expect("not poisoned").clone();
                if does.swallows.is_some_and(|word| contains(piece, word)) {
                    // The connection stays open, and returns no more data.
                    return true;
                }
                if does.is_old {
                    return to.write_all(&changed(piece, b"\n#!lua", 2, b'?')).is_ok();
                }
                to.write_all(piece).is_ok()
            });
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    let state = state.clone();
    std::thread::spawn(move || {
        each_piece(&mut back_from, |piece| {
            let does = state.does.lock().expect("not poisoned").clone();
            std::thread::sleep(does.delay);
            if is_fetcher.load(Ordering::Acquire) && piece.starts_with(b"$") && !piece.starts_with(b"$-") {
                if does.loses_jobs {
                    state.set(|does| does.loses_jobs = false);
                    return false;
                }
                if does.forgets_others {
                    state.set(|does| does.forgets_others = false);
                    state.forget_idle(Duration::ZERO);
                }
            }
            if state.takes_one(|does| &mut does.cuts) {
                let _ = back_to.write_all(&piece[..piece.len() / 2]);
                return false;
            }
            if does.is_old {
                let piece = changed(piece, b"\nredis_version:", 15, b'6');
                return back_to.write_all(&changed(&piece, b"\nvalkey_version:", 16, b'6')).is_ok();
            }
            back_to.write_all(piece).is_ok()
        });
        let _ = back_to.shutdown(Shutdown::Both);
        let _ = back_from.shutdown(Shutdown::Both);
    });
}

impl State {
    fn set(&self, change: impl Fn(&mut Does)) {
        change(&mut self.does.lock().expect("not poisoned"));
    }

    /// Decrements the counter; returns whether it was above 0.
    fn takes_one(&self, number: impl Fn(&mut Does) -> &mut usize) -> bool {
        let mut does = self.does.lock().expect("not poisoned");
        let number = number(&mut does);
        let is_one = *number > 0;
        *number = number.saturating_sub(1);
        is_one
    }

    fn forget_idle(&self, time: Duration) {
        for (_, fate) in &*self.connections.lock().expect("not poisoned") {
            if fate.used.lock().expect("not poisoned").elapsed() >= time {
                fate.is_forgotten.store(true, Ordering::Release);
            }
        }
    }
}

/// Changes one byte at this distance after a mark.
fn changed(piece: &[u8], mark: &[u8], after: usize, byte: u8) -> Vec<u8> {
    let mut piece = piece.to_vec();
    if let Some(at) = piece.windows(mark.len()).position(|window| window == mark) {
        piece[at + after] = byte;
    }
    piece
}

fn contains(piece: &[u8], word: &[u8]) -> bool {
    piece.windows(word.len()).any(|window| window == word)
}

/// Calls `work` with each read, until the end of the stream or until `work` returns false.
fn each_piece(from: &mut UnixStream, mut work: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if !work(&buffer[..n]) {
            return;
        }
    }
}
