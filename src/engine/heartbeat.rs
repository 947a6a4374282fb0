//! The heartbeat: says that this server lives, brings back what the server should know, and enters the server in Redis.
//!
//! It is alone on its thread, and makes one call to Redis per beat: nothing else may delay the next beat, since a server
//! whose beats stand still loses its jobs to the others. What a beat brings back goes to other threads: the reaper takes
//! over dead servers, the reporter writes the figures. Where one of them is still busy it gets the news of a later beat.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::engine::in_flight::InFlight;
use crate::engine::liveness::LastBeat;
use crate::engine::membership::Registrar;
use crate::engine::reaper::{Deaths, Findings};
use crate::engine::scheduler::Scheduler;
use crate::engine::shutdown::Shutdown;
use crate::handler::StopReason;
use crate::logging::once::LogOnce;
use crate::queue::{Error, HeartbeatReply, Queue, ServerId};

/// The longest time between two beats; often enough for a cancel to arrive soon, and for others to see how many workers
/// are busy here.
const LONGEST_BEAT: Duration = Duration::from_secs(1);
/// The same while nothing runs here and no other server is there whose death could be missed. One that comes and dies at
/// once is taken over within this, the lease and a beat.
const LONGEST_IDLE_BEAT: Duration = Duration::from_secs(3);
/// Between tries after a beat that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Asks the heartbeat for a beat before its time. Clones ask the same heartbeat.
#[derive(Clone)]
pub struct EarlyBeat {
    ask: Sender<()>,
    asked: Receiver<()>,
    /// A job was taken since the last beat.
    has_taken: Arc<AtomicBool>,
    /// The heartbeat sleeps longer than [`LONGEST_BEAT`], because nothing happens here.
    is_idle: Arc<AtomicBool>,
}

impl Default for EarlyBeat {
    fn default() -> EarlyBeat {
        let (ask, asked) = bounded(1);
        EarlyBeat { ask, asked, has_taken: Arc::default(), is_idle: Arc::default() }
    }
}

impl EarlyBeat {
    /// A job was taken. Only a heartbeat that sleeps long beats at once: other servers learn within the usual time that
    /// this one is busy, and a stream of jobs does not cause more beats than usual.
    pub fn job_taken(&self) {
        self.has_taken.store(true, Ordering::SeqCst);
        if self.is_idle.swap(false, Ordering::SeqCst) {
            self.ask();
        }
    }

    /// Redis refused this server: only the heartbeat enters it again.
    pub fn refused(&self) {
        self.ask();
    }

    fn ask(&self) {
        // A full channel asks already.
        let _ = self.ask.try_send(());
    }

    /// Whether the heartbeat may sleep long now: no job was taken since it last asked this.
    fn may_idle(&self) -> bool {
        if self.has_taken.swap(false, Ordering::SeqCst) {
            return false;
        }
        // In this order: a job that is taken meanwhile finds one of both set.
        self.is_idle.store(true, Ordering::SeqCst);
        !self.has_taken.load(Ordering::SeqCst)
    }
}

/// The heartbeat of this server.
pub struct Heartbeat {
    /// Where the beats go.
    pub queue: Arc<Queue>,
    /// Under which name; only the heartbeat changes it.
    pub registrar: Registrar,
    /// What is stopped when someone cancels it, and what keeps the heartbeat from sleeping long.
    pub in_flight: Arc<InFlight>,
    /// The queues that this server takes from.
    pub queues: Vec<String>,
    /// Learns when a job is due that someone else has parked.
    pub scheduler: Scheduler,
    /// To the reaper; full while it is busy.
    pub reaper: Sender<Findings>,
    /// To the reporter: whether somebody looks at what workers do; full while it is busy.
    pub reporter: Sender<bool>,
    /// A server is dead when its beat stood still for so long.
    pub lease_timeout: Duration,
    /// Who asks for a beat before its time.
    pub early: EarlyBeat,
    /// Tells that it goes on.
    pub last_beat: LastBeat,
    /// When to stop.
    pub shutdown: Shutdown,
}

impl Heartbeat {
    /// Beats until the end.
    pub fn run(mut self) {
        let membership = self.registrar.membership();
        let mut deaths = Deaths::default();
        let mut log_once = LogOnce::default();
        loop {
            self.last_beat.beat();
            let server = membership.current();
            match self.queue.heartbeat(&server, self.in_flight.busy(), self.in_flight.workers(), &self.queues)
            {
                Ok(beat) => {
                    log_once.recovered();
                    membership.was_accepted();
                    let longest = self.longest_pause(&server, &beat);
                    self.pass_on(server, beat, &mut deaths);
                    if self.shutdown.wait_or(&self.early.asked, (self.lease_timeout / 5).min(longest)) {
                        return;
                    }
                    continue;
                }
                Err(Error::Fenced) => match self.registrar.join(&self.queue, &self.in_flight) {
                    Ok(()) => continue,
                    Err(error) => {
                        log_once.log("cannot enter this server", &error);
                        membership.was_refused(&error);
                    }
                },
                Err(error) => {
                    membership.was_refused(&error);
                    if let Error::Protocol(reason) = error {
                        log_once.log("cannot beat", &reason);
                    }
                }
            }
            // Who cannot look must not judge: while Redis was away nobody could beat.
            deaths.forget();
            if self.shutdown.wait((self.lease_timeout / 5).min(RETRY_PAUSE)) {
                return;
            }
        }
    }

    fn longest_pause(&self, server: &ServerId, beat: &HeartbeatReply) -> Duration {
        let is_quiet = self.in_flight.is_empty() && beat.in_progress == 0 && is_alone(server, beat);
        // The order matters: what may_idle() notes must not be noted while jobs run.
        if is_quiet && self.early.may_idle() { LONGEST_IDLE_BEAT } else { LONGEST_BEAT }
    }

    /// Gives each thread its part of what a beat has brought back. Nothing here waits.
    fn pass_on(&self, server: ServerId, beat: HeartbeatReply, deaths: &mut Deaths) {
        if let Some(time) = beat.due_in {
            self.scheduler.due_in(time);
        }
        for id in &beat.cancels {
            self.in_flight.stop(*id, StopReason::Cancelled);
        }
        let dead = deaths.among(&beat.servers, server.as_str(), self.lease_timeout, Instant::now());
        let findings =
            Findings { server, dead, in_progress: beat.in_progress, quarantine_waits: beat.quarantine_waits };
        let _ = self.reaper.try_send(findings);
        let _ = self.reporter.try_send(beat.is_watched);
    }
}

/// Whether no other server is alive, as far as is known.
fn is_alone(server: &ServerId, beat: &HeartbeatReply) -> bool {
    beat.servers.iter().all(|(other, beat)| other == server.as_str() || beat.starts_with('D'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_heartbeat_that_sleeps_long_is_woken_by_a_job() {
        let early = EarlyBeat::default();
        early.job_taken();
        assert!(early.asked.is_empty(), "it beats soon in any case");
        assert!(!early.may_idle(), "a job was taken since the last beat");
        assert!(early.may_idle());
        early.job_taken();
        early.job_taken();
        assert_eq!(early.asked.len(), 1);
        assert!(!early.may_idle());
    }

    #[test]
    fn a_refusal_is_told_at_once() {
        let early = EarlyBeat::default();
        early.refused();
        early.refused();
        assert_eq!(early.asked.len(), 1);
    }
}
