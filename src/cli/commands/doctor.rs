//! `threadq doctor`: reports problems of the data in Redis and of Redis itself, and repairs the data.
//!
//! It connects to Redis directly, because it is needed most while no server runs. The checks are in `queue::audit` and
//! `queue::redis_report`; this file turns their results into a report.

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
    Advice, Audit, Error, FindingKind, Findings, Queue, RedisReport, RememberedServer, RepairPolicy,
    Settings, Severity,
};

pub(crate) static DOCTOR: Command = Command {
    name: "doctor",
    operands: "",
    about: "\
Checks the jobs in Redis for problems, and repairs them.
Compares all keys in Redis, and reports those that do not match and the settings of Redis that endanger jobs. With
--repair, repairs the keys. Connects to Redis directly: works while no server runs, and is safe while servers run.

Uses these settings of \"threadq serve\": redis-url or data-dir, and namespace; for repairs also lease-timeout and
max-crashes.

Exit codes: 0 no problem, or every problem was repaired (warnings do not count); 1 a problem is left, or Redis is
unavailable; 2 wrong usage or configuration.",
    flags: &[
        Flag { name: "repair", value: "", help: "repair the problems in small steps, and check again" },
        Flag { name: "json", value: "", help: "print the report as one line of JSON" },
    ],
    examples: &["doctor --redis-url redis://127.0.0.1:6379", "doctor --config threadq.toml --repair"],
    run: Run::Configured(doctor),
};

/// Why there is no report.
enum Stopped {
    Usage(String),
    Failed(String),
}

/// The report: the JSON of `--json`.
#[derive(Serialize)]
struct Report {
    /// Whether no problem is left.
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
    /// The number of repairs by this command.
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
    /// The Sentinels and the master that they name, or the Cluster and the owner of the slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
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
    /// `None` for a server that is not alive: the value of its last heartbeat is outdated.
    busy: Option<u64>,
    in_progress: u64,
}

fn doctor(mut args: lexopt::Parser) -> ExitCode {
    let words: Vec<OsString> = match args.raw_args() {
        Ok(words) => words.collect(),
        Err(error) => return stop(&Stopped::Usage(error.to_string())),
    };
    // No setting has a value that begins with dashes, so these arguments are always flags.
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
    // Must outlive the queue: the URL of its socket may be valid only until it is dropped.
    let private = match &config.redis_url {
        Some(_) => None,
        None => Some(private_redis(&config)?),
    };
    let (url, name) = match (&config.redis_url, &private) {
        (Some(url), _) => (url.expose().to_owned(), "redis-url"),
        (None, Some(redis)) => (redis.url(), "data-dir"),
        (None, None) => (String::new(), "redis-url"),
    };
    let settings = Settings {
        certificates: config.redis_certificates(),
        replicas: config.redis_replicas,
        ..Settings::new(url, &config.namespace)
    };
    let queue = Queue::new(&settings).map_err(|error| Stopped::Usage(error.to_string()))?;
    let failed = |error: Error| Stopped::Failed(format!("{name}: {error}"));
    let mut place = queue.place_report();
    let mut health = queue.redis_report().map_err(|error| match (queue.wrong_url(), &place.fault) {
        (Some(reason), _) => Stopped::Usage(format!("{name}: {reason}")),
        (None, Some(reason)) => Stopped::Failed(format!("{name}: {reason}")),
        (None, None) => failed(error),
    })?;
    health.advice.append(&mut place.advice);
    Advice::sort(&mut health.advice);
    if !health.info.is_supported() || place.fault.is_some() {
        // The scripts may not work on this version, or are refused, so their results would be worthless.
        return Ok(Report::new(&health, place.line, &BTreeMap::new(), Audit::default()));
    }
    queue.check_doctor_rights(repair).map_err(failed)?;
    let policy = RepairPolicy { lease_timeout: config.lease_timeout, max_crashes: config.max_crashes };
    let (repaired, audit) = match repair {
        true => queue.repair(policy).map_err(failed)?,
        false => (BTreeMap::new(), queue.audit(policy).map_err(failed)?),
    };
    Ok(Report::new(&health, place.line, &repaired, audit))
}

fn private_redis(config: &Config) -> Result<RunningRedis, Stopped> {
    let found = RunningRedis::find(&config.data_dir)
        .map_err(|error| Stopped::Failed(format!("data-dir: {error}")))?;
    found.ok_or_else(|| {
        Stopped::Failed(format!(
            "data-dir: no private Redis runs in {}; start the server, or give the URL of a Redis with --redis-url",
            config.data_dir.display()
        ))
    })
}

impl Report {
    fn new(
        health: &RedisReport,
        place: Option<String>,
        repaired: &BTreeMap<FindingKind, Findings>,
        audit: Audit,
    ) -> Report {
        let mut findings = Vec::new();
        for kind in FindingKind::ALL {
            // What could not be repaired is found again by the last check of the repair.
            if let Some(group) = repaired.get(&kind).filter(|group| group.repaired > 0) {
                let group = Findings { found: group.repaired, ..group.clone() };
                findings.push(Finding::of_jobs(kind, &group));
            }
            if let Some(group) = audit.findings.get(&kind) {
                findings.push(Finding::of_jobs(kind, group));
            }
        }
        let (lost, examples) = audit.lost.clone();
        if lost > 0 {
            let what = "ids that were in a list without a job (the last 10,000, newest first)";
            let todo = "the jobs are lost: check for a program that deletes keys, or a Redis that lost data";
            findings.push(Finding::note("jobs", "lost", what, lost, examples, todo));
        }
        let (set_aside, examples) = audit.set_aside.clone();
        if set_aside > 0 {
            let what = "keys that a repair has renamed to set_aside:..";
            let todo = "check them, then delete them";
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
        let ok = findings
            .iter()
            .all(|finding| finding.severity != Severity::Wrong.as_str() || finding.mended >= finding.count);
        Report {
            ok,
            jobs: audit.jobs,
            findings,
            redis: RedisView {
                product: health.info.product,
                version: health.info.version.clone(),
                place,
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
        if let Some(place) = &redis.place {
            writeln!(out, "  {}", escape(place))?;
        }
        self.write_section("redis", out)?;
        writeln!(out, "servers: {} known", self.servers.len())?;
        for server in &self.servers {
            let beat =
                server.beat_age_ms.map_or("unknown".to_owned(), |ms| format!("{} ago", short_span(ms)));
            let ServerView { state, workers, in_progress, .. } = server;
            let id = escape(&server.id);
            let busy =
                server.busy.map_or(String::new(), |busy| format!("{busy} of {workers} workers busy, "));
            writeln!(
                out,
                "  {state}: {id}, {busy}{} in flight, last heartbeat {beat}",
                count(*in_progress, "job")
            )?;
        }
        self.write_section("servers", out)?;
        let has_warning = self.findings.iter().any(|finding| finding.severity == Severity::Warning.as_str());
        let has_repaired = self.findings.iter().any(|finding| finding.mended > 0);
        let sum = match (self.ok, has_repaired) {
            (true, true) => "all problems repaired",
            (true, false) if has_warning => "no problem found, only warnings",
            (true, false) => "no problem found",
            (false, true) => "problems are left",
            (false, false) => "problems found; threadq doctor --repair repairs those of jobs",
        };
        writeln!(out, "{sum}")
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
        let is_repaired = self.mended >= self.count && self.count > 0;
        let severity = if is_repaired { "repaired" } else { self.severity };
        write!(f, "{severity}: {}", self.what)?;
        if self.count > 1 || !self.examples.is_empty() {
            write!(f, ": {}", self.count)?;
        }
        if !self.examples.is_empty() {
            let more = if self.count > self.examples.len() as u64 { ", .." } else { "" };
            write!(f, " ({}{more})", self.examples.join(", "))?;
        }
        match (is_repaired, self.done.is_empty()) {
            (true, false) => write!(f, ": {}", self.done.join("; ")),
            (true, true) => Ok(()),
            (false, false) => write!(f, "; not repaired: {}", self.done.join("; ")),
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

/// The section, a description, and what --repair does.
fn describe(kind: FindingKind) -> (&'static str, &'static str, &'static str) {
    match kind {
        FindingKind::WrongType => ("jobs", "keys of the wrong type", "--repair renames them to set_aside:.."),
        FindingKind::Unreadable => {
            ("jobs", "jobs whose record cannot be read", "--repair renames them to set_aside:..")
        }
        FindingKind::Stranded => (
            "jobs",
            "jobs that are in no list and would never run",
            "--repair puts them back into their lists",
        ),
        FindingKind::Doubled => {
            ("jobs", "jobs that are in lists more than once", "--repair removes the other entries")
        }
        FindingKind::Dangling => {
            ("jobs", "entries without a job", "--repair removes them and records the ids as lost")
        }
        FindingKind::Misplaced => {
            ("jobs", "entries whose job has another status or another list", "--repair removes them")
        }
        FindingKind::Unlisted => (
            "jobs",
            "ended jobs that retention would never delete",
            "--repair adds them to the lists of retention",
        ),
        FindingKind::IndexStale => ("jobs", "index entries that match no job", "--repair removes them"),
        FindingKind::IndexMissing => ("jobs", "jobs that are missing in listings", "--repair adds them"),
        FindingKind::AgendaStale => {
            ("jobs", "words of the agenda that no job or schedule needs", "--repair removes them")
        }
        FindingKind::AgendaMissing => (
            "jobs",
            "jobs that would not expire, be deleted or be taken from dead workers, and limits that would not send jobs on",
            "--repair adds them to the agenda",
        ),
        FindingKind::TickMissing => {
            ("jobs", "schedules that would never have a tick again", "--repair adds them to the agenda")
        }
        FindingKind::SlotStale => ("jobs", "slots of limits that no job needs", "--repair frees them"),
        FindingKind::LimitMiscounted => {
            ("jobs", "limits and queues with a wrong number of waiting jobs", "--repair counts them again")
        }
        FindingKind::LogStale => {
            ("jobs", "logs without a job or with more lines than counted", "--repair deletes or counts them")
        }
        FindingKind::UniqueStale => {
            ("jobs", "unique keys whose job was deleted or has ended", "--repair releases them")
        }
        FindingKind::UniqueMissing => {
            ("jobs", "jobs that do not hold their unique key", "--repair assigns the key if it is free")
        }
        FindingKind::CancelStale => {
            ("servers", "cancel requests for jobs that do not run on that server", "--repair removes them")
        }
        FindingKind::Abandoned => (
            "servers",
            "lists of servers that are dead or unknown",
            "--repair puts their jobs back into the queues and counts a crash",
        ),
        FindingKind::Silent => (
            "servers",
            "servers that have jobs and send no heartbeat",
            "another server reclaims their jobs, or --repair does after lease-timeout",
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
