//! [`Plan`]: computes the ticks of a schedule, and which of them start.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};

use super::cron::Cron;
use super::zone::Zone;
use crate::job::time::rfc3339_with_offset;

/// How late a tick may be without being missed.
const ON_TIME_MS: u64 = 60_000;
/// The most ticks of one outage that start.
const MAX_STARTED: usize = 100;
/// The most ticks of one outage that are counted.
const MAX_COUNTED: u64 = 10_000;

/// A schedule that was checked: when it has ticks, and what happens to late ones.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) rule: Rule,
    pub(super) overlap: Overlap,
    pub(super) catch_up: CatchUp,
    pub(super) catch_up_window_ms: u64,
    pub(super) jitter_ms: u64,
    pub(super) starts_at_ms: Option<u64>,
    pub(super) ends_at_ms: Option<u64>,
}

#[derive(Debug)]
pub(super) enum Rule {
    Cron {
        cron: Box<Cron>,
        zone: Zone,
    },
    /// At the multiples of this time since 1970.
    EveryMs(u64),
}

/// What a tick does while the job of an earlier tick has not ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Overlap {
    /// It starts nothing.
    Skip,
    /// It starts another job.
    Allow,
    /// Its job waits until the earlier one has ended. While a job waits, further ticks start nothing.
    Wait,
    /// The earlier job is cancelled, and the new job waits until the earlier one has ended.
    Replace,
}

/// What happens to missed ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CatchUp {
    /// None of them starts.
    None,
    /// The newest one starts.
    One,
    /// All of them start.
    All,
}

/// What becomes of the ticks that are due.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Due {
    /// The ticks that start, oldest first.
    pub start: Vec<u64>,
    /// How many older ticks do not start. Not more than [`MAX_COUNTED`] are counted.
    pub missed: u64,
    /// The first tick that is not due; `None` if there are no more ticks.
    pub next: Option<u64>,
}

impl Plan {
    /// What a tick does while the job of an earlier tick has not ended.
    pub(crate) fn overlap(&self) -> Overlap {
        self.overlap
    }

    /// The first tick after this time; `None` if there is none.
    pub(crate) fn next_after(&self, after_ms: u64) -> Option<u64> {
        let first = self.starts_at_ms.unwrap_or(0).saturating_sub(1);
        let tick = self.rule.next_after(after_ms.max(first))?;
        (tick <= self.ends_at_ms.unwrap_or(u64::MAX)).then_some(tick)
    }

    /// The time at which a tick of this schedule is due: with jitter after the tick, but before the next one. The time
    /// depends on nothing else, so that all servers agree.
    pub(crate) fn due_at(&self, name: &str, tick_ms: u64) -> u64 {
        if self.jitter_ms == 0 {
            return tick_ms;
        }
        let next = self.next_after(tick_ms).unwrap_or(u64::MAX);
        let hash = Sha256::digest(format!("{name}:{tick_ms}"));
        let number = hash[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        tick_ms + number % self.jitter_ms.min(next - tick_ms)
    }

    /// What becomes of the ticks from `first_ms` on that are due at `now_ms`.
    pub(crate) fn due(&self, name: &str, first_ms: u64, now_ms: u64) -> Due {
        let mut due = self.walk(name, Some(first_ms), now_ms, MAX_COUNTED);
        let counted = due.count;
        let oldest_start = now_ms.saturating_sub(match self.catch_up {
            CatchUp::None => ON_TIME_MS,
            CatchUp::One | CatchUp::All => self.catch_up_window_ms,
        });
        // So many ticks are due that the walk ended before the newest ones: look for these in a growing time before now.
        let mut reach = ON_TIME_MS;
        while due.is_cut || counted == MAX_COUNTED && due.newest.len() < MAX_STARTED {
            let from = now_ms.saturating_sub(reach).max(first_ms);
            due = self.walk(name, self.next_after(from.saturating_sub(1)), now_ms, u64::MAX);
            if from <= oldest_start {
                break;
            }
            reach *= 2;
        }
        let at_most = if self.catch_up == CatchUp::All { MAX_STARTED } else { 1 };
        let newest = due.newest.iter().rev().take(at_most).rev().copied();
        let start: Vec<u64> = newest.filter(|tick| self.due_at(name, *tick) >= oldest_start).collect();
        Due { missed: counted - start.len() as u64, start, next: due.next }
    }

    /// Counts the due ticks from `tick` on, up to `at_most`.
    fn walk(&self, name: &str, mut tick: Option<u64>, now_ms: u64, at_most: u64) -> Walk {
        let (mut newest, mut count) = (VecDeque::with_capacity(MAX_STARTED), 0);
        while let Some(due) = tick.filter(|tick| self.due_at(name, *tick) <= now_ms) {
            if count == at_most {
                return Walk { newest, count, next: tick, is_cut: true };
            }
            if newest.len() == MAX_STARTED {
                newest.pop_front();
            }
            newest.push_back(due);
            count += 1;
            tick = self.next_after(due);
        }
        Walk { newest, count, next: tick, is_cut: false }
    }

    /// The time as RFC 3339, on a clock of the schedule's zone.
    pub(crate) fn local_text(&self, ms: u64) -> String {
        let offset = match &self.rule {
            Rule::Cron { zone, .. } => zone.offset(seconds(ms)),
            Rule::EveryMs(_) => 0,
        };
        rfc3339_with_offset(ms, offset)
    }
}

struct Walk {
    /// The newest due ticks, at most [`MAX_STARTED`].
    newest: VecDeque<u64>,
    count: u64,
    /// The first tick that was not counted.
    next: Option<u64>,
    /// Whether `next` is due too.
    is_cut: bool,
}

impl Rule {
    fn next_after(&self, after_ms: u64) -> Option<u64> {
        match self {
            Rule::EveryMs(every) => (after_ms / every + 1).checked_mul(*every),
            Rule::Cron { cron, zone } if cron.follows_real_time => next_in_real_time(cron, zone, after_ms),
            Rule::Cron { cron, zone } => next_fixed_time(cron, zone, after_ms),
        }
    }
}

fn seconds(ms: u64) -> i64 {
    (ms / 1000) as i64
}

fn milliseconds(seconds: i64) -> Option<u64> {
    u64::try_from(seconds).ok()?.checked_mul(1000)
}

/// Every moment counts at which a clock of the zone shows a matching time: skipped times have no tick, repeated ones have two.
fn next_in_real_time(cron: &Cron, zone: &Zone, after_ms: u64) -> Option<u64> {
    let after = seconds(after_ms);
    let mut start = after;
    let mut local = cron.next_after(after + zone.offset(after))?;
    loop {
        let tick = local - zone.offset(start);
        match zone.next_change(start, tick) {
            None => return milliseconds(tick),
            Some(change) => {
                start = change;
                local = cron.next_from(change + zone.offset(change))?;
            }
        }
    }
}

/// Every matching time counts once: a skipped time at the end of the gap, a repeated one the first time.
fn next_fixed_time(cron: &Cron, zone: &Zone, after_ms: u64) -> Option<u64> {
    let after = seconds(after_ms);
    let mut local = after + zone.offset(after);
    loop {
        local = cron.next_after(local)?;
        let tick = zone.first_time_of(local);
        if tick > after {
            return milliseconds(tick);
        }
    }
}
