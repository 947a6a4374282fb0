//! The body of POST /jobs/bulk.

use serde_json::value::RawValue;

use super::fields::{Fields, Invalid, json};
use super::job::change;
use super::selection::{SELECTION, selection};
use crate::api::response::Response;
use crate::job::{Change, JobId, Start, Status};
use crate::queue::{Selection, Walk};

/// The most ids in a filter.
const MAX_IDS: usize = 1_000;

/// The body of POST /jobs/bulk.
pub struct Bulk {
    pub action: Action,
    pub selection: Selection,
    pub dry_run: bool,
    /// Where the request before this one has stopped.
    pub walk: Walk,
}

/// What becomes of the jobs.
pub enum Action {
    Cancel,
    Delete,
    Retry,
    /// Scheduled and retrying jobs become ready.
    Run(Change),
    /// Jobs that have not started get new values.
    Change(Change),
}

impl Bulk {
    /// # Errors
    /// `invalid_filter` for the filter, `invalid_job` for any other field.
    pub fn parse(body: &[u8]) -> Result<Bulk, Response> {
        const FIELDS: [&str; 5] = ["action", "filter", "set", "dry_run", "cursor"];
        const ACTIONS: [&str; 5] = ["cancel", "delete", "retry", "run", "change"];
        let fields = Fields::of(json(body)?, String::new(), &FIELDS)?;
        let missing = |name: &str| Invalid::Field(format!("{name} is missing"));
        let action = fields.word("action", &ACTIONS)?.ok_or_else(|| missing("action"))?;
        let action = match (action, fields.raw("set")) {
            ("change", Some(set)) => Action::Change(change(set, "set.".to_owned())?),
            ("change", None) => return Err(missing("set").into()),
            (_, Some(_)) => return Err(Invalid::field("set is only for the action \"change\"").into()),
            ("cancel", None) => Action::Cancel,
            ("delete", None) => Action::Delete,
            ("retry", None) => Action::Retry,
            (_, None) => Action::Run(Change { start: Some(Start::Now), ..Change::default() }),
        };
        let dry_run = fields.get("dry_run", "true or false", |_: &bool| true)?.unwrap_or(false);
        let is_cursor = |cursor: &String| walk(cursor).is_some();
        let cursor = fields.get("cursor", "the cursor of the response before", is_cursor)?;
        let walk = cursor.and_then(|cursor| walk(&cursor)).unwrap_or_default();
        let selection = match fields.raw("filter") {
            Some(json) => filter(json),
            None => Err(missing("filter")),
        };
        Ok(Bulk { action, selection: selection.map_err(invalid_filter)?, dry_run, walk })
    }
}

fn invalid_filter(invalid: Invalid) -> Response {
    match invalid {
        Invalid::Field(sentence) => Response::error(400, "invalid_filter", sentence),
        other => other.into(),
    }
}

fn filter(json: &RawValue) -> Result<Selection, Invalid> {
    let allowed = [&["all", "status"], &SELECTION[..]].concat();
    let fields = Fields::of(json, "filter.".to_owned(), &allowed)?;
    let all = fields.get("all", "true", |all: &bool| *all)?;
    match (all, fields.members.len()) {
        (None, 0) => {
            return Err(Invalid::field("filter is empty: for all jobs it must be {\"all\": true}"));
        }
        (Some(_), 2..) => return Err(Invalid::field("filter.all must be the only field of filter")),
        _ => {}
    }
    let selection = selection(&fields)?;
    if selection.ids.as_ref().is_some_and(|ids| ids.len() > MAX_IDS) {
        return Err(Invalid::Field(format!("filter.ids must have at most {MAX_IDS} job ids")));
    }
    Ok(Selection { statuses: statuses(&fields)?, ..selection })
}

/// One status, or an array of statuses.
fn statuses(fields: &Fields) -> Result<Vec<Status>, Invalid> {
    let names = Status::ALL.map(Status::as_str).join(", ");
    let wanted = format!("one of {names}, or an array of them");
    let is_array = fields.raw("status").is_some_and(|json| json.get().starts_with('['));
    let statuses = match is_array {
        true => fields.get("status", &wanted, |statuses: &Vec<Status>| !statuses.is_empty())?,
        false => fields.get("status", &wanted, |_: &Status| true)?.map(|status| vec![status]),
    };
    Ok(statuses.unwrap_or_default())
}

/// The cursor of a walk that goes on.
pub fn cursor(walk: Walk) -> String {
    let number = |id: Option<JobId>| id.map_or(0, JobId::get);
    format!("{}-{}", number(walk.newest), number(walk.last))
}

fn walk(cursor: &str) -> Option<Walk> {
    let (newest, last) = cursor.split_once('-')?;
    Some(Walk { newest: Some(newest.parse().ok()?), last: Some(last.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(body: &str) -> (String, String) {
        let response = Bulk::parse(body.as_bytes()).err().expect("an error");
        let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        (text("code"), text("error"))
    }

    #[test]
    fn every_field_of_a_filter_is_read() {
        let body = r#"{"action": "cancel", "dry_run": true, "cursor": "200-100", "filter": {
            "status": ["queued", "scheduled"], "type": "a", "tag": "b", "queue": "c", "error": "d",
            "created_after": "2025-11-24T16:00:00.123456Z", "created_before": "2025-11-24T16:00:01Z",
            "ids": [9, 7.0, 9]}}"#;
        let Bulk { action, selection, dry_run, walk } = Bulk::parse(body.as_bytes()).unwrap();
        assert!(matches!(action, Action::Cancel) && dry_run);
        assert_eq!((walk.newest, walk.last), (JobId::new(200), JobId::new(100)));
        assert_eq!(cursor(walk), "200-100");
        assert_eq!(selection.statuses, [Status::Queued, Status::Scheduled]);
        let texts = [selection.job_type, selection.tag, selection.queue, selection.error];
        assert_eq!(texts.map(Option::unwrap), ["a", "b", "c", "d"]);
        assert_eq!(selection.created_after, Some(1_764_000_000_123_456));
        assert_eq!(selection.created_before, Some(1_764_000_001_000_000));
        assert_eq!(selection.ids, Some(vec![JobId::new(7).unwrap(), JobId::new(9).unwrap()]));

        let all = Bulk::parse(br#"{"action": "run", "filter": {"all": true}}"#).unwrap();
        assert!(matches!(all.action, Action::Run(_)) && !all.dry_run);
        assert_eq!((all.selection.statuses, all.walk), (Vec::new(), Walk::default()));
        let one = Bulk::parse(br#"{"action": "retry", "filter": {"status": "failed"}}"#).unwrap();
        assert_eq!(one.selection.statuses, [Status::Failed]);
    }

    #[test]
    fn an_error_names_the_field_and_tells_filters_from_other_fields() {
        let ids: Vec<u64> = (1..=1001).collect();
        let many = format!(r#"{{"ids": {ids:?}}}"#);
        for (filter, sentence) in [
            ("{}", "filter is empty: for all jobs it must be {\"all\": true}"),
            ("[]", "filter must be an object"),
            (r#"{"all": false}"#, "filter.all must be true"),
            (r#"{"all": true, "tag": "x"}"#, "filter.all must be the only field of filter"),
            (r#"{"colour": "red"}"#, "unknown field \"filter.colour\"; allowed: all, status, type, "),
            (r#"{"status": []}"#, "filter.status must be one of scheduled, queued, "),
            (r#"{"status": ["queued", "done"]}"#, "filter.status must be one of scheduled, queued, "),
            (r#"{"status": 1}"#, "filter.status must be one of scheduled, queued, "),
            (r#"{"tag": ""}"#, "filter.tag must be a string of 1 to 64 characters"),
            (r#"{"error": ""}"#, "filter.error must be a string of 1 to 1000 characters"),
            (r#"{"created_after": "now"}"#, "filter.created_after must be a time as in RFC 3339"),
            (r#"{"ids": [0]}"#, "filter.ids must be an array of job ids"),
            (&many, "filter.ids must have at most 1000 job ids"),
        ] {
            let (code, error) = error(&format!(r#"{{"action": "cancel", "filter": {filter}}}"#));
            assert_eq!(code, "invalid_filter", "{filter}");
            assert!(error.starts_with(sentence), "{filter}: {error}");
        }
        assert_eq!(error(r#"{"action": "cancel"}"#).1, "filter is missing");
        for (fields, sentence) in [
            ("", "action is missing"),
            (r#", "action": "drop""#, "action must be \"cancel\" or "),
            (r#", "action": "change""#, "set is missing"),
            (r#", "action": "run", "set": {"queue": "q"}"#, "set is only for the action \"change\""),
            (r#", "action": "change", "set": {}"#, "set must have at least one field of "),
            (r#", "action": "cancel", "dry_run": 1"#, "dry_run must be true or false"),
            (r#", "action": "cancel", "cursor": "5""#, "cursor must be the cursor of the response before"),
            (r#", "action": "cancel", "cursor": "0-5""#, "cursor must be the cursor of the response before"),
            (r#", "action": "cancel", "cursor": null"#, "cursor must be the cursor of the response before"),
        ] {
            let (code, error) = error(&format!(r#"{{"filter": {{"all": true}}{fields}}}"#));
            assert_eq!(code, "invalid_job", "{fields}");
            assert!(error.starts_with(sentence), "{fields}: {error}");
        }
        assert_eq!(error("").0, "invalid_json");
    }
}
