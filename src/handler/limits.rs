//! What a program may use up of the machine: `limits = { memory = "512MiB" }` of an exec handler.
//!
//! The program is started through `nice` and `prlimit`, which set its limits on themselves and then become the
//! program, in the same process. So the limits hold from its first instruction on, and all that it starts inherits
//! them. Setting them on the program once it runs would come too late for one that is quick.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::children;

/// From SIGXCPU, which a program can heed, to SIGKILL, in seconds of processor time.
const CPU_PATIENCE: u64 = 5;

/// Limits of every process of an exec handler. The default has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ResourceLimits {
    /// Address space in bytes.
    pub memory: Option<u64>,
    /// Processor time, in whole seconds.
    pub cpu: Option<Duration>,
    /// Open files, its three standard streams among them.
    pub open_files: Option<u64>,
    /// From 0, as the server, to 19: whoever else wants the processor goes first.
    pub niceness: Option<u8>,
}

impl ResourceLimits {
    /// Whether there is no limit at all.
    pub fn is_empty(&self) -> bool {
        *self == ResourceLimits::default()
    }

    /// The words that go in front of a program and its arguments. `find` looks for a program on PATH.
    ///
    /// # Errors
    /// A sentence: the programs that set limits are not there, or the system refuses these limits.
    pub(super) fn prefix(
        &self,
        find: impl Fn(&str) -> Result<PathBuf, String>,
    ) -> Result<Vec<OsString>, String> {
        let find = |name: &str| {
            find(name).map_err(|error| format!("limits: {error}; it comes with util-linux and coreutils"))
        };
        let mut words: Vec<OsString> = Vec::new();
        let mut last = None;
        if let Some(niceness) = self.niceness {
            let nice = find("nice")?;
            words.extend([nice.clone().into(), "-n".into(), niceness.to_string().into()]);
            last = Some(nice);
        }
        let prlimit_flags: Vec<OsString> = [
            self.memory.map(|bytes| format!("--as={bytes}")),
            self.cpu.map(|time| format!("--cpu={}:{}", time.as_secs(), time.as_secs() + CPU_PATIENCE)),
            self.open_files.map(|number| format!("--nofile={number}")),
        ]
        .into_iter()
        .flatten()
        .map(OsString::from)
        .collect();
        if !prlimit_flags.is_empty() {
            let prlimit = find("prlimit")?;
            words.push(prlimit.clone().into());
            words.extend(prlimit_flags);
            // What follows is the program, whatever it looks like.
            words.push("--".into());
            last = Some(prlimit);
        }
        if let Some(program) = last {
            self.try_out(&words, program)?;
        }
        Ok(words)
    }

    /// Whether a small program runs under these limits: better found out now than by every job.
    fn try_out(&self, prefix: &[OsString], program: PathBuf) -> Result<(), String> {
        let Some((first, rest)) = prefix.split_first() else { return Ok(()) };
        let refused = |why: String| format!("limits: no program runs under {self}: {why}");
        let output = children::output(Command::new(first).args(rest).arg(program).arg("--version"))
            .map_err(|error| refused(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let last_words = String::from_utf8_lossy(&output.stderr);
        Err(refused(last_words.lines().last().map_or_else(|| output.status.to_string(), str::to_owned)))
    }
}

/// As in the configuration: `memory=512MiB cpu=60s`.
impl fmt::Display for ResourceLimits {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let words = [
            self.memory.map(|bytes| match bytes % (1 << 20) {
                0 => format!("memory={}MiB", bytes >> 20),
                _ => format!("memory={bytes}"),
            }),
            self.cpu.map(|time| format!("cpu={}s", time.as_secs())),
            self.open_files.map(|number| format!("open_files={number}")),
            self.niceness.map(|niceness| format!("niceness={niceness}")),
        ];
        f.write_str(&words.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(limits: ResourceLimits) -> Result<String, String> {
        let words = limits.prefix(|name| match std::path::Path::new("/usr/bin").join(name) {
            path if path.exists() => Ok(path),
            _ => Err(format!("the program \"{name}\" is not on PATH")),
        })?;
        Ok(words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn only_what_is_limited_is_wrapped() {
        assert_eq!(prefix(ResourceLimits::default()).unwrap(), "");
        let niceness = ResourceLimits { niceness: Some(10), ..ResourceLimits::default() };
        assert_eq!(prefix(niceness).unwrap(), "/usr/bin/nice -n 10");
        let all = ResourceLimits {
            memory: Some(64 << 20),
            cpu: Some(Duration::from_secs(7)),
            open_files: Some(64),
            ..niceness
        };
        assert_eq!(
            prefix(all).unwrap(),
            "/usr/bin/nice -n 10 /usr/bin/prlimit --as=67108864 --cpu=7:12 --nofile=64 --"
        );
        assert_eq!(all.to_string(), "memory=64MiB cpu=7s open_files=64 niceness=10");
    }

    #[test]
    fn limits_under_which_nothing_runs_are_found_at_the_start() {
        let tiny = ResourceLimits { memory: Some(64 << 10), ..ResourceLimits::default() };
        let error = prefix(tiny).unwrap_err();
        assert!(error.starts_with("limits: no program runs under memory=65536: "), "{error}");
    }

    #[test]
    fn a_missing_wrapper_is_an_error() {
        let limits = ResourceLimits { open_files: Some(64), ..ResourceLimits::default() };
        let error = limits.prefix(|name| Err(format!("the program \"{name}\" is not on PATH"))).unwrap_err();
        assert!(error.starts_with("limits: the program \"prlimit\" is not on PATH"), "{error}");
    }
}
