//! The wire between a queue and Redis: can lose an answer or a request, let something happen right
//! before a call, and change a script on its way.
//!
//! Scripts are changed here, when the queue loads them, so that a guard can be removed without building anything anew
//! and without the program knowing of it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::guards::{self, Change};
use crate::resp;

/// What is lost on the way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Loses {
    /// It never reaches Redis.
    Request,
    /// Redis carries it out, and nobody hears of it.
    Answer,
}

/// What happens before the next call of a name in which these words stand.
struct Meanwhile {
    name: String,
    words: Vec<Vec<u8>>,
    act: Box<dyn FnOnce() + Send>,
}

#[derive(Default)]
struct State {
    /// The next call of this name.
    loses: Option<(String, Loses)>,
    meanwhile: Option<Meanwhile>,
    /// By the script's hash as the queue knows it: its file's name, and the hash of what is run in its place.
    scripts: HashMap<Vec<u8>, (&'static str, Vec<u8>)>,
}

pub struct Wire {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Wire {
    /// One on which these changes of scripts are made.
    pub fn changing(path: PathBuf, redis: PathBuf, changes: Vec<Change>) -> Wire {
        let changes = Arc::new(changes);
        let listener = UnixListener::bind(&path).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let wire = Wire { path, state: state.clone() };
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, UnixStream::connect(&redis)) else { return };
                let (state, changes) = (state.clone(), changes.clone());
                std::thread::spawn(move || carry(client, server, &state, &changes));
            }
        });
        wire
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.path.display())
    }

    /// Loses the next call of a script (by its file's name) or of a command, and breaks the connection.
    pub fn lose(&self, name: &str, what: Loses) {
        self.state.lock().unwrap().loses = Some((name.to_owned(), what));
    }

    /// Does something right before the next call of a script in which these words stand.
    pub fn meanwhile(&self, name: &str, words: &[&str], act: impl FnOnce() + Send + 'static) {
        let words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let meanwhile = Meanwhile { name: name.to_owned(), words, act: Box::new(act) };
        self.state.lock().unwrap().meanwhile = Some(meanwhile);
    }

    /// Whether it was done.
    pub fn was_meanwhile(&self) -> bool {
        self.state.lock().unwrap().meanwhile.is_none()
    }

    /// Whether nothing is left to lose.
    pub fn has_lost(&self) -> bool {
        self.state.lock().unwrap().loses.is_none()
    }
}

/// One command after the other, each with its answer, until one side closes.
fn carry(client: UnixStream, server: UnixStream, state: &Mutex<State>, changes: &[Change]) -> Option<()> {
    let mut from_client = BufReader::new(client.try_clone().ok()?);
    let mut from_server = BufReader::new(server.try_clone().ok()?);
    let (mut client, mut server) = (client, server);
    loop {
        let mut words = resp::read_command(&mut from_client).ok()?;
        let mut name = String::from_utf8_lossy(&words[0]).to_lowercase();
        let is_load = name == "script" && words[1].eq_ignore_ascii_case(b"load");
        if name == "evalsha" {
            let state = state.lock().unwrap();
            if let Some((script, hash)) = state.scripts.get(&words[1]) {
                name = (*script).to_owned();
                words[1].clone_from(hash);
            }
        }
        let loses = {
            let mut state = state.lock().unwrap();
            let hit = state.loses.as_ref().is_some_and(|(lost, _)| *lost == name);
            if hit { state.loses.take().map(|(_, what)| what) } else { None }
        };
        if loses == Some(Loses::Request) {
            return None;
        }
        let is_now = |it: &mut Meanwhile| it.name == name && it.words.iter().all(|word| words.contains(word));
        let meanwhile = state.lock().unwrap().meanwhile.take_if(is_now);
        if let Some(meanwhile) = meanwhile {
            (meanwhile.act)();
        }
        let answer = call(&mut server, &mut from_server, &words)?;
        if loses == Some(Loses::Answer) {
            return None;
        }
        if is_load {
            let body = String::from_utf8(words[2].clone()).ok()?;
            let (script, mut changed) = guards::on_the_wire(&body);
            for change in changes {
                changed = change.apply(&changed);
            }
            let known = resp::hash_in(&answer)?;
            words[2] = changed.into_bytes();
            let run = resp::hash_in(&call(&mut server, &mut from_server, &words)?)
                .expect("the changed script is Lua");
            state.lock().unwrap().scripts.insert(known, (script, run));
        }
        client.write_all(&answer).ok()?;
    }
}

fn call(server: &mut UnixStream, from_server: &mut impl BufRead, words: &[Vec<u8>]) -> Option<Vec<u8>> {
    server.write_all(&resp::command(words)).ok()?;
    let mut answer = Vec::new();
    resp::read_answer(from_server, &mut answer).ok()?;
    Some(answer)
}
