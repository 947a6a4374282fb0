//! Finds and signals the descendants of a program that left its process group.
//!
//! The search reads the list of processes in /proc. A descendant has the program among its ancestors. If a parent in between
//! has ended, its children were inherited, by this process if it is a subreaper; they are recognised by the job's id in
//! their environment. A process that was inherited before the first search and has changed its environment escapes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use crate::children::{is_own, process_list};

/// How often the list is read while a program stops. Each search reads a few files for each process of the system.
const SEARCH_INTERVAL: Duration = Duration::from_millis(250);

/// The descendants of one program.
pub(super) struct Descendants {
    leader: i32,
    /// An entry of the environment that the program passes on to its descendants.
    mark: String,
    /// The descendants that were found, by process id and start time, and whether each got SIGTERM.
    found: BTreeMap<(i32, u64), bool>,
    /// How many of them ran at the last search.
    running: usize,
    last_search: Option<Instant>,
}

impl Descendants {
    /// Of the program `leader`; no search was made yet.
    pub(super) fn new(leader: Pid, mark: &str) -> Descendants {
        let leader = leader.as_raw_nonzero().get();
        Descendants { leader, mark: mark.to_owned(), found: BTreeMap::new(), running: 0, last_search: None }
    }

    /// Searches for descendants if the last search is older than [`SEARCH_INTERVAL`], and sends SIGTERM to the new ones
    /// outside the program's process group.
    pub(super) fn terminate_new(&mut self) {
        if self.last_search.is_none_or(|at| at.elapsed() >= SEARCH_INTERVAL) {
            self.search();
            for (&process, is_signalled) in &mut self.found {
                if !std::mem::replace(is_signalled, true) {
                    signal(process, Signal::TERM);
                }
            }
        }
    }

    /// As [`Descendants::terminate_new`], with a search at once.
    pub(super) fn terminate_new_now(&mut self) {
        self.last_search = None;
        self.terminate_new();
    }

    /// Searches for descendants and kills all of them.
    pub(super) fn kill(&mut self) {
        self.search();
        self.found.keys().for_each(|&process| signal(process, Signal::KILL));
    }

    /// Whether a descendant ran at the last search.
    pub(super) fn is_running(&self) -> bool {
        self.running > 0
    }

    fn search(&mut self) {
        self.last_search = Some(Instant::now());
        let me = getpid().as_raw_nonzero().get();
        let all = process_list::read();
        let mut children: BTreeMap<i32, Vec<&process_list::Process>> = BTreeMap::new();
        for process in &all {
            children.entry(process.parent).or_default().push(process);
        }
        let is_known =
            |process: &&process_list::Process| self.found.contains_key(&(process.pid, process.started));
        let known = all.iter().filter(is_known);
        let inherited = children.get(&me).into_iter().flatten().copied().filter(|process| {
            let is_orphan = process.pid != self.leader && !is_own(process.pid.unsigned_abs());
            is_orphan && process_list::has_in_environment(process.pid, &self.mark)
        });
        let of_leader = children.get(&self.leader).into_iter().flatten().copied();
        let mut queue: Vec<&process_list::Process> = known.chain(inherited).chain(of_leader).collect();
        let mut seen = BTreeSet::new();
        let mut running = 0;
        while let Some(process) = queue.pop() {
            if !seen.insert(process.pid) {
                continue;
            }
            queue.extend(children.get(&process.pid).into_iter().flatten());
            if !process.has_ended {
                running += 1;
                // A process in the program's group gets the signal of the group. A second SIGTERM could end it too early.
                let is_signalled = process.group == self.leader;
                self.found.entry((process.pid, process.started)).or_insert(is_signalled);
            }
        }
        self.running = running;
    }
}

/// Signals the process with this id and start time, and no process that has got the same id since the search.
fn signal((pid, started): (i32, u64), signal: Signal) {
    let Some(id) = Pid::from_raw(pid) else { return };
    let Ok(descriptor) = pidfd_open(id, PidfdFlags::empty()) else { return };
    if process_list::process(pid).is_some_and(|process| process.started == started) {
        let _ = pidfd_send_signal(&descriptor, signal);
    }
}
