//! The time from which a job may start, and the time after which the job may not start any more.

/// When a new job becomes ready, that is, enters its queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Start {
    /// At once.
    #[default]
    Now,
    /// A delay in milliseconds, from the moment when Redis has stored the job.
    AfterMs(u64),
    /// At this time in milliseconds since 1970, by Redis's clock; at once if the time has passed.
    AtMs(u64),
}

/// The time after which no attempt of a job starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// A time in milliseconds since 1970, by Redis's clock.
    AtMs(u64),
    /// Milliseconds from the moment when Redis has stored the job, 1 to 31536000000.
    AfterMs(u64),
}
