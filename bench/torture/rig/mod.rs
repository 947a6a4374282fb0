//! The torture rig: a Redis and several servers of its own, clients that keep a ledger, faults, and an audit at the end.
//!
//! It knows the program from outside only: its command line, its HTTP API, and the keys in Redis that the contract and
//! `src/queue/keys.rs` name. Nothing of the library is used, so that an error there cannot hide itself.

mod audit;
mod faults;
mod http;
mod load;
#[path = "../../common/redis.rs"]
mod own_redis;
mod processes;
mod report;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use faults::Faults;
use load::Load;
use own_redis::Redis;
use processes::Servers;
pub use report::Report;

/// What a run does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The built `threadq`.
    pub program: PathBuf,
    /// How many jobs are submitted.
    pub jobs: usize,
    /// How many servers run at a time.
    pub servers: usize,
    /// Worker threads of each.
    pub workers: usize,
    /// Threads that submit.
    pub submitters: usize,
    /// How often a server is killed by SIGKILL.
    pub kills: usize,
    /// How often a server is stopped by SIGTERM.
    pub terms: usize,
    /// How often a server is frozen for longer than its lease, and goes on afterwards.
    pub freezes: usize,
    /// How often something is done to Redis.
    pub redis_faults: usize,
    /// Which faults of Redis to choose from, in this order; by words of [`faults::RedisFault`].
    pub redis_kinds: Vec<String>,
    /// How many jobs end their server's process, each once or for ever.
    pub poison: usize,
    /// The mean time between two faults; the load is spread over all of them.
    pub gap: Duration,
    /// `--lease-timeout` of the servers.
    pub lease: Duration,
    /// `--max-crashes` of the servers.
    pub max_crashes: usize,
    /// `appendfsync` of Redis: always, everysec or no.
    pub fsync: String,
    /// How long no job may end while the queue drains, once the faults and the submissions are over.
    pub drain_limit: Duration,
    /// Decides the jobs, the order of the faults and whom they hit.
    pub seed: u64,
    /// Keeps the run's folder also when all went well.
    pub keep: bool,
}

impl Plan {
    /// What a run is without any wishes.
    pub fn new(program: impl Into<PathBuf>) -> Plan {
        Plan {
            program: program.into(),
            jobs: 20_000,
            servers: 3,
            workers: 8,
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

    /// Within this time the jobs of a dead server must be back.
    fn recovery_limit(&self) -> Duration {
        self.lease + Duration::from_secs(5)
    }

    /// For how long jobs are submitted, if the servers keep up.
    fn load_time(&self) -> Duration {
        self.gap * (self.kills + self.terms + self.freezes + self.redis_faults + 1) as u32
    }
}

/// Runs a plan to its end, or until `stop`.
///
/// # Errors
/// What kept the run from being one; what it found is in the report.
pub fn run(plan: &Plan, stop: &AtomicBool) -> Result<Report, String> {
    let started = Instant::now();
    let prefix = format!("torture-{}-", plan.seed);
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir();
    // It stays after a run that fails.
    let folder = folder.map_err(|error| format!("a temporary folder: {error}"))?.keep();

    let redis = Redis::start(&folder, &plan.fsync)?;
    load::write_handlers(&folder).map_err(|error| format!("handlers: {error}"))?;
    let load = Load::new(plan);
    let servers = Servers::new(plan, &folder, redis.url());
    let faults = Faults::new(plan, &redis, &servers);
    let mut report = Report::new(plan, &folder);

    std::thread::scope(|scope| {
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
        let ends = servers.stop_all();
        report.note_ends(ends);
        result
    })?;
    audit::after_the_stop(&redis, &mut report);
    drop(redis);

    report.seconds = started.elapsed().as_secs_f64();
    if report.is_good() && !plan.keep {
        let _ = fs::remove_dir_all(&folder);
    }
    Ok(report)
}
