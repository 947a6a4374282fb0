//! The heartbeat: says that this server lives, stops what someone cancelled, takes over what dead servers left, and
//! finds jobs whose hand-over was lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::about::{About, log_about};
use crate::complaint::Complaint;
use crate::handler::StopReason;
use crate::history::History;
use crate::identity::Identity;
use crate::inhand::InHand;
use crate::liveness::Pulse;
use crate::metrics::Metrics;
use crate::queue::{BLOCK, Beat, Charged, Error, Queue, Reclaimed, ServerId};
use crate::scheduler::Scheduler;
use crate::shutdown::Shutdown;

/// The longest time between two beats; often enough for a cancel to arrive soon.
const LONGEST_BEAT: Duration = Duration::from_secs(1);
/// The same while nothing runs here and no other server is there whose death could be missed. One that comes and dies at
/// once is taken over within this, the lease and a beat.
const LONGEST_IDLE_BEAT: Duration = Duration::from_secs(3);
/// How long an entry must stand unknown in this server's list before it counts as lost. Longer than a fetcher's answer
/// can be under way, which is its block time and 3 s.
const LOST_AFTER: Duration = BLOCK.saturating_add(Duration::from_secs(4));
/// Of so many beats, one looks for lost entries in any case.
const LOST_LOOK: u64 = 3;

/// The heartbeat: says that this server lives, stops what someone cancelled, takes over what dead servers left, and
/// finds jobs whose hand-over was lost.
pub struct Heartbeat {
    /// Where the beats go.
    pub queue: Arc<Queue>,
    /// Under which name.
    pub identity: Arc<Identity>,
    /// What is stopped, and what is known.
    pub in_hand: Arc<InHand>,
    /// The queues that this server takes from.
    pub queues: Vec<String>,
    /// Learns when a job is due that someone else has parked.
    pub scheduler: Scheduler,
    /// Counts recovered jobs.
    pub metrics: Arc<Metrics>,
    /// A server is dead when its beat stood still for so long.
    pub lease_timeout: Duration,
    /// How often a job may crash its server.
    pub max_crashes: u32,
    /// Tells that it goes on.
    pub pulse: Pulse,
    /// When to stop.
    pub shutdown: Shutdown,
}

impl Heartbeat {
    /// Beats until the end.
    pub fn run(&self) {
        let mut reaper = Reaper::default();
        let mut lost = Lost::default();
        let mut complaint = Complaint::default();
        let mut history = History::default();
        loop {
            self.pulse.beat();
            let server = self.identity.current();
            let mut longest = LONGEST_BEAT;
            match self.queue.beat(&server, self.in_hand.busy(), self.in_hand.workers(), &self.queues) {
                Ok(Ok(beat)) => {
                    complaint.over();
                    if self.in_hand.is_empty() && beat.in_progress == 0 && is_alone(&server, &beat) {
                        longest = LONGEST_IDLE_BEAT;
                    }
                    if beat.suspects_wait {
                        self.queue.unblock_fetchers();
                    }
                    if let Some(time) = beat.due_in {
                        self.scheduler.due_in(time);
                    }
                    for id in &beat.cancels {
                        self.in_hand.stop(*id, StopReason::Cancelled);
                    }
                    self.reap(&mut reaper, &beat);
                    self.recover(&mut lost, &beat);
                    if beat.is_watched {
                        self.tell(&server);
                    }
                    history.write_sometimes(&self.metrics, &self.queue);
                }
                Ok(Err(_)) => {
                    lost = Lost::default();
                    match self.identity.rejoin(&server, &self.queue, &self.in_hand) {
                        Ok(()) => continue,
                        Err(error) => complaint.log("cannot enter this server", &error),
                    }
                }
                // Who cannot look must not judge: while Redis was away nobody could beat.
                Err(error) => {
                    if let Error::Protocol(reason) = error {
                        complaint.log("cannot beat", &reason);
                    }
                    reaper.forget();
                }
            }
            if self.shutdown.wait((self.lease_timeout / 5).min(longest)) {
                history.write(&self.metrics, &self.queue);
                return;
            }
        }
    }

    /// Tells what the workers do. If it is lost, the next beat tells it again.
    fn tell(&self, server: &ServerId) {
        let activity = serde_json::to_string(&self.in_hand.activity());
        let _ = activity.map(|activity| self.queue.tell(server, &activity));
    }

    fn reap(&self, reaper: &mut Reaper, beat: &Beat) {
        let own = self.identity.current();
        for (server, observed) in reaper.dead(&beat.servers, own.as_str(), self.lease_timeout, Instant::now())
        {
            match self.queue.reclaim(&server, &observed, self.max_crashes) {
                Ok(Some(taken)) => {
                    self.metrics.recovered(taken.moved);
                    self.note_crash(&server, &taken);
                }
                Ok(None) => {}
                Err(error) => {
                    log::error!(server = server; "server={server}: cannot take over its jobs: {error}");
                }
            }
        }
    }

    /// Tells the log and the metrics what became of the jobs of a server that died.
    fn note_crash(&self, server: &str, taken: &Reclaimed) {
        let failed = taken.charged.iter().filter(|job| job.has_failed).count();
        log::warn!(
            server = server;
            "server={server}: dead; {} of its jobs taken over, {} charged with the crash, {failed} failed for it",
            taken.moved,
            taken.charged.len()
        );
        for Charged { id, kind, attempt, crashes, has_failed } in &taken.charged {
            let about = About::job(*id).of(kind, *attempt).on(server);
            if *has_failed {
                log_about!(
                    error,
                    about,
                    "failed for good: its server died {crashes} times while it was running"
                );
                self.metrics.failed(kind);
            } else {
                let limit = self.max_crashes;
                log_about!(warn, about, "its server died while it was running, crash {crashes} of {limit}");
            }
        }
    }

    /// Puts back what Redis has in progress here and nobody here knows of.
    fn recover(&self, lost: &mut Lost, beat: &Beat) {
        // What is in hand changes meanwhile, so that the comparison alone can fail for a while.
        lost.beats += 1;
        let suspicious = beat.in_progress > self.in_hand.len() || !lost.seen.is_empty();
        if !suspicious && (beat.in_progress == 0 || !lost.beats.is_multiple_of(LOST_LOOK)) {
            return;
        }
        let server = self.identity.current();
        let Ok(entries) = self.queue.in_progress_here(&server) else { return };
        let id = |entry: &[u8]| std::str::from_utf8(entry).ok()?.parse().ok();
        let known = |entry: &[u8]| id(entry).is_some_and(|id| self.in_hand.contains(id));
        let unknown: Vec<Vec<u8>> = entries.into_iter().filter(|entry| !known(entry)).collect();
        let entries = lost.for_long(unknown, Instant::now());
        if entries.is_empty() {
            return;
        }
        match self.queue.recover(&server, &entries) {
            Ok(moved) => {
                self.metrics.recovered(moved);
                log::warn!("{moved} jobs whose hand-over was lost went back to their queues");
            }
            Err(error) => log::error!("cannot put back lost jobs: {error}"),
        }
    }
}

/// Whether no other server is alive, as far as is known.
fn is_alone(server: &ServerId, beat: &Beat) -> bool {
    beat.servers.iter().all(|(other, beat)| other == server.as_str() || beat.starts_with('D'))
}

/// Watches the beats of all servers by this server's own clock.
#[derive(Default)]
struct Reaper {
    seen: HashMap<String, (String, Instant)>,
    looked: Option<Instant>,
}

impl Reaper {
    /// Starts all over: after a time without looks nothing is known of anybody.
    fn forget(&mut self) {
        self.seen.clear();
    }

    /// Servers whose beat stood still for too long, or that were declared dead before and still have jobs, each with
    /// the beat as it was seen.
    ///
    /// Only time in which this server kept looking counts: where it was itself stopped or starved for a while, the
    /// others may have been too (one machine that was suspended), and must have their chance to beat again.
    fn dead(
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
    seen: HashMap<Vec<u8>, Instant>,
    beats: u64,
}

impl Lost {
    /// Those of the unknown entries that were unknown for long.
    fn for_long(&mut self, unknown: Vec<Vec<u8>>, now: Instant) -> Vec<Vec<u8>> {
        self.seen.retain(|entry, _| unknown.contains(entry));
        for entry in &unknown {
            self.seen.entry(entry.clone()).or_insert(now);
        }
        unknown.into_iter().filter(|entry| now.duration_since(self.seen[entry]) >= LOST_AFTER).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    /// Looks of one server at the beats of others, one a second.
    struct Looks {
        reaper: Reaper,
        now: Instant,
    }

    impl Looks {
        fn new() -> Looks {
            Looks { reaper: Reaper::default(), now: Instant::now() }
        }

        /// Whom it holds to be dead, after so many seconds without a look.
        fn after(&mut self, seconds: u64, servers: &[(&str, &str)]) -> Vec<String> {
            self.now += Duration::from_secs(seconds);
            let servers: Vec<_> =
                servers.iter().map(|(id, beat)| (id.to_string(), beat.to_string())).collect();
            let dead = self.reaper.dead(&servers, "own", LEASE, self.now);
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
        looks.reaper.forget();
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
