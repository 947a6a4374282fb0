//! Responses: a status, a few headers and a body; and the shape of errors.

use std::io;

use serde::Serialize;
use serde_json::json;

use crate::job::JobId;
use crate::queue;

/// The response to a request.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(status: u16, body: &impl Serialize) -> Response {
        Response::large_json(status, body, 128)
    }

    /// JSON of about `bytes` bytes. Without that estimate a large text grows step by step, and leaves a hole in the heap
    /// when it is freed.
    pub fn large_json(status: u16, body: &impl Serialize, bytes: usize) -> Response {
        let mut json = Vec::with_capacity(bytes);
        // Fails only for a map whose keys are not strings; no response has one.
        let _ = serde_json::to_writer(&mut json, body);
        Response { status, content_type: "application/json", headers: Vec::new(), body: json }
    }

    /// A document that never changes.
    pub fn document(content_type: &'static str, text: &str) -> Response {
        Response { status: 200, content_type, headers: Vec::new(), body: text.into() }
    }

    pub fn empty(status: u16) -> Response {
        Response { status, content_type: "application/json", headers: Vec::new(), body: Vec::new() }
    }

    /// An error: a sentence for people and a code for programs.
    pub fn error(status: u16, code: &str, sentence: impl Into<String>) -> Response {
        Response::json(status, &json!({ "error": sentence.into(), "code": code }))
    }

    pub fn invalid_json(sentence: impl Into<String>) -> Response {
        Response::error(400, "invalid_json", sentence)
    }

    pub fn invalid_job(sentence: impl Into<String>) -> Response {
        Response::error(400, "invalid_job", sentence)
    }

    pub fn invalid_query(sentence: impl Into<String>) -> Response {
        Response::error(400, "invalid_query", sentence)
    }

    pub fn no_such_job() -> Response {
        Response::error(404, "not_found", "there is no job with this id")
    }

    pub fn too_many_waiting() -> Response {
        let sentence = "too many requests wait for jobs; retry later, or without waiting";
        Response::error(503, "too_many_waiting", sentence).with("Retry-After", "1")
    }

    pub fn duplicate(holder: JobId) -> Response {
        let error = "another job holds this unique key";
        Response::json(409, &json!({ "error": error, "code": "duplicate", "job_id": holder }))
    }

    /// The same error with another sentence.
    pub fn with_sentence(mut self, sentence: &str) -> Response {
        if let Ok(mut error) = serde_json::from_slice::<serde_json::Value>(&self.body) {
            error["error"] = sentence.into();
            self.body = error.to_string().into_bytes();
        }
        self
    }

    /// The same response with a further header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.push((name, value.into()));
        self
    }

    /// Sends the response to the gate. The gate handles a client that does not read the response.
    pub fn send(self, request: tiny_http::Request) {
        let _ = request.respond(self.into_tiny_http());
    }

    /// The response as tiny_http prints it.
    pub fn into_tiny_http(self) -> tiny_http::Response<io::Cursor<Vec<u8>>> {
        let Response { status, content_type, headers, body } = self;
        let headers = headers.iter().map(|(name, value)| (*name, value.as_str())).chain([
            ("Content-Type", content_type),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ]);
        // Names and values are made by this crate, so every header is valid.
        let headers =
            headers.filter_map(|(name, value)| tiny_http::Header::from_bytes(name, value).ok()).collect();
        let length = body.len();
        tiny_http::Response::new(status.into(), headers, io::Cursor::new(body), Some(length), None)
            .with_chunked_threshold(usize::MAX)
    }
}

impl From<queue::Error> for Response {
    fn from(error: queue::Error) -> Response {
        match error {
            queue::Error::Unavailable(_)
            | queue::Error::Fenced
            | queue::Error::Denied(_)
            | queue::Error::Busy(_)
            | queue::Error::Full => {
                Response::error(503, "store_unavailable", error.to_string()).with("Retry-After", "1")
            }
            queue::Error::NotReplicated { .. } => {
                Response::error(503, "not_replicated", error.to_string()).with("Retry-After", "1")
            }
            queue::Error::Protocol(_) => {
                log::error!("{error}");
                Response::error(500, "internal_error", "unexpected reply from Redis; see the server's log")
            }
        }
    }
}
