//! POST /pull and GET /workers: pull workers take jobs, and are listed.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::api::body;
use crate::api::listing::estimated_bytes;
use crate::api::outcome::Outcome;
use crate::api::parked::Parked;
use crate::api::request::Request;
use crate::api::response::Response;
use crate::api::state::Api;
use crate::engine::takers::{Client, Taker};
use crate::job::rfc3339;
use crate::queue::{Error, PullRequest, PulledJob, Queue};

/// How long a request that does not wait stays for the job that a puller may have claimed after its last taker has gone.
const HAND_OVER_TIME: Duration = Duration::from_millis(500);

impl Api {
    /// Takes jobs at once. If there is none, the request may wait. The next job of a queue that a puller holds is for an
    /// older request that waits, so a request that would wait leaves the queue to the puller.
    pub(super) fn pull(&self, request: &Request) -> Result<Outcome, Response> {
        let body::Pull { request, wait } = body::pull(request.body)?;
        // Read before a job is taken: a job without a token is of no use.
        self.queue.read_secret()?;
        let takers = &self.pullers.takers;
        let (queues, left) = match wait.is_zero() {
            true => (request.queues.clone(), takers.without_taker(&request.queues)),
            false => (takers.without_held(&request.queues), Vec::new()),
        };
        if !queues.is_empty() {
            let pulled = self.pullers.pull(&PullRequest { queues, ..request.clone() }, None)?;
            if pulled.is_full {
                let sentence = "pull workers have 10,000 jobs, which is the most; retry later";
                let response = Response::error(429, "too_many_leases", sentence);
                return Err(response.with("Retry-After", "1"));
            }
            if !pulled.jobs.is_empty() {
                return Ok(Outcome::Now(pulled_jobs(&self.queue, &pulled.jobs)?));
            }
        } else if let Some(worker) = &request.worker
            && takers.is_unnoted(worker)
        {
            // No take has told Redis of this worker. If Redis is away, the puller says why.
            let _ = self.queue.saw_pull_workers(std::slice::from_ref(worker), &[]);
        }
        if !wait.is_zero() {
            return Ok(Outcome::WaitForJobs(request, wait));
        }
        if left.is_empty() {
            return Ok(Outcome::Now(pulled_jobs(&self.queue, &[])?));
        }
        Ok(Outcome::WaitForJobs(PullRequest { queues: left, ..request }, HAND_OVER_TIME))
    }

    /// Lets a request wait for jobs.
    pub(super) fn wait_for_jobs(&self, request: PullRequest, time: Duration, parked: Parked) {
        let since = Instant::now();
        self.pullers.wait(Taker { request, since, until: since + time, client: Box::new(parked) });
    }

    pub(super) fn pull_workers(&self, _request: &Request) -> Result<Response, Response> {
        let workers = self.queue.pull_workers()?.into_iter().map(|worker| {
            let jobs = worker.jobs.into_iter();
            let jobs = jobs.map(|(id, job_type, lease_until_ms)| {
                json!({ "id": id, "type": job_type, "lease_until": rfc3339(lease_until_ms) })
            });
            json!({
                "name": worker.name,
                "last_seen": worker.last_seen_ms.map(rfc3339),
                "jobs": jobs.collect::<Vec<_>>(),
            })
        });
        Ok(Response::json(200, &json!({ "workers": workers.collect::<Vec<_>>() })))
    }
}

impl Client for Parked {
    fn has_hung_up(&self) -> bool {
        self.client_has_hung_up()
    }

    fn answer(self: Box<Self>, jobs: Vec<PulledJob>) {
        let response = pulled_jobs(self.queue(), &jobs).unwrap_or_else(Response::from);
        self.respond(response);
    }

    fn refuse(self: Box<Self>) {
        self.respond(Response::too_many_waiting());
    }
}

/// The jobs with what their worker needs: the token of the attempt, and when the attempt times out.
fn pulled_jobs(queue: &Queue, jobs: &[PulledJob]) -> Result<Response, Error> {
    let bytes = 64 + jobs.iter().map(|pulled| 128 + estimated_bytes(&pulled.job)).sum::<usize>();
    let mut json = Vec::with_capacity(bytes);
    json.extend_from_slice(br#"{"jobs":["#);
    for (place, PulledJob { attempt, job, timeout_at_ms, .. }) in jobs.iter().enumerate() {
        if place > 0 {
            json.push(b',');
        }
        // A write to memory does not fail.
        let _ = serde_json::to_writer(&mut json, job);
        // In place of the brace that ends the job.
        json.pop();
        let (token, timeout_at) = (queue.attempt_token(*attempt)?, rfc3339(*timeout_at_ms));
        json.extend_from_slice(format!(r#","token":"{token}","timeout_at":"{timeout_at}"}}"#).as_bytes());
    }
    json.extend_from_slice(b"]}");
    Ok(Response { status: 200, content_type: "application/json", headers: Vec::new(), body: json })
}
