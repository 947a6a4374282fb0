//! The fields of a job's hash in Redis, written for a new job and read as a [`Job`]. No other file of Rust knows the names
//! of the fields.
//!
//! Fields: type, queue, status, payload, max_attempts, timeout_ms; if they apply: attempts, crashes, starts, server,
//! scheduled_at, ready_at, started_at, finished_at, errors, result, unique_key, cancel, ties, tags, meta, expires_at,
//! retain_ms, snoozes, schedule, tick, cancel_reason, limits, blocked, checkpoint, progress (ms since 1970, value, message), worker,
//! lease_ms and lease_until (of an attempt of a pull worker), answered, log_last, log_second. The id is the time of submission. Only a job that became ready again
//! without a delay has ready_at. A cancelled job without cancel_reason was cancelled on request.
//!
//! A record leaves out what is as by default: queue, max_attempts and timeout_ms (if all three are), the result `null`, and
//! the attempts of a job that completed at its first attempt.
//!
//! Redis stores a hash compactly only while each value has at most 64 bytes. So a short payload or result is split into
//! chunks: `payload`, `payload:1`, `payload:2` and so on. So is a checkpoint.
//!
//! `ties` has a letter for each thing that hangs on the job, so that the scripts read one field to know them all; ties.lua
//! names the letters.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::keys;
use crate::job::limit::{Blocked, LimitName};
use crate::job::{
    AttemptError, CancelReason, DEFAULT_MAX_ATTEMPTS, DEFAULT_QUEUE, DEFAULT_TIMEOUT, ErrorKind, Extras,
    Hold, Job, JobId, NewJob, Progress, ScheduleTick, Status,
};
use crate::sorting;

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
    let extras = job.extras.as_deref().map(extra_fields).unwrap_or_default();
    text("payload", job.payload.get()).chain(others.into_iter().flatten()).chain(extras)
}

/// The fields of a new payload.
pub(super) fn payload(payload: &RawValue) -> impl Iterator<Item = Field<'_>> + Clone {
    text("payload", payload.get())
}

/// The fields of extras that no script has to compute.
fn extra_fields(extras: &Extras) -> Vec<Field<'static>> {
    let mut fields: Vec<Field> = Vec::new();
    let ties = ties(extras);
    if !ties.is_empty() {
        fields.push(("ties".into(), ties.into()));
    }
    if !extras.limits.is_empty() {
        let limits: Vec<&str> = extras.limits.iter().map(LimitName::as_str).collect();
        fields.push(("limits".into(), limits.join("\n").into()));
    }
    if !extras.tags.is_empty() {
        fields.push(("tags".into(), extras.tags.join("\n").into()));
    }
    if !extras.meta.is_empty() {
        let mut object = serde_json::Map::new();
        object.extend(extras.meta.iter().map(|(name, value)| (name.clone(), value.as_str().into())));
        let meta = serde_json::Value::from(object).to_string();
        fields.extend(text("meta", &meta).map(|(name, chunk)| (name, Cow::Owned(chunk.into_owned()))));
    }
    if let Some(retain) = extras.retain {
        fields.push(("retain_ms".into(), retain.as_millis().to_string().into()));
    }
    if let Some(ScheduleTick { name, tick_ms }) = &extras.schedule {
        fields.push(("schedule".into(), name.clone().into()));
        fields.push(("tick".into(), tick_ms.to_string().into()));
    }
    fields
}

/// The letters of what hangs on a new job, see ties.lua.
pub(super) fn ties(extras: &Extras) -> String {
    let letters = [
        ('L', !extras.limits.is_empty()),
        ('T', !extras.tags.is_empty()),
        ('X', extras.expiry.is_some()),
        ('R', extras.retain.is_some()),
        ('S', extras.unique.hold == Hold::UntilStart),
        ('W', matches!(extras.unique.hold, Hold::For(_))),
        ('C', extras.schedule.is_some()),
    ];
    letters.into_iter().filter_map(|(letter, is_there)| is_there.then_some(letter)).collect()
}

/// The fields of a result.
pub(super) fn result(result: &RawValue) -> impl Iterator<Item = Field<'_>> + Clone {
    text("result", if result.get() == "null" { "" } else { result.get() })
}

/// The fields of a checkpoint.
pub(super) fn checkpoint(checkpoint: &RawValue) -> impl Iterator<Item = Field<'_>> + Clone {
    text("checkpoint", checkpoint.get())
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
pub(super) fn to_job(id: JobId, fields: &[&[u8]]) -> Result<Job, Broken> {
    let (payload, result) = (json_of(b"payload", fields), json_of(b"result", fields));
    let (is_payload_broken, is_result_broken) = (payload.is_err(), result.is_err());
    let mut job = Job::empty(id);
    job.result = result.ok().flatten();
    if let Some(payload) = payload.ok().flatten() {
        job.payload = payload;
    }
    let mut broken = None;
    let (mut schedule, mut tick, mut has_meta, mut has_checkpoint) = (None, None, false, false);
    let (mut has_type, mut has_status, mut has_attempts) = (false, false, false);
    for (name, value) in pairs(fields) {
        if chunk(b"payload", name).or_else(|| chunk(b"result", name)).is_some() {
            continue;
        }
        if chunk(b"checkpoint", name).is_some() {
            has_checkpoint = true;
            continue;
        }
        if chunk(b"meta", name).is_some() {
            has_meta = true;
            continue;
        }
        let value = std::str::from_utf8(value).map_or_else(
            |_| {
                broken = Some(format!("field {} is not UTF-8", String::from_utf8_lossy(name)));
                String::from_utf8_lossy(value)
            },
            Cow::Borrowed,
        );
        let read = match name {
            b"type" => {
                has_type = true;
                job.job_type = value.into_owned();
                true
            }
            b"status" => match value.parse() {
                Ok(status) => {
                    has_status = true;
                    job.status = status;
                    true
                }
                Err(_) => false,
            },
            b"queue" => {
                job.queue = value.into_owned();
                true
            }
            b"server" => {
                job.server = Some(value.into_owned());
                true
            }
            b"unique_key" => {
                job.unique_key = Some(value.into_owned());
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
            b"expires_at" => number(&value).map(|ms| job.expires_at_ms = Some(ms)).is_some(),
            // What no attempt depends on: damaged, it is left out.
            b"tags" => {
                job.tags = value.lines().map(str::to_owned).collect();
                true
            }
            b"limits" => {
                job.limits = value.lines().filter_map(LimitName::parse).collect();
                true
            }
            b"blocked" => {
                job.blocked = blocked(&value);
                true
            }
            b"retain_ms" => {
                job.retain_ms = number(&value);
                true
            }
            b"snoozes" => {
                job.snoozes = number(&value).unwrap_or_default();
                true
            }
            b"schedule" => {
                schedule = Some(value.into_owned());
                true
            }
            b"tick" => {
                tick = number(&value);
                true
            }
            b"cancel_reason" => {
                job.cancel_reason = cancel_reason(&value);
                true
            }
            b"progress" => {
                job.progress = progress(&value);
                true
            }
            b"worker" => {
                job.worker = Some(value.into_owned()).filter(|name| !name.is_empty());
                true
            }
            b"lease_until" => {
                job.lease_until_ms = number(&value);
                true
            }
            _ => true,
        };
        if !read {
            broken = Some(format!("field {} cannot be read", String::from_utf8_lossy(name)));
        }
    }
    if has_meta {
        job.meta = meta(fields);
    }
    // An attempt with a damaged checkpoint begins as without one.
    if has_checkpoint {
        job.checkpoint = json_of(b"checkpoint", fields).ok().flatten();
    }
    if job.server.as_deref() != Some(keys::PULL) {
        job.worker = None;
    }
    if job.server.as_deref() != Some(keys::PULL) || job.status != Status::Processing {
        job.lease_until_ms = None;
    }
    job.schedule = schedule.zip(tick).map(|(name, tick_ms)| ScheduleTick { name, tick_ms });
    job.cancel_reason =
        (job.status == Status::Cancelled).then(|| job.cancel_reason.unwrap_or(CancelReason::Request));
    if job.status == Status::Completed && !has_attempts {
        job.attempts = 1;
    }
    let missing = [(has_type, "type"), (has_status, "status"), (!is_payload_broken, "payload")];
    job.unreadable.extend(missing.into_iter().filter(|(is_read, _)| !is_read).map(|(_, field)| field));
    for (is_broken, field) in [(is_payload_broken, "payload"), (is_result_broken, "result")] {
        if is_broken {
            broken = Some(format!("field {field} cannot be read"));
        }
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

fn pairs<'a>(fields: &[&'a [u8]]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    fields.chunks_exact(2).map(|pair| (pair[0], pair[1]))
}

/// The place of the chunk that this field holds of the text named `of`; `None` if the field is no chunk of this text.
fn chunk(of: &[u8], field: &[u8]) -> Option<usize> {
    match field.strip_prefix(of)? {
        [] => Some(0),
        [b':', digits @ ..] => std::str::from_utf8(digits).ok()?.parse().ok(),
        _ => None,
    }
}

/// The whole text named `of` as JSON; `None` if there is no chunk. The chunks may come in any order.
fn json_of(of: &[u8], fields: &[&[u8]]) -> Result<Option<Box<RawValue>>, ()> {
    let places = pairs(fields).filter_map(|(name, value)| Some((chunk(of, name)?, value)));
    let mut chunks: Vec<(usize, &[u8])> = places.collect();
    if chunks.is_empty() {
        return Ok(None);
    }
    sorting::sort_by(&mut chunks, |a, b| a.0.cmp(&b.0));
    let mut text = Vec::with_capacity(chunks.iter().map(|(_, chunk)| chunk.len()).sum());
    chunks.iter().for_each(|(_, chunk)| text.extend_from_slice(chunk));
    let text = String::from_utf8(text).map_err(drop)?;
    RawValue::from_string(text).map(Some).map_err(drop)
}

/// The names and values of the field `meta`; none if the field is damaged.
fn meta(fields: &[&[u8]]) -> Vec<(String, String)> {
    let text = json_of(b"meta", fields).ok().flatten();
    let values = text.and_then(|text| serde_json::from_str::<BTreeMap<String, String>>(text.get()).ok());
    values.unwrap_or_default().into_iter().collect()
}

/// Reads the time in ms since 1970, the value and the message.
fn progress(text: &str) -> Option<Progress> {
    let mut parts = text.splitn(3, ' ');
    let (at, value) = (parts.next()?, parts.next()?);
    let message = parts.next().unwrap_or_default().to_owned();
    Some(Progress { value: value.parse().ok()?, message, at_ms: number(at)? })
}

/// Reads `held` or `sent`, the time in ms since 1970 and the limit.
fn blocked(text: &str) -> Option<Blocked> {
    let (state, rest) = text.split_once(' ')?;
    let (since, limit) = rest.split_once(' ')?;
    Some(Blocked { limit: LimitName::parse(limit)?, since_ms: number(since)?, is_held: state == "held" })
}

fn cancel_reason(word: &str) -> Option<CancelReason> {
    match word {
        "expired" => Some(CancelReason::Expired),
        "replaced" => Some(CancelReason::Replaced),
        _ => None,
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
