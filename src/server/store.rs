//! The server's Redis: the connections, the check for an unsuitable Redis, and the private Redis or the Sentinels with their
//! watching thread.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::Receiver;

use crate::config::Config;
use crate::engine::takers::MAX_PULLED_QUEUES;
use crate::private_redis::{self, PrivateRedis};
use crate::queue::{self, Queue, Severity};
use crate::server::error::StartError;
use crate::server::threads::spawn;

/// The number of connections besides one for each fetcher, puller and worker: a fetcher or a puller blocks or takes, and a
/// worker retries jobs inline.
const FURTHER_CONNECTIONS: u32 = 16;

/// The number of fetchers, over all queues.
pub(super) fn fetcher_count(config: &Config) -> usize {
    config.taken_queues().len() * config.fetchers
}

/// Prepares the queue. Makes no connection yet, so an unreachable Redis is not an error.
pub(super) fn queue(config: &Config, url: &str) -> Result<Queue, StartError> {
    let settings = queue::Settings {
        url: url.to_owned(),
        certificates: config.redis_certificates(),
        namespace: config.namespace.clone(),
        connections: FURTHER_CONNECTIONS
            + (config.workers + fetcher_count(config) + MAX_PULLED_QUEUES) as u32,
        // Only the first fetcher of each queue blocks, and the puller.
        fetchers: (config.taken_queues().len() + MAX_PULLED_QUEUES) as u32,
        replicas: config.redis_replicas,
    };
    Queue::new(&settings).map_err(|error| StartError::Configuration(error.to_string()))
}

/// Returns an error for a Redis on which the queue cannot work.
pub(super) fn check_version(info: &queue::RedisInfo) -> Result<(), StartError> {
    if info.is_supported() {
        return Ok(());
    }
    Err(StartError::Configuration(format!(
        "redis-url: this is {} {}; allowed: Redis from 7.0 or Valkey from 7.2",
        info.product, info.version
    )))
}

/// Warns about a Redis that endangers jobs.
pub(super) fn warnings(info: &queue::RedisInfo) -> impl Iterator<Item = String> {
    let warnings = info.problems().into_iter().filter(|problem| problem.severity != Severity::Note);
    warnings.map(|problem| format!("{}; {}", problem.what, problem.todo))
}

/// The error of a start whose `redis-url` leads to a Sentinel or to a node of a Cluster, and does not say so.
pub(super) fn check_url(queue: &Queue) -> Result<(), StartError> {
    match queue.wrong_url() {
        Some(reason) => Err(StartError::Configuration(format!("redis-url: {reason}"))),
        None => Ok(()),
    }
}

/// The thread `redis-watch`, which listens to the Sentinels. Ends when this is dropped.
pub(super) struct SentinelWatch {
    /// Closed to end the thread.
    end: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl SentinelWatch {
    /// `None` without Sentinels.
    pub(super) fn start(queue: &Arc<Queue>) -> io::Result<Option<SentinelWatch>> {
        if !queue.has_sentinels() {
            return Ok(None);
        }
        let (end, ending) = UnixStream::pair()?;
        let queue = queue.clone();
        let thread = spawn("redis-watch", move || queue.watch(&ending))?;
        Ok(Some(SentinelWatch { end: Some(end), thread: Some(thread) }))
    }
}

impl Drop for SentinelWatch {
    fn drop(&mut self) {
        self.end = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The private Redis and the thread `redis-watch`, which restarts it. Both end when this is dropped.
pub(super) struct WatchedRedis {
    redis: Arc<PrivateRedis>,
    watch: Option<JoinHandle<()>>,
}

impl WatchedRedis {
    pub(super) fn start(config: &Config, signals: &Receiver<()>) -> Result<WatchedRedis, StartError> {
        let is_stop_requested = || signals.try_recv().is_ok();
        let redis = match PrivateRedis::start(&config.data_dir, config.fsync.as_str(), &is_stop_requested) {
            Ok(redis) => Arc::new(redis),
            Err(private_redis::StartError::Stopped) => return Err(StartError::Stopped),
            Err(error) if error.is_configuration() => {
                return Err(StartError::Configuration(error.to_string()));
            }
            Err(error) => {
                return Err(StartError::Failed { message: error.to_string(), source: Some(error.into()) });
            }
        };
        let mut started = WatchedRedis { redis: redis.clone(), watch: None };
        started.watch = Some(spawn("redis-watch", move || redis.watch())?);
        Ok(started)
    }

    pub(super) fn url(&self) -> String {
        self.redis.url()
    }

    /// Ends the thread and the private Redis. A message through `hurry` kills a redis-server that has not ended yet.
    pub(super) fn stop(&mut self, hurry: &Receiver<()>) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_redis::RunningRedis;
    use tempfile::tempdir;

    #[test]
    fn a_private_redis_that_is_dropped_has_ended() {
        let dir = tempdir().unwrap();
        let config = Config { data_dir: dir.path().join("data"), ..Config::default() };
        let never = crossbeam_channel::never();
        let redis = WatchedRedis::start(&config, &never).unwrap();
        assert!(RunningRedis::find(&config.data_dir).unwrap().is_some());
        drop(redis);
        assert!(RunningRedis::find(&config.data_dir).unwrap().is_none());
    }
}
