//! Long polls: requests that wait until their job ends or logs something, parked together with their connections.
//!
//! A client that hangs up frees its place within [`POLL_INTERVAL`]: its request is answered as if its time were over. If
//! the client has closed only its sending half, it gets that response, the job in its present state. The two cannot be
//! told apart until a write fails.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::api::outcome::Awaited;
use crate::api::parked::{Parked, Places};
use crate::api::state::Api;
use crate::job::JobId;
use crate::queue::JobState;
use crate::sync;

/// The time between two reads of the states of all waited-for jobs, in one command. Any server may end a job, so only
/// Redis has its state.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The long polls that wait.
pub struct LongPolls {
    /// The places of all requests that wait.
    pub places: Arc<Places>,
    list: Mutex<List>,
    added: Condvar,
}

#[derive(Default)]
struct List {
    waiting: Vec<LongPoll>,
    /// Whether pull workers may wait for jobs.
    has_takers: bool,
    is_closed: bool,
}

/// One request that waits.
pub struct LongPoll {
    pub id: JobId,
    pub awaited: Awaited,
    pub until: Instant,
    pub parked: Parked,
}

impl LongPolls {
    /// At most `limit` requests may wait at a time.
    pub fn new(limit: usize) -> LongPolls {
        LongPolls { places: Places::new(limit), list: Mutex::default(), added: Condvar::new() }
    }

    /// Adds a long poll. Returns it when the API stops.
    pub fn add(&self, long_poll: LongPoll) -> Option<LongPoll> {
        let mut list = sync::lock(&self.list);
        if list.is_closed {
            return Some(long_poll);
        }
        list.waiting.push(long_poll);
        self.added.notify_one();
        None
    }

    /// Lets the thread answer the pull workers whose time is over, as long as there are any.
    pub fn watch_takers(&self) {
        sync::lock(&self.list).has_takers = true;
        self.added.notify_one();
    }

    /// Answers all long polls with the present states of their jobs, and ends the thread.
    pub fn close(&self) {
        sync::lock(&self.list).is_closed = true;
        self.added.notify_one();
    }

    /// The thread `api-waits`: reads the states of the jobs and responds.
    pub fn run(&self, api: &Api) {
        loop {
            let is_idle = |list: &mut List| list.waiting.is_empty() && !list.has_takers && !list.is_closed;
            let list = sync::lock(&self.list);
            let mut list = sync::wait_while(&self.added, list, is_idle);
            let had_takers = std::mem::take(&mut list.has_takers);
            let is_closed = list.is_closed;
            let ids: Vec<JobId> = list.waiting.iter().map(|long_poll| long_poll.id).collect();
            drop(list);
            let has_takers = had_takers && api.pullers.takers.answer_overdue();
            let statuses = if ids.is_empty() { Ok(Vec::new()) } else { api.queue.statuses(&ids) };
            // Other threads only add at the end, and only this thread removes: the first ids.len() are unchanged.
            let mut list = sync::lock(&self.list);
            let now = Instant::now();
            let mut ended = Vec::new();
            for place in (0..ids.len()).rev() {
                let long_poll = &list.waiting[place];
                let has_come = |job: &JobState| match long_poll.awaited {
                    Awaited::Lines(part) if job.last_line > part.after => true,
                    _ => job.status.is_final(),
                };
                let is_over = statuses.as_ref().is_ok_and(|statuses| {
                    statuses.get(place).is_some_and(|found| found.as_ref().is_none_or(has_come))
                });
                if is_over || is_closed || long_poll.until <= now || long_poll.parked.client_has_hung_up() {
                    ended.push(list.waiting.remove(place));
                }
            }
            drop(list);
            for long_poll in ended {
                let response = match long_poll.awaited {
                    Awaited::End => api.show(long_poll.id),
                    Awaited::Lines(part) => api.log(long_poll.id, part),
                };
                let response = response.unwrap_or_else(|error| error);
                long_poll.parked.respond(response);
            }
            if is_closed {
                return;
            }
            let mut list = sync::lock(&self.list);
            list.has_takers |= has_takers;
            let is_open = |list: &mut List| !list.is_closed;
            drop(sync::wait_timeout_while(&self.added, list, POLL_INTERVAL, is_open));
        }
    }
}
