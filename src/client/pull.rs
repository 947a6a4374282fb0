//! A pull worker in Rust: takes jobs from a server over HTTP, on any machine, and runs closures.
//!
//! ```no_run
//! use threadq::client::Client;
//! use threadq::client::pull::Worker;
//! use threadq::job::Failure;
//!
//! let client = Client::new("http://127.0.0.1:8080")?.token("the worker-token")?;
//! Worker::new(&client)
//!     .queue("video")
//!     .handler("Encode Video", |job| {
//!         let files: Vec<String> = job.payload()?;
//!         // An attempt before this one may have done a part of the work.
//!         let done = job.checkpoint::<usize>()?.unwrap_or(0);
//!         for (number, file) in files.iter().enumerate().skip(done) {
//!             job.progress(number as f64 / files.len() as f64, file.as_str());
//!             // .. encode the file ..
//!             job.set_checkpoint(&(number + 1))?;
//!             if job.is_cancelled() || job.is_stopping() {
//!                 return Err(Failure::retryable("stopped"));
//!             }
//!         }
//!         Ok(files.len())
//!     })
//!     .at_a_time(4)
//!     .run()?;
//! # Ok::<(), threadq::client::Error>(())
//! ```
//!
//! The worker has a lease on each of its jobs, and extends it while the job runs. If the worker dies, the lease runs out,
//! and the job runs again, as after the crash of a server.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::error::Error;
use super::job::Job;
use super::retry::with_retries;
use super::{Client, RETRY_INTERVAL};
use crate::job::report::{MAX_LINES, checked_line, checked_progress, is_checkpoint};
use crate::job::rules::LEASE;
use crate::job::{Failure, Outcome, Report};
use crate::sync;

/// How long a request for jobs waits at the server. A worker that stops waits as long.
const WAIT: Duration = Duration::from_secs(5);
/// The default of [`Worker::lease`].
const DEFAULT_LEASE: Duration = Duration::from_secs(30);
/// The time between two looks at what the attempts have reported.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// The longest time between two requests for jobs while the server is unavailable.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

type Handler = Box<dyn Fn(&Attempt) -> Outcome + Send + Sync>;

/// Takes jobs from queues and runs them, several at a time.
pub struct Worker {
    client: Client,
    queues: Vec<String>,
    handlers: HashMap<String, Handler>,
    at_a_time: usize,
    lease: Duration,
    name: Option<String>,
    stop: Stop,
}

/// Stops a [`Worker`], from any thread. Clones stop the same worker.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// Lets the worker take no more jobs. [`Worker::run`] returns when its jobs have ended, after 5 s at the earliest if it waits
    /// for jobs.
    pub fn stop(&self) {
        *sync::lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    fn is_requested(&self) -> bool {
        *sync::lock(&self.0.0)
    }

    /// Sleeps for `time`, or until the stop.
    fn wait(&self, time: Duration) {
        drop(sync::wait_timeout_while(&self.0.1, sync::lock(&self.0.0), time, |is_requested| !*is_requested));
    }
}

/// An attempt at a job, as its handler sees it.
pub struct Attempt {
    job: Job,
    token: String,
    stop: Stop,
    /// What was reported and not sent yet.
    pending: Mutex<Report>,
    /// When the lease was extended last.
    extended: Mutex<Instant>,
    is_cancelled: AtomicBool,
    /// Whether the attempt is over for the server, so that its outcome means nothing.
    is_lost: AtomicBool,
}

impl Attempt {
    /// The job as it was when the attempt started.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The payload, converted into a type of the handler.
    ///
    /// # Errors
    /// A permanent [`Failure`] if the payload does not fit the type.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(self.job.payload.get())
            .map_err(|error| Failure::permanent(format!("the payload does not fit: {error}")))
    }

    /// Reports how far the job has come, from 0 to 1, with a message of up to 200 characters. It is sent soon after.
    pub fn progress(&self, value: f64, message: impl AsRef<str>) {
        let progress = checked_progress(value, message.as_ref());
        self.report(Report { progress, ..Report::default() });
    }

    /// Adds a line of up to 1,000 characters to the log of the job. It is sent soon after; of more than 100 lines in a second
    /// the last ones are dropped.
    pub fn log(&self, line: impl AsRef<str>) {
        self.report(Report { log: vec![checked_line(line.as_ref())], ..Report::default() });
    }

    /// Stores a value for the next attempt at the job, in place of an earlier one. It is sent soon after, and before the outcome.
    ///
    /// # Errors
    /// A permanent [`Failure`] if the value has no JSON form, or has more than 32 KiB of JSON or 128 levels.
    pub fn set_checkpoint<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        let json = to_raw_value(value).map_err(|error| Failure::permanent(error.to_string()))?;
        if !is_checkpoint(json.get()) {
            return Err(Failure::permanent("the checkpoint has more than 32 KiB or 128 levels"));
        }
        self.report(Report { checkpoint: Some(json), ..Report::default() });
        Ok(())
    }

    /// What an attempt before this one has stored last; `None` if there is nothing.
    ///
    /// # Errors
    /// A permanent [`Failure`] if the value does not fit the type.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, Failure> {
        let Some(json) = &self.job.checkpoint else { return Ok(None) };
        let value = serde_json::from_str(json.get());
        value.map(Some).map_err(|error| Failure::permanent(format!("the checkpoint does not fit: {error}")))
    }

    /// Whether the job was cancelled, or the attempt is over for the server: it has timed out, or its lease has run out.
    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed) || self.is_lost.load(Ordering::Relaxed)
    }

    /// Whether the worker stops. If the handler then returns a [`Failure`], the job goes back to its queue, and the attempt does
    /// not count.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_requested()
    }

    fn report(&self, report: Report) {
        sync::lock(&self.pending).merge(report);
    }

    fn path(&self, end: &str) -> String {
        format!("/attempts/{}{end}", self.token)
    }
}

#[derive(Serialize)]
struct PullBody<'a> {
    queues: &'a [String],
    wait_ms: u64,
    lease_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<&'a str>,
}

/// A checkpoint is sent as its text: as a value it would have fewer levels than [`is_checkpoint`] allows.
#[derive(Serialize)]
struct ReportBody<'a> {
    log: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Pulled {
    jobs: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

#[derive(Deserialize)]
struct Reported {
    cancel: bool,
}

impl Worker {
    /// A worker that takes jobs from the server of this client. The token of the client is the `worker-token` or the `api-token`
    /// of the server.
    pub fn new(client: &Client) -> Worker {
        Worker {
            client: client.clone(),
            queues: Vec::new(),
            handlers: HashMap::new(),
            at_a_time: 1,
            lease: DEFAULT_LEASE,
            name: None,
            stop: Stop::default(),
        }
    }

    /// Adds a queue: 1 to 16. The jobs of an earlier queue come first.
    pub fn queue(mut self, name: impl Into<String>) -> Worker {
        self.queues.push(name.into());
        self
    }

    /// Adds the handler of a job type: a closure whose value becomes the job's result. A job of a type without a handler fails.
    pub fn handler<F, T>(mut self, job_type: impl Into<String>, handler: F) -> Worker
    where
        F: Fn(&Attempt) -> Result<T, Failure> + Send + Sync + 'static,
        T: Serialize,
    {
        let handler: Handler = Box::new(move |attempt| Ok(to_raw_value(&handler(attempt)?)?));
        self.handlers.insert(job_type.into(), handler);
        self
    }

    /// How many jobs run at a time, each on its own thread. Default: 1.
    pub fn at_a_time(mut self, jobs: usize) -> Worker {
        self.at_a_time = jobs.max(1);
        self
    }

    /// The time after which the server gives a job to another worker, if this worker has died or is cut off: 1 s to 24 h. A
    /// running job extends its lease three times in this time. Default: 30 s.
    pub fn lease(mut self, lease: Duration) -> Worker {
        self.lease = lease.clamp(*LEASE.start(), *LEASE.end());
        self
    }

    /// The name that the server shows: 1 to 64 of `A-Z a-z 0-9 _ . -`. Default: none.
    pub fn name(mut self, name: impl Into<String>) -> Worker {
        self.name = Some(name.into());
        self
    }

    /// Stops the worker from another thread.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Takes and runs jobs until the worker is [stopped](Worker::stop). While the server is unavailable, the worker asks again
    /// and again.
    ///
    /// # Errors
    /// The server refuses the requests for jobs: a wrong token, or a name or queue that is not valid.
    pub fn run(self) -> Result<(), Error> {
        let running = Mutex::new(Vec::new());
        let has_ended = Stop::default();
        let mut result = Ok(());
        thread::scope(|scope| {
            scope.spawn(|| self.report_until(&has_ended, &running));
            let takers: Vec<_> = (0..self.at_a_time).map(|_| scope.spawn(|| self.take(&running))).collect();
            for taker in takers {
                if let Ok(Err(error)) = taker.join() {
                    // The other threads would be refused too.
                    self.stop.stop();
                    result = Err(error);
                }
            }
            has_ended.stop();
        });
        result
    }

    /// The work of one thread.
    fn take(&self, running: &Mutex<Vec<Arc<Attempt>>>) -> Result<(), Error> {
        let body = PullBody {
            queues: &self.queues,
            wait_ms: WAIT.as_millis() as u64,
            lease_ms: self.lease.as_millis() as u64,
            worker: self.name.as_deref(),
        };
        let mut pause = RETRY_INTERVAL;
        while !self.stop.is_requested() {
            let response = match self.client.transport.post_json_within("/pull", &body, WAIT) {
                Ok(response) => response,
                Err(error) if error.is_transient() || error.code() == Some("too_many_leases") => {
                    self.stop.wait(pause);
                    pause = (2 * pause).min(LONGEST_PAUSE);
                    continue;
                }
                Err(error) => return Err(error),
            };
            pause = RETRY_INTERVAL;
            for json in response.parse::<Pulled>()?.jobs {
                self.run_one(&json, running);
            }
        }
        Ok(())
    }

    fn run_one(&self, json: &RawValue, running: &Mutex<Vec<Arc<Attempt>>>) {
        let Ok(Token { token }) = serde_json::from_str(json.get()) else { return };
        // A job that this version cannot read runs somewhere else when its lease has run out.
        let Ok(job) = serde_json::from_str::<Job>(json.get()) else { return };
        let attempt = Arc::new(Attempt {
            job,
            token,
            stop: self.stop.clone(),
            pending: Mutex::default(),
            extended: Mutex::new(Instant::now()),
            is_cancelled: AtomicBool::new(false),
            is_lost: AtomicBool::new(false),
        });
        sync::lock(running).push(attempt.clone());
        let job_type = &attempt.job.job_type;
        let outcome = match self.handlers.get(job_type) {
            Some(handler) => catch_unwind(AssertUnwindSafe(|| handler(&attempt))).unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
                Err(Failure::retryable(format!("panicked: {text}")))
            }),
            None => Err(Failure::retryable(format!("no handler for type \"{job_type}\""))),
        };
        self.send_report(&attempt);
        self.settle(&attempt, outcome);
        sync::lock(running).retain(|other| !Arc::ptr_eq(other, &attempt));
    }

    /// Tells the server the outcome. To repeat it is harmless; if the server cannot be reached for a whole lease, the lease runs
    /// out.
    fn settle(&self, attempt: &Attempt, outcome: Outcome) {
        let is_given_up = attempt.is_cancelled() || attempt.is_stopping();
        let (end, body) = match outcome {
            Ok(result) => ("/complete", json!({ "result": result })),
            Err(Failure::Snooze(time)) => ("/release", json!({ "delay_ms": time.as_millis() as u64 })),
            Err(_) if is_given_up => ("/release", json!({})),
            Err(Failure::Permanent { message }) => ("/fail", json!({ "error": message, "permanent": true })),
            Err(Failure::Retryable { message, retry_after: None }) => ("/fail", json!({ "error": message })),
            Err(Failure::Retryable { message, retry_after: Some(time) }) => {
                ("/fail", json!({ "error": message, "retry_after_ms": time.as_millis() as u64 }))
            }
        };
        if let Err(Error::Refused(refusal)) = self.send(attempt, end, &body)
            && refusal.status == 413
        {
            let error = json!({ "error": refusal.message, "permanent": true });
            let _ = self.send(attempt, "/fail", &error);
        }
    }

    fn send(&self, attempt: &Attempt, end: &str, body: &impl Serialize) -> Result<super::Response, Error> {
        let send = || self.client.transport.post_json(&attempt.path(end), body, None);
        with_retries(self.lease, RETRY_INTERVAL, Error::is_transient, send, |_| ())
    }

    /// Sends the reports of all running attempts, and extends their leases.
    fn report_until(&self, has_ended: &Stop, running: &Mutex<Vec<Arc<Attempt>>>) {
        while !has_ended.is_requested() {
            has_ended.wait(REPORT_INTERVAL);
            let attempts = sync::lock(running).clone();
            for attempt in attempts {
                let is_due = sync::lock(&attempt.extended).elapsed() >= self.lease / 3;
                if is_due || !sync::lock(&attempt.pending).is_empty() {
                    self.send_report(&attempt);
                }
            }
        }
    }

    /// Sends what the attempt has reported. What cannot be sent now is sent later; what the server refuses is dropped.
    fn send_report(&self, attempt: &Attempt) {
        // Held while the report is sent, so that a later report does not overtake this one.
        let mut extended = sync::lock(&attempt.extended);
        let report = std::mem::take(&mut *sync::lock(&attempt.pending));
        if attempt.is_lost.load(Ordering::Relaxed) {
            return;
        }
        let mut lines = report.log.clone();
        if report.dropped > 0 {
            lines.truncate(MAX_LINES - 1);
            lines.push(format!("{} lines are missing: more than {MAX_LINES} at a time", report.dropped + 1));
        }
        let progress = report.progress.as_ref();
        let progress = progress.map(|(value, message)| json!({ "value": value, "message": message }));
        let body = ReportBody { log: &lines, progress, checkpoint: report.checkpoint.as_deref() };
        match self.client.transport.post_json(&attempt.path(""), &body, None) {
            Ok(response) => {
                *extended = Instant::now();
                if response.parse().is_ok_and(|Reported { cancel }| cancel) {
                    attempt.is_cancelled.store(true, Ordering::Relaxed);
                }
            }
            Err(Error::Refused(refusal)) if matches!(refusal.status, 404 | 409) => {
                attempt.is_lost.store(true, Ordering::Relaxed);
            }
            // The server would refuse the same report again.
            Err(Error::Refused(refusal)) if matches!(refusal.status, 400 | 413) => {}
            Err(_) => {
                let mut pending = sync::lock(&attempt.pending);
                let later = std::mem::replace(&mut *pending, report);
                pending.merge(later);
            }
        }
    }
}
