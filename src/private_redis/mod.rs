//! The private redis-server: started and looked after when the user names no Redis.
//!
//! It keeps its data in `data-dir` and listens on a unix socket there, never on a port. It outlives a server that
//! was killed, and the next server on the same `data-dir` adopts it. Two locks in `data-dir` make that safe:
//!
//! - `server.lock` is held by this process: one server per `data-dir`.
//! - `redis.lock` is held by redis-server itself, which gets the locked file as its standard input. The kernel
//!   lets go of it when redis-server has ended, however it ended. Redis takes no lock on its files, and two that
//!   append to the same file destroy it, so a new one is started only by whoever holds this lock.
//!
//! Nothing here knows of jobs, nor of the Redis client: a few short commands on the socket are enough.

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

pub use crate::private_redis::error::StartError;
use crate::private_redis::folder::{Folder, Occupant};
use crate::private_redis::process::Process;
use crate::private_redis::socket::Unanswered;
use crate::sync;
use rustix::process::Signal;

use crate::children::{self, Owned};

/// How long to wait for something that is starting or ending in `data-dir` before giving up on it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long redis-server has to end by itself, and how long its end is waited for after it was killed.
const STOP_TIME: Duration = Duration::from_secs(10);
const KILL_TIME: Duration = Duration::from_secs(2);
/// How often it is told to end until it has ended.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How often `watch` looks whether redis-server is still there.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The pauses before restarts double from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// A redis-server that ran this long was well: the pauses begin anew.
const WAS_WELL: Duration = Duration::from_secs(60);

/// A private redis-server, ready.
///
/// Dropping it leaves redis-server running, as a kill of this process would: [`PrivateRedis::stop`] ends it.
pub struct PrivateRedis {
    program: PathBuf,
    /// `everysec` or `always`.
    fsync: String,
    folder: Folder,
    state: Mutex<State>,
    stopping: Condvar,
    /// Held as long as this lives.
    _server_lock: File,
}

/// A private redis-server that somebody else looks after.
pub struct RunningRedis {
    folder: Folder,
}

impl RunningRedis {
    /// The redis-server that runs in `data_dir` now; `None` if there is none. Starts nothing and changes nothing.
    ///
    /// # Errors
    /// [`StartError::Foreign`] where something else has its socket, or does not answer.
    pub fn find(data_dir: &Path) -> Result<Option<RunningRedis>, StartError> {
        let in_data_dir = |source| StartError::DataDir { data_dir: data_dir.to_owned(), source };
        let Some(folder) = Folder::existing(data_dir).map_err(in_data_dir)? else { return Ok(None) };
        match folder.look() {
            Occupant::Ours => Ok(Some(RunningRedis { folder })),
            Occupant::Nobody => Ok(None),
            Occupant::Stranger(what) | Occupant::Unclear(what) => {
                Err(StartError::Foreign { data_dir: folder.path, what })
            }
        }
    }

    /// The address for the Redis client of this process. Valid as long as this lives.
    pub fn url(&self) -> String {
        self.folder.url()
    }
}

/// What changes while it runs.
struct State {
    /// The one that was started last, also when it has ended; `None` for an adopted one, which is no child.
    child: Option<Child>,
    /// Keeps the exit status of the child.
    owned: Option<Owned>,
    /// Whether one was started or adopted.
    is_ours: bool,
    /// The one that runs, whoever started it. `None` if the system cannot tell.
    process: Option<Process>,
    /// How long the log was when the child was started: what follows is its own.
    log_start: u64,
    stopping: bool,
}

impl PrivateRedis {
    /// Starts a redis-server that keeps its data in `data_dir`, or adopts the one that a killed server left there, and
    /// waits until it answers. While it loads a large file that can take long; it is waited for as long as it lives, or
    /// until `is_told_to_stop` says yes. That is asked often; each yes is a wish of its own, and a second one kills
    /// redis-server.
    ///
    /// `data_dir` is made with mode 0700 if missing. `fsync` is `everysec` or `always`.
    ///
    /// # Errors
    /// A [`StartError`]; no redis-server of ours is left running then.
    pub fn start(
        data_dir: &Path,
        fsync: &str,
        is_told_to_stop: &dyn Fn() -> bool,
    ) -> Result<PrivateRedis, StartError> {
        let search_path = std::env::var_os("PATH");
        PrivateRedis::start_with(data_dir, fsync, search_path.as_deref(), PATIENCE, is_told_to_stop)
    }

    /// Whether there is a redis-server on PATH that can be used.
    ///
    /// # Errors
    /// [`StartError::NotFound`] or [`StartError::Version`].
    pub fn check() -> Result<(), StartError> {
        let program = crate::private_redis::program::find(std::env::var_os("PATH").as_deref())
            .ok_or(StartError::NotFound)?;
        crate::private_redis::program::check_version(&program).map(|_| ())
    }

    fn start_with(
        data_dir: &Path,
        fsync: &str,
        search_path: Option<&OsStr>,
        patience: Duration,
        is_told_to_stop: &dyn Fn() -> bool,
    ) -> Result<PrivateRedis, StartError> {
        let program = crate::private_redis::program::find(search_path).ok_or(StartError::NotFound)?;
        let version = crate::private_redis::program::check_version(&program)?;
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
        if let Err(error) = redis.bring_up(patience, is_told_to_stop) {
            // Not what somebody else has there.
            if redis.state().is_ours {
                redis.stop(is_told_to_stop);
            }
            return Err(error);
        }
        if let Err(error) = redis.folder.hold_socket() {
            log::debug!("the file redis.sock is needed for each connection: {error}");
        }
        log::info!(
            "private redis-server {version} is ready, pid {}, data in {}",
            redis.pid().unwrap_or_default(),
            redis.folder.path.display()
        );
        Ok(redis)
    }

    /// Starts or adopts a redis-server and waits until it answers.
    fn bring_up(&self, patience: Duration, is_told_to_stop: &dyn Fn() -> bool) -> Result<(), StartError> {
        self.launch(patience, is_told_to_stop)?;
        while !self.await_ready(is_told_to_stop)? {
            self.launch(patience, is_told_to_stop)?;
        }
        Ok(())
    }

    /// The address for the Redis client of this process: `redis+unix:///...`. Valid as long as this lives.
    pub fn url(&self) -> String {
        self.folder.url()
    }

    /// The process id of redis-server, as it tells it itself; `None` while it does not answer.
    pub fn pid(&self) -> Option<u32> {
        let info = self.ask("INFO server").ok()?.into_iter().next()?;
        let info = String::from_utf8_lossy(&info).into_owned();
        info.lines().find_map(|line| line.strip_prefix("process_id:"))?.trim().parse().ok()
    }

    /// Starts redis-server again whenever it has ended, after pauses that grow while that keeps happening. Returns
    /// after [`PrivateRedis::stop`] was called. Meant for a thread of its own, and only for one.
    pub fn watch(&self) {
        let mut pause = FIRST_PAUSE;
        let mut started = Instant::now();
        let mut was_removed = false;
        while !self.wait_for_stop(LOOK_EVERY) {
            if self.is_running() {
                let is_removed = self.folder.follow_socket();
                if is_removed && !was_removed {
                    log::warn!(
                        "redis.sock in {} was removed: this server goes on, but threadq doctor, and the next server if \
                         this one is killed, do not find its redis-server; stop this server and start it again to mend that",
                        self.folder.path.display()
                    );
                }
                was_removed = is_removed;
                continue;
            }
            if started.elapsed() > WAS_WELL {
                pause = FIRST_PAUSE;
            }
            log::error!("the private redis-server {}; it is started again in {pause:?}", self.how_it_ended());
            if self.wait_for_stop(pause) {
                return;
            }
            pause = LAST_PAUSE.min(pause * 2);
            started = Instant::now();
            if let Err(error) = self.launch(PATIENCE, &|| false) {
                log::error!("{error}");
            }
        }
    }

    /// Ends redis-server, whatever has happened to its files, and waits for its end. It first writes all it has to disk,
    /// and has up to 10 s for that, or until `is_hurried` says yes. Then it is killed: what it has written by then is kept.
    pub fn stop(&self, is_hurried: &dyn Fn() -> bool) {
        self.state().stopping = true;
        self.stopping.notify_all();
        let kill_at = Instant::now() + STOP_TIME;
        let mut told_at = None;
        while self.is_running() {
            if Instant::now() > kill_at || is_hurried() {
                self.kill();
                break;
            }
            // Not once alone: one may have been adopted a moment ago.
            if told_at.is_none_or(|at: Instant| at.elapsed() > TELL_EVERY) {
                self.signal(Signal::TERM);
                told_at = Some(Instant::now());
            }
            if self.state().process.is_none() {
                // Asked again each time round: a redis-server started a moment ago may not listen yet. One that goes
                // away closes the connection without an answer, so an error means nothing here.
                let _ = self.ask("SHUTDOWN");
            }
            thread::sleep(Duration::from_millis(20));
        }
        // Takes a child off the system's list.
        let _ = self.exit_status();
        self.remove_socket();
    }

    /// Ends redis-server without its help.
    fn kill(&self) {
        log::warn!("the private redis-server is killed, its last words: {}", self.last_words());
        self.signal(Signal::KILL);
        let give_up_at = Instant::now() + KILL_TIME;
        while self.is_running() {
            if Instant::now() > give_up_at {
                log::error!("the private redis-server has not ended, though it was killed");
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A redis-server that is killed, or ended while it loads, leaves its socket.
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

    /// Adopts the redis-server that is there, or starts one.
    fn launch(&self, patience: Duration, is_told_to_stop: &dyn Fn() -> bool) -> Result<(), StartError> {
        let deadline = Instant::now() + patience;
        loop {
            let refusal = match self.folder.look() {
                Occupant::Ours => return self.adopt(),
                Occupant::Stranger(what) => return Err(self.foreign(what)),
                Occupant::Unclear(what) => what,
                // The lock comes second: a redis-server that holds it without listening is starting or ending.
                Occupant::Nobody => match self.try_redis_lock()? {
                    Some(lock) => return self.spawn(lock),
                    None => "a redis-server holds redis.lock and does not answer".to_owned(),
                },
            };
            if Instant::now() > deadline {
                return Err(self.foreign(refusal));
            }
            if is_told_to_stop() {
                return Err(StartError::Stopped);
            }
            if self.wait_for_stop(Duration::from_millis(20)) {
                return Ok(());
            }
        }
    }

    /// Takes over a running redis-server. This server's settings may differ from those that it was started with.
    fn adopt(&self) -> Result<(), StartError> {
        if let Err(error) = self.ask(&format!("CONFIG SET appendfsync {}", self.fsync)) {
            log::warn!("the adopted redis-server keeps its own fsync setting: {error}");
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

    /// Starts redis-server, which keeps `lock` until it ends.
    ///
    /// All paths are relative to its working directory, so that no length and no character of `data-dir` matters.
    /// In a process group of its own it does not get a terminal's Ctrl-C: the server ends it, after its own work.
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
            // It would speak for the server.
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::from(lock))
            .stdout(Stdio::null())
            // Complaints about its arguments come before it opens its log.
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
        // The earlier one has ended, and was waited for when that was noticed.
        state.child = Some(child);
        state.owned = Some(owned);
        state.log_start = log_start;
        Ok(())
    }

    /// Waits until redis-server takes commands, however long it loads; false if it was an adopted one that has ended.
    fn await_ready(&self, is_told_to_stop: &dyn Fn() -> bool) -> Result<bool, StartError> {
        let mut next_note = Instant::now() + Duration::from_secs(5);
        loop {
            let answer = match self.ask("PING") {
                Ok(_) => return Ok(true),
                Err(error) => error,
            };
            if let Some(status) = self.exit_status() {
                let log = self.folder.path.join("redis.log");
                return Err(StartError::Died { status, last_words: self.last_words(), log });
            }
            if is_told_to_stop() {
                return Err(StartError::Stopped);
            }
            if !self.is_running() {
                return Ok(false);
            }
            if Instant::now() > next_note {
                log::info!("waiting for the private redis-server: {answer}");
                next_note += Duration::from_secs(10);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether there is a redis-server. Where the system cannot tell of the process, its lock and its socket do. Where it can,
    /// they are not asked: after the folder was removed they may belong to another server.
    fn is_running(&self) -> bool {
        if let Some(runs) = self.state().process.as_ref().map(Process::is_running) {
            return runs;
        }
        // Without the folder there is no place for another one.
        let is_locked = matches!(self.try_redis_lock(), Ok(None) | Err(_));
        is_locked || UnixStream::connect(self.folder.socket()).is_ok()
    }

    /// How the child ended, if there is one and it has.
    fn exit_status(&self) -> Option<ExitStatus> {
        self.state().child.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// For a line of the log.
    fn how_it_ended(&self) -> String {
        let status = match self.exit_status() {
            Some(status) => status.to_string(),
            None => "it was adopted, so its exit status is unknown".to_owned(),
        };
        format!("has ended ({status}), its last words: {}", self.last_words())
    }

    /// The last line that redis-server wrote, for an error message.
    fn last_words(&self) -> String {
        let log_start = self.state().log_start;
        self.folder.last_log_line(log_start).unwrap_or_else(|| "none, is the disk full?".to_owned())
    }

    /// Says one command to redis-server.
    fn ask(&self, command: &str) -> Result<Vec<Vec<u8>>, Unanswered> {
        crate::private_redis::socket::ask(&self.folder.socket(), command)
    }

    fn foreign(&self, what: String) -> StartError {
        StartError::Foreign { data_dir: self.folder.path.clone(), what }
    }

    fn try_redis_lock(&self) -> Result<Option<File>, StartError> {
        self.folder
            .try_lock("redis.lock")
            .map_err(|source| StartError::DataDir { data_dir: self.folder.path.clone(), source })
    }

    /// Sleeps for `time`, or until `stop` is called; true if it was.
    fn wait_for_stop(&self, time: Duration) -> bool {
        sync::wait_timeout_while(&self.stopping, self.state(), time, |state| !state.stopping).stopping
    }

    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }
}

#[cfg(test)]
mod tests;
