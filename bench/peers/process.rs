//! The programs that are measured. Each runs in its own process group, is measured through /proc, and is ended with all
//! its descendants.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions};

use super::figures::{Figure, Figures, Load, Part};
use super::limit::Limit;

/// The time between SIGTERM and SIGKILL.
const PATIENCE: Duration = Duration::from_secs(10);
/// Clock ticks per second in /proc, the same on every Linux.
const TICKS: f64 = 100.0;

/// A running program. Dropping it ends the program.
pub struct Program {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Program {
    /// Starts a program. Its stderr goes to the file NAME.log in `folder`.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Program, String> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).map_err(|error| error.to_string())?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file).process_group(0);
        let mut child = command
            .spawn()
            .map_err(|error| format!("{}: {error}", Path::new(command.get_program()).display()))?;
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, lines) = mpsc::channel();
        // The thread ends when all writers of the pipe have closed it.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let stdin = child.stdin.take();
        Ok(Program { name: name.to_owned(), child, stdin, lines, log })
    }

    /// Writes a line to the program's stdin.
    pub fn say(&mut self, line: &str) -> Result<(), String> {
        let stdin = self.stdin.as_mut().expect("it is there until the end");
        writeln!(stdin, "{line}").map_err(|error| format!("{}: {error}{}", self.name, self.last_words()))
    }

    /// Waits for the next line of the program's stdout.
    pub fn hear(&self, limit: &Limit) -> Result<String, String> {
        loop {
            match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) => limit.check().map_err(|error| {
                    format!("{} does not answer: {error}{}", self.name, self.last_words())
                })?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("{} has ended{}", self.name, self.last_words()));
                }
            }
        }
    }

    /// Returns an error if the program has ended.
    pub fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("{} has ended: {status}{}", self.name, self.last_words())),
            Err(error) => Err(format!("{}: {error}", self.name)),
        }
    }

    /// The last lines of its stderr, for an error message.
    fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(3)..].join(" / ");
        if last.is_empty() { String::new() } else { format!(": {last}") }
    }

    /// The pids of the program and all its descendants.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.child.id()];
        pids.extend(descendants(self.child.id()));
        pids
    }

    /// Sends SIGTERM, then SIGKILL to all processes of the program that are left.
    pub fn stop(mut self) {
        self.end(PATIENCE);
    }

    fn end(&mut self, patience: Duration) {
        let pids = self.pids();
        self.stdin = None;
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM);
        let end = Instant::now() + patience;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The bench has adopted the program's children. The kernel does not reuse their pids before the bench waits for
        // them.
        let ours = descendants(std::process::id());
        for pid in pids.into_iter().filter(|pid| ours.contains(pid)) {
            kill(pid);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end(Duration::from_secs(2));
        }
    }
}

/// Makes orphans of the programs children of the bench, so that the bench can find and end them.
pub fn adopt_orphans() {
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        eprintln!("peers: cannot find processes that a peer leaves behind: {error}");
    }
}

/// Kills all descendants of this process. Returns their number.
pub fn end_all() -> usize {
    let me = std::process::id();
    let mut ended = 0;
    for _ in 0..100 {
        let pids = descendants(me);
        if pids.is_empty() {
            break;
        }
        for pid in pids {
            kill(pid);
            ended += 1;
        }
        std::thread::sleep(Duration::from_millis(10));
        // Reap the adopted processes.
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    }
    ended
}

fn kill(pid: u32) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// The pids of all descendants of `root`.
fn descendants(root: u32) -> Vec<u32> {
    let mut children = HashMap::<u32, Vec<u32>>::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(fields) = stat(pid) {
            let parent = fields.get(1).and_then(|field| field.parse().ok()).unwrap_or(0);
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        let below = children.remove(&pid).unwrap_or_default();
        found.extend(&below);
        next.extend(below);
    }
    found
}

/// The fields of /proc/PID/stat after the name: 0 is the state, 1 the parent, 11 to 14 the CPU ticks, of the
/// process and of its ended children.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// Resident memory of these processes together, in MB; a shared page counts in each process.
pub fn rss(pids: &[u32]) -> f64 {
    sum_of_field(pids, "status", "VmRSS:")
}

/// Memory of these processes together, in MB; a page that n processes share counts as 1/n in each.
pub fn pss(pids: &[u32]) -> f64 {
    sum_of_field(pids, "smaps_rollup", "Pss:")
}

fn sum_of_field(pids: &[u32], file: &str, field: &str) -> f64 {
    let kilobytes = |pid| -> Option<f64> {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().next()?.parse().ok()
    };
    pids.iter().filter_map(kilobytes).sum::<f64>() * 1024.0 / 1e6
}

/// CPU time that these processes and their ended children have used, in seconds.
pub fn cpu(pids: &[u32]) -> f64 {
    let seconds = |pid: &u32| -> Option<f64> {
        let ticks: Vec<f64> =
            stat(*pid)?.get(11..15)?.iter().filter_map(|field| field.parse().ok()).collect();
        let (own, children) = ticks.split_at_checked(2)?;
        let [own, children] = [own, children].map(|ticks| ticks.iter().sum::<f64>() / TICKS);
        // The sum over the threads is exact; the process's own time is rounded down, and includes ended threads.
        Some(own.max(cpu_of_threads(*pid)) + children)
    };
    pids.iter().filter_map(seconds).sum()
}

/// CPU time that the present threads of a process have used, in seconds.
fn cpu_of_threads(pid: u32) -> f64 {
    let nanoseconds = |task: fs::DirEntry| -> Option<f64> {
        fs::read_to_string(task.path().join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(nanoseconds).sum::<f64>() / 1e9
}

/// CPU time of the parts of a load at one moment, in seconds.
pub struct Times(Vec<(Part, f64)>);

impl Times {
    pub fn read(parts: &[(Part, &[u32])]) -> Times {
        Times(parts.iter().map(|(part, pids)| (*part, cpu(pids))).collect())
    }

    /// Sets the CPU time per job since an earlier moment.
    pub fn set(&self, since: &Times, figures: &mut Figures, load: Load, jobs: u64) {
        for ((part, now), (_, before)) in self.0.iter().zip(&since.0) {
            figures.set(Figure::Cpu(load, *part), (now - before) * 1e6 / jobs as f64);
        }
    }
}
