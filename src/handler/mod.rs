//! Handlers: what runs a job of one type. The one trait of the crate, and the table of who handles what.
//!
//! A handler sees a [`JobContext`] and gives an [`Outcome`]; it knows neither queue nor threads nor Redis.
//!
//! Most handlers are closures or functions for [`Builder::handler`](crate::server::Builder::handler):
//!
//! ```
//! use std::time::Duration;
//! use serde::{Deserialize, Serialize};
//! use threadq::handler::JobContext;
//! use threadq::job::Failure;
//! use threadq::server::Server;
//!
//! #[derive(Deserialize)]
//! struct Video {
//!     file: String,
//!     sizes: Vec<u32>,
//! }
//!
//! #[derive(Serialize)]
//! struct Encoded {
//!     files: Vec<String>,
//! }
//!
//! fn encode(job: &JobContext) -> Result<Encoded, Failure> {
//!     // One that does not fit fails for good.
//!     let video: Video = job.payload()?;
//!     // Any other error is tried again after the backoff.
//!     let source = std::fs::read(&video.file)?;
//!     if source.is_empty() {
//!         return Err(Failure::permanent("an empty file is no video"));
//!     }
//!     let mut files = Vec::new();
//!     for size in video.sizes {
//!         // At its timeout, when it is cancelled, when the server stops.
//!         if job.is_cancelled() {
//!             return Err(Failure::retryable("stopped"));
//!         }
//!         files.push(format!("{}-{size}", video.file));
//!     }
//!     Ok(Encoded { files })
//! }
//!
//! let server = Server::builder().handler("Encode Video", encode);
//! ```
//!
//! A job may run more than once: if its server died, or Redis was away, at the wrong moment. Its [id](crate::job::JobId) is
//! the same each time, and is a good key for what must be written once.

pub mod demo;
pub mod exec;
mod executable;
pub mod http;
pub mod limits;
pub(crate) mod output;
mod process;
mod stoppable;
#[cfg(test)]
pub(crate) mod testing;
mod tree;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::job::backoff::Backoff;
use crate::job::{DEFAULT_MAX_ATTEMPTS, DEFAULT_TIMEOUT, Failure, Job, Outcome};
use crate::sync;

/// Runs jobs of one type, on several threads at a time.
///
/// For a handler that has something of its own, which all threads share:
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use threadq::handler::{Handler, JobContext};
/// use threadq::job::Outcome;
/// use threadq::server::Server;
///
/// #[derive(Default)]
/// struct Counter(AtomicU64);
///
/// impl Handler for Counter {
///     fn handle(&self, _: &JobContext) -> Outcome {
///         let number = self.0.fetch_add(1, Ordering::Relaxed);
///         Ok(serde_json::value::to_raw_value(&number)?)
///     }
/// }
///
/// let server = Server::builder().handler_object("count", Counter::default());
/// ```
pub trait Handler: Send + Sync + 'static {
    /// Runs one attempt. A panic counts as a retryable failure.
    ///
    /// # Errors
    /// A [`Failure`], retryable or permanent.
    fn handle(&self, job: &JobContext) -> Outcome;
}

/// A closure as a handler; its value becomes the job's result.
pub(crate) struct Closure<F>(pub F);

impl<F, T> Handler for Closure<F>
where
    F: Fn(&JobContext) -> Result<T, Failure> + Send + Sync + 'static,
    T: Serialize,
{
    fn handle(&self, job: &JobContext) -> Outcome {
        let value = (self.0)(job)?;
        Ok(serde_json::value::to_raw_value(&value)?)
    }
}

/// Why a running attempt should stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// It took longer than its timeout.
    TimedOut,
    /// A person cancelled the job.
    Cancelled,
    /// Another server has taken the job over, because this one was held to be dead.
    TakenOver,
    /// The server stops and has waited long enough.
    Shutdown,
}

impl fmt::Display for StopReason {
    /// As the error of the attempt that was stopped.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            StopReason::TimedOut => "timed out",
            StopReason::Cancelled => "cancelled",
            StopReason::TakenOver => "another server has taken the job over",
            StopReason::Shutdown => "the server is stopping",
        })
    }
}

/// Tells a running attempt to stop. Cloning gives another handle of the same signal.
#[derive(Clone, Default, Debug)]
pub struct StopSignal(Arc<(Mutex<Told>, Condvar)>);

/// What an attempt was told.
#[derive(Clone, Copy, Default, Debug)]
struct Told {
    reason: Option<StopReason>,
    at_once: bool,
}

impl StopSignal {
    /// Asks the attempt to stop. The first reason stays.
    pub fn stop(&self, reason: StopReason) {
        let (_, changed) = &*self.0;
        self.told().reason.get_or_insert(reason);
        changed.notify_all();
    }

    /// Asks an attempt that was told to stop to take no more time for it.
    pub fn hurry(&self) {
        self.told().at_once = true;
    }

    /// Why the attempt should stop, if it should.
    pub fn reason(&self) -> Option<StopReason> {
        self.told().reason
    }

    /// Whether it should take no more time to stop.
    pub fn is_hurried(&self) -> bool {
        self.told().at_once
    }

    /// Sleeps for `time`, or until the attempt should stop.
    pub fn wait(&self, time: Duration) -> Option<StopReason> {
        let (_, changed) = &*self.0;
        sync::wait_timeout_while(changed, self.told(), time, |told| told.reason.is_none()).reason
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        sync::lock(&self.0.0)
    }
}

/// One attempt at a job, as its handler sees it.
#[derive(Debug)]
pub struct JobContext {
    job: Arc<Job>,
    stop: StopSignal,
    deadline: Instant,
}

impl JobContext {
    /// An attempt that starts now. `job.attempts` is how many came before it.
    pub fn new(job: impl Into<Arc<Job>>, stop: StopSignal) -> JobContext {
        let job = job.into();
        let deadline = Instant::now() + Duration::from_millis(job.timeout_ms);
        JobContext { job, stop, deadline }
    }

    /// The job as it was when the attempt started.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.job.attempts + 1
    }

    /// The payload as a value of the handler's own type.
    ///
    /// # Errors
    /// A permanent [`Failure`]: the payload will not look otherwise next time.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(self.job.payload.get())
            .map_err(|error| Failure::permanent(format!("the payload does not fit: {error}")))
    }

    /// When the attempt times out.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the attempt should stop: it timed out, was cancelled, or the server stops.
    pub fn is_cancelled(&self) -> bool {
        self.stop.reason().is_some()
    }

    /// Why the attempt should stop, if it should.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.stop.reason()
    }

    /// Sleeps for `time`, or until the attempt should stop; whether it should.
    pub fn sleep(&self, time: Duration) -> bool {
        self.stop.wait(time).is_some()
    }
}

/// How jobs of one type are treated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// How long an attempt may take. Defaults to 5 minutes.
    pub timeout: Duration,
    /// Defaults to 5.
    pub max_attempts: u32,
    /// Defaults to 1 s, doubled up to 1 h.
    pub backoff: Backoff,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { timeout: DEFAULT_TIMEOUT, max_attempts: DEFAULT_MAX_ATTEMPTS, backoff: Backoff::default() }
    }
}

/// Who handles which type, and how those jobs are treated.
#[derive(Default)]
pub struct Handlers {
    handlers: HashMap<String, Box<dyn Handler>>,
    policies: HashMap<String, Policy>,
}

impl Handlers {
    /// Adds the handler of a type, or replaces it.
    pub fn insert(&mut self, job_type: impl Into<String>, handler: impl Handler) {
        self.handlers.insert(job_type.into(), Box::new(handler));
    }

    /// Sets how jobs of a type are treated.
    pub fn set_policy(&mut self, job_type: impl Into<String>, policy: Policy) {
        self.policies.insert(job_type.into(), policy);
    }

    /// The handler of a type.
    pub fn get(&self, job_type: &str) -> Option<&dyn Handler> {
        self.handlers.get(job_type).map(Box::as_ref)
    }

    /// The types that have a handler, in alphabetical order.
    pub fn job_types(&self) -> impl Iterator<Item = &str> {
        let mut job_types: Vec<&str> = self.handlers.keys().map(String::as_str).collect();
        job_types.sort_unstable();
        job_types.into_iter()
    }

    /// How jobs of a type are treated: as set, or the default.
    pub fn policy(&self, job_type: &str) -> Policy {
        self.policies.get(job_type).copied().unwrap_or_default()
    }
}
