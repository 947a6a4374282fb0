//! Warnings for stored jobs that no server can run.

use crate::cli::client::{Client, Unserved};
use crate::cli::responses::Stats;
use crate::cli::terminal::console::Console;

/// The jobs that were stored, as parts of a sentence.
pub(super) struct Stored<'a> {
    /// `job 17 is stored`.
    pub what: &'a str,
    /// The possessive before `type` and `queue`: `its`.
    pub whose: &'a str,
    /// The queue of all jobs, if they have the same.
    pub queue: Option<&'a str>,
}

/// Prints a warning if no server has a handler for stored jobs or takes jobs from their queue: the name may be misspelt.
pub(super) fn warn_of_unserved(jobs: &Stored, unserved: Unserved, client: &Client, console: &mut Console) {
    if !unserved.job_type && !unserved.queue {
        return;
    }
    // `unserved` is about one server. Another server may serve the jobs, so nothing is printed without GET /stats.
    let stats = client.get("/stats").ok().and_then(|response| response.parse::<Stats>().ok());
    let Some(Stats { queues, servers, .. }) = stats else { return };
    let Stored { what, whose, queue } = jobs;
    let is_meant = |name: &str| queue.is_none_or(|queue| queue == name);
    // In a queue that no server takes from, pull workers may run jobs of any type.
    let is_taken = queues.iter().any(|queue| queue.servers != Some(0) && is_meant(&queue.name));
    if unserved.job_type && servers.len() <= 1 && is_taken {
        console.note(&format!(
            "{what}, but the server has no handler for {whose} type: every attempt will fail"
        ));
    }
    if unserved.queue && queues.iter().any(|queue| queue.is_unserved() && is_meant(&queue.name)) {
        console.note(&format!(
            "{what}, but no server takes jobs from {whose} queue: jobs wait until a server or a pull worker does"
        ));
    }
}
