//! Limits: which job may start, which one waits, and which one goes on. Each test writes down one interleaving; `random.rs`
//! makes many.

mod ends;
mod numbers;
mod order;
mod peers;
mod random;
mod room;

use std::time::Duration;

use threadq::internals::queue::{
    Lease, LimitDeleted, Quarantine, ServerId, Settled, Settlement, Share, Verdict,
};
use threadq::job::limit::{LimitName, LimitNumbers, Rate};
use threadq::job::{Extras, Job, JobId, NewJob};

use crate::fixture::{MAX_CRASHES, Place, ids};

pub const HOUR: u64 = 3_600_000;
pub const MINUTE: u64 = 60_000;
/// A job that was sent on keeps its place for this long, in ms.
pub const KEPT: u64 = 5_000;

pub fn limit(name: &str) -> LimitName {
    LimitName::parse(name).unwrap()
}

/// Room for this number of jobs.
pub fn slots(concurrency: u32) -> LimitNumbers {
    LimitNumbers { concurrency: Some(concurrency), rate: None, burst: 1 }
}

/// This number of starts in a period of this many ms.
pub fn rate(count: u32, period_ms: u64, burst: u32) -> LimitNumbers {
    let rate = Rate { count, period: Duration::from_millis(period_ms) };
    LimitNumbers { concurrency: None, rate: Some(rate), burst }
}

/// A job with these limits.
pub fn limited(limits: &[&str]) -> NewJob {
    let given: Vec<LimitName> = limits.iter().map(|name| limit(name)).collect();
    let mut limits = Vec::new();
    LimitName::add(&mut limits, &given);
    NewJob { extras: Some(Box::new(Extras { limits, ..Extras::default() })), ..NewJob::new("t") }
}

/// A settlement that gives the attempt back for this long.
pub fn snoozed(lease: Lease, delay: Duration) -> Settlement {
    Settlement { lease, verdict: Verdict::Snooze(delay) }
}

/// A limit with one slot, and this number of jobs under it: the first one runs, on the returned server and under the returned
/// lease, and the others wait for room.
pub fn one_runs(jobs: usize) -> (Place, ServerId, Vec<JobId>, Lease) {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(1));
    let all = place.submit_limited_many(jobs, &["smtp"]);
    let lease = place.take(&a, 9).remove(0).0;
    (place, a, all, lease)
}

impl Place {
    pub fn define(&self, name: &str, numbers: LimitNumbers) {
        self.queue.put_limit(&limit(name), &numbers).unwrap();
    }

    pub fn undefine(&self, name: &str) -> LimitDeleted {
        self.queue.delete_limit(&limit(name)).unwrap()
    }

    /// Submits a job with these limits. Time passes, so that the next job becomes ready later.
    #[track_caller]
    pub fn submit_limited(&self, limits: &[&str]) -> JobId {
        self.submit_limited_to("default", limits)
    }

    #[track_caller]
    pub fn submit_limited_to(&self, queue: &str, limits: &[&str]) -> JobId {
        let job = NewJob { queue: queue.to_owned(), ..limited(limits) };
        let id = self.try_submit(&[job]).unwrap().first;
        self.passes(2);
        id
    }

    #[track_caller]
    pub fn submit_limited_many(&self, count: usize, limits: &[&str]) -> Vec<JobId> {
        (0..count).map(|_| self.submit_limited(limits)).collect()
    }

    /// Starts jobs of these queues.
    #[track_caller]
    pub fn take_from(&self, server: &ServerId, queues: &[&str], jobs: usize) -> Vec<(Lease, Job)> {
        let shares: Vec<Share> =
            queues.iter().map(|queue| Share { queue: (*queue).to_owned(), jobs }).collect();
        self.try_start(server, &shares, Quarantine::Start).unwrap().jobs
    }

    /// The ids of the jobs that a server with 9 free workers starts.
    #[track_caller]
    pub fn started(&self, server: &ServerId) -> Vec<JobId> {
        ids(&self.take(server, 9))
    }

    /// Works off what is due now.
    #[track_caller]
    pub fn works_off(&self) -> Option<Duration> {
        for _ in 0..100 {
            let next = self.queue.work_off_due(MAX_CRASHES).unwrap().next;
            if next != Some(Duration::ZERO) {
                return next;
            }
        }
        panic!("there is always something due: {:?}", self.agenda());
    }

    /// Lets this time pass, and works off what has become due.
    pub fn waits(&self, ms: u64) -> Option<Duration> {
        self.passes(ms);
        self.works_off()
    }

    pub fn agenda(&self) -> Vec<(String, f64)> {
        self.redis("ZRANGE", "agenda", &["0", "-1", "WITHSCORES"])
    }

    /// The jobs of a queue that wait for room in a limit, in their order.
    pub fn held_in(&self, queue: &str, name: &str) -> Vec<JobId> {
        let held: Vec<String> = self.redis("ZRANGE", &format!("held:{queue}:{name}"), &["0", "-1"]);
        held.into_iter().map(|id| id.parse().unwrap()).collect()
    }

    pub fn held(&self, name: &str) -> Vec<JobId> {
        self.held_in("default", name)
    }

    /// The jobs that have a slot for as long as they run, or until they are sent on.
    pub fn holders(&self, name: &str) -> Vec<JobId> {
        self.slots_between(name, "inf", "inf")
    }

    /// The jobs that were sent on, and whose place is kept.
    pub fn kept(&self, name: &str) -> Vec<JobId> {
        self.slots_between(name, "-inf", "(inf")
    }

    fn slots_between(&self, name: &str, from: &str, to: &str) -> Vec<JobId> {
        let ids: Vec<String> = self.redis("ZRANGEBYSCORE", &format!("slots:{name}"), &[from, to]);
        ids.into_iter().map(|id| id.parse().unwrap()).collect()
    }

    /// Asserts that no job waits for room, has room or keeps a place. A rate ends by itself.
    #[track_caller]
    pub fn assert_no_trace(&self) {
        let is_trace = |key: &String| {
            ["slots:", "holds:", "held:", "held_count", "waiting_limits"]
                .iter()
                .any(|name| key.starts_with(name))
        };
        let traces: Vec<String> = self.keys().into_iter().filter(is_trace).collect();
        assert_eq!(traces, [""; 0]);
        let words: Vec<_> =
            self.agenda().into_iter().filter(|(word, _)| word.starts_with("limit:")).collect();
        assert_eq!(words, []);
    }

    /// Settles an attempt; it must have been the job's own.
    #[track_caller]
    pub fn ends(&self, server: &ServerId, settlement: &Settlement) {
        let settled = self.settle(server, settlement);
        assert!(matches!(settled, Settled::Now(_)), "{settled:?}");
    }
}
