//! The watchdog: stops attempts that exceed their timeout, and replaces threads whose handlers ignore the stop signal.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::engine::in_flight::{Abandoned, STOP_GRACE};
use crate::engine::outcomes::Ended;
use crate::engine::shared::Shared;
use crate::engine::verdict::verdict_of;
use crate::handler::Handlers;
use crate::job::Failure;
use crate::logging::job_fields::{JobFields, log_job};
use crate::queue::Settlement;

/// The most abandoned threads that are replaced: each abandoned thread keeps its stack until its handler returns.
const MAX_REPLACED: usize = 512;
/// The time between attempts to start a thread when the system refuses new threads.
const SPAWN_RETRY_INTERVAL: Duration = Duration::from_secs(1);

pub struct Watchdog {
    pub shared: Shared,
    pub handlers: Arc<Handlers>,
    pub committer: Sender<Ended>,
    /// Starts the worker thread with this number.
    pub spawn_worker: Box<dyn Fn(usize) -> io::Result<()> + Send>,
}

impl Watchdog {
    /// Runs until the server takes no more jobs and none is running.
    pub fn run(self) {
        let mut replacements = Replacements::default();
        while let Some(abandoned) = self.shared.in_flight.watch_deadlines(replacements.retry_interval()) {
            for attempt in abandoned {
                self.abandon(attempt);
                replacements.request();
            }
            replacements.spawn(&self);
        }
    }

    fn abandon(&self, Abandoned { lease, job, reason, time }: Abandoned) {
        self.shared.metrics.ran(&job.job_type, time);
        log_job!(
            error,
            JobFields::attempt(&job),
            "handler ignored the stop signal for {} s; its thread is abandoned",
            STOP_GRACE.as_secs_f64()
        );
        let policy = self.handlers.policy(&job.job_type);
        let failure = Err(Failure::retryable(reason.to_string()));
        let verdict = verdict_of(&job, &policy, Some(reason), failure, fastrand::f64());
        // The committer ends after the watchdog, so the channel is open.
        let _ = self.committer.send(Settlement { lease, verdict }.into());
        self.shared.in_flight.change_workers(-1);
    }
}

/// The worker threads to start in place of abandoned ones.
#[derive(Default)]
struct Replacements {
    abandoned: usize,
    /// Abandoned threads that are not replaced yet.
    pending: usize,
    /// Whether the last attempt to start a thread failed. Only the first failure is logged.
    is_refused: bool,
}

impl Replacements {
    fn request(&mut self) {
        self.abandoned += 1;
        if self.abandoned > MAX_REPLACED {
            log::error!(
                "{} worker threads hang in their handlers; {MAX_REPLACED} were replaced, and the server replaces no more: \
                 restart the server",
                self.abandoned
            );
        } else {
            self.pending += 1;
        }
    }

    /// The time until the next attempt to start a thread. `None` when no thread is to be started.
    fn retry_interval(&self) -> Option<Duration> {
        (self.pending > 0).then_some(SPAWN_RETRY_INTERVAL)
    }

    /// Starts as many of the pending threads as the system allows.
    fn spawn(&mut self, watchdog: &Watchdog) {
        let in_flight = &watchdog.shared.in_flight;
        while self.pending > 0 {
            if let Err(error) = (watchdog.spawn_worker)(in_flight.workers() + self.abandoned) {
                if !self.is_refused {
                    log::error!("cannot replace a worker thread, trying again every second: {error}");
                }
                self.is_refused = true;
                return;
            }
            self.is_refused = false;
            self.pending -= 1;
            in_flight.change_workers(1);
        }
    }
}
