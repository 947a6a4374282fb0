//! What the function of a route decides.

use std::time::Duration;

use crate::api::response::Response;
use crate::api::state::Api;
use crate::engine::group_commit::{NewJobs, SubmitResult};
use crate::job::JobId;
use crate::queue::PullRequest;

/// What the function of a route decides.
pub enum Outcome {
    Now(Response),
    /// Park the request, and respond when this job has what is awaited, or after this time.
    WaitForJob(JobId, Awaited, Duration),
    /// Park the request, and respond when there are jobs for it or after this time.
    WaitForJobs(PullRequest, Duration),
    /// Store these jobs, and respond with what the function makes of the result.
    Submit(NewJobs, Submitted),
}

/// What a request waits for.
#[derive(Clone, Copy)]
pub enum Awaited {
    /// The end of the job.
    End,
    /// A log line of this part of the log, or the end of the job.
    Lines(LogPart),
}

/// Which log lines a request wants.
#[derive(Clone, Copy)]
pub struct LogPart {
    /// The number of the line before them.
    pub after: u64,
    /// The most lines.
    pub limit: u32,
}

/// Makes the response to a submission.
pub type Submitted = fn(&Api, &NewJobs, SubmitResult) -> Result<Response, Response>;

impl From<Response> for Outcome {
    fn from(response: Response) -> Outcome {
        Outcome::Now(response)
    }
}
