//! The start of a server, step by step.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::api::{self, Api};
use crate::config::Config;
use crate::engine::group_commit::GroupCommit;
use crate::engine::panics;
use crate::engine::schedules::CheckedSchedule;
use crate::gate::threads;
use crate::handler::Handlers;
use crate::queue::Queue;
use crate::server::engine::Engine;
use crate::server::error::StartError;
use crate::server::handlers::{NO_HANDLERS, pulled_here};
use crate::server::limits::undefined_limits;
use crate::server::running::Server;
use crate::server::store::{self, SentinelWatch, WatchedRedis, fetcher_count};

/// How long a start waits until Redis has accepted or refused the first heartbeat, so that a client that asks for
/// `/readyz` at once gets the true answer.
const FIRST_BEAT_TIMEOUT: Duration = Duration::from_millis(500);
const FIRST_BEAT_POLL_INTERVAL: Duration = Duration::from_millis(2);
/// How long a server with another protocol is watched beyond the lease.
const AFTER_LEASE: Duration = Duration::from_secs(1);
const OTHERS_POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The number of threads besides workers and fetchers: for the engine, the API, tiny_http, the connection pools, and the
/// first clients.
const FURTHER_THREADS: usize = 48;
/// One call to a slow Redis may take 1 s for a connection and 1.8 s for the reply: a shorter lease can expire
/// meanwhile.
const SAFE_LEASE: Duration = Duration::from_secs(5);

/// Starts a server. If a step fails, the earlier steps are undone in reverse order.
pub(super) fn start(
    config: Config,
    handlers: Handlers,
    schedules: Vec<CheckedSchedule>,
    signals: &Receiver<()>,
) -> Result<Server, StartError> {
    panics::install_hook();
    check_threads(&config)?;
    let listener = bind(&config)?;
    check_signals(signals)?;
    let private_redis =
        config.redis_url.is_none().then(|| WatchedRedis::start(&config, signals)).transpose()?;
    let queue = connect(&config, private_redis.as_ref(), signals)?;
    check_signals(signals)?;
    log_risky_settings(&config, &handlers);

    let handlers = Arc::new(handlers);
    let (mut engine, fetchers) = Engine::start(&config, &handlers, schedules, queue)?;
    let sentinel_watch = SentinelWatch::start(&engine.shared.queue)?;
    let (server, workers) = (engine.shared.server(), config.workers);
    log::info!(server = server.as_str(); "server={server}: starting with {workers} workers");
    let api = start_api(&config, handlers.clone(), &engine, listener)?;
    // After the API: a job that ends the process at once must not do so before a client had an answer.
    if let Err(error) = engine.start_fetchers(&config, fetchers) {
        engine.close();
        api.stop();
        return Err(error.into());
    }
    Ok(Server {
        api,
        engine,
        handlers,
        drain_timeout: config.drain_timeout,
        _sentinel_watch: sentinel_watch,
        private_redis,
    })
}

fn check_signals(signals: &Receiver<()>) -> Result<(), StartError> {
    if signals.try_recv().is_ok() { Err(StartError::Stopped) } else { Ok(()) }
}

/// Whether the system allows all threads of this server. One error for all of them is easier to act on than the failure
/// of a single one later.
fn check_threads(config: &Config) -> Result<(), StartError> {
    let number = config.workers + fetcher_count(config) + FURTHER_THREADS;
    threads::check_threads(number).map_err(|(started, error)| StartError::Failed {
        message: format!(
            "cannot start the threads that this server needs ({number}; the system allowed {started}): {error}; raise the \
             limit of processes or of memory, or lower workers"
        ),
        source: Some(error.into()),
    })
}

fn bind(config: &Config) -> Result<TcpListener, StartError> {
    TcpListener::bind(config.listen).map_err(|error| {
        StartError::Configuration(format!("listen: cannot listen on {}: {error}", config.listen))
    })
}

/// The queue on the configured Redis or on the private Redis. An unreachable Redis is not an error, an unsuitable Redis
/// is.
fn connect(
    config: &Config,
    private_redis: Option<&WatchedRedis>,
    signals: &Receiver<()>,
) -> Result<Queue, StartError> {
    let url = match (private_redis, &config.redis_url) {
        (Some(redis), _) => redis.url(),
        (None, Some(url)) => url.expose().to_owned(),
        (None, None) => String::new(),
    };
    let queue = store::queue(config, &url)?;
    match queue.redis_info() {
        Ok(info) => {
            store::check_version(&info)?;
            store::warnings(&info).for_each(|warning| log::warn!("{warning}"));
            // Logs missing rights. They are not an error, because an administrator can grant them later.
            let _ = queue.check_ready();
            wait_for_other_protocols(&queue, config, signals)?;
            pulled_here(config, Some(&queue)).iter().for_each(|warning| log::warn!("{warning}"));
        }
        Err(error) => {
            store::check_url(&queue)?;
            log::warn!("started without Redis, jobs run as soon as it is reachable: {error}");
        }
    }
    Ok(queue)
}

/// Refuses to start beside a living server of another protocol: each of the two would break what the other one stores. A
/// server is alive if its heartbeat counter moves. A server that sends no heartbeat for a whole lease is dead.
fn wait_for_other_protocols(
    queue: &Queue,
    config: &Config,
    signals: &Receiver<()>,
) -> Result<(), StartError> {
    // Without an answer, or without the right to ask, the server cannot take jobs yet either, and says why.
    let Ok(seen) = queue.servers_of_other_protocols() else { return Ok(()) };
    let Some((name, _)) = seen.first() else { return Ok(()) };
    log::warn!("server={name} has another protocol; waiting until its heartbeat shows whether it is alive");
    let started = Instant::now();
    while started.elapsed() < config.lease_timeout + AFTER_LEASE {
        if signals.recv_timeout(OTHERS_POLL_INTERVAL).is_ok() {
            return Err(StartError::Stopped);
        }
        let Ok(now) = queue.servers_of_other_protocols() else { return Ok(()) };
        if let Some((name, _)) = now.iter().find(|server| !seen.contains(server)) {
            return Err(StartError::Configuration(format!(
                "namespace: the server {name} runs another version of threadq, which cannot share jobs with this version; \
                 stop all servers of the other version first: their jobs wait in Redis"
            )));
        }
        if now.is_empty() {
            break;
        }
    }
    Ok(())
}

fn log_risky_settings(config: &Config, handlers: &Handlers) {
    if handlers.job_types().next().is_none() && config.workers > 0 {
        log::warn!("{NO_HANDLERS}");
    }
    undefined_limits(config).iter().for_each(|warning| log::warn!("{warning}"));
    if config.lease_timeout < SAFE_LEASE {
        log::warn!(
            "lease-timeout is {:?}: if one call to Redis takes longer, other servers reclaim the jobs of this server; set at \
             least {SAFE_LEASE:?}",
            config.lease_timeout
        );
    }
}

fn start_api(
    config: &Config,
    handlers: Arc<Handlers>,
    engine: &Engine,
    listener: TcpListener,
) -> Result<api::Running, StartError> {
    let shared = &engine.shared;
    let settings = api::Settings {
        access: api::Access {
            token: config.api_token.clone(),
            worker_token: config.worker_token.clone(),
            any_host: config.insecure_no_token,
        },
        max_body: config.max_body,
        max_connections: config.max_connections,
        max_waiting: config.max_waiting,
        lease_timeout: config.lease_timeout,
        queues: config.queue_names(),
        workers: config.workers,
    };
    let api = Api {
        queue: shared.queue.clone(),
        group_commit: GroupCommit::new(shared.queue.clone(), config.max_queue_length),
        membership: shared.membership.clone(),
        in_flight: shared.in_flight.clone(),
        handlers,
        due_timer: shared.due_timer.clone(),
        metrics: shared.metrics.clone(),
        pullers: engine.pullers.clone(),
        report_refusals: Mutex::default(),
        listings: api::Slots::default(),
        bulk_slots: api::Slots::default(),
        settings,
    };
    let started = Instant::now();
    while shared.membership.is_new() && started.elapsed() < FIRST_BEAT_TIMEOUT {
        thread::sleep(FIRST_BEAT_POLL_INTERVAL);
    }
    Ok(api::start(api, listener)?)
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;
    use tempfile::tempdir;

    use super::*;

    #[test]
    fn a_start_that_was_told_to_stop_starts_no_redis() {
        let dir = tempdir().unwrap();
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
