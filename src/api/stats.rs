//! /stats: counts, the history of the last hour, and what the worker threads do.

use serde_json::{Map, Value, json};

use crate::engine::in_flight::Activity;
use crate::engine::metrics::{BUCKETS_MS, bucket_name};
use crate::job::rfc3339;
use crate::queue::ServerInfo;

use crate::api::queues::queue_json;
use crate::api::request::Request;
use crate::api::response::Response;
use crate::api::state::Api;

/// Length of the history in minutes.
const MINUTES: u32 = 60;

impl Api {
    pub(super) fn stats(&self, _request: &Request) -> Result<Response, Response> {
        let stats = self.queue.stats()?;
        let mut counts = Map::new();
        counts.extend(stats.counts.iter().map(|(status, n)| (status.as_str().to_owned(), (*n).into())));
        let queues: Vec<Value> = self.all_queues()?.iter().map(queue_json).collect();
        let servers: Vec<Value> = stats.servers.iter().map(|server| self.server_json(server)).collect();
        Ok(Response::json(200, &json!({ "counts": counts, "queues": queues, "servers": servers })))
    }

    /// The last hour, minute by minute: counts over all servers, durations, and how many jobs waited at the end.
    pub(super) fn history(&self, _request: &Request) -> Result<Response, Response> {
        let mut depth = Value::Null;
        let minutes = self.queue.history(MINUTES)?.into_iter().map(|minute| {
            let get = |name: &str| minute.figures.get(name).copied();
            let sum = |name: &str| get(name).unwrap_or(0);
            let mean_ms = |total, count| {
                (sum(count) > 0).then(|| (sum(total) as f64 / sum(count) as f64 / 10.0).round() / 100.0)
            };
            let quantile_ms = |name: &str, part| {
                let buckets = std::array::from_fn(|place| sum(&bucket_name(name, place)));
                quantile_ms(&buckets, part)
            };
            // A minute without a depth has the depth of the minute before: nothing was recorded because nothing changed.
            if let Some(ready) = get("depth_ready") {
                depth = json!({
                    "scheduled": sum("depth_scheduled"),
                    "ready": ready,
                    "retrying": sum("depth_retrying"),
                });
            }
            json!({
                "at": rfc3339(minute.number * 60_000),
                "submitted": sum("submitted"),
                "completed": sum("completed"),
                "failed": sum("failed"),
                "retried": sum("retried"),
                "wait_ms": mean_ms("wait_us", "waits"),
                "wait_p50_ms": quantile_ms("wait", 0.50),
                "wait_p95_ms": quantile_ms("wait", 0.95),
                "run_ms": mean_ms("run_us", "runs"),
                "run_p50_ms": quantile_ms("run", 0.50),
                "run_p95_ms": quantile_ms("run", 0.95),
                "depth": depth,
            })
        });
        let minutes: Vec<Value> = minutes.collect();
        Ok(Response::json(200, &json!({ "minutes": minutes })))
    }

    /// What the worker threads of all servers do now. Another server writes the activity of its workers to Redis only while
    /// clients call this route, from its next heartbeat on.
    pub(super) fn workers(&self, _request: &Request) -> Result<Response, Response> {
        let servers = self.queue.workers()?.into_iter().map(|(server, reported)| {
            let threads: Option<Vec<Activity>> = match self.is_own(&server) {
                true => Some(self.in_flight.activity()),
                false => reported.and_then(|reported| serde_json::from_str(&reported).ok()),
            };
            let mut server = self.server_json(&server);
            server["threads"] = json!(threads);
            server
        });
        let servers: Vec<Value> = servers.collect();
        Ok(Response::json(200, &json!({ "servers": servers })))
    }

    /// The body's entry for a server. The number of busy workers is counted now for this server; for another server it is
    /// the number at its last heartbeat.
    fn server_json(&self, server: &ServerInfo) -> Value {
        let (workers, busy) = match self.is_own(server) {
            true => (self.in_flight.workers() as u64, self.in_flight.busy() as u64),
            false => (server.workers, server.busy),
        };
        json!({
            "id": server.id,
            "started_at": rfc3339(server.started_at_ms),
            "workers": workers,
            "busy": busy,
            "beat_age_ms": server.beat_age_ms,
        })
    }

    fn is_own(&self, server: &ServerInfo) -> bool {
        self.membership.current().as_str() == server.id
    }
}

/// A quantile of durations in ms, from the number of durations in each bucket, interpolated within its bucket. `None` if
/// there are no durations, or the quantile lies beyond the last bucket.
fn quantile_ms(buckets: &[u64; BUCKETS_MS.len()], quantile: f64) -> Option<f64> {
    let all: u64 = buckets.iter().sum();
    let wanted = all as f64 * quantile;
    let (mut below, mut from) = (0.0, 0.0);
    for (bucket, bound) in buckets.iter().zip(BUCKETS_MS) {
        let (number, to) = (*bucket as f64, bound as f64);
        if number > 0.0 && below + number >= wanted {
            let ms = from + (to - from) * (wanted - below) / number;
            return Some((ms * 100.0).round() / 100.0);
        }
        (below, from) = (below + number, to);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_interpolated_within_its_bucket() {
        let mut buckets = [0; BUCKETS_MS.len()];
        assert_eq!(quantile_ms(&buckets, 0.5), None);
        // 10 between 5 and 10 ms, 10 between 100 and 250 ms.
        (buckets[3], buckets[7]) = (10, 10);
        assert_eq!(quantile_ms(&buckets, 0.25), Some(7.5));
        assert_eq!(quantile_ms(&buckets, 0.5), Some(10.0));
        assert_eq!(quantile_ms(&buckets, 0.95), Some(235.0));
        assert_eq!(quantile_ms(&buckets, 1.0), Some(250.0));
        assert_eq!(quantile_ms(&std::array::from_fn(|place| u64::from(place == 0)), 0.5), Some(0.5));
    }
}
