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
    /// Park the request, and respond when this job ends or after this time.
    WaitForJob(JobId, Duration),
    /// Park the request, and respond when there are jobs for it or after this time.
    WaitForJobs(PullRequest, Duration),
    /// Store these jobs, and respond with what the function makes of the result.
    Submit(NewJobs, Submitted),
}

/// Makes the response to a submission.
pub type Submitted = fn(&Api, &NewJobs, SubmitResult) -> Result<Response, Response>;

impl From<Response> for Outcome {
    fn from(response: Response) -> Outcome {
        Outcome::Now(response)
    }
}
