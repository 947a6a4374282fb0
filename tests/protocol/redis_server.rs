//! One redis-server for all tests that run at the same time; ended with the last of them.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

pub struct RedisServer {
    folder: PathBuf,
    child: Child,
}

impl RedisServer {
    /// The one that runs, or a new one.
    pub fn shared() -> Arc<RedisServer> {
        static RUNNING: Mutex<Weak<RedisServer>> = Mutex::new(Weak::new());
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.upgrade().unwrap_or_else(|| {
            let server = Arc::new(RedisServer::start());
            *running = Arc::downgrade(&server);
            server
        })
    }

    /// One for a test that changes how it works.
    pub fn start() -> RedisServer {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("threadq-protocol-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--dir"])
            .arg(&folder)
            .arg("--unixsocket")
            .arg(folder.join("redis"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server must be on PATH");
        let server = RedisServer { folder, child };
        let limit = Instant::now() + Duration::from_secs(20);
        while server.connect().is_err() {
            assert!(Instant::now() < limit, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("redis")
    }

    /// A path for another socket beside it.
    pub fn socket_of(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn connect(&self) -> redis::RedisResult<redis::Connection> {
        redis::Client::open(format!("redis+unix://{}", self.socket().display()))?.get_connection()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
