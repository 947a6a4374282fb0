//! What goes on beside the jobs' way, each on a thread of its own: heartbeat (with reaper and recovery), scheduler, janitor.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::handler::StopReason;
use crate::identity::Identity;
use crate::inhand::InHand;
use crate::metrics::Metrics;
use crate::queue::{BLOCK, Beat, Queue};
use crate::shutdown::Shutdown;

/// The longest time between two beats; often enough for a cancel to arrive soon.
const LONGEST_BEAT: Duration = Duration::from_secs(1);
/// How long an entry must stand unknown in this server's list before it counts as lost. Longer than a fetcher's answer
/// can be under way, which is its block time and 3 s.
const LOST_AFTER: Duration = BLOCK.saturating_add(Duration::from_secs(4));
/// The longest time that the scheduler sleeps.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// Between tries while Redis is away.
const AWAY_PAUSE: Duration = Duration::from_millis(500);

/// The heartbeat: says that this server lives, stops what someone cancelled, takes over what dead servers left, and
/// finds jobs whose hand-over was lost.
pub struct Heartbeat {
    /// Where the beats go.
    pub queue: Arc<Queue>,
    /// Under which name.
    pub identity: Arc<Identity>,
    /// What is stopped, and what is known.
    pub in_hand: Arc<InHand>,
    /// Counts recovered jobs.
    pub metrics: Arc<Metrics>,
    /// A server is dead when its beat stood still for so long.
    pub lease_timeout: Duration,
    /// How often a job may crash its server.
    pub max_crashes: u32,
    /// When to stop.
    pub shutdown: Shutdown,
}

impl Heartbeat {
    /// Beats until the end.
    pub fn run(&self) {
        let every = (self.lease_timeout / 5).min(LONGEST_BEAT);
        let mut reaper = Reaper::default();
        let mut lost = Lost::default();
        loop {
            let server = self.identity.current();
            match self.queue.beat(&server, self.in_hand.busy(), self.in_hand.workers()) {
                Ok(Ok(beat)) => {
                    for id in &beat.cancels {
                        self.in_hand.stop(*id, StopReason::Cancelled);
                    }
                    self.reap(&mut reaper, &beat);
                    self.recover(&mut lost, &beat);
                }
                Ok(Err(_)) => {
                    lost = Lost::default();
                    match self.identity.rejoin(&server, &self.queue, &self.in_hand) {
                        Ok(()) => continue,
                        Err(error) => log::error!("cannot enter this server: {error}"),
                    }
                }
                // Who cannot look must not judge: while Redis was away nobody could beat.
                Err(_) => reaper.forget(),
            }
            if self.shutdown.wait(every) {
                return;
            }
        }
    }

    fn reap(&self, reaper: &mut Reaper, beat: &Beat) {
        for (server, observed) in
            reaper.dead(&beat.servers, self.identity.current().as_str(), self.lease_timeout)
        {
            match self.queue.reclaim(&server, &observed, self.max_crashes) {
                Ok(Some(taken)) => {
                    self.metrics.recovered(taken.moved);
                    for kind in &taken.failed {
                        self.metrics.failed(kind);
                    }
                    log::warn!(
                        "server={server}: dead; {} of its jobs taken over, {} charged with the crash, {} failed for it",
                        taken.moved,
                        taken.charged,
                        taken.failed.len()
                    );
                }
                Ok(None) => {}
                Err(error) => log::error!("server={server}: cannot take over its jobs: {error}"),
            }
        }
    }

    /// Puts back what Redis has in progress here and nobody here knows of.
    fn recover(&self, lost: &mut Lost, beat: &Beat) {
        if beat.in_progress <= self.in_hand.len() && lost.seen.is_empty() {
            return;
        }
        let server = self.identity.current();
        let Ok(entries) = self.queue.in_progress_here(&server) else { return };
        let id = |entry: &[u8]| std::str::from_utf8(entry).ok()?.parse().ok();
        let known = |entry: &[u8]| id(entry).is_some_and(|id| self.in_hand.contains(id));
        let unknown: Vec<Vec<u8>> = entries.into_iter().filter(|entry| !known(entry)).collect();
        let entries = lost.for_long(unknown);
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

/// Watches the beats of all servers by this server's own clock.
#[derive(Default)]
struct Reaper {
    seen: HashMap<String, (String, Instant)>,
}

impl Reaper {
    /// Starts all over: after a time without looks nothing is known of anybody.
    fn forget(&mut self) {
        self.seen.clear();
    }

    /// Servers whose beat stood still for too long, or that were declared dead before and still have jobs, each with
    /// the beat as it was seen.
    fn dead(
        &mut self,
        servers: &[(String, String)],
        own: &str,
        lease_timeout: Duration,
    ) -> Vec<(String, String)> {
        let now = Instant::now();
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
}

impl Lost {
    /// Those of the unknown entries that were unknown for long.
    fn for_long(&mut self, unknown: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let now = Instant::now();
        self.seen.retain(|entry, _| unknown.contains(entry));
        for entry in &unknown {
            self.seen.entry(entry.clone()).or_insert(now);
        }
        unknown.into_iter().filter(|entry| now.duration_since(self.seen[entry]) >= LOST_AFTER).collect()
    }
}

/// Moves jobs whose time has come into their queues, and sleeps until the next one is due.
#[derive(Clone)]
pub struct Scheduler {
    alarm: Sender<()>,
    rung: Receiver<()>,
    /// When it will look again.
    next: Arc<Mutex<Instant>>,
}

impl Default for Scheduler {
    fn default() -> Scheduler {
        let (alarm, rung) = bounded(1);
        Scheduler { alarm, rung, next: Arc::new(Mutex::new(Instant::now())) }
    }
}

impl Scheduler {
    /// A job was parked that is due in so long: wakes the scheduler if it would sleep longer.
    pub fn due_in(&self, time: Duration) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let due = Instant::now() + time;
        if due < *next {
            *next = due;
            // A full alarm rings already.
            let _ = self.alarm.try_send(());
        }
    }

    /// Promotes until the end.
    pub fn run(&self, queue: &Queue, shutdown: &Shutdown) {
        loop {
            // Until it is known how long to sleep, whatever is parked must ring.
            self.plan(LONGEST_SLEEP * 1000);
            let sleep = match queue.promote() {
                // A millisecond more, so that what is due then is due by Redis's clock too.
                Ok((_, Some(due))) => (due + Duration::from_millis(1)).min(LONGEST_SLEEP),
                Ok((_, None)) => LONGEST_SLEEP,
                Err(_) => AWAY_PAUSE,
            };
            self.plan(sleep);
            if shutdown.wait_or(&self.rung, sleep) {
                return;
            }
        }
    }

    fn plan(&self, sleep: Duration) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + sleep;
    }
}

/// How long and how many finished jobs are kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Completed and cancelled ones.
    pub completed: (Duration, u64),
    /// Failed ones.
    pub failed: (Duration, u64),
}

/// Forgets finished jobs in small steps until the end.
pub fn run_janitor(queue: &Queue, retention: Retention, shutdown: &Shutdown) {
    let shortest = retention.completed.0.min(retention.failed.0);
    let every = (shortest / 4).clamp(Duration::from_secs(1), Duration::from_secs(10));
    while !shutdown.wait(every) {
        for (failed, (keep_for, keep)) in [(false, retention.completed), (true, retention.failed)] {
            while !shutdown.is_requested() && matches!(queue.purge(failed, keep_for, keep), Ok(true)) {}
        }
    }
}
