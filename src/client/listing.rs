//! Many jobs, page by page.

use serde::Deserialize;

use super::job::Job;
use crate::job::{JobId, Status};

/// Which jobs [`Client::list`](super::Client::list) gives: newest first, all of them unless the fields say less.
///
/// A walk page by page meets every job that is there all the time exactly once, whatever comes and goes meanwhile:
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
    /// Only jobs of this status. Default: any.
    pub status: Option<Status>,
    /// Only jobs of this type. Default: any.
    pub job_type: Option<String>,
    /// Only jobs with smaller ids than this. Default: the newest jobs.
    pub before: Option<JobId>,
    /// The most jobs of a page, 1 to 100. Default 10.
    pub limit: u32,
}

impl Default for Listing {
    fn default() -> Listing {
        Listing { status: None, job_type: None, before: None, limit: 10 }
    }
}

impl Listing {
    /// The path and the query.
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

/// Some jobs of a listing, newest first.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Page {
    /// Large texts are left out, see [`Job::omitted`].
    pub jobs: Vec<Job>,
    /// How many jobs match in all.
    pub total: u64,
    /// The next page is [before](Listing::before) this id; `None` where this page is the last.
    pub next: Option<JobId>,
}
