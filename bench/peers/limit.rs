//! How long a phase of a run may take, and whether a signal ends all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The end of what is being done.
pub struct Limit {
    time: Duration,
    end: Instant,
    stop: Arc<AtomicBool>,
}

impl Limit {
    /// Time's up after `time`, or when `stop` is set.
    pub fn new(time: Duration, stop: Arc<AtomicBool>) -> Limit {
        Limit { time, end: Instant::now() + time, stop }
    }

    /// The same time once more, from now.
    pub fn again(&self) -> Limit {
        Limit::new(self.time, self.stop.clone())
    }

    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || Instant::now() > self.end
    }

    /// An error when it is over.
    pub fn check(&self) -> Result<(), String> {
        if self.stop.load(Ordering::Relaxed) {
            Err("stopped by a signal".to_owned())
        } else if self.is_over() {
            Err(format!("not done within {} s", self.time.as_secs()))
        } else {
            Ok(())
        }
    }

    /// Sleeps, or ends with an error.
    pub fn sleep(&self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.check()?;
            std::thread::sleep((end - Instant::now().min(end)).min(Duration::from_millis(50)));
        }
        Ok(())
    }
}
