//! What the threads of the engine share.

use std::sync::Arc;

use crate::engine::due_timer::DueTimer;
use crate::engine::in_flight::InFlight;
use crate::engine::membership::Membership;
use crate::engine::metrics::Metrics;
use crate::job::Status;
use crate::queue::{Claimed, Error, Queue, ServerId};

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

    /// Finds a job of this queue that BRPOPLPUSH moved to this server's list while its reply was lost. The thread that waited
    /// for the reply does not have to wait for the reaper, since a take never starts a job twice.
    pub fn find_stranded(&self, queue: &str) -> Result<Option<Claimed>, Error> {
        // From the end of the list: the last entry was moved first.
        for entry in self.queue.in_progress_here(&self.server())?.into_iter().rev() {
            let id = std::str::from_utf8(&entry).ok().and_then(|id| id.parse().ok());
            let Some(id) = id.filter(|id| !self.in_flight.contains(*id)) else { continue };
            match self.queue.get(id) {
                Ok(Some(job)) if job.status == Status::Queued && job.queue == queue => {
                    return Ok(Some(Claimed { entry, queue: queue.to_owned() }));
                }
                Ok(_) | Err(Error::Protocol(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}
