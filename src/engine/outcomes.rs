//! Outcomes on their way to Redis, and the records of stored ones, for the committer and for the answers of pull workers.

use crate::engine::due_timer::DueTimer;
use crate::engine::metrics::Metrics;
use crate::job::Status;
use crate::logging::job_fields::{JobFields, log_job};
use crate::queue::{AttemptReport, Settled, Settlement, Verdict};

/// An attempt that has ended on this server.
pub struct Ended {
    pub settlement: Settlement,
    /// What the attempt has reported last. It is written before the settlement.
    pub report: Option<AttemptReport>,
}

impl From<Settlement> for Ended {
    /// The end of an attempt that has reported nothing.
    fn from(settlement: Settlement) -> Ended {
        Ended { settlement, report: None }
    }
}

/// Records a stored outcome in the log, the metrics and the timer of the scheduler. [`Settled::Repeated`] means
/// that an earlier request with this verdict was executed and its reply was lost, so nothing was recorded yet.
pub fn record_outcome(
    metrics: &Metrics,
    due_timer: &DueTimer,
    fields: JobFields,
    verdict: &Verdict,
    settled: Settled,
) {
    let job_type = fields.job_type.unwrap_or_default();
    match (settled, verdict) {
        (Settled::Now(Status::Completed) | Settled::Repeated, Verdict::Complete(_)) => {
            metrics.completed(job_type)
        }
        (Settled::Now(Status::Retrying) | Settled::Repeated, Verdict::Retry { error, delay, .. }) => {
            log_job!(warn, fields, "failed; retry in {:.1} s: {error}", delay.as_secs_f64());
            metrics.retried(job_type);
            due_timer.due_in(*delay);
        }
        (Settled::Now(Status::Scheduled) | Settled::Repeated, Verdict::Snooze(time)) => {
            log_job!(info, fields, "snoozed for {} s", time.as_secs());
            metrics.snoozed(job_type);
            due_timer.due_in(*time);
        }
        (Settled::Expired(status), verdict) => {
            metrics.expired(job_type, status);
            match verdict {
                Verdict::Retry { error, .. } => {
                    log_job!(
                        error,
                        fields,
                        "failed for good, the job expires before its next attempt: {error}"
                    );
                }
                _ => log_job!(info, fields, "{status}, the job expires before the end of its snooze"),
            }
        }
        (Settled::Now(Status::Failed), Verdict::Retry { error, .. })
        | (Settled::Now(Status::Failed) | Settled::Repeated, Verdict::Fail(error)) => {
            log_job!(error, fields, "failed for good: {error}");
            metrics.failed(job_type);
        }
        (Settled::Now(Status::Cancelled), Verdict::Retry { error, .. } | Verdict::Fail(error)) => {
            log_job!(info, fields, "cancelled; the attempt failed: {error}");
        }
        (Settled::Now(Status::Cancelled), _) => log_job!(info, fields, "cancelled"),
        (Settled::Stale, Verdict::Retry { error, .. } | Verdict::Fail(error)) => {
            log_job!(
                warn,
                fields,
                "outcome discarded, the job was reclaimed or deleted meanwhile; the attempt failed: {error}"
            );
        }
        (Settled::Stale, _) => {
            log_job!(warn, fields, "outcome discarded, the job was reclaimed or deleted meanwhile");
        }
        _ => {}
    }
}
