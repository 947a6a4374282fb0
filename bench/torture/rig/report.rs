//! The findings of a run, and how they are printed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Plan;

/// The findings of a run.
#[derive(Debug)]
pub struct Report {
    /// The folder with the logs and the data, if it is kept.
    pub folder: PathBuf,
    pub seed: u64,
    /// The duration of the run.
    pub seconds: f64,
    /// Jobs that were sent.
    pub submitted: usize,
    /// Jobs accepted by a 202 or 200.
    pub accepted: usize,
    /// Jobs refused. A refusal is an error, except for a duplicate unique key.
    pub refused: usize,
    /// Jobs without a response.
    pub unknown: usize,
    /// Requests that were repeated.
    pub repeats: usize,
    /// Number of accepted jobs by status.
    pub ends: BTreeMap<String, usize>,
    /// Number of faults by kind.
    pub faults: BTreeMap<String, usize>,
    /// One line per fault.
    pub timeline: Vec<String>,
    /// Jobs that were accepted, and are not in Redis.
    pub lost: Vec<u64>,
    /// Jobs that were accepted, and are not in the append-only file: a kill of Redis with `everysec` can cause that.
    pub lost_by_redis: usize,
    /// Jobs that were accepted, and reached no final status in time.
    pub stuck: Vec<u64>,
    /// Runs in excess of the recorded attempts.
    pub duplicated: usize,
    /// Jobs that ran more often than recorded although none of their servers had a fault.
    pub unexplained: usize,
    /// The most duplicate runs by one fault of a server.
    pub most_by_one_fault: usize,
    /// The limit of `most_by_one_fault`.
    pub allowed_by_one_fault: usize,
    /// Dead letters by job type that were good jobs, and ran on a killed server too often.
    pub crashed_out: BTreeMap<&'static str, usize>,
    /// The longest time until a dead server's jobs were reclaimed.
    pub longest_recovery: Duration,
    /// The same for servers that died around a fault of Redis.
    pub longest_excused: Duration,
    /// The longest time from a fault of Redis to the next job that ended.
    pub longest_redis: Duration,
    /// Whether all jobs reached a final status in time.
    pub drained: bool,
    /// The duration of the final drain.
    pub drain: Duration,
    /// Ends of servers that the rig has not caused.
    pub unasked: Vec<String>,
    /// Remarks that are not errors.
    pub notes: Vec<String>,
    /// All other errors.
    pub errors: Vec<String>,
    /// The ids of jobs with a finding.
    pub offenders: BTreeSet<u64>,
    /// Their descriptions, and the ends of the logs.
    pub details: Vec<String>,
}

impl Report {
    pub fn new(plan: &Plan, folder: &Path) -> Report {
        Report {
            folder: folder.to_owned(),
            seed: plan.seed,
            seconds: 0.0,
            submitted: 0,
            accepted: 0,
            refused: 0,
            unknown: 0,
            repeats: 0,
            ends: BTreeMap::new(),
            faults: BTreeMap::new(),
            timeline: Vec::new(),
            lost: Vec::new(),
            lost_by_redis: 0,
            stuck: Vec::new(),
            duplicated: 0,
            unexplained: 0,
            most_by_one_fault: 0,
            // The running jobs, and as many jobs with outcomes that are not in Redis yet.
            allowed_by_one_fault: 2 * plan.workers,
            crashed_out: BTreeMap::new(),
            longest_recovery: Duration::ZERO,
            longest_excused: Duration::ZERO,
            longest_redis: Duration::ZERO,
            drained: false,
            drain: Duration::ZERO,
            unasked: Vec::new(),
            notes: Vec::new(),
            errors: Vec::new(),
            offenders: BTreeSet::new(),
            details: Vec::new(),
        }
    }

    /// Whether the run found no error.
    pub fn is_good(&self) -> bool {
        self.lost.is_empty()
            && self.stuck.is_empty()
            && self.drained
            && self.errors.is_empty()
            && self.unasked.is_empty()
    }

    pub(super) fn wrong(&mut self, what: String) {
        self.errors.push(what);
    }

    pub(super) fn note_ends(&mut self, ends: Vec<String>) {
        self.errors.extend(ends);
    }

    /// All lines but the last one: the faults, the totals, and the errors.
    pub fn details(&self) -> String {
        let mut lines = self.timeline.clone();
        let ends: Vec<String> =
            self.ends.iter().map(|(status, number)| format!("{number} {status}")).collect();
        lines.push(format!(
            "{}; {} requests repeated; drained in {:.1} s; dead letters caused by kills alone: {:?}; after a fault of Redis \
             the next job ended within {:.2} s",
            ends.join(", "),
            self.repeats,
            self.drain.as_secs_f64(),
            self.crashed_out,
            self.longest_redis.as_secs_f64(),
        ));
        lines.extend(self.notes.iter().map(|note| format!("note: {note}")));
        if !self.is_good() {
            lines.push(format!("lost: {:?}", first(&self.lost)));
            lines.push(format!("stuck: {:?}", first(&self.stuck)));
            lines.extend(
                self.unasked.iter().chain(self.errors.iter().take(40)).map(|what| format!("wrong: {what}")),
            );
            lines.extend(self.details.iter().cloned());
            lines.push(format!("logs and data are in {}", self.folder.display()));
        }
        lines.join("\n")
    }
}

fn first(ids: &[u64]) -> &[u64] {
    &ids[..ids.len().min(20)]
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let faults: Vec<String> =
            self.faults.iter().map(|(what, number)| format!("{number} {what}")).collect();
        write!(
            f,
            "{}: {} jobs ({} accepted, {} refused, {} unknown); faults: {}; lost {}{}, stuck {}, other errors {}, \
             duplicated {} (at most {} by one fault, limit {}); longest recovery {:.2} s (while Redis had a fault too: {:.2} s); seed {}; {:.0} s",
            if self.is_good() { "OK" } else { "FAILED" },
            self.submitted,
            self.accepted,
            self.refused,
            self.unknown,
            if faults.is_empty() { "none".to_owned() } else { faults.join(", ") },
            self.lost.len(),
            match self.lost_by_redis {
                0 => String::new(),
                number => format!(" (and {number} that Redis had not written to disk)"),
            },
            self.stuck.len(),
            self.errors.len() + self.unasked.len(),
            self.duplicated,
            self.most_by_one_fault,
            self.allowed_by_one_fault,
            self.longest_recovery.as_secs_f64(),
            self.longest_excused.as_secs_f64(),
            self.seed,
            self.seconds,
        )
    }
}
