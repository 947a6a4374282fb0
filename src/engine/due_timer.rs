//! The timer of the scheduler. A thread that parks a job sets the timer, and the scheduler sleeps until its time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::engine::shutdown::Shutdown;
use crate::sync;

/// Clones are the same timer.
#[derive(Clone)]
pub struct DueTimer {
    wake: Sender<()>,
    woken: Receiver<()>,
    /// When the scheduler next looks for what is due.
    next: Arc<Mutex<Instant>>,
}

impl Default for DueTimer {
    fn default() -> DueTimer {
        let (wake, woken) = bounded(1);
        DueTimer { wake, woken, next: Arc::new(Mutex::new(Instant::now())) }
    }
}

impl DueTimer {
    /// Announces a job that becomes due in `time`. If the scheduler would sleep longer, wakes it at once, so that it sets
    /// its timer again.
    pub fn due_in(&self, time: Duration) {
        let mut next = sync::lock(&self.next);
        let due = Instant::now() + time;
        if due < *next {
            *next = due;
            // If the channel is full, the scheduler is being woken already.
            let _ = self.wake.try_send(());
        }
    }

    /// Sets the time until the scheduler next runs `due.lua`.
    pub(super) fn set(&self, time: Duration) {
        *sync::lock(&self.next) = Instant::now() + time;
    }

    /// Sleeps for `time`, or until an earlier job is due. `true` if the server is stopping.
    pub(super) fn sleep(&self, time: Duration, shutdown: &Shutdown) -> bool {
        shutdown.wait_or(&self.woken, time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_earlier_job_wakes_the_scheduler() {
        let timer = DueTimer::default();
        timer.set(Duration::from_secs(60));
        timer.due_in(Duration::from_secs(90));
        assert!(timer.woken.is_empty());
        timer.due_in(Duration::from_secs(5));
        timer.due_in(Duration::from_secs(1));
        assert_eq!(timer.woken.len(), 1);
    }
}
