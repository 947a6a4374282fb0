//! The builder: a configuration and handlers make a server.

use crossbeam_channel::Receiver;
use serde::Serialize;

use crate::client::limits::Limit;
use crate::client::schedules::Schedule;
use crate::config::{Config, ScheduleEntry};
use crate::handler::{Closure, Handler, Handlers, JobContext};
use crate::job::Failure;
use crate::server::error::StartError;
use crate::server::handlers::configured_handlers;
use crate::server::limits::add_limits;
use crate::server::running::Server;
use crate::server::schedules::configured_schedules;
use crate::server::start::start;

/// Collects handlers and settings, and starts the server.
///
/// ```no_run
/// use std::time::Duration;
/// use threadq::config::{Config, HandlerEntry, QueueShare, Secret};
/// use threadq::handler::Policy;
/// use threadq::server::Server;
///
/// // Timeout, attempts and backoff of a job type are configured as in the config file.
/// let entry = HandlerEntry {
///     job_type: "report".to_owned(),
///     policy: Policy { timeout: Duration::from_secs(600), max_attempts: 3, ..Policy::default() },
///     ..HandlerEntry::default()
/// };
/// let config = Config {
///     redis_url: Some(Secret::new("redis://127.0.0.1:6379")),
///     queues: vec![QueueShare { name: "reports".to_owned(), weight: 1, strict: false }],
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
    schedules: Vec<ScheduleEntry>,
    limits: Vec<Limit>,
}

impl Builder {
    /// Sets the configuration. Default: [`Config::default`].
    pub fn config(mut self, config: Config) -> Builder {
        self.config = config;
        self
    }

    /// Adds the handler of a job type: a closure whose value becomes the job's result.
    pub fn handler<F, T>(mut self, job_type: impl Into<String>, handler: F) -> Builder
    where
        F: Fn(&JobContext) -> Result<T, Failure> + Send + Sync + 'static,
        T: Serialize + 'static,
    {
        self.handlers.insert(job_type, Closure(handler));
        self
    }

    /// Adds the handler of a job type as an object that implements [`Handler`].
    pub fn handler_object(mut self, job_type: impl Into<String>, handler: impl Handler) -> Builder {
        self.handlers.insert(job_type, handler);
        self
    }

    /// Adds a schedule, as if it were in the configuration file. A name is 1 to 64 of `A-Z a-z 0-9 _ . -`.
    ///
    /// ```
    /// use threadq::client::Submission;
    /// use threadq::client::schedules::Schedule;
    /// use threadq::server::Server;
    ///
    /// let report = Submission::new("report").payload("daily")?;
    /// let server = Server::builder()
    ///     .handler("report", |job| job.payload::<String>())
    ///     .schedule("nightly", Schedule::cron("0 3 * * *", report).timezone("Europe/Berlin"));
    /// # Ok::<(), threadq::client::Error>(())
    /// ```
    pub fn schedule(mut self, name: impl Into<String>, schedule: Schedule) -> Builder {
        let Schedule { spec, job } = schedule;
        // A submission always has a JSON form: its payload is JSON already.
        let job = serde_json::to_string(&job).unwrap_or_default();
        self.schedules.push(ScheduleEntry { name: name.into(), spec, job });
        self
    }

    /// Adds a limit, as if it were in the configuration file.
    ///
    /// ```
    /// use threadq::client::limits::{Limit, SECOND};
    /// use threadq::server::Server;
    ///
    /// let server = Server::builder()
    ///     .handler("mail", |job| job.payload::<String>())
    ///     .limit(Limit::named("smtp").rate(10, SECOND))
    ///     .limit(Limit::named("tenant").concurrency(2));
    /// ```
    pub fn limit(mut self, limit: Limit) -> Builder {
        self.limits.push(limit);
        self
    }

    /// Starts the server, which then takes jobs and serves requests. If Redis is unreachable, the server starts all the
    /// same and waits for it.
    ///
    /// # Errors
    /// [`StartError::Configuration`] for settings that cannot work, [`StartError::Handler`] for a handler of the
    /// configuration that cannot be made, [`StartError::Failed`] for an environment that fails. All that the start began has ended then.
    pub fn start(self) -> Result<Server, StartError> {
        self.start_unless(&crossbeam_channel::never())
    }

    /// Like [`Builder::start`], but a message through `signals` ends the start and undoes it. A second message ends it
    /// without waiting for the private Redis. Starts take long when a private Redis loads much data.
    ///
    /// # Errors
    /// As [`Builder::start`]; [`StartError::Stopped`] after a message, which is then taken from the channel.
    pub fn start_unless(mut self, signals: &Receiver<()>) -> Result<Server, StartError> {
        self.config.schedules.append(&mut self.schedules);
        add_limits(&mut self.config, &self.limits)?;
        let handlers = configured_handlers(self.handlers, &self.config)?;
        let schedules = configured_schedules(&self.config, &handlers)?;
        start(self.config, handlers, schedules, signals)
    }
}

impl Server {
    /// A builder with the default configuration and no handlers.
    pub fn builder() -> Builder {
        Builder::default()
    }
}
