//! The reporter: tells Redis what this server does, for dashboards: what its workers do while somebody looks, and what has
//! happened minute by minute. Each server adds up what it has counted and writes it now and then, and nothing at all while
//! nothing happens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::engine::in_flight::InFlight;
use crate::engine::membership::Membership;
use crate::engine::metrics::{Metrics, Totals};
use crate::queue::Queue;

/// Between two writes of the history.
const EVERY: Duration = Duration::from_secs(3);

/// The reporter of this server.
pub struct Reporter {
    /// Where it is told.
    pub queue: Arc<Queue>,
    /// Under which name.
    pub membership: Arc<Membership>,
    /// What the workers do.
    pub in_flight: Arc<InFlight>,
    /// What was counted.
    pub metrics: Arc<Metrics>,
    /// From the heartbeat, with each beat: whether somebody looks at what workers do.
    pub looks: Receiver<bool>,
}

impl Reporter {
    /// Works until the heartbeat has ended, and writes the last figures then.
    pub fn run(&self) {
        let mut history = History::default();
        for is_watched in &self.looks {
            if is_watched {
                self.tell();
            }
            // That it is over is found out as soon as the right is there, whether anybody asks or not.
            if self.queue.lacks_rights() {
                let _ = self.queue.check_ready();
            }
            history.write_sometimes(&self.metrics, &self.queue);
        }
        history.write(&self.metrics, &self.queue);
    }

    /// Tells what the workers do. If it is lost, the next beat has it told again.
    fn tell(&self) {
        let activity = serde_json::to_string(&self.in_flight.activity());
        let _ = activity.map(|activity| self.queue.report_activity(&self.membership.current(), &activity));
    }
}

/// What was written so far.
#[derive(Default)]
struct History {
    written: Totals,
    at: Option<Instant>,
}

impl History {
    /// Writes what has come since the last time, unless that was only just now.
    fn write_sometimes(&mut self, metrics: &Metrics, queue: &Queue) {
        if self.at.is_none_or(|at| at.elapsed() >= EVERY) {
            self.write(metrics, queue);
        }
    }

    /// Writes what has come since the last time. What cannot be written is tried again the next time.
    fn write(&mut self, metrics: &Metrics, queue: &Queue) {
        let totals = metrics.totals();
        let new = totals.since(&self.written);
        if new.is_empty() {
            return;
        }
        self.at = Some(Instant::now());
        if queue.add_history(&new).is_ok() {
            self.written = totals;
        }
    }
}
