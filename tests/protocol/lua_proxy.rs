//! The proxy between a queue and Redis: it can lose a request or a reply, do something right before a call, and change
//! a script on its way.
//!
//! The proxy changes scripts when the queue loads them, so that a mutant runs without a build and the program does not
//! notice.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::common::resp;
use crate::fixture::Place;
use crate::guards::{self, Change, OnTheWire};

/// The message that the proxy loses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Loses {
    /// The request never reaches Redis.
    Request,
    /// Redis executes the request, and the reply is lost.
    Answer,
}

/// An action before the next call of this name with these words.
struct Meanwhile {
    name: String,
    words: Vec<Vec<u8>>,
    act: Box<dyn FnOnce() + Send>,
}

#[derive(Default)]
struct State {
    /// The name of the call to lose.
    loses: Option<(String, Loses)>,
    meanwhile: Option<Meanwhile>,
    /// The scripts that run, by the hash that the queue uses.
    scripts: HashMap<Vec<u8>, Script>,
}

struct Script {
    name: &'static str,
    /// The script's own file, and the files in front of it.
    files: Vec<&'static str>,
    hash: Vec<u8>,
}

pub struct LuaProxy {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

impl LuaProxy {
    /// A proxy that applies these changes to scripts.
    pub fn changing(path: PathBuf, redis: PathBuf, changes: Vec<Change>) -> LuaProxy {
        let changes = Arc::new(changes);
        let recorder = Arc::new(Recorder::of_this_test());
        let listener = UnixListener::bind(&path).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let wire = LuaProxy { path, state: state.clone() };
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, UnixStream::connect(&redis)) else { return };
                let (state, changes, recorder) = (state.clone(), changes.clone(), recorder.clone());
                std::thread::spawn(move || {
                    carry(client, server, &state, &changes, recorder.as_ref().as_ref())
                });
            }
        });
        wire
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.path.display())
    }

    /// Loses the next call of a script (named by its file) or of a command, and breaks the connection.
    pub fn lose(&self, name: &str, what: Loses) {
        self.state.lock().unwrap().loses = Some((name.to_owned(), what));
    }

    /// Runs `act` right before the next call of a script with these words.
    pub fn meanwhile(&self, name: &str, words: &[&str], act: impl FnOnce() + Send + 'static) {
        let words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let meanwhile = Meanwhile { name: name.to_owned(), words, act: Box::new(act) };
        self.state.lock().unwrap().meanwhile = Some(meanwhile);
    }

    /// Whether the action of `meanwhile` has run.
    pub fn was_meanwhile(&self) -> bool {
        self.state.lock().unwrap().meanwhile.is_none()
    }

    /// Whether the chosen call was lost.
    pub fn has_lost(&self) -> bool {
        self.state.lock().unwrap().loses.is_none()
    }
}

/// Carries one command after the other, each with its reply, until one side closes.
fn carry(
    client: UnixStream,
    server: UnixStream,
    state: &Mutex<State>,
    changes: &[Change],
    recorder: Option<&Recorder>,
) -> Option<()> {
    let mut from_client = BufReader::new(client.try_clone().ok()?);
    let mut from_server = BufReader::new(server.try_clone().ok()?);
    let (mut client, mut server) = (client, server);
    loop {
        let mut words = resp::read_command(&mut from_client).ok()?;
        let mut name = String::from_utf8_lossy(&words[0]).to_lowercase();
        let is_load = name == "script" && words[1].eq_ignore_ascii_case(b"load");
        if name == "evalsha" {
            let state = state.lock().unwrap();
            if let Some(script) = state.scripts.get(&words[1]) {
                name = script.name.to_owned();
                words[1].clone_from(&script.hash);
                recorder.inspect(|recorder| recorder.note(&script.files));
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
            let OnTheWire { name, files, run } = guards::on_the_wire(&body, changes);
            let known = resp::hash_in(&answer)?;
            words[2] = run.into_bytes();
            let hash = resp::hash_in(&call(&mut server, &mut from_server, &words)?)
                .expect("the changed script is Lua");
            state.lock().unwrap().scripts.insert(known, Script { name, files, hash });
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

/// Writes the names of the Lua files that a test calls to the file in `THREADQ_RECORD_CALLS`.
struct Recorder {
    test: String,
    file: File,
    noted: Mutex<HashSet<&'static str>>,
}

impl Recorder {
    /// A recorder for the test on the calling thread, if `THREADQ_RECORD_CALLS` is set.
    fn of_this_test() -> Option<Recorder> {
        let path = std::env::var_os("THREADQ_RECORD_CALLS")?;
        let test = std::thread::current().name().expect("the name of a test").to_owned();
        let file = File::options().create(true).append(true).open(path).unwrap();
        Some(Recorder { test, file, noted: Mutex::default() })
    }

    fn note(&self, files: &[&'static str]) {
        let mut noted = self.noted.lock().unwrap();
        for name in files {
            if noted.insert(name) {
                (&self.file).write_all(format!("{name} {}\n", self.test).as_bytes()).unwrap();
            }
        }
    }
}

/// The beginning of every script that the tests run: a Lua number as an argument of a command is an error, except for
/// the few numbers that every version of Redis writes alike.
const NUMBERS_ARE_TEXTS: &str = r"local redis = (function(real)
  local function strict(run)
    return function(...)
      for i = 1, select('#', ...) do
        local word = select(i, ...)
        if type(word) == 'number' and word ~= 0 and word ~= 1 and word ~= 2 and word ~= -1 then
          error('the number ' .. word .. ' is handed to ' .. select(1, ...) .. ' without digits()')
        end
      end
      return run(...)
    end
  end
  return {call = strict(real.call), pcall = strict(real.pcall), sha1hex = real.sha1hex,
    error_reply = real.error_reply, acl_check_cmd = real.acl_check_cmd}
end)(redis)
";

/// A script with this check.
pub fn with_checked_numbers(loaded: &str) -> String {
    let (flags, body) = loaded.split_once('\n').expect("a script begins with a line of flags");
    format!("{flags}\n{NUMBERS_ARE_TEXTS}{body}")
}

#[test]
fn a_number_that_is_handed_to_redis_as_such_is_noticed() {
    let place = Place::new();
    let run = |body: &str| {
        let mut eval = redis::cmd("EVAL");
        eval.arg(with_checked_numbers(&format!("#!lua\n{body}"))).arg(0);
        place.try_run(&eval)
    };
    let key = place.key("x");
    for call in ["call", "pcall"] {
        let set = |number: &str| run(&format!("return redis.{call}('SET', '{key}', {number})"));
        let error = set("1800000000000").unwrap_err().to_string();
        assert!(error.contains("is handed to SET without digits()"), "{error}");
        assert!(set("3").is_err() && set("-1").is_ok() && set("'1800000000000'").is_ok());
    }
}
