//! The thread `figures`: writes figures for dashboards to Redis. It writes the activity of the workers while a dashboard shows
//! them, and the history minute by minute, as increments of this server's counters. An idle server writes nothing.

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::engine::metrics::{Metrics, Totals};
use crate::engine::shared::Shared;
use crate::queue::Queue;

/// The shortest time between two writes of the history.
const HISTORY_INTERVAL: Duration = Duration::from_secs(3);

pub struct Figures {
    pub shared: Shared,
    /// From the heartbeat, with each beat: whether a dashboard shows the activity of workers. Has room for one.
    pub is_watched: Receiver<bool>,
}

impl Figures {
    /// Runs until the heartbeat has ended, and writes the last figures then.
    pub fn run(&self) {
        let Shared { queue, metrics, .. } = &self.shared;
        let mut history = HistoryWriter::default();
        for is_watched in &self.is_watched {
            if is_watched {
                self.report_activity();
            }
            // Finds out that a missing right was granted, even if no request asks for /readyz.
            if queue.lacks_rights() {
                let _ = queue.check_ready();
            }
            history.write_if_due(metrics, queue);
        }
        history.write(metrics, queue);
    }

    /// Writes what the workers do. A failed write is repaired by the next beat.
    fn report_activity(&self) {
        let activity = serde_json::to_string(&self.shared.in_flight.activity());
        let _ = activity.map(|activity| self.shared.queue.report_activity(&self.shared.server(), &activity));
    }
}

#[derive(Default)]
struct HistoryWriter {
    written: Totals,
    written_at: Option<Instant>,
}

impl HistoryWriter {
    fn write_if_due(&mut self, metrics: &Metrics, queue: &Queue) {
        if self.written_at.is_none_or(|at| at.elapsed() >= HISTORY_INTERVAL) {
            self.write(metrics, queue);
        }
    }

    /// Writes what was counted since the last successful write.
    fn write(&mut self, metrics: &Metrics, queue: &Queue) {
        let totals = metrics.totals();
        let increments = totals.since(&self.written);
        if increments.is_empty() {
            return;
        }
        self.written_at = Some(Instant::now());
        if queue.add_history(&increments).is_ok() {
            self.written = totals;
        }
    }
}
