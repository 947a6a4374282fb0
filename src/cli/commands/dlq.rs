//! `threadq dlq`: lists, retries and deletes dead letters, the jobs whose last attempt failed.

use std::io;
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::cli::args::{Args, Command, Flag, JSON, Run, job_type};
use crate::cli::client::{Client, Response, with_query};
use crate::cli::commands::jobs::{TYPE, before, limit, page};
use crate::cli::error::Error;
use crate::cli::responses::{Deleted, Page, Retried, count, short_time, tries};
use crate::cli::terminal::console::Console;
use crate::cli::terminal::progress::Bar;
use crate::cli::terminal::table::{Column, full, truncated};
use crate::client::{Error as ClientError, Job};

/// The time between two requests for the number of dead letters.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) static DLQ: Command = Command {
    name: "dlq",
    operands: "list|retry|purge",
    about: "Lists, retries or deletes the jobs in the dead letter queue.\n\
            list prints one page, newest first. retry puts jobs back into their queues and resets their attempts to 0.\n\
            purge deletes jobs. retry and purge act on all dead letters, or with --type on those of one type.",
    flags: &[
        TYPE,
        Flag { name: "dry-run", value: "", help: "retry, purge: only print the number of jobs" },
        Flag { name: "page", value: "N", help: "list: page number, from 1 [default: 1]" },
        Flag { name: "before", value: "ID", help: "list: only jobs with a smaller id; not with --page" },
        Flag { name: "limit", value: "N", help: "list: jobs per page, 1 to 100 [default: 10]" },
        JSON,
    ],
    examples: &[
        "dlq list",
        "dlq retry --type \"Encode Video\" --dry-run",
        "dlq purge --type \"Encode Video\"",
    ],
    run: Run::Client(dlq),
};

fn dlq(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    match args.operands()[..] {
        ["list"] => {
            args.refuse(&["dry-run"], "dlq list")?;
            list(args, client, console)
        }
        ["retry"] => {
            args.refuse(&["page", "before", "limit"], "dlq retry")?;
            retry(args, client, console)
        }
        ["purge"] => {
            args.refuse(&["page", "before", "limit"], "dlq purge")?;
            purge(args, client, console)
        }
        _ => Err(args.unexpected_operands()),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn list(args: &Args, client: &Client, console: &mut Console) -> Result<(), Error> {
    let query = [
        ("type", args.read("type", job_type)?),
        ("page", page(args)?),
        ("before", before(args)?),
        ("limit", limit(args)?),
    ];
    let response = client.get(&with_query("/dlq", &query))?;
    let page: Page = response.parse()?;
    if args.has("json") {
        console.json(&response.body)?;
    } else {
        write_dead(&page, console)?;
    }
    Ok(())
}

fn write_dead(page: &Page, console: &mut Console) -> io::Result<()> {
    const COLUMNS: [Column; 5] = [
        full("ID"),
        truncated("TYPE"),
        full("TRIES").optional(),
        full("FAILED (UTC)").optional(),
        truncated("ERROR"),
    ];
    let rows: Vec<[String; 5]> = page.jobs.iter().map(row).collect();
    if !rows.is_empty() {
        console.table(&COLUMNS, &rows)?;
    }
    writeln!(console.out, "{}", page.summary())
}

fn row(job: &Job) -> [String; 5] {
    [
        job.id.to_string(),
        job.job_type.clone(),
        tries(job),
        job.finished_at.as_deref().map(short_time).unwrap_or_default(),
        job.last_error.clone().unwrap_or_default(),
    ]
}

/// The body of POST /dlq/retry.
#[derive(Serialize)]
struct RetryBody {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    job_type: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
}

fn retry(args: &Args, client: &Client, console: &mut Console) -> Result<(), Error> {
    let body = RetryBody { job_type: args.read("type", job_type)?, dry_run: args.has("dry-run") };
    let retry = || client.post_json("/dlq/retry", &body, None);
    let response = match body.dry_run {
        true => retry()?,
        false => with_progress("retrying", body.job_type.clone(), client, console, retry)?,
    };
    let Retried { matched, retried } = response.parse()?;
    let line = if body.dry_run {
        format!("would retry {}", count(matched, "job"))
    } else {
        format!("retried {retried} of {}", count(matched, "job"))
    };
    Ok(console.json_or_line(args.has("json"), &response.body, &line)?)
}

fn purge(args: &Args, client: &Client, console: &mut Console) -> Result<(), Error> {
    let job_type = args.read("type", job_type)?;
    if args.has("dry-run") {
        return count_purge(job_type, args, client, console);
    }
    let path = with_query("/dlq", &[("type", job_type.clone())]);
    let response = with_progress("deleting", job_type, client, console, || client.delete(&path))?;
    let Deleted { deleted } = response.parse()?;
    let line = format!("deleted {}", count(deleted, "job"));
    Ok(console.json_or_line(args.has("json"), &response.body, &line)?)
}

/// Sends a request that removes all dead letters of a type. Meanwhile a terminal shows how many are removed.
fn with_progress(
    what: &str,
    job_type: Option<String>,
    client: &Client,
    console: &mut Console,
    send: impl FnOnce() -> Result<Response, ClientError> + Send,
) -> Result<Response, Error> {
    if !console.err_is_terminal {
        return Ok(send()?);
    }
    let total = dead_letter_count(job_type.clone(), client)?;
    let response = thread::scope(|scope| {
        let (runs, ended) = channel::<()>();
        let request = scope.spawn(move || {
            // Dropped at the end of the request, which ends the loop below.
            let _runs = runs;
            send()
        });
        while ended.recv_timeout(POLL_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            // An error of this request is not an error of the one that removes the dead letters.
            if let Ok(left) = dead_letter_count(job_type.clone(), client) {
                let done = total.saturating_sub(left);
                let result = format!("{done} of {}", count(total, "job"));
                console.show_bar(&Bar { what, done, total, result });
            }
        }
        let response = request.join();
        Ok(response.map_err(|_| Error::Failed("the thread of the request panicked".to_owned()))??)
    });
    console.clear_bar();
    response
}

fn dead_letter_count(job_type: Option<String>, client: &Client) -> Result<u64, Error> {
    let query = [("type", job_type), ("limit", Some("1".to_owned()))];
    Ok(client.get(&with_query("/dlq", &query))?.parse::<Page>()?.total)
}

/// The dry run of a purge, which the API does not have: the total of a listing. The JSON has the form of a dry run of a retry.
fn count_purge(
    job_type: Option<String>,
    args: &Args,
    client: &Client,
    console: &mut Console,
) -> Result<(), Error> {
    let matched = dead_letter_count(job_type, client)?;
    let json = format!(r#"{{"matched": {matched}, "deleted": 0}}"#);
    let line = format!("would delete {}", count(matched, "job"));
    Ok(console.json_or_line(args.has("json"), &json, &line)?)
}

#[cfg(test)]
mod tests {
    use crate::cli::testing::{FakeServer, job, run};

    fn page(total: u64) -> String {
        format!(r#"{{"jobs": [{}], "page": 1, "limit": 1, "total": {total}}}"#, job(17, "failed"))
    }

    #[test]
    fn dead_letters_are_listed_with_their_errors() {
        let server = FakeServer::start(&[(200, &page(1))]);
        let done = server.run(&["dlq", "list", "--type", "Encode Video", "--limit", "5"]);
        let expected = "\
ID  TYPE          TRIES  FAILED (UTC)         ERROR
17  Encode Video  1/5    2026-11-24 08:00:02  disk\\nfull
1 job
";
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, expected, ""));
        assert_eq!(server.request().line, "GET /dlq?type=Encode%20Video&limit=5");
    }

    #[test]
    fn a_retry_sends_its_filter_as_json() {
        let response = (200, r#"{"matched": 5, "retried": 4}"#);
        let server = FakeServer::start(&[response, response, response]);
        assert_eq!(server.run(&["dlq", "retry"]).out, "retried 4 of 5 jobs\n");
        let request = server.request();
        assert_eq!((request.line.as_str(), request.body.as_str()), ("POST /dlq/retry", "{}"));
        assert_eq!(request.header("content-type"), Some("application/json"));

        let done = server.run(&["dlq", "retry", "--type", "Encode \"Video\"", "--dry-run"]);
        assert_eq!(done.out, "would retry 5 jobs\n");
        assert_eq!(server.request().body, r#"{"type":"Encode \"Video\"","dry_run":true}"#);

        assert_eq!(server.run(&["dlq", "retry", "--json"]).out, "{\"matched\": 5, \"retried\": 4}\n");
    }

    #[test]
    fn a_purge_deletes_and_its_dry_run_only_counts() {
        let deleted = (200, r#"{"deleted": 1}"#);
        let server = FakeServer::start(&[deleted, deleted, (200, &page(9)), (200, &page(9))]);
        assert_eq!(server.run(&["dlq", "purge"]).out, "deleted 1 job\n");
        assert_eq!(server.request().line, "DELETE /dlq");
        assert_eq!(server.run(&["dlq", "purge", "--type", "a&b", "--json"]).out, "{\"deleted\": 1}\n");
        assert_eq!(server.request().line, "DELETE /dlq?type=a%26b");

        assert_eq!(server.run(&["dlq", "purge", "--dry-run", "--type", "a"]).out, "would delete 9 jobs\n");
        assert_eq!(server.request().line, "GET /dlq?type=a&limit=1");
        let done = server.run(&["dlq", "purge", "--dry-run", "--json"]);
        assert_eq!(done.out, "{\"matched\": 9, \"deleted\": 0}\n");
    }

    #[test]
    fn on_a_terminal_dead_letters_are_counted_first_and_no_color_turns_colours_off() {
        let server = FakeServer::start(&[(200, &page(9)), (200, r#"{"deleted": 9}"#)]);
        let done = server.run_on_terminal(&["dlq", "purge", "--type", "a"], &[]);
        assert_eq!((done.code, done.out.as_str()), (0, "deleted 9 jobs\n"), "{}", done.err);
        assert_eq!(server.request().line, "GET /dlq?type=a&limit=1");
        assert_eq!(server.request().line, "DELETE /dlq?type=a");

        let server = FakeServer::start(&[(200, &page(1)), (200, &page(1))]);
        assert!(server.run_on_terminal(&["dlq", "list"], &[]).out.starts_with("\x1b[1mID\x1b[0m"));
        assert!(server.run_on_terminal(&["dlq", "list"], &[("NO_COLOR", "1")]).out.starts_with("ID "));
    }

    #[test]
    fn a_usage_error_says_what_is_allowed() {
        let usage = "usage: threadq dlq list|retry|purge [flags]";
        let cases: &[(&[&str], String)] = &[
            (&["dlq"], format!("missing argument: list|retry|purge; {usage}")),
            (&["dlq", "drop"], format!("unexpected argument: drop; {usage}")),
            (
                &["dlq", "list", "--dry-run"],
                "--dry-run: not allowed with dlq list; see threadq dlq --help".to_owned(),
            ),
            (
                &["dlq", "purge", "--page", "2"],
                "--page: not allowed with dlq purge; see threadq dlq --help".to_owned(),
            ),
        ];
        for (args, expected) in cases {
            let done = run(args);
            assert_eq!((done.code, done.err), (2, format!("threadq: {expected}\n")), "{args:?}");
        }
    }
}
