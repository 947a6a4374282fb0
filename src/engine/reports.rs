//! What attempts have reported and Redis does not have yet.
//!
//! The thread `reporter` writes these reports. What is left when an attempt ends is written by the committer, before the
//! outcome of the attempt.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use crossbeam_channel::Sender;

use crate::engine::shared::Shared;
use crate::handler::{Attempts, StopReason};
use crate::job::{AttemptId, Report};
use crate::logging::once::LogOnce;
use crate::queue::{AttemptReport, Error, Reported};
use crate::sync;

/// The beginning of the log line about reports that Redis refuses: written once until Redis accepts reports again.
pub const REFUSED: &str = "cannot store the reports of attempts";
/// The bytes of reports after which a call of Redis takes no further report.
const CALL_BYTES: usize = 1 << 20;

/// The reports of running attempts. Each attempt has at most one, since a later report is merged into an earlier one.
pub struct Reports {
    shared: Shared,
    state: Mutex<State>,
    /// Notified when the call of the reporter has ended.
    call_ended: Condvar,
    refusals: Mutex<LogOnce>,
}

#[derive(Default)]
struct State {
    /// The report that has waited longest is the first.
    waiting: Vec<AttemptReport>,
    /// The attempts whose reports the reporter is writing.
    under_way: Vec<AttemptId>,
}

impl State {
    fn place(&self, attempt: AttemptId) -> Option<usize> {
        self.waiting.iter().position(|waiting| waiting.attempt == attempt)
    }

    fn add(&mut self, report: AttemptReport) {
        match self.place(report.attempt) {
            Some(place) => self.waiting[place].report.merge(report.report),
            None => self.waiting.push(report),
        }
    }

    fn begin_call(&mut self) -> Vec<AttemptReport> {
        let mut bytes = 0;
        let fits = |waiting: &&AttemptReport| {
            let has_room = bytes < CALL_BYTES;
            bytes += report_bytes(&waiting.report);
            has_room
        };
        let number = self.waiting.iter().take_while(fits).count();
        let reports: Vec<AttemptReport> = self.waiting.drain(..number).collect();
        self.under_way = reports.iter().map(|report| report.attempt).collect();
        reports
    }

    /// Returns whether any report waits.
    fn end_call(&mut self, unwritten: Vec<AttemptReport>) -> bool {
        self.under_way = Vec::new();
        // After a burst the list of waiting reports keeps no memory.
        let later = std::mem::replace(&mut self.waiting, unwritten);
        later.into_iter().for_each(|report| self.add(report));
        !self.waiting.is_empty()
    }
}

impl Reports {
    pub fn new(shared: Shared) -> Reports {
        Reports { shared, state: Mutex::default(), call_ended: Condvar::new(), refusals: Mutex::default() }
    }

    /// Takes what an attempt has reported and Redis does not have yet. A call of the reporter that has an earlier report of the
    /// attempt is waited for, so that the earlier report is not written after the later one, nor after the outcome.
    pub fn take(&self, attempt: AttemptId) -> Option<AttemptReport> {
        let is_under_way = |state: &mut State| state.under_way.contains(&attempt);
        let mut state = sync::wait_while(&self.call_ended, sync::lock(&self.state), is_under_way);
        state.place(attempt).map(|place| state.waiting.remove(place))
    }

    /// Takes the reports of one call. The reporter calls [`Reports::end_call`] afterwards.
    pub fn begin_call(&self) -> Vec<AttemptReport> {
        sync::lock(&self.state).begin_call()
    }

    /// Ends a call. `unwritten` are the reports that are to be written again. Returns whether any report waits.
    pub fn end_call(&self, unwritten: Vec<AttemptReport>) -> bool {
        let has_more = sync::lock(&self.state).end_call(unwritten);
        self.call_ended.notify_all();
        has_more
    }

    /// Writes reports to Redis, and stops attempts whose job was reclaimed or cancelled. `false` if Redis is unreachable: then
    /// the reports are to be written again. What Redis refuses is given up, after one line in the log.
    pub fn write(&self, reports: &[AttemptReport]) -> bool {
        if reports.is_empty() {
            return true;
        }
        let Shared { queue, in_flight, metrics, .. } = &self.shared;
        let results = match queue.report(reports) {
            Ok(results) => results,
            Err(Error::Unavailable(_) | Error::Busy(_)) => return false,
            Err(error) => {
                sync::lock(&self.refusals).log(REFUSED, &error);
                return true;
            }
        };
        sync::lock(&self.refusals).recovered();
        for (AttemptReport { attempt, .. }, result) in reports.iter().zip(results) {
            match result {
                Reported::Stale => in_flight.stop_attempt(*attempt, StopReason::Reclaimed),
                Reported::Accepted { is_cancelled, job_type, .. } => {
                    metrics.reported(&job_type);
                    if is_cancelled {
                        in_flight.stop_attempt(*attempt, StopReason::Cancelled);
                    }
                }
            }
        }
        true
    }
}

/// The bytes that a report sends, without a constant part.
pub fn report_bytes(report: &Report) -> usize {
    let message = report.progress.as_ref().map_or(0, |(_, message)| message.len());
    let checkpoint = report.checkpoint.as_ref().map_or(0, |json| json.get().len());
    report.log.iter().map(String::len).sum::<usize>() + message + checkpoint
}

/// The attempts' way to the reporter. The drop ends the thread.
pub struct ToReporter {
    pub reports: Arc<Reports>,
    /// Wakes the reporter. Has room for one message.
    pub wake: Sender<()>,
    /// Starts the reporter, which a server needs only if an attempt reports.
    pub start: Box<dyn Fn() -> io::Result<()> + Send + Sync>,
    pub is_started: AtomicBool,
}

impl Attempts for ToReporter {
    fn report(&self, attempt: AttemptId, report: Report) {
        if !self.reports.shared.in_flight.hear(attempt) {
            return;
        }
        sync::lock(&self.reports.state).add(AttemptReport { attempt, report, lease: None });
        if !self.is_started.swap(true, Ordering::Relaxed)
            && let Err(error) = (self.start)()
        {
            // The committer writes the reports when their attempts end.
            log::error!("cannot start the thread that writes reports: {error}");
            self.is_started.store(false, Ordering::Relaxed);
        }
        let _ = self.wake.try_send(());
    }

    fn token(&self, attempt: AttemptId) -> Option<String> {
        self.reports.shared.queue.attempt_token(attempt).ok()
    }

    fn set_waiting(&self, attempt: AttemptId, waits: bool) {
        self.reports.shared.in_flight.set_waiting(attempt, waits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobId;

    fn report(job: u64, line: &str) -> AttemptReport {
        let attempt = AttemptId { job: JobId::new(job).unwrap(), start: 1 };
        AttemptReport {
            attempt,
            report: Report { log: vec![line.to_owned()], ..Report::default() },
            lease: None,
        }
    }

    /// The lines of each report, in order.
    fn lines(reports: &[AttemptReport]) -> Vec<Vec<&str>> {
        reports.iter().map(|report| report.report.log.iter().map(String::as_str).collect()).collect()
    }

    #[test]
    fn reports_of_one_attempt_are_merged_and_those_of_several_are_written_in_order() {
        let mut state = State::default();
        for (job, line) in [(2, "a"), (1, "b"), (2, "c")] {
            state.add(report(job, line));
        }
        let call = state.begin_call();
        assert_eq!(lines(&call), [vec!["a", "c"], vec!["b"]]);
        assert_eq!(state.under_way.len(), 2);
        assert!(!state.end_call(Vec::new()));
        assert!(state.under_way.is_empty() && state.begin_call().is_empty());
        assert_eq!(state.waiting.capacity(), 0, "memory after a burst");
    }

    #[test]
    fn reports_that_were_not_written_come_before_later_ones() {
        let mut state = State::default();
        state.add(report(1, "a"));
        let call = state.begin_call();
        state.add(report(2, "b"));
        state.add(report(1, "c"));
        assert!(state.end_call(call));
        assert_eq!(lines(&state.begin_call()), [vec!["a", "c"], vec!["b"]]);
    }

    #[test]
    fn a_call_is_bounded_and_every_attempt_has_its_turn() {
        let mut state = State::default();
        let half = "x".repeat(CALL_BYTES / 2);
        for job in 1..=3 {
            state.add(report(job, &half));
        }
        assert_eq!(state.begin_call().len(), 2);
        state.add(report(1, "later"));
        assert!(state.end_call(Vec::new()));
        assert_eq!(lines(&state.begin_call()), [vec![half.as_str()], vec!["later"]]);
        // A report that is larger than a call is written alone.
        state.add(report(4, &half.repeat(3)));
        assert_eq!(state.begin_call().len(), 1);
    }
}
