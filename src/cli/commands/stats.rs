//! `threadq stats` and `threadq queues`: show counts, queues and servers, and pause or resume a queue.

use std::io;
use std::process::ExitCode;

use crate::cli::args::{Args, Command, Flag, JSON, Run, queue_name};
use crate::cli::client::{Client, with_query};
use crate::cli::commands::jobs::{limit, page, write_jobs};
use crate::cli::error::Error;
use crate::cli::responses::{Page, QueueView, Queues, ServerView, Stats, short_span, short_time};
use crate::cli::terminal::console::Console;
use crate::cli::terminal::style::{of_state, of_status};
use crate::cli::terminal::table::{Column, full, truncated};
use crate::job::Status;
use crate::net::percent::encode_segment;

pub(crate) static STATS: Command = Command {
    name: "stats",
    operands: "",
    about: "Shows the number of jobs of each status, the queues, and the servers.",
    flags: &[JSON],
    examples: &["stats", "stats --json"],
    run: Run::Client(stats),
};

pub(crate) static QUEUES: Command = Command {
    name: "queues",
    operands: "[show|pause|resume NAME]",
    about: "Lists the queues, shows the jobs that wait in a queue, or pauses or resumes a queue.\n\
            The job that a server takes next comes first.\n\
            HELD is how many of the queued jobs wait for room in a limit.\n\
            No server takes jobs from a paused queue; new jobs are still accepted.",
    flags: &[
        Flag { name: "page", value: "N", help: "with show: page number, from 1 [default: 1]" },
        Flag { name: "limit", value: "N", help: "with show: jobs per page, 1 to 100 [default: 10]" },
        JSON,
    ],
    examples: &["queues", "queues show default", "queues pause default", "queues resume default"],
    run: Run::Client(queues),
};

fn stats(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    args.no_operands()?;
    let response = client.get("/stats")?;
    let stats: Stats = response.parse()?;
    if args.has("json") {
        console.json(&response.body)?;
    } else {
        write_counts(&stats, console)?;
        writeln!(console.out)?;
        write_queues(&stats.queues, console)?;
        writeln!(console.out)?;
        write_servers(&stats.servers, console)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_counts(stats: &Stats, console: &mut Console) -> io::Result<()> {
    const COLUMNS: [Column; 2] = [full("STATUS").styled(of_status), full("JOBS")];
    let rows = Status::ALL.map(|status| {
        let count = stats.counts.get(status.as_str()).copied().unwrap_or(0);
        [status.to_string(), count.to_string()]
    });
    console.table(&COLUMNS, &rows)
}

pub(crate) fn write_queues(queues: &[QueueView], console: &mut Console) -> io::Result<()> {
    const COLUMNS: [Column; 5] = [
        truncated("QUEUE"),
        full("QUEUED"),
        full("HELD").unless_empty(),
        full("STATE").styled(of_state),
        full("OLDEST"),
    ];
    if queues.is_empty() {
        return writeln!(console.out, "no queues");
    }
    let rows: Vec<[String; 5]> = queues.iter().map(queue_row).collect();
    console.table(&COLUMNS, &rows)
}

fn queue_row(queue: &QueueView) -> [String; 5] {
    [
        queue.name.clone(),
        queue.queued.to_string(),
        if queue.held == 0 { String::new() } else { queue.held.to_string() },
        queue.state().to_owned(),
        queue.oldest_ms.map(short_span).unwrap_or_default(),
    ]
}

pub(crate) fn write_servers(servers: &[ServerView], console: &mut Console) -> io::Result<()> {
    const COLUMNS: [Column; 4] = [
        truncated("SERVER"),
        full("BUSY"),
        full("STARTED (UTC)").optional(),
        full("LAST HEARTBEAT").optional(),
    ];
    if servers.is_empty() {
        return writeln!(console.out, "no servers");
    }
    let rows: Vec<[String; 4]> = servers.iter().map(server_row).collect();
    console.table(&COLUMNS, &rows)
}

fn server_row(server: &ServerView) -> [String; 4] {
    [
        server.id.clone(),
        format!("{}/{}", server.busy, server.workers),
        short_time(&server.started_at),
        format!("{} ago", short_span(server.beat_age_ms)),
    ]
}

fn queues(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    let operands = args.operands();
    if operands.first() != Some(&"show") {
        args.refuse(&["page", "limit"], "queues without show")?;
    }
    match operands[..] {
        [] => list_queues(args, client, console),
        ["show" | "pause" | "resume"] => Err(args.missing_operand("NAME")),
        ["show", name] => show_queue(name, args, client, console),
        [verb @ ("pause" | "resume"), name] => set_paused(verb, name, args, client, console),
        _ => Err(args.unexpected_operands()),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn list_queues(args: &Args, client: &Client, console: &mut Console) -> Result<(), Error> {
    let response = client.get("/queues")?;
    let Queues { queues } = response.parse()?;
    if args.has("json") {
        console.json(&response.body)?;
    } else {
        write_queues(&queues, console)?;
    }
    Ok(())
}

/// The name of a queue, as a segment of a path.
fn queue_segment(name: &str) -> Result<(String, String), Error> {
    let name = queue_name(name).map_err(|allowed| Error::Usage(format!("NAME {name:?}: {allowed}")))?;
    let segment = encode_segment(&name);
    Ok((name, segment))
}

fn show_queue(name: &str, args: &Args, client: &Client, console: &mut Console) -> Result<(), Error> {
    let (_, segment) = queue_segment(name)?;
    let query = [("page", page(args)?), ("limit", limit(args)?)];
    let response = client.get(&with_query(&format!("/queues/{segment}/jobs"), &query))?;
    let jobs: Page = response.parse()?;
    if args.has("json") {
        console.json(&response.body)?;
    } else {
        write_jobs(&jobs, console)?;
    }
    Ok(())
}

fn set_paused(
    verb: &str,
    name: &str,
    args: &Args,
    client: &Client,
    console: &mut Console,
) -> Result<(), Error> {
    let (name, segment) = queue_segment(name)?;
    let response = client.post(&format!("/queues/{segment}/{verb}"))?;
    let queue: QueueView = response.parse()?;
    if queue.is_unserved() {
        let jobs =
            if queue.known == Some(false) { ", and no job is in the queue: check the name" } else { "" };
        console.note(&format!("no server takes jobs from queue {name}{jobs}"));
    }
    let line = format!("queue {name} is {}", if queue.paused { "paused" } else { "running" });
    Ok(console.json_or_line(args.has("json"), &response.body, &line)?)
}

#[cfg(test)]
mod tests {
    use crate::cli::testing::{FakeServer, job, run};
    use crate::logging::escape::json_line;

    const STATS: &str = r#"{"counts": {"queued": 3, "failed": 1},
        "queues": [{"name": "default", "queued": 3, "paused": false, "oldest_ms": 185000}],
        "servers": [{"id": "host-1-ab", "started_at": "2026-11-24T08:00:00.000Z", "workers": 30, "busy": 2, "beat_age_ms": 850}]}"#;

    #[test]
    fn stats_show_counts_queues_and_servers() {
        let server = FakeServer::start(&[(200, STATS)]);
        let done = server.run(&["stats"]);
        let expected = "\
STATUS      JOBS
scheduled   0
queued      3
processing  0
retrying    0
completed   0
failed      1
cancelled   0

QUEUE    QUEUED  STATE    OLDEST
default  3       running  3 min 5 s

SERVER     BUSY  STARTED (UTC)        LAST HEARTBEAT
host-1-ab  2/30  2026-11-24 08:00:00  850 ms ago
";
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, expected, ""));
        assert_eq!(server.request().line, "GET /stats");
    }

    #[test]
    fn stats_as_json_are_one_line() {
        let server = FakeServer::start(&[(200, STATS)]);
        let done = server.run(&["stats", "--json"]);
        assert_eq!(done.out.lines().count(), 1);
        assert!(done.out.starts_with(r#"{"counts": {"queued": 3,"#), "{}", done.out);
    }

    #[test]
    fn queues_are_listed_paused_and_resumed() {
        let paused = r#"{"name": "mail", "queued": 0, "paused": true, "oldest_ms": null}"#;
        let running = r#"{"name": "mail", "queued": 0, "paused": false, "oldest_ms": null}"#;
        let list = format!(r#"{{"queues": [{paused}]}}"#);
        let server =
            FakeServer::start(&[(200, &list), (200, paused), (200, running), (200, r#"{"queues": []}"#)]);
        let cases: [(&[&str], &str, &str); 4] = [
            (&["queues"], "GET /queues", "QUEUE  QUEUED  STATE   OLDEST\nmail   0       paused\n"),
            (&["queues", "pause", "mail"], "POST /queues/mail/pause", "queue mail is paused\n"),
            (&["queues", "resume", "mail", "--json"], "POST /queues/mail/resume", &format!("{running}\n")),
            (&["queues"], "GET /queues", "no queues\n"),
        ];
        for (args, line, out) in cases {
            let done = server.run(args);
            assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, out, ""));
            assert_eq!(server.request().line, line);
        }
    }

    #[test]
    fn the_jobs_of_a_queue_are_shown_page_by_page() {
        let page = format!(r#"{{"jobs": [{}], "page": 2, "limit": 1, "total": 3}}"#, job(17, "queued"));
        let server = FakeServer::start(&[(200, &page), (200, &page)]);
        let args = ["queues", "show", "mail", "--page", "2", "--limit", "1"];
        let done = server.run(&args);
        let expected = "\
ID  STATUS  TYPE          QUEUE    TRIES  CREATED (UTC)
17  queued  Encode Video  default  1/5    2026-11-24 08:00:00
3 jobs, page 2 of 3
";
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, expected, ""));
        assert_eq!(server.request().line, "GET /queues/mail/jobs?page=2&limit=1");
        let done = server.run(&["queues", "show", "mail", "--json"]);
        assert_eq!((done.code, done.out.trim_end()), (0, &*json_line(&page)));
    }

    #[test]
    fn pausing_a_queue_that_no_server_takes_jobs_from_prints_a_warning() {
        let response = |state: bool, more: &str| {
            format!(r#"{{"name": "emial", "queued": 0, "paused": {state}, "oldest_ms": null, {more}}}"#)
        };
        let typo =
            "threadq: no server takes jobs from queue emial, and no job is in the queue: check the name\n";
        let cases = [
            ("pause", response(true, r#""servers": 0, "known": false"#), "queue emial is paused\n", typo),
            ("resume", response(false, r#""servers": 0, "known": false"#), "queue emial is running\n", typo),
            (
                "pause",
                response(true, r#""servers": 0"#),
                "queue emial is paused\n",
                "threadq: no server takes jobs from queue emial\n",
            ),
            ("pause", response(true, r#""servers": 1"#), "queue emial is paused\n", ""),
            ("pause", response(true, r#""servers": 0, "pulled": true"#), "queue emial is paused\n", ""),
        ];
        for (verb, response, out, err) in cases {
            let server = FakeServer::start(&[(200, &response)]);
            let done = server.run(&["queues", verb, "emial"]);
            assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, out, err), "{response}");
        }
    }

    #[test]
    fn a_queue_that_no_server_takes_jobs_from_is_not_running() {
        let queue = |name: &str, paused: bool, servers: u32| {
            format!(
                r#"{{"name": "{name}", "queued": 1, "paused": {paused}, "oldest_ms": 1000, "servers": {servers}}}"#
            )
        };
        let strict = |name, paused| queue(name, paused, 1).replace('}', r#", "strict": true}"#);
        let pulled = |name, paused| queue(name, paused, 0).replace('}', r#", "pulled": true}"#);
        let queues = [
            queue("a", false, 2),
            queue("b", true, 1),
            queue("c", false, 0),
            queue("d", true, 0),
            strict("e", false),
            strict("f", true),
            pulled("g", false),
            pulled("h", true),
        ];
        let server = FakeServer::start(&[(200, &format!(r#"{{"queues": [{}]}}"#, queues.join(", ")))]);
        let expected = "\
QUEUE  QUEUED  STATE              OLDEST
a      1       running            1 s
b      1       paused             1 s
c      1       no server          1 s
d      1       paused, no server  1 s
e      1       running, strict    1 s
f      1       paused, strict     1 s
g      1       running, pulled    1 s
h      1       paused             1 s
";
        assert_eq!(server.run(&["queues"]).out, expected);
    }

    #[test]
    fn the_jobs_that_wait_for_a_limit_are_counted_in_a_column_of_their_own() {
        let queue = |name: &str, held: &str| {
            format!(r#"{{"name": "{name}", "queued": 9, {held}"paused": false, "oldest_ms": null}}"#)
        };
        let queues = format!(r#"{{"queues": [{}, {}]}}"#, queue("a", r#""held": 5, "#), queue("b", ""));
        let server = FakeServer::start(&[(200, &queues)]);
        let expected = "\
QUEUE  QUEUED  HELD  STATE    OLDEST
a      9       5     running
b      9             running
";
        assert_eq!(server.run(&["queues"]).out, expected);
    }

    #[test]
    fn a_usage_error_says_what_is_allowed() {
        let usage = "usage: threadq queues [show|pause|resume NAME] [flags]";
        let cases: &[(&[&str], String)] = &[
            (&["queues", "pause"], format!("missing argument: NAME; {usage}")),
            (&["queues", "show"], format!("missing argument: NAME; {usage}")),
            (
                &["queues", "--page", "2"],
                "--page: not allowed with queues without show; see threadq queues --help".to_owned(),
            ),
            (&["queues", "stop", "mail"], format!("unexpected arguments: stop mail; {usage}")),
            (&["queues", "pause", "a/b"], "NAME \"a/b\": must be 1 to 64 of A-Z a-z 0-9 _ . -".to_owned()),
            (&["stats", "now"], "unexpected argument: now; usage: threadq stats [flags]".to_owned()),
        ];
        for (args, expected) in cases {
            let done = run(args);
            assert_eq!((done.code, done.err), (2, format!("threadq: {expected}\n")), "{args:?}");
        }
    }
}
