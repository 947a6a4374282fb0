//! GET /healthz and /readyz.

use serde_json::json;

use crate::api::request::Request;
use crate::api::response::Response;
use crate::api::state::Api;

impl Api {
    /// Responds 200 always: the process is alive.
    pub(super) fn health(&self, _request: &Request) -> Result<Response, Response> {
        Ok(Response::json(200, &json!({ "status": "ok" })))
    }

    /// Responds 200 if jobs can be submitted and taken. Only a client that may access the server gets the reason if not.
    pub(super) fn readiness(&self, request: &Request) -> Result<Response, Response> {
        self.check_ready().map_err(|error| {
            if self.settings.access.has_token(request.headers) {
                return error;
            }
            error.with_sentence(
                "not ready; the log says why, as does this response to a request with the token",
            )
        })?;
        Ok(Response::json(200, &json!({ "status": "ready" })))
    }

    fn check_ready(&self) -> Result<(), Response> {
        self.queue.check_ready()?;
        if let Err(reason) = self.membership.check_heartbeat(self.settings.lease_timeout) {
            return Err(Response::error(503, "not_registered", reason).with("Retry-After", "1"));
        }
        if self.settings.workers > 0 && self.in_flight.workers() == 0 {
            let sentence = "no worker thread is left: every one hangs in a handler that does not return";
            return Err(Response::error(503, "no_workers", sentence).with("Retry-After", "10"));
        }
        Ok(())
    }
}
