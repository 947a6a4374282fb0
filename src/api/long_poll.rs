//! Requests that wait for their job to end: parked with the connection they came on, they hold up nobody.
//!
//! A client that hangs up gives its place free at the next look: it is answered as if its time were over. If it has only
//! closed its sending half it gets that answer, the job as it stands; whether it has shows only in sending something.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::job::JobId;
use crate::sync;

use super::{Api, send};
use crate::api::response::Reply;
use crate::gate::ParkedRequest;

/// How many requests may wait at a time, if there are connections and descriptors for so many.
pub const MOST: usize = 100;
/// How often their jobs are looked at, all in one command. Any server may end them, so only Redis can tell.
const LOOK: Duration = Duration::from_millis(50);

/// The requests that wait.
pub struct Waiting {
    most: usize,
    list: Mutex<List>,
    added: Condvar,
}

#[derive(Default)]
struct List {
    waits: Vec<Wait>,
    closed: bool,
}

/// One request that waits.
pub struct Wait {
    pub id: JobId,
    pub until: Instant,
    pub request: tiny_http::Request,
    /// The pattern of its path.
    pub pattern: &'static str,
    /// Its place among the connections, given to others meanwhile.
    pub parked: ParkedRequest,
}

impl Wait {
    /// Counts and sends the answer.
    pub fn answer(self, api: &Api, reply: Reply) {
        api.metrics.wait_ends();
        api.metrics.answered(self.request.method().as_str(), self.pattern, reply.status);
        drop(self.parked);
        send(self.request, reply);
    }
}

impl Waiting {
    /// ConnectionLimits for so many.
    pub fn new(most: usize) -> Waiting {
        Waiting { most, list: Mutex::default(), added: Condvar::new() }
    }

    /// Adds a request; gives it back where too many wait already, or nobody waits any more.
    pub fn add(&self, wait: Wait) -> Option<Wait> {
        let mut list = sync::lock(&self.list);
        if list.waits.len() >= self.most || list.closed {
            return Some(wait);
        }
        list.waits.push(wait);
        self.added.notify_one();
        None
    }

    /// Answers all that wait as things stand, and ends.
    pub fn close(&self) {
        sync::lock(&self.list).closed = true;
        self.added.notify_one();
    }

    /// The loop of the thread that watches the jobs and answers.
    pub fn run(&self, api: &Api) {
        loop {
            let idle = |list: &mut List| list.waits.is_empty() && !list.closed;
            let list = sync::lock(&self.list);
            let list = sync::wait_while(&self.added, list, idle);
            let closed = list.closed;
            let ids: Vec<JobId> = list.waits.iter().map(|wait| wait.id).collect();
            drop(list);
            let statuses = if ids.is_empty() { Ok(Vec::new()) } else { api.queue.statuses(&ids) };
            // Waits are only added behind those that were looked at, and only this thread takes them away.
            let mut list = sync::lock(&self.list);
            let now = Instant::now();
            let mut ended = Vec::new();
            for place in (0..ids.len()).rev() {
                let is_final = statuses.as_ref().is_ok_and(|statuses| {
                    statuses
                        .get(place)
                        .is_some_and(|found| found.as_ref().is_none_or(|(status, _)| status.is_final()))
                });
                let wait = &list.waits[place];
                if is_final || closed || wait.until <= now || wait.parked.client_has_hung_up() {
                    ended.push(list.waits.remove(place));
                }
            }
            drop(list);
            for wait in ended {
                let reply = api.show(wait.id).unwrap_or_else(|error| error);
                wait.answer(api, reply);
            }
            if closed {
                return;
            }
            let list = sync::lock(&self.list);
            let open = |list: &mut List| !list.closed;
            drop(sync::wait_timeout_while(&self.added, list, LOOK, open));
        }
    }
}
