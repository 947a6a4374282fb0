//! What a server is told at start: flags, environment and file, checked, as one value.
//!
//! A setting goes through the same reader wherever it comes from: `settings.rs` has the one list of them. A flag beats an
//! environment variable, which beats the file, which beats the default. Every value that is given is checked, also one
//! that another beats. This part starts nothing and knows neither Redis nor HTTP.

mod exposure;
mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod secret;
mod settings;
mod sources;
mod values;

use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use log::LevelFilter;

pub use self::secret::Secret;
pub use self::settings::{help_settings, setting_flags};
use self::sources::Given;
use self::values::Invalid;
use crate::handler::Policy;
use crate::handler::limits::ResourceLimits;
use crate::job::DEFAULT_QUEUE;
use crate::logging::LogFormat;
use crate::net::authorities;
pub use crate::net::authorities::{Authorities, InvalidAuthorities};

/// Everything that a server is told at start.
///
/// [`Config::load`] checks all ranges; fields that are set by hand are taken as they are.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where HTTP requests are taken; port 0 is a free one. Defaults to 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// The Redis to use: `redis://`, `rediss://` (with the feature `tls`), `redis+unix://` or `unix://`. Defaults to
    /// none: a private one is started.
    pub redis_url: Option<Secret>,
    /// The authorities for every TLS connection: of http handlers and to Redis. Defaults to none: those that the web trusts.
    pub ca: Option<Authorities>,
    /// The authorities for a `rediss://` server, in place of `ca`. Defaults to none.
    pub redis_ca: Option<Authorities>,
    /// Where the private Redis keeps its data, relative to the working directory. Defaults to `./threadq-data`.
    pub data_dir: PathBuf,
    /// How often the private Redis writes through to the disk. Defaults to every second.
    pub fsync: Fsync,
    /// What the keys in Redis start with: 1 to 64 of `A-Z a-z 0-9 _ . -`. Defaults to `threadq`.
    pub namespace: String,
    /// Which queues to take jobs from, with distinct names, at least one. Defaults to `default` alone.
    pub queues: Vec<QueueShare>,
    /// Threads that run jobs: 1 to 1,000. Defaults to 30.
    pub workers: usize,
    /// Threads that take jobs from Redis, for each queue: 1 to 16. Defaults to 1, with which jobs of a queue start in the
    /// order of their submission; more overlap the round trips to a distant Redis, and that order is only about kept.
    pub fetchers: usize,
    /// How long running jobs may take to end when the server stops. Defaults to 25 s.
    pub drain_timeout: Duration,
    /// How long a server may be silent until its jobs are taken over: at least 1 s. Defaults to 15 s.
    pub lease_timeout: Duration,
    /// Open HTTP connections: 1 to 65,536. Defaults to 512.
    pub max_connections: usize,
    /// The largest request body in bytes: 1 KiB to 64 MiB. Defaults to 1 MiB.
    pub max_body: usize,
    /// Queued jobs from which on a queue takes no more: at least 1. Defaults to 1,000,000.
    pub max_queue_length: u64,
    /// How long completed jobs are kept. Defaults to 24 h.
    pub retain_completed: Duration,
    /// How many completed jobs are kept. Defaults to 100,000.
    pub retain_completed_max: u64,
    /// How long failed jobs are kept. Defaults to 90 days.
    pub retain_failed: Duration,
    /// How many failed jobs are kept. Defaults to 100,000.
    pub retain_failed_max: u64,
    /// Servers that a job may bring down before it is a dead letter: 1 to 100. Defaults to 3.
    pub max_crashes: u32,
    /// The longest wait before a retry that is slept on the worker's thread; zero parks all in Redis. Defaults to 200 ms.
    pub inline_backoff: Duration,
    /// What requests must carry as a bearer token: 1 to 1,024 visible ASCII characters. Defaults to none.
    pub api_token: Option<Secret>,
    /// Whether requests from other machines are taken without a token. Defaults to no.
    pub insecure_no_token: bool,
    /// How log lines look. Defaults to text.
    pub log_format: LogFormat,
    /// Which log lines are written. Defaults to info.
    pub log_level: LevelFilter,
    /// Whether there are handlers for trying things out. Defaults to no.
    pub demo: bool,
    /// The section `[handlers]` of the file, in the order of the types. Defaults to none.
    pub handlers: Vec<HandlerEntry>,
    /// Where relative paths of `exec` handlers start: the file's folder, or without a file the working directory.
    /// [`Config::load`] makes it absolute. Defaults to `.`.
    pub config_dir: PathBuf,
    /// What the operator should know about the sources of these values: secrets where others can read them. Each is a
    /// line without anything secret in it.
    pub warnings: Vec<String>,
}

/// A queue that a server takes jobs from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueShare {
    /// 1 to 64 of `A-Z a-z 0-9 _ . -`.
    pub name: String,
    /// Its share of the workers next to the weights of the others: 1 to 100.
    pub weight: u32,
}

/// How often the private Redis writes through to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Every second: the last second may be lost with the machine's power, not with the process.
    EverySec,
    /// Before every answer.
    Always,
}

impl Fsync {
    /// The word for it, here and in Redis's `appendfsync`.
    pub fn as_str(self) -> &'static str {
        match self {
            Fsync::EverySec => "everysec",
            Fsync::Always => "always",
        }
    }
}

/// What the file says about the jobs of one type.
#[derive(Clone, Debug, PartialEq)]
pub struct HandlerEntry {
    /// The type: 1 to 100 characters, none of them a control character.
    pub job_type: String,
    /// What runs such jobs; `None`: a handler that exists in Rust.
    pub run: Option<Run>,
    /// What its program may use up; none unless it is a program.
    pub limits: ResourceLimits,
    /// Timeout (1 ms to 24 h), attempts (1 to 100) and backoff (base up to cap); the default where the file is silent.
    pub policy: Policy,
}

/// What runs the jobs of a type.
#[derive(Clone, PartialEq, Eq)]
pub enum Run {
    /// A program and its arguments: at least one entry, the first one not empty.
    Exec(Vec<String>),
    /// The URL that jobs are posted to.
    Http(String),
}

/// Both may hold secrets: the key of a service in its URL, a password among the arguments.
impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Run::Exec(words) => write!(f, "Exec({:?}, ***)", words.first().map_or("", String::as_str)),
            Run::Http(_) => f.write_str("Http(***)"),
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            redis_url: None,
            ca: None,
            redis_ca: None,
            data_dir: PathBuf::from("./threadq-data"),
            fsync: Fsync::EverySec,
            namespace: "threadq".to_owned(),
            queues: vec![QueueShare { name: DEFAULT_QUEUE.to_owned(), weight: 1 }],
            workers: 30,
            fetchers: 1,
            drain_timeout: Duration::from_secs(25),
            lease_timeout: Duration::from_secs(15),
            max_connections: 512,
            max_body: 1 << 20,
            max_queue_length: 1_000_000,
            retain_completed: Duration::from_secs(24 * 3600),
            retain_completed_max: 100_000,
            retain_failed: Duration::from_secs(90 * 24 * 3600),
            retain_failed_max: 100_000,
            max_crashes: 3,
            inline_backoff: Duration::from_millis(200),
            api_token: None,
            insecure_no_token: false,
            log_format: LogFormat::Text,
            log_level: LevelFilter::Info,
            demo: false,
            handlers: Vec::new(),
            config_dir: PathBuf::from("."),
            warnings: Vec::new(),
        }
    }
}

impl Config {
    /// The configuration that flags, environment and file give. Reads the file and that of the token.
    ///
    /// `args` are the words after `serve`; `env` gives the value of a variable, and an empty one counts as not set.
    ///
    /// ```
    /// use threadq::config::Config;
    ///
    /// let env = |name: &str| (name == "THREADQ_WORKERS").then(|| "8".to_owned());
    /// let config = Config::load(["--lease-timeout", "5s"], env)?;
    /// assert_eq!((config.workers, config.lease_timeout.as_secs()), (8, 5));
    ///
    /// let error = Config::load(["--workers", "0"], env).unwrap_err().to_string();
    /// assert_eq!(error, r#"workers (flag --workers): "0" is too small; allowed: a whole number from 1 to 1000"#);
    /// # Ok::<(), threadq::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// The first flag, variable or key that is unknown or has a value that is not allowed.
    pub fn load<A>(args: A, env: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError>
    where
        A: IntoIterator,
        A::Item: Into<OsString>,
    {
        let env = |name: &str| env(name).filter(|text| !text.is_empty());
        let flags = sources::flags(args)?;
        let mut config = Config { config_dir: absolute_folder(Path::new(".")), ..Config::default() };
        if let Some((path, named_by)) = config_file(flags.config, env) {
            let file = file::read(&path, &named_by)?;
            config.config_dir = absolute_folder(Path::new(&path).parent().unwrap_or(Path::new("/")));
            config.handlers = file.handlers;
            config.warnings.extend(exposure::of_config_file(&path, &file.given));
            config.apply(file.given)?;
        }
        config.apply(sources::environment(env))?;
        config.warnings.extend(exposure::of_flags(&flags.given));
        config.apply(flags.given)?;
        config.take_authorities_of_system(env)?;
        config.check()?;
        Ok(config)
    }

    /// Where no setting names authorities, those that the environment names for all programs. A program that uses no TLS
    /// does not care whether they can be read.
    fn take_authorities_of_system(
        &mut self,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<(), ConfigError> {
        let has_https =
            self.handlers.iter().any(|handler| matches!(&handler.run, Some(Run::Http(url)) if is_https(url)));
        let is_needed = has_https || (self.redis_has_tls() && self.redis_ca.is_none());
        if let (None, true, Some(file)) = (&self.ca, is_needed, env(authorities::ENVIRONMENT)) {
            let origin = sources::env_origin(authorities::ENVIRONMENT);
            let read = values::ca_file(&file);
            self.ca = Some(read.map_err(|why| ConfigError::new("ca-file", &origin, &quoted(&file), why))?);
        }
        Ok(())
    }

    fn redis_has_tls(&self) -> bool {
        let is_tls =
            |url: &Secret| url.expose().get(..9).is_some_and(|start| start.eq_ignore_ascii_case("rediss://"));
        self.redis_url.as_ref().is_some_and(is_tls)
    }

    /// Puts what one source gives over what is there.
    fn apply(&mut self, source: Vec<Given>) -> Result<(), ConfigError> {
        refuse_two_tokens(&source)?;
        for given in source {
            (given.set)(self, &given.text).map_err(|why| {
                let subject =
                    if given.setting.is_secret { "the value".to_owned() } else { quoted(&given.text) };
                ConfigError::new(given.setting.name, &given.origin, &subject, why)
            })?;
        }
        Ok(())
    }

    /// Refuses what is dangerous as a whole though each setting is right by itself.
    ///
    /// # Errors
    /// Other machines could send requests, no token is asked of them, and nobody said that this is meant. Or there is a
    /// certificate authority for Redis and no TLS.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.redis_ca.is_some() && !self.redis_has_tls() {
            let why = Invalid::new("is given, but Redis is not reached by TLS", "a redis-url with rediss://");
            return Err(ConfigError::new("redis-ca-file", "with the other settings", "it", why));
        }
        let is_local = self.listen.ip().to_canonical().is_loopback();
        if is_local || self.api_token.is_some() || self.insecure_no_token {
            return Ok(());
        }
        let why = Invalid::new(
            "can be reached from other machines, but no api-token is set",
            "a loopback address such as 127.0.0.1:8080, or an api-token, or --insecure-no-token",
        );
        Err(ConfigError::new("listen", "with the other settings", &self.listen.to_string(), why))
    }
}

fn is_https(url: &str) -> bool {
    url.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"))
}

/// The path of the file, and where it was found.
fn config_file(flag: Option<String>, env: impl Fn(&str) -> Option<String>) -> Option<(String, String)> {
    let variable = "THREADQ_CONFIG";
    let by_flag = flag.map(|path| (path, "flag --config".to_owned()));
    by_flag.or_else(|| Some((env(variable)?, sources::env_origin(variable))))
}

/// An absolute path, so that it still holds in a child with another working directory. Links stay as they are: the
/// folder of a linked file is the one that was named.
fn absolute_folder(folder: &Path) -> PathBuf {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    absolute(folder).unwrap_or_else(|_| folder.to_owned())
}

/// The token that a file holds, as `api-token-file` reads it.
///
/// # Errors
/// The file cannot be read or holds no token: what is wrong with it, and what is allowed.
pub(crate) fn token_in_file(path: &str) -> Result<Secret, String> {
    values::token_file(path).map_err(|why| format!("{}; allowed: {}", why.problem, why.allowed))
}

/// Which of the two would win within one source is not obvious.
fn refuse_two_tokens(source: &[Given]) -> Result<(), ConfigError> {
    let origin = |name| source.iter().find(|given| given.setting.name == name).map(|given| &given.origin);
    match (origin("api-token"), origin("api-token-file")) {
        (Some(_), Some(file)) => {
            let why = Invalid::new("is given beside api-token", "one of the two");
            Err(ConfigError::new("api-token-file", file, "it", why))
        }
        _ => Ok(()),
    }
}

/// A value as an error shows it: cut, and without characters that could make another line of it.
fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Why there is no configuration: one line that names the setting, where it was found, what is wrong, what is allowed.
///
/// There is nothing to do about it but to show it and to exit with 2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError(String);

impl ConfigError {
    fn new(setting: &str, origin: &str, subject: &str, why: Invalid) -> ConfigError {
        let line = format!("{setting} ({origin}): {subject} {}; allowed: {}", why.problem, why.allowed);
        ConfigError(line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests;
