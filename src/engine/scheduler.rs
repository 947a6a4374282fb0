//! The scheduler: works off what is due (delayed jobs, retries, expiries), and sleeps until something is due next.

use std::time::Duration;

use crate::engine::shared::Shared;
use crate::engine::shutdown::Shutdown;

/// The longest sleep. Each heartbeat learns when the next job is due, also of jobs that other servers have parked.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// The time between attempts during an outage of Redis.
const OUTAGE_RETRY_INTERVAL: Duration = Duration::from_millis(500);

pub struct Scheduler {
    pub shared: Shared,
    pub shutdown: Shutdown,
}

impl Scheduler {
    /// Runs until the server stops.
    pub fn run(&self) {
        let timer = &self.shared.due_timer;
        loop {
            // Until Redis has answered, the next due time is unknown: each job that is parked meanwhile must wake this
            // thread.
            timer.set(LONGEST_SLEEP * 1000);
            let sleep = match self.shared.queue.work_off_due() {
                Ok(step) => {
                    let metrics = &self.shared.metrics;
                    step.expired.iter().for_each(|(job_type, status)| metrics.expired(job_type, *status));
                    // One more millisecond, so that the job is due by Redis's clock too.
                    step.next.map_or(LONGEST_SLEEP, |due| due + Duration::from_millis(1))
                }
                Err(_) => OUTAGE_RETRY_INTERVAL,
            };
            let sleep = sleep.min(LONGEST_SLEEP);
            timer.set(sleep);
            if timer.sleep(sleep, &self.shutdown) {
                return;
            }
        }
    }
}
