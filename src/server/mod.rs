//! The server: [`Server::builder`] collects settings and handlers and starts the threads, [`Server::stop`] ends them in
//! order.
//!
//! | file | role |
//! | --- | --- |
//! | `builder` | the builder, and the handlers of the configuration |
//! | `check` | checks a configuration without starting anything |
//! | `start` | the steps of a start |
//! | `engine` | what the threads of the engine share, their channels, their start |
//! | `store` | connection to Redis, unsuitable versions, the private Redis |
//! | `stop` | the steps of a stop |

mod builder;
mod check;
mod engine;
mod error;
mod start;
mod stop;
mod store;

use std::io;
use std::net::SocketAddr;
use std::thread::{Builder as ThreadBuilder, JoinHandle};
use std::time::Duration;

use crate::api;
use crate::config::Config;
use crate::server::engine::Engine;
use crate::server::store::WatchedRedis;

pub use crate::engine::liveness::{Liveness, Unresponsive};
pub use crate::server::builder::Builder;
pub use crate::server::check::check;
pub use crate::server::error::StartError;

/// The warning of a server that can run no job.
const NO_HANDLERS: &str = "no handlers: every job will fail; add [handlers.TYPE] to the config file, or try threadq out with --demo";

/// A running server.
pub struct Server {
    api: api::Running,
    engine: Engine,
    drain_timeout: Duration,
    // Dropped last.
    private_redis: Option<WatchedRedis>,
}

impl Server {
    /// A builder with the default configuration and no handlers.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The address on which the API listens.
    pub fn addr(&self) -> SocketAddr {
        self.api.addr()
    }

    /// A check of this server from outside, for programs that report to a service manager. `threadq serve` reports its
    /// result to systemd.
    pub fn liveness(&self) -> Liveness {
        Liveness::new(self.engine.last_beat.clone(), self.addr())
    }
}

fn fetcher_count(config: &Config) -> usize {
    config.queues.len() * config.fetchers
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let spawned = ThreadBuilder::new().name(name.to_owned()).spawn(body);
    spawned
        .map_err(|error| io::Error::new(error.kind(), format!("cannot start the thread \"{name}\": {error}")))
}
