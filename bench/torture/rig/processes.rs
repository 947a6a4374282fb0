//! The servers: each runs on a free port, and a supervisor restarts it whenever it ends.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::Scope;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};

use super::Plan;

/// The interval between two checks of a server by its supervisor.
const LOOK: Duration = Duration::from_millis(20);
/// The longest pause before a server is restarted.
const LONGEST_PAUSE_MS: u64 = 1_000;

/// All servers of a run.
pub struct Servers {
    program: PathBuf,
    args: Vec<String>,
    folder: PathBuf,
    slots: Vec<Slot>,
    stopping: AtomicBool,
    seed: u64,
    poison: bool,
    starts: AtomicUsize,
    /// The pids of processes that poison jobs have ended.
    poisoned: Mutex<Vec<u32>>,
    /// Ends that the rig has not caused: a sentence for each.
    unasked: Mutex<Vec<String>>,
}

struct Slot {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    child: Option<Child>,
    addr: Option<SocketAddr>,
    frozen: bool,
    killed: bool,
    sigterm_sent: bool,
}

/// A running server, for the faults and the audit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Running {
    /// The number of the server, from 0.
    pub number: usize,
    pub pid: u32,
    pub addr: SocketAddr,
}

impl Servers {
    pub fn new(plan: &Plan, folder: &Path, redis_url: String) -> Servers {
        let mut args: Vec<String> = ["serve", "--listen", "127.0.0.1:0", "--demo"].map(str::to_owned).into();
        let mut flag = |name: &str, value: String| args.extend([format!("--{name}"), value]);
        flag("redis-url", redis_url);
        flag("config", folder.join("threadq.toml").display().to_string());
        flag("workers", plan.workers.to_string());
        flag("lease-timeout", format!("{}ms", plan.lease.as_millis()));
        flag("max-crashes", plan.max_crashes.to_string());
        // No job may be deleted: the audit reads them all.
        flag("retain-completed-max", (2 * plan.jobs + 1_000).to_string());
        flag("retain-failed-max", (2 * plan.jobs + 1_000).to_string());
        Servers {
            program: plan.program.clone(),
            args,
            folder: folder.to_owned(),
            slots: (0..plan.servers).map(|_| Slot { state: Mutex::default() }).collect(),
            stopping: AtomicBool::new(false),
            seed: plan.seed,
            poison: plan.poison > 0,
            starts: AtomicUsize::new(0),
            poisoned: Mutex::default(),
            unasked: Mutex::default(),
        }
    }

    /// Starts all servers, each with its own supervisor thread that restarts it when it ends.
    pub fn supervise<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        for number in 0..self.slots.len() {
            scope.spawn(move || self.look_after(number));
        }
    }

    fn look_after(&self, number: usize) {
        let mut random = Rng::with_seed(self.seed ^ (number as u64 + 1) << 32);
        while !self.stopping.load(Ordering::Acquire) {
            // Held until the server ends, so that it can print.
            let _stdout = match self.start(number) {
                Ok(stdout) => stdout,
                Err(reason) => {
                    self.note(format!("server {number} did not start: {reason}"));
                    std::thread::sleep(Duration::from_millis(500));
                    continue;
                }
            };
            let Some((pid, status)) = self.wait_for_end(number) else { return };
            let (killed, sigterm_sent) = {
                let mut state = self.state(number);
                (std::mem::take(&mut state.killed), std::mem::take(&mut state.sigterm_sent))
            };
            // A poison job ends its server by SIGKILL.
            if !killed && self.poison && status.signal() == Some(9) {
                self.poisoned.lock().expect("no thread panics while it holds the lock").push(pid);
            } else if !(killed || sigterm_sent && status.success()) {
                self.note(format!("server {number} ended without a fault: {status}"));
            }
            let pause = Duration::from_millis(random.u64(0..LONGEST_PAUSE_MS));
            let until = Instant::now() + pause;
            while Instant::now() < until && !self.stopping.load(Ordering::Acquire) {
                std::thread::sleep(LOOK);
            }
        }
    }

    fn start(&self, number: usize) -> Result<BufReader<std::process::ChildStdout>, String> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path(number));
        let log: File = log.map_err(|error| error.to_string())?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command.current_dir(&self.folder).env_remove("PORT").env_remove("REDIS_URL");
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        self.state(number).child = Some(child);
        self.starts.fetch_add(1, Ordering::Relaxed);
        let mut line = String::new();
        stdout.read_line(&mut line).map_err(|error| error.to_string())?;
        let addr =
            line.trim().strip_prefix("threadq listening on http://").and_then(|addr| addr.parse().ok());
        // Without an address the server has ended, which the supervisor notices.
        self.state(number).addr = addr;
        Ok(stdout)
    }

    /// Waits until the server ends; `None` when all servers are being stopped.
    fn wait_for_end(&self, number: usize) -> Option<(u32, ExitStatus)> {
        loop {
            if self.stopping.load(Ordering::Acquire) {
                return None;
            }
            let mut state = self.state(number);
            let ended = state.child.as_mut().and_then(|child| Some((child.id(), child.try_wait().ok()??)));
            if ended.is_some() {
                state.child = None;
                state.addr = None;
                state.frozen = false;
                return ended;
            }
            drop(state);
            std::thread::sleep(LOOK);
        }
    }

    fn state(&self, number: usize) -> MutexGuard<'_, State> {
        self.slots[number].state.lock().expect("no thread panics while it holds the lock")
    }

    fn note(&self, what: String) {
        self.unasked.lock().expect("no thread panics while it holds the lock").push(what);
    }

    /// How many times servers were started.
    pub fn starts(&self) -> usize {
        self.starts.load(Ordering::Relaxed)
    }

    /// The pids of processes that poison jobs have ended.
    pub fn poisoned(&self) -> Vec<u32> {
        self.poisoned.lock().expect("no thread panics while it holds the lock").clone()
    }

    /// Ends that the rig has not caused: a sentence for each.
    pub fn unasked_ends(&self) -> Vec<String> {
        self.unasked.lock().expect("no thread panics while it holds the lock").clone()
    }

    /// The servers that listen, are not frozen, and have got no signal to end.
    pub fn running(&self) -> Vec<Running> {
        let running = |number| {
            let state = self.state(number);
            let (child, addr) = (state.child.as_ref()?, state.addr?);
            (!state.frozen && !state.killed && !state.sigterm_sent).then(|| Running {
                number,
                pid: child.id(),
                addr,
            })
        };
        (0..self.slots.len()).filter_map(running).collect()
    }

    /// The address of a random server; it may be frozen, since a client cannot know that.
    pub fn any(&self, random: &mut Rng) -> Option<SocketAddr> {
        let addrs: Vec<_> = (0..self.slots.len()).filter_map(|number| self.state(number).addr).collect();
        random.choice(addrs)
    }

    /// Waits until all servers run.
    pub fn wait_until_up(&self, limit: Duration) -> Result<(), String> {
        let end = Instant::now() + limit;
        while self.running().len() < self.slots.len() {
            if Instant::now() > end {
                let reasons = self.unasked_ends().join("; ");
                return Err(format!("not all servers run: {reasons}\n{}", self.log_ends(5)));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Sends SIGKILL to a server. Returns whether the server still ran.
    pub fn kill(&self, server: Running) -> bool {
        let mut state = self.state(server.number);
        match &mut state.child {
            Some(child) if child.id() == server.pid => {
                let done = child.kill().is_ok();
                state.killed = done;
                done
            }
            _ => false,
        }
    }

    /// Sends SIGTERM to a server. Returns whether the server still ran.
    pub fn term(&self, server: Running) -> bool {
        let mut state = self.state(server.number);
        match &state.child {
            Some(child) if child.id() == server.pid && !state.killed => {
                let done = kill_process(Pid::from_child(child), Signal::TERM).is_ok();
                state.sigterm_sent = done;
                done
            }
            _ => false,
        }
    }

    /// Sends SIGSTOP or SIGCONT to a server. Returns whether the server still ran.
    pub fn set_frozen(&self, server: Running, frozen: bool) -> bool {
        let mut state = self.state(server.number);
        match &state.child {
            Some(child) if child.id() == server.pid => {
                let signal = if frozen { Signal::STOP } else { Signal::CONT };
                let done = kill_process(Pid::from_child(child), signal).is_ok();
                state.frozen = frozen;
                done
            }
            _ => false,
        }
    }

    /// Stops all servers by SIGTERM. Returns a sentence for each server that did not exit 0 within 35 s.
    pub fn stop_all(&self) -> Vec<String> {
        self.stopping.store(true, Ordering::Release);
        let mut children = Vec::new();
        for (number, _) in self.slots.iter().enumerate() {
            if let Some(child) = self.state(number).child.take() {
                let _ = kill_process(Pid::from_child(&child), Signal::CONT);
                let _ = kill_process(Pid::from_child(&child), Signal::TERM);
                children.push((number, child));
            }
        }
        let end = Instant::now() + Duration::from_secs(35);
        let mut wrong = Vec::new();
        for (number, mut child) in children {
            loop {
                match child.try_wait() {
                    Ok(Some(status)) if status.success() => break,
                    Ok(Some(status)) => {
                        wrong.push(format!("server {number} ended after SIGTERM with {status}"));
                        break;
                    }
                    _ if Instant::now() > end => {
                        wrong.push(format!("server {number} did not end after SIGTERM"));
                        let _ = child.kill();
                        let _ = child.wait();
                        break;
                    }
                    _ => std::thread::sleep(LOOK),
                }
            }
        }
        wrong
    }

    fn log_path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("server-{number}.log"))
    }

    /// The last lines of each server's log.
    pub fn log_ends(&self, lines: usize) -> String {
        let mut text = String::new();
        for number in 0..self.slots.len() {
            let log = fs::read_to_string(self.log_path(number)).unwrap_or_default();
            let all: Vec<&str> = log.lines().collect();
            text.push_str(&format!("--- server {number}\n"));
            for line in &all[all.len().saturating_sub(lines)..] {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for slot in &self.slots {
            let mut state = slot.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(child) = &mut state.child {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}
