//! Requests to the heartbeat thread for a beat before its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::engine::shutdown::Shutdown;

/// Clones ask the same heartbeat.
#[derive(Clone)]
pub struct EarlyBeat {
    request: Sender<()>,
    requested: Receiver<()>,
    /// Whether this server has taken a job since the last beat.
    has_taken: Arc<AtomicBool>,
    /// Whether the heartbeat thread sleeps for its longer, idle interval.
    is_idle: Arc<AtomicBool>,
}

impl Default for EarlyBeat {
    fn default() -> EarlyBeat {
        let (request, requested) = bounded(1);
        EarlyBeat { request, requested, has_taken: Arc::default(), is_idle: Arc::default() }
    }
}

impl EarlyBeat {
    /// Records that a job was taken. Wakes the heartbeat thread only from its idle interval: so other servers see within
    /// the busy interval that this server is busy, and a stream of jobs causes no additional beats.
    pub fn job_taken(&self) {
        self.has_taken.store(true, Ordering::SeqCst);
        if self.is_idle.swap(false, Ordering::SeqCst) {
            self.request();
        }
    }

    /// Requests a beat at once, because Redis has refused this server. Only the heartbeat thread registers it again.
    pub fn refused(&self) {
        self.request();
    }

    fn request(&self) {
        // If the channel is full, a beat is requested already.
        let _ = self.request.try_send(());
    }

    /// Whether the heartbeat may sleep for its idle interval: no job was taken since the last call.
    pub(super) fn may_idle(&self) -> bool {
        if self.has_taken.swap(false, Ordering::SeqCst) {
            return false;
        }
        // In this order: a job that is taken at the same moment finds one of the two flags set.
        self.is_idle.store(true, Ordering::SeqCst);
        !self.has_taken.load(Ordering::SeqCst)
    }

    /// Sleeps for `time`, or until a beat is requested. `true` if the heartbeat is to end.
    pub(super) fn sleep(&self, time: Duration, shutdown: &Shutdown) -> bool {
        shutdown.wait_or(&self.requested, time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_job_wakes_the_heartbeat_from_its_idle_interval_only() {
        let early = EarlyBeat::default();
        early.job_taken();
        assert!(early.requested.is_empty(), "the next beat is soon in any case");
        assert!(!early.may_idle(), "a job was taken since the last beat");
        assert!(early.may_idle());
        early.job_taken();
        early.job_taken();
        assert_eq!(early.requested.len(), 1);
        assert!(!early.may_idle());
    }

    #[test]
    fn a_refusal_requests_one_beat_at_once() {
        let early = EarlyBeat::default();
        early.refused();
        early.refused();
        assert_eq!(early.requested.len(), 1);
    }
}
