//! What a Redis itself tells that matters to jobs: settings, memory, disk, role, clock and speed. Changes nothing.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::inspect::RedisInfo;
use super::{Error, Queue};

/// How many round trips are timed.
const TRIPS: usize = 20;
/// A round trip longer than this holds up the servers: every job takes two.
const SLOW: Duration = Duration::from_millis(5);
/// From here on memory is nearly used up.
const NEARLY_FULL_PERCENT: u64 = 90;
/// A clock that differs by more makes the times of logs and of jobs hard to compare.
const CLOCK_LIMIT_MS: u64 = 1_000;

/// How bad something is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Jobs are or will be refused, or lost.
    Wrong,
    /// Jobs are in danger when something else happens.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Wrong => "wrong",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// Something that a person should know of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advice {
    /// How bad it is.
    pub severity: Severity,
    /// A word for programs.
    pub kind: &'static str,
    /// What is the case.
    pub what: String,
    /// What to do about it.
    pub todo: &'static str,
}

/// What a Redis tells of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// Product and version.
    pub info: RedisInfo,
    /// The median of some round trips.
    pub round_trip: Duration,
    /// The longest of them.
    pub longest_round_trip: Duration,
    /// How far this machine's clock is ahead of Redis's, in ms.
    pub clock_ahead_ms: i64,
    /// In bytes.
    pub used_memory: u64,
    /// In bytes; 0 is none.
    pub maxmemory: u64,
    /// What should be known, the worst first.
    pub advice: Vec<Advice>,
}

/// The answer of INFO.
struct Facts(String);

impl Facts {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    fn number(&self, name: &str) -> u64 {
        self.text(name).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Whether it says that the last try of something failed.
    fn failed(&self, name: &str) -> bool {
        self.text(name) == Some("err")
    }
}

/// Collects what should be known.
#[derive(Default)]
struct Notes(Vec<Advice>);

impl Notes {
    fn add(&mut self, severity: Severity, kind: &'static str, what: String, todo: &'static str) {
        self.0.push(Advice { severity, kind, what, todo });
    }
}

impl Queue {
    /// What Redis tells of itself, and what of it endangers jobs. What a managed service forbids to ask is left out.
    pub fn health(&self) -> Result<Health, Error> {
        let info = self.redis_info()?;
        let facts = Facts(match self.link.query(&redis::cmd("INFO")) {
            Err(Error::Denied(_)) => String::new(),
            facts => facts?,
        });
        let mut notes = Notes::default();
        if !info.is_supported() {
            let what = format!("this is {} {}", info.product, info.version);
            let todo = "use Redis from 7.0 or Valkey from 7.2";
            notes.add(Severity::Wrong, "version", what, todo);
        }
        if facts.text("role") == Some("slave") {
            let what = "this is a replica, which takes no writes".to_owned();
            notes.add(Severity::Wrong, "replica", what, "point redis-url at the master");
        }
        self.judge_disk(&info, &facts, &mut notes);
        self.judge_memory(&info, &facts, &mut notes);
        self.judge_access(&mut notes);

        let mut trips = Vec::with_capacity(TRIPS);
        for _ in 0..TRIPS {
            let begin = Instant::now();
            // Not PING, to which a user of Redis needs a right that nothing else needs.
            self.link.query::<(i64, i64)>(&redis::cmd("TIME"))?;
            trips.push(begin.elapsed());
        }
        trips.sort();
        let round_trip = trips[TRIPS / 2];
        if round_trip > SLOW {
            let what = format!("a round trip takes {:.1} ms", round_trip.as_secs_f64() * 1e3);
            let todo = "bring servers and Redis closer together, or look what keeps Redis busy (SLOWLOG)";
            notes.add(Severity::Warning, "slow", what, todo);
        }
        let clock_ahead_ms = self.clock_ahead_ms()?;
        if clock_ahead_ms.unsigned_abs() > CLOCK_LIMIT_MS {
            let what = format!("this machine's clock and Redis's differ by {} ms", clock_ahead_ms.abs());
            let todo = "harmless to jobs, whose times are Redis's; set the clocks by NTP";
            notes.add(Severity::Note, "clock", what, todo);
        }
        notes.0.sort_by_key(|advice| advice.severity);
        Ok(Health {
            round_trip,
            longest_round_trip: trips[TRIPS - 1],
            clock_ahead_ms,
            used_memory: facts.number("used_memory"),
            maxmemory: facts.number("maxmemory"),
            advice: notes.0,
            info,
        })
    }

    fn judge_disk(&self, info: &RedisInfo, facts: &Facts, notes: &mut Notes) {
        if info.persistent == Some(false) {
            let what = "it keeps nothing on disk (neither appendonly nor save is set)".to_owned();
            let todo = "a restart of it loses all jobs: CONFIG SET appendonly yes, and the same in its file";
            notes.add(Severity::Warning, "no_persistence", what, todo);
        }
        if facts.failed("aof_last_write_status") {
            let what = "its last write to the append-only file failed".to_owned();
            let todo = "it refuses new jobs: look whether its disk is full or broken";
            notes.add(Severity::Wrong, "aof_write", what, todo);
        }
        if facts.failed("aof_last_bgrewrite_status") {
            let what = "its last rewrite of the append-only file failed".to_owned();
            let todo = "the file grows: look at its log, its disk and its memory (vm.overcommit_memory)";
            notes.add(Severity::Warning, "aof_rewrite", what, todo);
        }
        if facts.failed("rdb_last_bgsave_status") {
            let what = "its last snapshot failed".to_owned();
            let todo =
                "with stop-writes-on-bgsave-error it refuses new jobs: look at its log, its disk and memory";
            notes.add(Severity::Wrong, "snapshot", what, todo);
        }
        if facts.text("aof_enabled") == Some("1") && self.setting("appendfsync").as_deref() == Some("no") {
            let what = "appendfsync is no".to_owned();
            let todo =
                "a crash of its machine may lose half a minute of jobs: CONFIG SET appendfsync everysec";
            notes.add(Severity::Warning, "appendfsync", what, todo);
        }
        let delayed = facts.number("aof_delayed_fsync");
        if delayed > 0 {
            let what = format!("it has waited {delayed} times for a slow disk since it started");
            notes.add(
                Severity::Note,
                "slow_disk",
                what,
                "it answers nobody meanwhile: give it a faster disk",
            );
        }
    }

    fn judge_memory(&self, info: &RedisInfo, facts: &Facts, notes: &mut Notes) {
        let policy = &info.maxmemory_policy;
        if policy != "noeviction" && policy != "unknown" {
            let what = format!("maxmemory-policy is {policy}: it may throw jobs away");
            let todo = "CONFIG SET maxmemory-policy noeviction, and the same in its file";
            notes.add(Severity::Warning, "eviction", what, todo);
        }
        let (used, max) = (facts.number("used_memory"), facts.number("maxmemory"));
        if max > 0 && used.saturating_mul(100) >= max.saturating_mul(NEARLY_FULL_PERCENT) {
            let what = format!("{} % of its maxmemory are used", used.saturating_mul(100) / max);
            let todo =
                "when it is full it refuses new jobs: raise maxmemory, or keep fewer ended jobs (retain-..)";
            notes.add(Severity::Warning, "memory", what, todo);
        }
    }

    /// Whether strangers can reach it: no password, a public address, and the guard against that off.
    fn judge_access(&self, notes: &mut Notes) {
        let (Some(password), Some(protected), Some(bind), Some(port)) = (
            self.setting("requirepass"),
            self.setting("protected-mode"),
            self.setting("bind"),
            self.setting("port"),
        ) else {
            return;
        };
        if password.is_empty() && protected == "no" && port != "0" && is_public(&bind) {
            let what = "it takes commands from other machines without a password".to_owned();
            let todo = "set requirepass or ACLs, or bind it to 127.0.0.1";
            notes.add(Severity::Warning, "open", what, todo);
        }
    }

    /// A setting of Redis; `None` where it may not be asked.
    fn setting(&self, name: &str) -> Option<String> {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg(name);
        self.link.query::<Vec<String>>(&command).ok()?.into_iter().nth(1)
    }

    fn clock_ahead_ms(&self) -> Result<i64, Error> {
        let micros = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
        };
        let before = micros();
        let (seconds, rest): (i64, i64) = self.link.query(&redis::cmd("TIME"))?;
        // The moment of Redis's answer was somewhere between.
        let here = before + (micros() - before) / 2;
        Ok((here - (seconds * 1_000_000 + rest)) / 1_000)
    }
}

/// Whether one of the addresses of a `bind` can be reached from elsewhere. None at all is all of them.
fn is_public(bind: &str) -> bool {
    let mut addresses = bind.split_whitespace().map(|address| address.trim_start_matches('-')).peekable();
    addresses.peek().is_none()
        || addresses.any(|address| !address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_private() {
        for bind in ["127.0.0.1", "127.0.0.1 -::1", "::1"] {
            assert!(!is_public(bind), "{bind}");
        }
        for bind in ["", "* -::*", "0.0.0.0", "127.0.0.1 10.0.0.7", "redis.local"] {
            assert!(is_public(bind), "{bind}");
        }
    }
}
