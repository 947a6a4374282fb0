//! Waiting for a condition with a limit, in place of a sleep of fixed length.

use std::time::{Duration, Instant};

/// The usual limit of a wait: generous, for slow and busy machines.
pub const LIMIT: Duration = Duration::from_secs(45);

/// Waits until `done` returns true; fails the test with `what` after `limit`. Returns the time that it took.
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

/// Waits until `look` returns a value and returns the value; fails the test with `what` after `limit`.
#[track_caller]
pub fn until_some<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    eventually(limit, what, || {
        found = look();
        found.is_some()
    });
    found.expect("found")
}

/// Asserts that `still` returns true for this time: for events that must not happen.
#[track_caller]
pub fn holds_for(time: Duration, what: &str, mut still: impl FnMut() -> bool) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        assert!(still(), "no longer after {:?}: {what}", begin.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
}
