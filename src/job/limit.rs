//! Limits on the starts of jobs, over all servers: how many jobs run at a time, and how many start in a period.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::duration::{factor_of, in_largest_unit, split_unit};
use super::rules::{QUEUE_NAME, RESERVED_PREFIX};
use crate::sorting;

/// The most limits of one job.
pub const MAX_LIMITS: usize = 4;

/// How many jobs may run at a time.
pub const CONCURRENCY: RangeInclusive<u32> = 1..=100_000;
/// How many jobs may start in a period, and how many of them at once.
pub const STARTS: RangeInclusive<u32> = 1..=1_000_000;
/// The length of a period.
pub const PERIOD: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(30 * 24 * 3600);
/// What a valid rate is, as the end of a sentence.
pub const RATE_ALLOWED: &str =
    "N/PERIOD such as 10/s, 100/m or 5/30s, N from 1 to 1000000, the period from 1ms to 30d";

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The numbers of a limit. At least one of `concurrency` and `rate` is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LimitNumbers {
    /// How many jobs may run at a time: 1 to 100,000.
    pub concurrency: Option<u32>,
    /// How many jobs may start in a period.
    pub rate: Option<Rate>,
    /// How many starts the rate allows at once: 1 to 1,000,000. With 1 the starts are evenly spread.
    pub burst: u32,
}

/// As people read the numbers: `concurrency 5, rate 10/s, burst 20`.
impl fmt::Display for LimitNumbers {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if let Some(jobs) = self.concurrency {
            write!(f, "concurrency {jobs}{}", if self.rate.is_some() { ", " } else { "" })?;
        }
        if let Some(rate) = self.rate {
            write!(f, "rate {rate}, burst {}", self.burst)?;
        }
        Ok(())
    }
}

/// A number of starts in each period.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// 1 to 1,000,000.
    pub count: u32,
    /// 1 ms to 30 days, in whole milliseconds.
    pub period: Duration,
}

impl Rate {
    /// Reads `10/s`, `100/m` or `5/30s`; `None` if the text is no valid rate.
    pub fn parse(text: &str) -> Option<Rate> {
        let (count, period) = text.split_once('/')?;
        let (count, "") = split_unit(count)? else { return None };
        let (periods, unit) = split_unit(period).unwrap_or((1, period));
        let ms = periods.saturating_mul(factor_of(unit, &UNITS)?);
        Rate::new(u32::try_from(count).ok()?, Duration::from_millis(ms))
    }

    /// The rate of `count` starts in each `period`; `None` if a number is out of its range.
    pub fn new(count: u32, period: Duration) -> Option<Rate> {
        (STARTS.contains(&count) && PERIOD.contains(&period)).then_some(Rate { count, period })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let period = in_largest_unit(self.period.as_millis(), &UNITS);
        let period = match period.strip_prefix('1') {
            Some(unit) if factor_of(unit, &UNITS).is_some() => unit,
            _ => &period,
        };
        write!(f, "{}/{period}", self.count)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The name of a limit, or the name and a key: `smtp`, `tenant:42`. Each key has a limit of its own, with the numbers of
/// the name unless the key has numbers of its own. The name has 1 to 64 of `A-Z a-z 0-9 _ . -`, the key 1 to 100
/// characters, none of them a control character.
///
/// The order of the names is the order in which a job takes its limits: those with a key first.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LimitName(String);

/// What a valid name of a limit is, as the end of a sentence.
pub const LIMIT_ALLOWED: &str = "NAME or NAME:KEY, the name 1 to 64 of A-Z a-z 0-9 _ . -, the key 1 to 100 characters, none of them a control character";

impl LimitName {
    /// Reads `name` or `name:key`; `None` if the text is no valid name.
    pub fn parse(text: &str) -> Option<LimitName> {
        let (name, key) = text.split_once(':').map_or((text, None), |(name, key)| (name, Some(key)));
        let is_key =
            |key: &str| (1..=100).contains(&key.chars().count()) && !key.chars().any(char::is_control);
        (QUEUE_NAME.accepts(name) && key.is_none_or(is_key)).then(|| LimitName(text.to_owned()))
    }

    /// The limit that holds for the jobs of one type alone.
    pub fn of_type(job_type: &str) -> LimitName {
        LimitName(format!("{RESERVED_PREFIX}type:{job_type}"))
    }

    /// The limit that lets one job of a schedule run at a time.
    pub fn of_schedule(schedule: &str) -> LimitName {
        LimitName(format!("{RESERVED_PREFIX}schedule:{schedule}"))
    }

    /// The name and the key as they were given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without the key.
    pub fn name(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(name, _)| name)
    }

    /// The key.
    pub fn key(&self) -> Option<&str> {
        self.0.split_once(':').map(|(_, key)| key)
    }

    /// The name under which the limit is listed: without its key, but a limit of the server with its key.
    pub fn listed_name(&self) -> &str {
        if self.is_reserved() { &self.0 } else { self.name() }
    }

    /// Whether the server keeps this name for itself.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED_PREFIX)
    }

    /// Adds limits to those of a job, and brings all into the order in which the job takes them, each once.
    pub fn add(to: &mut Vec<LimitName>, limits: &[LimitName]) {
        to.extend_from_slice(limits);
        sorting::sort_by(to, |a, b| (a.key().is_none(), &a.0).cmp(&(b.key().is_none(), &b.0)));
        to.dedup();
    }
}

impl fmt::Display for LimitName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for LimitName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The limit for which a queued job waits, or has waited until its start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Blocked {
    /// The limit.
    pub limit: LimitName,
    /// When the job began to wait, in milliseconds since 1970.
    pub since_ms: u64,
    /// Whether the job still waits. If not, the job is in its queue again, and its place in the limit is kept for a short
    /// time.
    pub is_held: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_reads_and_is_written_as_itself() {
        for (text, count, ms) in
            [("10/s", 10, 1000), ("100/m", 100, 60_000), ("5/30s", 5, 30_000), ("1/30d", 1, 2_592_000_000)]
        {
            let rate = Rate::parse(text).unwrap();
            assert_eq!((rate.count, rate.period), (count, Duration::from_millis(ms)), "{text}");
            assert_eq!(rate.to_string(), text);
        }
        assert_eq!(Rate::parse("7/1s").unwrap().to_string(), "7/s");
        assert_eq!(Rate::parse("7/120s").unwrap().to_string(), "7/2m");
        for text in
            ["", "10", "10/", "/s", "0/s", "1000001/s", "1/31d", "1/0s", "-1/s", "1/s ", "1 /s", "1/5"]
        {
            assert_eq!(Rate::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_name_has_a_key_or_none() {
        let limit = LimitName::parse("tenant:a:b é").unwrap();
        assert_eq!((limit.name(), limit.key()), ("tenant", Some("a:b é")));
        let limit = LimitName::parse("smtp").unwrap();
        assert_eq!((limit.name(), limit.key()), ("smtp", None));
        let long = format!("a:{}", "é".repeat(100));
        assert!(LimitName::parse(&long).is_some() && LimitName::parse(&format!("{long}x")).is_none());
        for text in ["", ":", "a:", ":a", "a b", "a:\n", "é"] {
            assert_eq!(LimitName::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_job_takes_limits_with_a_key_first() {
        let names = |texts: &[&str]| -> Vec<LimitName> {
            texts.iter().map(|text| LimitName::parse(text).unwrap()).collect()
        };
        let mut limits = names(&["a", "tenant:2"]);
        LimitName::add(&mut limits, &names(&["b:1", "a", "0"]));
        assert_eq!(limits, names(&["b:1", "tenant:2", "0", "a"]));
    }
}
