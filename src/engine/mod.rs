//! The engine: takes jobs from the queue, runs them and stores their outcomes. Each thread has a file of its own and
//! imports no other thread; `tests/integration/architecture.rs` checks that.
//!
//! | thread | file | work | receives from, and how many |
//! | --- | --- | --- | --- |
//! | `fetch-QUEUE` | [`fetcher`] | takes and starts jobs | |
//! | `puller-QUEUE` | [`puller`], with [`takers`] | takes jobs for pull workers that wait here | |
//! | `worker-N` | [`worker`], with [`panics`] | runs handlers | fetchers: as many jobs as workers |
//! | `reporter` | [`reporter`] | writes the [`reports`] of running attempts; starts with the first report | attempts: one |
//! | `watchdog` | [`watchdog`] | enforces timeouts, replaces hanging threads | |
//! | `committer` | [`committer`] | stores outcomes | workers, watchdog, fetchers: twice as many outcomes as workers |
//! | `heartbeat` | [`heartbeat`] | keeps the lease and the registration | |
//! | `reaper` | [`reaper`] | reclaims jobs of dead servers, recovers lost hand-overs | heartbeat: one |
//! | `figures` | [`figures`] | writes the figures for dashboards | heartbeat: one |
//! | `scheduler` | [`scheduler`] | works off what is due: delayed jobs, retries, expiries, ticks of [`schedules`] | |
//! | `janitor` | [`janitor`] | deletes finished jobs by the retention | |
//!
//! Jobs reach the workers through the channel of [`assignments`]. No thread waits to send: the channels of jobs and outcomes
//! have room for all that the capacity allows, and the heartbeat drops what its receivers have no room for.
//!
//! The threads meet in [`shared`]: the jobs [`in_flight`], the [`membership`] of this server, the
//! [metrics], and the [timer of the scheduler](due_timer). Fetchers also share the [permits to
//! take](take_permits), and ask for an [early beat](early_beat). No lock is held during a Redis call, or while another
//! lock is waited for. Every wait ends with the [shutdown] signal, or is a Redis call of at most 3 s; the stopping
//! server unblocks fetchers, whose call is longer.
//!
//! Rules that need no thread are pure: what may be taken ([`admission`]), what an outcome means ([`verdict`]), which
//! servers are dead and which jobs are lost ([`recovery`]). [`group_commit`] stores submissions, on the threads of the
//! API. [`leases`] ends the attempts of pull workers. [`liveness`] checks the server from outside.
//!
//! # Where to add
//!
//! - a periodic thread: a file like [`janitor`], with a struct of `shared` and `shutdown` and a method `run`; started
//!   in `server/engine.rs`; its name in the list of `tests/integration/architecture.rs`, which fails without it
//! - work of one round trip per heartbeat: a field of the reply, passed on in [`heartbeat`], and done by another thread
//! - a rule of how many jobs this server takes, whatever the jobs are: [`admission`], with a row in its table test
//! - a rule that needs the job, such as a limit per job type: `start_jobs.lua`, since only that script knows the type of
//!   a job before its start
//! - which queues a take covers: [`take_permits`]
//! - a metric: [`metrics`]
//! - what happens after an attempt: [`verdict`], and [`committer`] for log and metrics

pub mod admission;
pub mod assignments;
pub mod committer;
pub mod due_timer;
pub mod early_beat;
pub mod fetcher;
pub mod figures;
pub mod group_commit;
pub mod heartbeat;
pub mod in_flight;
pub mod janitor;
pub mod leases;
pub mod liveness;
pub mod membership;
pub mod metrics;
pub mod outage_pause;
pub mod outcomes;
pub mod panics;
pub mod puller;
pub mod reaper;
pub mod recovery;
pub mod reporter;
pub mod reports;
pub mod scheduler;
pub mod schedules;
pub mod shared;
pub mod shutdown;
pub mod take_permits;
pub mod takers;
pub mod thread_names;
pub mod verdict;
pub mod watchdog;
pub mod worker;
