//! The name under which this server works, how it is entered in Redis, and how it gets a new one.
//!
//! A server that was held to be dead (it was frozen, or cut off) is fenced for good under its old name. It lets go of
//! what it has, takes a new name and goes on.
//!
//! Every thread may read the name. Only the heartbeat changes it, since it owns the [`Registrar`]: so no thread waits for
//! another one's call to Redis, and a name is entered only once.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::engine::in_flight::InFlight;
use crate::handler::StopReason;
use crate::queue::{Error, Queue, ServerId};
use crate::sync;

/// The server's current name, and whether Redis accepts its heartbeats.
pub struct Membership {
    state: Mutex<State>,
}

struct State {
    id: ServerId,
    /// When Redis last accepted a heartbeat under this name.
    accepted: Option<Instant>,
    /// Why it did not accept the last one, or could not be asked.
    refusal: Option<String>,
}

impl Membership {
    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    /// The name.
    pub fn current(&self) -> ServerId {
        self.state().id.clone()
    }

    /// How long ago Redis last accepted a heartbeat under the current name. `None`: none yet, so that this server cannot
    /// take jobs.
    pub fn heartbeat_age(&self) -> Option<Duration> {
        self.state().accepted.map(|at| at.elapsed())
    }

    /// Why the last heartbeat was not accepted, or why this server could not be entered in Redis. `None` if it was.
    pub fn refusal(&self) -> Option<String> {
        self.state().refusal.clone()
    }

    /// Whether no heartbeat was accepted or refused yet.
    pub(crate) fn is_new(&self) -> bool {
        let state = self.state();
        state.accepted.is_none() && state.refusal.is_none()
    }

    /// Whether this server is registered in Redis and its heartbeat goes on: the last one was accepted less than a lease
    /// ago.
    ///
    /// # Errors
    /// A sentence that says what is wrong, with the reason.
    pub fn check_heartbeat(&self, lease_timeout: Duration) -> Result<(), String> {
        let what = match self.heartbeat_age() {
            Some(age) if age < lease_timeout => return Ok(()),
            Some(age) => format!("the heartbeat of this server was last accepted {} s ago", age.as_secs()),
            None => "this server is not registered in Redis yet".to_owned(),
        };
        Err(match self.refusal() {
            Some(reason) => format!("{what}: {reason}"),
            None => what,
        })
    }

    /// Redis has accepted a heartbeat.
    pub(crate) fn was_accepted(&self) {
        let mut state = self.state();
        state.accepted = Some(Instant::now());
        state.refusal = None;
    }

    /// Redis has not accepted a heartbeat, or could not be asked.
    pub(crate) fn was_refused(&self, reason: &dyn Display) {
        self.state().refusal = Some(reason.to_string());
    }
}

/// The right to enter this server in Redis, and to change its name. There is one, and the heartbeat owns it.
pub struct Registrar {
    membership: Arc<Membership>,
    /// Whether the name may be known in Redis: a registration whose answer was lost counts too.
    is_used: bool,
    workers: usize,
    queues: Vec<String>,
}

impl Registrar {
    /// A new name, which is not entered in Redis yet, for a server with so many workers that takes from these queues.
    pub fn new(workers: usize, queues: Vec<String>) -> Registrar {
        let state = State { id: ServerId::generate(), accepted: None, refusal: None };
        let membership = Arc::new(Membership { state: Mutex::new(state) });
        Registrar { membership, is_used: false, workers, queues }
    }

    /// The name, as all threads see it.
    pub fn membership(&self) -> Arc<Membership> {
        self.membership.clone()
    }

    /// Enters the server in Redis, after it was refused there: at the first time under its name, later under a new one.
    ///
    /// # Errors
    /// As of the queue; [`Error::Unavailable`] for a Redis that is too old.
    pub fn join(&mut self, queue: &Queue, in_flight: &InFlight) -> Result<(), Error> {
        let info = queue.redis_info()?;
        if !info.is_supported() {
            let reason = format!("{} {} is too old: 7.0 or newer is needed", info.product, info.version);
            return Err(Error::Unavailable(reason));
        }
        let refused = self.membership.current();
        if self.is_used {
            // The answer to its registration was lost.
            if queue.is_registered(&refused)? {
                return Ok(());
            }
            let id = ServerId::generate();
            log::warn!(
                server = refused.as_str();
                "server={refused}: is not known in Redis any more (it was held to be dead, or Redis lost its data); \
                 lets go of its jobs and goes on as {id}"
            );
            in_flight.stop_all(StopReason::TakenOver);
            *self.membership.state() = State { id, accepted: None, refusal: None };
        }
        // Before the answer is known: a name that is entered a second time would no longer be fenced.
        self.is_used = true;
        queue.register(&self.membership.current(), self.workers, &self.queues)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_ready_from_its_first_beat_until_a_lease_without_one() {
        let membership = Registrar::new(1, Vec::new()).membership();
        let lease = Duration::from_secs(3600);
        assert!(membership.is_new());
        assert_eq!(
            membership.check_heartbeat(lease).unwrap_err(),
            "this server is not registered in Redis yet"
        );
        membership.was_refused(&"no right");
        let reason = "this server is not registered in Redis yet: no right";
        assert_eq!(membership.check_heartbeat(lease).unwrap_err(), reason);
        membership.was_accepted();
        assert_eq!(membership.check_heartbeat(lease), Ok(()));
        // One that fails is no harm within the lease.
        membership.was_refused(&"away");
        assert_eq!(membership.check_heartbeat(lease), Ok(()));
        let reason = "the heartbeat of this server was last accepted 0 s ago: away";
        assert_eq!(membership.check_heartbeat(Duration::ZERO).unwrap_err(), reason);
    }
}
