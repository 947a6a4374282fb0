//! The job that the flags of `threadq enqueue TYPE` describe.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::cli::args::{Args, job_type, queue_name, valid_text, whole_number};
use crate::cli::error::Error;
use crate::cli::terminal::console::Console;
use crate::client::{Submission, Unique};
use crate::job::limit::{LIMIT_ALLOWED, LimitName};
use crate::job::time::parse_rfc3339;
use crate::job::{duration, rules};

/// The flags that say what a unique key means.
const UNIQUE_MODE: [&str; 4] = ["unique-for", "unique-until", "on-conflict", "max-wait"];

/// The body of POST /jobs.
pub(super) fn submission(args: &Args, console: &mut Console) -> Result<Submission, Error> {
    let operands = args.operands();
    let [text] = operands[..] else { return Err(args.unexpected_operands()) };
    let job_type = job_type(text).map_err(|allowed| Error::Usage(format!("TYPE {text:?}: {allowed}")))?;
    for (flag, other) in [("delay", "run-at"), ("expires-in", "expires-at"), ("unique", "unique-key")] {
        if args.has(flag) {
            args.refuse(&[other], &format!("--{flag}"))?;
        }
    }
    let key = match args.read("unique", unique_key)? {
        Some(key) => Some(key),
        None => args.read("unique-key", unique_key)?,
    };
    let unique = unique(args, key.as_deref())?;
    Ok(Submission {
        job_type,
        queue: args.read("queue", queue_name)?,
        delay_ms: args.read("delay", |text| millis(text, &rules::DELAY))?,
        run_at: args.read("run-at", time)?,
        max_attempts: args.read("max-attempts", whole_number(rules::ATTEMPTS))?,
        timeout_ms: args.read("timeout", |text| millis(text, &rules::TIMEOUT))?,
        unique_key: key.filter(|_| unique.is_none()),
        unique,
        expires_at: args.read("expires-at", time)?,
        expires_in_ms: args.read("expires-in", |text| millis(text, &rules::EXPIRY))?,
        retain_ms: args.read("retain", |text| millis(text, &rules::RETENTION))?,
        meta: meta(args)?,
        tags: args.read_all("tag", |text| valid_text(text, &rules::TAG))?,
        limits: args.read_all("limit", limit)?,
        // Last, so that a wrong flag is reported before a payload is typed into stdin.
        payload: args.text("payload").map(|source| payload(source, console.stdin)).transpose()?,
    })
}

/// The unique key with its mode; `None` if no flag says what the key means.
fn unique(args: &Args, key: Option<&str>) -> Result<Option<Unique>, Error> {
    let Some(key) = key else {
        args.require("unique", &UNIQUE_MODE)?;
        return Ok(None);
    };
    if !UNIQUE_MODE.iter().any(|flag| args.has(flag)) {
        return Ok(None);
    }
    if args.has("unique-for") {
        args.refuse(&["unique-until"], "--unique-for")?;
    }
    let word = |text: &str, words: &[&'static str], allowed: &'static str| {
        words.iter().find(|word| **word == text).copied().ok_or(allowed)
    };
    Ok(Some(Unique {
        key: key.to_owned(),
        until: args.read("unique-until", |text| word(text, &["end", "start"], "must be end or start"))?,
        for_ms: args.read("unique-for", |text| millis(text, &rules::HOLD))?,
        on_conflict: args.read("on-conflict", |text| {
            word(text, &["reject", "existing", "replace"], "must be reject, existing or replace")
        })?,
        max_wait_ms: args.read("max-wait", |text| millis(text, &rules::MAX_WAIT))?,
    }))
}

fn meta(args: &Args) -> Result<BTreeMap<String, String>, Error> {
    let mut meta = BTreeMap::new();
    for (name, value) in args.read_all("meta", name_and_value)? {
        let given = format!("{name}={value}");
        if meta.insert(name, value).is_some() {
            return Err(Error::Usage(format!("--meta {given:?}: the name is given twice")));
        }
    }
    Ok(meta)
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if rules::META_NAME.accepts(name) && rules::META_VALUE.accepts(value) => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => {
            let (names, values) = (rules::META_NAME.allowed, rules::META_VALUE.allowed);
            Err(format!("must be NAME=VALUE: a name of {names}, a value of {values}"))
        }
    }
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

fn time(text: &str) -> Result<String, &'static str> {
    match parse_rfc3339(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("must be a time with date and zone, such as 2026-11-24T08:00:00Z"),
    }
}

fn limit(text: &str) -> Result<String, String> {
    match LimitName::parse(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("must be {LIMIT_ALLOWED}")),
    }
}

fn unique_key(text: &str) -> Result<String, String> {
    valid_text(text, &rules::UNIQUE_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{FakeServer, run};

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

        let args = [
            "enqueue",
            "a",
            "--expires-in",
            "1h",
            "--retain",
            "0s",
            "--tag",
            "customer 42",
            "--meta",
            "b=2=3",
            "--tag",
            "é",
            "--meta",
            "a=",
            "--unique",
            "k",
            "--unique-for",
            "10m",
            "--on-conflict",
            "existing",
            "--limit",
            "tenant:4 2",
            "--limit",
            "smtp",
        ];
        let expected = r#"{"type":"a","unique":{"key":"k","for_ms":600000,"on_conflict":"existing"},"expires_in_ms":3600000,"retain_ms":0,"meta":{"a":"","b":"2=3"},"tags":["customer 42","é"],"limits":["tenant:4 2","smtp"]}"#;
        assert_eq!(body_of(&args), expected);
        let debounced =
            body_of(&["enqueue", "a", "--unique", "k", "--on-conflict", "replace", "--max-wait", "1m"]);
        let expected = r#"{"type":"a","unique":{"key":"k","on_conflict":"replace","max_wait_ms":60000}}"#;
        assert_eq!(debounced, expected);
        let until = body_of(&["enqueue", "a", "--unique-key", "k", "--unique-until", "start"]);
        assert_eq!(until, r#"{"type":"a","unique":{"key":"k","until":"start"}}"#);
        assert_eq!(body_of(&["enqueue", "a", "--unique", "k"]), r#"{"type":"a","unique_key":"k"}"#);
        let at = body_of(&["enqueue", "a", "--expires-at", "2026-11-24T08:00:00Z"]);
        assert_eq!(at, r#"{"type":"a","expires_at":"2026-11-24T08:00:00Z"}"#);
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
            (&["a", "--expires-in", "0s"], "--expires-in \"0s\": must be from 1ms to 365d"),
            (
                &["a", "--expires-in", "1s", "--expires-at", "2026-11-24T08:00:00Z"],
                "--expires-at: not allowed with --expires-in; see threadq enqueue --help",
            ),
            (&["a", "--tag", ""], "--tag \"\": must be 1 to 64 characters, none of them a control character"),
            (
                &["a", "--meta", "a"],
                "--meta \"a\": must be NAME=VALUE: a name of 1 to 64 of A-Z a-z 0-9 _ -, a value of up to 1024",
            ),
            (&["a", "--meta", "a=1", "--meta", "a=2"], "--meta \"a=2\": the name is given twice"),
            (&["a", "--limit", "a:"], "--limit \"a:\": must be NAME or NAME:KEY, the name 1 to 64 of "),
            (&["a", "--unique", "k", "--unique-key", "l"], "--unique-key: not allowed with --unique; see "),
            (&["a", "--unique-for", "1s"], "--unique-for: needs --unique; see threadq enqueue --help"),
            (
                &["a", "--unique", "k", "--unique-for", "1s", "--unique-until", "end"],
                "--unique-until: not allowed with --unique-for; see threadq enqueue --help",
            ),
            (&["a", "--unique", "k", "--unique-until", "x"], "--unique-until \"x\": must be end or start"),
            (
                &["a", "--unique", "k", "--on-conflict", "x"],
                "--on-conflict \"x\": must be reject, existing or replace",
            ),
            (&["a", "--queue", "q", "--queue", "r"], "--queue: given twice; allowed: once"),
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
}
