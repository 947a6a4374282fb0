//! The jobs that this server has in hand: from the take until their outcome is written in Redis.
//!
//! It is the place that says how many more may be taken (so that a crash touches at most twice as many jobs as there
//! are workers), that finds an attempt to be stopped, and that decides who settles it: the worker that ran it or the
//! watchdog that gave it up, whichever asks first for its lease.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::handler::{StopReason, StopSignal};
use crate::job::{Job, JobId};
use crate::queue::{Lease, Suspects};

/// How long an attempt that was told to stop may take to do so before its thread is given up.
///
/// A little more than the 5 s that an exec handler's children have between SIGTERM and SIGKILL, so that a thread that is
/// about to return is not replaced.
pub const STOP_GRACE: Duration = Duration::from_millis(5_500);

/// What may be taken now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// At most so many jobs.
    pub jobs: usize,
    /// Of those with a crash on their record, these.
    pub suspects: Suspects,
}

/// An attempt that does not end.
#[derive(Debug)]
pub struct GivenUp {
    /// The right to settle it.
    pub lease: Lease,
    /// The job as it was when the attempt started.
    pub job: Arc<Job>,
    /// What it had been told.
    pub reason: StopReason,
}

struct Entry {
    /// Here until the attempt has ended, one way or the other.
    lease: Option<Lease>,
    stop: StopSignal,
    /// When the attempt times out, or, once it was told to stop, when it is given up. `None` before it has begun.
    deadline: Option<Instant>,
    /// Whether it still needs its worker.
    occupies_worker: bool,
    job: Arc<Job>,
}

#[derive(Default)]
struct State {
    entries: HashMap<JobId, Entry>,
    /// Entries whose attempt has not ended: waiting for a worker or running.
    unfinished: usize,
    /// Worker threads that are not given up.
    workers: usize,
    /// The suspect in hand.
    suspect: Option<JobId>,
    /// The suspect in hand is on its last chance: nothing else may run here.
    alone: bool,
    /// A suspect on its last chance waits until nothing runs here.
    wants_empty: bool,
    closed: bool,
    /// Threads that wait for room. Nobody is woken in vain: a wake-up costs a system call, and jobs end often.
    waiting: usize,
    /// When the watchdog will look again; `None` while it sleeps until it is woken.
    next_watch: Option<Instant>,
}

impl State {
    fn free_worker(&mut self, id: JobId) {
        if let Some(entry) = self.entries.get_mut(&id)
            && std::mem::take(&mut entry.occupies_worker)
        {
            self.unfinished -= 1;
        }
    }

    fn room(&self) -> Room {
        let empty = self.entries.is_empty();
        if self.closed || self.alone || (self.wants_empty && !empty) {
            return Room { jobs: 0, suspects: Suspects::None };
        }
        // Free workers; and outcomes that wait to be written may be as many again, so that writing and running overlap.
        let free = self.workers.saturating_sub(self.unfinished);
        let slack = (2 * self.workers).saturating_sub(self.entries.len());
        let suspects = match self.suspect {
            Some(_) => Suspects::None,
            None if empty => Suspects::Any,
            None => Suspects::One,
        };
        Room { jobs: free.min(slack), suspects }
    }
}

/// The jobs in hand. Shared by all threads.
#[derive(Default)]
pub struct InHand {
    state: Mutex<State>,
    /// Room was made, or taking ended.
    room_made: Condvar,
    /// A deadline was set that may be the next one.
    deadline_set: Condvar,
}

impl InHand {
    /// Nothing in hand, and room for as many jobs as there are workers.
    pub fn new(workers: usize) -> InHand {
        let state = State { workers, ..State::default() };
        InHand { state: Mutex::new(state), ..InHand::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What may be taken now.
    pub fn room(&self) -> Room {
        self.state().room()
    }

    /// Waits until something may be taken; `None` once [`InHand::close`] was called.
    pub fn wait_for_room(&self) -> Option<Room> {
        let mut state = self.state();
        state.waiting += 1;
        let no_room = |state: &mut State| !state.closed && state.room().jobs == 0;
        let mut state = self.room_made.wait_while(state, no_room).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        (!state.closed).then(|| state.room())
    }

    /// Ends taking for good.
    pub fn close(&self) {
        self.state().closed = true;
        self.room_made.notify_all();
        self.deadline_set.notify_all();
    }

    fn tell_room(&self, state: MutexGuard<'_, State>) {
        let waiting = state.waiting > 0 && (state.closed || state.room().jobs > 0);
        drop(state);
        if waiting {
            self.room_made.notify_all();
        }
    }

    /// A job was taken. `max_crashes` tells whether it is on its last chance.
    pub fn add(&self, lease: Lease, job: &Arc<Job>, max_crashes: u32) -> StopSignal {
        let stop = StopSignal::default();
        let mut state = self.state();
        if job.crashes > 0 {
            state.suspect = Some(job.id);
            state.alone = job.crashes + 1 >= max_crashes;
            state.wants_empty = false;
        }
        let job_id = job.id;
        let entry = Entry {
            lease: Some(lease),
            stop: stop.clone(),
            deadline: None,
            occupies_worker: true,
            job: job.clone(),
        };
        state.entries.insert(job_id, entry);
        state.unfinished += 1;
        stop
    }

    /// A suspect on its last chance waits: take nothing until nothing is in hand. `false` takes that back.
    pub fn set_wants_empty(&self, wants_empty: bool) {
        let mut state = self.state();
        state.wants_empty = wants_empty;
        self.tell_room(state);
    }

    /// An attempt begins now and may take this long; `false` if it must not begin any more.
    pub fn begin(&self, id: JobId, timeout: Duration) -> bool {
        let mut state = self.state();
        let closed = state.closed;
        let Some(entry) = state.entries.get_mut(&id) else { return false };
        if closed || entry.stop.reason().is_some() {
            return false;
        }
        let deadline = Instant::now() + timeout;
        entry.deadline = Some(deadline);
        if state.next_watch.is_none_or(|at| deadline < at) {
            state.next_watch = Some(deadline);
            self.deadline_set.notify_one();
        }
        true
    }

    /// An attempt has ended on its thread, which keeps the job where `keeps_worker` says so. `None` if the attempt had
    /// been given up: the thread has been replaced.
    pub fn end(&self, id: JobId, keeps_worker: bool) -> Option<Lease> {
        let mut state = self.state();
        let entry = state.entries.get_mut(&id)?;
        entry.deadline = None;
        let lease = entry.lease.take()?;
        if !keeps_worker {
            state.free_worker(id);
            self.tell_room(state);
        }
        Some(lease)
    }

    /// The same job goes on to its next attempt, on the thread that kept it.
    pub fn resume(&self, lease: Lease, job: &Arc<Job>) {
        let mut state = self.state();
        let Some(entry) = state.entries.get_mut(&job.id) else { return };
        entry.lease = Some(lease);
        entry.job = job.clone();
    }

    /// The thread that had kept the job gives it away after all.
    pub fn free_worker(&self, id: JobId) {
        let mut state = self.state();
        state.free_worker(id);
        self.tell_room(state);
    }

    /// The outcomes of these jobs are written, or nobody's business any more. Gives the jobs, where they were in hand.
    pub fn remove(&self, ids: impl IntoIterator<Item = JobId>) -> Vec<Option<Arc<Job>>> {
        let mut state = self.state();
        let mut jobs = Vec::new();
        for id in ids {
            state.free_worker(id);
            jobs.push(state.entries.remove(&id).map(|entry| entry.job));
            if state.suspect == Some(id) {
                state.suspect = None;
                state.alone = false;
            }
        }
        self.tell_room(state);
        jobs
    }

    /// Asks one attempt to stop.
    pub fn stop(&self, id: JobId, reason: StopReason) {
        self.stop_entries(reason, |entry| *entry == id);
    }

    /// Asks all attempts to stop.
    pub fn stop_all(&self, reason: StopReason) {
        self.stop_entries(reason, |_| true);
    }

    fn stop_entries(&self, reason: StopReason, which: impl Fn(&JobId) -> bool) {
        let mut state = self.state();
        for (_, entry) in state.entries.iter_mut().filter(|(id, _)| which(id)) {
            if entry.stop.reason().is_none() {
                entry.stop.stop(reason);
                entry.deadline = entry.deadline.map(|_| Instant::now() + STOP_GRACE);
            }
        }
        self.deadline_set.notify_one();
    }

    /// How many jobs are in hand.
    pub fn len(&self) -> usize {
        self.state().entries.len()
    }

    /// Whether nothing is in hand.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this job is in hand.
    pub fn contains(&self, id: JobId) -> bool {
        self.state().entries.contains_key(&id)
    }

    /// How many attempts run or wait for a worker.
    pub fn busy(&self) -> usize {
        self.state().unfinished
    }

    /// How many worker threads there are that were not given up.
    pub fn workers(&self) -> usize {
        self.state().workers
    }

    /// A worker thread was lost for good, or was replaced.
    pub fn change_workers(&self, by: isize) {
        let mut state = self.state();
        state.workers = state.workers.saturating_add_signed(by);
        self.tell_room(state);
    }

    /// Waits for the next deadline: tells attempts that timed out to stop, and gives those up that did not. Returns
    /// what was given up (often nothing); `None` once taking has ended and nothing runs.
    pub fn watch(&self) -> Option<Vec<GivenUp>> {
        let mut state = self.state();
        if state.closed && state.unfinished == 0 {
            return None;
        }
        state.next_watch = state.entries.values().filter_map(|entry| entry.deadline).min();
        let mut state = match state.next_watch.map(|at| at.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => state,
            Some(time) => {
                self.deadline_set.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.deadline_set.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
        let now = Instant::now();
        let mut given_up = Vec::new();
        for entry in state.entries.values_mut().filter(|entry| entry.deadline.is_some_and(|at| at <= now)) {
            match entry.stop.reason() {
                None => {
                    entry.stop.stop(StopReason::TimedOut);
                    entry.deadline = Some(now + STOP_GRACE);
                }
                Some(reason) => {
                    entry.deadline = None;
                    entry.occupies_worker = false;
                    let job = entry.job.clone();
                    given_up.extend(entry.lease.take().map(|lease| GivenUp { lease, job, reason }));
                }
            }
        }
        state.unfinished -= given_up.len();
        Some(given_up)
    }
}
