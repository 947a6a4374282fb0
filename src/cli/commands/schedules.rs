//! `threadq schedules`: jobs that servers submit at fixed times.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::cli::args::{Args, Command, Flag, JSON, Run, valid_text, whole_number};
use crate::cli::client::{Client, with_query};
use crate::cli::commands::jobs::{limit, page};
use crate::cli::error::Error;
use crate::cli::responses::{count, short_time};
use crate::cli::terminal::console::Console;
use crate::cli::terminal::style::of_state;
use crate::cli::terminal::table::{Column, full, truncated};
use crate::client::schedules::{ScheduleInfo, SchedulePage};
use crate::job::rules::SCHEDULE_NAME;
use crate::job::time::{now_ms, rfc3339};
use crate::job::{JobId, duration};
use crate::logging::escape::escape;
use crate::schedule::Spec;

/// The most times that `next` prints.
const MAX_TIMES: usize = 1000;

pub(crate) static SCHEDULES: Command = Command {
    name: "schedules",
    operands: "[list|show|run|pause|resume|delete|next NAME]",
    about: "Lists schedules, shows or changes one, or shows the next times of an expression.\n\
            run starts a job now. pause keeps the ticks of a schedule from starting anything.\n\
            next EXPR takes a cron expression, or a duration such as 15m, and needs no server.",
    flags: &[
        Flag { name: "page", value: "N", help: "list: page number, from 1 [default: 1]" },
        Flag { name: "limit", value: "N", help: "list: schedules per page, 1 to 100 [default: 10]" },
        Flag { name: "force", value: "", help: "run: also while the job of an earlier tick has not ended" },
        Flag { name: "n", value: "N", help: "next: how many times, 1 to 1000 [default: 10]" },
        Flag {
            name: "timezone",
            value: "NAME",
            help: "next: time zone, such as Europe/Berlin [default: UTC]",
        },
        JSON,
    ],
    examples: &[
        "schedules",
        "schedules show nightly-report",
        "schedules run nightly-report",
        "schedules next '30 2 * * *' --timezone Europe/Berlin -n 3",
    ],
    run: Run::Client(schedules),
};

fn schedules(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    let operands = args.operands();
    let verb = operands.first().copied().unwrap_or("list");
    for (flags, with) in [(&["page", "limit"][..], "list"), (&["force"], "run"), (&["n", "timezone"], "next")]
    {
        if verb != with {
            args.refuse(flags, &format!("schedules {verb}"))?;
        }
    }
    match operands[..] {
        [] | ["list"] => list(args, client, console),
        ["next", expression] => next(expression, args, console),
        ["next"] => Err(args.missing_operand("EXPR")),
        ["show" | "run" | "pause" | "resume" | "delete"] => Err(args.missing_operand("NAME")),
        ["show", name] => show(name, args, client, console),
        [verb @ ("run" | "pause" | "resume" | "delete"), name] => change(verb, name, args, client, console),
        _ => Err(args.unexpected_operands()),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn path(name: &str) -> Result<String, Error> {
    let name = valid_text(name, &SCHEDULE_NAME)
        .map_err(|allowed| Error::Usage(format!("NAME {name:?}: {allowed}")))?;
    Ok(format!("/schedules/{name}"))
}

fn list(args: &Args, client: &Client, console: &mut Console) -> Result<(), Error> {
    const COLUMNS: [Column; 5] = [
        truncated("NAME"),
        truncated("TIMES"),
        full("NEXT (UTC)"),
        full("LAST").optional(),
        full("STATE").styled(of_state),
    ];
    let query = [("page", page(args)?), ("limit", limit(args)?)];
    let response = client.get(&with_query("/schedules", &query))?;
    let page: SchedulePage = response.parse()?;
    if args.has("json") {
        return Ok(console.json(&response.body)?);
    }
    let rows: Vec<[String; 5]> = page.schedules.iter().map(row).collect();
    if !rows.is_empty() {
        console.table(&COLUMNS, &rows)?;
    }
    Ok(writeln!(console.out, "{} of {}", rows.len(), count(page.total, "schedule"))?)
}

fn row(schedule: &ScheduleInfo) -> [String; 5] {
    [
        schedule.name.clone(),
        times(schedule),
        schedule.next.first().map(|time| short_time(time)).unwrap_or_default(),
        schedule.last.as_ref().map(|tick| tick.outcome.clone()).unwrap_or_default(),
        state(schedule).to_owned(),
    ]
}

/// `every 15m`, or the cron expression and its time zone.
fn times(schedule: &ScheduleInfo) -> String {
    let spec = &schedule.spec;
    match (&spec.cron, &spec.every, &spec.timezone) {
        (Some(cron), _, Some(timezone)) => format!("{cron} {timezone}"),
        (Some(cron), _, None) => format!("{cron} UTC"),
        (None, every, _) => format!("every {}", every.as_deref().unwrap_or_default()),
    }
}

fn state(schedule: &ScheduleInfo) -> &'static str {
    if schedule.paused { "paused" } else { "running" }
}

fn show(name: &str, args: &Args, client: &Client, console: &mut Console) -> Result<(), Error> {
    const COLUMNS: [Column; 4] = [full("TICK (UTC)"), full("OUTCOME"), full("TICKS"), full("JOB")];
    let response = client.get(&path(name)?)?;
    if args.has("json") {
        return Ok(console.json(&response.body)?);
    }
    let schedule: ScheduleInfo = response.parse()?;
    let next: Vec<String> = schedule.next.iter().map(|time| short_time(time)).collect();
    writeln!(console.out, "name    {}", schedule.name)?;
    writeln!(console.out, "times   {}", escape(&times(&schedule)))?;
    writeln!(console.out, "state   {}, from {}", state(&schedule), schedule.source)?;
    writeln!(console.out, "job     {}", escape(&schedule.job.to_string()))?;
    writeln!(console.out, "next    {}", next.join(", "))?;
    if schedule.history.is_empty() {
        return Ok(());
    }
    writeln!(console.out)?;
    let rows: Vec<[String; 4]> = schedule
        .history
        .iter()
        .map(|tick| {
            let job = tick.job_id.map(|id| id.to_string()).unwrap_or_default();
            [short_time(&tick.tick), tick.outcome.clone(), tick.count.unwrap_or(1).to_string(), job]
        })
        .collect();
    Ok(console.table(&COLUMNS, &rows)?)
}

/// The body of POST /schedules/NAME/run.
#[derive(Serialize)]
struct RunBody {
    force: bool,
}

/// The response to POST /schedules/NAME/run.
#[derive(Deserialize)]
struct Started {
    job_id: JobId,
}

fn change(verb: &str, name: &str, args: &Args, client: &Client, console: &mut Console) -> Result<(), Error> {
    let path = path(name)?;
    let (response, line) = match verb {
        "run" => {
            let body = RunBody { force: args.has("force") };
            let response = client.post_json(&format!("{path}/run"), &body, None)?;
            let line = response.parse::<Started>()?.job_id.to_string();
            (response, line)
        }
        "delete" => (client.delete(&path)?, format!("deleted the schedule {name}")),
        _ => (client.post(&format!("{path}/{verb}"))?, format!("{verb}d the schedule {name}")),
    };
    Ok(console.json_or_line(args.has("json"), &response.body, &line)?)
}

fn next(expression: &str, args: &Args, console: &mut Console) -> Result<(), Error> {
    const COLUMNS: [Column; 2] = [full("TIME"), full("UTC")];
    let count = args.read("n", whole_number(1..=MAX_TIMES))?.unwrap_or(10);
    let text = Some(expression.to_owned());
    let timezone = args.text("timezone").map(str::to_owned);
    let spec = match duration::parse(expression) {
        Ok(_) => Spec { every: text, timezone, ..Spec::default() },
        Err(_) => Spec { cron: text, timezone, ..Spec::default() },
    };
    let plan = spec.plan().map_err(|error| {
        let value = spec.value(error.field).unwrap_or_default();
        Error::Usage(format!("{} {value:?} {}; allowed: {}", error.field, error.problem, error.allowed))
    })?;
    let ticks = std::iter::successors(plan.next_after(now_ms()), |tick| plan.next_after(*tick));
    let rows: Vec<[String; 2]> =
        ticks.take(count).map(|tick| [plan.local_text(tick), rfc3339(tick)]).collect();
    Ok(console.table(&COLUMNS, &rows)?)
}

#[cfg(test)]
mod tests {
    use crate::cli::testing::{FakeServer, run};

    #[test]
    fn next_prints_the_times_of_an_expression_without_a_server() {
        let done = run(&["schedules", "next", "30 2 * * *", "--timezone", "Asia/Kolkata", "-n", "3"]);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
        let lines: Vec<&str> = done.out.lines().collect();
        assert_eq!(lines.len(), 4, "{}", done.out);
        assert!(lines[0].starts_with("TIME "), "{}", done.out);
        for line in &lines[1..] {
            assert!(line.contains("T02:30:00+05:30  ") && line.ends_with("T21:00:00.000Z"), "{line}");
        }
        assert_eq!(run(&["schedules", "next", "15m"]).out.lines().count(), 11);
    }

    #[test]
    fn schedules_are_listed_shown_and_changed() {
        let one = r#"{"name": "nightly", "source": "api", "paused": true, "cron": "0 3 * * *", "timezone": "Asia/Kolkata",
            "job": {"type": "report"}, "next": ["2026-11-28T21:30:00.000Z"],
            "last": {"tick": "2026-11-27T21:30:00.000Z", "outcome": "missed", "count": 3}"#;
        let page = format!(r#"{{"schedules": [{one}}}], "page": 1, "limit": 10, "total": 7}}"#);
        let server = FakeServer::start(&[(200, &page)]);
        let done = server.run(&["schedules"]);
        assert_eq!(done.code, 0, "{}", done.err);
        assert!(done.out.contains("nightly") && done.out.contains("0 3 * * * Asia/Kolkata"), "{}", done.out);
        assert!(done.out.contains("missed") && done.out.contains("paused"), "{}", done.out);
        assert!(done.out.ends_with("1 of 7 schedules\n"), "{}", done.out);

        let history = r#""history": [{"tick": "2026-11-27T21:30:00.000Z", "outcome": "missed", "count": 3}]"#;
        let server = FakeServer::start(&[(200, &format!("{one}, {history}}}"))]);
        let done = server.run(&["schedules", "show", "nightly"]);
        assert!(done.out.contains("job     {\"type\":\"report\"}"), "{}", done.out);
        assert!(done.out.trim_end().ends_with("missed   3"), "{}", done.out);

        let server = FakeServer::start(&[(202, r#"{"job_id": 12}"#)]);
        assert_eq!(server.run(&["schedules", "run", "nightly", "--force"]).out, "12\n");
        assert_eq!(run(&["schedules", "run"]).code, 2);
        assert_eq!(run(&["schedules", "pause", "a b"]).code, 2);
        assert_eq!(run(&["schedules", "show", "x", "--force"]).code, 2);
    }

    #[test]
    fn a_wrong_expression_is_a_usage_error_that_names_the_part() {
        for (words, expected) in [
            (vec!["61 * * * *"], "cron \"61 * * * *\" has the minute \"61\"; allowed: 0-59, with * , - /"),
            (vec!["500ms"], "every \"500ms\" is too short; allowed: 1s to 365d"),
            (
                vec!["@daily", "--timezone", "Nowhere"],
                "timezone \"Nowhere\" is no time zone; allowed: an IANA name such as Europe/Berlin, or UTC",
            ),
            (vec!["@daily", "-n", "0"], "-n \"0\": must be a whole number from 1 to 1000"),
            (vec![], "missing argument: EXPR"),
        ] {
            let done = run(&[&["schedules", "next"], &words[..]].concat());
            assert_eq!(done.code, 2);
            assert!(done.err.contains(expected), "{}", done.err);
        }
    }
}
