//! The body of POST /dlq/retry.

use super::fields::{Fields, Invalid, Whole, json};
use crate::job::{JobId, limits};

/// The body of POST /dlq/retry.
pub struct RetryDeadLetters {
    pub job_type: Option<String>,
    pub ids: Option<Vec<JobId>>,
    pub dry_run: bool,
}

impl RetryDeadLetters {
    pub fn parse(body: &[u8]) -> Result<RetryDeadLetters, Invalid> {
        let fields = Fields::of(json(body)?, String::new(), &["type", "ids", "dry_run"])?;
        let job_type = fields.text("type", &limits::JOB_TYPE)?;
        let ids = fields.get("ids", "an array of job ids", |ids: &Vec<Whole>| {
            ids.iter().all(|id| JobId::new(id.0).is_some())
        })?;
        let dry_run = fields.get("dry_run", "true or false", |_: &bool| true)?;
        let mut ids: Option<Vec<JobId>> =
            ids.map(|ids| ids.into_iter().filter_map(|id| JobId::new(id.0)).collect());
        if let Some(ids) = &mut ids {
            ids.sort_unstable();
            ids.dedup();
        }
        Ok(RetryDeadLetters { job_type, ids, dry_run: dry_run.unwrap_or(false) })
    }
}
