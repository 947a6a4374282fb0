//! The private Redis of a server, as the operating system shows it.

use std::path::{Path, PathBuf};

use super::signal;

/// Ends the private Redis of a server that was killed. Its socket gives the process id.
pub struct Cleanup(pub PathBuf);

impl Drop for Cleanup {
    fn drop(&mut self) {
        for pid in redis_servers_in(&self.0) {
            signal::kill9(pid);
        }
    }
}

/// The redis-servers whose working folder lies in this folder.
pub fn redis_servers_in(dir: &Path) -> Vec<u32> {
    let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if name.starts_with("redis-server") && cwd.starts_with(&dir) && signal::is_running(pid) {
            found.push(pid);
        }
    }
    found
}
