//! What operators look at: queues, statistics, metrics and health.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::engine::in_flight::Activity;
use crate::engine::metrics::{BUCKETS_MS, bucket_name, escape_label, header};
use crate::job::rfc3339;
use crate::queue::{Error, QueueInfo, ServerInfo};

use super::Api;
use crate::api::response::{Answer, Reply};

/// How far back the charts go.
const MINUTES: u32 = 60;
/// The most queues that get a metric of their own.
const QUEUE_METRICS: usize = 100;

impl Api {
    pub(super) fn queues(&self) -> Answer {
        let queues: Vec<Value> = self.all_queues()?.iter().map(queue_json).collect();
        Ok(Reply::json(200, &json!({ "queues": queues })))
    }

    fn all_queues(&self) -> Result<Vec<QueueInfo>, Error> {
        let own: Vec<&str> = self.settings.queues.iter().map(String::as_str).collect();
        self.queue.queues(&own)
    }

    pub(super) fn set_paused(&self, name: &str, paused: bool) -> Answer {
        let has_jobs = self.queue.set_paused(name, paused)?;
        let queues = self.queue.queues(&[name])?;
        let queue = queues.iter().find(|queue| queue.name == name);
        let answer = queue.map(|queue| {
            let mut answer = queue_json(queue);
            // Perhaps the name is misspelt.
            if queue.servers == 0 && !has_jobs {
                answer["known"] = json!(false);
            }
            answer
        });
        Ok(Reply::json(200, &answer))
    }

    pub(super) fn stats(&self) -> Answer {
        let stats = self.queue.stats()?;
        let counts: BTreeMap<&str, u64> =
            stats.counts.iter().map(|(status, n)| (status.as_str(), *n)).collect();
        let queues: Vec<Value> = self.all_queues()?.iter().map(queue_json).collect();
        let servers: Vec<Value> = stats.servers.iter().map(|server| self.server_json(server)).collect();
        Ok(Reply::json(200, &json!({ "counts": counts, "queues": queues, "servers": servers })))
    }

    /// The last hour, minute by minute: sums over all servers, times, and how many jobs waited at the end.
    pub(super) fn history(&self) -> Answer {
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
            // While nothing is noted nothing changes.
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
        Ok(Reply::json(200, &json!({ "minutes": minutes })))
    }

    /// What the worker threads of all servers do now. Another server that was not looked at lately tells it only with its
    /// next beat.
    pub(super) fn workers(&self) -> Answer {
        let servers = self.queue.workers()?.into_iter().map(|(server, told)| {
            let threads: Option<Vec<Activity>> = match self.is_own(&server) {
                true => Some(self.in_flight.activity()),
                false => told.and_then(|told| serde_json::from_str(&told).ok()),
            };
            let mut server = self.server_json(&server);
            server["threads"] = json!(threads);
            server
        });
        let servers: Vec<Value> = servers.collect();
        Ok(Reply::json(200, &json!({ "servers": servers })))
    }

    pub(super) fn metrics(&self) -> Answer {
        let mut out = self.metrics.render();
        let redis = self.queue.stats().and_then(|stats| Ok((stats, self.all_queues()?)));
        header(&mut out, "threadq_redis_up", "Whether Redis answers.", "gauge");
        let _ = writeln!(out, "threadq_redis_up {}", u8::from(redis.is_ok()));
        header(&mut out, "threadq_workers", "Worker threads of this server.", "gauge");
        let _ = writeln!(out, "threadq_workers {}", self.in_flight.workers());
        header(&mut out, "threadq_workers_busy", "Worker threads of this server that have a job.", "gauge");
        let _ = writeln!(out, "threadq_workers_busy {}", self.in_flight.busy());
        header(&mut out, "threadq_jobs", "Jobs in Redis.", "gauge");
        let name = "threadq_queue_oldest_seconds";
        if let Ok((stats, queues)) = redis {
            for (status, number) in stats.counts {
                let _ = writeln!(out, "threadq_jobs{{status=\"{status}\"}} {number}");
            }
            header(&mut out, name, "The age of the oldest job in a queue.", "gauge");
            // Clients can make up queues without end: that hides none which this server takes from.
            let (own, others): (Vec<_>, Vec<_>) =
                queues.iter().partition(|queue| self.settings.queues.contains(&queue.name));
            for queue in own.into_iter().chain(others).take(QUEUE_METRICS) {
                let seconds = queue.oldest_ms.unwrap_or(0) as f64 / 1000.0;
                let _ = writeln!(out, "{name}{{queue=\"{}\"}} {seconds}", escape_label(&queue.name));
            }
        }
        let content_type = "text/plain; version=0.0.4; charset=utf-8";
        Ok(Reply { status: 200, content_type, headers: Vec::new(), body: out.into_bytes() })
    }

    /// A server. Redis knows of its last beat how many workers are busy; of this server they are counted now.
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

    /// Whether jobs can be submitted and taken.
    pub(super) fn ready(&self) -> Answer {
        self.queue.check_ready()?;
        if let Err(reason) = self.membership.check_heartbeat(self.settings.lease_timeout) {
            return Err(Reply::error(503, "not_registered", reason).with("Retry-After", "1"));
        }
        if self.in_flight.workers() == 0 {
            let sentence = "every worker thread hangs in a handler that does not return";
            return Err(Reply::error(503, "no_workers", sentence).with("Retry-After", "10"));
        }
        Ok(Reply::json(200, &json!({ "status": "ready" })))
    }
}

fn queue_json(queue: &QueueInfo) -> Value {
    json!({
        "name": queue.name,
        "queued": queue.queued,
        "paused": queue.paused,
        "oldest_ms": queue.oldest_ms,
        "servers": queue.servers,
    })
}

/// About how long that part of them took, by how many took up to each of the bounds: within its bucket a time is held to be
/// anywhere. Those beyond the last bound are not known here.
fn quantile_ms(buckets: &[u64; BUCKETS_MS.len()], part: f64) -> Option<f64> {
    let all: u64 = buckets.iter().sum();
    let wanted = all as f64 * part;
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
    fn a_quantile_is_looked_up_within_its_bucket() {
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
