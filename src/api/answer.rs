//! A request that has no response yet.

use std::sync::Arc;

use crate::api::response::Response;
use crate::api::state::Api;
use crate::gate::{CLIENT_HEADER, Handovers};

/// A request that has no response yet. If it is dropped without a response, the response is an error.
pub struct Answer {
    /// `None` once the response is sent.
    request: Option<tiny_http::Request>,
    api: Arc<Api>,
    handovers: Arc<Handovers>,
    /// The pattern of the request's path, for the metrics.
    pattern: &'static str,
}

impl Answer {
    pub fn new(
        request: tiny_http::Request,
        api: &Arc<Api>,
        handovers: &Arc<Handovers>,
        pattern: &'static str,
    ) -> Answer {
        Answer { request: Some(request), api: api.clone(), handovers: handovers.clone(), pattern }
    }

    /// Counts and sends the response.
    pub fn send(mut self, response: Response) {
        self.send_once(response);
    }

    fn send_once(&mut self, response: Response) {
        let Some(request) = self.request.take() else { return };
        self.api.metrics.answered(request.method().as_str(), self.pattern, response.status);
        let client = client_number(&request);
        let mut unsent = Some((request, response.into_tiny_http()));
        let is_delivered = client.is_some_and(|client| {
            self.handovers.deliver(client, || {
                unsent.take().map_or(Vec::new(), |(request, response)| print(request, response))
            })
        });
        if !is_delivered && let Some((request, response)) = unsent {
            let _ = request.respond(response);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.send_once(Response::error(500, "internal_error", "the server failed; see its log"));
    }
}

/// The bytes of the response. Ends the request: tiny_http sends nothing to the gate.
fn print(request: tiny_http::Request, response: tiny_http::Response<impl std::io::Read>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    // A write to memory does not fail.
    let _ = response.raw_print(&mut bytes, (1, 1).into(), request.headers(), false, None);
    drop(request.into_writer());
    bytes
}

/// The id that the gate gave the client connection of a request.
pub fn client_number(request: &tiny_http::Request) -> Option<u64> {
    let header = request.headers().iter().find(|header| header.field.equiv(CLIENT_HEADER))?;
    header.value.as_str().parse().ok()
}
