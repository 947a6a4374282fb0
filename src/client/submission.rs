//! A job to submit: the body of POST /jobs.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::error::{Cause, Error};
use super::unique::Unique;
use crate::job::duration::whole_ms;
use crate::job::rfc3339;

/// A job to submit. The server chooses the default of every field that is not set.
///
/// ```
/// use std::time::Duration;
/// use serde::Serialize;
/// use threadq::client::Submission;
///
/// #[derive(Serialize)]
/// struct Encode<'a> {
///     file: &'a str,
/// }
///
/// let job = Submission::new("Encode Video")
///     .payload(&Encode { file: "a.mov" })?
///     .queue("video")
///     .delay(Duration::from_secs(5))
///     .max_attempts(3);
/// # Ok::<(), threadq::client::Error>(())
/// ```
#[derive(Clone, Debug, Serialize)]
#[must_use = "a job is stored only when a client submits it"]
pub struct Submission {
    #[serde(rename = "type")]
    pub(crate) job_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) queue: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unique_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unique: Option<Unique>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_in_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retain_ms: Option<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) meta: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) limits: Vec<String>,
}

impl Submission {
    /// A job of this type: 1 to 100 characters, none of them a control character. The server checks this and every other range.
    pub fn new(job_type: impl Into<String>) -> Submission {
        Submission {
            job_type: job_type.into(),
            payload: None,
            queue: None,
            delay_ms: None,
            run_at: None,
            max_attempts: None,
            timeout_ms: None,
            unique_key: None,
            unique: None,
            expires_at: None,
            expires_in_ms: None,
            retain_ms: None,
            meta: BTreeMap::new(),
            tags: Vec::new(),
            limits: Vec::new(),
        }
    }

    /// The input of the handler, as JSON. Default: `{}`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that has no JSON form, such as a map whose keys are not text.
    pub fn payload<T: Serialize + ?Sized>(mut self, payload: &T) -> Result<Submission, Error> {
        let invalid =
            |error| Error::Invalid(Cause::of(format!("the payload has no JSON form: {error}"), error));
        self.payload = Some(to_raw_value(payload).map_err(invalid)?);
        Ok(self)
    }

    /// The queue: 1 to 64 characters of `A-Z a-z 0-9 _ . -`. Default: `default`.
    pub fn queue(mut self, queue: impl Into<String>) -> Submission {
        self.queue = Some(queue.into());
        self
    }

    /// The time from the submission until the job becomes ready, up to 365 days, rounded up to milliseconds. Replaces
    /// [`Submission::run_at`].
    pub fn delay(mut self, delay: Duration) -> Submission {
        self.delay_ms = Some(whole_ms(delay));
        self.run_at = None;
        self
    }

    /// The time at which the job becomes ready, by the clock of Redis; a time in the past means at once. Replaces
    /// [`Submission::delay`].
    pub fn run_at(mut self, time: SystemTime) -> Submission {
        self.run_at = Some(time_text(time));
        self.delay_ms = None;
        self
    }

    /// The number of attempts, 1 to 100. Default: that of the handler, else 5.
    pub fn max_attempts(mut self, attempts: u32) -> Submission {
        self.max_attempts = Some(attempts);
        self
    }

    /// The time limit of one attempt, 1 ms to 24 h, rounded up to milliseconds. Default: that of the handler, else 5 minutes.
    pub fn timeout(mut self, timeout: Duration) -> Submission {
        self.timeout_ms = Some(whole_ms(timeout));
        self
    }

    /// A key of 1 to 200 characters. The submission is refused with `duplicate` while another job with this key has not ended.
    /// Replaces [`Submission::unique`].
    pub fn unique_key(mut self, key: impl Into<String>) -> Submission {
        self.unique_key = Some(key.into());
        self.unique = None;
        self
    }

    /// A unique key with a mode of its own. Replaces [`Submission::unique_key`].
    pub fn unique(mut self, unique: Unique) -> Submission {
        self.unique = Some(unique);
        self.unique_key = None;
        self
    }

    /// The time from the submission after which no attempt starts, 1 ms to 365 days, rounded up to milliseconds. Replaces
    /// [`Submission::expires_at`].
    pub fn expires_in(mut self, time: Duration) -> Submission {
        self.expires_in_ms = Some(whole_ms(time));
        self.expires_at = None;
        self
    }

    /// The time after which no attempt starts, by the clock of Redis: after now and after the start of the job. Replaces
    /// [`Submission::expires_in`].
    pub fn expires_at(mut self, time: SystemTime) -> Submission {
        self.expires_at = Some(time_text(time));
        self.expires_in_ms = None;
        self
    }

    /// How long the job is kept after its end, up to 365 days and at least a minute. Default: that of the server.
    pub fn retain(mut self, time: Duration) -> Submission {
        self.retain_ms = Some(whole_ms(time));
        self
    }

    /// A word by which the job is found: 1 to 64 characters, none of them a control character. A job has up to 5 tags.
    pub fn tag(mut self, tag: impl Into<String>) -> Submission {
        self.tags.push(tag.into());
        self
    }

    /// A [limit](super::limits) on the start of the job: its name, or `name:key`. A job has up to 4 limits, those of its
    /// type included.
    pub fn limit(mut self, limit: impl Into<String>) -> Submission {
        self.limits.push(limit.into());
        self
    }

    /// A text that is passed on to the handler, such as a `traceparent`. A name has 1 to 64 characters of `A-Z a-z 0-9 _ -`;
    /// all names and values together have at most 1 KiB.
    pub fn meta(mut self, name: impl Into<String>, value: impl Into<String>) -> Submission {
        self.meta.insert(name.into(), value.into());
        self
    }
}

fn time_text(time: SystemTime) -> String {
    rfc3339(whole_ms(time.duration_since(UNIX_EPOCH).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(job: &Submission) -> String {
        serde_json::to_string(job).unwrap()
    }

    #[test]
    fn fields_that_are_not_set_are_not_sent() {
        assert_eq!(json(&Submission::new("Encode Video")), r#"{"type":"Encode Video"}"#);
    }

    #[test]
    fn every_field_has_its_name() {
        let job = Submission::new("a")
            .payload(&[1])
            .unwrap()
            .queue("q")
            .delay(Duration::from_millis(1500))
            .max_attempts(3)
            .timeout(Duration::from_micros(1_500))
            .unique_key("é");
        let expected = r#"{"type":"a","payload":[1],"queue":"q","delay_ms":1500,"max_attempts":3,"timeout_ms":2,"unique_key":"é"}"#;
        assert_eq!(json(&job), expected);
    }

    #[test]
    fn every_extra_field_has_its_name() {
        let job = Submission::new("a")
            .expires_in(Duration::from_micros(7_500))
            .retain(Duration::ZERO)
            .meta("b", "2")
            .meta("a", "1")
            .tag("x")
            .tag("y")
            .limit("tenant:42")
            .limit("smtp");
        let expected = r#"{"type":"a","expires_in_ms":8,"retain_ms":0,"meta":{"a":"1","b":"2"},"tags":["x","y"],"limits":["tenant:42","smtp"]}"#;
        assert_eq!(json(&job), expected);
    }

    #[test]
    fn the_two_forms_of_an_expiry_and_of_a_unique_key_replace_each_other() {
        let at = UNIX_EPOCH + Duration::from_millis(1_764_000_000_123);
        let job = Submission::new("a").expires_in(Duration::from_secs(1)).expires_at(at);
        assert_eq!(json(&job), r#"{"type":"a","expires_at":"2025-11-24T16:00:00.123Z"}"#);
        assert_eq!(json(&job.expires_in(Duration::from_secs(1))), r#"{"type":"a","expires_in_ms":1000}"#);
        let job = Submission::new("a").unique_key("k").unique(Unique::key("l"));
        assert_eq!(json(&job), r#"{"type":"a","unique":{"key":"l"}}"#);
        assert_eq!(json(&job.unique_key("k")), r#"{"type":"a","unique_key":"k"}"#);
    }

    #[test]
    fn delay_and_run_at_replace_each_other() {
        let at = UNIX_EPOCH + Duration::from_millis(1_764_000_000_123);
        let job = Submission::new("a").delay(Duration::from_secs(1)).run_at(at);
        assert_eq!(json(&job), r#"{"type":"a","run_at":"2025-11-24T16:00:00.123Z"}"#);
        assert_eq!(json(&job.delay(Duration::MAX)), format!(r#"{{"type":"a","delay_ms":{}}}"#, u64::MAX));
    }

    #[test]
    fn a_payload_keeps_every_digit_and_a_value_without_a_json_form_is_refused() {
        let digits = RawValue::from_string("1.00000000000000000000001".to_owned()).unwrap();
        let job = Submission::new("a").payload(&digits).unwrap();
        assert_eq!(json(&job), r#"{"type":"a","payload":1.00000000000000000000001}"#);
        let no_text = std::collections::BTreeMap::from([([1], 1)]);
        assert!(matches!(Submission::new("a").payload(&no_text), Err(Error::Invalid(_))));
    }
}
