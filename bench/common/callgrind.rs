//! A `redis-server` under callgrind, which counts processor instructions. The counts do not depend on the speed of the
//! machine.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::folder;
use super::redis::Eye;

/// The longest time until Redis responds under valgrind.
const START: Duration = Duration::from_secs(60);
/// Lines of a profile.
const FUNCTIONS: usize = 25;

/// Whether valgrind is on PATH; prints a line if not.
pub fn is_installed() -> bool {
    let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("valgrind is missing: Debian: apt-get install valgrind");
    }
    found
}

/// What a phase has cost.
pub struct Count {
    /// Instructions per job.
    pub instructions: f64,
    /// The functions with the most instructions; empty unless a profile was asked for.
    pub profile: String,
}

/// A `redis-server` under callgrind. Killed when it is dropped.
pub struct CountedRedis {
    child: Child,
    dumps: usize,
    makes_profiles: bool,
    eye: Eye,
    folder: TempDir,
}

impl CountedRedis {
    pub fn start(makes_profiles: bool) -> CountedRedis {
        let folder = folder("callgrind");
        let mut command = Command::new("valgrind");
        command.args(["--quiet", "--tool=callgrind"]);
        command.arg(format!("--callgrind-out-file={}", folder.path().join("counts").display()));
        command.args(["redis-server", "--port", "0", "--save", "", "--maxmemory-policy", "noeviction"]);
        // Work by Redis's clock would make the counts depend on the speed of the machine.
        command.args(["--hz", "1", "--dynamic-hz", "no", "--activerehashing", "no"]);
        command.args(["--jemalloc-bg-thread", "no"]);
        command.arg("--unixsocket").arg(folder.path().join("redis.sock"));
        command.arg("--dir").arg(folder.path()).arg("--logfile").arg(folder.path().join("redis.log"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.expect("valgrind was found");
        let eye = Eye::new(format!("unix://{}", folder.path().join("redis.sock").display()));
        let mut redis = CountedRedis { child, dumps: 0, makes_profiles, eye, folder };
        let end = Instant::now() + START;
        while redis.eye.query::<String>(&redis::cmd("PING")).is_err() {
            assert!(Instant::now() < end, "redis-server does not respond under valgrind");
            std::thread::sleep(Duration::from_millis(50));
        }
        redis
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.folder.path().join("redis.sock").display())
    }

    /// Deletes all keys.
    pub fn empty(&mut self) {
        self.eye.insist::<()>(redis::cmd("FLUSHALL").arg("SYNC")).expect("Redis empties itself");
    }

    /// Runs a phase over `jobs` jobs.
    pub fn count(&mut self, jobs: usize, phase: impl FnOnce()) -> Count {
        self.control("--zero");
        phase();
        self.control("--dump");
        self.dumps += 1;
        let file = self.folder.path().join(format!("counts.{}", self.dumps));
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
        let total: f64 = total.and_then(|total| total.trim().parse().ok()).expect("callgrind writes a total");
        let profile = if self.makes_profiles { profile(&file) } else { String::new() };
        Count { instructions: total / jobs as f64, profile }
    }

    fn control(&self, action: &str) {
        let mut command = Command::new("callgrind_control");
        let output = command.arg(action).arg(self.child.id().to_string()).output();
        let output = output.expect("callgrind_control comes with valgrind");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for CountedRedis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The functions with the most instructions: their own, without those that they call.
fn profile(file: &Path) -> String {
    let output = Command::new("callgrind_annotate").arg("--threshold=100").arg(file).output();
    let output = output.expect("callgrind_annotate comes with valgrind");
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().skip_while(|line| !line.contains("file:function")).skip(2);
    // callgrind gives the whole sum to the functions that were entered before the phase, such as `main`.
    let lines = lines.filter(|line| !line.contains("(100.0%)"));
    lines.take(FUNCTIONS).collect::<Vec<_>>().join("\n")
}
