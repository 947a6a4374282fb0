//! The state that the functions of the routes use.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::api::access::Access;
use crate::api::slots::Slots;
use crate::engine::due_timer::DueTimer;
use crate::engine::group_commit::GroupCommit;
use crate::engine::in_flight::InFlight;
use crate::engine::membership::Membership;
use crate::engine::metrics::Metrics;
use crate::engine::puller::Pullers;
use crate::handler::Handlers;
use crate::logging::once::LogOnce;
use crate::queue::Queue;

/// The settings of the API.
#[derive(Clone, Debug)]
pub struct Settings {
    pub access: Access,
    /// The longest request body, in bytes.
    pub max_body: usize,
    /// The most open connections.
    pub max_connections: usize,
    /// The most requests that wait at a time.
    pub max_waiting: usize,
    /// How old the last heartbeat of this server may be while it is ready.
    pub lease_timeout: Duration,
    /// The queues that this server takes jobs from.
    pub queues: Vec<String>,
    /// The number of worker threads that this server was started with.
    pub workers: usize,
}

/// The parts of the server that the API uses.
pub struct Api {
    pub queue: Arc<Queue>,
    /// Stores new jobs.
    pub group_commit: GroupCommit,
    /// Tells whether a job that is cancelled runs on this server.
    pub membership: Arc<Membership>,
    /// Stops running jobs.
    pub in_flight: Arc<InFlight>,
    /// Has the defaults of a job type.
    pub handlers: Arc<Handlers>,
    /// Is notified of new delayed jobs.
    pub due_timer: DueTimer,
    pub metrics: Arc<Metrics>,
    /// Gives jobs to pull workers.
    pub pullers: Arc<Pullers>,
    /// Says that a full Redis refuses the reports of pull workers.
    pub report_refusals: Mutex<LogOnce>,
    /// Limits the listings that are made at a time.
    pub listings: Slots,
    /// Limits the operations on many jobs at a time.
    pub bulk_slots: Slots,
    pub settings: Settings,
}
