//! The doctor's report on Redis itself: settings, memory, disk, role, clock and speed. It changes nothing.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Queue;
use super::error::Error;
use super::pool::Access;
use super::redis_info::{InfoFields, RedisInfo};
use crate::sorting;

/// The number of timed round trips.
const TRIPS: usize = 20;
/// A longer round trip slows the servers down: every job takes two.
const SLOW: Duration = Duration::from_millis(5);
/// From this share of `maxmemory` on the report warns.
const NEARLY_FULL_PERCENT: u64 = 90;
/// With a larger difference the times in logs and in jobs are hard to compare.
const CLOCK_LIMIT_MS: u64 = 1_000;

/// How bad a problem is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Jobs are refused or lost, or will be.
    Wrong,
    /// Jobs are in danger if something else fails too.
    Warning,
    /// Jobs are not in danger.
    Note,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Wrong => "wrong",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// A problem, and what the operator can do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advice {
    pub severity: Severity,
    /// A stable word for programs.
    pub kind: &'static str,
    /// The problem.
    pub what: String,
    /// What the operator can do.
    pub todo: &'static str,
}

impl Advice {
    /// The worst first.
    pub fn sort(advice: &mut [Advice]) {
        sorting::sort_by(advice, |a, b| a.severity.cmp(&b.severity));
    }
}

/// The state of a Redis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedisReport {
    /// Product, version and role.
    pub info: RedisInfo,
    /// The median of the timed round trips.
    pub round_trip: Duration,
    /// The longest timed round trip.
    pub longest_round_trip: Duration,
    /// How far this machine's clock is ahead of Redis's clock, in ms; negative if it is behind.
    pub clock_ahead_ms: i64,
    /// The memory that Redis uses, in bytes.
    pub used_memory: u64,
    /// The limit of the memory, in bytes; 0 is no limit.
    pub maxmemory: u64,
    /// The problems, the worst first.
    pub advice: Vec<Advice>,
}

/// Collects problems.
#[derive(Default)]
struct Problems(Vec<Advice>);

impl Problems {
    fn add(&mut self, severity: Severity, kind: &'static str, what: String, todo: &'static str) {
        self.0.push(Advice { severity, kind, what, todo });
    }
}

impl RedisInfo {
    /// The problems that INFO and settings show: Redis stores nothing on disk, may evict jobs, or may lose jobs in a
    /// failover.
    pub fn problems(&self) -> Vec<Advice> {
        let mut problems = Problems::default();
        if !self.is_tested() {
            let what = format!("threadq is not tested with {}", self.product);
            problems.add(Severity::Warning, "product", what, "use Redis from 7.0 or Valkey from 7.2");
        }
        if self.persistent == Some(false) {
            let what = "Redis stores nothing on disk (neither appendonly nor save is set)".to_owned();
            let todo =
                "a restart of Redis loses all jobs: run CONFIG SET appendonly yes, and set it in redis.conf";
            problems.add(Severity::Warning, "no_persistence", what, todo);
        }
        let policy = &self.maxmemory_policy;
        if policy != "noeviction" && policy != "unknown" {
            let what = format!("maxmemory-policy is {policy}: Redis may evict jobs");
            let todo = "run CONFIG SET maxmemory-policy noeviction, and set it in redis.conf";
            problems.add(Severity::Warning, "eviction", what, todo);
        }
        self.check_replicas(&mut problems);
        if !self.not_allowed.is_empty() {
            let what = format!("not allowed to ask Redis for {}", self.not_allowed.join(", "));
            let todo = "their values are unknown here: check them where Redis is managed";
            problems.add(Severity::Note, "not_allowed", what, todo);
        }
        problems.0
    }

    /// What a failover may lose, or why Redis cannot fail over.
    fn check_replicas(&self, problems: &mut Problems) {
        let Some(replicas) = self.replicas.filter(|_| !self.is_replica) else { return };
        let wanted = u64::from(self.wanted_replicas);
        if replicas < wanted {
            let what = format!("Redis has {replicas} of the {wanted} replicas that redis-replicas asks for");
            let todo = "requests with jobs are answered with 503: attach replicas, or lower redis-replicas";
            problems.add(Severity::Wrong, "no_replica", what, todo);
        } else if replicas == 0 && self.fails_over {
            let what = "this master has no replica: nothing takes over when it dies".to_owned();
            problems.add(Severity::Warning, "no_replica", what, "attach a replica");
        } else if self.min_replicas == Some(0) {
            let what =
                "min-replicas-to-write is 0: a failover may lose jobs that were acknowledged".to_owned();
            let todo = "run CONFIG SET min-replicas-to-write 1, and set it in redis.conf of all servers, or set redis-replicas";
            problems.add(Severity::Warning, "min_replicas", what, todo);
        }
    }
}

impl Queue {
    /// The state of this Redis, and its problems. What the user of Redis may not ask is left out, as with managed
    /// services.
    pub fn redis_report(&self) -> Result<RedisReport, Error> {
        let info = self.redis_info()?;
        let fields = self.info_fields()?;
        let mut problems = Problems(info.problems());
        if !info.is_supported() {
            let what = format!("this is {} {}", info.product, info.version);
            let todo = "use Redis from 7.0 or Valkey from 7.2";
            problems.add(Severity::Wrong, "version", what, todo);
        }
        if info.is_replica {
            let what = "this Redis is a replica, which refuses writes".to_owned();
            problems.add(Severity::Wrong, "replica", what, "set redis-url to the master");
        }
        self.check_disk(&fields, &mut problems);
        check_memory(&fields, &mut problems);
        self.check_access(&mut problems);

        let mut trips = Vec::with_capacity(TRIPS);
        for _ in 0..TRIPS {
            let begin = Instant::now();
            // Not PING: the user of Redis would need a right to PING only for this.
            self.redis_time()?;
            trips.push(begin.elapsed());
        }
        sorting::sort(&mut trips);
        let round_trip = trips[TRIPS / 2];
        if round_trip > SLOW {
            let what = format!("a round trip to Redis takes {:.1} ms", round_trip.as_secs_f64() * 1e3);
            let todo =
                "place servers and Redis closer together, or find out with SLOWLOG what keeps Redis busy";
            problems.add(Severity::Warning, "slow", what, todo);
        }
        let clock_ahead_ms = self.clock_ahead_ms()?;
        if clock_ahead_ms.unsigned_abs() > CLOCK_LIMIT_MS {
            let what =
                format!("the clocks of this machine and of Redis differ by {} ms", clock_ahead_ms.abs());
            let todo =
                "jobs are not affected, since only the clock of Redis counts; synchronize the clocks by NTP";
            problems.add(Severity::Note, "clock", what, todo);
        }
        Advice::sort(&mut problems.0);
        Ok(RedisReport {
            round_trip,
            longest_round_trip: trips[TRIPS - 1],
            clock_ahead_ms,
            used_memory: fields.number("used_memory"),
            maxmemory: fields.number("maxmemory"),
            advice: problems.0,
            info,
        })
    }

    fn check_disk(&self, fields: &InfoFields, problems: &mut Problems) {
        if fields.failed("aof_last_write_status") {
            let what = "the last write to the append-only file failed".to_owned();
            let todo = "Redis refuses new jobs: check whether its disk is full or broken";
            problems.add(Severity::Wrong, "aof_write", what, todo);
        }
        if fields.failed("aof_last_bgrewrite_status") {
            let what = "the last rewrite of the append-only file failed".to_owned();
            let todo = "the file grows: check the log, disk and memory of Redis (vm.overcommit_memory)";
            problems.add(Severity::Warning, "aof_rewrite", what, todo);
        }
        if fields.failed("rdb_last_bgsave_status") {
            let what = "the last snapshot failed".to_owned();
            let todo =
                "with stop-writes-on-bgsave-error Redis refuses new jobs: check its log, disk and memory";
            problems.add(Severity::Wrong, "snapshot", what, todo);
        }
        if fields.text("aof_enabled") == Some("1")
            && self.redis_setting("appendfsync").as_deref() == Some("no")
        {
            let what = "appendfsync is no".to_owned();
            let todo = "if its machine crashes, half a minute of jobs may be lost: run CONFIG SET appendfsync everysec";
            problems.add(Severity::Warning, "appendfsync", what, todo);
        }
        let delayed = fields.number("aof_delayed_fsync");
        if delayed > 0 {
            let what = format!("Redis has waited {delayed} times for a slow disk since it started");
            problems.add(
                Severity::Note,
                "slow_disk",
                what,
                "Redis answers no client while it waits: give it a faster disk",
            );
        }
    }

    /// Warns of a Redis that any machine can use: no password, a public address, and protected-mode off.
    fn check_access(&self, problems: &mut Problems) {
        let (Some(password), Some(protected), Some(bind), Some(port)) = (
            self.redis_setting("requirepass"),
            self.redis_setting("protected-mode"),
            self.redis_setting("bind"),
            self.redis_setting("port"),
        ) else {
            return;
        };
        if password.is_empty() && protected == "no" && port != "0" && is_public(&bind) {
            let what = "Redis accepts commands from other machines without a password".to_owned();
            let todo = "set requirepass or ACLs, or bind Redis to 127.0.0.1";
            problems.add(Severity::Warning, "open", what, todo);
        }
    }

    fn clock_ahead_ms(&self) -> Result<i64, Error> {
        let micros = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
        };
        let before = micros();
        let (seconds, rest) = self.redis_time()?;
        // Redis read its clock at some moment between the two.
        let here = before + (micros() - before) / 2;
        Ok((here - (seconds * 1_000_000 + rest)) / 1_000)
    }

    /// The seconds and the rest in microseconds of Redis's clock.
    fn redis_time(&self) -> Result<(i64, i64), Error> {
        let reply = self.connections.query(&redis::cmd("TIME"));
        reply.map_err(|error| self.explained(error, Access::Read))
    }
}

fn check_memory(fields: &InfoFields, problems: &mut Problems) {
    let (used, max) = (fields.number("used_memory"), fields.number("maxmemory"));
    if max > 0 && used.saturating_mul(100) >= max.saturating_mul(NEARLY_FULL_PERCENT) {
        let what = format!("{} % of maxmemory are used", used.saturating_mul(100) / max);
        let todo = "a full Redis refuses new jobs: raise maxmemory, or keep fewer ended jobs (retain-..)";
        problems.add(Severity::Warning, "memory", what, todo);
    }
}

/// Whether Redis listens on an address that other machines can reach. An empty `bind` means all addresses.
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
