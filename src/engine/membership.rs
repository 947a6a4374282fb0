//! Membership: the id under which this server is registered in Redis, and whether Redis accepts its heartbeats.
//!
//! A server that missed its lease is fenced: Redis refuses its old id for ever. It stops its jobs, takes a new id and
//! registers again.
//!
//! Every thread reads the [`Membership`]. Only the heartbeat changes it, since it owns the [`Registrar`]: so no thread
//! waits for the Redis call of another one, and an id is registered only once.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::engine::in_flight::InFlight;
use crate::handler::StopReason;
use crate::queue::{Error, Queue, ServerFacts, ServerId};
use crate::sync;

/// The server's current id, and whether Redis accepts its heartbeats.
pub struct Membership {
    state: Mutex<State>,
}

struct State {
    id: ServerId,
    /// When Redis last accepted a heartbeat under this id.
    accepted: Option<Instant>,
    /// Why the last heartbeat or registration failed.
    refusal: Option<String>,
}

impl Membership {
    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    /// The current id.
    pub fn current(&self) -> ServerId {
        self.state().id.clone()
    }

    /// The time since Redis last accepted a heartbeat under the current id. `None` before the first one: until then
    /// this server cannot take jobs.
    pub fn heartbeat_age(&self) -> Option<Duration> {
        self.state().accepted.map(|at| at.elapsed())
    }

    /// Why the last heartbeat or registration failed; `None` after a success.
    pub fn refusal(&self) -> Option<String> {
        self.state().refusal.clone()
    }

    /// Whether no heartbeat was accepted or refused yet.
    pub(crate) fn is_new(&self) -> bool {
        let state = self.state();
        state.accepted.is_none() && state.refusal.is_none()
    }

    /// Whether this server is registered in Redis, and Redis accepted a heartbeat less than a lease ago.
    ///
    /// # Errors
    /// A sentence that says what is wrong, with the reason.
    pub fn check_heartbeat(&self, lease_timeout: Duration) -> Result<(), String> {
        let problem = match self.heartbeat_age() {
            Some(age) if age < lease_timeout => return Ok(()),
            Some(age) => format!("Redis last accepted a heartbeat of this server {} s ago", age.as_secs()),
            None => "this server is not registered in Redis yet".to_owned(),
        };
        Err(match self.refusal() {
            Some(reason) => format!("{problem}: {reason}"),
            None => problem,
        })
    }

    /// Records that Redis has accepted a heartbeat.
    pub(crate) fn was_accepted(&self) {
        let mut state = self.state();
        state.accepted = Some(Instant::now());
        state.refusal = None;
    }

    /// Records why a heartbeat or a registration has failed.
    pub(crate) fn was_refused(&self, reason: &dyn Display) {
        self.state().refusal = Some(reason.to_string());
    }
}

/// The right to register this server in Redis, and to change its id. The heartbeat owns the only one.
pub struct Registrar {
    membership: Arc<Membership>,
    /// Whether Redis may know the id: a registration whose reply was lost counts too.
    is_used: bool,
    facts: ServerFacts,
}

impl Registrar {
    /// A new id, not registered yet, of a server with these facts.
    pub fn new(facts: ServerFacts) -> Registrar {
        let state = State { id: ServerId::generate(), accepted: None, refusal: None };
        let membership = Arc::new(Membership { state: Mutex::new(state) });
        Registrar { membership, is_used: false, facts }
    }

    /// The membership that this registrar changes.
    pub fn membership(&self) -> Arc<Membership> {
        self.membership.clone()
    }

    /// Registers the server after Redis has refused a heartbeat. The first registration uses the first id, a later one
    /// a new id, and stops all jobs of the old one.
    ///
    /// # Errors
    /// As of the queue; [`Error::Unavailable`] for a Redis that is too old.
    pub fn join(&mut self, queue: &Queue, in_flight: &InFlight) -> Result<(), Error> {
        let info = queue.redis_info()?;
        if !info.is_supported() {
            let reason = format!("{} {} is too old; allowed: 7.0 or newer", info.product, info.version);
            return Err(Error::Unavailable(reason));
        }
        let refused = self.membership.current();
        if self.is_used {
            // A registration was executed and its reply was lost.
            if queue.is_registered(&refused)? {
                return Ok(());
            }
            let id = ServerId::generate();
            log::warn!(
                server = refused.as_str();
                "server={refused}: fenced (it missed its lease, or Redis lost data); stopping its jobs and registering as \
                 {id}"
            );
            in_flight.stop_all(StopReason::Reclaimed);
            // A Redis that has lost data has no key of the attempt tokens, or gets a new one.
            queue.forget_secret();
            *self.membership.state() = State { id, accepted: None, refusal: None };
        }
        // Before the reply is known: registering the same id a second time would lift its fence.
        self.is_used = true;
        queue.register(&self.membership.current(), &self.facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_ready_from_its_first_heartbeat_until_a_lease_without_one() {
        let membership = Registrar::new(ServerFacts::new(1, &[])).membership();
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
        // A failed heartbeat does no harm within the lease.
        membership.was_refused(&"away");
        assert_eq!(membership.check_heartbeat(lease), Ok(()));
        let reason = "Redis last accepted a heartbeat of this server 0 s ago: away";
        assert_eq!(membership.check_heartbeat(Duration::ZERO).unwrap_err(), reason);
    }
}
