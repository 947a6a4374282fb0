//! How long the scripts block Redis, by its SLOWLOG.

use std::collections::HashMap;

use threadq::internals::queue::{SCRIPT_NAMES, script_text};

use super::BenchRedis;

/// Reads the SLOWLOG of a Redis. On a busy machine its times include those in which Redis does not get the processor; a
/// median shows a step without them.
pub struct SlowLog {
    /// The name of each script by the name that Redis has for it.
    names: HashMap<String, &'static str>,
}

impl SlowLog {
    /// Makes Redis log each command that takes longer than 1 ms.
    pub fn start(redis: &mut BenchRedis) -> SlowLog {
        redis.ask::<()>(&["CONFIG", "SET", "slowlog-log-slower-than", "1000"]);
        redis.ask::<()>(&["CONFIG", "SET", "slowlog-max-len", "100000"]);
        SlowLog { names: names_of_scripts() }
    }

    /// Forgets what is in the log.
    pub fn reset(&self, redis: &mut BenchRedis) {
        redis.ask::<()>(&["SLOWLOG", "RESET"]);
    }

    /// The slowest run of each script since the last reset, and the number of runs over 10 ms.
    pub fn report(&self, redis: &mut BenchRedis) -> String {
        let entries: Vec<(i64, i64, i64, Vec<String>)> = redis
            .ask::<Vec<Vec<redis::Value>>>(&["SLOWLOG", "GET", "-1"])
            .into_iter()
            .filter_map(|entry| redis::from_redis_value(redis::Value::Array(entry[..4].to_vec())).ok())
            .collect();
        let (mut times, mut over): (HashMap<&str, Vec<i64>>, usize) = (HashMap::new(), 0);
        for (_, _, micros, words) in &entries {
            // The log also has the commands that scripts call.
            let Some(name) = words.get(1).and_then(|hash| self.names.get(hash).copied()) else { continue };
            times.entry(name).or_default().push(*micros);
            over += usize::from(*micros > 10_000);
        }
        let mut slowest: Vec<(&str, i64, i64)> = times
            .into_iter()
            .map(|(name, mut micros)| {
                micros.sort_unstable();
                (name, micros[micros.len() - 1], micros[micros.len() / 2])
            })
            .collect();
        slowest.sort_by_key(|(_, most, _)| -most);
        let ms = |micros: i64| micros as f64 / 1000.0;
        let shown = slowest
            .iter()
            .take(4)
            .map(|(name, most, median)| format!("{name} {:.1} ms (median {:.1} ms)", ms(*most), ms(*median)));
        format!(
            "scripts over 10 ms: {over}; slowest of those over 1 ms: {}",
            shown.collect::<Vec<_>>().join(", ")
        )
    }
}

fn names_of_scripts() -> HashMap<String, &'static str> {
    let hash = |name| {
        let text = script_text(name, "threadq", |_, text| text);
        redis::Script::new(&text).get_hash().to_owned()
    };
    SCRIPT_NAMES.iter().map(|name| (hash(name), *name)).collect()
}
