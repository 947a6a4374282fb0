//! The fields of log lines about a job: id, type, attempt and server.
//!
//! Loggers that support fields get all four, as the program's own does in JSON. In the text of the message stand all but
//! the server, since each server has its own log.

use std::fmt;

use crate::job::{Job, JobId};

/// The job that a log line is about, with the fields that are known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobFields<'a> {
    pub job: JobId,
    pub job_type: Option<&'a str>,
    pub attempt: Option<u32>,
    pub server: Option<&'a str>,
}

impl<'a> JobFields<'a> {
    /// A job of which only the id is known.
    pub fn job(job: JobId) -> JobFields<'a> {
        JobFields { job, job_type: None, attempt: None, server: None }
    }

    /// The attempt that runs or has just ended. `job` is as it was when the attempt started.
    pub fn attempt(job: &'a Job) -> JobFields<'a> {
        let known = JobFields::job(job.id).with_attempt(&job.job_type, job.attempts + 1);
        JobFields { server: job.server.as_deref(), ..known }
    }

    /// Adds the job's type, and the number of the attempt from 1.
    pub fn with_attempt(self, job_type: &'a str, attempt: u32) -> JobFields<'a> {
        JobFields { job_type: Some(job_type), attempt: Some(attempt), ..self }
    }

    /// Adds the id of the server that ran the attempt.
    pub fn on_server(self, server: &'a str) -> JobFields<'a> {
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

/// Logs at a level (`error`, `warn`, `info`) what happened to the job that a [`JobFields`] names.
macro_rules! log_job {
    ($level:ident, $fields:expr, $($message:tt)+) => {{
        let fields: $crate::logging::job_fields::JobFields = $fields;
        log::$level!(
            job = fields.job.get(), "type" = fields.job_type, attempt = fields.attempt, server = fields.server;
            "{fields}: {}", format_args!($($message)+)
        );
    }};
}
pub(crate) use log_job;
