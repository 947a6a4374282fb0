//! The peers: how each is started, and which Redis keys hold its jobs.
//!
//! Every peer has two programs. The worker runs a job `no-op` that does nothing, or returns its payload where the peer
//! keeps results. If the payload has a field `sent` (µs of a clock that the peer's processes share), the worker writes
//! the µs since then as a line to the FIFO `PEERS_REPORT`. The producer reads lines, and answers each with the seconds
//! that it took: `one N` submits N jobs one after the other, `concurrent N C` by C callers at a time, `bulk N SIZE` in
//! calls of SIZE jobs, `lone` submits one job with `sent`. Both read `PEERS_REDIS`, `PEERS_WORKERS` and
//! `PEERS_PAYLOAD`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A Redis command that counts jobs, and its key.
pub type Count = (&'static str, &'static str);

/// How a peer's progress is read from Redis.
#[derive(PartialEq, Eq)]
pub struct Probe {
    /// Jobs that no worker has taken.
    pub waiting: &'static [Count],
    /// Jobs that are not done. A peer that removes a job from Redis when it takes the job has only the waiting ones.
    pub left: &'static [Count],
    /// Jobs that failed, or wait for a retry.
    pub failed: &'static [Count],
}

#[derive(PartialEq, Eq)]
pub struct Peer {
    /// The name on the command line.
    pub name: &'static str,
    pub label: &'static str,
    /// The file that pins its version, and the text before the version in that file.
    version: (&'static str, &'static str),
    /// The working directory of its programs, below this folder.
    folder: &'static str,
    worker: &'static [&'static str],
    producer: &'static [&'static str],
    /// Whether one producer can send several submissions at a time.
    pub concurrent: bool,
    pub bulk: bool,
    /// The largest number of jobs that the peer gets: a slow peer would need too long for all of them.
    most_jobs: usize,
    /// The largest number of lone jobs that the peer gets.
    most_lone: usize,
    pub probe: Probe,
    /// Its configuration, for the reader of the table.
    pub note: &'static str,
}

pub const PEERS: &[Peer] = &[
    Peer {
        name: "bullmq",
        label: "BullMQ",
        version: ("node/package.json", "\"bullmq\": \""),
        folder: "node",
        worker: &["node", "bullmq.mjs", "worker"],
        producer: &["node", "bullmq.mjs", "producer"],
        concurrent: true,
        bulk: true,
        most_jobs: usize::MAX,
        most_lone: usize::MAX,
        probe: Probe {
            waiting: &[("LLEN", "bull:bench:wait")],
            left: &[("LLEN", "bull:bench:wait"), ("LLEN", "bull:bench:active")],
            failed: &[("ZCARD", "bull:bench:failed"), ("ZCARD", "bull:bench:delayed")],
        },
        note: "one process; keeps completed jobs and results",
    },
    Peer {
        name: "rusty-sidekiq",
        label: "rusty-sidekiq",
        version: ("rust/Cargo.toml", "rusty-sidekiq = \"="),
        folder: "rust",
        worker: &["target/release/peer-rusty-sidekiq", "worker"],
        producer: &["target/release/peer-rusty-sidekiq", "producer"],
        concurrent: true,
        bulk: false,
        most_jobs: usize::MAX,
        most_lone: usize::MAX,
        probe: Probe {
            waiting: &[("LLEN", "queue:default")],
            left: &[("LLEN", "queue:default")],
            failed: &[("ZCARD", "retry"), ("ZCARD", "dead")],
        },
        note: "one process; a crash loses running jobs, in every mode; a pool with a connection per worker, not the default of 10",
    },
    Peer {
        name: "apalis",
        label: "apalis-redis",
        version: ("rust/Cargo.toml", "apalis-redis = \"="),
        folder: "rust",
        worker: &["target/release/peer-apalis", "worker"],
        producer: &["target/release/peer-apalis", "producer"],
        concurrent: true,
        bulk: true,
        most_jobs: 6_000,
        // About 30 s after its start the worker takes no job for more than a minute, in half of the runs.
        most_lone: 100,
        probe: Probe {
            // A job that is due at once is in the scheduled set until the worker looks.
            waiting: &[("LLEN", "bench:active"), ("ZCARD", "bench:scheduled")],
            left: &[
                ("LLEN", "bench:active"),
                ("ZCARD", "bench:scheduled"),
                ("SCARD", "bench:inflight:bench"),
            ],
            failed: &[("SCARD", "bench:dead")],
        },
        note: "one process; default configuration, but polls for jobs every 100 ms when idle, not every 30 s; keeps completed jobs and results; at most 6,000 jobs, because its worker ends with a Redis error when more than about 8,000 wait; at most 100 lone jobs, because about 30 s after its start its worker may take no job for more than a minute",
    },
    Peer {
        name: "dramatiq",
        label: "Dramatiq",
        version: ("python/requirements.txt", "dramatiq=="),
        folder: "python",
        worker: &["installed/bin/dramatiq", "dramatiq_peer", "-p", "1", "-t", "{workers}"],
        producer: &["installed/bin/python", "dramatiq_peer.py"],
        concurrent: false,
        bulk: false,
        most_jobs: 20_000,
        most_lone: usize::MAX,
        probe: Probe {
            waiting: &[("LLEN", "dramatiq:default")],
            left: &[("HLEN", "dramatiq:default.msgs")],
            failed: &[("LLEN", "dramatiq:default.DQ"), ("ZCARD", "dramatiq:default.XQ")],
        },
        note: "one process with a thread per job; no result backend",
    },
    Peer {
        name: "celery",
        label: "Celery",
        version: ("python/requirements.txt", "celery=="),
        folder: "python",
        worker: &["installed/bin/celery", "-A", "celery_peer", "worker", "-c", "{workers}", "-l", "WARNING"],
        producer: &["installed/bin/python", "celery_peer.py"],
        concurrent: false,
        bulk: false,
        most_jobs: 5_000,
        most_lone: usize::MAX,
        probe: Probe {
            waiting: &[("LLEN", "celery")],
            left: &[("LLEN", "celery"), ("HLEN", "unacked")],
            failed: &[],
        },
        note: "a process per job (prefork, its default); acks_late and reject_on_worker_lost, because a crash loses jobs without them; no result backend",
    },
    Peer {
        name: "rq",
        label: "RQ",
        version: ("python/requirements.txt", "rq=="),
        folder: "python",
        worker: &[
            "installed/bin/rq",
            "worker-pool",
            "-q",
            "-n",
            "{workers}",
            "-P",
            ".",
            "-u",
            "{redis}",
            "default",
        ],
        producer: &["installed/bin/python", "rq_peer.py"],
        concurrent: false,
        bulk: true,
        most_jobs: 400,
        most_lone: usize::MAX,
        probe: Probe {
            waiting: &[("LLEN", "rq:queue:default")],
            left: &[
                ("LLEN", "rq:queue:default"),
                ("LLEN", "rq:queue:default:intermediate"),
                ("ZCARD", "rq:wip:default"),
            ],
            failed: &[("ZCARD", "rq:failed:default"), ("ZCARD", "rq:scheduled:default")],
        },
        note: "a worker process per job, which forks for every job (its default); keeps completed jobs and results for 500 s",
    },
    Peer {
        name: "sidekiq",
        label: "Sidekiq",
        version: ("ruby/packages.lock", "ruby-sidekiq="),
        folder: "ruby",
        worker: &["./run", "sidekiq", "-r", "./sidekiq_peer.rb", "-c", "{workers}", "-q", "default"],
        producer: &["./run", "sidekiq_peer.rb"],
        concurrent: false,
        bulk: true,
        most_jobs: usize::MAX,
        most_lone: usize::MAX,
        probe: Probe {
            waiting: &[("LLEN", "queue:default")],
            left: &[("LLEN", "queue:default")],
            failed: &[("ZCARD", "retry"), ("ZCARD", "dead")],
        },
        note: "the open-source edition: one process; a crash loses running jobs, in every mode",
    },
];

impl Peer {
    pub fn worker(&self, redis: &str, workers: usize) -> Command {
        self.command(self.worker, redis, workers)
    }

    pub fn producer(&self, redis: &str, workers: usize) -> Command {
        self.command(self.producer, redis, workers)
    }

    fn command(&self, words: &[&str], redis: &str, workers: usize) -> Command {
        let folder = home().join(self.folder);
        // A path is relative to the folder; a bare name is searched on PATH.
        let program = if words[0].contains('/') { folder.join(words[0]) } else { PathBuf::from(words[0]) };
        let workers = workers.to_string();
        let mut command = Command::new(program);
        let fill_in = |word: &&str| word.replace("{workers}", &workers).replace("{redis}", redis);
        command.args(words[1..].iter().map(fill_in)).current_dir(folder);
        command.env("PEERS_REDIS", redis).env("PEERS_WORKERS", &workers);
        command
    }

    /// The number of jobs that the peer gets when threadq gets `jobs`.
    pub fn jobs(&self, jobs: usize) -> usize {
        jobs.min(self.most_jobs)
    }

    /// The number of its lone jobs when threadq gets `jobs`.
    pub fn lone(&self, jobs: usize) -> usize {
        jobs.min(self.most_lone)
    }

    /// The pinned version.
    pub fn version(&self) -> String {
        let (file, before) = self.version;
        let text = std::fs::read_to_string(home().join(file)).unwrap_or_default();
        let version = text.split_once(before).map_or("?", |(_, rest)| rest);
        version.split(['"', '+', ' ', '\n']).next().unwrap_or_default().to_owned()
    }
}

/// The folder of this bench.
pub fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers")
}
