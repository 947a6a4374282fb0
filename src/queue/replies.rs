//! Reads the replies of the scripts into the types that the queue returns.
//!
//! A reply of another shape is an error, never a panic: the data in Redis may have been modified outside threadq.

use std::time::Duration;

use redis::Value;
use serde_json::value::RawValue;

use crate::job::{AttemptId, Job, JobId, LargeField, Status};
use crate::logging::job_fields::{JobFields, log_job};
use crate::sorting;

use super::error::{Error, Refused};
use super::keys;
use super::record::to_job;
use super::reply_value::{
    as_array, as_count, as_int, as_job_id, as_joined_texts, as_text, as_texts, first, text_pairs, unexpected,
};
use super::types::{
    Broken, ChangeResult, Changed, Conflict, CrashedJob, DueStep, Expired, HeartbeatReply, JobState, Lease,
    LimitRoom, Minute, Page, Place, QueueInfo, Reclaimed, ServerInfo, Settled, SettledStep, Situation,
    StartedJobs, Stats, Submitted, Walk,
};

/// The results of submissions; `sizes` are the numbers of their jobs.
pub(super) fn submitted(
    reply: Value,
    sizes: impl ExactSizeIterator<Item = usize>,
) -> Result<Vec<Result<Submitted, Refused>>, Error> {
    let replies = as_array(reply)?;
    if replies.len() != sizes.len() {
        return Err(unexpected(&Value::Array(replies)));
    }
    replies.into_iter().zip(sizes).map(|(reply, jobs)| one_submitted(reply, jobs)).collect()
}

/// Whether a submission in the reply of `enqueue` is stored, now or before.
pub(super) fn has_acknowledgement(reply: &Value) -> bool {
    let is_stored = |reply: &Value| match reply {
        Value::Array(parts) => {
            matches!(parts.first().map(as_text), Some(Ok(word)) if word == "stored" || word == "replayed")
        }
        _ => false,
    };
    matches!(reply, Value::Array(replies) if replies.iter().any(is_stored))
}

/// The results of submissions whose jobs have the ids from `first` on, in this order.
pub(super) fn submitted_plain(
    first: JobId,
    sizes: impl Iterator<Item = usize>,
) -> Result<Vec<Result<Submitted, Refused>>, Error> {
    let mut next = first.get();
    let one = |jobs: usize| {
        let first = JobId::new(next).ok_or_else(|| Error::Protocol(format!("the id {next}")))?;
        next += jobs as u64;
        let count = jobs as u64;
        let status = Some(Status::Queued);
        Ok(Ok(Submitted { first, count, status, due_in: None, replayed: false, conflict: None }))
    };
    sizes.map(one).collect()
}

fn one_submitted(reply: Value, jobs: usize) -> Result<Result<Submitted, Refused>, Error> {
    let reply = as_array(reply)?;
    let submitted = |first: &Value, count: u64, status: &Value, due_in, conflict| {
        let status = match as_text(status)?.as_str() {
            // Version 0.8 and older ones stored 1 for a scheduled job, with the Idempotency-Key.
            "0" => Some(Status::Queued),
            "1" => Some(Status::Scheduled),
            word => word.parse().ok(),
        };
        Ok(Submitted { first: as_job_id(first)?, count, status, due_in, replayed: false, conflict })
    };
    match (as_text(first(&reply)?)?.as_str(), &reply[1..]) {
        ("stored", [first, due, status]) => {
            submitted(first, jobs as u64, status, time_left(due)?, None).map(Ok)
        }
        ("existing", [id, status]) => submitted(id, 1, status, None, Some(Conflict::Existing)).map(Ok),
        ("replaced", [id, status, due]) => {
            submitted(id, 1, status, time_left(due)?, Some(Conflict::Replaced)).map(Ok)
        }
        ("replayed", [first, number, status, conflict]) => {
            let conflict = match as_text(conflict)?.as_str() {
                "existing" => Some(Conflict::Existing),
                "replaced" => Some(Conflict::Replaced),
                _ => None,
            };
            let submitted = submitted(first, as_count(number)?, status, None, conflict)?;
            Ok(Ok(Submitted { replayed: true, ..submitted }))
        }
        ("mismatch", []) => Ok(Err(Refused::Mismatch)),
        ("duplicate", [holder]) => Ok(Err(Refused::Duplicate(as_job_id(holder)?))),
        ("full", [queue]) => Ok(Err(Refused::QueueFull(as_text(queue)?))),
        ("expired", [place]) => Ok(Err(Refused::Expired(as_count(place)?))),
        ("unknown_limit", [limit]) => Ok(Err(Refused::UnknownLimit(as_text(limit)?))),
        _ => Err(unexpected(&Value::Array(reply))),
    }
}

/// The jobs that `start_jobs` has started on this server, and the ids of jobs whose texts the reply does not tell apart:
/// a text has a zero byte.
pub(super) fn started_jobs(reply: Value, server: &str) -> Result<(StartedJobs, Vec<JobId>), Error> {
    let mut reply = as_array(reply)?.into_iter();
    let mut next =
        || reply.next().ok_or_else(|| Error::Protocol("a reply of start_jobs that ends early".to_owned()));
    if as_text(&next()?)? == "fenced" {
        return Err(Error::Fenced);
    }
    let mut taken = StartedJobs {
        now_ms: as_count(&next()?)?,
        must_drain: as_int(&next()?)? == 1,
        paused: as_texts(next()?)?,
        has_more: as_int(&next()?)? == 1,
        expired: expired(next()?)?,
        next_look: time_left(&next()?)?,
        ..StartedJobs::default()
    };
    let mut unsplit = Vec::new();
    for record in reply {
        let (mut texts, is_split) = as_joined_texts(&record)?;
        let id = texts.pop().and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
        let id = id.ok_or_else(|| unexpected(&record))?;
        if !is_split {
            unsplit.push(id);
            continue;
        }
        let (mut job, reason) = with_reason(id, &texts);
        job.status = Status::Processing;
        job.starts += 1;
        job.started_at_ms = Some(taken.now_ms);
        job.server = Some(server.to_owned());
        add(&mut taken, job, reason);
    }
    Ok((taken, unsplit))
}

/// As [`started_jobs`], for a pull worker; `None` if pull workers have as many jobs as they may have.
pub(super) fn pulled_jobs(reply: Value) -> Result<Option<(StartedJobs, Vec<JobId>)>, Error> {
    match &reply {
        Value::Array(parts) if matches!(parts.first().map(as_text), Some(Ok(word)) if word == "full") => {
            Ok(None)
        }
        _ => started_jobs(reply, keys::PULL).map(Some),
    }
}

/// Adds a started job whose record was read after the start. A job that was deleted meanwhile is left out.
pub(super) fn add_started(taken: &mut StartedJobs, id: JobId, fields: Vec<Value>) {
    if !fields.is_empty() {
        let (job, reason) = with_reason(id, &text_pairs(&fields));
        add(taken, job, reason);
    }
}

/// The job, and the reason why it cannot be run.
fn with_reason(id: JobId, fields: &[&[u8]]) -> (Job, Option<String>) {
    match to_job(id, fields) {
        Ok(job) => (job, None),
        Err(broken) => (*broken.job, Some(broken.reason)),
    }
}

fn add(taken: &mut StartedJobs, mut job: Job, reason: Option<String>) {
    let lease = Lease { id: job.id, token: job.starts };
    match reason {
        None => taken.jobs.push((lease, job)),
        Some(reason) => {
            if job.unreadable.contains(&"type") {
                "unknown".clone_into(&mut job.job_type);
            }
            let reason = format!("the job's record is broken: {reason}");
            taken.broken.push(Broken { lease, job, reason });
        }
    }
}

/// The results of settlements.
pub(super) fn settled(reply: Value) -> Result<SettledStep, Error> {
    let read = |reply: Value| match as_text(&reply)?.as_str() {
        "stale" => Ok(Settled::Stale),
        "repeated" => Ok(Settled::Repeated),
        "expired failed" => Ok(Settled::Expired(Status::Failed)),
        "expired cancelled" => Ok(Settled::Expired(Status::Cancelled)),
        word => word.parse().map(Settled::Now).map_err(|_| Error::Protocol(word.to_owned())),
    };
    let reply = as_array(reply)?;
    let next_look = time_left(first(&reply)?)?;
    let results = reply.into_iter().skip(1).map(read).collect::<Result<_, Error>>()?;
    Ok(SettledStep { results, next_look })
}

/// The result of a step of `due`.
pub(super) fn due_step(reply: Value) -> Result<DueStep, Error> {
    let [moved, next, ended, ticks, now, lost, timed_out] =
        <[Value; 7]>::try_from(as_array(reply)?).map_err(|reply| unexpected(&Value::Array(reply)))?;
    Ok(DueStep {
        moved: as_count(&moved)?,
        next: time_left(&next)?,
        expired: expired(ended)?,
        ticks: as_texts(ticks)?,
        now_ms: as_count(&now)?,
        // As in `reclaimed`.
        lost: as_array(lost)?.into_iter().filter_map(|job| crashed_job(job).ok()).collect(),
        timed_out: attempts(&as_texts(timed_out)?),
    })
}

/// The attempts of `id, token, ..`. A damaged entry is left out.
fn attempts(words: &[String]) -> Vec<AttemptId> {
    let read = |pair: &[String]| Some(AttemptId { job: pair[0].parse().ok()?, start: pair[1].parse().ok()? });
    words.chunks_exact(2).filter_map(read).collect()
}

/// The type and status of each job that has expired.
fn expired(reply: Value) -> Result<Vec<Expired>, Error> {
    let words = as_texts(reply)?;
    let read = |pair: &[String]| {
        let status = pair[1].parse().map_err(|_| Error::Protocol(pair[1].clone()))?;
        Ok((pair[0].clone(), status))
    };
    words.chunks_exact(2).map(read).collect()
}

/// The reply to a heartbeat.
pub(super) fn heartbeat(reply: Value) -> Result<HeartbeatReply, Error> {
    let Ok([_, in_progress, cancels, servers, watched, suspects, due]) =
        <[Value; 7]>::try_from(as_array(reply)?)
    else {
        return Err(Error::Fenced);
    };
    let words = as_texts(servers)?;
    let servers = words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    Ok(HeartbeatReply {
        in_progress: as_count(&in_progress)?,
        cancels: ids(cancels)?,
        servers,
        is_watched: as_int(&watched)? == 1,
        quarantine_waits: as_int(&suspects)? > 0,
        due_in: time_left(&due)?,
    })
}

/// One step of taking over a server's jobs.
pub(super) struct Step {
    pub done: Reclaimed,
    /// The number of jobs that are left for further steps.
    pub left: u64,
    /// The server's heartbeat counter now. The caller passes this counter to the next step.
    pub beat: String,
}

/// One step of taking over a server's jobs; `None` if the server is alive.
pub(super) fn reclaimed(reply: Value) -> Result<Option<Step>, Error> {
    let Ok([_, moved, left, crashed, beat]) = <[Value; 5]>::try_from(as_array(reply)?) else {
        return Ok(None);
    };
    // An entry that threadq has not written must not hide what happened to the others.
    let crashed = as_array(crashed)?.into_iter().filter_map(|job| crashed_job(job).ok()).collect();
    let done = Reclaimed { moved: as_count(&moved)?, crashed };
    Ok(Some(Step { done, left: as_count(&left)?, beat: as_text(&beat)? }))
}

/// Numbers of a damaged record become 0, since its job was taken over too.
fn crashed_job(reply: Value) -> Result<CrashedJob, Error> {
    let [id, job_type, attempt, crashes, has_failed] =
        <[Value; 5]>::try_from(as_array(reply)?).map_err(|reply| unexpected(&Value::Array(reply)))?;
    Ok(CrashedJob {
        id: as_job_id(&id)?,
        job_type: as_text(&job_type)?,
        attempt: as_count(&attempt).unwrap_or(0),
        crashes: as_count(&crashes).unwrap_or(0),
        has_failed: as_int(&has_failed)? == 1,
    })
}

/// The result of a change, job by job.
pub(super) fn changed(reply: Value) -> Result<Vec<Changed>, Error> {
    let read = |reply: Value| {
        let reply = as_array(reply)?;
        Ok(match as_text(first(&reply)?)?.as_str() {
            "missing" => Changed::Missing,
            "wrong_status" => Changed::WrongStatus,
            "requested" => Changed::Requested(reply.get(1).map(as_text).transpose()?.unwrap_or_default()),
            "duplicate" => Changed::Duplicate(as_job_id(reply.get(1).unwrap_or(&Value::Nil))?),
            _ => Changed::Done,
        })
    };
    as_array(reply)?.into_iter().map(read).collect()
}

/// The result of changing jobs that wait, job by job.
pub(super) fn change_results(reply: Value) -> Result<Vec<ChangeResult>, Error> {
    let read = |reply: Value| {
        let reply = as_array(reply)?;
        let status = |value: &Value| {
            let word = as_text(value)?;
            word.parse().map_err(|_| Error::Protocol(word))
        };
        match (as_text(first(&reply)?)?.as_str(), &reply[1..]) {
            ("missing", []) => Ok(ChangeResult::Missing),
            ("expired", []) => Ok(ChangeResult::Expired),
            ("wrong_status", [word]) => Ok(ChangeResult::WrongStatus(status(word)?)),
            ("changed", [word, due]) => {
                Ok(ChangeResult::Changed { status: status(word)?, due_in: time_left(due)? })
            }
            _ => Err(unexpected(&Value::Array(reply))),
        }
    };
    as_array(reply)?.into_iter().map(read).collect()
}

/// One job; `None` if there is no such job.
pub(super) fn job(id: JobId, reply: Value) -> Result<Option<Job>, Error> {
    let fields = as_array(reply)?;
    Ok((!fields.is_empty()).then(|| readable(id, &fields)))
}

/// The state of each job; `None` for a job that was deleted.
pub(super) fn statuses(reply: Value) -> Result<Vec<Option<JobState>>, Error> {
    let words = as_texts(reply)?;
    let read = |job: &[String]| {
        let last_line = job[2].parse().unwrap_or(0);
        job[0].parse().ok().map(|status| JobState { status, job_type: job[1].clone(), last_line })
    };
    Ok(words.chunks_exact(3).map(read).collect())
}

/// A page of jobs.
pub(super) fn page(reply: Value) -> Result<Page, Error> {
    let mut reply = as_array(reply)?.into_iter();
    let (Some(total), Some(next)) = (reply.next(), reply.next()) else {
        return Err(Error::Protocol("a page that ends early".to_owned()));
    };
    let mut jobs = Vec::with_capacity(reply.len());
    for record in reply {
        let mut record = as_array(record)?.into_iter();
        let (Some(id), Some(words)) = (record.next(), record.next()) else {
            return Err(Error::Protocol("a record without an id".to_owned()));
        };
        let omitted = as_text(&words)?
            .split_whitespace()
            .filter_map(|word| LargeField::ALL.into_iter().find(|text| text.as_str() == word))
            .collect();
        jobs.push(without(readable(as_job_id(&id)?, record.as_slice()), omitted));
    }
    let next = if as_int(&next)? == 0 { None } else { Some(as_job_id(&next)?) };
    Ok(Page { total: as_count(&total)?, jobs, next })
}

/// The jobs that match, and the walk behind them, which is `None` at its end.
pub(super) fn selected(reply: Value) -> Result<(Vec<JobId>, Option<Walk>), Error> {
    let reply = as_array(reply)?;
    let [newest, last, ids @ ..] = reply.as_slice() else { return Err(unexpected(&Value::Array(reply))) };
    let id_or_none = |id: &Value| if as_text(id)? == "0" { Ok(None) } else { as_job_id(id).map(Some) };
    let newest = id_or_none(newest)?;
    let walk = id_or_none(last)?.map(|last| Walk { newest, last: Some(last) });
    Ok((ids.iter().map(as_job_id).collect::<Result<_, Error>>()?, walk))
}

pub(super) fn ids(reply: Value) -> Result<Vec<JobId>, Error> {
    as_array(reply)?.iter().map(as_job_id).collect()
}

/// What decides when a job starts; `None` if there is no such job.
pub(super) fn situation(id: JobId, reply: Value) -> Result<Option<Situation>, Error> {
    let reply = as_array(reply)?;
    if reply.is_empty() {
        return Ok(None);
    }
    let Ok::<[Value; 17], _>(facts) = reply.try_into() else {
        return Err(Error::Protocol("a situation with another number of facts".to_owned()));
    };
    let [
        now,
        fields,
        is_stopping,
        is_paused,
        servers,
        takers,
        workers,
        busy,
        reserved,
        strict,
        place,
        before,
        is_more,
        holder,
        beat_age,
        room,
        pulled_age,
    ] = facts;
    let strict = as_array(strict)?;
    let strict = strict.chunks_exact(2).map(|pair| Ok((as_text(&pair[0])?, as_count(&pair[1])?)));
    let place = match as_text(&place)?.as_str() {
        "queue" => Place::Queue,
        "suspects" => Place::Suspects,
        "claimed" => Place::Claimed(as_text(&holder)?),
        "server" => Place::Server,
        "scheduled" => Place::Scheduled,
        "limit" => Place::Limit(limit_room(&room)?),
        _ => Place::None,
    };
    Ok(Some(Situation {
        now_ms: as_count(&now)?,
        job: readable(id, &as_array(fields)?),
        is_stopping: as_int(&is_stopping)? == 1,
        is_paused: as_int(&is_paused)? == 1,
        servers: as_count(&servers)?,
        takers: as_count(&takers)?,
        workers: as_count(&workers)?,
        busy: as_count(&busy)?,
        reserved: Some(as_text(&reserved)?).filter(|server| !server.is_empty()),
        strict: strict.collect::<Result<_, Error>>()?,
        place,
        before: as_count(&before)?,
        is_more: as_int(&is_more)? == 1,
        beat_age_ms: u64::try_from(as_int(&beat_age)?).ok(),
        pulled_age_ms: u64::try_from(as_int(&pulled_age)?).ok(),
    }))
}

fn limit_room(reply: &Value) -> Result<LimitRoom, Error> {
    let reply = as_array(reply.clone())?;
    let [limit, slots, opens_at, running @ ..] = reply.as_slice() else {
        return Err(unexpected(&Value::Array(reply)));
    };
    Ok(LimitRoom {
        limit: as_text(limit)?,
        slots: Some(as_count(slots)?).filter(|slots| *slots > 0),
        opens_at_ms: u64::try_from(as_int(opens_at)?).ok(),
        running: running.iter().filter_map(|id| as_job_id(id).ok()).collect(),
    })
}

/// The queues, sorted by name.
pub(super) fn queues(reply: Value) -> Result<Vec<QueueInfo>, Error> {
    let read = |reply: Value| {
        let reply = as_array(reply)?;
        let [name, queued, paused, oldest, servers, strict, held, pulled] = reply.as_slice() else {
            return Err(unexpected(&Value::Array(reply)));
        };
        Ok(QueueInfo {
            name: as_text(name)?,
            queued: as_count(queued)?,
            paused: as_int(paused)? == 1,
            oldest_ms: u64::try_from(as_int(oldest)?).ok(),
            servers: as_count(servers)?,
            strict: as_int(strict)? == 1,
            held: as_count(held)?,
            is_pulled: as_int(pulled)? == 1,
        })
    };
    let mut queues = as_array(reply)?.into_iter().map(read).collect::<Result<Vec<_>, Error>>()?;
    sorting::sort_by(&mut queues, |a, b| a.name.cmp(&b.name));
    Ok(queues)
}

/// The number of jobs in each status, and the live servers.
pub(super) fn stats(reply: Value) -> Result<Stats, Error> {
    let [named, servers] =
        <[Value; 2]>::try_from(as_array(reply)?).map_err(|reply| unexpected(&Value::Array(reply)))?;
    let servers = as_array(servers)?
        .into_iter()
        .map(|server| server_info(&as_array(server)?))
        .collect::<Result<Vec<_>, Error>>()?;
    let named = as_array(named)?;
    let count = |status: Status| {
        let pair =
            named.chunks_exact(2).find(|pair| as_text(&pair[0]).is_ok_and(|name| name == status.as_str()));
        let pair = pair.ok_or_else(|| Error::Protocol(format!("no number of {status} jobs")))?;
        Ok((status, as_int(&pair[1])?.max(0) as u64))
    };
    let counts = Status::ALL.into_iter().map(count).collect::<Result<_, Error>>()?;
    Ok(Stats { counts, servers })
}

/// The live servers, each with its last activity report.
pub(super) fn workers(reply: Value) -> Result<Vec<(ServerInfo, Option<String>)>, Error> {
    let mut servers = Vec::new();
    for server in as_array(reply)? {
        let server = as_array(server)?;
        let [info @ .., report] = server.as_slice() else {
            return Err(unexpected(&Value::Array(server)));
        };
        let report = (*report != Value::Nil).then(|| as_text(report)).transpose()?;
        servers.push((server_info(info)?, report));
    }
    Ok(servers)
}

/// A server: name, time of start, number of workers, number of busy workers, age of the last heartbeat.
fn server_info(facts: &[Value]) -> Result<ServerInfo, Error> {
    let number = |i: usize| as_int(facts.get(i).unwrap_or(&Value::Nil)).map(|n| n.max(0) as u64);
    Ok(ServerInfo {
        id: as_text(first(facts)?)?,
        started_at_ms: number(1)?,
        workers: number(2)?,
        busy: number(3)?,
        beat_age_ms: number(4)?,
    })
}

/// A time in ms; -1 means none.
pub(super) fn time_left(ms: &Value) -> Result<Option<Duration>, Error> {
    Ok(u64::try_from(as_int(ms)?).ok().map(Duration::from_millis))
}

/// The figures of each minute.
pub(super) fn history(reply: Value) -> Result<Vec<Minute>, Error> {
    let read = |reply: Value| {
        let words = as_texts(reply)?;
        let (minute, figures) = words.split_first().ok_or_else(|| unexpected(&Value::Nil))?;
        let number = |word: &String| word.parse().map_err(|_| Error::Protocol(word.clone()));
        let figures = figures.chunks_exact(2).map(|pair| Ok((pair[0].clone(), number(&pair[1])?)));
        Ok(Minute { number: number(minute)?, figures: figures.collect::<Result<_, Error>>()? })
    };
    as_array(reply)?.into_iter().map(read).collect()
}

/// The job, with a note that these texts were left out.
fn without(mut job: Job, omitted: Vec<LargeField>) -> Job {
    if omitted.contains(&LargeField::Payload) {
        job.payload = RawValue::NULL.to_owned();
    }
    job.omitted = omitted;
    job
}

/// The job as far as its record can be read: a damaged job is shown too.
fn readable(id: JobId, fields: &[Value]) -> Job {
    to_job(id, &text_pairs(fields)).unwrap_or_else(|broken| {
        log_job!(warn, JobFields::job(id), "the job's record is broken: {}", broken.reason);
        *broken.job
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn each_status_gets_the_number_that_stands_behind_its_name() {
        // In another order than that of `Status::ALL`.
        let reply = |statuses: &[Status]| {
            let pairs = statuses.iter().rev().zip(10..);
            let named = pairs.flat_map(|(status, n)| [text(status.as_str()), Value::Int(n)]);
            Value::Array(vec![Value::Array(named.collect()), Value::Array(Vec::new())])
        };
        let counts = stats(reply(&Status::ALL)).unwrap().counts;
        assert_eq!(counts.first(), Some(&(Status::Scheduled, 16)));
        assert_eq!(counts.last(), Some(&(Status::Cancelled, 10)));
        assert!(counts.iter().map(|(status, _)| *status).eq(Status::ALL));

        let missing = stats(reply(&Status::ALL[1..])).unwrap_err();
        assert_eq!(missing, Error::Protocol("no number of scheduled jobs".to_owned()));
    }
}
