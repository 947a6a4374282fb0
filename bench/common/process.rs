//! What the kernel knows of a process.

use std::fs;
use std::path::PathBuf;

/// Figures of a process at one moment; counts are sums over its threads.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub rss_kb: u64,
    /// The largest RSS there was.
    pub peak_rss_kb: u64,
    pub threads: usize,
    /// How often a thread waited for something and was woken.
    pub wakeups: u64,
    pub cpu_ns: u64,
}

/// Reads them.
pub fn usage(pid: u32) -> Usage {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let tasks: Vec<PathBuf> = tasks.flatten().map(|task| task.path()).collect();
    let sum = |read: &dyn Fn(&PathBuf) -> Option<u64>| tasks.iter().filter_map(read).sum();
    Usage {
        rss_kb: number(&status, "VmRSS:").unwrap_or(0),
        peak_rss_kb: number(&status, "VmHWM:").unwrap_or(0),
        threads: tasks.len(),
        wakeups: sum(&|task| {
            number(&fs::read_to_string(task.join("status")).ok()?, "voluntary_ctxt_switches:")
        }),
        // Exact, where `stat` counts in hundredths of a second.
        cpu_ns: sum(&|task| fs::read_to_string(task.join("schedstat")).ok()?.split(' ').next()?.parse().ok()),
    }
}

/// Begins the largest RSS anew.
pub fn reset_peak(pid: u32) {
    // Older kernels have no such reset: then the peak is that of the whole run.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

fn number(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}
