//! Fetchers: bring jobs from Redis to the workers.
//!
//! The first fetcher of a queue sits in BRPOPLPUSH while the queue is empty; that is what wakes it. Once awake it takes and
//! starts as many jobs as there are free workers in one round trip, from all queues by their weights, until nothing is
//! left. It takes nothing while no worker is free: what a busy server held back, another one could run. It knows no
//! handler.
//!
//! Further fetchers of a queue (the setting `fetchers`) take too as soon as a worker is free, while a round trip of another
//! fetcher is still under way. They wait without a command to Redis while there is nothing to take.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::engine::heartbeat::EarlyBeat;
use crate::engine::in_flight::{Assignment, InFlight};
use crate::engine::membership::Membership;
use crate::engine::metrics::Metrics;
use crate::engine::shutdown::Shutdown;
use crate::engine::turns::TakePermits;
use crate::job::Status;
use crate::logging::once::LogOnce;
use crate::queue::{BLOCK, Broken, Claimed, Error, Quarantine, Queue, Settlement, Verdict};

/// How long a fetcher waits before it looks at a paused queue again.
const PAUSED_LOOK: Duration = Duration::from_millis(500);
/// How long a fetcher waits while Redis is full and refuses BRPOPLPUSH.
const FULL_LOOK: Duration = Duration::from_millis(250);
/// So much earlier than asked for Redis may end a sleep: it reads its clock once for many commands.
const SLEPT_THROUGH_MARGIN: Duration = Duration::from_millis(100);
/// The longest pause between tries while Redis is away; the first is a tenth of it.
const AWAY_PAUSE: Duration = Duration::from_secs(1);

/// So many bytes of a thread's name the system keeps.
const LONGEST_THREAD_NAME: usize = 15;

/// What all fetchers share.
pub struct Fetchers {
    /// Where jobs come from.
    pub queue: Arc<Queue>,
    /// Under which name.
    pub membership: Arc<Membership>,
    /// Learns of jobs and of refusals.
    pub early_beat: EarlyBeat,
    /// What limits the taking.
    pub in_flight: Arc<InFlight>,
    /// To the workers.
    pub workers: Sender<Assignment>,
    /// To the committer, for what cannot even be read.
    pub committer: Sender<Settlement>,
    /// Which take may cover which queues.
    pub turns: Arc<TakePermits>,
    /// How often a job may crash its server.
    pub max_crashes: u32,
    /// Counts how long jobs waited.
    pub metrics: Arc<Metrics>,
    /// When to stop.
    pub shutdown: Shutdown,
}

/// The names of the threads that take from these queues, each different: of the system's 15 characters as many of the
/// queue's name as there is room for, and where that is not all of it also the queue's number.
pub fn thread_names(queues: &[String], fetchers: usize) -> Vec<Vec<String>> {
    const PREFIX: &str = "fetch-";
    let names = queues.iter().enumerate().map(|(number, queue)| {
        let name = |fetcher: usize| {
            // No queue has such characters in its name.
            let suffix = if fetchers > 1 { format!("/{fetcher}") } else { String::new() };
            let room = LONGEST_THREAD_NAME - PREFIX.len() - suffix.len();
            if queue.len() <= room {
                return format!("{PREFIX}{queue}{suffix}");
            }
            let number = format!("~{number}");
            format!("{PREFIX}{}{number}{suffix}", &queue[..room - number.len()])
        };
        (0..fetchers).map(name).collect()
    });
    names.collect()
}

/// What a take brought.
enum Took {
    /// As many as there was room for: there may be more.
    All,
    /// Fewer: nothing is left for now.
    Less,
    /// This fetcher's queue is paused.
    Paused,
    /// Nothing: Redis does not know this server (yet, or any more). The heartbeat enters it.
    Refused,
}

impl Fetchers {
    /// The loop of the first fetcher of a queue, which wakes for jobs in it.
    pub fn run(&self, queue: &str) {
        let mut pause = Pause::default();
        let mut log_once = LogOnce::default();
        // Whether the queues may hold more than the last take brought.
        let mut more = true;
        // What BRPOPLPUSH brought: kept until a take was told of it, whatever happens to the connections meanwhile.
        let mut fetched = None;
        // Whether BRPOPLPUSH may have moved a job whose id never arrived here.
        let mut is_stranded = false;
        while self.in_flight.wait_for_capacity().is_some() {
            if is_stranded && fetched.is_none() {
                match self.find_stranded(queue) {
                    Ok(found) => (is_stranded, fetched) = (found.is_some(), found),
                    Err(_) => {
                        self.shutdown.wait(pause.next());
                        continue;
                    }
                }
            }
            let took = if more || fetched.is_some() {
                self.take(queue, true, &mut fetched)
            } else {
                self.turns.sleep(queue);
                let asleep = Instant::now();
                match self.queue.wait_for_job(&self.membership.current(), queue) {
                    Ok(None) if asleep.elapsed() + SLEPT_THROUGH_MARGIN >= BLOCK => {
                        self.turns.wake(queue);
                        Ok(Took::Less)
                    }
                    // With nothing, but woken: there may be something that BRPOPLPUSH does not see.
                    Ok(brought) => {
                        fetched = brought;
                        self.take(queue, true, &mut fetched)
                    }
                    Err(error) => {
                        is_stranded = matches!(error, Error::Unavailable(_));
                        // What may be stranded is the first of its queue: until then no other fetcher may take from it.
                        if !is_stranded {
                            self.turns.wake(queue);
                        }
                        Err(error)
                    }
                }
            };
            if took.is_err() && fetched.is_some() {
                // It is the first of its queue: until Redis was told of it no other fetcher may take from there.
                self.turns.sleep(queue);
            }
            if !matches!(took, Err(_) | Ok(Took::Refused)) {
                pause = Pause::default();
            }
            // A take is one thing and the wait in BRPOPLPUSH another: only the two together show that it works.
            if matches!(took, Ok(Took::Less)) && !more {
                log_once.recovered();
            }
            more = match took {
                Ok(Took::All) => true,
                Ok(Took::Less) => false,
                Ok(Took::Paused) => {
                    self.shutdown.wait(PAUSED_LOOK);
                    true
                }
                Ok(Took::Refused) => {
                    self.early_beat.refused();
                    self.shutdown.wait(pause.next());
                    true
                }
                // A take is allowed where BRPOPLPUSH is not.
                Err(Error::Full) => {
                    self.shutdown.wait(FULL_LOOK);
                    true
                }
                Err(error) => {
                    if let Error::Protocol(reason) = error {
                        log_once.log(&format!("queue={queue}: cannot take jobs"), &reason);
                    }
                    self.shutdown.wait(pause.next());
                    true
                }
            };
        }
    }

    /// The loop of a further fetcher of a queue.
    pub fn help(&self, queue: &str) {
        let mut pause = Pause::default();
        while self.turns.wait_for_more(queue) && self.in_flight.wait_for_capacity().is_some() {
            match self.take(queue, false, &mut None) {
                Ok(Took::All | Took::Less | Took::Paused) => pause = Pause::default(),
                // The first fetcher of the queue says what is wrong.
                Ok(Took::Refused) | Err(_) => {
                    self.shutdown.wait(pause.next());
                }
            }
        }
    }

    /// A job of this queue that BRPOPLPUSH moved into this server's list while its connection died. It need not wait until
    /// the search for lost entries is sure of it: a take starts nothing twice.
    fn find_stranded(&self, queue: &str) -> Result<Option<Claimed>, Error> {
        // From the end of the list: the one that was moved first.
        for entry in self.queue.in_progress_here(&self.membership.current())?.into_iter().rev() {
            let id = std::str::from_utf8(&entry).ok().and_then(|id| id.parse().ok());
            let Some(id) = id.filter(|id| !self.in_flight.contains(*id)) else { continue };
            match self.queue.get(id) {
                Ok(Some(job)) if job.status == Status::Queued && job.queue == queue => {
                    return Ok(Some(Claimed { entry, queue: queue.to_owned() }));
                }
                Ok(_) | Err(Error::Protocol(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Takes what there is room for and hands it to the workers. What was fetched is no more once Redis was told of it.
    fn take(&self, queue: &str, is_first: bool, fetched: &mut Option<Claimed>) -> Result<Took, Error> {
        let turn = self.turns.begin(queue, is_first);
        let reserved = self.in_flight.reserve(fetched.is_some());
        let capacity = reserved.capacity();
        if capacity.jobs == 0 && fetched.is_none() {
            return Ok(Took::All);
        }
        let server = self.membership.current();
        let shares = turn.split(capacity.jobs);
        let taken =
            self.queue.start_jobs(&server, &shares, capacity.quarantine, self.max_crashes, fetched.as_ref());
        let taken = match taken {
            Err(Error::Fenced) => {
                *fetched = None;
                return Ok(Took::Refused);
            }
            taken => taken?,
        };
        *fetched = None;
        let number = taken.jobs.len() + taken.broken.len();
        // Jobs on their last chance wake no fetcher: whoever met one comes again when that one has run.
        let mut meets_suspects = taken.must_drain || capacity.quarantine == Quarantine::Skip;
        for (lease, job) in taken.jobs {
            let job = Arc::new(job);
            meets_suspects |= job.needs_quarantine(self.max_crashes);
            self.metrics
                .waited(&job.job_type, Duration::from_millis(taken.now_ms.saturating_sub(job.ready_at_ms())));
            let stop = self.in_flight.insert(lease, &job, self.max_crashes);
            // The channel holds as many as there is ever room for, and the workers end after the fetchers.
            let _ = self.workers.send((job, stop));
        }
        for Broken { lease, job, reason } in taken.broken {
            self.in_flight.insert_broken(&lease, &Arc::new(job));
            let verdict = Verdict::Fail(format!("the job's record is broken: {reason}"));
            let _ = self.committer.send(Settlement { lease, verdict });
        }
        if number > 0 {
            self.early_beat.job_taken();
        }
        self.in_flight.record_take(capacity, taken.must_drain);
        let is_full = number >= capacity.jobs || meets_suspects || taken.has_more;
        turn.brought(is_full, &taken.paused);
        Ok(match taken.paused.iter().any(|paused| paused == queue) {
            true if number == 0 => Took::Paused,
            _ if is_full => Took::All,
            _ => Took::Less,
        })
    }
}

/// Growing pauses between tries.
#[derive(Default)]
struct Pause {
    tries: u32,
}

impl Pause {
    fn next(&mut self) -> Duration {
        self.tries = (self.tries + 1).min(10);
        // With jitter, so that several servers don't all come back in the same moment.
        AWAY_PAUSE / 10 * self.tries / 2 + AWAY_PAUSE.mul_f64(fastrand::f64() * 0.05)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fetcher_has_a_name_of_its_own() {
        let queues = ["default", "a", "reports.eu-north", "reports.eu-south", "a.1"].map(str::to_owned);
        for fetchers in [1, 16] {
            let names: Vec<String> = thread_names(&queues, fetchers).concat();
            assert_eq!(names.len(), queues.len() * fetchers);
            assert!(names.iter().all(|name| name.len() <= LONGEST_THREAD_NAME), "{names:?}");
            assert_eq!(
                names.iter().collect::<std::collections::HashSet<_>>().len(),
                names.len(),
                "{names:?}"
            );
        }
        assert_eq!(thread_names(&queues, 1).concat()[..3], ["fetch-default", "fetch-a", "fetch-reports~2"]);
        assert_eq!(thread_names(&queues, 2)[2], ["fetch-repor~2/0", "fetch-repor~2/1"]);
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let mut pause = Pause::default();
        let pauses: Vec<Duration> = (0..50).map(|_| pause.next()).collect();
        assert!(pauses[0] <= AWAY_PAUSE / 5, "{:?}", pauses[0]);
        assert!(pauses[9] > pauses[0] && pauses.iter().all(|pause| *pause <= AWAY_PAUSE), "{pauses:?}");
    }
}
