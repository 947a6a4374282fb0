//! Why a job does not run yet.

use serde::Deserialize;
use serde_json::{Map, Value};

/// A reason why a job does not run yet, or what became of it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(from = "Map<String, Value>")]
#[non_exhaustive]
pub struct Reason {
    /// The reason as a word, such as `queue_paused`. The OpenAPI document lists the words; newer servers may have more.
    pub code: String,
    /// The reason as a sentence for people.
    pub sentence: String,
    /// The other fields of the reason, such as `at`.
    pub fields: Map<String, Value>,
}

impl From<Map<String, Value>> for Reason {
    fn from(mut fields: Map<String, Value>) -> Reason {
        let mut text = |name: &str| match fields.remove(name) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        Reason { code: text("code"), sentence: text("sentence"), fields }
    }
}

/// The response to GET /jobs/ID/why.
#[derive(Deserialize)]
pub(crate) struct Reasons {
    pub reasons: Vec<Reason>,
}
