//! The body of POST /dlq/retry.

use super::fields::{Fields, Invalid, json};
use super::selection::{SELECTION, selection};
use crate::queue::Selection;

/// The body of POST /dlq/retry.
pub struct RetryDeadLetters {
    pub selection: Selection,
    pub dry_run: bool,
}

impl RetryDeadLetters {
    pub fn parse(body: &[u8]) -> Result<RetryDeadLetters, Invalid> {
        let fields = Fields::of(json(body)?, String::new(), &[&SELECTION[..], &["dry_run"]].concat())?;
        let dry_run = fields.get("dry_run", "true or false", |_: &bool| true)?;
        Ok(RetryDeadLetters { selection: selection(&fields)?, dry_run: dry_run.unwrap_or(false) })
    }
}
