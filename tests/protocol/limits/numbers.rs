//! The numbers of limits: defined, changed and deleted by the API and by files, for all keys or for one.

use threadq::internals::queue::{LimitPut, ServerFacts, Source};

use super::*;
use crate::fixture::completed;
use crate::invariants::assert_sound;

#[test]
fn more_room_helps_at_once() {
    let place = Place::with_moving_clock();
    let a = place.server();
    assert_eq!(place.queue.put_limit(&limit("smtp"), &slots(1)).unwrap(), LimitPut::Created);
    let all = place.submit_limited_many(5, &["smtp"]);
    assert_eq!(place.started(&a), all[..1]);
    assert_eq!(place.queue.put_limit(&limit("smtp"), &slots(3)).unwrap(), LimitPut::Updated);
    assert_eq!(place.started(&a), all[1..3]);
    assert_sound(&place);
}

#[test]
fn less_room_lets_the_running_ones_end() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(3));
    let all = place.submit_limited_many(5, &["smtp"]);
    let taken = place.take(&a, 9);
    assert_eq!(ids(&taken), all[..3]);
    place.define("smtp", slots(1));
    let mut leases = taken.into_iter().map(|(lease, _)| lease);
    for _ in 0..2 {
        place.ends(&a, &completed(leases.next().unwrap()));
        assert!(place.take(&a, 9).is_empty());
        assert_sound(&place);
    }
    place.ends(&a, &completed(leases.next().unwrap()));
    assert_eq!(place.started(&a), all[3..4]);
    assert_sound(&place);
}

#[test]
fn a_place_that_was_kept_does_not_outlive_its_slot() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(2));
    let all = place.submit_limited_many(4, &["smtp"]);
    let mut taken = place.take(&a, 9);
    place.ends(&a, &completed(taken.remove(0).0));
    assert_eq!(place.kept("smtp"), all[2..3]);
    place.define("smtp", slots(1));
    assert!(place.take(&a, 9).is_empty());
    assert_eq!(place.held("smtp"), all[2..]);
    place.ends(&a, &completed(taken.remove(0).0));
    assert_eq!(place.started(&a), all[2..3]);
    assert_sound(&place);
}

#[test]
fn a_higher_rate_helps_at_once() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", rate(1, 100 * HOUR, 1));
    let all = place.submit_limited_many(4, &["smtp"]);
    assert_eq!(place.started(&a), all[..1]);
    place.define("smtp", rate(1, HOUR, 1));
    assert!(place.take(&a, 9).is_empty(), "the last start was just now");
    place.waits(HOUR + MINUTE);
    assert_eq!(place.started(&a), all[1..2]);
    // A lower one holds from the next start on.
    place.define("smtp", rate(1, 10 * HOUR, 1));
    place.waits(HOUR + MINUTE);
    assert_eq!(place.started(&a), all[2..3]);
    place.waits(HOUR + MINUTE);
    assert!(place.take(&a, 9).is_empty());
    assert_sound(&place);
}

#[test]
fn a_larger_burst_helps_at_once() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", rate(1, HOUR, 1));
    let all = place.submit_limited_many(5, &["smtp"]);
    assert_eq!(place.started(&a), all[..1]);
    place.define("smtp", rate(1, HOUR, 3));
    assert_eq!(place.started(&a), all[1..3]);
    assert_sound(&place);
}

#[test]
fn slots_may_become_a_rate_and_a_rate_slots() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", slots(1));
    let all = place.submit_limited_many(5, &["smtp"]);
    let first = place.take(&a, 9).remove(0).0;
    place.define("smtp", rate(1, HOUR, 1));
    let second = place.take(&a, 9);
    assert_eq!(ids(&second), all[1..2]);
    assert!(place.take(&a, 9).is_empty());
    assert_sound(&place);
    place.define("smtp", slots(2));
    place.works_off();
    // The second one started without a slot.
    let third = place.take(&a, 9);
    assert_eq!(ids(&third), all[2..3]);
    let leases = second.into_iter().chain(third).map(|(lease, _)| lease).chain([first]);
    for lease in leases {
        place.ends(&a, &completed(lease));
    }
    for id in &all[3..] {
        let mut taken = place.take(&a, 9);
        assert_eq!(ids(&taken), [*id]);
        place.ends(&a, &completed(taken.remove(0).0));
    }
    place.assert_no_trace();
    assert_sound(&place);
}

#[test]
fn more_room_for_every_key_helps_within_a_minute() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("tenant", slots(1));
    let keys: Vec<String> = (0..250).map(|n| format!("tenant:{n:03}")).collect();
    for key in &keys {
        place.submit_limited_many(2, &[key]);
    }
    let mut first = vec![];
    for _ in 0..20 {
        first.extend(place.take(&a, 100));
    }
    assert_eq!(first.len(), keys.len());
    place.define("tenant", slots(2));
    place.waits(MINUTE);
    let mut second = vec![];
    for _ in 0..20 {
        second.extend(place.take(&a, 100));
    }
    assert_eq!(second.len(), keys.len());
    let words: Vec<_> = place.agenda().into_iter().filter(|(word, _)| word.starts_with("wake:")).collect();
    assert_eq!(words, []);
    assert_sound(&place);
    let settlements: Vec<_> = first.into_iter().chain(second).map(|(lease, _)| completed(lease)).collect();
    place.queue.settle(&a, &settlements).unwrap();
    place.assert_no_trace();
}

#[test]
fn a_key_may_have_numbers_of_its_own() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("tenant", slots(1));
    assert_eq!(place.queue.put_limit(&limit("tenant:vip"), &slots(3)).unwrap(), LimitPut::Created);
    let vip = place.submit_limited_many(5, &["tenant:vip"]);
    let other = place.submit_limited_many(2, &["tenant:other"]);
    assert_eq!(place.started(&a), [&vip[..3], &other[..1]].concat());
    assert_sound(&place);
    // The numbers of all keys do not concern it.
    place.define("tenant", slots(2));
    place.waits(MINUTE);
    assert_eq!(place.started(&a), other[1..]);
    assert_eq!(place.undefine("tenant:vip"), LimitDeleted::Done);
    assert_eq!(place.undefine("tenant:vip"), LimitDeleted::Missing);
    assert_eq!(place.undefine("tenant:other"), LimitDeleted::Missing);
    place.waits(MINUTE);
    assert!(place.take(&a, 9).is_empty(), "3 run, and there is room for 2");
    place.define("tenant:vip", slots(4));
    assert_eq!(place.started(&a), vip[3..4]);
    assert_sound(&place);
}

#[test]
fn a_deleted_limit_takes_the_numbers_of_its_keys_with_it() {
    let place = Place::with_moving_clock();
    let a = place.server();
    for name in ["tenant", "tenant:vip", "tenants"] {
        place.define(name, slots(1));
    }
    let all = place.submit_limited_many(2, &["tenant:vip"]);
    let others = place.submit_limited_many(2, &["tenants"]);
    assert_eq!(place.started(&a), [all[0], others[0]]);
    assert_eq!(place.undefine("tenant"), LimitDeleted::Done);
    assert_eq!(place.undefine("tenant:vip"), LimitDeleted::Missing);
    place.waits(KEPT);
    assert_eq!(place.started(&a), all[1..]);
    assert_eq!(place.held("tenants"), others[1..]);
    assert_sound(&place);
}

#[test]
fn numbers_for_a_key_need_a_limit_and_reserved_names_are_not_defined() {
    let place = Place::with_moving_clock();
    for name in ["tenant:vip", "threadq.type:t", "threadq.schedule:nightly", "threadq.x"] {
        assert_eq!(place.queue.put_limit(&limit(name), &slots(1)).unwrap(), LimitPut::Missing, "{name}");
    }
    assert!(place.queue.limits().unwrap().is_empty());
}

fn record(place: &Place, name: &str) -> threadq::internals::queue::LimitRecord {
    let all = place.queue.limits().unwrap();
    all.into_iter().find(|record| record.name == name).unwrap_or_else(|| panic!("no limit {name}"))
}

/// A server whose file has these limits.
fn server_with(place: &Place, limits: &[(&str, LimitNumbers)]) -> ServerId {
    let server = ServerId::generate();
    let limits = limits.iter().map(|(name, numbers)| (limit(name), *numbers)).collect();
    let facts = ServerFacts { limits, ..ServerFacts::new(8, &["default"]) };
    place.queue.register(&server, &facts).unwrap();
    server
}

#[test]
fn an_override_of_the_api_survives_the_starts_of_servers_with_a_file() {
    let place = Place::with_moving_clock();
    server_with(&place, &[("smtp", slots(1))]);
    let smtp = record(&place, "smtp");
    assert_eq!((smtp.numbers, smtp.source, smtp.overridden), (slots(1), Source::Config, false));
    assert_eq!(place.undefine("smtp"), LimitDeleted::ManagedByConfig);
    place.queue.put_limit(&limit("smtp"), &slots(5)).unwrap();
    // The server that started last decides what the override hides.
    server_with(&place, &[("smtp", slots(2))]);
    let smtp = record(&place, "smtp");
    assert_eq!((smtp.numbers, smtp.source, smtp.overridden), (slots(5), Source::Config, true));
    assert_eq!(place.undefine("smtp"), LimitDeleted::Done);
    let smtp = record(&place, "smtp");
    assert_eq!((smtp.numbers, smtp.source, smtp.overridden), (slots(2), Source::Config, false));
    assert_eq!(place.undefine("smtp"), LimitDeleted::ManagedByConfig);
}

#[test]
fn a_file_takes_over_a_limit_of_the_api() {
    let place = Place::with_moving_clock();
    place.define("smtp", slots(5));
    server_with(&place, &[("smtp", slots(2))]);
    assert_eq!(record(&place, "smtp").source, Source::Config);
    assert_eq!(place.undefine("nothing"), LimitDeleted::Missing);
}

#[test]
fn numbers_of_a_file_hold_at_once() {
    let place = Place::with_moving_clock();
    let a = server_with(&place, &[("smtp", slots(1))]);
    let all = place.submit_limited_many(4, &["smtp"]);
    assert_eq!(place.started(&a), all[..1]);
    server_with(&place, &[("smtp", slots(3))]);
    place.works_off();
    assert_eq!(place.started(&a), all[1..3]);
    assert_sound(&place);
}

#[test]
fn a_limit_of_a_file_goes_when_no_living_server_has_it() {
    let place = Place::with_moving_clock();
    let a = place.server();
    let first = server_with(&place, &[("smtp", slots(1)), ("kept", slots(1))]);
    let second = server_with(&place, &[("smtp", slots(1))]);
    place.define("kept", slots(2));
    place.define("own", slots(1));
    let all = place.submit_limited_many(3, &["smtp"]);
    assert_eq!(place.started(&a), all[..1]);
    place.queue.leave(&first).unwrap();
    place.queue.prune_names(None).unwrap();
    assert_eq!(names(&place), ["kept", "own", "smtp"]);
    assert!(place.take(&a, 9).is_empty());
    place.dies(&second);
    place.queue.prune_names(None).unwrap();
    // An override stays.
    assert_eq!(names(&place), ["kept", "own"]);
    assert_eq!(place.started(&a), all[1..]);
    assert_sound(&place);
}

fn names(place: &Place) -> Vec<String> {
    place.queue.limits().unwrap().into_iter().map(|record| record.name).collect()
}

#[test]
fn a_type_and_a_schedule_may_have_a_limit_of_their_own() {
    let place = Place::with_moving_clock();
    let a = place.server();
    let of_type = LimitName::of_type("t");
    server_with(&place, &[(of_type.as_str(), slots(2))]);
    let of_schedule = LimitName::of_schedule("nightly");
    let all = place.submit_limited_many(3, &[of_type.as_str()]);
    let ticks = place.submit_limited_many(2, &[of_schedule.as_str()]);
    let mut taken = place.take(&a, 9);
    assert_eq!(ids(&taken), [all[0], all[1], ticks[0]]);
    assert_sound(&place);
    place.ends(&a, &completed(taken.remove(2).0));
    assert_eq!(place.started(&a), ticks[1..]);
    // The numbers of the file may be overridden.
    place.define(of_type.as_str(), slots(3));
    assert_eq!(place.started(&a), all[2..]);
    assert_sound(&place);
}

#[test]
fn figures_count_what_runs_and_what_waits() {
    let place = Place::with_moving_clock();
    let a = place.server();
    place.define("smtp", LimitNumbers { concurrency: Some(2), ..rate(1, HOUR, 3) });
    place.define("tenant", slots(1));
    let all = place.submit_limited_many(5, &["smtp"]);
    let tenants = [place.submit_limited_many(3, &["tenant:1"]), place.submit_limited_many(2, &["tenant:2"])];
    let taken = place.take(&a, 9);
    assert_eq!(taken.len(), 4);
    let smtp = record(&place, "smtp");
    assert_eq!((smtp.running, smtp.waiting), (2, 3));
    let tenant = record(&place, "tenant");
    assert_eq!((tenant.running, tenant.waiting, tenant.opens_at_ms), (2, 3, None));
    let details = place.queue.limit(&limit("tenant"), 0, 10).unwrap().expect("it is defined");
    let keys: Vec<_> = details
        .keys
        .iter()
        .map(|key| (key.record.name.as_str(), key.record.running, key.record.waiting))
        .collect();
    assert_eq!(keys, [("1", 1, 2), ("2", 1, 1)], "most waiting first");
    let details = place.queue.limit(&limit("tenant:1"), 1, 1).unwrap().expect("it is defined");
    assert_eq!(details.running, tenants[0][..1]);
    assert_eq!(details.waiting.iter().map(|job| job.id).collect::<Vec<_>>(), tenants[0][2..]);
    assert!(place.queue.limit(&limit("nothing"), 0, 10).unwrap().is_none());
    // The last token.
    for (lease, job) in taken {
        if job.id == all[0] {
            place.ends(&a, &completed(lease));
        }
    }
    assert_eq!(place.started(&a), all[2..3]);
    let opens_at = record(&place, "smtp").opens_at_ms.expect("the tokens are spent");
    let now = place.queue.work_off_due(3).unwrap().now_ms;
    assert!(opens_at > now + HOUR / 2 && opens_at <= now + HOUR, "{opens_at} {now}");
    assert_sound(&place);
}
