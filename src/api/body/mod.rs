//! Request bodies.
//!
//! * `fields`: JSON objects, parsed strictly.
//! * `job`: a new job, alone, in a batch or as part of a schedule, and a change of a job. `unique`: its unique key.
//! * `dead_letters`: the choice of dead letters.

mod dead_letters;
mod fields;
mod job;
mod unique;

pub use self::dead_letters::RetryDeadLetters;
#[expect(unused_imports)]
pub use self::fields::Invalid;
pub use self::job::{batch, job};
#[cfg_attr(not(any(test, fuzzing)), expect(unused_imports))]
pub use self::job::{change, scheduled};
