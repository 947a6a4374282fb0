//! The scheduler: works off what is due (delayed jobs, retries, expiries, leases, ticks of schedules), and sleeps until something
//! is due next.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::leases;
use crate::engine::schedules::FileSchedules;
use crate::engine::shared::Shared;
use crate::engine::shutdown::Shutdown;
use crate::handler::Handlers;
use crate::queue::Error;

/// The longest sleep. Each heartbeat learns when the next job is due, also of jobs that other servers have parked.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// The time between attempts during an outage of Redis.
const OUTAGE_RETRY_INTERVAL: Duration = Duration::from_millis(500);

pub struct Scheduler {
    pub shared: Shared,
    pub file_schedules: FileSchedules,
    /// Have the policies of the job types.
    pub handlers: Arc<Handlers>,
    pub shutdown: Shutdown,
}

impl Scheduler {
    /// Runs until the server stops.
    pub fn run(mut self) {
        let timer = self.shared.due_timer.clone();
        loop {
            // Until Redis has answered, the next due time is unknown: each job that is parked meanwhile must wake this
            // thread.
            timer.set(LONGEST_SLEEP * 1000);
            let sleep = match self.work_off() {
                // One more millisecond, so that the job is due by Redis's clock too.
                Ok(next) => next.map_or(LONGEST_SLEEP, |due| due + Duration::from_millis(1)),
                Err(_) => OUTAGE_RETRY_INTERVAL,
            };
            let sleep = sleep.min(LONGEST_SLEEP);
            timer.set(sleep);
            if timer.sleep(sleep, &self.shutdown) {
                return;
            }
        }
    }

    /// Works off what is due. Returns the time until the next step.
    fn work_off(&mut self) -> Result<Option<Duration>, Error> {
        self.file_schedules.define(&self.shared)?;
        let step = self.shared.queue.work_off_due(self.shared.max_crashes)?;
        let metrics = &self.shared.metrics;
        step.expired.iter().for_each(|(job_type, status)| metrics.expired(job_type, *status));
        step.lost.iter().for_each(|job| leases::record_lost(&self.shared, job));
        for attempt in &step.timed_out {
            leases::time_out(&self.shared, &self.handlers, *attempt)?;
        }
        if step.ticks.is_empty() && step.timed_out.is_empty() {
            return Ok(step.next);
        }
        self.file_schedules.fire(&self.shared, &step.ticks, step.now_ms)?;
        // The words of these ticks and attempts have a new time.
        Ok(Some(Duration::ZERO))
    }
}
