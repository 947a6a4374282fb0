//! Answers: a status, a body and a few headers; and how errors look.

use serde::Serialize;
use serde_json::json;

use crate::queue;

/// What a request gets.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// An answer, or the error that takes its place.
pub type Answer = Result<Reply, Reply>;

impl Reply {
    /// JSON.
    pub fn json(status: u16, body: &impl Serialize) -> Reply {
        Reply::large_json(status, body, 128)
    }

    /// JSON of about so many bytes. A large text that grew step by step would leave a hole in the heap when it is freed.
    pub fn large_json(status: u16, body: &impl Serialize, bytes: usize) -> Reply {
        let mut json = Vec::with_capacity(bytes);
        // Only a map with keys that are no strings could fail, and there is none.
        let _ = serde_json::to_writer(&mut json, body);
        Reply { status, content_type: "application/json", headers: Vec::new(), body: json }
    }

    /// A document that never changes.
    pub fn document(content_type: &'static str, text: &'static str) -> Reply {
        Reply { status: 200, content_type, headers: Vec::new(), body: text.into() }
    }

    /// No body.
    pub fn empty(status: u16) -> Reply {
        Reply { status, content_type: "application/json", headers: Vec::new(), body: Vec::new() }
    }

    /// An error: a sentence for a person and a word for a program.
    pub fn error(status: u16, code: &str, sentence: impl Into<String>) -> Reply {
        Reply::json(status, &json!({ "error": sentence.into(), "code": code }))
    }

    pub fn invalid_json(sentence: impl Into<String>) -> Reply {
        Reply::error(400, "invalid_json", sentence)
    }

    pub fn invalid_job(sentence: impl Into<String>) -> Reply {
        Reply::error(400, "invalid_job", sentence)
    }

    pub fn invalid_query(sentence: impl Into<String>) -> Reply {
        Reply::error(400, "invalid_query", sentence)
    }

    pub fn no_such_job() -> Reply {
        Reply::error(404, "not_found", "there is no job with this id")
    }

    pub fn duplicate(holder: crate::job::JobId) -> Reply {
        let error = "another job that has not ended holds this unique_key";
        Reply::json(409, &json!({ "error": error, "code": "duplicate", "job_id": holder }))
    }

    /// The same error with another sentence.
    pub fn with_sentence(mut self, sentence: &str) -> Reply {
        if let Ok(mut error) = serde_json::from_slice::<serde_json::Value>(&self.body) {
            error["error"] = sentence.into();
            self.body = error.to_string().into_bytes();
        }
        self
    }

    /// The same with a further header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }
}

impl From<queue::Error> for Reply {
    fn from(error: queue::Error) -> Reply {
        match error {
            queue::Error::Unavailable(_)
            | queue::Error::Fenced
            | queue::Error::Denied(_)
            | queue::Error::Busy(_)
            | queue::Error::Full => {
                Reply::error(503, "store_unavailable", error.to_string()).with("Retry-After", "1")
            }
            queue::Error::Protocol(_) => {
                log::error!("{error}");
                Reply::error(
                    500,
                    "internal_error",
                    "Redis gave an answer that was not understood; see the server's log",
                )
            }
        }
    }
}
