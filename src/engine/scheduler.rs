//! The scheduler: moves jobs whose time has come into their queues, and sleeps until the next one is due.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::engine::shutdown::Shutdown;
use crate::queue::Queue;
use crate::sync;

/// The longest time that the scheduler sleeps. Each beat tells it what is due, also of jobs that others have parked.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Between tries while Redis is away.
const AWAY_PAUSE: Duration = Duration::from_millis(500);

/// Moves jobs whose time has come into their queues, and sleeps until the next one is due.
#[derive(Clone)]
pub struct Scheduler {
    alarm: Sender<()>,
    rung: Receiver<()>,
    /// When it will look again.
    next: Arc<Mutex<Instant>>,
}

impl Default for Scheduler {
    fn default() -> Scheduler {
        let (alarm, rung) = bounded(1);
        Scheduler { alarm, rung, next: Arc::new(Mutex::new(Instant::now())) }
    }
}

impl Scheduler {
    /// A job was parked that is due in so long: wakes the scheduler if it would sleep longer.
    pub fn due_in(&self, time: Duration) {
        let mut next = sync::lock(&self.next);
        let due = Instant::now() + time;
        if due < *next {
            *next = due;
            // A full alarm rings already.
            let _ = self.alarm.try_send(());
        }
    }

    /// Promotes until the end.
    pub fn run(&self, queue: &Queue, shutdown: &Shutdown) {
        loop {
            // Until it is known how long to sleep, whatever is parked must ring.
            self.plan(LONGEST_SLEEP * 1000);
            let sleep = match queue.promote() {
                // A millisecond more, so that what is due then is due by Redis's clock too.
                Ok((_, Some(due))) => (due + Duration::from_millis(1)).min(LONGEST_SLEEP),
                Ok((_, None)) => LONGEST_SLEEP,
                Err(_) => AWAY_PAUSE,
            };
            self.plan(sleep);
            if shutdown.wait_or(&self.rung, sleep) {
                return;
            }
        }
    }

    fn plan(&self, sleep: Duration) {
        *sync::lock(&self.next) = Instant::now() + sleep;
    }
}
