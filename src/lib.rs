//! threadq: a background-job server on Redis, with the threads of the operating system and no async runtime.
//!
//! A client POSTs a job; threadq stores it in Redis and answers at once; a worker thread runs the job's handler: a Rust
//! closure, a program, or a URL. A failing job is tried again with backoff and ends in a dead letter queue, where a
//! person can look at it and send it back. Many servers can share one Redis.
//!
//! ```no_run
//! use threadq::server::Server;
//!
//! let server = Server::builder()
//!     .handler("greet", |job| {
//!         let name: String = job.payload()?;
//!         Ok(format!("Hello, {name}!"))
//!     })
//!     .start()?;
//! println!("listening on {}", server.addr());
//! # let (_, hurry) = crossbeam_channel::bounded(0);
//! server.shut_down(&hurry);
//! # Ok::<(), threadq::server::StartError>(())
//! ```
//!
//! # A job's way
//!
//! ```text
//! POST /jobs ─ api ─ Queue::submit ──────────────────────────► work_queue:<queue>          (Redis)
//!                                                                │ BRPOPLPUSH wakes, a take starts as many
//! fetcher ◄──────────────────────────────────────────────────────┘ jobs as there are free workers
//!    │ bounded channel                                           in_progress_queue:<server>
//!    ▼
//! worker ─ catch_unwind around the handler ─ verdict
//!    │ channel
//!    ▼
//! committer ─ Queue::settle, in groups ─────────────────────────► completed | retrying | dlq_queue | back
//! ```
//!
//! Beside it: the [heartbeat](maintenance::Heartbeat) says that this server lives, takes over what dead servers left and
//! finds jobs whose hand-over was lost, writes the [figures](history) of the dashboard, and tells what workers do while
//! somebody looks; the [scheduler](maintenance::Scheduler) moves jobs whose time has come into their queues; the janitor
//! forgets old ones; the watchdog stops attempts that take too long.
//!
//! # Threads
//!
//! All are started in [`server`] (and the gate's, one per connection, in [`api::gate`]), and all have names, so that
//! `top -H` and gdb tell what each does: `fetcher-N`, `worker-N`, `committer`, `watchdog`, `heartbeat`, `scheduler`,
//! `janitor`, `api-N`, `api-waits`, `gate`, `conn-N`, `redis-watch`.
//!
//! # What holds everything together
//!
//! - The job's hash in Redis is the truth; entries in lists and sorted sets are only handles to it. An entry that does
//!   not fit its hash is dropped, never run.
//! - Every change of a job is one method of [`queue::Queue`] and one atomic step: one Lua script, or one command.
//! - A started job has an owner and a fencing token, which is new at every start. Settling shows it; with a wrong one
//!   nothing is changed. So a late answer of a server that was held to be dead is harmless, and so is the same answer
//!   sent twice.
//! - A [`queue::Lease`] is the right to settle one attempt. It is not `Clone`, and settling takes it.
//! - Only Redis's clock decides anything that servers must agree on; each server judges the others' heartbeats by how
//!   long they stood still on its own monotonic clock.
//! - No more jobs are [in hand](inhand) than twice the workers. That bounds memory while Redis is away, and what a crash
//!   can run twice.
//! - A job that was running when its server died is a suspect: suspects run one at a time per server, and one on its
//!   last chance runs alone, so that a job that kills servers is found and its neighbours are not blamed.
//!
//! # What is deliberately absent
//!
//! No trait for the queue: there is one implementation, and it is tested on a real Redis. No global state, no `unsafe`,
//! no wait that ignores the end of the program. `redis` and `r2d2` are used in [`queue`] alone, `tiny_http` in [`api`]
//! alone; the queue knows no handler, and handlers know no queue.

#[cfg(not(panic = "unwind"))]
compile_error!("threadq catches the panics of handlers: build it with panic = \"unwind\"");

pub mod job;

pub mod about;
pub mod backoff;
pub mod handler;
pub mod queue;

pub mod committer;
pub mod complaint;
pub mod fetcher;
pub mod history;
pub mod identity;
pub mod inhand;
pub mod maintenance;
pub mod worker;

pub mod api;
pub mod config;
pub mod managed_redis;
pub mod metrics;
pub mod server;
pub mod shutdown;
pub mod threads;

#[doc(hidden)]
pub mod cli;
pub mod duration;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod json;
pub mod logging;
