//! What the threads of the engine share.

use std::sync::Arc;

use crate::engine::due_timer::DueTimer;
use crate::engine::in_flight::InFlight;
use crate::engine::membership::Membership;
use crate::engine::metrics::Metrics;
use crate::queue::{Queue, ServerId};

/// One server's state, as every thread of its engine sees it. Clones share it.
#[derive(Clone)]
pub struct Shared {
    pub queue: Arc<Queue>,
    pub membership: Arc<Membership>,
    pub in_flight: Arc<InFlight>,
    pub metrics: Arc<Metrics>,
    /// Wakes the scheduler for a job that becomes due earlier than the scheduler expects.
    pub due_timer: DueTimer,
    /// The crash after which a job fails: the setting `max-crashes`.
    pub max_crashes: u32,
}

impl Shared {
    /// The current id of this server.
    pub fn server(&self) -> ServerId {
        self.membership.current()
    }
}
