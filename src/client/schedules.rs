//! Schedules: jobs that servers submit at fixed times.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Client;
use super::error::Error;
use super::submission::Submission;

use crate::job::{JobId, duration, rfc3339};
use crate::net::percent::encode_segment;
use crate::schedule::Spec;

/// A schedule: its times, and the job of each tick.
///
/// ```
/// use threadq::client::Submission;
/// use threadq::client::schedules::Schedule;
///
/// let nightly = Schedule::cron("30 2 * * *", Submission::new("report")).timezone("Europe/Berlin");
/// ```
#[derive(Clone, Debug, Serialize)]
#[must_use = "a schedule is stored only when a client puts it or a server has it"]
pub struct Schedule {
    #[serde(flatten)]
    pub(crate) spec: Spec,
    pub(crate) job: Submission,
}

impl Schedule {
    /// A schedule with a tick at each time that the cron expression matches. The job has neither a start nor a unique key of
    /// its own. The server checks the expression and all other values.
    pub fn cron(expression: impl Into<String>, job: Submission) -> Schedule {
        Schedule { spec: Spec { cron: Some(expression.into()), ..Spec::default() }, job }
    }

    /// A schedule with a tick at each multiple of this period since 1970: 1 s to 365 days.
    pub fn every(period: Duration, job: Submission) -> Schedule {
        Schedule { spec: Spec { every: Some(duration::to_text(period)), ..Spec::default() }, job }
    }

    /// The time zone of a cron expression, by its IANA name. Default: UTC.
    pub fn timezone(mut self, name: impl Into<String>) -> Schedule {
        self.spec.timezone = Some(name.into());
        self
    }

    /// What a tick does while the job of an earlier tick has not ended: `skip` (the default), `allow`, `wait` or
    /// `replace`.
    pub fn overlap(mut self, overlap: impl Into<String>) -> Schedule {
        self.spec.overlap = Some(overlap.into());
        self
    }

    /// Which ticks start that are more than 60 s late: `one` (the default, the newest), `none` or `all`.
    pub fn catch_up(mut self, catch_up: impl Into<String>) -> Schedule {
        self.spec.catch_up = Some(catch_up.into());
        self
    }

    /// How late a tick can start: 1 minute to 30 days. Default: 24 h.
    pub fn catch_up_window(mut self, window: Duration) -> Schedule {
        self.spec.catch_up_window = Some(duration::to_text(window));
        self
    }

    /// The longest time by which a job starts after its tick, up to 1 h. Default: none.
    pub fn jitter(mut self, jitter: Duration) -> Schedule {
        self.spec.jitter = Some(duration::to_text(jitter));
        self
    }

    /// The time before which there are no ticks.
    pub fn starts_at(mut self, time: SystemTime) -> Schedule {
        self.spec.starts_at = Some(text_of(time));
        self
    }

    /// The time after which there are no ticks.
    pub fn ends_at(mut self, time: SystemTime) -> Schedule {
        self.spec.ends_at = Some(text_of(time));
        self
    }
}

fn text_of(time: SystemTime) -> String {
    let ms = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    rfc3339(u64::try_from(ms).unwrap_or(u64::MAX))
}

/// A schedule as the server shows it.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct ScheduleInfo {
    /// The name.
    pub name: String,
    /// `api`, or `config` for a schedule of the configuration file of a server.
    pub source: String,
    /// Whether its ticks start nothing.
    pub paused: bool,
    /// Its times.
    #[serde(flatten)]
    pub spec: Spec,
    /// The job of each tick.
    pub job: serde_json::Value,
    /// The next 5 ticks, as RFC 3339; empty if there are no more.
    pub next: Vec<String>,
    /// The last tick.
    pub last: Option<Tick>,
    /// The last 50 ticks, newest first. Empty in a list.
    #[serde(default)]
    pub history: Vec<Tick>,
}

/// What became of a tick.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[non_exhaustive]
pub struct Tick {
    /// The time for which the job was made, as RFC 3339.
    pub tick: String,
    /// `started`, `manual`, `missed`, `skipped_overlap` or `skipped_paused`.
    pub outcome: String,
    /// For how many ticks from this one on the entry stands; 1 if it is absent.
    pub count: Option<u64>,
    /// The job that started; for `skipped_overlap` the job that had not ended.
    pub job_id: Option<JobId>,
}

/// A page of schedules.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct SchedulePage {
    /// The schedules, by name.
    pub schedules: Vec<ScheduleInfo>,
    /// The number of all schedules.
    pub total: u64,
}

#[derive(Deserialize)]
struct Started {
    job_id: JobId,
}

#[derive(Serialize)]
struct RunBody {
    force: bool,
}

/// The schedules of a server: see [`Client::schedules`].
#[derive(Clone, Copy, Debug)]
pub struct Schedules<'a> {
    pub(super) client: &'a Client,
}

impl Schedules<'_> {
    /// Defines or changes a schedule. A request that got no response is sent again.
    ///
    /// # Errors
    /// [`Error::Refused`] with `invalid_schedule`, whose message names the field; with `managed_by_config` if the
    /// configuration file of a server has the schedule.
    pub fn put(&self, name: &str, schedule: &Schedule) -> Result<ScheduleInfo, Error> {
        let path = path(name, "");
        self.client.with_retries(|| self.client.transport.put_json(&path, schedule))?.parse()
    }

    /// Returns a schedule and its last ticks.
    ///
    /// # Errors
    /// [`Error::Refused`] with `not_found` if there is no such schedule.
    pub fn get(&self, name: &str) -> Result<ScheduleInfo, Error> {
        self.client.with_retries(|| self.client.transport.get(&path(name, "")))?.parse()
    }

    /// Returns one page of all schedules. `page` begins with 1; `limit` is 1 to 100.
    ///
    /// # Errors
    /// [`Error::Refused`] with `invalid_query` for a page or a limit out of range.
    pub fn list(&self, page: u32, limit: u32) -> Result<SchedulePage, Error> {
        let path = format!("/schedules?page={page}&limit={limit}");
        self.client.with_retries(|| self.client.transport.get(&path))?.parse()
    }

    /// Starts a job of the schedule now. With `force` also while the job of an earlier tick has not ended. The request is
    /// sent once.
    ///
    /// # Errors
    /// [`Error::Refused`] with `overlap` while the job of an earlier tick has not ended.
    pub fn run(&self, name: &str, force: bool) -> Result<JobId, Error> {
        let response = self.client.transport.post_json(&path(name, "/run"), &RunBody { force }, None)?;
        Ok(response.parse::<Started>()?.job_id)
    }

    /// Pauses a schedule: its ticks start nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] with `not_found` if there is no such schedule.
    pub fn pause(&self, name: &str) -> Result<ScheduleInfo, Error> {
        self.client.with_retries(|| self.client.transport.post(&path(name, "/pause")))?.parse()
    }

    /// Resumes a schedule.
    ///
    /// # Errors
    /// [`Error::Refused`] with `not_found` if there is no such schedule.
    pub fn resume(&self, name: &str) -> Result<ScheduleInfo, Error> {
        self.client.with_retries(|| self.client.transport.post(&path(name, "/resume")))?.parse()
    }

    /// Deletes a schedule; the jobs that it made stay. The request is sent once.
    ///
    /// # Errors
    /// [`Error::Refused`] with `not_found` if there is no such schedule, and with `managed_by_config` if the configuration
    /// file of a server has it.
    pub fn delete(&self, name: &str) -> Result<(), Error> {
        self.client.transport.delete(&path(name, "")).map(drop)
    }
}

fn path(name: &str, action: &str) -> String {
    format!("/schedules/{}{action}", encode_segment(name))
}
