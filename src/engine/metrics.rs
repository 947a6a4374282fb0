//! Metrics of this server, and their text format for Prometheus.
//!
//! Counters count what happened on this server; the API adds gauges over all of Redis. The number of labels is bounded:
//! when clients send very many job types, the last ones are counted under `other`.
//!
//! A new counter of job types is a field of [`OfType`] and a row in [`Metrics::render`]. If dashboards show its
//! history, it is also one of the [`Totals`].

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use crate::job::limit::LimitName;
use crate::job::{Job, Status};
use crate::queue::{Conflict, Tick};
use crate::sorting;
use crate::sync;

/// The most job types without a handler that get a label of their own.
const UNKNOWN_TYPES: usize = 100;
/// The most schedules that get a label of their own.
const SCHEDULES: usize = 1_000;
/// The most limits that get a label of their own.
const LIMITS: usize = 100;
/// The label of all further job types, limits and methods.
const OTHER: &str = "other";
/// The methods that get a label of their own.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];
/// Upper bounds of the histograms' buckets, in milliseconds.
pub(crate) const BUCKETS_MS: [u64; 14] =
    [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 5_000, 30_000, 300_000, 3_600_000];

/// What becomes of a submission whose unique key another job holds.
const DEDUPLICATIONS: [&str; 3] = ["rejected", "existing", "replaced"];

/// The metrics of one job type.
#[derive(Default)]
struct OfType {
    submitted: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    retries: AtomicU64,
    panics: AtomicU64,
    expired: AtomicU64,
    snoozes: AtomicU64,
    reports: AtomicU64,
    /// Submissions whose unique key another job held, in the order of [`DEDUPLICATIONS`].
    deduplicated: [AtomicU64; DEDUPLICATIONS.len()],
    processing: Histogram,
    wait: Histogram,
}

#[derive(Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS_MS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

impl Histogram {
    fn observe(&self, time: Duration) {
        let ms = time.as_micros().div_ceil(1000) as u64;
        if let Some(bucket) = BUCKETS_MS.iter().position(|bound| ms <= *bound) {
            self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// The number of observations, their sum in µs, and the number in each bucket.
    fn figures(&self) -> impl Iterator<Item = &AtomicU64> {
        [&self.count, &self.micros].into_iter().chain(&self.buckets)
    }

    /// `label` is the label with its value.
    fn render(&self, out: &mut String, name: &str, label: &str) {
        let mut sum = 0;
        for (bucket, bound) in self.buckets.iter().zip(BUCKETS_MS) {
            sum += bucket.load(Ordering::Relaxed);
            let _ = writeln!(out, "{name}_bucket{{{label},le=\"{}\"}} {sum}", bound as f64 / 1000.0);
        }
        // An observation under way can be in its bucket and not yet in the count.
        let count = self.count.load(Ordering::Relaxed).max(sum);
        let seconds = self.micros.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(out, "{name}_bucket{{{label},le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_sum{{{label}}} {seconds}");
        let _ = writeln!(out, "{name}_count{{{label}}} {count}");
    }
}

/// Sums over all job types, since the start of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Totals([u64; FIGURES]);

/// Four counters, and two histograms of count, sum and buckets.
const FIGURES: usize = 4 + 2 * (2 + BUCKETS_MS.len());

impl Default for Totals {
    fn default() -> Totals {
        Totals([0; FIGURES])
    }
}

impl Totals {
    /// The names of the figures, in their order. Redis stores the history under them.
    fn names() -> impl Iterator<Item = String> {
        let of_histogram = |name: &'static str| {
            let buckets = (0..BUCKETS_MS.len()).map(move |place| bucket_name(name, place));
            [format!("{name}s"), format!("{name}_us")].into_iter().chain(buckets)
        };
        let counters = ["submitted", "completed", "failed", "retried"].map(str::to_owned);
        counters.into_iter().chain(of_histogram("wait")).chain(of_histogram("run"))
    }

    /// The figures that have grown, each with its increment.
    pub fn since(&self, before: &Totals) -> Vec<(String, u64)> {
        let rises = self.0.iter().zip(before.0).map(|(now, before)| now.saturating_sub(before));
        Totals::names().zip(rises).filter(|(_, rise)| *rise > 0).collect()
    }
}

/// The name of the figure of one of the [`BUCKETS_MS`], for `wait` or `run`.
pub(crate) fn bucket_name(name: &str, place: usize) -> String {
    format!("{name}_le_{}", BUCKETS_MS[place])
}

/// One of the metrics of a job type.
type Pick<T> = fn(&OfType) -> &T;

/// The metrics of one server.
pub struct Metrics {
    /// The job types that have a handler. Fixed, so that no lock is needed to count a job that runs.
    handled: HashMap<String, Arc<OfType>>,
    /// All other job types that were submitted, or were taken without a handler.
    others: RwLock<HashMap<String, Arc<OfType>>>,
    recovered: AtomicU64,
    leases_lost: AtomicU64,
    waiting: AtomicU64,
    /// The number of ticks by schedule and outcome.
    ticks: Mutex<BTreeMap<String, BTreeMap<&'static str, u64>>>,
    /// How long jobs waited for room, by limit.
    limit_waits: Mutex<BTreeMap<String, Histogram>>,
    requests: Mutex<HashMap<(String, &'static str, u16), u64>>,
}

impl Metrics {
    /// Job types that have a handler always get a label of their own.
    pub fn new<'a>(handled: impl Iterator<Item = &'a str>) -> Metrics {
        Metrics {
            handled: handled.map(|job_type| (job_type.to_owned(), Arc::default())).collect(),
            others: RwLock::default(),
            recovered: AtomicU64::new(0),
            leases_lost: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            ticks: Mutex::default(),
            limit_waits: Mutex::default(),
            requests: Mutex::default(),
        }
    }

    /// Passes the metrics of a job type to `count`.
    fn of(&self, job_type: &str, count: impl FnOnce(&OfType)) {
        match self.handled.get(job_type) {
            Some(of) => count(of),
            None => count(&self.of_other(job_type)),
        }
    }

    fn count(&self, job_type: &str, counter: Pick<AtomicU64>) {
        self.of(job_type, |of| {
            counter(of).fetch_add(1, Ordering::Relaxed);
        });
    }

    fn of_other(&self, job_type: &str) -> Arc<OfType> {
        if let Some(found) = sync::read(&self.others).get(job_type) {
            return found.clone();
        }
        let mut others = sync::write(&self.others);
        // Another thread may have added it meanwhile.
        let has_own = others.len() < UNKNOWN_TYPES || others.contains_key(job_type);
        let label = if has_own { job_type } else { OTHER };
        if let Some(of) = self.handled.get(label) {
            return of.clone();
        }
        others.entry(label.to_owned()).or_default().clone()
    }

    /// Counts a job that was stored.
    pub fn submitted(&self, job_type: &str) {
        self.count(job_type, |of| &of.submitted);
    }

    /// Records how long a job was ready before it was started.
    pub fn waited(&self, job_type: &str, time: Duration) {
        self.of(job_type, |of| of.wait.observe(time));
    }

    /// Records how long a job has waited that starts at this time, in ms since 1970.
    pub fn started(&self, job: &Job, now_ms: u64) {
        self.waited(&job.job_type, Duration::from_millis(now_ms.saturating_sub(job.ready_at_ms())));
        if let Some(blocked) = &job.blocked {
            let waited = Duration::from_millis(now_ms.saturating_sub(blocked.since_ms));
            self.waited_for_limit(&blocked.limit, waited);
        }
    }

    /// Records how long an attempt took.
    pub fn ran(&self, job_type: &str, time: Duration) {
        self.of(job_type, |of| of.processing.observe(time));
    }

    /// Counts a panic of a handler.
    pub fn panicked(&self, job_type: &str) {
        self.count(job_type, |of| &of.panics);
    }

    /// Counts a completed job.
    pub fn completed(&self, job_type: &str) {
        self.count(job_type, |of| &of.completed);
    }

    /// Counts a failed attempt whose job is retried.
    pub fn retried(&self, job_type: &str) {
        self.count(job_type, |of| &of.retries);
    }

    /// Counts a job that became a dead letter.
    pub fn failed(&self, job_type: &str) {
        self.count(job_type, |of| &of.failed);
    }

    /// Counts a job that has ended with this status because it had not started before its expiry.
    pub fn expired(&self, job_type: &str, status: Status) {
        self.count(job_type, |of| &of.expired);
        if status == Status::Failed {
            self.failed(job_type);
        }
    }

    /// Counts an attempt that ended with a snooze.
    pub fn snoozed(&self, job_type: &str) {
        self.count(job_type, |of| &of.snoozes);
    }

    /// Counts a report of an attempt that Redis has stored.
    pub fn reported(&self, job_type: &str) {
        self.count(job_type, |of| &of.reports);
    }

    /// Counts a submission whose unique key another job held.
    pub fn deduplicated(&self, job_type: &str, conflict: Option<Conflict>) {
        let place = match conflict {
            None => 0,
            Some(Conflict::Existing) => 1,
            Some(Conflict::Replaced) => 2,
        };
        self.of(job_type, |of| _ = of.deduplicated[place].fetch_add(1, Ordering::Relaxed));
    }

    /// Counts jobs that were reclaimed from a dead server, or recovered after a lost hand-over.
    pub fn recovered(&self, jobs: usize) {
        self.recovered.fetch_add(jobs as u64, Ordering::Relaxed);
    }

    /// Counts a job whose pull worker has let the lease run out.
    pub fn lease_lost(&self) {
        self.leases_lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts ticks of a schedule.
    pub fn ticked(&self, schedule: &str, fired: &[Tick]) {
        let mut ticks = sync::lock(&self.ticks);
        for Tick { outcome, count, .. } in fired {
            let is_known = ticks.len() < SCHEDULES || ticks.contains_key(schedule);
            let label = if is_known { schedule } else { OTHER };
            *ticks.entry(label.to_owned()).or_default().entry(outcome.as_str()).or_default() += count;
        }
    }

    /// Records how long a job waited for room in a limit before it was started.
    pub fn waited_for_limit(&self, limit: &LimitName, time: Duration) {
        let mut waits = sync::lock(&self.limit_waits);
        let name = limit.listed_name();
        let label = if waits.len() < LIMITS || waits.contains_key(name) { name } else { OTHER };
        waits.entry(label.to_owned()).or_default().observe(time);
    }

    /// Counts a request that begins to wait.
    pub fn wait_begins(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the end of a request's wait.
    pub fn wait_ends(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a response. `path` is the pattern of the route, since a client could send any number of paths.
    pub fn answered(&self, method: &str, path: &'static str, code: u16) {
        // A client can send any number of methods.
        let method = if METHODS.contains(&method) { method } else { OTHER };
        let mut requests = sync::lock(&self.requests);
        *requests.entry((method.to_owned(), path, code)).or_default() += 1;
    }

    /// The sums over all job types.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for of in self.handled.values().chain(sync::read(&self.others).values()) {
            let counters = [&of.submitted, &of.completed, &of.failed, &of.retries];
            let figures = counters.into_iter().chain(of.wait.figures()).chain(of.processing.figures());
            for (total, figure) in totals.0.iter_mut().zip(figures) {
                *total += figure.load(Ordering::Relaxed);
            }
        }
        totals
    }

    /// The metrics in Prometheus's text format.
    pub fn render(&self) -> String {
        let others = sync::read(&self.others);
        let mut types: Vec<(String, &Arc<OfType>)> = self
            .handled
            .iter()
            .chain(others.iter())
            .map(|(job_type, of)| (escape_label(job_type), of))
            .collect();
        sorting::sort_by(&mut types, |a, b| a.0.cmp(&b.0));
        let mut out = String::new();
        let counters: [(&str, &str, Pick<AtomicU64>); 8] = [
            ("threadq_jobs_submitted_total", "Jobs stored through this server.", |of| &of.submitted),
            ("threadq_jobs_completed_total", "Jobs that this server completed.", |of| &of.completed),
            ("threadq_jobs_failed_total", "Jobs that this server moved to the dead letter queue.", |of| {
                &of.failed
            }),
            ("threadq_job_retries_total", "Failed attempts that are tried again.", |of| &of.retries),
            ("threadq_job_panics_total", "Handlers that panicked.", |of| &of.panics),
            ("threadq_jobs_expired_total", "Jobs that had not started before their expiry.", |of| {
                &of.expired
            }),
            ("threadq_job_snoozes_total", "Attempts that ended with a snooze.", |of| &of.snoozes),
            ("threadq_job_reports_total", "Reports of running attempts that this server has stored.", |of| {
                &of.reports
            }),
        ];
        for (name, help, counter) in counters {
            header(&mut out, name, help, "counter");
            for (job_type, counts) in &types {
                let _ = writeln!(
                    out,
                    "{name}{{type=\"{job_type}\"}} {}",
                    counter(counts).load(Ordering::Relaxed)
                );
            }
        }
        let name = "threadq_jobs_deduplicated_total";
        header(&mut out, name, "Submissions whose unique key another job held.", "counter");
        for (job_type, counts) in &types {
            for (how, count) in DEDUPLICATIONS.iter().zip(&counts.deduplicated) {
                let count = count.load(Ordering::Relaxed);
                let _ = writeln!(out, "{name}{{type=\"{job_type}\",how=\"{how}\"}} {count}");
            }
        }
        let histograms: [(&str, &str, Pick<Histogram>); 2] = [
            ("threadq_job_processing_duration_seconds", "How long attempts took.", |of| &of.processing),
            ("threadq_job_wait_seconds", "How long ready jobs waited for a worker.", |of| &of.wait),
        ];
        for (name, help, histogram) in histograms {
            header(&mut out, name, help, "histogram");
            for (job_type, counts) in &types {
                histogram(counts).render(&mut out, name, &format!("type=\"{job_type}\""));
            }
        }
        let name = "threadq_jobs_recovered_total";
        header(
            &mut out,
            name,
            "Jobs reclaimed from dead servers or found after a lost hand-over.",
            "counter",
        );
        let _ = writeln!(out, "{name} {}", self.recovered.load(Ordering::Relaxed));
        let name = "threadq_pull_leases_lost_total";
        header(&mut out, name, "Leases that pull workers let run out.", "counter");
        let _ = writeln!(out, "{name} {}", self.leases_lost.load(Ordering::Relaxed));
        let ticks = sync::lock(&self.ticks);
        if !ticks.is_empty() {
            let name = "threadq_schedule_ticks_total";
            header(&mut out, name, "Ticks of schedules that this server worked off.", "counter");
            for (schedule, outcomes) in &*ticks {
                for (outcome, count) in outcomes {
                    let schedule = escape_label(schedule);
                    let _ = writeln!(out, "{name}{{schedule=\"{schedule}\",outcome=\"{outcome}\"}} {count}");
                }
            }
        }
        let limit_waits = sync::lock(&self.limit_waits);
        if !limit_waits.is_empty() {
            let name = "threadq_limit_wait_seconds";
            header(&mut out, name, "How long jobs waited for room in a limit.", "histogram");
            for (limit, waits) in &*limit_waits {
                waits.render(&mut out, name, &format!("limit=\"{}\"", escape_label(limit)));
            }
        }
        let name = "threadq_http_requests_waiting";
        header(&mut out, name, "Requests that wait for something about a job, or for jobs.", "gauge");
        let _ = writeln!(out, "{name} {}", self.waiting.load(Ordering::Relaxed));
        let name = "threadq_http_requests_total";
        header(&mut out, name, "Requests answered.", "counter");
        let requests = sync::lock(&self.requests);
        let mut requests: Vec<_> = requests.iter().collect();
        sorting::sort(&mut requests);
        for ((method, path, code), count) in requests {
            let _ = writeln!(out, "{name}{{method=\"{method}\",path=\"{path}\",code=\"{code}\"}} {count}");
        }
        out
    }
}

/// The two lines that announce a metric.
pub fn header(out: &mut String, name: &str, help: &str, metric_type: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {metric_type}");
}

/// Escapes a text for the value of a label.
pub fn escape_label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_types_without_a_handler_get_a_bounded_number_of_labels() {
        let metrics = Metrics::new(["known"].into_iter());
        for i in 0..10_000 {
            metrics.submitted(&format!("made up {i}"));
        }
        metrics.submitted("known");
        assert!(metrics.others.read().unwrap().len() <= UNKNOWN_TYPES + 1);
        let text = metrics.render();
        assert!(text.contains("threadq_jobs_submitted_total{type=\"known\"} 1\n"));
        assert!(text.contains("threadq_jobs_submitted_total{type=\"other\"} 9900\n"));
    }

    #[test]
    fn limits_get_a_bounded_number_of_labels_without_their_keys() {
        let metrics = Metrics::new(std::iter::empty());
        let wait = |limit: &str| {
            metrics.waited_for_limit(&LimitName::parse(limit).unwrap(), Duration::from_secs(2));
        };
        wait("tenant:1");
        wait("tenant:2");
        wait("threadq.type:a\"b");
        (0..1_000).for_each(|i| wait(&format!("made.up.{i}")));
        let text = metrics.render();
        assert!(text.contains("threadq_limit_wait_seconds_count{limit=\"tenant\"} 2\n"));
        assert!(text.contains("threadq_limit_wait_seconds_sum{limit=\"threadq.type:a\\\"b\"} 2\n"));
        assert!(text.contains("threadq_limit_wait_seconds_bucket{limit=\"other\",le=\"5\"} 902\n"));
    }

    #[test]
    fn a_job_type_cannot_break_the_text_format() {
        let metrics = Metrics::new(std::iter::empty());
        metrics.completed("a\"b\\c");
        assert!(metrics.render().contains("threadq_jobs_completed_total{type=\"a\\\"b\\\\c\"} 1\n"));
    }
}
