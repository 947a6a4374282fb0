//! Prints `docs/configuration.md` from the list of settings, and holds the file against it.
//!
//! `THREADQ_UPDATE_DOCS=1 cargo test configuration` rewrites the file.

use std::fmt::Write;
use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

use super::file::{self, IDLE, MAX_JOBS, PROCESSES};
use super::settings::{SETTINGS, Setting};
use super::types::Config;
use crate::handler::Policy;
use crate::handler::lines::Lines;
use crate::job::duration::to_text;
use crate::job::limit::{CONCURRENCY, STARTS};
use crate::job::rules::{ATTEMPTS, DELAY, JOB_TYPE, RETENTION, TIMEOUT, whole_number_in};

const FILE: &str = "docs/configuration.md";
const WIDTH: usize = 120;

const START: &str = "\
# Configuration

`threadq serve` has the settings below. Each setting has a flag, an environment variable, and a key of the configuration
file. `threadq check` reads and checks all of them, finds the program of every handler, connects to Redis, and reports
what is wrong. `threadq doctor` uses the same settings.

This file is printed from the source code; a test compares the two.

## Where a value comes from

| source | example | overrides |
| --- | --- | --- |
| flag | `--lease-timeout 5s` or `--lease-timeout=5s` | all others |
| environment variable | `THREADQ_LEASE_TIMEOUT=5s` | file and default |
| file | `lease-timeout = \"5s\"` | the default |
| default | `15s` | |

- The flag `--config FILE` or the variable `THREADQ_CONFIG` names the file. If neither is given, threadq reads no file.
- Two settings have a second variable, which counts only if their own variable is not set: `PORT` for `listen` (a port
  of 127.0.0.1), and `REDIS_URL` for `redis-url`. A variable with an empty value counts as not set.
- Every value is checked, even if another source overrides it. An unknown flag or key, or a value that is not allowed,
  ends the program with exit code 2 and one line: the setting, where its value comes from, what is wrong with it, and
  what is allowed.
- The file is TOML, in UTF-8, of at most 1 MiB. Numbers and booleans can be written with or without quotation marks.
- A duration is a whole number and a unit: `250ms`, `5s`, `10m`, `24h`, `90d`. Zero needs no unit.
- A size is a number of bytes, or a number and `KiB`, `MiB` or `GiB`.
- A switch is `true` or `false`, or `1` or `0`. Its flag alone means `true`.

Secrets belong in environment variables, or in files that only the user of the server can read. `ps` shows flags to
every user of the machine. At start the server warns of secrets in flags, and of files with secrets that others can
read.

## Settings

The heading of each section is the key in the file.
";

const AFTER_SETTINGS: &str = "
## Handlers

A section `[handlers.TYPE]` of the file defines the handler of a job type. A type that is not a bare TOML key needs
quotation marks: `[handlers.\"Encode Video\"]`. All keys are optional. An entry without `exec`, `http` and `pull` sets the
policy of a handler that exists in Rust, for example of a `--demo` handler.
";

const LIMITS: &str = "
## Limits

A section `[limits.NAME]` of the file defines a limit on the jobs that name it, over all servers: how many run at a
time, and how many start in a period.
";

const SCHEDULES: &str = "
## Schedules

Each entry `[[schedules]]` of the file submits a job again and again: at the times of a cron expression, or after each
period. [Schedules](schedules.md) explains the rules. `threadq check` prints when each schedule has its next tick.
";

const EXAMPLE: &str = r#"listen = "127.0.0.1:8080"
redis-url = "redis://127.0.0.1:6379"
queues = "mail=3,video"      # mail gets three workers for one of video, while both have jobs
workers = 8
lease-timeout = "10s"
retain-completed = "7d"
api-token-file = "/etc/threadq/token"
log-format = "json"

[handlers."Encode Video"]
exec = ["./encode.sh", "--fast"]
timeout = "10m"
max_attempts = 3
backoff = { base = "2s", cap = "5m" }
limits = { memory = "512MiB", cpu = "60s", open_files = 256, niceness = 10 }

[handlers.notify]
http = "http://127.0.0.1:9000/notify"
concurrency = 5              # never more than 5 at a time, over all servers
limited_by = ["smtp"]

[limits.smtp]
rate = "10/s"

[limits.tenant]              # a job names it with a key, such as tenant:42
concurrency = 2
rate = "100/m"
burst = 20

[[schedules]]
name = "nightly-report"
cron = "30 2 * * *"
timezone = "Europe/Berlin"
job = { type = "report", payload = { kind = "daily" } }
"#;

/// What a setting means beyond its help text.
fn details(name: &str) -> &'static str {
    match name {
        "listen" => {
            "An address that other machines can reach needs an `api-token`, or `insecure-no-token`. The first line on \
             stdout names the address and port that were taken."
        }
        "redis-url" => {
            "`rediss` uses TLS and always checks the certificate. With `redis+sentinel` the hosts are Sentinels, port \
             26379 by default, and `NAME` is the name of the master that they monitor; user and password are those of \
             Redis, and `?sentinel_username=USER&sentinel_password=PASSWORD` at the end is the login of the Sentinels. \
             With `redis+cluster` the hosts are some nodes of the Cluster, port 6379 by default. `/`, `?`, `#` and `%` in a \
             password are written as `%2F`, `%3F`, `%23` and `%25`. The private Redis is a `redis-server` or \
             `valkey-server` on `PATH` that this server starts, watches and stops; its data is in `data-dir`."
        }
        "ca-file" => {
            "The file is used for `https://` handlers, for the `--server https://` of the command line, and for \
             `rediss://`. If it is not set, the file that `SSL_CERT_FILE` names is used."
        }
        "redis-ca-file" => "The setting needs a `redis-url` with TLS.",
        "redis-cert-file" => {
            "The certificates that lead to its authority may follow it in the file. The setting needs `redis-key-file`, and \
             a `redis-url` with TLS."
        }
        "redis-key-file" => {
            "The key must not be encrypted. Only the user of the server should be able to read the file."
        }
        "redis-replicas" => {
            "A submission that fewer replicas have within 1 s is answered 503 `not_replicated`. The setting needs a \
             `redis-url`. [Guarantees](guarantees.md#acknowledged-jobs-and-a-failover-of-redis) says which number covers \
             what."
        }
        "data-dir" => "The path is relative to the working directory. It is not used with `redis-url`.",
        "fsync" => {
            "With `everysec` a power failure can lose the last second of changes. With `always` it loses nothing, and \
             every change waits for the disk. It is not used with `redis-url`."
        }
        "namespace" => {
            "Servers with different namespaces can share one Redis. In a key the prefix is in braces."
        }
        "queues" => {
            "If several queues have jobs, each gets workers in proportion to its weight, which is 1 to 100 and 1 by \
             default. A queue with `!` after its name is strict: its jobs start before those of all queues that are not \
             strict, and strict queues start their jobs in the order of the list. While a strict queue has jobs, the \
             queues after it may get no worker at all. A strict queue has no weight. Example: `critical!,default=3,low`. A \
             job in a queue that no server takes from waits."
        }
        "fetchers" => {
            "One fetcher takes as many jobs in one round trip as workers are free. More fetchers overlap the round trips \
             to a distant Redis."
        }
        "drain-timeout" => {
            "Then the programs of handlers get SIGTERM and have 5 s to end. The jobs that still run go back to their \
             queues, and the attempt is not counted. A second signal skips the wait."
        }
        "lease-timeout" => {
            "A small value finds dead servers sooner. A server that cannot reach Redis for this long loses its jobs to \
             other servers. It should be the same for all servers of a namespace."
        }
        "max-connections" => {
            "The limit is lower if `ulimit -Hn` allows fewer files. When it is reached, the connection that was idle \
             longest is closed."
        }
        "max-waiting" => {
            "These requests wait for the end of a job (`GET /jobs/ID?wait=`) or for jobs (`POST /pull`). At most half of \
             `max-connections` can wait. More requests get 503 `too_many_waiting`."
        }
        "workers" => {
            "A server without workers takes no jobs from `queues`. It answers requests, also those of pull workers."
        }
        "max-queue-length" => "More jobs get 429 `queue_full`. Scheduled jobs do not count.",
        "retain-completed" | "retain-completed-max" => {
            "A job is deleted when either limit is exceeded: `retain-completed` or `retain-completed-max`."
        }
        "retain-failed" | "retain-failed-max" => {
            "A job is deleted when either limit is exceeded: `retain-failed` or `retain-failed-max`."
        }
        "max-crashes" => {
            "A job whose next crash would be the last one runs alone (in quarantine), so that no other job is charged \
             with the crash. With 1 no job runs alone."
        }
        "inline-backoff" => "A worker that waits out a backoff runs no other job meanwhile.",
        "api-token" => "Requests send it in the header `Authorization`, after the word `Bearer`.",
        "api-token-file" => {
            "White space around the token is ignored. One source must not set both `api-token` and `api-token-file`."
        }
        "worker-token" => {
            "It opens `POST /pull` and the paths below `/attempts`; any other path answers 403 `forbidden`. The setting \
             needs an `api-token`, which opens these paths too."
        }
        "worker-token-file" => {
            "White space around the token is ignored. One source must not set both `worker-token` and \
             `worker-token-file`."
        }
        "insecure-no-token" => "Use it only where a proxy or the network keeps strangers out.",
        "log-format" => {
            "A text line is time, level and message. A JSON line is an object with `time`, `level` and `message`, and \
             with `job`, `type`, `attempt` and `server` where they apply."
        }
        "log-level" => "Of other crates only warnings and errors are logged.",
        "demo" => "They are for trying things out: some of them fail, panic, or kill the server.",
        _ => "",
    }
}

/// What a setting allows: the words of the error for a text that no setting allows.
fn allowed(setting: &Setting) -> String {
    let error = (setting.apply)(&mut Config::default(), "\0").expect_err(setting.name);
    error.allowed
}

fn setting_section(setting: &Setting) -> String {
    let name = setting.name;
    let flag = format!("--{name} {}", setting.value);
    let mut variables = format!("`{}`", setting.env_name());
    if let Some((other, _)) = setting.other_env {
        write!(variables, ", then `{other}`").unwrap();
    }
    let default = setting.default_text().map_or("none".to_owned(), |text| format!("`{text}`"));
    let what = sentence(setting.help.split(" (also:").next().unwrap());
    let text = format!("{what} {}", details(name));
    let mut section = format!("\n### `{name}`\n\n{}\n\n", wrap(text.trim(), ""));
    for item in [
        format!("flag: `{}`", flag.trim_end()),
        format!("variable: {variables}"),
        format!("default: {default}"),
        format!("allowed: {}", allowed(setting)),
    ] {
        writeln!(section, "- {}", wrap(&item, "  ")).unwrap();
    }
    section
}

/// The help text as a sentence of its own.
fn sentence(help: &str) -> String {
    let mut chars = help.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}

/// The keys of a handler's entry: key, default, what is allowed, what it means.
fn handler_keys() -> Vec<[String; 4]> {
    let (policy, lines) = (Policy::default(), Lines::default());
    let range = |least, most| format!("`{}` to `{}`", to_text(least), to_text(most));
    let timeout = range(*TIMEOUT.start(), *TIMEOUT.end());
    let delay = range(*DELAY.start(), *DELAY.end());
    let none = || "none".to_owned();
    let row = |key: &str, default: String, allowed: String, what: &str| {
        [format!("`{key}`"), default, allowed, what.to_owned()]
    };
    let limit = |key: &str, allowed: &str, what: &str| {
        row(&format!("limits.{key}"), none(), allowed.to_owned(), what)
    };
    vec![
        row("exec", none(), "list of strings".to_owned(), "program and arguments, run without a shell"),
        row(
            "protocol",
            "`once`".to_owned(),
            "`once`, `lines`".to_owned(),
            "`lines`: a program stays and gets one job after the other",
        ),
        row(
            "processes",
            none(),
            range_of(&PROCESSES),
            "programs at a time on one server; none: as many as `workers`",
        ),
        row(
            "max_jobs",
            lines.max_jobs.to_string(),
            range_of(&MAX_JOBS),
            "jobs of one program; 0: any number",
        ),
        row(
            "idle",
            format!("`{}`", to_text(lines.idle)),
            range(*IDLE.start(), *IDLE.end()),
            "time without a job after which a program is ended",
        ),
        row("http", none(), "URL".to_owned(), "service that gets a POST of the job's JSON"),
        row(
            "pull",
            "`false`".to_owned(),
            "`true` or `false`".to_owned(),
            "only pull workers run jobs of this type",
        ),
        row(
            "timeout",
            format!("`{}`", to_text(policy.timeout)),
            timeout.clone(),
            "time limit of one attempt",
        ),
        row(
            "max_attempts",
            policy.max_attempts.to_string(),
            range_of(&ATTEMPTS),
            "failed attempts before the job is dead",
        ),
        row(
            "backoff.base",
            format!("`{}`", to_text(policy.backoff.base)),
            delay.clone(),
            "longest wait after one failure",
        ),
        row(
            "backoff.cap",
            format!("`{}`", to_text(policy.backoff.cap)),
            delay,
            "longest wait after any failure",
        ),
        row(
            "retain",
            none(),
            range(*RETENTION.start(), *RETENTION.end()),
            "how long a job is kept after its end, at least 1m",
        ),
        row("silence", none(), timeout, "how long an attempt may report nothing"),
        row(
            "log",
            "`report`".to_owned(),
            "`report` or `stderr`".to_owned(),
            "what the log of a job is made of",
        ),
        row(
            "concurrency",
            none(),
            range_of(&CONCURRENCY),
            "jobs of this type that run at a time, over all servers",
        ),
        row(
            "rate",
            none(),
            "`N/PERIOD`, such as `10/s`".to_owned(),
            "attempts of this type that start in a period",
        ),
        row("burst", "1".to_owned(), range_of(&STARTS), "starts of `rate` that may come at once"),
        row("limited_by", none(), "list of strings".to_owned(), "limits of each job of this type"),
        limit("memory", "`1MiB` to `1024GiB`", "address space of each process"),
        limit("cpu", "`1s` to `24h`, whole seconds", "processor time of each process"),
        limit("open_files", "4 to 1048576", "open files of each process"),
        limit("niceness", "0 to 19", "19 is the lowest priority"),
    ]
}

fn range_of(range: &RangeInclusive<u32>) -> String {
    whole_number_in(range).replace("a whole number from ", "")
}

fn handlers_section() -> String {
    let mut section = AFTER_SETTINGS.to_owned();
    section.push_str("\n| key | default | allowed | what |\n| --- | --- | --- | --- |\n");
    for cells in handler_keys() {
        writeln!(section, "| {} |", cells.join(" | ")).unwrap();
    }
    let notes = [
        format!("A job type has {}.", JOB_TYPE.allowed),
        "The job itself can set other values for `timeout`, `max_attempts` and `retain` when it is submitted.".to_owned(),
        "Without `retain` the settings `retain-completed` and `retain-failed` say how long a job is kept.".to_owned(),
        "Before attempt n+1 a job waits a random time from 0 to the smaller of `backoff.cap` and \
         `backoff.base` × 2^(n-1)."
            .to_owned(),
        "A relative path in `exec` starts at the folder of the file, which is also the working directory of the \
         program. A name without a `/` is searched on `PATH`."
            .to_owned(),
        "An attempt that reports nothing for as long as `silence` says is stopped as at its timeout. `silence` is \
         not for `http` and `pull`, and `log` needs `exec`. With `log = \"stderr\"` the lines of standard error are log lines of the job too, and \
         count as reports."
            .to_owned(),
        "`processes`, `max_jobs` and `idle` are for `protocol = \"lines\"`. With it, `limits` hold for each program."
            .to_owned(),
        "`concurrency`, `rate` and `burst` are those of a [limit](#limits). With that limit, `limited_by` and the job's own \
         `limits` a job has at most 4 limits."
            .to_owned(),
        "`limits` needs `exec`. `prlimit` and `nice` set the limits before the program starts. At the limit of `cpu` \
         a process gets SIGXCPU, and 5 s of processor time later SIGKILL."
            .to_owned(),
        "At start the server finds every program and tries the limits. If that fails, it exits with 2.".to_owned(),
    ];
    section.push('\n');
    for note in notes {
        writeln!(section, "- {}", wrap(&note, "  ")).unwrap();
    }
    section
}

/// The keys of an entry of `[limits]`: key, default, what is allowed, what it means.
fn limit_keys() -> [[String; 4]; 3] {
    let (concurrency, burst) = (range_of(&CONCURRENCY), range_of(&STARTS));
    let count = "`N/PERIOD`: `10/s`, `100/m`, `5/30s`";
    [
        ["`concurrency`", "none", &concurrency, "how many jobs run at a time"],
        ["`rate`", "none", count, "how many attempts start in a period"],
        ["`burst`", "1", &burst, "how many starts of `rate` may come at once; with 1 they are spread evenly"],
    ]
    .map(|cells| cells.map(str::to_owned))
}

fn limits_section() -> String {
    let mut section = LIMITS.to_owned();
    section.push_str("\n| key | default | allowed | what |\n| --- | --- | --- | --- |\n");
    for cells in limit_keys() {
        writeln!(section, "| {} |", cells.join(" | ")).unwrap();
    }
    section.push('\n');
    for note in [
        "At least one of `concurrency` and `rate` is needed. In a rate the number is 1 to 1000000, and the period `1ms` to `30d`.",
        "A name is 1 to 64 of `A-Z a-z 0-9 _ . -` and does not begin with `threadq.`, a key is 1 to 100 characters.",
        "A job names its limits in `limits` when it is submitted. Those of its type are in `limited_by` of its handler.",
        "A job may name a limit with a key, such as `tenant:42`. Then the numbers hold for each key alone. A section \
         `[limits.\"NAME:KEY\"]` gives one key other numbers than `[limits.NAME]`.",
        "`concurrency`, `rate` and `burst` of a handler are a limit of its type alone, called `threadq.type:TYPE`.",
        "The server that accepts a job adds the limits of the job's type. So the files of all servers should say the same \
         about handlers and limits.",
        "If the files of two servers differ, the numbers of the server that started last hold. Numbers that were set \
         through the API hold in place of those of all files.",
    ] {
        writeln!(section, "- {}", wrap(note, "  ")).unwrap();
    }
    section
}

/// The keys of an entry `[[schedules]]`: key, default, what is allowed, what it means.
const SCHEDULE_KEYS: [[&str; 4]; 11] = [
    ["`name`", "required", "1 to 64 of `A-Z a-z 0-9 _ . -`, but not `preview`", "name of the schedule"],
    ["`cron`", "none", "cron expression", "times of the ticks; either `cron` or `every`"],
    ["`every`", "none", "`1s` to `365d`", "period of the ticks, which are its multiples since 1970 in UTC"],
    ["`timezone`", "`UTC`", "IANA name", "time zone of `cron`"],
    [
        "`overlap`",
        "`skip`",
        "`skip`, `allow`, `wait`, `replace`",
        "what a tick does while an earlier job has not ended",
    ],
    ["`catch_up`", "`one`", "`one`, `none`, `all`", "which ticks start that are more than 60 s late"],
    ["`catch_up_window`", "`24h`", "`1m` to `30d`", "how late a tick can start"],
    ["`jitter`", "`0s`", "`0s` to `1h`", "longest time by which a job starts after its tick"],
    ["`starts_at`", "none", "RFC 3339", "no tick is earlier"],
    ["`ends_at`", "none", "RFC 3339", "no tick is later"],
    [
        "`job`",
        "required",
        "table",
        "job of each tick: the fields of `POST /jobs` without `delay_ms`, `run_at` and unique keys",
    ],
];

fn schedules_section() -> String {
    let rows = SCHEDULE_KEYS.iter().map(|cells| format!("| {} |\n", cells.join(" | ")));
    format!(
        "{SCHEDULES}\n| key | default | allowed | what |\n| --- | --- | --- | --- |\n{}",
        rows.collect::<String>()
    )
}

/// Breaks a text into lines of at most [`WIDTH`] characters, with room for a list mark. `indent` begins all but the first.
fn wrap(text: &str, indent: &str) -> String {
    let mut wrapped = String::new();
    let mut length = 2;
    for word in text.split_whitespace() {
        let word_length = word.chars().count();
        if length + 1 + word_length > WIDTH {
            wrapped.push('\n');
            wrapped.push_str(indent);
            length = indent.len();
        } else if !wrapped.is_empty() {
            wrapped.push(' ');
            length += 1;
        }
        wrapped.push_str(word);
        length += word_length;
    }
    wrapped
}

fn reference() -> String {
    let settings: String = SETTINGS.iter().map(setting_section).collect();
    let (handlers, limits, schedules) = (handlers_section(), limits_section(), schedules_section());
    format!("{START}{settings}{handlers}{limits}{schedules}\n## An example file\n\n```toml\n{EXAMPLE}```\n")
}

#[test]
fn configuration_md_is_printed_from_the_list_of_settings() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let wanted = reference();
    if std::env::var_os("THREADQ_UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &wanted).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let line = found.lines().zip(wanted.lines()).position(|(found, wanted)| found != wanted);
    let hint = "rewrite it with THREADQ_UPDATE_DOCS=1 cargo test configuration";
    assert!(
        found == wanted,
        "{FILE} is not up to date, from line {:?} on; {hint}",
        line.map(|line| line + 1)
    );
    let too_long = wanted.lines().find(|line| line.chars().count() > WIDTH);
    assert_eq!(too_long, None, "a line of {FILE} has more than {WIDTH} characters");
}

#[test]
fn the_example_and_the_table_of_handler_keys_are_accepted_as_a_configuration_file() {
    let example = file::parse(EXAMPLE, "example").unwrap();
    assert_eq!((example.settings.len(), example.handlers.len()), (8, 2));
    assert_eq!((example.limits.len(), example.schedules.len()), (2, 1));
    for [key, default, allowed, _] in handler_keys() {
        let key = key.trim_matches('`').to_owned();
        let read = |value: &str| {
            let is_of_lines = ["processes", "max_jobs", "idle"].contains(&key.as_str());
            let needs_exec = key.starts_with("limits") || ["log", "protocol"].contains(&key.as_str());
            let exec = if is_of_lines || needs_exec { "exec = ['a']\n" } else { "" };
            let exec = if is_of_lines { "exec = ['a']\nprotocol = 'lines'\n" } else { exec };
            let value = if value.starts_with(char::is_numeric) && value.ends_with(char::is_numeric) {
                value.to_owned()
            } else {
                format!("'{value}'")
            };
            // The base of a backoff must not exceed its cap.
            let cap = if key == "backoff.base" { "backoff.cap = '365d'\n" } else { "" };
            let base = if key == "backoff.cap" { "backoff.base = '0s'\n" } else { "" };
            let rate = if key == "burst" { "rate = '1/s'\n" } else { "" };
            file::parse(&format!("[handlers.x]\n{exec}{cap}{base}{rate}{key} = {value}\n"), "table")
                .map(|file| file.handlers)
        };
        let Some((least, most)) = allowed.split(',').next().unwrap().split_once(" to ") else { continue };
        for bound in [least, most] {
            assert!(read(bound.trim_matches('`')).is_ok(), "{key}: {bound} is allowed");
        }
        let above = match most.trim_matches('`') {
            "24h" => "25h".to_owned(),
            "365d" => "366d".to_owned(),
            "1024GiB" => "1025GiB".to_owned(),
            number => (number.parse::<u64>().unwrap() + 1).to_string(),
        };
        assert!(read(&above).is_err(), "{key}: {above} is not allowed");
        if default != "none" {
            let expected = read(default.trim_matches('`')).unwrap()[0].policy;
            if !key.starts_with("backoff") {
                assert_eq!(expected, Policy::default(), "{key}");
            }
        }
    }
}

#[test]
fn the_table_of_limit_keys_has_the_keys_and_values_that_are_read() {
    let read = |text: &str| file::parse(&format!("[limits.x]\n{text}\n"), "table").map(|file| file.limits);
    let error = read("rate = '1/s'\ncolour = 1").unwrap_err().to_string();
    let keys = limit_keys().map(|[key, ..]| key.trim_matches('`').to_owned()).join(", ");
    assert!(error.ends_with(&format!("allowed: {keys}")), "{error}");
    for text in [
        "concurrency = 1",
        "concurrency = 100000",
        "rate = '10/s'\nburst = 1000000",
        "rate = '1000000/30d'",
        "rate = '5/30s'",
        "rate = '100/m'",
        "rate = '1/1ms'",
    ] {
        assert!(read(text).is_ok(), "{text}");
    }
    for text in ["concurrency = 0", "concurrency = 100001", "rate = '1/31d'", "rate = '1/s'\nburst = 1000001"]
    {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn the_table_of_schedule_keys_has_the_keys_that_are_read() {
    let error =
        file::parse("[[schedules]]\nname = 'x'\njob = {}\ncolour = 1\n", "table").err().unwrap().to_string();
    let keys = SCHEDULE_KEYS.map(|[key, ..]| key.trim_matches('`')).join(", ");
    assert!(error.ends_with(&format!("allowed: {keys}")), "{error}");
    for [key, default, allowed, _] in SCHEDULE_KEYS {
        let read = |value: &str| {
            let cron = if key.contains("every") { "" } else { "cron = '@daily'\n" };
            let text = format!(
                "[[schedules]]\nname = 'x'\njob = {{}}\n{cron}{} = '{value}'\n",
                key.trim_matches('`')
            );
            file::parse(&text, "table")
        };
        let is_word = default != "none" && default != "required";
        assert!(!is_word || read(default.trim_matches('`')).is_ok(), "{key}: {default}");
        for word in allowed.split(", ").filter(|word| word.starts_with('`')) {
            for bound in word.split(" to ") {
                assert!(read(bound.trim_matches('`')).is_ok(), "{key}: {bound}");
            }
        }
    }
}

#[test]
fn the_details_of_the_configuration_are_about_settings() {
    let with_details = SETTINGS.iter().filter(|setting| !details(setting.name).is_empty()).count();
    assert_eq!(with_details, SETTINGS.len() - 1, "all but max-body");
}
