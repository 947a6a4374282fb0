//! The rules by which jobs are recovered: which servers are dead, and which entries of this server's list belong to no
//! attempt. Pure, so that the tests need no clock and no Redis; the heartbeat and the reaper apply them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::queue::{BLOCK, ServerId};

/// How long an entry of this server's list must have no attempt here before it counts as lost. Longer than the reply to a
/// fetcher can take, which is the block time and 3 s.
const LOST_AFTER: Duration = BLOCK.saturating_add(Duration::from_secs(4));

/// The part of the reply to a heartbeat that the reaper acts on.
pub struct Findings {
    /// The id under which this server sent the heartbeat.
    pub server: ServerId,
    /// Dead servers, each with the beat that was observed.
    pub dead: Vec<(String, String)>,
    /// The number of jobs in this server's list in Redis.
    pub in_progress: usize,
    /// Whether quarantined jobs wait in this server's queues. These jobs wake no fetcher by themselves.
    pub quarantine_waits: bool,
}

/// Finds dead servers: measures the time between the beats of each server by this server's own monotonic clock.
#[derive(Default)]
pub struct FailureDetector {
    /// The last beat of each server, and when this beat was first observed.
    observed: HashMap<String, (String, Instant)>,
    last_check: Option<Instant>,
}

impl FailureDetector {
    /// Starts the leases of all servers again, after a time in which no beat could be observed.
    pub fn reset(&mut self) {
        self.observed.clear();
    }

    /// The servers whose beat has not advanced for `lease_timeout`, and servers that were declared dead before and
    /// still have jobs; each with the beat that was observed.
    ///
    /// Only time in which this server kept checking counts. If this server was suspended or starved, the other servers
    /// may have been too (one machine that slept), so their leases start again.
    pub fn dead_servers(
        &mut self,
        servers: &[(String, String)],
        own: &str,
        lease_timeout: Duration,
        now: Instant,
    ) -> Vec<(String, String)> {
        if self.last_check.replace(now).is_some_and(|at| now.duration_since(at) > lease_timeout / 2) {
            self.reset();
        }
        self.observed.retain(|server, _| servers.iter().any(|(id, _)| id == server));
        let mut dead = Vec::new();
        for (server, beat) in servers.iter().filter(|(id, _)| id != own) {
            let (seen, since) = self.observed.entry(server.clone()).or_insert_with(|| (beat.clone(), now));
            if seen != beat {
                (*seen, *since) = (beat.clone(), now);
            }
            if beat.starts_with('D') || now.duration_since(*since) >= lease_timeout {
                dead.push((server.clone(), beat.clone()));
            }
        }
        dead
    }

    /// The time until the next lease ends, if no beat advances until then. `None` if no lease runs.
    pub fn next_lease_end(&self, lease_timeout: Duration, now: Instant) -> Option<Duration> {
        let left = |since: &Instant| lease_timeout.checked_sub(now.duration_since(*since));
        self.observed.values().filter_map(|(_, since)| left(since)).filter(|left| !left.is_zero()).min()
    }
}

/// Finds lost hand-overs: entries that Redis has moved to this server's list by a command whose reply was lost.
#[derive(Default)]
pub struct LostEntries {
    /// Entries of this server's list without an attempt here, and when each was first seen so.
    unknown: HashMap<Vec<u8>, Instant>,
}

impl LostEntries {
    /// Whether entries are under observation.
    pub fn is_empty(&self) -> bool {
        self.unknown.is_empty()
    }

    /// Returns the `unknown` entries that were unknown at every call for [`LOST_AFTER`], in their order, and forgets them:
    /// the caller returns them to their queues. If such an entry is unknown again later, [`LOST_AFTER`] starts again.
    pub fn lost(&mut self, unknown: Vec<Vec<u8>>, now: Instant) -> Vec<Vec<u8>> {
        self.unknown.retain(|entry, _| unknown.contains(entry));
        for entry in &unknown {
            self.unknown.entry(entry.clone()).or_insert(now);
        }
        let is_lost = |entry: &Vec<u8>| now.duration_since(self.unknown[entry]) >= LOST_AFTER;
        let lost: Vec<Vec<u8>> = unknown.into_iter().filter(is_lost).collect();
        self.unknown.retain(|entry, _| !lost.contains(entry));
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    /// One server that checks the beats of others.
    struct Checks {
        failure_detector: FailureDetector,
        now: Instant,
    }

    impl Checks {
        fn new() -> Checks {
            Checks { failure_detector: FailureDetector::default(), now: Instant::now() }
        }

        /// The dead servers as `server=beat`, checked `seconds` after the previous check.
        fn after(&mut self, seconds: u64, servers: &[(&str, &str)]) -> Vec<String> {
            self.now += Duration::from_secs(seconds);
            let servers: Vec<_> =
                servers.iter().map(|(id, beat)| (id.to_string(), beat.to_string())).collect();
            let dead = self.failure_detector.dead_servers(&servers, "own", LEASE, self.now);
            dead.into_iter().map(|(server, beat)| format!("{server}={beat}")).collect()
        }
    }

    #[test]
    fn a_server_is_dead_when_its_beat_has_not_advanced_for_the_whole_lease() {
        let mut checks = Checks::new();
        for _ in 0..15 {
            assert!(checks.after(1, &[("a", "7"), ("own", "1")]).is_empty());
        }
        assert_eq!(checks.after(1, &[("a", "7"), ("own", "1")]), ["a=7"]);
    }

    #[test]
    fn every_beat_starts_the_lease_again_and_a_server_never_finds_itself_dead() {
        let mut checks = Checks::new();
        for beat in 1..5 {
            for _ in 0..14 {
                assert!(checks.after(1, &[("a", &beat.to_string()), ("own", "1")]).is_empty());
            }
        }
    }

    #[test]
    fn the_next_lease_end_is_that_of_the_server_that_is_silent_longest() {
        let mut checks = Checks::new();
        let left = |checks: &Checks| checks.failure_detector.next_lease_end(LEASE, checks.now);
        assert_eq!(left(&checks), None, "no server was observed");
        checks.after(1, &[("a", "7"), ("own", "1")]);
        checks.after(4, &[("a", "7"), ("b", "1"), ("own", "2")]);
        assert_eq!(left(&checks), Some(LEASE - Duration::from_secs(4)));
        checks.after(4, &[("a", "8"), ("b", "1"), ("own", "3")]);
        assert_eq!(left(&checks), Some(LEASE - Duration::from_secs(4)), "now b is silent longest");
        for _ in 0..3 {
            checks.after(5, &[("a", "8"), ("own", "4")]);
        }
        assert_eq!(left(&checks), None, "the lease of a dead server has ended");
    }

    #[test]
    fn a_server_that_was_declared_dead_before_is_dead_at_once() {
        assert_eq!(Checks::new().after(1, &[("a", "D123:7")]), ["a=D123:7"]);
    }

    #[test]
    fn time_without_checks_does_not_count() {
        let mut checks = Checks::new();
        for _ in 0..15 {
            checks.after(1, &[("a", "7")]);
        }
        checks.failure_detector.reset();
        for _ in 0..15 {
            assert!(checks.after(1, &[("a", "7")]).is_empty(), "there was an outage of Redis");
        }
        // This server was suspended, and perhaps the other one with it.
        assert!(checks.after(60, &[("a", "7")]).is_empty());
        assert!(checks.after(1, &[("a", "8")]).is_empty());
        for _ in 0..14 {
            assert!(checks.after(1, &[("a", "8")]).is_empty());
        }
        assert_eq!(checks.after(1, &[("a", "8")]), ["a=8"]);
    }

    #[test]
    fn a_server_that_disappeared_and_returned_gets_a_new_lease() {
        let mut checks = Checks::new();
        for _ in 0..15 {
            checks.after(1, &[("a", "7")]);
        }
        checks.after(1, &[]);
        assert!(checks.after(1, &[("a", "7")]).is_empty());
    }

    #[test]
    fn an_entry_is_lost_when_it_was_unknown_at_every_check_for_long() {
        let mut lost = LostEntries::default();
        let mut now = Instant::now();
        let entries = |ids: &[&str]| ids.iter().map(|id| id.as_bytes().to_vec()).collect::<Vec<_>>();
        assert!(lost.lost(entries(&["1", "2"]), now).is_empty());
        now += LOST_AFTER - Duration::from_millis(1);
        assert!(lost.lost(entries(&["1", "2"]), now).is_empty());
        // Entry 2 is known for a moment and unknown again: that is another hand-over.
        lost.lost(entries(&["1"]), now);
        now += Duration::from_millis(1);
        assert_eq!(lost.lost(entries(&["2", "1"]), now), entries(&["1"]));
        // Entry 1 was returned to its queue and is in the list again: a reply with it may be under way.
        assert!(lost.lost(entries(&["2", "1"]), now).is_empty());
        now += LOST_AFTER;
        assert_eq!(lost.lost(entries(&["2", "1"]), now), entries(&["2", "1"]), "in the order of the list");
    }

    #[test]
    fn an_entry_whose_reply_may_be_under_way_is_not_lost() {
        assert!(LOST_AFTER > BLOCK + Duration::from_secs(3), "a fetcher may still receive the reply");
    }
}
