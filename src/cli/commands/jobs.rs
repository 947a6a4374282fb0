//! `threadq jobs`, `show`, `retry`, `cancel`, `delete`: lists jobs, and shows or changes one job.

use std::collections::HashMap;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::cli::args::{Args, Command, Flag, JSON, Run, job_type, time, valid_text, whole_number};
use crate::cli::client::{Client, with_query};
use crate::cli::commands::logs::{Line, tail};
use crate::cli::error::Error;
use crate::cli::responses::{Page, begun, progress, short_span, short_time, tries};
use crate::cli::terminal::console::Console;
use crate::cli::terminal::progress::gauge;
use crate::cli::terminal::style::of_status;
use crate::cli::terminal::table::{Column, full, truncated};
use crate::client::{self, AttemptError, Job, Progress, Reason, Reasons, ScheduleTick};
use crate::job::rules::TAG;
use crate::job::{ErrorKind, JobId, Status};
use crate::logging::escape::escape;

pub(crate) const TYPE: Flag = Flag { name: "type", value: "TYPE", help: "only jobs of this type" };

pub(crate) const CREATED_AFTER: Flag = Flag {
    name: "created-after",
    value: "TIME",
    help: "only jobs created at this time or later, in RFC 3339: 2026-11-24T08:00:00Z",
};

pub(crate) const CREATED_BEFORE: Flag =
    Flag { name: "created-before", value: "TIME", help: "only jobs created before this time, in RFC 3339" };

pub(crate) static JOBS: Command = Command {
    name: "jobs",
    operands: "",
    about: "Lists jobs, newest first.",
    flags: &[
        Flag {
            name: "status",
            value: "STATUS",
            help: "only jobs that are scheduled, queued, processing, retrying, completed, failed or cancelled",
        },
        TYPE,
        Flag { name: "tag", value: "TAG", help: "only jobs with this tag; not with --type" },
        CREATED_AFTER,
        CREATED_BEFORE,
        Flag { name: "page", value: "N", help: "page number, from 1 [default: 1]" },
        Flag { name: "before", value: "ID", help: "only jobs with a smaller id; not with --page" },
        Flag { name: "limit", value: "N", help: "jobs per page, 1 to 100 [default: 10]" },
        JSON,
    ],
    examples: &[
        "jobs --status processing",
        "jobs --type \"Encode Video\" --limit 100 --page 2",
        "jobs --tag customer-42 --created-after 2026-11-24T08:00:00Z",
    ],
    run: Run::Client(jobs),
};

pub(crate) static SHOW: Command = Command {
    name: "show",
    operands: "ID",
    about: "Shows all fields of a job, why it does not run yet, and the last lines of its log.\n\
            With --json it prints only the fields.",
    flags: &[JSON],
    examples: &["show 1764000000000123", "show 1764000000000123 --json"],
    run: Run::Client(show),
};

pub(crate) static RETRY: Command = Command {
    name: "retry",
    operands: "ID",
    about: "Puts a failed or cancelled job back into its queue and resets its attempts to 0.\n\
            The next attempt gets the checkpoint of the job, unless --from-start drops it.",
    flags: &[Flag { name: "from-start", value: "", help: "drop the checkpoint of the job" }, JSON],
    examples: &["retry 1764000000000123", "retry 1764000000000123 --from-start"],
    run: Run::Client(retry),
};

pub(crate) static CANCEL: Command = Command {
    name: "cancel",
    operands: "ID",
    about: "Cancels a job that has not ended. If the job is running, its handler is told to stop.",
    flags: &[JSON],
    examples: &["cancel 1764000000000123"],
    run: Run::Client(cancel),
};

pub(crate) static DELETE: Command = Command {
    name: "delete",
    operands: "ID",
    about: "Deletes a job that is completed, failed or cancelled.",
    flags: &[JSON],
    examples: &["delete 1764000000000123"],
    run: Run::Client(delete),
};

fn jobs(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    args.no_operands()?;
    let query = [
        ("status", args.read("status", str::parse::<Status>)?.map(|status| status.to_string())),
        ("type", args.read("type", job_type)?),
        ("tag", tag(args)?),
        ("created_after", args.read("created-after", time)?),
        ("created_before", args.read("created-before", time)?),
        ("page", page(args)?),
        ("before", before(args)?),
        ("limit", limit(args)?),
    ];
    let response = client.get(&with_query("/jobs", &query))?;
    let page: Page = response.parse()?;
    if args.has("json") {
        console.json(&response.body)?;
    } else {
        write_jobs(&page, console)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The query parameter `tag`.
pub(crate) fn tag(args: &Args) -> Result<Option<String>, Error> {
    let tag = args.read("tag", |text| valid_text(text, &TAG))?;
    if tag.is_some() {
        args.refuse(&["type"], "--tag")?;
    }
    Ok(tag)
}

/// The query parameter `page`.
pub(crate) fn page(args: &Args) -> Result<Option<String>, Error> {
    let page = args.read("page", whole_number(1..=u32::MAX))?;
    Ok(page.map(|page| page.to_string()))
}

/// The query parameter `before`.
pub(crate) fn before(args: &Args) -> Result<Option<String>, Error> {
    let before = args.read("before", str::parse::<JobId>)?;
    if before.is_some() {
        args.refuse(&["page"], "--before")?;
    }
    Ok(before.map(|id| id.to_string()))
}

/// The query parameter `limit`.
pub(crate) fn limit(args: &Args) -> Result<Option<String>, Error> {
    let limit = args.read("limit", whole_number(1..=100))?;
    Ok(limit.map(|limit| limit.to_string()))
}

pub(crate) fn write_jobs(page: &Page, console: &mut Console) -> io::Result<()> {
    const COLUMNS: [Column; 8] = [
        full("ID"),
        full("STATUS").styled(of_status),
        truncated("TYPE"),
        truncated("QUEUE").optional(),
        full("TRIES").optional(),
        truncated("PROGRESS").optional().unless_empty(),
        full("CREATED (UTC)").optional(),
        truncated("TAGS").optional().unless_empty(),
    ];
    let rows: Vec<[String; 8]> = page.jobs.iter().map(row).collect();
    if !rows.is_empty() {
        console.table(&COLUMNS, &rows)?;
    }
    writeln!(console.out, "{}", page.summary())
}

fn row(job: &Job) -> [String; 8] {
    [
        job.id.to_string(),
        job.status.to_string(),
        job.job_type.clone(),
        job.queue.clone(),
        tries(job),
        progress(job),
        short_time(&job.created_at),
        job.tags.join(", "),
    ]
}

fn show(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    let response = client.get(&format!("/jobs/{}", args.job_id()?))?;
    let job: Job = response.parse()?;
    if args.has("json") {
        console.json(&response.body)?;
    } else {
        write_job(&job, &reasons(&job, client)?, console.out)?;
        // A job that has not started has no log.
        if job.started_at.is_some() {
            write_log_tail(job.id, client, console.out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Why a job that has not ended does not run yet. Empty if the job was deleted meanwhile or the server is older than 0.9.
fn reasons(job: &Job, client: &Client) -> Result<Vec<Reason>, Error> {
    if job.status.is_final() {
        return Ok(Vec::new());
    }
    match client.get(&format!("/jobs/{}/why", job.id)) {
        Ok(response) => Ok(response.parse::<Reasons>()?.reasons),
        Err(client::Error::Refused(refusal)) if refusal.status == 404 => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Writes the last lines of the job's log.
fn write_log_tail(id: JobId, client: &Client, out: &mut dyn Write) -> Result<(), Error> {
    const LINES: u64 = 10;
    let log = tail(id, LINES, client)?;
    let mut text: Vec<String> = log.lines.iter().map(Line::shown).collect();
    if log.total > LINES {
        text.insert(0, format!("the last {LINES} of {} lines; all: threadq logs {id}", log.total));
    }
    Ok(block(out, "log", &text.join("\n"))?)
}

/// Writes a line for each field that has a value.
fn write_job(job: &Job, reasons: &[Reason], out: &mut dyn Write) -> io::Result<()> {
    field(out, "id", &job.id.to_string())?;
    field(out, "type", &job.job_type)?;
    field(out, "queue", &job.queue)?;
    field(out, "status", job.status.as_str())?;
    let name = if job.status == Status::Processing { "attempt" } else { "attempts" };
    field(out, name, &format!("{} of {}", begun(job), job.max_attempts))?;
    field(out, "crashes", &job.crashes.to_string())?;
    field(out, "timeout", &short_span(job.timeout_ms))?;
    field(out, "created", &job.created_at)?;
    let optional = [
        ("scheduled", &job.scheduled_at),
        ("started", &job.started_at),
        ("expires", &job.expires_at),
        ("finished", &job.finished_at),
        ("server", &job.server),
        ("worker", &job.worker),
        ("unique key", &job.unique_key),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            field(out, name, value)?;
        }
    }
    if let Some(Progress { value, message, at }) = &job.progress {
        const CELLS: usize = 20;
        let said = if message.is_empty() { String::new() } else { format!("{message}, ") };
        let bar = gauge(*value, CELLS);
        field(out, "progress", &format!("{bar}  {:.0} %  {said}at {at}", value * 100.0))?;
    }
    write_extras(job, out)?;
    let sentences: Vec<&str> = reasons.iter().map(|reason| reason.sentence.as_str()).collect();
    block(out, "why", &sentences.join("\n"))?;
    block(out, "payload", job.payload.get())?;
    if let Some(result) = &job.result {
        block(out, "result", result.get())?;
    }
    if let Some(checkpoint) = &job.checkpoint {
        block(out, "checkpoint", checkpoint.get())?;
    }
    let (mut last, mut is_again) = (0, false);
    for AttemptError { attempt, kind, at, message, .. } in &job.errors {
        // A crash is not a failed attempt. Attempts are numbered from 1 again after a retry by an operator.
        let is_crash = *kind == ErrorKind::Crash;
        if !is_crash {
            is_again |= *attempt <= last;
            last = *attempt;
        }
        let name = if is_crash { "crash".to_owned() } else { format!("error {attempt}") };
        let retried = if is_again && !is_crash { ", after a retry" } else { "" };
        block(out, &name, &format!("{at}{retried}\n{message}"))?;
    }
    Ok(())
}

/// Writes a line for each field that only few jobs have.
fn write_extras(job: &Job, out: &mut dyn Write) -> io::Result<()> {
    if let Some(limit) = job.blocked_by.as_ref().and_then(|blocked| blocked.limit.as_ref()) {
        field(out, "blocked by", &format!("limit {limit}"))?;
    }
    if let Some(reason) = &job.cancel_reason {
        field(out, "cancelled", cancel_reason(reason))?;
    }
    if let Some(ms) = job.retain_ms {
        field(out, "retain", &short_span(ms))?;
    }
    if job.snoozes > 0 {
        field(out, "snoozes", &job.snoozes.to_string())?;
    }
    if let Some(ScheduleTick { name, tick, .. }) = &job.schedule {
        field(out, "schedule", &format!("{name}, for {tick}"))?;
    }
    for (name, values) in [("limits", &job.limits), ("tags", &job.tags)] {
        if !values.is_empty() {
            field(out, name, &values.join(", "))?;
        }
    }
    for (name, value) in &job.meta {
        field(out, "meta", &format!("{name}={value}"))?;
    }
    Ok(())
}

/// Why a job was cancelled, as the end of a sentence.
pub(crate) fn cancel_reason(reason: &str) -> &str {
    match reason {
        "request" => "on request",
        "expired" => "it expired before its first start",
        "replaced" => "another job took its place",
        other => other,
    }
}

pub(crate) fn field(out: &mut dyn Write, name: &str, value: &str) -> io::Result<()> {
    writeln!(out, "{name:<12}{}", escape(value))
}

/// Writes a value of several lines. All but the first are indented, so that no line looks like a field.
fn block(out: &mut dyn Write, name: &str, value: &str) -> io::Result<()> {
    for (number, line) in value.lines().enumerate() {
        field(out, if number == 0 { name } else { "" }, &line.replace('\t', "    "))?;
    }
    Ok(())
}

fn retry(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    let id = args.job_id()?;
    let path = format!("/jobs/{id}/retry");
    let response = if args.has("from-start") {
        client.post_json(&path, &HashMap::from([("from_start", true)]), None)?
    } else {
        client.post(&path)?
    };
    let job: Job = response.parse()?;
    let line = format!("job {id} is back in queue {}", escape(&job.queue));
    console.json_or_line(args.has("json"), &response.body, &line)?;
    Ok(ExitCode::SUCCESS)
}

fn cancel(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    let id = args.job_id()?;
    let response = client.post(&format!("/jobs/{id}/cancel"))?;
    response.parse::<Job>()?;
    // 202: the job runs, and its handler is told to stop.
    let what =
        if response.status == 202 { "is running; its handler is told to stop" } else { "is cancelled" };
    console.json_or_line(args.has("json"), &response.body, &format!("job {id} {what}"))?;
    Ok(ExitCode::SUCCESS)
}

fn delete(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    let id = args.job_id()?;
    client.delete(&format!("/jobs/{id}"))?;
    // The API has nothing to say of it; this is what a purge says.
    console.json_or_line(args.has("json"), r#"{"deleted": 1}"#, &format!("job {id} is deleted"))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use crate::cli::testing::{FakeServer, job, run};
    use crate::logging::escape::json_line;

    /// The log of a job that has logged nothing.
    const NO_LOG: (u16, &str) = (200, r#"{"lines": [], "total": 0}"#);

    fn page_of(jobs: &[String], total: u64) -> String {
        format!(r#"{{"jobs": [{}], "page": 1, "limit": 10, "total": {total}}}"#, jobs.join(", "))
    }

    #[test]
    fn jobs_are_printed_as_a_table() {
        let jobs = [job(1764000000000124, "processing"), job(1764000000000123, "completed")];
        let server = FakeServer::start(&[(200, &page_of(&jobs, 25))]);
        let done = server.run(&["jobs"]);
        let expected = "\
ID                STATUS      TYPE          QUEUE    TRIES  CREATED (UTC)
1764000000000124  processing  Encode Video  default  2/5    2026-11-24 08:00:00
1764000000000123  completed   Encode Video  default  1/5    2026-11-24 08:00:00
25 jobs, page 1 of 3
";
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, expected, ""));
        assert_eq!(server.request().line, "GET /jobs");
    }

    #[test]
    fn filters_and_pages_are_sent_in_the_query() {
        let server = FakeServer::start(&[(200, &page_of(&[], 0))]);
        let args = ["jobs", "--status", "failed", "--type", "Encode Video", "--page", "2", "--limit", "100"];
        let done = server.run(&args);
        assert_eq!((done.code, done.out.as_str()), (0, "no jobs\n"));
        let expected = "GET /jobs?status=failed&type=Encode%20Video&page=2&limit=100";
        assert_eq!(server.request().line, expected);

        let time = "2026-11-24T09:00:00+01:00";
        let server = FakeServer::start(&[(200, &page_of(&[], 0))]);
        let args = ["jobs", "--tag", "customer 42", "--created-after", time, "--created-before", time];
        assert_eq!(server.run(&args).code, 0);
        let time = "2026-11-24T09%3A00%3A00%2B01%3A00";
        let expected = format!("GET /jobs?tag=customer%2042&created_after={time}&created_before={time}");
        assert_eq!(server.request().line, expected);
    }

    #[test]
    fn the_next_page_is_requested_by_an_id() {
        let page = |next: &str| {
            let job = job(1764000000000123, "completed");
            format!(r#"{{"jobs": [{job}], "limit": 1, "total": 3, "next": {next}}}"#)
        };
        let server = FakeServer::start(&[(200, &page("1764000000000123")), (200, &page("null"))]);
        for (id, last_line) in [
            ("1764000000000124", "3 jobs, older ones: --before 1764000000000123"),
            ("1764000000000123", "3 jobs, no older ones"),
        ] {
            let done = server.run(&["jobs", "--before", id, "--limit", "1"]);
            assert_eq!((done.code, done.out.lines().last()), (0, Some(last_line)), "{}", done.err);
            assert_eq!(server.request().line, format!("GET /jobs?before={id}&limit=1"));
        }
    }

    #[test]
    fn json_is_one_line_with_every_digit() {
        let page = page_of(&[job(1, "completed")], 1);
        let server = FakeServer::start(&[(200, &page), (200, &job(1, "completed"))]);
        let done = server.run(&["jobs", "--json"]);
        assert_eq!(done.out.lines().count(), 1);
        assert_eq!(done.out.trim_end(), json_line(&page));
        assert!(server.run(&["show", "1", "--json"]).out.contains("1.00000000000000000000000000001"));
    }

    #[test]
    fn show_lists_fields_and_errors() {
        let server = FakeServer::start(&[(200, &job(17, "failed")), NO_LOG]);
        let done = server.run(&["show", "17"]);
        let expected = "\
id          17
type        Encode Video
queue       default
status      failed
attempts    1 of 5
crashes     0
timeout     5 min
created     2026-11-24T08:00:00.000Z
started     2026-11-24T08:00:01.000Z
finished    2026-11-24T08:00:02.500Z
server      host-1-ab
payload     {\"n\": 1.00000000000000000000000000001}
error 1     2026-11-24T08:00:02.000Z
            disk
            full
";
        assert_eq!((done.code, done.out.as_str()), (0, expected));
        assert_eq!(server.request().line, "GET /jobs/17");
        assert_eq!(server.request().line, "GET /jobs/17/log?limit=10");
    }

    #[test]
    fn show_says_how_far_a_job_is() {
        let more = r#", "progress": {"value": 0.5, "message": "page \u001b[2J", "at": "2026-11-24T08:00:02.000Z"},
            "checkpoint": {"page": 1.00000000000000000000000000001}, "worker": "gpu-1""#;
        let running = job(17, "processing").trim_end().strip_suffix('}').unwrap().to_owned() + more + "}";
        let line = |n: u64| format!(r#"{{"n": {n}, "at": "2026-11-24T08:00:01.000Z", "text": "line {n}"}}"#);
        let log = |lines: &[u64]| {
            let lines: Vec<String> = lines.iter().copied().map(line).collect();
            format!(r#"{{"lines": [{}], "total": 12}}"#, lines.join(", "))
        };
        let why = r#"{"reasons": []}"#;
        let answers = [(200, &*running), (200, why), (200, &log(&[1, 2])), (200, &log(&[11, 12]))];
        let server = FakeServer::start(&answers);
        let done = server.run(&["show", "17"]);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
        let progress = "worker      gpu-1\nprogress    [##########----------]  50 %  page \\u{1b}[2J, at 2026-11-24T08:00:02.000Z\n";
        assert!(done.out.contains(progress), "{}", done.out);
        assert!(
            done.out.contains("\ncheckpoint  {\"page\": 1.00000000000000000000000000001}\n"),
            "{}",
            done.out
        );
        let log = "\
log         the last 10 of 12 lines; all: threadq logs 17
            2026-11-24 08:00:01  line 11
            2026-11-24 08:00:01  line 12
";
        assert!(done.out.ends_with(log), "{}", done.out);
        for line in ["/jobs/17", "/jobs/17/why", "/jobs/17/log?limit=10", "/jobs/17/log?after=2&limit=1000"] {
            assert_eq!(server.request().line, format!("GET {line}"));
        }

        let ended = running.replace("processing", "completed");
        let server = FakeServer::start(&[(200, &page_of(&[running, ended], 2))]);
        let out = server.run(&["jobs"]).out;
        assert!(out.contains("TRIES  PROGRESS"), "{out}");
        assert_eq!(out.matches("50 %  page \\u{1b}[2J  2026").count(), 1, "{out}");
    }

    /// A job with every field that only few jobs have.
    fn special_job() -> String {
        let more = r#", "blocked_by": {"limit": "tenant:42"}, "limits": ["tenant:42", "smtp"], "tags": ["customer 42", "\u001b[2J"], "meta": {"a": "1", "b": "\u001b[2J"},
            "expires_at": "2026-11-24T09:00:00.000Z", "retain_ms": 60000, "snoozes": 2, "cancel_reason": "expired",
            "schedule": {"name": "nightly", "tick": "2026-11-24T02:30:00.000Z"}}"#;
        job(17, "cancelled").trim_end().strip_suffix('}').unwrap().to_owned() + more
    }

    #[test]
    fn show_lists_the_fields_that_few_jobs_have() {
        let server = FakeServer::start(&[(200, &special_job()), NO_LOG]);
        let out = server.run(&["show", "17"]).out;
        let expected = "\
blocked by  limit tenant:42
cancelled   it expired before its first start
retain      1 min
snoozes     2
schedule    nightly, for 2026-11-24T02:30:00.000Z
limits      tenant:42, smtp
tags        customer 42, \\u{1b}[2J
meta        a=1
meta        b=\\u{1b}[2J
";
        assert!(out.contains(expected), "{out}");
        assert!(out.contains("\nexpires     2026-11-24T09:00:00.000Z\n"), "{out}");
    }

    #[test]
    fn jobs_have_a_column_of_tags_if_a_job_has_tags_and_the_terminal_is_wide() {
        let jobs = [special_job(), job(16, "completed")];
        let server = FakeServer::start(&[(200, &page_of(&jobs, 2)), (200, &page_of(&jobs, 2))]);
        let out = server.run(&["jobs"]).out;
        assert!(out.lines().next().unwrap().ends_with("CREATED (UTC)        TAGS"), "{out}");
        assert!(out.contains("2026-11-24 08:00:00  customer 42, \\u{1b}[2J\n"), "{out}");
        let narrow = server.run_on_terminal(&["jobs"], &[("COLUMNS", "70")]).out;
        assert!(narrow.contains("TRIES") && !narrow.contains("TAGS"), "{narrow}");
    }

    #[test]
    fn show_says_why_a_job_does_not_run() {
        let why = r#"{"reasons": [{"code": "behind", "sentence": "3 jobs start before."}, {"code": "x", "sentence": "And x."}]}"#;
        let gone = r#"{"error": "no", "code": "not_found"}"#;
        let waiting = job(17, "queued");
        let server = FakeServer::start(&[
            (200, &waiting),
            (200, why),
            NO_LOG,
            (200, &waiting),
            (404, gone),
            (404, gone),
        ]);
        let done = server.run(&["show", "17"]);
        let lines = "why         3 jobs start before.\n            And x.\npayload ";
        assert!(done.out.contains(lines), "{}", done.out);
        assert_eq!(server.request().line, "GET /jobs/17");
        assert_eq!(server.request().line, "GET /jobs/17/why");
        // An older server knows neither reasons nor logs.
        let done = server.run(&["show", "17"]);
        assert_eq!((done.code, done.out.contains("why"), done.err.as_str()), (0, false, ""));
    }

    #[test]
    fn crashes_and_attempts_after_a_retry_are_distinguished() {
        let error = |attempt: u32, message: &str| {
            format!(
                r#"{{"attempt": {attempt}, "at": "2026-11-24T08:00:0{attempt}.000Z", "message": "{message}"}}"#
            )
        };
        let errors = [
            error(1, "its server died while this job was running").replace("{", r#"{"kind": "crash", "#),
            error(1, "a"),
            error(2, "b"),
            error(1, "c"),
        ];
        let entry = r#"{"attempt": 1, "at": "2026-11-24T08:00:02.000Z", "message": "disk\nfull"}"#;
        let server =
            FakeServer::start(&[(200, &job(17, "failed").replace(entry, &errors.join(", "))), NO_LOG]);
        let out = server.run(&["show", "17"]).out;
        let expected = "\
crash       2026-11-24T08:00:01.000Z
            its server died while this job was running
error 1     2026-11-24T08:00:01.000Z
            a
error 2     2026-11-24T08:00:02.000Z
            b
error 1     2026-11-24T08:00:01.000Z, after a retry
            c
";
        assert!(out.ends_with(expected), "{out}");
    }

    #[test]
    fn a_job_cannot_control_the_terminal() {
        let evil =
            job(17, "failed").replace("Encode Video", r"\u001b]0;x\u0007").replace(r"disk\n", r"\u001b[2J");
        let page = page_of(std::slice::from_ref(&evil), 1);
        let server = FakeServer::start(&[(200, &evil), NO_LOG, (200, &page)]);
        for args in [&["show", "17"][..], &["jobs"]] {
            let out = server.run(args).out;
            assert!(out.contains("\\u{1b}]0;x"), "{out:?}");
            assert!(out.chars().all(|c| c == '\n' || !c.is_control()), "{out:?}");
        }
    }

    #[test]
    fn the_most_deeply_nested_payload_is_shown() {
        let deep = format!("{}{}", "[".repeat(128), "]".repeat(128));
        let payload = r#"{"n": 1.00000000000000000000000000001}"#;
        let page = page_of(&[job(17, "queued").replace(payload, &deep)], 1);
        let server = FakeServer::start(&[(200, &page)]);
        let done = server.run(&["jobs"]);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
    }

    #[test]
    fn each_command_sends_its_request() {
        let answers = [
            (202, &*job(17, "queued")),
            (200, &job(17, "cancelled")),
            (202, &job(17, "processing")),
            (204, ""),
        ];
        let server = FakeServer::start(&answers);
        let cases = [
            ("retry", "POST /jobs/17/retry", "job 17 is back in queue default\n"),
            ("cancel", "POST /jobs/17/cancel", "job 17 is cancelled\n"),
            ("cancel", "POST /jobs/17/cancel", "job 17 is running; its handler is told to stop\n"),
            ("delete", "DELETE /jobs/17", "job 17 is deleted\n"),
        ];
        for (verb, line, out) in cases {
            let done = server.run(&[verb, "17"]);
            assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, out, ""));
            let request = server.request();
            assert_eq!((request.line.as_str(), request.body.as_str()), (line, ""));
            assert_eq!(request.header("content-type"), None);
        }
    }

    #[test]
    fn a_retry_from_the_start_drops_the_checkpoint() {
        let server = FakeServer::start(&[(202, &job(17, "queued"))]);
        let done = server.run(&["retry", "17", "--from-start"]);
        assert_eq!((done.code, done.out.as_str()), (0, "job 17 is back in queue default\n"));
        let request = server.request();
        assert_eq!(
            (request.line.as_str(), request.body.as_str()),
            ("POST /jobs/17/retry", r#"{"from_start":true}"#)
        );
    }

    #[test]
    fn a_job_in_another_state_exits_1() {
        let server = FakeServer::start(&[(409, r#"{"error": "Job 17 is queued", "code": "wrong_status"}"#)]);
        let done = server.run(&["delete", "17"]);
        assert_eq!((done.code, done.out.as_str()), (1, ""));
        assert_eq!(done.err, "threadq: Job 17 is queued (wrong_status)\n");
    }

    #[test]
    fn a_usage_error_says_what_is_allowed() {
        let cases: &[(&[&str], &str)] = &[
            (&["jobs", "all"], "unexpected argument: all; usage: threadq jobs [flags]"),
            (
                &["jobs", "--status", "dead"],
                "--status \"dead\": a status is one of scheduled, queued, processing, retrying, completed, failed, cancelled",
            ),
            (&["jobs", "--page", "0"], "--page \"0\": must be a whole number from 1 to 4294967295"),
            (
                &["jobs", "--page", "2", "--before", "17"],
                "--page: not allowed with --before; see threadq jobs --help",
            ),
            (
                &["jobs", "--before", "0"],
                "--before \"0\": a job id is a whole number from 1 to 9007199254740991",
            ),
            (&["jobs", "--limit", "101"], "--limit \"101\": must be a whole number from 1 to 100"),
            (&["show"], "missing argument: ID; usage: threadq show ID [flags]"),
            (&["retry", "01"], "ID \"01\": a job id is a whole number from 1 to 9007199254740991"),
            (
                &["cancel", "../stats"],
                "ID \"../stats\": a job id is a whole number from 1 to 9007199254740991",
            ),
        ];
        for (args, expected) in cases {
            let done = run(args);
            assert_eq!((done.code, done.out.as_str()), (2, ""), "{args:?}");
            assert_eq!(done.err, format!("threadq: {expected}\n"));
        }
    }
}
