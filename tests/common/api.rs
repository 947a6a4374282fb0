//! A client of the HTTP API with the calls that tests need.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::http::{self, Reply};
use super::wait::{LIMIT, eventually};

/// All statuses of a job.
pub const STATUSES: [&str; 7] =
    ["scheduled", "queued", "processing", "retrying", "completed", "failed", "cancelled"];

/// The API of one server.
#[derive(Clone, Debug)]
pub struct Api {
    pub addr: SocketAddr,
    pub token: Option<String>,
}

impl Api {
    pub fn new(addr: SocketAddr) -> Api {
        Api { addr, token: None }
    }

    pub fn with_token(&self, token: &str) -> Api {
        Api { addr: self.addr, token: Some(token.to_owned()) }
    }

    pub fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> io::Result<Reply> {
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut all = headers.to_vec();
        if let Some(bearer) = &bearer {
            all.push(("Authorization", bearer));
        }
        http::request(self.addr, method, path, &all, body)
    }

    #[track_caller]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Reply {
        self.try_request(method, path, headers, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[], None)
    }

    #[track_caller]
    pub fn delete(&self, path: &str) -> Reply {
        self.request("DELETE", path, &[], None)
    }

    /// A POST without a body.
    #[track_caller]
    pub fn act(&self, path: &str) -> Reply {
        self.request("POST", path, &[], Some(b""))
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_text(path, &body.to_string())
    }

    #[track_caller]
    pub fn post_text(&self, path: &str, body: &str) -> Reply {
        self.request("POST", path, &[("Content-Type", "application/json")], Some(body.as_bytes()))
    }

    #[track_caller]
    pub fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        let mut all = vec![("Content-Type", "application/json")];
        all.extend_from_slice(headers);
        self.request("POST", path, &all, Some(body.to_string().as_bytes()))
    }

    pub fn try_post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> io::Result<Reply> {
        let mut all = vec![("Content-Type", "application/json")];
        all.extend_from_slice(headers);
        self.try_request("POST", path, &all, Some(body.to_string().as_bytes()))
    }

    /// Submits a job and returns its id.
    #[track_caller]
    pub fn submit(&self, kind: &str, payload: Value) -> u64 {
        self.submit_job(json!({"type": kind, "payload": payload}))
    }

    /// Submits a job with this body of POST /jobs and returns its id.
    #[track_caller]
    pub fn submit_job(&self, body: Value) -> u64 {
        let reply = self.post("/jobs", &body);
        assert_eq!(reply.status, 202, "{body}: {}", reply.text());
        reply.json()["job_id"].as_u64().expect("job_id is a number")
    }

    #[track_caller]
    pub fn submit_batch(&self, jobs: &[Value]) -> Vec<u64> {
        let mut ids = Vec::new();
        for part in jobs.chunks(1000) {
            let reply = self.post("/jobs/batch", &json!({"jobs": part}));
            assert_eq!(reply.status, 202, "{}", reply.text());
            let answer = reply.json();
            let part_ids = answer["job_ids"].as_array().expect("job_ids");
            assert_eq!(part_ids.len(), part.len(), "{answer}");
            ids.extend(part_ids.iter().map(|id| id.as_u64().expect("a number")));
        }
        ids
    }

    #[track_caller]
    pub fn job(&self, id: u64) -> Value {
        self.get(&format!("/jobs/{id}")).expect(200).json()
    }

    /// Waits until the job has this status; fails at once if it has ended in another way.
    #[track_caller]
    pub fn wait_for_status(&self, id: u64, status: &str) -> Value {
        let job = self
            .wait_for(id, LIMIT, &format!("status {status}"), |job| job["status"] == status || is_final(job));
        assert_eq!(job["status"], status, "{}", show(&job));
        job
    }

    /// Waits until the job is completed, failed or cancelled.
    #[track_caller]
    pub fn wait_for_end(&self, id: u64) -> Value {
        self.wait_for(id, LIMIT, "an end", is_final)
    }

    #[track_caller]
    pub fn wait_for(&self, id: u64, limit: Duration, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let begin = std::time::Instant::now();
        loop {
            let job = self.job(id);
            if done(&job) {
                return job;
            }
            assert!(begin.elapsed() < limit, "job {id} has not {what} within {limit:?}: {}", show(&job));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Submits a job, waits until it is completed, and returns it.
    #[track_caller]
    pub fn complete(&self, kind: &str, payload: Value) -> Value {
        let id = self.submit(kind, payload);
        self.wait_for_status(id, "completed")
    }

    /// The number of jobs in each status, as /stats returns it.
    #[track_caller]
    pub fn counts(&self) -> Value {
        self.get("/stats").expect(200).json()["counts"].clone()
    }

    #[track_caller]
    pub fn count(&self, status: &str) -> u64 {
        let counts = self.counts();
        counts[status].as_u64().unwrap_or_else(|| panic!("no count of {status}: {counts}"))
    }

    /// The number of jobs that match a listing.
    #[track_caller]
    pub fn total(&self, query: &str) -> u64 {
        let page = self.get(&format!("/jobs{query}")).expect(200).json();
        page["total"].as_u64().unwrap_or_else(|| panic!("no total: {page}"))
    }

    /// Every job of a listing, page by page; the listing must not change meanwhile.
    #[track_caller]
    pub fn list_all(&self, path: &str, filter: &str) -> Vec<Value> {
        let mut all = Vec::new();
        for page in 1.. {
            let answer = self.get(&format!("{path}?page={page}&limit=100{filter}")).expect(200).json();
            let jobs = answer["jobs"].as_array().expect("jobs").clone();
            let full = jobs.len() == 100;
            all.extend(jobs);
            if !full {
                assert_eq!(answer["total"], all.len(), "total of {path} {filter}");
                break;
            }
        }
        all
    }

    /// Waits until `/readyz` answers 200.
    #[track_caller]
    pub fn wait_until_ready(&self) {
        eventually(LIMIT, "readyz answers 200", || {
            self.try_request("GET", "/readyz", &[], None).is_ok_and(|reply| reply.status == 200)
        });
    }

    /// The value of the metric with this name and these labels; 0 if the response has no such line.
    #[track_caller]
    pub fn metric(&self, name_and_labels: &str) -> f64 {
        let text = self.get("/metrics").expect(200).text();
        text.lines()
            .find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' ')?.trim().parse().ok())
            .unwrap_or(0.0)
    }
}

/// Whether the job is completed, failed or cancelled.
pub fn is_final(job: &Value) -> bool {
    matches!(job["status"].as_str(), Some("completed" | "failed" | "cancelled"))
}

/// A job as the text of a message, at most 4,000 characters long.
pub fn show(job: &Value) -> String {
    let text = format!("{job:#}");
    match text.char_indices().nth(4000) {
        Some((at, _)) => format!("{} ...", &text[..at]),
        None => text,
    }
}
