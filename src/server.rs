//! The server: starts every thread, wires them up, and ends them in the right order.
//!
//! Whoever sends is ended before whoever receives: first requests, then fetchers, then workers, then the committer; the
//! heartbeat beats until the last job is settled, and the private Redis is the last to go.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder as ThreadBuilder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use serde::Serialize;

use crate::api::{self, Api};
use crate::config::{Config, Run};
use crate::engine::committer::Committer;
use crate::engine::fetcher::{self, Fetchers};
use crate::engine::group_commit::GroupCommit;
use crate::engine::heartbeat::{EarlyBeat, Heartbeat};
use crate::engine::in_flight::{InFlight, STOP_GRACE};
use crate::engine::janitor::{Retention, run_janitor};
use crate::engine::liveness::{LastBeat, Liveness};
use crate::engine::membership::{Membership, Registrar};
use crate::engine::metrics::Metrics;
use crate::engine::reaper::Reaper;
use crate::engine::reporter::Reporter;
use crate::engine::scheduler::Scheduler;
use crate::engine::shutdown::{self, Shutdown, Trigger};
use crate::engine::turns::TakePermits;
use crate::engine::worker::{Workers, catch_handler_panics};
use crate::gate::threads;
use crate::handler::exec::ExecHandler;
use crate::handler::http::HttpHandler;
use crate::handler::{Closure, Handler, Handlers, JobContext, StopReason, demo};
use crate::job::Failure;
use crate::private_redis::{self, PrivateRedis};
use crate::queue::{self, Queue, Reclaimed};

/// How long attempts that were told to hurry have for it; exec handlers need half a second to kill their programs.
const LAST_GRACE: Duration = Duration::from_secs(1);
/// How long a start waits for the first beat to be accepted: in order, and when Redis answers, that takes milliseconds.
const FIRST_BEAT: Duration = Duration::from_millis(500);
/// How often a stop looks whether everything has ended.
const LOOK: Duration = Duration::from_millis(20);
/// Threads besides workers and fetchers: the pools of connections to Redis, the API with tiny_http, the upkeep, and a few for
/// the first clients.
const FURTHER_THREADS: usize = 48;
/// A shorter lease can end while one call to a slow Redis is under way: it may take 1 s for the connection and 1.8 s for
/// the answer.
const SHORT_LEASE: Duration = Duration::from_secs(5);
/// Connections to Redis besides one per fetcher that takes, and one per worker that sleeps short backoffs.
const CONNECTIONS: u32 = 16;

/// Why a server did not start.
#[derive(Debug)]
pub enum StartError {
    /// The settings cannot work: the message names the setting.
    Configuration(String),
    /// The surroundings failed: no thread, no socket, a private Redis that ended.
    Failed(String),
    /// It was told to stop before it was ready.
    Stopped,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            StartError::Configuration(message) | StartError::Failed(message) => f.write_str(message),
            StartError::Stopped => f.write_str("the server was told to stop before it was ready"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> StartError {
        StartError::Failed(error.to_string())
    }
}

/// What is said where a server has nothing to run jobs with.
const NO_HANDLERS: &str =
    "no handlers: every job will fail; add [handlers.TYPE] to the config file, or try things out with --demo";

/// Collects handlers and settings, and starts the server.
///
/// ```no_run
/// use std::time::Duration;
/// use threadq::config::{Config, HandlerEntry, QueueShare, Secret};
/// use threadq::handler::Policy;
/// use threadq::server::Server;
///
/// // How jobs of a type are treated is the configuration's to say, as in its file.
/// let entry = HandlerEntry {
///     job_type: "report".to_owned(),
///     run: None,
///     limits: Default::default(),
///     policy: Policy { timeout: Duration::from_secs(600), max_attempts: 3, ..Policy::default() },
/// };
/// let config = Config {
///     redis_url: Some(Secret::new("redis://127.0.0.1:6379")),
///     queues: vec![QueueShare { name: "reports".to_owned(), weight: 1 }],
///     workers: 4,
///     handlers: vec![entry],
///     ..Config::default()
/// };
/// let server = Server::builder()
///     .config(config)
///     .handler("report", |job| {
///         let month: String = job.payload()?;
///         Ok(format!("report of {month}"))
///     })
///     .start()?;
/// println!("listening on {}", server.addr());
/// server.stop();
/// # Ok::<(), threadq::server::StartError>(())
/// ```
#[derive(Default)]
pub struct Builder {
    config: Config,
    handlers: Handlers,
}

impl Builder {
    /// Sets everything that a configuration says. Defaults to [`Config::default`].
    pub fn config(mut self, config: Config) -> Builder {
        self.config = config;
        self
    }

    /// Adds the handler of a type: a closure whose value becomes the job's result.
    pub fn handler<F, T>(mut self, job_type: impl Into<String>, handler: F) -> Builder
    where
        F: Fn(&JobContext) -> Result<T, Failure> + Send + Sync + 'static,
        T: Serialize + 'static,
    {
        self.handlers.insert(job_type, Closure(handler));
        self
    }

    /// Adds the handler of a type that is more than a closure.
    pub fn handler_object(mut self, job_type: impl Into<String>, handler: impl Handler) -> Builder {
        self.handlers.insert(job_type, handler);
        self
    }

    /// Starts the server: from then on it takes jobs and requests.
    ///
    /// # Errors
    /// [`StartError::Configuration`] for settings that cannot work, [`StartError::Failed`] for surroundings that don't.
    /// A Redis that is away is no error: the server waits for it. Whatever the error is, what the start had begun has
    /// ended.
    pub fn start(self) -> Result<Server, StartError> {
        self.start_unless(&crossbeam_channel::never())
    }

    /// The same, until something comes through `signals`: then the start ends, and undoes what it has begun. A second
    /// message has it end at once. A private Redis that loads much data can make a start long.
    ///
    /// # Errors
    /// As [`Builder::start`]; [`StartError::Stopped`] after a message, which is then taken from the channel.
    pub fn start_unless(self, signals: &Receiver<()>) -> Result<Server, StartError> {
        let handlers = add_configured(self.handlers, &self.config)?;
        Server::start(self.config, handlers, signals)
    }
}

/// Adds the handlers of the configuration, and what it says of the others.
fn add_configured(mut handlers: Handlers, config: &Config) -> Result<Handlers, StartError> {
    if config.demo {
        demo::register(&mut handlers);
    }
    for entry in &config.handlers {
        let wrong =
            |reason: String| StartError::Configuration(format!("handlers.{:?}: {reason}", entry.job_type));
        match &entry.run {
            Some(Run::Exec(command)) => {
                let handler = ExecHandler::new(command, &config.config_dir)
                    .and_then(|handler| handler.limited(entry.limits))
                    .map_err(wrong)?;
                handlers.insert(&entry.job_type, handler);
            }
            Some(Run::Http(url)) => handlers
                .insert(&entry.job_type, HttpHandler::trusting(url, config.ca.as_ref()).map_err(wrong)?),
            None if handlers.get(&entry.job_type).is_none() => {
                return Err(wrong("needs exec or http: there is no other handler of this type".to_owned()));
            }
            None => {}
        }
        handlers.set_policy(&entry.job_type, entry.policy);
    }
    Ok(handlers)
}

/// Resolves every handler of a configuration and looks at Redis, without starting anything. What is worth knowing, line
/// by line.
///
/// # Errors
/// What keeps a server with this configuration from working.
pub fn check(config: &Config) -> Result<Vec<String>, StartError> {
    let handlers = add_configured(Handlers::default(), config)?;
    let job_types = handlers.job_types().collect::<Vec<_>>().join(", ");
    let mut lines = match job_types.is_empty() {
        true => vec!["handlers: none".to_owned(), format!("warning: {NO_HANDLERS}")],
        false => vec![format!("handlers: {job_types}")],
    };
    let Some(url) = &config.redis_url else {
        lines.push("redis: a private one".to_owned());
        PrivateRedis::check().map_err(|error| StartError::Configuration(error.to_string()))?;
        check_data_dir(&config.data_dir)?;
        return Ok(lines);
    };
    let queue = connect(config, url.expose())?;
    let info = queue.redis_info().map_err(|error| StartError::Failed(format!("redis-url: {error}")))?;
    lines.push(format!("redis: {} {} at {}", info.product, info.version, url.redacted()));
    lines.extend(judge_redis(&info)?.into_iter().map(|warning| format!("warning: {warning}")));
    if info.is_replica {
        let reason = "redis-url: this is a replica, which takes no writes; allowed is its master";
        return Err(StartError::Configuration(reason.to_owned()));
    }
    let tried = queue.check_ready().and_then(|()| queue.check_wait_for_job());
    tried.map_err(|error| match error {
        queue::Error::Denied(reason) => StartError::Configuration(format!("redis-url: {reason}")),
        error => StartError::Failed(format!("redis-url: {error}")),
    })?;
    if let Ok(Some(lack)) = queue.check_operator_rights() {
        lines.push(format!("warning: looking at jobs or changing them by hand will fail: {lack}"));
    }
    Ok(lines)
}

/// Finds out whether the private Redis could write its data there, and leaves nothing behind.
fn check_data_dir(data_dir: &Path) -> Result<(), StartError> {
    let wrong = |reason: String| StartError::Configuration(format!("data-dir: {reason}"));
    let is_there = |folder: &&Path| folder.symlink_metadata().is_ok();
    let whole = std::path::absolute(data_dir).map_err(|error| wrong(error.to_string()))?;
    let Some(folder) = whole.ancestors().find(is_there) else { return Ok(()) };
    if !folder.is_dir() {
        return Err(wrong(format!(
            "{} is no folder; allowed is a folder that this user can write to",
            folder.display()
        )));
    }
    // The only sure way: a system call that asks for permission knows nothing of quotas and of odd file systems.
    let probe = folder.join(format!(".threadq-check-{}", std::process::id()));
    std::fs::create_dir(&probe).and_then(|()| std::fs::remove_dir(&probe)).map_err(|error| {
        let folder = folder.display();
        wrong(format!("cannot write to {folder}: {error}; allowed is a folder that this user can write to"))
    })
}

/// Finds out whether the system has threads for all of this, and says so in one sentence if not.
fn check_threads(config: &Config) -> Result<(), StartError> {
    let number = config.workers + fetcher_count(config) + FURTHER_THREADS;
    threads::check_threads(number).map_err(|(got, error)| {
        StartError::Failed(format!(
            "cannot start the threads that this server needs ({number}; the system gave {got}): {error}; raise the limit \
             of processes or of memory, or lower workers"
        ))
    })
}

fn connect(config: &Config, url: &str) -> Result<Queue, StartError> {
    let settings = queue::Settings {
        url: url.to_owned(),
        ca: config.redis_ca.clone().or_else(|| config.ca.clone()),
        namespace: config.namespace.clone(),
        connections: CONNECTIONS + (config.workers + fetcher_count(config)) as u32,
        // Only the first one of each queue sits in a blocking command.
        fetchers: config.queues.len() as u32,
    };
    Queue::new(&settings).map_err(|error| StartError::Configuration(error.to_string()))
}

fn fetcher_count(config: &Config) -> usize {
    config.queues.len() * config.fetchers
}

/// What is wrong with a Redis, as far as one can live with it.
fn judge_redis(info: &queue::RedisInfo) -> Result<Vec<String>, StartError> {
    if !info.is_supported() {
        return Err(StartError::Configuration(format!(
            "redis-url: this is {} {}; allowed is Redis from 7.0 or Valkey from 7.2",
            info.product, info.version
        )));
    }
    if info.mode == "sentinel" {
        let reason =
            "redis-url: this is a Sentinel, which keeps no jobs; allowed is the Redis that it watches";
        return Err(StartError::Configuration(reason.to_owned()));
    }
    Ok(info.problems().into_iter().map(|problem| format!("{}; {}", problem.what, problem.todo)).collect())
}

/// A running server.
pub struct Server {
    api: api::Running,
    queue: Arc<Queue>,
    in_flight: Arc<InFlight>,
    drain_timeout: Duration,
    /// Ends whoever takes or moves jobs.
    stop: Trigger,
    entry: RedisEntry,
    /// How many jobs the committer has given back.
    given_back: Arc<AtomicUsize>,
    last_beat: LastBeat,
    fetchers: Vec<JoinHandle<()>>,
    turns: Arc<TakePermits>,
    redis: Option<WatchedRedis>,
}

/// The private Redis and the thread that looks after it. Dropping this ends both.
struct WatchedRedis {
    redis: Arc<PrivateRedis>,
    watch: Option<JoinHandle<()>>,
}

impl WatchedRedis {
    fn start(config: &Config, signals: &Receiver<()>) -> Result<WatchedRedis, StartError> {
        let is_told_to_stop = || signals.try_recv().is_ok();
        let redis = match PrivateRedis::start(&config.data_dir, config.fsync.as_str(), &is_told_to_stop) {
            Ok(redis) => Arc::new(redis),
            Err(private_redis::StartError::Stopped) => return Err(StartError::Stopped),
            Err(error) if error.is_configuration() => {
                return Err(StartError::Configuration(error.to_string()));
            }
            Err(error) => return Err(StartError::Failed(error.to_string())),
        };
        let mut started = WatchedRedis { redis: redis.clone(), watch: None };
        started.watch = Some(spawn("redis-watch", move || redis.watch())?);
        Ok(started)
    }

    /// Ends both. Something that comes through `hurry` kills a redis-server that takes its time.
    fn stop(&mut self, hurry: &Receiver<()>) {
        self.redis.stop(&|| hurry.try_recv().is_ok());
        if let Some(watch) = self.watch.take() {
            let _ = watch.join();
        }
    }
}

impl Drop for WatchedRedis {
    fn drop(&mut self) {
        self.stop(&crossbeam_channel::never());
    }
}

/// The entry of this server in Redis, and the threads that keep it. Dropping this takes the entry back.
struct RedisEntry {
    queue: Arc<Queue>,
    membership: Arc<Membership>,
    /// Ends the heartbeat.
    end: Option<Trigger>,
    heartbeat: Option<JoinHandle<()>>,
    reporter: Option<JoinHandle<()>>,
}

impl RedisEntry {
    /// Ends the heartbeat, and gives what this server still has in hand back to the queues.
    fn leave(&mut self) -> Result<Option<Reclaimed>, queue::Error> {
        self.end = None;
        let Some(heartbeat) = self.heartbeat.take() else { return Ok(None) };
        // A beat after the end would enter this server again.
        let _ = heartbeat.join();
        let _ = self.reporter.take().map(JoinHandle::join);
        self.queue.leave(&self.membership.current())
    }
}

impl Drop for RedisEntry {
    fn drop(&mut self) {
        let _ = self.leave();
    }
}

impl Server {
    /// A server to be.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// What is begun on the way is undone, the latest first, where a later step fails.
    fn start(config: Config, handlers: Handlers, signals: &Receiver<()>) -> Result<Server, StartError> {
        let go_on = || if signals.try_recv().is_ok() { Err(StartError::Stopped) } else { Ok(()) };
        catch_handler_panics();
        check_threads(&config)?;
        let listener = TcpListener::bind(config.listen).map_err(|error| {
            StartError::Configuration(format!("listen: cannot listen on {}: {error}", config.listen))
        })?;
        go_on()?;
        let redis = config.redis_url.is_none().then(|| WatchedRedis::start(&config, signals)).transpose()?;
        let url = match (&redis, &config.redis_url) {
            (Some(redis), _) => redis.redis.url(),
            (None, Some(url)) => url.expose().to_owned(),
            (None, None) => String::new(),
        };
        let queue = Arc::new(connect(&config, &url)?);
        match queue.redis_info() {
            Ok(info) => {
                judge_redis(&info)?.iter().for_each(|warning| log::warn!("{warning}"));
                // What is lacking may be granted later: the log and /readyz have it until then.
                let _ = queue.check_ready();
            }
            Err(error) => log::warn!("started without Redis: {error}"),
        }
        go_on()?;

        if handlers.job_types().next().is_none() {
            log::warn!("{NO_HANDLERS}");
        }
        if config.lease_timeout < SHORT_LEASE {
            let lease = config.lease_timeout;
            log::warn!(
                "lease-timeout is {lease:?}: while Redis takes long to answer, this server can be held to be dead; at \
                 least {SHORT_LEASE:?} is safer"
            );
        }

        let handlers = Arc::new(handlers);
        let metrics = Arc::new(Metrics::new(handlers.job_types()));
        let queue_names: Vec<String> = config.queues.iter().map(|queue| queue.name.clone()).collect();
        let registrar = Registrar::new(config.workers, queue_names.clone());
        let membership = registrar.membership();
        let in_flight = Arc::new(InFlight::new(config.workers));
        let scheduler = Scheduler::default();
        let (stop, stopping) = shutdown::channel();
        let (end, ending) = shutdown::channel();

        // As many as may be taken: a fetcher never waits here.
        let (to_workers, jobs) = bounded(config.workers);
        // One outcome for each job in hand: whoever sends never waits.
        let (to_committer, outcomes) = bounded(2 * config.workers);
        let given_back = Arc::new(AtomicUsize::new(0));
        let workers = Arc::new(Workers {
            jobs,
            committer: to_committer.clone(),
            in_flight: in_flight.clone(),
            handlers: handlers.clone(),
            queue: queue.clone(),
            membership: membership.clone(),
            inline_backoff: config.inline_backoff,
            metrics: metrics.clone(),
            shutdown: stopping.clone(),
        });
        for number in 0..config.workers {
            workers.spawn(number)?;
        }
        spawn("watchdog", move || workers.watch())?;
        let committer = Committer {
            outcomes,
            queue: queue.clone(),
            membership: membership.clone(),
            in_flight: in_flight.clone(),
            scheduler: scheduler.clone(),
            metrics: metrics.clone(),
            given_back: given_back.clone(),
            shutdown: stopping.clone(),
            end: ending.clone(),
        };
        spawn("committer", move || committer.run())?;
        let last_beat = LastBeat::default();
        // The news of one beat may wait for a thread that is still busy with those of another.
        let (to_reaper, findings) = bounded(1);
        let reaper = Reaper {
            queue: queue.clone(),
            membership: membership.clone(),
            in_flight: in_flight.clone(),
            metrics: metrics.clone(),
            max_crashes: config.max_crashes,
            findings,
            shutdown: ending.clone(),
        };
        spawn("reaper", move || reaper.run())?;
        let (to_reporter, looks) = bounded(1);
        let reporter = Reporter {
            queue: queue.clone(),
            membership: membership.clone(),
            in_flight: in_flight.clone(),
            metrics: metrics.clone(),
            looks,
        };
        let reporter = spawn("reporter", move || reporter.run())?;
        let early_beat = EarlyBeat::default();
        let heartbeat = Heartbeat {
            queue: queue.clone(),
            registrar,
            in_flight: in_flight.clone(),
            queues: queue_names.clone(),
            scheduler: scheduler.clone(),
            reaper: to_reaper,
            reporter: to_reporter,
            lease_timeout: config.lease_timeout,
            early: early_beat.clone(),
            last_beat: last_beat.clone(),
            shutdown: ending,
        };
        let heartbeat = spawn("heartbeat", move || heartbeat.run())?;
        let entry = RedisEntry {
            queue: queue.clone(),
            membership: membership.clone(),
            end: Some(end),
            heartbeat: Some(heartbeat),
            reporter: Some(reporter),
        };
        let (own, workers) = (membership.current(), config.workers);
        log::info!(server = own.as_str(); "server={own}: starts, with {workers} workers");
        start_upkeep(&config, &queue, &scheduler, &metrics, &stopping)?;
        let settings = api::Settings {
            access: api::Access { token: config.api_token.clone(), any_host: config.insecure_no_token },
            max_body: config.max_body,
            max_connections: config.max_connections,
            lease_timeout: config.lease_timeout,
            queues: queue_names.clone(),
        };
        let api = Api {
            queue: queue.clone(),
            group_commit: GroupCommit::new(queue.clone(), config.max_queue_length),
            membership: membership.clone(),
            in_flight: in_flight.clone(),
            handlers,
            scheduler,
            metrics: metrics.clone(),
            listings: api::ListingSlots::default(),
            settings,
        };
        // Whoever hears that the server listens may ask at once whether it is ready.
        let begun = Instant::now();
        while membership.is_new() && begun.elapsed() < FIRST_BEAT {
            std::thread::sleep(LOOK / 10);
        }
        let api = api::start(api, listener)?;
        // Last, so that a job that ends the process does not do so before anybody was answered.
        let weights = config.queues.iter().map(|queue| (queue.name.clone(), queue.weight));
        let turns = Arc::new(TakePermits::new(weights, config.fetchers));
        let shared = Arc::new(Fetchers {
            queue: queue.clone(),
            membership: membership.clone(),
            early_beat,
            in_flight: in_flight.clone(),
            workers: to_workers,
            committer: to_committer,
            turns: turns.clone(),
            max_crashes: config.max_crashes,
            metrics,
            shutdown: stopping,
        });
        let mut fetchers = Vec::new();
        for (queue, names) in queue_names.iter().zip(fetcher::thread_names(&queue_names, config.fetchers)) {
            for (number, name) in names.iter().enumerate() {
                let (shared, queue) = (shared.clone(), queue.clone());
                let spawned = spawn(name, move || match number {
                    0 => shared.run(&queue),
                    _ => shared.help(&queue),
                });
                match spawned {
                    Ok(fetcher) => fetchers.push(fetcher),
                    Err(error) => {
                        in_flight.close();
                        turns.close();
                        api.stop();
                        return Err(io::Error::into(error));
                    }
                }
            }
        }
        let drain_timeout = config.drain_timeout;
        Ok(Server {
            api,
            queue,
            in_flight,
            drain_timeout,
            stop,
            entry,
            given_back,
            last_beat,
            fetchers,
            turns,
            redis,
        })
    }

    /// Where the API listens.
    pub fn addr(&self) -> SocketAddr {
        self.api.addr()
    }

    /// Looks from outside whether it works, for a program that tells its service manager. What `threadq serve` tells
    /// systemd is this.
    pub fn liveness(&self) -> Liveness {
        Liveness::new(self.last_beat.clone(), self.addr())
    }

    /// Stops in order, in no hurry: see [`Server::shut_down`].
    pub fn stop(self) {
        self.shut_down(&crossbeam_channel::never());
    }

    /// Stops in order: no more requests and jobs; running ones end for up to the drain timeout, or until something
    /// comes through `hurry`; the rest goes back to the queue, nothing charged. Blocks until all that is done.
    ///
    /// A thread whose handler never returns is left to the end of the process.
    pub fn shut_down(mut self, hurry: &Receiver<()>) {
        // Beside the rest: a slow client must not hold up a second signal.
        let api = self.api;
        let api = spawn("api-stop", move || api.stop());
        self.in_flight.close();
        self.turns.close();
        drop(self.stop);
        let given_back_before = self.given_back.load(Ordering::Relaxed);
        let mut hurried = false;
        while !self.fetchers.iter().all(JoinHandle::is_finished) {
            // Again each time: one may have been on its way into the blocking command.
            self.queue.unblock_fetchers();
            hurried |= hurry_or_wait(hurry);
            if self.queue.is_unavailable() {
                break;
            }
        }
        let deadline = Instant::now() + self.drain_timeout;
        while !self.in_flight.is_empty() && Instant::now() < deadline && !hurried {
            hurried = hurry_or_wait(hurry);
        }
        if !self.in_flight.is_empty() {
            log::warn!("{} jobs still run: they go back to their queues", self.in_flight.len());
            self.in_flight.stop_all(StopReason::Shutdown);
            let deadline = Instant::now() + STOP_GRACE;
            while !self.in_flight.is_empty() && Instant::now() < deadline && !hurried {
                hurried = hurry_or_wait(hurry);
            }
            if hurried {
                self.in_flight.hurry_all();
                let deadline = Instant::now() + LAST_GRACE;
                while !self.in_flight.is_empty() && Instant::now() < deadline {
                    std::thread::sleep(LOOK);
                }
            }
        }
        match self.entry.leave() {
            Ok(left) => {
                let given_back = self.given_back.load(Ordering::Relaxed) - given_back_before;
                let moved = given_back + left.map_or(0, |left| left.moved);
                log::info!("stopped; {moved} jobs went back to their queues");
            }
            Err(error) => {
                log::warn!("stopped without Redis; other servers will take over what is left: {error}")
            }
        }
        if let Ok(api) = api
            && !hurried
        {
            let _ = api.join();
        }
        if let Some(redis) = &mut self.redis {
            redis.stop(hurry);
        }
    }
}

/// Waits a moment; whether something came through `hurry`.
fn hurry_or_wait(hurry: &Receiver<()>) -> bool {
    match hurry.recv_timeout(LOOK) {
        Ok(()) => true,
        Err(crossbeam_channel::RecvTimeoutError::Timeout) => false,
        // Nobody can hurry us any more: wait all the same.
        Err(crossbeam_channel::RecvTimeoutError::Disconnected) => {
            std::thread::sleep(LOOK);
            false
        }
    }
}

fn start_upkeep(
    config: &Config,
    queue: &Arc<Queue>,
    scheduler: &Scheduler,
    metrics: &Arc<Metrics>,
    stopping: &Shutdown,
) -> Result<(), StartError> {
    let retention = Retention {
        completed: (config.retain_completed, config.retain_completed_max),
        failed: (config.retain_failed, config.retain_failed_max),
    };
    spawn("scheduler", {
        let (scheduler, queue, stopping) = (scheduler.clone(), queue.clone(), stopping.clone());
        move || scheduler.run(&queue, &stopping)
    })?;
    spawn("janitor", {
        let (queue, metrics, stopping) = (queue.clone(), metrics.clone(), stopping.clone());
        move || run_janitor(&queue, &metrics, retention, &stopping)
    })?;
    Ok(())
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    ThreadBuilder::new().name(name.to_owned()).spawn(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::testing::TempDir;
    use crate::private_redis::RunningRedis;

    #[test]
    fn a_private_redis_that_is_dropped_has_ended() {
        let dir = TempDir::new();
        let config = Config { data_dir: dir.path().join("data"), ..Config::default() };
        let never = crossbeam_channel::never();
        let redis = WatchedRedis::start(&config, &never).unwrap();
        assert!(RunningRedis::find(&config.data_dir).unwrap().is_some());
        drop(redis);
        assert!(RunningRedis::find(&config.data_dir).unwrap().is_none());
    }

    #[test]
    fn a_start_that_was_told_to_stop_starts_no_redis() {
        let dir = TempDir::new();
        let data_dir = dir.path().join("data");
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = Config { listen, data_dir, ..Config::default() };
        let (signal, signals) = bounded(1);
        signal.send(()).unwrap();
        let started = Server::builder().config(config.clone()).start_unless(&signals);
        assert!(matches!(started, Err(StartError::Stopped)));
        assert!(!config.data_dir.exists());
    }
}
