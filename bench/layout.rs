//! The memory that a job takes in Redis under several layouts, measured by the growth of Redis's `used_memory`.

mod common;

use common::{BenchRedis, flag, flags, payload, print_setup};

const HELP: &str = "\
usage: cargo bench --bench layout -- [flags]

Prints the bytes that a job takes in Redis: its record under several layouts, its entries in lists and indexes under
several layouts, and the whole job, queued and completed, as threadq stores it. Measures with `hash-max-listpack-value` 64 (Redis's
default) and 1024 (the private Redis).

  --jobs N         jobs to store [20000]
  --payload BYTES  payload of each job [100]
  --aof WORD       Redis's append-only file: off, everysec or always [off]
";

/// Fields of every record.
const COMMON: [&str; 4] = ["status", "queued", "type", "echo"];
/// Fields that a record lacks when they have their default values.
const DEFAULTS: [&str; 6] = ["queue", "default", "max_attempts", "5", "timeout_ms", "300000"];
/// The size of the pieces into which threadq divides a text, in bytes.
const PIECE: usize = 64;

/// The command that stores one part of a job.
type Layout = fn(id: &str, payload: &str) -> Vec<String>;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn record(id: &str, fields: &[&str], payload: &str, piece: usize) -> Vec<String> {
    let mut command = words(&["HSET", &format!("job:{id}")]);
    command.extend(words(fields));
    for (number, piece) in payload.as_bytes().chunks(piece).enumerate() {
        command.push(if number == 0 { "payload".to_owned() } else { format!("payload:{number}") });
        command.push(String::from_utf8_lossy(piece).into_owned());
    }
    command
}

const LAYOUTS: [(&str, Layout); 8] = [
    ("record: a hash, the payload one value", |id, payload| {
        record(id, &[&COMMON[..], &DEFAULTS].concat(), payload, usize::MAX)
    }),
    ("record: a hash, the payload in pieces of 64", |id, payload| {
        record(id, &[&COMMON[..], &DEFAULTS].concat(), payload, PIECE)
    }),
    ("record: the same without defaults (chosen)", |id, payload| record(id, &COMMON, payload, PIECE)),
    ("record: one JSON string", |id, payload| {
        let json = format!(r#"{{"status":"queued","type":"echo","queue":"default","payload":{payload}}}"#);
        words(&["SET", &format!("job:{id}"), &json])
    }),
    ("in the queue: a list of ids (chosen)", |id, _| words(&["LPUSH", "work_queue", id])),
    ("in the queue: a stream", |id, _| words(&["XADD", "stream", "*", "id", id])),
    ("in an index: a sorted set, by id (chosen)", |id, _| words(&["ZADD", "index", id, id])),
    ("in an index: a set", |id, _| words(&["SADD", "set", id])),
];

fn main() {
    flags::check(HELP);
    let (jobs, bytes) = (flag("jobs", 20_000), flag("payload", 100));
    let mut redis = BenchRedis::start("layout");
    print_setup();
    println!("{jobs} jobs, payload {bytes} bytes; bytes per job\n{:<52}{:>8}{:>8}", "", "64", "1024");
    for (name, layout) in LAYOUTS {
        let [own, large] = ["64", "1024"].map(|limit| {
            measure(&mut redis, limit, jobs, |redis, id| {
                let command = layout(&id.to_string(), &payload(bytes));
                redis.ask::<redis::Value>(&command.iter().map(String::as_str).collect::<Vec<_>>());
            })
        });
        println!("{name:<52}{own:>8.0}{large:>8.0}");
    }
    let [own, large] = ["64", "1024"].map(|limit| {
        let bare = common::Bare::new(&redis.url());
        measure(&mut redis, limit, 1, |_, _| bare.fill(jobs, bytes, &["default".to_owned()])) / jobs as f64
    });
    println!("{:<52}{own:>8.0}{large:>8.0}", "the whole queued job, as threadq stores it");
    let [own, large] = ["64", "1024"].map(|limit| {
        let bare = common::Bare::new(&redis.url());
        measure(&mut redis, limit, 1, |_, _| {
            bare.fill(jobs, bytes, &["default".to_owned()]);
            bare.drain(1, 30);
        }) / jobs as f64
    });
    println!("{:<52}{own:>8.0}{large:>8.0}", "the whole completed job, with the payload as its result");
}

/// The growth of Redis's memory per step, over `steps` steps, in bytes.
fn measure(redis: &mut BenchRedis, limit: &str, steps: usize, step: impl Fn(&mut BenchRedis, usize)) -> f64 {
    redis.empty();
    redis.ask::<()>(&["CONFIG", "SET", "hash-max-listpack-value", limit]);
    let before = redis.info("used_memory");
    for number in 0..steps {
        step(redis, 1_764_000_000_000_000 + number);
    }
    (redis.info("used_memory") - before) / steps as f64
}
