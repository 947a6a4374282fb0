//! The methods that store and read limits.

use std::time::Duration;

use redis::Value;

use super::Queue;
use super::error::Error;
use super::replies;
use super::reply_value::{as_array, as_count, as_int, as_job_id, as_text, unexpected};
use super::types::Source;
use crate::job::limit::{LimitName, LimitNumbers, Rate};
use crate::job::{Job, JobId};

/// The most limits of a namespace, those of keys with numbers of their own included.
const MOST_LIMITS: u32 = 10_000;
/// The most limits of a listing.
const MOST_LISTED: u32 = 1_000;

/// A value as in `limits` that limits nothing.
const NO_NUMBERS: &str = "0 0 0 1 api";

/// The result of storing the numbers of a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitPut {
    Created,
    Updated,
    /// There is no limit with this name, and the server keeps the name for itself or a key was given.
    Missing,
    /// There are as many limits as allowed.
    TooMany,
}

/// The result of deleting the numbers of a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitDeleted {
    /// The limit is deleted, or has the numbers of the file again.
    Done,
    Missing,
    /// The limit stands in the file of a server and has no other numbers than those of the file.
    ManagedByConfig,
}

/// A limit with its figures. Of a limit that is used with keys the figures are sums over the keys with waiting jobs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitRecord {
    /// The name, without a key.
    pub name: String,
    pub numbers: LimitNumbers,
    pub source: Source,
    /// Whether the numbers are others than those of the file, or than those of the limit without the key.
    pub overridden: bool,
    /// The number of jobs that have a slot; 0 if the limit has no `concurrency`.
    pub running: u64,
    /// The number of jobs that wait for room.
    pub waiting: u64,
    /// When the rate allows the next start, in ms since 1970; `None` if the rate allows a start now.
    pub opens_at_ms: Option<u64>,
}

/// A key of a limit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitKey {
    /// The figures; in place of the name of the limit the key.
    pub record: LimitRecord,
    /// Whether the key has numbers of its own. If not, those of the record mean nothing.
    pub is_own: bool,
}

/// A limit with its jobs.
#[derive(Debug)]
pub struct LimitDetails {
    pub record: LimitRecord,
    /// Jobs that have a slot, at most 100.
    pub running: Vec<JobId>,
    /// Keys with waiting jobs, at most 100, those with most jobs first; then at most 100 other keys with numbers of their
    /// own.
    pub keys: Vec<LimitKey>,
    /// The waiting jobs of one page, in the order in which they start.
    pub waiting: Vec<Job>,
}

impl Queue {
    /// Stores the numbers of a limit, in place of those that hold. Jobs that may start with the new numbers go on.
    pub fn put_limit(&self, limit: &LimitName, numbers: &LimitNumbers) -> Result<LimitPut, Error> {
        let mut call = self.scripts.define_limit.call();
        call.arg("put").arg(limit.as_str()).arg(to_text(numbers)).arg(MOST_LIMITS);
        match as_text(&self.run(&self.scripts.define_limit, &call)?)?.as_str() {
            "created" => Ok(LimitPut::Created),
            "updated" => Ok(LimitPut::Updated),
            "missing" => Ok(LimitPut::Missing),
            "too_many" => Ok(LimitPut::TooMany),
            word => Err(Error::Protocol(word.to_owned())),
        }
    }

    /// Deletes a limit of the API, or the numbers that hold in place of those of a file. A limit that does not exist lets
    /// all jobs start.
    pub fn delete_limit(&self, limit: &LimitName) -> Result<LimitDeleted, Error> {
        let mut call = self.scripts.define_limit.call();
        call.arg("delete").arg(limit.as_str());
        match as_text(&self.run(&self.scripts.define_limit, &call)?)?.as_str() {
            "done" => Ok(LimitDeleted::Done),
            "missing" => Ok(LimitDeleted::Missing),
            "managed_by_config" => Ok(LimitDeleted::ManagedByConfig),
            word => Err(Error::Protocol(word.to_owned())),
        }
    }

    /// The limits, sorted by name, at most 1,000.
    pub fn limits(&self) -> Result<Vec<LimitRecord>, Error> {
        let mut call = self.scripts.limits_list.call();
        call.arg(MOST_LISTED);
        let read = |reply: Value| {
            let reply = as_array(reply)?;
            let [name, value, running, waiting, opens_at] = reply.as_slice() else {
                return Err(unexpected(&Value::Array(reply)));
            };
            to_record(as_text(name)?, &as_text(value)?, [running, waiting, opens_at])
        };
        as_array(self.run(&self.scripts.limits_list, &call)?)?.into_iter().map(read).collect()
    }

    /// A limit with its jobs: of the waiting jobs those behind the first `offset` ones, at most `number`.
    pub fn limit(&self, limit: &LimitName, offset: u64, number: u64) -> Result<Option<LimitDetails>, Error> {
        let mut call = self.scripts.limit_show.call();
        call.arg(limit.as_str()).arg(offset).arg(number);
        let reply = as_array(self.run(&self.scripts.limit_show, &call)?)?;
        let [value, is_own, running, waiting, opens_at, ids, keys, page] = reply.as_slice() else {
            return if reply.is_empty() { Ok(None) } else { Err(unexpected(&Value::Array(reply))) };
        };
        let figures = [running, waiting, opens_at];
        let mut record = to_record(limit.name().to_owned(), &as_text(value)?, figures)?;
        if limit.is_reserved() {
            limit.as_str().clone_into(&mut record.name);
        }
        record.overridden |= as_int(is_own)? == 1 && !limit.is_reserved();
        let keys = as_array(keys.clone())?;
        let keys = keys.chunks_exact(5).map(|key| {
            let own = as_text(&key[4])?;
            let numbers = if own.is_empty() { NO_NUMBERS } else { &own };
            let record = to_record(as_text(&key[0])?, numbers, [&key[1], &key[2], &key[3]])?;
            Ok(LimitKey { record, is_own: !own.is_empty() })
        });
        Ok(Some(LimitDetails {
            record,
            running: as_array(ids.clone())?.iter().filter_map(|id| as_job_id(id).ok()).collect(),
            keys: keys.collect::<Result<_, Error>>()?,
            waiting: replies::page(page.clone())?.jobs,
        }))
    }
}

/// A limit as `limits` has it: slots, starts, period in ms, burst, source and, if they are others, the numbers of the file.
fn to_record(
    name: String,
    value: &str,
    [running, waiting, opens_at]: [&Value; 3],
) -> Result<LimitRecord, Error> {
    let words: Vec<&str> = value.split(' ').collect();
    let number = |at: usize| -> Option<u64> { words.get(at)?.parse().ok() };
    let damaged = || Error::Protocol(format!("the limit {name:?} has the value {value:?}"));
    let [Some(slots), Some(starts), Some(period), Some(burst)] = [0, 1, 2, 3].map(number) else {
        return Err(damaged());
    };
    let small = |number: u64| u32::try_from(number).map_err(|_| damaged());
    let (slots, starts) = (small(slots)?, small(starts)?);
    Ok(LimitRecord {
        numbers: LimitNumbers {
            concurrency: Some(slots).filter(|slots| *slots > 0),
            rate: Rate::new(starts, Duration::from_millis(period)),
            burst: small(burst)?,
        },
        source: if words.get(4) == Some(&"config") { Source::Config } else { Source::Api },
        overridden: words.len() > 5,
        running: as_count(running)?,
        waiting: as_count(waiting)?,
        opens_at_ms: u64::try_from(as_int(opens_at)?).ok(),
        name,
    })
}

/// The numbers as the scripts read them.
pub(super) fn to_text(numbers: &LimitNumbers) -> String {
    let (starts, period) = numbers.rate.map_or((0, 0), |rate| (rate.count, rate.period.as_millis()));
    format!("{} {starts} {period} {}", numbers.concurrency.unwrap_or(0), numbers.burst)
}
