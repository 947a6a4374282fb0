//! The signal that asks a running attempt to stop.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::job::duration::in_largest_unit;
use crate::sync;

/// Why a running attempt should stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// The attempt ran longer than its timeout.
    TimedOut,
    /// The attempt reported nothing for this time, the `silence` of its handler.
    Silent(Duration),
    /// A client or an operator cancelled the job.
    Cancelled,
    /// Another server has reclaimed the job, because this server missed its lease.
    Reclaimed,
    /// The server stops, and its drain timeout is over.
    Shutdown,
}

impl StopReason {
    /// Whether the attempt has failed because the server stopped it.
    pub(crate) fn is_failure(self) -> bool {
        matches!(self, StopReason::TimedOut | StopReason::Silent(_))
    }
}

impl fmt::Display for StopReason {
    /// The text of the attempt's error.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            StopReason::TimedOut => "timed out",
            StopReason::Silent(time) => {
                let time = in_largest_unit(time.as_millis(), &[("s", 1_000), ("ms", 1)]);
                return write!(f, "silent for {time}");
            }
            StopReason::Cancelled => "cancelled",
            StopReason::Reclaimed => "another server has reclaimed the job",
            StopReason::Shutdown => "the server is stopping",
        })
    }
}

/// Asks a running attempt to stop. A clone is another handle of the same signal.
#[derive(Clone, Default, Debug)]
pub struct StopSignal(Arc<(Mutex<State>, Condvar)>);

#[derive(Clone, Copy, Default, Debug)]
struct State {
    reason: Option<StopReason>,
    is_hurried: bool,
}

impl StopSignal {
    /// Asks the attempt to stop. After several calls the first reason counts.
    pub fn stop(&self, reason: StopReason) {
        let (_, changed) = &*self.0;
        self.state().reason.get_or_insert(reason);
        changed.notify_all();
    }

    /// Shortens the time that an attempt may take to stop, because the server must end at once.
    pub fn hurry(&self) {
        self.state().is_hurried = true;
    }

    /// Why the attempt should stop; `None` while it may go on.
    pub fn reason(&self) -> Option<StopReason> {
        self.state().reason
    }

    /// Whether [`StopSignal::hurry`] was called.
    pub fn is_hurried(&self) -> bool {
        self.state().is_hurried
    }

    /// Blocks for `time`, or until the attempt should stop. Returns the reason to stop, if there is one.
    pub fn wait(&self, time: Duration) -> Option<StopReason> {
        let (_, changed) = &*self.0;
        sync::wait_timeout_while(changed, self.state(), time, |state| state.reason.is_none()).reason
    }

    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.0.0)
    }
}
