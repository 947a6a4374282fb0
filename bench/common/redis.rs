//! A real `redis-server` of the run's own, and a connection to it that survives whatever is done to it.

#![allow(dead_code)] // each bench uses its part

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use redis::{Cmd, Connection, FromRedisValue, RedisResult};
use rustix::process::{Pid, Signal, kill_process};

/// A `redis-server` on a unix socket. Killed when it is dropped.
pub struct Redis {
    folder: PathBuf,
    fsync: String,
    child: Mutex<Child>,
}

impl Redis {
    /// Starts one in this folder and waits until it answers. `fsync`: what `appendfsync` takes, or `off` for one that
    /// writes nothing to the disk.
    pub fn start(folder: &Path, fsync: &str) -> Result<Redis, String> {
        let redis = Redis {
            folder: folder.to_owned(),
            fsync: fsync.to_owned(),
            child: Mutex::new(spawn(folder, fsync)?),
        };
        redis.wait_until_up(Duration::from_secs(10))?;
        Ok(redis)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("redis.sock")
    }

    /// What `--redis-url` takes.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// A connection of the rig's own.
    pub fn eye(&self) -> Eye {
        Eye { url: self.url(), connection: None }
    }

    /// Waits until it answers and has loaded its file.
    pub fn wait_until_up(&self, limit: Duration) -> Result<(), String> {
        let (mut eye, end) = (self.eye(), Instant::now() + limit);
        loop {
            match eye.query::<String>(&redis::cmd("PING")) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > end => return Err(format!("redis-server: {error}")),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Whether its append-only file, which is never rewritten, knows of a job.
    pub fn has_ever_written(&self, id: u64) -> bool {
        let key = format!("{{threadq}}:job:{id}");
        let files = std::fs::read_dir(self.folder.join("appendonlydir")).into_iter().flatten().flatten();
        let contents = files.filter_map(|file| std::fs::read(file.path()).ok());
        contents.into_iter().any(|content| content.windows(key.len()).any(|window| window == key.as_bytes()))
    }

    /// SIGKILL.
    pub fn kill(&self) {
        let mut child = self.child.lock().expect("nobody panics with it");
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Starts it again on what it left.
    pub fn restart(&self) -> Result<(), String> {
        *self.child.lock().expect("nobody panics with it") = spawn(&self.folder, &self.fsync)?;
        self.wait_until_up(Duration::from_secs(60))
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.lock().expect("nobody panics with it");
        let _ = kill_process(Pid::from_child(&child), signal);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        self.kill();
    }
}

fn spawn(folder: &Path, fsync: &str) -> Result<Child, String> {
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--maxmemory-policy", "noeviction"]);
    if fsync != "off" {
        command.args(["--appendonly", "yes", "--auto-aof-rewrite-percentage", "0", "--appendfsync", fsync]);
    }
    command.arg("--unixsocket").arg(folder.join("redis.sock"));
    command.arg("--dir").arg(folder).arg("--logfile").arg(folder.join("redis.log"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|error| format!("redis-server: {error}"))
}

/// A connection that is made anew after each error.
pub struct Eye {
    url: String,
    connection: Option<Connection>,
}

impl Eye {
    /// Runs one command.
    pub fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        let answer = self.connection().and_then(|connection| command.query(connection));
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    /// Runs one command, and again for up to a minute while Redis cannot be asked.
    pub fn insist<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, String> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            match self.query(command) {
                Ok(answer) => return Ok(answer),
                Err(error) if Instant::now() > end => return Err(format!("asking Redis: {error}")),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn connection(&mut self) -> RedisResult<&mut Connection> {
        if self.connection.is_none() {
            let client = redis::Client::open(self.url.as_str())?;
            let connection = client.get_connection_with_timeout(Duration::from_secs(1))?;
            connection.set_read_timeout(Some(Duration::from_secs(30)))?;
            self.connection = Some(connection);
        }
        Ok(self.connection.as_mut().expect("it was just made"))
    }
}
