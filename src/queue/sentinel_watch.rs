//! Listens to the Sentinels, which tell at once that another Redis is the master. The old master itself takes commands until
//! a Sentinel demotes it, up to 10 s later, and what it takes is lost.
//!
//! The Sentinel that leads a failover tells the new master a second later than the others. So the watch listens to all Sentinels.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use redis::{ErrorKind, Value};
use rustix::event::{PollFd, PollFlags, poll};

use super::connection::{Address, Login, Wire, describe};
use super::error::ConnectError;
use super::place::Place;
use super::sentinel;

/// How often the watch asks a Sentinel for the master, and connects to Sentinels that failed.
const INTERVAL: Duration = Duration::from_secs(2);

/// A Sentinel that the watch listens to.
struct Listening {
    sentinel: Address,
    /// Receives the messages.
    events: Wire,
    /// Asks for the master.
    wire: Wire,
}

impl Listening {
    /// `was_refused` is set if a Sentinel refuses to send messages, for example for a missing right. Then the watch only asks.
    fn start(sentinel: &Address, login: &Login, was_refused: &mut bool) -> Result<Listening, ConnectError> {
        let mut events = sentinel::connect(sentinel, login)?;
        let subscribe = redis::cmd("SUBSCRIBE").arg("+switch-master").take();
        match subscribe.query::<Value>(&mut events) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Io => return Err(ConnectError(describe(&error))),
            Err(error) => {
                if !std::mem::replace(was_refused, true) {
                    let reason = describe(&error);
                    log::warn!(
                        "the Sentinel {sentinel} refuses to tell failovers at once, it is asked every 2 s instead: {reason}"
                    );
                }
            }
        }
        Ok(Listening { sentinel: sentinel.clone(), events, wire: sentinel::connect(sentinel, login)? })
    }

    /// Whether this Sentinel names another master than the last known one. Then new connections ask this Sentinel first, and
    /// the log has the new master, unless `logged` is this master already.
    fn names_other_master(
        &mut self,
        place: &Place,
        name: &str,
        logged: &mut Option<Address>,
    ) -> Result<bool, ConnectError> {
        let (named, known) = (sentinel::master(&mut self.wire, name)?, place.known_address());
        if known.is_none() || named.is_none() || named == known {
            *logged = None;
            return Ok(false);
        }
        place.put_first(&self.sentinel);
        if let Some(master) = named.as_ref().filter(|_| named != *logged) {
            log::info!("the Sentinels name another master, {master}");
        }
        *logged = named;
        Ok(true)
    }

    fn read_message(&mut self) -> Result<(), ConnectError> {
        match self.events.read_reply() {
            // A message of TLS itself.
            Err(error) if error.is_timeout() => Ok(()),
            reply => reply.map(drop).map_err(|error| ConnectError(describe(&error))),
        }
    }
}

/// Listens until the other side of `end` is closed. Calls `master_changed` when a Sentinel names another master than the
/// one that the connections lead to; new connections ask this Sentinel first. Returns at once without Sentinels.
pub(super) fn watch(place: &Place, end: &UnixStream, master_changed: impl Fn()) {
    let mut listening: Vec<Listening> = Vec::new();
    // The master that the log named last, while no connection leads to this master.
    let mut logged = None;
    let mut was_refused = false;
    let mut round: usize = 0;
    while let Some((sentinels, name, login)) = place.sentinels() {
        let missing: Vec<&Address> =
            sentinels.iter().filter(|sentinel| position(&listening, sentinel).is_none()).collect();
        // A silent Sentinel takes time in which the watch reads no message: after the first round one per round.
        let (skipped, taken) =
            if round == 0 { (0, missing.len()) } else { (round % missing.len().max(1), 1) };
        for sentinel in missing.into_iter().skip(skipped).take(taken) {
            match Listening::start(sentinel, login, &mut was_refused) {
                Ok(new) => listening.push(new),
                Err(error) => log::debug!("cannot listen to the Sentinel {sentinel}: {error}"),
            }
        }
        round += 1;
        // What a Sentinel told before the watch listened is learned by asking. Only the Sentinel that connections ask
        // counts: another one may be late.
        let mut to_ask = sentinels.first().cloned();
        let begin = Instant::now();
        loop {
            if let Some(asked) = to_ask.take().and_then(|to_ask| position(&listening, &to_ask)) {
                match listening[asked].names_other_master(place, name, &mut logged) {
                    Ok(true) => master_changed(),
                    Ok(false) => {}
                    Err(_) => drop(listening.swap_remove(asked)),
                }
            }
            let left = INTERVAL.saturating_sub(begin.elapsed());
            match next_event(end, &listening, left) {
                Event::End => return,
                Event::None => break,
                Event::Message(from) => match listening[from].read_message() {
                    Ok(()) => to_ask = Some(listening[from].sentinel.clone()),
                    Err(_) => drop(listening.swap_remove(from)),
                },
            }
        }
    }
}

fn position(listening: &[Listening], sentinel: &Address) -> Option<usize> {
    listening.iter().position(|known| known.sentinel == *sentinel)
}

/// What the watch waits for.
enum Event {
    /// The watch ends.
    End,
    /// A Sentinel sends a message, or has closed the connection. The value is its index.
    Message(usize),
    /// Nothing within the time limit.
    None,
}

fn next_event(end: &UnixStream, listening: &[Listening], limit: Duration) -> Event {
    let mut sources = vec![PollFd::new(end, PollFlags::IN)];
    sources.extend(listening.iter().map(|listening| PollFd::new(&listening.events, PollFlags::IN)));
    let Ok(limit) = limit.try_into() else { return Event::None };
    if poll(&mut sources, Some(&limit)).is_err() {
        return Event::None;
    }
    match sources.iter().position(|source| !source.revents().is_empty()) {
        Some(0) => Event::End,
        Some(index) => Event::Message(index - 1),
        None => Event::None,
    }
}
