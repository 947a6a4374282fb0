//! POST /jobs/bulk: an operation on all jobs of a filter. A request works for a limited time, and the client sends the
//! cursor back as long as there is more: so nothing about the operation is kept here or in Redis.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::api::body::{Action, Bulk, bulk_cursor};
use crate::api::dlq::{MAX_CHANGED, MAX_LOOKED_AT};
use crate::api::request::Request;
use crate::api::response::Response;
use crate::api::state::Api;
use crate::job::{Change, JobId, Status};
use crate::queue::{ChangeResult, Changed, Filter, Position, Selection, Walk};

/// How long a request goes on to its next step.
const MAX_TIME: Duration = Duration::from_secs(5);

/// The body of the response.
#[derive(Default, Serialize)]
struct Report {
    /// The matching jobs among those that this request has looked at.
    matched: u64,
    /// The jobs that were changed, or whose handler was asked to stop.
    changed: u64,
    /// The matching jobs that were not changed.
    skipped: u64,
    /// Whether there are jobs at which no request has looked yet.
    more: bool,
    /// The cursor of the next request; null after the last request.
    cursor: Option<String>,
}

impl Api {
    pub(super) fn bulk(&self, request: &Request) -> Result<Response, Response> {
        let bulk = Bulk::parse(request.body)?;
        let Some(_slot) = self.bulk_slots.try_acquire() else {
            let sentence = "too many operations on many jobs run at this moment; retry later";
            return Err(Response::error(503, "overloaded", sentence).with("Retry-After", "1"));
        };
        let report = match self.quick_count(&bulk)? {
            Some(matched) => Report { matched, ..Report::default() },
            None => self.walk(&bulk)?,
        };
        Ok(Response::json(200, &report))
    }

    fn walk(&self, bulk: &Bulk) -> Result<Report, Response> {
        let begun = Instant::now();
        let mut report = Report::default();
        let mut here = bulk.walk;
        loop {
            let (ids, next) = self.queue.select(&bulk.selection, here, MAX_LOOKED_AT)?;
            // Between two steps Redis serves other clients.
            for ids in ids.chunks(MAX_CHANGED) {
                report.matched += ids.len() as u64;
                if !bulk.dry_run {
                    report.changed += self.change_many(bulk, ids)?;
                }
            }
            let Some(next) = next else { break };
            here = next;
            if begun.elapsed() >= MAX_TIME {
                report.more = true;
                report.cursor = Some(bulk_cursor(here));
                break;
            }
        }
        if !bulk.dry_run {
            report.skipped = report.matched - report.changed;
        }
        Ok(report)
    }

    /// Changes jobs and returns the number of those that were changed.
    fn change_many(&self, bulk: &Bulk, ids: &[JobId]) -> Result<u64, Response> {
        let wanted = &bulk.selection.statuses;
        let changed = match &bulk.action {
            Action::Cancel => self.cancel_jobs(ids, wanted)?,
            Action::Delete => self.queue.delete(ids, wanted)?,
            Action::Retry => self.queue.retry(ids, wanted)?,
            Action::Change(change) => return self.change_waiting(ids, wanted, change),
            // A queued job is ready already.
            Action::Run(change) => {
                let may_run = |status: &Status| wanted.is_empty() || wanted.contains(status);
                let wanted: Vec<Status> =
                    [Status::Scheduled, Status::Retrying].into_iter().filter(may_run).collect();
                return if wanted.is_empty() { Ok(0) } else { self.change_waiting(ids, &wanted, change) };
            }
        };
        let is_done = |changed: &&Changed| matches!(changed, Changed::Done | Changed::Requested(_));
        Ok(changed.iter().filter(is_done).count() as u64)
    }

    fn change_waiting(&self, ids: &[JobId], wanted: &[Status], change: &Change) -> Result<u64, Response> {
        let results = self.change_jobs(ids, wanted, change)?;
        Ok(results.iter().filter(|result| matches!(result, ChangeResult::Changed { .. })).count() as u64)
    }

    /// The number of jobs of a dry run, if an index has this number: then no job needs to be looked at.
    fn quick_count(&self, bulk: &Bulk) -> Result<Option<u64>, Response> {
        let Selection { statuses, job_type, tag, queue, created_after, created_before, ids, error } =
            &bulk.selection;
        let is_indexed = queue.is_none() && ids.is_none() && error.is_none();
        let has_one_index = job_type.is_none() || tag.is_none();
        if !bulk.dry_run || !is_indexed || !has_one_index || bulk.walk != Walk::default() {
            return Ok(None);
        }
        let filter = Filter {
            status: None,
            job_type: job_type.clone(),
            tag: tag.clone(),
            created_after: *created_after,
            created_before: *created_before,
        };
        let count = |status| -> Result<u64, Response> {
            let filter = Filter { status, ..filter.clone() };
            Ok(self.queue.list(&filter, Position::Offset(0), 1)?.total)
        };
        if statuses.is_empty() {
            return count(None).map(Some);
        }
        let mut matched = 0;
        for status in Status::ALL.into_iter().filter(|status| statuses.contains(status)) {
            matched += count(Some(status))?;
        }
        Ok(Some(matched))
    }
}
