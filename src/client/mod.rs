//! A client of the HTTP API of a running server: submits jobs, waits until they end, and reads their results.
//!
//! ```no_run
//! use std::time::Duration;
//! use threadq::client::{Client, Submission};
//!
//! let client = Client::new("http://127.0.0.1:8080")?;
//! let id = client.submit(&Submission::new("greet").payload("Ada")?)?.id;
//! let greeting: String = client.wait(id, Duration::from_secs(60))?.result()?;
//! assert_eq!(greeting, "Hello, Ada!");
//! # Ok::<(), threadq::client::Error>(())
//! ```
//!
//! A request that is safe to repeat is sent again after a lost response or while the server or its Redis is unavailable, for
//! up to [`Client::retry_requests_for`]. Reads are safe to repeat; so are submissions, because each has an
//! `Idempotency-Key`. Every call blocks, for a limited time: see [`Client::timeout`].

pub mod bulk;
mod error;
mod job;
pub mod limits;
mod listing;
pub mod pull;
mod reason;
mod retry;
pub mod schedules;
mod submission;
mod transport;
mod unique;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use self::error::{Cause, Error, Refusal};
pub use self::job::{AttemptError, BlockedBy, Job, JobLog, LogLine, Progress, ScheduleTick};
pub use self::listing::{Listing, Page};
pub use self::reason::Reason;
pub(crate) use self::reason::Reasons;
pub(crate) use self::retry::with_retries;
pub use self::submission::Submission;
pub(crate) use self::transport::{DEFAULT_SERVER, Response, Transport, Unserved};
pub use self::unique::Unique;
use crate::job::rules::IDEMPOTENCY_KEY;
use crate::job::{JobId, Status};
use crate::net::authorities::{self, Authorities};
use crate::net::http_url::redacted;
use crate::net::percent::encode_segment;

/// The longest `wait` of GET /jobs/ID that the API allows.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(60);
/// Idle connections that are kept for the next request.
const MAX_IDLE_CONNECTIONS: usize = 8;
/// The default of [`Client::timeout`]: far more than the 3 s within which a server reports that Redis is unavailable.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// The default of [`Client::retry_requests_for`]: enough for a restart of the server.
const DEFAULT_RETRY_TIME: Duration = Duration::from_secs(5);
/// The shortest time between two requests of one call.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// A client of one server, or of several servers behind one URL. Clones share their connections; threads may share a client.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Transport,
    retry_time: Duration,
}

/// The body of POST /jobs/batch.
#[derive(Serialize)]
pub(crate) struct BatchBody<'a, T> {
    pub jobs: &'a [T],
}

/// The job of a submission: a new one, or the one that holds the unique key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[non_exhaustive]
pub struct Submitted {
    /// The id of the job.
    #[serde(rename = "job_id")]
    pub id: JobId,
    /// The status at the time of the response. `None` if the job is deleted and its unique key is still held.
    #[serde(default)]
    pub status: Option<Status>,
    /// Whether the job existed and stays as it is; see [`Unique::existing`].
    #[serde(default)]
    pub existing: bool,
    /// Whether the job existed and got the fields of the submission; see [`Unique::replace`].
    #[serde(default)]
    pub replaced: bool,
}

/// The response to POST /jobs/batch.
#[derive(Deserialize)]
pub(crate) struct SubmittedBatch {
    pub job_ids: Vec<JobId>,
}

impl Client {
    /// A client of the server at `url`, such as `http://127.0.0.1:8080`. A path in the URL is put in front of the paths of the
    /// API. A user and a password in the URL, percent-encoded if necessary, become Basic authentication. Sends nothing.
    ///
    /// The certificate of an `https://` server must come from an authority of the web, or, if the environment variable
    /// `SSL_CERT_FILE` is set, from an authority in that file (PEM). See also [`Client::trusting`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a URL that is not valid for a server, or for an `SSL_CERT_FILE` without authorities.
    pub fn new(url: &str) -> Result<Client, Error> {
        let mut transport = Transport::new(url, MAX_IDLE_CONNECTIONS)
            .map_err(|problem| Error::Invalid(Cause::new(format!("the URL {} {problem}", redacted(url)))))?;
        transport.connect_timeout = DEFAULT_TIMEOUT;
        transport.silence_timeout = DEFAULT_TIMEOUT;
        if let (true, Some(file)) = (transport.is_https(), std::env::var_os(authorities::ENVIRONMENT)) {
            let variable = authorities::ENVIRONMENT;
            let invalid =
                |problem| Error::Invalid(Cause::new(format!("{variable}: the file {file:?} {problem}")));
            transport = transport.trusting(&Authorities::from_file(Path::new(&file)).map_err(invalid)?);
        }
        Ok(Client { transport, retry_time: DEFAULT_RETRY_TIME })
    }

    /// Trusts only these authorities for `https://`. Default: the authorities of the web.
    pub fn trusting(mut self, authorities: &Authorities) -> Client {
        self.transport = self.transport.trusting(authorities);
        self
    }

    /// The API token: the `api-token` of the server. Default: no token.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a token that is not visible ASCII, or if the URL has a user or a password, which use the same
    /// header.
    pub fn token(mut self, token: impl Into<String>) -> Result<Client, Error> {
        let invalid = |problem| Error::Invalid(Cause::new(format!("the token {problem}")));
        self.transport = self.transport.with_token(token.into()).map_err(invalid)?;
        Ok(self)
    }

    /// The time limit for making a connection, and for each pause of the server while it reads a request or sends a response.
    /// Default: 10 s. A whole response may take this long and 10 minutes more.
    pub fn timeout(mut self, timeout: Duration) -> Client {
        self.transport.connect_timeout = timeout;
        self.transport.silence_timeout = timeout;
        self
    }

    /// How long a request is sent again after [transient](Error::is_transient) errors. Zero sends each request once.
    /// Default: 5 s.
    pub fn retry_requests_for(mut self, time: Duration) -> Client {
        self.retry_time = time;
        self
    }

    /// Submits a job and returns its id and status. The job is stored once, also if a response is lost and the request is sent
    /// again.
    ///
    /// # Errors
    /// [`Error::Refused`]: `duplicate` if another job holds the unique key, `queue_full` if the queue is full, `invalid_job`
    /// for a field out of range. After a [transient](Error::is_transient) error the job may be stored; use
    /// [`Client::submit_once`] to find out.
    pub fn submit(&self, job: &Submission) -> Result<Submitted, Error> {
        self.submit_once(&new_idempotency_key(), job)
    }

    /// Submits a job and returns its id and status. If a job was submitted with the same `key` within the last 24 h, no job is
    /// stored and the first response is returned again: so a program that was restarted can submit again.
    ///
    /// `key` is 1 to 200 visible ASCII characters, and belongs to this submission alone, such as the number of an order.
    ///
    /// # Errors
    /// As [`Client::submit`]; `idempotency_mismatch` if the key was used for another submission.
    pub fn submit_once(&self, key: &str, job: &Submission) -> Result<Submitted, Error> {
        check_idempotency_key(key)?;
        self.with_retries(|| self.transport.post_json("/jobs", job, Some(key)))?.parse()
    }

    /// Submits 1 to 1,000 jobs, all or none, and returns their ids in the same order.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub fn submit_batch(&self, jobs: &[Submission]) -> Result<Vec<JobId>, Error> {
        self.submit_batch_once(&new_idempotency_key(), jobs)
    }

    /// Submits 1 to 1,000 jobs, all or none, and returns their ids in the same order. `key` is as for
    /// [`Client::submit_once`].
    ///
    /// # Errors
    /// As [`Client::submit_once`].
    pub fn submit_batch_once(&self, key: &str, jobs: &[Submission]) -> Result<Vec<JobId>, Error> {
        check_idempotency_key(key)?;
        let body = BatchBody { jobs };
        let response = self.with_retries(|| self.transport.post_json("/jobs/batch", &body, Some(key)))?;
        Ok(response.parse::<SubmittedBatch>()?.job_ids)
    }

    /// Returns the job as it is now.
    ///
    /// # Errors
    /// [`Error::Refused`] with `not_found` if there is no such job.
    pub fn get(&self, id: JobId) -> Result<Job, Error> {
        self.with_retries(|| self.transport.get(&job_path(id)))?.parse()
    }

    /// Blocks until the job has ended or `timeout` has passed, and returns the job: [`Job::has_ended`] tells which.
    ///
    /// Transient errors are retried until `timeout` has passed.
    ///
    /// # Errors
    /// [`Error::Refused`] with `not_found` if there is no such job. A transient error if the server was unavailable when
    /// `timeout` had passed.
    pub fn wait(&self, id: JobId, timeout: Duration) -> Result<Job, Error> {
        let begun = Instant::now();
        let left = || timeout.saturating_sub(begun.elapsed());
        loop {
            let sent = Instant::now();
            match poll_job(&self.transport, id, left()) {
                Ok(response) => {
                    let job: Job = response.parse()?;
                    if job.has_ended() || left().is_zero() {
                        return Ok(job);
                    }
                }
                Err(error) if error.is_transient() && !left().is_zero() => {}
                Err(error) => return Err(error),
            }
            // Only if the server answered at once.
            thread::sleep(RETRY_INTERVAL.saturating_sub(sent.elapsed()).min(left()));
        }
    }

    /// Returns the log lines of a job behind the line with the number `after`, up to 1,000 and oldest first. A job keeps its last
    /// 1,000 lines.
    ///
    /// # Errors
    /// [`Error::Refused`] with `not_found` if there is no such job.
    pub fn log(&self, id: JobId, after: u64) -> Result<JobLog, Error> {
        self.with_retries(|| self.transport.get(&format!("{}/log?after={after}", job_path(id))))?.parse()
    }

    /// Returns one page of jobs, newest first.
    ///
    /// # Errors
    /// [`Error::Refused`] with `invalid_query` for a limit or a type out of range.
    pub fn list(&self, listing: &Listing) -> Result<Page, Error> {
        self.with_retries(|| self.transport.get(&listing.path()))?.parse()
    }

    /// Returns the reasons why the job does not run yet, or what became of it, the strongest reason first.
    ///
    /// # Errors
    /// [`Error::Refused`] with `not_found` if there is no such job.
    pub fn why(&self, id: JobId) -> Result<Vec<Reason>, Error> {
        let response = self.with_retries(|| self.transport.get(&format!("{}/why", job_path(id))))?;
        Ok(response.parse::<Reasons>()?.reasons)
    }

    /// Returns one page of the jobs that wait in a queue, in the order in which servers take them. `page` begins with 1;
    /// `limit` is 1 to 100. [`Page::next`] is `None`.
    ///
    /// # Errors
    /// [`Error::Refused`] with `invalid_query` for a page or a limit out of range, and with `invalid_queue` for a text that
    /// is no name of a queue.
    pub fn queue_jobs(&self, queue: &str, page: u32, limit: u32) -> Result<Page, Error> {
        let path = format!("/queues/{}/jobs?page={page}&limit={limit}", encode_segment(queue));
        self.with_retries(|| self.transport.get(&path))?.parse()
    }

    /// The schedules of the server.
    pub fn schedules(&self) -> schedules::Schedules<'_> {
        schedules::Schedules { client: self }
    }

    /// The limits of the server.
    pub fn limits(&self) -> limits::Limits<'_> {
        limits::Limits { client: self }
    }

    /// Cancels a job and returns the job: cancelled, or still processing until its handler stops. The request is sent once.
    ///
    /// # Errors
    /// [`Error::Refused`] with `wrong_status` if the job has ended.
    pub fn cancel(&self, id: JobId) -> Result<Job, Error> {
        self.transport.post(&format!("{}/cancel", job_path(id)))?.parse()
    }

    /// Puts a failed or cancelled job back into its queue, with `attempts` 0, and returns the job. The request is sent once.
    ///
    /// # Errors
    /// [`Error::Refused`] with `wrong_status` if the job is neither failed nor cancelled.
    pub fn retry(&self, id: JobId) -> Result<Job, Error> {
        self.transport.post(&format!("{}/retry", job_path(id)))?.parse()
    }

    /// As [`Client::retry`], and deletes progress and checkpoint of the job: its handler begins at the start.
    ///
    /// # Errors
    /// As [`Client::retry`].
    pub fn retry_from_start(&self, id: JobId) -> Result<Job, Error> {
        let body = std::collections::HashMap::from([("from_start", true)]);
        self.transport.post_json(&format!("{}/retry", job_path(id)), &body, None)?.parse()
    }

    /// Deletes a completed, failed or cancelled job. The request is sent once.
    ///
    /// # Errors
    /// [`Error::Refused`] with `wrong_status` if the job has not ended.
    pub fn delete(&self, id: JobId) -> Result<(), Error> {
        self.transport.delete(&job_path(id)).map(drop)
    }

    fn with_retries(&self, send: impl FnMut() -> Result<Response, Error>) -> Result<Response, Error> {
        with_retries(self.retry_time, RETRY_INTERVAL, Error::is_transient, send, |_| ())
    }
}

fn job_path(id: JobId) -> String {
    format!("/jobs/{id}")
}

/// Gets a job as soon as it has ended, or after `wait` at the latest, of which the API allows [`MAX_WAIT`]. Gets the job as it
/// is now if too many requests wait already.
pub(crate) fn poll_job(transport: &Transport, id: JobId, wait: Duration) -> Result<Response, Error> {
    let path = job_path(id);
    let wait = wait.min(MAX_WAIT);
    let waiting = match wait.subsec_millis() {
        0 => format!("{path}?wait={}s", wait.as_secs()),
        _ => format!("{path}?wait={}ms", wait.as_millis()),
    };
    match transport.get_within(&waiting, wait) {
        Err(error) if error.code() == Some("too_many_waiting") => transport.get(&path),
        other => other,
    }
}

fn check_idempotency_key(key: &str) -> Result<(), Error> {
    let sentence = format!("the Idempotency-Key must be {}", IDEMPOTENCY_KEY.allowed);
    IDEMPOTENCY_KEY.accepts(key).then_some(()).ok_or_else(|| Error::Invalid(Cause::new(sentence)))
}

/// A new Idempotency-Key with 128 random bits.
pub(crate) fn new_idempotency_key() -> String {
    // The standard library seeds each hasher from the random numbers of the system.
    let random = || RandomState::new().build_hasher().finish();
    format!("threadq-{:016x}{:016x}", random(), random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_idempotency_keys_differ_and_are_valid() {
        let keys: std::collections::HashSet<String> = (0..1000).map(|_| new_idempotency_key()).collect();
        assert_eq!(keys.len(), 1000);
        assert!(keys.iter().all(|key| IDEMPOTENCY_KEY.accepts(key) && key.len() == 40));
    }

    #[test]
    fn invalid_arguments_are_refused_before_anything_is_sent() {
        for url in ["", "127.0.0.1:8080", "ftp://host", "http://", "http://host/?a=1", "http://host:99999"] {
            assert!(matches!(Client::new(url), Err(Error::Invalid(_))), "{url:?}");
        }
        let error = Client::new("http://ann:hunter2@host:8080abc").unwrap_err().to_string();
        assert!(
            error.starts_with("the URL \"http://***@host:8080abc\" has a port that is not a number"),
            "{error}"
        );
        let error = Client::new("http://ann:hunter2@host").unwrap().token("t").unwrap_err().to_string();
        assert!(error.starts_with("the token cannot be sent together with the user and password"), "{error}");
        let client = Client::new("http://127.0.0.1:1").unwrap();
        let error = client.clone().token("s3cret\r\nX: y").unwrap_err();
        assert_eq!(error.to_string(), "the token must be visible ASCII characters without spaces");
        for key in ["", "a b", "é", &"x".repeat(201)] {
            let error = client.submit_once(key, &Submission::new("a")).unwrap_err();
            assert!(matches!(error, Error::Invalid(_)), "{key:?}: {error}");
        }
    }

    #[test]
    fn the_token_is_not_shown() {
        let client = Client::new("http://127.0.0.1:1").unwrap().token("s3cret").unwrap();
        assert!(!format!("{client:?}").contains("s3cret"));
        assert!(!format!("{:?}", Client::new("http://ann:hunter2@host")).contains("hunter2"));
    }
}
