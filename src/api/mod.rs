//! The HTTP API: turns a request into a change of the queue, and the result into a response.
//!
//! Behind the gate, tiny_http's threads hand whole requests to a few API threads (`api-N`). A request is checked for the
//! right to access the server, then for everything that its route allows, and then makes one call to the queue. The API
//! knows no thread of the engine; the only thing that it does to a running job is to request its stop.
//!
//! To add a route: add a row to the table in `routes`, a function, and an operation in `openapi.json`.
//!
//! * `backend`, `private_socket`: tiny_http, and the socket between the gate and it.
//! * `dispatch`: one request from tiny_http to its response. `answer`: a request that has no response yet.
//! * `access`: token, host and origin.
//! * `routes`: the table of routes. `openapi`: its description for clients.
//! * `request`, `query`, `body`: the checked parts of a request. `response`: a response, and the errors. `outcome`: what a
//!   function decides.
//! * `pull`, `attempts`: the functions of the routes of pull workers.
//! * `jobs`, `job_log`, `bulk`, `listing`, `dlq`, `queues`, `schedules`, `limits`, `stats`, `metrics`, `health`, `why`, `ui`: the functions of the
//!   routes.
//! * `parked`: requests that wait. `long_poll`: those that wait until a job ends or logs something.

mod access;
mod answer;
mod attempts;
mod backend;
mod body;
mod bulk;
mod dispatch;
mod dlq;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod health;
mod job_log;
mod jobs;
mod limits;
mod listing;
mod long_poll;
mod metrics;
mod openapi;
mod outcome;
mod parked;
mod private_socket;
mod pull;
mod query;
mod queues;
mod request;
mod response;
mod routes;
mod schedules;
mod slots;
mod state;
mod stats;
mod ui;
mod why;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

pub use crate::api::access::Access;
use crate::api::backend::{Backend, MAX_REQUESTS};
pub use crate::api::limits::checked_limit;
use crate::api::long_poll::LongPolls;
pub use crate::api::schedules::checked_schedule;
pub use crate::api::slots::Slots;
pub use crate::api::state::{Api, Settings};
use crate::gate::{ConnectionLimits, Gate, Handovers, Limits, Permits, Upstreams};

/// How long a stop waits for requests in progress.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// The running API.
pub struct Running {
    api: Arc<Api>,
    gate: Gate,
    backend: Arc<Backend>,
    long_polls: Arc<LongPolls>,
}

impl Running {
    /// The address on which the API listens.
    pub fn addr(&self) -> SocketAddr {
        self.gate.local_addr()
    }

    /// Accepts no more requests, and responds to the requests in progress within [`STOP_GRACE`].
    pub fn stop(&self) {
        self.long_polls.close();
        self.api.pullers.takers.close();
        self.gate.stop(STOP_GRACE);
        self.backend.stop();
    }
}

/// Starts the API on a bound listener.
///
/// # Errors
/// When the private socket cannot be made or a thread cannot be started.
pub fn start(api: Api, listener: TcpListener) -> io::Result<Running> {
    let wanted =
        ConnectionLimits { connections: api.settings.max_connections, parked: api.settings.max_waiting };
    let possible = ConnectionLimits::find(wanted, MAX_REQUESTS + Handovers::LIMIT);
    let limits = Limits {
        max_connections: possible.connections,
        max_body: api.settings.max_body,
        request_time: Duration::from_secs(10),
        idle_time: Duration::from_secs(60),
        // The memory for eight pages of a listing, or for at least four of the largest jobs.
        max_buffered: (32 << 20).max(4 * api.settings.max_body),
    };
    let api = Arc::new(api);
    let long_polls = Arc::new(LongPolls::new(possible.parked));
    let permits = Permits::new(MAX_REQUESTS);
    let handovers = Handovers::new(&["POST /jobs"]);
    let backend = Backend::new({
        let (api, long_polls, permits) = (api.clone(), long_polls.clone(), permits.clone());
        let handovers = handovers.clone();
        move |request, before_waiting| api.handle(request, &long_polls, &permits, &handovers, before_waiting)
    });
    let socket = backend.start()?;
    let upstreams = Upstreams::new(permits, socket, {
        let backend = backend.clone();
        move || backend.start()
    });
    std::thread::Builder::new().name("api-waits".to_owned()).spawn({
        let (api, long_polls) = (api.clone(), long_polls.clone());
        move || long_polls.run(&api)
    })?;
    Ok(Running { api, gate: Gate::start(listener, upstreams, handovers, limits)?, backend, long_polls })
}
