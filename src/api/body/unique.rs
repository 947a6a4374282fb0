//! The unique key of a new job.

use std::time::Duration;

use super::fields::{Fields, Invalid};
use crate::job::{Change, Hold, OnConflict, UniqueMode, rules};

/// A unique key, and what the key means.
#[derive(Default)]
pub(super) struct Unique {
    pub key: Option<String>,
    pub mode: UniqueMode,
}

/// `unique_key` or `unique` of a job. `given` are the values that a job with the same key gets if `unique` says so.
pub(super) fn unique(fields: &Fields, given: &Change) -> Result<Unique, Invalid> {
    fields.not_both("unique_key", "unique")?;
    let Some(raw) = fields.raw("unique") else {
        let key = fields.own_name("unique_key", &rules::UNIQUE_KEY)?;
        return Ok(Unique { key, mode: UniqueMode::default() });
    };
    let place = format!("{}unique.", fields.place);
    let unique = Fields::of(raw, place, &["key", "until", "for_ms", "on_conflict", "max_wait_ms"])?;
    let place = &unique.place;
    let key = unique.own_name("key", &rules::UNIQUE_KEY)?;
    if key.is_none() {
        return Err(Invalid::Field(format!("{place}key is missing")));
    }
    let on_conflict = unique.word("on_conflict", &["reject", "existing", "replace"])?;
    let max_wait = unique.number("max_wait_ms", rules::in_ms(&rules::MAX_WAIT))?;
    let hold = hold(&unique)?;
    if max_wait.is_some() && on_conflict != Some("replace") {
        return Err(Invalid::Field(format!("{place}max_wait_ms needs {place}on_conflict \"replace\"")));
    }
    let mode = match on_conflict {
        Some("replace") => {
            if hold.is_some_and(|hold| hold != Hold::UntilStart) {
                return Err(Invalid::Field(format!(
                    "{place}on_conflict \"replace\" needs {place}until \"start\""
                )));
            }
            let max_wait = max_wait.map(Duration::from_millis);
            let on_conflict = OnConflict::Replace { change: Box::new(given.clone()), max_wait };
            UniqueMode { hold: Hold::UntilStart, on_conflict }
        }
        Some("existing") => UniqueMode { hold: hold.unwrap_or_default(), on_conflict: OnConflict::Existing },
        _ => UniqueMode { hold: hold.unwrap_or_default(), on_conflict: OnConflict::Reject },
    };
    Ok(Unique { key, mode })
}

/// How long the job holds its key, or `None` if the body does not say.
fn hold(unique: &Fields) -> Result<Option<Hold>, Invalid> {
    let until = unique.word("until", &["end", "start"])?;
    let time = unique.number("for_ms", rules::in_ms(&rules::HOLD))?;
    unique.not_both("until", "for_ms")?;
    Ok(match (until, time) {
        (_, Some(ms)) => Some(Hold::For(Duration::from_millis(ms))),
        (Some("start"), None) => Some(Hold::UntilStart),
        (Some(_), None) => Some(Hold::UntilEnd),
        (None, None) => None,
    })
}
