//! `threadq enqueue TYPE`: submits one job and, with `--wait`, waits until the job ends.

use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use super::submission::submission;
use super::unserved::{Stored, warn_of_unserved};
use crate::cli::args::{Args, idempotency_key};
use crate::cli::client::{Client, RETRY_INTERVAL, Response, retried};
use crate::cli::commands::jobs::cancel_reason;
use crate::cli::error::Error;
use crate::cli::responses::short_span;
use crate::cli::terminal::console::Console;
use crate::cli::terminal::progress::Bar;
use crate::client::{Job, MAX_WAIT, Progress, Submitted, poll_job};
use crate::job::time::parse_rfc3339;
use crate::job::{DEFAULT_QUEUE, JobId, Status};
use crate::logging::escape::escape;

/// Submits the job that the arguments describe.
pub(super) fn enqueue_one(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    let idempotency_key = args.read("idempotency-key", idempotency_key)?;
    let submission = submission(args, console)?;
    let response = client.post_json("/jobs", &submission, idempotency_key.as_deref())?;
    let submitted: Submitted = response.parse()?;
    let id = submitted.id;
    if submitted.existing {
        console.note(&format!("job {id} holds the unique key; no new job is stored"));
    } else {
        let what = format!("job {id} is stored");
        let queue = submission.queue.as_deref().or(Some(DEFAULT_QUEUE));
        warn_of_unserved(&Stored { what: &what, whose: "its", queue }, response.unserved, client, console);
    }
    if submitted.replaced {
        console.note(&format!("job {id} holds the unique key and got the new fields; no new job is stored"));
    }

    let (wait, json) = (args.has("wait"), args.has("json"));
    if !json {
        writeln!(console.out, "{id}")?;
    } else if !wait {
        console.json(&response.body)?;
    }
    if !wait {
        return Ok(ExitCode::SUCCESS);
    }
    // A program that reads the id needs it now, not when the job ends.
    console.out.flush()?;
    let (job, response) = wait_for_end(client, id, console)?;
    if json {
        console.json(&response.body)?;
    } else if console.out_is_terminal {
        write_end(&job, console)?;
    }
    Ok(report(&job, console))
}

/// Writes the status of an ended job, the time since its submission, its attempts, and its result.
fn write_end(job: &Job, console: &mut Console) -> io::Result<()> {
    let times = parse_rfc3339(&job.created_at).zip(job.finished_at.as_deref().and_then(parse_rfc3339));
    let ms = times.and_then(|(from, to)| to.checked_sub(from));
    let took = ms.map_or(String::new(), |ms| format!(" after {}", short_span(ms)));
    writeln!(console.out, "{}{took}, attempts {} of {}", job.status, job.attempts, job.max_attempts)?;
    match &job.result {
        Some(result) if job.status == Status::Completed => {
            writeln!(console.out, "result: {}", escape(result.get()))
        }
        _ => Ok(()),
    }
}

/// Polls until the job has ended. A transient error is retried for [`OUTAGE_LIMIT`]: the job is stored.
fn wait_for_end(client: &Client, id: JobId, console: &mut Console) -> Result<(Job, Response), Error> {
    loop {
        let sent = Instant::now();
        // The progress of a job is only seen by asking again.
        let wait = if console.can_show_bar() { RETRY_INTERVAL } else { MAX_WAIT };
        let stored = format!("job {id} is stored, but: ");
        let response = retried(&stored, console, || poll_job(client, id, wait))?;
        let job: Job = response.parse()?;
        if job.has_ended() {
            console.clear_bar();
            return Ok((job, response));
        }
        show_progress(&job, console);
        // Only if the server answered at once.
        thread::sleep(RETRY_INTERVAL.saturating_sub(sent.elapsed()));
    }
}

/// Shows how far a running job is, if its attempt has said that.
fn show_progress(job: &Job, console: &mut Console) {
    match &job.progress {
        Some(Progress { value, message, .. }) if job.status == Status::Processing => {
            let done = (value.clamp(0.0, 1.0) * 1000.0) as u64;
            console.show_bar(&Bar { what: "running", done, total: 1000, result: escape(message) });
        }
        _ => console.clear_bar(),
    }
}

/// Prints on stderr why the job did not complete. Returns the exit code.
fn report(job: &Job, console: &mut Console) -> ExitCode {
    let error = job.last_error.as_deref();
    match job.status {
        Status::Completed => return ExitCode::SUCCESS,
        Status::Failed => {
            console.note(&format!("job {} failed: {}", job.id, error.unwrap_or("unknown error")))
        }
        status => {
            let reason = job.cancel_reason.as_deref().filter(|reason| *reason != "request");
            let why = reason.map_or(String::new(), |reason| format!(": {}", cancel_reason(reason)));
            console.note(&format!("job {} was {status}{why}", job.id));
        }
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use crate::cli::testing::{FakeServer, job, run};
    use crate::logging::escape::json_line;

    const SUBMITTED: (u16, &str) =
        (202, r#"{"message": "Job submitted successfully", "job_id": 17, "status": "queued"}"#);

    #[test]
    fn the_idempotency_key_is_a_header_and_a_replay_prints_the_first_id() {
        let server = FakeServer::start(&[(200, SUBMITTED.1)]);
        let done = server.run(&["enqueue", "a", "--idempotency-key", "k-1"]);
        assert_eq!((done.code, done.out.as_str()), (0, "17\n"));
        assert_eq!(server.request().header("idempotency-key"), Some("k-1"));
    }

    #[test]
    fn a_refusal_is_printed_with_its_code() {
        let server = FakeServer::start(&[(
            409,
            r#"{"error": "Job 9 has this key", "code": "duplicate", "job_id": 9}"#,
        )]);
        let done = server.run(&["enqueue", "a", "--unique-key", "k"]);
        assert_eq!((done.code, done.out.as_str()), (1, ""));
        assert_eq!(done.err, "threadq: Job 9 has this key (duplicate)\n");
    }

    #[test]
    fn a_job_that_holds_the_unique_key_is_named() {
        for (told, expected) in [
            ("existing", "threadq: job 17 holds the unique key; no new job is stored\n"),
            (
                "replaced",
                "threadq: job 17 holds the unique key and got the new fields; no new job is stored\n",
            ),
        ] {
            let answer = format!(r#"{{"job_id": 17, "status": "queued", "{told}": true}}"#);
            let server = FakeServer::start(&[(200, &answer)]);
            let done = server.run(&["enqueue", "a", "--unique", "k", "--on-conflict", "existing"]);
            assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "17\n", expected));
        }
    }

    #[test]
    fn json_prints_the_response_unchanged() {
        let server = FakeServer::start(&[SUBMITTED]);
        let done = server.run(&["enqueue", "a", "--json"]);
        assert_eq!(done.out, format!("{}\n", SUBMITTED.1));
    }

    #[test]
    fn wait_polls_until_the_job_has_completed() {
        let server =
            FakeServer::start(&[SUBMITTED, (200, &job(17, "processing")), (200, &job(17, "completed"))]);
        let done = server.run(&["enqueue", "a", "--wait"]);
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "17\n", ""));
        assert_eq!(server.request().line, "POST /jobs");
        assert_eq!(server.request().line, "GET /jobs/17?wait=60s");
        assert_eq!(server.request().line, "GET /jobs/17?wait=60s");
    }

    #[test]
    fn waiting_on_a_terminal_shows_the_progress() {
        let progress =
            r#", "progress": {"value": 0.5, "message": "page \u001b[2J", "at": "2026-11-24T08:00:02.000Z"}}"#;
        let with_progress =
            |status| job(17, status).trim_end().strip_suffix('}').unwrap().to_owned() + progress;
        let server = FakeServer::start(&[
            SUBMITTED,
            (200, &with_progress("processing")),
            (200, &with_progress("retrying")),
            (200, &with_progress("completed")),
        ]);
        let done = server.run_on_terminal(&["enqueue", "a", "--wait"], &[]);
        assert_eq!(done.code, 0);
        let bar = "\rrunning [###############---------------]   50 %  page \\u{1b}[2J\u{1b}[K\r\u{1b}[K";
        assert_eq!(done.err, bar);
        assert_eq!(server.request().line, "POST /jobs");
        assert_eq!(server.request().line, "GET /jobs/17?wait=1s");
    }

    #[test]
    fn waiting_for_a_job_that_fails_prints_its_error_and_exits_1() {
        let server = FakeServer::start(&[SUBMITTED, (200, &job(17, "failed"))]);
        let done = server.run(&["enqueue", "a", "--wait"]);
        assert_eq!((done.code, done.out.as_str()), (1, "17\n"));
        assert_eq!(done.err, "threadq: job 17 failed: disk\\nfull\n");

        let server = FakeServer::start(&[SUBMITTED, (200, &job(17, "cancelled"))]);
        let done = server.run(&["enqueue", "a", "--wait"]);
        assert_eq!((done.code, done.err.as_str()), (1, "threadq: job 17 was cancelled\n"));

        let expired = job(17, "cancelled").replacen('{', r#"{"cancel_reason": "expired", "#, 1);
        let done = FakeServer::start(&[SUBMITTED, (200, &expired)]).run(&["enqueue", "a", "--wait"]);
        assert_eq!(done.err, "threadq: job 17 was cancelled: it expired before its first start\n");
    }

    #[test]
    fn waiting_on_a_terminal_prints_how_the_job_ended() {
        let completed =
            job(17, "completed").replace(r#""result": null"#, r#""result": {"file": "a\u0007.mp4"}"#);
        let server = FakeServer::start(&[SUBMITTED, (200, &completed)]);
        let done = server.run_on_terminal(&["enqueue", "a", "--wait"], &[]);
        let expected = "17\ncompleted after 2 s, attempts 1 of 5\nresult: {\"file\": \"a\\u0007.mp4\"}\n";
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, expected, ""));

        let server = FakeServer::start(&[SUBMITTED, (200, &job(17, "failed"))]);
        let done = server.run_on_terminal(&["enqueue", "a", "--wait"], &[]);
        assert_eq!((done.code, done.out.as_str()), (1, "17\nfailed after 2 s, attempts 1 of 5\n"));
        assert_eq!(done.err, "threadq: job 17 failed: disk\\nfull\n");
    }

    #[test]
    fn waiting_with_json_prints_just_the_job() {
        let ended = job(17, "failed");
        let server = FakeServer::start(&[SUBMITTED, (200, &ended)]);
        let done = server.run(&["enqueue", "a", "--wait", "--json"]);
        assert_eq!((done.code, done.out.clone()), (1, format!("{}\n", json_line(&ended))));
    }

    #[test]
    fn waiting_survives_an_outage() {
        let away = r#"{"error": "Redis is away", "code": "store_unavailable"}"#;
        let server = FakeServer::start(&[SUBMITTED, (503, away), (0, ""), (200, &job(17, "completed"))]);
        let done = server.run(&["enqueue", "a", "--wait"]);
        assert_eq!((done.code, done.out.as_str()), (0, "17\n"));
        let expected = "threadq: job 17 is stored, but: Redis is away (store_unavailable); retrying\n";
        assert_eq!(done.err, expected);
    }

    #[test]
    fn waiting_polls_without_a_long_poll_if_too_many_requests_wait() {
        let full = r#"{"error": "Too many requests wait", "code": "too_many_waiting"}"#;
        let server = FakeServer::start(&[SUBMITTED, (503, full), (200, &job(17, "completed"))]);
        let done = server.run(&["enqueue", "a", "--wait"]);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
        let lines: Vec<String> = (0..3).map(|_| server.request().line).collect();
        assert_eq!(lines, ["POST /jobs", "GET /jobs/17?wait=60s", "GET /jobs/17"]);
    }

    #[test]
    fn a_deleted_job_ends_the_wait() {
        let server = FakeServer::start(&[SUBMITTED, (404, r#"{"error": "No job 17", "code": "not_found"}"#)]);
        let done = server.run(&["enqueue", "a", "--wait"]);
        assert_eq!((done.code, done.err.as_str()), (1, "threadq: No job 17 (not_found)\n"));
    }

    #[test]
    fn help_needs_no_server() {
        let done = run(&["enqueue", "--help"]);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
        assert!(done.out.contains("--idempotency-key KEY"), "{}", done.out);
    }
}
