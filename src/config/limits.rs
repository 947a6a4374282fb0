//! Reads the section `[limits]` of the file, and what an entry of `[handlers]` says about limits.

use toml::Value;

use super::error::ConfigError;
use super::section::{Section, type_of};
use super::values::{self, Invalid};
use crate::job::limit::{CONCURRENCY, LIMIT_ALLOWED, LimitName, LimitNumbers, RATE_ALLOWED, Rate, STARTS};
use crate::job::rules::RESERVED_PREFIX;

/// The limits, in the order of their names.
pub(super) fn limits(value: Value, origin: &str) -> Result<Vec<(LimitName, LimitNumbers)>, ConfigError> {
    let entries = Section::new("limits".to_owned(), value, origin)?.table;
    let limits: Vec<_> =
        entries.into_iter().map(|(name, entry)| limit(&name, entry, origin)).collect::<Result<_, _>>()?;
    for (limit, _) in &limits {
        if !limits.iter().any(|(other, _)| other.as_str() == limit.name()) {
            let why = Invalid::new(
                format!("gives a key numbers of its own, but there is no [limits.{}]", limit.name()),
                "a key of a limit of this file",
            );
            return Err(ConfigError::new(&format!("limits.{:?}", limit.as_str()), origin, "the entry", why));
        }
    }
    Ok(limits)
}

fn limit(name: &str, value: Value, origin: &str) -> Result<(LimitName, LimitNumbers), ConfigError> {
    let mut entry = Section::new(format!("limits.{name:?}"), value, origin)?;
    let limit = own_name(name).ok_or_else(|| entry.error("has no valid name", &allowed_names()))?;
    let numbers = numbers(&mut entry)?;
    entry.finish("concurrency, rate, burst")?;
    match numbers {
        Some(numbers) => Ok((limit, numbers)),
        None => Err(entry.error("has neither concurrency nor rate", "at least one of them")),
    }
}

/// Removes the keys `concurrency`, `rate` and `burst`. `None`: the entry sets no limit.
pub(super) fn numbers(entry: &mut Section) -> Result<Option<LimitNumbers>, ConfigError> {
    let concurrency = entry.take_text("concurrency", |text| values::number(text, CONCURRENCY))?;
    let rate = entry.take_text("rate", |text| {
        Rate::parse(text).ok_or_else(|| Invalid::new("is not a rate", RATE_ALLOWED))
    })?;
    let burst = entry.take_text("burst", |text| values::number(text, STARTS))?;
    if burst.is_some() && rate.is_none() {
        return Err(entry.error("has a burst, but no rate", "burst only beside rate"));
    }
    let is_limit = concurrency.is_some() || rate.is_some();
    Ok(is_limit.then_some(LimitNumbers { concurrency, rate, burst: burst.unwrap_or(1) }))
}

/// The value of `limited_by`.
pub(super) fn limited_by(value: &Value) -> Result<Vec<LimitName>, Invalid> {
    let refuse = |problem: String| {
        Invalid::new(problem, format!("a list of different limits, each {}", allowed_names()))
    };
    let names = value.as_array().ok_or_else(|| refuse(format!("is {}", type_of(value))))?;
    let mut limits: Vec<LimitName> = Vec::new();
    for name in names {
        let limit = name.as_str().and_then(own_name);
        let limit = limit.ok_or_else(|| refuse(format!("has the entry {name}, which is no limit")))?;
        if limits.contains(&limit) {
            return Err(refuse(format!("has the entry {name} twice")));
        }
        limits.push(limit);
    }
    Ok(limits)
}

/// The name of a limit that the server does not keep for itself.
fn own_name(text: &str) -> Option<LimitName> {
    LimitName::parse(text).filter(|limit| !limit.is_reserved())
}

fn allowed_names() -> String {
    format!("{LIMIT_ALLOWED}, not beginning with {RESERVED_PREFIX}")
}
