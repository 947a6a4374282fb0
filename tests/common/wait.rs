//! Waiting for a condition with a limit, in place of a sleep of fixed length.

use std::time::{Duration, Instant};

/// How long a test waits for what should be there in a moment: generous, for slow and busy machines.
pub const LIMIT: Duration = Duration::from_secs(45);

/// Waits until `done` says yes; fails the test with `what` after `limit`. Gives how long it took.
#[track_caller]
pub fn eventually(limit: Duration, what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    let mut pause = Duration::from_millis(5);
    while !done() {
        assert!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    begin.elapsed()
}

/// Waits until there is something to give.
#[track_caller]
pub fn until_some<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    eventually(limit, what, || {
        found = look();
        found.is_some()
    });
    found.expect("found")
}

/// Asserts that something stays true for a while: for events that must not happen.
#[track_caller]
pub fn holds_for(time: Duration, what: &str, mut still: impl FnMut() -> bool) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        assert!(still(), "no longer after {:?}: {what}", begin.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
}
