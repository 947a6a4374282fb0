//! The redis-server of a phase, with the same settings for threadq and all peers.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use redis::{Connection, FromRedisValue};

use super::limit::Limit;
use super::peer::Probe;
use super::plan::Plan;
use super::process::Program;

/// The flags of every redis-server of the bench, except its port and folder.
pub fn settings(plan: &Plan) -> Vec<String> {
    let persistence = if plan.aof { "--appendonly yes --appendfsync everysec" } else { "--appendonly no" };
    let mut settings: Vec<String> = ["--bind", "127.0.0.1", "--save", ""].map(str::to_owned).into();
    settings.extend(persistence.split(' ').chain(["--maxmemory-policy", "noeviction"]).map(str::to_owned));
    if let Some(bytes) = plan.listpack_value {
        settings.extend(["--hash-max-listpack-value".to_owned(), bytes.to_string()]);
    }
    settings
}

/// A redis-server on a free port of 127.0.0.1, and a connection to it.
pub struct Redis {
    port: u16,
    connection: Connection,
    // Ends redis-server when it is dropped.
    server: Program,
}

impl Redis {
    pub fn start(folder: &Path, plan: &Plan) -> Result<Redis, String> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.map_err(|error| error.to_string())?.port();
        let data = folder.join(format!("redis-{port}"));
        std::fs::create_dir_all(&data).map_err(|error| error.to_string())?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--dir"]).arg(&data).args(settings(plan));
        let mut server = Program::start("redis-server", command, folder)?;
        let client = redis::Client::open(url(port)).map_err(|error| error.to_string())?;
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            server.check()?;
            match client.get_connection_with_timeout(Duration::from_secs(1)) {
                Ok(connection) => {
                    let limit = Some(Duration::from_secs(30));
                    connection.set_read_timeout(limit).map_err(|error| error.to_string())?;
                    return Ok(Redis { port, connection, server });
                }
                Err(error) if Instant::now() > end => return Err(format!("redis-server: {error}")),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    pub fn pids(&self) -> Vec<u32> {
        self.server.pids()
    }

    pub fn url(&self) -> String {
        url(self.port)
    }

    fn query<T: FromRedisValue>(&mut self, words: &[&str]) -> Result<T, String> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query(&mut self.connection).map_err(|error| format!("Redis: {error}"))
    }

    pub fn forget_everything(&mut self) -> Result<(), String> {
        self.query(&["FLUSHALL"])
    }

    /// `used_memory`, in bytes.
    pub fn memory(&mut self) -> Result<f64, String> {
        self.info("memory", "used_memory:")
    }

    /// Watches the commands in Redis for `time`. Returns how many were sent by clients, and how many ran inside
    /// scripts.
    pub fn watch(&self, time: Duration, limit: &Limit) -> Result<(usize, usize), String> {
        let fault = |error: std::io::Error| format!("Redis, MONITOR: {error}");
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(fault)?;
        stream.set_read_timeout(Some(Duration::from_millis(50))).map_err(fault)?;
        stream.write_all(b"MONITOR\r\n").map_err(fault)?;
        let mut text = Vec::new();
        let end = Instant::now() + time;
        while Instant::now() < end {
            limit.check()?;
            let mut part = [0; 16 * 1024];
            match stream.read(&mut part) {
                Ok(0) => return Err("Redis ended MONITOR".to_owned()),
                Ok(read) => text.extend(&part[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(fault(error)),
            }
        }
        // Lines are `+TIME [0 ADDRESS] "COMMAND" ..`; the address is `lua` inside a script. The first line is `+OK`.
        let text = String::from_utf8_lossy(&text);
        let is_script = |line: &&str| line.split(' ').nth(2) == Some("lua]");
        let (scripts, sent): (Vec<&str>, Vec<&str>) = text.lines().skip(1).partition(is_script);
        Ok((sent.len(), scripts.len()))
    }

    fn info(&mut self, section: &str, field: &str) -> Result<f64, String> {
        let text: String = self.query(&["INFO", section])?;
        let value = text.lines().find_map(|line| line.strip_prefix(field));
        value.and_then(|value| value.trim().parse().ok()).ok_or_else(|| format!("Redis: INFO has no {field}"))
    }

    /// The number of jobs that wait, and of jobs that are not done.
    pub fn left(&mut self, probe: &Probe) -> Result<(u64, u64), String> {
        let mut pipe = redis::pipe();
        for words in probe.waiting.iter().chain(probe.left) {
            pipe.cmd(words.0).arg(words.1);
        }
        let counts: Vec<u64> = pipe.query(&mut self.connection).map_err(|error| format!("Redis: {error}"))?;
        let (waiting, left) = counts.split_at(probe.waiting.len());
        Ok((waiting.iter().sum(), left.iter().sum()))
    }

    /// The number of jobs that have failed.
    pub fn failed(&mut self, probe: &Probe) -> Result<u64, String> {
        let mut failed = 0;
        for (command, key) in probe.failed {
            failed += self.query::<Option<u64>>(&[command, key])?.unwrap_or(0);
        }
        Ok(failed)
    }
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}/0")
}
