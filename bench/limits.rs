//! What limits cost Redis per job, and how it fares with very many blocked jobs.

mod common;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::callgrind::CountedRedis;
use common::process::usage;
use common::{Bare, BenchRedis, Rounds, SlowLog, bare, flag, flags, is_set, percentile};
use threadq::config::Config;
use threadq::internals::queue::{Lease, ServerId, Settlement, Verdict};
use threadq::job::limit::{LimitName, LimitNumbers, Rate};
use threadq::job::{Extras, Job, NewJob};
use threadq::server::Server;

const HELP: &str = "\
usage: cargo bench --bench limits -- [flags]

Prints Redis's own time per job for its take and its settlement, by the limits of the jobs. One thread runs the queue's
scripts through the library, as a server with 30 workers does that finish together: a take of up to 30 jobs, one
settlement of all of them, and the step of the scheduler when a take brings no job. Redis's time is that of its scripts,
from `INFO commandstats`: without the handling of the socket. A further column has the processor time of the whole
redis-server. The last column has the time of the scripts in a model of the limits, on another machine.

  --jobs N         jobs per case [6000]
  --rounds N       how often each case runs; the cases take turns [5]
  --instructions   count the processor instructions of redis-server with callgrind instead, in one round; exit code 3 if
                   valgrind is missing
  --rates          instead of all that: how many jobs a server starts per second under limits of some rates and bursts
  --blocked N      instead of all that: submit N jobs under a limit that allows no start for a month, and --free jobs
                   without limits behind them. Prints how long a server needs until it has run the latter, the slowest
                   steps by Redis's SLOWLOG, and the memory per job; then the same for the blocked jobs after a change
                   of the limit to 1 slot
  --steps          with --blocked: without a server, and prints the processor time of Redis per step, which depends less on
                   what else the machine does
  --keys N         keys of the blocked jobs; the limit holds for each key [1]
  --free N         jobs without limits behind the blocked ones [100]
  --workers N      workers of that server [4]
";

/// Workers that are free at each take.
const WORKERS: usize = 30;
/// Jobs per call of a submission.
const BATCH: usize = 500;

/// Jobs with certain limits.
struct Case {
    name: &'static str,
    limits: fn(usize) -> Vec<String>,
    /// The time of the model's scripts in µs, on another machine.
    model: &'static str,
}

const CASES: [Case; 6] = [
    Case { name: "no limit", limits: |_| Vec::new(), model: "37" },
    Case { name: "concurrency, never blocked", limits: |_| names(&["wide"]), model: "52" },
    Case { name: "rate, never blocked", limits: |_| names(&["quick"]), model: "57" },
    Case { name: "10 slots, always blocked", limits: |_| names(&["narrow"]), model: "154" },
    Case { name: "100 keys of 1 slot", limits: |n| vec![tenant(n)], model: "56" },
    Case {
        name: "two limits, always blocked",
        limits: |n| vec![tenant(n), "narrow".to_owned()],
        model: "287",
    },
];

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn tenant(number: usize) -> String {
    format!("tenant:{}", number % 100)
}

fn main() -> ExitCode {
    flags::check(HELP);
    match flag("blocked", 0) {
        0 if is_set("rates") => run_rates(),
        0 if is_set("instructions") => return count_instructions(),
        0 => print_times(),
        blocked if is_set("steps") => walk_blocked(blocked),
        blocked => run_blocked(blocked),
    }
    ExitCode::SUCCESS
}

fn print_times() {
    let (jobs, rounds) = (flag("jobs", 6_000_usize), flag("rounds", 5_usize));
    let mut redis = BenchRedis::start("limits");
    let bare = Bare::new(&redis.url());
    common::print_setup();
    println!("µs of Redis per job for take and settlement; {jobs} jobs per case, {rounds} rounds");
    let mut scripts: [Rounds; CASES.len()] = Default::default();
    let mut processor: [Rounds; CASES.len()] = Default::default();
    let mut takes = [0; CASES.len()];
    for _ in 0..rounds {
        for (at, case) in CASES.iter().enumerate() {
            redis.empty();
            let server = fill(&bare, case, jobs);
            redis.ask::<()>(&["CONFIG", "RESETSTAT"]);
            let before = redis.cpu_seconds();
            takes[at] = drain(&bare, &server, jobs);
            let after = redis.cpu_seconds();
            scripts[at].add(time_of_scripts(&mut redis) / jobs as f64);
            processor[at].add((after - before) * 1e6 / jobs as f64);
        }
    }
    println!("{:<28}{:>24}{:>24}{:>8}{:>14}", "", "scripts", "processor time", "takes", "model");
    for (at, case) in CASES.iter().enumerate() {
        let (scripts, processor) = (scripts[at].to_string(), processor[at].to_string());
        println!("{:<28}{scripts:>24}{processor:>24}{:>8}{:>14}", case.name, takes[at], case.model);
    }
}

fn count_instructions() -> ExitCode {
    if !common::callgrind::is_installed() {
        return ExitCode::from(3);
    }
    let jobs = flag("jobs", 6_000_usize);
    let mut redis = CountedRedis::start(false);
    let bare = Bare::new(&redis.url());
    println!("instructions of redis-server per job for take and settlement; {jobs} jobs per case");
    for case in &CASES {
        // Afterwards the scripts are loaded, and valgrind has translated what they use.
        redis.empty();
        let server = fill(&bare, case, 10 * WORKERS);
        drain(&bare, &server, 10 * WORKERS);
        redis.empty();
        let server = fill(&bare, case, jobs);
        let count = redis.count(jobs, || {
            drain(&bare, &server, jobs);
        });
        println!("{:<28}{:>12.0}", case.name, count.instructions);
    }
    ExitCode::SUCCESS
}

/// Defines the limits, submits the jobs of a case, and registers a server.
fn fill(bare: &Bare, case: &Case, jobs: usize) -> ServerId {
    let quick = Rate { count: 1_000_000, period: Duration::from_secs(1) };
    let quick = LimitNumbers { concurrency: None, rate: Some(quick), burst: 100_000 };
    let limits = [("wide", slots(1_000)), ("narrow", slots(10)), ("tenant", slots(1)), ("quick", quick)];
    for (name, numbers) in limits {
        put_limit(bare, name, &numbers);
    }
    let all: Vec<NewJob> = (0..jobs).map(|n| job((case.limits)(n))).collect();
    for group in all.chunks(BATCH) {
        bare.submit(group);
    }
    bare.join()
}

fn slots(number: u32) -> LimitNumbers {
    LimitNumbers { concurrency: Some(number), rate: None, burst: 1 }
}

/// The numbers of a limit with one start in 30 days.
fn seldom() -> LimitNumbers {
    let rate = Rate { count: 1, period: Duration::from_secs(30 * 24 * 3600) };
    LimitNumbers { concurrency: None, rate: Some(rate), burst: 1 }
}

/// A small job with these limits.
fn job(limits: Vec<String>) -> NewJob {
    let mut job = bare::echo(100, "default");
    if !limits.is_empty() {
        let mut extras = Extras::default();
        LimitName::add(&mut extras.limits, &limits.iter().map(|limit| limit_name(limit)).collect::<Vec<_>>());
        job.extras = Some(Box::new(extras));
    }
    job
}

fn put_limit(bare: &Bare, name: &str, numbers: &LimitNumbers) {
    bare.queue.put_limit(&limit_name(name), numbers).expect("the limit is stored");
}

fn limit_name(text: &str) -> LimitName {
    LimitName::parse(text).expect("a valid name")
}

/// Takes and settles all jobs. Returns the number of takes.
fn drain(bare: &Bare, server: &ServerId, jobs: usize) -> usize {
    let (mut done, mut takes) = (0, 0);
    while done < jobs {
        let taken = bare.take_from("default", server, WORKERS);
        takes += 1;
        if taken.is_empty() {
            bare.queue.work_off_due(3).expect("Redis answers");
            continue;
        }
        done += taken.len();
        bare.settle_as(server, &completed(taken));
    }
    takes
}

fn completed(taken: Vec<(Lease, Job)>) -> Vec<Settlement> {
    let settlement =
        |(lease, job): (Lease, Job)| Settlement { lease, verdict: Verdict::Complete(job.payload) };
    taken.into_iter().map(settlement).collect()
}

/// The µs that Redis has spent in scripts since its counters were reset.
fn time_of_scripts(redis: &mut BenchRedis) -> f64 {
    let info: String = redis.ask(&["INFO", "commandstats"]);
    let usec = |line: &str| {
        line.strip_prefix("cmdstat_evalsha:")?.split("usec=").nth(1)?.split(',').next()?.parse().ok()
    };
    info.lines().find_map(usec).expect("scripts ran")
}

/// Jobs of some keys under a limit that allows no start for a month, and jobs without limits behind them.
struct Crowd {
    redis: BenchRedis,
    bare: Bare,
    blocked: usize,
    keys: usize,
    free: usize,
}

impl Crowd {
    fn new(blocked: usize) -> Crowd {
        let redis = BenchRedis::start("limits");
        let bare = Bare::new(&redis.url());
        put_limit(&bare, "tenant", &seldom());
        Crowd { redis, bare, blocked, keys: flag("keys", 1), free: flag("free", 100) }
    }

    /// Submits the one job of each key that may start.
    fn submit_first(&self) {
        self.submit("blocked", self.keys, |n| Some(self.key(n)));
    }

    /// Submits all other jobs. Returns the bytes of Redis's memory per blocked job.
    fn submit_all(&mut self) -> f64 {
        let before = self.redis.info("used_memory");
        self.submit("blocked", self.blocked, |n| Some(self.key(n)));
        let after = self.redis.info("used_memory");
        self.submit("free", self.free, |_| None);
        println!(
            "{} jobs of {} keys that allow no start, then {} jobs without limits",
            self.blocked, self.keys, self.free
        );
        (after - before) / self.blocked as f64
    }

    fn key(&self, number: usize) -> String {
        format!("tenant:{}", number % self.keys)
    }

    fn submit(&self, name: &str, number: usize, limit: impl Fn(usize) -> Option<String>) {
        let job = |n| NewJob { job_type: name.to_owned(), ..job(limit(n).into_iter().collect()) };
        for first in (0..number).step_by(BATCH) {
            self.bare.submit(&(first..number.min(first + BATCH)).map(job).collect::<Vec<_>>());
        }
    }
}

/// A server starts jobs under a limit of some rates, each for 10 s.
fn run_rates() {
    const SECONDS: u64 = 10;
    let redis = BenchRedis::start("limits");
    let bare = Bare::new(&redis.url());
    let started = Arc::new(AtomicUsize::new(0));
    let config = Config { workers: flag("workers", 4_usize), ..redis.config_without_limits() };
    let count = Arc::clone(&started);
    let server = Server::builder().config(config).handler("echo", move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    });
    let server = server.start().expect("a server");
    println!("{:<14} {:>6} {:>14}", "rate", "burst", "starts per s");
    for (at, (rate, burst)) in [(10, 1), (100, 1), (100, 5), (1000, 1), (1000, 20)].into_iter().enumerate() {
        let name = format!("rate-{at}");
        let per_second = Rate::new(rate, Duration::from_secs(1));
        put_limit(&bare, &name, &LimitNumbers { concurrency: None, rate: per_second, burst });
        let jobs = rate as usize * (SECONDS as usize + 2);
        for first in (0..jobs).step_by(BATCH) {
            let batch = (first..jobs.min(first + BATCH)).map(|_| job(names(&[name.as_str()])));
            bare.submit(&batch.collect::<Vec<_>>());
        }
        // The burst comes before the measured time.
        std::thread::sleep(Duration::from_secs(1));
        let (before, begun) = (started.load(Ordering::Relaxed), Instant::now());
        std::thread::sleep(Duration::from_secs(SECONDS));
        let starts = started.load(Ordering::Relaxed) - before;
        println!("{rate:<14} {burst:>6} {:>14.1}", starts as f64 / begun.elapsed().as_secs_f64());
        // The next rate has the server for itself.
        bare.queue.delete_limit(&limit_name(&name)).expect("Redis answers");
        wait_until("all jobs have run", || {
            let counts = bare.queue.stats().expect("Redis answers").counts;
            counts.iter().all(|(status, number)| *number == 0 || status.is_final())
        });
    }
    let (_, hurry) = crossbeam_channel::bounded(0);
    server.shut_down(&hurry);
}

/// A server runs the free jobs behind very many blocked ones, and then blocked ones.
fn run_blocked(blocked: usize) {
    let workers = flag("workers", 4_usize);
    let mut crowd = Crowd::new(blocked);
    let done = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let config = Config { workers, ..crowd.redis.config_without_limits() };
    let mut server = Server::builder().config(config);
    for (name, done) in ["free", "blocked"].iter().zip(&done) {
        let done = Arc::clone(done);
        server = server.handler(*name, move |_| {
            done.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
    }
    let server = server.start().expect("a server");
    let done = |at: usize| done[at].load(Ordering::Relaxed);
    crowd.submit_first();
    wait_until("the first job of each key has run", || done(1) == crowd.keys);

    let slow_log = SlowLog::start(&mut crowd.redis);
    crowd.bare.queue.set_paused("default", true).expect("Redis answers");
    let memory = crowd.redis.info("used_memory");
    let queued = crowd.submit_all();
    slow_log.reset(&mut crowd.redis);
    let cpu = crowd.redis.cpu_seconds();
    let begun = Instant::now();
    crowd.bare.queue.set_paused("default", false).expect("Redis answers");
    wait_until("the free jobs have run", || done(0) == crowd.free);
    println!(
        "{workers} workers have run the free jobs after {:.1} s; {:.1} s of CPU in Redis",
        begun.elapsed().as_secs_f64(),
        crowd.redis.cpu_seconds() - cpu
    );
    println!("  {}", slow_log.report(&mut crowd.redis));
    let held = (crowd.redis.info("used_memory") - memory) / blocked as f64;
    println!(
        "memory of Redis per blocked job: {queued:.0} bytes while it is queued, {held:.0} while it is held"
    );

    slow_log.reset(&mut crowd.redis);
    let before = done(1);
    put_limit(&crowd.bare, "tenant", &slots(1));
    let begun = Instant::now();
    wait_until("blocked jobs run", || done(1) > before);
    let woken = begun.elapsed().as_secs_f64();
    wait_until("blocked jobs run for a while", || {
        begun.elapsed().as_secs_f64() > woken + 5.0 || done(1) == crowd.keys + blocked
    });
    println!(
        "with 1 slot per key the first runs after {woken:.1} s, then {:.0} per second",
        (done(1) - before) as f64 / (begun.elapsed().as_secs_f64() - woken)
    );
    println!("  {}", slow_log.report(&mut crowd.redis));
    let (_, hurry) = crossbeam_channel::bounded(0);
    server.shut_down(&hurry);
}

/// The same without a server, step by step: the processor time of Redis in each step, whatever else the machine does.
fn walk_blocked(blocked: usize) {
    let workers = flag("workers", 4_usize);
    let mut crowd = Crowd::new(blocked);
    let server = crowd.bare.join();
    crowd.submit_first();
    drain(&crowd.bare, &server, crowd.keys);
    crowd.submit_all();
    let pid = crowd.redis.info("process_id") as u32;
    let mut steps: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut time = |name, step: &mut dyn FnMut()| {
        let before = usage(pid).cpu_ns;
        step();
        steps.entry(name).or_default().push((usage(pid).cpu_ns - before) as f64 / 1e6);
    };
    let queue = &crowd.bare.queue;
    let run =
        |time: &mut dyn FnMut(&'static str, &mut dyn FnMut()), take: &'static str, settle: &'static str| {
            let mut taken = Vec::new();
            time(take, &mut || taken = crowd.bare.take_from("default", &server, workers));
            let done = taken.len();
            let mut settlements = completed(taken);
            time(settle, &mut || crowd.bare.settle_as(&server, &std::mem::take(&mut settlements)));
            done
        };
    let mut left = crowd.free;
    while left > 0 {
        left -= run(&mut time, "take: hold", "settle");
    }
    time("list", &mut || assert!(!queue.limits().expect("Redis answers").is_empty()));
    let key = limit_name("tenant:0");
    time("show", &mut || assert!(queue.limit(&key, 0, 100).expect("Redis answers").is_some()));
    time("put", &mut || put_limit(&crowd.bare, "tenant", &slots(1)));
    for _ in 0..1_000 {
        time("due", &mut || {
            queue.work_off_due(3).expect("Redis answers");
        });
        run(&mut time, "take: start", "settle: wake");
    }
    println!("ms of CPU of Redis per step:");
    for (name, mut ms) in steps {
        let [median, p99, most] = [0.5, 0.99, 1.0].map(|part| percentile(&mut ms, part));
        println!("  {name:<14} median {median:7.2}  p99 {p99:7.2}  max {most:7.2}  ({} steps)", ms.len());
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(600);
    while !done() {
        assert!(Instant::now() < end, "not within 10 minutes: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
