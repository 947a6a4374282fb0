//! /attempts: what is said of running attempts from outside of the servers. An attempt token names the attempt, and is the
//! right to speak for it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::access::unauthorized;
use crate::api::body::{self, End};
use crate::api::request::Request;
use crate::api::response::Response;
use crate::api::state::Api;
use crate::engine::outcomes::record_outcome;
use crate::engine::reports::REFUSED;
use crate::engine::verdict::verdict_of;
use crate::job::{AttemptId, Job, rfc3339};
use crate::logging::job_fields::JobFields;
use crate::queue::{Answered, AttemptReport, Error, Reported, Settled, Verdict};
use crate::sync;

impl Api {
    /// The attempt of a token; `None` if the token is not valid.
    pub(super) fn attempt_of(&self, token: &str) -> Result<Option<AttemptId>, Response> {
        Ok(self.queue.attempt_of(token)?)
    }

    /// Stores a report, and extends the lease of a pull worker.
    pub(super) fn report_attempt(&self, attempt: AttemptId, request: &Request) -> Result<Response, Response> {
        let (report, lease) = body::report(request.body)?;
        let mut is_stored = !report.is_empty();
        let mut reported = match self.queue.report(&[AttemptReport { attempt, report, lease }]) {
            Err(error @ Error::Full) => {
                sync::lock(&self.report_refusals).log(REFUSED, &error);
                is_stored = false;
                self.queue.extend(&[(attempt, lease)])?
            }
            reported => {
                let reported = reported?;
                sync::lock(&self.report_refusals).recovered();
                reported
            }
        };
        let Some(Reported::Accepted { lease_until_ms, timeout_at_ms, is_cancelled, job_type }) =
            reported.pop()
        else {
            return Err(stale_attempt());
        };
        self.in_flight.hear(attempt);
        if is_stored {
            self.metrics.reported(&job_type);
        }
        // The new lease may end sooner than the old one.
        lease.into_iter().for_each(|time| self.due_timer.due_in(time));
        let mut body = json!({ "timeout_at": rfc3339(timeout_at_ms), "cancel": is_cancelled });
        if let Some(at) = lease_until_ms {
            body["lease_until"] = rfc3339(at).into();
        }
        Ok(Response::json(200, &body))
    }

    pub(super) fn complete_attempt(
        &self,
        attempt: AttemptId,
        request: &Request,
    ) -> Result<Response, Response> {
        self.settle_attempt(attempt, body::end("complete", request.body)?)
    }

    pub(super) fn fail_attempt(&self, attempt: AttemptId, request: &Request) -> Result<Response, Response> {
        self.settle_attempt(attempt, body::end("fail", request.body)?)
    }

    pub(super) fn release_attempt(
        &self,
        attempt: AttemptId,
        request: &Request,
    ) -> Result<Response, Response> {
        self.settle_attempt(attempt, body::end("release", request.body)?)
    }

    fn settle_attempt(&self, attempt: AttemptId, end: End) -> Result<Response, Response> {
        let settled = self.settle(vec![(attempt, end)])?.pop().unwrap_or_else(|| Err(stale_attempt()))?;
        Ok(Response::json(200, &settled))
    }

    /// Settles many attempts, each by itself.
    pub(super) fn settle_attempts(&self, request: &Request) -> Result<Response, Response> {
        let ends = body::ends(request.body)?;
        let attempts: Vec<Option<AttemptId>> =
            ends.iter().map(|(token, _)| self.attempt_of(token)).collect::<Result<_, _>>()?;
        if !self.settings.access.has_any_token(request.headers) && attempts.iter().any(Option::is_none) {
            return Err(unauthorized());
        }
        let mut valid = Vec::new();
        // What is said of an attempt before any is settled: the error.
        let errors: Vec<Option<Response>> = attempts
            .into_iter()
            .zip(ends)
            .map(|(attempt, (_, end))| match (attempt, end) {
                (None, _) => Some(no_valid_token()),
                (_, Err(error)) => Some(error),
                (Some(attempt), Ok(end)) => {
                    valid.push((attempt, end));
                    None
                }
            })
            .collect();
        let mut settled = self.settle(valid)?.into_iter();
        let results = errors.into_iter().map(|error| {
            let result = match error {
                Some(error) => Err(error),
                None => settled.next().unwrap_or_else(|| Err(stale_attempt())),
            };
            result.unwrap_or_else(|error| serde_json::from_slice(&error.body).unwrap_or_default())
        });
        Ok(Response::json(200, &json!({ "results": results.collect::<Vec<Value>>() })))
    }

    /// Settles attempts. Returns what each is answered.
    fn settle(&self, ends: Vec<(AttemptId, End)>) -> Result<Vec<Result<Value, Response>>, Response> {
        if ends.is_empty() {
            return Ok(Vec::new());
        }
        let mut jobs: Vec<Option<Job>> = Vec::new();
        let mut answers = Vec::new();
        for (attempt, end) in ends {
            // Only for a failure the attempts before it count.
            let job = match &end {
                End::Outcome(Err(_)) => {
                    self.queue.get(attempt.job)?.filter(|job| job.attempt_id() == attempt)
                }
                _ => None,
            };
            let verdict = match end {
                End::Release => Verdict::Release,
                End::Outcome(outcome) => {
                    let empty = Job::empty(attempt.job);
                    let job = job.as_ref().unwrap_or(&empty);
                    verdict_of(job, &self.handlers.policy(&job.job_type), None, outcome, fastrand::f64())
                }
            };
            jobs.push(job);
            answers.push((attempt, verdict));
        }
        let (answered, next_look) = self.queue.answer(&answers)?;
        next_look.into_iter().for_each(|time| self.due_timer.due_in(time));
        let record = |((answer, job), answered): ((&(AttemptId, Verdict), &Option<Job>), Answered)| {
            let (attempt, verdict) = answer;
            match answered {
                Answered::Now { status, has_expired, job_type, run_ms } => {
                    let mut fields = JobFields::job(attempt.job).on_server("pull");
                    fields.job_type = Some(&job_type);
                    fields.attempt = job.as_ref().map(|job| job.attempts + 1);
                    self.metrics.ran(&job_type, Duration::from_millis(run_ms));
                    let settled = if has_expired { Settled::Expired(status) } else { Settled::Now(status) };
                    record_outcome(&self.metrics, &self.due_timer, fields, verdict, settled);
                    Ok(json!({ "status": status }))
                }
                Answered::Repeated(status) => Ok(json!({ "status": status })),
                Answered::Stale => Err(stale_attempt()),
            }
        };
        Ok(answers.iter().zip(&jobs).zip(answered).map(record).collect())
    }
}

pub(super) fn no_valid_token() -> Response {
    Response::error(404, "invalid_token", "this is no valid attempt token")
}

fn stale_attempt() -> Response {
    let sentence = "this attempt is over: another answer has settled it, its lease or its time has run out, or the job was \
                    taken over or deleted";
    Response::error(409, "stale_attempt", sentence)
}
