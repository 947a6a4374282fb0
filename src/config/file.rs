//! Reads the TOML file: settings as keys, the sections `[handlers]` and `[limits]`, and the entries `[[schedules]]`.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use toml::{Table, Value};

use super::error::{ConfigError, quoted};
use super::limits::{limited_by, limits, numbers};
use super::schedules::schedules;
use super::section::{Section, scalar, type_of};
use super::settings::{self, SETTINGS};
use super::sources::RawSetting;
use super::types::{HandlerEntry, Run, ScheduleEntry};
use super::values::{self, Invalid};
use crate::handler::Policy;
use crate::handler::limits::ResourceLimits;
use crate::handler::lines::Lines;
use crate::job::backoff::Backoff;
use crate::job::duration::to_text;
use crate::job::limit::{LimitName, LimitNumbers, MAX_LIMITS};
use crate::job::rules::{ATTEMPTS, DELAY, JOB_TYPE, RETENTION, TIMEOUT};

const MAX_FILE: u64 = 1 << 20;

/// The ranges of the limits of an exec handler. With less memory the system cannot even load a program.
const MEMORY: RangeInclusive<u64> = 1 << 20..=1 << 40;
const OPEN_FILES: RangeInclusive<u64> = 4..=1 << 20;
const NICENESS: RangeInclusive<u8> = 0..=19;
/// The ranges of the settings of programs that stay.
pub(super) const PROCESSES: RangeInclusive<u32> = 1..=1_000;
pub(super) const MAX_JOBS: RangeInclusive<u32> = 0..=1_000_000_000;
pub(super) const IDLE: RangeInclusive<Duration> = Duration::from_millis(1)..=*DELAY.end();

/// The content of a file. The texts of its settings are not checked yet.
#[derive(Default)]
pub(super) struct ConfigFile {
    pub settings: Vec<RawSetting>,
    /// In the order of their job types.
    pub handlers: Vec<HandlerEntry>,
    /// In the order of their names.
    pub limits: Vec<(LimitName, LimitNumbers)>,
    /// In the order of the file.
    pub schedules: Vec<ScheduleEntry>,
}

/// Reads a file. `named_by` is the flag or variable that names it.
///
/// # Errors
/// The file cannot be read, is not valid TOML, or has an unknown key or a handler that is not valid.
pub(super) fn read(path: &str, named_by: &str) -> Result<ConfigFile, ConfigError> {
    let text = values::read_text(Path::new(path), MAX_FILE).map_err(|error| {
        let why = Invalid::new(format!("cannot be read: {error}"), "a TOML file of up to 1 MiB");
        ConfigError::new("config", named_by, &quoted(path), why)
    })?;
    parse(&text, &format!("file {path:?}"))
}

pub(super) fn parse(text: &str, origin: &str) -> Result<ConfigFile, ConfigError> {
    let table: Table = toml::from_str(text).map_err(|error| syntax_error(text, origin, &error))?;
    let mut file = ConfigFile::default();
    for (key, value) in table {
        if key == "handlers" {
            file.handlers = handlers(value, origin)?;
        } else if key == "limits" {
            file.limits = limits(value, origin)?;
        } else if key == "schedules" {
            file.schedules = schedules(value, origin)?;
        } else {
            file.settings.push(setting(&key, &value, origin)?);
        }
    }
    Ok(file)
}

/// Shows the number of the line only: the line itself may hold a secret.
fn syntax_error(text: &str, origin: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start).min(text.len());
    let line = 1 + text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count();
    let why = Invalid::new(format!("is not valid TOML: {}", error.message()), "a TOML file");
    ConfigError::new("config", &format!("{origin}, line {line}"), "the file", why)
}

fn setting(key: &str, value: &Value, origin: &str) -> Result<RawSetting, ConfigError> {
    let setting = settings::find(key).ok_or_else(|| {
        let names: Vec<&str> =
            SETTINGS.iter().map(|setting| setting.name).chain(["handlers", "limits", "schedules"]).collect();
        ConfigError::new(key, origin, "the key", Invalid::new("is not a setting", names.join(", ")))
    })?;
    let text = scalar(value).map_err(|why| ConfigError::new(key, origin, "the value", why))?;
    Ok(RawSetting::new(setting, text, origin.to_owned()))
}

fn handlers(value: Value, origin: &str) -> Result<Vec<HandlerEntry>, ConfigError> {
    let entries = Section::new("handlers".to_owned(), value, origin)?.table;
    entries.into_iter().map(|(job_type, entry)| handler(job_type, entry, origin)).collect()
}

fn handler(job_type: String, value: Value, origin: &str) -> Result<HandlerEntry, ConfigError> {
    let mut entry = Section::new(format!("handlers.{job_type:?}"), value, origin)?;
    if !JOB_TYPE.accepts(&job_type) {
        return Err(entry.error("has no valid name", &format!("a job type of {}", JOB_TYPE.allowed)));
    }
    let (exec, http) = (entry.take("exec", exec)?, entry.take("http", http)?);
    let is_pulled = entry.take_text("pull", values::boolean)?.unwrap_or(false);
    let lines = lines(&mut entry, exec.is_some())?;
    let policy = policy(&mut entry)?;
    let limit = numbers(&mut entry)?;
    let limited_by = entry.take("limited_by", limited_by)?.unwrap_or_default();
    let stderr_is_log = entry.take_text("log", log)?;
    let limits = entry.table.remove("limits");
    entry.finish(
        "exec, protocol, processes, max_jobs, idle, http, pull, timeout, max_attempts, backoff, retain, silence, log, concurrency, rate, burst, limited_by, limits",
    )?;
    if stderr_is_log.is_some() && exec.is_none() {
        return Err(entry.error("has log, but no exec", "log only beside exec"));
    }
    if policy.silence.is_some() && (http.is_some() || is_pulled) {
        return Err(
            entry.error("has silence beside http or pull", "silence for handlers that run on this server")
        );
    }
    if limited_by.len() + usize::from(limit.is_some()) > MAX_LIMITS {
        let problem = "has too many limits";
        return Err(
            entry.error(problem, &format!("up to {MAX_LIMITS} limits, that of its own numbers included"))
        );
    }
    let limits = match limits {
        Some(_) if exec.is_none() => {
            return Err(entry.error("has limits, but no exec", "limits only beside exec"));
        }
        Some(value) => limits_of(Section::new(format!("{}.limits", entry.name), value, origin)?)?,
        None => ResourceLimits::default(),
    };
    let run = match (exec, http) {
        (Some(_), Some(_)) => return Err(entry.error("has both exec and http", "one of them")),
        (None, None) => is_pulled.then_some(Run::Pull),
        _ if is_pulled => return Err(entry.error("has pull beside exec or http", "one of them")),
        (exec, http) => exec.map(Run::Exec).or(http.map(Run::Http)),
    };
    let stderr_is_log = stderr_is_log.unwrap_or_default();
    Ok(HandlerEntry { job_type, run, limits, lines, policy, stderr_is_log, limit, limited_by })
}

/// What becomes the log of a job: `true` if standard error does too.
fn log(text: &str) -> Result<bool, Invalid> {
    match text {
        "report" => Ok(false),
        "stderr" => Ok(true),
        _ => Err(Invalid::new("is neither of the two words", "report or stderr")),
    }
}

fn exec(value: &Value) -> Result<Vec<String>, Invalid> {
    let refuse = |problem: &str| Invalid::new(problem, "a list of strings: the program and its arguments");
    let words = value.as_array().ok_or_else(|| refuse(&format!("is {}", type_of(value))))?;
    let words: Option<Vec<String>> = words.iter().map(|word| word.as_str().map(str::to_owned)).collect();
    match words.ok_or_else(|| refuse("has an entry that is not a string"))? {
        words if words.first().is_none_or(String::is_empty) => Err(refuse("names no program")),
        words if words.iter().any(|word| word.contains('\0')) => {
            Err(refuse("has an entry with a NUL character in it"))
        }
        words => Ok(words),
    }
}

/// How the programs of an exec handler stay; `None` if each attempt has a program of its own.
fn lines(entry: &mut Section, has_exec: bool) -> Result<Option<Lines>, ConfigError> {
    let default = Lines::default();
    let protocol = entry.take_text("protocol", |text| match text {
        "once" => Ok(false),
        "lines" => Ok(true),
        _ => Err(Invalid::new("is not a protocol", "once, lines")),
    })?;
    let processes = entry.take_text("processes", |text| values::number(text, PROCESSES))?;
    let max_jobs = entry.take_text("max_jobs", |text| values::number(text, MAX_JOBS))?;
    let idle = entry.take_text("idle", |text| values::duration(text, IDLE))?;
    if protocol.is_some() && !has_exec {
        return Err(entry.error("has protocol, but no exec", "protocol only beside exec"));
    }
    if protocol == Some(true) {
        let (max_jobs, idle) = (max_jobs.unwrap_or(default.max_jobs), idle.unwrap_or(default.idle));
        return Ok(Some(Lines { processes, max_jobs, idle }));
    }
    if processes.is_some() || max_jobs.is_some() || idle.is_some() {
        let allowed = "processes, max_jobs and idle only beside protocol = \"lines\"";
        return Err(entry.error("has processes, max_jobs or idle, but not protocol = \"lines\"", allowed));
    }
    Ok(None)
}

fn http(value: &Value) -> Result<String, Invalid> {
    values::http_url(&scalar(value)?)
}

/// Keys that the entry leaves out have their defaults.
fn policy(entry: &mut Section) -> Result<Policy, ConfigError> {
    let default = Policy::default();
    let timeout = entry.take_text("timeout", |text| values::duration(text, TIMEOUT))?;
    let max_attempts = entry.take_text("max_attempts", |text| values::number(text, ATTEMPTS))?;
    let backoff = match entry.table.remove("backoff") {
        Some(value) => backoff(Section::new(format!("{}.backoff", entry.name), value, entry.origin)?)?,
        None => default.backoff,
    };
    let retain = entry.take_text("retain", |text| values::duration(text, RETENTION))?;
    let silence = entry.take_text("silence", |text| values::duration(text, TIMEOUT))?;
    Ok(Policy {
        retain,
        silence,
        timeout: timeout.unwrap_or(default.timeout),
        max_attempts: max_attempts.unwrap_or(default.max_attempts),
        backoff,
    })
}

fn backoff(mut section: Section) -> Result<Backoff, ConfigError> {
    let read = |text: &str| values::duration(text, DELAY);
    let default = Backoff::default();
    let base = section.take_text("base", read)?.unwrap_or(default.base);
    let cap = section.take_text("cap", read)?.unwrap_or(default.cap);
    section.finish("base, cap")?;
    if base > cap {
        let problem = format!("has the base {} above the cap {}", to_text(base), to_text(cap));
        return Err(section.error(&problem, "a base up to the cap"));
    }
    Ok(Backoff { base, cap })
}

fn limits_of(mut section: Section) -> Result<ResourceLimits, ConfigError> {
    let limits = ResourceLimits {
        memory: section.take_text("memory", |text| values::size(text, MEMORY))?.map(|n| n as u64),
        cpu: section.take_text("cpu", whole_seconds)?,
        open_files: section.take_text("open_files", |text| values::number(text, OPEN_FILES))?,
        niceness: section.take_text("niceness", |text| values::number(text, NICENESS))?,
    };
    section.finish("memory, cpu, open_files, niceness")?;
    Ok(limits)
}

/// The system sets limits of processor time in whole seconds.
fn whole_seconds(text: &str) -> Result<Duration, Invalid> {
    match values::duration(text, Duration::from_secs(1)..=*TIMEOUT.end())? {
        time if time.subsec_nanos() == 0 => Ok(time),
        _ => Err(Invalid::new("has a part of a second", "whole seconds from 1s to 24h")),
    }
}
