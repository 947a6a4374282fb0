//! The system's list of processes, as /proc shows it.

use std::fs;
use std::path::Path;

use rustix::process::getpid;

/// One process at the time of the look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Process {
    /// Its id.
    pub pid: i32,
    /// The id of its parent.
    pub parent: i32,
    /// The id of its process group.
    pub group: i32,
    /// When it was started, in ticks since the system's start: with the id it names one process for good.
    pub started: u64,
    /// Whether it has ended and only waits to be taken off the list.
    pub has_ended: bool,
}

/// All processes. None where /proc is that of another container, in which ids mean other processes, or is missing.
pub(crate) fn read() -> Vec<Process> {
    let own = fs::read_link("/proc/self").unwrap_or_default();
    if own != Path::new(&getpid().as_raw_nonzero().to_string()) {
        return Vec::new();
    }
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// The process with this id now.
pub(crate) fn process(pid: i32) -> Option<Process> {
    parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Whether it was started with this entry in its environment. One of another user does not tell.
pub(crate) fn has_in_environment(pid: i32, entry: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|found| found == entry.as_bytes())
}

/// `PID (NAME) STATE PARENT ...`, the start time is the 22nd field. The name may hold spaces and brackets.
fn parse(pid: i32, stat: &str) -> Option<Process> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let has_ended = matches!(*fields.first()?, "Z" | "X" | "x");
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
        has_ended,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_confuses_nothing() {
        let rest = "1 8 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1";
        let wanted = Process { pid: 9, parent: 1, group: 8, started: 4711, has_ended: false };
        assert_eq!(parse(9, &format!("9 (a) Z (b) S {rest}")), Some(wanted));
        assert_eq!(parse(9, &format!("9 (x) Z {rest}")), Some(Process { has_ended: true, ..wanted }));
        assert_eq!(parse(9, "9 (x) S 1"), None);
        assert_eq!(parse(9, ""), None);
    }

    #[test]
    fn this_process_is_listed() {
        let me = getpid().as_raw_nonzero().get();
        let listed = read();
        let found = listed.iter().find(|process| process.pid == me).expect("listed");
        assert_eq!(process(me), Some(*found));
        assert!(!found.has_ended);
    }
}
