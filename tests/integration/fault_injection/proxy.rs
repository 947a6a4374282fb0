//! A TCP proxy in front of Redis that knows every command by its name and every script by the name of its file. It
//! breaks one connection at a chosen command.
//!
//! At the chosen command the proxy sends nothing more to Redis on any connection until the test has read the data. So
//! the test sees the state at exactly that point, however slow the machine is.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::common::resp;

/// Where the connection breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// The command never reaches Redis.
    Before,
    /// Redis executes the command, and no byte of the reply arrives.
    After,
    /// Redis executes the command, and half of the reply arrives.
    MidReply,
}

impl Cut {
    pub const ALL: [Cut; 3] = [Cut::Before, Cut::After, Cut::MidReply];
}

/// One command, and its reply, which is empty before the reply arrives.
pub struct Call<'a> {
    pub words: &'a [Vec<u8>],
    pub answer: &'a [u8],
}

impl Call<'_> {
    /// The n-th argument of a script, from 0; empty if the script has fewer arguments.
    pub fn arg(&self, n: usize) -> &[u8] {
        // Behind EVALSHA, the hash, the number of keys, and two keys.
        self.words.get(5 + n).map_or(b"", Vec::as_slice)
    }
}

type Matches = Box<dyn Fn(&Call) -> bool + Send>;

#[derive(Default)]
struct State {
    armed: Option<(&'static str, Cut, Matches)>,
    /// The chosen command was reached, and waits for the test.
    frozen: bool,
    /// The longest time that a command waited for its reply, except blocking commands.
    longest_answer: Duration,
    /// Commands of this name wait until this number of them has come.
    gathering: Option<(&'static str, usize)>,
    /// The number of commands that Redis runs now, except blocking commands.
    under_way: usize,
    seen: BTreeSet<String>,
}

/// The names of the loaded scripts, by hash.
type Scripts = Arc<Mutex<HashMap<Vec<u8>, String>>>;

#[derive(Default)]
struct Shared {
    scripts: Scripts,
    state: Mutex<State>,
    changed: Condvar,
}

pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A proxy in front of the Redis on this socket.
    pub fn new(redis: PathBuf) -> Proxy {
        Proxy::knowing(Scripts::default(), redis)
    }

    /// A second proxy to the same Redis, which never breaks a connection. Both know the scripts loaded through either.
    pub fn beside(&self, redis: PathBuf) -> Proxy {
        Proxy::knowing(self.shared.scripts.clone(), redis)
    }

    fn knowing(scripts: Scripts, redis: PathBuf) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = Arc::new(Shared { scripts, ..Shared::default() });
        let proxy = Proxy { addr: listener.local_addr().unwrap(), shared };
        let shared = proxy.shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, UnixStream::connect(&redis)) else { continue };
                let shared = shared.clone();
                std::thread::spawn(move || carry(client, server, &shared));
            }
        });
        proxy
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops at the next command of this name that matches.
    pub fn arm(&self, command: &'static str, cut: Cut, matches: impl Fn(&Call) -> bool + Send + 'static) {
        self.shared.state().armed = Some((command, cut, Box::new(matches)));
    }

    /// Whether the chosen command was reached and all connections stand still.
    pub fn is_reached(&self, limit: Duration) -> bool {
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(self.shared.state(), limit, |state| !state.frozen || state.under_way > 0)
            .unwrap();
        state.frozen && state.under_way == 0
    }

    /// Breaks the connection, and lets all other connections go on.
    pub fn release(&self) {
        let mut state = self.shared.state();
        state.armed = None;
        state.frozen = false;
        self.shared.changed.notify_all();
    }

    /// The longest time that a command has waited for its reply so far, including the time at the cut.
    pub fn longest_answer(&self) -> Duration {
        self.shared.state().longest_answer
    }

    /// Holds commands of this name back until `number` of them are on their way, each on its own connection.
    pub fn gather(&self, command: &'static str, number: usize) -> Crowd<'_> {
        self.shared.state().gathering = Some((command, number));
        Crowd(&self.shared)
    }

    /// The names of all commands sent so far.
    pub fn seen(&self) -> BTreeSet<String> {
        self.shared.state().seen.clone()
    }
}

/// Commands of one name that are held back until enough of them wait.
pub struct Crowd<'a>(&'a Shared);

impl Crowd<'_> {
    /// Returns whether enough commands came in time; lets them go on in any case.
    pub fn meets(self, limit: Duration) -> bool {
        let state = self.0.state();
        let wait = self.0.changed.wait_timeout_while(state, limit, |state| state.gathering.is_some());
        let (mut state, _) = wait.unwrap();
        let is_met = state.gathering.take().is_none();
        self.0.changed.notify_all();
        is_met
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn wait_while_frozen<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait_while(state, |state| state.frozen).unwrap()
    }

    fn wait_while_gathering<'a>(
        &self,
        name: &str,
        mut state: MutexGuard<'a, State>,
    ) -> MutexGuard<'a, State> {
        match &mut state.gathering {
            Some((command, missing)) if *command == name => {
                *missing -= 1;
                if *missing == 0 {
                    state.gathering = None;
                }
                self.changed.notify_all();
                self.changed.wait_while(state, |state| state.gathering.is_some()).unwrap()
            }
            _ => state,
        }
    }

    /// Lets a command go to Redis, unless the connection breaks before it.
    fn send(&self, name: &str, words: &[Vec<u8>]) -> Option<()> {
        let mut state = self.wait_while_gathering(name, self.state());
        state = self.wait_while_frozen(state);
        state.seen.insert(name.to_owned());
        let call = Call { words, answer: b"" };
        if state.reaches(name, &call, |cut| cut == Cut::Before).is_some() {
            self.changed.notify_all();
            drop(self.wait_while_frozen(state));
            return None;
        }
        state.under_way += usize::from(!blocks(name));
        Some(())
    }

    /// How much of the reply goes back, and whether the connection breaks then.
    fn receive(&self, name: &str, words: &[Vec<u8>], answer: &[u8]) -> (usize, bool) {
        let mut state = self.state();
        state.under_way -= usize::from(!blocks(name));
        let reached = state.reaches(name, &Call { words, answer }, |cut| cut != Cut::Before);
        self.changed.notify_all();
        match reached {
            None => (answer.len(), false),
            Some(cut) => {
                drop(self.wait_while_frozen(state));
                (if cut == Cut::MidReply { answer.len().div_ceil(2) } else { 0 }, true)
            }
        }
    }

    fn name(&self, words: &[Vec<u8>]) -> String {
        let word = |n: usize| String::from_utf8_lossy(&words[n]).to_lowercase();
        match word(0).as_str() {
            "evalsha" => {
                self.scripts.lock().unwrap().get(&words[1]).cloned().unwrap_or_else(|| "evalsha".to_owned())
            }
            name @ ("script" | "client" | "config") => format!("{name} {}", word(1)),
            name => name.to_owned(),
        }
    }
}

impl State {
    fn reaches(&mut self, name: &str, call: &Call, at: impl Fn(Cut) -> bool) -> Option<Cut> {
        let (command, cut, matches) = self.armed.as_ref()?;
        if self.frozen || *command != name || !at(*cut) || !matches(call) {
            return None;
        }
        self.frozen = true;
        Some(*cut)
    }
}

fn blocks(name: &str) -> bool {
    name == "brpoplpush"
}

/// A command that waits for its reply.
struct Timed<'a> {
    shared: &'a Shared,
    since: Instant,
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.longest_answer = state.longest_answer.max(self.since.elapsed());
    }
}

/// Carries one command after the other, each with its reply, until one side closes or the connection is broken.
fn carry(client: TcpStream, server: UnixStream, shared: &Shared) -> Option<()> {
    client.set_nodelay(true).ok()?;
    let mut from_client = BufReader::new(client.try_clone().ok()?);
    let mut from_server = BufReader::new(server.try_clone().ok()?);
    let (mut client, mut server) = (client, server);
    loop {
        let words = resp::read_command(&mut from_client).ok()?;
        let name = shared.name(&words);
        let _timed = (!blocks(&name)).then(|| Timed { shared, since: Instant::now() });
        shared.send(&name, &words)?;
        let mut answer = Vec::new();
        let went = server.write_all(&resp::command(&words));
        let went = went.and_then(|()| resp::read_answer(&mut from_server, &mut answer));
        if name == "script load"
            && let Some(hash) = resp::hash_in(&answer)
        {
            shared.scripts.lock().unwrap().insert(hash, script_name(&words[2]));
        }
        let (length, is_broken) = shared.receive(&name, &words, &answer);
        went.ok()?;
        client.write_all(&answer[..length]).ok()?;
        if is_broken {
            return None;
        }
    }
}

/// The name of a script, which is the second line of its text.
fn script_name(loaded: &[u8]) -> String {
    let text = String::from_utf8_lossy(loaded);
    let name = text.lines().nth(1).and_then(|line| line.strip_prefix("-- "));
    name.expect("a script of the queue: the tests were built with it").to_owned()
}
