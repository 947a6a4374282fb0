//! A proxy in front of one node of a Cluster that knows every script by its name. Right before the next call of a chosen
//! script it begins to move the slot, and it records what the call changes. It can take the key that never exists out of
//! all calls.

use std::collections::HashMap;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::common::resp;

/// All keys of a namespace on all nodes, each with its serialized value.
pub type Data = Vec<(String, Vec<u8>)>;

/// What the chosen call did.
pub struct Record {
    /// The first line of the reply, without its end.
    pub reply: String,
    pub before: Data,
    pub after: Data,
}

impl Record {
    pub fn is_error(&self) -> bool {
        self.reply.starts_with('-')
    }

    pub fn has_changed(&self) -> bool {
        self.before != self.after
    }
}

/// The script to wait for, and what happens around its next call.
pub struct Watch {
    pub script: &'static str,
    /// Runs right before the call.
    pub begin_move: Box<dyn FnOnce() + Send>,
    pub read_data: Box<dyn Fn() -> Data + Send>,
}

#[derive(Default)]
struct State {
    /// The names of the loaded scripts, by hash.
    scripts: HashMap<Vec<u8>, String>,
    watch: Option<Watch>,
    record: Option<Record>,
}

pub struct CallProxy {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl CallProxy {
    /// A proxy to the node on this port. With `names_absent_key` false it takes the key that never exists out of each
    /// call.
    pub fn new(node: u16, names_absent_key: bool) -> CallProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let proxy = CallProxy { port, state: state.clone() };
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", node)) else { return };
                let state = state.clone();
                std::thread::spawn(move || carry(client.unwrap(), server, &state, names_absent_key));
            }
        });
        proxy
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn watch(&self, watch: Watch) {
        self.state.lock().unwrap().watch = Some(watch);
    }

    /// The record of the chosen call; `None` if the script was not called.
    pub fn take_record(&self) -> Option<Record> {
        let mut state = self.state.lock().unwrap();
        state.watch = None;
        state.record.take()
    }
}

/// Carries one command after the other, each with its reply, until one side closes.
fn carry(client: TcpStream, server: TcpStream, state: &Mutex<State>, names_absent_key: bool) -> Option<()> {
    client.set_nodelay(true).ok()?;
    server.set_nodelay(true).ok()?;
    let mut from_client = BufReader::new(client.try_clone().ok()?);
    let mut from_server = BufReader::new(server.try_clone().ok()?);
    let (mut client, mut server) = (client, server);
    loop {
        let mut words = resp::read_command(&mut from_client).ok()?;
        let is = |at: usize, word: &[u8]| words.get(at).is_some_and(|it| it.eq_ignore_ascii_case(word));
        let loads = is(0, b"SCRIPT") && is(1, b"LOAD");
        let calls = is(0, b"EVALSHA");
        let mut watch = None;
        if calls {
            if !names_absent_key && words[2] == b"2" {
                words[2] = b"1".to_vec();
                words.remove(4);
            }
            let mut state = state.lock().unwrap();
            let name = state.scripts.get(&words[1]).cloned();
            watch = state.watch.take_if(|watch| name.as_deref() == Some(watch.script));
        }
        let before = watch.as_mut().map(|watch| {
            let before = (watch.read_data)();
            std::mem::replace(&mut watch.begin_move, Box::new(|| ()))();
            before
        });
        server.write_all(&resp::command(&words)).ok()?;
        let mut answer = Vec::new();
        resp::read_answer(&mut from_server, &mut answer).ok()?;
        if loads && let Some(hash) = resp::hash_in(&answer) {
            let text = String::from_utf8_lossy(&words[2]).into_owned();
            let name = text.lines().nth(1).and_then(|line| line.strip_prefix("-- ")).unwrap_or_default();
            state.lock().unwrap().scripts.insert(hash, name.to_owned());
        }
        if let (Some(watch), Some(before)) = (watch, before) {
            let reply = String::from_utf8_lossy(&answer);
            let reply = reply.lines().next().unwrap_or_default().to_owned();
            let record = Record { reply, before, after: (watch.read_data)() };
            state.lock().unwrap().record = Some(record);
        }
        client.write_all(&answer).ok()?;
    }
}
