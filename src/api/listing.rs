//! Listings: pages of jobs.

use crate::job::{Job, JobId};
use crate::queue::{Filter, Page, Position};

use crate::api::query::Query;
use crate::api::request::Request;
use crate::api::response::Response;
use crate::api::state::Api;

impl Api {
    /// One page of the jobs that match the filter.
    pub(super) fn list(&self, query: &Query, filter: Filter) -> Result<Response, Response> {
        query.not_both("page", "before")?;
        // A page beyond the last job is valid and empty.
        let page = query.number("page", 1, 1, u32::MAX.into())?;
        let limit = query.number("limit", 10, 1, 100)?;
        let (page, from) = match query.id("before")? {
            Some(id) => (None, Position::Before(id)),
            None => (Some(page), Position::Offset((page - 1) * limit)),
        };
        let _slot = self.listings.acquire();
        let found = self.queue.list(&filter, from, limit)?;
        Ok(listing(&found, page, limit, Some(found.next)))
    }

    /// A page of the jobs that wait in a queue, in the order in which the jobs start.
    pub(super) fn queue_jobs(&self, name: &str, request: &Request) -> Result<Response, Response> {
        let page = request.query.number("page", 1, 1, u32::MAX.into())?;
        let limit = request.query.number("limit", 10, 1, 100)?;
        let _slot = self.listings.acquire();
        Ok(listing(&self.queue.list_queue(name, (page - 1) * limit, limit)?, Some(page), limit, None))
    }
}

fn listing(found: &Page, page: Option<u64>, limit: u64, next: Option<Option<JobId>>) -> Response {
    let Page { jobs, total, .. } = found;
    let bytes = 1024 + jobs.iter().map(estimated_bytes).sum::<usize>();
    Response::large_json(200, &Listing { jobs, page, limit, total: *total, next }, bytes)
}

/// Estimates the length of a job as JSON. The estimate is rarely too small.
pub(super) fn estimated_bytes(job: &Job) -> usize {
    let errors: usize = job.errors.iter().map(|error| 100 + error.message.len()).sum();
    let last_error = job.last_error().map_or(0, str::len);
    1024 + job.payload.get().len()
        + job.result.as_ref().map_or(0, |result| result.get().len())
        + errors
        + last_error
}

/// The body of the response.
#[derive(serde::Serialize)]
struct Listing<'a> {
    jobs: &'a [Job],
    /// Left out when the request has `before`.
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<u64>,
    limit: u64,
    total: u64,
    /// Left out of a listing that has no `before`.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Option<JobId>>,
}
