//! GET /metrics: the metrics in the text format of Prometheus.

use std::fmt::Write;

use crate::api::request::Request;
use crate::api::response::Response;
use crate::api::state::Api;
use crate::engine::metrics::{escape_label, header};
use crate::queue::LimitRecord;

/// Maximum number of queues in the metrics.
const QUEUE_METRICS: usize = 100;
/// Maximum number of limits in the metrics.
const LIMIT_METRICS: usize = 100;

impl Api {
    pub(super) fn metrics(&self, _request: &Request) -> Result<Response, Response> {
        let mut out = self.metrics.render();
        let redis = self.queue.stats().and_then(|stats| Ok((stats, self.all_queues()?)));
        header(&mut out, "threadq_redis_up", "Whether Redis answers.", "gauge");
        let _ = writeln!(out, "threadq_redis_up {}", u8::from(redis.is_ok()));
        let name = "threadq_redis_failovers_total";
        header(
            &mut out,
            name,
            "How often another Redis took over since the start of this server.",
            "counter",
        );
        let _ = writeln!(out, "{name} {}", self.queue.failovers());
        header(&mut out, "threadq_workers", "Worker threads of this server.", "gauge");
        let _ = writeln!(out, "threadq_workers {}", self.in_flight.workers());
        header(&mut out, "threadq_workers_busy", "Worker threads of this server that have a job.", "gauge");
        let _ = writeln!(out, "threadq_workers_busy {}", self.in_flight.busy());
        let name = "threadq_pull_waiting";
        header(&mut out, name, "Requests of pull workers that wait for jobs on this server.", "gauge");
        let _ = writeln!(out, "{name} {}", self.pullers.takers.len());
        if let Ok(leases) = self.queue.pull_leases() {
            let name = "threadq_pull_leases";
            header(&mut out, name, "Jobs that pull workers have.", "gauge");
            let _ = writeln!(out, "{name} {leases}");
        }
        header(&mut out, "threadq_jobs", "Jobs in Redis.", "gauge");
        let name = "threadq_queue_oldest_seconds";
        if let Ok((stats, queues)) = redis {
            for (status, number) in stats.counts {
                let _ = writeln!(out, "threadq_jobs{{status=\"{status}\"}} {number}");
            }
            header(&mut out, name, "The age of the oldest job in a queue.", "gauge");
            // Clients can create any number of queues, so the queues of this server come first.
            let (own, others): (Vec<_>, Vec<_>) =
                queues.iter().partition(|queue| self.settings.queues.contains(&queue.name));
            for queue in own.into_iter().chain(others).take(QUEUE_METRICS) {
                let seconds = queue.oldest_ms.unwrap_or(0) as f64 / 1000.0;
                let _ = writeln!(out, "{name}{{queue=\"{}\"}} {seconds}", escape_label(&queue.name));
            }
        }
        if let Ok((lag, successes)) = self.queue.schedule_figures() {
            let name = "threadq_agenda_lag_seconds";
            header(&mut out, name, "By how much the oldest entry of the agenda is overdue.", "gauge");
            let _ = writeln!(out, "{name} {}", lag.as_secs_f64());
            if !successes.is_empty() {
                let name = "threadq_schedule_last_success_timestamp_seconds";
                header(&mut out, name, "When a job of the schedule last completed.", "gauge");
                for (schedule, at) in successes {
                    let _ = writeln!(
                        out,
                        "{name}{{schedule=\"{}\"}} {}",
                        escape_label(&schedule),
                        at as f64 / 1000.0
                    );
                }
            }
        }
        if let Ok(limits) = self.queue.limits()
            && !limits.is_empty()
        {
            let mut gauge = |name, help, figure: fn(&LimitRecord) -> u64| {
                header(&mut out, name, help, "gauge");
                for limit in limits.iter().take(LIMIT_METRICS) {
                    let _ =
                        writeln!(out, "{name}{{limit=\"{}\"}} {}", escape_label(&limit.name), figure(limit));
                }
            };
            let running = "Jobs that have a slot of the limit; with keys, those of keys with waiting jobs.";
            gauge("threadq_limit_running", running, |limit| limit.running);
            gauge("threadq_limit_waiting", "Jobs that wait for room in the limit.", |limit| limit.waiting);
        }
        let content_type = "text/plain; version=0.0.4; charset=utf-8";
        Ok(Response { status: 200, content_type, headers: Vec::new(), body: out.into_bytes() })
    }
}
