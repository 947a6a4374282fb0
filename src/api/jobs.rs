//! /jobs: submits, shows and changes jobs.

use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::engine::group_commit::{NewJobs, SubmitResult};
use crate::handler::StopReason;
use crate::job::rules::IDEMPOTENCY_KEY;
use crate::job::{Change, Expiry, Job, JobId, NewJob, Start, Status};
use crate::queue::{ChangeResult, Changed, Conflict, Idempotency, JobState, Refused, SubmitError, Submitted};

use crate::api::body;
use crate::api::listing::estimated_bytes;
use crate::api::outcome::{Awaited, Outcome};
use crate::api::request::Request;
use crate::api::response::Response;
use crate::api::state::Api;

/// The time until the scheduler checks again after a submission with an unknown result. Longer than the scheduler's own
/// pause during an outage of Redis, so that requests do not make the scheduler run more often.
const AFTER_UNKNOWN_RESULT: Duration = Duration::from_secs(1);

impl Api {
    pub(super) fn submit(&self, request: &Request) -> Result<NewJobs, Response> {
        let job = body::job(request.body, &self.handlers)?;
        Ok(NewJobs { jobs: vec![job], idempotency: idempotency(request)? })
    }

    pub(super) fn submit_batch(&self, request: &Request) -> Result<NewJobs, Response> {
        let jobs = body::batch(request.body, &self.handlers)?;
        Ok(NewJobs { jobs, idempotency: idempotency(request)? })
    }

    /// The response to [`submit`](Api::submit) after the result.
    pub(super) fn submitted(&self, new_jobs: &NewJobs, result: SubmitResult) -> Result<Response, Response> {
        let submitted = self.note_submission(new_jobs, result, |_| String::new())?;
        let id = submitted.first;
        let mut body = match submitted.conflict {
            None => json!({ "message": "Job submitted successfully", "job_id": id }),
            Some(Conflict::Existing) => json!({ "job_id": id, "existing": true }),
            Some(Conflict::Replaced) => json!({ "job_id": id, "replaced": true }),
        };
        if let Some(status) = submitted.status {
            body["status"] = json!(status);
        }
        let response = submission_response(&submitted, &body, self.unserved(&new_jobs.jobs));
        Ok(response.with("Location", format!("/jobs/{id}")))
    }

    /// The response to [`submit_batch`](Api::submit_batch) after the result.
    pub(super) fn batch_submitted(
        &self,
        new_jobs: &NewJobs,
        result: SubmitResult,
    ) -> Result<Response, Response> {
        let submitted = self.note_submission(new_jobs, result, |place| format!("jobs[{place}]."))?;
        let ids: Vec<JobId> = submitted.ids().collect();
        let body = json!({ "job_ids": ids });
        Ok(submission_response(&submitted, &body, self.unserved(&new_jobs.jobs)))
    }

    /// Whether the workers of this server take jobs from a queue, or a pull worker has asked this server for jobs of it lately.
    fn serves(&self, queue: &String) -> bool {
        self.settings.queues.contains(queue) || self.pullers.takers.have_queue(queue)
    }

    /// The value of the header `Threadq-Unserved`: `type` if this server has no handler for a job, `queue` if it takes no jobs
    /// from the queue of a job. The name may be misspelt, or another server may serve the job.
    fn unserved(&self, jobs: &[NewJob]) -> String {
        let parts = [
            ("type", jobs.iter().any(|job| !self.handlers.knows(&job.job_type))),
            ("queue", jobs.iter().any(|job| !self.serves(&job.queue))),
        ];
        parts
            .into_iter()
            .filter_map(|(part, is_unserved)| is_unserved.then_some(part))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Counts the jobs and wakes the scheduler. Returns the error response if the submission failed. `prefix` is what stands
    /// before the fields of the job at a place of the submission.
    fn note_submission(
        &self,
        new_jobs: &NewJobs,
        result: SubmitResult,
        prefix: fn(u64) -> String,
    ) -> Result<Submitted, Response> {
        match result {
            Ok(submitted) => {
                if !submitted.replayed {
                    new_jobs.jobs.iter().for_each(|job| match submitted.conflict {
                        None => self.metrics.submitted(&job.job_type),
                        conflict => self.metrics.deduplicated(&job.job_type, conflict),
                    });
                }
                if let Some(time) = submitted.due_in {
                    self.due_timer.due_in(time);
                }
                Ok(submitted)
            }
            Err(SubmitError::Refused(Refused::Mismatch)) => {
                let sentence = "this Idempotency-Key was used for a request with another body";
                Err(Response::error(422, "idempotency_mismatch", sentence))
            }
            Err(SubmitError::Refused(Refused::Duplicate(holder))) => {
                new_jobs.jobs.iter().for_each(|job| self.metrics.deduplicated(&job.job_type, None));
                Err(Response::duplicate(holder))
            }
            Err(SubmitError::Refused(Refused::QueueFull(queue))) => {
                let most = self.group_commit.max_queue_length();
                let sentence = format!("the queue {queue} is full: max-queue-length is {most}");
                Err(Response::error(429, "queue_full", sentence).with("Retry-After", "1"))
            }
            Err(SubmitError::Refused(Refused::UnknownLimit(limit))) => {
                let how = "define it in the configuration file, or with PUT /limits/NAME";
                Err(Response::invalid_job(format!("limits: there is no limit {limit:?}; {how}")))
            }
            Err(SubmitError::Refused(Refused::Expired(place))) => {
                let expiry = new_jobs.jobs.get(place as usize).and_then(|job| job.extras.as_ref()?.expiry);
                Err(expires_too_early(&prefix(place), expiry))
            }
            Err(SubmitError::Queue(error)) => {
                // The jobs may have been stored, and scheduled ones among them may be due soon.
                self.due_timer.due_in(AFTER_UNKNOWN_RESULT);
                Err(error.into())
            }
        }
    }

    pub(super) fn list_jobs(&self, request: &Request) -> Result<Response, Response> {
        self.list(&request.query, request.query.filter()?)
    }

    /// The job; with `wait`, when it has ended or the time is over.
    pub(super) fn show_or_wait(&self, id: JobId, request: &Request) -> Result<Outcome, Response> {
        if let Some(time) = request.query.wait()?
            && let Some(Some(JobState { status, .. })) = self.queue.statuses(&[id])?.first()
            && !status.is_final()
            && !time.is_zero()
        {
            return Ok(Outcome::WaitForJob(id, Awaited::End, time));
        }
        self.show(id).map(Outcome::Now)
    }

    /// The job in its present state, or 404.
    pub(super) fn show(&self, id: JobId) -> Result<Response, Response> {
        let job = self.job(id)?;
        Ok(Response::large_json(200, &job, estimated_bytes(&job)))
    }

    fn job(&self, id: JobId) -> Result<Job, Response> {
        self.queue.get(id)?.ok_or_else(Response::no_such_job)
    }

    pub(super) fn cancel(&self, id: JobId, _request: &Request) -> Result<Response, Response> {
        let status = match self.cancel_jobs(&[id], &[])?.first() {
            Some(Changed::Done) => 200,
            Some(Changed::Requested(_)) => 202,
            Some(Changed::Missing) | None => return Err(Response::no_such_job()),
            Some(_) => return Err(wrong_status("cancelled", "it has ended")),
        };
        Ok(Response::json(status, &self.job(id)?))
    }

    /// Cancels jobs, with `wanted` only jobs of these statuses. Attempts on this server are stopped at once; another
    /// server reads the cancellation with its next heartbeat.
    pub(super) fn cancel_jobs(&self, ids: &[JobId], wanted: &[Status]) -> Result<Vec<Changed>, Response> {
        let changed = self.queue.cancel(ids, wanted)?;
        let here = self.membership.current();
        for (id, changed) in ids.iter().zip(&changed) {
            if matches!(changed, Changed::Requested(server) if server == here.as_str()) {
                self.in_flight.stop(*id, StopReason::Cancelled);
            }
        }
        Ok(changed)
    }

    pub(super) fn retry(&self, id: JobId, request: &Request) -> Result<Response, Response> {
        let changed = match body::flag(request.body, "from_start")? {
            true => self.queue.retry_from_start(&[id], &[]),
            false => self.queue.retry(&[id], &[]),
        };
        match changed?.first() {
            Some(Changed::Done) => Ok(Response::json(202, &self.job(id)?)),
            Some(Changed::Duplicate(holder)) => Err(Response::duplicate(*holder)),
            Some(Changed::Missing) | None => Err(Response::no_such_job()),
            Some(_) => Err(wrong_status("retried", "it is neither failed nor cancelled")),
        }
    }

    /// Changes a job that has not started.
    pub(super) fn change(&self, id: JobId, request: &Request) -> Result<Response, Response> {
        self.change_one(id, &body::change_of_job(request.body)?)
    }

    /// A scheduled or retrying job becomes ready now; a queued job is ready already.
    pub(super) fn run_now(&self, id: JobId, _request: &Request) -> Result<Response, Response> {
        self.change_one(id, &Change { start: Some(Start::Now), ..Change::default() })
    }

    fn change_one(&self, id: JobId, change: &Change) -> Result<Response, Response> {
        match self.change_jobs(&[id], &[], change)?.first() {
            Some(ChangeResult::Changed { .. }) => Ok(Response::json(200, &self.job(id)?)),
            Some(ChangeResult::WrongStatus(_)) => Err(wrong_status("changed", "it has started")),
            Some(ChangeResult::Expired) => Err(expires_too_early("", change.expiry)),
            Some(ChangeResult::Missing) | None => Err(Response::no_such_job()),
        }
    }

    /// Changes jobs that have not started, with `wanted` only jobs of these statuses.
    pub(super) fn change_jobs(
        &self,
        ids: &[JobId],
        wanted: &[Status],
        change: &Change,
    ) -> Result<Vec<ChangeResult>, Response> {
        let results = self.queue.change_waiting(ids, wanted, change)?;
        let times = results.iter().filter_map(|result| match result {
            ChangeResult::Changed { due_in, .. } => *due_in,
            _ => None,
        });
        if let Some(time) = times.min() {
            self.due_timer.due_in(time);
        }
        Ok(results)
    }

    pub(super) fn delete(&self, id: JobId, _request: &Request) -> Result<Response, Response> {
        match self.queue.delete(&[id], &[])?.first() {
            Some(Changed::Done) => Ok(Response::empty(204)),
            Some(Changed::Missing) | None => Err(Response::no_such_job()),
            Some(_) => Err(wrong_status("deleted", "it has not ended")),
        }
    }
}

fn submission_response(submitted: &Submitted, body: &serde_json::Value, unserved: String) -> Response {
    let response = match (submitted.replayed, submitted.conflict) {
        (true, _) => Response::json(200, body).with("Idempotency-Replayed", "true"),
        (false, Some(_)) => Response::json(200, body),
        (false, None) => Response::json(202, body),
    };
    if unserved.is_empty() { response } else { response.with("Threadq-Unserved", unserved) }
}

/// The error for a job that would expire before its start. `prefix` stands before the names of its fields.
fn expires_too_early(prefix: &str, expiry: Option<Expiry>) -> Response {
    Response::invalid_job(match expiry {
        Some(Expiry::AfterMs(_)) => {
            format!("{prefix}expires_in_ms must be longer than the time until the start of the job")
        }
        _ => format!("{prefix}expires_at must be after now, and after the start of the job"),
    })
}

fn wrong_status(what: &str, why: &str) -> Response {
    Response::error(409, "wrong_status", format!("the job cannot be {what}: {why}"))
}

/// The key and fingerprint of a request with the header Idempotency-Key.
fn idempotency(request: &Request) -> Result<Option<Idempotency>, Response> {
    let Some(key) = request.headers.get("Idempotency-Key")? else { return Ok(None) };
    if !IDEMPOTENCY_KEY.accepts(key) {
        let sentence = format!("Idempotency-Key must be {}", IDEMPOTENCY_KEY.allowed);
        return Err(Response::error(400, "invalid_header", sentence));
    }
    let mut hash = Sha256::new();
    hash.update(request.path);
    hash.update([0]);
    hash.update(request.body);
    let fingerprint = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Some(Idempotency { key: key.to_owned(), fingerprint }))
}
