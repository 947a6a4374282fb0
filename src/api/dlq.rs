//! /dlq: the dead letter queue.

use serde_json::json;

use crate::job::{JobId, Status};
use crate::queue::{Changed, Filter};

use crate::api::body::RetryDeadLetters;
use crate::api::request::Request;
use crate::api::response::Response;
use crate::api::state::Api;

/// The most dead letters that one script changes, so that a long list does not block Redis for other clients.
const BATCH: u32 = 200;

impl Api {
    pub(super) fn list_dead_letters(&self, request: &Request) -> Result<Response, Response> {
        self.list(&request.query, Filter { status: Some(Status::Failed), ..request.query.filter()? })
    }

    pub(super) fn retry_dead_letters(&self, request: &Request) -> Result<Response, Response> {
        let wanted = RetryDeadLetters::parse(request.body)?;
        let (mut matched, mut retried) = (0, 0);
        let mut retry = |ids: &[JobId]| -> Result<(), Response> {
            matched += ids.len();
            if !wanted.dry_run {
                let changed = self.queue.retry(ids, Some(Status::Failed))?;
                retried += changed.iter().filter(|changed| **changed == Changed::Done).count();
            }
            Ok(())
        };
        match &wanted.ids {
            Some(ids) => ids
                .chunks(BATCH as usize)
                .try_for_each(|ids| retry(&self.dead_letters_among(ids, &wanted.job_type)?))?,
            None => self.for_all_dead_letters(wanted.job_type.as_deref(), retry)?,
        }
        Ok(Response::json(200, &json!({ "matched": matched, "retried": retried })))
    }

    pub(super) fn delete_dead_letters(&self, request: &Request) -> Result<Response, Response> {
        let Filter { job_type, .. } = request.query.filter()?;
        let mut deleted = 0;
        self.for_all_dead_letters(job_type.as_deref(), |ids| {
            let changed = self.queue.delete(ids, Some(Status::Failed))?;
            deleted += changed.iter().filter(|changed| **changed == Changed::Done).count();
            Ok(())
        })?;
        Ok(Response::json(200, &json!({ "deleted": deleted })))
    }

    /// Returns the ids of the list that are dead letters, of this type if one is given.
    fn dead_letters_among(&self, ids: &[JobId], job_type: &Option<String>) -> Result<Vec<JobId>, Response> {
        let is_wanted = |found: &Option<(Status, String)>| {
            let Some((Status::Failed, found)) = found else { return false };
            job_type.as_ref().is_none_or(|job_type| job_type == found)
        };
        let statuses = self.queue.statuses(ids)?;
        let dead = ids.iter().zip(statuses).filter(|(_, found)| is_wanted(found));
        Ok(dead.map(|(id, _)| *id).collect())
    }

    /// Calls `work` with all dead letters, in batches by rising id: a job that fails again meanwhile is not passed twice.
    fn for_all_dead_letters(
        &self,
        job_type: Option<&str>,
        mut work: impl FnMut(&[JobId]) -> Result<(), Response>,
    ) -> Result<(), Response> {
        let mut last = None;
        loop {
            let ids = self.queue.dead_ids(job_type, last, BATCH)?;
            let Some(newest) = ids.last() else { return Ok(()) };
            last = Some(*newest);
            work(&ids)?;
        }
    }
}
