//! The bare protocol: the library's queue without the server around it. One or two plain threads run the same Lua
//! scripts, without HTTP, handlers and channels. Their rate is the upper limit for the whole program.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use threadq::internals::queue::{
    Lease, Quarantine, Queue, ServerFacts, ServerId, Settings, Settlement, Share, Verdict,
};
use threadq::job::{Job, JobId, NewJob};

use super::payload;

/// A client of the queue in a bench's Redis.
pub struct Bare {
    pub queue: Queue,
}

impl Bare {
    pub fn new(redis_url: &str) -> Bare {
        let settings = Settings { connections: 8, ..Settings::new(redis_url, "threadq") };
        Bare { queue: Queue::new(&settings).expect("a URL") }
    }

    /// Submits `jobs` `echo` jobs, in turn to each queue.
    pub fn fill(&self, jobs: usize, payload_bytes: usize, queues: &[String]) {
        let jobs_each: Vec<NewJob> = queues.iter().map(|queue| echo(payload_bytes, queue)).collect();
        let per_call = (1 << 20) / (payload_bytes + 100);
        let per_call = per_call.clamp(1, 500);
        for at in (0..jobs).step_by(per_call) {
            let group = jobs_each.iter().cycle().skip(at % queues.len());
            self.submit(&group.take(per_call.min(jobs - at)).cloned().collect::<Vec<_>>());
        }
    }

    /// Submits `jobs` copies of this job.
    pub fn fill_with(&self, jobs: usize, job: &NewJob) {
        const STEP: usize = 500;
        for at in (0..jobs).step_by(STEP) {
            self.submit(&vec![job.clone(); STEP.min(jobs - at)]);
        }
    }

    /// Submits jobs over 8 connections, `per_call` jobs per call. Returns jobs per second.
    pub fn enqueue(&self, jobs: usize, payload_bytes: usize, per_call: usize) -> f64 {
        let group = vec![echo(payload_bytes, "default"); per_call];
        let next = AtomicUsize::new(0);
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while next.fetch_add(per_call, Ordering::Relaxed) < jobs {
                        self.submit(&group);
                    }
                });
            }
        });
        jobs.next_multiple_of(per_call) as f64 / started.elapsed().as_secs_f64()
    }

    /// Submits these jobs in one call.
    pub fn submit(&self, jobs: &[NewJob]) -> JobId {
        self.queue.submit(jobs, None, u64::MAX >> 12).expect("the jobs are stored").first
    }

    /// Drains the default queue: each thread takes and settles `step` jobs per step, until the queue is empty.
    pub fn drain(&self, threads: usize, step: usize) {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let server = self.join();
                    loop {
                        let jobs = self.take(&server, step);
                        if jobs.is_empty() {
                            return;
                        }
                        self.settle(&server, jobs);
                    }
                });
            }
        });
    }

    /// Returns the ms from submission to start of `number` lone jobs. One thread submits each job, another receives it
    /// by BRPOPLPUSH and takes it.
    pub fn lone(&self, number: usize) -> Vec<f64> {
        let (started, starts) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let server = self.join();
                for _ in 0..number {
                    let fetched = loop {
                        if let Some(fetched) =
                            self.queue.wait_for_job(&server, "default").expect("Redis answers")
                        {
                            break fetched;
                        }
                    };
                    let share = Share { queue: "default".to_owned(), jobs: 30 };
                    let taken =
                        self.queue.start_jobs(&server, &[share], Quarantine::Start, 3, Some(&fetched));
                    let jobs = taken.expect("the server is registered").jobs;
                    started.send(Instant::now()).expect("the submitting thread waits for it");
                    self.settle(&server, jobs);
                }
            });
            let job = [echo(100, "default")];
            let submit = |_| {
                std::thread::sleep(Duration::from_millis(2));
                let before = Instant::now();
                self.submit(&job);
                let start = starts.recv().expect("the other thread runs");
                start.saturating_duration_since(before).as_secs_f64() * 1000.0
            };
            (0..number).map(submit).collect()
        })
    }

    /// Registers a new server.
    pub fn join(&self) -> ServerId {
        let server = ServerId::generate();
        self.queue.register(&server, &ServerFacts::new(1, &[])).expect("Redis answers");
        server
    }

    fn take(&self, server: &ServerId, step: usize) -> Vec<(Lease, Job)> {
        self.take_from("default", server, step)
    }

    /// Takes up to `step` jobs of this queue.
    pub fn take_from(&self, queue: &str, server: &ServerId, step: usize) -> Vec<(Lease, Job)> {
        let share = Share { queue: queue.to_owned(), jobs: step };
        let taken = self.queue.start_jobs(server, &[share], Quarantine::Start, 3, None);
        taken.expect("the server is registered").jobs
    }

    fn settle(&self, server: &ServerId, jobs: Vec<(Lease, Job)>) {
        let verdict =
            |(lease, job): (Lease, Job)| Settlement { lease, verdict: Verdict::Complete(job.payload) };
        self.settle_as(server, &jobs.into_iter().map(verdict).collect::<Vec<Settlement>>());
    }

    /// Settles these attempts in one call.
    pub fn settle_as(&self, server: &ServerId, settlements: &[Settlement]) {
        self.queue.settle(server, settlements).expect("Redis answers");
    }
}

/// An `echo` job with a payload of this size.
pub fn echo(payload_bytes: usize, queue: &str) -> NewJob {
    let payload = RawValue::from_string(payload(payload_bytes)).expect("it is JSON");
    NewJob { payload, queue: queue.to_owned(), ..NewJob::new("echo") }
}
