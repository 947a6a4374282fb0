//! The name under which this server works, and how it gets a new one.
//!
//! A server that was held to be dead (it was frozen, or cut off) is fenced for good under its old name. It lets go of
//! what it has, takes a new name and goes on.

use std::sync::{Mutex, PoisonError};

use crate::handler::StopReason;
use crate::inhand::InHand;
use crate::queue::{Error, Queue, Result, ServerId};

/// The server's current name.
pub struct Identity {
    state: Mutex<State>,
    workers: usize,
    queues: Vec<String>,
}

struct State {
    id: ServerId,
    /// Whether it may be known in Redis: a registration whose answer was lost counts too.
    used: bool,
}

impl Identity {
    /// A new name, which is not entered in Redis yet, for a server with so many workers that takes from these queues.
    pub fn new(workers: usize, queues: Vec<String>) -> Identity {
        Identity { state: Mutex::new(State { id: ServerId::generate(), used: false }), workers, queues }
    }

    /// The name.
    pub fn current(&self) -> ServerId {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).id.clone()
    }

    /// Enters the server in Redis, after it was refused there under the name `refused`: at the first time under that
    /// name, later under a new one. Several threads may notice a refusal; only the first one acts.
    pub fn rejoin(&self, refused: &ServerId, queue: &Queue, in_hand: &InHand) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.id != *refused {
            return Ok(());
        }
        let info = queue.redis_info()?;
        if !info.is_supported() {
            let reason = format!("{} {} is too old: 7.0 or newer is needed", info.product, info.version);
            return Err(Error::Unavailable(reason));
        }
        if state.used {
            // Asked before another thread has entered this very name: that one is right by now.
            if queue.is_entered(refused)? {
                return Ok(());
            }
            let id = ServerId::generate();
            log::warn!(
                server = refused.as_str();
                "server={refused}: is not known in Redis any more (it was held to be dead, or Redis lost its data); \
                 lets go of its jobs and goes on as {id}"
            );
            in_hand.stop_all(StopReason::TakenOver);
            state.id = id;
        }
        // Before the answer is known: a name that is entered a second time would no longer be fenced.
        state.used = true;
        queue.register(&state.id, self.workers, &self.queues)
    }
}
