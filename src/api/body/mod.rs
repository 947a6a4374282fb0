//! Request bodies.
//!
//! * `fields`: JSON objects, parsed strictly.
//! * `job`: a new job, alone, in a batch or as part of a schedule, and a change of a job. `unique`: its unique key.
//! * `selection`: the choice of jobs for an operation on many. `bulk`, `dead_letters`: the bodies that have such a choice.
//! * `pull`: a request for jobs. `attempt`: what a pull worker says of its attempts.
//! * `schedule`: a schedule, its preview and its run. `limit`: the numbers of a limit.

mod attempt;
mod bulk;
mod dead_letters;
mod fields;
mod job;
mod limit;
mod pull;
mod schedule;
mod selection;
mod unique;

pub use self::attempt::{End, end, ends, report};
pub use self::bulk::{Action, Bulk, cursor as bulk_cursor};
pub use self::dead_letters::RetryDeadLetters;
pub use self::fields::{Invalid, flag};
#[cfg(any(test, fuzzing))]
pub use self::job::scheduled;
pub use self::job::{batch, change_of_job, job};
pub use self::limit::limit;
pub use self::pull::{Pull, pull};
pub use self::schedule::{Preview, checked_schedule, schedule};
