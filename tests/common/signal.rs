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

/// Whether a process with this id is there and is no zombie.
pub fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    match stat.rsplit_once(')') {
        Some((_, rest)) => !rest.trim_start().starts_with(['Z', 'X']),
        None => false,
    }
}
