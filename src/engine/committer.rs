//! The committer: writes outcomes to Redis, as many at a time as have come together.
//!
//! It is also where outcomes wait while Redis is away. That is bounded: each outcome is of a job in hand, a job stays in
//! hand until its outcome is written, and no more are taken than there is room for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::engine::in_flight::InFlight;
use crate::engine::membership::Membership;
use crate::engine::metrics::Metrics;
use crate::engine::scheduler::Scheduler;
use crate::engine::shutdown::Shutdown;
use crate::job::{Job, Status};
use crate::logging::job_fields::{JobFields, log_job};
use crate::queue::{Error, Queue, Settled, Settlement, Verdict};

/// The most outcomes that are written in one step.
const GROUP: usize = 128;
/// The most bytes of results that are written in one step, about.
const GROUP_BYTES: usize = 1 << 20;
/// Between tries while Redis is away.
const AWAY_PAUSE: Duration = Duration::from_millis(250);
/// How long outcomes are still tried to be written at the end of the program; what is not comes back as a crash does.
const LAST_TRIES: Duration = Duration::from_secs(3);

/// Everything the committer needs.
pub struct Committer {
    /// Verdicts, from the workers.
    pub outcomes: Receiver<Settlement>,
    /// Where they are written.
    pub queue: Arc<Queue>,
    /// Under which name.
    pub membership: Arc<Membership>,
    /// What is in hand until they are written.
    pub in_flight: Arc<InFlight>,
    /// Learns when a parked job is due.
    pub scheduler: Scheduler,
    /// Counts them.
    pub metrics: Arc<Metrics>,
    /// How many jobs went back to their queues because they were not run, or not to their end.
    pub given_back: Arc<AtomicUsize>,
    /// Limits the waiting for a Redis that is away.
    pub shutdown: Shutdown,
    /// Ends it.
    pub end: Shutdown,
}

impl Committer {
    /// Writes until the last worker has gone.
    pub fn run(&self) {
        while let Ok(first) = self.outcomes.recv() {
            let mut bytes = size(&first);
            let mut group = vec![first];
            while group.len() < GROUP && bytes < GROUP_BYTES {
                let Ok(next) = self.outcomes.try_recv() else { break };
                bytes += size(&next);
                group.push(next);
            }
            let answers = self.write(&group);
            self.count_given_back(&group, &answers);
            let jobs = self.in_flight.remove(group.iter().map(|settlement| settlement.lease.attempt_id()));
            for ((settlement, job), settled) in group.iter().zip(jobs).zip(answers) {
                if let (Some(job), Some(settled)) = (job, settled) {
                    self.note(&job, &settlement.verdict, settled);
                }
            }
        }
    }

    /// Before they are removed from those in hand: a stop that finds nothing in hand reads the number.
    fn count_given_back(&self, group: &[Settlement], answers: &[Option<Settled>]) {
        let went_back = |(settlement, settled): &(&Settlement, &Option<Settled>)| {
            matches!(settlement.verdict, Verdict::Release)
                && matches!(settled, Some(Settled::Now(Status::Queued) | Settled::Repeated))
        };
        let number = group.iter().zip(answers).filter(went_back).count();
        self.given_back.fetch_add(number, Ordering::Relaxed);
    }

    /// Writes a group, however long Redis is away; `None` for what could not be written.
    fn write(&self, group: &[Settlement]) -> Vec<Option<Settled>> {
        let mut last_tries = None;
        loop {
            match self.queue.settle(&self.membership.current(), group) {
                Ok(answers) => return answers.into_iter().map(Some).collect(),
                Err(Error::Protocol(reason)) if group.len() == 1 => {
                    // It stays in progress; the heartbeat finds it there and puts it back.
                    log_job!(error, JobFields::job(group[0].lease.id()), "cannot be settled: {reason}");
                    return vec![None];
                }
                // One that cannot be written must not keep the others from it.
                Err(Error::Protocol(_)) => return group.chunks(1).flat_map(|one| self.write(one)).collect(),
                Err(_) => {
                    if self.shutdown.wait(AWAY_PAUSE) {
                        let until = *last_tries.get_or_insert(Instant::now() + LAST_TRIES);
                        if Instant::now() > until || self.end.wait(AWAY_PAUSE) {
                            return group.iter().map(|_| None).collect();
                        }
                    }
                }
            }
        }
    }

    /// Tells the log, the metrics and the scheduler what became of a job. One that was settled before was so by this same
    /// verdict, and nobody has heard of it: the answer was lost.
    fn note(&self, job: &Job, verdict: &Verdict, settled: Settled) {
        let job_type = &job.job_type;
        let about = JobFields::attempt(job);
        match (settled, verdict) {
            (Settled::Now(Status::Completed) | Settled::Repeated, Verdict::Complete(_)) => {
                self.metrics.completed(job_type)
            }
            (Settled::Now(Status::Retrying) | Settled::Repeated, Verdict::Retry(error, delay)) => {
                let seconds = delay.as_secs_f64();
                log_job!(warn, about, "failed, again in {seconds:.1} s: {error}");
                self.metrics.retried(job_type);
                self.scheduler.due_in(*delay);
            }
            (Settled::Now(Status::Failed), Verdict::Retry(error, _))
            | (Settled::Now(Status::Failed) | Settled::Repeated, Verdict::Fail(error)) => {
                log_job!(error, about, "failed for good: {error}");
                self.metrics.failed(job_type);
            }
            (Settled::Now(Status::Cancelled), Verdict::Retry(error, _) | Verdict::Fail(error)) => {
                log_job!(info, about, "cancelled; it had failed: {error}");
            }
            (Settled::Now(Status::Cancelled), _) => log_job!(info, about, "cancelled"),
            (Settled::Stale, Verdict::Retry(error, _) | Verdict::Fail(error)) => {
                log_job!(warn, about, "its outcome came too late, it was taken over; it had failed: {error}");
            }
            (Settled::Stale, _) => log_job!(warn, about, "its outcome came too late, it was taken over"),
            _ => {}
        }
    }
}

/// How many bytes a settlement sends, about.
fn size(settlement: &Settlement) -> usize {
    match &settlement.verdict {
        Verdict::Complete(result) => result.get().len(),
        Verdict::Retry(error, _) | Verdict::Fail(error) => error.len(),
        Verdict::Release => 0,
    }
}
