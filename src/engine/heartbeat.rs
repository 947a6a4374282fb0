//! The heartbeat: tells Redis that this server is alive, and registers the server there.
//!
//! The heartbeat has its own thread and makes one Redis call per beat, since other servers reclaim the jobs of a server
//! whose beat does not advance. The reply is passed on without waiting: dead servers to the reaper, the need for figures to
//! the thread `figures`, due times to the scheduler, cancels to the attempts. A busy thread gets the news of a later beat.

use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::engine::early_beat::EarlyBeat;
use crate::engine::liveness::LastBeat;
use crate::engine::membership::Registrar;
use crate::engine::recovery::{FailureDetector, Findings};
use crate::engine::shared::Shared;
use crate::engine::shutdown::Shutdown;
use crate::handler::StopReason;
use crate::logging::once::LogOnce;
use crate::queue::{Error, HeartbeatReply, ServerId};

/// The longest time between two beats of a busy server. The reply to a beat has the cancelled jobs, and a beat tells other
/// servers how many workers are busy here.
const BUSY_INTERVAL: Duration = Duration::from_secs(1);
/// The longest time between two beats while this server has no job. An idle server observes the beats of other servers up
/// to this interval late, so the jobs of a dead server are reclaimed within the lease and this interval.
const IDLE_INTERVAL: Duration = Duration::from_secs(3);
/// The time between attempts after a failed beat.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// A beat is due after this part of the lease, so that single lost beats do no harm.
const BEATS_PER_LEASE: u32 = 5;

pub struct Heartbeat {
    pub shared: Shared,
    pub registrar: Registrar,
    /// The queues from which this server takes.
    pub queues: Vec<String>,
    /// To the reaper. Full while the reaper is busy.
    pub reaper: Sender<Findings>,
    /// To the thread `figures`: whether a dashboard shows the activity of workers. Full while that thread is busy.
    pub figures: Sender<bool>,
    /// A server is dead when its beat has not advanced for this time.
    pub lease_timeout: Duration,
    pub early_beat: EarlyBeat,
    pub last_beat: LastBeat,
    pub shutdown: Shutdown,
}

impl Heartbeat {
    /// Runs until the last outcome of this server is stored.
    pub fn run(mut self) {
        let Shared { queue, membership, in_flight, .. } = self.shared.clone();
        let mut failure_detector = FailureDetector::default();
        let mut log_once = LogOnce::default();
        loop {
            self.last_beat.beat();
            let server = membership.current();
            match queue.heartbeat(&server, in_flight.busy(), in_flight.workers(), &self.queues) {
                Ok(beat) => {
                    log_once.recovered();
                    let is_new = membership.heartbeat_age().is_none();
                    membership.was_accepted();
                    if is_new {
                        // The scheduler stores the schedules of this server's file under the new id.
                        self.shared.due_timer.due_in(Duration::ZERO);
                    }
                    let interval = self.interval(&beat);
                    self.pass_on(server, beat, &mut failure_detector);
                    let lease_end = failure_detector.next_lease_end(self.lease_timeout, Instant::now());
                    let sleep = lease_end.map_or(interval, |time| time.min(interval));
                    if self.early_beat.sleep(sleep, &self.shutdown) {
                        return;
                    }
                    continue;
                }
                Err(Error::Fenced) => match self.registrar.join(&queue, &in_flight) {
                    Ok(()) => continue,
                    Err(error) => {
                        log_once.log("cannot register this server in Redis", &error);
                        membership.was_refused(&error);
                    }
                },
                Err(error) => {
                    membership.was_refused(&error);
                    if let Error::Protocol(reason) = error {
                        log_once.log("cannot send the heartbeat", &reason);
                    }
                }
            }
            // During an outage of Redis no server can send heartbeats, so the leases start again after it.
            failure_detector.reset();
            if self.shutdown.wait((self.lease_timeout / BEATS_PER_LEASE).min(RETRY_INTERVAL)) {
                return;
            }
        }
    }

    /// The time until the next regular beat.
    fn interval(&self, beat: &HeartbeatReply) -> Duration {
        let has_job = !self.shared.in_flight.is_empty() || beat.in_progress > 0 || beat.quarantine_waits;
        // may_idle() is asked last: it changes state, which must not happen while jobs run.
        let longest = if !has_job && self.early_beat.may_idle() { IDLE_INTERVAL } else { BUSY_INTERVAL };
        longest.min(self.lease_timeout / BEATS_PER_LEASE)
    }

    /// Gives each thread its part of the reply to a beat. Never waits.
    fn pass_on(&self, server: ServerId, beat: HeartbeatReply, failure_detector: &mut FailureDetector) {
        if let Some(time) = beat.due_in {
            self.shared.due_timer.due_in(time);
        }
        for id in &beat.cancels {
            self.shared.in_flight.stop(*id, StopReason::Cancelled);
        }
        let dead =
            failure_detector.dead_servers(&beat.servers, server.as_str(), self.lease_timeout, Instant::now());
        let findings =
            Findings { server, dead, in_progress: beat.in_progress, quarantine_waits: beat.quarantine_waits };
        let _ = self.reaper.try_send(findings);
        let _ = self.figures.try_send(beat.is_watched);
    }
}
