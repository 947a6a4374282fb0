//! Workers: each thread runs one job at a time.
//!
//! A worker receives a job, runs the handler with its panics caught, and sends the verdict to the committer. So a worker
//! never waits for Redis, except to retry a job with a short backoff on the same thread, and until the reporter has written
//! a report of the attempt that it is writing already. If a handler does not return, the watchdog abandons and replaces the
//! thread; the abandoned thread ends if the handler returns later.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::engine::assignments::Seat;
use crate::engine::outcomes::Ended;
use crate::engine::panics;
use crate::engine::reports::ToReporter;
use crate::engine::shared::Shared;
use crate::engine::shutdown::Shutdown;
use crate::engine::verdict::verdict_of;
use crate::handler::{Handlers, JobContext, ReportedSoFar, StopSignal};
use crate::job::{Failure, Job, Outcome, Status};
use crate::logging::job_fields::{JobFields, log_job};
use crate::queue::{AttemptReport, Lease, Settled, Settlement, Verdict};

/// What all workers share.
pub struct Workers {
    pub shared: Shared,
    pub committer: Sender<Ended>,
    pub to_reporter: Arc<ToReporter>,
    pub handlers: Arc<Handlers>,
    /// The longest backoff that a worker sleeps on its own thread: the setting `inline-backoff`.
    pub inline_backoff: Duration,
    /// Ends these sleeps when the server stops.
    pub shutdown: Shutdown,
}

impl Workers {
    /// Starts the thread `worker-<number>`, which ends when taking has ended.
    pub fn spawn(self: &Arc<Self>, number: usize) -> io::Result<JoinHandle<()>> {
        let workers = self.clone();
        Builder::new().name(format!("worker-{number}")).spawn(move || workers.run())
    }

    fn run(&self) {
        panics::mark_worker_thread();
        let seat = Arc::new(Seat::default());
        while let Some((job, stop)) = self.shared.in_flight.next(&seat) {
            if !self.work(job, &stop) {
                return;
            }
        }
    }

    /// Runs attempts at a job until the job is settled, or waits in Redis for its next attempt. `false` if the watchdog has
    /// replaced this thread meanwhile.
    fn work(&self, mut job: Arc<Job>, stop: &StopSignal) -> bool {
        let Shared { queue, in_flight, metrics, .. } = &self.shared;
        let policy = self.handlers.policy(&job.job_type);
        loop {
            let timeout = Duration::from_millis(job.timeout_ms);
            if !in_flight.start(job.attempt_id(), timeout, policy.silence) {
                self.release(&job);
                return true;
            }
            let started = Instant::now();
            let (outcome, reported) = self.attempt(&job, stop);
            let verdict = verdict_of(&job, &policy, stop.reason(), outcome, fastrand::f64());
            let inline_retry = match &verdict {
                // Each attempt of a job with limits is a start that the limits count.
                Verdict::Retry { error, delay, .. }
                    if *delay <= self.inline_backoff && stop.reason().is_none() && job.limits.is_empty() =>
                {
                    Some((error.as_str(), *delay))
                }
                _ => None,
            };
            let Some(mut lease) = in_flight.finish(job.attempt_id(), inline_retry.is_some()) else {
                log_job!(
                    info,
                    JobFields::attempt(&job),
                    "handler returned after its thread was abandoned; outcome discarded"
                );
                return false;
            };
            metrics.ran(&job.job_type, started.elapsed());
            let report = if reported.any { self.to_reporter.reports.take(job.attempt_id()) } else { None };
            let Some((error, delay)) = inline_retry else {
                self.settle(lease, verdict, report);
                return true;
            };
            if !self.to_reporter.reports.write(report.as_slice()) {
                in_flight.free_worker(job.attempt_id());
                self.settle(lease, verdict, report);
                return true;
            }
            match self.retry_inline(&mut lease, &job, error, delay) {
                Some(Settled::Now(Status::Processing)) => {
                    let mut next = Job::clone(&job);
                    next.checkpoint = reported.checkpoint.or(next.checkpoint);
                    // Another process may have stored a checkpoint with the token of the attempt.
                    if reported.has_token
                        && let Ok(Some(stored)) = queue.get(job.id)
                    {
                        next.checkpoint = stored.checkpoint;
                    }
                    next.attempts += 1;
                    next.starts += 1;
                    let ended = job.attempt_id();
                    job = Arc::new(next);
                    in_flight.restart(ended, lease, &job);
                    self.shutdown.wait(delay);
                    if queue.is_paused(&job.queue).unwrap_or(false) {
                        self.release(&job);
                        return true;
                    }
                }
                Some(_) => {
                    in_flight.remove([job.attempt_id()]);
                    return true;
                }
                None => {
                    in_flight.free_worker(job.attempt_id());
                    self.settle(lease, verdict, None);
                    return true;
                }
            }
        }
    }

    /// Runs the handler. Returns the outcome, and what the attempt has reported meanwhile.
    fn attempt(&self, job: &Arc<Job>, stop: &StopSignal) -> (Outcome, ReportedSoFar) {
        let Some(handler) = self.handlers.get(&job.job_type) else {
            let mut reason = format!("no handler for type \"{}\"", job.job_type);
            if self.handlers.knows(&job.job_type) {
                reason += "; only pull workers run its jobs, so no server may have their queue in `queues`";
            }
            return (Err(Failure::retryable(reason)), ReportedSoFar::default());
        };
        let context = JobContext::on_server(job.clone(), stop.clone(), self.to_reporter.clone());
        let outcome = panics::catch(job, || handler.handle(&context)).unwrap_or_else(|message| {
            self.shared.metrics.panicked(&job.job_type);
            Err(Failure::retryable(message))
        });
        (outcome, context.reported())
    }

    /// Stores the failed attempt and starts the next one under the same lease, so that no other server can take the job
    /// during the backoff. `None` if Redis is unreachable.
    fn retry_inline(&self, lease: &mut Lease, job: &Job, error: &str, delay: Duration) -> Option<Settled> {
        let Shared { queue, metrics, .. } = &self.shared;
        let settled = queue.retry_inline(&self.shared.server(), lease, error, delay).ok()?;
        let fields = JobFields::attempt(job);
        match settled {
            Settled::Now(Status::Processing) => {
                metrics.retried(&job.job_type);
                log_job!(
                    warn,
                    fields,
                    "failed; same worker retries in {:.1} s: {error}",
                    delay.as_secs_f64()
                );
            }
            Settled::Now(Status::Retrying) => {
                metrics.retried(&job.job_type);
                log_job!(warn, fields, "failed; retry when its queue is resumed: {error}");
            }
            Settled::Expired(status) => {
                metrics.expired(&job.job_type, status);
                log_job!(error, fields, "failed for good, the job expires before its next attempt: {error}");
            }
            Settled::Now(status) => log_job!(info, fields, "failed; its status is {status} now: {error}"),
            Settled::Stale | Settled::Repeated => {
                log_job!(warn, fields, "failed; the job was reclaimed by another server: {error}")
            }
        }
        Some(settled)
    }

    /// Returns a job that was not started to its queue, unless the watchdog has settled it already.
    fn release(&self, job: &Job) {
        if let Some(lease) = self.shared.in_flight.finish(job.attempt_id(), false) {
            self.settle(lease, Verdict::Release, None);
        }
    }

    fn settle(&self, lease: Lease, verdict: Verdict, report: Option<AttemptReport>) {
        // The committer ends after the workers, so the channel is open.
        let _ = self.committer.send(Ended { settlement: Settlement { lease, verdict }, report });
    }
}
