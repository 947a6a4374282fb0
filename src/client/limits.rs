//! Limits: how many jobs run at a time and how many start in a period, over all servers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::{Client, Job};
use crate::job::JobId;
use crate::job::duration::whole_ms;
use crate::job::limit::Rate;
use crate::net::percent::encode_segment;

/// A period of [`Limit::rate`].
pub const SECOND: Duration = Duration::from_secs(1);
/// A period of [`Limit::rate`].
pub const MINUTE: Duration = Duration::from_secs(60);

/// A limit to define: with a concurrency, a rate, or both.
///
/// ```
/// use threadq::client::limits::{Limit, MINUTE, SECOND};
///
/// // No more than 10 jobs of all that name this limit start in a second.
/// let smtp = Limit::named("smtp").rate(10, SECOND);
/// // Each key, such as `tenant:42`, has these numbers for itself.
/// let tenant = Limit::named("tenant").concurrency(2).rate(100, MINUTE).burst(20);
/// // One key has numbers of its own.
/// let premium = Limit::named("tenant:42").concurrency(20);
/// ```
#[derive(Clone, Debug, Serialize)]
#[must_use = "a limit holds only when a server has it"]
pub struct Limit {
    #[serde(skip)]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    burst: Option<u32>,
}

impl Limit {
    /// A limit of this name: 1 to 64 characters of `A-Z a-z 0-9 _ . -`, or `name:key` for one key alone. A key has 1 to 100
    /// characters, none of them a control character. The server checks this and every other range.
    pub fn named(name: impl Into<String>) -> Limit {
        Limit { name: name.into(), concurrency: None, rate: None, burst: None }
    }

    /// How many jobs run at a time: 1 to 100,000.
    pub fn concurrency(mut self, jobs: u32) -> Limit {
        self.concurrency = Some(jobs);
        self
    }

    /// How many attempts start in a period: 1 to 1,000,000 in 1 ms to 30 days, rounded up to milliseconds.
    pub fn rate(mut self, starts: u32, period: Duration) -> Limit {
        let period = Duration::from_millis(whole_ms(period));
        self.rate = Some(Rate { count: starts, period }.to_string());
        self
    }

    /// How many of the starts of [`Limit::rate`] may come at once: 1 to 1,000,000. Default: 1, so that the starts are spread
    /// evenly.
    pub fn burst(mut self, starts: u32) -> Limit {
        self.burst = Some(starts);
        self
    }
}

/// A limit as the server shows it.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct LimitInfo {
    /// The name, without a key. `threadq.type:TYPE` is the limit of one job type.
    pub name: String,
    /// The key that was asked for.
    pub key: Option<String>,
    /// How many jobs may run at a time.
    pub concurrency: Option<u32>,
    /// How many attempts may start in a period, such as `10/s`.
    pub rate: Option<String>,
    /// How many of these starts may come at once.
    pub burst: Option<u32>,
    /// `api`, or `config` for a limit of the configuration file of a server.
    pub source: String,
    /// Whether these numbers hold in place of those of the configuration file, or of those of the limit without the key.
    pub overridden: bool,
    /// The number of jobs that run; 0 without a concurrency. In a list over all keys with waiting jobs, up to 300.
    pub running: u64,
    /// The number of jobs that wait for room. In a list over all these keys.
    pub waiting: u64,
    /// The time from which the rate lets a job start again, as RFC 3339; `None` if a job can start now.
    pub opens_at: Option<String>,
    /// The ids of up to 100 jobs that run. Empty in a list.
    #[serde(default)]
    pub running_ids: Vec<JobId>,
    /// Up to 100 keys that have waiting jobs, the key with most of them first; then up to 100 others with numbers of their
    /// own. Empty in a list, and for one key.
    #[serde(default)]
    pub keys: Vec<LimitKey>,
    /// A page of the waiting jobs, in the order in which they start. Empty in a list.
    #[serde(default)]
    pub waiting_jobs: Vec<Job>,
}

/// A key of a limit.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[non_exhaustive]
pub struct LimitKey {
    /// The key, without the name of the limit.
    pub key: String,
    /// How many jobs with this key may run at a time, if the key has numbers of its own.
    pub concurrency: Option<u32>,
    /// How many attempts may start in a period, if the key has numbers of its own.
    pub rate: Option<String>,
    /// How many of these starts may come at once.
    pub burst: Option<u32>,
    /// Where the numbers of its own are from: `api` or `config`.
    pub source: Option<String>,
    /// The number of jobs with this key that run.
    pub running: u64,
    /// The number of jobs with this key that wait for room.
    pub waiting: u64,
    /// The time from which the rate lets a job with this key start again, as RFC 3339.
    pub opens_at: Option<String>,
}

/// The response to GET /limits.
#[derive(Deserialize)]
pub(crate) struct List {
    pub limits: Vec<LimitInfo>,
}

/// The limits of a server: see [`Client::limits`]. A name is that of a limit, or `name:key` for one key.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    pub(super) client: &'a Client,
}

impl Limits<'_> {
    /// Returns the limits by name, up to 1,000.
    ///
    /// # Errors
    /// As any request.
    pub fn list(&self) -> Result<Vec<LimitInfo>, Error> {
        let response = self.client.with_retries(|| self.client.transport.get("/limits"))?;
        Ok(response.parse::<List>()?.limits)
    }

    /// Returns a limit, with one page of the jobs that wait for it. `page` begins with 1; `number` is 1 to 100.
    ///
    /// # Errors
    /// [`Error::Refused`] with `not_found` if there is no such limit.
    pub fn get(&self, name: &str, page: u32, number: u32) -> Result<LimitInfo, Error> {
        let path = path(name);
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}page={page}&limit={number}");
        self.client.with_retries(|| self.client.transport.get(&path))?.parse()
    }

    /// Defines or changes a limit. For a limit of a configuration file, the numbers hold in place of those of the file. A
    /// request that got no response is sent again.
    ///
    /// # Errors
    /// [`Error::Refused`] with `invalid_limit`, whose message names the field, and with `not_found` for a key of a limit that
    /// does not exist.
    pub fn put(&self, limit: &Limit) -> Result<LimitInfo, Error> {
        let path = path(&limit.name);
        self.client.with_retries(|| self.client.transport.put_json(&path, limit))?.parse()
    }

    /// Deletes a limit: the jobs that wait for it can start. For a limit of a configuration file, the numbers of the file
    /// hold again. The request is sent once.
    ///
    /// # Errors
    /// [`Error::Refused`] with `not_found` if there is no such limit, and with `managed_by_config` if the numbers of the
    /// configuration file hold already.
    pub fn delete(&self, name: &str) -> Result<(), Error> {
        self.client.transport.delete(&path(name)).map(drop)
    }
}

/// The path of a limit, or of one key of it.
pub(crate) fn path(name: &str) -> String {
    match name.split_once(':') {
        Some((name, key)) => format!("/limits/{}?key={}", encode_segment(name), encode_segment(key)),
        None => format!("/limits/{}", encode_segment(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_sent_without_its_name() {
        let json = |limit: &Limit| serde_json::to_string(limit).unwrap();
        assert_eq!(json(&Limit::named("a")), "{}");
        let all = Limit::named("a").concurrency(2).rate(100, MINUTE).burst(20);
        assert_eq!(json(&all), r#"{"concurrency":2,"rate":"100/m","burst":20}"#);
        assert_eq!(json(&Limit::named("a").rate(1, Duration::from_micros(1_500))), r#"{"rate":"1/2ms"}"#);
    }

    #[test]
    fn a_key_is_a_parameter_of_the_path() {
        assert_eq!(path("smtp"), "/limits/smtp");
        assert_eq!(path("tenant:a b:c"), "/limits/tenant?key=a%20b%3Ac");
    }
}
