//! The data in Redis as a value: read in one step, compared and hashed by number, and written back when the explorer
//! returns to an earlier state.
//!
//! Times are normalized: every past time is [`Store::begin`], and scheduled jobs are due long after. Scripts see only
//! such times, so a state that was written back behaves as before.

use std::collections::HashMap;
use std::rc::Rc;

use redis::Connection;

/// The data of one namespace: the number of a list of keys and contents.
pub type Snapshot = u32;

/// The due time of parked jobs, in ms after the beginning: longer than an exploration takes.
const PARKED: u64 = 3_600_000;

/// All keys with their contents, each as its type and its elements in one text, which is the fastest form to read. Sets
/// and hashes are unordered.
const READ: &str = r"
local all = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local kind, words = redis.call('TYPE', key).ok
  if kind == 'hash' then words = redis.call('HGETALL', key)
  elseif kind == 'list' then words = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'set' then words = redis.call('SMEMBERS', key)
  elseif kind == 'zset' then words = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  else words = {redis.call('GET', key)} end
  table.insert(words, 1, kind)
  all[#all + 1] = string.sub(key, #ARGV[1] + 1)
  all[#all + 1] = table.concat(words, '\31')
end
return table.concat(all, '\30')";

/// The separator between the elements of a key.
const SEPARATOR: char = '\u{1f}';
/// The separator between keys and contents.
const BETWEEN_KEYS: char = '\u{1e}';

pub struct Store {
    connection: Connection,
    read: redis::Script,
    prefix: String,
    /// Redis's time at the start in ms.
    begin: u64,
    keys: Numbers,
    contents: Numbers,
    /// The numbers of keys and contents, by key.
    snapshots: Vec<Rc<[(u32, u32)]>>,
    snapshot_numbers: HashMap<Rc<[(u32, u32)]>, Snapshot>,
    /// The present data in Redis by key; `None` if a content is not in its normalized form.
    current: Vec<(u32, Option<u32>)>,
}

/// Texts and their numbers.
#[derive(Default)]
struct Numbers {
    texts: Vec<Rc<str>>,
    numbers: HashMap<Rc<str>, u32>,
}

impl Numbers {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let (text, number) = (Rc::<str>::from(text), self.texts.len() as u32);
        self.texts.push(text.clone());
        self.numbers.insert(text, number);
        number
    }
}

impl Store {
    pub fn new(mut connection: Connection, prefix: String) -> Store {
        let (seconds, _): (u64, u64) = redis::cmd("TIME").query(&mut connection).unwrap();
        Store {
            connection,
            read: redis::Script::new(READ),
            prefix,
            begin: seconds * 1000,
            keys: Numbers::default(),
            contents: Numbers::default(),
            snapshots: Vec::new(),
            snapshot_numbers: HashMap::new(),
            current: Vec::new(),
        }
    }

    /// Runs a command on a key of the namespace outside of the explorer; [`Store::read`] sees its effect.
    pub fn run<T: redis::FromRedisValue>(&mut self, command: &str, key: &str, words: &[&str]) -> T {
        let key = format!("{}{key}", self.prefix);
        redis::cmd(command).arg(key).arg(words).query(&mut self.connection).unwrap()
    }

    /// The present data in Redis.
    pub fn read(&mut self) -> Snapshot {
        let all: String = self.read.arg(&self.prefix).invoke(&mut self.connection).unwrap();
        let mut kept = Vec::new();
        self.current.clear();
        let mut texts = all.split(BETWEEN_KEYS);
        while let (Some(key), Some(raw)) = (texts.next(), texts.next()) {
            let number = self.keys.number(key);
            let content = match self.contents.numbers.get(raw) {
                Some(content) => (*content, Some(*content)),
                None => (self.contents.number(&self.kept_form(key, raw)), None),
            };
            kept.push((number, content.0));
            self.current.push((number, content.1));
        }
        kept.sort_unstable();
        self.current.sort_unstable();
        let kept: Rc<[(u32, u32)]> = kept.into();
        *self.snapshot_numbers.entry(kept.clone()).or_insert_with(|| {
            self.snapshots.push(kept);
            self.snapshots.len() as Snapshot - 1
        })
    }

    /// Writes this data to Redis.
    pub fn put_back(&mut self, wanted: Snapshot) {
        let mut pipe = redis::pipe();
        let mut wanted = self.snapshots[wanted as usize].iter().copied().peekable();
        for (key, content) in &self.current {
            while let Some((missing, content)) = wanted.next_if(|(wanted, _)| wanted < key) {
                self.write(&mut pipe, missing, content);
            }
            match wanted.next_if(|(wanted, _)| wanted == key) {
                Some((_, wanted)) if Some(wanted) == *content => {}
                Some((_, wanted)) => {
                    self.delete(&mut pipe, *key);
                    self.write(&mut pipe, *key, wanted);
                }
                None => self.delete(&mut pipe, *key),
            }
        }
        for (missing, content) in wanted {
            self.write(&mut pipe, missing, content);
        }
        if !pipe.is_empty() {
            pipe.exec(&mut self.connection).unwrap();
        }
    }

    fn full_key(&self, key: u32) -> String {
        format!("{}{}", self.prefix, self.keys.texts[key as usize])
    }

    fn delete(&self, pipe: &mut redis::Pipeline, key: u32) {
        pipe.cmd("DEL").arg(self.full_key(key)).ignore();
    }

    fn write(&self, pipe: &mut redis::Pipeline, key: u32, content: u32) {
        let content = &self.contents.texts[content as usize];
        let mut words: Vec<&str> = content.split(SEPARATOR).collect();
        let command = match words.remove(0) {
            "hash" => "HSET",
            "list" => "RPUSH",
            "set" => "SADD",
            "zset" => "ZADD",
            _ => "SET",
        };
        if command == "ZADD" {
            words.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
        }
        pipe.cmd(command).arg(self.full_key(key)).arg(words).ignore();
    }

    /// Every key of a snapshot with its type and its elements.
    pub fn entries(&self, snapshot: Snapshot) -> impl Iterator<Item = (&str, Vec<&str>)> {
        self.snapshots[snapshot as usize].iter().map(|(key, content)| {
            let words = self.contents.texts[*content as usize].split(SEPARATOR).skip(1).collect();
            (&*self.keys.texts[*key as usize], words)
        })
    }

    /// Sorts the elements and normalizes the times, so that two paths to the same state give equal data.
    fn kept_form(&self, key: &str, raw: &str) -> String {
        let mut words: Vec<String> = raw.split(SEPARATOR).map(str::to_owned).collect();
        let pairs = match words[0].as_str() {
            "hash" | "zset" => 2,
            "set" => 1,
            // The order of the completed jobs matters only to retention.
            "list" if key == "completed" => 1,
            _ => 0,
        };
        if pairs == 2 && key.starts_with("job:") {
            // These fields only feed statistics and people: two paths to a state may differ in them.
            for left_out in ["ready_at", "progress"] {
                let at = words[1..].iter().step_by(2).position(|field| field == left_out);
                at.map(|at| words.drain(2 * at + 1..2 * at + 3));
            }
        }
        if pairs == 2 {
            words[1..].chunks_exact_mut(2).for_each(|pair| self.even_out(key, pair));
        }
        let mut elements: Vec<Vec<String>> =
            if pairs > 0 { words[1..].chunks(pairs).map(<[String]>::to_vec).collect() } else { Vec::new() };
        if pairs > 0 {
            elements.sort();
            words.truncate(1);
            words.extend(elements.drain(..).flatten());
        }
        words.join(&SEPARATOR.to_string())
    }

    /// Normalizes the times in a field or a score.
    fn even_out(&self, key: &str, pair: &mut [String]) {
        let (begin, word) = (self.begin.to_string(), pair[0].as_str());
        let pair_value = pair[1].clone();
        let parked = || {
            let is_parked = pair_value.parse::<f64>().unwrap() as u64 > self.begin + PARKED / 2;
            if is_parked { (self.begin + PARKED).to_string() } else { begin.clone() }
        };
        let even = match (key.split(':').next().unwrap(), word) {
            ("job", "started_at" | "finished_at") | ("server", "started_at" | "beat_at") => begin,
            ("done" | "dlq_queue" | "lost" | "pull_workers" | "pulled_queues", _) => begin,
            ("job", "lease_until") => (self.begin + PARKED).to_string(),
            ("servers", "pull") => return,
            ("job", "scheduled_at") | ("scheduled", _) => parked(),
            ("job", "errors") => {
                let line = |line: &str| {
                    let mut parts: Vec<&str> = line.splitn(3, ' ').collect();
                    parts[1] = &begin;
                    // The number of the start depends on the path to the state, and no rule depends on it.
                    parts[2] = &parts[2][parts[2].find('"').unwrap()..];
                    parts.join(" ")
                };
                pair_value.lines().map(line).collect::<Vec<_>>().join("\n")
            }
            // A place is kept for long, or has lapsed.
            ("slots", _) if pair_value != "inf" => {
                let is_kept = pair_value.parse::<f64>().unwrap() as u64 > self.begin;
                if is_kept { (self.begin + PARKED).to_string() } else { "1".to_owned() }
            }
            ("agenda", _) => (self.begin + PARKED).to_string(),
            ("job", "blocked") => {
                let parts: Vec<&str> = pair_value.splitn(3, ' ').collect();
                format!("{} {begin} {}", parts[0], parts[2])
            }
            // The counter of a live server is 1. Any other observed value counts as old (see `World::beat`).
            ("servers", _) => match pair_value.strip_prefix('D') {
                Some(died) => format!("D{begin}{}", &died[died.find(':').unwrap_or(died.len())..]),
                None => "1".to_owned(),
            },
            _ => return,
        };
        pair[1] = even;
    }
}
