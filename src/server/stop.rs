//! The end of a server: senders end before receivers. First requests and fetchers, then running attempts, then the
//! registration with its heartbeat, last the private Redis.

use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::engine::in_flight::{InFlight, STOP_GRACE};
use crate::handler::{Handlers, StopReason};
use crate::server::running::Server;
use crate::server::threads::spawn;

/// How long attempts may take to stop without a grace period. An exec handler needs half a second to kill its program.
const HURRY_GRACE: Duration = Duration::from_secs(1);
/// The longest time of a call to Redis, and a little more.
const LONGEST_CALL: Duration = Duration::from_secs(4);
/// The longest time in which a program that stays ends: 5 s after the end of its stdin it gets SIGTERM, 5 s later SIGKILL.
const LONGEST_END: Duration = Duration::from_secs(12);
/// The time between two checks of the attempts that still run.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

impl Server {
    /// Stops in order, within the drain timeout: see [`Server::shut_down`].
    pub fn stop(self) {
        self.shut_down(&crossbeam_channel::never());
    }

    /// Stops in order and blocks until all is done. The server accepts no more requests and takes no more jobs; running
    /// attempts may end within the drain timeout, or until a message comes through `hurry`. The remaining jobs return
    /// to their queues, without a crash or a failure on their record.
    ///
    /// A thread whose handler never returns ends with the process.
    pub fn shut_down(mut self, hurry: &Receiver<()>) {
        // On a thread of its own: a slow client must not delay the reaction to a message through `hurry`.
        let api = self.api;
        let api = spawn("api-stop", move || api.stop());
        let mut hurry = Hurry { messages: hurry, is_requested: false };
        let shared = self.engine.shared.clone();
        self.engine.close();
        self.engine.handlers.end_programs();
        let released_before = self.engine.released.load(Ordering::Relaxed);
        while !self.engine.fetchers.iter().all(JoinHandle::is_finished) || !self.engine.pullers.have_ended() {
            // At each check: a fetcher or a puller may have been about to enter the blocking command.
            shared.queue.unblock_fetchers();
            hurry.poll();
            if shared.queue.is_unavailable() {
                break;
            }
        }
        drain(&shared.in_flight, self.drain_timeout, &mut hurry);
        self.engine.end_drain();
        stop_attempts(&shared.in_flight, &mut hurry);
        self.handlers.report_folder.remove();
        match self.engine.registration.leave() {
            Ok(left) => {
                let released = self.engine.released.load(Ordering::Relaxed) - released_before;
                let moved = released + left.map_or(0, |left| left.moved);
                log::info!("stopped; {moved} jobs went back to their queues");
            }
            Err(error) => {
                wait_until_given_up(&shared.in_flight);
                log::warn!(
                    "stopped without Redis; other servers reclaim the remaining jobs of this server: {error}"
                );
            }
        }
        wait_for_programs(&self.engine.handlers, &mut hurry);
        if let Ok(api) = api
            && !hurry.is_requested
        {
            let _ = api.join();
        }
        if let Some(redis) = &mut self.private_redis {
            redis.stop(hurry.messages);
        }
    }
}

/// Waits until no job is in flight, for `time` at most, or until a message comes through `hurry`.
fn drain(in_flight: &InFlight, time: Duration, hurry: &mut Hurry) {
    let deadline = Instant::now() + time;
    while !in_flight.is_empty() && Instant::now() < deadline && !hurry.is_requested {
        hurry.poll();
    }
}

/// Sends the stop signal to the attempts that still run, and waits until they end or their grace period is over.
fn stop_attempts(in_flight: &InFlight, hurry: &mut Hurry) {
    if in_flight.is_empty() {
        return;
    }
    let running = in_flight.busy();
    if running > 0 {
        log::warn!("{running} jobs are still in flight: they are stopped and go back to their queues");
    }
    in_flight.stop_all(StopReason::Shutdown);
    drain(in_flight, STOP_GRACE, hurry);
    if hurry.is_requested {
        in_flight.hurry_all();
        let deadline = Instant::now() + HURRY_GRACE;
        while !in_flight.is_empty() && Instant::now() < deadline {
            thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Waits until the committer has logged the outcomes that it could not store. The end of the registration makes it give up
/// after its call to Redis.
fn wait_until_given_up(in_flight: &InFlight) {
    let deadline = Instant::now() + LONGEST_CALL;
    while in_flight.outcomes() > 0 && Instant::now() < deadline {
        thread::sleep(POLL_INTERVAL);
    }
}

/// Waits until the programs that stay have ended. Those that do not end by themselves are killed.
fn wait_for_programs(handlers: &Handlers, hurry: &mut Hurry) {
    let deadline = Instant::now() + LONGEST_END;
    while handlers.have_programs() && Instant::now() < deadline {
        if hurry.is_requested {
            handlers.hurry_programs();
        }
        hurry.poll();
    }
}

/// Whether the rest of a shutdown should not wait for running attempts and slow clients.
struct Hurry<'a> {
    messages: &'a Receiver<()>,
    is_requested: bool,
}

impl Hurry<'_> {
    /// Waits for a message, for [`POLL_INTERVAL`] at most.
    fn poll(&mut self) {
        match self.messages.recv_timeout(POLL_INTERVAL) {
            Ok(()) => self.is_requested = true,
            Err(RecvTimeoutError::Timeout) => {}
            // A closed channel brings no message and does not wait.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(POLL_INTERVAL),
        }
    }
}
