//! The doctor's work on the data: compares all lists, sets and hashes, and mends what does not fit, while servers run.
//!
//! A pass (`pass.rs`) walks through everything in small steps and so sees a moving picture. Whatever seems wrong gets a
//! second look, which is one atomic script that judges it anew; only what is wrong then is counted. The same script
//! mends it, after the same look. What is judged is told by `lua/audit_common.lua`, how it is repaired by `lua/repair.lua`.
//!
//! The memory that a pass takes is some 16 bytes for each job that is queued, and a few hundred findings.

pub(crate) mod scan;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{Error, Queue};

/// How many findings of one kind are named.
const EXAMPLES: usize = 5;
/// After so many rounds of repairs what is still wrong is left.
const MAX_ROUNDS: usize = 10;

/// What can be wrong with the data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FindingKind {
    /// A key of a type that is not its own.
    WrongType,
    /// A record that no job can be read from.
    Unreadable,
    /// A live job in no list: it would never run.
    Stranded,
    /// A live job that stands in lists more than once.
    Doubled,
    /// An entry without a job.
    Dangling,
    /// An entry whose job is in another status, or belongs elsewhere.
    Misplaced,
    /// An ended job that retention does not know of: it would be kept for ever.
    Unlisted,
    /// An index entry without a job, or of another status or type.
    IndexStale,
    /// A job that listings do not show.
    IndexMissing,
    /// A unique key whose holder is gone or has ended.
    UniqueStale,
    /// A live job that does not hold its unique key.
    UniqueMissing,
    /// A wish to cancel a job that does not run there.
    CancelStale,
    /// A list, or wishes to cancel, of a server that is dead or not known.
    Abandoned,
    /// A server that has jobs and does not beat.
    Silent,
}

impl FindingKind {
    /// All kinds, in the order of a report.
    pub const ALL: [FindingKind; 14] = [
        FindingKind::WrongType,
        FindingKind::Unreadable,
        FindingKind::Stranded,
        FindingKind::Doubled,
        FindingKind::Dangling,
        FindingKind::Misplaced,
        FindingKind::Unlisted,
        FindingKind::IndexStale,
        FindingKind::IndexMissing,
        FindingKind::UniqueStale,
        FindingKind::UniqueMissing,
        FindingKind::CancelStale,
        FindingKind::Abandoned,
        FindingKind::Silent,
    ];

    /// The word for it, in the scripts and for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            FindingKind::WrongType => "wrong_type",
            FindingKind::Unreadable => "unreadable",
            FindingKind::Stranded => "stranded",
            FindingKind::Doubled => "doubled",
            FindingKind::Dangling => "dangling",
            FindingKind::Misplaced => "misplaced",
            FindingKind::Unlisted => "unlisted",
            FindingKind::IndexStale => "index_stale",
            FindingKind::IndexMissing => "index_missing",
            FindingKind::UniqueStale => "unique_stale",
            FindingKind::UniqueMissing => "unique_missing",
            FindingKind::CancelStale => "cancel_stale",
            FindingKind::Abandoned => "abandoned",
            FindingKind::Silent => "silent",
        }
    }

    fn from_word(word: &str) -> Option<FindingKind> {
        FindingKind::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What was found of one kind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    /// How many.
    pub found: u64,
    /// How many of them were repaired.
    pub repaired: u64,
    /// The first few: an id, a key, or an id and where it stands.
    pub examples: Vec<String>,
    /// What was done to the first few of them, or why nothing was.
    pub done: Vec<String>,
}

impl Findings {
    fn note(list: &mut Vec<String>, text: String) {
        if list.len() < EXAMPLES && !list.contains(&text) {
            list.push(text);
        }
    }
}

/// A server that the registry remembers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RememberedServer {
    /// Its name.
    pub id: String,
    /// Whether it was declared dead.
    pub dead: bool,
    /// Since its last beat, if it is known.
    pub beat_age_ms: Option<u64>,
    /// How many jobs it has.
    pub entries: u64,
    /// How many worker threads it has.
    pub workers: u64,
    /// How many of them had a job at its last beat.
    pub busy: u64,
}

/// What a look at everything came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Audit {
    /// How many jobs there are.
    pub jobs: u64,
    /// What is wrong.
    pub groups: BTreeMap<FindingKind, Findings>,
    /// How many ids of jobs that were met without a job are remembered, and the newest few.
    pub lost: (u64, Vec<String>),
    /// Names of keys that an earlier repair has set aside.
    pub set_aside: (u64, Vec<String>),
    /// The servers.
    pub servers: Vec<RememberedServer>,
}

impl Audit {
    /// Whether nothing is wrong that was not repaired.
    pub fn is_clean(&self) -> bool {
        self.groups.values().all(|group| group.repaired >= group.found)
    }
}

/// How a repair treats servers.
#[derive(Clone, Copy, Debug)]
pub struct RepairPolicy {
    /// A server is dead when its beat stood still for so long.
    pub lease_timeout: Duration,
    /// How often a job may crash its server.
    pub max_crashes: u32,
}

impl Queue {
    /// Looks at everything in Redis and tells what does not fit. Takes a while with many jobs, and some seconds more if
    /// something is wrong that a server is about to mend itself.
    ///
    /// # Errors
    /// What Redis has answered; nothing was changed.
    pub fn audit(&self, policy: RepairPolicy) -> Result<Audit, Error> {
        crate::queue::audit::scan::run(self, policy, false)
    }

    /// The same, and mends what it finds, until nothing more is wrong or can be repaired. Gives what was done in all
    /// rounds, and what a last look found.
    ///
    /// # Errors
    /// What Redis has answered. What was done until then is done, and asking again goes on from there.
    pub fn repair(&self, policy: RepairPolicy) -> Result<(BTreeMap<FindingKind, Findings>, Audit), Error> {
        let mut done: BTreeMap<FindingKind, Findings> = BTreeMap::new();
        for _ in 0..MAX_ROUNDS {
            let round = crate::queue::audit::scan::run(self, policy, true)?;
            let repaired: u64 = round.groups.values().map(|group| group.repaired).sum();
            if repaired == 0 {
                return Ok((done, round));
            }
            for (kind, group) in round.groups {
                let total = done.entry(kind).or_default();
                total.found += group.found;
                total.repaired += group.repaired;
                group.examples.into_iter().for_each(|text| Findings::note(&mut total.examples, text));
                group.done.into_iter().for_each(|text| Findings::note(&mut total.done, text));
            }
        }
        Ok((done, self.audit(policy)?))
    }
}
