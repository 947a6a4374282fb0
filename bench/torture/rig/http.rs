//! An HTTP client for any of the servers.

#![allow(dead_code)] // the bench of upgrades uses only a part

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;

/// A little more than the 3 s within which the API must respond.
const LIMIT: Duration = Duration::from_millis(3_500);

/// An HTTP client; each thread has its own.
pub struct Http {
    agent: Agent,
}

/// A response.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; null if it is not JSON.
    pub body: Value,
}

impl Http {
    pub fn new() -> Http {
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(LIMIT)).build();
        Http { agent: config.into() }
    }

    pub fn get(&self, server: SocketAddr, path: &str) -> Result<Answer, String> {
        read(self.agent.get(format!("http://{server}{path}")).call())
    }

    /// Sends a POST. An empty `key` or `body` is left out.
    pub fn post(&self, server: SocketAddr, path: &str, key: &str, body: &str) -> Result<Answer, String> {
        let request = self.agent.post(format!("http://{server}{path}"));
        let request = if key.is_empty() { request } else { request.header("Idempotency-Key", key) };
        if body.is_empty() {
            return read(request.send_empty());
        }
        read(request.content_type("application/json").send(body))
    }
}

fn read(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Answer, String> {
    let mut response = response.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let body = response.body_mut().read_to_string().map_err(|error| error.to_string())?;
    Ok(Answer { status, body: serde_json::from_str(&body).unwrap_or_default() })
}
