//! What a run found, and the line that says it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Plan;

/// What a run found.
#[derive(Debug)]
pub struct Report {
    /// Where the logs and the data are, as long as they are kept.
    pub folder: PathBuf,
    /// The seed of the run.
    pub seed: u64,
    /// How long all of it took.
    pub seconds: f64,
    /// Jobs that were sent.
    pub submitted: usize,
    /// Those that got their 202 or 200.
    pub accepted: usize,
    /// Those that were refused; for their unique key, or it is an error.
    pub refused: usize,
    /// Those that got no answer.
    pub unknown: usize,
    /// Requests that were sent again.
    pub repeats: usize,
    /// How many accepted jobs are in which status.
    pub ends: BTreeMap<String, usize>,
    /// How many faults of which kind there were.
    pub faults: BTreeMap<String, usize>,
    /// One line per fault.
    pub timeline: Vec<String>,
    /// Accepted, and not in Redis any more.
    pub lost: Vec<u64>,
    /// Accepted, and never written to the append-only file: a kill of Redis under `everysec` can do that.
    pub lost_by_redis: usize,
    /// Accepted, and neither completed, failed nor cancelled in time.
    pub stuck: Vec<u64>,
    /// Runs beyond those that were recorded as attempts.
    pub duplicated: usize,
    /// Of the jobs that ran too often, those whose servers had no fault.
    pub unexplained: usize,
    /// The most duplicates that one fault of a server made.
    pub most_by_one_fault: usize,
    /// As many may be.
    pub allowed_by_one_fault: usize,
    /// Good jobs that were running under so many kills that they are dead letters.
    pub crashed_out: BTreeMap<&'static str, usize>,
    /// The longest time until a dead server's jobs were back.
    pub longest_recovery: Duration,
    /// The same where Redis had a fault of its own meanwhile.
    pub longest_excused: Duration,
    /// The longest time until jobs ended again after a fault of Redis.
    pub longest_redis: Duration,
    /// Whether everything came to its end in time.
    pub drained: bool,
    /// How long that took after the load and the faults.
    pub drain: Duration,
    /// Servers that ended by themselves.
    pub unasked: Vec<String>,
    /// Worth reading, and no error by itself.
    pub notes: Vec<String>,
    /// All other errors.
    pub errors: Vec<String>,
    /// Jobs to be described.
    pub offenders: BTreeSet<u64>,
    /// Their descriptions, and the ends of the logs.
    pub details: Vec<String>,
}

impl Report {
    /// Nothing was found yet.
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
            // Running, and as many again whose outcomes wait to be written.
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

    /// Whether the program kept all its promises.
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

    /// Everything but the last line: what happened, and what is wrong with whom.
    pub fn details(&self) -> String {
        let mut lines = self.timeline.clone();
        let ends: Vec<String> =
            self.ends.iter().map(|(status, number)| format!("{number} {status}")).collect();
        lines.push(format!(
            "{}; {} requests sent again; drained in {:.1} s; dead letters by kills alone: {:?}; Redis faults: jobs end \
             again after at most {:.2} s",
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
            lines.push(format!("all of it is in {}", self.folder.display()));
        }
        lines.join("\n")
    }
}

fn first(ids: &[u64]) -> &[u64] {
    &ids[..ids.len().min(20)]
}

impl fmt::Display for Report {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let faults: Vec<String> =
            self.faults.iter().map(|(what, number)| format!("{number} {what}")).collect();
        write!(
            f,
            "{}: {} jobs ({} accepted, {} refused, {} unknown); faults: {}; lost {}{}, stuck {}, other errors {}, \
             duplicated {} (at most {} by one fault, allowed {}); longest recovery {:.2} s (while Redis had a fault too: {:.2} s); seed {}; {:.0} s",
            if self.is_good() { "OK" } else { "FAILED" },
            self.submitted,
            self.accepted,
            self.refused,
            self.unknown,
            if faults.is_empty() { "none".to_owned() } else { faults.join(", ") },
            self.lost.len(),
            match self.lost_by_redis {
                0 => String::new(),
                number => format!(" (and {number} by Redis, which had not written them)"),
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
