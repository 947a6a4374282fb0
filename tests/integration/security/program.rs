//! The real program, and redis-servers on TCP ports, with and without TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{LIMIT, TempDir, eventually, node};

/// A redis-server on a free port of 127.0.0.1, with these flags; `{port}` in one stands for its port.
pub struct Redis {
    process: Child,
    pub port: u16,
    folder: TempDir,
}

impl Redis {
    pub fn start(flags: &[&str]) -> Redis {
        let mut folder = TempDir::new();
        let port = node::free_port();
        let mut all = vec!["--bind", "127.0.0.1", "--save", "", "--dir", ".", "--unixsocket", "admin.sock"];
        if !flags.contains(&"--tls-port") {
            all.extend(["--port", "{port}"]);
        }
        all.extend(flags);
        let all: Vec<String> = all.iter().map(|flag| flag.replace("{port}", &port.to_string())).collect();
        // The first redis-server on PATH may be built without TLS: it ends at once then.
        let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap()).collect();
        for program in folders.iter().map(|folder| folder.join("redis-server")).filter(|file| file.is_file())
        {
            let command =
                Command::new(program).args(&all).current_dir(folder.path()).stdout(Stdio::null()).spawn();
            let mut redis = Redis { process: command.unwrap(), port, folder };
            // The socket's file exists a moment before redis-server listens on it.
            let answers = |text: String| text.contains("PONG") || text.contains("NOAUTH");
            let (mut is_there, mut has_ended) = (false, false);
            eventually(LIMIT, "redis-server answers", || {
                is_there = answers(redis.cli(&["PING"]));
                has_ended = redis.process.try_wait().unwrap().is_some();
                is_there || has_ended
            });
            if is_there {
                return redis;
            }
            folder = TempDir::new();
        }
        panic!("no redis-server on PATH starts with {all:?}");
    }

    /// Runs redis-cli on a socket without TLS. Returns its output.
    pub fn cli(&self, words: &[&str]) -> String {
        let socket = self.folder.path().join("admin.sock");
        let output = Command::new("redis-cli").arg("-s").arg(socket).args(words).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program, without settings from the environment of the tests.
pub fn threadq(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadq"));
    command.args(words).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", "/").stdin(Stdio::null());
    command
}

/// A running `threadq serve`.
pub struct Server {
    process: Child,
    addr: String,
    token: Option<String>,
    stderr: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts it on a free port and waits until it listens.
    pub fn start(flags: &[&str], env: &[(&str, &str)]) -> Server {
        let mut command = threadq(&["serve", "--listen", "127.0.0.1:0"]);
        command.args(flags).envs(env.iter().copied());
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(process.stderr.take().unwrap());
        let reader = thread::spawn({
            let stderr = stderr.clone();
            move || {
                let mut line = Vec::new();
                while lines.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
                    stderr.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                    line.clear();
                }
            }
        });
        let mut first = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let Some(addr) = first.trim().strip_prefix("threadq listening on http://") else {
            let _ = process.wait();
            reader.join().unwrap();
            panic!("it did not start: {first:?} {}", stderr.lock().unwrap());
        };
        let token = env.iter().find(|(name, _)| *name == "THREADQ_API_TOKEN");
        let token = token.map(|(_, token)| (*token).to_owned());
        Server { process, addr: addr.to_owned(), token, stderr, reader: Some(reader) }
    }

    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Sends a request with `Host` and these further header lines. Returns the status and the body of the response.
    pub fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let token = self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n"));
        let headers = format!("Host: {}\r\n{}{headers}", self.addr, token.unwrap_or_default());
        self.raw(method, path, &headers, body)
    }

    /// Sends a request with exactly these header lines.
    pub fn raw(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.addr).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{kind}{headers}\r\n{body}"
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    pub fn json(&self, method: &str, path: &str, body: &str) -> Value {
        let (status, answer) = self.request(method, path, "", body);
        assert!(status < 300, "{method} {path}: {status} {answer}");
        serde_json::from_str(&answer).unwrap_or(Value::Null)
    }

    /// The port on which the server listens. Only the tests of TLS need it.
    #[cfg(feature = "tls")]
    pub fn port(&self) -> u16 {
        self.addr.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// Submits a job and waits for its end.
    pub fn run(&self, job: &str) -> Value {
        let id = self.json("POST", "/jobs", job)["job_id"].as_u64().unwrap();
        self.end_of(id)
    }

    /// The job, once it has ended.
    pub fn end_of(&self, id: u64) -> Value {
        let mut job = Value::Null;
        eventually(LIMIT, &format!("job {id} has ended"), || {
            job = self.json("GET", &format!("/jobs/{id}?wait=5s"), "");
            job["finished_at"].is_string()
        });
        job
    }

    /// Stops the server by SIGTERM. Returns its exit status and its whole log.
    pub fn stop(mut self) -> (ExitStatus, String) {
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let status = self.process.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        (status, self.log())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
