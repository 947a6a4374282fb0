//! Sends a request again after a transient error, for a limited time.

use std::thread;
use std::time::{Duration, Instant};

use super::error::Error;

/// Calls `send` until it succeeds, fails with an error for which `is_transient` is false, or `limit` has passed since the
/// first transient error. Two calls start at least `interval` apart, or the `Retry-After` of the response if that is longer.
/// `on_retry` gets each error after which `send` is called again.
///
/// Only for requests that are safe to repeat.
pub(crate) fn with_retries<T>(
    limit: Duration,
    interval: Duration,
    is_transient: impl Fn(&Error) -> bool,
    mut send: impl FnMut() -> Result<T, Error>,
    mut on_retry: impl FnMut(Error),
) -> Result<T, Error> {
    let mut failing_since = None;
    loop {
        let sent = Instant::now();
        let error = match send() {
            Err(error) if is_transient(&error) => error,
            other => return other,
        };
        let left = limit.saturating_sub(failing_since.get_or_insert_with(Instant::now).elapsed());
        if left.is_zero() {
            return Err(error);
        }
        let wait = match &error {
            Error::Refused(refusal) => refusal.retry_after.unwrap_or_default().max(interval),
            _ => interval,
        };
        on_retry(error);
        thread::sleep(wait.saturating_sub(sent.elapsed()).min(left));
    }
}
