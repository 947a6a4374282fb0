//! What a job can have besides its type, payload and queue. Most jobs have none of it.

use std::time::Duration;

use serde::Serialize;

use super::bounds::Expiry;
use super::change::Change;
use super::limit::LimitName;
use super::time::Time;

/// What a new job has besides the fields of every job.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// The limits on its starts, at most 4, in the order of [`LimitName`] and each once: those of the submission and those
    /// of the job type.
    pub limits: Vec<LimitName>,
    /// Words by which jobs are found: 0 to 5 of 1 to 64 characters, none of them a control character. All differ.
    pub tags: Vec<String>,
    /// Names and values that are passed on and mean nothing to threadq, sorted by name: names of 1 to 64 of
    /// `A-Z a-z 0-9 _ -`, values without control characters, 1 KiB in all.
    pub meta: Vec<(String, String)>,
    /// After this time no attempt starts.
    pub expiry: Option<Expiry>,
    /// How long the job is kept after its end, 0 to 365 days. `None`: as long as the server's settings say.
    pub retain: Option<Duration>,
    /// How the job holds its unique key, and what becomes of the job if another one holds the key. Without a unique key
    /// this means nothing.
    pub unique: UniqueMode,
    /// The tick of the schedule that made the job.
    pub schedule: Option<ScheduleTick>,
}

/// How a job holds its unique key, and what a submission does if the key is held.
#[derive(Clone, Debug, Default)]
pub struct UniqueMode {
    /// How long the job holds its unique key.
    pub hold: Hold,
    /// What becomes of the submission if another job holds the key.
    pub on_conflict: OnConflict,
}

/// How long a job holds its unique key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Hold {
    /// Until the job has ended.
    #[default]
    UntilEnd,
    /// Until the first start of the job.
    UntilStart,
    /// For this time from the submission, 1 ms to 365 days, however the job ends.
    For(Duration),
}

/// What becomes of a submission whose unique key is held.
#[derive(Clone, Debug, Default)]
pub enum OnConflict {
    /// The submission is refused.
    #[default]
    Reject,
    /// The submission stores nothing and gets the id of the holder.
    Existing,
    /// The holder gets these values in place of a new job, if it holds the key until its start.
    Replace {
        /// The new values of the holder.
        change: Box<Change>,
        /// The holder becomes due at most this long after its own submission; `None`: any time later.
        max_wait: Option<Duration>,
    },
}

/// The tick of a schedule that made a job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ScheduleTick {
    /// The name of the schedule.
    pub name: String,
    /// The time for which the job was made, in milliseconds since 1970.
    #[serde(rename = "tick", serialize_with = "as_time")]
    pub tick_ms: u64,
}

fn as_time<S: serde::Serializer>(ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    Time(*ms).serialize(serializer)
}

/// Why a job was cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CancelReason {
    /// A person or a client cancelled the job.
    Request,
    /// The expiry of the job had passed before its first start.
    Expired,
    /// Another job has taken the place of the job.
    Replaced,
}
