//! /queues: lists, pauses and resumes queues.

use serde_json::{Value, json};

use crate::api::request::Request;
use crate::api::response::Response;
use crate::api::state::Api;
use crate::queue::{Error, QueueInfo};

impl Api {
    pub(super) fn queues(&self, _request: &Request) -> Result<Response, Response> {
        let queues: Vec<Value> = self.all_queues()?.iter().map(queue_json).collect();
        Ok(Response::json(200, &json!({ "queues": queues })))
    }

    /// All queues that exist, and all queues from which this server or a pull worker takes jobs.
    pub(super) fn all_queues(&self) -> Result<Vec<QueueInfo>, Error> {
        let own: Vec<&str> = self.settings.queues.iter().map(String::as_str).collect();
        self.queue.queues(&own)
    }

    pub(super) fn pause(&self, name: &str, _request: &Request) -> Result<Response, Response> {
        self.set_paused(name, true)
    }

    pub(super) fn resume(&self, name: &str, _request: &Request) -> Result<Response, Response> {
        self.set_paused(name, false)
    }

    fn set_paused(&self, name: &str, paused: bool) -> Result<Response, Response> {
        let has_jobs = self.queue.set_paused(name, paused)?;
        let queues = self.queue.queues(&[name])?;
        let queue = queues.iter().find(|queue| queue.name == name);
        let body = queue.map(|queue| {
            let mut body = queue_json(queue);
            // Nobody takes from the queue and it has no jobs: the name may be misspelt.
            if queue.servers == 0 && !queue.is_pulled && !has_jobs {
                body["known"] = json!(false);
            }
            body
        });
        Ok(Response::json(200, &body))
    }
}

pub(super) fn queue_json(queue: &QueueInfo) -> Value {
    let mut body = json!({
        "name": queue.name,
        "queued": queue.queued,
        "paused": queue.paused,
        "oldest_ms": queue.oldest_ms,
        "servers": queue.servers,
    });
    if queue.held > 0 {
        body["held"] = json!(queue.held);
    }
    if queue.strict {
        body["strict"] = json!(true);
    }
    if queue.is_pulled {
        body["pulled"] = json!(true);
    }
    body
}
