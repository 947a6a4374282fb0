//! `threadq schedules`: jobs that servers submit at fixed times.

use std::process::ExitCode;

use crate::cli::args::{Args, Command, Flag, Run, whole_number};
use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::terminal::console::Console;
use crate::cli::terminal::table::{Column, full};
use crate::job::duration;
use crate::job::time::{now_ms, rfc3339};
use crate::schedule::Spec;

/// The most times that `next` prints.
const MAX_TIMES: usize = 1000;

pub(crate) static SCHEDULES: Command = Command {
    name: "schedules",
    operands: "next EXPR",
    about: "Shows the next times of a cron expression, or of a duration such as 15m.\n\
            next needs no server.",
    flags: &[
        Flag { name: "n", value: "N", help: "next: how many times, 1 to 1000 [default: 10]" },
        Flag {
            name: "timezone",
            value: "NAME",
            help: "next: time zone, such as Europe/Berlin [default: UTC]",
        },
    ],
    examples: &["schedules next '30 2 * * *' --timezone Europe/Berlin", "schedules next '@hourly' -n 3"],
    run: Run::Client(schedules),
};

fn schedules(args: &Args, _: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    match args.operands()[..] {
        ["next", expression] => next(expression, args, console),
        ["next"] => Err(args.missing_operand("EXPR")),
        _ => Err(args.unexpected_operands()),
    }?;
    Ok(ExitCode::SUCCESS)
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
    use crate::cli::testing::run;

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
