//! `threadq bulk`: cancels, deletes, retries, runs, moves or changes all jobs that match a filter.

use std::io::{BufRead, BufReader};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cli::args::{Args, Command, Flag, JSON, Run, job_type, queue_name, time, valid_text};
use crate::cli::client::{Client, OUTAGE_LIMIT, RETRY_INTERVAL};
use crate::cli::commands::jobs::{CREATED_AFTER, CREATED_BEFORE, TYPE};
use crate::cli::error::Error;
use crate::cli::responses::count;
use crate::cli::terminal::console::Console;
use crate::cli::terminal::progress::Bar;
use crate::client::bulk::Step;
use crate::client::{Error as ClientError, with_retries};
use crate::job::rules::{ERROR_PART, TAG};
use crate::job::time::{now_ms, rfc3339};
use crate::job::{Status, duration};

pub(crate) static BULK: Command = Command {
    name: "bulk",
    operands: "cancel|delete|retry|run|move|set",
    about: "Changes all jobs that match every given flag: counts them, asks, and changes them.\n\
            cancel: jobs that have not ended. delete: ended jobs. retry: failed jobs, with --status also cancelled ones.\n\
            run: scheduled and retrying jobs become ready now. move: jobs that wait go to the queue --to.\n\
            set: jobs that wait get new values.",
    flags: &[
        Flag {
            name: "status",
            value: "STATUS,..",
            help: "only jobs with one of these statuses [default: those that the action can change]",
        },
        TYPE,
        Flag { name: "tag", value: "TAG", help: "only jobs with this tag" },
        Flag { name: "queue", value: "QUEUE", help: "only jobs of this queue" },
        Flag { name: "error", value: "TEXT", help: "only jobs whose last error contains this text" },
        Flag {
            name: "older-than",
            value: "DURATION",
            help: "only jobs created longer ago, by the clock of this machine: 90s, 1h, 30d",
        },
        CREATED_AFTER,
        CREATED_BEFORE,
        Flag { name: "all", value: "", help: "all jobs that the action can change" },
        Flag { name: "to", value: "QUEUE", help: "move: the new queue" },
        Flag {
            name: "values",
            value: "JSON",
            help: "set: the new values, as in the body of PATCH /jobs/ID: '{\"max_attempts\": 10}'",
        },
        Flag { name: "dry-run", value: "", help: "only print the number of jobs" },
        Flag { name: "yes", value: "", help: "do not ask" },
        JSON,
    ],
    examples: &[
        "bulk cancel --tag customer-42",
        "bulk retry --type \"Encode Video\" --error \"connection refused\" --dry-run",
        "bulk delete --status completed,cancelled --older-than 30d --yes",
        "bulk move --queue video --to video-slow --yes",
    ],
    run: Run::Client(bulk),
};

/// What a command line asks for.
struct Operation {
    /// The verb for what is to be done, and the one for what is done.
    verbs: [&'static str; 2],
    body: Map<String, Value>,
}

fn bulk(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    let operation = operation(args)?;
    let [verb, done] = operation.verbs;
    let is_dry = args.has("dry-run");
    if !is_dry && !args.has("yes") && !console.can_ask() {
        return Err(Error::Usage("--yes is missing: without a terminal the command cannot ask".to_owned()));
    }
    let is_json = args.has("json");
    if is_dry || !args.has("yes") || console.err_is_terminal {
        let mut body = operation.body.clone();
        body.insert("dry_run".to_owned(), true.into());
        let Step { matched, .. } = send(body, "counting", 0, client, console)?;
        if is_dry {
            let line = format!("would {verb} {}", count(matched, "job"));
            console.json_or_line(is_json, &json!({ "matched": matched, "changed": 0 }).to_string(), &line)?;
            return Ok(ExitCode::SUCCESS);
        }
        if matched > 0 && !args.has("yes") && !asks(verb, matched, console) {
            console.note("nothing was changed");
            return Ok(ExitCode::FAILURE);
        }
        return finish(operation.body, done, matched, is_json, client, console);
    }
    finish(operation.body, done, 0, is_json, client, console)
}

fn finish(
    body: Map<String, Value>,
    done: &str,
    total: u64,
    is_json: bool,
    client: &Client,
    console: &mut Console,
) -> Result<ExitCode, Error> {
    let Step { matched, changed, skipped, .. } = send(body, done, total, client, console)?;
    let json = json!({ "matched": matched, "changed": changed, "skipped": skipped }).to_string();
    console.json_or_line(is_json, &json, &format!("{done} {changed} of {}", count(matched, "job")))?;
    Ok(ExitCode::SUCCESS)
}

/// Asks on the terminal. Anything but `y` or `yes` means no.
fn asks(verb: &str, matched: u64, console: &mut Console) -> bool {
    console.clear_bar();
    let _ =
        write!(console.err, "{verb} {}? [y/N] ", count(matched, "job")).and_then(|()| console.err.flush());
    let mut answer = String::new();
    let _ = BufReader::new(&mut console.stdin).read_line(&mut answer);
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// Sends the request, and the next ones as long as there is more. Returns the sums.
fn send(
    mut body: Map<String, Value>,
    what: &str,
    total: u64,
    client: &Client,
    console: &mut Console,
) -> Result<Step, Error> {
    let mut sum = Step::default();
    loop {
        let post = || client.post_json("/jobs/bulk", &body, None);
        let report = |error: ClientError| console.note(&format!("{error}; trying again"));
        let step: Step =
            with_retries(OUTAGE_LIMIT, RETRY_INTERVAL, ClientError::is_transient, post, report)?.parse()?;
        sum.matched += step.matched;
        sum.changed += step.changed;
        sum.skipped += step.skipped;
        let Some(cursor) = step.cursor else {
            console.clear_bar();
            return Ok(sum);
        };
        console.show_bar(&Bar { what, done: sum.matched, total, result: count(sum.matched, "job") });
        body.insert("cursor".to_owned(), cursor.into());
    }
}

fn operation(args: &Args) -> Result<Operation, Error> {
    use Status::{Cancelled, Completed, Failed, Processing, Queued, Retrying, Scheduled};
    let waiting: &[Status] = &[Scheduled, Queued, Retrying];
    let [word] = args.operands()[..] else { return Err(args.unexpected_operands()) };
    let (action, verbs, statuses): (&str, _, &[Status]) = match word {
        "cancel" => ("cancel", ["cancel", "cancelled"], &[Scheduled, Queued, Processing, Retrying]),
        "delete" => ("delete", ["delete", "deleted"], &[Completed, Failed, Cancelled]),
        "retry" => ("retry", ["retry", "retried"], &[Failed]),
        "run" => ("run", ["run", "made ready"], &[Scheduled, Retrying]),
        "move" => ("change", ["move", "moved"], waiting),
        "set" => ("change", ["change", "changed"], waiting),
        _ => return Err(args.unexpected_operands()),
    };
    let mut body = Map::new();
    body.insert("action".to_owned(), action.into());
    body.insert("filter".to_owned(), filter(args, statuses)?.into());
    let form = format!("bulk {word}");
    match word {
        "move" => {
            args.refuse(&["values"], &form)?;
            let to = args.read("to", queue_name)?.ok_or_else(|| args.missing_operand("--to QUEUE"))?;
            body.insert("set".to_owned(), json!({ "queue": to }));
        }
        "set" => {
            args.refuse(&["to"], &form)?;
            let object = |text: &str| match serde_json::from_str(text) {
                Ok(Value::Object(values)) => Ok(values),
                _ => Err("must be a JSON object, like {\"max_attempts\": 10}"),
            };
            let values = args.read("values", object)?.ok_or_else(|| args.missing_operand("--values JSON"))?;
            body.insert("set".to_owned(), values.into());
        }
        _ => args.refuse(&["to", "values"], &form)?,
    }
    Ok(Operation { verbs, body })
}

/// The filter that the flags name. The default is jobs with these statuses.
fn filter(args: &Args, statuses: &[Status]) -> Result<Map<String, Value>, Error> {
    let older_than = args.read("older-than", duration::parse)?.map(|age: Duration| {
        args.refuse(&["created-before"], "--older-than")?;
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Ok::<String, Error>(rfc3339(now_ms().saturating_sub(age)))
    });
    let given = [
        ("type", args.read("type", job_type)?),
        ("tag", args.read("tag", |text| valid_text(text, &TAG))?),
        ("queue", args.read("queue", queue_name)?),
        ("error", args.read("error", |text| valid_text(text, &ERROR_PART))?),
        ("created_after", args.read("created-after", time)?),
        ("created_before", older_than.transpose()?.or(args.read("created-before", time)?)),
    ];
    let chosen =
        args.read("status", |text| text.split(',').map(str::parse).collect::<Result<Vec<Status>, _>>())?;
    let has_filter = chosen.is_some() || given.iter().any(|(_, value)| value.is_some());
    match (args.has("all"), has_filter) {
        (false, false) => {
            let sentence = "no jobs are chosen; allowed: --all, or at least one of --status, --type, --tag, --queue, \
                            --error, --older-than, --created-after, --created-before";
            return Err(Error::Usage(sentence.to_owned()));
        }
        (true, true) => {
            return Err(Error::Usage("--all: not allowed with other flags that choose jobs".to_owned()));
        }
        _ => {}
    }
    let statuses = chosen.unwrap_or_else(|| statuses.to_vec());
    let mut filter = Map::new();
    filter.insert("status".to_owned(), statuses.iter().map(|status| status.as_str()).collect());
    filter.extend(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use crate::cli::testing::{FakeServer, run};

    const DONE: (u16, &str) =
        (200, r#"{"matched": 5, "changed": 4, "skipped": 1, "more": false, "cursor": null}"#);
    const MORE: (u16, &str) =
        (200, r#"{"matched": 5, "changed": 5, "skipped": 0, "more": true, "cursor": "9-7"}"#);

    #[test]
    fn the_request_has_the_filter_and_the_statuses_that_the_action_can_change() {
        let cases: [(&[&str], &str, &str); 6] = [
            (
                &["cancel", "--tag", "customer 42"],
                r#"{"action":"cancel","filter":{"status":["scheduled","queued","processing","retrying"],"tag":"customer 42"}}"#,
                "cancelled 4 of 5 jobs\n",
            ),
            (
                &["delete", "--all"],
                r#"{"action":"delete","filter":{"status":["completed","failed","cancelled"]}}"#,
                "deleted 4 of 5 jobs\n",
            ),
            (
                &["retry", "--status", "failed,cancelled", "--error", "no \"disk\""],
                r#"{"action":"retry","filter":{"error":"no \"disk\"","status":["failed","cancelled"]}}"#,
                "retried 4 of 5 jobs\n",
            ),
            (
                &["run", "--type", "a", "--created-after", "2026-11-24T08:00:00Z"],
                r#"{"action":"run","filter":{"created_after":"2026-11-24T08:00:00Z","status":["scheduled","retrying"],"type":"a"}}"#,
                "made ready 4 of 5 jobs\n",
            ),
            (
                &["move", "--queue", "a", "--to", "b"],
                r#"{"action":"change","filter":{"queue":"a","status":["scheduled","queued","retrying"]},"set":{"queue":"b"}}"#,
                "moved 4 of 5 jobs\n",
            ),
            (
                &["set", "--queue", "a", "--values", r#"{"timeout_ms": 5}"#],
                r#"{"action":"change","filter":{"queue":"a","status":["scheduled","queued","retrying"]},"set":{"timeout_ms":5}}"#,
                "changed 4 of 5 jobs\n",
            ),
        ];
        for (args, body, out) in cases {
            let server = FakeServer::start(&[DONE]);
            let done = server.run(&[&["bulk"], args, &["--yes"]].concat());
            assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, out, ""), "{args:?}");
            let request = server.request();
            let sent: serde_json::Value = serde_json::from_str(&request.body).unwrap();
            assert_eq!((request.line.as_str(), sent.to_string()), ("POST /jobs/bulk", body.to_owned()));
        }
    }

    #[test]
    fn an_operation_goes_on_with_the_cursor_and_prints_the_sums() {
        let server = FakeServer::start(&[MORE, (503, r#"{"error": "later", "code": "overloaded"}"#), DONE]);
        let done = server.run(&["bulk", "cancel", "--all", "--yes", "--json"]);
        let sums = "{\"changed\":9,\"matched\":10,\"skipped\":1}\n";
        assert_eq!((done.code, done.out.as_str()), (0, sums), "{}", done.err);
        assert!(!server.request().body.contains("cursor"));
        for _ in 0..2 {
            assert!(server.request().body.contains(r#""cursor":"9-7""#));
        }
    }

    #[test]
    fn without_a_terminal_and_without_yes_nothing_is_sent() {
        let server = FakeServer::start(&[DONE]);
        let done = server.run(&["bulk", "cancel", "--tag", "x"]);
        let expected = "threadq: --yes is missing: without a terminal the command cannot ask\n";
        assert_eq!((done.code, done.err.as_str(), server.is_idle()), (2, expected, true));
        let done = server.run(&["bulk", "cancel", "--tag", "x", "--dry-run"]);
        assert_eq!((done.code, done.out.as_str()), (0, "would cancel 5 jobs\n"));
        assert!(server.request().body.contains(r#""dry_run":true"#));
    }

    #[test]
    fn on_a_terminal_the_command_counts_and_asks() {
        for (answer, is_yes) in [("y\n", true), ("YES\n", true), ("\n", false), ("", false), ("yo\n", false)]
        {
            let server = FakeServer::start(&[DONE, DONE]);
            let done = server.run_on_terminal_with_stdin(&["bulk", "delete", "--all"], answer.as_bytes());
            assert!(done.err.contains("delete 5 jobs? [y/N] "), "{}", done.err);
            assert_eq!((done.code, done.out.contains("deleted 4 of 5 jobs")), (u8::from(!is_yes), is_yes));
            assert!(server.request().body.contains("dry_run"));
            assert_eq!(server.is_idle(), !is_yes, "{answer:?}");
        }
    }

    #[test]
    fn a_usage_error_says_what_is_allowed() {
        let cases: &[(&[&str], &str)] = &[
            (&[], "missing argument: cancel|delete|retry|run|move|set; usage: "),
            (&["drop"], "unexpected argument: drop; usage: "),
            (&["cancel"], "no jobs are chosen; allowed: --all, or at least one of --status, "),
            (&["cancel", "--all", "--tag", "x"], "--all: not allowed with other flags that choose jobs"),
            (&["cancel", "--status", "queued,done"], "--status \"queued,done\": "),
            (
                &["cancel", "--older-than", "1h", "--created-before", "2026-11-24T08:00:00Z"],
                "--created-before: not allowed with --older-than; ",
            ),
            (&["cancel", "--older-than", "old"], "--older-than \"old\": "),
            (&["cancel", "--tag", "x", "--to", "q"], "--to: not allowed with bulk cancel; "),
            (&["move", "--tag", "x"], "missing argument: --to QUEUE; usage: "),
            (&["set", "--tag", "x"], "missing argument: --values JSON; usage: "),
            (&["set", "--tag", "x", "--values", "[]"], "--values \"[]\": must be a JSON object, like "),
        ];
        for (args, expected) in cases {
            let done = run(&[&["bulk"], *args].concat());
            assert_eq!(done.code, 2, "{args:?}");
            assert!(done.err.starts_with(&format!("threadq: {expected}")), "{args:?}: {}", done.err);
        }
    }
}
