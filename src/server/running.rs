//! A running server: its address and its liveness.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::api;
use crate::engine::liveness::Liveness;
use crate::handler::Handlers;
use crate::server::engine::Engine;
use crate::server::store::{SentinelWatch, WatchedRedis};

/// A running server.
pub struct Server {
    pub(super) api: api::Running,
    pub(super) engine: Engine,
    pub(super) handlers: Arc<Handlers>,
    pub(super) drain_timeout: Duration,
    /// Dropped after the engine, which uses Redis until its end.
    pub(super) _sentinel_watch: Option<SentinelWatch>,
    // The last field, so that it is dropped last.
    pub(super) private_redis: Option<WatchedRedis>,
}

impl Server {
    /// The address on which the API listens.
    pub fn addr(&self) -> SocketAddr {
        self.api.addr()
    }

    /// A check of this server from outside, for programs that report to a service manager. `threadq serve` reports the
    /// result of the check to systemd.
    pub fn liveness(&self) -> Liveness {
        Liveness::new(self.engine.last_beat.clone(), self.addr())
    }
}
