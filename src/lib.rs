//! threadq: a background-job server on Redis, with the threads of the operating system and no async runtime.
//!
//! A client POSTs a job; threadq stores it in Redis and answers at once; a worker thread runs the job's handler: a Rust
//! closure, a program, or a URL. A failing job is tried again with backoff and ends in a dead letter queue, where a
//! person can look at it and send it back. Many servers can share one Redis.
//!
//! # In a program of one's own
//!
//! A program can be a server, with its own handlers in Rust, and a [`client`] of one: its own, or `threadq serve`. This is
//! both, on a private Redis:
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
//! let id = client.submit(&Submission::new("greet").payload("Ada")?)?;
//! let greeting: String = client.wait(id, Duration::from_secs(60))?.result()?;
//! assert_eq!(greeting, "Hello, Ada!");
//! server.stop();
//! # std::fs::remove_dir_all(data_dir)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Config`](config::Config) has every setting, and can be [loaded](config::Config::load) from flags, environment and file as
//! `threadq serve` does. What is worth knowing of [handlers](handler), of [`Failure`](job::Failure) and of asking again
//! is said there. The log goes through the crate `log`; [`logging::init`] sets up the program's own. The folder `examples`
//! has a server and a client to start from.
//!
//! # A job's way
//!
//! ```text
//! POST /jobs ─ api ─ submitter ─ Queue::submit_all, in groups ► work_queue:<queue>        (Redis)
//!                                                                │ BRPOPLPUSH wakes, a take starts as many
//! fetchers ◄─────────────────────────────────────────────────────┘ jobs as there are free workers
//!    │ bounded channel                                           in_progress_queue:<server>
//!    ▼
//! worker ─ catch_unwind around the handler ─ verdict
//!    │ channel
//!    ▼
//! committer ─ Queue::settle, in groups ─────────────────────────► completed | retrying | dlq_queue | back
//! ```
//!
//! Beside it: the heartbeat says that this server lives, and does nothing else, so that nothing
//! can delay it; the reaper takes over what dead servers left and finds jobs whose hand-over was lost; the reporter
//! writes the figures of the dashboard, and tells what workers do while somebody looks; the
//! scheduler moves jobs whose time has come into their queues; the janitor forgets old ones; the
//! watchdog stops attempts that take too long. Whether all this goes on, `liveness` finds out from outside; the program
//! tells systemd. Several fetchers agree in `turns` who takes from which queue.
//!
//! # Threads
//!
//! All are started in `server` (the gate's, one per connection, in `gate`; `systemd` in the program, if systemd
//! watches it), and all have names, so that `top -H` and gdb tell what each does: `fetch-QUEUE` (`fetch-QUEUE/N` with
//! more than one per queue), `worker-N`, `committer`,
//! `watchdog`, `heartbeat`, `reaper`, `reporter`, `scheduler`, `janitor`, `api-N`, `api-waits`, `gate`, `conn-N`,
//! `redis-connect-N` (make connections), `redis-watch`, `systemd`, and `tiny_http` for all of that library's.
//!
//! Channels are bounded: to the workers there is room for as many jobs as there are workers, to the committer for as many
//! outcomes as jobs may be in hand, so that whoever sends to them never waits; what a beat has found waits for reaper and
//! reporter one at a time. No lock is held during a call to Redis, or while another lock is waited for.
//!
//! # What holds everything together
//!
//! - The job's hash in Redis is the truth; entries in lists and sorted sets are only handles to it. An entry that does
//!   not fit its hash is dropped, never run.
//! - Every change of a job is one method of `queue::Queue` and one atomic step: one Lua script, or one command.
//! - A started job has an owner and a fencing token, which is new at every start. Settling shows it; with a wrong one
//!   nothing is changed. So a late answer of a server that was held to be dead is harmless, and so is the same answer
//!   sent twice.
//! - A `queue::Lease` is the right to settle one attempt. It is not `Clone`, and settling takes it.
//! - Only Redis's clock decides anything that servers must agree on; each server judges the others' heartbeats by how
//!   long they stood still on its own monotonic clock.
//! - No more jobs are in hand than twice the workers. That bounds memory while Redis is away, and what a crash
//!   can run twice.
//! - Jobs that were running when their server died are charged with a crash, and run again at once, side by side. A job on
//!   its last chance (one more crash is `max-crashes`) is a suspect: it waits apart, a server empties itself for it, and it
//!   runs there alone; if that server dies, it alone is charged, and fails. A job that did not run alone does not fail for a
//!   crash (but with `max-crashes` 1). So a job that kills servers is found, and no other job fails for what it did.
//!
//! # What is deliberately absent
//!
//! No trait for the queue: there is one implementation, and it is tested on a real Redis. No global state but the list of the
//! children that this process has started, whose exit statuses belong to their owners; no `unsafe`.
//! No wait of the engine ignores the end of the program: each is ended by it, or is a call to Redis, which takes 3 s at
//! most (a fetcher's, which may block for longer, is freed). `redis` and `r2d2` are used in `queue` alone, `tiny_http` in `api`
//! alone; the queue knows no handler, and handlers know no queue. The `client` knows the HTTP API and nothing of the server;
//! the command line asks through it.

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
mod private_redis;
mod queue;
mod sync;

/// What the program, the tests and the benches use beside the public modules. It is not part of the crate's API and can
/// change with every version.
#[doc(hidden)]
pub mod internals {
    pub use crate::cli::run;
    pub use crate::engine::{in_flight, membership};
    #[cfg(fuzzing)]
    pub use crate::fuzzing;

    pub mod queue {
        pub use crate::queue::*;
    }

    pub mod gate {
        pub use crate::gate::*;
    }
}

#[cfg(any(test, fuzzing))]
mod fuzzing;
