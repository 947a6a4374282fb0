//! `threadq limits`: how many jobs run at a time, and how many start in a period.

use std::io;
use std::process::ExitCode;

use crate::cli::args::{Args, Command, Flag, JSON, Run, whole_number};
use crate::cli::client::{Client, with_query};
use crate::cli::commands::jobs::{field, limit, page, write_jobs};
use crate::cli::error::Error;
use crate::cli::responses::{Page, short_time};
use crate::cli::terminal::console::Console;
use crate::cli::terminal::table::{Column, full, truncated};
use crate::client::limits::{Limit, LimitInfo, LimitKey, List};
use crate::job::limit::{CONCURRENCY, LIMIT_ALLOWED, LimitName, RATE_ALLOWED, Rate, STARTS};
use crate::logging::escape::escape;

pub(crate) static LIMITS: Command = Command {
    name: "limits",
    operands: "[list|show|set|unset NAME[:KEY]]",
    about: "Lists limits, shows one and the jobs that wait for it, or sets or unsets its numbers.\n\
            set replaces all numbers of a limit or of one key. The numbers that are set hold in place of those of the\n\
            configuration file, also after a restart. unset deletes them: those of the file hold again, for a key\n\
            those of the name. A limit without other numbers is deleted with the numbers of its keys.",
    flags: &[
        Flag { name: "concurrency", value: "N", help: "set: how many jobs run at a time, 1 to 100000" },
        Flag {
            name: "rate",
            value: "N/PERIOD",
            help: "set: how many attempts start in a period, such as 10/s, 100/m or 5/30s",
        },
        Flag {
            name: "burst",
            value: "N",
            help: "set: how many of these starts may come at once [default: 1]",
        },
        Flag { name: "page", value: "N", help: "show: page number, from 1 [default: 1]" },
        Flag { name: "limit", value: "N", help: "show: waiting jobs per page, 1 to 100 [default: 10]" },
        JSON,
    ],
    examples: &[
        "limits",
        "limits show tenant:42",
        "limits set smtp --rate 10/s",
        "limits set tenant:42 --concurrency 5 --rate 100/m --burst 20",
        "limits unset tenant:42",
    ],
    run: Run::Client(limits),
};

fn limits(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    let operands = args.operands();
    let verb = operands.first().copied().unwrap_or("list");
    for (flags, with) in [(&["page", "limit"][..], "show"), (&["concurrency", "rate", "burst"], "set")] {
        if verb != with {
            args.refuse(flags, &format!("limits {verb}"))?;
        }
    }
    match operands[..] {
        [] | ["list"] => list(args, client, console),
        ["show" | "set" | "unset"] => Err(args.missing_operand("NAME[:KEY]")),
        ["show", name] => show(&named(name)?, args, client, console),
        ["set", name] => set(&named(name)?, args, client, console),
        ["unset", name] => unset(&named(name)?, args, client, console),
        _ => Err(args.unexpected_operands()),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn named(text: &str) -> Result<LimitName, Error> {
    LimitName::parse(text).ok_or_else(|| Error::Usage(format!("NAME {text:?}: must be {LIMIT_ALLOWED}")))
}

/// The path of a limit, whose key is a parameter.
fn path(name: &LimitName, args: &Args) -> Result<String, Error> {
    let key = name.key().map(str::to_owned);
    let query = [("key", key), ("page", page(args)?), ("limit", limit(args)?)];
    Ok(with_query(&format!("/limits/{}", name.name()), &query))
}

fn list(args: &Args, client: &Client, console: &mut Console) -> Result<(), Error> {
    const COLUMNS: [Column; 6] = [
        truncated("LIMIT"),
        full("RUNNING"),
        full("RATE").unless_empty(),
        full("WAITING"),
        full("OPENS (UTC)").optional().unless_empty(),
        full("SOURCE").optional(),
    ];
    let response = client.get("/limits")?;
    let List { limits } = response.parse()?;
    if args.has("json") {
        return Ok(console.json(&response.body)?);
    }
    if limits.is_empty() {
        return Ok(writeln!(console.out, "no limits")?);
    }
    let rows: Vec<[String; 6]> = limits.iter().map(row).collect();
    Ok(console.table(&COLUMNS, &rows)?)
}

fn row(limit: &LimitInfo) -> [String; 6] {
    [
        limit.name.clone(),
        running(limit),
        rate(limit.rate.as_deref(), limit.burst),
        limit.waiting.to_string(),
        opens(limit.opens_at.as_deref()),
        source(limit),
    ]
}

/// The number of jobs that have a slot, and of all slots. Only a limit with a concurrency has slots. More jobs than slots
/// are those of several keys.
fn running(limit: &LimitInfo) -> String {
    let running = limit.running;
    match limit.concurrency {
        Some(most) if running > u64::from(most) => format!("{running} ({most} per key)"),
        Some(most) => format!("{running}/{most}"),
        None => String::new(),
    }
}

fn rate(rate: Option<&str>, burst: Option<u32>) -> String {
    match (rate, burst) {
        (Some(rate), Some(burst)) if burst > 1 => format!("{rate}, burst {burst}"),
        (rate, _) => rate.unwrap_or_default().to_owned(),
    }
}

fn number<T: ToString>(number: Option<T>) -> String {
    number.map_or(String::new(), |number| number.to_string())
}

fn opens(at: Option<&str>) -> String {
    at.map(short_time).unwrap_or_default()
}

fn source(limit: &LimitInfo) -> String {
    format!("{}{}", limit.source, if limit.overridden { ", overridden" } else { "" })
}

fn show(name: &LimitName, args: &Args, client: &Client, console: &mut Console) -> Result<(), Error> {
    let response = client.get(&path(name, args)?)?;
    if args.has("json") {
        return Ok(console.json(&response.body)?);
    }
    let limit: LimitInfo = response.parse()?;
    let fields = [
        ("limit", name.to_string()),
        ("source", source(&limit)),
        ("concurrency", number(limit.concurrency)),
        ("rate", rate(limit.rate.as_deref(), limit.burst)),
        ("opens", limit.opens_at.clone().unwrap_or_default()),
        ("running", number(limit.concurrency.map(|_| limit.running))),
    ];
    for (name, value) in fields {
        if !value.is_empty() {
            field(console.out, name, &value)?;
        }
    }
    for id in &limit.running_ids {
        field(console.out, "", &id.to_string())?;
    }
    field(console.out, "waiting", &limit.waiting.to_string())?;
    write_keys(&limit, console)?;
    if limit.waiting == 0 {
        return Ok(());
    }
    writeln!(console.out)?;
    let given = |name| args.read(name, whole_number(1..=u64::MAX));
    let page = Page {
        page: Some(given("page")?.unwrap_or(1)),
        limit: given("limit")?.unwrap_or(10),
        total: limit.waiting,
        jobs: limit.waiting_jobs,
        next: None,
    };
    Ok(write_jobs(&page, console)?)
}

/// Writes the keys that jobs wait for, and those with numbers of their own.
fn write_keys(limit: &LimitInfo, console: &mut Console) -> io::Result<()> {
    const COLUMNS: [Column; 6] = [
        truncated("KEY"),
        full("RUNNING"),
        full("WAITING"),
        full("CONCURRENCY").unless_empty(),
        full("RATE").unless_empty(),
        full("OPENS (UTC)").optional().unless_empty(),
    ];
    if limit.keys.is_empty() {
        return Ok(());
    }
    writeln!(console.out)?;
    console.table(&COLUMNS, &limit.keys.iter().map(key_row).collect::<Vec<_>>())
}

fn key_row(key: &LimitKey) -> [String; 6] {
    [
        key.key.clone(),
        key.running.to_string(),
        key.waiting.to_string(),
        number(key.concurrency),
        rate(key.rate.as_deref(), key.burst),
        opens(key.opens_at.as_deref()),
    ]
}

fn set(name: &LimitName, args: &Args, client: &Client, console: &mut Console) -> Result<(), Error> {
    let mut limit = Limit::named(name.as_str());
    if let Some(jobs) = args.read("concurrency", whole_number(CONCURRENCY))? {
        limit = limit.concurrency(jobs);
    }
    let rate = |text: &str| Rate::parse(text).ok_or_else(|| format!("must be {RATE_ALLOWED}"));
    if let Some(Rate { count, period }) = args.read("rate", rate)? {
        limit = limit.rate(count, period);
    }
    if let Some(starts) = args.read("burst", whole_number(STARTS))? {
        args.require("rate", &["burst"])?;
        limit = limit.burst(starts);
    }
    if !args.has("concurrency") && !args.has("rate") {
        return Err(Error::Usage(
            "missing flag: --concurrency or --rate; see threadq limits --help".to_owned(),
        ));
    }
    let response = client.put_json(&path(name, args)?, &limit)?;
    Ok(console.json_or_line(
        args.has("json"),
        &response.body,
        &format!("the limit {} is set", escape(name.as_str())),
    )?)
}

fn unset(name: &LimitName, args: &Args, client: &Client, console: &mut Console) -> Result<(), Error> {
    client.delete(&path(name, args)?)?;
    let line = format!("the limit {} is unset", escape(name.as_str()));
    Ok(console.json_or_line(args.has("json"), r#"{"deleted": 1}"#, &line)?)
}

#[cfg(test)]
mod tests {
    use crate::cli::testing::{FakeServer, job, run};

    const SMTP: &str = r#"{"name": "smtp", "rate": "10/s", "burst": 1, "source": "config", "overridden": false, "running": 0,
        "waiting": 1204, "opens_at": "2026-11-24T08:00:00.250Z""#;
    const TENANT: &str = r#"{"name": "tenant", "concurrency": 2, "rate": "100/m", "burst": 20, "source": "config",
        "overridden": true, "running": 3, "waiting": 5"#;

    #[test]
    fn limits_are_listed_with_what_they_allow_and_what_waits() {
        let list = format!(r#"{{"limits": [{SMTP}}}, {TENANT}}}]}}"#);
        let server = FakeServer::start(&[(200, &list), (200, r#"{"limits": []}"#)]);
        let done = server.run(&["limits"]);
        let expected = "\
LIMIT   RUNNING        RATE             WAITING  OPENS (UTC)          SOURCE
smtp                   10/s             1204     2026-11-24 08:00:00  config
tenant  3 (2 per key)  100/m, burst 20  5                             config, overridden
";
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, expected, ""));
        assert_eq!(server.request().line, "GET /limits");
        assert_eq!(server.run(&["limits", "list"]).out, "no limits\n");
    }

    #[test]
    fn a_limit_is_shown_with_the_jobs_that_wait() {
        let one = format!(r#"{SMTP}, "waiting_jobs": [{}]}}"#, job(17, "queued"));
        let server = FakeServer::start(&[(200, &one)]);
        let done = server.run(&["limits", "show", "smtp", "--page", "2", "--limit", "1"]);
        let expected = "\
limit       smtp
source      config
rate        10/s
opens       2026-11-24T08:00:00.250Z
waiting     1204

ID  STATUS  TYPE          QUEUE    TRIES  CREATED (UTC)
17  queued  Encode Video  default  1/5    2026-11-24 08:00:00
1204 jobs, page 2 of 1204
";
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, expected, ""));
        assert_eq!(server.request().line, "GET /limits/smtp?page=2&limit=1");
    }

    #[test]
    fn a_limit_with_keys_is_shown_with_the_jobs_that_run_and_its_keys() {
        let keys = r#""running_ids": [7, 9],
            "keys": [{"key": "a b", "concurrency": 3, "source": "api", "running": 2, "waiting": 4,
                    "opens_at": "2026-11-24T08:00:00.000Z"},
                {"key": "\u001b", "running": 1, "waiting": 1},
                {"key": "c", "rate": "1/s", "burst": 1, "source": "config", "running": 0, "waiting": 0}]"#;
        let server = FakeServer::start(&[
            (200, &format!("{TENANT}, {keys}, \"waiting_jobs\": [{}]}}", job(17, "queued"))),
            (200, &format!("{TENANT}}}")),
        ]);
        let done = server.run(&["limits", "show", "tenant"]);
        let expected = "\
limit       tenant
source      config, overridden
concurrency 2
rate        100/m, burst 20
running     3
            7
            9
waiting     5

KEY     RUNNING  WAITING  CONCURRENCY  RATE  OPENS (UTC)
a b     2        4        3                  2026-11-24 08:00:00
\\u{1b}  1        1
c       0        0                     1/s

ID  STATUS  TYPE          QUEUE    TRIES  CREATED (UTC)
17  queued  Encode Video  default  1/5    2026-11-24 08:00:00
5 jobs
";
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, expected, ""));
        server.request();
        assert_eq!(server.run(&["limits", "show", "tenant:a b:c"]).code, 0);
        assert_eq!(server.request().line, "GET /limits/tenant?key=a%20b%3Ac");
    }

    #[test]
    fn a_limit_is_set_and_unset() {
        let server =
            FakeServer::start(&[(201, &format!("{SMTP}}}")), (200, &format!("{TENANT}}}")), (204, "")]);
        assert_eq!(server.run(&["limits", "set", "smtp", "--rate", "10/s"]).out, "the limit smtp is set\n");
        let request = server.request();
        assert_eq!((&*request.line, &*request.body), ("PUT /limits/smtp", r#"{"rate":"10/s"}"#));
        let args = [
            "limits",
            "set",
            "tenant:42",
            "--concurrency",
            "5",
            "--rate",
            "100/m",
            "--burst",
            "20",
            "--json",
        ];
        assert!(server.run(&args).out.starts_with(r#"{"name": "tenant""#));
        let request = server.request();
        assert_eq!(request.line, "PUT /limits/tenant?key=42");
        assert_eq!(request.body, r#"{"concurrency":5,"rate":"100/m","burst":20}"#);
        assert_eq!(server.run(&["limits", "unset", "tenant:42"]).out, "the limit tenant:42 is unset\n");
        assert_eq!(server.request().line, "DELETE /limits/tenant?key=42");
    }

    #[test]
    fn a_usage_error_says_what_is_allowed() {
        let usage = "usage: threadq limits [list|show|set|unset NAME[:KEY]] [flags]";
        let name = "must be NAME or NAME:KEY, the name 1 to 64 of A-Z a-z 0-9 _ . -, ";
        let cases: &[(&[&str], String)] = &[
            (&["show"], format!("missing argument: NAME[:KEY]; {usage}")),
            (&["stop", "smtp"], format!("unexpected arguments: stop smtp; {usage}")),
            (&["show", "a b"], format!("NAME \"a b\": {name}")),
            (&["set", "a:"], format!("NAME \"a:\": {name}")),
            (&["set", "a"], "missing flag: --concurrency or --rate; see threadq limits --help".to_owned()),
            (&["set", "a", "--concurrency", "0"], "must be a whole number from 1 to 100000".to_owned()),
            (&["set", "a", "--rate", "10"], "--rate \"10\": must be N/PERIOD such as 10/s, ".to_owned()),
            (&["set", "a", "--concurrency", "1", "--burst", "2"], "--burst: needs --rate; see ".to_owned()),
            (&["set", "a", "--page", "2"], "--page: not allowed with limits set; see ".to_owned()),
            (&["show", "a", "--rate", "1/s"], "--rate: not allowed with limits show; see ".to_owned()),
        ];
        for (args, expected) in cases {
            let done = run(&[&["limits"], *args].concat());
            assert_eq!((done.code, done.out.as_str()), (2, ""), "{args:?}");
            assert!(done.err.contains(expected), "{args:?}: {}", done.err);
        }
    }
}
