//! The signal to stop. Each wait of an engine thread ends with it, or is a Redis call of limited time.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// The end whose drop is the signal: it stops every thread that has a [`Shutdown`] of the same pair.
#[derive(Debug)]
pub struct Trigger {
    _open: Sender<()>,
}

/// The end that threads wait for. Clones get the same signal.
#[derive(Clone, Debug)]
pub struct Shutdown {
    closed: Receiver<()>,
}

/// The two ends of a new signal.
pub fn channel() -> (Trigger, Shutdown) {
    let (open, closed) = bounded(0);
    (Trigger { _open: open }, Shutdown { closed })
}

impl Shutdown {
    /// Whether the thread should stop.
    pub fn is_requested(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Sleeps for `time`, or until the signal. `true` if the thread should stop.
    pub fn wait(&self, time: Duration) -> bool {
        matches!(self.closed.recv_timeout(time), Err(RecvTimeoutError::Disconnected))
    }

    /// Sleeps for `time`, or until a message through `alarm` or the signal. `true` if the thread should stop.
    pub fn wait_or(&self, alarm: &Receiver<()>, time: Duration) -> bool {
        crossbeam_channel::select! {
            recv(self.closed) -> _ => true,
            recv(alarm) -> _ => self.is_requested(),
            default(time) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_the_trigger_ends_every_wait() {
        let (trigger, shutdown) = channel();
        assert!(!shutdown.is_requested());
        let waiting = std::thread::spawn({
            let shutdown = shutdown.clone();
            move || shutdown.wait(Duration::from_secs(600))
        });
        drop(trigger);
        assert!(waiting.join().unwrap());
        assert!(shutdown.is_requested());
    }

    #[test]
    fn an_alarm_ends_a_wait_but_does_not_ask_to_stop() {
        let (_trigger, shutdown) = channel();
        let (ring, alarm) = bounded(1);
        ring.send(()).unwrap();
        assert!(!shutdown.wait_or(&alarm, Duration::from_secs(600)));
    }
}
