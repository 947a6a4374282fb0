//! /jobs/ID/log: the log lines of a job.

use serde_json::json;

use crate::api::outcome::{Awaited, LogPart, Outcome};
use crate::api::request::Request;
use crate::api::response::Response;
use crate::api::state::Api;
use crate::job::{JobId, rfc3339};
use crate::queue::{JobLog, LogLine};

/// The log lines that a job keeps.
const MOST_LINES: u64 = 1_000;
/// The greatest number that JSON has exactly.
const MOST_AFTER: u64 = (1 << 53) - 1;

impl Api {
    /// Log lines; with `wait`, as soon as there are any or the job has ended.
    pub(super) fn log_or_wait(&self, id: JobId, request: &Request) -> Result<Outcome, Response> {
        let after = request.query.number("after", 0, 0, MOST_AFTER)?;
        let limit = request.query.number("limit", MOST_LINES, 1, MOST_LINES)?;
        let part = LogPart { after, limit: limit as u32 };
        let wait = request.query.wait()?.unwrap_or_default();
        let log = self.read_log(id, part)?;
        match log.lines.is_empty() && !log.is_final && !wait.is_zero() {
            true => Ok(Outcome::WaitForJob(id, Awaited::Lines(part), wait)),
            false => Ok(shown(&log).into()),
        }
    }

    /// The log lines that there are now.
    pub(super) fn log(&self, id: JobId, part: LogPart) -> Result<Response, Response> {
        Ok(shown(&self.read_log(id, part)?))
    }

    fn read_log(&self, id: JobId, part: LogPart) -> Result<JobLog, Response> {
        self.queue.job_log(id, part.after, part.limit)?.ok_or_else(Response::no_such_job)
    }
}

fn shown(log: &JobLog) -> Response {
    let bytes = 64 + log.lines.iter().map(|line| 80 + line.text.len()).sum::<usize>();
    let shown = |line: &LogLine| json!({ "n": line.number, "at": rfc3339(line.at_ms), "text": line.text });
    let lines: Vec<_> = log.lines.iter().map(shown).collect();
    Response::large_json(200, &json!({ "lines": lines, "total": log.last }), bytes)
}
