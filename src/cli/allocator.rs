//! Settings of the allocator of the GNU C library that return unused memory to the system.
//!
//! By default the allocator has up to eight heaps (arenas) per processor, and each keeps the memory of a burst of large
//! requests: after one burst the program stayed ten times as large as before. With one heap, and with large blocks outside of
//! it, unused memory is returned.
//!
//! The C library reads these settings once, from the environment, before `main`. So the program sets them and executes itself
//! again, as the same process. A program that was built with musl does not need them.

/// The environment variable that the C library reads.
const VARIABLE: &str = "GLIBC_TUNABLES";
/// One heap. A block of more than 4 KiB has its own pages, which are returned when it is freed. The heap grows by no more than
/// it needs, and returns free memory at its end from 64 KiB on. 256 KiB of stacks of ended threads are kept.
const SETTINGS: &str = "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=4096:glibc.malloc.trim_threshold=65536:\
                        glibc.malloc.top_pad=0:glibc.pthread.stack_cache_size=262144";

/// Executes the program again with these settings. Returns if the environment has the variable already, as after this call, or
/// if the program cannot be executed: it then runs with the default settings and uses more memory.
///
/// Must be called before any thread is started or file opened.
pub(super) fn configure() {
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
    // `exec` returns only if it fails.
    let _ = command.args(words).env(VARIABLE, SETTINGS).exec();
}
