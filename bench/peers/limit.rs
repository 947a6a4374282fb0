//! The time limit of a phase, and the stop by a signal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The time limit of a phase; it is over early when `stop` is set.
pub struct Limit {
    time: Duration,
    end: Instant,
    stop: Arc<AtomicBool>,
}

impl Limit {
    pub fn new(time: Duration, stop: Arc<AtomicBool>) -> Limit {
        Limit { time, end: Instant::now() + time, stop }
    }

    /// A limit of the same length that begins now.
    pub fn again(&self) -> Limit {
        Limit::new(self.time, self.stop.clone())
    }

    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || Instant::now() > self.end
    }

    /// Returns an error when the limit is over.
    pub fn check(&self) -> Result<(), String> {
        if self.stop.load(Ordering::Relaxed) {
            Err("stopped by a signal".to_owned())
        } else if self.is_over() {
            Err(format!("not done within {} s", self.time.as_secs()))
        } else {
            Ok(())
        }
    }

    /// Sleeps for `time`; returns an error when the limit is over before.
    pub fn sleep(&self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.check()?;
            std::thread::sleep((end - Instant::now().min(end)).min(Duration::from_millis(50)));
        }
        Ok(())
    }
}
