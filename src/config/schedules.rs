//! Reads the entries `[[schedules]]` of the file. The server checks their jobs, with the rules of the API.

use serde_json::{Map, Number, Value as Json};
use toml::Value;

use super::error::{ConfigError, quoted};
use super::section::{Section, type_of};
use super::types::ScheduleEntry;
use super::values::Invalid;
use crate::job::rules::SCHEDULE_NAME;
use crate::schedule::Spec;

pub(super) fn schedules(value: Value, origin: &str) -> Result<Vec<ScheduleEntry>, ConfigError> {
    let Value::Array(entries) = value else {
        let why = Invalid::new(format!("is {}", type_of(&value)), "entries that begin with [[schedules]]");
        return Err(ConfigError::new("schedules", origin, "the value", why));
    };
    let mut schedules: Vec<ScheduleEntry> = Vec::with_capacity(entries.len());
    for entry in entries {
        let schedule = schedule(entry, origin)?;
        if schedules.iter().any(|other| other.name == schedule.name) {
            let why = Invalid::new("is given twice", "one entry for each name");
            return Err(ConfigError::new("schedules", origin, &quoted(&schedule.name), why));
        }
        schedules.push(schedule);
    }
    Ok(schedules)
}

fn schedule(value: Value, origin: &str) -> Result<ScheduleEntry, ConfigError> {
    let mut entry = Section::new("schedules".to_owned(), value, origin)?;
    let name = entry.take_text("name", |text| match SCHEDULE_NAME.accepts(text) {
        true => Ok(text.to_owned()),
        false => Err(Invalid::new("is no name of a schedule", SCHEDULE_NAME.allowed)),
    })?;
    let Some(name) = name else { return Err(entry.error("has no name", "name, cron or every, and job")) };
    entry.name = format!("schedules.{name:?}");
    let mut spec = Spec::default();
    for (key, value) in spec.fields() {
        *value = entry.take_text(key, |text| Ok(text.to_owned()))?;
    }
    let job = match entry.table.remove("job") {
        Some(job @ Value::Table(_)) => json(job).ok_or_else(|| {
            entry.error("has a number in its job that JSON does not have", "numbers other than nan and inf")
        })?,
        _ => {
            return Err(entry.error(
                "has no table as its job",
                "job = { type = \"report\" }, with the fields of POST /jobs",
            ));
        }
    };
    let keys = spec.fields().map(|(key, _)| key).join(", ");
    entry.finish(&format!("name, {keys}, job"))?;
    spec.plan().map_err(|invalid| {
        let name = format!("{}.{}", entry.name, invalid.field);
        let subject = spec.value(invalid.field).map_or("the value".to_owned(), |value| quoted(&value));
        ConfigError::new(&name, origin, &subject, Invalid::new(invalid.problem, invalid.allowed))
    })?;
    Ok(ScheduleEntry { name, spec, job: job.to_string() })
}

/// The value as JSON. JSON has no dates: a date becomes a string.
fn json(value: Value) -> Option<Json> {
    Some(match value {
        Value::String(text) => Json::String(text),
        Value::Integer(number) => Json::Number(number.into()),
        Value::Float(number) => Json::Number(Number::from_f64(number)?),
        Value::Boolean(value) => Json::Bool(value),
        Value::Datetime(time) => Json::String(time.to_string()),
        Value::Array(values) => Json::Array(values.into_iter().map(json).collect::<Option<_>>()?),
        Value::Table(table) => {
            let mut fields = Map::new();
            for (key, value) in table {
                fields.insert(key, json(value)?);
            }
            Json::Object(fields)
        }
    })
}
