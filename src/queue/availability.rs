//! The availability of Redis, as the calls of all threads have met it. Each outage is logged once.
//!
//! Each connection has the number of a generation. After a fault the generation ends: all connections of an ended
//! generation are closed, since they may be dead or lead to a master that was demoted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::connection::NO_ANSWER;
use super::error::Error;
use super::master::Change;
use crate::sync;

/// While Redis is unavailable one call in this time tries it, and all others fail at once.
const PROBE_INTERVAL: Duration = Duration::from_millis(200);
/// After this time the submission that was let through has failed without a word about replicas.
const PROBE_LIMIT: Duration = Duration::from_secs(3);
/// The time between two log lines about the same missing right.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);
/// How many reasons of one outage the log has per [`REPEAT_INTERVAL`], and in all.
const MAX_REASONS_PER_INTERVAL: usize = 3;
const MAX_REASONS: usize = 20;
/// Redis tells the time since its start in whole seconds.
const UPTIME_UNIT: Duration = Duration::from_secs(1);
/// A refusal is over when Redis has refused no call for this long. Near `maxmemory`, or for a user who lacks one right,
/// Redis accepts and refuses calls by turns.
const CALM: Duration = Duration::from_secs(1);

/// What a call does, and so what its success shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// The call reads: Redis is available.
    Read,
    /// The call writes: Redis accepts writes.
    Write,
    /// The call needs memory for new data: Redis accepts writes and is not full.
    Add,
}

#[derive(Default)]
pub(super) struct Availability {
    generation: AtomicU64,
    /// How often another Redis took over.
    failovers: AtomicU64,
    state: Mutex<State>,
    connecting: Mutex<Connecting>,
}

/// The last attempts to connect.
#[derive(Default)]
struct Connecting {
    /// What the latest attempt to connect waits for.
    step: String,
    /// The error of the attempt that ended last; `None` if the attempt succeeded.
    error: Option<String>,
}

#[derive(Default)]
struct State {
    /// `None` while Redis is available.
    unavailable: Option<Outage>,
    /// The period in which Redis refuses writes.
    refusing: Option<Refusal>,
    /// The rights that the user of Redis lacks.
    missing_rights: Option<MissingRights>,
    /// The period in which Redis has reached its `maxmemory`.
    full: Option<Refusal>,
    replicas: Replicas,
    /// The time of the last attempt while Redis is unavailable.
    probed: Option<Instant>,
    /// The time of the last reply to any call.
    replied: Option<Instant>,
}

/// A period in which Redis does not answer.
struct Outage {
    since: Instant,
    /// The reason at the last attempt.
    reason: String,
    /// The reasons that the log has, with the times of their log lines.
    logged: Vec<(String, Instant)>,
}

impl Outage {
    fn new(reason: &str) -> Outage {
        let now = Instant::now();
        Outage { since: now, reason: reason.to_owned(), logged: vec![(reason.to_owned(), now)] }
    }

    /// Records the reason of another attempt. Returns whether the log should have this reason too.
    fn record(&mut self, reason: &str) -> bool {
        reason.clone_into(&mut self.reason);
        let recent = self.logged.iter().filter(|(_, at)| at.elapsed() < REPEAT_INTERVAL).count();
        if reason == NO_ANSWER
            || recent >= MAX_REASONS_PER_INTERVAL
            || self.logged.len() >= MAX_REASONS
            || self.logged.iter().any(|(known, _)| known == reason)
        {
            return false;
        }
        self.logged.push((reason.to_owned(), Instant::now()));
        true
    }
}

struct MissingRights {
    reason: String,
    since: Instant,
    /// The time of the last log line about these rights.
    logged: Instant,
}

/// Whether enough replicas have new jobs in time.
#[derive(Default)]
struct Replicas {
    /// The period in which fewer replicas have new jobs than wanted.
    too_few: Option<Refusal>,
    /// How many replicas had the last submission, if these were too few.
    have: Option<u32>,
    /// When a submission was let through that finds out whether enough replicas are back; `None` if none is under way.
    probed: Option<Instant>,
}

/// A period in which Redis refuses calls.
struct Refusal {
    since: Instant,
    last: Instant,
}

impl Refusal {
    /// Records a refused call. Returns whether the call is the first refused call of its period.
    fn record(refusal: &mut Option<Refusal>) -> bool {
        let now = Instant::now();
        let is_new = refusal.is_none();
        refusal.get_or_insert(Refusal { since: now, last: now }).last = now;
        is_new
    }

    /// Ends the period if no call was refused lately. Returns its length in s, once.
    fn end(refusal: &mut Option<Refusal>) -> Option<f64> {
        let ended = refusal.take_if(|refusal| refusal.last.elapsed() >= CALM)?;
        Some(ended.last.duration_since(ended.since).as_secs_f64())
    }
}

impl State {
    /// Records a reply of any kind.
    fn note_reply(&mut self) {
        self.replied = Some(Instant::now());
        if let Some(outage) = self.unavailable.take() {
            log::info!("Redis is available again after {:.1} s", outage.since.elapsed().as_secs_f64());
        }
    }
}

impl Availability {
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    pub(super) fn is_unavailable(&self) -> bool {
        self.state().unavailable.is_some()
    }

    pub(super) fn lacks_rights(&self) -> bool {
        self.state().missing_rights.is_some()
    }

    /// Whether a call may try Redis: always while Redis is available, otherwise one call per [`PROBE_INTERVAL`].
    ///
    /// # Errors
    /// Why Redis is unavailable.
    pub(super) fn may_attempt(&self) -> Result<(), Error> {
        let mut state = self.state();
        let Some(outage) = &state.unavailable else { return Ok(()) };
        if state.probed.is_some_and(|at| at.elapsed() < PROBE_INTERVAL) {
            return Err(Error::Unavailable(outage.reason.clone()));
        }
        state.probed = Some(Instant::now());
        Ok(())
    }

    /// Records that a call, which began at this time, could not reach Redis.
    pub(super) fn note_unavailable(&self, begun: Instant, reason: &str) {
        let mut state = self.state();
        // Another call got a reply meanwhile: this failure is out of date, or concerns only its connection.
        if state.replied.is_some_and(|at| at > begun) {
            return;
        }
        // Counted from the end of the attempt, which may have taken a second: the next caller need not try too.
        state.probed = Some(Instant::now());
        if let Some(outage) = &mut state.unavailable {
            // The reason may change, for example from a refused connection to a wrong password.
            if outage.record(reason) {
                log::error!("Redis is still unavailable, for another reason: {reason}");
            }
        } else {
            state.unavailable = Some(Outage::new(reason));
            self.end_generation();
            log::error!("Redis is unavailable: {reason}");
        }
    }

    /// Records that Redis has refused a write.
    pub(super) fn note_refused(&self, reason: &str) {
        let mut state = self.state();
        state.note_reply();
        if Refusal::record(&mut state.refusing) {
            self.end_generation();
            log::error!("Redis refuses writes: {reason}");
        }
    }

    /// Records that the user of Redis lacks a right. Logs the right at once, and again every [`REPEAT_INTERVAL`].
    pub(super) fn note_missing_rights(&self, reason: &str) {
        let mut state = self.state();
        state.note_reply();
        let now = Instant::now();
        let is_new = match &mut state.missing_rights {
            None => {
                state.missing_rights =
                    Some(MissingRights { reason: reason.to_owned(), since: now, logged: now });
                true
            }
            // A failed call names one right; the full check names all that are missing.
            Some(missing)
                if missing.reason.len() < reason.len() || missing.logged.elapsed() >= REPEAT_INTERVAL =>
            {
                missing.logged = now;
                reason.clone_into(&mut missing.reason);
                true
            }
            Some(_) => false,
        };
        if is_new {
            log::error!("Redis denies rights that jobs need: {reason}");
        }
    }

    /// Records that the user of Redis has all rights that jobs need.
    pub(super) fn note_all_rights(&self) {
        if let Some(missing) = self.state().missing_rights.take() {
            let seconds = missing.since.elapsed().as_secs_f64();
            log::info!("Redis grants all rights that jobs need again, after {seconds:.1} s");
        }
    }

    /// Records that Redis has refused a call because it has reached its `maxmemory`.
    pub(super) fn note_full(&self) {
        let mut state = self.state();
        state.note_reply();
        if Refusal::record(&mut state.full) {
            log::error!("Redis is full: new jobs are refused until it has room again");
        }
    }

    /// Records how many replicas had new jobs in time, and how many must have them.
    pub(super) fn note_replicas(&self, have: u32, wanted: u32) {
        let replicas = &mut self.state().replicas;
        replicas.probed = None;
        replicas.have = (have < wanted).then_some(have);
        if have < wanted {
            if Refusal::record(&mut replicas.too_few) {
                log::error!(
                    "new jobs are stored, but only {have} of {wanted} replicas have them: requests with jobs are answered \
                     with 503"
                );
            }
        } else if let Some(seconds) = Refusal::end(&mut replicas.too_few) {
            log::info!("{wanted} replicas have new jobs again after {seconds:.1} s");
        }
    }

    /// How many replicas had the last submission, if these were too few. Then one submission at a time waits for replicas,
    /// for which the result is `None`, and all others need not wait.
    pub(super) fn too_few_replicas(&self) -> Option<u32> {
        let replicas = &mut self.state().replicas;
        let have = replicas.have?;
        if replicas.probed.is_some_and(|at| at.elapsed() < PROBE_LIMIT) {
            return Some(have);
        }
        replicas.probed = Some(Instant::now());
        None
    }

    /// Records that a call succeeded on a connection of this generation.
    pub(super) fn note_success(&self, access: Access, generation: u64) {
        // A late reply on a connection from before an outage does not show that the outage is over.
        if generation != self.generation() {
            return;
        }
        let mut state = self.state();
        state.note_reply();
        if access != Access::Read
            && let Some(seconds) = Refusal::end(&mut state.refusing)
        {
            // Another connection may still lead to a master that was demoted, which would answer reads.
            self.end_generation();
            log::info!("Redis accepts writes again after {seconds:.1} s");
        }
        if access == Access::Add
            && let Some(seconds) = Refusal::end(&mut state.full)
        {
            log::info!("Redis has room again after {seconds:.1} s");
        }
    }

    /// Ends the generation: no connection that exists now is used again.
    pub(super) fn end_generation(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Records that a connection of this generation died during a call: older connections may be dead as well. Only the
    /// first call of a generation ends it, or the next calls would close fresh connections.
    pub(super) fn note_lost_connection(&self, generation: u64) {
        let _ =
            self.generation.compare_exchange(generation, generation + 1, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Records what a new connection shows of Redis, which `description` names. After a change the connections before
    /// it are closed, and the number of the generation of the new connection is returned.
    pub(super) fn note_change(
        &self,
        change: &Change,
        description: impl Fn() -> String,
        is_fixed: bool,
    ) -> Option<u64> {
        match change {
            Change::None => return None,
            // The URL says it.
            Change::First if is_fixed => return None,
            Change::First => {
                log::info!("Redis is at {}", description());
                return None;
            }
            Change::Other { is_elsewhere, uptime } => {
                let silence = self.state().replied.map(|at| at.elapsed());
                // A Redis that ran already when the last one still replied is another one.
                let ran_beside = matches!((uptime, silence), (Some(uptime), Some(silence)) if *uptime > silence + UPTIME_UNIT);
                if *is_elsewhere || ran_beside {
                    self.failovers.fetch_add(1, Ordering::Relaxed);
                    log::info!("Redis has moved to {}", description());
                } else {
                    // The log has the begin and the end of the outage.
                    log::debug!("Redis was restarted at {}", description());
                }
            }
        }
        self.end_generation();
        Some(self.generation())
    }

    /// How often another Redis took over.
    pub(super) fn failovers(&self) -> u64 {
        self.failovers.load(Ordering::Relaxed)
    }

    /// Records what an attempt to connect waits for now.
    pub(super) fn note_connecting(&self, step: &str) {
        step.clone_into(&mut sync::lock(&self.connecting).step);
    }

    /// Records the end of an attempt to connect.
    pub(super) fn note_connected(&self, error: Option<String>) {
        sync::lock(&self.connecting).error = error;
    }

    /// Why no connection can be made: the error of the last attempt, or what the first attempt still waits for.
    pub(super) fn why_no_connection(&self) -> String {
        let connecting = sync::lock(&self.connecting);
        connecting.error.as_ref().unwrap_or(&connecting.step).clone()
    }
}
