//! Asking again: what was not answered, or answered with "later", for as long as it is worth it.

use std::thread;
use std::time::{Duration, Instant};

use super::error::Error;

/// Asks until there is an answer, an error that will not pass, or `patience` has gone by since the first one that may. Two
/// questions are at least `pause` apart. `told` hears of each error after which it is asked again.
///
/// For what is safe to ask twice.
pub(crate) fn repeat<T>(
    patience: Duration,
    pause: Duration,
    may_pass: impl Fn(&Error) -> bool,
    mut ask: impl FnMut() -> Result<T, Error>,
    mut told: impl FnMut(Error),
) -> Result<T, Error> {
    let mut failing_since = None;
    loop {
        let asked = Instant::now();
        let error = match ask() {
            Err(error) if may_pass(&error) => error,
            other => return other,
        };
        let left = patience.saturating_sub(failing_since.get_or_insert_with(Instant::now).elapsed());
        if left.is_zero() {
            return Err(error);
        }
        let wanted = match &error {
            Error::Refused(refusal) => refusal.retry_after.unwrap_or_default().max(pause),
            _ => pause,
        };
        told(error);
        thread::sleep(wanted.saturating_sub(asked.elapsed()).min(left));
    }
}
