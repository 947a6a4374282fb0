//! A unique key and its mode: the field `unique` of POST /jobs.

use std::time::Duration;

use serde::Serialize;

use crate::job::duration::whole_ms;

/// A unique key, and what happens to a submission while another job holds the key.
///
/// Without any call the key is held until its job has ended, and a submission with the same key is refused with `duplicate`.
///
/// ```
/// use std::time::Duration;
/// use threadq::client::{Submission, Unique};
///
/// // Throttle: at most one notification in ten minutes.
/// let notify = Submission::new("notify")
///     .unique(Unique::key("notify:user-7").for_(Duration::from_secs(600)).existing());
///
/// // Debounce: one update 5 s after the last change, and at most 60 s after the first one.
/// let update = Submission::new("update index")
///     .delay(Duration::from_secs(5))
///     .unique(Unique::key("index:article-7").replace().max_wait(Duration::from_secs(60)));
/// ```
#[derive(Clone, Debug, Serialize)]
#[must_use = "a unique key is the value of Submission::unique"]
pub struct Unique {
    pub(crate) key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) for_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) on_conflict: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_wait_ms: Option<u64>,
}

impl Unique {
    /// A key of 1 to 200 characters.
    pub fn key(key: impl Into<String>) -> Unique {
        Unique { key: key.into(), until: None, for_ms: None, on_conflict: None, max_wait_ms: None }
    }

    /// The job holds the key until its first start: one job can wait while another one runs. Replaces [`Unique::for_`].
    pub fn until_start(mut self) -> Unique {
        self.until = Some("start");
        self.for_ms = None;
        self
    }

    /// The job holds the key for this time from its submission, up to 365 days, however the job ends. Replaces
    /// [`Unique::until_start`].
    pub fn for_(mut self, time: Duration) -> Unique {
        self.for_ms = Some(whole_ms(time));
        self.until = None;
        self
    }

    /// If another job holds the key, the submission returns that job and stores nothing. Replaces [`Unique::replace`].
    pub fn existing(mut self) -> Unique {
        self.on_conflict = Some("existing");
        self.max_wait_ms = None;
        self
    }

    /// If another job holds the key and has not started, that job gets the fields that this submission sets, in place of a
    /// new job. Its time stays if the submission has neither a delay nor a time. The key is held until the start. Replaces
    /// [`Unique::existing`].
    ///
    /// The submission is refused with `duplicate` if the other job has another type, or holds the key longer than until its
    /// start.
    pub fn replace(mut self) -> Unique {
        self.on_conflict = Some("replace");
        self
    }

    /// With [`Unique::replace`]: the job becomes ready at most this long after its own submission, however often later
    /// submissions put it off.
    pub fn max_wait(mut self, time: Duration) -> Unique {
        self.max_wait_ms = Some(whole_ms(time));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_sets_its_field_and_removes_the_other_one() {
        let minute = Duration::from_secs(60);
        for (unique, expected) in [
            (Unique::key("k"), r#"{"key":"k"}"#),
            (Unique::key("k").until_start(), r#"{"key":"k","until":"start"}"#),
            (Unique::key("k").until_start().for_(minute), r#"{"key":"k","for_ms":60000}"#),
            (Unique::key("k").for_(minute).until_start(), r#"{"key":"k","until":"start"}"#),
            (
                Unique::key("k").replace().max_wait(minute),
                r#"{"key":"k","on_conflict":"replace","max_wait_ms":60000}"#,
            ),
            (
                Unique::key("k").replace().max_wait(minute).existing(),
                r#"{"key":"k","on_conflict":"existing"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&unique).unwrap(), expected);
        }
    }
}
