//! The children of this process: the processes that it started, and orphans that it inherited.
//!
//! As process 1 of a container this process inherits all orphans, and as a subreaper the orphans of the programs that it
//! started. It must reap each orphan after its end, but must not reap a child that other code of this crate waits for. To
//! tell them apart, all code of this crate starts children with [`spawn`].

pub(crate) mod process_list;
pub(crate) mod program;

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
/// The process ids of the children that this crate started, and how many [`Owned`] guards each id has: the system can reuse
/// an id before the first guard is dropped. It is global because the children belong to the whole process.
static OWN: Mutex<BTreeMap<u32, u32>> = Mutex::new(BTreeMap::new());
/// How many orphans one call reaps at most.
const MAX_REAPED: usize = 1_000;

/// Protects a child from [`reap_orphans`]. The owner must hold it until it has waited for the child's exit status.
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
/// The child cannot be started.
pub(crate) fn spawn(command: &mut Command) -> io::Result<(Child, Owned)> {
    let _starting = sync::read(&STARTING);
    let child = command.spawn()?;
    *own().entry(child.id()).or_default() += 1;
    let owned = Owned(child.id());
    Ok((child, owned))
}

/// Runs a child with empty stdin to its end, and returns its output.
///
/// # Errors
/// The child cannot be started.
pub(crate) fn output(command: &mut Command) -> io::Result<Output> {
    let (child, _owned) = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    child.wait_with_output()
}

/// Whether this crate started the child with this process id.
pub(crate) fn is_own(pid: u32) -> bool {
    own().contains_key(&pid)
}

/// Makes this process a subreaper: the orphans of all programs that it starts become its children, so that they are found
/// when a program must stop. Then [`reap_orphans`] must be called periodically.
pub(crate) fn inherit_orphans() {
    // Without it, orphans outside the process group are not found.
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        log::warn!("cannot inherit the orphans of handlers' programs; some may outlive their job: {error}");
    }
}

/// Reaps the orphans that have ended.
pub(crate) fn reap_orphans() {
    // A child that is being started is not in OWN yet. Its start is short: the next call reaps the orphans.
    let Ok(_no_start) = STARTING.try_write() else { return };
    for _ in 0..MAX_REAPED {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::All, flags).map(|status| status.pid()) {
            Ok(Some(pid)) if !is_own(pid.as_raw().unsigned_abs()) => reap(pid),
            // The kernel reports an own child first, or a state that nix cannot name: search the list of processes instead.
            Ok(Some(_)) | Err(Errno::EINVAL) => return reap_listed(),
            Ok(None) | Err(_) => return,
        }
    }
}

fn reap_listed() {
    let me = getpid().as_raw_nonzero().get();
    for process in process_list::read() {
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
