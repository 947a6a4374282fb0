//! What ends the attempts of pull workers besides their answers: the end of the lease, and the timeout.

use std::time::Duration;

use crate::engine::outcomes::record_outcome;
use crate::engine::shared::Shared;
use crate::engine::verdict::verdict_of;
use crate::handler::{Handlers, StopReason};
use crate::job::{AttemptId, Failure};
use crate::logging::job_fields::{JobFields, log_job};
use crate::queue::{Answered, CrashedJob, Error, Settled};

/// Records in the log and the metrics that a pull worker has let the lease of a job run out.
pub fn record_lost(shared: &Shared, job: &CrashedJob) {
    let fields = JobFields::job(job.id).with_attempt(&job.job_type, job.attempt);
    shared.metrics.lease_lost();
    if job.has_failed {
        log_job!(error, fields, "failed for good: its worker let the lease run out {} times", job.crashes);
        shared.metrics.failed(&job.job_type);
    } else {
        let limit = shared.max_crashes;
        log_job!(warn, fields, "its worker let the lease run out: crash {} of {limit}", job.crashes);
    }
}

/// Fails the attempt of a pull worker whose timeout is over, by the policy of its type on this server.
pub fn time_out(shared: &Shared, handlers: &Handlers, attempt: AttemptId) -> Result<(), Error> {
    let Some(job) = shared.queue.get(attempt.job)? else { return Ok(()) };
    let outcome = Err(Failure::retryable(StopReason::TimedOut.to_string()));
    let policy = handlers.policy(&job.job_type);
    let verdict = verdict_of(&job, &policy, Some(StopReason::TimedOut), outcome, fastrand::f64());
    let answered = shared.queue.time_out(attempt, verdict.clone())?;
    let Answered::Now { status, has_expired, job_type, run_ms } = answered else { return Ok(()) };
    shared.metrics.ran(&job_type, Duration::from_millis(run_ms));
    let settled = if has_expired { Settled::Expired(status) } else { Settled::Now(status) };
    record_outcome(&shared.metrics, &shared.due_timer, JobFields::attempt(&job), &verdict, settled);
    Ok(())
}
