//! A job's hash in Redis as a [`Job`]: the only place in Rust that knows the fields' names.
//!
//! Fields: type, queue, status, payload, max_attempts, timeout_ms; and where they apply: attempts, crashes, starts,
//! server, scheduled_at, ready_at, started_at, finished_at, errors, result, unique_key, cancel. The time of submission is
//! the id; ready_at is there only for a job that became ready again without a delay.
//!
//! Short payloads and results are spread over pieces, `payload`, `payload:1`, `payload:2` and so on (see `common.lua`).

use redis::Value;
use serde_json::value::RawValue;

use crate::job::{
    AttemptError, DEFAULT_MAX_ATTEMPTS, DEFAULT_QUEUE, DEFAULT_TIMEOUT, ErrorKind, Job, JobId, Status,
};

use super::error::Error;

/// A record with a field that is missing or cannot be read: such a job is shown, and never run.
#[derive(Debug)]
pub(super) struct Broken {
    /// What can be read of it. Its `starts` are the fencing token, so that the entry can be settled all the same.
    pub(super) job: Box<Job>,
    pub(super) reason: String,
}

/// Reads `field, value, ..` as a job.
///
/// # Errors
/// What can be read of the job, and the reason why it cannot be run.
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
    let (mut payload, mut result) = (Pieces::default(), Pieces::default());
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
            broken = Some(format!("field {} is no UTF-8", String::from_utf8_lossy(&name)));
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
            b"attempts" => read_into(&mut job.attempts, &value, "attempts", &mut job.unreadable),
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

/// Reads a number, or notes that its field cannot be read.
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

/// A whole number. A script of version 0.4 may have written it as `1.8e+12`: Redis 7.2.0 to 7.2.4 do so.
fn number<T: TryFrom<u64>>(text: &str) -> Option<T> {
    let short = || {
        let number: f64 = text.contains("e+").then(|| text.parse().ok())??;
        (number.fract() == 0.0 && (0.0..=JobId::MAX as f64).contains(&number)).then_some(number as u64)
    };
    text.parse().ok().or_else(short).and_then(|number| T::try_from(number).ok())
}

/// A text that is spread over fields, in whatever order they come.
#[derive(Default)]
struct Pieces(Vec<(usize, Vec<u8>)>);

impl Pieces {
    /// Takes the value if the field is a piece of the text called `of`; gives it back if not.
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

    /// The whole text as JSON, if there is any.
    fn into_json(mut self) -> Result<Option<Box<RawValue>>, ()> {
        self.0.sort_unstable_by_key(|(place, _)| *place);
        let Some(text) = self.0.into_iter().map(|(_, piece)| piece).reduce(|mut text, piece| {
            text.extend(piece);
            text
        }) else {
            return Ok(None);
        };
        let text = String::from_utf8(text).map_err(drop)?;
        RawValue::from_string(text).map(Some).map_err(drop)
    }
}

/// A fencing token as `lua/start_jobs.lua` reads it too: up to 2^53 - 1 in plain digits. To both anything else is none.
fn token(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|number| is_plain && *number < 1 << 53)
}

/// One line of the field `errors`: attempt, ms, start (with a `c` behind it for a crash), message as a JSON string. Version
/// 0.4 has written no start.
fn to_error(line: &str) -> Option<AttemptError> {
    let mut parts = line.splitn(3, ' ');
    // Counted on from a damaged number it may be larger than any: the message must be seen all the same.
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

/// An error message as it stands in the field `errors`, cut to what is kept.
pub(super) fn error_text(message: &str) -> String {
    let kept = match message.char_indices().nth(crate::job::MAX_ERROR_CHARS) {
        Some((end, _)) => &message[..end],
        None => message,
    };
    serde_json::Value::from(kept).to_string()
}

/// The elements of an array; an answer of another shape is an error.
pub(super) fn array(value: Value) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(unexpected(&other)),
    }
}

/// The texts of an array in MessagePack, as Lua packs it.
pub(super) fn packed(value: Value) -> Result<Vec<Value>, Error> {
    let Value::BulkString(bytes) = &value else { return Err(unexpected(&value)) };
    unpack(bytes).ok_or_else(|| unexpected(&value))
}

fn unpack(mut rest: &[u8]) -> Option<Vec<Value>> {
    let rest = &mut rest;
    let size = match next(rest, 1)? {
        [head @ 0x90..=0x9f] => usize::from(head & 0xf),
        [0xdc] => length(rest, 2)?,
        [0xdd] => length(rest, 4)?,
        _ => return None,
    };
    let mut texts = Vec::with_capacity(size.min(64));
    for _ in 0..size {
        let size = match next(rest, 1)? {
            [head @ 0xa0..=0xbf] => usize::from(head & 0x1f),
            [0xd9] => length(rest, 1)?,
            [0xda] => length(rest, 2)?,
            [0xdb] => length(rest, 4)?,
            _ => return None,
        };
        texts.push(Value::BulkString(next(rest, size)?.to_vec()));
    }
    rest.is_empty().then_some(texts)
}

fn next<'a>(rest: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let (part, left) = rest.split_at_checked(size)?;
    *rest = left;
    Some(part)
}

fn length(rest: &mut &[u8], size: usize) -> Option<usize> {
    Some(next(rest, size)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
}

/// A whole number.
pub(super) fn int(value: &Value) -> Result<i64, Error> {
    match value {
        Value::Int(number) => Ok(*number),
        Value::BulkString(digits) => std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| unexpected(value)),
        other => Err(unexpected(other)),
    }
}

/// How many there are of something.
pub(super) fn count<T: TryFrom<i64>>(value: &Value) -> Result<T, Error> {
    T::try_from(int(value)?).map_err(|_| unexpected(value))
}

/// A text; nil is the empty one.
pub(super) fn text(value: &Value) -> Result<String, Error> {
    match value {
        Value::BulkString(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Ok(text.clone()),
        Value::Nil => Ok(String::new()),
        other => Err(unexpected(other)),
    }
}

/// An entry of a list, whatever it is.
pub(super) fn bytes(value: Value) -> Result<Vec<u8>, Error> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        other => Err(unexpected(&other)),
    }
}

/// A job's id.
pub(super) fn id(value: &Value) -> Result<JobId, Error> {
    text(value)?.parse().map_err(|_| unexpected(value))
}

pub(super) fn unexpected(value: &Value) -> Error {
    let mut shown = format!("{value:?}");
    shown.truncate(shown.floor_char_boundary(200));
    Error::Protocol(shown)
}
