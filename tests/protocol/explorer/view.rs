//! The meaning of a snapshot, for the rules and for the choice of the next steps.

use std::collections::{BTreeMap, BTreeSet};

use threadq::job::Status;

use super::store::{Snapshot, Store};

/// The state of a job in Redis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobView {
    pub status: Status,
    /// The server that runs the job.
    pub server: Option<String>,
    pub starts: u64,
    pub attempts: u32,
    pub crashes: u32,
    /// Whether the job's server is asked to stop it.
    pub cancel: bool,
}

/// The content of Redis, parsed.
#[derive(Debug, Default)]
pub struct View {
    /// Jobs by id.
    pub jobs: BTreeMap<String, JobView>,
    /// Work queues and in-progress lists by key, from the left.
    pub lists: BTreeMap<String, Vec<String>>,
    /// `scheduled`, `completed`, `done`, `dlq_queue`, `lost` and the indexes.
    pub sorted: BTreeMap<String, BTreeSet<String>>,
    /// The registry of servers.
    pub beats: BTreeMap<String, String>,
    /// Cancel requests by server.
    pub cancels: BTreeMap<String, BTreeSet<String>>,
    /// The jobs with a slot of the limit, or a place: its score.
    pub slots: BTreeMap<String, f64>,
    /// How many jobs were sent on and not taken yet, if jobs wait for the limit or were sent on.
    pub sent: Option<f64>,
    /// Whether the agenda has the word of the limit.
    pub has_limit_word: bool,
    /// The number of jobs that wait for the limit, as it is counted.
    pub held_count: usize,
    /// The jobs whose lease the agenda watches.
    pub leases: BTreeSet<String>,
}

/// The limit of all jobs, in a scenario with a limit.
pub const LIMIT: &str = "narrow";
/// The jobs that wait for the limit.
pub const HELD: &str = "held:default:narrow";
/// The name under which pull workers have their jobs.
pub const PULL: &str = "pull";
pub const WORK: &str = "work_queue:default";
pub const SUSPECTS: &str = "work_queue:default:suspects";

pub fn in_progress(server: &str) -> String {
    format!("in_progress_queue:{server}")
}

impl View {
    pub fn new(store: &Store, snapshot: Snapshot) -> View {
        let mut view = View::default();
        for (key, words) in store.entries(snapshot) {
            let own = || words.iter().map(|word| (*word).to_owned());
            let kind = key.split(':').next().unwrap();
            match kind {
                "job" => {
                    view.jobs.insert(key["job:".len()..].to_owned(), JobView::new(key, &words));
                }
                "work_queue" | "in_progress_queue" => {
                    view.lists.insert(key.to_owned(), own().collect());
                }
                "completed" => {
                    view.sorted.insert(key.to_owned(), own().collect());
                }
                "scheduled" | "done" | "dlq_queue" | "lost" | "index" | "type_index" | "held" => {
                    view.sorted.insert(key.to_owned(), own().step_by(2).collect());
                }
                "servers" => {
                    let pairs = words.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned()));
                    view.beats.extend(pairs);
                }
                "cancels" => {
                    view.cancels.insert(key["cancels:".len()..].to_owned(), own().collect());
                }
                "slots" => view.slots.extend(scored(&words)),
                "holds" => view.sent = scored(&words).next().map(|(_, number)| number),
                "agenda" => {
                    for (word, _) in scored(&words) {
                        match word.strip_prefix("lease:") {
                            Some(id) => _ = view.leases.insert(id.to_owned()),
                            None => view.has_limit_word = true,
                        }
                    }
                }
                "held_count" => view.held_count = words[1].parse().unwrap(),
                _ => {}
            }
        }
        view
    }

    pub fn list(&self, key: &str) -> &[String] {
        self.lists.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether a server is registered and not declared dead. Pull workers together never are.
    pub fn is_alive(&self, server: &str) -> bool {
        server == PULL || self.beats.get(server).is_some_and(|beat| !beat.starts_with('D'))
    }

    /// The jobs that a server runs, by the data in Redis, newest first.
    pub fn running(&self, server: &str) -> impl Iterator<Item = &str> {
        self.list(&in_progress(server))
            .iter()
            .map(String::as_str)
            .filter(move |id| self.is_running(id, server))
    }

    pub fn is_running(&self, id: &str, server: &str) -> bool {
        self.jobs.get(id).is_some_and(|job| job.server.as_deref() == Some(server))
    }

    /// The jobs whose place is kept.
    pub fn kept(&self) -> impl Iterator<Item = &String> {
        self.slots.iter().filter(|(_, score)| score.is_finite() && **score > 1.0).map(|(id, _)| id)
    }

    /// Whether all jobs have ended, all lists are empty and no job has a slot.
    pub fn is_quiet(&self) -> bool {
        self.jobs.values().all(|job| job.status.is_final()) && self.lists.is_empty() && self.slots.is_empty()
    }
}

fn scored(words: &[&str]) -> impl Iterator<Item = (String, f64)> {
    words.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].parse().unwrap()))
}

impl JobView {
    fn new(key: &str, words: &[&str]) -> JobView {
        let field = |name: &str| words.chunks_exact(2).find(|pair| pair[0] == name).map(|pair| pair[1]);
        let number = |name: &str| field(name).map_or(0, |digits| digits.parse().unwrap());
        let status: Status =
            field("status").and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{key}: {words:?}"));
        JobView {
            status,
            // After the end of an attempt this field is only for operators.
            server: field("server").filter(|_| status == Status::Processing).map(str::to_owned),
            starts: number("starts"),
            // A record leaves out a first attempt that has completed.
            attempts: match field("attempts") {
                None if status == Status::Completed => 1,
                _ => number("attempts") as u32,
            },
            crashes: number("crashes") as u32,
            cancel: field("cancel").is_some(),
        }
    }
}
