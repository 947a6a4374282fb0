//! Servers in trouble: handlers that break the rules, memory and threads that are refused, output that nobody takes, a clock
//! that is wrong. Whatever it is, no job is lost, none beside it is blamed, and the audit is sound at the end.
//!
//! Servers that are killed or frozen are in `recovery.rs`, handlers that never return in `timeouts.rs`, programs that do
//! not stop in `exec_http.rs`.

mod clock;
mod crashes;
mod handlers;
mod logs;
mod memory;
mod output;
mod threads;
