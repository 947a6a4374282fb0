//! Figures of a process, from /proc.

use std::fs;
use std::path::PathBuf;

/// The figures of a process at one moment; counts are sums over its threads.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub rss_kb: u64,
    /// The largest RSS since the start or [`reset_peak`].
    pub peak_rss_kb: u64,
    pub threads: usize,
    /// How often a thread blocked and was woken (voluntary context switches).
    pub wakeups: u64,
    pub cpu_ns: u64,
    /// The parts of the processor time in user mode and in the system, in steps of 10 ms.
    pub user_ms: u64,
    pub system_ms: u64,
}

/// Reads the figures of a process.
pub fn usage(pid: u32) -> Usage {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let tasks: Vec<PathBuf> = tasks.flatten().map(|task| task.path()).collect();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // After the name, which ends with the last parenthesis. Linux counts in 1/100 s here on every machine.
    let ticks = |n: usize| stat.rsplit(')').next()?.split_whitespace().nth(n)?.parse::<u64>().ok();
    let ms = |n: usize| ticks(n).unwrap_or(0) * 10;
    let sum = |read: &dyn Fn(&PathBuf) -> Option<u64>| tasks.iter().filter_map(read).sum();
    Usage {
        rss_kb: number(&status, "VmRSS:").unwrap_or(0),
        peak_rss_kb: number(&status, "VmHWM:").unwrap_or(0),
        threads: tasks.len(),
        wakeups: sum(&|task| {
            number(&fs::read_to_string(task.join("status")).ok()?, "voluntary_ctxt_switches:")
        }),
        // `schedstat` counts in ns, `stat` only in units of 10 ms.
        cpu_ns: sum(&|task| fs::read_to_string(task.join("schedstat")).ok()?.split(' ').next()?.parse().ok()),
        user_ms: ms(11),
        system_ms: ms(12),
    }
}

/// Resets the largest RSS to the present RSS.
pub fn reset_peak(pid: u32) {
    // Kernels before 4.0 cannot reset it: there the peak is that of the whole run.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

fn number(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}
