//! Pullers: each waits in Redis for the jobs of one queue, for the pull workers that wait on this server.
//!
//! A puller blocks in BRPOPLPUSH while its queue is empty. The id that it receives stands in this server's list, so that
//! no job is lost if the server dies. The take for the taker that waits longest puts the id back and takes as many jobs as
//! the taker asks for.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::engine::outage_pause::{CHECK_INTERVAL, FULL_RETRY_INTERVAL, OutagePause};
use crate::engine::shared::Shared;
use crate::engine::shutdown::Shutdown;
use crate::engine::takers::{Taker, Takers};
use crate::engine::thread_names::thread_name;
use crate::logging::once::LogOnce;
use crate::queue::{Claimed, Error, PullRequest, Pulled, PulledJob, ServerId, Verdict};
use crate::sync;

/// The longest time without a take while takers wait: BRPOPLPUSH does not see quarantined jobs.
const TAKE_INTERVAL: Duration = Duration::from_secs(30);

/// All pullers of this server.
pub struct Pullers {
    shared: Shared,
    pub takers: Takers,
    shutdown: Shutdown,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// The result of a take for a taker.
enum Take {
    /// The queue may have more jobs.
    More,
    Drained,
    /// The queue is paused, or pull workers have as many jobs as they may have.
    Refused {
        has_jobs: bool,
    },
}

impl Pullers {
    /// No puller runs before the first taker comes.
    pub fn new(shared: Shared, shutdown: Shutdown) -> Arc<Pullers> {
        Arc::new(Pullers { shared, takers: Takers::default(), shutdown, threads: Mutex::default() })
    }

    /// Takes jobs for a pull worker, and records them. `claimed` is a job that a puller has claimed.
    ///
    /// # Errors
    /// As [`Queue::pull`](crate::queue::Queue::pull).
    pub fn pull(
        &self,
        request: &PullRequest,
        claimed: Option<(&ServerId, &Claimed)>,
    ) -> Result<Pulled, Error> {
        let Shared { queue, metrics, due_timer, max_crashes, .. } = &self.shared;
        let pulled = queue.pull(request, claimed, *max_crashes)?;
        let now_ms = pulled.now_ms;
        for PulledJob { job, lease_until_ms, .. } in &pulled.jobs {
            due_timer.due_in(Duration::from_millis(lease_until_ms.saturating_sub(now_ms)));
            metrics.started(job, now_ms);
        }
        pulled.next_look.into_iter().for_each(|time| due_timer.due_in(time));
        pulled.expired.iter().for_each(|(job_type, status)| metrics.expired(job_type, *status));
        Ok(pulled)
    }

    /// Lets a taker wait, or puts it back, and starts the pullers that its queues lack.
    pub fn wait(self: &Arc<Pullers>, taker: Taker) {
        for (queue, puller) in self.takers.add(taker) {
            if let Err(error) = self.start(&queue, puller) {
                log::warn!("queue={queue}: cannot start a thread that waits for its jobs: {error}");
                self.takers.give_up(&queue);
            }
        }
    }

    fn start(self: &Arc<Pullers>, queue: &str, puller: usize) -> io::Result<()> {
        let (pullers, own) = (self.clone(), queue.to_owned());
        let name = thread_name("puller-", queue, puller % 1_000, "");
        let thread = Builder::new().name(name).spawn(move || pullers.run(puller, &own))?;
        let mut threads = sync::lock(&self.threads);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    /// Whether no puller runs.
    pub fn have_ended(&self) -> bool {
        sync::lock(&self.threads).iter().all(JoinHandle::is_finished)
    }

    /// The loop of the puller of one queue.
    fn run(self: &Arc<Pullers>, puller: usize, queue: &str) {
        let mut pause = OutagePause::default();
        let mut log_once = LogOnce::default();
        let mut may_have_more = false;
        let mut last_take = Instant::now();
        // The job that BRPOPLPUSH moved to this server's list, and the id of the server. Kept through failures until a take has
        // passed it to Redis.
        let mut claimed = None;
        // Whether BRPOPLPUSH may have moved a job while its reply was lost.
        let mut is_stranded = false;
        while self.takers.wait_for_taker(puller, queue) {
            if last_take.elapsed() >= TAKE_INTERVAL {
                may_have_more = true;
            }
            if may_have_more {
                last_take = Instant::now();
            }
            let take = self.turn(queue, may_have_more, &mut claimed, &mut is_stranded);
            if take.is_ok() {
                pause = OutagePause::default();
            }
            if matches!(take, Ok(Take::Drained)) && !may_have_more {
                log_once.recovered();
            }
            may_have_more = match take {
                Ok(Take::More) => true,
                Ok(Take::Drained) => false,
                Ok(Take::Refused { has_jobs }) => {
                    self.takers.release(puller);
                    self.shutdown.wait(CHECK_INTERVAL);
                    has_jobs
                }
                // A full Redis refuses BRPOPLPUSH and still executes takes.
                Err(Error::Full) => {
                    self.shutdown.wait(FULL_RETRY_INTERVAL);
                    true
                }
                Err(error) => {
                    self.takers.release(puller);
                    if let Error::Protocol(reason) = error {
                        log_once.log(&format!("queue={queue}: cannot take jobs for pull workers"), &reason);
                    }
                    self.shutdown.wait(pause.next());
                    true
                }
            };
        }
        self.put_back(&mut claimed);
    }

    /// Waits for a job, if the queue seems empty, and takes jobs for the oldest taker.
    fn turn(
        self: &Arc<Pullers>,
        queue: &str,
        may_have_more: bool,
        claimed: &mut Option<(ServerId, Claimed)>,
        is_stranded: &mut bool,
    ) -> Result<Take, Error> {
        if let Some((workers, queues)) = self.takers.unnoted() {
            // Other threads of this server fail too then, and say why.
            let _ = self.shared.queue.saw_pull_workers(&workers, &queues);
        }
        if *is_stranded && claimed.is_none() {
            let found = self.shared.find_stranded(queue)?;
            *is_stranded = found.is_some();
            *claimed = found.map(|found| (self.shared.server(), found));
        }
        if claimed.is_none() && !may_have_more {
            if self.shared.membership.heartbeat_age().is_none() {
                // Redis does not know this server yet, so no server would look for an id in its list.
                self.shutdown.wait(CHECK_INTERVAL);
                return self.take(queue, claimed);
            }
            let server = self.shared.server();
            match self.shared.queue.wait_for_job(&server, queue) {
                Ok(None) => return Ok(Take::Drained),
                Ok(Some(found)) => *claimed = Some((server, found)),
                Err(error) => {
                    *is_stranded = matches!(error, Error::Unavailable(_));
                    return Err(error);
                }
            }
        }
        self.take(queue, claimed)
    }

    /// Takes jobs for the oldest taker of the queue. Clears `claimed` once Redis has executed the call.
    fn take(
        self: &Arc<Pullers>,
        queue: &str,
        claimed: &mut Option<(ServerId, Claimed)>,
    ) -> Result<Take, Error> {
        let taker = loop {
            let Some(taker) = self.takers.take_oldest(queue) else {
                self.put_back(claimed);
                return Ok(Take::Drained);
            };
            if !taker.client.has_hung_up() {
                break taker;
            }
            taker.client.answer(Vec::new());
        };
        let pulled =
            match self.pull(&taker.request, claimed.as_ref().map(|(server, claimed)| (server, claimed))) {
                Ok(pulled) => pulled,
                Err(error) => {
                    self.wait(taker);
                    return Err(error);
                }
            };
        let has_jobs = claimed.take().is_some();
        let is_refused = pulled.is_full || pulled.paused.iter().any(|paused| paused == queue);
        let number = pulled.jobs.len();
        if number == 0 {
            self.wait(taker);
            return Ok(match is_refused {
                true => Take::Refused { has_jobs },
                false if pulled.has_more => Take::More,
                false => Take::Drained,
            });
        }
        let has_more = pulled.has_more || number >= taker.request.max as usize;
        self.deliver(taker, pulled.jobs);
        Ok(if has_more { Take::More } else { Take::Drained })
    }

    /// Gives jobs to a taker. If the client has hung up meanwhile, its jobs go back to the front of their queues.
    fn deliver(&self, taker: Taker, jobs: Vec<PulledJob>) {
        if !taker.client.has_hung_up() {
            taker.client.answer(jobs);
            return;
        }
        taker.client.answer(Vec::new());
        // From the last job on, so that the first one is the first again. If Redis is away, the leases bring the jobs back.
        let releases: Vec<_> = jobs.iter().rev().map(|job| (job.attempt, Verdict::Release)).collect();
        if let Ok((_, Some(time))) = self.shared.queue.answer(&releases) {
            self.shared.due_timer.due_in(time);
        }
    }

    /// Returns a claimed job that no taker waits for to the front of its queue. If Redis is away, the reaper does it later.
    fn put_back(&self, claimed: &mut Option<(ServerId, Claimed)>) {
        if let Some((server, claimed)) = claimed.take() {
            let _ = self.shared.queue.recover(&server, &[claimed.entry]);
        }
    }
}
