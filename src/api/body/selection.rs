//! The choice of jobs for an operation on many of them.

use super::fields::{Fields, Invalid, Whole};
use crate::job::time::parse_rfc3339_micros;
use crate::job::{JobId, rules};
use crate::queue::Selection;
use crate::sorting;

/// The fields that choose jobs, besides their statuses.
pub(super) const SELECTION: [&str; 7] =
    ["type", "tag", "queue", "created_after", "created_before", "ids", "error"];

/// The jobs that match all of these fields, whatever their status is.
pub(super) fn selection(fields: &Fields) -> Result<Selection, Invalid> {
    let ids = fields.get("ids", "an array of job ids", |ids: &Vec<Whole>| {
        ids.iter().all(|id| JobId::new(id.0).is_some())
    })?;
    let ids = ids.map(|ids| sorting::distinct(ids.into_iter().filter_map(|id| JobId::new(id.0))));
    Ok(Selection {
        statuses: Vec::new(),
        job_type: fields.text("type", &rules::JOB_TYPE)?,
        tag: fields.text("tag", &rules::TAG)?,
        queue: fields.text("queue", &rules::QUEUE_NAME)?,
        created_after: micros(fields, "created_after")?,
        created_before: micros(fields, "created_before")?,
        ids,
        error: fields.text("error", &rules::ERROR_PART)?,
    })
}

/// A time in microseconds since 1970, which bounds job ids exactly.
fn micros(fields: &Fields, name: &str) -> Result<Option<u64>, Invalid> {
    let is_time = |text: &String| parse_rfc3339_micros(text).is_some();
    let text = fields.get(name, "a time as in RFC 3339, like \"2026-11-24T08:00:00Z\"", is_time)?;
    Ok(text.and_then(|text| parse_rfc3339_micros(&text)))
}
