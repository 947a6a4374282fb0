//! The limits of the gate, and how many connections the process's file descriptors allow.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The soft limit of file descriptors is raised to this, if the hard limit allows it.
const MAX_DESCRIPTORS: u64 = 65_536;
/// The fewest connections that are served, however few file descriptors there are.
const MIN_CONNECTIONS: usize = 8;

/// The limits that a gate enforces.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open client connections, see [`ConnectionLimits`]. Default 512.
    pub max_connections: usize,
    /// Length of a request body in bytes. Default 1 MiB.
    pub max_body: usize,
    /// Time in which a client must send a whole request, from its first byte to its last; and again time in which it
    /// must read the response, or each 1 MiB of a long one. Default 10 s.
    pub request_time: Duration,
    /// Time that a connection may be idle between two requests. Default 60 s.
    pub idle_time: Duration,
    /// Bytes of all buffered requests and responses together. The first 16 KiB of each are not counted. When a buffer
    /// needs more than is left, the client that has kept the server waiting longest is evicted. Default 32 MiB.
    pub max_buffered: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: 512,
            max_body: 1 << 20,
            request_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(60),
            max_buffered: 32 << 20,
        }
    }
}

/// How many connections and parked requests the limit of file descriptors allows.
///
/// tiny_http never accepts again once it finds no free descriptor. So some descriptors are reserved: three for each
/// connection to tiny_http (one in the gate, two in tiny_http), as many for each parked request, and some for the rest
/// of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionLimits {
    /// For [`Limits::max_connections`].
    pub connections: usize,
    /// How many requests may be [parked](crate::gate::Permits::park) at a time: at most half of the connections.
    pub parked: usize,
}

impl ConnectionLimits {
    /// The limits that fit the file descriptors of this process, at most `wanted`, beside `upstreams` requests that
    /// tiny_http handles at a time. Raises the soft limit of file descriptors as far as allowed.
    pub fn find(wanted: ConnectionLimits, upstreams: usize) -> ConnectionLimits {
        let descriptors = usize::try_from(raise_descriptor_limit()).unwrap_or(usize::MAX);
        ConnectionLimits::within(descriptors, wanted, upstreams)
    }

    fn within(descriptors: usize, wanted: ConnectionLimits, upstreams: usize) -> ConnectionLimits {
        const REST_OF_PROCESS: usize = 128;
        let for_parked = (3 * wanted.parked).min(descriptors / 4);
        let left = descriptors.saturating_sub(REST_OF_PROCESS + 3 * upstreams + for_parked);
        let connections = wanted.connections.min(left.max(MIN_CONNECTIONS));
        ConnectionLimits { connections, parked: (for_parked / 3).min(connections / 2) }
    }
}

/// Raises the soft limit of file descriptors to the hard one or [`MAX_DESCRIPTORS`]. Returns the limit in force.
fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(MAX_DESCRIPTORS);
    let wanted = limit.maximum.unwrap_or(MAX_DESCRIPTORS).min(MAX_DESCRIPTORS);
    if wanted <= current {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        Ok(()) => wanted,
        Err(_) => current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_reserved_for_parked_requests_and_the_rest_of_the_process() {
        let wanted = ConnectionLimits { connections: 512, parked: 100 };
        let within = |descriptors| ConnectionLimits::within(descriptors, wanted, 8);
        assert_eq!(within(65_536), wanted);
        assert_eq!(within(1024), ConnectionLimits { connections: 512, parked: 85 });
        assert_eq!(within(256), ConnectionLimits { connections: 40, parked: 20 });
        assert_eq!(within(64), ConnectionLimits { connections: 8, parked: 4 });
        let one = ConnectionLimits { connections: 1, parked: 100 };
        assert_eq!(ConnectionLimits::within(65_536, one, 8).connections, 1);
    }
}
