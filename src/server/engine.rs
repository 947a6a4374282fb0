//! The server's engine: makes what its threads share, and starts them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread::JoinHandle;

use crossbeam_channel::bounded;

use crate::config::Config;
use crate::engine::committer::Committer;
use crate::engine::due_timer::DueTimer;
use crate::engine::early_beat::EarlyBeat;
use crate::engine::fetcher::Fetchers;
use crate::engine::figures::Figures;
use crate::engine::heartbeat::Heartbeat;
use crate::engine::in_flight::InFlight;
use crate::engine::janitor::{Janitor, Retention};
use crate::engine::liveness::LastBeat;
use crate::engine::membership::Registrar;
use crate::engine::metrics::Metrics;
use crate::engine::puller::Pullers;
use crate::engine::reaper::Reaper;
use crate::engine::reporter::Reporter;
use crate::engine::reports::{Reports, ToReporter};
use crate::engine::scheduler::Scheduler;
use crate::engine::schedules::{CheckedSchedule, FileSchedules};
use crate::engine::shared::Shared;
use crate::engine::shutdown::{self, Trigger};
use crate::engine::take_permits::{TakePermits, Turn};
use crate::engine::thread_names::fetcher_names;
use crate::engine::watchdog::Watchdog;
use crate::engine::worker::Workers;
use crate::handler::Handlers;
use crate::queue::{self, Queue, Reclaimed, ServerFacts};
use crate::server::threads::spawn;

/// The running engine.
pub(super) struct Engine {
    pub(super) shared: Shared,
    pub(super) handlers: Arc<Handlers>,
    /// The number of jobs that the committer has returned to their queues.
    pub(super) released: Arc<AtomicUsize>,
    pub(super) last_beat: LastBeat,
    pub(super) fetchers: Vec<JoinHandle<()>>,
    pub(super) pullers: Arc<Pullers>,
    take_permits: Arc<TakePermits>,
    /// `None` once the stop has begun.
    taking: Option<Taking>,
    /// Ends fetchers, pullers, scheduler and janitor, and the waits of workers. `None` once the stop has begun.
    stop: Option<Trigger>,
    /// Limits the time in which the committer waits for Redis. `None` once the drain has ended.
    drain: Option<Trigger>,
    pub(super) registration: Registration,
}

impl Engine {
    /// Starts all threads but the fetchers, and returns the fetchers. Fails if the system refuses a thread.
    pub(super) fn start(
        config: &Config,
        handlers: &Arc<Handlers>,
        schedules: Vec<CheckedSchedule>,
        queue: Queue,
    ) -> io::Result<(Engine, Fetchers)> {
        let queue_names = config.queue_names();
        let facts = ServerFacts {
            workers: config.workers,
            queues: queue_names.clone(),
            strict: config.strict_queue_names(),
            schedules: schedules.iter().map(|schedule| schedule.name.clone()).collect(),
            limits: config.defined_limits(),
        };
        let registrar = Registrar::new(facts);
        let shared = Shared {
            queue: Arc::new(queue),
            membership: registrar.membership(),
            in_flight: Arc::new(InFlight::new(config.workers)),
            metrics: Arc::new(Metrics::new(handlers.job_types())),
            due_timer: DueTimer::default(),
            max_crashes: config.max_crashes,
        };
        let taking = Taking(shared.in_flight.clone());
        let (stop, stopping) = shutdown::channel();
        let (drain, drained) = shutdown::channel();
        let (end, ending) = shutdown::channel();
        // Each settlement belongs to one in-flight job, and the capacity allows twice as many in-flight jobs as workers.
        let (to_committer, settlements) = bounded(2 * config.workers);
        // The findings of one heartbeat can wait while the thread works on those of another one.
        let (to_reaper, findings) = bounded(1);
        let (to_figures, is_watched) = bounded(1);

        // One message says that there are reports, however many there are.
        let (wake, woken) = bounded(1);
        let reports = Arc::new(Reports::new(shared.clone()));
        let reporter = Reporter { reports: reports.clone(), wake: woken };
        let start = move || {
            let reporter = reporter.clone();
            spawn("reporter", move || reporter.run()).map(drop)
        };
        let to_reporter = ToReporter {
            reports: reports.clone(),
            wake,
            start: Box::new(start),
            is_started: AtomicBool::new(false),
        };

        let workers = Arc::new(Workers {
            shared: shared.clone(),
            committer: to_committer.clone(),
            to_reporter: Arc::new(to_reporter),
            handlers: handlers.clone(),
            inline_backoff: config.inline_backoff,
            shutdown: stopping.clone(),
        });
        for number in 0..config.workers {
            workers.spawn(number)?;
        }
        let watchdog = Watchdog {
            shared: shared.clone(),
            handlers: handlers.clone(),
            committer: to_committer.clone(),
            spawn_worker: Box::new(move |number| workers.spawn(number).map(drop)),
        };
        spawn("watchdog", move || watchdog.run())?;
        let released = Arc::new(AtomicUsize::new(0));
        let committer = Committer {
            shared: shared.clone(),
            settlements,
            reports,
            released: released.clone(),
            drained,
            end: ending.clone(),
        };
        spawn("committer", move || committer.run())?;
        let reaper = Reaper { shared: shared.clone(), findings, shutdown: ending.clone() };
        spawn("reaper", move || reaper.run())?;
        let figures = Figures { shared: shared.clone(), is_watched };
        let figures = spawn("figures", move || figures.run())?;
        let (early_beat, last_beat) = (EarlyBeat::default(), LastBeat::default());
        let heartbeat = Heartbeat {
            shared: shared.clone(),
            registrar,
            queues: queue_names,
            reaper: to_reaper,
            figures: to_figures,
            lease_timeout: config.lease_timeout,
            early_beat: early_beat.clone(),
            last_beat: last_beat.clone(),
            shutdown: ending,
        };
        let heartbeat = spawn("heartbeat", move || heartbeat.run())?;
        let registration = Registration {
            shared: shared.clone(),
            end: Some(end),
            heartbeat: Some(heartbeat),
            figures: Some(figures),
        };
        let file_schedules = FileSchedules::new(schedules);
        let scheduler = Scheduler {
            shared: shared.clone(),
            file_schedules,
            handlers: handlers.clone(),
            shutdown: stopping.clone(),
        };
        spawn("scheduler", move || scheduler.run())?;
        let retention = Retention {
            completed: (config.retain_completed, config.retain_completed_max),
            failed: (config.retain_failed, config.retain_failed_max),
        };
        let janitor = Janitor { shared: shared.clone(), retention, shutdown: stopping.clone() };
        spawn("janitor", move || janitor.run())?;

        let turns = config.taken_queues().iter().map(|queue| match queue.strict {
            true => (queue.name.clone(), Turn::Strict),
            false => (queue.name.clone(), Turn::Weight(queue.weight)),
        });
        let take_permits = Arc::new(TakePermits::new(turns, config.fetchers));
        let fetchers = Fetchers {
            shared: shared.clone(),
            early_beat,
            committer: to_committer,
            take_permits: take_permits.clone(),
            shutdown: stopping.clone(),
        };
        let pullers = Pullers::new(shared.clone(), stopping);
        let engine = Engine {
            shared,
            handlers: handlers.clone(),
            released,
            last_beat,
            fetchers: Vec::new(),
            pullers,
            take_permits,
            taking: Some(taking),
            stop: Some(stop),
            drain: Some(drain),
            registration,
        };
        Ok((engine, fetchers))
    }

    /// Starts the threads of the fetchers: from then on this server runs jobs.
    pub(super) fn start_fetchers(&mut self, config: &Config, fetchers: Fetchers) -> io::Result<()> {
        let fetchers = Arc::new(fetchers);
        let queue_names = config.queue_names();
        for (queue, names) in queue_names.iter().zip(fetcher_names(&queue_names, config.fetchers)) {
            for (number, name) in names.iter().enumerate() {
                let (fetchers, queue) = (fetchers.clone(), queue.clone());
                self.fetchers.push(spawn(name, move || match number {
                    0 => fetchers.run(&queue),
                    _ => fetchers.help(&queue),
                })?);
            }
        }
        Ok(())
    }

    /// Ends the taking of jobs. Running attempts go on.
    pub(super) fn close(&mut self) {
        self.taking = None;
        self.take_permits.close();
        self.pullers.takers.close();
        self.stop = None;
    }

    /// Ends the drain: outcomes that cannot be stored soon are given up.
    pub(super) fn end_drain(&mut self) {
        self.drain = None;
    }
}

/// The time in which this server takes jobs. The drop ends the time, and so the threads of workers and watchdog: also when
/// the start of the server fails.
struct Taking(Arc<InFlight>);

impl Drop for Taking {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// This server's registration in Redis, and the threads that need it. The drop ends the registration.
pub(super) struct Registration {
    shared: Shared,
    /// Ends the heartbeat. `None` once the end has begun.
    end: Option<Trigger>,
    heartbeat: Option<JoinHandle<()>>,
    figures: Option<JoinHandle<()>>,
}

impl Registration {
    /// Ends the heartbeat, removes this server from Redis and returns its remaining jobs to their queues.
    pub(super) fn leave(&mut self) -> Result<Option<Reclaimed>, queue::Error> {
        self.end = None;
        let Some(heartbeat) = self.heartbeat.take() else { return Ok(None) };
        // Joined first: a later heartbeat would register this server again.
        let _ = heartbeat.join();
        let _ = self.figures.take().map(JoinHandle::join);
        self.shared.queue.leave(&self.shared.server())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _ = self.leave();
    }
}
