//! Workers: run jobs, one at a time each.
//!
//! A worker takes a job from the channel, runs its handler behind `catch_unwind`, and hands the verdict to the
//! committer; so a worker never waits for Redis, except where it sleeps a short backoff itself. It knows no HTTP.
//! A thread whose handler does not return is given up by the watchdog and replaced; when the handler returns after
//! all, the thread ends.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::engine::in_flight::{Abandoned, Assignment, InFlight};
use crate::engine::membership::Membership;
use crate::engine::metrics::Metrics;
use crate::engine::shutdown::Shutdown;
use crate::handler::output::{bounded, message_with_end};
use crate::handler::{Handlers, JobContext, StopReason, StopSignal};
use crate::job::{Failure, Job, Outcome, Status};
use crate::logging::job_fields::{JobFields, log_job};
use crate::queue::{Lease, Queue, Settled, Settlement, Verdict};

/// How many threads may be lost to handlers that never return. Beyond that they are not replaced any more.
const MAX_GIVEN_UP: usize = 512;
/// Between tries to start the threads that replace them.
const REPLACE_PAUSE: Duration = Duration::from_secs(1);

/// What all workers share.
pub struct Workers {
    /// Jobs to run.
    pub jobs: Receiver<Assignment>,
    /// Verdicts.
    pub committer: Sender<Settlement>,
    /// What is in hand.
    pub in_flight: Arc<InFlight>,
    /// Who runs what.
    pub handlers: Arc<Handlers>,
    /// For short backoffs.
    pub queue: Arc<Queue>,
    /// This server's name.
    pub membership: Arc<Membership>,
    /// The longest backoff that is slept on the worker's thread.
    pub inline_backoff: Duration,
    /// Counts attempts.
    pub metrics: Arc<Metrics>,
    /// Ends short backoffs.
    pub shutdown: Shutdown,
}

impl Workers {
    /// Starts the thread `worker-<number>`. Ends when the channel of jobs is closed.
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub fn spawn(self: &Arc<Self>, number: usize) -> std::io::Result<std::thread::JoinHandle<()>> {
        let workers = self.clone();
        std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || workers.run())
    }

    fn run(&self) {
        IS_WORKER.set(true);
        for (job, stop) in &self.jobs {
            if !self.work(job, &stop) {
                return;
            }
        }
    }

    /// Runs a job until it is settled or parked; `false` if the thread was given up meanwhile.
    fn work(&self, mut job: Arc<Job>, stop: &StopSignal) -> bool {
        loop {
            if !self.in_flight.start(job.attempt_id(), Duration::from_millis(job.timeout_ms)) {
                self.let_go(&job);
                return true;
            }
            let context = JobContext::new(job.clone(), stop.clone());
            let started = Instant::now();
            RUNS.set(Some(job.clone()));
            let outcome = self.attempt(&context);
            RUNS.set(None);
            let verdict = self.judge(&job, stop.reason(), outcome);
            let again = match &verdict {
                Verdict::Retry(error, delay) if *delay <= self.inline_backoff && stop.reason().is_none() => {
                    Some((error.as_str(), *delay))
                }
                _ => None,
            };
            let Some(mut lease) = self.in_flight.finish(job.attempt_id(), again.is_some()) else {
                log_job!(info, JobFields::attempt(&job), "returned after it was given up");
                return false;
            };
            self.metrics.ran(&job.job_type, started.elapsed());
            let Some((error, delay)) = again else {
                self.settle(lease, verdict);
                return true;
            };
            match self.start_again(&mut lease, &job, error, delay) {
                Some(Settled::Now(Status::Processing)) => {
                    let mut next = Job::clone(&job);
                    next.attempts += 1;
                    next.starts += 1;
                    let ended = job.attempt_id();
                    job = Arc::new(next);
                    self.in_flight.restart(ended, lease, &job);
                    self.shutdown.wait(delay);
                    if self.queue.is_paused(&job.queue).unwrap_or(false) {
                        self.let_go(&job);
                        return true;
                    }
                }
                Some(_) => {
                    self.in_flight.remove([job.attempt_id()]);
                    return true;
                }
                None => {
                    self.in_flight.free_worker(job.attempt_id());
                    self.settle(lease, verdict);
                    return true;
                }
            }
        }
    }

    /// One attempt, whatever the handler does.
    fn attempt(&self, context: &JobContext) -> Outcome {
        let job_type = &context.job().job_type;
        let Some(handler) = self.handlers.get(job_type) else {
            return Err(Failure::retryable(format!("no handler for type \"{job_type}\"")));
        };
        // What was caught on the way, by the last handler itself or around the drop of what it threw.
        PANIC.set(None);
        match catch_unwind(AssertUnwindSafe(|| handler.handle(context))) {
            Ok(outcome) => outcome,
            Err(payload) => {
                self.metrics.panicked(job_type);
                Err(Failure::retryable(describe_panic(payload)))
            }
        }
    }

    /// What an attempt's outcome means for the job.
    fn judge(&self, job: &Job, stop: Option<StopReason>, outcome: Outcome) -> Verdict {
        let failure = match (outcome, stop) {
            // What was done is done, even where it was told to stop.
            (Ok(result), _) => return Verdict::Complete(bounded(result)),
            (Err(_), Some(StopReason::Cancelled | StopReason::Shutdown | StopReason::TakenOver)) => {
                return Verdict::Release;
            }
            (Err(failure), Some(StopReason::TimedOut)) => Failure::retryable(timed_out(&failure)),
            (Err(failure), None) => failure,
        };
        match failure {
            Failure::Permanent { message } => Verdict::Fail(message),
            Failure::Retryable { message, retry_after } => {
                let delay =
                    self.handlers.policy(&job.job_type).backoff.delay(job.attempts + 1, fastrand::f64());
                let delay = delay.max(retry_after.unwrap_or_default());
                if job.attempts + 1 >= job.max_attempts {
                    return Verdict::Fail(message);
                }
                Verdict::Retry(message, delay)
            }
        }
    }

    /// Records the failure and keeps the job for its next attempt; `None` where Redis could not be asked.
    fn start_again(&self, lease: &mut Lease, job: &Job, error: &str, delay: Duration) -> Option<Settled> {
        let settled = self.queue.retry_inline(&self.membership.current(), lease, error, delay).ok()?;
        let about = JobFields::attempt(job);
        match settled {
            Settled::Now(Status::Processing) => {
                self.metrics.retried(&job.job_type);
                log_job!(warn, about, "failed, again at once: {error}");
            }
            Settled::Now(Status::Retrying) => {
                self.metrics.retried(&job.job_type);
                log_job!(warn, about, "failed, again once its queue goes on: {error}");
            }
            Settled::Now(status) => log_job!(info, about, "failed, and is {status} now: {error}"),
            Settled::Stale | Settled::Repeated => {
                log_job!(warn, about, "failed, but was taken over: {error}")
            }
        }
        Some(settled)
    }

    /// A job that must not be started any more, or whose queue is paused: it goes back, unless it was taken over already.
    fn let_go(&self, job: &Job) {
        if let Some(lease) = self.in_flight.finish(job.attempt_id(), false) {
            self.settle(lease, Verdict::Release);
        }
    }

    fn settle(&self, lease: Lease, verdict: Verdict) {
        // The committer ends after the workers.
        let _ = self.committer.send(Settlement { lease, verdict });
    }

    /// The watchdog: tells attempts that time out to stop, gives up those that do not, and replaces their threads.
    pub fn watch(self: &Arc<Self>) {
        let mut replacements = Replacements::default();
        while let Some(given_up) = self.in_flight.watch(replacements.pause()) {
            for Abandoned { lease, job, reason, time } in given_up {
                self.metrics.ran(&job.job_type, time);
                log_job!(
                    error,
                    JobFields::attempt(&job),
                    "its handler does not stop, its thread is given up"
                );
                let verdict = self.judge(&job, Some(reason), Err(Failure::retryable("timed out")));
                self.settle(lease, verdict);
                self.in_flight.change_workers(-1);
                replacements.lose_one();
            }
            replacements.make(self);
        }
    }
}

/// The error of an attempt that was told to stop at its timeout: what it said at its end is part of it.
fn timed_out(failure: &Failure) -> String {
    let reason = StopReason::TimedOut.to_string();
    match failure.message() {
        message if message.starts_with(&reason) => message.to_owned(),
        message => message_with_end(&reason, message.as_bytes()),
    }
}

/// The threads that the watchdog owes for those that hang in their handlers.
#[derive(Default)]
struct Replacements {
    /// Threads that were lost so far.
    lost: usize,
    /// Of those, not replaced yet.
    owed: usize,
    /// The system has no thread to give at the moment.
    is_refused: bool,
}

impl Replacements {
    fn lose_one(&mut self) {
        self.lost += 1;
        if self.lost > MAX_GIVEN_UP {
            log::error!("{} threads hang in their handlers: this one is not replaced", self.lost);
        } else {
            self.owed += 1;
        }
    }

    /// How long to wait at most for something else to do.
    fn pause(&self) -> Option<Duration> {
        (self.owed > 0).then_some(REPLACE_PAUSE)
    }

    /// Starts as many of them as the system allows.
    fn make(&mut self, workers: &Arc<Workers>) {
        while self.owed > 0 {
            if let Err(error) = workers.spawn(workers.in_flight.workers() + self.lost) {
                if !self.is_refused {
                    log::error!("cannot replace a worker thread for now: {error}");
                }
                self.is_refused = true;
                return;
            }
            self.is_refused = false;
            self.owed -= 1;
            workers.in_flight.change_workers(1);
        }
    }
}

thread_local! {
    static IS_WORKER: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    /// Message and place of the last panic on this thread: only the hook knows the place.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    /// The job whose attempt runs on this thread.
    static RUNS: RefCell<Option<Arc<Job>>> = const { RefCell::new(None) };
}

/// Keeps the panics of handlers for their jobs' errors; all others go on to the hook that was set before. So does a
/// second panic of an attempt, after the log was told whose it is: while the first one is cleaned up it ends the process,
/// and these are its last words.
pub fn catch_handler_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if IS_WORKER.get() {
                if keep(info) {
                    return;
                }
                blame(info);
            }
            before(info);
        }));
    });
}

/// Tells the log in which job a second panic was.
fn blame(info: &PanicHookInfo) {
    let job = RUNS.try_with(|job| job.try_borrow().ok()?.clone()).ok().flatten();
    if let Some(job) = job {
        log_job!(error, JobFields::attempt(&job), "{}, after another panic", describe(info));
    }
}

/// Keeps a panic for the error of the attempt on this thread; `false` if it is not its first one.
fn keep(info: &PanicHookInfo) -> bool {
    PANIC.try_with(|panic| panic.replace(Some(describe(info))).is_none()).unwrap_or(false)
}

fn describe(info: &PanicHookInfo) -> String {
    let message = info.payload_as_str().unwrap_or("(no message)");
    match info.location() {
        Some(place) => format!("panicked: {message} ({}:{})", place.file(), place.line()),
        None => format!("panicked: {message}"),
    }
}

/// The error of a job whose handler panicked.
fn describe_panic(payload: Box<dyn Any + Send>) -> String {
    let message = PANIC.take();
    // Dropping what was thrown can itself panic, and would end the thread.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    message.unwrap_or_else(|| "panicked".to_owned())
}
