//! [`Config`] and the types of its fields.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::secret::Secret;
use crate::handler::Policy;
use crate::handler::limits::ResourceLimits;
use crate::handler::lines::Lines;
use crate::job::DEFAULT_QUEUE;
use crate::job::limit::{LimitName, LimitNumbers};
use crate::logging::LogFormat;
use crate::net::authorities::Authorities;
use crate::net::certificates::{Certificates, ClientCertificate, ClientKey};
use crate::schedule::Spec as ScheduleSpec;

/// All settings of a server.
///
/// [`Config::load`] checks all ranges. A program that sets fields itself must keep to the ranges named here.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address and port for HTTP requests; port 0 takes a free port. Defaults to 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// The URL of Redis: `redis://`, `rediss://` (with the feature `tls`), `redis+unix://` or `unix://`. Defaults to none:
    /// the server starts a private Redis.
    pub redis_url: Option<Secret>,
    /// The certificate authorities for all TLS connections: of `http` handlers and to Redis. Defaults to none: the public
    /// authorities that browsers trust.
    pub ca: Option<Authorities>,
    /// The certificate authorities for a `redis_url` with TLS, in place of `ca`. Defaults to none.
    pub redis_ca: Option<Authorities>,
    /// The certificate that a `rediss://` server gets from this program. Defaults to none.
    pub redis_cert: Option<ClientCertificate>,
    /// The private key of `redis_cert`. Defaults to none.
    pub redis_key: Option<ClientKey>,
    /// How many replicas of Redis must have a job before it is acknowledged: 0 to 5. Defaults to 0.
    pub redis_replicas: u32,
    /// The folder for the data of the private Redis, relative to the working directory. Defaults to `./threadq-data`.
    pub data_dir: PathBuf,
    /// How often the private Redis flushes its writes to the disk. Defaults to every second.
    pub fsync: Fsync,
    /// The prefix of all keys in Redis: 1 to 64 of `A-Z a-z 0-9 _ . -`. Defaults to `threadq`.
    pub namespace: String,
    /// The queues that this server takes jobs from: at least one, with distinct names. Defaults to the queue `default`.
    pub queues: Vec<QueueShare>,
    /// The number of threads that run jobs: 0 to 1,000. With 0 this server takes no jobs of its own: it answers requests, also
    /// those of pull workers. Defaults to 30.
    pub workers: usize,
    /// The number of threads per queue that take jobs from Redis: 1 to 16. Defaults to 1: jobs of a queue start strictly in
    /// the order of their submission. More threads overlap the round trips to a distant Redis, and keep that order only
    /// approximately.
    pub fetchers: usize,
    /// How long running jobs may take to end when the server stops, up to 10 years. Defaults to 25 s.
    pub drain_timeout: Duration,
    /// The time without a heartbeat after which other servers reclaim the jobs of a server: 1 s to 10 years. Defaults to 15 s.
    pub lease_timeout: Duration,
    /// The largest number of open HTTP connections: 1 to 65,536. Defaults to 512.
    pub max_connections: usize,
    /// The largest number of HTTP requests that wait at a time, for the end of a job or for jobs: 1 to 32,768, and at most half
    /// of `max_connections`. Defaults to 100.
    pub max_waiting: usize,
    /// The largest request body in bytes: 1 KiB to 64 MiB. Defaults to 1 MiB.
    pub max_body: usize,
    /// The number of queued jobs at which a queue refuses more: 1 to 2^53 - 1. Defaults to 1,000,000.
    pub max_queue_length: u64,
    /// How long completed and cancelled jobs are kept, up to 10 years. Defaults to 24 h.
    pub retain_completed: Duration,
    /// How many completed and cancelled jobs are kept, up to 2^53 - 1. Defaults to 100,000.
    pub retain_completed_max: u64,
    /// How long failed jobs are kept, up to 10 years. Defaults to 90 days.
    pub retain_failed: Duration,
    /// How many failed jobs are kept, up to 2^53 - 1. Defaults to 100,000.
    pub retain_failed_max: u64,
    /// How many crashes of a server a job may cause before it goes to the dead letter queue: 1 to 100. Defaults to 3.
    pub max_crashes: u32,
    /// The longest backoff that a worker waits out itself. A job with a longer backoff waits in Redis; with zero every job
    /// does. Defaults to 200 ms.
    pub inline_backoff: Duration,
    /// The bearer token that requests must have: 1 to 1,024 visible ASCII characters. Defaults to none.
    pub api_token: Option<Secret>,
    /// The bearer token of pull workers: 1 to 1,024 visible ASCII characters. It needs an `api_token`. Defaults to none.
    pub worker_token: Option<Secret>,
    /// Whether requests from other machines, and for any `Host`, are accepted without a token. Defaults to no.
    pub insecure_no_token: bool,
    /// The format of log lines. Defaults to text.
    pub log_format: LogFormat,
    /// The lowest level of the log lines that are written. Defaults to info.
    pub log_level: LevelFilter,
    /// Whether the server has the demo handlers. Defaults to no.
    pub demo: bool,
    /// The handlers in the section `[handlers]` of the file, in the order of their types. Defaults to none.
    pub handlers: Vec<HandlerEntry>,
    /// The section `[limits]` of the file, with distinct names. Defaults to none.
    pub limits: Vec<(LimitName, LimitNumbers)>,
    /// The entries `[[schedules]]` of the file, with distinct names. Defaults to none.
    pub schedules: Vec<ScheduleEntry>,
    /// The folder that relative paths of `exec` handlers start at: the folder of the file, or without a file the working
    /// directory. [`Config::load`] makes it absolute. Defaults to `.`.
    pub config_dir: PathBuf,
    /// Warnings for the operator about secrets that other users can read. Each is one line and contains no secret.
    pub warnings: Vec<String>,
}

/// A queue that a server takes jobs from, and its share of the workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueShare {
    /// The name: 1 to 64 of `A-Z a-z 0-9 _ . -`.
    pub name: String,
    /// The share of the workers, relative to the weights of the other queues: 1 to 100. A strict queue ignores it.
    pub weight: u32,
    /// Whether jobs of this queue start before jobs of all queues after it in the list, and of all queues that are not
    /// strict.
    pub strict: bool,
}

/// How often the private Redis flushes its writes to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Every second. A power failure can lose the last second; the end of the process loses nothing.
    EverySec,
    /// Before each response, so that a power failure loses nothing.
    Always,
}

impl Fsync {
    /// The word in the configuration, and in Redis's `appendfsync`.
    pub fn as_str(self) -> &'static str {
        match self {
            Fsync::EverySec => "everysec",
            Fsync::Always => "always",
        }
    }
}

/// An entry of the section `[handlers]`: the jobs of one type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HandlerEntry {
    /// The job type: 1 to 100 characters, none of them a control character.
    pub job_type: String,
    /// What runs the jobs. `None`: the handler of this type that exists in Rust.
    pub run: Option<Run>,
    /// The resource limits of an `exec` handler. Empty for any other handler.
    pub limits: ResourceLimits,
    /// How many programs of an `exec` handler stay for many jobs, and how long. `None`: a program for each attempt.
    pub lines: Option<Lines>,
    /// Timeout (1 ms to 24 h), attempts (1 to 100) and backoff (up to 365 days). Each defaults as in [`Policy`].
    pub policy: Policy,
    /// Whether the lines that the program of an `exec` handler writes to standard error become log lines of the job. The
    /// lines that the program reports are log lines in any case.
    pub stderr_is_log: bool,
    /// The limit of this job type alone, over all servers.
    pub limit: Option<LimitNumbers>,
    /// The limits of each job of this type, besides those that the job names itself: up to 4, `limit` included.
    pub limited_by: Vec<LimitName>,
}

impl HandlerEntry {
    /// All limits of each job of this type.
    pub(crate) fn all_limits(&self) -> Vec<LimitName> {
        let mut limits: Vec<LimitName> =
            self.limit.iter().map(|_| LimitName::of_type(&self.job_type)).collect();
        LimitName::add(&mut limits, &self.limited_by);
        limits
    }
}

/// An entry `[[schedules]]`: jobs that the server submits at fixed times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleEntry {
    /// The name: 1 to 64 of `A-Z a-z 0-9 _ . -`, but not `preview`.
    pub name: String,
    /// When there are ticks.
    pub spec: ScheduleSpec,
    /// The job of each tick: the JSON of a job as POST /jobs reads it, without `delay_ms`, `run_at` and a unique key.
    pub job: String,
}

/// What runs the jobs of a type.
#[derive(Clone, PartialEq, Eq)]
pub enum Run {
    /// A program and its arguments. There is at least one word, and the first one is not empty.
    Exec(Vec<String>),
    /// The URL that jobs are posted to: `http://`, or `https://` with the feature `tls`.
    Http(String),
    /// Pull workers take the jobs. This server runs none of them.
    Pull,
}

/// Shows neither URL nor arguments, which may hold secrets.
impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Run::Exec(words) => write!(f, "Exec({:?}, ***)", words.first().map_or("", String::as_str)),
            Run::Http(_) => f.write_str("Http(***)"),
            Run::Pull => f.write_str("Pull"),
        }
    }
}

impl Config {
    /// The certificates for TLS connections to Redis.
    pub(crate) fn redis_certificates(&self) -> Certificates {
        Certificates {
            ca: self.redis_ca.clone().or_else(|| self.ca.clone()),
            client: self.redis_cert.clone().zip(self.redis_key.clone()),
        }
    }

    /// The queues that the workers of the server take jobs from: none without workers.
    pub(crate) fn taken_queues(&self) -> &[QueueShare] {
        if self.workers == 0 { &[] } else { &self.queues }
    }

    /// The names of the queues that the workers of the server take jobs from.
    pub(crate) fn queue_names(&self) -> Vec<String> {
        self.taken_queues().iter().map(|queue| queue.name.clone()).collect()
    }

    /// All limits that this configuration defines: those of the section `[limits]`, and those of single job types.
    pub(crate) fn defined_limits(&self) -> Vec<(LimitName, LimitNumbers)> {
        let of_types = self
            .handlers
            .iter()
            .filter_map(|handler| Some((LimitName::of_type(&handler.job_type), handler.limit?)));
        self.limits.iter().cloned().chain(of_types).collect()
    }

    /// The names of those queues that are strict.
    pub(crate) fn strict_queue_names(&self) -> Vec<String> {
        self.taken_queues().iter().filter(|queue| queue.strict).map(|queue| queue.name.clone()).collect()
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            redis_url: None,
            ca: None,
            redis_ca: None,
            redis_cert: None,
            redis_key: None,
            redis_replicas: 0,
            data_dir: PathBuf::from("./threadq-data"),
            fsync: Fsync::EverySec,
            namespace: "threadq".to_owned(),
            queues: vec![QueueShare { name: DEFAULT_QUEUE.to_owned(), weight: 1, strict: false }],
            workers: 30,
            fetchers: 1,
            drain_timeout: Duration::from_secs(25),
            lease_timeout: Duration::from_secs(15),
            max_connections: 512,
            max_waiting: 100,
            max_body: 1 << 20,
            max_queue_length: 1_000_000,
            retain_completed: Duration::from_secs(24 * 3600),
            retain_completed_max: 100_000,
            retain_failed: Duration::from_secs(90 * 24 * 3600),
            retain_failed_max: 100_000,
            max_crashes: 3,
            inline_backoff: Duration::from_millis(200),
            api_token: None,
            worker_token: None,
            insecure_no_token: false,
            log_format: LogFormat::Text,
            log_level: LevelFilter::Info,
            demo: false,
            handlers: Vec::new(),
            limits: Vec::new(),
            schedules: Vec::new(),
            config_dir: PathBuf::from("."),
            warnings: Vec::new(),
        }
    }
}
