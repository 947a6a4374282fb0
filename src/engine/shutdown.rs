//! The signal to stop, as every thread of the engine sees it: its waits end with it, or are calls to Redis, whose time is
//! limited.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// Whoever holds it can stop everything, once: by dropping it.
#[derive(Debug)]
pub struct Trigger {
    _open: Sender<()>,
}

/// Tells when to stop. Clones see the same signal.
#[derive(Clone, Debug)]
pub struct Shutdown {
    closed: Receiver<()>,
}

/// A trigger and what it triggers.
pub fn channel() -> (Trigger, Shutdown) {
    let (open, closed) = bounded(0);
    (Trigger { _open: open }, Shutdown { closed })
}

impl Shutdown {
    /// Whether it is time to stop.
    pub fn is_requested(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Sleeps for `time`, or until it is time to stop; whether it is.
    pub fn wait(&self, time: Duration) -> bool {
        matches!(self.closed.recv_timeout(time), Err(RecvTimeoutError::Disconnected))
    }

    /// Sleeps for `time`, until something comes through `alarm`, or until it is time to stop; whether it is.
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
