//! What is measured: threadq, an earlier threadq, and the peers.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::figures::Figures;
use super::limit::Limit;
use super::peer::{PEERS, Peer, home};
use super::plan::Plan;
use super::{measure, ours, process};

/// The time limit for the installation of a subject.
const INSTALLING: Duration = Duration::from_secs(30 * 60);
/// The name of the earlier threadq on the command line.
const EARLIER: &str = "threadq-0.4.0";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The threadq of the flag `--program`.
    Threadq,
    /// threadq 0.4.0, which `bench/peers/install` builds from its commit.
    Earlier,
    Peer(&'static Peer),
}

impl Subject {
    /// Everything that threadq is compared with.
    pub fn others() -> Vec<Subject> {
        [Subject::Earlier].into_iter().chain(PEERS.iter().map(Subject::Peer)).collect()
    }

    /// The name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Subject::Threadq => "threadq",
            Subject::Earlier => EARLIER,
            Subject::Peer(peer) => peer.name,
        }
    }

    /// The name in the tables, without the version.
    pub fn label(&self) -> &'static str {
        match self {
            Subject::Threadq => "**threadq**",
            Subject::Earlier => "threadq",
            Subject::Peer(peer) => peer.label,
        }
    }

    /// The name in the tables.
    pub fn label_with_version(&self) -> String {
        let version = match self {
            Subject::Threadq => env!("CARGO_PKG_VERSION").to_owned(),
            Subject::Earlier => "0.4.0".to_owned(),
            Subject::Peer(peer) => peer.version(),
        };
        format!("{} {version}", self.label())
    }

    /// Its configuration, for the reader of the tables.
    pub fn note(&self) -> &'static str {
        match self {
            Subject::Threadq | Subject::Earlier => {
                "`threadq serve --demo` with its defaults, type `echo`; keeps completed jobs and results"
            }
            Subject::Peer(peer) => peer.note,
        }
    }

    /// The number of its jobs.
    pub fn jobs(&self, plan: &Plan) -> usize {
        match self {
            Subject::Threadq | Subject::Earlier => plan.jobs,
            Subject::Peer(peer) => peer.jobs(plan.jobs),
        }
    }

    /// Measures the subject once. Returns the figures, and the errors of the phases that failed.
    pub fn measure(&self, plan: &Plan, folder: &Path, limit: &Limit) -> (Figures, Vec<String>) {
        match self {
            Subject::Threadq => ours::measure(&plan.program, true, plan, folder, limit),
            Subject::Earlier => ours::measure(&home().join("earlier/threadq"), false, plan, folder, limit),
            Subject::Peer(peer) => measure::peer(peer, plan, folder, limit),
        }
    }

    /// Installs the subject if it is not installed.
    pub fn install(&self, stop: &Arc<AtomicBool>) -> Result<(), String> {
        if *self == Subject::Threadq {
            return Ok(());
        }
        let mut command = Command::new(home().join("install"));
        command.arg(self.name()).stdin(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("bench/peers/install: {error}"))?;
        let limit = Limit::new(INSTALLING, stop.clone());
        loop {
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    return Err(match status.code() {
                        Some(3) => {
                            "this machine lacks something that its installation needs, see above".to_owned()
                        }
                        Some(4) => "the download or the build failed, see above".to_owned(),
                        _ => format!("bench/peers/install ended with {status}"),
                    });
                }
                None if limit.is_over() => {
                    let _ = child.kill();
                    let _ = child.wait();
                    process::end_all();
                    return Err("its installation was stopped or took too long".to_owned());
                }
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}
