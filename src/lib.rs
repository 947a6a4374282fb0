//! threadq: a background-job server on Redis with plain threads.

#[cfg(not(panic = "unwind"))]
compile_error!("threadq catches the panics of handlers: build it with panic = \"unwind\"");

pub mod backoff;
pub mod handler;
pub mod job;
