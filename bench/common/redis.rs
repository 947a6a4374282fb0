//! A `redis-server` for a run, and a connection that reconnects after every error.

#![allow(dead_code)] // each bench uses only a part

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
    /// Starts a `redis-server` in this folder and waits until it responds. `fsync` is the value of `appendfsync`, or
    /// `off` for a Redis that writes nothing to the disk.
    pub fn start(folder: &Path, fsync: &str) -> Result<Redis, String> {
        let redis = Redis {
            folder: folder.to_owned(),
            fsync: fsync.to_owned(),
            child: Mutex::new(spawn(folder, fsync)?),
        };
        redis.wait_until_up(Duration::from_secs(10))?;
        Ok(redis)
    }

    /// The path of Redis's socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("redis.sock")
    }

    /// Redis's URL, for `--redis-url`.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// A new connection, opened by the first command.
    pub fn eye(&self) -> Eye {
        Eye::new(self.url())
    }

    /// Waits until Redis responds and has loaded its file.
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

    /// Whether the append-only file, which is never rewritten, has the key of a job.
    pub fn has_ever_written(&self, id: u64) -> bool {
        let key = format!("{{threadq}}:job:{id}");
        let files = std::fs::read_dir(self.folder.join("appendonlydir")).into_iter().flatten().flatten();
        let contents = files.filter_map(|file| std::fs::read(file.path()).ok());
        contents.into_iter().any(|content| content.windows(key.len()).any(|window| window == key.as_bytes()))
    }

    /// Kills Redis by SIGKILL.
    pub fn kill(&self) {
        let mut child = self.child.lock().expect("no thread panics while it holds the lock");
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Restarts Redis on the data in its folder.
    pub fn restart(&self) -> Result<(), String> {
        *self.child.lock().expect("no thread panics while it holds the lock") =
            spawn(&self.folder, &self.fsync)?;
        self.wait_until_up(Duration::from_secs(60))
    }

    /// Sends a signal to Redis.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.lock().expect("no thread panics while it holds the lock");
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

/// A connection to Redis that is opened again after each error.
pub struct Eye {
    url: String,
    connection: Option<Connection>,
}

impl Eye {
    /// A connection to this Redis, opened by the first command.
    pub fn new(url: String) -> Eye {
        Eye { url, connection: None }
    }

    /// Runs one command.
    pub fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        let answer = self.connection().and_then(|connection| command.query(connection));
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    /// Runs one command, and repeats it for up to 60 s while it fails.
    pub fn insist<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, String> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            match self.query(command) {
                Ok(answer) => return Ok(answer),
                Err(error) if Instant::now() > end => return Err(format!("Redis: {error}")),
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
