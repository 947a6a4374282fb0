//! /jobs: submitting, showing and changing jobs.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::engine::group_commit::NewJobs;
use crate::handler::StopReason;
use crate::job::limits::IDEMPOTENCY_KEY;
use crate::job::{Job, JobId, NewJob};
use crate::queue::{Cancelled, Changed, Filter, Idempotency, Refused, SubmitError, Submitted};

use super::listing::about_bytes;
use super::query::Query;
use super::{Api, Request, body};
use crate::api::response::{Answer, Reply};

/// When the scheduler looks again after a submission without an answer. Longer than its own pause while Redis is away, so
/// that requests do not drive it then.
const UNANSWERED: Duration = Duration::from_secs(1);

impl Api {
    pub(super) fn submit(&self, request: &Request) -> Answer {
        let job = body::job(request.json_body()?, &self.handlers)?;
        let unserved = self.unserved(std::slice::from_ref(&job));
        let submitted = self.store(request, vec![job])?;
        let answer = json!({
            "message": "Job submitted successfully",
            "job_id": submitted.first,
            "status": submitted.status,
        });
        let reply = submission_reply(&submitted, &answer, unserved);
        Ok(reply.with("Location", format!("/jobs/{}", submitted.first)))
    }

    pub(super) fn submit_batch(&self, request: &Request) -> Answer {
        let jobs = body::batch(request.json_body()?, &self.handlers)?;
        let unserved = self.unserved(&jobs);
        let submitted = self.store(request, jobs)?;
        let ids: Vec<JobId> = submitted.ids().collect();
        Ok(submission_reply(&submitted, &json!({ "job_ids": ids }), unserved))
    }

    /// What of these jobs this server does not serve itself, for the header `Threadq-Unserved`: a type or a queue may be
    /// misspelt, or be the business of another server.
    fn unserved(&self, jobs: &[NewJob]) -> String {
        let words = [
            ("type", jobs.iter().any(|job| self.handlers.get(&job.job_type).is_none())),
            ("queue", jobs.iter().any(|job| !self.settings.queues.contains(&job.queue))),
        ];
        words.into_iter().filter_map(|(word, holds)| holds.then_some(word)).collect::<Vec<_>>().join(", ")
    }

    fn store(&self, request: &Request, jobs: Vec<NewJob>) -> Result<Submitted, Reply> {
        let submission = Arc::new(NewJobs { jobs, idempotency: idempotency(request)? });
        match self.group_commit.submit(submission.clone()) {
            Ok(submitted) => {
                if !submitted.replayed {
                    submission.jobs.iter().for_each(|job| self.metrics.submitted(&job.job_type));
                }
                if let Some(time) = submitted.due_in {
                    self.scheduler.due_in(time);
                }
                Ok(submitted)
            }
            Err(SubmitError::Refused(Refused::Mismatch)) => {
                let sentence = "this Idempotency-Key was used for a request with another body";
                Err(Reply::error(422, "idempotency_mismatch", sentence))
            }
            Err(SubmitError::Refused(Refused::Duplicate(holder))) => Err(Reply::duplicate(holder)),
            Err(SubmitError::Refused(Refused::QueueFull(queue))) => {
                let most = self.group_commit.max_queue_length();
                let sentence = format!("the queue {queue} has no room: it may hold {most} jobs");
                Err(Reply::error(429, "queue_full", sentence).with("Retry-After", "1"))
            }
            Err(SubmitError::Queue(error)) => {
                // The jobs may have been stored, and scheduled ones among them may be due soon.
                self.scheduler.due_in(UNANSWERED);
                Err(error.into())
            }
        }
    }

    pub(super) fn list_jobs(&self, query: &str) -> Answer {
        let query = Query::parse(query, &["page", "before", "limit", "status", "type"])?;
        self.list(&query, Filter { status: query.status()?, job_type: query.job_type()? })
    }

    /// The job as it is now, or 404.
    pub(super) fn show(&self, id: JobId) -> Answer {
        let job = self.job(id)?;
        Ok(Reply::large_json(200, &job, about_bytes(&job)))
    }

    fn job(&self, id: JobId) -> Result<Job, Reply> {
        self.queue.get(id)?.ok_or_else(Reply::no_such_job)
    }

    pub(super) fn cancel(&self, id: JobId) -> Answer {
        let status = match self.queue.cancel(id)? {
            Cancelled::Done => 200,
            Cancelled::Requested(server) => {
                // Another server hears of it with its next heartbeat; this one at once.
                if server == self.membership.current().as_str() {
                    self.in_flight.stop(id, StopReason::Cancelled);
                }
                202
            }
            Cancelled::AlreadyFinal => return Err(wrong_status("cancelled", "it has ended")),
            Cancelled::Missing => return Err(Reply::no_such_job()),
        };
        Ok(Reply::json(status, &self.job(id)?))
    }

    pub(super) fn retry(&self, id: JobId) -> Answer {
        match self.queue.retry(&[id], None)?.first() {
            Some(Changed::Done) => Ok(Reply::json(202, &self.job(id)?)),
            Some(Changed::WrongStatus) => {
                Err(wrong_status("sent back", "it is neither failed nor cancelled"))
            }
            Some(Changed::Duplicate(holder)) => Err(Reply::duplicate(*holder)),
            Some(Changed::Missing) | None => Err(Reply::no_such_job()),
        }
    }

    pub(super) fn delete(&self, id: JobId) -> Answer {
        match self.queue.delete(&[id], None)?.first() {
            Some(Changed::Done) => Ok(Reply::empty(204)),
            Some(Changed::Missing) | None => Err(Reply::no_such_job()),
            Some(_) => Err(wrong_status("deleted", "it has not ended")),
        }
    }
}

fn submission_reply(submitted: &Submitted, answer: &serde_json::Value, unserved: String) -> Reply {
    let reply = match submitted.replayed {
        true => Reply::json(200, answer).with("Idempotency-Replayed", "true"),
        false => Reply::json(202, answer),
    };
    if unserved.is_empty() { reply } else { reply.with("Threadq-Unserved", unserved) }
}

fn wrong_status(what: &str, why: &str) -> Reply {
    Reply::error(409, "wrong_status", format!("the job cannot be {what}: {why}"))
}

/// What the header Idempotency-Key asks for.
fn idempotency(request: &Request) -> Result<Option<Idempotency>, Reply> {
    let Some(key) = request.header("Idempotency-Key")? else { return Ok(None) };
    if !IDEMPOTENCY_KEY.accepts(key) {
        let sentence = format!("Idempotency-Key must be {}", IDEMPOTENCY_KEY.allowed);
        return Err(Reply::error(400, "invalid_header", sentence));
    }
    let mut hash = Sha256::new();
    hash.update(request.path);
    hash.update([0]);
    hash.update(request.body);
    let fingerprint = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Some(Idempotency { key: key.to_owned(), fingerprint }))
}
