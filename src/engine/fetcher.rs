//! Fetchers: take jobs from Redis for the workers.
//!
//! The first fetcher of a queue blocks in BRPOPLPUSH while the queue is empty: a new job wakes it. Then it takes and
//! starts as many jobs as the capacity allows, from strict queues first and from the others by their weights, in one round
//! trip, until the queues are empty. A fetcher takes nothing while no worker is free, so that another server can run the jobs.
//!
//! Further fetchers of a queue (the setting `fetchers`) take as soon as a worker is free, while the round trip of
//! another fetcher is under way. While there is nothing to take, they wait without a command to Redis.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::engine::early_beat::EarlyBeat;
use crate::engine::outage_pause::{CHECK_INTERVAL, FULL_RETRY_INTERVAL, OutagePause};
use crate::engine::outcomes::Ended;
use crate::engine::shared::Shared;
use crate::engine::shutdown::Shutdown;
use crate::engine::take_permits::TakePermits;
use crate::logging::once::LogOnce;
use crate::queue::{BLOCK, Broken, Claimed, Error, Quarantine, Settlement, Verdict};

/// Redis can end BRPOPLPUSH this much before the timeout of the command, because Redis reads its clock once for many
/// commands.
const BLOCK_MARGIN: Duration = Duration::from_millis(100);

/// What all fetchers share.
pub struct Fetchers {
    pub shared: Shared,
    pub early_beat: EarlyBeat,
    /// Receives jobs whose record cannot be read: these jobs fail without running.
    pub committer: Sender<Ended>,
    pub take_permits: Arc<TakePermits>,
    pub shutdown: Shutdown,
}

/// The result of a take.
enum Take {
    /// The take started as many jobs as it asked for: the queues may have more.
    More,
    /// The take started fewer jobs: the queues are empty for now.
    Drained,
    /// The take started no job, and this fetcher's queue is paused.
    Paused,
    /// Redis does not know this server: the heartbeat thread must register the server.
    Refused,
}

impl Fetchers {
    /// The loop of the first fetcher of a queue, which waits for new jobs of the queue in BRPOPLPUSH.
    pub fn run(&self, queue: &str) {
        let Shared { in_flight, .. } = &self.shared;
        let mut pause = OutagePause::default();
        let mut log_once = LogOnce::default();
        let mut may_have_more = true;
        // The job that BRPOPLPUSH moved to this server's list. Kept through failures until a take has passed it to Redis.
        let mut claimed = None;
        // Whether BRPOPLPUSH may have moved a job while its reply was lost.
        let mut is_stranded = false;
        while in_flight.wait_for_capacity().is_some() {
            if is_stranded && claimed.is_none() {
                match self.shared.find_stranded(queue) {
                    Ok(found) => (is_stranded, claimed) = (found.is_some(), found),
                    Err(_) => {
                        self.shutdown.wait(pause.next());
                        continue;
                    }
                }
            }
            let take = if may_have_more || claimed.is_some() {
                self.take(queue, true, &mut claimed)
            } else {
                self.take_permits.hold(queue);
                let blocked = Instant::now();
                match self.shared.queue.wait_for_job(&self.shared.server(), queue) {
                    Ok(None) if blocked.elapsed() + BLOCK_MARGIN >= BLOCK => {
                        self.take_permits.release(queue);
                        Ok(Take::Drained)
                    }
                    // A reply without a job before the timeout: this fetcher was woken for jobs that BRPOPLPUSH does
                    // not see.
                    Ok(found) => {
                        claimed = found;
                        self.take(queue, true, &mut claimed)
                    }
                    Err(error) => {
                        is_stranded = matches!(error, Error::Unavailable(_));
                        // A stranded job is the first one of its queue: no other fetcher may overtake it.
                        if !is_stranded {
                            self.take_permits.release(queue);
                        }
                        Err(error)
                    }
                }
            };
            if take.is_err() && claimed.is_some() {
                // The claimed job is the first one of its queue: no other fetcher may overtake it.
                self.take_permits.hold(queue);
            }
            if !matches!(take, Err(_) | Ok(Take::Refused)) {
                pause = OutagePause::default();
            }
            // Redis can allow takes and refuse BRPOPLPUSH, or the reverse. This shows that both work.
            if matches!(take, Ok(Take::Drained)) && !may_have_more {
                log_once.recovered();
            }
            may_have_more = match take {
                Ok(Take::More) => true,
                Ok(Take::Drained) => false,
                Ok(Take::Paused) => {
                    self.shutdown.wait(CHECK_INTERVAL);
                    true
                }
                Ok(Take::Refused) => {
                    self.early_beat.refused();
                    self.shutdown.wait(pause.next());
                    true
                }
                // A full Redis refuses BRPOPLPUSH and still executes takes.
                Err(Error::Full) => {
                    self.shutdown.wait(FULL_RETRY_INTERVAL);
                    true
                }
                Err(error) => {
                    if let Error::Protocol(reason) = error {
                        log_once.log(&format!("queue={queue}: cannot take jobs"), &reason);
                    }
                    self.shutdown.wait(pause.next());
                    true
                }
            };
        }
    }

    /// The loop of a further fetcher of a queue.
    pub fn help(&self, queue: &str) {
        let mut pause = OutagePause::default();
        while self.take_permits.wait_for_more(queue) && self.shared.in_flight.wait_for_capacity().is_some() {
            match self.take(queue, false, &mut None) {
                Ok(Take::More | Take::Drained | Take::Paused) => pause = OutagePause::default(),
                // The first fetcher of the queue logs the reason and requests the registration.
                Ok(Take::Refused) | Err(_) => {
                    self.shutdown.wait(pause.next());
                }
            }
        }
    }

    /// Takes as many jobs as the capacity allows and passes them to the workers. Clears `claimed` once
    /// Redis has executed or fenced the call.
    fn take(&self, queue: &str, is_first: bool, claimed: &mut Option<Claimed>) -> Result<Take, Error> {
        let Shared { in_flight, metrics, max_crashes, .. } = &self.shared;
        let mut permit = self.take_permits.acquire(queue, is_first);
        let reservation = in_flight.reserve(claimed.is_some());
        let capacity = reservation.capacity();
        if capacity.jobs == 0 && claimed.is_none() {
            return Ok(Take::More);
        }
        let server = self.shared.server();
        let turns = permit.turns(capacity.jobs);
        let taken = self.shared.queue.start_jobs_in_turn(
            &server,
            &turns,
            capacity.quarantine,
            *max_crashes,
            claimed.as_ref(),
        );
        if matches!(taken, Ok(_) | Err(Error::Fenced)) {
            *claimed = None;
        }
        let taken = match taken {
            Err(Error::Fenced) => return Ok(Take::Refused),
            taken => taken?,
        };
        let number = taken.jobs.len() + taken.broken.len();
        // Quarantined jobs wake no fetcher. So a fetcher that met one takes again as soon as that job has ended.
        let mut met_quarantined = taken.must_drain || capacity.quarantine == Quarantine::Skip;
        for (_, job) in &taken.jobs {
            met_quarantined |= job.needs_quarantine(*max_crashes);
            metrics.started(job, taken.now_ms);
        }
        taken.next_look.into_iter().for_each(|time| self.shared.due_timer.due_in(time));
        taken.expired.iter().for_each(|(job_type, status)| metrics.expired(job_type, *status));
        permit.record_started(taken.jobs.iter().map(|(_, job)| job.queue.as_str()));
        in_flight.insert(taken.jobs.into_iter().map(|(lease, job)| (lease, Arc::new(job))), *max_crashes);
        for Broken { lease, job, reason } in taken.broken {
            in_flight.insert_broken(&lease, &Arc::new(job));
            let verdict = Verdict::Fail(reason);
            let _ = self.committer.send(Settlement { lease, verdict }.into());
        }
        if number > 0 {
            self.early_beat.job_taken();
        }
        in_flight.record_take(capacity, taken.must_drain);
        let is_full = number >= capacity.jobs || met_quarantined || taken.has_more;
        permit.record(is_full, &taken.paused);
        Ok(match taken.paused.iter().any(|paused| paused == queue) {
            true if number == 0 => Take::Paused,
            _ if is_full => Take::More,
            _ => Take::Drained,
        })
    }
}
