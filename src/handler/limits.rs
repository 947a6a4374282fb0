//! Resource limits of the programs of exec handlers: `limits = { memory = "512MiB" }` in the configuration.
//!
//! The program is started through `nice` and `prlimit`, which set the limits on their own process and then execute the
//! program in it. So the limits hold from the first instruction, and all descendants inherit them. Limits that are set
//! after the start would come too late for a quick program.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::children;

/// Seconds of processor time from SIGXCPU, which a program can handle, to SIGKILL.
const CPU_GRACE: u64 = 5;

/// Limits for each process of an exec handler. The default has no limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ResourceLimits {
    /// The address space in bytes: 1 MiB to 1 TiB.
    pub memory: Option<u64>,
    /// The processor time in whole seconds: 1 s to 24 h. The process gets SIGXCPU at the limit and SIGKILL 5 s later.
    pub cpu: Option<Duration>,
    /// The number of open files, the three standard streams included: 4 to 1,048,576.
    pub open_files: Option<u64>,
    /// The niceness: 0, the priority of the server, to 19, the lowest priority.
    pub niceness: Option<u8>,
}

impl ResourceLimits {
    /// Whether no limit is set.
    pub fn is_empty(&self) -> bool {
        *self == ResourceLimits::default()
    }

    /// The words to put before a program and its arguments. `find` searches a program on PATH.
    ///
    /// # Errors
    /// `nice` or `prlimit` is missing, or no program can run under these limits.
    pub(super) fn prefix(
        &self,
        find: impl Fn(&str) -> Option<PathBuf>,
    ) -> Result<Vec<OsString>, LimitsError> {
        let find = |program| find(program).ok_or(LimitsError::NoProgram { program });
        let mut words: Vec<OsString> = Vec::new();
        let mut last = None;
        if let Some(niceness) = self.niceness {
            let nice = find("nice")?;
            words.extend([nice.clone().into(), "-n".into(), niceness.to_string().into()]);
            last = Some(nice);
        }
        let prlimit_flags: Vec<OsString> = [
            self.memory.map(|bytes| format!("--as={bytes}")),
            self.cpu.map(|time| format!("--cpu={}:{}", time.as_secs(), time.as_secs() + CPU_GRACE)),
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
            // The next word is the program, even if it begins with a dash.
            words.push("--".into());
            last = Some(prlimit);
        }
        if let Some(program) = last {
            self.try_run(&words, program)?;
        }
        Ok(words)
    }

    /// Runs a small program under these limits, so that limits that do not work fail at start and not in every job.
    fn try_run(&self, prefix: &[OsString], program: PathBuf) -> Result<(), LimitsError> {
        let Some((first, rest)) = prefix.split_first() else { return Ok(()) };
        let refused = |problem| LimitsError::Refused { limits: *self, problem };
        let output = children::output(Command::new(first).args(rest).arg(program).arg("--version"))
            .map_err(refused)?;
        if output.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let problem = stderr.lines().last().map_or_else(|| output.status.to_string(), str::to_owned);
        Err(refused(io::Error::other(problem)))
    }
}

/// Why no program can run under the limits of an exec handler.
#[derive(Debug)]
#[non_exhaustive]
pub enum LimitsError {
    /// No folder on PATH has the program that sets the limits.
    NoProgram {
        /// `nice` or `prlimit`.
        program: &'static str,
    },
    /// No program can run under these limits.
    Refused {
        /// The limits.
        limits: ResourceLimits,
        /// The error of the program that sets the limits, or of the system that could not start it.
        problem: io::Error,
    },
}

impl fmt::Display for LimitsError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            LimitsError::NoProgram { program } => {
                write!(f, "the program {program:?} is not on PATH; it comes with util-linux and coreutils")
            }
            LimitsError::Refused { limits, problem } => {
                write!(f, "no program runs under {limits}: {problem}")
            }
        }
    }
}

impl Error for LimitsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            LimitsError::NoProgram { .. } => None,
            LimitsError::Refused { problem, .. } => Some(problem),
        }
    }
}

/// As the error of an attempt shows the limits: `memory=512MiB cpu=60s`.
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
    use std::ffi::OsStr;

    use super::*;
    use crate::children::program::find_in;

    fn prefix(limits: ResourceLimits) -> Result<String, LimitsError> {
        let words = limits.prefix(|name| find_in(OsStr::new("/usr/bin"), name))?;
        Ok(words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn only_the_limits_that_are_set_become_words_of_the_prefix() {
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
        let error = prefix(tiny).unwrap_err().to_string();
        assert!(error.starts_with("no program runs under memory=65536: "), "{error}");
    }

    #[test]
    fn a_missing_program_that_sets_limits_is_an_error() {
        let limits = ResourceLimits { open_files: Some(64), ..ResourceLimits::default() };
        let error = limits.prefix(|_| None).unwrap_err().to_string();
        assert!(error.starts_with("the program \"prlimit\" is not on PATH"), "{error}");
    }
}
