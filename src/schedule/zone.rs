//! Time zones: the data of the system, or else a bundled copy; and what a time of day means when the clocks change.

use std::path::Path;

use tz::TimeZone;
use tz::timezone::TransitionRule;

/// Where systems keep their time zones.
const FOLDERS: [&str; 2] = ["/usr/share/zoneinfo", "/etc/zoneinfo"];
/// The longest name. The longest one of IANA has 32 bytes.
const MAX_NAME: usize = 64;
const DAY: i64 = 86_400;

/// A time zone. Times are seconds since 1970; a local time is the same number for a clock of this zone.
#[derive(Debug)]
pub(super) struct Zone {
    zone: TimeZone,
}

impl Zone {
    /// The time zone with this IANA name. UTC needs no data.
    pub(super) fn named(name: &str) -> Option<Zone> {
        let is_name = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'/' | b'_' | b'-' | b'+');
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_name) || name.starts_with('/') {
            return None;
        }
        if name == "UTC" {
            return Some(Zone { zone: TimeZone::utc() });
        }
        Zone::of_system(name).or_else(|| Zone::bundled(name))
    }

    fn of_system(name: &str) -> Option<Zone> {
        let data = FOLDERS.iter().find_map(|folder| std::fs::read(Path::new(folder).join(name)).ok())?;
        TimeZone::from_tz_data(&data).ok().map(|zone| Zone { zone })
    }

    /// The zone by its rule for the future, for systems without time zones. A zone without such a rule is not bundled. A
    /// test compares the rules with those of IANA.
    pub(super) fn bundled(name: &str) -> Option<Zone> {
        let rule = include_str!("zones.txt").lines().find_map(|line| {
            let (rule, names) = line.split_once(' ')?;
            names.split(' ').any(|other| other == name).then_some(rule)
        })?;
        TimeZone::from_tz_data(&zone_file(rule)).ok().map(|zone| Zone { zone })
    }

    /// The seconds that local time is ahead of UTC at this time.
    pub(super) fn offset(&self, time: i64) -> i64 {
        // The library knows no local time only for times beyond the range of its dates.
        self.zone.find_local_time_type(time).map_or(0, |local| local.ut_offset().into())
    }

    /// The first time after `after`, and up to `until`, from which another offset may hold.
    pub(super) fn next_change(&self, after: i64, until: i64) -> Option<i64> {
        let zone = self.zone.as_ref();
        let listed = zone.transitions();
        let position = listed.partition_point(|change| change.unix_leap_time() <= after);
        if let Some(change) = listed.get(position) {
            return Some(change.unix_leap_time()).filter(|time| *time <= until);
        }
        match zone.extra_rule() {
            Some(TransitionRule::Alternate(_)) => self.next_change_by_rule(after, until),
            _ => None,
        }
    }

    /// Looks at one time a day, since no rule changes the offset for less than a day.
    fn next_change_by_rule(&self, after: i64, until: i64) -> Option<i64> {
        let offset = self.offset(after);
        let mut before = after;
        while before < until {
            let mut changed = (before + DAY).min(until);
            if self.offset(changed) != offset {
                while changed - before > 1 {
                    let middle = before + (changed - before) / 2;
                    *(if self.offset(middle) == offset { &mut before } else { &mut changed }) = middle;
                }
                return Some(changed);
            }
            before = changed;
        }
        None
    }

    /// The time at which a clock of this zone first shows `local`. If the clock skips `local`: the first time after the gap.
    pub(super) fn first_time_of(&self, local: i64) -> i64 {
        // No zone is a day or more away from UTC, so `local` is after the start of the first period.
        let mut start = local - DAY;
        loop {
            let time = local - self.offset(start);
            match self.next_change(start, time) {
                Some(change) => start = change,
                None => return time.max(start),
            }
        }
    }
}

/// A zone file (RFC 9636) with a rule alone: tz-rs reads the times of day after 24:00, which some rules have, in files only.
fn zone_file(rule: &str) -> Vec<u8> {
    // The numbers of indicators, leap seconds, changes, local time types and characters: one local time type, UTC.
    let counts = [0, 0, 0, 0, 1, 1_u32].map(u32::to_be_bytes);
    let header = [&b"TZif3"[..], &[0; 15], counts.as_flattened()].concat();
    let local_time_type = [0; 6];
    let block = [&header, &local_time_type[..], b"\0"].concat();
    [&block[..], &block, b"\n", rule.as_bytes(), b"\n"].concat()
}
