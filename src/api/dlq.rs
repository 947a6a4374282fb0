//! /dlq: the dead letter queue.

use serde_json::json;

use crate::job::{JobId, Status};
use crate::queue::{Changed, Filter, Selection, Walk};

use crate::api::body::RetryDeadLetters;
use crate::api::request::Request;
use crate::api::response::Response;
use crate::api::state::Api;

/// The most jobs that one script looks at, and that one script changes, so that each step blocks Redis for about 4 ms at
/// most.
pub(super) const MAX_LOOKED_AT: usize = 500;
pub(super) const MAX_CHANGED: usize = 50;

impl Api {
    pub(super) fn list_dead_letters(&self, request: &Request) -> Result<Response, Response> {
        self.list(&request.query, Filter { status: Some(Status::Failed), ..request.query.filter()? })
    }

    pub(super) fn retry_dead_letters(&self, request: &Request) -> Result<Response, Response> {
        let RetryDeadLetters { selection, dry_run } = RetryDeadLetters::parse(request.body)?;
        let (mut matched, mut retried) = (0, 0);
        self.for_dead_letters(selection, |ids| {
            matched += ids.len();
            if !dry_run {
                retried += done(&self.queue.retry(ids, &[Status::Failed])?);
            }
            Ok(())
        })?;
        Ok(Response::json(200, &json!({ "matched": matched, "retried": retried })))
    }

    pub(super) fn delete_dead_letters(&self, request: &Request) -> Result<Response, Response> {
        let mut deleted = 0;
        self.for_dead_letters(request.query.selection()?, |ids| {
            deleted += done(&self.queue.delete(ids, &[Status::Failed])?);
            Ok(())
        })?;
        Ok(Response::json(200, &json!({ "deleted": deleted })))
    }

    /// Calls `work` with the dead letters of a selection, in batches by rising id. A job that fails again meanwhile is not
    /// passed twice.
    fn for_dead_letters(
        &self,
        selection: Selection,
        mut work: impl FnMut(&[JobId]) -> Result<(), Response>,
    ) -> Result<(), Response> {
        let selection = Selection { statuses: vec![Status::Failed], ..selection };
        let mut walk = Some(Walk::default());
        while let Some(here) = walk {
            let (ids, next) = self.queue.select(&selection, here, MAX_LOOKED_AT)?;
            ids.chunks(MAX_CHANGED).try_for_each(&mut work)?;
            walk = next;
        }
        Ok(())
    }
}

fn done(changed: &[Changed]) -> usize {
    changed.iter().filter(|changed| **changed == Changed::Done).count()
}
