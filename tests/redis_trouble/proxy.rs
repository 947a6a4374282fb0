//! A wire between the server and Redis that can be slow, break in the middle of a reply, swallow, lie or lead elsewhere.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::common::*;

/// What the wire does to what comes over it.
#[derive(Clone, Default)]
pub struct Does {
    /// Every reply comes so much later.
    pub delay: Duration,
    /// So many of the next replies are cut in the middle, and the connection with them.
    pub cuts: usize,
    /// A command with this word in it gets lost, and nothing more comes back on its connection.
    pub swallows: Option<&'static [u8]>,
    /// Redis calls itself 6, and understands the first line of a script as little as that one does.
    pub is_old: bool,
}

struct State {
    does: Mutex<Does>,
    redis: Mutex<PathBuf>,
}

/// The wire; ends with the test.
pub struct Proxy {
    dir: TempDir,
    state: Arc<State>,
}

impl Proxy {
    pub fn to(redis: &TestRedis) -> Proxy {
        let dir = TempDir::new();
        let state = Arc::new(State { does: Mutex::default(), redis: Mutex::new(redis.socket()) });
        let listener = UnixListener::bind(dir.join("proxy.sock")).expect("a socket");
        let proxy = Proxy { dir, state: state.clone() };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Nobody there: the client finds its connection closed.
                let Ok(server) = UnixStream::connect(&*state.redis.lock().expect("not poisoned")) else {
                    continue;
                };
                carry(client, server, &state);
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

    pub fn cuts_left(&self) -> usize {
        self.state.does.lock().expect("not poisoned").cuts
    }

    /// New connections lead to another Redis; those that exist stay where they are.
    pub fn lead_to(&self, redis: &TestRedis) {
        *self.state.redis.lock().expect("not poisoned") = Path::new(&redis.socket()).to_owned();
    }
}

/// Carries both directions, each on a thread of its own, until one side closes.
fn carry(client: UnixStream, server: UnixStream, state: &Arc<State>) {
    let pair = || Some((client.try_clone().ok()?, server.try_clone().ok()?));
    let (Some((mut from, mut to)), Some((mut back_to, mut back_from))) = (pair(), pair()) else { return };
    {
        let state = state.clone();
        std::thread::spawn(move || {
            each_piece(&mut from, |piece| {
                let does = state.does.lock().expect("not poisoned").clone();
                if does.swallows.is_some_and(|word| contains(piece, word)) {
                    // Open, and deaf from now on.
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
            if state.takes_a_cut() {
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
    fn takes_a_cut(&self) -> bool {
        let cuts = &mut self.does.lock().expect("not poisoned").cuts;
        let is_cut = *cuts > 0;
        *cuts = cuts.saturating_sub(1);
        is_cut
    }
}

/// With one byte changed, so far after a mark.
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

/// Calls `work` for what comes, until nothing more comes or it says no.
fn each_piece(from: &mut UnixStream, mut work: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if !work(&buffer[..n]) {
            return;
        }
    }
}
