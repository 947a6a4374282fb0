//! [`Spec`]: what a schedule says of its times, as texts; and its check.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cron::Cron;
use super::plan::{CatchUp, Overlap, Plan, Rule};
use super::zone::Zone;
use crate::job::duration;
use crate::job::time::parse_rfc3339;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// When a schedule has ticks, and what happens to late ones. The texts are as in the configuration file and in the API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Spec {
    /// A cron expression: five fields, or six with the second first. Either `cron` or `every` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// A duration from 1s to 365d. The ticks are the multiples of this duration since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// The IANA name of the time zone of `cron`. Defaults to UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// `skip` or `allow`. Defaults to `skip`: a tick starts no job while a job of an earlier tick has not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap: Option<String>,
    /// `one`, `none` or `all`: which of the missed ticks start. Defaults to `one`, the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<String>,
    /// How late a missed tick may start: 1m to 30d. Defaults to 24h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catch_up_window: Option<String>,
    /// Up to 1h: each job starts a part of this time after its tick. Defaults to 0s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<String>,
    /// The time before which there are no ticks, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<String>,
    /// The time after which there are no ticks, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<String>,
}

/// Why a schedule is not valid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Invalid {
    pub field: &'static str,
    /// Completes a sentence that begins with the value of the field.
    pub problem: String,
    pub allowed: String,
}

impl Invalid {
    fn new(field: &'static str, problem: impl Into<String>, allowed: impl Into<String>) -> Invalid {
        Invalid { field, problem: problem.into(), allowed: allowed.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}; allowed: {}", self.field, self.problem, self.allowed)
    }
}

impl std::error::Error for Invalid {}

impl Spec {
    /// The fields that are set, as JSON.
    pub(crate) fn to_json(&self) -> String {
        // Texts alone are always written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads and checks what [`Spec::to_json`] wrote.
    pub(crate) fn from_json(json: &str) -> Result<Plan, String> {
        let spec: Spec = serde_json::from_str(json).map_err(|error| error.to_string())?;
        spec.plan().map_err(|invalid| invalid.to_string())
    }

    /// The fields, by name. `cron` is first.
    pub(crate) fn fields(&mut self) -> [(&'static str, &mut Option<String>); 9] {
        [
            ("cron", &mut self.cron),
            ("every", &mut self.every),
            ("timezone", &mut self.timezone),
            ("overlap", &mut self.overlap),
            ("catch_up", &mut self.catch_up),
            ("catch_up_window", &mut self.catch_up_window),
            ("jitter", &mut self.jitter),
            ("starts_at", &mut self.starts_at),
            ("ends_at", &mut self.ends_at),
        ]
    }

    /// The value of a field for an error.
    pub(crate) fn value(&self, field: &str) -> Option<String> {
        let mut copy = self.clone();
        copy.fields().into_iter().find(|(name, _)| *name == field).and_then(|(_, value)| value.take())
    }

    /// Checks the fields.
    ///
    /// # Errors
    /// The first field that is not valid.
    pub(crate) fn plan(&self) -> Result<Plan, Invalid> {
        let overlap = [
            ("skip", Overlap::Skip),
            ("allow", Overlap::Allow),
            ("wait", Overlap::Wait),
            ("replace", Overlap::Replace),
        ];
        let catch_up = [("one", CatchUp::One), ("none", CatchUp::None), ("all", CatchUp::All)];
        let plan = Plan {
            rule: self.rule()?,
            overlap: choice("overlap", &self.overlap, &overlap)?,
            catch_up: choice("catch_up", &self.catch_up, &catch_up)?,
            catch_up_window_ms: duration_ms("catch_up_window", &self.catch_up_window, MINUTE, 30 * DAY)?
                .unwrap_or(DAY.as_millis() as u64),
            jitter_ms: duration_ms("jitter", &self.jitter, Duration::ZERO, HOUR)?.unwrap_or(0),
            starts_at_ms: time_ms("starts_at", &self.starts_at)?,
            ends_at_ms: time_ms("ends_at", &self.ends_at)?,
        };
        match (plan.starts_at_ms, plan.ends_at_ms) {
            (Some(start), Some(end)) if start > end => {
                Err(Invalid::new("ends_at", "is before starts_at", "a time after starts_at"))
            }
            _ => Ok(plan),
        }
    }

    fn rule(&self) -> Result<Rule, Invalid> {
        match (&self.cron, &self.every) {
            (Some(_), Some(_)) => Err(Invalid::new("every", "is given beside cron", "one of the two")),
            (None, None) => {
                Err(Invalid::new("cron", "is missing", "a cron expression, or every in its place"))
            }
            (Some(cron), None) => {
                let cron =
                    Cron::parse(cron).map_err(|(problem, allowed)| Invalid::new("cron", problem, allowed))?;
                let name = self.timezone.as_deref().unwrap_or("UTC");
                let zone = Zone::named(name).ok_or_else(|| {
                    Invalid::new("timezone", "is no time zone", "an IANA name such as Europe/Berlin, or UTC")
                })?;
                Ok(Rule::Cron { cron: Box::new(cron), zone })
            }
            (None, Some(_)) if self.timezone.is_some() => {
                Err(Invalid::new("timezone", "is given beside every", "timezone only beside cron"))
            }
            (None, every) => {
                let every = duration_ms("every", every, SECOND, 365 * DAY)?;
                Ok(Rule::EveryMs(every.unwrap_or(SECOND.as_millis() as u64)))
            }
        }
    }
}

/// One of these words. The first one is the default.
fn choice<T: Copy>(field: &'static str, text: &Option<String>, words: &[(&str, T)]) -> Result<T, Invalid> {
    let Some(text) = text else { return Ok(words[0].1) };
    let found = words.iter().find(|(word, _)| word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Invalid::new(field, "is none of the allowed words", allowed.join(", "))
    })
}

fn duration_ms(
    field: &'static str,
    text: &Option<String>,
    least: Duration,
    most: Duration,
) -> Result<Option<u64>, Invalid> {
    let Some(text) = text else { return Ok(None) };
    match duration::parse(text) {
        Ok(time) if (least..=most).contains(&time) => Ok(Some(time.as_millis() as u64)),
        other => {
            let problem = match other {
                Ok(time) if time < least => "is too short",
                Ok(_) => "is too long",
                Err(_) => "is not a duration",
            };
            let (least, most) = (duration::to_text(least), duration::to_text(most));
            Err(Invalid::new(field, problem, format!("{least} to {most}, as digits and ms, s, m, h or d")))
        }
    }
}

fn time_ms(field: &'static str, text: &Option<String>) -> Result<Option<u64>, Invalid> {
    let Some(text) = text else { return Ok(None) };
    parse_rfc3339(text)
        .map(Some)
        .ok_or_else(|| Invalid::new(field, "is no time", "RFC 3339, such as 2026-12-01T00:00:00Z"))
}
