//! The program as a process: it starts on a free port with its own Redis and ends with its test.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::api::Api;
use super::dir::TempDir;
use super::redis::TestRedis;
use super::signal;
use super::wait::{LIMIT, eventually, until_some};

/// How to start a server.
#[derive(Clone)]
pub struct ServerBuilder {
    args: Vec<String>,
    env: Vec<(String, String)>,
    config: Option<String>,
    config_path: Option<PathBuf>,
    demo: bool,
    listen: Option<String>,
    launcher: Vec<String>,
    program: Vec<String>,
}

impl ServerBuilder {
    /// A flag with its value: `flag("workers", "1")`.
    pub fn flag(mut self, name: &str, value: &str) -> ServerBuilder {
        self.args.extend([format!("--{name}"), value.to_owned()]);
        self
    }

    /// One argument, unchanged.
    pub fn arg(mut self, arg: &str) -> ServerBuilder {
        self.args.push(arg.to_owned());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> ServerBuilder {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The text of its configuration file, which is written into its working directory.
    pub fn config(mut self, text: &str) -> ServerBuilder {
        self.config = Some(text.to_owned());
        self
    }

    /// The path of an existing configuration file.
    pub fn config_file(mut self, path: PathBuf) -> ServerBuilder {
        self.config_path = Some(path);
        self
    }

    pub fn without_demo(mut self) -> ServerBuilder {
        self.demo = false;
        self
    }

    pub fn redis(self, redis: &TestRedis) -> ServerBuilder {
        self.flag("redis-url", &redis.url())
    }

    /// Starts without `--listen`: the environment or the configuration file gives the address.
    pub fn without_listen(mut self) -> ServerBuilder {
        self.listen = None;
        self
    }

    pub fn listen(mut self, addr: &str) -> ServerBuilder {
        self.listen = Some(addr.to_owned());
        self
    }

    /// Starts the program by a launcher that executes it: `under(["prlimit", "--nofile=64"])`.
    pub fn under(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> ServerBuilder {
        self.launcher = words.into_iter().map(Into::into).collect();
        self
    }

    /// Starts another program with a `serve` command: its path, and the arguments before `serve`.
    pub fn program(mut self, words: Vec<String>) -> ServerBuilder {
        self.program = words;
        self
    }

    fn command(&self, dir: &TempDir, subcommand: &str) -> Command {
        let words: Vec<&String> = self.launcher.iter().chain(&self.program).collect();
        let mut command = clean(Command::new(words[0]), dir);
        command.args(&words[1..]).arg(subcommand);
        if subcommand == "serve" {
            if let Some(listen) = &self.listen {
                command.args(["--listen", listen]);
            }
            if self.demo {
                command.arg("--demo");
            }
        }
        if let Some(text) = &self.config {
            command.arg("--config").arg(dir.write("threadq.toml", text));
        }
        if let Some(path) = &self.config_path {
            command.arg("--config").arg(path);
        }
        command.args(&self.args).envs(self.env.iter().map(|(n, v)| (n, v)));
        command
    }

    /// Starts it and waits for its first line.
    #[track_caller]
    pub fn start(&self) -> TestServer {
        self.start_in(TempDir::new())
    }

    /// Starts it in a folder that may hold the files of an earlier server.
    #[track_caller]
    pub fn start_in(&self, dir: TempDir) -> TestServer {
        self.try_start_in(dir).unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// Starts it where a job may end it before its first line; the error is its output.
    pub fn try_start(&self) -> Result<TestServer, String> {
        self.try_start_in(TempDir::new())
    }

    fn try_start_in(&self, dir: TempDir) -> Result<TestServer, String> {
        let log = dir.join("stderr.log");
        let stderr = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        let mut child = self
            .command(&dir, "serve")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("the program starts");
        let (send, receive) = mpsc::channel();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        // Only the real program owes it as its first line: a test's own may be a test binary, which has its say first.
        let is_own = self.program == own_program();
        std::thread::spawn(move || {
            let mut line = String::new();
            while stdout.read_line(&mut line).is_ok_and(|length| length > 0) {
                if is_own || line.starts_with(LISTENING) {
                    break;
                }
                line.clear();
            }
            let _ = send.send(line);
            // Read on, so that whatever it prints never blocks it.
            let _ = std::io::copy(&mut stdout, &mut std::io::sink());
        });
        let first = receive.recv_timeout(LIMIT).unwrap_or_default();
        let addr: Option<SocketAddr> = first
            .strip_suffix('\n')
            .and_then(|line| line.strip_prefix(LISTENING))
            .and_then(|addr| addr.parse().ok());
        let Some(addr) = addr else {
            signal::kill9(child.id());
            let status = child.wait();
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(format!(
                "the first line on stdout was {first:?}, the exit {status:?}, the log:\n{log}"
            ));
        };
        Ok(TestServer { api: Api::new(addr), child, dir: Some(dir), log, silent: false })
    }

    /// Starts it on this free port with a standard output that nothing reads, and waits until it answers.
    #[track_caller]
    pub fn start_unheard(self, addr: SocketAddr) -> TestServer {
        let dir = TempDir::new();
        let log = dir.join("stderr.log");
        let child = self
            .listen(&addr.to_string())
            .command(&dir, "serve")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).expect("a log file"))
            .spawn()
            .expect("the program starts");
        let server = TestServer { api: Api::new(addr), child, dir: Some(dir), log, silent: false };
        server.wait_until_ready();
        server
    }

    /// Starts `serve` and does not wait until it listens: for signals during the start.
    pub fn launch(&self) -> Launched {
        let dir = TempDir::new();
        let file = |name: &str| std::fs::File::create(dir.join(name)).expect("a file");
        let child = self
            .command(&dir, "serve")
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("the program starts");
        Launched { child, dir }
    }

    /// Runs `serve` to its end: for starts that fail.
    #[track_caller]
    pub fn run_serve(&self) -> Finished {
        let dir = TempDir::new();
        finish(self.command(&dir, "serve"))
    }

    /// Runs another command with the same flags, file and environment.
    #[track_caller]
    pub fn run(&self, subcommand: &str) -> Finished {
        let dir = TempDir::new();
        finish(self.command(&dir, subcommand))
    }
}

/// The beginning of the first line on standard output.
const LISTENING: &str = "threadq listening on http://";

fn own_program() -> Vec<String> {
    vec![env!("CARGO_BIN_EXE_threadq").to_owned()]
}

/// The program with an environment without any setting of the user who runs the tests.
pub fn program(dir: &TempDir) -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_threadq")), dir)
}

fn clean(mut command: Command, dir: &TempDir) -> Command {
    command.env_clear().current_dir(dir.path());
    for name in ["PATH", "HOME", "TMPDIR"] {
        if let Ok(value) = std::env::var(name) {
            command.env(name, value);
        }
    }
    command
}

/// The exit code and the output of a process that has ended.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end; fails the test after the limit.
#[track_caller]
pub fn finish(mut command: Command) -> Finished {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdout = child.stdout.take().expect("piped");
    let mut stderr = child.stderr.take().expect("piped");
    let out = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stdout.read_to_string(&mut text);
        text
    });
    let err = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let pid = child.id();
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(child.wait().expect("can be waited for")));
    let ended = receive.recv_timeout(LIMIT).ok();
    if ended.is_none() {
        signal::kill9(pid);
    }
    let stdout = out.join().expect("read");
    let stderr = err.join().expect("read");
    match ended {
        Some(status) => Finished { code: status.code(), stdout, stderr },
        None => panic!("still running after {LIMIT:?}\nstdout: {stdout}\nstderr: {stderr}"),
    }
}

/// A process that has been started and may not listen yet; killed when dropped.
pub struct Launched {
    child: Child,
    dir: TempDir,
}

impl Launched {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&self) -> String {
        self.dir.read("stdout")
    }

    pub fn stderr(&self) -> String {
        self.dir.read("stderr")
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("can be waited for").is_some()
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait(&mut self) -> Finished {
        eventually(LIMIT, "it ends", || self.has_ended());
        let status = self.child.wait().expect("can be waited for");
        Finished { code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        signal::kill9(self.child.id());
        let _ = self.child.wait();
    }
}

/// A running server; killed when dropped. All of [`Api`] can be called on it.
pub struct TestServer {
    api: Api,
    child: Child,
    dir: Option<TempDir>,
    log: PathBuf,
    silent: bool,
}

impl Deref for TestServer {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl TestServer {
    /// A free port and the demo handlers; add a Redis.
    pub fn builder() -> ServerBuilder {
        ServerBuilder {
            args: Vec::new(),
            env: Vec::new(),
            config: None,
            config_path: None,
            demo: true,
            listen: Some("127.0.0.1:0".to_owned()),
            launcher: Vec::new(),
            program: own_program(),
        }
    }

    /// A server with every default on this Redis.
    #[track_caller]
    pub fn start(redis: &TestRedis) -> TestServer {
        TestServer::builder().redis(redis).start()
    }

    /// A server that runs no job: for watching other servers.
    #[track_caller]
    pub fn observer(redis: &TestRedis) -> TestServer {
        TestServer::builder().redis(redis).flag("queues", "nobody-submits-here").flag("workers", "1").start()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn addr(&self) -> SocketAddr {
        self.api.addr
    }

    pub fn dir(&self) -> &TempDir {
        self.dir.as_ref().expect("not taken")
    }

    /// The folder of a server that has ended, for the next server.
    pub fn take_dir(&mut self) -> TempDir {
        self.dir.take().expect("not taken")
    }

    /// The names of all servers that the API lists.
    #[track_caller]
    pub fn server_ids(&self) -> Vec<String> {
        let stats = self.get("/stats").expect(200).json();
        let servers = stats["servers"].as_array().expect("servers");
        servers.iter().filter_map(|s| s["id"].as_str().map(str::to_owned)).collect()
    }

    /// This server's name, while it is the only one.
    #[track_caller]
    pub fn server_id(&self) -> String {
        let ids = until_some(LIMIT, "the server is listed", || {
            Some(self.server_ids()).filter(|ids| !ids.is_empty())
        });
        assert_eq!(ids.len(), 1, "one server, several names: {ids:?}\n{}", self.log_tail());
        ids[0].clone()
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Kills it by SIGKILL and waits until it has ended.
    pub fn kill9(&mut self) {
        signal::kill9(self.child.id());
        let _ = self.child.wait();
    }

    pub fn sigstop(&self) {
        signal::stop(self.child.id());
    }

    pub fn sigcont(&self) {
        signal::cont(self.child.id());
    }

    pub fn sigterm(&self) {
        signal::term(self.child.id());
    }

    pub fn sigint(&self) {
        signal::int(self.child.id());
    }

    /// The exit status, if it has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("can be waited for")
    }

    /// Waits until it has ended and returns the exit code (`None`: a signal ended it).
    #[track_caller]
    pub fn wait_exit(&mut self, limit: Duration) -> Option<i32> {
        let mut status = None;
        eventually(limit, "the server exits", || {
            status = self.try_wait();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// Sends SIGTERM, waits until it has ended, and returns the exit code.
    #[track_caller]
    pub fn stop(&mut self, limit: Duration) -> Option<i32> {
        self.sigterm();
        self.wait_exit(limit)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if self.try_wait().is_none() {
            signal::kill9(self.child.id());
            let _ = self.child.wait();
        }
        if std::thread::panicking() && !self.silent {
            let tail = self.log_tail();
            eprintln!("--- log of the server on {}\n{tail}\n---", self.api.addr);
        }
    }
}
