//! The fields of a job's hash in Redis, written for a new job and read as a [`Job`]. No other file of Rust knows the names
//! of the fields.
//!
//! Fields: type, queue, status, payload, max_attempts, timeout_ms; if they apply: attempts, crashes, starts, server,
//! scheduled_at, ready_at, started_at, finished_at, errors, result, unique_key, cancel. The id is the time of
//! submission. Only a job that became ready again without a delay has ready_at.
//!
//! A record leaves out what is as by default: queue, max_attempts and timeout_ms (if all three are), the result `null`, and
//! the attempts of a job that completed at its first attempt.
//!
//! Redis stores a hash compactly only while each value has at most 64 bytes. So a short payload or result is split into
//! chunks: `payload`, `payload:1`, `payload:2` and so on.

use std::borrow::Cow;

use redis::Value;
use serde_json::value::RawValue;

use crate::job::{
    AttemptError, DEFAULT_MAX_ATTEMPTS, DEFAULT_QUEUE, DEFAULT_TIMEOUT, ErrorKind, Job, JobId, NewJob, Status,
};

/// The most bytes of a chunk, and of a text that is split into chunks.
const CHUNK: usize = 64;
const MAX_CHUNKED: usize = 1024;

/// The name and the value of a field.
pub(super) type Field<'a> = (Cow<'static, str>, Cow<'a, str>);

/// The fields of a new job, besides those that `enqueue.lua` needs.
pub(super) fn new_job(job: &NewJob) -> impl Iterator<Item = Field<'_>> + Clone {
    let is_default = job.queue == DEFAULT_QUEUE
        && job.max_attempts == DEFAULT_MAX_ATTEMPTS
        && job.timeout == DEFAULT_TIMEOUT;
    let others = (!is_default).then(|| {
        [
            ("queue".into(), job.queue.as_str().into()),
            ("max_attempts".into(), job.max_attempts.to_string().into()),
            ("timeout_ms".into(), job.timeout.as_millis().to_string().into()),
        ]
    });
    text("payload", job.payload.get()).chain(others.into_iter().flatten())
}

/// The fields of a result.
pub(super) fn result(result: &RawValue) -> impl Iterator<Item = Field<'_>> + Clone {
    text("result", if result.get() == "null" { "" } else { result.get() })
}

/// The fields of a text; none if the text is empty.
fn text<'t>(name: &'static str, text: &'t str) -> impl Iterator<Item = Field<'t>> + Clone {
    let size = if text.len() <= MAX_CHUNKED { CHUNK } else { text.len() };
    let (mut rest, mut number) = (text, 0);
    std::iter::from_fn(move || {
        let (chunk, others) = rest.split_at(rest.floor_char_boundary(size));
        rest = others;
        number += 1;
        let field = if number == 1 { name.into() } else { format!("{name}:{}", number - 1).into() };
        (!chunk.is_empty()).then(|| (field, chunk.into()))
    })
}

/// A record with a field that is missing or cannot be read. The job is shown, but never run.
#[derive(Debug)]
pub(super) struct Broken {
    /// The fields that could be read. `starts` is always set, because the caller needs the fencing token to fail the job.
    pub(super) job: Box<Job>,
    pub(super) reason: String,
}

/// Reads `field, value, ..` as a job.
///
/// # Errors
/// The fields that could be read, and the reason why the job cannot be run.
pub(super) fn to_job(id: JobId, fields: Vec<Value>) -> Result<Job, Broken> {
    let mut job = Job {
        id,
        job_type: String::new(),
        queue: DEFAULT_QUEUE.to_owned(),
        status: Status::Queued,
        payload: crate::job::empty_payload(),
        attempts: 0,
        max_attempts: DEFAULT_MAX_ATTEMPTS,
        crashes: 0,
        timeout_ms: DEFAULT_TIMEOUT.as_millis() as u64,
        scheduled_at_ms: None,
        ready_again_at_ms: None,
        started_at_ms: None,
        finished_at_ms: None,
        errors: Vec::new(),
        result: None,
        unique_key: None,
        server: None,
        starts: 0,
        unreadable: vec!["type", "status"],
        omitted: Vec::new(),
    };
    let mut broken = None;
    let mut has_attempts = false;
    let (mut payload, mut result) = (Chunks::default(), Chunks::default());
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        let (Value::BulkString(name), Value::BulkString(value)) = (name, value) else { continue };
        let value = match payload
            .add(b"payload", &name, value)
            .or_else(|value| result.add(b"result", &name, value))
        {
            Ok(()) => continue,
            Err(value) => value,
        };
        let value = String::from_utf8(value).unwrap_or_else(|error| {
            broken = Some(format!("field {} is not UTF-8", String::from_utf8_lossy(&name)));
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        });
        let read = match name.as_slice() {
            b"type" => {
                job.unreadable.retain(|field| *field != "type");
                job.job_type = value;
                true
            }
            b"status" => match value.parse() {
                Ok(status) => {
                    job.unreadable.retain(|field| *field != "status");
                    job.status = status;
                    true
                }
                Err(_) => false,
            },
            b"queue" => {
                job.queue = value;
                true
            }
            b"server" => {
                job.server = Some(value);
                true
            }
            b"unique_key" => {
                job.unique_key = Some(value);
                true
            }
            b"errors" => {
                job.errors = value.lines().filter_map(to_error).collect();
                true
            }
            b"attempts" => {
                has_attempts = true;
                read_into(&mut job.attempts, &value, "attempts", &mut job.unreadable)
            }
            b"max_attempts" => read_into(&mut job.max_attempts, &value, "max_attempts", &mut job.unreadable),
            b"crashes" => read_into(&mut job.crashes, &value, "crashes", &mut job.unreadable),
            b"timeout_ms" => read_into(&mut job.timeout_ms, &value, "timeout_ms", &mut job.unreadable),
            b"starts" => token(&value).map(|number| job.starts = number).is_some(),
            b"scheduled_at" => number(&value).map(|ms| job.scheduled_at_ms = Some(ms)).is_some(),
            b"ready_at" => number(&value).map(|ms| job.ready_again_at_ms = Some(ms)).is_some(),
            b"started_at" => number(&value).map(|ms| job.started_at_ms = Some(ms)).is_some(),
            b"finished_at" => number(&value).map(|ms| job.finished_at_ms = Some(ms)).is_some(),
            _ => true,
        };
        if !read {
            broken = Some(format!("field {} cannot be read", String::from_utf8_lossy(&name)));
        }
    }
    if job.status == Status::Completed && !has_attempts {
        job.attempts = 1;
    }
    match payload.into_json() {
        Ok(text) => job.payload = text.unwrap_or(job.payload),
        Err(()) => {
            job.unreadable.push("payload");
            broken = Some("field payload cannot be read".to_owned());
        }
    }
    match result.into_json() {
        Ok(text) => job.result = text,
        Err(()) => broken = Some("field result cannot be read".to_owned()),
    }
    let is_missing = broken.is_none() && !job.unreadable.is_empty();
    match broken.or_else(|| is_missing.then(|| "a field is missing".to_owned())) {
        None => Ok(job),
        Some(reason) => Err(Broken { job: Box::new(job), reason }),
    }
}

/// Reads a number, or adds the field to `unreadable`.
fn read_into<T: TryFrom<u64>>(
    to: &mut T,
    text: &str,
    field: &'static str,
    unreadable: &mut Vec<&'static str>,
) -> bool {
    match number(text) {
        Some(number) => {
            *to = number;
            true
        }
        None => {
            unreadable.push(field);
            false
        }
    }
}

/// A whole number. Scripts of version 0.4 on Redis 7.2.0 to 7.2.4 have written some numbers as `1.8e+12`.
fn number<T: TryFrom<u64>>(text: &str) -> Option<T> {
    let short = || {
        let number: f64 = text.contains("e+").then(|| text.parse().ok())??;
        (number.fract() == 0.0 && (0.0..=JobId::MAX as f64).contains(&number)).then_some(number as u64)
    };
    text.parse().ok().or_else(short).and_then(|number| T::try_from(number).ok())
}

/// A text that is split into fields, which may come in any order.
#[derive(Default)]
struct Chunks(Vec<(usize, Vec<u8>)>);

impl Chunks {
    /// Keeps the value if the field is a chunk of the text named `of`; otherwise returns the value.
    fn add(&mut self, of: &[u8], field: &[u8], value: Vec<u8>) -> Result<(), Vec<u8>> {
        let place = match field.strip_prefix(of) {
            Some([]) => Some(0),
            Some([b':', digits @ ..]) => {
                std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok())
            }
            _ => None,
        };
        match place {
            Some(place) => self.0.push((place, value)),
            None => return Err(value),
        }
        Ok(())
    }

    /// The whole text as JSON; `None` if there is no chunk.
    fn into_json(mut self) -> Result<Option<Box<RawValue>>, ()> {
        self.0.sort_unstable_by_key(|(place, _)| *place);
        let Some(text) = self.0.into_iter().map(|(_, chunk)| chunk).reduce(|mut text, chunk| {
            text.extend(chunk);
            text
        }) else {
            return Ok(None);
        };
        let text = String::from_utf8(text).map_err(drop)?;
        RawValue::from_string(text).map(Some).map_err(drop)
    }
}

/// A fencing token: a number up to 2^53 - 1 in plain digits. start_jobs.lua has the same rule.
fn token(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|number| is_plain && *number < 1 << 53)
}

/// Reads one line of the field `errors`: attempt, ms since 1970, number of the start (followed by `c` for a crash),
/// message as a JSON string. Version 0.4 wrote no start.
fn to_error(line: &str) -> Option<AttemptError> {
    let mut parts = line.splitn(3, ' ');
    // Counted on from a damaged number, it may be too large: the message must be shown all the same.
    let attempt = u32::try_from(parts.next()?.parse::<u64>().ok()?).unwrap_or(u32::MAX);
    let at_ms = parts.next()?.parse().ok()?;
    let rest = parts.next()?;
    let (start, message) = if rest.starts_with('"') { ("", rest) } else { rest.split_once(' ')? };
    let (number, kind) = match start.strip_suffix('c') {
        Some(number) => (number, ErrorKind::Crash),
        None => (start, ErrorKind::Error),
    };
    let message = serde_json::from_str(message).ok()?;
    Some(AttemptError { attempt, start: number.parse().ok(), kind, at_ms, message })
}

/// An error message as the field `errors` has it: a JSON string, cut to the length that is kept.
pub(super) fn error_text(message: &str) -> String {
    let kept = match message.char_indices().nth(crate::job::MAX_ERROR_CHARS) {
        Some((end, _)) => &message[..end],
        None => message,
    };
    serde_json::Value::from(kept).to_string()
}
