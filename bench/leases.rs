//! How long each step of pull workers blocks Redis with very many leases and jobs.
//!
//!     cargo bench --bench leases -- --jobs 1000000 --leases 10000

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::process::usage;
use common::{Bare, BenchRedis, SlowLog, flag, flags, percentile};
use serde_json::value::RawValue;
use threadq::internals::queue::{AttemptReport, PullRequest, Verdict};
use threadq::job::report::Report;
use threadq::job::{AttemptId, NewJob};

const HELP: &str = "\
usage: cargo bench --bench leases -- [flags]

Prints the processor time of Redis in each step of pull workers, and the slowest steps by Redis's SLOWLOG. One thread runs
the steps through the library, without a server: it pulls, reports, cancels and answers, and works off leases that end all
at once.

  --jobs N         jobs in Redis [1000000]
  --leases N       jobs that pull workers have, at most 10000 [10000]
  --steps N        how often each step runs [200]
";

/// The most jobs that one request takes, and the most answers that one request has.
const BATCH: usize = 100;

fn main() {
    flags::check(HELP);
    let (jobs, leases) = (flag("jobs", 1_000_000_usize), flag("leases", 10_000_usize));
    let steps = flag("steps", 200_usize);
    let mut redis = BenchRedis::start("leases");
    let bare = Bare::new(&redis.url());
    common::print_setup();
    bare.fill_with(jobs, &NewJob::new("pulled"));
    let slow_log = SlowLog::start(&mut redis);
    slow_log.reset(&mut redis);
    let pid = redis.info("process_id") as u32;
    let queue = &bare.queue;
    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut time = |name, step: &mut dyn FnMut()| {
        let before = usage(pid).cpu_ns;
        step();
        times.entry(name).or_default().push((usage(pid).cpu_ns - before) as f64 / 1e6);
    };

    let lease = Duration::from_secs(3_600);
    let mut attempts: Vec<AttemptId> = Vec::new();
    while attempts.len() < leases {
        let wanted = request(BATCH.min(leases - attempts.len()), lease, attempts.len());
        time("pull of 100", &mut || {
            let pulled = queue.pull(&wanted, None, 3).expect("Redis answers");
            attempts.extend(pulled.jobs.iter().map(|pulled| pulled.attempt));
        });
    }
    for step in 0..steps {
        let attempt = attempts[step * 7919 % attempts.len()];
        time("report", &mut || report(&bare, &[attempt], 1));
        time("report of 100 lines, 32 KiB", &mut || report(&bare, &[attempt], 100));
        let some: Vec<AttemptId> = attempts.iter().copied().cycle().skip(step * 31).take(BATCH).collect();
        time("report of 100 attempts", &mut || report(&bare, &some, 1));
        time("log of 1000 lines", &mut || {
            queue.job_log(attempt.job, 0, 1_000).expect("Redis answers").expect("a job");
        });
    }
    for step in 0..steps.min(attempts.len() / 4) {
        let attempt = attempts.swap_remove(step * 7919 % attempts.len());
        let verdict = match step % 4 {
            0 => Verdict::Complete(RawValue::from_string("1".to_owned()).expect("JSON")),
            1 => Verdict::Fail("no".to_owned()),
            2 => Verdict::Release,
            _ => Verdict::Snooze(Duration::from_secs(600)),
        };
        if step % 5 == 0 {
            time("cancel", &mut || _ = queue.cancel(&[attempt.job], &[]).expect("Redis answers"));
        }
        let mut answers = vec![(attempt, verdict)];
        time("answer", &mut || _ = queue.answer(&std::mem::take(&mut answers)).expect("Redis answers"));
        time("pull of 1", &mut || {
            let pulled = queue.pull(&request(1, lease, step), None, 3).expect("Redis answers");
            attempts.extend(pulled.jobs.iter().map(|pulled| pulled.attempt));
        });
    }
    for _ in 0..steps.min(attempts.len() / (2 * BATCH)) {
        let part = attempts.len() - BATCH;
        let complete = || Verdict::Complete(RawValue::from_string("1".to_owned()).expect("JSON"));
        // The oldest leases are at the far end of the list.
        let answers: Vec<(AttemptId, Verdict)> =
            attempts.drain(part / 2..part / 2 + BATCH).map(|a| (a, complete())).collect();
        time("answer of 100", &mut || _ = queue.answer(&answers).expect("Redis answers"));
        time("pull of 100", &mut || {
            let pulled = queue.pull(&request(BATCH, lease, 0), None, 3).expect("Redis answers");
            attempts.extend(pulled.jobs.iter().map(|pulled| pulled.attempt));
        });
    }
    for _ in 0..10 {
        time("list of workers", &mut || _ = queue.pull_workers().expect("Redis answers"));
        time("stats", &mut || _ = queue.stats().expect("Redis answers"));
    }
    println!(
        "with {} leases and {jobs} jobs:\n  {}",
        queue.pull_leases().expect("Redis answers"),
        slow_log.report(&mut redis)
    );

    // All leases end at the same time.
    slow_log.reset(&mut redis);
    let short: Vec<AttemptReport> = attempts
        .iter()
        .map(|attempt| AttemptReport {
            attempt: *attempt,
            report: Report::default(),
            lease: Some(Duration::from_secs(1)),
        })
        .collect();
    short.chunks(BATCH).for_each(|chunk| _ = queue.report(chunk).expect("Redis answers"));
    std::thread::sleep(Duration::from_secs(1));
    let mut ended = 0;
    while ended < attempts.len() {
        time("leases that end", &mut || ended += queue.work_off_due(3).expect("Redis answers").lost.len());
    }
    println!("while {ended} leases end:\n  {}", slow_log.report(&mut redis));
    println!("ms of CPU of Redis per step:");
    for (name, mut ms) in times {
        let [median, p99, most] = [0.5, 0.99, 1.0].map(|part| percentile(&mut ms, part));
        println!("  {name:<28} median {median:7.2}  p99 {p99:7.2}  max {most:7.2}  ({} steps)", ms.len());
    }
}

fn request(max: usize, lease: Duration, worker: usize) -> PullRequest {
    PullRequest {
        queues: vec!["default".to_owned()],
        max: max as u32,
        lease: Some(lease),
        worker: Some(format!("worker-{}", worker % 1_000)),
    }
}

/// Reports progress, this number of log lines, and a checkpoint, which is as large as possible beside many lines.
fn report(bare: &Bare, attempts: &[AttemptId], lines: usize) {
    let checkpoint = if lines == 1 { "1".to_owned() } else { format!("\"{}\"", "x".repeat(32 * 1024 - 2)) };
    let reports: Vec<AttemptReport> = attempts
        .iter()
        .map(|attempt| AttemptReport {
            attempt: *attempt,
            report: Report {
                progress: Some((0.5, "half of the work is done".to_owned())),
                log: vec!["a line of ordinary length, with what a program says".to_owned(); lines],
                dropped: 0,
                checkpoint: Some(RawValue::from_string(checkpoint.clone()).expect("JSON")),
            },
            lease: None,
        })
        .collect();
    bare.queue.report(&reports).expect("Redis answers");
}
