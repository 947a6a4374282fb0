//! Fuzzing of the parsers of bodies, paths and queries.
//!
//! Every input must give a value within its limits, or an error in the API's shape. A job that is accepted must be the same
//! after it is written as a body and parsed again.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::api::body::{self, RetryDeadLetters};
use crate::api::query::Query;
use crate::api::response::Response;
use crate::api::routes::Path;
use crate::handler::Handlers;
use crate::job::json::{MAX_DEPTH, depth_exceeds};
use crate::job::{NewJob, Start, is_job_type, is_queue_name, rfc3339};

/// The end of the year 9999 in UTC, the latest time that is written. With an offset a later time can be parsed.
const END_OF_TIME_MS: u64 = 253_402_300_799_999;

/// Parses the bytes as each kind of body, as a path and as a query.
pub fn check(data: &[u8]) {
    let handlers = Handlers::default();
    match body::job(data, &handlers) {
        Ok(job) => check_job(&job, &handlers),
        Err(error) => check_error(&error),
    }
    match body::batch(data, &handlers) {
        Ok(jobs) => {
            assert!((1..=1000).contains(&jobs.len()), "{} jobs", jobs.len());
            jobs.iter().for_each(|job| check_job(job, &handlers));
        }
        Err(error) => check_error(&error),
    }
    if let Err(error) = RetryDeadLetters::parse(data) {
        check_error(&error);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        check_path(text);
        check_query(text);
    }
}

/// Checks the limits of a job, and that its body gives the same job again.
fn check_job(job: &NewJob, handlers: &Handlers) {
    assert!(is_job_type(&job.job_type), "{:?}", job.job_type);
    assert!(is_queue_name(&job.queue), "{:?}", job.queue);
    assert!((1..=100).contains(&job.max_attempts), "{}", job.max_attempts);
    assert!((1..=86_400_000).contains(&job.timeout.as_millis()), "{:?}", job.timeout);
    if let Some(key) = &job.unique_key {
        assert!((1..=200).contains(&key.chars().count()), "{key:?}");
    }
    let payload = job.payload.get();
    // The body itself is one level.
    assert!(!depth_exceeds(payload, MAX_DEPTH - 1), "{payload}");
    assert!(
        serde_json::from_str::<&RawValue>(payload).is_ok_and(|again| again.get() == payload),
        "{payload}"
    );

    let again = body::job(written(job).as_bytes(), handlers);
    let again = again.unwrap_or_else(|error| panic!("{job:?} is not accepted again: {error:?}"));
    let start = match job.start {
        Start::AtMs(ms) => Start::AtMs(ms.min(END_OF_TIME_MS)),
        start => start,
    };
    assert_eq!(format!("{again:?}"), format!("{:?}", NewJob { start, ..job.clone() }));
}

/// The body that submits this job.
fn written(job: &NewJob) -> String {
    let mut fields = vec![
        ("type", json!(job.job_type).to_string()),
        ("payload", job.payload.get().to_owned()),
        ("queue", json!(job.queue).to_string()),
        ("max_attempts", job.max_attempts.to_string()),
        ("timeout_ms", job.timeout.as_millis().to_string()),
    ];
    match job.start {
        Start::Now => {}
        Start::AfterMs(ms) => fields.push(("delay_ms", ms.to_string())),
        Start::AtMs(ms) => fields.push(("run_at", json!(rfc3339(ms)).to_string())),
    }
    fields.extend(job.unique_key.as_ref().map(|key| ("unique_key", json!(key).to_string())));
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name:?}: {value}")).collect();
    format!("{{{}}}", fields.join(", "))
}

/// Checks for a known code, and a sentence that fits on a line.
fn check_error(error: &Response) {
    assert_eq!(error.status, 400);
    let body: Value = serde_json::from_slice(&error.body).expect("an error is JSON");
    let code = body["code"].as_str().expect("an error has a code");
    assert!(code.starts_with("invalid_"), "{code}");
    let sentence = body["error"].as_str().expect("an error has a sentence");
    assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
    assert!((1..=1000).contains(&sentence.len()), "{sentence:?}");
}

fn check_path(path: &str) {
    let Some(found) = Path::find(path) else { return };
    // A path has one spelling, so that no other spelling evades a check.
    let segments = found.pattern.split('/');
    let filled: Vec<&str> =
        segments.map(|segment| if segment.starts_with('{') { found.parameter } else { segment }).collect();
    assert_eq!(filled.join("/"), path);
    if let Err(error) = found.job_id() {
        check_error(&error);
    }
    if let Err(error) = found.queue_name() {
        check_error(&error);
    }
}

fn check_query(text: &str) {
    const NAMES: [&str; 8] =
        ["page", "limit", "status", "type", "tag", "created_after", "created_before", "wait"];
    let read = || -> Result<(), Response> {
        let query = Query::parse(text, &NAMES)?;
        assert!(query.number("page", 1, 1, u64::MAX)? >= 1);
        assert!((1..=100).contains(&query.number("limit", 10, 1, 100)?));
        let filter = query.filter()?;
        assert!(filter.job_type.is_none_or(|job_type| is_job_type(&job_type)));
        assert!(filter.tag.is_none_or(|tag| (1..=64).contains(&tag.chars().count())));
        assert!(query.wait()?.is_none_or(|wait| wait.as_secs() <= 60));
        Ok(())
    };
    if let Err(error) = read() {
        check_error(&error);
    }
}
