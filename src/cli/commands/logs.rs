//! `threadq logs`: prints the lines that a job has logged, and follows them until the job has ended.

use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use serde::Deserialize;

use crate::cli::args::{Args, Command, Flag, JSON, Run};
use crate::cli::client::{Client, RETRY_INTERVAL, Response, retried};
use crate::cli::error::Error;
use crate::cli::responses::{count, short_time};
use crate::cli::terminal::console::Console;
use crate::client::{Error as ClientError, Job, MAX_WAIT};
use crate::job::JobId;
use crate::logging::escape::escape;

pub(crate) static LOGS: Command = Command {
    name: "logs",
    operands: "ID",
    about: "Prints the lines that a job has logged, with their times in UTC. The last 1,000 lines are kept.\n\
            With -f it prints new lines too, until the job has ended.",
    flags: &[
        Flag { name: "f", value: "", help: "print new lines until the job has ended" },
        Flag { name: "follow", value: "", help: "the same as -f" },
        Flag { name: JSON.name, value: "", help: "print the JSON of the server, with -f one line each time" },
    ],
    examples: &["logs 1764000000000123", "logs 1764000000000123 -f"],
    run: Run::Client(logs),
};

/// A part of a job's log.
#[derive(Deserialize)]
pub(crate) struct Log {
    pub lines: Vec<Line>,
    /// The number of the last line of the whole log.
    pub total: u64,
}

/// A line of a log.
#[derive(Deserialize)]
pub(crate) struct Line {
    /// Counts from 1.
    n: u64,
    at: String,
    text: String,
}

impl Line {
    /// The line with its time.
    pub(crate) fn shown(&self) -> String {
        format!("{}  {}", short_time(&self.at), escape(&self.text))
    }
}

/// The path of the lines after line `after`.
fn path(id: JobId, after: u64) -> String {
    format!("/jobs/{id}/log?after={after}&limit=1000")
}

/// The last lines of a log, at most `lines`. Empty if the server is older than 0.11.
pub(crate) fn tail(id: JobId, lines: u64, client: &Client) -> Result<Log, Error> {
    let read = |path: &str| match client.get(path) {
        Err(ClientError::Refused(refusal)) if refusal.status == 404 => {
            Ok(Log { lines: Vec::new(), total: 0 })
        }
        other => Ok::<Log, Error>(other?.parse()?),
    };
    let first = read(&format!("/jobs/{id}/log?limit={lines}"))?;
    match first.total.checked_sub(lines) {
        None | Some(0) => Ok(first),
        Some(before) => read(&path(id, before)),
    }
}

fn logs(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    let id = args.job_id()?;
    let json = args.has(JSON.name);
    if args.has("f") || args.has("follow") {
        follow(id, json, client, console)?;
    } else {
        let response = client.get(&path(id, 0))?;
        let log: Log = response.parse()?;
        write(&log, 0, json, &response, console)?;
        if log.total == 0 && !json {
            console.note(&format!("job {id} has logged no lines"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints all lines, and then new ones, until the job has ended.
fn follow(id: JobId, json: bool, client: &Client, console: &mut Console) -> Result<(), Error> {
    let (mut last, mut has_ended) = (0, false);
    loop {
        let asked = Instant::now();
        let path = path(id, last);
        let response = retried("", console, || match has_ended {
            true => client.get(&path),
            false => wait_for_lines(&path, client),
        })?;
        let log: Log = response.parse()?;
        if let Some(newest) = log.lines.last() {
            write(&log, last, json, &response, console)?;
            console.out.flush()?;
            last = newest.n;
        } else if has_ended {
            return Ok(());
        } else {
            // The next read comes after this one, and has the last lines of a job that has ended.
            let job: Job = retried("", console, || client.get(&format!("/jobs/{id}")))?.parse()?;
            has_ended = job.has_ended();
            if !has_ended {
                // Only if the server answered at once.
                thread::sleep(RETRY_INTERVAL.saturating_sub(asked.elapsed()));
            }
        }
    }
}

fn wait_for_lines(path: &str, client: &Client) -> Result<Response, ClientError> {
    match client.get_within(&format!("{path}&wait={}s", MAX_WAIT.as_secs()), MAX_WAIT) {
        Err(error) if error.code() == Some("too_many_waiting") => client.get(path),
        other => other,
    }
}

/// Writes the lines after line `last`.
fn write(log: &Log, last: u64, json: bool, response: &Response, console: &mut Console) -> io::Result<()> {
    if json {
        return console.json(&response.body);
    }
    let missing = log.lines.first().map_or(0, |first| first.n.saturating_sub(last + 1));
    if missing > 0 {
        console.note(&format!("{} before are no longer kept", count(missing, "line")));
    }
    log.lines.iter().try_for_each(|line| writeln!(console.out, "{}", line.shown()))
}

#[cfg(test)]
mod tests {
    use crate::cli::testing::{FakeServer, job};
    use crate::logging::escape::json_line;

    fn log(from: u64, texts: &[&str]) -> String {
        let line = |(n, text): (u64, &&str)| {
            format!(r#"{{"n": {n}, "at": "2026-11-24T08:00:01.000Z", "text": "{text}"}}"#)
        };
        let lines: Vec<String> = (from..).zip(texts).map(line).collect();
        let total = from - 1 + texts.len() as u64;
        format!(r#"{{"lines": [{}], "total": {total}}}"#, lines.join(", "))
    }

    #[test]
    fn the_lines_are_printed_with_their_times() {
        let server = FakeServer::start(&[(200, &log(1, &["a", "\\u001b[2J"]))]);
        let done = server.run(&["logs", "17"]);
        let expected = "2026-11-24 08:00:01  a\n2026-11-24 08:00:01  \\u{1b}[2J\n";
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, expected, ""));
        assert_eq!(server.request().line, "GET /jobs/17/log?after=0&limit=1000");
    }

    #[test]
    fn it_says_what_is_not_there() {
        let server = FakeServer::start(&[(200, &log(1, &[])), (200, &log(8, &["a"]))]);
        let done = server.run(&["logs", "17"]);
        let nothing = "threadq: job 17 has logged no lines\n";
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "", nothing));
        let done = server.run(&["logs", "17"]);
        assert_eq!((done.code, done.out.lines().count()), (0, 1));
        assert_eq!(done.err, "threadq: 7 lines before are no longer kept\n");
    }

    #[test]
    fn following_ends_with_the_last_lines_of_the_ended_job() {
        for flag in ["-f", "--follow"] {
            let server = FakeServer::start(&[
                (200, &log(1, &["a"])),
                (200, &log(2, &[])),
                (200, &job(17, "processing")),
                (503, r#"{"error": "no", "code": "too_many_waiting"}"#),
                (200, &log(2, &[])),
                (200, &job(17, "completed")),
                (200, &log(2, &["b"])),
                (200, &log(3, &[])),
            ]);
            let done = server.run(&["logs", "17", flag]);
            let expected = "2026-11-24 08:00:01  a\n2026-11-24 08:00:01  b\n";
            assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, expected, ""));
            for line in [
                "GET /jobs/17/log?after=0&limit=1000&wait=60s",
                "GET /jobs/17/log?after=1&limit=1000&wait=60s",
                "GET /jobs/17",
                "GET /jobs/17/log?after=1&limit=1000&wait=60s",
                "GET /jobs/17/log?after=1&limit=1000",
                "GET /jobs/17",
                "GET /jobs/17/log?after=1&limit=1000",
                "GET /jobs/17/log?after=2&limit=1000",
            ] {
                assert_eq!(server.request().line, line);
            }
        }
    }

    #[test]
    fn a_lost_response_is_asked_for_again_and_a_missing_job_is_an_error() {
        let gone = r#"{"error": "Job 17 does not exist", "code": "not_found"}"#;
        let server = FakeServer::start(&[(0, ""), (200, &log(1, &["a"])), (404, gone)]);
        let done = server.run(&["logs", "17", "-f"]);
        assert_eq!((done.code, done.out.as_str()), (1, "2026-11-24 08:00:01  a\n"));
        assert!(done.err.contains("; retrying\n"), "{}", done.err);
        assert!(done.err.ends_with("threadq: Job 17 does not exist (not_found)\n"), "{}", done.err);
    }

    #[test]
    fn json_is_the_response_of_the_server() {
        let page = log(1, &["a"]);
        let server = FakeServer::start(&[(200, &page)]);
        assert_eq!(server.run(&["logs", "17", "--json"]).out.trim_end(), json_line(&page));
    }
}
