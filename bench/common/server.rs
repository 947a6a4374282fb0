//! `threadq serve` as a process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Client, flag, folder};

/// A process `threadq serve --demo`; killed when it is dropped.
pub struct Server {
    child: Child,
    addr: SocketAddr,
    // Held until the process ends, so that it can print.
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    /// Starts a server and waits until it listens. The limits of queue length and retention are too high to matter,
    /// unless `args` has the latter.
    pub fn start(redis_url: &str, args: &[&str]) -> Server {
        Server::start_program(&program(), redis_url, args)
    }

    /// As [`start`](Server::start), with this program.
    pub fn start_program(program: &Path, redis_url: &str, args: &[&str]) -> Server {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let own = name.to_str().is_some_and(|name| name.starts_with("THREADQ_"));
            if own || name == "PORT" || name == "REDIS_URL" {
                command.env_remove(name);
            }
        }
        command.args(["serve", "--demo", "--listen", "127.0.0.1:0", "--redis-url", redis_url]);
        command.args(["--log-level", "error", "--max-queue-length", "100000000"]);
        if !args.contains(&"--retain-completed-max") {
            command.args(["--retain-completed-max", "100000000"]);
        }
        command.args(args);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("threadq");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("its first line");
        let addr = line.trim().strip_prefix("threadq listening on http://");
        let addr = addr.and_then(|addr| addr.parse().ok()).expect("it listens");
        Server { child, addr, _stdout: stdout }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn client(&self) -> Client {
        Client::new(self.addr)
    }

    /// Ends the server by SIGTERM, so that it puts its jobs back.
    pub fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        let end = Instant::now() + Duration::from_secs(40);
        while self.child.try_wait().expect("it can be waited for").is_none() {
            assert!(Instant::now() < end, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value of `--program`; by default the program built with this bench.
pub fn program() -> PathBuf {
    flag("program", PathBuf::from(env!("CARGO_BIN_EXE_threadq")))
}

/// The size of the program without symbols, in bytes.
pub fn stripped_size() -> u64 {
    let folder = folder("strip");
    let copy = folder.path().join("threadq");
    let done = Command::new("strip").arg("-o").arg(&copy).arg(program()).status();
    assert!(done.is_ok_and(|status| status.success()), "strip is on PATH");
    std::fs::metadata(copy).expect("strip wrote it").len()
}
