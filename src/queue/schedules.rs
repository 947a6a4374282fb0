//! The methods that store, read and fire schedules. Redis keeps a schedule as texts: when its ticks are is computed by the
//! caller.

use std::time::Duration;

use redis::Value;
use serde_json::json;

use super::error::Error;
use super::pool::Repeat;
use super::reply_value::{as_array, as_count, as_job_id, as_text, as_texts, first, text_pairs, unexpected};
use super::types::Source;
use super::{Queue, options, record};
use crate::job::{JobId, NewJob};

/// The most schedules of a namespace.
const MOST_SCHEDULES: u64 = 10_000;

/// The most schedules with a figure in the metrics.
const MOST_FIGURES: u32 = 1_000;

/// What a tick does while a job of an earlier tick holds the unique key of the schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TickOverlap {
    /// The jobs of the schedule have no unique key.
    Allow = 0,
    /// The tick starts nothing.
    Skip = 1,
    /// The tick cancels the last job of the schedule, waiting or running, and starts its own job.
    Replace = 2,
}

/// A schedule to store.
#[derive(Debug)]
pub struct ScheduleDefinition {
    /// 1 to 64 of `A-Z a-z 0-9 _ . -`.
    pub name: String,
    pub source: Source,
    /// When the schedule has ticks, as text. A schedule whose text has not changed keeps its next tick.
    pub spec: String,
    /// The job body as JSON, to show.
    pub body: String,
    /// The job of each tick, made of the body.
    pub job: NewJob,
    pub overlap: TickOverlap,
    /// The server whose file has the schedule; empty for a schedule of the API.
    pub server: String,
}

/// The result of storing a schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defined {
    Created,
    Updated,
    /// The schedule of this name stands in the file of a server, and only that file changes it.
    ManagedByConfig,
    /// There are as many schedules as allowed.
    TooMany,
}

/// The result of pausing, resuming or deleting a schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScheduleChange {
    Done,
    Missing,
    /// The schedule stands in the file of a server, and only that file deletes it.
    ManagedByConfig,
}

/// A schedule as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScheduleRecord {
    pub name: String,
    pub source: Source,
    pub spec: String,
    pub body: String,
    pub paused: bool,
    /// The next tick in ms since 1970.
    pub next: Option<u64>,
    /// When a job of the schedule completed last, in ms since 1970.
    pub succeeded_at: Option<u64>,
    /// The server whose file has the schedule; empty for a schedule of the API.
    pub server: String,
    /// The last ticks, newest first: up to 50, in a listing one.
    pub ticks: Vec<Tick>,
}

/// What became of a tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TickOutcome {
    /// Its job was stored.
    Started,
    /// A person has asked for a job now.
    Manual,
    /// No server was alive at its time, or the tick is older than the schedule makes up for.
    Missed,
    SkippedPaused,
    /// The job of an earlier tick had not ended.
    SkippedOverlap,
}

impl TickOutcome {
    /// All outcomes.
    pub const ALL: [TickOutcome; 5] = [
        TickOutcome::Started,
        TickOutcome::Manual,
        TickOutcome::Missed,
        TickOutcome::SkippedPaused,
        TickOutcome::SkippedOverlap,
    ];

    /// The outcome as the API, the metrics and Redis spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            TickOutcome::Started => "started",
            TickOutcome::Manual => "manual",
            TickOutcome::Missed => "missed",
            TickOutcome::SkippedPaused => "skipped_paused",
            TickOutcome::SkippedOverlap => "skipped_overlap",
        }
    }
}

/// A tick, or several missed ones in a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tick {
    /// The time of the tick in ms since 1970; of several missed ticks the first.
    pub at_ms: u64,
    pub outcome: TickOutcome,
    pub job: Option<JobId>,
    /// How many ticks this is: 1, or the number of missed ticks.
    pub count: u64,
    /// When the outcome was decided, in ms since 1970; 0 in the result of [`Queue::fire`].
    pub fired_at_ms: u64,
}

/// The result of firing a schedule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fired {
    Ticks(Vec<Tick>),
    /// Another server has fired the tick, or the schedule has changed or is gone.
    Changed,
    /// The schedule stands in no file of a living server any more.
    Orphaned,
}

/// The reply of Redis to a definition.
enum Put {
    Done(Defined),
    /// The caller computes the first tick after this time in ms since 1970.
    Compute(u64),
}

/// The result of starting a job of a schedule by hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ran {
    Started(JobId),
    /// The job with this id of an earlier tick has not ended.
    Overlap(JobId),
    Missing,
}

impl Queue {
    /// Stores a schedule, new or in place of the one with its name. If the times of the schedule are new, `first_after`
    /// computes the first tick after the given time, which is Redis's, and when the job of that tick is due; `None` if there
    /// is no such tick. All times are in ms since 1970.
    pub fn define_schedule(
        &self,
        definition: &ScheduleDefinition,
        first_after: impl Fn(u64) -> Option<(u64, u64)>,
    ) -> Result<Defined, Error> {
        let (mut next, mut due) = ("?".to_owned(), String::new());
        loop {
            match self.put_schedule(definition, &next, &due)? {
                Put::Done(defined) => return Ok(defined),
                Put::Compute(now) => {
                    (next, due) = first_after(now)
                        .map_or_else(Default::default, |(tick, due)| (tick.to_string(), due.to_string()));
                }
            }
        }
    }

    fn put_schedule(&self, definition: &ScheduleDefinition, next: &str, due: &str) -> Result<Put, Error> {
        let mut call = self.scripts.define.call();
        call.arg(&definition.name).arg("put").arg(definition.source.as_str());
        call.arg(&definition.spec).arg(&definition.body).arg(template(&definition.job));
        call.arg(definition.overlap as u8).arg(next).arg(due);
        call.arg(MOST_SCHEDULES).arg(&definition.server);
        let word = as_text(&self.run(&self.scripts.define, &call)?)?;
        Ok(match word.as_str() {
            "created" => Put::Done(Defined::Created),
            "updated" => Put::Done(Defined::Updated),
            "managed_by_config" => Put::Done(Defined::ManagedByConfig),
            "too_many" => Put::Done(Defined::TooMany),
            _ => match word.strip_prefix("compute ").and_then(|now| now.parse().ok()) {
                Some(now) => Put::Compute(now),
                None => return Err(Error::Protocol(word)),
            },
        })
    }

    /// By how much the oldest word of the agenda is overdue, and when a job of each schedule completed last, in ms since
    /// 1970.
    pub fn schedule_figures(&self) -> Result<(Duration, Vec<(String, u64)>), Error> {
        let mut call = self.scripts.schedule_figures.call();
        call.arg(MOST_FIGURES);
        let reply = as_array(self.run(&self.scripts.schedule_figures, &call)?)?;
        let [lag, successes] = reply.as_slice() else { return Err(unexpected(&Value::Array(reply))) };
        let successes = as_texts(successes.clone())?;
        let successes =
            successes.chunks_exact(2).filter_map(|pair| Some((pair[0].clone(), pair[1].parse().ok()?)));
        Ok((Duration::from_millis(as_count(lag)?), successes.collect()))
    }

    /// Deletes a schedule of the API. Jobs that it has made stay.
    pub fn delete_schedule(&self, name: &str) -> Result<ScheduleChange, Error> {
        self.change_schedule(name, "delete")
    }

    /// Pauses or resumes a schedule.
    pub fn pause_schedule(&self, name: &str, paused: bool) -> Result<ScheduleChange, Error> {
        self.change_schedule(name, if paused { "pause" } else { "resume" })
    }

    fn change_schedule(&self, name: &str, what: &str) -> Result<ScheduleChange, Error> {
        let mut call = self.scripts.define.call();
        call.arg(name).arg(what);
        match as_text(&self.run(&self.scripts.define, &call)?)?.as_str() {
            "done" => Ok(ScheduleChange::Done),
            "missing" => Ok(ScheduleChange::Missing),
            "managed_by_config" => Ok(ScheduleChange::ManagedByConfig),
            word => Err(Error::Protocol(word.to_owned())),
        }
    }

    /// One schedule with its history.
    pub fn schedule(&self, name: &str) -> Result<Option<ScheduleRecord>, Error> {
        let (_, mut schedules) = self.read_schedules(name, 0, 1)?;
        Ok(schedules.pop())
    }

    /// The number of all schedules, and those behind the first `offset` ones by name, at most `limit`.
    pub fn schedules(&self, offset: u64, limit: u64) -> Result<(u64, Vec<ScheduleRecord>), Error> {
        self.read_schedules("", offset, limit)
    }

    fn read_schedules(
        &self,
        name: &str,
        offset: u64,
        limit: u64,
    ) -> Result<(u64, Vec<ScheduleRecord>), Error> {
        let mut call = self.scripts.schedules.call();
        call.arg(name).arg(offset).arg(limit);
        let mut reply = as_array(self.run(&self.scripts.schedules, &call)?)?.into_iter();
        let number = reply.next().ok_or_else(|| unexpected(&Value::Nil))?;
        Ok((as_count(&number)?, reply.map(to_record).collect::<Result<_, _>>()?))
    }

    /// Starts the jobs of due ticks, and sets the next tick. `expected` is the next tick as the caller has read it;
    /// `missed` is the number of ticks from then on that start no job; `due` is when the job of the tick `next` is due. All
    /// times are in ms since 1970.
    pub fn fire(
        &self,
        name: &str,
        expected: u64,
        next: Option<u64>,
        due: Option<u64>,
        starts: &[u64],
        missed: u64,
    ) -> Result<Fired, Error> {
        let ms = |time: Option<u64>| time.map_or(String::new(), |ms| ms.to_string());
        let mut call = self.scripts.fire.call();
        call.arg(name).arg("tick").arg(expected).arg(ms(next)).arg(ms(due)).arg(missed).arg(starts);
        let reply = as_array(self.run(&self.scripts.fire, &call)?)?;
        match as_text(first(&reply)?)?.as_str() {
            "fired" => reply[1..].iter().cloned().map(to_fired).collect::<Result<_, _>>().map(Fired::Ticks),
            "missing" | "changed" => Ok(Fired::Changed),
            "orphaned" => Ok(Fired::Orphaned),
            _ => Err(unexpected(&Value::Array(reply))),
        }
    }

    /// Starts a job of a schedule now, also while the schedule is paused; with `force` also while an earlier job lives.
    pub fn run_schedule(&self, name: &str, force: bool) -> Result<Ran, Error> {
        let mut call = self.scripts.fire.call();
        call.arg(name).arg("manual").arg(u8::from(force));
        // A second call would start a second job.
        let reply = as_array(self.run_repeated(&self.scripts.fire, Repeat::Never, &call)?)?;
        match (as_text(first(&reply)?)?.as_str(), &reply[1..]) {
            ("fired", [tick]) => {
                let tick = to_fired(tick.clone())?;
                tick.job.map(Ran::Started).ok_or_else(|| unexpected(&Value::Nil))
            }
            ("overlap", [id]) => as_job_id(id).map(Ran::Overlap),
            ("missing", []) => Ok(Ran::Missing),
            _ => Err(unexpected(&Value::Array(reply))),
        }
    }
}

/// What fire.lua stores for each tick: queue, type, options, and the fields of the record.
fn template(job: &NewJob) -> String {
    let options = job.extras.as_deref().map(options::of_new_job).unwrap_or_default();
    let mut words = vec![job.queue.clone(), job.job_type.clone(), options];
    for (name, value) in record::new_job(job) {
        words.extend([name.into_owned(), value.into_owned()]);
    }
    json!(words).to_string()
}

/// A schedule: name, its ticks, field, value, ..
fn to_record(reply: Value) -> Result<ScheduleRecord, Error> {
    let reply = as_array(reply)?;
    let [name, ticks, fields @ ..] = reply.as_slice() else { return Err(unexpected(&Value::Array(reply))) };
    let words = text_pairs(fields);
    let field = |name: &str| {
        let pair = words.chunks_exact(2).find(|pair| pair[0] == name.as_bytes());
        pair.map(|pair| String::from_utf8_lossy(pair[1]).into_owned())
    };
    let number = |name: &str| field(name).and_then(|text| text.parse().ok());
    Ok(ScheduleRecord {
        name: as_text(name)?,
        source: match field("source").as_deref() {
            Some("config") => Source::Config,
            _ => Source::Api,
        },
        spec: field("spec").unwrap_or_default(),
        body: field("body").unwrap_or_default(),
        paused: field("paused").is_some(),
        next: number("next"),
        succeeded_at: number("succeeded_at"),
        server: field("server").unwrap_or_default(),
        ticks: as_texts(ticks.clone())?.iter().filter_map(|line| to_tick(line)).collect(),
    })
}

/// An entry of the history: tick, outcome, id or `-`, number of ticks, time.
fn to_tick(line: &str) -> Option<Tick> {
    let words: Vec<&str> = line.split(' ').collect();
    let [at, outcome, job, count, fired_at] = words.as_slice() else { return None };
    Some(Tick {
        at_ms: at.parse().ok()?,
        outcome: to_outcome(outcome)?,
        job: job.parse().ok(),
        count: count.parse().ok()?,
        fired_at_ms: fired_at.parse().ok()?,
    })
}

fn to_outcome(word: &str) -> Option<TickOutcome> {
    TickOutcome::ALL.into_iter().find(|outcome| outcome.as_str() == word)
}

fn to_fired(reply: Value) -> Result<Tick, Error> {
    let reply = as_array(reply)?;
    let [at, outcome, job, count] = reply.as_slice() else { return Err(unexpected(&Value::Array(reply))) };
    let word = as_text(outcome)?;
    Ok(Tick {
        at_ms: as_text(at)?.parse().map_err(|_| unexpected(at))?,
        outcome: to_outcome(&word).ok_or(Error::Protocol(word))?,
        job: as_job_id(job).ok(),
        count: as_count(count)?,
        fired_at_ms: 0,
    })
}
