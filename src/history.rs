//! What happened minute by minute, for charts: each server adds up what it has counted and writes it to Redis now and
//! then, and nothing at all while nothing happens.

use std::time::{Duration, Instant};

use crate::metrics::{Metrics, Totals};
use crate::queue::Queue;

/// Between two writes.
const EVERY: Duration = Duration::from_secs(3);

/// What was written so far.
#[derive(Default)]
pub struct History {
    written: Totals,
    at: Option<Instant>,
}

impl History {
    /// Writes what has come since the last time, unless that was only just now.
    pub fn write_sometimes(&mut self, metrics: &Metrics, queue: &Queue) {
        if self.at.is_none_or(|at| at.elapsed() >= EVERY) {
            self.write(metrics, queue);
        }
    }

    /// Writes what has come since the last time. What cannot be written is tried again the next time.
    pub fn write(&mut self, metrics: &Metrics, queue: &Queue) {
        let totals = metrics.totals();
        let new = totals.since(&self.written);
        if new.is_empty() {
            return;
        }
        self.at = Some(Instant::now());
        if queue.note_history(&new).is_ok() {
            self.written = totals;
        }
    }
}
