//! What an audit finds.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// How many examples of each kind a report names.
pub(super) const EXAMPLES: usize = 5;

/// What can be wrong with the data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FindingKind {
    /// A key of a wrong type.
    WrongType,
    /// A record that cannot be read as a job.
    Unreadable,
    /// A live job in no list: it would never run.
    Stranded,
    /// A live job with more than one entry in lists.
    Doubled,
    /// An entry without a job.
    Dangling,
    /// An entry whose job has another status, or belongs to another list.
    Misplaced,
    /// An ended job that retention does not know: it would be kept for ever.
    Unlisted,
    /// An index entry without a job, or with a wrong status or type.
    IndexStale,
    /// A job that is not in its indexes: listings do not show it.
    IndexMissing,
    /// A word of the agenda without a job or schedule that needs the word.
    AgendaStale,
    /// A job without its word in the agenda: it would not expire, or would be kept for ever, or a dead pull worker would keep
    /// it. Or a limit without its word: jobs
    /// that wait for its next start would wait too long.
    AgendaMissing,
    /// A schedule without its word in the agenda: it would never have a tick again.
    TickMissing,
    /// A slot, or a kept place, of a job that does not need it: other jobs would wait for ever.
    SlotStale,
    /// A limit, or a queue, with a wrong number of jobs that wait for room or were sent on.
    LimitMiscounted,
    /// A log without a job, or with more lines than its job has.
    LogStale,
    /// A unique key whose holder was deleted or has ended.
    UniqueStale,
    /// A live job that does not hold its unique key.
    UniqueMissing,
    /// A request to cancel a job that does not run on the server.
    CancelStale,
    /// A list, or requests to cancel, of a server that is dead or not registered.
    Abandoned,
    /// A server that has jobs and sends no heartbeats.
    Silent,
}

impl FindingKind {
    /// All kinds, in the order of a report.
    pub const ALL: [FindingKind; 20] = [
        FindingKind::WrongType,
        FindingKind::Unreadable,
        FindingKind::Stranded,
        FindingKind::Doubled,
        FindingKind::Dangling,
        FindingKind::Misplaced,
        FindingKind::Unlisted,
        FindingKind::IndexStale,
        FindingKind::IndexMissing,
        FindingKind::AgendaStale,
        FindingKind::AgendaMissing,
        FindingKind::TickMissing,
        FindingKind::SlotStale,
        FindingKind::LimitMiscounted,
        FindingKind::LogStale,
        FindingKind::UniqueStale,
        FindingKind::UniqueMissing,
        FindingKind::CancelStale,
        FindingKind::Abandoned,
        FindingKind::Silent,
    ];

    /// The word in scripts and in JSON.
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
            FindingKind::AgendaStale => "agenda_stale",
            FindingKind::AgendaMissing => "agenda_missing",
            FindingKind::TickMissing => "tick_missing",
            FindingKind::SlotStale => "slot_stale",
            FindingKind::LimitMiscounted => "limit_miscounted",
            FindingKind::LogStale => "log_stale",
            FindingKind::UniqueStale => "unique_stale",
            FindingKind::UniqueMissing => "unique_missing",
            FindingKind::CancelStale => "cancel_stale",
            FindingKind::Abandoned => "abandoned",
            FindingKind::Silent => "silent",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<FindingKind> {
        FindingKind::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All findings of one kind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    /// The number of findings.
    pub found: u64,
    /// The number of repaired findings.
    pub repaired: u64,
    /// The first findings: for each an id, a key, or an id and its key.
    pub examples: Vec<String>,
    /// What was done about the first findings, or why nothing was done.
    pub done: Vec<String>,
}

impl Findings {
    /// Adds a text to a list of examples, if there is room and the text is new.
    pub(super) fn add_example(list: &mut Vec<String>, text: String) {
        if list.len() < EXAMPLES && !list.contains(&text) {
            list.push(text);
        }
    }

    /// Adds the findings of a later round.
    pub(super) fn merge(&mut self, round: Findings) {
        self.found += round.found;
        self.repaired += round.repaired;
        round.examples.into_iter().for_each(|text| Findings::add_example(&mut self.examples, text));
        round.done.into_iter().for_each(|text| Findings::add_example(&mut self.done, text));
    }
}

/// A server in the registry, live or dead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RememberedServer {
    pub id: String,
    /// Whether the server was declared dead.
    pub dead: bool,
    /// The time since its last heartbeat; `None` if that time is unknown.
    pub beat_age_ms: Option<u64>,
    /// The length of its in-progress list.
    pub entries: u64,
    /// The number of its worker threads.
    pub workers: u64,
    /// How many of its workers ran a job at its last heartbeat.
    pub busy: u64,
}

/// The result of an audit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Audit {
    /// The number of jobs.
    pub jobs: u64,
    /// What is wrong, by kind.
    pub findings: BTreeMap<FindingKind, Findings>,
    /// The number of ids in the set `lost` (ids that had an entry in a list, but no job), and the newest ids.
    pub lost: (u64, Vec<String>),
    /// The number of keys that an earlier repair has set aside, and some of their names.
    pub set_aside: (u64, Vec<String>),
    /// All servers in the registry.
    pub servers: Vec<RememberedServer>,
}

impl Audit {
    /// Whether all findings were repaired.
    pub fn is_clean(&self) -> bool {
        self.findings.values().all(|findings| findings.repaired >= findings.found)
    }
}

/// How a repair treats servers and their jobs.
#[derive(Clone, Copy, Debug)]
pub struct RepairPolicy {
    /// A server is dead if its heartbeat counter has not changed for this long.
    pub lease_timeout: Duration,
    /// The number of crashes after which a job becomes a dead letter.
    pub max_crashes: u32,
}
