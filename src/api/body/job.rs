//! A job in a body: the same fields for POST /jobs, a batch, the job of a schedule and, apart from a few, a change.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::value::RawValue;

use super::fields::{Fields, Invalid, json};
use super::unique::{Unique, unique};
use crate::handler::{Handlers, Policy};
use crate::job::limit::{LIMIT_ALLOWED, LimitName, MAX_LIMITS};
use crate::job::{Change, Expiry, Extras, NewJob, OnConflict, Start, UniqueMode, rules};
use crate::sorting;

/// Maximum number of jobs in one batch.
const MAX_BATCH: usize = 1_000;

/// The fields of a new job.
const JOB: [&str; 15] = [
    "type",
    "payload",
    "queue",
    "delay_ms",
    "run_at",
    "max_attempts",
    "timeout_ms",
    "unique_key",
    "unique",
    "expires_at",
    "expires_in_ms",
    "retain_ms",
    "meta",
    "tags",
    "limits",
];
/// The fields of the job of a schedule: the schedule decides when the job starts, and whether two jobs may overlap.
const SCHEDULED: [&str; 11] = [
    "type",
    "payload",
    "queue",
    "max_attempts",
    "timeout_ms",
    "expires_at",
    "expires_in_ms",
    "retain_ms",
    "meta",
    "tags",
    "limits",
];
/// The fields that a change of a job can have.
const CHANGE: [&str; 9] = [
    "payload",
    "queue",
    "delay_ms",
    "run_at",
    "max_attempts",
    "timeout_ms",
    "expires_at",
    "expires_in_ms",
    "tags",
];
/// The fields of [`Extras`].
const EXTRAS: [&str; 7] = ["unique", "expires_at", "expires_in_ms", "retain_ms", "meta", "tags", "limits"];

/// The body of POST /jobs.
pub fn job(body: &[u8], handlers: &Handlers) -> Result<NewJob, Invalid> {
    new_job(&Fields::of(json(body)?, String::new(), &JOB)?, handlers)
}

/// The body of POST /jobs/batch.
pub fn batch(body: &[u8], handlers: &Handlers) -> Result<Vec<NewJob>, Invalid> {
    let fields = Fields::of(json(body)?, String::new(), &["jobs"])?;
    let wanted = || Invalid::Field(format!("jobs must be an array of 1 to {MAX_BATCH} jobs"));
    let raw = fields.raw("jobs").ok_or_else(|| Invalid::field("jobs is missing"))?;
    let jobs: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| wanted())?;
    if !(1..=MAX_BATCH).contains(&jobs.len()) {
        return Err(wanted());
    }
    let jobs = jobs.into_iter().enumerate();
    let jobs = jobs.map(|(i, json)| job_of_batch(i, json, handlers)).collect::<Result<Vec<_>, _>>()?;
    let mut keys = HashSet::new();
    for (i, job) in jobs.iter().enumerate() {
        if let Some(key) = &job.unique_key
            && !keys.insert(key)
        {
            return Err(Invalid::Field(format!("jobs[{i}] has the unique key of another job in this batch")));
        }
    }
    Ok(jobs)
}

fn job_of_batch(index: usize, json: &RawValue, handlers: &Handlers) -> Result<NewJob, Invalid> {
    let job = new_job(&Fields::of(json, format!("jobs[{index}]."), &JOB)?, handlers)?;
    match job.extras.as_ref().map(|extras| &extras.unique.on_conflict) {
        None | Some(OnConflict::Reject) => Ok(job),
        Some(_) => {
            Err(Invalid::Field(format!("jobs[{index}].unique.on_conflict must be \"reject\" in a batch")))
        }
    }
}

/// The job of a schedule, at this place of a body.
pub fn scheduled(json: &RawValue, place: String, handlers: &Handlers) -> Result<NewJob, Invalid> {
    new_job(&Fields::of(json, place, &SCHEDULED)?, handlers)
}

/// The body of PATCH /jobs/ID.
pub fn change_of_job(body: &[u8]) -> Result<Change, Invalid> {
    change(json(body)?, String::new())
}

/// New values for a job, at this place of a body. At least one value is given.
pub fn change(json: &RawValue, place: String) -> Result<Change, Invalid> {
    let fields = Fields::of(json, place, &CHANGE)?;
    if fields.members.is_empty() {
        let what = fields.place.strip_suffix('.').unwrap_or("the body");
        return Err(Invalid::Field(format!("{what} must have at least one field of {}", CHANGE.join(", "))));
    }
    given_values(&fields)
}

fn new_job(fields: &Fields, handlers: &Handlers) -> Result<NewJob, Invalid> {
    let job_type = fields
        .own_name("type", &rules::JOB_TYPE)?
        .ok_or_else(|| Invalid::Field(format!("{}type is missing", fields.place)))?;
    let policy = handlers.policy(&job_type);
    let given = given_values(fields)?;
    let Unique { key, mode } = unique(fields, &given)?;
    let limits = limits(fields, handlers.limits(&job_type))?;
    let mut job = NewJob::new(job_type);
    job.extras = extras(fields, &given, mode, &policy, limits)?;
    job.unique_key = key;
    job.payload = given.payload.unwrap_or(job.payload);
    job.queue = given.queue.unwrap_or(job.queue);
    job.start = given.start.unwrap_or_default();
    job.max_attempts = given.max_attempts.unwrap_or(policy.max_attempts);
    job.timeout = given.timeout.unwrap_or(policy.timeout);
    Ok(job)
}

/// The values that a job can change later.
fn given_values(fields: &Fields) -> Result<Change, Invalid> {
    let (least, most) = rules::ATTEMPTS.into_inner();
    let attempts = fields.number("max_attempts", least.into()..=most.into())?;
    let timeout = fields.number("timeout_ms", rules::in_ms(&rules::TIMEOUT))?;
    Ok(Change {
        payload: fields.raw("payload").map(ToOwned::to_owned),
        queue: fields.own_name("queue", &rules::QUEUE_NAME)?,
        start: start(fields)?,
        max_attempts: attempts.map(|attempts| attempts as u32),
        timeout: timeout.map(Duration::from_millis),
        expiry: expiry(fields)?,
        tags: tags(fields)?,
    })
}

fn start(fields: &Fields) -> Result<Option<Start>, Invalid> {
    let delay = fields.number("delay_ms", rules::in_ms(&rules::DELAY))?;
    let run_at = fields.time("run_at")?;
    fields.not_both("delay_ms", "run_at")?;
    Ok(delay.map(Start::AfterMs).or(run_at.map(Start::AtMs)))
}

fn expiry(fields: &Fields) -> Result<Option<Expiry>, Invalid> {
    let time = fields.time("expires_at")?;
    let delay = fields.number("expires_in_ms", rules::in_ms(&rules::EXPIRY))?;
    fields.not_both("expires_at", "expires_in_ms")?;
    Ok(delay.map(Expiry::AfterMs).or(time.map(Expiry::AtMs)))
}

fn tags(fields: &Fields) -> Result<Option<Vec<String>>, Invalid> {
    let most = rules::MAX_TAGS;
    let wanted = format!("an array of up to {most} different strings, each of {}", rules::TAG.allowed);
    fields.get("tags", &wanted, |tags: &Vec<String>| {
        let is_new = |at: usize| !tags[..at].contains(&tags[at]);
        tags.len() <= most && (0..tags.len()).all(|at| rules::TAG.accepts(&tags[at]) && is_new(at))
    })
}

/// The limits that the job names, and those of its type.
fn limits(fields: &Fields, of_type: &[LimitName]) -> Result<Vec<LimitName>, Invalid> {
    let wanted = format!("an array of up to {MAX_LIMITS} different strings, each {LIMIT_ALLOWED}");
    let names = fields.get("limits", &wanted, |names: &Vec<String>| {
        let is_new = |at: usize| !names[..at].contains(&names[at]);
        names.len() <= MAX_LIMITS
            && (0..names.len()).all(|at| LimitName::parse(&names[at]).is_some() && is_new(at))
    })?;
    let place = &fields.place;
    let mut limits: Vec<LimitName> =
        names.iter().flatten().filter_map(|name| LimitName::parse(name)).collect();
    if let Some(reserved) = limits.iter().find(|limit| limit.is_reserved()) {
        let prefix = rules::RESERVED_PREFIX;
        return Err(Invalid::Field(format!(
            "{place}limits must not name {reserved}: names that begin with {prefix:?} are the server's own"
        )));
    }
    LimitName::add(&mut limits, of_type);
    if limits.len() > MAX_LIMITS {
        let of_type: Vec<&str> = of_type.iter().map(LimitName::as_str).collect();
        return Err(Invalid::Field(format!(
            "{place}limits must be at most {MAX_LIMITS} together with those of the type: {}",
            of_type.join(", ")
        )));
    }
    Ok(limits)
}

/// What the job has besides the fields of every job.
fn extras(
    fields: &Fields,
    given: &Change,
    unique: UniqueMode,
    policy: &Policy,
    limits: Vec<LimitName>,
) -> Result<Option<Box<Extras>>, Invalid> {
    if !fields.has_any(&EXTRAS) && policy.retain.is_none() && limits.is_empty() {
        return Ok(None);
    }
    let retain = fields.number("retain_ms", rules::in_ms(&rules::RETENTION))?;
    Ok(Some(Box::new(Extras {
        limits,
        tags: given.tags.clone().unwrap_or_default(),
        meta: meta(fields)?,
        expiry: given.expiry,
        retain: retain.map(Duration::from_millis).or(policy.retain),
        unique,
        schedule: None,
    })))
}

/// Names and values, sorted by name.
fn meta(fields: &Fields) -> Result<Vec<(String, String)>, Invalid> {
    let Some(raw) = fields.raw("meta") else { return Ok(Vec::new()) };
    let members = Fields::any(raw, format!("{}meta.", fields.place))?;
    let place = format!("{}meta", fields.place);
    let mut meta = Vec::new();
    let mut bytes = 0;
    for (name, _) in &members.members {
        if !rules::META_NAME.accepts(name) {
            let shown: String = name.chars().take(70).collect();
            let allowed = rules::META_NAME.allowed;
            return Err(Invalid::Field(format!("the name {shown:?} in {place} must be {allowed}")));
        }
        let value = members.text(name, &rules::META_VALUE)?.unwrap_or_default();
        bytes += name.len() + value.len();
        if bytes > rules::MAX_META_BYTES {
            let most = rules::MAX_META_BYTES;
            return Err(Invalid::Field(format!(
                "{place} must have at most {most} bytes, names and values together"
            )));
        }
        meta.push((name.clone(), value));
    }
    sorting::sort(&mut meta);
    match meta.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(Invalid::Field(format!("{place}.{} is given twice", pair[0].0))),
        None => Ok(meta),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Hold;

    fn read(body: &str) -> NewJob {
        job(body.as_bytes(), &Handlers::default()).unwrap()
    }

    fn error(result: Result<impl Sized, Invalid>) -> String {
        match result {
            Err(Invalid::Field(sentence) | Invalid::Json(sentence)) => sentence,
            Ok(_) => "no error".to_owned(),
        }
    }

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_job_has_the_limits_that_it_names_and_those_of_its_type() {
        let limits = |names: &[&str]| -> Vec<LimitName> {
            names.iter().map(|name| LimitName::parse(name).unwrap()).collect()
        };
        let mut handlers = Handlers::default();
        handlers.set_limits("mail", limits(&["smtp", "threadq.type:mail"]));
        let read = |fields: &str| {
            let job = job(format!(r#"{{"type": "mail"{fields}}}"#).as_bytes(), &handlers)?;
            Ok::<_, Invalid>(job.extras.unwrap().limits)
        };
        assert_eq!(read("").unwrap(), limits(&["threadq.type:mail", "smtp"]));
        let named = read(r#", "limits": ["smtp", "tenant:é 1"]"#).unwrap();
        assert_eq!(named, limits(&["tenant:é 1", "threadq.type:mail", "smtp"]));
        assert_eq!(
            error(read(r#", "limits": ["a", "b", "c"]"#)),
            "limits must be at most 4 together with those of the type: smtp, threadq.type:mail"
        );
        let scheduled = scheduled(raw(r#"{"type": "mail"}"#), "job.".to_owned(), &handlers).unwrap();
        assert_eq!(scheduled.extras.unwrap().limits.len(), 2);
        assert!(
            job(br#"{"type": "echo", "limits": []}"#, &handlers).unwrap().extras.unwrap().limits.is_empty()
        );
    }

    #[test]
    fn a_job_without_special_fields_has_no_extras() {
        let job = read(r#"{"type": "a", "payload": 1, "queue": "q", "delay_ms": 5, "unique_key": "k"}"#);
        assert!(job.extras.is_none());
        assert_eq!((job.start, job.unique_key.as_deref()), (Start::AfterMs(5), Some("k")));
    }

    #[test]
    fn every_extra_field_is_read() {
        let job = read(
            r#"{"type": "a", "expires_in_ms": 7, "retain_ms": 0, "tags": ["x", "é"],
                "meta": {"b": "2", "a": ""}, "unique": {"key": "k", "for_ms": 9, "on_conflict": "existing"}}"#,
        );
        let extras = job.extras.unwrap();
        assert_eq!(job.unique_key.as_deref(), Some("k"));
        assert_eq!((extras.expiry, extras.retain), (Some(Expiry::AfterMs(7)), Some(Duration::ZERO)));
        assert_eq!(extras.tags, ["x", "é"]);
        assert_eq!(extras.meta, [("a", ""), ("b", "2")].map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(extras.unique.hold, Hold::For(Duration::from_millis(9)));
        assert!(matches!(extras.unique.on_conflict, OnConflict::Existing));
        let at = read(r#"{"type": "a", "expires_at": "2025-11-24T16:00:00.123Z"}"#);
        assert_eq!(at.extras.unwrap().expiry, Some(Expiry::AtMs(1_764_000_000_123)));
    }

    #[test]
    fn a_replacement_has_exactly_the_given_fields_and_frees_the_key_at_the_start() {
        let replace = |fields: &str| {
            let unique = r#""unique": {"key": "k", "on_conflict": "replace", "max_wait_ms": 60000}"#;
            let extras = read(&format!(r#"{{"type": "a", {unique} {fields}}}"#)).extras.unwrap();
            assert_eq!(extras.unique.hold, Hold::UntilStart);
            let OnConflict::Replace { change, max_wait } = extras.unique.on_conflict else { panic!() };
            assert_eq!(max_wait, Some(Duration::from_secs(60)));
            change
        };
        assert_eq!(format!("{:?}", replace("")), format!("{:?}", Change::default()));
        let change = replace(r#", "payload": null, "delay_ms": 5, "tags": [], "max_attempts": 2"#);
        assert_eq!(change.payload.as_ref().unwrap().get(), "null");
        assert_eq!((change.start, change.max_attempts), (Some(Start::AfterMs(5)), Some(2)));
        assert_eq!((&change.tags, &change.queue), (&Some(Vec::new()), &None));
    }

    #[test]
    fn a_batch_refuses_its_newcomers_alone() {
        let batch = |unique: &str| {
            let body = format!(r#"{{"jobs": [{{"type": "a"}}, {{"type": "a", "unique": {unique}}}]}}"#);
            error(batch(body.as_bytes(), &Handlers::default()))
        };
        for on_conflict in ["existing", "replace"] {
            let unique = format!(r#"{{"key": "k", "on_conflict": "{on_conflict}"}}"#);
            assert_eq!(batch(&unique), "jobs[1].unique.on_conflict must be \"reject\" in a batch");
        }
        assert_eq!(batch(r#"{"key": "k", "on_conflict": "reject", "until": "start"}"#), "no error");
        assert_eq!(batch(r#"{"key": "k", "for_ms": 5}"#), "no error");
    }

    #[test]
    fn the_job_of_a_schedule_has_neither_a_start_nor_a_unique_key() {
        let scheduled = |json: &str| scheduled(raw(json), "job.".to_owned(), &Handlers::default());
        let all = r#"{"type": "a", "payload": 1, "queue": "q", "max_attempts": 2, "timeout_ms": 5,
                      "expires_in_ms": 7, "retain_ms": 0, "meta": {"a": "b"}, "tags": ["x"]}"#;
        assert_eq!(scheduled(all).unwrap().extras.unwrap().tags, ["x"]);
        for field in ["delay_ms", "run_at", "unique", "unique_key"] {
            let sentence = error(scheduled(&format!(r#"{{"type": "a", "{field}": 1}}"#)));
            assert!(sentence.starts_with(&format!("unknown field \"job.{field}\"; allowed: type, ")));
        }
        assert_eq!(error(scheduled("{}")), "job.type is missing");
        assert_eq!(error(scheduled("[]")), "job must be an object");
    }

    #[test]
    fn a_change_has_at_least_one_field_and_no_type() {
        let change = |json: &str| change(raw(json), "set.".to_owned());
        let tags = change(r#"{"tags": []}"#).unwrap().tags;
        assert_eq!(tags, Some(Vec::new()));
        assert!(error(change("{}")).starts_with("set must have at least one field of payload, queue, "));
        assert!(
            error(change(r#"{"type": "a"}"#)).starts_with("unknown field \"set.type\"; allowed: payload")
        );
        assert_eq!(
            error(change(r#"{"queue": null}"#)),
            "set.queue must be a string of 1 to 64 of A-Z a-z 0-9 _ . -"
        );
        assert_eq!(
            error(change(r#"{"run_at": "2026-11-24T08:00:00Z", "delay_ms": 1}"#)),
            "set.delay_ms and set.run_at must not be given together"
        );
    }

    #[test]
    fn an_error_names_the_field_and_what_is_allowed() {
        let long = "x".repeat(1025);
        let meta = format!(r#"{{"a": "{}", "b": "{}"}}"#, "x".repeat(512), "x".repeat(511));
        for (field, value, expected) in [
            (
                "type",
                r#""threadq.x""#,
                r#"type must not begin with "threadq.": the server keeps such names for itself"#,
            ),
            ("queue", r#""threadq.x""#, r#"queue must not begin with "threadq.": "#),
            ("unique_key", r#""threadq.x""#, r#"unique_key must not begin with "threadq.": "#),
            ("unique", r#"{"key": "threadq.x"}"#, r#"unique.key must not begin with "threadq.": "#),
            ("expires_at", "5", "expires_at must be a time as in RFC 3339, like "),
            ("expires_in_ms", "0", "expires_in_ms must be a whole number from 1 to 31536000000"),
            ("expires_in_ms", "31536000001", "expires_in_ms must be a whole number from 1 to 31536000000"),
            ("retain_ms", "-1", "retain_ms must be a whole number from 0 to 31536000000"),
            (
                "tags",
                r#""x""#,
                "tags must be an array of up to 5 different strings, each of 1 to 64 characters, ",
            ),
            ("tags", r#"["a", "b", "a"]"#, "tags must be an array of up to 5 different strings"),
            (
                "tags",
                r#"["1", "2", "3", "4", "5", "6"]"#,
                "tags must be an array of up to 5 different strings",
            ),
            ("tags", r#"["a\nb"]"#, "tags must be an array of up to 5 different strings"),
            ("tags", "null", "tags must be an array of up to 5 different strings"),
            (
                "limits",
                r#""a""#,
                "limits must be an array of up to 4 different strings, each NAME or NAME:KEY, ",
            ),
            ("limits", r#"["a", "b", "a"]"#, "limits must be an array of up to 4 different strings"),
            (
                "limits",
                r#"["1", "2", "3", "4", "5"]"#,
                "limits must be an array of up to 4 different strings",
            ),
            ("limits", r#"["a:"]"#, "limits must be an array of up to 4 different strings"),
            ("limits", r#"["a:\n"]"#, "limits must be an array of up to 4 different strings"),
            ("limits", "[1]", "limits must be an array of up to 4 different strings"),
            ("limits", "null", "limits must be an array of up to 4 different strings"),
            (
                "limits",
                r#"["threadq.type:x"]"#,
                r#"limits must not name threadq.type:x: names that begin with "threadq." are the server's own"#,
            ),
            ("meta", "[]", "meta must be an object"),
            ("meta", r#"{"a.b": "c"}"#, r#"the name "a.b" in meta must be 1 to 64 of A-Z a-z 0-9 _ -"#),
            (
                "meta",
                r#"{"a": 1}"#,
                "meta.a must be a string of up to 1024 characters, none of them a control character",
            ),
            ("meta", r#"{"a": "\u0000"}"#, "meta.a must be a string of "),
            ("meta", &format!(r#"{{"a": "{long}"}}"#), "meta.a must be a string of up to 1024 characters"),
            ("meta", &meta, "meta must have at most 1024 bytes, names and values together"),
            ("meta", r#"{"a": "1", "b": "2", "a": "3"}"#, "meta.a is given twice"),
            ("unique", r#""k""#, "unique must be an object"),
            ("unique", r#"{"until": "start"}"#, "unique.key is missing"),
            ("unique", r#"{"key": ""}"#, "unique.key must be a string of 1 to 200 characters"),
            (
                "unique",
                r#"{"key": "k", "how": 1}"#,
                r#"unknown field "unique.how"; allowed: key, until, for_ms, on_conflict, max_wait_ms"#,
            ),
            ("unique", r#"{"key": "k", "until": "never"}"#, r#"unique.until must be "end" or "start""#),
            (
                "unique",
                r#"{"key": "k", "for_ms": 0}"#,
                "unique.for_ms must be a whole number from 1 to 31536000000",
            ),
            (
                "unique",
                r#"{"key": "k", "until": "end", "for_ms": 1}"#,
                "unique.until and unique.for_ms must not be given together",
            ),
            (
                "unique",
                r#"{"key": "k", "on_conflict": 1}"#,
                r#"unique.on_conflict must be "reject" or "existing" or "replace""#,
            ),
            (
                "unique",
                r#"{"key": "k", "on_conflict": "replace", "until": "end"}"#,
                r#"unique.on_conflict "replace" needs unique.until "start""#,
            ),
            (
                "unique",
                r#"{"key": "k", "on_conflict": "replace", "for_ms": 1}"#,
                r#"unique.on_conflict "replace" needs unique.until "start""#,
            ),
            (
                "unique",
                r#"{"key": "k", "max_wait_ms": 1}"#,
                r#"unique.max_wait_ms needs unique.on_conflict "replace""#,
            ),
            (
                "unique",
                r#"{"key": "k", "on_conflict": "replace", "max_wait_ms": 0}"#,
                "unique.max_wait_ms must be a whole number from 1 to ",
            ),
            (
                "unique",
                r#"{"key": "k"}, "unique_key": "k""#,
                "unique_key and unique must not be given together",
            ),
            (
                "expires_in_ms",
                r#"1, "expires_at": "2026-11-24T08:00:00Z""#,
                "expires_at and expires_in_ms must not be given together",
            ),
        ] {
            let given_type = if field == "type" { "" } else { r#""type": "a", "# };
            let body = format!(r#"{{{given_type}"{field}": {value}}}"#);
            let sentence = error(job(body.as_bytes(), &Handlers::default()));
            assert!(sentence.starts_with(expected), "{body}: {sentence}");
        }
    }
}
