//! Query strings: every parameter is known, given once and checked; nothing is guessed or clamped.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use crate::job::limits::{JOB_TYPE, whole_number_in};
use crate::job::{JobId, Status};

use crate::api::response::Reply;

/// The parameters of one request.
pub struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads what stands behind the question mark; only these names are allowed.
    pub fn parse(text: &'a str, allowed: &[&str]) -> Result<Query<'a>, Reply> {
        let mut seen: Vec<(Cow<str>, Cow<str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            let shown: String = name.chars().take(50).collect();
            if !allowed.contains(&name.as_ref()) {
                return Err(Reply::invalid_query(match allowed {
                    [] => format!("{shown:?} is no parameter: there are none here"),
                    _ => format!("{shown:?} is no parameter here: there are {}", allowed.join(", ")),
                }));
            }
            if seen.iter().any(|(other, _)| *other == name) {
                return Err(Reply::invalid_query(format!("{shown} is given twice")));
            }
            seen.push((name, value));
        }
        Ok(Query(seen))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_ref())
    }

    /// A whole number within a range.
    pub fn number(&self, name: &str, default: u64, least: u64, most: u64) -> Result<u64, Reply> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits && (least..=most).contains(&number) => Ok(number),
            _ => Err(Reply::invalid_query(format!("{name} must be {}", whole_number_in(&(least..=most))))),
        }
    }

    /// A job's id.
    pub fn id(&self, name: &str) -> Result<Option<JobId>, Reply> {
        let parse =
            |text: &str| text.parse().map_err(|error| Reply::invalid_query(format!("{name}: {error}")));
        self.get(name).map(parse).transpose()
    }

    /// Refuses two parameters that exclude each other.
    pub fn not_both(&self, one: &str, other: &str) -> Result<(), Reply> {
        match (self.get(one), self.get(other)) {
            (Some(_), Some(_)) => Err(Reply::invalid_query(format!("{one} and {other} exclude each other"))),
            _ => Ok(()),
        }
    }

    pub fn status(&self) -> Result<Option<Status>, Reply> {
        self.parsed("status")
    }

    pub fn job_type(&self) -> Result<Option<String>, Reply> {
        match self.get("type") {
            Some(job_type) if !JOB_TYPE.accepts(job_type) => {
                Err(Reply::invalid_query(format!("type must have {}", JOB_TYPE.allowed)))
            }
            job_type => Ok(job_type.map(str::to_owned)),
        }
    }

    /// How long a request wants to wait, up to a minute.
    pub fn wait(&self) -> Result<Option<std::time::Duration>, Reply> {
        let Some(text) = self.get("wait") else { return Ok(None) };
        let limit = std::time::Duration::from_secs(60);
        match crate::job::duration::parse(text) {
            Ok(wait) if wait <= limit => Ok(Some(wait)),
            _ => Err(Reply::invalid_query("wait is a time up to 60s, like 500ms or 10s")),
        }
    }

    fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Reply> {
        let parse =
            |text: &str| text.parse().map_err(|error: T::Err| Reply::invalid_query(error.to_string()));
        self.get(name).map(parse).transpose()
    }
}
