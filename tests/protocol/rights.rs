//! The Redis user lacks a right: every step is done as a whole or not at all, and the error names the right.

use threadq::internals::queue::{Error, Quarantine, Queue, ServerFacts, SubmitError};
use threadq::job::{JobId, NewJob};

use crate::fixture::*;
use crate::invariants::assert_sound;

/// The commands that SECURITY.md grants.
fn commands() -> Vec<&'static str> {
    let text = include_str!("../../SECURITY.md");
    let line = text.lines().find(|line| line.contains("ACL SETUSER threadq on")).unwrap();
    line.split(' ').filter_map(|word| word.strip_prefix('+')).collect()
}

/// The patterns of all keys, without the namespace.
const KEYS: &[&str] = &[
    "job:*",
    "work_queue:*",
    "tombstones:*",
    "in_progress_queue:*",
    "scheduled",
    "dlq_queue",
    "done",
    "completed",
    "types",
    "type_index:*",
    "index:*",
    "servers",
    "absent",
    "server:*",
    "cancels:*",
    "queues",
    "paused",
    "unique:*",
    "idempotency:*",
    "last_id",
    "last_chance:*",
    "lost",
    "history:*",
    "activity:*",
    "watched",
];

/// A queue whose Redis user has exactly these rights.
fn queue_with(place: &Place, rights: &[String]) -> Queue {
    let user = place.key("").replace(['{', '}', ':'], "");
    let mut call = redis::cmd("ACL");
    call.arg("SETUSER").arg(&user).arg("reset").arg("on").arg(">secret").arg(rights);
    let _: () = place.run(&call);
    open_queue(format!("{}?user={user}&pass=secret", place.wire.url()), &user)
}

fn all_keys(place: &Place) -> String {
    format!("~{}*", place.key(""))
}

/// All data in this place's own Redis.
fn contents(place: &Place) -> Vec<(String, Vec<u8>)> {
    let all = "local all = {} for i, key in ipairs(redis.call('KEYS', '*')) do \
               all[2 * i - 1] = key all[2 * i] = redis.call('DUMP', key) end return all";
    let mut contents: Vec<(String, Vec<u8>)> = place.run(redis::cmd("EVAL").arg(all).arg(0));
    contents.sort();
    contents
}

/// Executes every step that changes jobs, on jobs that the place's own queue has prepared. Returns the number of
/// refused steps, and asserts that a refused step changes nothing.
fn refused_steps(place: &Place, lacks: &str, queue: &Queue) -> usize {
    let mut refused = 0;
    let mut step = |name: &str, work: &mut dyn FnMut() -> Result<(), Error>| {
        let before = contents(place);
        match work() {
            Ok(()) => {}
            Err(Error::Denied(reason)) => {
                refused += 1;
                assert!(reason.contains("grant it with: ACL SETUSER"), "{reason}");
                assert!(contents(place) == before, "{name} without {lacks} left something behind");
            }
            Err(error) => panic!("{name} without {lacks}: {error:?}"),
        }
    };
    let job = |change: &dyn Fn(&mut NewJob)| {
        let mut job = NewJob::new("t");
        change(&mut job);
        job
    };
    let jobs = vec![
        job(&|job| job.unique_key = Some("k".to_owned())),
        job(&|job| job.start = threadq::job::Start::AfterMs(9_000_000)),
    ];
    // enqueue_plain.lua stores two jobs without keys and delays, enqueue.lua all others.
    for (name, jobs) in [("submit plain jobs", vec![NewJob::new("t"); 2]), ("submit", jobs)] {
        step(name, &mut || match queue.submit(&jobs, None, NO_LIMIT) {
            Err(SubmitError::Queue(error)) => Err(error),
            submitted => {
                submitted.unwrap();
                Ok(())
            }
        });
    }
    let server = threadq::internals::queue::ServerId::generate();
    step("register", &mut || queue.register(&server, &ServerFacts::new(8, &["default"])));

    let server = place.server();
    step("heartbeat", &mut || queue.heartbeat(&server, 0, 8, &["default".to_owned()]).map(|_| ()));
    place.submit_many(3);
    let _: i64 = place.redis("LPUSH", "work_queue:default", &["77"]);
    step("wait_for_job", &mut || queue.wait_for_job(&server, "default").map(|_| ()));
    step("start_jobs", &mut || {
        queue.start_jobs(&server, &shares(9), Quarantine::Start, MAX_CRASHES, None).map(|_| ())
    });
    place.submit_many(6);
    let mut leases = place.take(&server, 6).into_iter().map(|(lease, _)| lease);
    let ids: Vec<JobId> = leases.by_ref().take(2).map(|lease| lease.id()).collect();
    for settlement in [completed, retried, buried, released] {
        let settlement = [settlement(leases.next().unwrap())];
        step("settle", &mut || queue.settle(&server, &settlement).map(|_| ()));
    }
    step("cancel a running job", &mut || queue.cancel(&[ids[0]], &[]).map(|_| ()));
    let entry = [ids[1].to_string().into_bytes()];
    step("recover", &mut || queue.recover(&server, &entry).map(|_| ()));
    place.submit_many(2);
    place.take(&server, 2);
    let observed = place.beat_value(&server).unwrap();
    step("reclaim", &mut || queue.reclaim(server.as_str(), &observed, MAX_CRASHES).map(|_| ()));
    let due = place.submit_delayed();
    place.make_due(due);
    step("due", &mut || queue.work_off_due(MAX_CRASHES).map(|_| ()));
    let (waits, parked) = (place.submit(), place.submit_delayed());
    step("cancel a queued job", &mut || queue.cancel(&[waits], &[]).map(|_| ()));
    step("cancel a parked job", &mut || queue.cancel(&[parked], &[]).map(|_| ()));
    for _ in 0..2 {
        let id = place.submit_with(|job| job.unique_key = Some(format!("k{}", fastrand::u64(..))));
        place.cancel(id);
        step("retry", &mut || queue.retry(&[id], &[]).map(|_| ()));
        place.cancel(id);
        step("delete", &mut || queue.delete(&[id], &[]).map(|_| ()));
    }
    place.submit_suspect();
    let alone = place.server();
    step("take a suspect", &mut || {
        queue.start_jobs(&alone, &shares(9), Quarantine::Start, MAX_CRASHES, None).map(|_| ())
    });
    let ended = place.submit();
    place.cancel(ended);
    step("delete_old_jobs", &mut || queue.delete_old_jobs(false, std::time::Duration::ZERO, 0).map(|_| ()));
    step("pause", &mut || queue.set_paused("default", true).map(|_| ()));
    refused
}

#[test]
fn a_step_without_a_command_that_it_needs_changes_nothing() {
    let place = Place::alone();
    let queue = queue_with(&place, &[all_keys(&place), "+@all".to_owned()]);
    assert_eq!(refused_steps(&place, "nothing", &queue), 0);
    queue.check_ready().unwrap();

    let mut noticed = Vec::new();
    // Without the right to load scripts no script runs at all.
    for command in commands().into_iter().filter(|command| *command != "script|load") {
        let _: () = place.run(&redis::cmd("FLUSHALL"));
        let queue = queue_with(&place, &[all_keys(&place), "+@all".to_owned(), format!("-{command}")]);
        if refused_steps(&place, command, &queue) > 0 {
            noticed.push(command);
        }
        place.redis::<i64>("LREM", "work_queue:default", &["0", "77"]);
        assert_sound(&place);
    }
    // The commands that write, and a few that read.
    for command in
        ["hset", "hdel", "lpush", "rpush", "lrem", "zadd", "zrem", "sadd", "set", "hmget", "brpoplpush"]
    {
        assert!(noticed.contains(&command), "{command}: {noticed:?}");
    }
}

#[test]
fn a_step_without_keys_that_it_needs_changes_nothing() {
    let place = Place::alone();
    for lacking in KEYS {
        let _: () = place.run(&redis::cmd("FLUSHALL"));
        let mut rights: Vec<String> =
            KEYS.iter().filter(|key| key != &lacking).map(|key| format!("~{}", place.key(key))).collect();
        rights.push("+@all".to_owned());
        let queue = queue_with(&place, &rights);
        let refused = refused_steps(&place, lacking, &queue);
        let is_for_jobs = !["history:*", "activity:*", "watched"].contains(lacking);
        assert!(refused > 0 || !is_for_jobs, "{lacking}");
        if is_for_jobs {
            let error = queue.check_ready().unwrap_err().to_string();
            assert!(
                error.contains(&format!("may not use the keys {}*", place.key(""))),
                "{lacking}: {error}"
            );
        }
    }
}

#[test]
fn all_that_is_lacking_is_said_at_once_with_the_words_that_grant_it() {
    let place = Place::new();
    let user = place.key("").replace(['{', '}', ':'], "");
    for (rights, grants) in [
        ("-brpoplpush", "+brpoplpush"),
        ("-brpoplpush -hset -time", "+brpoplpush +hset +time"),
        ("-script|load", "+script|load"),
        ("-evalsha", "+evalsha"),
    ] {
        let rights = format!("{} +@all {rights}", all_keys(&place));
        let rights: Vec<String> = rights.split(' ').map(str::to_owned).collect();
        // Load the scripts first: the check can test the right to call a script only if Redis knows the script.
        place.queue.check_ready().unwrap();
        let error = queue_with(&place, &rights).check_ready().unwrap_err().to_string();
        assert!(error.ends_with(&format!("ACL SETUSER {user} {grants}")), "{error}");
    }
    let pattern = format!("~{}*", place.key("").replace(['{', '}'], ""));
    let error = queue_with(&place, &[pattern, "+@all".to_owned()]).check_ready().unwrap_err().to_string();
    assert!(error.ends_with(&format!("ACL SETUSER {user} {}", all_keys(&place))), "{error}");
}
