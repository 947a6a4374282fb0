//! What the outcome of an attempt means for its job: completed, retried, failed or released.

use crate::handler::results::{bounded, message_with_end};
use crate::handler::{Policy, StopReason};
use crate::job::{Failure, Job, Outcome};
use crate::queue::Verdict;

/// The verdict on an attempt that ended with `outcome`. `stop` is the reason of the stop signal, if the attempt got one;
/// `random` is from 0 to 1 and spreads the backoff.
pub fn verdict_of(
    job: &Job,
    policy: &Policy,
    stop: Option<StopReason>,
    outcome: Outcome,
    random: f64,
) -> Verdict {
    let failure = match (outcome, stop) {
        // A handler that completed its job although it was asked to stop has done the work.
        (Ok(result), _) => return Verdict::Complete(bounded(result)),
        (Err(Failure::Snooze(time)), Some(StopReason::Shutdown)) => return Verdict::Snooze(time),
        (Err(_), Some(StopReason::Cancelled | StopReason::Shutdown | StopReason::Reclaimed)) => {
            return Verdict::Release;
        }
        (Err(failure), Some(reason @ (StopReason::TimedOut | StopReason::Silent(_)))) => {
            Failure::retryable(stop_message(reason, &failure))
        }
        (Err(failure), None) => failure,
    };
    match failure {
        Failure::Snooze(time) => Verdict::Snooze(time),
        Failure::Permanent { message } => Verdict::Fail(message),
        // The last attempt too closes the rates of the job's limits; the settlement makes a dead letter of the job.
        Failure::Retryable { message, retry_after }
            if job.attempts + 1 >= job.max_attempts && (retry_after.is_none() || job.limits.is_empty()) =>
        {
            Verdict::Fail(message)
        }
        Failure::Retryable { message, retry_after } => {
            let backoff = policy.backoff.delay(job.attempts + 1, random);
            let delay = backoff.max(retry_after.unwrap_or_default());
            Verdict::Retry { error: message, delay, throttle: retry_after }
        }
    }
}

/// The error of an attempt that timed out or was silent for too long, with the handler's own last message.
fn stop_message(reason: StopReason, failure: &Failure) -> String {
    let reason = reason.to_string();
    match failure.message() {
        message if message.starts_with(&reason) => message.to_owned(),
        message => message_with_end(&reason, message.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::value::RawValue;

    use super::*;
    use crate::handler::testing::job;
    use crate::job::backoff::Backoff;

    /// Policy and random number with which the backoff of the first failure is its ceiling, 2 s.
    fn verdict(attempts: u32, stop: Option<StopReason>, outcome: Outcome) -> String {
        let job = Job { attempts, max_attempts: 3, ..job("{}") };
        let backoff = Backoff { base: Duration::from_secs(2), cap: Duration::from_secs(2) };
        let policy = Policy { backoff, ..Policy::default() };
        match verdict_of(&job, &policy, stop, outcome, 1.0) {
            Verdict::Complete(result) => format!("complete {result}"),
            Verdict::Retry { error, delay, throttle } => {
                let throttle =
                    throttle.map_or(String::new(), |time| format!(", closed for {} s", time.as_secs()));
                format!("retry after {} s{throttle}: {error}", delay.as_secs())
            }
            Verdict::Fail(error) => format!("fail: {error}"),
            Verdict::Snooze(time) => format!("snooze {} s", time.as_secs()),
            Verdict::Release => "release".to_owned(),
        }
    }

    #[test]
    fn the_last_attempt_of_a_job_with_limits_closes_their_rates() {
        let late =
            || Failure::Retryable { message: "busy".into(), retry_after: Some(Duration::from_secs(9)) };
        let limits = vec![crate::job::limit::LimitName::of_type("a")];
        let job = Job { attempts: 2, max_attempts: 3, limits, ..job("{}") };
        let verdict = |failure| verdict_of(&job, &Policy::default(), None, Err(failure), 1.0);
        assert!(
            matches!(verdict(late()), Verdict::Retry { throttle: Some(time), .. } if time == Duration::from_secs(9))
        );
        assert!(matches!(verdict(Failure::retryable("no")), Verdict::Fail(_)));
    }

    #[test]
    fn the_verdict_follows_from_outcome_stop_reason_and_attempts() {
        let done = || Ok(RawValue::from_string("1".to_owned()).unwrap());
        let broken = || Err(Failure::retryable("broken"));
        let late =
            || Err(Failure::Retryable { message: "busy".into(), retry_after: Some(Duration::from_secs(9)) });
        let early =
            || Err(Failure::Retryable { message: "busy".into(), retry_after: Some(Duration::from_secs(1)) });
        let hopeless = || Err(Failure::permanent("hopeless"));
        let snoozed = || Err(Failure::snooze(Duration::from_secs(9)));
        use StopReason::{Cancelled, Reclaimed, Shutdown, Silent, TimedOut};
        for (attempts, stop, outcome, expected) in [
            (0, None, done(), "complete 1"),
            (0, Some(Cancelled), done(), "complete 1"),
            (0, Some(TimedOut), done(), "complete 1"),
            (0, None, broken(), "retry after 2 s: broken"),
            (1, None, broken(), "retry after 2 s: broken"),
            (2, None, broken(), "fail: broken"),
            (0, None, late(), "retry after 9 s, closed for 9 s: busy"),
            (0, None, early(), "retry after 2 s, closed for 1 s: busy"),
            (0, None, hopeless(), "fail: hopeless"),
            (0, Some(Cancelled), broken(), "release"),
            (0, Some(Shutdown), hopeless(), "release"),
            (2, Some(Reclaimed), broken(), "release"),
            (0, Some(TimedOut), broken(), "retry after 2 s: timed out: broken"),
            // A timeout is the server's doing, so the handler cannot make it permanent.
            (0, Some(TimedOut), hopeless(), "retry after 2 s: timed out: hopeless"),
            (
                0,
                Some(TimedOut),
                Err(Failure::retryable("timed out: so far")),
                "retry after 2 s: timed out: so far",
            ),
            (2, Some(TimedOut), broken(), "fail: timed out: broken"),
            (0, Some(Silent(Duration::from_secs(60))), done(), "complete 1"),
            (
                0,
                Some(Silent(Duration::from_secs(60))),
                hopeless(),
                "retry after 2 s: silent for 60s: hopeless",
            ),
            (2, None, snoozed(), "snooze 9 s"),
            (2, Some(Shutdown), snoozed(), "snooze 9 s"),
            (2, Some(Cancelled), snoozed(), "release"),
            (0, Some(TimedOut), snoozed(), "retry after 2 s: timed out: snoozed"),
        ] {
            assert_eq!(verdict(attempts, stop, outcome), expected, "{attempts} {stop:?}");
        }
    }
}
