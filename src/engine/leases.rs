//! What ends the attempts of pull workers besides their answers: the end of the lease, and the timeout.

use crate::engine::shared::Shared;
use crate::engine::verdict::verdict_of;
use crate::handler::{Handlers, StopReason};
use crate::job::{AttemptId, Failure};
use crate::logging::job_fields::{JobFields, log_job};
use crate::queue::{Answered, CrashedJob, Error, Verdict};

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
    let (error, delay) = match &verdict {
        Verdict::Retry { error, delay, .. } => (error.clone(), Some(*delay)),
        Verdict::Fail(error) => (error.clone(), None),
        _ => return Ok(()),
    };
    let Answered::Now { status, has_expired, .. } = shared.queue.time_out(attempt, verdict)? else {
        return Ok(());
    };
    let fields = JobFields::attempt(&job);
    if has_expired {
        log_job!(error, fields, "failed for good, the job expires before its next attempt: {error}");
        shared.metrics.expired(&job.job_type, status);
    } else if let Some(delay) = delay.filter(|_| status == crate::job::Status::Retrying) {
        log_job!(warn, fields, "failed; retry in {:.1} s: {error}", delay.as_secs_f64());
        shared.metrics.retried(&job.job_type);
        shared.due_timer.due_in(delay);
    } else {
        log_job!(error, fields, "failed for good: {error}");
        shared.metrics.failed(&job.job_type);
    }
    Ok(())
}
