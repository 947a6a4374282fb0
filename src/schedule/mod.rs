//! When the jobs of a schedule start: cron expressions, time zones, and the rules for ticks that are late.
//!
//! This module is pure: it knows neither Redis nor the clock. Times are milliseconds since 1970. `spec` checks what a
//! schedule says, `plan` computes ticks from it, `cron` reads cron expressions, and `zone` has the rules of time zones.

mod cron;
mod plan;
mod spec;
#[cfg(test)]
mod tests;
mod zone;

pub(crate) use self::plan::{Overlap, Plan};
pub(crate) use self::spec::Invalid;
pub use self::spec::Spec;
