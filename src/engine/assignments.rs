//! The jobs that wait for a worker, and the workers that wait for a job.
//!
//! A worker that ends a job takes the next one that waits, without a wake-up. Jobs that arrive call one idle worker, and
//! this worker calls another one if more jobs wait when it gets its own. So a burst of short jobs runs on few threads and
//! with few wake-ups, and a long job never keeps another job from an idle worker. The worker that became idle last is
//! called first: its memory is still in the processor's cache, and the stacks of the others stay untouched.
//!
//! The jobs wait in a bounded channel. No worker blocks in its `recv`, which would wake a thread for each job: idle workers
//! wait in their seats. Changed by [`InFlight`](super::in_flight::InFlight) under its lock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, MutexGuard};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::handler::StopSignal;
use crate::job::Job;
use crate::sync;

/// How many waiting jobs call one idle worker. The other jobs are for the workers that are awake, and for those that the
/// called worker calls.
const JOBS_PER_CALL: usize = 32;

/// A job on its way to a worker, with the signal that stops its attempt.
pub type Assignment = (Arc<Job>, StopSignal);

/// The place where one worker thread waits for a job.
#[derive(Default)]
pub struct Seat {
    is_called: AtomicBool,
    called: Condvar,
}

impl Seat {
    /// Waits until the worker is called.
    pub fn wait<'a, T>(&self, state: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        sync::wait_while(&self.called, state, |_| !self.is_called.swap(false, Ordering::Relaxed))
    }
}

/// Workers that were called, and must be woken after the lock is released.
#[must_use]
pub struct Calls(Vec<Arc<Seat>>);

impl Calls {
    /// Wakes the workers.
    pub fn wake(self) {
        self.0.iter().for_each(|seat| seat.called.notify_one());
    }
}

pub struct Assignments {
    sender: Sender<Assignment>,
    waiting: Receiver<Assignment>,
    idle: Vec<Arc<Seat>>,
    /// The number of workers that were called and have not returned from [`Seat::wait`] yet.
    called: usize,
}

impl Assignments {
    /// Has room for twice as many jobs as there are workers: as many as may be in flight.
    pub fn new(workers: usize) -> Assignments {
        let (sender, waiting) = bounded(2 * workers);
        Assignments { sender, waiting, idle: Vec::new(), called: 0 }
    }

    /// Adds a job that waits for a worker. There is room, since the job is in flight.
    pub fn push(&self, assignment: Assignment) {
        let sent = self.sender.try_send(assignment);
        assert!(sent.is_ok(), "more jobs in flight than the capacity allows");
    }

    /// The job that waits longest.
    pub fn pop(&self) -> Option<Assignment> {
        self.waiting.try_recv().ok()
    }

    /// Whether no job waits for a worker.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds an idle worker. The caller waits in the seat after this.
    pub fn add_idle(&mut self, seat: &Arc<Seat>) {
        self.idle.push(seat.clone());
    }

    /// Counts that a called worker has returned from its seat.
    pub fn has_come(&mut self) {
        self.called -= 1;
    }

    /// Calls idle workers, if there are too few called ones for the jobs that wait.
    pub fn call(&mut self) -> Calls {
        let wanted = self.waiting.len().div_ceil(JOBS_PER_CALL).saturating_sub(self.called);
        self.call_some(wanted)
    }

    /// Calls all idle workers.
    pub fn call_all(&mut self) -> Calls {
        self.call_some(self.idle.len())
    }

    fn call_some(&mut self, number: usize) -> Calls {
        let seats = self.idle.split_off(self.idle.len().saturating_sub(number));
        seats.iter().for_each(|seat| seat.is_called.store(true, Ordering::Relaxed));
        self.called += seats.len();
        Calls(seats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::testing::job;

    fn push(assignments: &Assignments, jobs: usize) {
        for _ in 0..jobs {
            assignments.push((Arc::new(job("{}")), StopSignal::default()));
        }
    }

    fn with_idle(workers: usize) -> (Assignments, Vec<Arc<Seat>>) {
        let mut assignments = Assignments::new(workers.max(5));
        let seats: Vec<Arc<Seat>> = (0..workers).map(|_| Arc::default()).collect();
        seats.iter().for_each(|seat| assignments.add_idle(seat));
        (assignments, seats)
    }

    #[test]
    fn the_worker_that_became_idle_last_is_called_first() {
        let (mut assignments, seats) = with_idle(3);
        push(&assignments, 1);
        assert!(Arc::ptr_eq(&assignments.call().0[0], &seats[2]));
    }

    #[test]
    fn each_called_worker_calls_another_one_while_jobs_wait_and_workers_are_idle() {
        let (mut assignments, _) = with_idle(3);
        assert!(assignments.call().0.is_empty(), "no job waits");
        push(&assignments, 5);
        for _ in 0..3 {
            assert_eq!(assignments.call().0.len(), 1);
            assert!(assignments.call().0.is_empty(), "one is on its way");
            assignments.has_come();
            assert!(assignments.pop().is_some());
        }
        assert!(assignments.call().0.is_empty(), "no worker is idle");
        assert!(!assignments.is_empty(), "the jobs wait for a worker that ends its job");
    }

    #[test]
    fn many_jobs_call_many_workers_at_once() {
        let (mut assignments, _) = with_idle(100);
        push(&assignments, 3 * JOBS_PER_CALL);
        assert_eq!(assignments.call().0.len(), 3);
        assert_eq!(assignments.call_all().0.len(), 97);
    }
}
