//! The descendants of a program, also those that left its process group: they are found when it is to be stopped.
//!
//! They are looked for in the system's list of processes. A descendant has the program among its ancestors; if one in
//! between has ended, it was inherited, by this process if it is a subreaper, and carries the job's id in its environment.
//! A process that was inherited before the first look and has another environment escapes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use crate::children::{is_own, table};

/// How often the list is read while a program stops: it costs a few files for each process of the system.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What descends from one program.
pub(super) struct Tree<'a> {
    leader: i32,
    /// What stands in the environment of the program, and so of its descendants.
    mark: &'a str,
    /// Those found, by id and start time, and whether they were told to stop.
    found: BTreeMap<(i32, u64), bool>,
    /// How many of them ran at the last look.
    running: usize,
    looked: Option<Instant>,
}

impl<'a> Tree<'a> {
    /// Nothing yet.
    pub(super) fn new(leader: Pid, mark: &'a str) -> Tree<'a> {
        let leader = leader.as_raw_nonzero().get();
        Tree { leader, mark, found: BTreeMap::new(), running: 0, looked: None }
    }

    /// Looks for descendants, if the last look was long ago, and tells those that are new and in other groups to stop.
    pub(super) fn tell(&mut self) {
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            self.look();
            for (&process, told) in &mut self.found {
                if !std::mem::replace(told, true) {
                    signal(process, Signal::TERM);
                }
            }
        }
    }

    /// The same, however long ago the last look was.
    pub(super) fn tell_now(&mut self) {
        self.looked = None;
        self.tell();
    }

    /// Looks for descendants and kills them.
    pub(super) fn kill(&mut self) {
        self.look();
        self.found.keys().for_each(|&process| signal(process, Signal::KILL));
    }

    /// Whether one of them ran at the last look.
    pub(super) fn is_running(&self) -> bool {
        self.running > 0
    }

    fn look(&mut self) {
        self.looked = Some(Instant::now());
        let me = getpid().as_raw_nonzero().get();
        let all = table::read();
        let mut children: BTreeMap<i32, Vec<&table::Process>> = BTreeMap::new();
        for process in &all {
            children.entry(process.parent).or_default().push(process);
        }
        let is_known = |process: &&table::Process| self.found.contains_key(&(process.pid, process.started));
        let known = all.iter().filter(is_known);
        let inherited = children.get(&me).into_iter().flatten().copied().filter(|process| {
            let is_orphan = process.pid != self.leader && !is_own(process.pid.unsigned_abs());
            is_orphan && table::has_in_environment(process.pid, self.mark)
        });
        let of_leader = children.get(&self.leader).into_iter().flatten().copied();
        let mut queue: Vec<&table::Process> = known.chain(inherited).chain(of_leader).collect();
        let mut seen = BTreeSet::new();
        let mut running = 0;
        while let Some(process) = queue.pop() {
            if !seen.insert(process.pid) {
                continue;
            }
            queue.extend(children.get(&process.pid).into_iter().flatten());
            if !process.has_ended {
                running += 1;
                // One in the program's group gets the signal of the group, and a second one could cut its end short.
                let is_told = process.group == self.leader;
                self.found.entry((process.pid, process.started)).or_insert(is_told);
            }
        }
        self.running = running;
    }
}

/// Signals this very process: its id may have come to mean another one since the look.
fn signal((pid, started): (i32, u64), signal: Signal) {
    let Some(id) = Pid::from_raw(pid) else { return };
    let Ok(descriptor) = pidfd_open(id, PidfdFlags::empty()) else { return };
    if table::process(pid).is_some_and(|process| process.started == started) {
        let _ = pidfd_send_signal(&descriptor, signal);
    }
}
