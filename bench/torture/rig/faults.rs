//! The faults of a run: injects them, and measures the time to recovery of each.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;

use super::Plan;
use super::audit::indexed;
use super::own_redis::{Eye, Redis};
use super::processes::{Running, Servers};

/// The interval between two checks for a recovery.
const LOOK: Duration = Duration::from_millis(25);
/// The longest wait for a recovery.
const LOOK_LIMIT: Duration = Duration::from_secs(90);
/// This long after a fault of Redis the recovery of a server has no limit.
const AFTERMATH: Duration = Duration::from_secs(3);

/// A kind of fault of Redis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RedisFault {
    /// SIGKILL, and a restart on the same folder up to 2 s later.
    Kill,
    /// SIGSTOP for 1 to 5 s.
    Stop,
    /// Close every connection.
    Clients,
    /// SCRIPT FLUSH.
    Scripts,
    /// Set `maxmemory` below the used memory, for 2 to 4 s.
    Full,
}

impl RedisFault {
    /// All kinds.
    pub const ALL: [RedisFault; 5] =
        [RedisFault::Kill, RedisFault::Stop, RedisFault::Clients, RedisFault::Scripts, RedisFault::Full];

    /// The name on the command line and in the report.
    pub fn word(self) -> &'static str {
        match self {
            RedisFault::Kill => "kill",
            RedisFault::Stop => "stop",
            RedisFault::Clients => "clients",
            RedisFault::Scripts => "scripts",
            RedisFault::Full => "full",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Kill,
    Term,
    Freeze,
    Redis(RedisFault),
}

impl Fault {
    fn word(self) -> String {
        match self {
            Fault::Kill => "kill -9".to_owned(),
            Fault::Term => "sigterm".to_owned(),
            Fault::Freeze => "freeze".to_owned(),
            Fault::Redis(fault) => format!("redis {}", fault.word()),
        }
    }
}

/// A fault that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// The kind of fault.
    pub what: String,
    /// The server's process whose jobs may run again; `None` if no job may.
    pub pid: Option<u32>,
    /// Time since the begin of the load.
    pub at: Duration,
    /// Time from the fault (from its end, for a fault of Redis) to the recovery; `None` without a recovery.
    pub recovery: Option<Duration>,
    /// Whether Redis had a fault meanwhile, so that the recovery has no limit.
    pub excused: bool,
    begin: Instant,
    end: Instant,
}

/// The faults of a run.
pub struct Faults<'a> {
    plan: &'a Plan,
    redis: &'a Redis,
    servers: &'a Servers,
    events: Mutex<Vec<Event>>,
    notes: Mutex<Vec<String>>,
    /// Held while a server is chosen and frozen, so that at least one server keeps running.
    freeze_turn: Mutex<()>,
    /// Held during a fault of Redis, so that these faults do not overlap.
    redis_turn: Mutex<()>,
    /// Begin and end of each fault of Redis.
    troubles: Mutex<Vec<(Instant, Instant)>>,
}

impl<'a> Faults<'a> {
    pub fn new(plan: &'a Plan, redis: &'a Redis, servers: &'a Servers) -> Faults<'a> {
        Faults {
            plan,
            redis,
            servers,
            events: Mutex::default(),
            notes: Mutex::default(),
            freeze_turn: Mutex::default(),
            redis_turn: Mutex::default(),
            troubles: Mutex::default(),
        }
    }

    /// Injects all faults of the plan, in an order and at times that the seed decides, and waits until they are over.
    /// Faults overlap where one takes longer than the gap.
    pub fn inject(&self, begin: Instant, stop: &AtomicBool) {
        let mut random = Rng::with_seed(self.plan.seed ^ 0xfa17);
        let mut faults = vec![Fault::Kill; self.plan.kills];
        faults.extend(vec![Fault::Term; self.plan.terms]);
        faults.extend(vec![Fault::Freeze; self.plan.freezes]);
        let kinds: Vec<RedisFault> = RedisFault::ALL
            .into_iter()
            .filter(|kind| self.plan.redis_kinds.iter().any(|k| k == kind.word()))
            .collect();
        faults.extend(kinds.iter().cycle().take(self.plan.redis_faults).map(|kind| Fault::Redis(*kind)));
        random.shuffle(&mut faults);
        std::thread::scope(|scope| {
            for (number, fault) in faults.into_iter().enumerate() {
                let at = self.plan.gap.mul_f64(number as f64 + 0.7 + 0.6 * random.f64());
                let seed = random.u64(..);
                while Instant::now() < begin + at && !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(LOOK);
                }
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                scope.spawn(move || {
                    let mut random = Rng::with_seed(seed);
                    match fault {
                        Fault::Kill => self.kill(begin, &mut random, stop),
                        Fault::Term => self.term(begin, &mut random, stop),
                        Fault::Freeze => self.freeze(begin, &mut random, stop),
                        Fault::Redis(kind) => self.hit_redis(kind, begin, &mut random),
                    }
                });
            }
        });
    }

    /// The faults that happened, by time.
    pub fn events(&self) -> Vec<Event> {
        let mut events = self.events.lock().expect("no thread panics while it holds the lock").clone();
        let troubles = self.troubles.lock().expect("no thread panics while it holds the lock");
        for event in &mut events {
            event.excused =
                troubles.iter().any(|(from, to)| *from < event.end && event.begin < *to + AFTERMATH);
        }
        events.sort_by_key(|event| event.at);
        events
    }

    /// Remarks that are not errors.
    pub fn notes(&self) -> Vec<String> {
        self.notes.lock().expect("no thread panics while it holds the lock").clone()
    }

    fn record(
        &self,
        fault: Fault,
        pid: Option<u32>,
        begin: Instant,
        at: Instant,
        recovery: Option<Duration>,
    ) {
        let at_ms = at.duration_since(begin);
        let event = Event {
            what: fault.word(),
            pid,
            at: at_ms,
            recovery,
            excused: false,
            begin: at,
            end: at + recovery.unwrap_or(LOOK_LIMIT),
        };
        self.events.lock().expect("no thread panics while it holds the lock").push(event);
    }

    fn victim(&self, random: &mut Rng, stop: &AtomicBool) -> Option<Running> {
        while !stop.load(Ordering::Relaxed) {
            if let Some(server) = random.choice(self.servers.running()) {
                return Some(server);
            }
            std::thread::sleep(LOOK);
        }
        None
    }

    fn kill(&self, begin: Instant, random: &mut Rng, stop: &AtomicBool) {
        let (server, at) = loop {
            let Some(server) = self.victim(random, stop) else { return };
            let at = Instant::now();
            if self.servers.kill(server) {
                break (server, at);
            }
        };
        let mut eye = self.redis.eye();
        let recovery = names(&mut eye, server.pid).and_then(|names| taken_over(&mut eye, &names, at, false));
        self.record(Fault::Kill, Some(server.pid), begin, at, recovery);
    }

    /// SIGTERM: no job may run again, unless Redis has a fault.
    fn term(&self, begin: Instant, random: &mut Rng, stop: &AtomicBool) {
        let (server, at) = loop {
            let Some(server) = self.victim(random, stop) else { return };
            let at = Instant::now();
            if self.servers.term(server) {
                break (server, at);
            }
        };
        let mut eye = self.redis.eye();
        let recovery = names(&mut eye, server.pid).and_then(|names| taken_over(&mut eye, &names, at, false));
        self.record(Fault::Term, None, begin, at, recovery);
    }

    fn freeze(&self, begin: Instant, random: &mut Rng, stop: &AtomicBool) {
        let mut eye = self.redis.eye();
        let (server, names, at) = loop {
            let Some(server) = self.victim(random, stop) else { return };
            // Its present names: the server takes a new one when it is thawed.
            let names = names(&mut eye, server.pid).unwrap_or_default();
            let _turn = self.freeze_turn.lock().expect("no thread panics while it holds the lock");
            let at = Instant::now();
            // Another server must run, to take over the jobs.
            let running = self.servers.running();
            let may = running.contains(&server) && running.len() > 1 && !names.is_empty();
            if may && self.servers.set_frozen(server, true) {
                break (server, names, at);
            }
            std::thread::sleep(LOOK);
        };
        let time = self.plan.lease.mul_f64(1.5 + 1.5 * random.f64());
        let recovery = std::thread::scope(|scope| {
            let recovery = scope.spawn(|| taken_over(&mut eye, &names, at, true));
            std::thread::sleep((at + time).saturating_duration_since(Instant::now()));
            self.servers.set_frozen(server, false);
            recovery.join().ok().flatten()
        });
        self.record(Fault::Freeze, Some(server.pid), begin, at, recovery);
    }

    fn hit_redis(&self, kind: RedisFault, begin: Instant, random: &mut Rng) {
        let _turn = self.redis_turn.lock().expect("no thread panics while it holds the lock");
        let mut eye = self.redis.eye();
        let at = Instant::now();
        match kind {
            RedisFault::Kill => {
                self.redis.kill();
                std::thread::sleep(Duration::from_millis(random.u64(0..2_000)));
                if let Err(error) = self.redis.restart() {
                    self.note(format!("Redis did not restart: {error}"));
                }
            }
            RedisFault::Stop => {
                self.redis.signal(Signal::STOP);
                std::thread::sleep(Duration::from_millis(random.u64(1_000..5_000)));
                self.redis.signal(Signal::CONT);
            }
            RedisFault::Clients => {
                let _ = eye.insist::<i64>(redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal"));
            }
            RedisFault::Scripts => {
                let _ = eye.insist::<String>(redis::cmd("SCRIPT").arg("FLUSH"));
            }
            RedisFault::Full => {
                let _ = set_max_memory(&mut eye, "1mb");
                let before = finished(&mut eye);
                std::thread::sleep(Duration::from_millis(random.u64(2_000..4_000)));
                let (after, waiting) = (finished(&mut eye), waiting(&mut eye));
                if let Err(error) = set_max_memory(&mut eye, "0") {
                    self.note(format!("Redis stays full: {error}"));
                }
                if before == after && waiting > 0 {
                    self.note(format!("no job ended while Redis was full, and {waiting} jobs waited"));
                }
            }
        }
        let back = Instant::now();
        self.troubles.lock().expect("no thread panics while it holds the lock").push((at, back));
        let recovery = goes_on(&mut eye, back);
        self.record(Fault::Redis(kind), None, begin, at, recovery);
    }

    fn note(&self, what: String) {
        self.notes.lock().expect("no thread panics while it holds the lock").push(what);
    }
}

fn set_max_memory(eye: &mut Eye, value: &str) -> Result<String, String> {
    eye.insist(redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(value))
}

/// The names of a process that are alive now, each with its heartbeat.
fn names(eye: &mut Eye, pid: u32) -> Option<Vec<(String, String)>> {
    let servers: Vec<(String, String)> = eye.insist(redis::cmd("HGETALL").arg("{threadq}:servers")).ok()?;
    let middle = format!("-{pid}-");
    Some(
        servers.into_iter().filter(|(name, beat)| name.contains(&middle) && !beat.starts_with('D')).collect(),
    )
}

/// The time from `since` until these servers are declared dead and have no in-flight job; or, with `may_go_on`, until
/// they send heartbeats again. `None` after [`LOOK_LIMIT`].
fn taken_over(
    eye: &mut Eye,
    names: &[(String, String)],
    since: Instant,
    may_go_on: bool,
) -> Option<Duration> {
    while since.elapsed() < LOOK_LIMIT {
        let mut all = true;
        for (name, beat_before) in names {
            let beat: Option<String> =
                eye.insist(redis::cmd("HGET").arg("{threadq}:servers").arg(name)).ok()?;
            let list = format!("{{threadq}}:in_progress_queue:{name}");
            let left: i64 = eye.insist(redis::cmd("LLEN").arg(list)).ok()?;
            let is_dead = beat.as_ref().is_none_or(|beat| beat.starts_with('D'));
            // One heartbeat may have been on its way before the freeze.
            let number = |beat: &str| beat.parse().unwrap_or(0_u64);
            let beats = may_go_on && beat.is_some_and(|beat| number(&beat) > number(beat_before) + 1);
            all &= beats || is_dead && left == 0;
        }
        if all {
            return Some(since.elapsed());
        }
        std::thread::sleep(LOOK);
    }
    None
}

fn finished(eye: &mut Eye) -> i64 {
    eye.insist(redis::cmd("LLEN").arg("{threadq}:completed")).unwrap_or(0)
}

fn waiting(eye: &mut Eye) -> i64 {
    indexed(eye, "ready").unwrap_or(0)
}

/// The time from `since` until a job ends or no job waits; `None` after [`LOOK_LIMIT`].
fn goes_on(eye: &mut Eye, since: Instant) -> Option<Duration> {
    let before = finished(eye);
    while since.elapsed() < LOOK_LIMIT {
        if finished(eye) > before || waiting(eye) == 0 {
            return Some(since.elapsed());
        }
        std::thread::sleep(LOOK);
    }
    None
}
