//! Shared code of the benches: Redis, server, clients, flags and figures.

#![allow(dead_code, unused_imports)] // each bench uses only a part

pub mod bare;
pub mod callgrind;
pub mod client;
pub mod comparison;
pub mod distant;
pub mod drain;
pub mod figures;
pub mod flags;
pub mod plot;
pub mod process;
pub mod redis;
pub mod server;
pub mod slowlog;

pub use bare::Bare;
pub use client::Client;
pub use comparison::{Comparison, Cost};
pub use figures::{Rounds, percentile};
pub use flags::{flag, is_set, list};
pub use redis::Redis;
pub use server::Server;
pub use slowlog::SlowLog;
use tempfile::TempDir;
use threadq::config::{Config, Secret};

/// A temporary folder, removed when it is dropped; `name` is part of its name.
pub fn folder(name: &str) -> TempDir {
    let prefix = format!("threadq-bench-{name}-");
    tempfile::Builder::new().prefix(&prefix).tempdir().expect("a temporary folder")
}

/// The Redis of a bench, with `--aof` applied, in a temporary folder.
pub struct BenchRedis {
    // Declared before the folder, so that Redis ends before its folder is removed.
    pub redis: Redis,
    pub eye: redis::Eye,
    _folder: TempDir,
}

impl BenchRedis {
    pub fn start(name: &str) -> BenchRedis {
        let folder = folder(name);
        let redis = Redis::start(folder.path(), &aof()).expect("redis-server is on PATH");
        BenchRedis { eye: redis.eye(), redis, _folder: folder }
    }

    pub fn url(&self) -> String {
        self.redis.url()
    }

    /// The configuration of a server on a free port that refuses and deletes no job of a bench.
    pub fn config_without_limits(&self) -> Config {
        Config {
            listen: "127.0.0.1:0".parse().expect("an address"),
            redis_url: Some(Secret::new(self.url())),
            max_queue_length: 10_000_000,
            retain_completed_max: 10_000_000,
            retain_failed_max: 10_000_000,
            ..Config::default()
        }
    }

    /// Runs a command.
    pub fn ask<T: ::redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        let mut command = ::redis::cmd(words[0]);
        command.arg(&words[1..]);
        self.eye.query(&command).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Deletes all keys.
    pub fn empty(&mut self) {
        self.ask::<()>(&["FLUSHALL", "SYNC"]);
    }

    /// The processor time of Redis so far.
    pub fn cpu_seconds(&mut self) -> f64 {
        self.info("used_cpu_user") + self.info("used_cpu_sys")
    }

    /// A number from INFO, such as `used_memory`.
    pub fn info(&mut self, name: &str) -> f64 {
        let info: String = self.ask(&["INFO", "ALL"]);
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("INFO has no {name}"))
    }
}

/// The value of `--aof`: `off`, `everysec` or `always`.
pub fn aof() -> String {
    let aof: String = flag("aof", "off".to_owned());
    assert!(matches!(aof.as_str(), "off" | "everysec" | "always"), "--aof must be off, everysec or always");
    aof
}

/// Prints one line about the machine and Redis.
pub fn print_setup() {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    println!("{cores} cores, load {load} at the start; Redis on a unix socket, append-only file: {}", aof());
}

/// A JSON payload of this many bytes.
pub fn payload(bytes: usize) -> String {
    format!(r#"{{"text":"{}"}}"#, "x".repeat(bytes.saturating_sub(11)))
}

/// The names of `queues` queues.
pub fn queue_names(queues: usize) -> Vec<String> {
    if queues == 1 {
        vec!["default".to_owned()]
    } else {
        (1..=queues).map(|i| format!("queue-{i}")).collect()
    }
}
