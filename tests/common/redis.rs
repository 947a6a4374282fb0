//! A redis-server that belongs to one test. It listens on a unix socket in a folder of its own, never on a port.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::dir::TempDir;
use super::signal;
use super::wait::{LIMIT, eventually};

/// The private Redis of a test; ended when dropped.
pub struct TestRedis {
    dir: TempDir,
    extra: Vec<String>,
    /// The number of the database that is used.
    database: u8,
    child: Mutex<Option<Child>>,
}

impl TestRedis {
    pub fn start() -> TestRedis {
        TestRedis::start_with(&[])
    }

    /// Starts it with further arguments for redis-server.
    pub fn start_with(extra: &[&str]) -> TestRedis {
        let redis = TestRedis::not_started_with(extra);
        redis.restart();
        redis
    }

    /// A Redis that does not run yet: `restart` starts it.
    pub fn not_started() -> TestRedis {
        TestRedis::not_started_with(&[])
    }

    fn not_started_with(extra: &[&str]) -> TestRedis {
        let extra = extra.iter().map(|arg| (*arg).to_owned()).collect();
        TestRedis { dir: TempDir::new(), extra, database: 0, child: Mutex::new(None) }
    }

    /// The same Redis, whose URL names this database.
    pub fn in_database(mut self, number: u8) -> TestRedis {
        self.database = number;
        self
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("redis.sock")
    }

    pub fn url(&self) -> String {
        let database = if self.database == 0 { String::new() } else { format!("?db={}", self.database) };
        format!("redis+unix://{}{database}", self.socket().display())
    }

    /// Starts it with the data on its disk, and waits until it answers.
    pub fn restart(&self) {
        self.launch(&[]);
        eventually(LIMIT, "redis-server answers", || self.try_query::<String>(&["PING"]).is_ok());
    }

    /// Starts it with further arguments and does not wait until it answers.
    pub fn launch(&self, more: &[&str]) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("redis.log"))
            .expect("a log file");
        // A file that grows beyond a limit is an error of the write, as a full disk is, and not the end of the process.
        let child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec redis-server \"$@\"", "redis-server"])
            .args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"])
            .args(["--maxmemory-policy", "noeviction", "--daemonize", "no"])
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.extra)
            .args(more)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server must be on PATH");
        let before = self.child.lock().expect("not poisoned").replace(child);
        assert!(before.is_none(), "it runs already");
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().expect("not poisoned").as_ref().expect("redis runs").id()
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub fn kill9(&self) {
        let child = self.child.lock().expect("not poisoned").take();
        if let Some(mut child) = child {
            signal::kill9(child.id());
            let _ = child.wait();
        }
    }

    /// Kills it and removes its data from the disk.
    pub fn kill_and_erase(&self) {
        self.kill9();
        std::fs::remove_dir_all(self.dir.join("appendonlydir")).expect("its append-only file");
    }

    /// Limits the size of its files, as a full disk does; `None` lifts the limit.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(pid, Resource::Fsize, limit).expect("the limit of a process of one's own");
    }

    /// Stops it by SIGSTOP: its connections stay open, and it answers nothing.
    pub fn pause(&self) {
        signal::stop(self.pid());
    }

    pub fn resume(&self) {
        signal::cont(self.pid());
    }

    pub fn connection(&self) -> redis::RedisResult<redis::Connection> {
        let client = redis::Client::open(self.url())?;
        let connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        connection.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(connection)
    }

    pub fn try_query<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query(&mut self.connection()?)
    }

    /// Runs any command: to cause a fault, or to read a key that the contract names.
    #[track_caller]
    pub fn query<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_query(words).unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }

    /// The number of commands that Redis executes in a time, with those inside scripts, and without those that ask for it.
    pub fn commands_in(&self, time: Duration) -> u64 {
        let mut connection = self.connection().expect("Redis answers");
        let mut number = || {
            let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut connection).expect("INFO");
            let calls = |line: &str| -> Option<u64> {
                let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
                (name != "info").then(|| figures.split(',').next().and_then(|calls| calls.parse().ok()))?
            };
            stats.lines().filter_map(calls).sum::<u64>()
        };
        let before = number();
        std::thread::sleep(time);
        number() - before
    }

    pub fn keys(&self, pattern: &str) -> Vec<String> {
        let mut keys: Vec<String> = self.query(&["KEYS", pattern]);
        keys.sort();
        keys
    }

    /// The length of a list; 0 if there is no such key.
    pub fn list_len(&self, key: &str) -> u64 {
        self.query(&["LLEN", key])
    }

    /// The lists and sets of jobs that wait or run: each key with its members, without the empty ones.
    pub fn live_handles(&self) -> Vec<(String, Vec<String>)> {
        let mut all: Vec<(String, Vec<String>)> = Vec::new();
        for pattern in ["{threadq}:work_queue:*", "{threadq}:in_progress_queue:*"] {
            for key in self.keys(pattern) {
                all.push((key.clone(), self.query(&["LRANGE", &key, "0", "-1"])));
            }
        }
        let scheduled = "{threadq}:scheduled";
        all.push((scheduled.to_owned(), self.query(&["ZRANGE", scheduled, "0", "-1"])));
        all.retain(|(_, members)| !members.is_empty());
        all
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        self.kill9();
    }
}
