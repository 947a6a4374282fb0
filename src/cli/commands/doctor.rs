//! `threadq doctor`: what is wrong with the data in Redis and with Redis itself, and its repair.
//!
//! Asks Redis and no server, since it is wanted most when none runs. What is looked at is in `queue::audit` and
//! `queue::redis_report`; here is what to say of it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::args::{Command, Flag, Run};
use crate::cli::responses::{count, short_span};
use crate::cli::terminal::console::environment;
use crate::config::Config;
use crate::logging::escape::{escape, json_line};
use crate::private_redis::RunningRedis;
use crate::queue::{
    Audit, Error, FindingKind, Findings, Queue, RedisReport, RememberedServer, RepairPolicy, Settings,
    Severity,
};

pub(crate) static DOCTOR: Command = Command {
    name: "doctor",
    operands: "",
    about: "\
Says what is wrong with the jobs in Redis, and mends it.
Compares all that is in Redis, says what does not fit and what endangers jobs, and with --repair mends what does not
fit. Asks Redis itself, so it works while no server runs, and does no harm while servers run.

Needs the settings of \"threadq serve\" that say where Redis is: redis-url or data-dir, namespace; and for repairs
lease-timeout and max-crashes.

Exit codes: 0 nothing is wrong, or all of it was mended (warnings are only printed); 1 something is wrong, or Redis
cannot be asked; 2 wrong usage or configuration.",
    flags: &[
        Flag { name: "repair", value: "", help: "mend what is found, in small steps, and look again" },
        Flag { name: "json", value: "", help: "print one line of JSON" },
    ],
    examples: &["doctor --redis-url redis://127.0.0.1:6379", "doctor --config threadq.toml --repair"],
    run: Run::Configured(doctor),
};

/// Why there is no report.
enum Stopped {
    Usage(String),
    Failed(String),
}

/// Everything that is said.
#[derive(Serialize)]
struct Report {
    /// Nothing is wrong that was not mended.
    ok: bool,
    jobs: u64,
    findings: Vec<Finding>,
    redis: RedisView,
    servers: Vec<ServerView>,
}

#[derive(Serialize)]
struct Finding {
    section: &'static str,
    kind: &'static str,
    severity: &'static str,
    what: String,
    count: u64,
    /// By this call.
    mended: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    examples: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    done: Vec<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    todo: &'static str,
}

#[derive(Serialize)]
struct RedisView {
    product: &'static str,
    version: String,
    used_memory: u64,
    maxmemory: u64,
    round_trip_us: u64,
    longest_round_trip_us: u64,
    clock_ahead_ms: i64,
}

#[derive(Serialize)]
struct ServerView {
    id: String,
    state: &'static str,
    beat_age_ms: Option<u64>,
    workers: u64,
    /// `null` where the server does not live: what its workers did at its last beat is over.
    busy: Option<u64>,
    in_progress: u64,
}

fn doctor(mut args: lexopt::Parser) -> ExitCode {
    let words: Vec<OsString> = match args.raw_args() {
        Ok(words) => words.collect(),
        Err(error) => return stop(&Stopped::Usage(error.to_string())),
    };
    // No setting has a value that begins with dashes, so these words are always flags.
    let (own, settings): (Vec<_>, Vec<_>) =
        words.into_iter().partition(|word| word == "--repair" || word == "--json");
    let has = |flag: &str| own.iter().any(|word| word == flag);
    let report = match examine(settings, has("--repair")) {
        Ok(report) => report,
        Err(stopped) => return stop(&stopped),
    };
    let mut out = io::stdout();
    let written = match has("--json") {
        true => serde_json::to_string(&report)
            .map_err(io::Error::from)
            .and_then(|json| writeln!(out, "{}", json_line(&json))),
        false => report.write(&mut out),
    };
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            stop(&Stopped::Failed(format!("cannot write the output: {error}")))
        }
        _ if report.ok => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn stop(stopped: &Stopped) -> ExitCode {
    let (code, message) = match stopped {
        Stopped::Usage(message) => (2, message),
        Stopped::Failed(message) => (1, message),
    };
    let _ = writeln!(io::stderr(), "threadq: {}", escape(message));
    ExitCode::from(code)
}

fn examine(settings: Vec<OsString>, repair: bool) -> Result<Report, Stopped> {
    let config = Config::load(settings, environment).map_err(|error| Stopped::Usage(error.to_string()))?;
    // Its socket's name may be valid only as long as this lives.
    let private = match &config.redis_url {
        Some(_) => None,
        None => Some(private_redis(&config)?),
    };
    let (url, name) = match (&config.redis_url, &private) {
        (Some(url), _) => (url.expose().to_owned(), "redis-url"),
        (None, Some(redis)) => (redis.url(), "data-dir"),
        (None, None) => (String::new(), "redis-url"),
    };
    let (namespace, ca) = (config.namespace.clone(), config.redis_ca.clone().or_else(|| config.ca.clone()));
    let queue = Queue::new(&Settings { url, ca, namespace, connections: 1, fetchers: 1 })
        .map_err(|error| Stopped::Usage(error.to_string()))?;
    let failed = |error: Error| Stopped::Failed(format!("{name}: {error}"));
    let health = queue.redis_report().map_err(failed)?;
    if !health.info.is_supported() {
        // The scripts need not run on it, and then what they say is worth nothing.
        return Ok(Report::new(&health, &BTreeMap::new(), Audit::default()));
    }
    let policy = RepairPolicy { lease_timeout: config.lease_timeout, max_crashes: config.max_crashes };
    let (mended, audit) = match repair {
        true => queue.repair(policy).map_err(failed)?,
        false => (BTreeMap::new(), queue.audit(policy).map_err(failed)?),
    };
    Ok(Report::new(&health, &mended, audit))
}

fn private_redis(config: &Config) -> Result<RunningRedis, Stopped> {
    let found = RunningRedis::find(&config.data_dir)
        .map_err(|error| Stopped::Failed(format!("data-dir: {error}")))?;
    found.ok_or_else(|| {
        Stopped::Failed(format!(
            "data-dir: no private Redis runs in {}; start the server, or name the Redis by --redis-url",
            config.data_dir.display()
        ))
    })
}

impl Report {
    fn new(health: &RedisReport, mended: &BTreeMap<FindingKind, Findings>, audit: Audit) -> Report {
        let mut findings = Vec::new();
        for kind in FindingKind::ALL {
            // What a repair could not mend is found again by its last look.
            if let Some(group) = mended.get(&kind).filter(|group| group.repaired > 0) {
                let group = Findings { found: group.repaired, ..group.clone() };
                findings.push(Finding::of_jobs(kind, &group));
            }
            if let Some(group) = audit.findings.get(&kind) {
                findings.push(Finding::of_jobs(kind, group));
            }
        }
        let (lost, examples) = audit.lost.clone();
        if lost > 0 {
            let what = "ids that stood in a list without a job (the last 10,000, newest first)";
            let todo = "their jobs are gone: look for whoever deletes keys, or a Redis that lost data";
            findings.push(Finding::note("jobs", "lost", what, lost, examples, todo));
        }
        let (set_aside, examples) = audit.set_aside.clone();
        if set_aside > 0 {
            let what = "keys that a repair has set aside";
            let todo = "look at them, and delete them";
            findings.push(Finding::note("jobs", "set_aside", what, set_aside, examples, todo));
        }
        for advice in &health.advice {
            findings.push(Finding {
                section: "redis",
                kind: advice.kind,
                severity: advice.severity.as_str(),
                what: advice.what.clone(),
                count: 1,
                mended: 0,
                examples: Vec::new(),
                done: Vec::new(),
                todo: advice.todo,
            });
        }
        let waiting: u64 = audit.servers.iter().map(|server| server.entries).sum();
        if !audit.servers.iter().any(|server| state(server) == "alive") {
            let todo = "jobs wait until a server runs: threadq serve";
            findings.push(Finding::note("servers", "no_server", "no server runs", waiting, Vec::new(), todo));
        }
        let ok = findings.iter().all(|it| it.severity != Severity::Wrong.as_str() || it.mended >= it.count);
        Report {
            ok,
            jobs: audit.jobs,
            findings,
            redis: RedisView {
                product: health.info.product,
                version: health.info.version.clone(),
                used_memory: health.used_memory,
                maxmemory: health.maxmemory,
                round_trip_us: micros(health.round_trip),
                longest_round_trip_us: micros(health.longest_round_trip),
                clock_ahead_ms: health.clock_ahead_ms,
            },
            servers: audit
                .servers
                .into_iter()
                .map(|server| ServerView {
                    state: state(&server),
                    busy: (state(&server) == "alive").then_some(server.busy),
                    id: server.id,
                    beat_age_ms: server.beat_age_ms,
                    workers: server.workers,
                    in_progress: server.entries,
                })
                .collect(),
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "jobs: {} in all", self.jobs)?;
        self.write_section("jobs", out)?;
        let redis = &self.redis;
        writeln!(
            out,
            "redis: {} {}, {:.1} MiB used, round trip {:.2} ms, at most {:.2} ms",
            redis.product,
            redis.version,
            redis.used_memory as f64 / f64::from(1 << 20),
            redis.round_trip_us as f64 / 1e3,
            redis.longest_round_trip_us as f64 / 1e3,
        )?;
        self.write_section("redis", out)?;
        writeln!(out, "servers: {} remembered", self.servers.len())?;
        for server in &self.servers {
            let beat =
                server.beat_age_ms.map_or("unknown".to_owned(), |ms| format!("{} ago", short_span(ms)));
            let ServerView { state, workers, in_progress, .. } = server;
            let id = escape(&server.id);
            let busy =
                server.busy.map_or(String::new(), |busy| format!("{busy} of {workers} workers busy, "));
            writeln!(
                out,
                "  {state}: {id}, {busy}{} in hand, last heartbeat {beat}",
                count(*in_progress, "job")
            )?;
        }
        self.write_section("servers", out)?;
        if self.findings.iter().all(|finding| finding.severity == Severity::Note.as_str()) {
            writeln!(out, "nothing wrong")?;
        } else if !self.ok && self.findings.iter().all(|finding| finding.mended == 0) {
            writeln!(out, "something is wrong; threadq doctor --repair mends what is wrong with jobs")?;
        } else if !self.ok {
            writeln!(out, "something is still wrong")?;
        } else {
            writeln!(out, "nothing wrong that was not mended")?;
        }
        Ok(())
    }

    fn write_section(&self, section: &str, out: &mut dyn Write) -> io::Result<()> {
        for finding in self.findings.iter().filter(|finding| finding.section == section) {
            writeln!(out, "  {}", escape(&finding.to_string()))?;
        }
        Ok(())
    }
}

/// One line.
impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let is_mended = self.mended >= self.count && self.count > 0;
        let severity = if is_mended { "mended" } else { self.severity };
        write!(f, "{severity}: {}", self.what)?;
        if self.count > 1 || !self.examples.is_empty() {
            write!(f, ": {}", self.count)?;
        }
        if !self.examples.is_empty() {
            let more = if self.count > self.examples.len() as u64 { ", .." } else { "" };
            write!(f, " ({}{more})", self.examples.join(", "))?;
        }
        match (is_mended, self.done.is_empty()) {
            (true, false) => write!(f, ": {}", self.done.join("; ")),
            (true, true) => Ok(()),
            (false, false) => write!(f, "; left: {}", self.done.join("; ")),
            (false, true) if self.todo.is_empty() => Ok(()),
            (false, true) => write!(f, "; {}", self.todo),
        }
    }
}

impl Finding {
    fn of_jobs(kind: FindingKind, group: &Findings) -> Finding {
        let (section, what, todo) = describe(kind);
        Finding {
            section,
            kind: kind.as_str(),
            severity: Severity::Wrong.as_str(),
            what: what.to_owned(),
            count: group.found,
            mended: group.repaired,
            examples: group.examples.clone(),
            done: group.done.clone(),
            todo,
        }
    }

    fn note(
        section: &'static str,
        kind: &'static str,
        what: &str,
        count: u64,
        examples: Vec<String>,
        todo: &'static str,
    ) -> Finding {
        let severity = Severity::Note.as_str();
        let what = what.to_owned();
        Finding { section, kind, severity, what, count, mended: 0, examples, done: Vec::new(), todo }
    }
}

/// Section, what it is, and what --repair does about it.
fn describe(kind: FindingKind) -> (&'static str, &'static str, &'static str) {
    match kind {
        FindingKind::WrongType => ("jobs", "keys of a wrong type", "--repair renames them to set_aside:.."),
        FindingKind::Unreadable => {
            ("jobs", "jobs whose record cannot be read", "--repair renames them to set_aside:..")
        }
        FindingKind::Stranded => {
            ("jobs", "jobs that are in no list and would never run", "--repair puts them back")
        }
        FindingKind::Doubled => {
            ("jobs", "jobs that are in lists more than once", "--repair takes the other entries out")
        }
        FindingKind::Dangling => {
            ("jobs", "entries without a job", "--repair takes them out and notes them in lost")
        }
        FindingKind::Misplaced => ("jobs", "entries whose job is elsewhere", "--repair takes them out"),
        FindingKind::Unlisted => (
            "jobs",
            "ended jobs that would be kept for ever",
            "--repair puts them where retention finds them",
        ),
        FindingKind::IndexStale => ("jobs", "index entries that fit no job", "--repair takes them out"),
        FindingKind::IndexMissing => ("jobs", "jobs that listings do not show", "--repair lists them"),
        FindingKind::UniqueStale => ("jobs", "unique keys without a live holder", "--repair frees them"),
        FindingKind::UniqueMissing => {
            ("jobs", "jobs that do not hold their unique key", "--repair gives it to them if it is free")
        }
        FindingKind::CancelStale => {
            ("servers", "cancels of jobs that do not run there", "--repair takes them out")
        }
        FindingKind::Abandoned => (
            "servers",
            "lists of servers that are dead or not known",
            "--repair takes their jobs over, charged with a crash",
        ),
        FindingKind::Silent => (
            "servers",
            "servers that have jobs and do not beat",
            "another server takes their jobs over, or --repair after lease-timeout",
        ),
    }
}

fn state(server: &RememberedServer) -> &'static str {
    match server.beat_age_ms {
        _ if server.dead => "dead",
        Some(age) if age < 10_000 => "alive",
        _ => "silent",
    }
}

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
