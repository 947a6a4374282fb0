//! /dlq: the dead letter queue.

use serde_json::json;

use crate::job::{JobId, Status};
use crate::queue::{Changed, Filter};

use super::body::RetryDeadLetters;
use super::query::Query;
use super::{Api, Request};
use crate::api::response::{Answer, Reply};

/// How many dead letters one step changes, so that a long list holds up nobody.
const STEP: u32 = 200;

impl Api {
    pub(super) fn list_dead_letters(&self, query: &str) -> Answer {
        let query = Query::parse(query, &["page", "before", "limit", "type"])?;
        self.list(&query, Filter { status: Some(Status::Failed), job_type: query.job_type()? })
    }

    pub(super) fn retry_dead_letters(&self, request: &Request) -> Answer {
        let wanted = RetryDeadLetters::parse(request.json_body()?)?;
        let (mut matched, mut retried) = (0, 0);
        let mut retry = |ids: &[JobId]| -> Result<(), Reply> {
            matched += ids.len();
            if !wanted.dry_run {
                let changed = self.queue.retry(ids, Some(Status::Failed))?;
                retried += changed.iter().filter(|changed| **changed == Changed::Done).count();
            }
            Ok(())
        };
        match &wanted.ids {
            Some(ids) => ids
                .chunks(STEP as usize)
                .try_for_each(|ids| retry(&self.dead_among(ids, &wanted.job_type)?))?,
            None => self.for_all_dead(wanted.job_type.as_deref(), retry)?,
        }
        Ok(Reply::json(200, &json!({ "matched": matched, "retried": retried })))
    }

    pub(super) fn delete_dead_letters(&self, query: &str) -> Answer {
        let job_type = Query::parse(query, &["type"])?.job_type()?;
        let mut deleted = 0;
        self.for_all_dead(job_type.as_deref(), |ids| {
            let changed = self.queue.delete(ids, Some(Status::Failed))?;
            deleted += changed.iter().filter(|changed| **changed == Changed::Done).count();
            Ok(())
        })?;
        Ok(Reply::json(200, &json!({ "deleted": deleted })))
    }

    /// Those of the ids that are dead letters, of this type if one is named.
    fn dead_among(&self, ids: &[JobId], job_type: &Option<String>) -> Result<Vec<JobId>, Reply> {
        let is_wanted = |found: &Option<(Status, String)>| {
            let Some((Status::Failed, found)) = found else { return false };
            job_type.as_ref().is_none_or(|job_type| job_type == found)
        };
        let statuses = self.queue.statuses(ids)?;
        let dead = ids.iter().zip(statuses).filter(|(_, found)| is_wanted(found));
        Ok(dead.map(|(id, _)| *id).collect())
    }

    /// Works off all dead letters, in steps and by rising id: a job that fails again meanwhile is not met twice.
    fn for_all_dead(
        &self,
        job_type: Option<&str>,
        mut work: impl FnMut(&[JobId]) -> Result<(), Reply>,
    ) -> Result<(), Reply> {
        let mut last = None;
        loop {
            let ids = self.queue.dead_ids(job_type, last, STEP)?;
            let Some(newest) = ids.last() else { return Ok(()) };
            last = Some(*newest);
            work(&ids)?;
        }
    }
}
