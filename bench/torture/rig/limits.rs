//! The limits of a run, and a look at them again and again: how many jobs run under each limit at the same moment, by what
//! Redis has.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};

use super::audit::Fields;
use super::own_redis::Eye;
use super::report::Report;

/// Part of the configuration file of the servers.
pub const CONFIG: &str = r#"
[limits.narrow]
concurrency = 3
[limits.tenant]
concurrency = 1
[limits.paced]
rate = "40/s"
burst = 10
"#;
/// How many jobs may run under each limit.
const ROOM: [(&str, usize); 4] = [("narrow", 3), ("tenant:0", 1), ("tenant:1", 1), ("tenant:2", 1)];
/// How many jobs may start within a second.
const MOST_IN_A_SECOND: usize = 40 + 10;

/// The jobs that run under each limit: name and number by turns.
const LOOK: &str = r"
local running, answer = {}, {}
for _, server in ipairs(redis.call('HKEYS', '{threadq}:servers')) do
  for _, id in ipairs(redis.call('LRANGE', '{threadq}:in_progress_queue:' .. server, 0, -1)) do
    local job = redis.call('HMGET', '{threadq}:job:' .. id, 'status', 'server', 'limits')
    if job[1] == 'processing' and job[2] == server then
      for limit in string.gmatch(job[3] or '', '[^\n]+') do running[limit] = (running[limit] or 0) + 1 end
    end
  end
end
for limit, number in pairs(running) do
  answer[#answer + 1] = limit
  answer[#answer + 1] = number
end
return answer";

/// The limits of a job, mostly none.
pub fn choose(random: &mut Rng) -> Option<Value> {
    let tenant = format!("tenant:{}", random.u32(0..3));
    match random.u32(0..100) {
        0..5 => Some(json!(["narrow"])),
        5..10 => Some(json!([tenant])),
        10..13 => Some(json!([tenant, "narrow"])),
        13..16 => Some(json!(["paced"])),
        16..18 => Some(json!(["paced", tenant])),
        _ => None,
    }
}

/// What was seen of the limits.
#[derive(Default)]
pub struct Watch {
    is_over: AtomicBool,
    /// The most jobs that ran under each limit at the same moment.
    most: Mutex<BTreeMap<String, usize>>,
}

impl Watch {
    /// Looks until [`Watch::end`].
    pub fn look(&self, mut eye: Eye) {
        while !self.is_over.load(Ordering::Relaxed) {
            // Redis may be down.
            let found: Vec<(String, usize)> =
                eye.query(redis::cmd("EVAL").arg(LOOK).arg(0)).unwrap_or_default();
            for (limit, number) in found {
                let mut all = self.most.lock().expect("no thread panics while it holds the lock");
                let most = all.entry(limit).or_default();
                *most = number.max(*most);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// No limit was exceeded.
pub fn judge<'a>(watch: &Watch, jobs: impl Iterator<Item = &'a Fields>, report: &mut Report) {
    let seen = watch.most.lock().expect("no thread panics while it holds the lock");
    for (limit, room) in ROOM {
        let most = seen.get(limit).copied().unwrap_or(0);
        if most > room {
            report.wrong(format!("{most} jobs ran under {limit}, which has room for {room}"));
        }
    }
    // Of each job under the rate the time of its last start.
    let is_paced = |job: &&Fields| job.get("limits").is_some_and(|limits| limits.contains("paced"));
    let started_at = |job: &Fields| job.get("started_at")?.parse().ok();
    let mut paced: Vec<u64> = jobs.filter(is_paced).filter_map(started_at).collect();
    paced.sort_unstable();
    for (n, first) in paced.iter().enumerate() {
        let number = paced[n..].iter().take_while(|time| **time < first + 1_000).count();
        if number > MOST_IN_A_SECOND {
            report.wrong(format!("{number} jobs started within a second under a rate of {MOST_IN_A_SECOND}"));
            break;
        }
    }
    let seen: Vec<String> = seen.iter().map(|(limit, most)| format!("{limit} {most}")).collect();
    report.notes.push(format!("the most jobs at a time under limits: {}", seen.join(", ")));
}
