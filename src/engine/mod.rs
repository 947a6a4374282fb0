//! The engine: the threads that take jobs from the queue, run them and store their outcomes. One file per thread:
//! `fetcher`, `worker`, `committer`, `heartbeat`, `reaper`, `scheduler`, `janitor`, `reporter`.
//!
//! The threads share these: the [in-flight jobs](in_flight), the [registrar](membership) of this server in its
//! namespace, the [order of takes](take_permits), the [metrics] and the [shutdown] signal. [`group_commit`] stores submissions;
//! [`liveness`] checks the engine from outside.

pub mod admission;
pub mod committer;
pub mod early_beat;
pub mod fetcher;
pub mod group_commit;
pub mod heartbeat;
pub mod in_flight;
pub mod janitor;
pub mod liveness;
pub mod membership;
pub mod metrics;
pub mod panics;
pub mod promotion_timer;
pub mod reaper;
pub mod recovery;
pub mod reporter;
pub mod scheduler;
pub mod shared;
pub mod shutdown;
pub mod take_permits;
pub mod verdict;
pub mod watchdog;
pub mod worker;
