//! The torture rig: its own Redis and several servers, clients that keep a ledger, faults, and an audit at the end.
//!
//! The rig uses the program only from outside: its command line, its HTTP API, and the Redis keys that
//! `src/queue/keys.rs` defines. It does not use the library, so that an error in the library cannot hide itself.

mod audit;
mod faults;
mod http;
mod limits;
mod load;
#[path = "../../common/redis.rs"]
mod own_redis;
mod processes;
mod pullers;
mod report;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use faults::Faults;
use limits::Watch;
use load::Load;
use own_redis::Redis;
use processes::Servers;
use pullers::Pullers;
pub use report::Report;

/// The parameters of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The built `threadq`.
    pub program: PathBuf,
    /// How many jobs are submitted.
    pub jobs: usize,
    /// How many servers run at a time.
    pub servers: usize,
    /// Worker threads of each server.
    pub workers: usize,
    /// Pull workers.
    pub pullers: usize,
    /// Threads that submit.
    pub submitters: usize,
    /// How often a server is killed by SIGKILL.
    pub kills: usize,
    /// How often a server is stopped by SIGTERM.
    pub terms: usize,
    /// How often a server is frozen for longer than its lease, and thawed afterwards.
    pub freezes: usize,
    /// How many faults of Redis there are.
    pub redis_faults: usize,
    /// The kinds of faults of Redis, used in turn; words of [`faults::RedisFault`].
    pub redis_kinds: Vec<String>,
    /// How many jobs end their server's process, each in one attempt or in every attempt.
    pub poison: usize,
    /// The mean time between two faults; the load lasts as long as all faults.
    pub gap: Duration,
    /// `--lease-timeout` of the servers.
    pub lease: Duration,
    /// `--max-crashes` of the servers.
    pub max_crashes: usize,
    /// `appendfsync` of Redis: always, everysec or no.
    pub fsync: String,
    /// The longest time without any job ending in the final drain, after the faults and the submissions.
    pub drain_limit: Duration,
    /// The seed of the jobs, the order of the faults and their victims.
    pub seed: u64,
    /// Keeps the run's folder after a good run too.
    pub keep: bool,
}

impl Plan {
    /// The default plan.
    pub fn new(program: impl Into<PathBuf>) -> Plan {
        Plan {
            program: program.into(),
            jobs: 20_000,
            servers: 3,
            workers: 8,
            pullers: 4,
            submitters: 4,
            kills: 10,
            terms: 2,
            freezes: 2,
            redis_faults: 5,
            redis_kinds: faults::RedisFault::ALL.iter().map(|kind| kind.word().to_owned()).collect(),
            poison: 0,
            gap: Duration::from_secs(3),
            lease: Duration::from_secs(2),
            max_crashes: 3,
            fsync: "always".to_owned(),
            drain_limit: Duration::from_secs(120),
            seed: fastrand::u64(1..1_000_000),
            keep: false,
        }
    }

    /// The longest time until the jobs of a dead server must be reclaimed.
    fn recovery_limit(&self) -> Duration {
        self.lease + Duration::from_secs(5)
    }

    /// How long jobs are submitted, if the servers keep up.
    fn load_time(&self) -> Duration {
        self.gap * (self.kills + self.terms + self.freezes + self.redis_faults + 1) as u32
    }
}

/// Runs a plan to its end, or until `stop` is set.
///
/// # Errors
/// The run could not be carried out. Findings about jobs are in the report instead.
pub fn run(plan: &Plan, stop: &AtomicBool) -> Result<Report, String> {
    let started = Instant::now();
    let prefix = format!("torture-{}-", plan.seed);
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir();
    // Keep the folder after a run that fails.
    let folder = folder.map_err(|error| format!("a temporary folder: {error}"))?.keep();

    let redis = Redis::start(&folder, &plan.fsync)?;
    load::write_handlers(&folder).map_err(|error| format!("handlers: {error}"))?;
    let load = Load::new(plan);
    let servers = Servers::new(plan, &folder, redis.url());
    let faults = Faults::new(plan, &redis, &servers);
    let watch = Watch::default();
    let pullers = Pullers::new(plan);
    let mut report = Report::new(plan, &folder);

    let jobs = std::thread::scope(|scope| {
        scope.spawn(|| watch.look(redis.eye()));
        for number in 0..plan.pullers {
            let (pullers, servers) = (&pullers, &servers);
            scope.spawn(move || pullers.work(number, servers));
        }
        let result = (|| {
            servers.supervise(scope);
            servers.wait_until_up(Duration::from_secs(30))?;
            let begin = Instant::now();
            let faults = &faults;
            let injector = scope.spawn(move || faults.inject(begin, stop));
            load.submit_all(scope, &servers, begin, plan.load_time(), stop);
            injector.join().map_err(|_| "the injector of faults panicked")?;
            if stop.load(Ordering::Relaxed) {
                return Err("stopped".to_owned());
            }
            servers.wait_until_up(Duration::from_secs(30))?;
            audit::run(plan, &folder, &redis, &servers, &load, faults, &mut report)
        })();
        watch.end();
        pullers.end();
        let ends = servers.stop_all();
        report.note_ends(ends);
        result
    })?;
    limits::judge(&watch, jobs.values(), &mut report);
    pullers.judge(plan, &jobs, &mut report);
    audit::after_the_stop(&redis, &mut report);
    drop(redis);

    report.seconds = started.elapsed().as_secs_f64();
    if report.is_good() && !plan.keep {
        let _ = fs::remove_dir_all(&folder);
    }
    Ok(report)
}
