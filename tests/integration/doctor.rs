//! The doctor: for each kind of damage, made by raw commands, the doctor finds exactly that damage, repairs it, and
//! finds nothing more; then every job runs to its end exactly once. In sound data it finds nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::server::{finish, program};
use crate::common::{Finished, LIMIT, TempDir, TestRedis, TestServer, Value, eventually, json};
use threadq::config::{Config, Secret};
use threadq::internals::queue::{
    Audit, Changed, Error, FindingKind, Findings, Quarantine, Queue, RepairPolicy, ServerFacts, ServerId,
    Settings, Share, SubmitError,
};
use threadq::job::{Failure, JobId, NewJob, Start, Status};
use threadq::server::Server;

const POLICY: RepairPolicy = RepairPolicy { lease_timeout: Duration::from_secs(1), max_crashes: 3 };

/// A Redis of one test, and a queue in it.
struct World {
    server: TestRedis,
    queue: Queue,
}

impl World {
    fn new() -> World {
        World::with(&[])
    }

    fn with(extra: &[&str]) -> World {
        let server = TestRedis::start_with(extra);
        let settings = Settings { connections: 4, ..Settings::new(server.url(), "threadq") };
        World { queue: Queue::new(&settings).unwrap(), server }
    }

    /// Runs a raw command; `T:` stands for the namespace.
    #[track_caller]
    fn redis<T: redis::FromRedisValue>(&self, command: &str) -> T {
        let words: Vec<String> = command.split(' ').map(|word| word.replace("T:", "{threadq}:")).collect();
        self.server.query(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The same for damage: asserts that the command has changed data.
    #[track_caller]
    fn damage(&self, command: &str) {
        let changed: redis::Value = self.redis(command);
        assert_ne!(changed, redis::Value::Int(0), "{command}");
    }

    fn submit(&self, job: NewJob) -> JobId {
        self.queue.submit(&[job], None, 1_000_000).unwrap().first
    }

    fn job(&self) -> JobId {
        self.submit(NewJob::new("count"))
    }

    /// Starts a job under the name of a server that does not run.
    fn start_a_job(&self) -> ServerId {
        let server = ServerId::generate();
        self.queue.register(&server, &ServerFacts::new(1, &[])).unwrap();
        let shares = [Share { queue: "default".to_owned(), jobs: 1 }];
        let taken = self.queue.start_jobs(&server, &shares, Quarantine::Start, 3, None).unwrap();
        assert_eq!(taken.jobs.len(), 1);
        server
    }

    fn audit(&self) -> Audit {
        self.queue.audit(POLICY).unwrap()
    }

    #[track_caller]
    fn assert_clean(&self) {
        let audit = self.audit();
        assert_eq!(audit.findings, BTreeMap::new());
        assert!(audit.is_clean());
    }

    /// Asserts that the doctor finds exactly these.
    #[track_caller]
    fn assert_finds(&self, expected: &[(FindingKind, &str)]) {
        let groups = self.audit().findings;
        let mut found: Vec<(FindingKind, String)> = Vec::new();
        for (kind, group) in &groups {
            assert_eq!(group.found, group.examples.len() as u64, "{groups:?}");
            found.extend(group.examples.iter().map(|example| (*kind, example.clone())));
        }
        let mut expected: Vec<_> = expected.iter().map(|(kind, text)| (*kind, (*text).to_owned())).collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
    }

    /// Repairs everything. Returns the repairs.
    #[track_caller]
    fn repair(&self) -> BTreeMap<FindingKind, Findings> {
        let (done, left) = self.queue.repair(POLICY).unwrap();
        assert_eq!(left.findings, BTreeMap::new());
        self.assert_clean();
        done
    }

    /// A server whose handlers count the runs of each job.
    fn serve(&self, work: impl Fn() -> Result<(), Failure> + Send + Sync + 'static) -> (Server, Arc<Runs>) {
        let runs = Arc::new(Runs::default());
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            redis_url: Some(Secret::new(self.server.url())),
            workers: 4,
            lease_timeout: Duration::from_secs(1),
            ..Config::default()
        };
        let counted = runs.clone();
        let server = Server::builder().config(config).handler("count", move |job| {
            *counted.0.lock().unwrap().entry(job.job().id).or_insert(0) += 1;
            work()
        });
        (server.start().unwrap(), runs)
    }

    /// Asserts that all these jobs complete, each after one run, and that the doctor finds nothing then.
    #[track_caller]
    fn assert_run_once(&self, ids: &[JobId]) {
        let (server, runs) = self.serve(|| Ok(()));
        for id in ids {
            eventually(LIMIT, "the job completes", || {
                self.queue.get(*id).unwrap().is_some_and(|job| job.status == Status::Completed)
            });
        }
        self.assert_clean();
        server.shut_down(&crossbeam_channel::never());
        let expected: BTreeMap<JobId, u32> = ids.iter().map(|id| (*id, 1)).collect();
        assert_eq!(*runs.0.lock().unwrap(), expected);
        self.assert_clean();
    }

    /// Asserts that the doctor finds exactly this and repairs it, and that these jobs then run once each.
    #[track_caller]
    fn assert_mends(&self, expected: &[(FindingKind, &str)], ids: &[JobId]) {
        self.assert_finds(expected);
        let done = self.repair();
        for (kind, _) in expected {
            assert!(done.get(kind).is_some_and(|group| group.repaired > 0), "{kind}: {done:?}");
        }
        self.assert_run_once(ids);
    }

    fn doctor(&self, flags: &[&str]) -> Finished {
        let url = self.server.url();
        doctor(&[&["--redis-url", &url], flags].concat())
    }
}

/// Runs `threadq doctor` in an empty folder.
fn doctor(flags: &[&str]) -> Finished {
    let dir = TempDir::new();
    let mut command = program(&dir);
    command.arg("doctor").args(flags);
    let finished = finish(command);
    assert!(!dir.join("threadq-data").exists(), "it leaves nothing behind");
    finished
}

/// The number of runs of each job.
#[derive(Default)]
struct Runs(Mutex<BTreeMap<JobId, u32>>);

#[test]
fn an_empty_redis_is_well() {
    World::new().assert_clean();
}

#[test]
fn a_stranded_queued_job_goes_to_the_front() {
    let world = World::new();
    let ids: Vec<JobId> = (0..5).map(|_| world.job()).collect();
    for at in [0, 2] {
        world.damage(&format!("LREM T:work_queue:default 0 {}", ids[at]));
    }
    let (first, third) = (ids[0].to_string(), ids[2].to_string());
    world.assert_finds(&[(FindingKind::Stranded, &first), (FindingKind::Stranded, &third)]);
    world.repair();
    let order: Vec<u64> = world.redis("LRANGE T:work_queue:default 0 -1");
    let expected = [4, 3, 1, 2, 0].map(|at: usize| ids[at].get());
    assert_eq!(order, expected, "the oldest first, from the right");
    world.assert_run_once(&ids);
}

#[test]
fn a_stranded_job_on_its_last_chance_runs_again() {
    let world = World::new();
    let id = world.job();
    world.damage("DEL T:work_queue:default");
    world.damage(&format!("HSET T:job:{id} crashes 2"));
    world.assert_mends(&[(FindingKind::Stranded, &id.to_string())], &[id]);
}

#[test]
fn a_stranded_scheduled_job_waits_for_its_time_again() {
    let world = World::new();
    let id = world.submit(NewJob { start: Start::AfterMs(1), ..NewJob::new("count") });
    world.damage(&format!("ZREM T:scheduled {id}"));
    world.assert_mends(&[(FindingKind::Stranded, &id.to_string())], &[id]);
}

#[test]
fn a_running_job_that_its_server_could_not_be_asked_for_comes_back() {
    let world = World::new();
    let id = world.job();
    let server = world.start_a_job();
    world.damage(&format!("DEL T:in_progress_queue:{server}"));
    world.assert_finds(&[(FindingKind::Stranded, &id.to_string())]);
    let (done, _) = world.queue.repair(POLICY).unwrap();
    assert_eq!(done[&FindingKind::Stranded].repaired, 1, "{done:?}");
    world.assert_run_once(&[id]);
}

#[test]
fn a_job_that_stands_twice_in_a_list_stands_there_once() {
    let world = World::new();
    let ids = [world.job(), world.job(), world.job()];
    world.damage(&format!("LPUSH T:work_queue:default {}", ids[1]));
    world.assert_mends(&[(FindingKind::Doubled, &ids[1].to_string())], &ids);
}

#[test]
fn a_job_in_two_lists_stays_in_that_of_its_server() {
    let world = World::new();
    let id = world.job();
    let server = world.start_a_job();
    world.damage(&format!("LPUSH T:in_progress_queue:ghost {id}"));
    world.damage(&format!("LPUSH T:in_progress_queue:{server} {id}"));
    let groups = world.audit().findings;
    assert_eq!(groups[&FindingKind::Doubled].found, 1, "{groups:?}");
    world.queue.repair(RepairPolicy { lease_timeout: LIMIT, ..POLICY }).unwrap();
    let left: Vec<u64> = world.redis(&format!("LRANGE T:in_progress_queue:{server} 0 -1"));
    assert_eq!(left, [id.get()]);
    assert_eq!(world.redis::<u64>("EXISTS T:in_progress_queue:ghost"), 0);
    world.assert_run_once(&[id]);
}

#[test]
fn entries_without_a_job_are_taken_out_and_noted() {
    let world = World::new();
    let id = world.job();
    world.damage("RPUSH T:work_queue:default 11 nonsense");
    world.damage("ZADD T:scheduled 5 12");
    world.damage("ZADD T:dlq_queue 5 13");
    world.damage("ZADD T:done 5 14");
    world.assert_mends(
        &[
            (FindingKind::Dangling, "11 in work_queue:default"),
            (FindingKind::Dangling, "nonsense in work_queue:default"),
            (FindingKind::Dangling, "12 in scheduled"),
            (FindingKind::Dangling, "13 in dlq_queue"),
            (FindingKind::Dangling, "14 in done"),
        ],
        &[id],
    );
    assert_eq!(world.audit().lost.0, 5);
}

#[test]
fn entries_whose_job_is_elsewhere_are_taken_out() {
    let world = World::new();
    let (queued, other) = (world.job(), world.submit(NewJob { queue: "b".into(), ..NewJob::new("count") }));
    world.damage("DEL T:work_queue:b");
    world.damage(&format!("LPUSH T:work_queue:c {other}"));
    world.damage(&format!("ZADD T:scheduled 99999999999999 {queued}"));
    world.damage(&format!("ZADD T:dlq_queue 1 {queued}"));
    let groups = world.audit().findings;
    assert_eq!(groups[&FindingKind::Misplaced].found, 3, "{groups:?}");
    world.repair();
    let lists: Vec<u64> = world.redis("LRANGE T:work_queue:b 0 -1");
    assert_eq!(lists, [other.get()], "it went to its own queue");
    world.assert_run_once(&[queued]);
}

#[test]
fn an_ended_job_is_found_by_retention_again() {
    let world = World::new();
    let id = world.job();
    assert_eq!(world.queue.cancel(&[id], &[]).unwrap(), [Changed::Done]);
    world.damage(&format!("ZREM T:done {id}"));
    world.assert_mends(&[(FindingKind::Unlisted, &id.to_string())], &[]);
    assert!(world.queue.delete_old_jobs(false, Duration::ZERO, 0).unwrap());
    assert!(world.queue.get(id).unwrap().is_none());
}

#[test]
fn indexes_are_put_right() {
    let world = World::new();
    let ids = [world.job(), world.job()];
    world.damage(&format!("ZREM T:type_index:ready:count {}", ids[0]));
    world.damage(&format!("ZADD T:index:ready {0} {0}", ids[1]));
    world.damage(&format!("ZADD T:index:failed {0} {0}", ids[0]));
    world.damage(&format!("ZADD T:index:ready:other {0} {0}", ids[0]));
    world.damage("ZADD T:index:completed 77 77");
    let (first, second) = (ids[0].to_string(), ids[1].to_string());
    world.assert_mends(
        &[
            (FindingKind::IndexMissing, &first),
            (FindingKind::IndexStale, &format!("{first} in index:failed")),
            (FindingKind::IndexStale, &format!("{first} in index:ready:other")),
            (FindingKind::IndexStale, "77 in index:completed"),
            (FindingKind::IndexStale, &format!("{second} in index:ready")),
        ],
        &ids,
    );
}

#[test]
fn unique_keys_are_held_by_their_live_jobs_and_nobody_else() {
    let world = World::new();
    let id = world.submit(NewJob { unique_key: Some("one".into()), ..NewJob::new("count") });
    world.damage("DEL T:unique:one");
    world.damage("SET T:unique:gone 12");
    world.damage(&format!("SET T:unique:other {id}"));
    world.assert_mends(
        &[
            (FindingKind::UniqueMissing, &id.to_string()),
            (FindingKind::UniqueStale, "unique:gone"),
            (FindingKind::UniqueStale, "unique:other"),
        ],
        &[id],
    );
    assert_eq!(world.redis::<u64>("EXISTS T:unique:one"), 0, "free after its end");
}

#[test]
fn lists_of_unknown_servers_are_taken_over_as_after_a_crash() {
    let world = World::new();
    let (running, waiting) = (world.job(), world.job());
    let server = world.start_a_job();
    // A fetcher of that server had claimed this job.
    world.damage(&format!("LMOVE T:work_queue:default T:in_progress_queue:{server} RIGHT LEFT"));
    world.damage(&format!("SADD T:cancels:{server} 5"));
    world.damage(&format!("HDEL T:servers {server}"));
    let list = format!("in_progress_queue:{server}");
    let cancels = format!("cancels:{server}");
    world.assert_finds(&[
        (FindingKind::Abandoned, &list),
        (FindingKind::Abandoned, &cancels),
        (FindingKind::CancelStale, &format!("5 in {cancels}")),
    ]);
    world.repair();
    let crashes = |id| world.queue.get(id).unwrap().unwrap().crashes;
    assert_eq!((crashes(running), crashes(waiting)), (1, 0));
    world.assert_run_once(&[running, waiting]);
}

#[test]
fn only_of_a_living_server_it_says_how_busy_it_is() {
    let redis = TestRedis::start();
    let mut server = TestServer::builder().redis(&redis).flag("workers", "2").start();
    let running = server.submit_job(json!({"type": "sleep", "payload": {"ms": 600_000}}));
    server.wait_for_status(running, "processing");
    let name = server.server_id();
    let report = || doctor(&["--redis-url", &redis.url()]).stdout;
    let alive = format!("alive: {name}, 1 of 2 workers busy, 1 job in flight, last heartbeat ");
    eventually(LIMIT, "it is alive and busy", || report().contains(&alive));
    server.kill9();
    redis.query::<i64>(&["HINCRBY", &format!("{{threadq}}:server:{name}"), "beat_at", "-730000"]);
    let silent = format!("silent: {name}, 1 job in flight, last heartbeat 12 min ");
    assert!(report().contains(&silent), "{}", report());
    let json: Value = serde_json::from_str(&doctor(&["--json", "--redis-url", &redis.url()]).stdout).unwrap();
    assert_eq!((&json["servers"][0]["busy"], &json["servers"][0]["in_progress"]), (&Value::Null, &json!(1)));
}

#[test]
fn a_silent_server_is_taken_over_unless_it_beats() {
    let world = World::new();
    let id = world.job();
    let server = world.start_a_job();
    std::thread::sleep(POLICY.lease_timeout + Duration::from_millis(100));
    world.assert_mends(&[(FindingKind::Silent, server.as_str())], &[id]);
}

#[test]
fn keys_of_a_wrong_type_are_set_aside() {
    let world = World::new();
    let id = world.job();
    world.damage("DEL T:work_queue:default");
    world.damage("SET T:work_queue:default hello");
    world.damage("SET T:index:failed hello");
    world.damage("SET T:job:15 hello");
    world.assert_mends(
        &[
            (FindingKind::WrongType, "work_queue:default"),
            (FindingKind::WrongType, "index:failed"),
            (FindingKind::WrongType, "job:15"),
            (FindingKind::Stranded, &id.to_string()),
        ],
        &[id],
    );
    assert_eq!(world.audit().set_aside.0, 3);
    assert_eq!(world.redis::<String>("GET T:set_aside:work_queue:default"), "hello");
}

#[test]
fn a_record_that_cannot_be_read_is_set_aside() {
    let world = World::new();
    let ids = [world.job(), world.job(), world.job(), world.job()];
    let long = format!("[{}1]", "1,".repeat(5_000));
    let _: u64 = world.redis(&format!("HSET T:job:{} max_attempts many", ids[0]));
    let _: u64 = world.redis(&format!("HSET T:job:{} payload {{", ids[1]));
    let _: u64 = world.redis(&format!("HSET T:job:{} payload {long}]", ids[2]));
    let _: u64 = world.redis(&format!("HSET T:job:{} payload {long}", ids[3]));
    let names: Vec<String> = ids.iter().map(JobId::to_string).collect();
    world.assert_mends(
        &[
            (FindingKind::Unreadable, &names[0]),
            (FindingKind::Unreadable, &names[1]),
            (FindingKind::Unreadable, &names[2]),
        ],
        &ids[3..],
    );
    assert_eq!(world.audit().set_aside.0, 3);
}

#[test]
fn all_at_once_in_a_long_list_is_mended() {
    let world = World::new();
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.extend(world.queue.submit(&vec![NewJob::new("count"); 1000], None, 100_000).unwrap().ids());
    }
    // Damage in the middle of the list, where scripts do not look unless the doctor directs them there.
    world.damage("LSET T:work_queue:default 5000 nonsense");
    world.damage(&format!("LSET T:work_queue:default 3000 {}", ids[0]));
    let stranded = [ids[9_999 - 5_000], ids[9_999 - 3_000]].map(|id| id.to_string());
    world.assert_finds(&[
        (FindingKind::Stranded, &stranded[0]),
        (FindingKind::Stranded, &stranded[1]),
        (FindingKind::Doubled, &ids[0].to_string()),
        (FindingKind::Dangling, "nonsense in work_queue:default"),
    ]);
    world.repair();
    world.assert_run_once(&ids);
}

#[test]
fn nothing_is_wrong_under_load() {
    let world = World::new();
    let number = AtomicU32::new(0);
    let (server, _) = world.serve(move || match number.fetch_add(1, Ordering::Relaxed) % 10 {
        0 => Err(Failure::retryable("again")),
        1 => Err(Failure::permanent("never")),
        _ => Ok(()),
    });
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = || {
            let mut ids = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let start = if ids.len() % 3 == 0 { Start::AfterMs(50) } else { Start::Now };
                let unique_key = (ids.len() % 4 == 0).then(|| format!("key-{}", few_different(ids.len())));
                let job = NewJob { start, unique_key, max_attempts: 2, ..NewJob::new("count") };
                match world.queue.submit(&[job], None, 1_000_000) {
                    Err(SubmitError::Refused(_)) => {}
                    submitted => ids.push(submitted.unwrap().first),
                }
                if ids.len() % 5 == 0 {
                    let _ = ids.last().map(|id| world.queue.cancel(&[*id], &[]));
                }
                if !ids.is_empty() && ids.len() % 7 == 0 {
                    let old = ids[ids.len() / 2];
                    let _ = world.queue.retry(&[old], &[]);
                    let _ = world.queue.delete(&[ids[ids.len() / 3]], &[]);
                }
            }
        };
        scope.spawn(load);
        scope.spawn(load);
        let mut seen = 0;
        for round in 0..20 {
            let audit = world.queue.audit(RepairPolicy { lease_timeout: Duration::from_secs(15), ..POLICY });
            let audit = match audit {
                Ok(audit) if audit.findings.is_empty() => audit,
                wrong => {
                    done.store(true, Ordering::Relaxed);
                    panic!("round {round}: {wrong:?}");
                }
            };
            seen += audit.jobs;
        }
        done.store(true, Ordering::Relaxed);
        assert!(seen > 0);
    });
    server.shut_down(&crossbeam_channel::never());
    world.assert_clean();
}

/// A number from 0 to 12, so that jobs compete for the same keys.
fn few_different(n: usize) -> usize {
    n * 7_919 % 13
}

#[test]
fn no_step_holds_up_redis_for_long() {
    let world = World::new();
    // So many jobs that a step over all of them would take longer than 200 ms.
    for _ in 0..40 {
        let _ = world.queue.submit(&vec![NewJob::new("count"); 1000], None, 1_000_000).unwrap();
    }
    world.damage("ZREMRANGEBYRANK T:type_index:ready:count 0 100");
    world.damage("LTRIM T:work_queue:default 0 -100");
    world.damage("LSET T:work_queue:default 20000 nonsense");
    let _: String = world.redis("CONFIG SET slowlog-log-slower-than 200000");
    let _: String = world.redis("CONFIG SET slowlog-max-len 1000");
    let _: String = world.redis("SLOWLOG RESET");
    let begin = Instant::now();
    let groups = insist(|| world.queue.audit(POLICY)).findings;
    let took = begin.elapsed();
    assert_eq!(groups[&FindingKind::IndexMissing].found, 101);
    assert_eq!(groups[&FindingKind::Stranded].found, 100);
    let begin = Instant::now();
    assert!(insist(|| world.queue.repair(POLICY)).1.is_clean());
    println!("repair: {:?}", begin.elapsed());
    let slow: Vec<(u64, u64, u64, Vec<String>, String, String)> = world.redis("SLOWLOG GET 1000");
    println!("audit of 40,000 jobs: {took:?}; {} steps over 200 ms", slow.len());
    let mut connection = world.server.connection().unwrap();
    for (_, _, us, words, ..) in slow {
        // A busy machine delays some step now and then, but not the same step every time.
        let again = |_| {
            let mut step = redis::cmd(&words[0]);
            step.arg(&words[1..]);
            let begin = Instant::now();
            step.query::<redis::Value>(&mut connection).unwrap();
            begin.elapsed()
        };
        let fastest = (0..20).map(again).min().unwrap();
        assert!(fastest < Duration::from_millis(200), "{us} us, then {fastest:?}: {words:?}");
    }
}

/// Repeats a call until it succeeds: on a busy machine a reply of Redis can be late.
fn insist<T>(ask: impl Fn() -> Result<T, Error>) -> T {
    let begin = Instant::now();
    loop {
        match ask() {
            Err(Error::Unavailable(why)) => assert!(begin.elapsed() < LIMIT * 20, "{why}"),
            answer => return answer.unwrap(),
        }
    }
}

#[test]
fn the_command_reports_and_repairs_and_sets_the_exit_code() {
    let world = World::new();
    let id = world.job();
    let well = world.doctor(&[]);
    assert_eq!(well.code, Some(0), "{}", well.stderr);
    let report = well.stdout;
    for part in ["jobs: 1 in all\n", "\nredis: ", "\nservers: 0 known\n", "\nno problem found\n"] {
        assert!(report.contains(part), "{part:?}: {report}");
    }
    world.damage("DEL T:work_queue:default");
    let ill = world.doctor(&["--json"]);
    assert_eq!(ill.code, Some(1), "{}", ill.stderr);
    let json: serde_json::Value = serde_json::from_str(&ill.stdout).unwrap();
    assert_eq!(json["ok"], false);
    let finding = json["findings"].as_array().unwrap().iter().find(|it| it["kind"] == "stranded").unwrap();
    assert_eq!(finding["count"], 1);
    assert_eq!(finding["examples"][0], id.to_string());
    let line = format!(
        "  wrong: jobs that are in no list and would never run: 1 ({id}); --repair puts them back into their lists\n"
    );
    let report = world.doctor(&[]).stdout;
    assert!(report.contains(&line), "{report}");
    let repaired = world.doctor(&["--repair"]);
    let report = repaired.stdout;
    assert_eq!(repaired.code, Some(0), "{report}");
    assert!(report.contains("  repaired: jobs that are in no list"), "{report}");
    assert!(report.ends_with("all problems repaired\n"), "{report}");
    world.assert_run_once(&[id]);
}

#[test]
fn dangers_of_the_redis_are_told() {
    let flags = ["--appendonly", "no", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"];
    let world = World::with(&flags);
    let done = world.doctor(&["--json"]);
    assert_eq!(done.code, Some(0), "warnings alone: {}", done.stderr);
    let json: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    let kinds: Vec<&str> =
        json["findings"].as_array().unwrap().iter().map(|it| it["kind"].as_str().unwrap()).collect();
    for kind in ["no_persistence", "eviction"] {
        assert!(kinds.contains(&kind), "{kind}: {kinds:?}");
    }
    let report = world.doctor(&[]).stdout;
    assert!(report.ends_with("\nno problem found, only warnings\n"), "{report}");
    let _: String = world.redis("CONFIG SET maxmemory 1mb");
    assert!(world.queue.redis_report().unwrap().advice.iter().any(|advice| advice.kind == "memory"));
    let _: String = world.redis("REPLICAOF 127.0.0.1 1");
    let replica = world.doctor(&[]);
    assert_eq!(replica.code, Some(1), "{}", replica.stdout);
    assert!(replica.stdout.contains("wrong: this Redis is a replica"), "{}", replica.stdout);
}

#[test]
fn without_a_redis_it_says_so() {
    let none = doctor(&[]);
    assert_eq!(none.code, Some(1));
    assert!(
        none.stderr.starts_with("threadq: data-dir: no private Redis runs in ./threadq-data"),
        "{none:?}"
    );
    let away = doctor(&["--redis-url", "redis://127.0.0.1:1"]);
    assert_eq!(away.code, Some(1));
    assert!(away.stderr.starts_with("threadq: redis-url: Redis is unavailable"), "{away:?}");
    assert_eq!(doctor(&["--namespace", "a b"]).code, Some(2));
    assert_eq!(doctor(&["--mend"]).code, Some(2));
    assert_eq!(doctor(&["--help"]).code, Some(0));
}
