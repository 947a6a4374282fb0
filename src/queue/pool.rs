//! The connections to Redis: two pools, their time limits, and what is known about Redis's health.
//!
//! A connection that was used before may have died while it was idle: Redis, a proxy or a router closed it. That says
//! nothing about Redis. So the connection is looked at before it is used, and where it dies in use, a fresh one is made:
//! only if that fails as well, Redis is away. What is safe to repeat is then sent once more.
//!
//! A pool's connection is never trusted after a fault: after a time-out its late answer would be taken for that of the
//! next command, and a master that was demoted still answers PING. So every fault marks its connection, and makes all
//! older connections worthless too.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, Value};

use super::error::Error;
use crate::queue::connection::{ConnectError, Target, Wire, describe};
use crate::sync;

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(1);
/// How long a call waits for a connection: until one is made, or until another call gives one back. A little longer than
/// [`CONNECT`], so that the reason why none could be made is known by then.
const GET: Duration = Duration::from_millis(1_100);
/// How long one answer may take. With [`GET`] it keeps every API answer below 3 s.
const ANSWER: Duration = Duration::from_millis(1_800);
/// What an answer may take longer than the command blocks. It must be longer: with a shorter limit Redis still moves
/// the next job after the client has gone, and the job is stranded.
const BLOCK_MARGIN: Duration = Duration::from_secs(3);
/// How often the log says that a right is lacking, while it is.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// How many connections may die under one call before that counts as an absence of Redis.
const DEATHS: usize = 3;
/// The least time for making a fresh connection after another one was lost.
const LEAST: Duration = Duration::from_millis(200);
/// How long a connection is idle before it is tried out with what cannot be repeated.
const SILENT: Duration = Duration::from_secs(5);
/// Threads that make connections.
const CONNECTING_THREADS: usize = 3;
/// While Redis is away one call in this time tries again, and all others fail at once.
const PROBE_EVERY: Duration = Duration::from_millis(200);
/// How often a call has its script loaded.
const LOADINGS: usize = 3;
/// A connection that has read a longer text than this, in bytes, is not kept: the client reads into a buffer that grows
/// to twice the longest text and never shrinks, and there are as many connections as threads.
const LARGEST_KEPT: usize = 64 << 10;
/// A refusal is over when none was met for so long: at the brim of `maxmemory`, or for a user who lacks one right, what
/// is accepted and what is refused alternate.
const CALM: Duration = Duration::from_secs(1);

/// One connection, and whether it may be used again.
pub(super) struct Connection {
    wire: Wire,
    /// What CLIENT UNBLOCK calls it; only known of blocking connections.
    client_id: Option<i64>,
    /// How long an answer may take.
    read_timeout: Duration,
    generation: u64,
    /// When it was made, or last began to carry a command: it may have died since then.
    since: Instant,
    broken: bool,
}

impl Connection {
    /// Whether a connection that was idle for long is dead though nothing was heard of it, as where a router has forgotten
    /// it. Costs a round trip if so: for what cannot be repeated once it was sent.
    fn has_died_silently(&mut self) -> bool {
        self.since.elapsed() >= SILENT && {
            let answer = redis::cmd("TIME").query::<Value>(&mut self.wire);
            answer.is_err_and(|error| error.kind() == ErrorKind::Io)
        }
    }
}

/// Makes connections for a pool.
struct Manager {
    target: Arc<Target>,
    blocks: bool,
    read_timeout: Duration,
    health: Arc<Health>,
}

impl r2d2::ManageConnection for Manager {
    type Connection = Connection;
    type Error = ConnectError;

    fn connect(&self) -> Result<Connection, ConnectError> {
        let generation = self.health.generation();
        // Without the right to CLIENT ID a stop takes as long as a fetcher blocks; that is all.
        let note_step = |step: &str| step.clone_into(&mut self.health.connecting().step);
        let made = Wire::connect(&self.target, CONNECT, self.blocks, note_step);
        self.health.connecting().error = made.as_ref().err().map(ToString::to_string);
        let (wire, client_id) = made?;
        wire.set_timeouts(self.read_timeout, ANSWER).map_err(|error| ConnectError(error.to_string()))?;
        Ok(Connection {
            wire,
            client_id,
            read_timeout: self.read_timeout,
            generation,
            since: Instant::now(),
            broken: false,
        })
    }

    /// No PING: it doubles the cost of every command and is answered by a demoted master too.
    fn is_valid(&self, connection: &mut Connection) -> Result<(), ConnectError> {
        if connection.generation != self.health.generation() {
            Err(ConnectError("older than the last outage".to_owned()))
        } else if !connection.wire.is_idle() {
            Err(ConnectError("closed by the other side".to_owned()))
        } else {
            Ok(())
        }
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.broken || connection.generation != self.health.generation()
    }
}

/// What is known about Redis: whether it is there, and since when it is not.
#[derive(Default)]
struct Health {
    generation: AtomicU64,
    state: Mutex<State>,
    connecting: Mutex<Connecting>,
}

/// How the last tries to make a connection went.
#[derive(Default)]
struct Connecting {
    /// What the last one that was begun waited for at last.
    step: String,
    /// Why the last one that has ended failed; none if it did not.
    error: Option<String>,
}

#[derive(Default)]
struct State {
    /// While Redis cannot be reached: since when, and why it could not at the last try.
    away: Option<(Instant, String)>,
    /// While Redis is there and refuses to write.
    refusing: Option<Spell>,
    /// While the user of Redis lacks a right.
    lacking: Option<Lack>,
    /// While Redis has reached its `maxmemory`.
    full: Option<Spell>,
    /// The last try while it is away.
    probed: Option<Instant>,
    /// The last answer to anything.
    answered: Option<Instant>,
}

/// What the user of Redis is not allowed.
struct Lack {
    reason: String,
    since: Instant,
    /// When the log said it last.
    said: Instant,
}

/// A time in which Redis refused something.
struct Spell {
    since: Instant,
    last: Instant,
}

impl Spell {
    /// Notes a refusal; whether it is the first one.
    fn goes_on(spell: &mut Option<Spell>) -> bool {
        let now = Instant::now();
        let is_new = spell.is_none();
        spell.get_or_insert(Spell { since: now, last: now }).last = now;
        is_new
    }

    /// How long it lasted, if it is over by now: said once.
    fn over(spell: &mut Option<Spell>) -> Option<f64> {
        let ended = spell.take_if(|spell| spell.last.elapsed() >= CALM)?;
        Some(ended.last.duration_since(ended.since).as_secs_f64())
    }
}

impl State {
    /// Redis answered, whatever it was.
    fn reached(&mut self) {
        self.answered = Some(Instant::now());
        if let Some((since, _)) = self.away.take() {
            log::info!("Redis is back after {:.1} s", since.elapsed().as_secs_f64());
        }
    }
}

impl Health {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    /// Whether a call may try: always while Redis is there, once in a while when it is not. The error tells why it is not.
    fn may_try(&self) -> Result<(), Error> {
        let mut state = self.state();
        let Some((_, reason)) = &state.away else { return Ok(()) };
        if state.probed.is_some_and(|at| at.elapsed() < PROBE_EVERY) {
            return Err(Error::Unavailable(reason.clone()));
        }
        state.probed = Some(Instant::now());
        Ok(())
    }

    /// A call that began then could not reach Redis. Said once, however many threads notice it.
    fn went_away(&self, begun: Instant, reason: &str) {
        let mut state = self.state();
        // Another call was answered meanwhile: this one's failure is old news, or only its connection's.
        if state.answered.is_some_and(|at| at > begun) {
            return;
        }
        // From the end of a try, which can take a second: whoever comes next need not try too.
        state.probed = Some(Instant::now());
        if let Some((_, last)) = &mut state.away {
            // It may have come nearer: nobody listens, then it loads its data.
            reason.clone_into(last);
        } else {
            state.away = Some((Instant::now(), reason.to_owned()));
            self.distrust_connections();
            log::error!("Redis is away: {reason}");
        }
    }

    /// Redis answers, but takes no writes. Said once too.
    fn refused(&self, reason: &str) {
        let mut state = self.state();
        state.reached();
        if Spell::goes_on(&mut state.refusing) {
            self.distrust_connections();
            log::error!("Redis refuses to write: {reason}");
        }
    }

    /// The user of Redis lacks a right. The log says it at once, and from time to time as long as it lasts.
    fn note_lack(&self, reason: &str) {
        let mut state = self.state();
        state.reached();
        let now = Instant::now();
        let is_new = match &mut state.lacking {
            None => {
                state.lacking = Some(Lack { reason: reason.to_owned(), since: now, said: now });
                true
            }
            // A call meets one lack, and the whole check tells all of them.
            Some(lack) if lack.reason.len() < reason.len() || lack.said.elapsed() >= SAY_AGAIN => {
                lack.said = now;
                reason.clone_into(&mut lack.reason);
                true
            }
            Some(_) => false,
        };
        if is_new {
            log::error!("Redis refuses what jobs need: {reason}");
        }
    }

    /// The user of Redis has all rights that jobs need.
    fn lacks_nothing(&self) {
        if let Some(lack) = self.state().lacking.take() {
            log::info!(
                "Redis allows again what jobs need, after {:.1} s",
                lack.since.elapsed().as_secs_f64()
            );
        }
    }

    /// Redis takes nothing new.
    fn was_full(&self) {
        let mut state = self.state();
        state.reached();
        if Spell::goes_on(&mut state.full) {
            log::error!("Redis is full: new jobs are refused until it has room again");
        }
    }

    /// An answer came over a connection of this generation.
    fn answered(&self, access: Access, generation: u64) {
        // A late one of a connection from before an outage does not show that it is over.
        if generation != self.generation() {
            return;
        }
        let mut state = self.state();
        state.reached();
        if access != Access::Read
            && let Some(seconds) = Spell::over(&mut state.refusing)
        {
            // One of them may still lead to a master that was demoted, and answer reads from there.
            self.distrust_connections();
            log::info!("Redis writes again after {seconds:.1} s");
        }
        if access == Access::Add
            && let Some(seconds) = Spell::over(&mut state.full)
        {
            log::info!("Redis has room again after {seconds:.1} s");
        }
    }

    /// Makes all connections that exist by now worthless.
    fn distrust_connections(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// A connection of this generation died in use: those that were made before it was noticed may be dead as well.
    fn lost_connection(&self, generation: u64) {
        // Of many threads that notice it one is enough: the others would only waste the fresh connections.
        let _ =
            self.generation.compare_exchange(generation, generation + 1, Ordering::AcqRel, Ordering::Acquire);
    }

    fn connecting(&self) -> std::sync::MutexGuard<'_, Connecting> {
        sync::lock(&self.connecting)
    }

    /// Why no connection can be made: the end of the last try, or what the first one still waits for.
    fn why_no_connection(&self) -> String {
        let connecting = self.connecting();
        connecting.error.as_ref().unwrap_or(&connecting.step).clone()
    }

    fn is_away(&self) -> bool {
        self.state().away.is_some()
    }
}

/// The way to one Redis, shared by all threads.
pub(super) struct Link {
    commands: r2d2::Pool<Manager>,
    blocking: r2d2::Pool<Manager>,
    /// The connections that sit in a blocking command now.
    blocked: Mutex<HashSet<i64>>,
    health: Arc<Health>,
}

/// Whether a call may be sent a second time after a connection died before its answer came: Redis may have carried it out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Twice is the same as once.
    Safe,
    /// Only the caller knows what twice would mean.
    Never,
}

/// What a successful answer shows of Redis.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// That it is there.
    Read,
    /// That it takes writes.
    Write,
    /// That it also has room for more.
    Add,
}

impl Link {
    /// Makes the pools; connects when first used, so that a server starts while Redis is away.
    ///
    /// `block` is the longest time that a blocking command waits, `blocking_connections` how many of them there are.
    pub(super) fn new(target: Target, connections: u32, blocking_connections: u32, block: Duration) -> Link {
        let health = Arc::new(Health::default());
        let target = Arc::new(target);
        // One for both pools, so that its threads are half as many and their names differ.
        let connecting = scheduled_thread_pool::ScheduledThreadPool::builder()
            .num_threads(CONNECTING_THREADS)
            .thread_name_pattern("redis-connect-{}")
            .build();
        let connecting = Arc::new(connecting);
        let pool = |size: u32, blocks: bool, read_timeout: Duration| {
            let manager = Manager { target: target.clone(), blocks, read_timeout, health: health.clone() };
            r2d2::Pool::builder()
                .max_size(size)
                .min_idle(Some(0))
                .connection_timeout(GET)
                .thread_pool(connecting.clone())
                .build_unchecked(manager)
        };
        let commands = pool(connections, false, ANSWER);
        let blocking = pool(blocking_connections, true, block + BLOCK_MARGIN);
        Link { commands, blocking, blocked: Mutex::default(), health }
    }

    /// Runs one command that only reads.
    pub(super) fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        self.run(&self.commands, Access::Read, Repeat::Safe, |connection| command.query(&mut connection.wire))
    }

    /// Runs one command that may block for the time given to [`Link::new`].
    pub(super) fn query_blocking<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        self.run(&self.blocking, Access::Add, Repeat::Never, |connection| {
            self.set_blocked(connection.client_id, true);
            let answer = command.query(&mut connection.wire);
            self.set_blocked(connection.client_id, false);
            answer
        })
    }

    /// Frees the threads that sit in a blocking command, as if its time were over.
    pub(super) fn unblock(&self) {
        let ids: Vec<i64> = sync::lock(&self.blocked).iter().copied().collect();
        for id in ids {
            let _ = self.query::<i64>(redis::cmd("CLIENT").arg("UNBLOCK").arg(id));
        }
    }

    fn set_blocked(&self, client_id: Option<i64>, blocked: bool) {
        let Some(id) = client_id else { return };
        let mut ids = sync::lock(&self.blocked);
        if blocked {
            ids.insert(id)
        } else {
            ids.remove(&id)
        };
    }

    /// Runs a script; it is sent in full only where Redis does not know it (yet, or after a failover).
    pub(super) fn run_script(
        &self,
        access: Access,
        repeat: Repeat,
        script: &redis::Script,
        call: &Cmd,
    ) -> Result<Value, Error> {
        let is_unknown = |error: &RedisError| error.kind() == ErrorKind::Server(ServerErrorKind::NoScript);
        self.run(&self.commands, access, repeat, |connection| {
            let mut answer = call.query(&mut connection.wire);
            // Somebody who has Redis forget its scripts may do so between a loading and its call.
            for _ in 0..LOADINGS {
                if !answer.as_ref().is_err_and(is_unknown) {
                    break;
                }
                script.load(&mut connection.wire)?;
                answer = call.query(&mut connection.wire);
            }
            // For the size of its buffer: the next call makes a new connection.
            connection.broken = answer.as_ref().is_ok_and(|answer| longest_text(answer) > LARGEST_KEPT);
            answer
        })
    }

    /// Notes that the user of Redis lacks a right.
    pub(super) fn note_lack(&self, reason: &str) {
        self.health.note_lack(reason);
    }

    /// Notes that the user of Redis has all rights that jobs need.
    pub(super) fn lacks_nothing(&self) {
        self.health.lacks_nothing();
    }

    /// Whether the user of Redis lacked a right when that was last looked at.
    pub(super) fn lacks_rights(&self) -> bool {
        self.health.state().lacking.is_some()
    }

    /// Whether Redis could not be reached when it was last tried.
    pub(super) fn is_away(&self) -> bool {
        self.health.is_away()
    }

    fn run<T>(
        &self,
        pool: &r2d2::Pool<Manager>,
        access: Access,
        repeat: Repeat,
        mut work: impl FnMut(&mut Connection) -> Result<T, RedisError>,
    ) -> Result<T, Error> {
        self.health.may_try()?;
        let call = Instant::now();
        let left = || (GET + ANSWER).saturating_sub(call.elapsed()).max(LEAST);
        let mut deaths = 0;
        loop {
            let begun = Instant::now();
            let mut connection = self.get(pool, begun, left().min(GET))?;
            if repeat == Repeat::Never && connection.has_died_silently() {
                self.lost(connection, "nothing came back");
                connection = self.get(pool, begun, left().min(GET))?;
            }
            let may_have_died = std::mem::replace(&mut connection.since, begun) < begun && deaths < DEATHS;
            let is_repeated = deaths > 0;
            // Together the tries take no longer than one call may.
            let limits = |connection: &Connection, read| {
                if is_repeated {
                    connection.wire.set_read_timeout(read).map_err(RedisError::from)
                } else {
                    Ok(())
                }
            };
            let answer = limits(&connection, left().min(connection.read_timeout))
                .and_then(|()| work(&mut connection))
                .and_then(|value| limits(&connection, connection.read_timeout).map(|()| value));
            let error = match answer {
                Ok(value) => {
                    self.health.answered(access, connection.generation);
                    return Ok(value);
                }
                Err(error) => error,
            };
            if !may_have_died || error.kind() != ErrorKind::Io {
                return Err(self.classify(&mut connection, begun, &error));
            }
            deaths += 1;
            let may_repeat = !error.is_timeout() && (repeat == Repeat::Safe || !connection.wire.was_sent());
            let reason = describe(&error);
            self.lost(connection, &reason);
            if !may_repeat {
                // Whether Redis is there all the same: if not, this finds out and says so.
                drop(self.get(pool, Instant::now(), left().min(GET))?);
                let reason = format!("a connection to it died before the answer came: {reason}");
                return Err(Error::Unavailable(reason));
            }
        }
    }

    /// Gives up a connection that died while it was idle. That is no news of Redis.
    fn lost(&self, mut connection: r2d2::PooledConnection<Manager>, reason: &str) {
        log::debug!("a connection to Redis died: {reason}");
        connection.broken = true;
        self.health.lost_connection(connection.generation);
    }

    /// A connection of a pool: one that is idle, or a fresh one.
    fn get(
        &self,
        pool: &r2d2::Pool<Manager>,
        begun: Instant,
        limit: Duration,
    ) -> Result<r2d2::PooledConnection<Manager>, Error> {
        pool.get_timeout(limit).map_err(|_| {
            // A full pool says nothing about Redis; a connection that could not be made does.
            if pool.state().connections >= pool.max_size() {
                return Error::Busy(pool.max_size());
            }
            let reason = self.health.why_no_connection();
            self.health.went_away(begun, &reason);
            Error::Unavailable(reason)
        })
    }

    /// What a failed command means for its connection, for the others, and for the caller.
    fn classify(&self, connection: &mut Connection, begun: Instant, error: &RedisError) -> Error {
        let text = describe(error);
        match error.kind() {
            ErrorKind::Io => {
                connection.broken = true;
                self.health.went_away(begun, &text);
                Error::Unavailable(text)
            }
            ErrorKind::Server(
                ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::ClusterDown,
            ) => {
                connection.broken = true;
                self.health.went_away(begun, &text);
                Error::Unavailable(text)
            }
            ErrorKind::Server(ServerErrorKind::ReadOnly) => {
                connection.broken = true;
                self.health.refused(&text);
                Error::Unavailable(text)
            }
            _ => match error.code() {
                Some("OOM") => {
                    self.health.was_full();
                    Error::Full
                }
                // Forgotten again and again.
                Some("NOSCRIPT") => Error::Unavailable(text),
                Some("NOPERM") => Error::Denied(text),
                // What a command inside a script gets in place of NOPERM.
                _ if text.contains("The user executing the script") => Error::Denied(text),
                // A command that was taken away by another name, or what is no place for jobs: a Sentinel.
                _ if text.contains("unknown command") || text.contains("Invalid command passed") => {
                    Error::Denied(text)
                }
                Some("MOVED" | "ASK") => {
                    let reason = format!("this node of a Redis Cluster holds other keys ({text})");
                    self.health.refused(&reason);
                    Error::Unavailable(reason)
                }
                Some("MISCONF" | "NOREPLICAS" | "BUSY" | "TRYAGAIN") => {
                    self.health.refused(&text);
                    Error::Unavailable(text)
                }
                Some("UNBLOCKED" | "NOAUTH") => {
                    connection.broken = true;
                    self.health.refused(&text);
                    Error::Unavailable(text)
                }
                // What Redis says in the place of NOAUTH to a command with many arguments.
                _ if text.contains("unauthenticated") => {
                    let reason = "NOAUTH Authentication required".to_owned();
                    connection.broken = true;
                    self.health.refused(&reason);
                    Error::Unavailable(reason)
                }
                // It came in the place of a newer one; at the start it would have been refused.
                _ if text.contains("Error compiling script") => {
                    let reason =
                        format!("it does not know the scripts' first line, as Redis before 7.0: {text}");
                    connection.broken = true;
                    self.health.refused(&reason);
                    Error::Unavailable(reason)
                }
                _ => {
                    connection.broken = true;
                    Error::Protocol(text)
                }
            },
        }
    }
}

/// The bytes of the longest text in an answer.
fn longest_text(answer: &Value) -> usize {
    match answer {
        Value::BulkString(bytes) => bytes.len(),
        Value::Array(values) => values.iter().map(longest_text).max().unwrap_or(0),
        _ => 0,
    }
}
