//! The duration of a drain, from the times that Redis has stored in the jobs: neither the start of a server nor the
//! poll interval of the bench counts.

use std::time::{Duration, Instant};

use super::BenchRedis;

/// The completed jobs, newest first.
const COMPLETED: &str = "{threadq}:completed";
/// The completed jobs of versions up to 0.6: a sorted set, by the time of their end.
const DONE: &str = "{threadq}:done";
/// A drain in which no job ends for this long has failed.
const STANDSTILL: Duration = Duration::from_secs(60);

/// A drain of the jobs that wait now.
pub struct Drain {
    oldest: u64,
    done_before: usize,
    jobs: usize,
}

impl Drain {
    /// Prepares the drain of `jobs` jobs that wait in these queues. No server may run yet.
    pub fn prepare(redis: &mut BenchRedis, queues: &[String], jobs: usize) -> Drain {
        let waiting: usize = queues.iter().map(|queue| waiting(redis, queue)).sum();
        assert!(waiting >= jobs, "{waiting} jobs wait, fewer than {jobs}");
        let oldest = |queue: &String| {
            redis.ask::<Option<u64>>(&["LINDEX", &format!("{{threadq}}:work_queue:{queue}"), "-1"])
        };
        let oldest = queues.iter().filter_map(oldest).min().expect("jobs wait");
        Drain { oldest, done_before: done(redis), jobs }
    }

    /// Waits until the jobs are completed. Returns jobs per second, from the first start to the last end.
    pub fn rate(&self, redis: &mut BenchRedis) -> f64 {
        let end = end_ms(redis, self.done_before, self.jobs);
        let key = format!("{{threadq}}:job:{}", self.oldest);
        let start: u64 = redis.ask(&["HGET", &key, "started_at"]);
        rate(self.jobs, start, end)
    }
}

/// Waits until `done_before + jobs` jobs are completed. Returns the time of the last completion, in ms since 1970.
pub fn end_ms(redis: &mut BenchRedis, done_before: usize, jobs: usize) -> u64 {
    let (mut last, mut moved) = (done_before, Instant::now());
    while last < done_before + jobs {
        assert!(
            moved.elapsed() < STANDSTILL,
            "no job ends any more: {last} of {} are completed",
            done_before + jobs
        );
        std::thread::sleep(Duration::from_millis(20));
        let now = done(redis);
        if now != last {
            (last, moved) = (now, Instant::now());
        }
    }
    let rank = done_before + jobs - 1;
    let id: Option<u64> = redis.ask(&["LINDEX", COMPLETED, &format!("-{}", rank + 1)]);
    if let Some(id) = id {
        return redis.ask(&["HGET", &format!("{{threadq}}:job:{id}"), "finished_at"]);
    }
    let rank = rank.to_string();
    let (_, end): (u64, u64) = redis.ask(&["ZRANGE", DONE, &rank, &rank, "WITHSCORES"]);
    end
}

/// The smallest id of the completed `echo` jobs.
pub fn first_id(redis: &mut BenchRedis) -> u64 {
    let mut first = |key| redis.ask::<Vec<u64>>(&["ZRANGE", key, "0", "0"]).first().copied();
    let ids = ["{threadq}:type_index:completed:echo", "{threadq}:index:completed"].map(&mut first);
    ids.into_iter().flatten().min().expect("jobs are completed")
}

/// The number of completed jobs.
pub fn done(redis: &mut BenchRedis) -> usize {
    redis.ask::<usize>(&["LLEN", COMPLETED]) + redis.ask::<usize>(&["ZCARD", DONE])
}

/// The number of jobs that wait in a queue.
pub fn waiting(redis: &mut BenchRedis, queue: &str) -> usize {
    redis.ask(&["LLEN", &format!("{{threadq}}:work_queue:{queue}")])
}

/// Jobs per second between two times in ms.
pub fn rate(jobs: usize, start_ms: u64, end_ms: u64) -> f64 {
    jobs as f64 * 1000.0 / (end_ms.saturating_sub(start_ms).max(1)) as f64
}
