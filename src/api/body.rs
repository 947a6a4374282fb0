//! Request bodies: JSON parsed strictly, field by field, so that an error names the field.

use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde_json::value::RawValue;

use crate::handler::Handlers;
use crate::job::json::{MAX_DEPTH, depth_exceeds};
use crate::job::limits::{self, TextRule};
use crate::job::time::parse_rfc3339;
use crate::job::{JobId, NewJob, Start, empty_payload};

use crate::api::response::Response;

/// Maximum number of jobs in one batch.
const MAX_BATCH: usize = 1_000;

/// An object's members in their order, including duplicates, with values as they were sent.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// A whole number that is not negative. JSON has no integers: 5, 5.0 and 5e0 are the same number.
struct Whole(u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Whole, E> {
                Ok(Whole(number))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Whole, E> {
                // Below 2^53 a float has all digits; no field allows more.
                match number.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&number) {
                    true => Ok(Whole(number as u64)),
                    false => Err(E::invalid_value(Unexpected::Float(number), &self)),
                }
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// The fields of one object.
struct Fields<'a> {
    /// The path of the object in the body, as a prefix for the names of its fields in errors.
    place: String,
    members: Vec<(String, &'a RawValue)>,
}

impl<'a> Fields<'a> {
    /// The fields of `json`. Fails if a field is not in `allowed`, or is given twice.
    fn of(json: &'a RawValue, place: String, allowed: &[&str]) -> Result<Fields<'a>, Response> {
        let object = || match place.strip_suffix('.') {
            Some(place) => format!("{place} must be an object"),
            None => "the body must be an object".to_owned(),
        };
        if !json.get().starts_with('{') {
            return Err(Response::invalid_job(object()));
        }
        let Members(members) =
            serde_json::from_str(json.get()).map_err(|error| Response::invalid_json(error.to_string()))?;
        for (at, (name, _)) in members.iter().enumerate() {
            let shown: String = name.chars().take(50).collect();
            if !allowed.contains(&name.as_str()) {
                let (name, allowed) = (format!("{place}{shown}"), allowed.join(", "));
                return Err(Response::invalid_job(format!("unknown field {name:?}; allowed: {allowed}")));
            }
            // At most as many names as are allowed come before.
            if members[..at].iter().any(|(other, _)| other == name) {
                return Err(Response::invalid_job(format!("{place}{shown} is given twice")));
            }
        }
        Ok(Fields { place, members })
    }

    fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.members.iter().find(|(given, _)| given == name).map(|(_, value)| *value)
    }

    /// A whole number in this range, or `None` if the field is absent.
    fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Response> {
        let wanted = limits::whole_number_in(&range);
        let number = self.get(name, &wanted, |number: &Whole| range.contains(&number.0))?;
        Ok(number.map(|number| number.0))
    }

    /// A string that the rule accepts, or `None` if the field is absent.
    fn text(&self, name: &str, rule: &TextRule) -> Result<Option<String>, Response> {
        self.get(name, &format!("a string of {}", rule.allowed), |text: &String| rule.accepts(text))
    }

    /// The value of a field, or `None` if the field is absent. Fails if `check` rejects the value; `wanted` says what is
    /// valid.
    fn get<T: DeserializeOwned>(
        &self,
        name: &str,
        wanted: &str,
        check: impl Fn(&T) -> bool,
    ) -> Result<Option<T>, Response> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        match serde_json::from_str(raw.get()) {
            Ok(value) if check(&value) => Ok(Some(value)),
            _ => Err(Response::invalid_job(format!("{}{name} must be {wanted}", self.place))),
        }
    }
}

/// The body as JSON, nested at most [`MAX_DEPTH`] levels deep.
fn json(body: &[u8]) -> Result<&RawValue, Response> {
    let text =
        std::str::from_utf8(body).map_err(|_| Response::invalid_json("the body is not valid UTF-8"))?;
    if text.trim_ascii().is_empty() {
        return Err(Response::invalid_json("the body is empty"));
    }
    if depth_exceeds(text, MAX_DEPTH) {
        return Err(Response::invalid_json(format!("the body is nested more than {MAX_DEPTH} levels deep")));
    }
    serde_json::from_str(text)
        .map_err(|error| Response::invalid_json(format!("the body is not valid JSON: {error}")))
}

/// The body of POST /jobs.
pub fn job(body: &[u8], handlers: &Handlers) -> Result<NewJob, Response> {
    new_job(json(body)?, String::new(), handlers)
}

/// The body of POST /jobs/batch.
pub fn batch(body: &[u8], handlers: &Handlers) -> Result<Vec<NewJob>, Response> {
    let fields = Fields::of(json(body)?, String::new(), &["jobs"])?;
    let wanted = || Response::invalid_job(format!("jobs must be an array of 1 to {MAX_BATCH} jobs"));
    let raw = fields.raw("jobs").ok_or_else(|| Response::invalid_job("jobs is missing"))?;
    let jobs: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| wanted())?;
    if !(1..=MAX_BATCH).contains(&jobs.len()) {
        return Err(wanted());
    }
    let jobs = jobs.into_iter().enumerate();
    let jobs =
        jobs.map(|(i, job)| new_job(job, format!("jobs[{i}]."), handlers)).collect::<Result<Vec<_>, _>>()?;
    let mut keys = HashSet::new();
    for (i, job) in jobs.iter().enumerate() {
        if let Some(key) = &job.unique_key
            && !keys.insert(key)
        {
            return Err(Response::invalid_job(format!("jobs[{i}].unique_key is given twice in this batch")));
        }
    }
    Ok(jobs)
}

fn new_job(json: &RawValue, place: String, handlers: &Handlers) -> Result<NewJob, Response> {
    const FIELDS: [&str; 8] =
        ["type", "payload", "queue", "delay_ms", "run_at", "max_attempts", "timeout_ms", "unique_key"];
    let fields = Fields::of(json, place, &FIELDS)?;
    let job_type = fields
        .text("type", &limits::JOB_TYPE)?
        .ok_or_else(|| Response::invalid_job(format!("{}type is missing", fields.place)))?;
    let policy = handlers.policy(&job_type);
    let queue = fields.text("queue", &limits::QUEUE_NAME)?;
    let (least, most) = limits::ATTEMPTS.into_inner();
    let attempts = fields.number("max_attempts", least.into()..=most.into())?;
    let timeout = fields.number("timeout_ms", limits::in_ms(&limits::TIMEOUT))?;
    let unique_key = fields.text("unique_key", &limits::UNIQUE_KEY)?;
    let mut job = NewJob::new(job_type);
    job.payload = fields.raw("payload").map_or_else(empty_payload, ToOwned::to_owned);
    job.queue = queue.unwrap_or(job.queue);
    job.start = start(&fields)?;
    job.max_attempts = attempts.map_or(policy.max_attempts, |attempts| attempts as u32);
    job.timeout = timeout.map_or(policy.timeout, Duration::from_millis);
    job.unique_key = unique_key;
    Ok(job)
}

fn start(fields: &Fields) -> Result<Start, Response> {
    let delay = fields.number("delay_ms", limits::in_ms(&limits::DELAY))?;
    let is_time = |text: &String| parse_rfc3339(text).is_some();
    let run_at = fields.get("run_at", "a time as in RFC 3339, like \"2026-11-24T08:00:00Z\"", is_time)?;
    match (delay, run_at) {
        (Some(_), Some(_)) => {
            let place = &fields.place;
            Err(Response::invalid_job(format!(
                "{place}delay_ms and {place}run_at must not be given together"
            )))
        }
        (Some(ms), None) => Ok(Start::AfterMs(ms)),
        (None, Some(text)) => Ok(Start::AtMs(parse_rfc3339(&text).unwrap_or(0))),
        (None, None) => Ok(Start::Now),
    }
}

/// The body of POST /dlq/retry.
pub struct RetryDeadLetters {
    pub job_type: Option<String>,
    pub ids: Option<Vec<JobId>>,
    pub dry_run: bool,
}

impl RetryDeadLetters {
    pub fn parse(body: &[u8]) -> Result<RetryDeadLetters, Response> {
        let fields = Fields::of(json(body)?, String::new(), &["type", "ids", "dry_run"])?;
        let job_type = fields.text("type", &limits::JOB_TYPE)?;
        let ids = fields.get("ids", "an array of job ids", |ids: &Vec<Whole>| {
            ids.iter().all(|id| JobId::new(id.0).is_some())
        })?;
        let dry_run = fields.get("dry_run", "true or false", |_: &bool| true)?;
        let mut ids: Option<Vec<JobId>> =
            ids.map(|ids| ids.into_iter().filter_map(|id| JobId::new(id.0)).collect());
        if let Some(ids) = &mut ids {
            ids.sort_unstable();
            ids.dedup();
        }
        Ok(RetryDeadLetters { job_type, ids, dry_run: dry_run.unwrap_or(false) })
    }
}
