//! The options of new jobs, and the changes of waiting jobs, as the scripts read them: JSON, with ids and times as numbers
//! below 2^53.

use serde_json::{Map, Value, json};

use super::record;
use crate::job::limit::LimitName;
use crate::job::{Change, Expiry, Extras, Hold, OnConflict, Start};

/// The options of a new job, see enqueue.lua; empty if there are none.
pub(super) fn of_new_job(extras: &Extras) -> String {
    let mut options = Map::new();
    let ties = record::ties(extras);
    if !ties.is_empty() {
        options.insert("ties".to_owned(), ties.into());
    }
    if !extras.limits.is_empty() {
        let limits: Vec<&str> = extras.limits.iter().map(LimitName::as_str).collect();
        options.insert("limits".to_owned(), limits.into());
    }
    add_expiry(&mut options, extras.expiry);
    if let Hold::For(time) = extras.unique.hold {
        options.insert("held_for".to_owned(), json!(time.as_millis() as u64));
    }
    match &extras.unique.on_conflict {
        OnConflict::Reject => {}
        OnConflict::Existing => _ = options.insert("on_conflict".to_owned(), "existing".into()),
        OnConflict::Replace { change, max_wait } => {
            options.insert("on_conflict".to_owned(), "replace".into());
            options.insert("set".to_owned(), to_set(change).into());
            if let Some(time) = max_wait {
                options.insert("max_wait".to_owned(), json!(time.as_millis() as u64));
            }
        }
    }
    if options.is_empty() { String::new() } else { Value::from(options).to_string() }
}

/// The new values of a waiting job, see `change_job` in ties.lua.
pub(super) fn of_change(change: &Change) -> String {
    Value::from(to_set(change)).to_string()
}

/// The start of a job as the scripts read it: empty for now, `+` and a delay in ms, or a time in ms.
pub(super) fn start(start: Start) -> String {
    match start {
        Start::Now => String::new(),
        Start::AfterMs(ms) => format!("+{ms}"),
        Start::AtMs(ms) => ms.to_string(),
    }
}

fn to_set(change: &Change) -> Map<String, Value> {
    let mut set = Map::new();
    if let Some(payload) = &change.payload {
        let fields: Vec<String> = record::payload(payload)
            .flat_map(|(name, value)| [name.into_owned(), value.into_owned()])
            .collect();
        set.insert("payload".to_owned(), fields.into());
    }
    if let Some(queue) = &change.queue {
        set.insert("queue".to_owned(), queue.as_str().into());
    }
    if let Some(time) = change.start {
        set.insert("start".to_owned(), start(time).into());
    }
    if let Some(attempts) = change.max_attempts {
        set.insert("max_attempts".to_owned(), attempts.to_string().into());
    }
    if let Some(timeout) = change.timeout {
        set.insert("timeout_ms".to_owned(), timeout.as_millis().to_string().into());
    }
    add_expiry(&mut set, change.expiry);
    if let Some(tags) = &change.tags {
        set.insert("tags".to_owned(), tags.as_slice().into());
    }
    set
}

fn add_expiry(options: &mut Map<String, Value>, expiry: Option<Expiry>) {
    match expiry {
        Some(Expiry::AtMs(ms)) => _ = options.insert("expires_at".to_owned(), ms.into()),
        Some(Expiry::AfterMs(ms)) => _ = options.insert("expires_in".to_owned(), ms.into()),
        None => {}
    }
}
