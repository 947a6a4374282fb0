//! A job as it is submitted: the body of POST /jobs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::error::Error;
use crate::job::rfc3339;

/// A job to submit. What is not said is left to the server: see there for the defaults.
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
#[must_use = "it does nothing until it is given to a client"]
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
}

impl Submission {
    /// A job of this type: 1 to 100 characters, none of them a control character.
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
        }
    }

    /// What the handler gets. Defaults to `{}`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that is no JSON, such as a map whose keys are no texts.
    pub fn payload<T: Serialize + ?Sized>(mut self, payload: &T) -> Result<Submission, Error> {
        let json = to_raw_value(payload);
        self.payload =
            Some(json.map_err(|error| Error::Invalid(format!("the payload is no JSON: {error}")))?);
        Ok(self)
    }

    /// The queue it goes through: 1 to 64 of `A-Z a-z 0-9 _ . -`. Defaults to `default`.
    pub fn queue(mut self, queue: impl Into<String>) -> Submission {
        self.queue = Some(queue.into());
        self
    }

    /// Starts it so long after it was submitted, up to 365 days. Takes the place of [`Submission::run_at`].
    pub fn delay(mut self, delay: Duration) -> Submission {
        self.delay_ms = Some(whole_ms(delay));
        self.run_at = None;
        self
    }

    /// Starts it at this time, by Redis's clock; at once if that has passed. Takes the place of [`Submission::delay`].
    pub fn run_at(mut self, time: SystemTime) -> Submission {
        self.run_at = Some(rfc3339(whole_ms(time.duration_since(UNIX_EPOCH).unwrap_or_default())));
        self.delay_ms = None;
        self
    }

    /// How often it is tried, 1 to 100. Defaults to what its handler says, else 5.
    pub fn max_attempts(mut self, attempts: u32) -> Submission {
        self.max_attempts = Some(attempts);
        self
    }

    /// How long one attempt may take, up to 24 h. Defaults to what its handler says, else 5 minutes.
    pub fn timeout(mut self, timeout: Duration) -> Submission {
        self.timeout_ms = Some(whole_ms(timeout));
        self
    }

    /// Refused with `duplicate` while another job that has not ended has this key of 1 to 200 characters.
    pub fn unique_key(mut self, key: impl Into<String>) -> Submission {
        self.unique_key = Some(key.into());
        self
    }
}

/// Milliseconds, rounded up: never earlier or shorter than was asked for.
fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(job: &Submission) -> String {
        serde_json::to_string(job).unwrap()
    }

    #[test]
    fn what_is_not_said_is_not_sent() {
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
    fn the_last_word_on_the_start_counts() {
        let at = UNIX_EPOCH + Duration::from_millis(1_764_000_000_123);
        let job = Submission::new("a").delay(Duration::from_secs(1)).run_at(at);
        assert_eq!(json(&job), r#"{"type":"a","run_at":"2025-11-24T16:00:00.123Z"}"#);
        assert_eq!(json(&job.delay(Duration::MAX)), format!(r#"{{"type":"a","delay_ms":{}}}"#, u64::MAX));
    }

    #[test]
    fn a_payload_keeps_every_digit_and_one_that_is_no_json_is_refused() {
        let digits = RawValue::from_string("1.00000000000000000000001".to_owned()).unwrap();
        let job = Submission::new("a").payload(&digits).unwrap();
        assert_eq!(json(&job), r#"{"type":"a","payload":1.00000000000000000000001}"#);
        let no_text = std::collections::BTreeMap::from([([1], 1)]);
        assert!(matches!(Submission::new("a").payload(&no_text), Err(Error::Invalid(_))));
    }
}
