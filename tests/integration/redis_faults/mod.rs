//! Faults of Redis. The server stays up, logs once what is wrong and once that it is over, loses no accepted job,
//! and recovers without an operator.
//!
//! | trouble | submissions | reads | `/readyz` | running jobs | log | test |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | killed | 503 | 503 | 503 | end, their outcomes wait | away, back | `away.rs` |
//! | frozen (SIGSTOP) | 503 | 503 | 503 | the same | away, back | `away.rs` |
//! | loads its data | 503 | 503 | 503 | the same | away, back | `away.rs` |
//! | another password | 503 | 503 | 503 | the same | away, back | `access.rs` |
//! | requires a password now | 503 | 503 | 503 | the same | refuses, writes again | `access.rs` |
//! | the user lost all rights | 503 | 503 | 503 | the same | refuses, allows again | `access.rs` |
//! | the user lacks one right | 503 or 202, whole or not at all | served | 503 | as far as they may | the same | `rights.rs` |
//! | read-only after a failover | 503 | served | 503 | the same | refuses, writes again | `failover.rs` |
//! | its replicas are gone, with `redis-replicas` | 503, some stored | served | 200 | as usual | too few, enough again | `replicas.rs` |
//! | its disk is full (AOF, everysec) | 503 | served | 503 | the same | refuses, writes again | `full.rs` |
//! | its disk is full (AOF, always) | as killed: Redis ends itself | | | | | `full.rs` |
//! | its memory is full | 503 | served | 503 | end and are written; the queue drains | full, has room | `full.rs` |
//! | slow | 202, later | later | 200 | as usual | nothing | `wire.rs` |
//! | slower than the time limit | 503 | 503 | 503 | end, their outcomes wait | away, back | `wire.rs` |
//! | replies cut in the middle | 503 for those hit | later | 200 | run, some twice | nothing, or away, back | `wire.rs` |
//! | idle connections closed | 202 | served | 200 | as usual | nothing | `closed.rs` |
//! | forgets its scripts | 202 | served | 200 | as usual | nothing | `loss.rs` |
//! | flushed, or back without its data | 202 | served | 200 | are gone | its new name, once | `loss.rs` |
//! | older than 7.0 | exit 2; if it comes while the server runs 503 | | | | refuses | `wire.rs` |
//!
//! `lease.rs` tests that a server keeps its lease while it reclaims another server's jobs from a slow Redis.
//!
//! A 503 comes within 3 s and has a `Retry-After`; `/healthz` always responds with 200. `idle.rs` tests the cost of an
//! outage: hardly any CPU time, and at most twice as many claimed jobs as workers.

mod access;
mod away;
mod busy;
mod closed;
mod failover;
mod fixture;
mod full;
mod idle;
mod lease;
mod loss;
mod proxy;
mod replicas;
mod rights;
mod wire;
