//! Faults of servers: handlers that break the rules, memory and threads that the system refuses, output that nothing
//! reads, a wrong clock. No job is lost, no other job fails for it, and the audit finds nothing at the end.
//!
//! Servers that are killed or frozen are in `recovery.rs`, handlers that never return in `timeouts.rs`, programs that
//! do not stop in `exec_http.rs`.

mod clock;
mod crashes;
mod handlers;
mod logs;
mod memory;
mod output;
mod threads;
