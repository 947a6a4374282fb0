//! The children of this process: those that it started, and orphans that it inherited.
//!
//! As process 1 of a container this process inherits every orphan, and as a subreaper those of the programs that it
//! started. Whoever inherits a process has to take it off the system's list when it has ended. One that was started here is
//! left to its owner, who waits for its exit status: so every child of this process is started by [`spawn`].

pub(crate) mod table;

use std::collections::BTreeMap;
use std::io;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, RwLock};

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use rustix::process::{getpid, set_child_subreaper};

use crate::sync;

/// Held for reading from before a child is started until it is in [`OWN`].
static STARTING: RwLock<()> = RwLock::new(());
/// The ids of the children that were started here, and how many owners each id has: it can be used again before its
/// first owner has let go of it. What children a process has is a fact of the whole process.
static OWN: Mutex<BTreeMap<u32, u32>> = Mutex::new(BTreeMap::new());
/// So many orphans are taken off the list at a time.
const MOST_AT_ONCE: usize = 1_000;

/// Keeps a child's exit status for its owner. To be held until the child was waited for.
#[derive(Debug)]
pub(crate) struct Owned(u32);

impl Drop for Owned {
    fn drop(&mut self) {
        let mut own = own();
        if let Some(owners) = own.get_mut(&self.0) {
            *owners -= 1;
            if *owners == 0 {
                own.remove(&self.0);
            }
        }
    }
}

/// Starts a child.
///
/// # Errors
/// It cannot be started.
pub(crate) fn spawn(command: &mut Command) -> io::Result<(Child, Owned)> {
    let _starting = sync::read(&STARTING);
    let child = command.spawn()?;
    *own().entry(child.id()).or_default() += 1;
    let owned = Owned(child.id());
    Ok((child, owned))
}

/// Runs a child without input to its end.
///
/// # Errors
/// It cannot be started.
pub(crate) fn output(command: &mut Command) -> io::Result<Output> {
    let (child, _owned) = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    child.wait_with_output()
}

/// Whether this child was started here.
pub(crate) fn is_own(pid: u32) -> bool {
    own().contains_key(&pid)
}

/// Has the orphans of all programs that this process starts become its children: so those that are to be stopped are found,
/// wherever they went. Then [`reap_orphans`] has to be called now and then.
pub(crate) fn inherit_orphans() {
    // Without it more escapes.
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        log::warn!("processes that leave a handler's process group cannot be inherited: {error}");
    }
}

/// Takes the orphans that have ended off the system's list.
pub(crate) fn reap_orphans() {
    // A child that starts now is not known as one of our own yet: next time.
    let Ok(_nobody_starts) = STARTING.try_write() else { return };
    for _ in 0..MOST_AT_ONCE {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::All, look).map(|status| status.pid()) {
            Ok(Some(pid)) if !is_own(pid.as_raw().unsigned_abs()) => reap(pid),
            // One of our own stands before the others, or one whose end has no name: the list tells of all.
            Ok(Some(_)) | Err(Errno::EINVAL) => return reap_listed(),
            Ok(None) | Err(_) => return,
        }
    }
}

fn reap_listed() {
    let me = getpid().as_raw_nonzero().get();
    for process in table::read() {
        if process.parent == me && process.has_ended && !is_own(process.pid.unsigned_abs()) {
            reap(Pid::from_raw(process.pid));
        }
    }
}

fn reap(pid: Pid) {
    let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
}

fn own() -> MutexGuard<'static, BTreeMap<u32, u32>> {
    sync::lock(&OWN)
}
