//! The resources that a running process uses, and its limits.

use std::process::Command;

/// The number of threads of a process.
pub fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// The numbers of the open file descriptors of a process, in order.
pub fn descriptors(pid: u32) -> Vec<u64> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a running process of ours");
    let mut numbers: Vec<u64> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

/// The memory that a process uses now, in MB.
pub fn memory(pid: u32) -> u64 {
    megabytes(pid, "VmRSS:")
}

/// The most memory that a process ever used, in MB.
pub fn peak_memory(pid: u32) -> u64 {
    megabytes(pid, "VmHWM:")
}

fn megabytes(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// A soft limit of a process that was lowered; dropping this puts it back.
pub struct Lowered {
    set: Box<dyn Fn(&str)>,
    before: String,
}

/// Lowers a limit of a running process: `resource` as prlimit names it. For a process of another user `launcher` is a
/// program that runs prlimit as that user.
pub fn lower(pid: u32, resource: &str, to: u64, launcher: &[&str]) -> Lowered {
    let words = [launcher, &["prlimit"]].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let resource = resource.to_owned();
    let prlimit = move |argument: &str| {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["--pid", &pid.to_string(), argument]);
        command.output().expect("prlimit of util-linux is on PATH")
    };
    let shown = prlimit(&format!("--{resource}"));
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    // RESOURCE DESCRIPTION SOFT HARD UNITS
    let mut words = shown.lines().nth(1).expect("a line").split_whitespace().rev().skip(2);
    let before = words.next().expect("a soft limit").to_owned();
    let set = Box::new(move |soft: &str| {
        // The hard limit stays, so that nobody needs a privilege to put it back.
        let output = prlimit(&format!("--{resource}={soft}:"));
        assert!(output.status.success(), "{output:?}");
    });
    set(&to.to_string());
    Lowered { set, before }
}

impl Drop for Lowered {
    fn drop(&mut self) {
        (self.set)(&self.before);
    }
}

/// The soft limit of open files.
pub fn descriptor_limit(pid: u32) -> u64 {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("a running process");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("listed");
    line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
}
