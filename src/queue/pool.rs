//! The connections to Redis: two pools, time limits, and calls that are repeated on a fresh connection.
//!
//! Redis, a proxy or a router may close a connection while it is idle. That says nothing about Redis. So a connection
//! is checked before it is used, and if it dies during a call, a fresh one is made. Redis is unavailable only if that
//! fails as well. A call that is safe to repeat is then sent once more.
//!
//! A connection is closed after any fault: after a time-out its late reply would be read as the reply to the next
//! command, and a master that was demoted still answers PING. Older connections are closed too.

use std::collections::HashSet;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, Value};

pub(super) use super::availability::Access;
use super::availability::Availability;
use super::connection::{Wire, describe};
use super::error::{ConnectError, Error};
use super::place::Place;
use super::sentinel_watch;
use crate::sync;

/// How long BRPOPLPUSH waits for a job: short, so that a fetcher notices a lost connection soon, and long enough to
/// cost nothing.
pub const BLOCK: Duration = Duration::from_secs(2);

/// The time limit for making a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// The time limit for getting a connection: a new one, or one that another call gives back. A little longer than
/// [`CONNECT`], so that the reason is known when no connection could be made.
const GET: Duration = Duration::from_millis(1_100);
/// The time limit for a reply. Together with [`GET`] it keeps every API response below 3 s.
const REPLY: Duration = Duration::from_millis(1_800);
/// How much longer than [`BLOCK`] the reply to a blocking command may take. If the client gave up while Redis still
/// blocks, Redis would still move the next job, and the job would be stranded.
const BLOCK_MARGIN: Duration = Duration::from_secs(3);
/// After this number of dead connections in one call, Redis counts as unavailable.
const DEATHS: usize = 3;
/// The least time limit for the fresh connection after a dead one.
const LEAST: Duration = Duration::from_millis(200);
/// After this idle time a connection is tested before a call that cannot be repeated.
const SILENT: Duration = Duration::from_secs(5);
/// The number of threads that make connections. One is enough: while Redis is unavailable, all attempts fail alike.
const CONNECTING_THREADS: usize = 1;
/// How long a submission waits for replicas, if the call has so much time left.
const REPLICATION: Duration = Duration::from_secs(1);
/// How often one call loads its script.
const LOADINGS: usize = 3;
/// A connection that has read a longer text than this (in bytes) is closed: its buffer has grown to twice the longest
/// text and never shrinks, and there are as many connections as threads.
const LARGEST_KEPT: usize = 64 << 10;
/// A connection of a pool.
pub(super) struct Connection {
    wire: Wire,
    /// The id for CLIENT UNBLOCK; `None` for a connection that does not block.
    client_id: Option<i64>,
    /// The time limit for a reply.
    read_timeout: Duration,
    generation: u64,
    /// When the connection was made, or when its last call began: it may have died since.
    since: Instant,
    /// Whether the connection must not be used again.
    broken: bool,
}

impl Connection {
    /// Whether the connection is dead without a sign, as after a router has forgotten the connection. Sends a command only
    /// after a long idle time.
    fn has_died_silently(&mut self) -> bool {
        self.since.elapsed() >= SILENT && {
            let reply = redis::cmd("TIME").query::<Value>(&mut self.wire);
            reply.is_err_and(|error| error.kind() == ErrorKind::Io)
        }
    }

    /// Runs a script. Its text is sent only if Redis does not know the script.
    fn run_script(&mut self, text: &dyn Fn() -> String, call: &Cmd) -> Result<Value, RedisError> {
        let is_unknown = |error: &RedisError| error.kind() == ErrorKind::Server(ServerErrorKind::NoScript);
        let mut reply = call.query(&mut self.wire);
        // SCRIPT FLUSH of another client may come between the loading of the script and its call.
        for _ in 0..LOADINGS {
            if !reply.as_ref().is_err_and(is_unknown) {
                break;
            }
            redis::cmd("SCRIPT").arg("LOAD").arg(text()).query::<Value>(&mut self.wire)?;
            reply = call.query(&mut self.wire);
        }
        // Because of its large buffer. The next call makes a new connection.
        self.broken = reply.as_ref().is_ok_and(|reply| longest_text(reply) > LARGEST_KEPT);
        reply
    }

    /// Runs a command whose reply must come within this time, if that is less than the time limit of a reply.
    fn within<T>(
        &mut self,
        limit: Duration,
        command: impl Fn(&mut Wire) -> Result<T, RedisError>,
    ) -> Result<T, RedisError> {
        if limit >= self.read_timeout {
            return command(&mut self.wire);
        }
        self.wire.set_read_timeout(limit)?;
        let reply = command(&mut self.wire)?;
        self.wire.set_read_timeout(self.read_timeout)?;
        Ok(reply)
    }
}

/// Makes connections for a pool.
struct Manager {
    place: Arc<Place>,
    blocks: bool,
    read_timeout: Duration,
    availability: Arc<Availability>,
}

impl r2d2::ManageConnection for Manager {
    type Connection = Connection;
    type Error = ConnectError;

    fn connect(&self) -> Result<Connection, ConnectError> {
        let generation = self.availability.generation();
        let note_step = |step: &str| self.availability.note_connecting(step);
        // Without the right to run CLIENT ID a fetcher cannot be unblocked: then stopping takes up to BLOCK longer.
        let made = self.place.connect(CONNECT, self.blocks, &note_step);
        self.availability.note_connected(made.as_ref().err().map(ToString::to_string));
        let made = made?;
        let generation = self
            .availability
            .note_change(&made.change, || self.place.description(), self.place.is_fixed())
            .unwrap_or(generation);
        made.wire.set_timeouts(self.read_timeout, REPLY).map_err(|error| ConnectError(error.to_string()))?;
        Ok(Connection {
            wire: made.wire,
            client_id: made.client_id,
            read_timeout: self.read_timeout,
            generation,
            since: Instant::now(),
            broken: false,
        })
    }

    /// Without PING, which doubles the cost of every command and which a demoted master answers too.
    fn is_valid(&self, connection: &mut Connection) -> Result<(), ConnectError> {
        if connection.generation != self.availability.generation() {
            Err(ConnectError("older than the last outage".to_owned()))
        } else if !connection.wire.is_idle() {
            Err(ConnectError("closed by the other side".to_owned()))
        } else {
            Ok(())
        }
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.broken || connection.generation != self.availability.generation()
    }
}

/// All connections to one Redis. All threads share them.
pub(super) struct Connections {
    commands: r2d2::Pool<Manager>,
    blocking: r2d2::Pool<Manager>,
    /// The ids of the connections that run a blocking command now.
    blocked: Mutex<HashSet<i64>>,
    availability: Arc<Availability>,
    place: Arc<Place>,
}

/// Whether a call may be sent again after its connection died before the reply came. Redis may have run it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Two calls have the effect of one.
    Safe,
    /// Two calls may have another effect than one.
    Never,
}

impl Connections {
    /// Prepares the pools. A connection is made when it is first needed, so that a server starts while Redis is
    /// unavailable.
    pub(super) fn new(place: Place, connections: u32, blocking_connections: u32) -> Connections {
        let availability = Arc::new(Availability::default());
        let place = Arc::new(place);
        // Both pools share its threads, so that there are fewer and each has its own name.
        let connecting = scheduled_thread_pool::ScheduledThreadPool::builder()
            .num_threads(CONNECTING_THREADS)
            .thread_name_pattern("redis-connect-{}")
            .build();
        let connecting = Arc::new(connecting);
        let pool = |size: u32, blocks: bool, read_timeout: Duration| {
            let availability = availability.clone();
            let manager = Manager { place: place.clone(), blocks, read_timeout, availability };
            r2d2::Pool::builder()
                .max_size(size)
                .min_idle(Some(0))
                .connection_timeout(GET)
                .thread_pool(connecting.clone())
                .build_unchecked(manager)
        };
        let commands = pool(connections, false, REPLY);
        let blocking = pool(blocking_connections, true, BLOCK + BLOCK_MARGIN);
        Connections { commands, blocking, blocked: Mutex::default(), availability, place }
    }

    /// Runs a command that only reads.
    pub(super) fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        let ask = &mut |connection: &mut Connection| command.query(&mut connection.wire);
        read(self.run(&self.commands, Access::Read, Repeat::Safe, ask)?)
    }

    /// Runs a command that may block for [`BLOCK`].
    pub(super) fn query_blocking<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        read(self.run(&self.blocking, Access::Add, Repeat::Never, &mut |connection| {
            self.set_blocked(connection.client_id, true);
            let reply = command.query(&mut connection.wire);
            self.set_blocked(connection.client_id, false);
            reply
        })?)
    }

    /// Ends all blocking commands, as if their time were over.
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

    /// Runs a script. Its text is sent only if Redis does not know the script: at first, and after a failover.
    pub(super) fn run_script(
        &self,
        access: Access,
        repeat: Repeat,
        text: &dyn Fn() -> String,
        call: &Cmd,
    ) -> Result<Value, Error> {
        self.run(&self.commands, access, repeat, &mut |connection| connection.run_script(text, call))
    }

    /// Runs a script, and then waits until this number of replicas has what the script wrote. Returns the reply, and how
    /// many replicas have it. With a reply that does not `need` them, no replica is waited for.
    pub(super) fn run_replicated(
        &self,
        (access, repeat): (Access, Repeat),
        text: &dyn Fn() -> String,
        call: &Cmd,
        replicas: u32,
        need: fn(&Value) -> bool,
    ) -> Result<(Value, u32), Error> {
        let begun = Instant::now();
        let mut have = Ok(replicas);
        let reply = self.run(&self.commands, access, repeat, &mut |connection| {
            let reply = connection.run_script(text, call)?;
            // The script has run: a fault of WAIT must not repeat the script, and so is no error of this closure.
            if need(&reply) {
                have = self.wait(connection, replicas, begun);
            }
            Ok(reply)
        })?;
        Ok((reply, have?))
    }

    /// Waits until this number of replicas has the last write of this connection, within the time limit of a call that
    /// began at this time. Returns how many replicas have it.
    fn wait(&self, connection: &mut Connection, replicas: u32, call: Instant) -> Result<u32, Error> {
        let begun = Instant::now();
        let left = (GET + REPLY).saturating_sub(call.elapsed()).max(LEAST);
        // Never 0, which means no limit.
        let time = REPLICATION.min(left / 2);
        let mut command = redis::cmd("WAIT");
        command.arg(replicas).arg(time.as_millis() as u64);
        let reply = connection.within(left, |wire| command.query(wire));
        let have = reply.map_err(|error| self.classify(connection, begun, &error))?;
        self.availability.note_replicas(have, replicas);
        Ok(have)
    }

    /// As [`Availability::too_few_replicas`].
    pub(super) fn too_few_replicas(&self) -> Option<u32> {
        self.availability.too_few_replicas()
    }

    /// As [`Availability::note_missing_rights`].
    pub(super) fn note_missing_rights(&self, reason: &str) {
        self.availability.note_missing_rights(reason);
    }

    /// As [`Availability::note_all_rights`].
    pub(super) fn note_all_rights(&self) {
        self.availability.note_all_rights();
    }

    /// Whether the user of Redis lacked a right at the last check.
    pub(super) fn lacks_rights(&self) -> bool {
        self.availability.lacks_rights()
    }

    /// Whether Redis was unavailable at the last call.
    pub(super) fn is_unavailable(&self) -> bool {
        self.availability.is_unavailable()
    }

    /// Where the connections lead to.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Listens to the Sentinels until the other side of `end` is closed. Returns at once if there are none.
    pub(super) fn watch(&self, end: &UnixStream) {
        sentinel_watch::watch(&self.place, end, || self.availability.end_generation());
    }

    /// How often another Redis took over.
    pub(super) fn failovers(&self) -> u64 {
        self.availability.failovers()
    }

    /// Runs a command or a script on a connection of a pool.
    // Not generic: every copy of this function for another type has 15 kB.
    fn run(
        &self,
        pool: &r2d2::Pool<Manager>,
        access: Access,
        repeat: Repeat,
        work: &mut dyn FnMut(&mut Connection) -> Result<Value, RedisError>,
    ) -> Result<Value, Error> {
        self.availability.may_attempt()?;
        let call = Instant::now();
        let left = || (GET + REPLY).saturating_sub(call.elapsed()).max(LEAST);
        let (mut deaths, mut has_moved) = (0, false);
        loop {
            let begun = Instant::now();
            let mut connection = self.get(pool, begun, left().min(GET))?;
            if repeat == Repeat::Never && connection.has_died_silently() {
                self.discard(connection, "nothing came back");
                connection = self.get(pool, begun, left().min(GET))?;
            }
            let is_fresh = std::mem::replace(&mut connection.since, begun) >= begun;
            let is_repeated = deaths > 0 || has_moved;
            // All attempts together take no longer than the limit of one call.
            let limits = |connection: &Connection, read| {
                if is_repeated {
                    connection.wire.set_read_timeout(read).map_err(RedisError::from)
                } else {
                    Ok(())
                }
            };
            let reply = limits(&connection, left().min(connection.read_timeout))
                .and_then(|()| work(&mut connection))
                .and_then(|value| limits(&connection, connection.read_timeout).map(|()| value));
            let error = match reply {
                Ok(value) => {
                    self.availability.note_success(access, connection.generation);
                    return Ok(value);
                }
                Err(error) => error,
            };
            // The node has run nothing, and the error names the owner of the slot.
            if error.kind() == ErrorKind::Server(ServerErrorKind::Moved)
                && !self.place.is_fixed()
                && !has_moved
            {
                has_moved = true;
                self.place.note_moved(&error);
                self.discard(connection, &describe(&error));
                continue;
            }
            // A fresh connection that gets no reply shows that Redis is unavailable. If it was closed, the next attempt to
            // connect shows that, and the call is not repeated.
            let may_have_died = deaths < DEATHS && !(is_fresh && error.is_timeout());
            if !may_have_died || error.kind() != ErrorKind::Io {
                return Err(self.classify(&mut connection, begun, &error));
            }
            deaths += 1;
            let may_repeat =
                !is_fresh && !error.is_timeout() && (repeat == Repeat::Safe || !connection.wire.was_sent());
            let reason = describe(&error);
            self.discard(connection, &reason);
            if !may_repeat {
                // Finds out whether Redis is unavailable, and returns that error then.
                drop(self.get(pool, Instant::now(), left().min(GET))?);
                let reason = format!("a connection to Redis died before the reply came: {reason}");
                return Err(Error::Unavailable(reason));
            }
        }
    }

    /// Closes a dead connection. Redis may still be available.
    fn discard(&self, mut connection: r2d2::PooledConnection<Manager>, reason: &str) {
        log::debug!("a connection to Redis died: {reason}");
        connection.broken = true;
        self.availability.note_lost_connection(connection.generation);
    }

    /// Gets a connection of a pool: an idle one, or a fresh one.
    fn get(
        &self,
        pool: &r2d2::Pool<Manager>,
        begun: Instant,
        limit: Duration,
    ) -> Result<r2d2::PooledConnection<Manager>, Error> {
        pool.get_timeout(limit).map_err(|_| {
            // A full pool says nothing about Redis; a failed attempt to connect does.
            if pool.state().connections >= pool.max_size() {
                return Error::Busy(pool.max_size());
            }
            let reason = self.availability.why_no_connection();
            self.availability.note_unavailable(begun, &reason);
            Error::Unavailable(reason)
        })
    }

    /// Records a failed call for its connection and for the availability, and returns the error for the caller.
    fn classify(&self, connection: &mut Connection, begun: Instant, error: &RedisError) -> Error {
        let text = describe(error);
        match error.kind() {
            ErrorKind::Io => {
                connection.broken = true;
                self.availability.note_unavailable(begun, &text);
                Error::Unavailable(text)
            }
            ErrorKind::Server(
                ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::ClusterDown,
            ) => {
                connection.broken = true;
                self.availability.note_unavailable(begun, &text);
                Error::Unavailable(text)
            }
            ErrorKind::Server(ServerErrorKind::ReadOnly) => {
                let reason = format!("this is a replica, refuses writes: {text}");
                connection.broken = true;
                self.availability.note_refused(&reason);
                Error::Unavailable(reason)
            }
            // The master was demoted between a script and its WAIT.
            _ if text.contains("WAIT cannot be used with replica") => {
                connection.broken = true;
                self.availability.note_refused(&text);
                Error::Unavailable(text)
            }
            _ => match error.code() {
                Some("OOM") => {
                    self.availability.note_full();
                    Error::Full
                }
                // Other clients flush the scripts again and again.
                Some("NOSCRIPT") => Error::Unavailable(text),
                Some("NOPERM") => Error::Denied(text),
                // The errors of a command inside a script in place of NOPERM: of Redis 7.0, and of 7.2 and later.
                _ if text.contains("The user executing the script")
                    || text.contains("ACL failure in script") =>
                {
                    Error::Denied(text)
                }
                // The command was renamed, or the server is a Sentinel.
                _ if text.contains("unknown command") || text.contains("Invalid command passed") => {
                    Error::Denied(text)
                }
                Some("MOVED" | "ASK") => {
                    let reason = match self.place.is_fixed() {
                        true => {
                            format!("this is a node of a Redis Cluster: use redis+cluster:// ({text})")
                        }
                        false => text,
                    };
                    self.availability.note_refused(&reason);
                    Error::Unavailable(reason)
                }
                Some("MISCONF" | "NOREPLICAS" | "BUSY" | "TRYAGAIN") => {
                    self.availability.note_refused(&text);
                    Error::Unavailable(text)
                }
                Some("UNBLOCKED" | "NOAUTH") => {
                    connection.broken = true;
                    self.availability.note_refused(&text);
                    Error::Unavailable(text)
                }
                // The error to a command with many arguments in place of NOAUTH.
                _ if text.contains("unauthenticated") => {
                    let reason = "NOAUTH Authentication required".to_owned();
                    connection.broken = true;
                    self.availability.note_refused(&reason);
                    Error::Unavailable(reason)
                }
                // A slot moved while a script ran.
                _ if text.contains("non local key") => {
                    self.availability.note_refused(&text);
                    Error::Unavailable(text)
                }
                // An old Redis has replaced a newer one. At its start this server would have refused it.
                _ if text.contains("Error compiling script") => {
                    let reason =
                        format!("this Redis is too old for the scripts, 7.0 or newer is needed: {text}");
                    connection.broken = true;
                    self.availability.note_refused(&reason);
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

/// Reads a reply to a command.
fn read<T: FromRedisValue>(reply: Value) -> Result<T, Error> {
    T::from_redis_value(reply).map_err(|error| Error::Protocol(error.to_string()))
}

/// The length in bytes of the longest text in a reply.
fn longest_text(reply: &Value) -> usize {
    match reply {
        Value::BulkString(bytes) => bytes.len(),
        Value::Array(values) => values.iter().map(longest_text).max().unwrap_or(0),
        _ => 0,
    }
}
