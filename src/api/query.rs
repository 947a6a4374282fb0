//! Query strings. Each parameter must be known, given once and valid; no value is guessed or clamped.

use std::borrow::Cow;
use std::time::Duration;

use crate::api::response::Response;
use crate::job::rules::{ERROR_PART, JOB_TYPE, QUEUE_NAME, TAG, TextRule, whole_number_in};
use crate::job::time::parse_rfc3339_micros;
use crate::job::{JobId, Status, duration};
use crate::queue::{Filter, Selection};

/// The longest time that a request may wait for its job.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The parameters of one request.
pub struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Parses the text after the question mark. Only the parameters in `allowed` may be given.
    pub fn parse(text: &'a str, allowed: &[&str]) -> Result<Query<'a>, Response> {
        let mut parameters: Vec<(Cow<str>, Cow<str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            if !allowed.contains(&name.as_ref()) {
                let shown: String = name.chars().take(50).collect();
                let allowed = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
                let sentence = format!("unknown query parameter {shown:?}; allowed: {allowed}");
                return Err(Response::invalid_query(sentence));
            }
            if parameters.iter().any(|(other, _)| *other == name) {
                return Err(Response::invalid_query(format!("{name} is given twice")));
            }
            parameters.push((name, value));
        }
        Ok(Query(parameters))
    }

    /// The text of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_ref())
    }

    /// A whole number from `least` to `most`.
    pub fn number(&self, name: &str, default: u64, least: u64, most: u64) -> Result<u64, Response> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let is_digits = text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(number) if is_digits && (least..=most).contains(&number) => Ok(number),
            _ => Err(Response::invalid_query(format!("{name} must be {}", whole_number_in(&(least..=most))))),
        }
    }

    /// A job id.
    pub fn id(&self, name: &str) -> Result<Option<JobId>, Response> {
        let parse =
            |text: &str| text.parse().map_err(|error| Response::invalid_query(format!("{name}: {error}")));
        self.get(name).map(parse).transpose()
    }

    /// Fails if both parameters are given.
    pub fn not_both(&self, one: &str, other: &str) -> Result<(), Response> {
        match (self.get(one), self.get(other)) {
            (Some(_), Some(_)) => {
                Err(Response::invalid_query(format!("{one} and {other} must not be given together")))
            }
            _ => Ok(()),
        }
    }

    /// The parameters that choose jobs for an operation, which looks at each job: any of them may be given together.
    pub fn selection(&self) -> Result<Selection, Response> {
        Ok(Selection {
            statuses: Vec::new(),
            job_type: self.text("type", &JOB_TYPE)?,
            tag: self.text("tag", &TAG)?,
            queue: self.text("queue", &QUEUE_NAME)?,
            created_after: self.time("created_after")?,
            created_before: self.time("created_before")?,
            ids: None,
            error: self.text("error", &ERROR_PART)?,
        })
    }

    /// The parameter `status`.
    fn status(&self) -> Result<Option<Status>, Response> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|error: crate::job::UnknownStatus| Response::invalid_query(error.to_string()))
        };
        self.get("status").map(parse).transpose()
    }

    /// A text that the rule accepts.
    fn text(&self, name: &str, rule: &TextRule) -> Result<Option<String>, Response> {
        match self.get(name) {
            Some(text) if !rule.accepts(text) => {
                Err(Response::invalid_query(format!("{name} must be {}", rule.allowed)))
            }
            text => Ok(text.map(str::to_owned)),
        }
    }

    /// A time in RFC 3339, in µs since 1970.
    fn time(&self, name: &str) -> Result<Option<u64>, Response> {
        let parse = |text: &str| {
            let sentence = || format!("{name} must be a time as in RFC 3339, like 2026-11-24T08:00:00Z");
            parse_rfc3339_micros(text).ok_or_else(|| Response::invalid_query(sentence()))
        };
        self.get(name).map(parse).transpose()
    }

    /// The parameters that choose the jobs of a listing. A listing has an index by type and an index by tag, but none by both.
    pub fn filter(&self) -> Result<Filter, Response> {
        self.not_both("type", "tag")?;
        Ok(Filter {
            status: self.status()?,
            job_type: self.text("type", &JOB_TYPE)?,
            tag: self.text("tag", &TAG)?,
            created_after: self.time("created_after")?,
            created_before: self.time("created_before")?,
        })
    }

    /// The parameter `wait`: how long the request may wait for its job to end, up to [`MAX_WAIT`].
    pub fn wait(&self) -> Result<Option<Duration>, Response> {
        let Some(text) = self.get("wait") else { return Ok(None) };
        match duration::parse(text) {
            Ok(wait) if wait <= MAX_WAIT => Ok(Some(wait)),
            _ => Err(Response::invalid_query("wait must be a duration up to 60s, such as 500ms or 10s")),
        }
    }
}
