//! What all black-box tests share: a Redis of their own, the program as a process, a small HTTP client, and waiting
//! with a limit.
//!
//! This code uses nothing of the library. It uses HTTP, signals, exit codes, and the few Redis keys that the contract
//! names. Every test starts its own redis-servers, on unix sockets or free ports, so that tests do not affect each other.
#![allow(dead_code, unused_imports)]

pub mod api;
pub mod audit;
pub mod cluster;
pub mod dir;
pub mod fleet;
pub mod http;
pub mod node;
pub mod private;
pub mod process;
pub mod redis;
pub mod resp;
pub mod sentinels;
pub mod server;
pub mod signal;
pub mod slow_clients;
pub mod wait;

pub use api::{Api, STATUSES};
pub use audit::{Outcomes, audit, wait_until_quiet};
pub use dir::TempDir;
pub use fleet::Supervisor;
pub use http::Reply;
pub use redis::TestRedis;
pub use server::{Finished, Launched, ServerBuilder, TestServer};
pub use slow_clients::{Crowd, Sizes};
pub use wait::{LIMIT, eventually, holds_for, until_some};

pub use serde_json::{Value, json};
pub use std::time::{Duration, Instant};

/// `n` milliseconds.
pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// `n` seconds.
pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A number from the environment, for tests that can be made larger.
pub fn env_number(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => default,
    }
}

/// Handlers of the demo with backoffs so short that tests need not wait for them.
pub const QUICK_BACKOFF: &str = r#"
[handlers.fail]
backoff = { base = "10ms", cap = "20ms" }
[handlers.panic]
backoff = { base = "10ms", cap = "20ms" }
[handlers.sleep]
backoff = { base = "10ms", cap = "20ms" }
[handlers.hang]
backoff = { base = "10ms", cap = "20ms" }
"#;

/// Milliseconds since 1970 of a time in a job's JSON. Panics if it is not RFC 3339 UTC with exactly milliseconds.
pub fn time_ms(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    let bytes = text.as_bytes();
    let shape = bytes.len() == 24
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            10 => *byte == b'T',
            13 | 16 => *byte == b':',
            19 => *byte == b'.',
            23 => *byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
    assert!(shape, "not RFC 3339 UTC with milliseconds: {text}");
    let parsed = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)
        .unwrap_or_else(|e| panic!("{text}: {e}"));
    u64::try_from(parsed.unix_timestamp_nanos() / 1_000_000).expect("after 1970")
}

/// Milliseconds since 1970 by this machine's clock, which is also Redis's.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("fits")
}

/// This time as RFC 3339.
pub fn rfc3339(ms: u64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).expect("in range");
    at.format(&time::format_description::well_known::Rfc3339).expect("formats")
}
