//! The janitor: deletes finished jobs that exceed the retention, and the names of empty queues.

use std::time::{Duration, Instant};

use crate::engine::shared::Shared;
use crate::engine::shutdown::Shutdown;

/// The longest time between two runs while jobs end, and while no job ends.
const LONGEST_INTERVALS: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];

/// How long, and how many, finished jobs are kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// For completed and cancelled jobs.
    pub completed: (Duration, u64),
    /// For failed jobs.
    pub failed: (Duration, u64),
}

pub struct Janitor {
    pub shared: Shared,
    pub retention: Retention,
    pub shutdown: Shutdown,
}

impl Janitor {
    /// Runs until the server stops.
    pub fn run(&self) {
        let metrics = &self.shared.metrics;
        let Retention { completed, failed } = self.retention;
        let shortest = completed.0.min(failed.0);
        let [busy, idle] =
            LONGEST_INTERVALS.map(|longest| (shortest / 4).clamp(Duration::from_secs(1), longest));
        let (mut last_run, mut counted) = (Instant::now(), metrics.totals());
        while !self.shutdown.wait(busy) {
            let totals = metrics.totals();
            if totals == counted && last_run.elapsed() < idle {
                continue;
            }
            (last_run, counted) = (Instant::now(), totals);
            self.tidy();
        }
    }

    /// Deletes all that exceeds the retention, in small steps.
    fn tidy(&self) {
        let queue = &self.shared.queue;
        // Logs rights that were taken away: an idle server makes no other call that needs them.
        let _ = queue.check_ready();
        for (failed, (keep_for, keep)) in [(false, self.retention.completed), (true, self.retention.failed)] {
            while !self.shutdown.is_requested()
                && matches!(queue.delete_old_jobs(failed, keep_for, keep), Ok(true))
            {}
        }
        let mut next = queue.prune_names(None);
        while !self.shutdown.is_requested()
            && let Ok(Some(from)) = next
        {
            next = queue.prune_names(Some(from));
        }
    }
}
