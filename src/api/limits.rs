//! /limits: shows, defines and deletes limits.

use crate::api::body::{self, Invalid};
use crate::job::limit::{LIMIT_ALLOWED, LimitName, LimitNumbers};
use crate::job::rules::RESERVED_PREFIX;

/// The limit of a program, checked by the rules of the API: its name, and the body with its numbers.
///
/// # Errors
/// A sentence that names the field.
pub fn checked_limit(name: &str, body: &[u8]) -> Result<(LimitName, LimitNumbers), String> {
    let limit = LimitName::parse(name).filter(|limit| !limit.is_reserved()).ok_or_else(|| {
        format!("the name is not allowed; allowed: {LIMIT_ALLOWED}, not beginning with {RESERVED_PREFIX}")
    })?;
    let numbers = body::limit(body).map_err(|invalid| match invalid {
        Invalid::Json(sentence) | Invalid::Field(sentence) => sentence,
    })?;
    Ok((limit, numbers))
}
