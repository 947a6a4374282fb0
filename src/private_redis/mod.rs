//! The private redis-server: started and supervised when no `redis-url` is set.
//!
//! redis-server keeps its data in `data-dir` and listens on a unix socket there, never on a port. It outlives a server that was
//! killed, and the next server with the same `data-dir` adopts it. Two locks in `data-dir` make that safe:
//!
//! - `server.lock` is held by this process: one server per `data-dir`.
//! - `redis.lock` is held by redis-server, which has the locked file as its standard input. The kernel releases the lock when
//!   redis-server ends, for whatever reason. redis-server itself does not lock its files, and two that append to the same file
//!   destroy it. So a redis-server is started only by a process that holds this lock.
//!
//! This module knows nothing of jobs. It sends a few commands to the socket and uses the Redis client only to parse replies.

mod error;
mod folder;
mod process;
mod program;
mod socket;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

pub use self::error::StartError;
use self::folder::{Folder, SocketOwner};
use self::process::Process;
use self::program::VERSION_TIMEOUT;
use self::socket::AskError;
use crate::children::{self, Owned};
use crate::sync;

/// How long to wait for another process in `data-dir` that is starting or ending.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for redis-server to exit after SIGTERM, and then after SIGKILL.
const TERM_TIMEOUT: Duration = Duration::from_secs(10);
const KILL_TIMEOUT: Duration = Duration::from_secs(2);
/// The time between two SIGTERM while redis-server runs.
const TERM_INTERVAL: Duration = Duration::from_secs(1);
/// The time between two checks of `watch` whether redis-server runs.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// The time between two checks of a wait for redis-server: for its lock or socket, for its end, and for its first reply.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const READY_POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The delay before a restart. It doubles from the first to the longest.
const FIRST_RESTART_DELAY: Duration = Duration::from_millis(100);
const MAX_RESTART_DELAY: Duration = Duration::from_secs(10);
/// After a redis-server that ran this long, the restart delay begins again with the first.
const STABLE_RUN: Duration = Duration::from_secs(60);

/// The private redis-server of this server.
///
/// Dropping this leaves redis-server running, as a kill of this process would. [`PrivateRedis::stop`] ends it.
pub struct PrivateRedis {
    program: PathBuf,
    /// `everysec` or `always`.
    fsync: String,
    folder: Folder,
    state: Mutex<State>,
    stopping: Condvar,
    /// Keeps the lock.
    _server_lock: File,
}

/// A private redis-server that another process supervises.
pub struct RunningRedis {
    folder: Folder,
}

impl RunningRedis {
    /// The redis-server that runs in `data_dir`; `None` if none runs. Starts no process and changes no file.
    ///
    /// # Errors
    /// [`StartError::SocketInUse`] if another process, or a process that does not respond, listens on the socket.
    pub fn find(data_dir: &Path) -> Result<Option<RunningRedis>, StartError> {
        let in_data_dir = |source| StartError::DataDir { data_dir: data_dir.to_owned(), source };
        let Some(folder) = Folder::existing(data_dir).map_err(in_data_dir)? else { return Ok(None) };
        match folder.socket_owner() {
            SocketOwner::Own => Ok(Some(RunningRedis { folder })),
            SocketOwner::None => Ok(None),
            SocketOwner::Foreign(owner) | SocketOwner::Unresponsive(owner) => {
                Err(StartError::SocketInUse { data_dir: folder.path, owner })
            }
        }
    }

    /// The URL for a Redis client in this process. Valid until this is dropped.
    pub fn url(&self) -> String {
        self.folder.url()
    }
}

/// The state of redis-server.
struct State {
    /// The last redis-server that was started, also after its end; `None` for an adopted one, which is not a child.
    child: Option<Child>,
    /// Keeps the exit status of the child from being reaped elsewhere.
    owned: Option<Owned>,
    /// Whether a redis-server was started or adopted.
    is_ours: bool,
    /// The redis-server that runs, started or adopted. `None` if the system has no process file descriptors.
    process: Option<Process>,
    /// The length of the log when the child was started.
    log_start: u64,
    stopping: bool,
}

impl PrivateRedis {
    /// Starts a redis-server that keeps its data in `data_dir`, or adopts the redis-server that a killed server left there.
    /// Blocks until it responds, which can take minutes while it loads a large file, until it exits, or until
    /// `is_stop_requested` returns true. That is called often and returns true once for each request to stop: the second
    /// request kills redis-server.
    ///
    /// Creates `data_dir` with mode 0700 if it is missing. `fsync` is `everysec` or `always`.
    ///
    /// # Errors
    /// A [`StartError`]. A redis-server that was started or adopted is ended.
    pub fn start(
        data_dir: &Path,
        fsync: &str,
        is_stop_requested: &dyn Fn() -> bool,
    ) -> Result<PrivateRedis, StartError> {
        let search_path = std::env::var_os("PATH");
        PrivateRedis::start_with(data_dir, fsync, search_path.as_deref(), LAUNCH_TIMEOUT, is_stop_requested)
    }

    /// Checks that a supported redis-server is on PATH. Blocks for up to 10 s.
    ///
    /// # Errors
    /// [`StartError::NotFound`], [`StartError::Version`], [`StartError::VersionTimeout`] or [`StartError::Spawn`].
    pub fn check() -> Result<(), StartError> {
        let program = program::find(std::env::var_os("PATH").as_deref()).ok_or(StartError::NotFound)?;
        program::check_version(&program, VERSION_TIMEOUT, &|| false).map(drop)
    }

    fn start_with(
        data_dir: &Path,
        fsync: &str,
        search_path: Option<&OsStr>,
        launch_timeout: Duration,
        is_stop_requested: &dyn Fn() -> bool,
    ) -> Result<PrivateRedis, StartError> {
        let program = program::find(search_path).ok_or(StartError::NotFound)?;
        let version = program::check_version(&program, VERSION_TIMEOUT, is_stop_requested)?;
        let in_data_dir = |source| StartError::DataDir { data_dir: data_dir.to_owned(), source };
        let folder = Folder::open(data_dir).map_err(in_data_dir)?;
        let server_lock = folder
            .try_lock("server.lock")
            .map_err(in_data_dir)?
            .ok_or_else(|| StartError::InUse { data_dir: data_dir.to_owned() })?;
        let redis = PrivateRedis {
            program,
            fsync: fsync.to_owned(),
            folder,
            state: Mutex::new(State {
                child: None,
                owned: None,
                is_ours: false,
                process: None,
                log_start: 0,
                stopping: false,
            }),
            stopping: Condvar::new(),
            _server_lock: server_lock,
        };
        if let Err(error) = redis.launch_until_ready(launch_timeout, is_stop_requested) {
            // Not the redis-server of another process.
            if redis.state().is_ours {
                redis.stop(is_stop_requested);
            }
            return Err(error);
        }
        if let Err(error) = redis.folder.hold_socket() {
            log::debug!("connections need the file redis.sock, because it cannot be kept open: {error}");
        }
        log::info!(
            "private redis-server {version} is ready, pid {}, data in {}",
            redis.pid().unwrap_or_default(),
            redis.folder.path.display()
        );
        Ok(redis)
    }

    /// Starts or adopts a redis-server and waits until it responds.
    fn launch_until_ready(
        &self,
        timeout: Duration,
        is_stop_requested: &dyn Fn() -> bool,
    ) -> Result<(), StartError> {
        self.launch(timeout, is_stop_requested)?;
        while !self.await_ready(is_stop_requested)? {
            self.launch(timeout, is_stop_requested)?;
        }
        Ok(())
    }

    /// The URL for a Redis client in this process: `redis+unix:///...`. Valid until this is dropped.
    pub fn url(&self) -> String {
        self.folder.url()
    }

    /// The process id that redis-server reports; `None` while it does not respond.
    pub fn pid(&self) -> Option<u32> {
        let info = self.ask("INFO server").ok()?.into_iter().next()?;
        let info = String::from_utf8_lossy(&info).into_owned();
        info.lines().find_map(|line| line.strip_prefix("process_id:"))?.trim().parse().ok()
    }

    /// Restarts redis-server whenever it has ended, after a delay of 100 ms to 10 s that doubles with each restart. Blocks until
    /// [`PrivateRedis::stop`] is called. Only one thread may call this.
    pub fn watch(&self) {
        let mut delay = FIRST_RESTART_DELAY;
        let mut started = Instant::now();
        let mut was_removed = false;
        while !self.wait_for_stop(WATCH_INTERVAL) {
            if self.is_running() {
                let is_removed = self.folder.follow_socket();
                if is_removed && !was_removed {
                    log::warn!(
                        "redis.sock in {} was removed. This server still works, but threadq doctor, and the next server \
                         if this one is killed, cannot find its redis-server. Restart this server to repair this",
                        self.folder.path.display()
                    );
                }
                was_removed = is_removed;
                continue;
            }
            if started.elapsed() > STABLE_RUN {
                delay = FIRST_RESTART_DELAY;
            }
            log::error!("the private redis-server {}; restarting it in {delay:?}", self.how_it_ended());
            if self.wait_for_stop(delay) {
                return;
            }
            delay = MAX_RESTART_DELAY.min(delay * 2);
            started = Instant::now();
            if let Err(error) = self.launch(LAUNCH_TIMEOUT, &|| false) {
                log::error!("{error}");
            }
        }
    }

    /// Ends redis-server and waits for its end, also if its files were removed. redis-server has up to 10 s, or until
    /// `is_hurried` returns true, to write its data to disk. Then it is killed, and keeps what it has written by then.
    pub fn stop(&self, is_hurried: &dyn Fn() -> bool) {
        self.state().stopping = true;
        self.stopping.notify_all();
        let kill_at = Instant::now() + TERM_TIMEOUT;
        let mut last_term = None;
        while self.is_running() {
            if Instant::now() > kill_at || is_hurried() {
                self.kill();
                break;
            }
            // Repeated, because another redis-server may have been adopted since the last signal.
            if last_term.is_none_or(|at: Instant| at.elapsed() > TERM_INTERVAL) {
                self.signal(Signal::TERM);
                last_term = Some(Instant::now());
            }
            if self.state().process.is_none() {
                // Repeated, because a redis-server that was just started may not listen yet. A redis-server that exits
                // closes the connection without a reply, so the result is ignored.
                let _ = self.ask("SHUTDOWN");
            }
            thread::sleep(POLL_INTERVAL);
        }
        // Reaps the child.
        let _ = self.exit_status();
        self.remove_socket();
    }

    /// Kills redis-server and waits for its end.
    fn kill(&self) {
        log::warn!("killing the private redis-server; last log line: {}", self.last_log_line());
        self.signal(Signal::KILL);
        let deadline = Instant::now() + KILL_TIMEOUT;
        while self.is_running() {
            if Instant::now() > deadline {
                log::error!("the private redis-server has not ended {KILL_TIMEOUT:?} after SIGKILL");
                return;
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Removes the socket, which redis-server leaves if it is killed or ends while it loads.
    fn remove_socket(&self) {
        if let Ok(Some(_lock)) = self.try_redis_lock()
            && UnixStream::connect(self.folder.socket()).is_err()
        {
            let _ = fs::remove_file(self.folder.socket());
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.state().process {
            process.signal(signal);
        }
    }

    /// Adopts the redis-server that runs, or starts one. Waits up to `timeout` for a process that is starting or ending.
    fn launch(&self, timeout: Duration, is_stop_requested: &dyn Fn() -> bool) -> Result<(), StartError> {
        let deadline = Instant::now() + timeout;
        loop {
            let obstacle = match self.folder.socket_owner() {
                SocketOwner::Own => return self.adopt(),
                SocketOwner::Foreign(owner) => return Err(self.socket_in_use(owner)),
                SocketOwner::Unresponsive(owner) => owner,
                // The socket is checked first: a redis-server that holds the lock without listening is starting or ending.
                SocketOwner::None => match self.try_redis_lock()? {
                    Some(lock) => return self.spawn(lock),
                    None => "a redis-server holds redis.lock and does not respond".to_owned(),
                },
            };
            if Instant::now() > deadline {
                return Err(self.socket_in_use(obstacle));
            }
            if is_stop_requested() {
                return Err(StartError::Stopped);
            }
            if self.wait_for_stop(POLL_INTERVAL) {
                return Ok(());
            }
        }
    }

    /// Adopts a running redis-server and applies the settings of this server, which may differ from those of the start.
    fn adopt(&self) -> Result<(), StartError> {
        if let Err(error) = self.ask(&format!("CONFIG SET appendfsync {}", self.fsync)) {
            log::warn!(
                "the adopted redis-server keeps its fsync setting, because CONFIG SET failed: {error}"
            );
        }
        let lock = self.folder.path.join("redis.lock");
        let process = self.pid().and_then(|pid| Process::holding(pid, &lock));
        let mut state = self.state();
        state.child = None;
        state.owned = None;
        state.is_ours = true;
        state.process = process;
        drop(state);
        log::info!("adopted the redis-server that an earlier server left in {}", self.folder.path.display());
        Ok(())
    }

    /// Starts redis-server, which holds `lock` until it ends.
    ///
    /// All paths are relative to its working directory, so that `data-dir` may have any length and any character. It has its
    /// own process group, so that Ctrl-C in a terminal does not end it before this server has drained.
    fn spawn(&self, lock: File) -> Result<(), StartError> {
        let in_data_dir = |source| StartError::DataDir { data_dir: self.folder.path.clone(), source };
        let log = self.folder.open_log().map_err(in_data_dir)?;
        let log_start = log.metadata().map_err(in_data_dir)?.len();
        let mut command = Command::new(&self.program);
        command
            .args(["--port", "0", "--unixsocket", "redis.sock", "--unixsocketperm", "600"])
            .args(["--dir", ".", "--logfile", "redis.log", "--daemonize", "no"])
            .args(["--appendonly", "yes", "--appendfsync", &self.fsync, "--aof-use-rdb-preamble", "yes"])
            .args(["--save", "", "--maxmemory-policy", "noeviction"])
            .current_dir(&self.folder.path)
            // redis-server would notify systemd in the place of this server.
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::from(lock))
            .stdout(Stdio::null())
            // Errors about its arguments are printed before it opens its log.
            .stderr(Stdio::from(log))
            .process_group(0);
        let mut state = self.state();
        if state.stopping {
            return Ok(());
        }
        let (child, owned) = children::spawn(&mut command)
            .map_err(|source| StartError::Spawn { program: self.program.clone(), source })?;
        log::info!("started {}, pid {}", self.program.display(), child.id());
        state.is_ours = true;
        state.process = Process::open(child.id());
        // The previous child has ended and was reaped.
        state.child = Some(child);
        state.owned = Some(owned);
        state.log_start = log_start;
        Ok(())
    }

    /// Waits until redis-server replies to PING. Returns false if it was adopted and has ended.
    fn await_ready(&self, is_stop_requested: &dyn Fn() -> bool) -> Result<bool, StartError> {
        let mut next_note = Instant::now() + Duration::from_secs(5);
        loop {
            let error = match self.ask("PING") {
                Ok(_) => return Ok(true),
                Err(error) => error,
            };
            if let Some(status) = self.exit_status() {
                let log = self.folder.path.join("redis.log");
                return Err(StartError::Died { status, last_log_line: self.last_log_line(), log });
            }
            if is_stop_requested() {
                return Err(StartError::Stopped);
            }
            if !self.is_running() {
                return Ok(false);
            }
            if Instant::now() > next_note {
                log::info!("waiting for the private redis-server: {error}");
                next_note += Duration::from_secs(10);
            }
            thread::sleep(READY_POLL_INTERVAL);
        }
    }

    /// Whether redis-server runs. Only a system without process file descriptors uses the lock and the socket for this: after
    /// the folder was removed, they may belong to another server.
    fn is_running(&self) -> bool {
        if let Some(runs) = self.state().process.as_ref().map(Process::is_running) {
            return runs;
        }
        // An error means that the folder is gone. No other redis-server can be started then, so this counts as running.
        let is_locked = matches!(self.try_redis_lock(), Ok(None) | Err(_));
        is_locked || UnixStream::connect(self.folder.socket()).is_ok()
    }

    /// The exit status of the child, if it has ended.
    fn exit_status(&self) -> Option<ExitStatus> {
        self.state().child.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// A clause for the log.
    fn how_it_ended(&self) -> String {
        let status = match self.exit_status() {
            Some(status) => status.to_string(),
            None => "adopted, exit status unknown".to_owned(),
        };
        format!("has ended ({status}), last log line: {}", self.last_log_line())
    }

    /// The last line of the log since the start of redis-server.
    fn last_log_line(&self) -> String {
        let log_start = self.state().log_start;
        self.folder.last_log_line(log_start).unwrap_or_else(|| "none (is the disk full?)".to_owned())
    }

    /// Sends one command to redis-server.
    fn ask(&self, command: &str) -> Result<Vec<Vec<u8>>, AskError> {
        socket::ask(&self.folder.socket(), command)
    }

    fn socket_in_use(&self, owner: String) -> StartError {
        StartError::SocketInUse { data_dir: self.folder.path.clone(), owner }
    }

    fn try_redis_lock(&self) -> Result<Option<File>, StartError> {
        self.folder
            .try_lock("redis.lock")
            .map_err(|source| StartError::DataDir { data_dir: self.folder.path.clone(), source })
    }

    /// Waits for `time` or until `stop` is called. Returns whether `stop` was called.
    fn wait_for_stop(&self, time: Duration) -> bool {
        sync::wait_timeout_while(&self.stopping, self.state(), time, |state| !state.stopping).stopping
    }

    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }
}

#[cfg(test)]
mod tests;
