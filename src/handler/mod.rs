//! Handlers run the jobs of one type. This module has the trait [`Handler`], the handlers that run a program or call an HTTP
//! service, and the table of all handlers of a server.
//!
//! A handler gets a [`JobContext`] and returns an [`Outcome`]. It knows neither queues nor threads nor Redis.
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
//!     // A payload that does not fit the type is a permanent failure.
//!     let video: Video = job.payload()?;
//!     // Any other error is a retryable failure: the job runs again after its backoff.
//!     let source = std::fs::read(&video.file)?;
//!     if source.is_empty() {
//!         return Err(Failure::permanent("an empty file is no video"));
//!     }
//!     let mut files = Vec::new();
//!     for size in video.sizes {
//!         // True after the timeout of the attempt, when the job is cancelled, and when the server stops.
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
//! A job can run more than once if its server or Redis fails at the wrong moment. Its [id](crate::job::JobId) is the same
//! each time, so it can serve as a key for effects that must happen only once.

mod cancellable;
mod context;
pub mod demo;
mod descendants;
mod error;
pub mod exec;
mod executable;
mod exit_status;
mod group;
pub mod http;
pub mod limits;
mod line_splitter;
pub mod lines;
mod pipes;
mod process;
mod report_lines;
mod report_pipe;
pub(crate) mod results;
mod stop;
mod stopping;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

pub use self::context::JobContext;
pub(crate) use self::context::{Attempts, ReportedSoFar};
pub use self::error::HandlerError;
use self::lines::pool::Pool;
use self::report_pipe::ReportFolder;
pub use self::stop::{StopReason, StopSignal};
use crate::job::backoff::Backoff;
use crate::job::limit::LimitName;
use crate::job::{DEFAULT_MAX_ATTEMPTS, DEFAULT_TIMEOUT, Failure, Outcome};
use crate::sorting;

/// Runs jobs of one type, on several threads at the same time.
///
/// A type of your own can hold data that all threads share:
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
    /// Runs one attempt and returns the job's result as JSON. A panic counts as a retryable failure.
    ///
    /// # Errors
    /// A [`Failure`], retryable or permanent.
    fn handle(&self, job: &JobContext) -> Outcome;
}

/// A closure as a handler. The value that it returns becomes the job's result.
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

/// The defaults of jobs of one type, and how long they wait between attempts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// How long an attempt may take, unless the job says it: 1 ms to 24 h. Defaults to 5 minutes.
    pub timeout: Duration,
    /// How often a job is tried, unless the job says it: 1 to 100. Defaults to 5.
    pub max_attempts: u32,
    /// How long a failed job waits. Defaults to at most 1 s after the first failure, doubled up to at most 1 h.
    pub backoff: Backoff,
    /// How long a job is kept after its end, unless the job says it: 0 to 365 days. Defaults to `None`: as long as the
    /// server's settings say.
    pub retain: Option<Duration>,
    /// How long an attempt may report nothing: 1 ms to 24 h. Then it is stopped as at its timeout. Defaults to `None`: it need
    /// not report.
    pub silence: Option<Duration>,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            timeout: DEFAULT_TIMEOUT,
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            backoff: Backoff::default(),
            retain: None,
            silence: None,
        }
    }
}

/// The handler, the policy and the limits of each job type.
#[derive(Default)]
pub struct Handlers {
    /// Where programs report. A server that stops removes the folder.
    pub(crate) report_folder: Arc<ReportFolder>,
    /// `None` for a type whose jobs only pull workers run.
    handlers: HashMap<String, Option<Box<dyn Handler>>>,
    policies: HashMap<String, Policy>,
    limits: HashMap<String, Vec<LimitName>>,
    /// The programs that stay, of all handlers.
    pools: Vec<Arc<Pool>>,
}

impl Handlers {
    /// Sets the handler of a job type; replaces an earlier one.
    pub fn insert(&mut self, job_type: impl Into<String>, handler: impl Handler) {
        self.handlers.insert(job_type.into(), Some(Box::new(handler)));
    }

    /// Makes a job type known whose jobs only pull workers run. A type with a handler keeps it.
    pub fn insert_pulled(&mut self, job_type: impl Into<String>) {
        self.handlers.entry(job_type.into()).or_default();
    }

    /// Whether the job type has a handler, or is one of those that only pull workers run.
    pub fn knows(&self, job_type: &str) -> bool {
        self.handlers.contains_key(job_type)
    }

    /// Adds the programs of a handler whose programs stay until [`Handlers::end_programs`].
    pub(crate) fn add_programs(&mut self, pool: Arc<Pool>) {
        self.pools.push(pool);
    }

    /// Starts one program of each of these handlers, and lets it end.
    ///
    /// # Errors
    /// A program does not end well. The error names its handler.
    pub(crate) fn check_programs(&self) -> Result<(), String> {
        self.pools.iter().try_for_each(|pool| pool.check())
    }

    /// Lets programs that stay end: those without a job now, the others after their job.
    pub(crate) fn end_programs(&self) {
        self.pools.iter().for_each(|pool| pool.close());
    }

    /// Shortens the time that these programs have to end.
    pub(crate) fn hurry_programs(&self) {
        self.pools.iter().for_each(|pool| pool.hurry());
    }

    /// Whether one of these programs is left.
    pub(crate) fn have_programs(&self) -> bool {
        self.pools.iter().any(|pool| !pool.is_empty())
    }

    /// Sets the policy of a job type; replaces an earlier one.
    pub fn set_policy(&mut self, job_type: impl Into<String>, policy: Policy) {
        self.policies.insert(job_type.into(), policy);
    }

    /// Sets the limits of each job of a type; replaces earlier ones.
    pub fn set_limits(&mut self, job_type: impl Into<String>, limits: Vec<LimitName>) {
        self.limits.insert(job_type.into(), limits);
    }

    /// The limits of each job of a type.
    pub fn limits(&self, job_type: &str) -> &[LimitName] {
        self.limits.get(job_type).map_or(&[], Vec::as_slice)
    }

    /// The handler of a job type, if it has one.
    pub fn get(&self, job_type: &str) -> Option<&dyn Handler> {
        self.handlers.get(job_type)?.as_deref()
    }

    /// The job types that have a handler or that only pull workers run, in alphabetical order.
    pub fn job_types(&self) -> impl Iterator<Item = &str> {
        sorting::distinct(self.handlers.keys().map(String::as_str)).into_iter()
    }

    /// The policy of a job type; the default if none was set.
    pub fn policy(&self, job_type: &str) -> Policy {
        self.policies.get(job_type).copied().unwrap_or_default()
    }
}
