//! The registry of in-flight jobs: jobs that this server has started, and whose outcome Redis does not have yet.
//!
//! [`InFlight`] computes the capacity, stops attempts, and gives the lease of an attempt to the first caller: the worker
//! that ran the attempt, or the watchdog that abandoned the attempt.
//!
//! The registry knows attempts, not jobs. An attempt that was abandoned or reclaimed may still run while this server has
//! started the next attempt at the same job, and the outcome of the old attempt must not count for the new one.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::Thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::engine::admission::Admission;
use crate::engine::assignments::{Assignments, Seat};
use crate::handler::{StopReason, StopSignal};
use crate::job::{AttemptId, Job, JobId};
use crate::queue::Lease;
use crate::sorting;
use crate::sync;

pub use crate::engine::admission::Capacity;
pub use crate::engine::assignments::Assignment;

/// How long an attempt may run on after its stop signal. Then the watchdog abandons its thread.
///
/// A little more than the 5 s that an exec handler gives its program between SIGTERM and SIGKILL, so that a thread that
/// is about to return is not replaced.
pub const STOP_GRACE: Duration = Duration::from_millis(5_500);

/// The most workers whose activity is reported.
const MAX_REPORTED: usize = 1_000;

/// An attempt whose handler ignored the stop signal.
#[derive(Debug)]
pub struct Abandoned {
    /// The right to settle the attempt.
    pub lease: Lease,
    /// The job at the start of the attempt.
    pub job: Arc<Job>,
    /// Why the attempt was asked to stop.
    pub reason: StopReason,
    /// How long the attempt has run.
    pub time: Duration,
}

/// What a worker thread does now. Other servers read the activity from Redis.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Activity {
    /// The name of the thread. `None` while the job waits for a worker.
    pub thread: Option<String>,
    /// The id of the job.
    pub job: u64,
    /// The job type.
    #[serde(rename = "type")]
    pub job_type: String,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// How long the attempt has run.
    pub for_ms: u64,
    /// How far the worker is.
    pub state: WorkerState,
}

/// How far a worker is with its job.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// The job is on its way to the worker.
    Starting,
    /// The handler runs.
    Running,
    /// The handler was asked to stop and still runs.
    Stopping,
    /// The worker sleeps a short backoff before the next attempt.
    BackingOff,
}

struct Entry {
    /// `None` once the thread that settles the attempt has the lease.
    lease: Option<Lease>,
    stop: StopSignal,
    /// When the watchdog looks at the attempt: when it times out or has been silent for too long or, after the stop signal,
    /// when it is abandoned. `None` while the handler does not run, or waits for its program.
    deadline: Option<Instant>,
    /// Whether the job still needs a worker.
    occupies_worker: bool,
    /// `None` until the handler runs.
    run: Option<Run>,
    job: Arc<Job>,
}

/// The run of a handler on a thread.
struct Run {
    thread: Thread,
    /// When the handler began or, if it had to wait for its program, when it got the program.
    started: Instant,
    /// Whether the handler waits for its program.
    waits: bool,
    timeout: Duration,
    /// How long the attempt may report nothing; `None` if it need not report.
    silence: Option<Duration>,
    /// When the attempt has reported something last, at first its start.
    heard: Instant,
}

impl Run {
    /// When the attempt is to stop, and why, if it reports nothing more.
    fn end(&self) -> (Instant, StopReason) {
        let timed_out = (self.started + self.timeout, StopReason::TimedOut);
        let silent = self.silence.map(|time| (self.heard + time, StopReason::Silent(time)));
        silent.filter(|silent| silent.0 < timed_out.0).unwrap_or(timed_out)
    }
}

impl Entry {
    /// The entry of a job that has not started. Only a job with a lease needs a worker: a broken job has none here.
    fn new(lease: Option<Lease>, stop: StopSignal, job: &Arc<Job>) -> Entry {
        let occupies_worker = lease.is_some();
        Entry { lease, stop, deadline: None, occupies_worker, run: None, job: job.clone() }
    }

    fn activity(&self) -> Activity {
        let state = match (&self.run, self.deadline) {
            (None, _) => WorkerState::Starting,
            (Some(_), Some(_)) if self.stop.reason().is_some() => WorkerState::Stopping,
            (Some(_), Some(_)) => WorkerState::Running,
            (Some(run), None) if run.waits => WorkerState::Starting,
            (Some(_), None) => WorkerState::BackingOff,
        };
        Activity {
            thread: self.run.as_ref().and_then(|run| run.thread.name().map(str::to_owned)),
            job: self.job.id.get(),
            job_type: self.job.job_type.clone(),
            attempt: self.job.attempts + 1,
            for_ms: self.run.as_ref().map_or(0, |run| run.started.elapsed().as_millis() as u64),
            state,
        }
    }
}

struct State {
    entries: HashMap<AttemptId, Entry>,
    admission: Admission,
    assignments: Assignments,
    /// The number of threads that wait for capacity. At 0 no thread is notified: a notification costs a system call, and
    /// jobs end often.
    waiting: usize,
    /// When the watchdog checks deadlines next. `None` while the watchdog sleeps until it is notified.
    next_check: Option<Instant>,
}

impl State {
    fn insert(&mut self, lease: Lease, job: &Arc<Job>, max_crashes: u32) -> StopSignal {
        let stop = StopSignal::default();
        let id = lease.attempt_id();
        self.admission.add(id, job.needs_quarantine(max_crashes));
        self.entries.insert(id, Entry::new(Some(lease), stop.clone(), job));
        stop
    }

    /// Whether a take may begin now. While jobs wait for a worker, no take is needed: the workers run these jobs first.
    /// Then the take has room for more jobs.
    fn may_take(&self) -> bool {
        self.assignments.is_empty() && self.admission.capacity().jobs > 0
    }

    /// Whether workers without a job end: taking has ended, and no take is under way.
    fn workers_end(&self) -> bool {
        self.admission.is_closed && self.admission.reserved == 0
    }

    fn free_worker(&mut self, id: AttemptId) {
        if let Some(entry) = self.entries.get_mut(&id)
            && std::mem::take(&mut entry.occupies_worker)
        {
            self.admission.free_worker();
        }
    }
}

/// The in-flight jobs of this server. Shared by all threads.
pub struct InFlight {
    state: Mutex<State>,
    /// Notified when there is capacity, or when taking has ended.
    capacity_freed: Condvar,
    /// Notified when a take has ended.
    take_ended: Condvar,
    /// Notified when a deadline was set that may be the earliest one.
    deadline_set: Condvar,
}

/// The capacity that one take may use. The fetcher drops it after it has inserted the jobs of the take.
pub struct Reservation<'a> {
    in_flight: &'a InFlight,
    capacity: Capacity,
}

impl Reservation<'_> {
    /// The limits of the take.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut state = self.in_flight.state();
        state.admission.end_reservation(self.capacity);
        self.in_flight.take_ended.notify_all();
        let calls = state.workers_end().then(|| state.assignments.call_all());
        self.in_flight.notify_capacity(state);
        if let Some(calls) = calls {
            calls.wake();
        }
    }
}

impl InFlight {
    /// The empty registry of a server with this number of worker threads.
    pub fn new(workers: usize) -> InFlight {
        let state = State {
            entries: HashMap::new(),
            admission: Admission::new(workers),
            assignments: Assignments::new(workers),
            waiting: 0,
            next_check: None,
        };
        InFlight {
            state: Mutex::new(state),
            capacity_freed: Condvar::new(),
            take_ended: Condvar::new(),
            deadline_set: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    /// The limits of a take that begins now.
    pub fn capacity(&self) -> Capacity {
        self.state().admission.capacity()
    }

    /// Waits until no job waits for a worker and a take may start at least one job. `None` after [`InFlight::close`].
    pub fn wait_for_capacity(&self) -> Option<Capacity> {
        let mut state = self.state();
        state.waiting += 1;
        let must_wait = |state: &mut State| !state.admission.is_closed && !state.may_take();
        let mut state = sync::wait_while(&self.capacity_freed, state, must_wait);
        state.waiting -= 1;
        (!state.admission.is_closed).then(|| state.admission.capacity())
    }

    /// Reserves the whole capacity for one take. If other takes have reserved all capacity, a take that `has_claimed` a
    /// job waits for their end: without capacity the claimed job would return to its queue.
    pub fn reserve(&self, has_claimed: bool) -> Reservation<'_> {
        let waits = |state: &mut State| {
            let admission = &state.admission;
            has_claimed && !admission.is_closed && admission.reserved > 0 && admission.capacity().jobs == 0
        };
        let mut state = sync::wait_while(&self.take_ended, self.state(), waits);
        let capacity = state.admission.reserve();
        Reservation { in_flight: self, capacity }
    }

    /// Ends taking for good. Workers end once they have no job, and no take is under way. An attempt that waits for its program
    /// is asked to stop: nothing of it runs yet.
    pub fn close(&self) {
        let mut state = self.state();
        state.admission.is_closed = true;
        let waits = |entry: &&Entry| entry.run.as_ref().is_some_and(|run| run.waits);
        state.entries.values().filter(waits).for_each(|entry| entry.stop.stop(StopReason::Shutdown));
        let calls = state.assignments.call_all();
        drop(state);
        calls.wake();
        self.take_ended.notify_all();
        self.capacity_freed.notify_all();
        self.deadline_set.notify_all();
    }

    /// Wakes the threads that wait for capacity, if there is capacity now.
    fn notify_capacity(&self, state: MutexGuard<'_, State>) {
        let notifies = state.waiting > 0 && (state.admission.is_closed || state.may_take());
        drop(state);
        if notifies {
            self.capacity_freed.notify_all();
        }
    }

    /// Adds jobs that were taken, for the workers. `max_crashes` decides whether a job is quarantined.
    pub fn insert(&self, jobs: impl IntoIterator<Item = (Lease, Arc<Job>)>, max_crashes: u32) {
        let mut state = self.state();
        for (lease, job) in jobs {
            let stop = state.insert(lease, &job, max_crashes);
            state.assignments.push((job, stop));
        }
        let calls = state.assignments.call();
        drop(state);
        calls.wake();
    }

    /// Adds a job that was taken and cannot be run. The caller sends its lease to the committer.
    pub fn insert_broken(&self, lease: &Lease, job: &Arc<Job>) {
        let mut state = self.state();
        state.admission.add_broken();
        state.entries.insert(lease.attempt_id(), Entry::new(None, StopSignal::default(), job));
    }

    /// Records that Redis has executed a take with this capacity, and that its jobs are inserted. `must_drain`: a
    /// quarantined job waits until no job is in flight here.
    pub fn record_take(&self, capacity: Capacity, must_drain: bool) {
        let mut state = self.state();
        state.admission.record_take(capacity, must_drain);
        self.notify_capacity(state);
    }

    /// Waits for a job for the current thread, which is a worker. `None` when taking has ended and no job waits.
    pub fn next(&self, seat: &Arc<Seat>) -> Option<Assignment> {
        let mut state = self.state();
        loop {
            if let Some(assignment) = state.assignments.pop() {
                let calls = state.assignments.call();
                self.notify_capacity(state);
                calls.wake();
                return Some(assignment);
            }
            if state.workers_end() {
                return None;
            }
            state.assignments.add_idle(seat);
            state = seat.wait(state);
            state.assignments.has_come();
        }
    }

    /// Starts an attempt on the current thread, with a timeout, and with a time for which it may report nothing. `false` if the
    /// attempt must not start any more.
    pub fn start(&self, id: AttemptId, timeout: Duration, silence: Option<Duration>) -> bool {
        let mut state = self.state();
        let is_closed = state.admission.is_closed;
        let Some(entry) = state.entries.get_mut(&id) else { return false };
        if is_closed || entry.stop.reason().is_some() {
            return false;
        }
        let now = Instant::now();
        let thread = std::thread::current();
        let run = Run { thread, started: now, waits: false, timeout, silence, heard: now };
        let (deadline, _) = run.end();
        entry.run = Some(run);
        entry.deadline = Some(deadline);
        self.wake_watchdog(&mut state, deadline);
        true
    }

    /// Wakes the watchdog if it looks too late at an attempt with this deadline.
    fn wake_watchdog(&self, state: &mut State, deadline: Instant) {
        if state.next_check.is_none_or(|at| deadline < at) {
            state.next_check = Some(deadline);
            self.deadline_set.notify_one();
        }
    }

    /// Stops the clocks of an attempt while it waits for its program. Afterwards the timeout and the silence begin anew. An
    /// attempt that was asked to stop keeps its deadline.
    pub fn set_waiting(&self, id: AttemptId, waits: bool) {
        let mut state = self.state();
        let is_closed = state.admission.is_closed;
        let Some(entry) = state.entries.get_mut(&id) else { return };
        let Some(run) = entry.run.as_mut().filter(|_| entry.stop.reason().is_none()) else { return };
        run.waits = waits;
        run.started = Instant::now();
        run.heard = run.started;
        let (deadline, _) = run.end();
        entry.deadline = (!waits).then_some(deadline);
        if waits && is_closed {
            entry.stop.stop(StopReason::Shutdown);
        }
        if !waits {
            self.wake_watchdog(&mut state, deadline);
        }
    }

    /// Records that an attempt has reported something. `false` if the attempt has ended: then its reports are worthless.
    pub fn hear(&self, id: AttemptId) -> bool {
        let mut state = self.state();
        let Some(entry) = state.entries.get_mut(&id).filter(|entry| entry.lease.is_some()) else {
            return false;
        };
        if let Some(run) = &mut entry.run {
            run.heard = Instant::now();
        }
        true
    }

    /// Ends an attempt on its thread, and returns the right to settle it. `keeps_worker`: the thread retries the job.
    /// `None` if the attempt was abandoned: then the thread has been replaced.
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

    /// Continues a job with its next attempt on the same thread. `lease` is the lease of the next attempt.
    pub fn restart(&self, ended: AttemptId, lease: Lease, job: &Arc<Job>) {
        let mut state = self.state();
        let Some(mut entry) = state.entries.remove(&ended) else { return };
        let next = lease.attempt_id();
        entry.lease = Some(lease);
        entry.job = job.clone();
        state.entries.insert(next, entry);
        state.admission.restart(ended, next);
    }

    /// Frees the worker of an attempt whose thread kept it for a retry, and does not retry.
    pub fn free_worker(&self, id: AttemptId) {
        let mut state = self.state();
        state.free_worker(id);
        self.notify_capacity(state);
    }

    /// Removes attempts whose outcome is stored, or whose job another server has reclaimed. Returns the job of each
    /// attempt, `None` for an attempt that was not in flight.
    pub fn remove(&self, ids: impl IntoIterator<Item = AttemptId>) -> Vec<Option<Arc<Job>>> {
        let mut state = self.state();
        let mut jobs = Vec::new();
        for id in ids {
            state.free_worker(id);
            let entry = state.entries.remove(&id);
            if entry.is_some() {
                state.admission.remove(id);
            }
            jobs.push(entry.map(|entry| entry.job));
        }
        self.notify_capacity(state);
        jobs
    }

    /// Asks all attempts at one job to stop.
    pub fn stop(&self, id: JobId, reason: StopReason) {
        self.stop_entries(reason, |attempt| attempt.job == id);
    }

    /// Asks one attempt to stop.
    pub fn stop_attempt(&self, id: AttemptId, reason: StopReason) {
        self.stop_entries(reason, |attempt| *attempt == id);
    }

    /// Asks all attempts to stop.
    pub fn stop_all(&self, reason: StopReason) {
        self.stop_entries(reason, |_| true);
    }

    /// Ends the grace period of all attempts that were asked to stop.
    pub fn hurry_all(&self) {
        self.state().entries.values().for_each(|entry| entry.stop.hurry());
    }

    fn stop_entries(&self, reason: StopReason, is_meant: impl Fn(&AttemptId) -> bool) {
        let mut state = self.state();
        for (_, entry) in state.entries.iter_mut().filter(|(id, _)| is_meant(id)) {
            if entry.stop.reason().is_none() {
                entry.stop.stop(reason);
                entry.deadline = entry.deadline.map(|_| Instant::now() + STOP_GRACE);
            }
        }
        self.deadline_set.notify_one();
    }

    /// The number of in-flight jobs.
    pub fn len(&self) -> usize {
        self.state().entries.len()
    }

    /// Whether no job is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of attempts whose outcome waits for the committer.
    pub fn outcomes(&self) -> usize {
        let state = self.state();
        state.admission.in_flight - state.admission.busy
    }

    /// The job of an attempt that is in flight.
    pub fn job(&self, id: AttemptId) -> Option<Arc<Job>> {
        self.state().entries.get(&id).map(|entry| entry.job.clone())
    }

    /// Whether an attempt at this job is in flight.
    pub fn contains(&self, id: JobId) -> bool {
        self.state().entries.keys().any(|attempt| attempt.job == id)
    }

    /// The number of attempts that run or wait for a worker.
    pub fn busy(&self) -> usize {
        self.state().admission.busy
    }

    /// The activity of all workers that have a job, sorted by the names of their threads.
    pub fn activity(&self) -> Vec<Activity> {
        let state = self.state();
        let busy = state.entries.values().filter(|entry| entry.occupies_worker);
        let mut activity: Vec<Activity> = busy.map(Entry::activity).take(MAX_REPORTED).collect();
        drop(state);
        sorting::sort_by(&mut activity, |a, b| {
            let [a, b] = [a, b].map(|one| one.thread.as_ref().map(|name| (name.len(), name)));
            a.cmp(&b)
        });
        activity
    }

    /// The number of worker threads that are not abandoned.
    pub fn workers(&self) -> usize {
        self.state().admission.workers
    }

    /// Changes the number of worker threads: -1 for an abandoned thread, +1 for its replacement.
    pub fn change_workers(&self, by: isize) {
        let mut state = self.state();
        state.admission.workers = state.admission.workers.saturating_add_signed(by);
        self.notify_capacity(state);
    }

    /// Waits for the next deadline, at most for `at_most` if given. Asks attempts that timed out to stop, and abandons
    /// attempts whose grace period is over. Returns the abandoned attempts (often an empty list), or `None` when taking
    /// has ended and no attempt runs.
    pub fn watch_deadlines(&self, at_most: Option<Duration>) -> Option<Vec<Abandoned>> {
        let mut state = self.state();
        if state.admission.is_closed && state.admission.busy == 0 {
            return None;
        }
        state.next_check = state.entries.values().filter_map(|entry| entry.deadline).min();
        let until_deadline = state.next_check.map(|at| at.saturating_duration_since(Instant::now()));
        let mut state = match until_deadline.into_iter().chain(at_most).min() {
            Some(Duration::ZERO) => state,
            Some(time) => sync::wait_timeout(&self.deadline_set, state, time),
            None => sync::wait(&self.deadline_set, state),
        };
        let now = Instant::now();
        let State { entries, admission, .. } = &mut *state;
        let mut abandoned = Vec::new();
        for entry in entries.values_mut().filter(|entry| entry.deadline.is_some_and(|at| at <= now)) {
            let Some(reason) = entry.stop.reason() else {
                let (end, why) = entry.run.as_ref().map_or((now, StopReason::TimedOut), Run::end);
                if end <= now {
                    entry.stop.stop(why);
                }
                // Later than before, if the attempt has reported something meanwhile.
                entry.deadline = Some(if end <= now { now + STOP_GRACE } else { end });
                continue;
            };
            entry.deadline = None;
            if std::mem::take(&mut entry.occupies_worker) {
                admission.free_worker();
            }
            let time = entry.run.as_ref().map_or(Duration::ZERO, |run| now - run.started);
            let job = entry.job.clone();
            abandoned.extend(entry.lease.take().map(|lease| Abandoned { lease, job, reason, time }));
        }
        Some(abandoned)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::handler::testing::job;
    use crate::job::JobId;
    use crate::queue::Quarantine;

    const MAX_CRASHES: u32 = 3;
    const LONG: Duration = Duration::from_secs(3600);

    fn nth(number: u64, start: u64, crashes: u32) -> Arc<Job> {
        Arc::new(Job { id: JobId::new(number).unwrap(), starts: start, crashes, ..job("{}") })
    }

    /// Inserts a job, as a fetcher does.
    fn insert(in_flight: &InFlight, job: &Arc<Job>) -> StopSignal {
        in_flight.state().insert(Lease::for_tests(job.attempt_id()), job, MAX_CRASHES)
    }

    fn capacity(in_flight: &InFlight) -> (usize, Quarantine) {
        let capacity = in_flight.capacity();
        (capacity.jobs, capacity.quarantine)
    }

    #[test]
    fn the_activity_has_the_state_of_each_worker() {
        let in_flight = InFlight::new(3);
        let (first, second) = (nth(1, 1, 0), nth(2, 1, 0));
        insert(&in_flight, &first);
        let doing = || in_flight.activity().into_iter().map(|one| (one.job, one.state)).collect::<Vec<_>>();
        assert_eq!(doing(), [(1, WorkerState::Starting)]);
        assert!(in_flight.start(first.attempt_id(), LONG, None));
        assert_eq!(doing(), [(1, WorkerState::Running)]);
        let thread = in_flight.activity()[0].thread.clone();
        assert_eq!(thread.as_deref(), std::thread::current().name());
        in_flight.stop(first.id, StopReason::Cancelled);
        assert_eq!(doing(), [(1, WorkerState::Stopping)]);
        assert!(in_flight.finish(first.attempt_id(), false).is_some());
        assert_eq!(doing(), [], "its outcome is not stored, but its worker is free");
        insert(&in_flight, &second);
        assert!(in_flight.start(second.attempt_id(), LONG, None));
        assert!(in_flight.finish(second.attempt_id(), true).is_some());
        assert_eq!(doing(), [(2, WorkerState::BackingOff)]);
    }

    #[test]
    fn at_most_as_many_attempts_run_as_workers_and_twice_as_many_jobs_are_in_flight() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..300 {
            let workers = random.usize(1..6);
            let in_flight = InFlight::new(workers);
            let (mut running, mut unstored) = (Vec::new(), Vec::new());
            for number in 1..200 {
                match random.u32(..3) {
                    0 => {
                        for n in 0..in_flight.capacity().jobs {
                            let job = nth(number * 100 + n as u64, 1, 0);
                            insert(&in_flight, &job);
                            assert!(in_flight.start(job.attempt_id(), LONG, None));
                            running.push(job.attempt_id());
                        }
                    }
                    1 if !running.is_empty() => {
                        let ended = running.swap_remove(random.usize(..running.len()));
                        assert!(in_flight.finish(ended, false).is_some());
                        unstored.push(ended);
                    }
                    2 if !unstored.is_empty() => {
                        let stored = unstored.swap_remove(random.usize(..unstored.len()));
                        assert!(in_flight.remove([stored])[0].is_some());
                    }
                    _ => {}
                }
                assert!(in_flight.busy() <= workers && in_flight.len() <= 2 * workers);
                assert_eq!(
                    (in_flight.busy(), in_flight.len()),
                    (running.len(), running.len() + unstored.len())
                );
            }
            let left: Vec<_> = running.into_iter().chain(unstored).collect();
            in_flight.remove(left);
            assert_eq!(in_flight.capacity().jobs, workers, "all capacity is free again");
        }
    }

    #[test]
    fn takes_under_way_share_the_capacity() {
        let in_flight = InFlight::new(4);
        let good = nth(1, 1, 0);
        insert(&in_flight, &good);
        let first = in_flight.reserve(false);
        assert_eq!(first.capacity(), Capacity { jobs: 3, quarantine: Quarantine::Reserve });
        assert_eq!(in_flight.reserve(false).capacity().jobs, 0);
        // This take brings two jobs.
        insert(&in_flight, &nth(2, 1, 0));
        insert(&in_flight, &nth(3, 1, 0));
        assert_eq!(in_flight.capacity().jobs, 0, "until the take has ended");
        thread::scope(|scope| {
            let waits = scope.spawn(|| in_flight.reserve(true).capacity().jobs);
            drop(first);
            assert_eq!(
                waits.join().unwrap(),
                1,
                "a take that has claimed a job waits for the end of the other"
            );
        });
        assert_eq!(in_flight.capacity().jobs, 1);
        insert(&in_flight, &nth(4, 1, 0));
        assert_eq!(
            in_flight.reserve(true).capacity().jobs,
            0,
            "all workers are busy: it does not wait for them"
        );
    }

    #[test]
    fn nothing_is_taken_beside_a_take_that_may_bring_a_quarantined_job() {
        let in_flight = InFlight::new(4);
        let first = in_flight.reserve(false);
        assert_eq!(first.capacity(), Capacity { jobs: 4, quarantine: Quarantine::Start });
        assert_eq!(in_flight.reserve(false).capacity(), Capacity { jobs: 0, quarantine: Quarantine::Skip });
        insert(&in_flight, &nth(1, 1, MAX_CRASHES - 1));
        drop(first);
        assert_eq!(in_flight.capacity().jobs, 0);
        in_flight.remove([nth(1, 1, 0).attempt_id()]);
        in_flight.record_take(in_flight.capacity(), false);
        assert_eq!(in_flight.reserve(false).capacity().quarantine, Quarantine::Start);
        // After a take that brought nothing others may take again. A take that waits ends with taking.
        let first = in_flight.reserve(false);
        thread::scope(|scope| {
            let waits = scope.spawn(|| in_flight.reserve(true).capacity().jobs);
            in_flight.close();
            assert_eq!(waits.join().unwrap(), 0);
        });
        drop(first);
    }

    #[test]
    fn jobs_with_a_crash_that_are_not_quarantined_run_side_by_side() {
        let in_flight = InFlight::new(4);
        assert_eq!(capacity(&in_flight), (4, Quarantine::Start));
        for number in 1..4 {
            insert(&in_flight, &nth(number, 1, MAX_CRASHES - 2));
            assert_eq!(capacity(&in_flight), (4 - number as usize, Quarantine::Reserve));
        }
    }

    #[test]
    fn nothing_is_taken_beside_a_quarantined_job() {
        let in_flight = InFlight::new(4);
        let quarantined = nth(1, 1, MAX_CRASHES - 1);
        insert(&in_flight, &quarantined);
        assert_eq!(in_flight.capacity().jobs, 0);
        in_flight.finish(quarantined.attempt_id(), false);
        assert_eq!(in_flight.capacity().jobs, 0);
        in_flight.remove([quarantined.attempt_id()]);
        assert_eq!(capacity(&in_flight), (4, Quarantine::Skip), "other jobs are next");
        in_flight.record_take(in_flight.capacity(), false);
        assert_eq!(capacity(&in_flight), (4, Quarantine::Start));
    }

    #[test]
    fn a_quarantined_job_that_waits_drains_the_server() {
        let in_flight = InFlight::new(4);
        let good = nth(1, 1, 0);
        insert(&in_flight, &good);
        in_flight.record_take(in_flight.capacity(), true);
        assert_eq!(in_flight.capacity().jobs, 0);
        in_flight.finish(good.attempt_id(), false);
        in_flight.remove([good.attempt_id()]);
        assert_eq!(capacity(&in_flight), (4, Quarantine::Start));
        // Another server has taken the quarantined job meanwhile.
        in_flight.record_take(in_flight.capacity(), false);
        insert(&in_flight, &good);
        assert_eq!(capacity(&in_flight), (3, Quarantine::Reserve));
    }

    #[test]
    fn a_quarantined_job_that_is_retried_inline_stays_quarantined() {
        let in_flight = InFlight::new(4);
        let (first, second) = (nth(1, 1, MAX_CRASHES - 1), nth(1, 2, MAX_CRASHES - 1));
        insert(&in_flight, &first);
        let _ = in_flight.finish(first.attempt_id(), true).unwrap();
        in_flight.restart(first.attempt_id(), Lease::for_tests(second.attempt_id()), &second);
        assert_eq!((in_flight.busy(), in_flight.len(), in_flight.capacity().jobs), (1, 1, 0));
        assert!(in_flight.start(second.attempt_id(), LONG, None));
        let _ = in_flight.finish(second.attempt_id(), false).unwrap();
        in_flight.remove([second.attempt_id()]);
        assert_eq!(capacity(&in_flight), (4, Quarantine::Skip));
    }

    #[test]
    fn capacity_and_the_end_wake_a_thread_that_waits_for_capacity() {
        let in_flight = InFlight::new(1);
        let job = nth(1, 1, 0);
        insert(&in_flight, &job);
        thread::scope(|scope| {
            let waits = scope.spawn(|| in_flight.wait_for_capacity());
            in_flight.finish(job.attempt_id(), false);
            assert_eq!(waits.join().unwrap().map(|capacity| capacity.jobs), Some(1));
        });
        insert(&in_flight, &nth(2, 1, 0));
        thread::scope(|scope| {
            let waits = scope.spawn(|| in_flight.wait_for_capacity());
            in_flight.close();
            assert_eq!(waits.join().unwrap(), None);
        });
    }

    /// Takes jobs for workers, as a fetcher does. They wait until [`InFlight::next`] returns them.
    fn take(in_flight: &InFlight, jobs: impl IntoIterator<Item = u64>) {
        let jobs = jobs.into_iter().map(|number| nth(number, 1, 0));
        in_flight.insert(jobs.map(|job| (Lease::for_tests(job.attempt_id()), job)), MAX_CRASHES);
    }

    fn next(in_flight: &InFlight) -> Option<u64> {
        in_flight.next(&Arc::default()).map(|(job, _)| job.id.get())
    }

    #[test]
    fn jobs_of_one_take_run_side_by_side() {
        const WORKERS: usize = 50;
        let in_flight = InFlight::new(WORKERS);
        let all_run = std::sync::Barrier::new(WORKERS);
        let order = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    sync::lock(&order).extend(next(&in_flight));
                    all_run.wait();
                });
            }
            take(&in_flight, 1..=WORKERS as u64);
        });
        let mut order = order.into_inner().unwrap();
        order.sort_unstable();
        assert!(order.into_iter().eq(1..=WORKERS as u64));
    }

    #[test]
    fn no_take_begins_while_jobs_wait_for_a_worker() {
        let in_flight = InFlight::new(4);
        take(&in_flight, [1, 2]);
        thread::scope(|scope| {
            let waits = scope.spawn(|| in_flight.wait_for_capacity());
            assert_eq!(next(&in_flight), Some(1));
            assert!(!in_flight.state().may_take());
            assert_eq!(next(&in_flight), Some(2));
            assert_eq!(waits.join().unwrap().map(|capacity| capacity.jobs), Some(2));
        });
    }

    #[test]
    fn workers_end_when_the_last_take_has_ended_and_no_job_waits() {
        let in_flight = InFlight::new(4);
        let last = in_flight.reserve(false);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..3).map(|_| scope.spawn(|| next(&in_flight))).collect();
            in_flight.close();
            take(&in_flight, [1]);
            drop(last);
            let got: Vec<u64> = workers.into_iter().filter_map(|worker| worker.join().unwrap()).collect();
            assert_eq!(got, [1]);
        });
        assert_eq!(next(&in_flight), None);
    }

    #[test]
    fn no_attempt_starts_after_it_was_stopped_or_taking_has_ended() {
        let in_flight = InFlight::new(4);
        let (stopped, late) = (nth(1, 1, 0), nth(2, 1, 0));
        insert(&in_flight, &stopped);
        insert(&in_flight, &late);
        in_flight.stop(stopped.id, StopReason::Cancelled);
        assert!(!in_flight.start(stopped.attempt_id(), LONG, None));
        in_flight.close();
        assert!(!in_flight.start(late.attempt_id(), LONG, None));
        assert!(!in_flight.start(nth(3, 1, 0).attempt_id(), LONG, None), "not in flight");
    }

    /// An attempt that times out and ignores the stop signal until it is abandoned.
    fn abandon(in_flight: &InFlight, job: &Arc<Job>, stop: &StopSignal) -> Abandoned {
        assert!(in_flight.start(job.attempt_id(), Duration::ZERO, None));
        assert!(in_flight.watch_deadlines(None).unwrap().is_empty());
        assert_eq!(stop.reason(), Some(StopReason::TimedOut));
        in_flight.state().entries.get_mut(&job.attempt_id()).unwrap().deadline = Some(Instant::now());
        in_flight.watch_deadlines(None).unwrap().remove(0)
    }

    #[test]
    fn an_attempt_that_reports_nothing_for_too_long_is_stopped() {
        let in_flight = InFlight::new(3);
        let (silent, speaking, late) = (nth(1, 1, 0), nth(2, 1, 0), nth(3, 1, 0));
        let stops = [&silent, &speaking, &late].map(|job| insert(&in_flight, job));
        let short = Duration::from_millis(1);
        assert!(in_flight.start(silent.attempt_id(), LONG, Some(short)));
        assert!(in_flight.start(speaking.attempt_id(), LONG, Some(LONG / 2)));
        assert!(in_flight.start(late.attempt_id(), Duration::ZERO, Some(LONG / 2)));
        assert!(in_flight.hear(speaking.attempt_id()));
        // As if the time had come at which it had been silent for too long without the report.
        in_flight.state().entries.get_mut(&speaking.attempt_id()).unwrap().deadline = Some(Instant::now());
        while stops[0].reason().is_none() {
            assert!(in_flight.watch_deadlines(None).unwrap().is_empty());
        }
        let reasons = stops.map(|stop| stop.reason());
        assert_eq!(reasons, [Some(StopReason::Silent(short)), None, Some(StopReason::TimedOut)]);
        let deadline = in_flight.state().entries[&speaking.attempt_id()].deadline.unwrap();
        assert!(deadline > Instant::now() + LONG / 4, "{deadline:?}");

        assert!(in_flight.finish(speaking.attempt_id(), false).is_some());
        assert!(!in_flight.hear(speaking.attempt_id()), "it has ended");
        assert!(!in_flight.hear(nth(4, 1, 0).attempt_id()), "not in flight");
    }

    #[test]
    fn the_clocks_of_an_attempt_stand_still_while_it_waits_for_its_program() {
        let in_flight = InFlight::new(1);
        let job = nth(1, 1, 0);
        let (id, stop) = (job.attempt_id(), insert(&in_flight, &job));
        assert!(in_flight.start(id, Duration::ZERO, Some(Duration::ZERO)));
        in_flight.set_waiting(id, true);
        assert!(in_flight.watch_deadlines(Some(Duration::ZERO)).unwrap().is_empty());
        assert_eq!((stop.reason(), in_flight.activity()[0].state), (None, WorkerState::Starting));
        in_flight.set_waiting(id, false);
        assert_eq!(in_flight.activity()[0].state, WorkerState::Running);
        in_flight.watch_deadlines(None);
        assert_eq!(stop.reason(), Some(StopReason::TimedOut));
        // An attempt that was asked to stop keeps its deadline, even if it waits.
        in_flight.set_waiting(id, true);
        assert_eq!(in_flight.activity()[0].state, WorkerState::Stopping);
    }

    #[test]
    fn an_attempt_that_waits_for_its_program_when_the_server_stops_is_stopped() {
        let in_flight = InFlight::new(2);
        let (waiting, running) = (nth(1, 1, 0), nth(2, 1, 0));
        let stops = [&waiting, &running].map(|job| insert(&in_flight, job));
        for job in [&waiting, &running] {
            assert!(in_flight.start(job.attempt_id(), LONG, None));
        }
        in_flight.set_waiting(waiting.attempt_id(), true);
        in_flight.close();
        assert_eq!(stops.each_ref().map(StopSignal::reason), [Some(StopReason::Shutdown), None]);
        in_flight.set_waiting(running.attempt_id(), true);
        assert_eq!(stops[1].reason(), Some(StopReason::Shutdown));
    }

    #[test]
    fn an_attempt_is_settled_once_by_its_worker_or_by_the_watchdog() {
        let in_flight = InFlight::new(1);
        let job = nth(1, 1, 0);
        let stop = insert(&in_flight, &job);
        let abandoned = abandon(&in_flight, &job, &stop);
        assert_eq!(
            (abandoned.lease.attempt_id(), abandoned.reason),
            (job.attempt_id(), StopReason::TimedOut)
        );
        assert_eq!((in_flight.busy(), in_flight.len()), (0, 1));
        assert_eq!(in_flight.finish(job.attempt_id(), false), None);
        assert_eq!(in_flight.busy(), 0);

        let in_flight = InFlight::new(1);
        insert(&in_flight, &job);
        assert!(in_flight.start(job.attempt_id(), Duration::ZERO, None));
        assert!(in_flight.finish(job.attempt_id(), false).is_some());
        in_flight.close();
        assert!(in_flight.watch_deadlines(None).is_none());
        assert_eq!(in_flight.finish(job.attempt_id(), false), None);
    }

    #[test]
    fn an_abandoned_attempt_has_no_effect_on_the_next_attempt() {
        let in_flight = InFlight::new(2);
        let (first, second) = (nth(1, 1, 0), nth(1, 2, 0));
        let stop = insert(&in_flight, &first);
        abandon(&in_flight, &first, &stop);
        in_flight.remove([first.attempt_id()]);
        // The same server has taken the job again when the first handler returns after all.
        insert(&in_flight, &second);
        assert!(in_flight.start(second.attempt_id(), LONG, None));
        assert_eq!(in_flight.finish(first.attempt_id(), false), None);
        assert_eq!(in_flight.busy(), 1);
        assert_eq!(in_flight.finish(second.attempt_id(), false).unwrap().attempt_id(), second.attempt_id());
    }

    #[test]
    fn a_reclaimed_job_can_be_taken_again_while_its_old_attempt_ends() {
        let in_flight = InFlight::new(2);
        let (old, new) = (nth(1, 1, 0), nth(1, 2, 0));
        let stop = insert(&in_flight, &old);
        assert!(in_flight.start(old.attempt_id(), LONG, None));
        in_flight.stop_all(StopReason::Reclaimed);
        let new_stop = insert(&in_flight, &new);
        assert!(in_flight.start(new.attempt_id(), LONG, None));
        assert_eq!((stop.reason(), new_stop.reason()), (Some(StopReason::Reclaimed), None));
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
        let stops = [nth(1, 1, 0), nth(1, 2, 0), nth(2, 1, 0)].map(|job| insert(&in_flight, &job).clone());
        in_flight.stop(JobId::new(1).unwrap(), StopReason::Cancelled);
        let reasons = stops.map(|stop| stop.reason());
        assert_eq!(reasons, [Some(StopReason::Cancelled), Some(StopReason::Cancelled), None]);
    }

    #[test]
    fn one_attempt_can_be_stopped_alone() {
        let in_flight = InFlight::new(4);
        let stops = [nth(1, 1, 0), nth(1, 2, 0)].map(|job| insert(&in_flight, &job).clone());
        in_flight.stop_attempt(nth(1, 1, 0).attempt_id(), StopReason::Reclaimed);
        assert_eq!(stops.map(|stop| stop.reason()), [Some(StopReason::Reclaimed), None]);
    }
}
