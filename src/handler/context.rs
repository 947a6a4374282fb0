//! One attempt at a job, as its handler sees it: the job, the stop signal, and the reports of the attempt.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};

use super::stop::{StopReason, StopSignal};
use crate::job::json::{MAX_DEPTH, depth_exceeds};
use crate::job::report::{MAX_CHECKPOINT_BYTES, checked_progress};
use crate::job::{AttemptId, Failure, Job, Report};
use crate::sync;

/// What a server does for its running attempts.
pub(crate) trait Attempts: Send + Sync {
    /// Stores what an attempt has reported, soon and before the outcome of the attempt.
    fn report(&self, attempt: AttemptId, report: Report);

    /// The token by which other processes speak for the attempt. `None` if Redis cannot be asked for the secret.
    fn token(&self, attempt: AttemptId) -> Option<String>;

    /// Stops the clocks of an attempt that waits for its program, or starts them anew when it waits no more.
    fn set_waiting(&self, _: AttemptId, _waits: bool) {}
}

/// An attempt without a server.
struct NoServer;

impl Attempts for NoServer {
    fn report(&self, _: AttemptId, _: Report) {}

    fn token(&self, _: AttemptId) -> Option<String> {
        None
    }
}

/// One attempt at a job, as its handler sees it.
pub struct JobContext {
    job: Arc<Job>,
    pub(super) stop: StopSignal,
    deadline: Instant,
    attempts: Arc<dyn Attempts>,
    reported: Mutex<ReportedSoFar>,
}

/// The clocks of an attempt that waits for its program. Dropping it starts them anew.
pub(super) struct StoppedClocks<'a>(&'a JobContext);

impl Drop for StoppedClocks<'_> {
    fn drop(&mut self) {
        self.0.attempts.set_waiting(self.0.job.attempt_id(), false);
    }
}

/// What the attempt has reported so far.
#[derive(Clone, Default)]
pub(crate) struct ReportedSoFar {
    /// Whether there was a report at all.
    pub any: bool,
    /// The latest checkpoint.
    pub checkpoint: Option<Box<RawValue>>,
    /// Whether another process may report with the token of the attempt.
    pub has_token: bool,
}

impl fmt::Debug for JobContext {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("JobContext").field("job", &self.job).field("stop", &self.stop).finish_non_exhaustive()
    }
}

impl JobContext {
    /// An attempt that starts now. `job.attempts` is the number of attempts before it. Its reports are dropped, since no
    /// server runs it: this is for tests of handlers.
    pub fn new(job: impl Into<Arc<Job>>, stop: StopSignal) -> JobContext {
        JobContext::on_server(job.into(), stop, Arc::new(NoServer))
    }

    /// An attempt that starts now on a server.
    pub(crate) fn on_server(job: Arc<Job>, stop: StopSignal, attempts: Arc<dyn Attempts>) -> JobContext {
        let deadline = Instant::now() + Duration::from_millis(job.timeout_ms);
        JobContext { job, stop, deadline, attempts, reported: Mutex::default() }
    }

    /// The job as it was when the attempt started.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The number of this attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.job.attempts + 1
    }

    /// The payload, converted into a type of the handler.
    ///
    /// # Errors
    /// A permanent [`Failure`] if the payload does not fit the type, since the next attempt would get the same payload.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(self.job.payload.get())
            .map_err(|error| Failure::permanent(format!("the payload does not fit: {error}")))
    }

    /// When the attempt times out, by the clock of this process.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the attempt should stop: it has timed out or was silent for too long, the job was cancelled or reclaimed, or
    /// the server stops.
    ///
    /// A handler that does not return within 5 s after its timeout is abandoned: its attempt fails, and its thread is
    /// replaced.
    pub fn is_cancelled(&self) -> bool {
        self.stop.reason().is_some()
    }

    /// Why the attempt should stop; `None` while it may go on.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.stop.reason()
    }

    /// Sleeps for `time`, or until the attempt should stop. Returns whether it should stop.
    pub fn sleep(&self, time: Duration) -> bool {
        self.stop.wait(time).is_some()
    }

    /// Reports how far the job has come: a value from 0 to 1, and a message of up to 200 characters, which may be empty.
    ///
    /// A job shows its latest progress. The server writes reports to Redis up to four times a second, and the last ones before
    /// the outcome of the attempt. This method does not wait for Redis.
    pub fn progress(&self, value: f64, message: impl Into<String>) {
        self.report(Report { progress: checked_progress(value, &message.into()), ..Report::default() });
    }

    /// Adds a line to the log of the job: up to 1,000 characters. A text of several lines becomes several lines of the log.
    ///
    /// A job keeps its last 1,000 lines. Of more than 100 lines a second the rest is dropped, and a line says how many.
    pub fn log(&self, line: impl Into<String>) {
        let mut report = Report::default();
        report.add_lines(&line.into());
        self.report(report);
    }

    /// Stores a value for the next attempt at the job, in place of the value before: see [`JobContext::checkpoint`].
    ///
    /// # Errors
    /// A permanent [`Failure`] if the value has more than 32 KiB as JSON, or more than 128 levels.
    pub fn set_checkpoint<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        let json = to_raw_value(value)?;
        match json.get() {
            text if text.len() > MAX_CHECKPOINT_BYTES => {
                Err(Failure::permanent("the checkpoint has more than 32 KiB"))
            }
            text if depth_exceeds(text, MAX_DEPTH) => {
                Err(Failure::permanent("the checkpoint has more than 128 levels"))
            }
            _ => {
                self.report(Report { checkpoint: Some(json), ..Report::default() });
                Ok(())
            }
        }
    }

    /// The value that [`JobContext::set_checkpoint`] has stored last, in this attempt or an earlier one. `None` if there is
    /// none.
    ///
    /// A checkpoint stays through failures, timeouts, crashes and stops of the server, and when an operator retries the job.
    ///
    /// # Errors
    /// A permanent [`Failure`] if the value does not fit the type.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, Failure> {
        let latest = sync::lock(&self.reported).checkpoint.clone();
        let checkpoint = latest.as_ref().or(self.job.checkpoint.as_ref());
        checkpoint
            .map(|json| serde_json::from_str(json.get()))
            .transpose()
            .map_err(|error| Failure::permanent(format!("the checkpoint does not fit: {error}")))
    }

    /// The token by which another process can report for this attempt: `POST /attempts/TOKEN`. `None` if Redis cannot be asked
    /// for the secret of the tokens.
    pub fn attempt_token(&self) -> Option<String> {
        sync::lock(&self.reported).has_token = true;
        self.attempts.token(self.job.attempt_id())
    }

    /// Stops the timeout and the silence of the attempt while it waits for its program.
    pub(super) fn stop_clocks(&self) -> StoppedClocks<'_> {
        self.attempts.set_waiting(self.job.attempt_id(), true);
        StoppedClocks(self)
    }

    /// Passes a report to the server.
    pub(crate) fn report(&self, report: Report) {
        if report.is_empty() {
            return;
        }
        let mut reported = sync::lock(&self.reported);
        reported.any = true;
        if report.checkpoint.is_some() {
            reported.checkpoint.clone_from(&report.checkpoint);
        }
        drop(reported);
        self.attempts.report(self.job.attempt_id(), report);
    }

    /// What the attempt has reported so far.
    pub(crate) fn reported(&self) -> ReportedSoFar {
        sync::lock(&self.reported).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::testing::{Recorded, context, job};

    #[test]
    fn a_handler_reports_progress_lines_and_checkpoints() {
        let recorded = Arc::new(Recorded::default());
        let context = JobContext::on_server(Arc::new(job("{}")), StopSignal::default(), recorded.clone());
        assert_eq!(context.checkpoint::<u32>().unwrap(), None);
        assert!(!context.reported().any);
        context.progress(1.5, "far\nenough");
        context.progress(f64::NAN, "no number");
        context.log("one\r\ntwo\n");
        context.log("");
        context.set_checkpoint(&[1, 2]).unwrap();
        assert_eq!(context.checkpoint::<Vec<u32>>().unwrap(), Some(vec![1, 2]));
        assert!(matches!(context.checkpoint::<String>(), Err(Failure::Permanent { .. })));
        assert!(context.reported().any);

        let report = recorded.take();
        assert_eq!(report.progress, Some((1.0, "far enough".to_owned())));
        assert_eq!(report.log, ["one", "two"]);
        assert_eq!(report.checkpoint.unwrap().get(), "[1,2]");
        assert_eq!(context.attempt_token().as_deref(), Some("token"));
    }

    #[test]
    fn the_checkpoint_of_an_earlier_attempt_counts_until_there_is_a_new_one() {
        let checkpoint = Some(RawValue::from_string("7".to_owned()).unwrap());
        let context = JobContext::new(Job { checkpoint, ..job("{}") }, StopSignal::default());
        assert_eq!(context.checkpoint::<u32>().unwrap(), Some(7));
        context.set_checkpoint(&8).unwrap();
        assert_eq!(context.checkpoint::<u32>().unwrap(), Some(8));
    }

    #[test]
    fn a_checkpoint_that_is_too_large_is_refused() {
        let context = context("{}");
        context.set_checkpoint(&"x".repeat(MAX_CHECKPOINT_BYTES - 2)).unwrap();
        let refused = context.set_checkpoint(&"x".repeat(MAX_CHECKPOINT_BYTES - 1)).unwrap_err();
        assert_eq!(refused, Failure::permanent("the checkpoint has more than 32 KiB"));
        let deep = RawValue::from_string("[".repeat(129) + &"]".repeat(129)).unwrap();
        assert!(context.set_checkpoint(&deep).is_err());
        assert_eq!(context.checkpoint::<String>().unwrap().unwrap().len(), MAX_CHECKPOINT_BYTES - 2);
    }
}
