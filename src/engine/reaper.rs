//! The reaper: reclaims the jobs of dead servers. If the hand-over of a job to this server was lost, the reaper returns
//! the job to its queue.
//!
//! The reaper acts on the findings of a heartbeat on its own thread, because with a slow Redis or many jobs its work can
//! take longer than a lease. Outdated findings do no harm: a server that has sent a heartbeat since is not reclaimed, and
//! an entry is returned only if it is still in the list.

use std::time::Instant;

use crossbeam_channel::Receiver;

use crate::engine::recovery::{Findings, LostEntries};
use crate::engine::shared::Shared;
use crate::engine::shutdown::Shutdown;
use crate::logging::job_fields::{JobFields, log_job};
use crate::queue::{CrashedJob, Reclaimed, ServerId};

/// One in this many findings causes a search for lost entries, even if the numbers of jobs agree.
const SEARCH_EVERY: u64 = 3;

pub struct Reaper {
    pub shared: Shared,
    /// From the heartbeat. Has room for one.
    pub findings: Receiver<Findings>,
    /// Ends a reclaim between two steps when the server stops.
    pub shutdown: Shutdown,
}

impl Reaper {
    /// Runs until the heartbeat has ended.
    pub fn run(&self) {
        let mut search = Search::default();
        for findings in &self.findings {
            if findings.quarantine_waits {
                self.shared.queue.unblock_fetchers();
            }
            for (server, observed) in &findings.dead {
                self.reclaim(server, observed);
            }
            self.recover_lost(&mut search, &findings);
        }
    }

    fn reclaim(&self, server: &str, observed: &str) {
        let Shared { queue, metrics, max_crashes, .. } = &self.shared;
        let ends = || self.shutdown.is_requested();
        match queue.reclaim_until(server, observed, *max_crashes, ends) {
            Ok(Some(reclaimed)) => {
                metrics.recovered(reclaimed.moved);
                self.record_crash(server, &reclaimed);
            }
            Ok(None) => {}
            Err(error) => {
                log::error!(server = server; "server={server}: cannot reclaim its jobs: {error}");
            }
        }
    }

    /// Records in the log and the metrics what a server's death did to its jobs.
    fn record_crash(&self, server: &str, reclaimed: &Reclaimed) {
        let failed = reclaimed.crashed.iter().filter(|job| job.has_failed).count();
        log::warn!(
            server = server;
            "server={server}: dead; jobs reclaimed: {}, of them running at the crash: {}, failed at max-crashes: {failed}",
            reclaimed.moved,
            reclaimed.crashed.len()
        );
        for CrashedJob { id, job_type, attempt, crashes, has_failed } in &reclaimed.crashed {
            let fields = JobFields::job(*id).with_attempt(job_type, *attempt).on_server(server);
            if *has_failed {
                log_job!(
                    error,
                    fields,
                    "failed for good: its server died {crashes} times while the job was running"
                );
                self.shared.metrics.failed(job_type);
            } else {
                let limit = self.shared.max_crashes;
                log_job!(
                    warn,
                    fields,
                    "its server died while the job was running: crash {crashes} of {limit}"
                );
            }
        }
    }

    /// Returns jobs to their queues that Redis lists as in progress here, although no thread of this server has them.
    fn recover_lost(&self, search: &mut Search, findings: &Findings) {
        let Shared { queue, membership, in_flight, metrics, .. } = &self.shared;
        let server = &findings.server;
        if membership.current() != *server {
            return;
        }
        if search.server.as_ref() != Some(server) {
            *search = Search { server: Some(server.clone()), ..Search::default() };
        }
        search.findings += 1;
        // Jobs start and end between the two counts, so the comparison alone can miss a lost entry for a while.
        let is_suspicious = findings.in_progress > in_flight.len() || !search.lost.is_empty();
        if !is_suspicious && (findings.in_progress == 0 || !search.findings.is_multiple_of(SEARCH_EVERY)) {
            return;
        }
        let Ok(entries) = queue.in_progress_here(server) else { return };
        let id = |entry: &[u8]| std::str::from_utf8(entry).ok()?.parse().ok();
        let is_known = |entry: &[u8]| id(entry).is_some_and(|id| in_flight.contains(id));
        let unknown: Vec<Vec<u8>> = entries.into_iter().filter(|entry| !is_known(entry)).collect();
        let entries = search.lost.lost(unknown, Instant::now());
        if entries.is_empty() {
            return;
        }
        match queue.recover(server, &entries) {
            Ok(moved) => {
                metrics.recovered(moved);
                log::warn!("jobs returned to their queues because their hand-over was lost: {moved}");
            }
            Err(error) => log::error!("cannot return jobs to their queues whose hand-over was lost: {error}"),
        }
    }
}

/// The search for lost entries under one server id.
#[derive(Default)]
struct Search {
    server: Option<ServerId>,
    lost: LostEntries,
    /// The number of findings so far.
    findings: u64,
}
