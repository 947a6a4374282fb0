//! The body of POST /pull.

use std::time::Duration;

use super::attempt::lease;
use super::fields::{Fields, Invalid, json};
use crate::api::response::Response;
use crate::job::rules::{QUEUE_NAME, WORKER_NAME};
use crate::queue::PullRequest;

/// The most queues of a request.
const MAX_QUEUES: usize = 16;
/// The most jobs of a response.
const MAX_JOBS: u64 = 100;
/// The longest time in ms that a request may wait for jobs.
const MAX_WAIT_MS: u64 = 60_000;

/// The body of POST /pull.
#[derive(Debug)]
pub struct Pull {
    pub request: PullRequest,
    /// How long the request waits for jobs.
    pub wait: Duration,
}

/// # Errors
/// `invalid_pull`, with a sentence that names the field.
pub fn pull(body: &[u8]) -> Result<Pull, Response> {
    read(body).map_err(|invalid| match invalid {
        Invalid::Field(sentence) => Response::error(400, "invalid_pull", sentence),
        invalid => invalid.into(),
    })
}

fn read(body: &[u8]) -> Result<Pull, Invalid> {
    const FIELDS: [&str; 5] = ["queues", "max", "wait_ms", "lease_ms", "worker"];
    let fields = Fields::of(json(body)?, String::new(), &FIELDS)?;
    let wanted = format!("an array of 1 to {MAX_QUEUES} names of queues, each {}", QUEUE_NAME.allowed);
    let are_names = |queues: &Vec<String>| {
        (1..=MAX_QUEUES).contains(&queues.len()) && queues.iter().all(|queue| QUEUE_NAME.accepts(queue))
    };
    let queues = fields.get("queues", &wanted, are_names)?;
    let request = PullRequest {
        queues: queues.ok_or_else(|| Invalid::field("queues is missing"))?,
        max: fields.number("max", 1..=MAX_JOBS)?.unwrap_or(1) as u32,
        lease: lease(&fields)?,
        worker: fields.text("worker", &WORKER_NAME)?,
    };
    let wait_ms = fields.number("wait_ms", 0..=MAX_WAIT_MS)?.unwrap_or(0);
    Ok(Pull { request, wait: Duration::from_millis(wait_ms) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_queues_and_defaults() {
        let all = br#"{"queues": ["a", "b"], "max": 100, "wait_ms": 60000, "lease_ms": 1000, "worker": "host-1_a.b"}"#;
        let Pull { request, wait } = pull(all).unwrap();
        assert_eq!((request.queues.len(), request.max, wait), (2, 100, Duration::from_secs(60)));
        assert_eq!(
            (request.lease, request.worker.as_deref()),
            (Some(Duration::from_secs(1)), Some("host-1_a.b"))
        );
        let Pull { request, wait } = pull(br#"{"queues": ["a"]}"#).unwrap();
        assert_eq!((request.max, request.lease, request.worker, wait), (1, None, None, Duration::ZERO));
    }

    #[test]
    fn an_error_names_the_field() {
        let many: Vec<String> = (0..17).map(|number| format!("\"q{number}\"")).collect();
        let many = format!(r#"{{"queues": [{}]}}"#, many.join(","));
        for (body, sentence) in [
            ("[]", "the body must be an object"),
            ("{}", "queues is missing"),
            (r#"{"queues": []}"#, "queues must be an array of 1 to 16 names"),
            (r#"{"queues": "a"}"#, "queues must be an array of 1 to 16 names"),
            (r#"{"queues": ["a b"]}"#, "queues must be an array of 1 to 16 names"),
            (&many, "queues must be an array of 1 to 16 names"),
            (r#"{"queues": ["a"], "max": 0}"#, "max must be a whole number from 1 to 100"),
            (r#"{"queues": ["a"], "max": 101}"#, "max must be a whole number from 1 to 100"),
            (r#"{"queues": ["a"], "wait_ms": 60001}"#, "wait_ms must be a whole number from 0 to 60000"),
            (
                r#"{"queues": ["a"], "lease_ms": 999}"#,
                "lease_ms must be a whole number from 1000 to 86400000",
            ),
            (r#"{"queues": ["a"], "worker": ""}"#, "worker must be a string of 1 to 64 of "),
            (r#"{"queues": ["a"], "worker": "a b"}"#, "worker must be a string of 1 to 64 of "),
            (r#"{"queues": ["a"], "types": []}"#, "unknown field \"types\"; allowed: queues, max, "),
            (r#"{"queues": ["a"], "max": 1, "max": 1}"#, "max is given twice"),
        ] {
            let error: serde_json::Value =
                serde_json::from_slice(&pull(body.as_bytes()).unwrap_err().body).unwrap();
            assert_eq!(error["code"], "invalid_pull", "{body}");
            assert!(error["error"].as_str().unwrap().starts_with(sentence), "{body}: {error}");
        }
    }
}
