//! `threadq enqueue TYPE`: submits one job and, with `--wait`, waits until the job ends.

use std::fs;
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::unserved::{Stored, warn_of_unserved};
use crate::cli::args::{Args, idempotency_key, job_type, queue_name, valid_text, whole_number};
use crate::cli::client::{Client, OUTAGE_LIMIT, RETRY_INTERVAL, Response};
use crate::cli::error::Error;
use crate::cli::responses::short_span;
use crate::cli::terminal::console::Console;
use crate::client::{Error as ClientError, Job, MAX_WAIT, Submission, Submitted, poll_job, with_retries};
use crate::job::time::parse_rfc3339;
use crate::job::{DEFAULT_QUEUE, JobId, Status, duration, limits};
use crate::logging::escape::escape;

/// Submits the job that the arguments describe.
pub(super) fn enqueue_one(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    let idempotency_key = args.read("idempotency-key", idempotency_key)?;
    let submission = submission(args, console)?;
    let response = client.post_json("/jobs", &submission, idempotency_key.as_deref())?;
    let id = response.parse::<Submitted>()?.job_id;
    let what = format!("job {id} is stored");
    let queue = submission.queue.as_deref().or(Some(DEFAULT_QUEUE));
    warn_of_unserved(&Stored { what: &what, whose: "its", queue }, response.unserved, client, console);

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

fn submission(args: &Args, console: &mut Console) -> Result<Submission, Error> {
    let operands = args.operands();
    let [text] = operands[..] else { return Err(args.unexpected_operands()) };
    let job_type = job_type(text).map_err(|allowed| Error::Usage(format!("TYPE {text:?}: {allowed}")))?;
    if args.has("delay") {
        args.refuse(&["run-at"], "--delay")?;
    }
    Ok(Submission {
        job_type,
        queue: args.read("queue", queue_name)?,
        delay_ms: args.read("delay", |text| millis(text, &limits::DELAY))?,
        run_at: args.read("run-at", run_at)?,
        max_attempts: args.read("max-attempts", whole_number(limits::ATTEMPTS))?,
        timeout_ms: args.read("timeout", |text| millis(text, &limits::TIMEOUT))?,
        unique_key: args.read("unique-key", unique_key)?,
        // Last, so that a wrong flag is reported before a payload is typed into stdin.
        payload: args.text("payload").map(|source| payload(source, console.stdin)).transpose()?,
    })
}

fn payload(source: &str, stdin: &mut dyn Read) -> Result<Box<RawValue>, Error> {
    let text = match source.strip_prefix('@') {
        Some(file) => fs::read_to_string(file)
            .map_err(|error| Error::Usage(format!("--payload {source:?}: cannot read the file: {error}")))?,
        None if source == "-" => {
            let mut text = String::new();
            stdin
                .read_to_string(&mut text)
                .map_err(|error| Error::Usage(format!("--payload -: cannot read stdin: {error}")))?;
            text
        }
        None => source.to_owned(),
    };
    let is_file = source == "-" || source.starts_with('@');
    // Some editors write a byte order mark at the start of a file.
    let json = if is_file { text.strip_prefix('\u{feff}').unwrap_or(&text) } else { &text };
    serde_json::from_str(json).map_err(|error| {
        Error::Usage(format!("--payload {}: must be JSON, @FILE or - (stdin); {error}", start_of(source)))
    })
}

/// The first characters of a text, for an error message.
fn start_of(text: &str) -> String {
    const CHARS: usize = 40;
    let start: String = text.chars().take(CHARS).collect();
    if start.len() == text.len() { start } else { format!("{start}…") }
}

fn millis(text: &str, range: &RangeInclusive<Duration>) -> Result<u64, String> {
    let duration = duration::parse(text).map_err(|error| error.to_string())?;
    if !range.contains(&duration) {
        let (least, most) = (duration::to_text(*range.start()), duration::to_text(*range.end()));
        return Err(format!("must be from {least} to {most}"));
    }
    Ok(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn run_at(text: &str) -> Result<String, &'static str> {
    match parse_rfc3339(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("must be a time with date and zone, such as 2026-11-24T08:00:00Z"),
    }
}

fn unique_key(text: &str) -> Result<String, String> {
    valid_text(text, &limits::UNIQUE_KEY)
}

/// Polls until the job has ended. A transient error is retried for [`OUTAGE_LIMIT`]: the job is stored.
fn wait_for_end(client: &Client, id: JobId, console: &mut Console) -> Result<(Job, Response), Error> {
    loop {
        let sent = Instant::now();
        let mut is_reported = false;
        let report = |error: ClientError| {
            if !is_reported {
                console.note(&format!("job {id} is stored, but: {}; retrying", Error::from(error)));
                is_reported = true;
            }
        };
        let poll = || poll_job(client, id, MAX_WAIT);
        let response = with_retries(OUTAGE_LIMIT, RETRY_INTERVAL, ClientError::is_transient, poll, report)?;
        let job: Job = response.parse()?;
        if job.has_ended() {
            return Ok((job, response));
        }
        // Only if the server answered at once.
        thread::sleep(RETRY_INTERVAL.saturating_sub(sent.elapsed()));
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
        status => console.note(&format!("job {} was {status}", job.id)),
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{FakeServer, job, run};
    use crate::logging::escape::json_line;

    const SUBMITTED: (u16, &str) =
        (202, r#"{"message": "Job submitted successfully", "job_id": 17, "status": "queued"}"#);

    fn body_of(args: &[&str]) -> String {
        let server = FakeServer::start(&[SUBMITTED]);
        let done = server.run(args);
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "17\n", ""));
        server.request().body
    }

    #[test]
    fn a_submission_of_a_type_alone_has_no_other_field() {
        let server = FakeServer::start(&[SUBMITTED]);
        let done = server.run(&["enqueue", "Encode Video"]);
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "17\n", ""));
        let request = server.request();
        assert_eq!(request.line, "POST /jobs");
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("idempotency-key"), None);
        assert_eq!(request.body, r#"{"type":"Encode Video"}"#);
    }

    #[test]
    fn every_flag_sets_its_field() {
        let args = [
            "enqueue",
            "a",
            "--payload",
            "[1]",
            "--queue",
            "q",
            "--delay",
            "5s",
            "--max-attempts",
            "3",
            "--timeout",
            "30s",
            "--unique-key",
            "é",
        ];
        let expected = r#"{"type":"a","payload":[1],"queue":"q","delay_ms":5000,"max_attempts":3,"timeout_ms":30000,"unique_key":"é"}"#;
        assert_eq!(body_of(&args), expected);
        let at = body_of(&["enqueue", "a", "--run-at", "2026-11-24T08:00:00+01:00"]);
        assert_eq!(at, r#"{"type":"a","run_at":"2026-11-24T08:00:00+01:00"}"#);
    }

    #[test]
    fn a_payload_from_any_source_keeps_every_digit() {
        let number = "1.00000000000000000000000000001";
        assert!(body_of(&["enqueue", "a", "--payload", number]).contains(number));
        assert!(body_of(&["enqueue", "a", "--payload", "-5"]).contains(r#""payload":-5"#));

        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "{\n \"n\": 1e400\n}\n").unwrap();
        let body = body_of(&["enqueue", "a", "--payload", &format!("@{}", file.path().display())]);
        assert!(body.contains("\"payload\":{\n \"n\": 1e400\n}"), "{body}");

        let server = FakeServer::start(&[SUBMITTED]);
        assert_eq!(server.run_with_stdin(&["enqueue", "a", "--payload", "-"], b"\"in\"\n").code, 0);
        assert_eq!(server.request().body, r#"{"type":"a","payload":"in"}"#);
    }

    #[test]
    fn one_byte_order_mark_in_front_of_a_payload_is_skipped() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "\u{feff}[\"\u{feff}\"]").unwrap();
        let body = body_of(&["enqueue", "a", "--payload", &format!("@{}", file.path().display())]);
        assert_eq!(body, "{\"type\":\"a\",\"payload\":[\"\u{feff}\"]}");

        let server = FakeServer::start(&[SUBMITTED]);
        let from_stdin =
            |text: &str| server.run_with_stdin(&["enqueue", "a", "--payload", "-"], text.as_bytes());
        assert_eq!(from_stdin("\u{feff}5\r\n").code, 0);
        assert_eq!(server.request().body, r#"{"type":"a","payload":5}"#);
        for wrong in ["\u{feff}\u{feff}5", "\u{feff}", "5\u{feff}"] {
            assert_eq!(from_stdin(wrong).code, 2, "{wrong:?}");
        }
        assert_eq!(
            run(&["enqueue", "a", "--payload", "\u{feff}5"]).code,
            2,
            "a byte order mark is skipped only in a file"
        );
        assert!(server.is_idle());
    }

    #[test]
    fn the_idempotency_key_is_a_header_and_a_replay_prints_the_first_id() {
        let server = FakeServer::start(&[(200, SUBMITTED.1)]);
        let done = server.run(&["enqueue", "a", "--idempotency-key", "k-1"]);
        assert_eq!((done.code, done.out.as_str()), (0, "17\n"));
        assert_eq!(server.request().header("idempotency-key"), Some("k-1"));
    }

    #[test]
    fn a_usage_error_says_what_is_allowed_and_sends_nothing() {
        let long = "x".repeat(201);
        let cases: &[(&[&str], &str)] = &[
            (&[], "missing argument: TYPE|--file FILE; usage: threadq enqueue TYPE|--file FILE [flags]"),
            (&["a", "b"], "unexpected arguments: a b; usage: threadq enqueue TYPE|--file FILE [flags]"),
            (&[""], "TYPE \"\": must be 1 to 100 characters, none of them a control character"),
            (&["a", "--queue", "a b"], "--queue \"a b\": must be 1 to 64 of A-Z a-z 0-9 _ . -"),
            (
                &["a", "--delay", "5"],
                "--delay \"5\": must be a whole number and a unit, such as 250ms, 5s, 10m, 24h or 90d",
            ),
            (&["a", "--delay", "366d"], "--delay \"366d\": must be from 0s to 365d"),
            (&["a", "--timeout", "0s"], "--timeout \"0s\": must be from 1ms to 24h"),
            (&["a", "--timeout", "25h"], "--timeout \"25h\": must be from 1ms to 24h"),
            (&["a", "--max-attempts", "101"], "--max-attempts \"101\": must be a whole number from 1 to 100"),
            (
                &["a", "--run-at", "noon"],
                "--run-at \"noon\": must be a time with date and zone, such as 2026-11-24T08:00:00Z",
            ),
            (&["a", "--unique-key", &long], "must be 1 to 200 characters"),
            (
                &["a", "--idempotency-key", "a b"],
                "--idempotency-key \"a b\": must be 1 to 200 visible ASCII characters",
            ),
            (
                &["a", "--delay", "1s", "--run-at", "2026-11-24T08:00:00Z"],
                "--run-at: not allowed with --delay; see threadq enqueue --help",
            ),
            (
                &["a", "--payload", "{a}"],
                "--payload {a}: must be JSON, @FILE or - (stdin); key must be a string",
            ),
            (
                &["a", "--payload", "@/no/such/file"],
                "--payload \"@/no/such/file\": cannot read the file: No such file",
            ),
            (&["a", "--payload", ""], "must be JSON"),
        ];
        let server = FakeServer::start(&[SUBMITTED]);
        for (args, expected) in cases {
            let args: Vec<&str> = ["enqueue"].iter().chain(*args).copied().collect();
            let done = server.run(&args);
            assert_eq!((done.code, done.out.as_str()), (2, ""), "{args:?}");
            assert!(
                done.err.starts_with("threadq: ") && done.err.contains(expected),
                "{args:?}: {}",
                done.err
            );
            assert_eq!(done.err.lines().count(), 1, "{}", done.err);
        }
        assert!(server.is_idle());
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
    fn waiting_for_a_job_that_fails_prints_its_error_and_exits_1() {
        let server = FakeServer::start(&[SUBMITTED, (200, &job(17, "failed"))]);
        let done = server.run(&["enqueue", "a", "--wait"]);
        assert_eq!((done.code, done.out.as_str()), (1, "17\n"));
        assert_eq!(done.err, "threadq: job 17 failed: disk\\nfull\n");

        let server = FakeServer::start(&[SUBMITTED, (200, &job(17, "cancelled"))]);
        let done = server.run(&["enqueue", "a", "--wait"]);
        assert_eq!((done.code, done.err.as_str()), (1, "threadq: job 17 was cancelled\n"));
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
