//! Warns of stored jobs whose job type or queue no server serves.

use crate::cli::client::{Client, Unserved};
use crate::cli::responses::Stats;
use crate::cli::terminal::console::Console;

/// Jobs that were stored, for a sentence about them.
pub(super) struct Stored<'a> {
    /// `job 17 is stored`.
    pub what: &'a str,
    /// Whose type or queue: `its`.
    pub whose: &'a str,
    /// The one queue of all of them, if there is one.
    pub queue: Option<&'a str>,
}

/// Says so if no server serves stored jobs: their type or queue may be misspelt.
pub(super) fn warn_of_unserved(jobs: &Stored, unserved: Unserved, client: &Client, console: &mut Console) {
    if !unserved.job_type && !unserved.queue {
        return;
    }
    // The server has told what it does not serve itself. Without a look at the other servers nothing is claimed.
    let stats = client.get("/stats").ok().and_then(|answer| answer.parse::<Stats>().ok());
    let Some(Stats { queues, servers, .. }) = stats else { return };
    let Stored { what, whose, queue } = jobs;
    if unserved.job_type && servers.len() <= 1 {
        console.note(&format!(
            "{what}, but the server has no handler for {whose} type: every attempt will fail"
        ));
    }
    let is_meant = |name: &str| queue.is_none_or(|queue| queue == name);
    if unserved.queue && queues.iter().any(|queue| queue.servers == Some(0) && is_meant(&queue.name)) {
        console.note(&format!(
            "{what}, but no server takes from {whose} queue: jobs wait there until a server does"
        ));
    }
}
