//! A redis-server on ports of 127.0.0.1, with a folder and a file of settings of its own: a master, a replica, a Sentinel,
//! or a node of a Cluster.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::dir::TempDir;
use super::signal;
use super::wait::{LIMIT, eventually};

/// A redis-server; ended when dropped.
pub struct Node {
    dir: TempDir,
    port: u16,
    is_sentinel: bool,
    password: Option<String>,
    child: Mutex<Option<Child>>,
}

impl Node {
    /// A Redis on a new port that does not run yet. `settings` are lines of its file.
    pub fn new(settings: &str) -> Node {
        let own = "appendonly yes\nappendfsync everysec\nsave \"\"\nrepl-diskless-sync-delay 0\n\
                   repl-ping-replica-period 1\n";
        Node::with_file(false, &format!("{own}{settings}"))
    }

    /// A Sentinel on a new port that does not run yet.
    pub fn new_sentinel(settings: &str) -> Node {
        Node::with_file(true, settings)
    }

    fn with_file(is_sentinel: bool, settings: &str) -> Node {
        let (dir, port) = (TempDir::new(), free_port());
        let own = format!("port {port}\nbind 127.0.0.1\ndaemonize no\ndir {}\n", dir.path().display());
        dir.write(FILE, &format!("{own}{settings}\n"));
        let password = settings.lines().find_map(|line| line.strip_prefix("requirepass "));
        Node { dir, port, is_sentinel, password: password.map(str::to_owned), child: Mutex::new(None) }
    }

    /// Adds lines to its file, for the next start.
    pub fn configure(&self, settings: &str) {
        self.dir.write(FILE, &format!("{}{settings}\n", self.dir.read(FILE)));
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The URL of this Redis alone.
    pub fn url(&self) -> String {
        match &self.password {
            Some(password) => format!("redis://:{password}@{}", self.address()),
            None => format!("redis://{}", self.address()),
        }
    }

    /// Starts the process as its file says, and does not wait until it answers. Redis itself may have changed the file.
    pub fn launch(&self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("redis.log"))
            .expect("a log file");
        let mut command = Command::new("redis-server");
        command.arg(self.dir.join(FILE)).args(self.is_sentinel.then_some("--sentinel"));
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server must be on PATH");
        let before = self.child.lock().expect("not poisoned").replace(child);
        assert!(before.is_none(), "it runs already");
    }

    /// Starts the process as its file says, and waits until it answers.
    pub fn start(&self) {
        self.launch();
        eventually(LIMIT, "redis-server answers", || self.answers() || self.has_ended());
        assert!(!self.has_ended(), "redis-server has ended: {}", self.log_text());
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().expect("not poisoned").as_ref().expect("it runs").id()
    }

    /// Whether it answers within a second.
    pub fn answers(&self) -> bool {
        let ping = |mut connection| redis::cmd("PING").query::<redis::Value>(&mut connection);
        self.connection(Duration::from_secs(1)).and_then(ping).is_ok()
    }

    fn has_ended(&self) -> bool {
        let mut child = self.child.lock().expect("not poisoned");
        child.as_mut().is_none_or(|child| child.try_wait().expect("can be waited for").is_some())
    }

    pub fn log_text(&self) -> String {
        self.dir.read("redis.log")
    }

    /// Kills it with SIGKILL and waits until it is gone; does nothing if it does not run.
    pub fn kill9(&self) {
        if let Some(mut child) = self.child.lock().expect("not poisoned").take() {
            signal::kill9(child.id());
            let _ = child.wait();
        }
    }

    /// Stops it by SIGSTOP: its connections stay open, and it answers nothing.
    pub fn pause(&self) {
        signal::stop(self.pid());
    }

    pub fn resume(&self) {
        signal::cont(self.pid());
    }

    /// A new connection, whose commands may take this long.
    pub fn connection(&self, limit: Duration) -> redis::RedisResult<redis::Connection> {
        let client = redis::Client::open(self.url())?;
        let connection = client.get_connection_with_timeout(limit)?;
        connection.set_read_timeout(Some(limit))?;
        Ok(connection)
    }

    /// Runs a command on a new connection.
    pub fn try_query<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        self.try_command(redis::cmd(words[0]).arg(&words[1..]))
    }

    /// Runs a command on a new connection.
    pub fn try_command<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> redis::RedisResult<T> {
        command.query(&mut self.connection(Duration::from_secs(5))?)
    }

    #[track_caller]
    pub fn query<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_query(words).unwrap_or_else(|error| panic!("{words:?} at {}: {error}", self.address()))
    }

    /// A line of INFO; empty if it does not answer or has no such line.
    pub fn info(&self, name: &str) -> String {
        let info: String = self.try_query(&["INFO"]).unwrap_or_default();
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().to_owned()
    }

    pub fn is_master(&self) -> bool {
        self.info("role") == "master"
    }

    /// Whether it is a replica that has received the data of its master and is connected to it.
    pub fn is_replica_in_sync(&self) -> bool {
        self.info("master_link_status") == "up"
    }

    /// The number of replicas to which this master sends its changes. A replica counts as in sync some time before its
    /// master begins to send.
    pub fn fed_replicas(&self) -> usize {
        let info: String = self.try_query(&["INFO", "replication"]).unwrap_or_default();
        let is_fed = |line: &&str| line.contains("state=online") && !line.contains("offset=0,");
        info.lines().filter(|line| line.starts_with("slave")).filter(is_fed).count()
    }

    /// Closes the links of its replicas and accepts no new ones. The replicas keep their master, so that no Sentinel
    /// and no Cluster changes their settings meanwhile.
    pub fn cut_replicas(&self) {
        self.query::<()>(&["ACL", "SETUSER", "default", "-psync", "-sync", "-replconf"]);
        self.query::<u64>(&["CLIENT", "KILL", "TYPE", "replica"]);
    }

    /// Ends [`Node::cut_replicas`].
    pub fn accept_replicas(&self) {
        self.query::<()>(&["ACL", "SETUSER", "default", "+psync", "+sync", "+replconf"]);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// The file of settings in the folder of a node.
const FILE: &str = "redis.conf";

/// A port on which nothing listens. It is below the range from which the system takes ports for outgoing connections, so
/// that it stays free while a killed node is down.
pub fn free_port() -> u16 {
    const FIRST: u16 = 12_000;
    const NUMBER: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at the same time start at different ports.
    let _ = NEXT.compare_exchange(0, fastrand::u16(1..NUMBER), Ordering::Relaxed, Ordering::Relaxed);
    loop {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % NUMBER;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
