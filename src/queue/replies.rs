//! What the scripts answer, read into what the queue's callers get. Functions of the answer alone.
//!
//! An answer of another shape is an error and never a panic: a stranger's hand may have been in the data.

use std::time::Duration;

use redis::Value;
use serde_json::value::RawValue;

use crate::job::{Job, JobId, LargeField, Status};
use crate::logging::job_fields::{JobFields, log_job};

use super::error::Error;
use super::inspect::{Minute, Page, QueueInfo, ServerInfo, Stats};
use super::record::{array, count, id, int, packed, text, to_job, unexpected};
use super::{
    Broken, Cancelled, Changed, CrashedJob, HeartbeatReply, Lease, Reclaimed, Refused, ServerId, Settled,
    StartedJobs, Submitted, first,
};

/// What submissions of so many jobs each came to.
pub(super) fn submitted(
    answer: Value,
    sizes: impl ExactSizeIterator<Item = usize>,
) -> Result<Vec<Result<Submitted, Refused>>, Error> {
    let answers = array(answer)?;
    if answers.len() != sizes.len() {
        return Err(unexpected(&Value::Array(answers)));
    }
    answers.into_iter().zip(sizes).map(|(answer, jobs)| one_submitted(answer, jobs)).collect()
}

fn one_submitted(answer: Value, jobs: usize) -> Result<Result<Submitted, Refused>, Error> {
    let answer = array(answer)?;
    let status = |scheduled| if scheduled { Status::Scheduled } else { Status::Queued };
    match (text(first(&answer)?)?.as_str(), &answer[1..]) {
        ("stored", [first, due]) => {
            let due_in = time_left(due)?;
            Ok(Ok(Submitted {
                first: id(first)?,
                count: jobs as u64,
                status: status(due_in.is_some() && jobs == 1),
                due_in,
                replayed: false,
            }))
        }
        ("replayed", [first, number, scheduled]) => Ok(Ok(Submitted {
            first: id(first)?,
            count: count(number)?,
            status: status(int(scheduled)? == 1),
            due_in: None,
            replayed: true,
        })),
        ("mismatch", []) => Ok(Err(Refused::Mismatch)),
        ("duplicate", [holder]) => Ok(Err(Refused::Duplicate(id(holder)?))),
        ("full", [queue]) => Ok(Err(Refused::QueueFull(text(queue)?))),
        _ => Err(unexpected(&Value::Array(answer))),
    }
}

/// The jobs that this server has started.
pub(super) fn started_jobs(answer: Value, server: &ServerId) -> Result<StartedJobs, Error> {
    let mut answer = array(answer)?.into_iter();
    let mut next = || answer.next().ok_or_else(|| Error::Protocol("a take without an answer".to_owned()));
    if text(&next()?)? == "fenced" {
        return Err(Error::Fenced);
    }
    let mut taken = StartedJobs {
        now_ms: count(&next()?)?,
        must_drain: int(&next()?)? == 1,
        paused: array(next()?)?.iter().map(text).collect::<Result<_, Error>>()?,
        has_more: int(&next()?)? == 1,
        ..StartedJobs::default()
    };
    for record in answer {
        let mut fields = packed(record)?;
        let id = id(&fields.pop().unwrap_or(Value::Nil))?;
        let (mut job, broken) = match to_job(id, fields) {
            Ok(job) => (job, None),
            Err(broken) => (*broken.job, Some(broken.reason)),
        };
        job.status = Status::Processing;
        job.starts += 1;
        job.started_at_ms = Some(taken.now_ms);
        job.server = Some(server.to_string());
        let lease = Lease { id, token: job.starts };
        match broken {
            None => taken.jobs.push((lease, job)),
            Some(reason) => {
                if job.unreadable.contains(&"type") {
                    "unknown".clone_into(&mut job.job_type);
                }
                taken.broken.push(Broken { lease, job, reason });
            }
        }
    }
    Ok(taken)
}

/// What each settlement came to.
pub(super) fn settled(answer: Value) -> Result<Vec<Settled>, Error> {
    let read = |answer: Value| match text(&answer)?.as_str() {
        "stale" => Ok(Settled::Stale),
        "repeated" => Ok(Settled::Repeated),
        word => word.parse().map(Settled::Now).map_err(|_| Error::Protocol(word.to_owned())),
    };
    array(answer)?.into_iter().map(read).collect()
}

/// How many jobs were moved, and how long until the next one is due.
pub(super) fn promoted(answer: Value) -> Result<(usize, Option<Duration>), Error> {
    let answer = array(answer)?;
    let [moved, next] = answer.as_slice() else { return Err(unexpected(&Value::Array(answer))) };
    Ok((count(moved)?, time_left(next)?))
}

/// What a heartbeat brings back.
pub(super) fn heartbeat(answer: Value) -> Result<HeartbeatReply, Error> {
    let Ok([_, in_progress, cancels, servers, watched, suspects, due]) =
        <[Value; 7]>::try_from(array(answer)?)
    else {
        return Err(Error::Fenced);
    };
    let words = array(servers)?.iter().map(text).collect::<Result<Vec<_>, Error>>()?;
    let servers = words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    Ok(HeartbeatReply {
        in_progress: count(&in_progress)?,
        cancels: ids(cancels)?,
        servers,
        is_watched: int(&watched)? == 1,
        quarantine_waits: int(&suspects)? > 0,
        due_in: time_left(&due)?,
    })
}

/// One step of taking over a server.
pub(super) struct Step {
    pub done: Reclaimed,
    /// How many of its jobs are still to be moved.
    pub left: u64,
    /// Its beat now.
    pub beat: String,
}

/// One step of taking over a server; `None` where it lives.
pub(super) fn reclaimed(answer: Value) -> Result<Option<Step>, Error> {
    let Ok([_, moved, left, crashed, beat]) = <[Value; 5]>::try_from(array(answer)?) else {
        return Ok(None);
    };
    // A stranger's entry must not hide what became of the others.
    let crashed = array(crashed)?.into_iter().filter_map(|job| crashed_job(job).ok()).collect();
    let done = Reclaimed { moved: count(&moved)?, crashed };
    Ok(Some(Step { done, left: count(&left)?, beat: text(&beat)? }))
}

/// Numbers of a damaged record are told as 0: the job is taken over all the same.
fn crashed_job(answer: Value) -> Result<CrashedJob, Error> {
    let [id, job_type, attempt, crashes, has_failed] =
        <[Value; 5]>::try_from(array(answer)?).map_err(|answer| unexpected(&Value::Array(answer)))?;
    Ok(CrashedJob {
        id: self::id(&id)?,
        job_type: text(&job_type)?,
        attempt: count(&attempt).unwrap_or(0),
        crashes: count(&crashes).unwrap_or(0),
        has_failed: int(&has_failed)? == 1,
    })
}

/// What cancelling a job came to.
pub(super) fn cancelled(answer: Value) -> Result<Cancelled, Error> {
    let answer = array(answer)?;
    match text(first(&answer)?)?.as_str() {
        "missing" => Ok(Cancelled::Missing),
        "final" => Ok(Cancelled::AlreadyFinal),
        "requested" => Ok(Cancelled::Requested(answer.get(1).map(text).transpose()?.unwrap_or_default())),
        _ => Ok(Cancelled::Done),
    }
}

/// What sending back or deleting came to, job by job.
pub(super) fn changed(answer: Value) -> Result<Vec<Changed>, Error> {
    let read = |answer: Value| {
        let answer = array(answer)?;
        Ok(match text(first(&answer)?)?.as_str() {
            "missing" => Changed::Missing,
            "wrong_status" => Changed::WrongStatus,
            "duplicate" => Changed::Duplicate(id(answer.get(1).unwrap_or(&Value::Nil))?),
            _ => Changed::Done,
        })
    };
    array(answer)?.into_iter().map(read).collect()
}

/// One job; `None` if there is none.
pub(super) fn job(id: JobId, answer: Value) -> Result<Option<Job>, Error> {
    let fields = array(answer)?;
    Ok((!fields.is_empty()).then(|| readable(id, fields)))
}

/// The statuses and types of jobs; `None` for one that is gone.
pub(super) fn statuses(answer: Value) -> Result<Vec<Option<(Status, String)>>, Error> {
    let words = array(answer)?.iter().map(text).collect::<Result<Vec<_>, Error>>()?;
    let read = |pair: &[String]| pair[0].parse().ok().map(|status| (status, pair[1].clone()));
    Ok(words.chunks_exact(2).map(read).collect())
}

/// A page of jobs.
pub(super) fn page(answer: Value) -> Result<Page, Error> {
    let mut answer = array(answer)?.into_iter();
    let (Some(total), Some(next)) = (answer.next(), answer.next()) else {
        return Err(Error::Protocol("a page without an answer".to_owned()));
    };
    let mut jobs = Vec::with_capacity(answer.len());
    for record in answer {
        let mut record = array(record)?.into_iter();
        let (Some(id), Some(words)) = (record.next(), record.next()) else {
            return Err(Error::Protocol("a record without an id".to_owned()));
        };
        let omitted = text(&words)?
            .split_whitespace()
            .filter_map(|word| LargeField::ALL.into_iter().find(|text| text.as_str() == word))
            .collect();
        jobs.push(without(readable(self::id(&id)?, record.collect()), omitted));
    }
    let next = if int(&next)? == 0 { None } else { Some(id(&next)?) };
    Ok(Page { total: count(&total)?, jobs, next })
}

/// Ids of jobs.
pub(super) fn ids(answer: Value) -> Result<Vec<JobId>, Error> {
    array(answer)?.iter().map(id).collect()
}

/// Queues, by their names.
pub(super) fn queues(answer: Value) -> Result<Vec<QueueInfo>, Error> {
    let read = |answer: Value| {
        let answer = array(answer)?;
        let [name, queued, paused, oldest, servers] = answer.as_slice() else {
            return Err(unexpected(&Value::Array(answer)));
        };
        Ok(QueueInfo {
            name: text(name)?,
            queued: count(queued)?,
            paused: int(paused)? == 1,
            oldest_ms: u64::try_from(int(oldest)?).ok(),
            servers: count(servers)?,
        })
    };
    let mut queues = array(answer)?.into_iter().map(read).collect::<Result<Vec<_>, Error>>()?;
    queues.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(queues)
}

/// The numbers of jobs and the servers.
pub(super) fn stats(answer: Value) -> Result<Stats, Error> {
    let mut answer = array(answer)?;
    let servers = array(answer.pop().unwrap_or(Value::Nil))?;
    let servers =
        servers.into_iter().map(|server| server_info(&array(server)?)).collect::<Result<Vec<_>, Error>>()?;
    let counts = Status::ALL.into_iter().zip(&answer);
    let counts =
        counts.map(|(status, n)| Ok((status, int(n)?.max(0) as u64))).collect::<Result<_, Error>>()?;
    Ok(Stats { counts, servers })
}

/// Servers that are alive, with what they have told of their workers.
pub(super) fn workers(answer: Value) -> Result<Vec<(ServerInfo, Option<String>)>, Error> {
    let mut servers = Vec::new();
    for server in array(answer)? {
        let server = array(server)?;
        let [info @ .., told] = server.as_slice() else {
            return Err(unexpected(&Value::Array(server)));
        };
        let told = (*told != Value::Nil).then(|| text(told)).transpose()?;
        servers.push((server_info(info)?, told));
    }
    Ok(servers)
}

/// A server: its name, when it was started, its workers, how many of them are busy, the age of its last beat.
fn server_info(facts: &[Value]) -> Result<ServerInfo, Error> {
    let number = |i: usize| int(facts.get(i).unwrap_or(&Value::Nil)).map(|n| n.max(0) as u64);
    Ok(ServerInfo {
        id: text(first(facts)?)?,
        started_at_ms: number(1)?,
        workers: number(2)?,
        busy: number(3)?,
        beat_age_ms: number(4)?,
    })
}

/// A time in ms; -1 is none.
fn time_left(ms: &Value) -> Result<Option<Duration>, Error> {
    Ok(u64::try_from(int(ms)?).ok().map(Duration::from_millis))
}

/// Figures by minute.
pub(super) fn history(answer: Value) -> Result<Vec<Minute>, Error> {
    let read = |answer: Value| {
        let words = array(answer)?.iter().map(text).collect::<Result<Vec<_>, Error>>()?;
        let (minute, figures) = words.split_first().ok_or_else(|| unexpected(&Value::Nil))?;
        let number = |word: &String| word.parse().map_err(|_| Error::Protocol(word.clone()));
        let figures = figures.chunks_exact(2).map(|pair| Ok((pair[0].clone(), number(&pair[1])?)));
        Ok(Minute { number: number(minute)?, figures: figures.collect::<Result<_, Error>>()? })
    };
    array(answer)?.into_iter().map(read).collect()
}

/// A job of which these texts were not read.
fn without(mut job: Job, omitted: Vec<LargeField>) -> Job {
    if omitted.contains(&LargeField::Payload) {
        job.payload = RawValue::NULL.to_owned();
    }
    job.omitted = omitted;
    job
}

/// A job as far as its record can be read: a damaged one is shown too.
fn readable(id: JobId, fields: Vec<Value>) -> Job {
    to_job(id, fields).unwrap_or_else(|broken| {
        log_job!(warn, JobFields::job(id), "its record is broken: {}", broken.reason);
        *broken.job
    })
}
