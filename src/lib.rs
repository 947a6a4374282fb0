//! threadq: a background-job server on Redis with plain threads.

#[cfg(not(panic = "unwind"))]
compile_error!("threadq catches the panics of handlers: build it with panic = \"unwind\"");

pub mod api;
pub mod backoff;
#[doc(hidden)]
pub mod cli;
pub mod committer;
pub mod config;
pub mod duration;
pub mod fetcher;
pub mod handler;
pub mod identity;
pub mod inhand;
pub mod job;
pub mod json;
pub mod logging;
pub mod maintenance;
pub mod managed_redis;
pub mod metrics;
pub mod queue;
pub mod server;
pub mod shutdown;
pub mod worker;
