//! The committer: stores the outcomes of attempts in Redis, in groups.
//!
//! Outcomes wait here during an outage of Redis. Their number is bounded: each one belongs to an in-flight job, which
//! stays in flight until its outcome is stored, and the fetchers take no more jobs than the capacity allows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::engine::outcomes::{Ended, record_outcome};
use crate::engine::reports::{Reports, report_bytes};
use crate::engine::shared::Shared;
use crate::engine::shutdown::Shutdown;
use crate::job::Status;
use crate::logging::job_fields::{JobFields, log_job};
use crate::queue::{Error, Settled, Settlement, Verdict};

/// The most outcomes in one round trip.
const GROUP_OUTCOMES: usize = 128;
/// The bytes of results after which a group takes no further outcome.
const GROUP_BYTES: usize = 1 << 20;
/// The time between attempts during an outage of Redis.
const OUTAGE_RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// How long a stopping server keeps trying to store outcomes during an outage, after its drain has ended. A job whose
/// outcome is not stored is reclaimed by another server, as after a crash.
const LAST_TRIES: Duration = Duration::from_secs(3);

pub struct Committer {
    pub shared: Shared,
    /// From workers, watchdog and fetchers. Has room for the settlement of each in-flight job, so no sender waits.
    pub settlements: Receiver<Ended>,
    /// Writes the last reports of attempts.
    pub reports: Arc<Reports>,
    /// The number of jobs that returned to their queues without an outcome.
    pub released: Arc<AtomicUsize>,
    /// The signal that the drain of a stopping server has ended. It limits the time of further attempts.
    pub drained: Shutdown,
    /// The signal that the heartbeat ends: then nothing can be stored under this server's id any more.
    pub end: Shutdown,
}

impl Committer {
    /// Runs until all threads that send settlements have ended.
    pub fn run(&self) {
        let mut give_up_at = None;
        while let Ok(first) = self.settlements.recv() {
            let (mut group, mut reports, mut bytes) = (Vec::new(), Vec::new(), 0);
            let mut add = |Ended { settlement, report }: Ended| {
                bytes += size(&settlement) + report.as_ref().map_or(0, |report| report_bytes(&report.report));
                group.push(settlement);
                reports.extend(report);
                group.len() < GROUP_OUTCOMES && bytes < GROUP_BYTES
            };
            let mut has_room = add(first);
            while has_room {
                let Ok(next) = self.settlements.try_recv() else { break };
                has_room = add(next);
            }
            while !self.reports.write(&reports) && self.waits_for_redis(&mut give_up_at) {}
            let answers = self.store(&group, &mut give_up_at);
            // Before the jobs are removed: a stopping server reads the count as soon as nothing is in flight.
            self.count_released(&group, &answers);
            let ids = group.iter().map(|settlement| settlement.lease.attempt_id());
            let jobs = self.shared.in_flight.remove(ids);
            for ((settlement, job), settled) in group.iter().zip(jobs).zip(answers) {
                if let (Some(job), Some(settled)) = (job, settled) {
                    let Shared { metrics, due_timer, .. } = &self.shared;
                    let fields = JobFields::attempt(&job);
                    record_outcome(metrics, due_timer, fields, &settlement.verdict, settled);
                }
            }
        }
    }

    fn count_released(&self, group: &[Settlement], answers: &[Option<Settled>]) {
        let is_released = |(settlement, settled): &(&Settlement, &Option<Settled>)| {
            matches!(settlement.verdict, Verdict::Release)
                && matches!(settled, Some(Settled::Now(Status::Queued) | Settled::Repeated))
        };
        let number = group.iter().zip(answers).filter(is_released).count();
        self.released.fetch_add(number, Ordering::Relaxed);
    }

    /// Stores a group, and repeats the call during an outage. `None` for each outcome that could not be stored.
    fn store(&self, group: &[Settlement], give_up_at: &mut Option<Instant>) -> Vec<Option<Settled>> {
        loop {
            match self.shared.queue.settle(&self.shared.server(), group) {
                Ok(step) => {
                    step.next_look.into_iter().for_each(|time| self.shared.due_timer.due_in(time));
                    return step.results.into_iter().map(Some).collect();
                }
                Err(Error::Protocol(reason)) if group.len() == 1 => {
                    // The job stays in this server's list, where the reaper finds it and returns it to its queue.
                    let fields = JobFields::job(group[0].lease.id());
                    log_job!(error, fields, "cannot store the outcome: {reason}");
                    return vec![None];
                }
                // An outcome that Redis cannot store must not block the others of its group.
                Err(Error::Protocol(_)) => {
                    return group.chunks(1).flat_map(|one| self.store(one, give_up_at)).collect();
                }
                Err(_) if self.waits_for_redis(give_up_at) => {}
                Err(_) => {
                    group.iter().for_each(|settlement| self.log_not_written(settlement));
                    return group.iter().map(|_| None).collect();
                }
            }
        }
    }

    /// Waits before the next attempt during an outage. `false` if the server ends and makes no further attempt.
    fn waits_for_redis(&self, give_up_at: &mut Option<Instant>) -> bool {
        if !self.drained.wait(OUTAGE_RETRY_INTERVAL) {
            return true;
        }
        let until = *give_up_at.get_or_insert_with(|| Instant::now() + LAST_TRIES);
        Instant::now() < until && !self.end.wait(OUTAGE_RETRY_INTERVAL)
    }

    /// Logs an outcome that this server could not store before its end: no other server can know the outcome.
    fn log_not_written(&self, settlement: &Settlement) {
        let Some(job) = self.shared.in_flight.job(settlement.lease.attempt_id()) else { return };
        let fields = JobFields::attempt(&job);
        match &settlement.verdict {
            Verdict::Complete(_) => log_job!(warn, fields, "completed, not written"),
            Verdict::Retry { error, .. } => log_job!(warn, fields, "failed, not written: {error}"),
            Verdict::Fail(error) => log_job!(error, fields, "failed for good, not written: {error}"),
            Verdict::Snooze(_) => log_job!(warn, fields, "snoozed, not written"),
            Verdict::Release => log_job!(warn, fields, "stopped before its end, not written"),
        }
    }
}

/// The bytes that a settlement sends, without a constant part.
fn size(settlement: &Settlement) -> usize {
    match &settlement.verdict {
        Verdict::Complete(result) => result.get().len(),
        Verdict::Retry { error, .. } | Verdict::Fail(error) => error.len(),
        Verdict::Snooze(_) | Verdict::Release => 0,
    }
}
