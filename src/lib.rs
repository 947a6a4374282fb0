//! threadq: a background-job server on Redis. It uses threads of the operating system and no async runtime.
//!
//! A client sends a job with `POST /jobs`. threadq stores the job in Redis and responds at once; later a worker thread
//! runs the job's handler: a Rust closure, a program, or a URL. A failed job is retried with backoff and ends in a dead
//! letter queue, where an operator can inspect it and send it back. Many servers can share one Redis.
//!
//! # In a program of one's own
//!
//! A program can be a server with its own handlers in Rust, and a [`client`] of any server. This one is both, on a
//! private Redis:
//!
//! ```
//! use std::time::Duration;
//! use threadq::client::{Client, Submission};
//! use threadq::config::Config;
//! use threadq::server::Server;
//!
//! # let data_dir = std::env::temp_dir().join(format!("threadq-tour-{}", std::process::id()));
//! let config = Config { listen: "127.0.0.1:0".parse()?, data_dir, ..Config::default() };
//! # let data_dir = config.data_dir.clone();
//! let server = Server::builder()
//!     .config(config)
//!     .handler("greet", |job| {
//!         let name: String = job.payload()?;
//!         Ok(format!("Hello, {name}!"))
//!     })
//!     .start()?;
//!
//! let client = Client::new(&format!("http://{}", server.addr()))?;
//! let id = client.submit(&Submission::new("greet").payload("Ada")?)?.id;
//! let greeting: String = client.wait(id, Duration::from_secs(60))?.result()?;
//! assert_eq!(greeting, "Hello, Ada!");
//! server.stop();
//! # std::fs::remove_dir_all(data_dir)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Config`](config::Config) has every setting; [`Config::load`](config::Config::load) reads them from flags,
//! environment and file as `threadq serve` does. [`handler`] explains how handlers run and stop,
//! [`Failure`](job::Failure) how they fail and are retried. The crate logs through the crate `log`, and
//! [`logging::init`] sets up the logger of the program `threadq`. The folder `examples` has a server and a client to
//! start from.
//!
//! # Inside
//!
//! ```text
//! POST /jobs ─ gate ─ api ─ engine::group_commit ─► work_queue:<queue>               (Redis)
//!                                                      │ BRPOPLPUSH wakes a fetcher, one round trip starts
//! engine::fetcher ◄────────────────────────────────────┘ as many jobs as there are free workers
//!    │ engine::in_flight                               in_progress_queue:<server>
//!    ▼
//! engine::worker ─ handler ─ verdict
//!    │ bounded channel
//!    ▼
//! engine::committer ─ groups of outcomes ──────────────► completed | retrying | dlq_queue | back
//! ```
//!
//! The repository's `docs/internals.md` describes threads, channels, keys, scripts and fencing, and has a map of the
//! code. Each module says what it does and what it must not know; `engine` lists the threads. These invariants hold
//! everything together:
//!
//! - The job's hash in Redis is the truth. Entries in lists and sorted sets only refer to it; an entry that does not
//!   fit its hash is dropped, never run.
//! - Every change of a job is one method of `queue::Queue` and one atomic step: one Lua script, or one command.
//! - Each start of a job makes a new fencing token. Settling an attempt shows the token, and a wrong one changes
//!   nothing: a late settlement by a server that lost its lease is harmless, and so is a settlement that is sent twice.
//! - A `queue::Lease` is the right to settle one attempt. It is not `Clone`, and settling consumes it.
//! - What servers must agree on is decided by Redis's clock. Each server times the heartbeats of others by its own
//!   monotonic clock.
//! - A server has at most twice as many jobs in flight as workers. That bounds its memory during an outage of Redis,
//!   and how many jobs can run twice after a crash.
//! - A crash of a server is recorded on the jobs that were running, and they run again at once, side by side. A job
//!   whose next crash would be the last one allowed is quarantined: it runs alone. So a job that crashes servers is
//!   found, and no other job fails for it (unless `max-crashes` is 1).
//! - The queue has no trait: there is one implementation, tested on a real Redis. There is no `unsafe`, and no global
//!   state but the list of child processes.

#[cfg(not(panic = "unwind"))]
compile_error!("threadq catches the panics of handlers: build it with panic = \"unwind\"");

pub mod client;
pub mod config;
pub mod handler;
pub mod job;
pub mod logging;
pub mod server;

mod api;
mod children;
mod cli;
mod engine;
mod gate;
mod net;
mod packed;
mod private_redis;
mod queue;
mod schedule;
mod sorting;
mod sync;
#[cfg(test)]
#[allow(dead_code)] // the tests of the program use more of it
#[path = "../tests/common/wait.rs"]
mod wait;

/// What the program, the tests and the benches use beside the public modules. It is not part of the crate's API and can
/// change with every version.
#[doc(hidden)]
pub mod internals {
    pub use crate::cli::run;
    pub use crate::engine::{in_flight, membership};

    #[cfg(fuzzing)]
    pub mod fuzzing {
        pub use crate::fuzzing::*;
    }

    pub mod queue {
        pub use crate::queue::*;
    }

    pub mod gate {
        pub use crate::gate::*;
    }
}

#[cfg(any(test, fuzzing))]
mod fuzzing;
