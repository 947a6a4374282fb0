//! Listings: pages of jobs.

use std::sync::{Condvar, Mutex, MutexGuard};

use crate::job::{Job, JobId};
use crate::queue::{Filter, Page, Position};
use crate::sync;

use super::Api;
use super::query::Query;
use crate::api::response::{Answer, Reply};

/// How many pages are read and written at a time: each may take twice 4 MiB meanwhile.
const AT_A_TIME: usize = 2;

impl Api {
    /// One page of the jobs that match, as every listing answers.
    pub(super) fn list(&self, query: &Query, filter: Filter) -> Answer {
        query.not_both("page", "before")?;
        // Deeper pages than there can be jobs are still answered: they are empty.
        let page = query.number("page", 1, 1, u32::MAX.into())?;
        let limit = query.number("limit", 10, 1, 100)?;
        let (page, from) = match query.id("before")? {
            Some(id) => (None, Position::Before(id)),
            None => (Some(page), Position::Offset((page - 1) * limit)),
        };
        let _turn = self.listings.take_turn();
        let Page { jobs, total, next } = self.queue.list(&filter, from, limit)?;
        let bytes = 1024 + jobs.iter().map(about_bytes).sum::<usize>();
        Ok(Reply::large_json(200, &Listing { jobs: &jobs, page, limit, total, next }, bytes))
    }
}

/// How long a job is as JSON, about, and seldom more.
pub(super) fn about_bytes(job: &Job) -> usize {
    let errors: usize = job.errors.iter().map(|error| 100 + error.message.len()).sum();
    let last_error = job.last_error().map_or(0, str::len);
    1024 + job.payload.get().len()
        + job.result.as_ref().map_or(0, |result| result.get().len())
        + errors
        + last_error
}

/// A page as it is answered.
#[derive(serde::Serialize)]
struct Listing<'a> {
    jobs: &'a [Job],
    /// Left out where the page was asked for by an id.
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<u64>,
    limit: u64,
    total: u64,
    next: Option<JobId>,
}

/// Whose turn it is to make a page.
#[derive(Default)]
pub struct Turns {
    taken: Mutex<usize>,
    given: Condvar,
}

impl Turns {
    /// Waits for a turn; it ends when it is dropped.
    fn take_turn(&self) -> Turn<'_> {
        let is_full = |taken: &mut usize| *taken >= AT_A_TIME;
        let mut taken = sync::wait_while(&self.given, self.lock(), is_full);
        *taken += 1;
        Turn(self)
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        sync::lock(&self.taken)
    }
}

struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.given.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_comes_when_another_one_ends() {
        let turns = Turns::default();
        let mut all: Vec<_> = (0..AT_A_TIME).map(|_| turns.take_turn()).collect();
        assert_eq!(*turns.lock(), AT_A_TIME);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(turns.take_turn()));
            all.pop();
            waiting.join().unwrap();
        });
        drop(all);
        assert_eq!(*turns.lock(), 0);
    }
}
