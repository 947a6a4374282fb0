//! Lists jobs page by page.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::job::Job;
use crate::job::time::rfc3339_micros;
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
    /// Only jobs with this tag; not together with a type. Default: jobs with and without tags.
    pub tag: Option<String>,
    /// Only jobs that were created at this time or later, by the clock of Redis. Default: however old.
    pub created_after: Option<SystemTime>,
    /// Only jobs that were created before this time. Default: however new.
    pub created_before: Option<SystemTime>,
    /// Only jobs with a smaller id. Default: start with the newest job.
    pub before: Option<JobId>,
    /// The largest number of jobs in a page, 1 to 100. Default: 10.
    pub limit: u32,
}

impl Default for Listing {
    fn default() -> Listing {
        Listing {
            status: None,
            job_type: None,
            tag: None,
            created_after: None,
            created_before: None,
            before: None,
            limit: 10,
        }
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
        if let Some(tag) = &self.tag {
            query.append_pair("tag", tag);
        }
        for (name, time) in [("created_after", self.created_after), ("created_before", self.created_before)] {
            if let Some(time) = time {
                query.append_pair(name, &time_text(time));
            }
        }
        if let Some(before) = self.before {
            query.append_pair("before", &before.to_string());
        }
        query.finish()
    }
}

/// A time in microseconds, rounded up, so that the bound stays exact for job ids.
pub(super) fn time_text(time: SystemTime) -> String {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339_micros(u64::try_from(since_1970.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX))
}

/// One page of a listing.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Page {
    /// The jobs: newest first; on pages of a queue in the order in which they start. Large fields are left out, see [`Job::omitted`].
    pub jobs: Vec<Job>,
    /// The number of jobs that match, on all pages.
    pub total: u64,
    /// The [`before`](Listing::before) of the next page; `None` if this page is the last, and on pages of a queue.
    pub next: Option<JobId>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_field_is_a_parameter_of_its_name() {
        assert_eq!(Listing::default().path(), "/jobs?limit=10");
        let at = |nanos| Some(UNIX_EPOCH + Duration::from_secs(1_764_000_000) + Duration::from_nanos(nanos));
        let listing = Listing {
            status: Some(Status::Queued),
            tag: Some("customer 42".to_owned()),
            created_after: at(123_056_001),
            created_before: at(500_000_000),
            before: JobId::new(7),
            limit: 100,
            ..Listing::default()
        };
        let expected = "/jobs?limit=100&status=queued&tag=customer+42\
                        &created_after=2025-11-24T16%3A00%3A00.123057Z\
                        &created_before=2025-11-24T16%3A00%3A00.500000Z&before=7";
        assert_eq!(listing.path(), expected);
        let listing = Listing { job_type: Some("a&b".to_owned()), ..Listing::default() };
        assert_eq!(listing.path(), "/jobs?limit=10&type=a%26b");
    }
}
