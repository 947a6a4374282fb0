//! What a log line is about: a job, its type, the attempt, the server.
//!
//! They are fields of their own for loggers that know such (the program's own in JSON), and all but the server, whose log
//! it is, stand in front of the message for all others.

use std::fmt;

use crate::job::{Job, JobId};

/// The job that a log line is about, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct JobFields<'a> {
    pub(crate) job: JobId,
    pub(crate) job_type: Option<&'a str>,
    pub(crate) attempt: Option<u32>,
    pub(crate) server: Option<&'a str>,
}

impl<'a> JobFields<'a> {
    /// A job of which nothing more is known.
    pub fn job(job: JobId) -> JobFields<'a> {
        JobFields { job, job_type: None, attempt: None, server: None }
    }

    /// The attempt that runs, or has just ended.
    pub fn attempt(job: &'a Job) -> JobFields<'a> {
        JobFields {
            server: job.server.as_deref(),
            ..JobFields::job(job.id).of(&job.job_type, job.attempts + 1)
        }
    }

    /// With the job's type, and the attempt from 1.
    pub fn of(self, job_type: &'a str, attempt: u32) -> JobFields<'a> {
        JobFields { job_type: Some(job_type), attempt: Some(attempt), ..self }
    }

    /// On which server.
    pub fn on(self, server: &'a str) -> JobFields<'a> {
        JobFields { server: Some(server), ..self }
    }
}

impl fmt::Display for JobFields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "job={}", self.job)?;
        if let Some(job_type) = self.job_type {
            write!(f, " type={job_type:?}")?;
        }
        if let Some(attempt) = self.attempt {
            write!(f, " attempt={attempt}")?;
        }
        Ok(())
    }
}

/// Logs at a level (`error`, `warn`, `info`) what happened to the job that an [`JobFields`] names.
macro_rules! log_job {
    ($level:ident, $about:expr, $($message:tt)+) => {{
        let about: $crate::logging::job_fields::JobFields = $about;
        log::$level!(
            job = about.job.get(), "type" = about.job_type, attempt = about.attempt, server = about.server;
            "{about}: {}", format_args!($($message)+)
        );
    }};
}
pub(crate) use log_job;
