//! The janitor: forgets finished jobs that are too old or too many, and the names of empty queues.

use std::time::{Duration, Instant};

use crate::engine::metrics::Metrics;
use crate::engine::shutdown::Shutdown;
use crate::queue::Queue;

/// Between two looks of the janitor, while jobs end and while none does.
const LONGEST_TIDYING: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];

/// How long and how many finished jobs are kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Completed and cancelled ones.
    pub completed: (Duration, u64),
    /// Failed ones.
    pub failed: (Duration, u64),
}

/// Forgets finished jobs in small steps until the end.
pub fn run_janitor(queue: &Queue, metrics: &Metrics, retention: Retention, shutdown: &Shutdown) {
    let shortest = retention.completed.0.min(retention.failed.0);
    let [every, idle] = LONGEST_TIDYING.map(|longest| (shortest / 4).clamp(Duration::from_secs(1), longest));
    let (mut looked, mut seen) = (Instant::now(), metrics.totals());
    while !shutdown.wait(every) {
        let totals = metrics.totals();
        if totals == seen && looked.elapsed() < idle {
            continue;
        }
        (looked, seen) = (Instant::now(), totals);
        // The log has what comes of it: rights may be taken away from a server that has nothing to do.
        let _ = queue.check_ready();
        for (failed, (keep_for, keep)) in [(false, retention.completed), (true, retention.failed)] {
            while !shutdown.is_requested() && matches!(queue.expire_jobs(failed, keep_for, keep), Ok(true)) {}
        }
        let mut next = queue.prune_queues(None);
        while !shutdown.is_requested()
            && let Ok(Some(from)) = next
        {
            next = queue.prune_queues(Some(from));
        }
    }
}
