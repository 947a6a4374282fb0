//! Lists jobs page by page.

use serde::Deserialize;

use super::job::Job;
use crate::job::{JobId, Status};

/// The filter and the page of [`Client::list`](super::Client::list). The default lists all jobs, newest first.
///
/// A walk page by page returns every job that exists during the whole walk exactly once, also while other jobs are added and
/// removed:
///
/// ```no_run
/// use threadq::client::{Client, Error, Listing};
/// use threadq::job::Status;
///
/// fn show_failed(client: &Client) -> Result<(), Error> {
///     let mut listing = Listing { status: Some(Status::Failed), limit: 100, ..Listing::default() };
///     loop {
///         let page = client.list(&listing)?;
///         for job in &page.jobs {
///             println!("{}: {}", job.id, job.last_error.as_deref().unwrap_or_default());
///         }
///         let Some(next) = page.next else { return Ok(()) };
///         listing.before = Some(next);
///     }
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listing {
    /// Only jobs of this status. Default: jobs of every status.
    pub status: Option<Status>,
    /// Only jobs of this type. Default: jobs of every type.
    pub job_type: Option<String>,
    /// Only jobs with a smaller id. Default: start with the newest job.
    pub before: Option<JobId>,
    /// The largest number of jobs in a page, 1 to 100. Default: 10.
    pub limit: u32,
}

impl Default for Listing {
    fn default() -> Listing {
        Listing { status: None, job_type: None, before: None, limit: 10 }
    }
}

impl Listing {
    /// The path and the query of the request.
    pub(super) fn path(&self) -> String {
        let mut query = form_urlencoded::Serializer::for_suffix("/jobs?".to_owned(), "/jobs?".len());
        query.append_pair("limit", &self.limit.to_string());
        if let Some(status) = self.status {
            query.append_pair("status", status.as_str());
        }
        if let Some(job_type) = &self.job_type {
            query.append_pair("type", job_type);
        }
        if let Some(before) = self.before {
            query.append_pair("before", &before.to_string());
        }
        query.finish()
    }
}

/// One page of a listing.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Page {
    /// The jobs, newest first. Large fields are left out, see [`Job::omitted`].
    pub jobs: Vec<Job>,
    /// The number of jobs that match, on all pages.
    pub total: u64,
    /// The [`before`](Listing::before) of the next page; `None` if this page is the last.
    pub next: Option<JobId>,
}
