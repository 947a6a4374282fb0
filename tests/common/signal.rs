//! Signals to processes that the tests started.

use rustix::process::{Pid, Signal, kill_process};

fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    // It may have ended by itself; whoever waits for it finds out.
    let _ = kill_process(pid, signal);
}

pub fn kill9(pid: u32) {
    send(pid, Signal::KILL);
}

pub fn term(pid: u32) {
    send(pid, Signal::TERM);
}

pub fn int(pid: u32) {
    send(pid, Signal::INT);
}

pub fn hup(pid: u32) {
    send(pid, Signal::HUP);
}

pub fn stop(pid: u32) {
    send(pid, Signal::STOP);
}

pub fn cont(pid: u32) {
    send(pid, Signal::CONT);
}

/// The state and the parent of a process.
fn state(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The processes whose working folder lies in this folder, without zombies.
pub fn working_in(dir: &std::path::Path) -> Vec<u32> {
    let dir = std::fs::canonicalize(dir).expect("a folder");
    let works_there = |pid: &u32| {
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        cwd.starts_with(&dir) && is_running(*pid)
    };
    processes().filter(works_there).collect()
}

/// The children of a process.
pub fn children_of(parent: u32) -> Vec<u32> {
    processes().filter(|pid| state(*pid).is_some_and(|(_, its_parent)| its_parent == parent)).collect()
}

/// The children of a process that have ended and were not waited for.
pub fn zombies_of(parent: u32) -> Vec<u32> {
    processes().filter(|pid| state(*pid) == Some(('Z', parent))).collect()
}

/// Whether a process with this id exists and is not a zombie.
pub fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    match stat.rsplit_once(')') {
        Some((_, rest)) => !rest.trim_start().starts_with(['Z', 'X']),
        None => false,
    }
}
