//! Every script is called while its slot moves to another node. A call changes all that it has to change, or nothing.
//!
//! Redis does not know the keys that a script uses besides those that the call names. So it begins the script, and ends
//! it at the first key that is not on the node. That half of a change strands jobs: see `keys::ABSENT`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use threadq::internals::queue::{
    AttemptReport, Defined, Error, Filter, Lease, LimitPut, Position, PullRequest, Quarantine, Queue,
    RepairPolicy, SCRIPT_NAMES, ScheduleDefinition, Selection, ServerFacts, ServerId, Settings, Settlement,
    Share, Source, StartedJobs, TickOverlap, Verdict, Walk,
};
use threadq::job::limit::{LimitName, LimitNumbers};
use threadq::job::report::Report;
use threadq::job::{AttemptId, Change, JobId, NewJob, Start};

use crate::call_proxy::{CallProxy, Data, Record, Watch};
use crate::common::cluster::Cluster;
use crate::common::{LIMIT, eventually, ms, secs};

const POLICY: RepairPolicy = RepairPolicy { lease_timeout: Duration::from_secs(600), max_crashes: 3 };
const NO_LIMIT: u64 = 1_000_000;

/// A queue in its own namespace, and a server that is registered in it.
struct Scene {
    queue: Queue,
    server: ServerId,
    connection: RefCell<redis::Connection>,
    namespace: String,
}

impl Scene {
    /// Runs a command directly; `name` is a key without its namespace.
    fn redis(&self, command: &str, name: &str, words: &[&str]) {
        let mut call = redis::cmd(command);
        call.arg(format!("{{{}}}:{name}", self.namespace)).arg(words);
        call.query::<redis::Value>(&mut *self.connection.borrow_mut()).unwrap();
    }

    fn define(&self) -> Result<Defined, Error> {
        let definition = ScheduleDefinition {
            name: "s".to_owned(),
            source: Source::Api,
            spec: String::new(),
            body: String::new(),
            job: NewJob::new("t"),
            overlap: TickOverlap::Allow,
            server: String::new(),
        };
        self.queue.define_schedule(&definition, |_| Some((1, 1)))
    }

    fn define_limit(&self) -> Result<LimitPut, Error> {
        self.queue.put_limit(&narrow(), &LimitNumbers { concurrency: Some(1), rate: None, burst: 1 })
    }

    fn register(&self) -> Result<(), Error> {
        self.queue.register(&self.server, &ServerFacts::new(8, &["default"]))
    }

    fn submit_with(&self, change: impl FnOnce(&mut NewJob)) -> JobId {
        let mut job = NewJob::new("t");
        change(&mut job);
        self.queue.submit(&[job], None, NO_LIMIT).unwrap().first
    }

    fn submit(&self) -> JobId {
        self.submit_with(|_| {})
    }

    fn cancelled(&self) -> JobId {
        let id = self.submit();
        self.queue.cancel(&[id], &[]).unwrap();
        id
    }

    fn try_take(&self) -> Result<StartedJobs, Error> {
        let shares = [Share { queue: "default".to_owned(), jobs: 1 }];
        self.queue.start_jobs(&self.server, &shares, Quarantine::Skip, POLICY.max_crashes, None)
    }

    /// Submits a job and gives it to a pull worker.
    fn pull_one(&self) -> AttemptId {
        self.submit();
        let request = PullRequest {
            queues: vec!["default".to_owned()],
            max: 1,
            lease: Some(secs(60)),
            worker: Some("w".to_owned()),
        };
        self.queue.pull(&request, None, POLICY.max_crashes).unwrap().jobs[0].attempt
    }

    /// Submits and starts a job.
    fn start_one(&self) -> Lease {
        self.submit();
        self.try_take().unwrap().jobs.remove(0).0
    }
}

fn narrow() -> LimitName {
    LimitName::parse("narrow").unwrap()
}

/// Prepares jobs, then calls a script as a server does. The first call of the script is the one that counts.
type Row = (&'static str, fn(&Scene));

/// A row for each script. The lists and sets that a job comes to are empty, as they are while little happens: these keys
/// are not on the node when the script needs them.
const ROWS: &[Row] = &[
    ("enqueue", |scene| {
        let mut job = NewJob::new("t");
        job.unique_key = Some("k".to_owned());
        let _ = scene.queue.submit(&[job], None, NO_LIMIT);
    }),
    ("enqueue_plain", |scene| {
        let _ = scene.queue.submit(&[NewJob::new("t")], None, NO_LIMIT);
    }),
    ("start_jobs", |scene| {
        scene.queue.set_paused("other", true).unwrap();
        scene.submit();
        let _ = scene.try_take();
    }),
    ("settle", |scene| {
        let (lease, other) = (scene.start_one(), scene.start_one());
        // The first key that the script reads exists.
        scene.queue.cancel(&[other.id()], &[]).unwrap();
        let verdict = Verdict::Retry { error: "no".to_owned(), delay: secs(3600), throttle: None };
        let _ = scene.queue.settle(&scene.server, &[Settlement { lease, verdict }]);
    }),
    ("report", |scene| {
        let attempt = scene.pull_one();
        let report = Report { log: vec!["a line".to_owned()], ..Report::default() };
        let _ = scene.queue.report(&[AttemptReport { attempt, report, lease: None }]);
    }),
    ("extend", |scene| {
        let attempt = scene.pull_one();
        let _ = scene.queue.extend(&[(attempt, None)]);
    }),
    ("job_log", |scene| {
        let id = scene.submit();
        let _ = scene.queue.job_log(id, 0, 10);
    }),
    ("pull_workers", |scene| {
        scene.pull_one();
        let _ = scene.queue.pull_workers();
    }),
    ("note_pulls", |scene| {
        let _ = scene.queue.saw_pull_workers(&["w".to_owned()], &["default".to_owned()]);
    }),
    ("secret", |scene| {
        let _ = scene.queue.read_secret();
    }),
    ("recover", |scene| {
        let lease = scene.start_one();
        let _ = scene.queue.recover(&scene.server, &[lease.id().to_string().into_bytes()]);
    }),
    ("due", |scene| {
        scene.submit_with(|job| job.start = Start::AfterMs(1));
        std::thread::sleep(ms(5));
        let _ = scene.queue.work_off_due(3);
    }),
    ("register", |scene| {
        let _ = scene.register();
    }),
    ("heartbeat", |scene| {
        let _ = scene.queue.heartbeat(&scene.server, 0, 8, &["default".to_owned()]);
    }),
    ("reclaim", |scene| {
        let _lease = scene.start_one();
        let _ = scene.queue.reclaim(scene.server.as_str(), "1", POLICY.max_crashes);
    }),
    ("cancel", |scene| {
        let id = scene.submit();
        let _ = scene.queue.cancel(&[id], &[]);
    }),
    ("define_limit", |scene| {
        let _ = scene.define_limit();
    }),
    ("limits_list", |scene| {
        let _ = scene.queue.limits();
    }),
    ("limit_show", |scene| {
        let _ = scene.define_limit();
        let _ = scene.queue.limit(&narrow(), 0, 10);
    }),
    ("define", |scene| {
        let _ = scene.define();
    }),
    ("schedules", |scene| {
        let _ = scene.queue.schedules(0, 1);
    }),
    ("schedule_figures", |scene| {
        let _ = scene.queue.schedule_figures();
    }),
    ("fire", |scene| {
        let _ = scene.define();
        let _ = scene.queue.fire("s", 1, Some(2), Some(2), &[1], 0);
    }),
    ("change", |scene| {
        let id = scene.submit();
        let change = Change { queue: Some("other".to_owned()), ..Change::default() };
        let _ = scene.queue.change_waiting(&[id], &[], &change);
    }),
    ("retry", |scene| {
        let id = scene.cancelled();
        let _ = scene.queue.retry(&[id], &[]);
    }),
    ("delete", |scene| {
        let id = scene.cancelled();
        let _ = scene.queue.delete(&[id], &[]);
    }),
    ("delete_old_jobs", |scene| {
        scene.cancelled();
        let _ = scene.queue.delete_old_jobs(false, Duration::ZERO, 0);
    }),
    ("prune_names", |scene| {
        scene.cancelled();
        let _ = scene.queue.prune_names(None);
    }),
    ("pause", |scene| {
        let _ = scene.queue.set_paused("default", true);
    }),
    ("readiness", |scene| {
        let _ = scene.queue.check_ready();
    }),
    ("missing_rights", |scene| {
        let _ = scene.queue.check_operator_rights();
    }),
    ("get", |scene| {
        let id = scene.submit();
        let _ = scene.queue.get(id);
    }),
    ("statuses", |scene| {
        let id = scene.submit();
        let _ = scene.queue.statuses(&[id]);
    }),
    ("list", |scene| {
        scene.submit();
        let _ = scene.queue.list(&Filter::default(), Position::Offset(0), 10);
    }),
    ("list_queue", |scene| {
        scene.submit();
        let _ = scene.queue.list_queue("default", 0, 10);
    }),
    ("why", |scene| {
        let id = scene.submit();
        let _ = scene.queue.situation(id);
    }),
    ("select", |scene| {
        scene.submit();
        let _ = scene.queue.select(&Selection::default(), Walk::default(), 10);
    }),
    ("queues", |scene| {
        let _ = scene.queue.queues(&["default"]);
    }),
    ("stats", |scene| {
        let _ = scene.queue.stats();
    }),
    ("add_history", |scene| {
        let _ = scene.queue.add_history(&[("completed".to_owned(), 1)]);
    }),
    ("history", |scene| {
        let _ = scene.queue.history(2);
    }),
    ("workers", |scene| {
        let _ = scene.queue.workers();
    }),
    ("report_activity", |scene| {
        let _ = scene.queue.report_activity(&scene.server, "[]");
    }),
    ("audit_jobs", audit),
    ("audit_record", |scene| {
        // The doctor reads a large record by a script of its own.
        let text = format!("\"{}\"", "x".repeat(5_000));
        scene.submit_with(|job| job.payload = RawValue::from_string(text).unwrap());
        audit(scene);
    }),
    ("audit_list", audit),
    ("audit_set", audit),
    ("audit_servers", audit),
    ("recheck", audit),
    ("repair", |scene| {
        // A stranded job.
        scene.submit();
        scene.redis("DEL", "work_queue:default", &[]);
        let _ = scene.queue.repair(POLICY);
    }),
];

fn audit(scene: &Scene) {
    scene.submit();
    let _ = scene.queue.audit(POLICY);
}

/// Two masters, and a proxy in front of each.
struct World {
    cluster: Arc<Cluster>,
    proxies: Vec<CallProxy>,
    slots: RefCell<BTreeSet<u16>>,
}

impl World {
    fn new(names_absent_key: bool) -> World {
        let cluster = Arc::new(Cluster::start(2, 0, secs(5)));
        let proxies =
            cluster.nodes.iter().map(|node| CallProxy::new(node.port(), names_absent_key)).collect();
        World { cluster, proxies, slots: RefCell::default() }
    }

    /// Calls the script of a row while the slot of its namespace is on its way. These keys are at their new node already.
    fn call(&self, (script, act): &Row, keys_that_moved: &[&'static str]) -> Record {
        let namespace = format!("{script}-{}", keys_that_moved.len()).replace('_', "-");
        let slot = self.cluster.slot(&namespace);
        assert!(self.slots.borrow_mut().insert(slot), "two namespaces share the slot {slot}");
        let owner = self.cluster.owner(slot);
        let at = self.cluster.nodes.iter().position(|node| node.port() == owner.port()).unwrap();
        let proxy = &self.proxies[at];
        let url = self.cluster.url_with(&[proxy.address()]);
        let settings = Settings { connections: 2, ..Settings::new(url, &namespace) };
        let connection = RefCell::new(owner.connection(secs(5)).unwrap());
        let server = ServerId::generate();
        let scene = Scene { queue: Queue::new(&settings).unwrap(), server, connection, namespace };
        eventually(LIMIT, "the server registers", || scene.register().is_ok());
        let prefix = format!("{{{}}}:", scene.namespace);
        let (cluster, keys) = (self.cluster.clone(), keys_that_moved.to_vec());
        let begin_move = {
            let prefix = prefix.clone();
            move || {
                let moving = cluster.begin_move(slot, cluster.another_master(slot));
                let keys: Vec<_> = keys.iter().map(|key| format!("{prefix}{key}").into_bytes()).collect();
                moving.migrate_keys(&keys);
            }
        };
        let cluster = self.cluster.clone();
        let read_data = move || data(&cluster, &prefix);
        proxy.watch(Watch { script, begin_move: Box::new(begin_move), read_data: Box::new(read_data) });
        act(&scene);
        proxy.take_record().unwrap_or_else(|| panic!("{script} was not called"))
    }
}

/// All keys with this prefix, on all nodes.
fn data(cluster: &Cluster, prefix: &str) -> Data {
    let mut all = Data::new();
    for node in &cluster.nodes {
        let mut connection = node.connection(secs(5)).unwrap();
        let keys: Vec<String> = redis::cmd("KEYS").arg(format!("{prefix}*")).query(&mut connection).unwrap();
        for key in keys {
            // A node that a slot comes to answers for the keys that it has after ASKING only.
            let (value,): (Vec<u8>,) =
                redis::pipe().cmd("ASKING").ignore().cmd("DUMP").arg(&key).query(&mut connection).unwrap();
            all.push((key, value));
        }
    }
    all.sort();
    all
}

#[test]
fn every_script_has_a_row() {
    let rows: Vec<&str> = ROWS.iter().map(|(script, _)| *script).collect();
    let rows: BTreeSet<&str> = rows.into_iter().collect();
    assert_eq!(rows, SCRIPT_NAMES.iter().copied().collect());
}

#[test]
fn no_script_changes_anything_while_its_slot_moves() {
    let world = World::new(true);
    for row in ROWS {
        // The slot has just begun to move.
        let record = world.call(row, &[]);
        assert!(record.reply.starts_with("-TRYAGAIN"), "{}: {}", row.0, record.reply);
        assert!(!record.has_changed(), "{} was refused and has changed something", row.0);
        // The key of the registry has moved already.
        let record = world.call(row, &["servers"]);
        assert!(record.reply.starts_with("-ASK"), "{}: {}", row.0, record.reply);
        assert!(!record.has_changed(), "{} was refused and has changed something", row.0);
    }
}

/// The mutant: the same calls without the key that never exists.
#[test]
fn scripts_that_name_existing_keys_alone_change_half() {
    let world = World::new(false);
    let is_half = |row: &&Row| {
        let record = world.call(row, &[]);
        record.is_error() && record.has_changed()
    };
    let half: Vec<&str> = ROWS.iter().filter(is_half).map(|(script, _)| *script).collect();
    for script in ["start_jobs", "settle", "recover", "due", "heartbeat", "reclaim", "cancel", "retry"] {
        assert!(half.contains(&script), "{script} has done all or nothing; half done: {half:?}");
    }
}
