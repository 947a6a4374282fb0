//! The bodies of POST /attempts and of the paths below it.

use std::time::Duration;

use serde_json::value::RawValue;

use super::fields::{Fields, Invalid, json};
use crate::api::response::Response;
use crate::job::report::{MAX_CHECKPOINT_BYTES, MAX_LINES, checked_line, checked_progress};
use crate::job::rules::{DELAY, LEASE, in_ms};
use crate::job::{Failure, MAX_RESULT_BYTES, Outcome, Report};

/// The most answers of a request.
const MAX_ANSWERS: usize = 100;

/// How a pull worker ends an attempt.
#[derive(Debug)]
pub enum End {
    Outcome(Outcome),
    /// The job goes back to the front of its queue.
    Release,
}

/// An attempt token and how its attempt ends, or the error of an end that is too long.
pub type TokenAndEnd = (String, Result<End, Response>);

/// The lease that a pull worker asks for. `None`: none is given.
pub(super) fn lease(fields: &Fields) -> Result<Option<Duration>, Invalid> {
    Ok(fields.number("lease_ms", in_ms(&LEASE))?.map(Duration::from_millis))
}

/// What an attempt reports, and its new lease.
pub fn report(body: &[u8]) -> Result<(Report, Option<Duration>), Response> {
    let read = || {
        let fields = fields(body, &["progress", "log", "checkpoint", "lease_ms"])?;
        let mut report = Report::default();
        if let Some(json) = fields.raw("progress") {
            let progress = Fields::of(json, "progress.".to_owned(), &["value", "message"])?;
            let is_part = |value: &f64| (0.0..=1.0).contains(value);
            let value = progress.get("value", "a number from 0 to 1", is_part)?;
            let message = progress.get("message", "a string", |_: &String| true)?.unwrap_or_default();
            let value = value.ok_or_else(|| Invalid::field("progress.value is missing"))?;
            report.progress = checked_progress(value, &message);
        }
        let wanted = format!("an array of up to {MAX_LINES} strings");
        let lines = fields.get("log", &wanted, |lines: &Vec<String>| lines.len() <= MAX_LINES)?;
        report.log = lines.unwrap_or_default().iter().map(|line| checked_line(line)).collect();
        if let Some(json) = fields.raw("checkpoint") {
            if json.get().len() > MAX_CHECKPOINT_BYTES {
                return Err(Invalid::Field(format!(
                    "checkpoint must have at most {MAX_CHECKPOINT_BYTES} bytes"
                )));
            }
            report.checkpoint = Some(json.to_owned());
        }
        Ok((report, lease(&fields)?))
    };
    read().map_err(invalid_attempt)
}

/// The body of an end of an attempt with this name. An empty body is the same as `{}`.
pub fn end(name: &str, body: &[u8]) -> Result<End, Response> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    json(body)
        .and_then(|json| read_end(name, json, String::new()))
        .map_err(invalid_attempt)?
        .map_err(too_long)
}

/// The attempt tokens of many attempts, each with how the attempt ends.
pub fn ends(body: &[u8]) -> Result<Vec<TokenAndEnd>, Response> {
    let read = || {
        let fields = Fields::of(json(body)?, String::new(), &["settle"])?;
        let wanted = format!("an array of 1 to {MAX_ANSWERS} objects");
        let is_number = |entries: &Vec<Box<RawValue>>| (1..=MAX_ANSWERS).contains(&entries.len());
        let entries = fields.get("settle", &wanted, is_number)?;
        let entries = entries.ok_or_else(|| Invalid::field("settle is missing"))?;
        let read = |(place, entry): (usize, &RawValue)| {
            let fields =
                Fields::of(entry, format!("settle[{place}]."), &["token", "complete", "fail", "release"])?;
            let place = &fields.place;
            let token = fields.get("token", "a string", |_: &String| true)?;
            let token = token.ok_or_else(|| Invalid::Field(format!("{place}token is missing")))?;
            let mut ends = fields.members.iter().filter(|(name, _)| name != "token");
            let (Some((name, json)), None) = (ends.next(), ends.next()) else {
                let problem = "must have one of complete, fail and release";
                return Err(Invalid::Field(format!("{} {problem}", place.trim_end_matches('.'))));
            };
            Ok((token, read_end(name, json, format!("{place}{name}."))?.map_err(too_long)))
        };
        entries.iter().map(Box::as_ref).enumerate().map(read).collect::<Result<Vec<_>, _>>()
    };
    read().map_err(invalid_attempt)
}

/// The inner error is about a result that is too long.
fn read_end(name: &str, json: &RawValue, place: String) -> Result<Result<End, usize>, Invalid> {
    let allowed: &[&str] = match name {
        "complete" => &["result"],
        "fail" => &["error", "permanent", "retry_after_ms"],
        _ => &["delay_ms"],
    };
    let fields = Fields::of(json, place, allowed)?;
    Ok(Ok(match name {
        "complete" => {
            let result = fields.raw("result").unwrap_or(RawValue::NULL);
            if result.get().len() > MAX_RESULT_BYTES {
                return Ok(Err(result.get().len()));
            }
            End::Outcome(Ok(result.to_owned()))
        }
        "fail" => {
            let message = fields.get("error", "a string", |_: &String| true)?;
            let message =
                message.ok_or_else(|| Invalid::Field(format!("{}error is missing", fields.place)))?;
            let is_permanent = fields.get("permanent", "true or false", |_: &bool| true)?.unwrap_or(false);
            let retry_after = fields.number("retry_after_ms", in_ms(&DELAY))?.map(Duration::from_millis);
            End::Outcome(Err(match is_permanent {
                true => Failure::Permanent { message },
                false => Failure::Retryable { message, retry_after },
            }))
        }
        _ => match fields.number("delay_ms", in_ms(&DELAY))?.unwrap_or(0) {
            0 => End::Release,
            delay => End::Outcome(Err(Failure::snooze(Duration::from_millis(delay)))),
        },
    }))
}

/// The fields of a body; an empty body has none.
fn fields<'a>(body: &'a [u8], allowed: &[&str]) -> Result<Fields<'a>, Invalid> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    Fields::of(json(body)?, String::new(), allowed)
}

fn invalid_attempt(invalid: Invalid) -> Response {
    match invalid {
        Invalid::Field(sentence) => Response::error(400, "invalid_attempt", sentence),
        invalid => invalid.into(),
    }
}

fn too_long(bytes: usize) -> Response {
    let sentence = format!("result has {bytes} bytes; at most {MAX_RESULT_BYTES} are allowed");
    Response::error(413, "body_too_large", sentence)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn error(response: Response) -> String {
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        format!("{} {}: {}", response.status, body["code"].as_str().unwrap(), body["error"].as_str().unwrap())
    }

    #[test]
    fn a_report_is_read_and_bounded() {
        let body = br#"{"progress": {"value": 0.5, "message": "a\nb"}, "log": ["x\ty"], "checkpoint": {"page": 7}, "lease_ms": 1e4}"#;
        let (all, lease) = report(body).unwrap();
        assert_eq!(all.progress, Some((0.5, "a b".to_owned())));
        assert_eq!((all.log, lease), (vec!["x y".to_owned()], Some(Duration::from_secs(10))));
        assert_eq!(all.checkpoint.unwrap().get(), r#"{"page": 7}"#);
        for body in ["", " ", "{}"] {
            let (none, lease) = report(body.as_bytes()).unwrap();
            assert!(none.is_empty() && lease.is_none());
        }
        let lines = format!(r#"{{"log": [{}]}}"#, vec!["\"\""; 101].join(","));
        let checkpoint = format!(r#"{{"checkpoint": "{}"}}"#, "x".repeat(32 * 1024 - 1));
        for (body, sentence) in [
            (r#"{"progress": 0.5}"#, "progress must be an object"),
            (r#"{"progress": {}}"#, "progress.value is missing"),
            (r#"{"progress": {"value": 1.01}}"#, "progress.value must be a number from 0 to 1"),
            (r#"{"progress": {"value": "1"}}"#, "progress.value must be a number from 0 to 1"),
            (r#"{"progress": {"value": 1, "message": 1}}"#, "progress.message must be a string"),
            (r#"{"log": "x"}"#, "log must be an array of up to 100 strings"),
            (&lines, "log must be an array of up to 100 strings"),
            (&checkpoint, "checkpoint must have at most 32768 bytes"),
            (r#"{"lease_ms": 0}"#, "lease_ms must be a whole number from 1000 to 86400000"),
            (r#"{"result": 1}"#, "unknown field \"result\"; allowed: progress, log, checkpoint, lease_ms"),
        ] {
            let error = error(report(body.as_bytes()).unwrap_err());
            assert!(error.starts_with(&format!("400 invalid_attempt: {sentence}")), "{body}: {error}");
        }
    }

    #[test]
    fn an_attempt_is_completed_failed_or_released() {
        let show = |end: End| match end {
            End::Outcome(Ok(result)) => format!("complete {result}"),
            End::Outcome(Err(failure)) => format!("{failure:?}"),
            End::Release => "release".to_owned(),
        };
        for (name, body, expected) in [
            ("complete", "", "complete null"),
            ("complete", r#"{"result": {"n": 1}}"#, r#"complete {"n": 1}"#),
            ("fail", r#"{"error": "no", "permanent": true}"#, r#"Permanent { message: "no" }"#),
            (
                "fail",
                r#"{"error": "no", "retry_after_ms": 500}"#,
                r#"Retryable { message: "no", retry_after: Some(500ms) }"#,
            ),
            ("release", "", "release"),
            ("release", r#"{"delay_ms": 0}"#, "release"),
            ("release", r#"{"delay_ms": 1}"#, "Snooze(1s)"),
            ("release", r#"{"delay_ms": 1500}"#, "Snooze(1.5s)"),
        ] {
            assert_eq!(show(end(name, body.as_bytes()).unwrap()), expected, "{name} {body}");
        }
        let long = format!(r#"{{"result": "{}"}}"#, "x".repeat(MAX_RESULT_BYTES - 1));
        for (name, body, expected) in [
            (
                "complete",
                long.as_str(),
                "413 body_too_large: result has 65537 bytes; at most 65536 are allowed",
            ),
            (
                "complete",
                r#"{"results": 1}"#,
                "400 invalid_attempt: unknown field \"results\"; allowed: result",
            ),
            ("fail", "", "400 invalid_attempt: error is missing"),
            ("fail", r#"{"error": 5}"#, "400 invalid_attempt: error must be a string"),
            (
                "fail",
                r#"{"error": "", "permanent": 1}"#,
                "400 invalid_attempt: permanent must be true or false",
            ),
            (
                "release",
                r#"{"delay_ms": 31536000001}"#,
                "400 invalid_attempt: delay_ms must be a whole number from 0 to 31536000000",
            ),
            ("release", "[", "400 invalid_json: "),
        ] {
            let error = error(end(name, body.as_bytes()).unwrap_err());
            assert!(error.starts_with(expected), "{name} {body}: {error}");
        }
    }

    #[test]
    fn many_attempts_are_read_each_by_itself() {
        let long = "x".repeat(MAX_RESULT_BYTES);
        let body = format!(
            r#"{{"settle": [{{"token": "a", "complete": {{"result": 1}}}}, {{"token": "b", "release": {{}}}},
                {{"token": "c", "complete": {{"result": "{long}"}}}}]}}"#
        );
        let ends = ends(body.as_bytes()).unwrap();
        assert_eq!(ends.iter().map(|(token, _)| token.as_str()).collect::<String>(), "abc");
        assert!(matches!(ends[0].1, Ok(End::Outcome(Ok(_)))) && matches!(ends[1].1, Ok(End::Release)));
        assert_eq!(ends[2].1.as_ref().unwrap_err().status, 413);
        let many = format!(r#"{{"settle": [{}]}}"#, vec![r#"{"token": "", "release": {}}"#; 101].join(","));
        for (body, sentence) in [
            ("{}", "settle is missing"),
            (r#"{"settle": []}"#, "settle must be an array of 1 to 100 objects"),
            (&many, "settle must be an array of 1 to 100 objects"),
            (r#"{"settle": [1]}"#, "settle[0] must be an object"),
            (r#"{"settle": [{"release": {}}]}"#, "settle[0].token is missing"),
            (r#"{"settle": [{"token": "a"}]}"#, "settle[0] must have one of complete, fail and release"),
            (
                r#"{"settle": [{"token": "a", "release": {}, "complete": {}}]}"#,
                "settle[0] must have one of complete, fail and release",
            ),
            (r#"{"settle": [{"token": "a", "fail": {}}]}"#, "settle[0].fail.error is missing"),
            (r#"{"settle": [{"token": "a", "fail": 5}]}"#, "settle[0].fail must be an object"),
        ] {
            let error = error(super::ends(body.as_bytes()).unwrap_err());
            assert!(error.starts_with(&format!("400 invalid_attempt: {sentence}")), "{body}: {error}");
        }
    }
}
