//! The list of processes in /proc.

use std::fs;
use std::path::Path;

use rustix::process::getpid;

/// One process, as it was when the list was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Process {
    /// The process id.
    pub pid: i32,
    /// The process id of its parent.
    pub parent: i32,
    /// The id of its process group.
    pub group: i32,
    /// The start time in clock ticks since the start of the system. With the process id it is unique.
    pub started: u64,
    /// Whether the process has ended and has not been reaped (a zombie).
    pub has_ended: bool,
}

/// All processes. Empty if /proc is missing, or belongs to another container, where ids mean other processes.
pub(crate) fn read() -> Vec<Process> {
    let own = fs::read_link("/proc/self").unwrap_or_default();
    if own != Path::new(&getpid().as_raw_nonzero().to_string()) {
        return Vec::new();
    }
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// The process that has this id now.
pub(crate) fn process(pid: i32) -> Option<Process> {
    parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Whether the process was started with this entry in its environment. Always `false` for a process of another user.
pub(crate) fn has_in_environment(pid: i32, entry: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|found| found == entry.as_bytes())
}

/// Parses `PID (NAME) STATE PARENT ...`. The start time is the 22nd field. The name may contain spaces and brackets.
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
    fn a_name_with_brackets_is_parsed() {
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
