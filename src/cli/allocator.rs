//! How the program uses the allocator of the GNU C library.
//!
//! By default it keeps a heap for each few threads, up to eight for each processor, and a heap keeps what a burst of large
//! requests has left in it: after one burst the program stayed ten times as large as before. With one heap, and with large
//! texts outside of it, memory goes back to the system when it is no longer used.
//!
//! The library reads its settings once, from the environment, before the program begins. So the program sets them there
//! and executes itself again, as the same process. A static program that was built with musl needs nothing of it.

/// What the C library reads.
const VARIABLE: &str = "GLIBC_TUNABLES";
/// One heap. A text of more than 4 KiB gets pages of its own, which the system has back at once. The heap takes no more than
/// it needs, and gives back what is free at its end from 64 KiB on. Of the stacks of threads that have ended 256 KiB are
/// kept.
const SETTINGS: &str = "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=4096:glibc.malloc.trim_threshold=65536:\
                        glibc.malloc.top_pad=0:glibc.pthread.stack_cache_size=262144";

/// Executes the program again with these settings, unless the environment has settings of the operator's own. Returns
/// where that is so, or where the program cannot be executed: then it works as it is, with more memory.
///
/// To be called before anything is started or opened.
pub(super) fn settle() {
    if cfg!(all(target_os = "linux", target_env = "gnu")) && std::env::var_os(VARIABLE).is_none() {
        execute_again();
    }
}

fn execute_again() {
    use std::os::unix::process::CommandExt;
    let Ok(program) = std::env::current_exe() else { return };
    let mut words = std::env::args_os();
    let mut command = std::process::Command::new(program);
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    // It returns only where it fails.
    let _ = command.args(words).env(VARIABLE, SETTINGS).exec();
}
