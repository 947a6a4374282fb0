//! The reaper: takes over what dead servers left, and puts back jobs whose hand-over to this server was lost.
//!
//! It works on what a beat has found, on a thread of its own: with a slow Redis, or many jobs, it may take longer than a
//! lease. A finding that is out of date by then does no harm: a server that has beaten since is not taken over, and an
//! entry goes back only if it is still there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::engine::in_flight::InFlight;
use crate::engine::membership::Membership;
use crate::engine::metrics::Metrics;
use crate::engine::shutdown::Shutdown;
use crate::logging::job_fields::{JobFields, log_job};
use crate::queue::{BLOCK, CrashedJob, Queue, Reclaimed, ServerId};

/// How long an entry must stand unknown in this server's list before it counts as lost. Longer than a fetcher's answer
/// can be under way, which is its block time and 3 s.
const LOST_AFTER: Duration = BLOCK.saturating_add(Duration::from_secs(4));
/// Of so many beats, one looks for lost entries in any case.
const LOST_LOOK: u64 = 3;

/// What a beat has found for the reaper.
pub struct Findings {
    /// The name under which this server has beaten.
    pub server: ServerId,
    /// Servers that are dead, each with its beat as it was seen.
    pub dead: Vec<(String, String)>,
    /// How many jobs Redis holds to be in progress here.
    pub in_progress: usize,
    /// Jobs on their last chance wait in this server's queues: they wake no fetcher by themselves.
    pub quarantine_waits: bool,
}

/// The reaper of this server.
pub struct Reaper {
    /// Where the jobs are.
    pub queue: Arc<Queue>,
    /// This server's name.
    pub membership: Arc<Membership>,
    /// What this server knows of.
    pub in_flight: Arc<InFlight>,
    /// Counts recovered jobs.
    pub metrics: Arc<Metrics>,
    /// How often a job may crash its server.
    pub max_crashes: u32,
    /// From the heartbeat.
    pub findings: Receiver<Findings>,
    /// Ends a take-over between two of its steps.
    pub shutdown: Shutdown,
}

impl Reaper {
    /// Works until the heartbeat has ended.
    pub fn run(&self) {
        let mut lost = Lost::default();
        for findings in &self.findings {
            if findings.quarantine_waits {
                self.queue.unblock_fetchers();
            }
            for (server, observed) in &findings.dead {
                self.take_over(server, observed);
            }
            self.recover(&mut lost, &findings);
        }
    }

    fn take_over(&self, server: &str, observed: &str) {
        let ends = || self.shutdown.is_requested();
        match self.queue.reclaim_until(server, observed, self.max_crashes, ends) {
            Ok(Some(taken)) => {
                self.metrics.recovered(taken.moved);
                self.note_crash(server, &taken);
            }
            Ok(None) => {}
            Err(error) => {
                log::error!(server = server; "server={server}: cannot take over its jobs: {error}");
            }
        }
    }

    /// Tells the log and the metrics what became of the jobs of a server that died.
    fn note_crash(&self, server: &str, taken: &Reclaimed) {
        let failed = taken.crashed.iter().filter(|job| job.has_failed).count();
        log::warn!(
            server = server;
            "server={server}: dead; {} of its jobs taken over, {} charged with the crash, {failed} failed for it",
            taken.moved,
            taken.crashed.len()
        );
        for CrashedJob { id, job_type, attempt, crashes, has_failed } in &taken.crashed {
            let about = JobFields::job(*id).with_attempt(job_type, *attempt).on_server(server);
            if *has_failed {
                log_job!(
                    error,
                    about,
                    "failed for good: its server died {crashes} times while it was running"
                );
                self.metrics.failed(job_type);
            } else {
                let limit = self.max_crashes;
                log_job!(warn, about, "its server died while it was running, crash {crashes} of {limit}");
            }
        }
    }

    /// Puts back what Redis has in progress here and nobody here knows of.
    fn recover(&self, lost: &mut Lost, findings: &Findings) {
        let server = &findings.server;
        if self.membership.current() != *server {
            return;
        }
        if lost.server.as_ref() != Some(server) {
            *lost = Lost { server: Some(server.clone()), ..Lost::default() };
        }
        // What is in hand changes meanwhile, so that the comparison alone can fail for a while.
        lost.beats += 1;
        let suspicious = findings.in_progress > self.in_flight.len() || !lost.seen.is_empty();
        if !suspicious && (findings.in_progress == 0 || !lost.beats.is_multiple_of(LOST_LOOK)) {
            return;
        }
        let Ok(entries) = self.queue.in_progress_here(server) else { return };
        let id = |entry: &[u8]| std::str::from_utf8(entry).ok()?.parse().ok();
        let known = |entry: &[u8]| id(entry).is_some_and(|id| self.in_flight.contains(id));
        let unknown: Vec<Vec<u8>> = entries.into_iter().filter(|entry| !known(entry)).collect();
        let entries = lost.for_long(unknown, Instant::now());
        if entries.is_empty() {
            return;
        }
        match self.queue.recover(server, &entries) {
            Ok(moved) => {
                self.metrics.recovered(moved);
                log::warn!("{moved} jobs whose hand-over was lost went back to their queues");
            }
            Err(error) => log::error!("cannot put back lost jobs: {error}"),
        }
    }
}

/// Watches the beats of all servers by this server's own clock.
#[derive(Default)]
pub struct Deaths {
    seen: HashMap<String, (String, Instant)>,
    looked: Option<Instant>,
}

impl Deaths {
    /// Starts all over: after a time without looks nothing is known of anybody.
    pub fn forget(&mut self) {
        self.seen.clear();
    }

    /// Servers whose beat stood still for too long, or that were declared dead before and still have jobs, each with
    /// the beat as it was seen.
    ///
    /// Only time in which this server kept looking counts: where it was itself stopped or starved for a while, the
    /// others may have been too (one machine that was suspended), and must have their chance to beat again.
    pub fn among(
        &mut self,
        servers: &[(String, String)],
        own: &str,
        lease_timeout: Duration,
        now: Instant,
    ) -> Vec<(String, String)> {
        if self.looked.replace(now).is_some_and(|at| now.duration_since(at) > lease_timeout / 2) {
            self.forget();
        }
        self.seen.retain(|server, _| servers.iter().any(|(id, _)| id == server));
        let mut dead = Vec::new();
        for (server, beat) in servers.iter().filter(|(id, _)| id != own) {
            let (seen, since) = self.seen.entry(server.clone()).or_insert_with(|| (beat.clone(), now));
            if seen != beat {
                (*seen, *since) = (beat.clone(), now);
            }
            if beat.starts_with('D') || now.duration_since(*since) >= lease_timeout {
                dead.push((server.clone(), beat.clone()));
            }
        }
        dead
    }
}

/// Entries of this server's list that nobody here knows of, and since when.
#[derive(Default)]
struct Lost {
    /// Whose list it is.
    server: Option<ServerId>,
    seen: HashMap<Vec<u8>, Instant>,
    beats: u64,
}

impl Lost {
    /// Those of the unknown entries that were unknown for long. They are to be put back now: where one of them is met again,
    /// that is another hand-over, which has its own time.
    fn for_long(&mut self, unknown: Vec<Vec<u8>>, now: Instant) -> Vec<Vec<u8>> {
        self.seen.retain(|entry, _| unknown.contains(entry));
        for entry in &unknown {
            self.seen.entry(entry.clone()).or_insert(now);
        }
        let is_lost = |entry: &Vec<u8>| now.duration_since(self.seen[entry]) >= LOST_AFTER;
        let lost: Vec<Vec<u8>> = unknown.into_iter().filter(is_lost).collect();
        self.seen.retain(|entry, _| !lost.contains(entry));
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    /// Looks of one server at the beats of others, one a second.
    struct Looks {
        deaths: Deaths,
        now: Instant,
    }

    impl Looks {
        fn new() -> Looks {
            Looks { deaths: Deaths::default(), now: Instant::now() }
        }

        /// Whom it holds to be dead, after so many seconds without a look.
        fn after(&mut self, seconds: u64, servers: &[(&str, &str)]) -> Vec<String> {
            self.now += Duration::from_secs(seconds);
            let servers: Vec<_> =
                servers.iter().map(|(id, beat)| (id.to_string(), beat.to_string())).collect();
            let dead = self.deaths.among(&servers, "own", LEASE, self.now);
            dead.into_iter().map(|(server, beat)| format!("{server}={beat}")).collect()
        }
    }

    #[test]
    fn a_server_is_dead_when_its_beat_stood_still_for_the_whole_lease() {
        let mut looks = Looks::new();
        for _ in 0..15 {
            assert!(looks.after(1, &[("a", "7"), ("own", "1")]).is_empty());
        }
        assert_eq!(looks.after(1, &[("a", "7"), ("own", "1")]), ["a=7"]);
    }

    #[test]
    fn every_beat_starts_the_lease_anew_and_nobody_judges_itself() {
        let mut looks = Looks::new();
        for beat in 1..5 {
            for _ in 0..14 {
                assert!(looks.after(1, &[("a", &beat.to_string()), ("own", "1")]).is_empty());
            }
        }
    }

    #[test]
    fn a_server_that_was_declared_dead_is_swept_at_once() {
        assert_eq!(Looks::new().after(1, &[("a", "D123:7")]), ["a=D123:7"]);
    }

    #[test]
    fn who_could_not_look_does_not_judge() {
        let mut looks = Looks::new();
        for _ in 0..15 {
            looks.after(1, &[("a", "7")]);
        }
        looks.deaths.forget();
        for _ in 0..15 {
            assert!(looks.after(1, &[("a", "7")]).is_empty(), "Redis was away");
        }
        // This server was stopped itself, and perhaps the other one with it.
        assert!(looks.after(60, &[("a", "7")]).is_empty());
        assert!(looks.after(1, &[("a", "8")]).is_empty());
        for _ in 0..14 {
            assert!(looks.after(1, &[("a", "8")]).is_empty());
        }
        assert_eq!(looks.after(1, &[("a", "8")]), ["a=8"]);
    }

    #[test]
    fn a_server_that_went_and_came_back_is_looked_at_anew() {
        let mut looks = Looks::new();
        for _ in 0..15 {
            looks.after(1, &[("a", "7")]);
        }
        looks.after(1, &[]);
        assert!(looks.after(1, &[("a", "7")]).is_empty());
    }

    #[test]
    fn an_entry_is_lost_when_it_was_unknown_at_every_look_for_long() {
        let mut lost = Lost::default();
        let mut now = Instant::now();
        let entries = |ids: &[&str]| ids.iter().map(|id| id.as_bytes().to_vec()).collect::<Vec<_>>();
        assert!(lost.for_long(entries(&["1", "2"]), now).is_empty());
        now += LOST_AFTER - Duration::from_millis(1);
        assert!(lost.for_long(entries(&["1", "2"]), now).is_empty());
        // Known for a moment, and unknown again: another hand-over.
        lost.for_long(entries(&["1"]), now);
        now += Duration::from_millis(1);
        assert_eq!(lost.for_long(entries(&["2", "1"]), now), entries(&["1"]));
        // It was put back, and stands there again: a fetcher has it in hand, or its answer is under way.
        assert!(lost.for_long(entries(&["2", "1"]), now).is_empty());
        now += LOST_AFTER;
        assert_eq!(
            lost.for_long(entries(&["2", "1"]), now),
            entries(&["2", "1"]),
            "in the order of the list"
        );
    }

    #[test]
    fn an_answer_under_way_is_never_held_to_be_lost() {
        assert!(LOST_AFTER > BLOCK + Duration::from_secs(3), "a fetcher may still get it");
    }
}
