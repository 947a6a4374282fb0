//! The jobs that this server has in hand: from the take until their outcome is written in Redis.
//!
//! It is the place that says how many more may be taken (so that a crash touches at most twice as many jobs as there
//! are workers), that finds an attempt to be stopped, and that decides who settles it: the worker that ran it or the
//! watchdog that gave it up, whichever asks first for its lease.
//!
//! It knows attempts, not jobs: an attempt that was given up or taken over may still run while this server has begun
//! the next one of the same job, and what the old one comes to must not count for the new one.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::Thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::handler::{StopReason, StopSignal};
use crate::job::{AttemptId, Job, JobId};
use crate::queue::{Lease, Quarantine};
use crate::sync;

/// How long an attempt that was told to stop may take to do so before its thread is given up.
///
/// A little more than the 5 s that an exec handler's children have between SIGTERM and SIGKILL, so that a thread that is
/// about to return is not replaced.
pub const STOP_GRACE: Duration = Duration::from_millis(5_500);

/// Of more threads it is not told what they do.
const MAX_REPORTED: usize = 1_000;

/// A job on its way to a worker, with the signal that stops its attempt.
pub type Assignment = (Arc<Job>, StopSignal);

/// What may be taken now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// At most so many jobs.
    pub jobs: usize,
    /// What the take does about jobs on their last chance.
    pub quarantine: Quarantine,
}

/// An attempt that does not end.
#[derive(Debug)]
pub struct Abandoned {
    /// The right to settle it.
    pub lease: Lease,
    /// The job as it was when the attempt started.
    pub job: Arc<Job>,
    /// What it had been told.
    pub reason: StopReason,
    /// How long it has run.
    pub time: Duration,
}

/// What a worker thread does now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Activity {
    /// Its name; none while a job waits for one.
    pub thread: Option<String>,
    /// The id of its job.
    pub job: u64,
    /// The type of it.
    #[serde(rename = "type")]
    pub job_type: String,
    /// The number of the attempt.
    pub attempt: u32,
    /// For so long.
    pub for_ms: u64,
    /// How far it is.
    pub state: WorkerState,
}

/// How far a worker is with its job.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// Is about to start it.
    Starting,
    /// Runs its handler.
    Running,
    /// Has told its handler to stop, and waits for it.
    Stopping,
    /// Sleeps a short backoff before the next attempt.
    BackingOff,
}

struct Entry {
    /// Here until the attempt has ended, one way or the other.
    lease: Option<Lease>,
    stop: StopSignal,
    /// When the attempt times out, or, once it was told to stop, when it is given up. `None` before it has begun.
    deadline: Option<Instant>,
    /// Whether it still needs its worker.
    occupies_worker: bool,
    /// The thread that has begun it, and when.
    began: Option<(Thread, Instant)>,
    job: Arc<Job>,
}

impl Entry {
    /// A job that has not begun. It needs a worker where its lease is here.
    fn new(lease: Option<Lease>, stop: StopSignal, job: &Arc<Job>) -> Entry {
        let occupies_worker = lease.is_some();
        Entry { lease, stop, deadline: None, occupies_worker, began: None, job: job.clone() }
    }

    fn activity(&self) -> Activity {
        let state = match (&self.began, self.deadline) {
            (None, _) => WorkerState::Starting,
            (Some(_), Some(_)) if self.stop.reason().is_some() => WorkerState::Stopping,
            (Some(_), Some(_)) => WorkerState::Running,
            (Some(_), None) => WorkerState::BackingOff,
        };
        Activity {
            thread: self.began.as_ref().and_then(|(thread, _)| thread.name().map(str::to_owned)),
            job: self.job.id.get(),
            job_type: self.job.job_type.clone(),
            attempt: self.job.attempts + 1,
            for_ms: self.began.as_ref().map_or(0, |(_, since)| since.elapsed().as_millis() as u64),
            state,
        }
    }
}

#[derive(Default)]
struct State {
    entries: HashMap<AttemptId, Entry>,
    /// Entries whose attempt has not ended: waiting for a worker or running.
    unfinished: usize,
    /// Worker threads that are not given up.
    workers: usize,
    /// The job in hand that is on its last chance: nothing else may run here.
    suspect: Option<AttemptId>,
    /// A job on its last chance waits until nothing runs here.
    wants_empty: bool,
    /// A job on its last chance has run: before the next one it is the turn of the other jobs, once.
    others_turn: bool,
    /// How many jobs the takes under way may bring.
    reserved: usize,
    /// A take is under way that may bring a job on its last chance: nothing else may be taken beside it.
    is_exclusive: bool,
    closed: bool,
    /// Threads that wait for capacity. Nobody is woken in vain: a wake-up costs a system call, and jobs end often.
    waiting: usize,
    /// When the watchdog will look again; `None` while it sleeps until it is woken.
    next_watch: Option<Instant>,
}

impl State {
    fn free_worker(&mut self, id: AttemptId) {
        if let Some(entry) = self.entries.get_mut(&id)
            && std::mem::take(&mut entry.occupies_worker)
        {
            self.unfinished -= 1;
        }
    }

    fn capacity(&self) -> Capacity {
        let empty = self.entries.is_empty() && self.reserved == 0;
        if self.closed || self.suspect.is_some() || self.is_exclusive || (self.wants_empty && !empty) {
            return Capacity { jobs: 0, quarantine: Quarantine::Skip };
        }
        // Free workers; and outcomes that wait to be written may be as many again, so that writing and running overlap.
        let free = self.workers.saturating_sub(self.unfinished + self.reserved);
        let slack = (2 * self.workers).saturating_sub(self.entries.len() + self.reserved);
        let quarantine = match empty {
            _ if self.others_turn => Quarantine::Skip,
            true => Quarantine::Start,
            false => Quarantine::Reserve,
        };
        Capacity { jobs: free.min(slack), quarantine }
    }
}

/// The jobs in hand. Shared by all threads.
#[derive(Default)]
pub struct InFlight {
    state: Mutex<State>,
    /// Capacity was made, or taking ended.
    capacity_freed: Condvar,
    /// A take has ended.
    take_ended: Condvar,
    /// A deadline was set that may be the next one.
    deadline_set: Condvar,
}

/// The room that one take may fill. Dropped after the jobs that it has brought were added.
pub struct Reservation<'a> {
    in_flight: &'a InFlight,
    capacity: Capacity,
}

impl Reservation<'_> {
    /// What may be taken.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut state = self.in_flight.state();
        state.reserved -= self.capacity.jobs;
        if self.capacity.quarantine == Quarantine::Start {
            state.is_exclusive = false;
        }
        self.in_flight.take_ended.notify_all();
        self.in_flight.notify_capacity(state);
    }
}

impl InFlight {
    /// Nothing in hand, and room for as many jobs as there are workers.
    pub fn new(workers: usize) -> InFlight {
        let state = State { workers, ..State::default() };
        InFlight { state: Mutex::new(state), ..InFlight::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    /// What may be taken now.
    pub fn capacity(&self) -> Capacity {
        self.state().capacity()
    }

    /// Waits until something may be taken; `None` once [`InFlight::close`] was called.
    pub fn wait_for_capacity(&self) -> Option<Capacity> {
        let mut state = self.state();
        state.waiting += 1;
        let no_room = |state: &mut State| !state.closed && state.capacity().jobs == 0;
        let mut state = sync::wait_while(&self.capacity_freed, state, no_room);
        state.waiting -= 1;
        (!state.closed).then(|| state.capacity())
    }

    /// Reserves all the room that there is, for a take. One that `has_fetched` a job already waits for other takes rather
    /// than for a worker: if these leave no room, that job goes back to its queue.
    pub fn reserve(&self, has_fetched: bool) -> Reservation<'_> {
        let waits = |state: &mut State| {
            has_fetched && !state.closed && state.reserved > 0 && state.capacity().jobs == 0
        };
        let mut state = sync::wait_while(&self.take_ended, self.state(), waits);
        let capacity = state.capacity();
        state.reserved += capacity.jobs;
        state.is_exclusive |= capacity.quarantine == Quarantine::Start;
        Reservation { in_flight: self, capacity }
    }

    /// Ends taking for good.
    pub fn close(&self) {
        self.state().closed = true;
        self.take_ended.notify_all();
        self.capacity_freed.notify_all();
        self.deadline_set.notify_all();
    }

    fn notify_capacity(&self, state: MutexGuard<'_, State>) {
        let waiting = state.waiting > 0 && (state.closed || state.capacity().jobs > 0);
        drop(state);
        if waiting {
            self.capacity_freed.notify_all();
        }
    }

    /// A job was taken. `max_crashes` tells whether it is on its last chance.
    pub fn insert(&self, lease: Lease, job: &Arc<Job>, max_crashes: u32) -> StopSignal {
        let stop = StopSignal::default();
        let mut state = self.state();
        if job.needs_quarantine(max_crashes) {
            state.suspect = Some(lease.attempt_id());
        }
        let id = lease.attempt_id();
        state.entries.insert(id, Entry::new(Some(lease), stop.clone(), job));
        state.unfinished += 1;
        stop
    }

    /// A job was taken that cannot be run, and whose lease is on its way to the committer: it needs no worker, and counts
    /// until its failure is written.
    pub fn insert_broken(&self, lease: &Lease, job: &Arc<Job>) {
        self.state().entries.insert(lease.attempt_id(), Entry::new(None, StopSignal::default(), job));
    }

    /// A take that had this room was made, and what it brought was added. `wants_empty`: a job on its last chance waits, so
    /// nothing more may be taken until nothing is in hand.
    pub fn record_take(&self, capacity: Capacity, wants_empty: bool) {
        let mut state = self.state();
        match capacity.quarantine {
            Quarantine::Skip => state.others_turn = false,
            Quarantine::Reserve => state.wants_empty |= wants_empty,
            Quarantine::Start => state.wants_empty = wants_empty,
        }
        self.notify_capacity(state);
    }

    /// An attempt begins now and may take this long; `false` if it must not begin any more.
    pub fn start(&self, id: AttemptId, timeout: Duration) -> bool {
        let mut state = self.state();
        let closed = state.closed;
        let Some(entry) = state.entries.get_mut(&id) else { return false };
        if closed || entry.stop.reason().is_some() {
            return false;
        }
        let now = Instant::now();
        let deadline = now + timeout;
        entry.began = Some((std::thread::current(), now));
        entry.deadline = Some(deadline);
        if state.next_watch.is_none_or(|at| deadline < at) {
            state.next_watch = Some(deadline);
            self.deadline_set.notify_one();
        }
        true
    }

    /// An attempt has ended on its thread, which keeps the job where `keeps_worker` says so. `None` if the attempt had
    /// been given up: the thread has been replaced.
    pub fn finish(&self, id: AttemptId, keeps_worker: bool) -> Option<Lease> {
        let mut state = self.state();
        let entry = state.entries.get_mut(&id)?;
        entry.deadline = None;
        let lease = entry.lease.take()?;
        if !keeps_worker {
            state.free_worker(id);
            self.notify_capacity(state);
        }
        Some(lease)
    }

    /// The job of an attempt that ended goes on to its next one, on the thread that kept it.
    pub fn restart(&self, ended: AttemptId, lease: Lease, job: &Arc<Job>) {
        let mut state = self.state();
        let Some(mut entry) = state.entries.remove(&ended) else { return };
        let next = lease.attempt_id();
        entry.lease = Some(lease);
        entry.job = job.clone();
        state.entries.insert(next, entry);
        if state.suspect == Some(ended) {
            state.suspect = Some(next);
        }
    }

    /// The thread that had kept the job gives it away after all.
    pub fn free_worker(&self, id: AttemptId) {
        let mut state = self.state();
        state.free_worker(id);
        self.notify_capacity(state);
    }

    /// The outcomes of these attempts are written, or nobody's business any more. Gives the jobs of those in hand.
    pub fn remove(&self, ids: impl IntoIterator<Item = AttemptId>) -> Vec<Option<Arc<Job>>> {
        let mut state = self.state();
        let mut jobs = Vec::new();
        for id in ids {
            state.free_worker(id);
            jobs.push(state.entries.remove(&id).map(|entry| entry.job));
            if state.suspect == Some(id) {
                state.suspect = None;
                state.others_turn = true;
            }
        }
        self.notify_capacity(state);
        jobs
    }

    /// Asks all attempts at one job to stop.
    pub fn stop(&self, id: JobId, reason: StopReason) {
        self.stop_entries(reason, |attempt| attempt.job == id);
    }

    /// Asks all attempts to stop.
    pub fn stop_all(&self, reason: StopReason) {
        self.stop_entries(reason, |_| true);
    }

    /// Asks all attempts that were told to stop to do so at once.
    pub fn hurry_all(&self) {
        self.state().entries.values().for_each(|entry| entry.stop.hurry());
    }

    fn stop_entries(&self, reason: StopReason, which: impl Fn(&AttemptId) -> bool) {
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
        self.state().entries.keys().any(|attempt| attempt.job == id)
    }

    /// How many attempts run or wait for a worker.
    pub fn busy(&self) -> usize {
        self.state().unfinished
    }

    /// What the workers do that have a job, by their names.
    pub fn activity(&self) -> Vec<Activity> {
        let state = self.state();
        let busy = state.entries.values().filter(|entry| entry.occupies_worker);
        let mut activity: Vec<Activity> = busy.map(Entry::activity).take(MAX_REPORTED).collect();
        drop(state);
        activity.sort_by_cached_key(|one| one.thread.as_ref().map(|name| (name.len(), name.clone())));
        activity
    }

    /// How many worker threads there are that were not given up.
    pub fn workers(&self) -> usize {
        self.state().workers
    }

    /// A worker thread was lost for good, or was replaced.
    pub fn change_workers(&self, by: isize) {
        let mut state = self.state();
        state.workers = state.workers.saturating_add_signed(by);
        self.notify_capacity(state);
    }

    /// Waits for the next deadline, at most for the time that is given: tells attempts that timed out to stop, and gives
    /// those up that did not. Returns what was given up (often nothing); `None` once taking has ended and nothing runs.
    pub fn watch_deadlines(&self, at_most: Option<Duration>) -> Option<Vec<Abandoned>> {
        let mut state = self.state();
        if state.closed && state.unfinished == 0 {
            return None;
        }
        state.next_watch = state.entries.values().filter_map(|entry| entry.deadline).min();
        let until_deadline = state.next_watch.map(|at| at.saturating_duration_since(Instant::now()));
        let mut state = match until_deadline.into_iter().chain(at_most).min() {
            Some(Duration::ZERO) => state,
            Some(time) => sync::wait_timeout(&self.deadline_set, state, time),
            None => sync::wait(&self.deadline_set, state),
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
                    let time = entry
                        .began
                        .as_ref()
                        .map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(*since));
                    given_up.extend(entry.lease.take().map(|lease| Abandoned { lease, job, reason, time }));
                }
            }
        }
        state.unfinished -= given_up.len();
        Some(given_up)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::handler::testing::job;
    use crate::job::JobId;

    const MAX_CRASHES: u32 = 3;
    const LONG: Duration = Duration::from_secs(3600);

    fn nth(number: u64, start: u64, crashes: u32) -> Arc<Job> {
        Arc::new(Job { id: JobId::new(number).unwrap(), starts: start, crashes, ..job("{}") })
    }

    /// Takes a job, as a fetcher does.
    fn add(in_flight: &InFlight, job: &Arc<Job>) -> StopSignal {
        in_flight.insert(Lease::for_tests(job.attempt_id()), job, MAX_CRASHES)
    }

    fn room(in_flight: &InFlight) -> (usize, Quarantine) {
        let capacity = in_flight.capacity();
        (capacity.jobs, capacity.quarantine)
    }

    #[test]
    fn it_tells_what_each_worker_does() {
        let in_flight = InFlight::new(3);
        let (first, second) = (nth(1, 1, 0), nth(2, 1, 0));
        add(&in_flight, &first);
        let doing = || in_flight.activity().into_iter().map(|one| (one.job, one.state)).collect::<Vec<_>>();
        assert_eq!(doing(), [(1, WorkerState::Starting)]);
        assert!(in_flight.start(first.attempt_id(), LONG));
        assert_eq!(doing(), [(1, WorkerState::Running)]);
        let thread = in_flight.activity()[0].thread.clone();
        assert_eq!(thread.as_deref(), std::thread::current().name());
        in_flight.stop(first.id, StopReason::Cancelled);
        assert_eq!(doing(), [(1, WorkerState::Stopping)]);
        assert!(in_flight.finish(first.attempt_id(), false).is_some());
        assert_eq!(doing(), [], "its outcome is not written, but its worker is free");
        add(&in_flight, &second);
        assert!(in_flight.start(second.attempt_id(), LONG));
        assert!(in_flight.finish(second.attempt_id(), true).is_some());
        assert_eq!(doing(), [(2, WorkerState::BackingOff)]);
    }

    #[test]
    fn room_is_for_free_workers_and_at_most_twice_as_many_jobs_as_workers() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..300 {
            let workers = random.usize(1..6);
            let in_flight = InFlight::new(workers);
            let (mut running, mut unwritten) = (Vec::new(), Vec::new());
            for number in 1..200 {
                match random.u32(..3) {
                    0 => {
                        for n in 0..in_flight.capacity().jobs {
                            let job = nth(number * 100 + n as u64, 1, 0);
                            add(&in_flight, &job);
                            assert!(in_flight.start(job.attempt_id(), LONG));
                            running.push(job.attempt_id());
                        }
                    }
                    1 if !running.is_empty() => {
                        let ended = running.swap_remove(random.usize(..running.len()));
                        assert!(in_flight.finish(ended, false).is_some());
                        unwritten.push(ended);
                    }
                    2 if !unwritten.is_empty() => {
                        let written = unwritten.swap_remove(random.usize(..unwritten.len()));
                        assert!(in_flight.remove([written])[0].is_some());
                    }
                    _ => {}
                }
                assert!(in_flight.busy() <= workers && in_flight.len() <= 2 * workers);
                assert_eq!(
                    (in_flight.busy(), in_flight.len()),
                    (running.len(), running.len() + unwritten.len())
                );
            }
            let left: Vec<_> = running.into_iter().chain(unwritten).collect();
            in_flight.remove(left);
            assert_eq!(in_flight.capacity().jobs, workers, "nothing is used up for good");
        }
    }

    #[test]
    fn takes_under_way_share_the_room() {
        let in_flight = InFlight::new(4);
        let good = nth(1, 1, 0);
        add(&in_flight, &good);
        let first = in_flight.reserve(false);
        assert_eq!(first.capacity(), Capacity { jobs: 3, quarantine: Quarantine::Reserve });
        assert_eq!(in_flight.reserve(false).capacity().jobs, 0);
        // It brings two.
        add(&in_flight, &nth(2, 1, 0));
        add(&in_flight, &nth(3, 1, 0));
        assert_eq!(in_flight.capacity().jobs, 0, "until it has ended");
        thread::scope(|scope| {
            let waits = scope.spawn(|| in_flight.reserve(true).capacity().jobs);
            drop(first);
            assert_eq!(waits.join().unwrap(), 1, "one that has a job already waits for the end of the other");
        });
        assert_eq!(in_flight.capacity().jobs, 1);
        add(&in_flight, &nth(4, 1, 0));
        assert_eq!(
            in_flight.reserve(true).capacity().jobs,
            0,
            "all workers are busy: it does not wait for them"
        );
    }

    #[test]
    fn nothing_is_taken_beside_a_take_that_may_bring_a_last_chance() {
        let in_flight = InFlight::new(4);
        let first = in_flight.reserve(false);
        assert_eq!(first.capacity(), Capacity { jobs: 4, quarantine: Quarantine::Start });
        assert_eq!(in_flight.reserve(false).capacity(), Capacity { jobs: 0, quarantine: Quarantine::Skip });
        add(&in_flight, &nth(1, 1, MAX_CRASHES - 1));
        drop(first);
        assert_eq!(in_flight.capacity().jobs, 0);
        in_flight.remove([nth(1, 1, 0).attempt_id()]);
        in_flight.record_take(in_flight.capacity(), false);
        assert_eq!(in_flight.reserve(false).capacity().quarantine, Quarantine::Start);
        // Where it brings nothing others may take again, and one that waits ends with taking.
        let first = in_flight.reserve(false);
        thread::scope(|scope| {
            let waits = scope.spawn(|| in_flight.reserve(true).capacity().jobs);
            in_flight.close();
            assert_eq!(waits.join().unwrap(), 0);
        });
        drop(first);
    }

    #[test]
    fn jobs_with_a_crash_on_their_record_are_in_hand_side_by_side() {
        let in_flight = InFlight::new(4);
        assert_eq!(room(&in_flight), (4, Quarantine::Start));
        for number in 1..4 {
            add(&in_flight, &nth(number, 1, MAX_CRASHES - 2));
            assert_eq!(room(&in_flight), (4 - number as usize, Quarantine::Reserve));
        }
    }

    #[test]
    fn nothing_is_taken_beside_a_last_chance() {
        let in_flight = InFlight::new(4);
        let suspect = nth(1, 1, MAX_CRASHES - 1);
        add(&in_flight, &suspect);
        assert_eq!(in_flight.capacity().jobs, 0);
        in_flight.finish(suspect.attempt_id(), false);
        assert_eq!(in_flight.capacity().jobs, 0);
        in_flight.remove([suspect.attempt_id()]);
        assert_eq!(room(&in_flight), (4, Quarantine::Skip), "the turn of the others");
        in_flight.record_take(in_flight.capacity(), false);
        assert_eq!(room(&in_flight), (4, Quarantine::Start));
    }

    #[test]
    fn a_last_chance_that_waits_empties_the_server() {
        let in_flight = InFlight::new(4);
        let good = nth(1, 1, 0);
        add(&in_flight, &good);
        in_flight.record_take(in_flight.capacity(), true);
        assert_eq!(in_flight.capacity().jobs, 0);
        in_flight.finish(good.attempt_id(), false);
        in_flight.remove([good.attempt_id()]);
        assert_eq!(room(&in_flight), (4, Quarantine::Start));
        // Another server took it meanwhile.
        in_flight.record_take(in_flight.capacity(), false);
        add(&in_flight, &good);
        assert_eq!(room(&in_flight), (3, Quarantine::Reserve));
    }

    #[test]
    fn a_suspect_that_starts_again_stays_the_one_in_hand() {
        let in_flight = InFlight::new(4);
        let (first, second) = (nth(1, 1, MAX_CRASHES - 1), nth(1, 2, MAX_CRASHES - 1));
        add(&in_flight, &first);
        let _ = in_flight.finish(first.attempt_id(), true).unwrap();
        in_flight.restart(first.attempt_id(), Lease::for_tests(second.attempt_id()), &second);
        assert_eq!((in_flight.busy(), in_flight.len(), in_flight.capacity().jobs), (1, 1, 0));
        assert!(in_flight.start(second.attempt_id(), LONG));
        let _ = in_flight.finish(second.attempt_id(), false).unwrap();
        in_flight.remove([second.attempt_id()]);
        assert_eq!(room(&in_flight), (4, Quarantine::Skip));
    }

    #[test]
    fn who_waits_for_room_is_woken_by_room_and_by_the_end() {
        let in_flight = InFlight::new(1);
        let job = nth(1, 1, 0);
        add(&in_flight, &job);
        thread::scope(|scope| {
            let waits = scope.spawn(|| in_flight.wait_for_capacity());
            in_flight.finish(job.attempt_id(), false);
            assert_eq!(waits.join().unwrap().map(|capacity| capacity.jobs), Some(1));
        });
        add(&in_flight, &nth(2, 1, 0));
        thread::scope(|scope| {
            let waits = scope.spawn(|| in_flight.wait_for_capacity());
            in_flight.close();
            assert_eq!(waits.join().unwrap(), None);
        });
    }

    #[test]
    fn nothing_begins_once_it_was_stopped_or_taking_has_ended() {
        let in_flight = InFlight::new(4);
        let (stopped, late) = (nth(1, 1, 0), nth(2, 1, 0));
        add(&in_flight, &stopped);
        add(&in_flight, &late);
        in_flight.stop(stopped.id, StopReason::Cancelled);
        assert!(!in_flight.start(stopped.attempt_id(), LONG));
        in_flight.close();
        assert!(!in_flight.start(late.attempt_id(), LONG));
        assert!(!in_flight.start(nth(3, 1, 0).attempt_id(), LONG), "not in hand at all");
    }

    /// Lets an attempt time out and not stop, until it is given up.
    fn give_up(in_flight: &InFlight, job: &Arc<Job>, stop: &StopSignal) -> Abandoned {
        assert!(in_flight.start(job.attempt_id(), Duration::ZERO));
        assert!(in_flight.watch_deadlines(None).unwrap().is_empty());
        assert_eq!(stop.reason(), Some(StopReason::TimedOut));
        in_flight.state().entries.get_mut(&job.attempt_id()).unwrap().deadline = Some(Instant::now());
        in_flight.watch_deadlines(None).unwrap().remove(0)
    }

    #[test]
    fn an_attempt_is_settled_by_its_worker_or_by_the_watchdog() {
        let in_flight = InFlight::new(1);
        let job = nth(1, 1, 0);
        let stop = add(&in_flight, &job);
        let given_up = give_up(&in_flight, &job, &stop);
        assert_eq!((given_up.lease.attempt_id(), given_up.reason), (job.attempt_id(), StopReason::TimedOut));
        assert_eq!((in_flight.busy(), in_flight.len()), (0, 1));
        assert_eq!(in_flight.finish(job.attempt_id(), false), None);
        assert_eq!(in_flight.busy(), 0);

        let in_flight = InFlight::new(1);
        add(&in_flight, &job);
        assert!(in_flight.start(job.attempt_id(), Duration::ZERO));
        assert!(in_flight.finish(job.attempt_id(), false).is_some());
        in_flight.close();
        assert!(in_flight.watch_deadlines(None).is_none());
        assert_eq!(in_flight.finish(job.attempt_id(), false), None);
    }

    #[test]
    fn a_given_up_attempt_has_nothing_to_say_about_the_next_one() {
        let in_flight = InFlight::new(2);
        let (first, second) = (nth(1, 1, 0), nth(1, 2, 0));
        let stop = add(&in_flight, &first);
        give_up(&in_flight, &first, &stop);
        in_flight.remove([first.attempt_id()]);
        // The same server has taken the job again when the first handler returns after all.
        add(&in_flight, &second);
        assert!(in_flight.start(second.attempt_id(), LONG));
        assert_eq!(in_flight.finish(first.attempt_id(), false), None);
        assert_eq!(in_flight.busy(), 1);
        assert_eq!(in_flight.finish(second.attempt_id(), false).unwrap().attempt_id(), second.attempt_id());
    }

    #[test]
    fn a_job_that_was_taken_over_can_be_taken_again_while_its_old_attempt_ends() {
        let in_flight = InFlight::new(2);
        let (old, new) = (nth(1, 1, 0), nth(1, 2, 0));
        let stop = add(&in_flight, &old);
        assert!(in_flight.start(old.attempt_id(), LONG));
        in_flight.stop_all(StopReason::TakenOver);
        let new_stop = add(&in_flight, &new);
        assert!(in_flight.start(new.attempt_id(), LONG));
        assert_eq!((stop.reason(), new_stop.reason()), (Some(StopReason::TakenOver), None));
        assert_eq!((in_flight.busy(), in_flight.capacity().jobs), (2, 0));
        assert_eq!(in_flight.finish(old.attempt_id(), false).unwrap().attempt_id(), old.attempt_id());
        in_flight.remove([old.attempt_id()]);
        assert!(in_flight.contains(new.id));
        assert_eq!(in_flight.finish(new.attempt_id(), false).unwrap().attempt_id(), new.attempt_id());
        in_flight.remove([new.attempt_id()]);
        assert_eq!((in_flight.busy(), in_flight.len(), in_flight.capacity().jobs), (0, 0, 2));
        assert!(!in_flight.contains(new.id));
    }

    #[test]
    fn a_cancel_reaches_every_attempt_at_the_job_and_no_other() {
        let in_flight = InFlight::new(4);
        let stops = [nth(1, 1, 0), nth(1, 2, 0), nth(2, 1, 0)].map(|job| add(&in_flight, &job).clone());
        in_flight.stop(JobId::new(1).unwrap(), StopReason::Cancelled);
        let reasons = stops.map(|stop| stop.reason());
        assert_eq!(reasons, [Some(StopReason::Cancelled), Some(StopReason::Cancelled), None]);
    }
}
