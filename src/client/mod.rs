//! A client of a running server, for programs: submits jobs, waits for their end, and reads their results.
//!
//! ```no_run
//! use std::time::Duration;
//! use threadq::client::{Client, Submission};
//!
//! let client = Client::new("http://127.0.0.1:8080")?;
//! let id = client.submit(&Submission::new("greet").payload("Ada")?)?;
//! let greeting: String = client.wait(id, Duration::from_secs(60))?.result()?;
//! assert_eq!(greeting, "Hello, Ada!");
//! # Ok::<(), threadq::client::Error>(())
//! ```
//!
//! What a lost answer or a Redis that is away leaves open is asked again for a while, as long as that is safe: reading
//! always is, and submitting is by an `Idempotency-Key`, which [`Client::submit`] makes itself.

mod error;
mod job;
mod listing;
pub(crate) mod retry;
mod submission;
mod transport;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use self::error::{Error, Refusal};
pub use self::job::{AttemptError, Job};
pub use self::listing::{Listing, Page};
pub(crate) use self::retry::repeat;
pub use self::submission::Submission;
pub(crate) use self::transport::{Answer, DEFAULT_SERVER, Transport, Unserved};
use crate::job::JobId;
use crate::net::authorities::{self, Authorities};
use crate::net::http_url::shown;

/// The longest that the API lets a request wait for a job.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Connections that are kept for the next request.
const KEPT_CONNECTIONS: usize = 8;
/// How long the server may be silent: far over the 3 s in which it tells of trouble with Redis.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server, or its Redis, may be away: enough for a restart.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two questions when the first one failed.
const PAUSE: Duration = Duration::from_millis(250);

/// Talks to one server, or to several behind one URL. Cheap to clone; threads may share it.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Transport,
    patience: Duration,
}

/// The body of POST /jobs/batch.
#[derive(Serialize)]
pub(crate) struct BatchBody<'a, T> {
    /// As for POST /jobs.
    pub jobs: &'a [T],
}

/// A new job's id, as the API tells it.
#[derive(Deserialize)]
pub(crate) struct Submitted {
    pub job_id: JobId,
}

/// New jobs' ids, as the API tells them.
#[derive(Deserialize)]
pub(crate) struct SubmittedBatch {
    pub job_ids: Vec<JobId>,
}

impl Client {
    /// A client of the server at this URL, such as `http://127.0.0.1:8080`; a path is put in front of the API's own. A user
    /// and a password in it, percent-encoded where need be, become Basic authentication.
    ///
    /// Asks nothing yet. An `https://` server must have its certificate from an authority that the web trusts; where the
    /// environment variable `SSL_CERT_FILE` names a file, from one of those in that file. See also [`Client::trusting`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a URL that cannot be one of a server; the error names the part that is wrong. The same for an
    /// `SSL_CERT_FILE` that holds no authorities.
    pub fn new(url: &str) -> Result<Client, Error> {
        let mut transport = Transport::new(url, KEPT_CONNECTIONS)
            .map_err(|problem| Error::Invalid(format!("the URL {} {problem}", shown(url))))?;
        transport.connect_timeout = TIMEOUT;
        transport.silence_timeout = TIMEOUT;
        if let (true, Some(file)) = (transport.is_https(), std::env::var_os(authorities::ENVIRONMENT)) {
            let read = Authorities::from_file(Path::new(&file));
            let wrong =
                |why| Error::Invalid(format!("{}: the file {file:?} {why}", authorities::ENVIRONMENT));
            transport = transport.trusting(&read.map_err(wrong)?);
        }
        Ok(Client { transport, patience: PATIENCE })
    }

    /// Trusts these authorities for `https://`, in place of those that the web trusts.
    pub fn trusting(mut self, authorities: &Authorities) -> Client {
        self.transport = self.transport.trusting(authorities);
        self
    }

    /// Shows this token to the server: what is `api-token` there.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a token that no header can carry, or if the URL has a user or a password: a request has
    /// room for one of them.
    pub fn token(mut self, token: impl Into<String>) -> Result<Client, Error> {
        let transport = self.transport.with_token(token.into());
        self.transport = transport.map_err(|allowed| Error::Invalid(format!("the token {allowed}")))?;
        Ok(self)
    }

    /// How long the server may take to be reached, and how long it may be silent. Defaults to 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Client {
        self.transport.connect_timeout = timeout;
        self.transport.silence_timeout = timeout;
        self
    }

    /// For how long a request is sent again while the server or its Redis is away or its answers get lost. Zero sends
    /// each once. Defaults to 5 s.
    pub fn patience(mut self, patience: Duration) -> Client {
        self.patience = patience;
        self
    }

    /// Submits a job. It is stored once, also when answers get lost and it is sent again.
    ///
    /// # Errors
    /// [`Error::Refused`], with `duplicate` for a unique key that another job holds, `queue_full` for a queue that takes
    /// no more, `invalid_job` for a field out of its range. After an error that [may pass](Error::may_pass) the job may be
    /// stored all the same; [`Client::submit_once`] can find out.
    pub fn submit(&self, job: &Submission) -> Result<JobId, Error> {
        self.submit_once(&fresh_key(), job)
    }

    /// Submits a job, unless one was submitted with the same key within the last 24 h: then gives that one's id.
    ///
    /// The key is 1 to 200 visible ASCII characters and belongs to just this submission: an order's number, say. So a
    /// program that was ended in between can submit again without asking whether it had.
    ///
    /// # Errors
    /// As [`Client::submit`]; `idempotency_mismatch` if the key was used with another submission.
    pub fn submit_once(&self, key: &str, job: &Submission) -> Result<JobId, Error> {
        check_key(key)?;
        let answer = self.repeat(|| self.transport.post_json("/jobs", job, Some(key)))?;
        Ok(answer.parse::<Submitted>()?.job_id)
    }

    /// Submits 1 to 1,000 jobs, all or none, and gives their ids in the same order.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub fn submit_batch(&self, jobs: &[Submission]) -> Result<Vec<JobId>, Error> {
        self.submit_batch_once(&fresh_key(), jobs)
    }

    /// Submits 1 to 1,000 jobs, all or none, unless they were submitted with the same key within the last 24 h.
    ///
    /// # Errors
    /// As [`Client::submit_once`].
    pub fn submit_batch_once(&self, key: &str, jobs: &[Submission]) -> Result<Vec<JobId>, Error> {
        check_key(key)?;
        let body = BatchBody { jobs };
        let answer = self.repeat(|| self.transport.post_json("/jobs/batch", &body, Some(key)))?;
        Ok(answer.parse::<SubmittedBatch>()?.job_ids)
    }

    /// The job as it is now.
    ///
    /// # Errors
    /// [`Error::Refused`] with `not_found` if there is none.
    pub fn get(&self, id: JobId) -> Result<Job, Error> {
        self.repeat(|| self.transport.get(&job_path(id)))?.parse()
    }

    /// The job as soon as it has ended, or as it is when `timeout` is over: [`Job::has_ended`] tells which.
    ///
    /// A server that is away meanwhile is waited for: the job is stored.
    ///
    /// # Errors
    /// [`Error::Refused`] with `not_found` if there is no such job, or no longer. An error that may pass if the server
    /// was away when the time was over.
    pub fn wait(&self, id: JobId, timeout: Duration) -> Result<Job, Error> {
        let begun = Instant::now();
        let left = || timeout.saturating_sub(begun.elapsed());
        loop {
            let asked = Instant::now();
            match look(&self.transport, id, left()) {
                Ok(answer) => {
                    let job: Job = answer.parse()?;
                    if job.has_ended() || left().is_zero() {
                        return Ok(job);
                    }
                }
                Err(error) if error.may_pass() && !left().is_zero() => {}
                Err(error) => return Err(error),
            }
            // Where the server did not hold it back.
            thread::sleep(PAUSE.saturating_sub(asked.elapsed()).min(left()));
        }
    }

    /// One page of jobs, newest first.
    ///
    /// # Errors
    /// [`Error::Refused`] with `invalid_query` for a limit or a type out of its range.
    pub fn list(&self, listing: &Listing) -> Result<Page, Error> {
        self.repeat(|| self.transport.get(&listing.path()))?.parse()
    }

    /// Cancels a job. The answer is the job: cancelled, or still processing, if its handler has to stop first.
    ///
    /// # Errors
    /// [`Error::Refused`] with `wrong_status` if it has ended. A lost answer is not asked for again.
    pub fn cancel(&self, id: JobId) -> Result<Job, Error> {
        self.transport.post(&format!("{}/cancel", job_path(id)))?.parse()
    }

    /// Sends a failed or cancelled job back to its queue, with all its attempts.
    ///
    /// # Errors
    /// [`Error::Refused`] with `wrong_status` if it is neither. A lost answer is not asked for again.
    pub fn retry(&self, id: JobId) -> Result<Job, Error> {
        self.transport.post(&format!("{}/retry", job_path(id)))?.parse()
    }

    /// Forgets a job that is completed, failed or cancelled.
    ///
    /// # Errors
    /// [`Error::Refused`] with `wrong_status` if it has not ended. A lost answer is not asked for again.
    pub fn delete(&self, id: JobId) -> Result<(), Error> {
        self.transport.delete(&job_path(id)).map(drop)
    }

    fn repeat(&self, ask: impl FnMut() -> Result<Answer, Error>) -> Result<Answer, Error> {
        repeat(self.patience, PAUSE, Error::may_pass, ask, |_| ())
    }
}

fn job_path(id: JobId) -> String {
    format!("/jobs/{id}")
}

/// The job as soon as it has ended, or as it is after so long or the longest that the API allows; as it is now if too many
/// requests wait already.
pub(crate) fn look(transport: &Transport, id: JobId, wait: Duration) -> Result<Answer, Error> {
    let path = job_path(id);
    let wait = wait.min(LONGEST_WAIT);
    let asked = match wait.subsec_millis() {
        0 => format!("{path}?wait={}s", wait.as_secs()),
        _ => format!("{path}?wait={}ms", wait.as_millis()),
    };
    match transport.get_within(&asked, wait) {
        Err(error) if error.code() == Some("too_many_waiting") => transport.get(&path),
        other => other,
    }
}

/// What a key may be: the clause of an error.
pub(crate) const KEY_ALLOWED: &str = "must be 1 to 200 visible ASCII characters";

/// Whether this can be an Idempotency-Key.
pub(crate) fn is_key(text: &str) -> bool {
    (1..=200).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn check_key(key: &str) -> Result<(), Error> {
    let wrong = || Error::Invalid(format!("the Idempotency-Key {KEY_ALLOWED}"));
    is_key(key).then_some(()).ok_or_else(wrong)
}

/// An Idempotency-Key that nobody else has: 128 bits from the random numbers of the system.
pub(crate) fn fresh_key() -> String {
    // Each has keys of its own, which the standard library takes from the system.
    let random = || RandomState::new().build_hasher().finish();
    format!("threadq-{:016x}{:016x}", random(), random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fresh_and_can_be_sent() {
        let keys: std::collections::HashSet<String> = (0..1000).map(|_| fresh_key()).collect();
        assert_eq!(keys.len(), 1000);
        assert!(keys.iter().all(|key| is_key(key) && key.len() == 40));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_before() {
        for url in ["", "127.0.0.1:8080", "ftp://host", "http://", "http://host/?a=1", "http://host:99999"] {
            assert!(matches!(Client::new(url), Err(Error::Invalid(_))), "{url:?}");
        }
        let error = Client::new("http://ann:hunter2@host:8080abc").unwrap_err().to_string();
        assert!(
            error.starts_with("the URL \"http://***@host:8080abc\" has a port that is no number"),
            "{error}"
        );
        let error = Client::new("http://ann:hunter2@host").unwrap().token("t").unwrap_err().to_string();
        assert!(error.starts_with("the token cannot be sent beside the user and password"), "{error}");
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
