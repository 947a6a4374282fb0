//! Changes of jobs that wait, and operations on all jobs of a filter.
//!
//! ```no_run
//! use threadq::client::Client;
//! use threadq::client::bulk::{Action, Filter};
//!
//! fn forget_customer(client: &Client) -> Result<(), threadq::client::Error> {
//!     let filter = Filter { tag: Some("customer-42".to_owned()), ..Filter::default() };
//!     let report = client.bulk(&Action::Cancel, &filter)?;
//!     println!("cancelled {} of {} jobs", report.changed, report.matched);
//!     Ok(())
//! }
//! ```

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::error::{Cause, Error};
use super::listing::time_text;
use super::{Client, Job, job_path};
use crate::job::duration::whole_ms;
use crate::job::{JobId, Status};

/// Which jobs an operation changes: those that match every field that is set. At least one field must be set.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Filter {
    /// Jobs with one of these statuses. Empty: with any status.
    #[serde(rename = "status", skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<Status>,
    /// Jobs of this type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub job_type: Option<String>,
    /// Jobs with this tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Jobs of this queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Jobs that were created at this time or later, by the clock of Redis.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    pub created_after: Option<SystemTime>,
    /// Jobs that were created before this time.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    pub created_before: Option<SystemTime>,
    /// Jobs with one of these ids, at most 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<JobId>>,
    /// Jobs whose last error contains this text, with the same case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// All jobs. No other field may be set then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

fn time<S: serde::Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(time_text).serialize(serializer)
}

/// What becomes of the jobs.
#[derive(Clone, Debug)]
pub enum Action {
    /// Jobs that have not ended are cancelled. The handlers of running jobs are asked to stop.
    Cancel,
    /// Ended jobs are deleted.
    Delete,
    /// Failed and cancelled jobs go back to their queues, with `attempts` 0.
    Retry,
    /// Scheduled and retrying jobs become ready now.
    Run,
    /// Jobs that are scheduled, queued or retrying get new values.
    Change(Box<Change>),
}

/// New values for a job that waits. Fields that are not set stay as they are.
#[derive(Clone, Debug, Default, Serialize)]
#[must_use = "a change is made only when a client sends it"]
pub struct Change {
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<String>>,
}

impl Change {
    /// A change of nothing yet.
    pub fn new() -> Change {
        Change::default()
    }

    /// The input of the handler, as JSON.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that has no JSON form, such as a map whose keys are not text.
    pub fn payload<T: Serialize + ?Sized>(mut self, payload: &T) -> Result<Change, Error> {
        let invalid =
            |error| Error::Invalid(Cause::of(format!("the payload has no JSON form: {error}"), error));
        self.payload = Some(to_raw_value(payload).map_err(invalid)?);
        Ok(self)
    }

    /// The queue to which the job moves.
    pub fn queue(mut self, queue: impl Into<String>) -> Change {
        self.queue = Some(queue.into());
        self
    }

    /// The time from now until the job becomes ready, up to 365 days. Replaces [`Change::run_at`].
    pub fn delay(mut self, delay: Duration) -> Change {
        self.delay_ms = Some(whole_ms(delay));
        self.run_at = None;
        self
    }

    /// The time at which the job becomes ready, by the clock of Redis. Replaces [`Change::delay`].
    pub fn run_at(mut self, time: SystemTime) -> Change {
        self.run_at = Some(time_text(time));
        self.delay_ms = None;
        self
    }

    /// The number of attempts, 1 to 100.
    pub fn max_attempts(mut self, attempts: u32) -> Change {
        self.max_attempts = Some(attempts);
        self
    }

    /// The time limit of one attempt, 1 ms to 24 h.
    pub fn timeout(mut self, timeout: Duration) -> Change {
        self.timeout_ms = Some(whole_ms(timeout));
        self
    }

    /// The time from now after which no attempt starts.
    pub fn expires_in(mut self, time: Duration) -> Change {
        self.expires_in_ms = Some(whole_ms(time));
        self
    }

    /// All tags of the job, up to 5.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Change {
        self.tags = Some(tags.into_iter().map(Into::into).collect());
        self
    }
}

/// What an operation has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The number of jobs that match the filter.
    pub matched: u64,
    /// The number of jobs that were changed. A running job that was asked to stop counts.
    pub changed: u64,
    /// The number of matching jobs that were not changed: their status does not allow the action, or another job holds
    /// their unique key.
    pub skipped: u64,
}

/// The body of POST /jobs/bulk.
#[derive(Serialize)]
struct Body<'a> {
    action: &'static str,
    filter: &'a Filter,
    #[serde(skip_serializing_if = "Option::is_none")]
    set: Option<&'a Change>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// The response to one request of an operation.
#[derive(Default, Deserialize)]
pub(crate) struct Step {
    pub matched: u64,
    pub changed: u64,
    pub skipped: u64,
    /// The cursor of the next request; `None` after the last request.
    pub cursor: Option<String>,
}

impl Client {
    /// Gives a job that is scheduled, queued or retrying new values, and returns the job.
    ///
    /// # Errors
    /// [`Error::Refused`] with `wrong_status` if the job has started, with `invalid_job` for a value out of range.
    pub fn change(&self, id: JobId, change: &Change) -> Result<Job, Error> {
        self.with_retries(|| self.transport.patch_json(&job_path(id), change))?.parse()
    }

    /// Makes a scheduled or retrying job ready now, and returns the job. The request is sent once.
    ///
    /// # Errors
    /// [`Error::Refused`] with `wrong_status` if the job has started.
    pub fn run_now(&self, id: JobId) -> Result<Job, Error> {
        self.transport.post(&format!("{}/run", job_path(id)))?.parse()
    }

    /// Changes all jobs that match a filter. Jobs that are submitted meanwhile are left alone.
    ///
    /// The operation is a row of requests of up to 5 s each. A request whose response was lost is sent again; jobs that the
    /// first one has changed then count as skipped.
    ///
    /// # Errors
    /// [`Error::Refused`] with `invalid_filter` for a filter without a field, or with a value out of range. After an error
    /// some of the jobs may have been changed.
    pub fn bulk(&self, action: &Action, filter: &Filter) -> Result<Report, Error> {
        let (action, set) = match action {
            Action::Cancel => ("cancel", None),
            Action::Delete => ("delete", None),
            Action::Retry => ("retry", None),
            Action::Run => ("run", None),
            Action::Change(change) => ("change", Some(&**change)),
        };
        self.send_bulk(Body { action, filter, set, dry_run: false, cursor: None })
    }

    /// The number of jobs that match a filter.
    ///
    /// # Errors
    /// As [`Client::bulk`].
    pub fn count(&self, filter: &Filter) -> Result<u64, Error> {
        let body = Body { action: "cancel", filter, set: None, dry_run: true, cursor: None };
        self.send_bulk(body).map(|report| report.matched)
    }

    fn send_bulk(&self, mut body: Body) -> Result<Report, Error> {
        let mut total = Report::default();
        loop {
            let response = self.with_retries(|| self.transport.post_json("/jobs/bulk", &body, None))?;
            let Step { matched, changed, skipped, cursor } = response.parse()?;
            total.matched += matched;
            total.changed += changed;
            total.skipped += skipped;
            if cursor.is_none() {
                return Ok(total);
            }
            body.cursor = cursor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_name_and_fields_that_are_not_set_are_not_sent() {
        let json = |filter: &Filter| serde_json::to_string(filter).unwrap();
        assert_eq!(json(&Filter::default()), "{}");
        assert_eq!(json(&Filter { all: true, ..Filter::default() }), r#"{"all":true}"#);
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_764_000_000_123_456);
        let filter = Filter {
            statuses: vec![Status::Queued],
            job_type: Some("a".to_owned()),
            tag: Some("b".to_owned()),
            queue: Some("c".to_owned()),
            created_after: Some(at),
            created_before: Some(at),
            ids: Some(vec![JobId::new(7).unwrap()]),
            error: Some("d".to_owned()),
            all: false,
        };
        let time = "2025-11-24T16:00:00.123456Z";
        let expected = format!(
            r#"{{"status":["queued"],"type":"a","tag":"b","queue":"c","created_after":"{time}","created_before":"{time}","ids":[7],"error":"d"}}"#
        );
        assert_eq!(json(&filter), expected);

        let change = Change::new()
            .payload(&[1])
            .unwrap()
            .queue("q")
            .run_at(at)
            .delay(Duration::from_secs(1))
            .max_attempts(2)
            .timeout(Duration::from_secs(3))
            .expires_in(Duration::from_secs(4))
            .tags(["x"]);
        let expected = r#"{"payload":[1],"queue":"q","delay_ms":1000,"max_attempts":2,"timeout_ms":3000,"expires_in_ms":4000,"tags":["x"]}"#;
        assert_eq!(serde_json::to_string(&change).unwrap(), expected);
        assert_eq!(
            serde_json::to_string(&Change::new().delay(Duration::ZERO).run_at(at)).unwrap(),
            format!(r#"{{"run_at":"{time}"}}"#)
        );
    }
}
