//! Fuzzing of the parsers of bodies, paths and queries.
//!
//! Every input must give a value within its limits, or an error in the API's shape. A job that is accepted must be the same
//! after it is written as a body and parsed again.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::api::body::{self, Bulk, RetryDeadLetters};
use crate::api::query::Query;
use crate::api::response::Response;
use crate::api::routes::Path;
use crate::handler::Handlers;
use crate::job::json::{MAX_DEPTH, depth_exceeds};
use crate::job::limit::{LimitName, LimitNumbers};
use crate::job::{
    Change, Expiry, Hold, NewJob, OnConflict, Start, UniqueMode, is_job_type, is_queue_name, rfc3339,
};

/// The end of the year 9999 in UTC, the latest time that is written. With an offset a later time can be parsed.
const END_OF_TIME_MS: u64 = 253_402_300_799_999;

/// Parses the bytes as each kind of body, as a path and as a query.
pub fn check(data: &[u8]) {
    let handlers = Handlers::default();
    match body::job(data, &handlers) {
        Ok(job) => check_job(&job, &handlers),
        Err(error) => check_error(&error.into()),
    }
    match body::batch(data, &handlers) {
        Ok(jobs) => {
            assert!((1..=1000).contains(&jobs.len()), "{} jobs", jobs.len());
            jobs.iter().for_each(|job| check_job(job, &handlers));
        }
        Err(error) => check_error(&error.into()),
    }
    if let Ok(json) = serde_json::from_slice::<&RawValue>(data) {
        match body::scheduled(json, String::new(), &handlers) {
            Ok(job) => {
                assert_eq!((job.start, &job.unique_key), (Start::Now, &None));
                check_job(&job, &handlers);
            }
            Err(error) => check_error(&error.into()),
        }
    }
    match body::limit(data) {
        Ok(limit) => check_limit(&limit),
        Err(error) => check_error(&error.into()),
    }
    if let Err(error) = body::change_of_job(data) {
        check_error(&error.into());
    }
    if let Err(error) = Bulk::parse(data) {
        check_error(&error);
    }
    if let Err(error) = RetryDeadLetters::parse(data) {
        check_error(&error.into());
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
    if let Some(extras) = &job.extras {
        assert!(extras.tags.len() <= 5 && extras.tags.iter().all(|tag| !tag.contains('\n')), "{extras:?}");
        let meta: usize = extras.meta.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(meta <= 1024, "{extras:?}");
        assert!(extras.limits.len() <= 4 && !extras.limits.iter().any(LimitName::is_reserved), "{extras:?}");
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
    assert_eq!(format!("{again:?}"), format!("{:?}", clamped(job)));
}

/// Checks the numbers of a limit, and that its body gives the same numbers again.
fn check_limit(limit: &LimitNumbers) {
    let LimitNumbers { concurrency, rate, burst } = *limit;
    assert!(concurrency.is_some() || rate.is_some());
    assert!(concurrency.is_none_or(|jobs| (1..=100_000).contains(&jobs)), "{limit:?}");
    assert!((1..=1_000_000).contains(&burst), "{limit:?}");
    let mut body = json!({});
    if let Some(jobs) = concurrency {
        body["concurrency"] = json!(jobs);
    }
    if let Some(rate) = rate {
        assert!((1..=1_000_000).contains(&rate.count), "{limit:?}");
        (body["rate"], body["burst"]) = (json!(rate), json!(burst));
    }
    assert_eq!(body::limit(body.to_string().as_bytes()).ok(), Some(*limit));
}

/// The job with each time before the year 10000, as [`written`] writes it.
fn clamped(job: &NewJob) -> NewJob {
    let mut job = job.clone();
    clamp(&mut job.start);
    if let Some(extras) = &mut job.extras {
        extras.expiry.as_mut().map(clamp_expiry);
        if let OnConflict::Replace { change, .. } = &mut extras.unique.on_conflict {
            change.start.as_mut().map(clamp);
            change.expiry.as_mut().map(clamp_expiry);
        }
    }
    job
}

fn clamp(start: &mut Start) {
    if let Start::AtMs(ms) = start {
        *ms = END_OF_TIME_MS.min(*ms);
    }
}

fn clamp_expiry(expiry: &mut Expiry) {
    if let Expiry::AtMs(ms) = expiry {
        *ms = END_OF_TIME_MS.min(*ms);
    }
}

/// The body that submits this job.
fn written(job: &NewJob) -> String {
    let mut fields = vec![("type", json!(job.job_type).to_string())];
    let on_conflict = job.extras.as_ref().map(|extras| &extras.unique.on_conflict);
    if let Some(OnConflict::Replace { change, .. }) = on_conflict {
        // Only the fields that the body had: the holder of the unique key gets these.
        fields.extend(written_change(change));
    } else {
        fields.extend(written_change(&Change {
            payload: Some(job.payload.clone()),
            queue: Some(job.queue.clone()),
            start: Some(job.start),
            max_attempts: Some(job.max_attempts),
            timeout: Some(job.timeout),
            expiry: job.extras.as_ref().and_then(|extras| extras.expiry),
            tags: job.extras.as_ref().map(|extras| extras.tags.clone()),
        }));
    }
    if let Some(extras) = &job.extras {
        fields.push(("limits", json!(extras.limits).to_string()));
        fields.extend(extras.retain.map(|time| ("retain_ms", time.as_millis().to_string())));
        let meta: serde_json::Map<_, _> = extras.meta.iter().map(|(n, v)| (n.clone(), json!(v))).collect();
        fields.push(("meta", Value::from(meta).to_string()));
        if let Some(key) = &job.unique_key {
            fields.push(("unique", written_unique(key, &extras.unique)));
        }
    } else {
        fields.extend(job.unique_key.as_ref().map(|key| ("unique_key", json!(key).to_string())));
    }
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name:?}: {value}")).collect();
    format!("{{{}}}", fields.join(", "))
}

fn written_change(change: &Change) -> Vec<(&'static str, String)> {
    let mut fields = Vec::new();
    fields.extend(change.payload.as_ref().map(|payload| ("payload", payload.get().to_owned())));
    fields.extend(change.queue.as_ref().map(|queue| ("queue", json!(queue).to_string())));
    fields.extend(change.max_attempts.map(|attempts| ("max_attempts", attempts.to_string())));
    fields.extend(change.timeout.map(|time| ("timeout_ms", time.as_millis().to_string())));
    fields.extend(change.tags.as_ref().map(|tags| ("tags", json!(tags).to_string())));
    match change.start {
        None | Some(Start::Now) => {}
        Some(Start::AfterMs(ms)) => fields.push(("delay_ms", ms.to_string())),
        Some(Start::AtMs(ms)) => fields.push(("run_at", json!(rfc3339(ms)).to_string())),
    }
    match change.expiry {
        None => {}
        Some(Expiry::AfterMs(ms)) => fields.push(("expires_in_ms", ms.to_string())),
        Some(Expiry::AtMs(ms)) => fields.push(("expires_at", json!(rfc3339(ms)).to_string())),
    }
    fields
}

fn written_unique(key: &str, mode: &UniqueMode) -> String {
    let mut unique = json!({ "key": key });
    match mode.hold {
        Hold::UntilEnd => unique["until"] = json!("end"),
        Hold::UntilStart => unique["until"] = json!("start"),
        Hold::For(time) => unique["for_ms"] = json!(time.as_millis() as u64),
    }
    match &mode.on_conflict {
        OnConflict::Reject => {}
        OnConflict::Existing => unique["on_conflict"] = json!("existing"),
        OnConflict::Replace { max_wait, .. } => {
            unique["on_conflict"] = json!("replace");
            if let Some(time) = max_wait {
                unique["max_wait_ms"] = json!(time.as_millis() as u64);
            }
        }
    }
    unique.to_string()
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
    if let Ok(limit) = found.limit_name() {
        assert!(is_queue_name(limit.name()), "{limit}");
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
