//! The guards in the Lua scripts, each with what it is to be replaced by: without any one of them some test must fail.
//!
//! A test run whose environment names a guard in `THREADQ_WITHOUT_GUARD` runs without it: `wire.rs` changes the script
//! on its way to Redis. `every_guard_is_needed` runs all tests once for each guard and prints what noticed;
//! `THREADQ_GUARDS` names a part of the table (`take:`).

use std::process::Command;

use crate::place::Place;

/// One condition of one script.
struct Guard {
    name: &'static str,
    script: &'static str,
    /// Stands there exactly once.
    text: &'static str,
    without: &'static str,
}

macro_rules! scripts {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../src/queue/lua/", $name, ".lua")))),*]
    };
}

const SCRIPTS: &[(&str, &str)] = scripts![
    "common",
    "enqueue",
    "take",
    "settle",
    "recover",
    "promote",
    "register",
    "beat",
    "reclaim",
    "cancel",
    "retry",
    "delete",
    "purge",
    "prune",
    "pause",
    "ready",
    "get",
    "statuses",
    "list",
    "dead_ids",
    "queues",
    "stats",
    // Those of the doctor, which have tests of their own (tests/doctor.rs).
    "audit_jobs",
    "audit_list",
    "audit_record",
    "audit_servers",
    "audit_set",
    "judge",
    "mend",
];

macro_rules! guards {
    ($($script:literal: $name:literal, $text:literal => $without:literal;)*) => {
        &[$(Guard { script: $script, name: $name, text: $text, without: $without }),*]
    };
}

const GUARDS: &[Guard] = guards! {
    // Shared.
    "common": "a dead server is not registered", "return beat and string.sub(beat, 1, 1) ~= 'D'" => "return beat";
    "common": "an unknown server is not registered",
        "return beat and string.sub(beat, 1, 1) ~= 'D'" => "return not beat or string.sub(beat, 1, 1) ~= 'D'";
    "common": "an unknown server is watched from then on",
        "if not beat then call('HSET', SERVERS, server, string.format('D%.0f', now_ms())) end" => "";
    "common": "a key that is no hash is no job",
        "local fields = redis.pcall('HMGET', JOB .. id, ...)" => "local fields = redis.call('HMGET', JOB .. id, ...)";
    "common": "suspects wait apart",
        "if (tonumber(crashes) or 0) > 0 then return WORK .. queue .. SUSPECTS end" => "";
    "common": "errors are bounded",
        "for _ = 10, breaks do errors = string.sub(errors, string.find(errors, '\\n', 1, true) + 1) end" => "";
    "common": "a key is released by its holder only",
        "if key and call('GET', UNIQUE .. key) == id then" => "if key then";
    "common": "a key is released at the end",
        "if key and call('GET', UNIQUE .. key) == id then" => "if false then";
    "common": "a job moves from one index to the other", "    index_remove(id, kind, from)" => "";
    "common": "failed jobs and ended ones are kept apart", "to == 'failed' and DLQ or DONE, now, id)" => "DONE, now, id)";
    // Submission.
    "enqueue": "a repeated request is replayed", "  if kept then" => "  if false then";
    "enqueue": "a key is for one request", "if print ~= fingerprint then return {'mismatch'} end" => "";
    "enqueue": "ids grow where the clock goes back",
        "math.max(time[1] * 1000000 + time[2], (tonumber(call('GET', LAST_ID) or 0)) + 1)"
        => "time[1] * 1000000 + time[2]";
    "enqueue": "a live holder keeps its key",
        "if status and not is_final(status) then return {'duplicate', holder} end" => "";
    "enqueue": "a holder that is gone holds nothing",
        "if status and not is_final(status) then" => "if not is_final(status) then";
    "enqueue": "a holder that has ended holds nothing",
        "if status and not is_final(status) then" => "if status then";
    "enqueue": "a queue has a limit", "if waiting + number > max_length then return {'full', queue} end" => "";
    "enqueue": "suspects count against the limit", " + call('LLEN', WORK .. queue .. SUSPECTS)" => "";
    "enqueue": "only ready jobs count against the limit",
        "  if not due[i] or due[i] <= now then" => "  ready[queue] = (ready[queue] or 0) + 1\n  if not due[i] or due[i] <= now then";
    "enqueue": "a time that has passed means at once", "if not due[i] or due[i] <= now then" => "if not due[i] then";
    // Taking.
    "take": "a fenced server takes nothing", "if not is_registered(server) then return {'fenced'} end" => "";
    "take": "only what stands in the own list is started",
        "if fetched ~= '' and call('LPOS', list, fetched) then" => "if fetched ~= '' then";
    "take": "only a queued job is started", "  if status ~= 'queued' then" => "  if not status then";
    "take": "what is not started leaves the list", "    call('LREM', list, 1, id)\n    if not status" => "    if not status";
    "take": "an id without a job is noted", "if not status then note_lost(id, now) end" => "";
    "take": "only an id without a job is noted", "if not status then note_lost(id, now) end" => "note_lost(id, now)";
    "take": "a key that is no hash does not stop a take",
        "redis.pcall('HGETALL', JOB .. id)" => "redis.call('HGETALL', JOB .. id)";
    "take": "an entry that is no id is not started", "if not fields.err and is_id(id) then" => "if not fields.err then";
    "take": "every start has a token of its own", "'starts', (is_id(starts or '') and starts or 0) + 1" => "'starts', 1";
    "take": "what was fetched needs a free worker", "if left > 0 and not is_paused[fetched_from] then" => "if not is_paused[fetched_from] then";
    "take": "what was fetched of a paused queue waits", "if left > 0 and not is_paused[fetched_from] then" => "if left > 0 then";
    "take": "what was fetched uses up a worker", "if start(fetched) then left = left - 1 end" => "start(fetched)";
    "take": "what is put back leaves the list", "    call('LREM', list, 1, fetched)" => "";
    "take": "no suspect beside a suspect", "if suspects ~= 'none' and left > 0 then" => "if left > 0 then";
    "take": "no suspect without a free worker",
        "if suspects ~= 'none' and left > 0 then" => "if suspects ~= 'none' then";
    "take": "suspects of a paused queue wait", "local id = not is_paused[ARGV[i]] and call" => "local id = call";
    "take": "the last chance is known",
        "(tonumber(read(id, 'crashes')[1]) or 0) + 1 >= max_crashes" => "false";
    "take": "the last chance waits for an empty server", "(suspects ~= 'alone' or #taken > 4)" => "#taken > 4";
    "take": "one server empties itself for the last chance",
        "if chosen and chosen ~= server and is_registered(chosen) then return false end" => "";
    "take": "the chosen server stays chosen", "chosen ~= server and is_registered(chosen)" => "is_registered(chosen)";
    "take": "a dead server makes no room", "chosen ~= server and is_registered(chosen)" => "chosen ~= server";
    "take": "who has started its suspect is not chosen any more",
        "if call('GET', LAST_CHANCE .. ARGV[i]) == server then call('DEL', LAST_CHANCE .. ARGV[i]) end" => "";
    "take": "the last chance is not beside what was fetched", "(suspects ~= 'alone' or #taken > 4)" => "suspects ~= 'alone'";
    "take": "nothing starts beside the last chance", "if alone then return taken end" => "";
    "take": "nothing more starts while the last chance waits", "if taken[3] == 1 then return taken end" => "";
    "take": "one suspect at a time", "          left = left - 1\n          break" => "          left = left - 1";
    "take": "a suspect uses up a worker", "          left = left - 1\n          break" => "          break";
    "take": "large jobs are not taken all at once", "    if bytes >= MAX_BYTES then" => "    if false then";
    "take": "what is too much goes back in its order", "for back = #ids, i, -1 do" => "for back = i, #ids do";
    "take": "nothing starts in a paused queue",
        "if number <= 0 or is_paused[queue] then return end" => "if number <= 0 then return end";
    "take": "a share is not exceeded", "math.min(left, tonumber(ARGV[i + 1]))" => "left";
    "take": "what is left is filled up", "for i = 6, #ARGV, 2 do take(ARGV[i], left) end" => "";
    // Settling.
    "settle": "the server must be the owner", "if job[2] ~= server or job[3] ~= token then" => "if job[3] ~= token then";
    "settle": "the token must be the attempt's", "if job[2] ~= server or job[3] ~= token then" => "if job[2] ~= server then";
    "settle": "what is settled is not settled again", "elseif status ~= 'processing' then" => "elseif false then";
    "settle": "a release charges nothing", "if what ~= 'release' then attempts = attempts + 1 end" => "attempts = attempts + 1";
    "settle": "who asked for a stop gets it", "elseif cancelled then" => "elseif false then";
    "settle": "what completed is completed, cancel or not",
        "if what == 'complete' then\n      to" => "if what == 'complete' and not cancelled then\n      to";
    "settle": "attempts are bounded", "what == 'fail' or attempts >= (tonumber(job[7]) or 0)" => "what == 'fail'";
    "settle": "what is settled leaves the list", "if to ~= 'processing' then call('LREM', list, 1, id) end" => "";
    "settle": "what starts again stays in the list", "if to ~= 'processing' then call('LREM', list, 1, id) end" => "call('LREM', list, 1, id)";
    "settle": "what starts again has a new token", "'starts', token + 1" => "'starts', token";
    "settle": "a settled stop is forgotten", "if cancelled and to ~= 'processing' then" => "if false then";
    "settle": "a released job is nobody's", "      call('HDEL', JOB .. id, 'server')" => "";
    // Recovery.
    "recover": "a fenced server recovers nothing", "if not is_registered(server) then return 0 end" => "";
    "recover": "only what stands in the list", "if call('LREM', list, 1, id) == 1 then" => "if call('LREM', list, 1, id) >= 0 then";
    "recover": "only what this server ran",
        "local running = job[1] == 'processing' and job[2] == server" => "local running = job[1] == 'processing'";
    "recover": "only what lives", "elseif running or job[1] == 'queued' then" => "elseif job[1] then";
    "recover": "a stop that was asked for is carried out", "if running and job[5] then" => "if false then";
    "recover": "an id without a job is noted", "elseif not job[1] then" => "elseif false then";
    "recover": "what goes back is queued", "call('HSET', JOB .. id, 'status', 'queued')" => "";
    "recover": "what goes back is nobody's", "      call('HDEL', JOB .. id, 'server')" => "";
    // Heartbeat.
    "beat": "a fenced server cannot beat", "if not is_registered(server) then return {'fenced'} end" => "";
    "beat": "a beat counts", "call('HINCRBY', SERVERS, server, 1)" => "";
    "beat": "an empty dead server is not shown",
        "if not died or call('LLEN', IN_PROGRESS .. id) > 0 then" => "if true then";
    "beat": "a dead server with jobs is shown",
        "if not died or call('LLEN', IN_PROGRESS .. id) > 0 then" => "if not died then";
    "beat": "a dead server is remembered for a while",
        "elseif now - tonumber(died) > tonumber(ARGV[4]) then" => "else";
    // Taking over.
    "reclaim": "a server that beat is alive", "(mode == 'crash' and beat ~= ARGV[2])" => "false";
    "reclaim": "an unknown server has nothing", "if not beat or (mode" => "beat = beat or ARGV[2]\nif (mode";
    "reclaim": "the server is fenced", "  call('HSET', SERVERS, server, beat)" => "";
    "reclaim": "only what the server ran itself",
        "return job[1] == 'processing' and job[2] == server end" => "return job[1] == 'processing' end";
    "reclaim": "only a suspect that ran is blamed",
        "if is_running(job) and (tonumber(job[3]) or 0) > 0 then" => "if (tonumber(job[3]) or 0) > 0 then";
    "reclaim": "only a suspect is blamed alone",
        "if is_running(job) and (tonumber(job[3]) or 0) > 0 then" => "if is_running(job) then";
    "reclaim": "a suspect is blamed alone", "(not suspect or suspect == id)" => "true";
    "reclaim": "who is to blame is decided once", "if string.sub(beat, 1, 1) ~= 'D' then" => "if true then";
    "reclaim": "leaving charges nobody", "elseif running and mode == 'crash' and" => "elseif running and";
    "reclaim": "an entry that stands twice is handled once", "  handled[id] = true" => "";
    "reclaim": "a stop that was asked for is carried out", "elseif running and job[6] then" => "elseif false then";
    "reclaim": "only what lives goes back", "elseif running or job[1] == 'queued' then" => "elseif job[1] then";
    "reclaim": "what goes back is queued",
        "    call('HSET', JOB .. id, 'status', 'queued')\n    call('HDEL'" => "    call('HDEL'";
    "reclaim": "what goes back is nobody's",
        "    call('HDEL', JOB .. id, 'server')\n    call('RPUSH'" => "    call('RPUSH'";
    "reclaim": "an id without a job is noted", "elseif not job[1] then" => "elseif false then";
    "reclaim": "crashes are bounded", "if crashes >= tonumber(ARGV[3]) then" => "if false then";
    "reclaim": "a crash is counted", "call('HSET', JOB .. id, 'crashes', crashes)" => "";
    "reclaim": "what is charged is nobody's", "  call('HDEL', JOB .. id, 'server')\n  if" => "  if";
    "reclaim": "what was handled leaves the list", "call('LTRIM', list, #ids, -1)" => "call('DEL', list)";
    "reclaim": "the oldest goes to the front", "call('RPUSH', fill_list(job[4], job[5]), id)" => "call('LPUSH', fill_list(job[4], job[5]), id)";
    "reclaim": "the charged go behind the other suspects", "call('LPUSH', fill_list(queue, crashes), id)" => "call('RPUSH', fill_list(queue, crashes), id)";
    "reclaim": "the set of stops goes with the last job", "if left == 0 then call('DEL', CANCELS .. server) end" => "";
    // The scheduler.
    "promote": "only what is due", "'-inf', now, 'LIMIT'" => "'-inf', '+inf', 'LIMIT'";
    "promote": "only what waits for its time", "if job[1] == 'scheduled' or job[1] == 'retrying' then" => "if job[1] then";
    "promote": "what was looked at leaves the set", "call('ZREM', SCHEDULED, id)" => "";
    "promote": "what is promoted is queued", "call('HSET', JOB .. id, 'status', 'queued')" => "";
    "promote": "an id without a job is noted", "elseif not job[1] then" => "elseif false then";
    // What a person does.
    "cancel": "an unknown job is not made", "if not status then return {'missing'} end" => "";
    "cancel": "what has ended stays", "if is_final(status) then return {'final'} end" => "";
    "cancel": "a running job is only asked", "if status == 'processing' then" => "if false then";
    "cancel": "its server is told", "call('SADD', CANCELS .. job[2], id)" => "";
    "cancel": "a queued job leaves its queue", "call('LREM', ready_list(job[4], job[5]), -1, id)" => "";
    "cancel": "a suspect leaves the suspects", "call('LREM', ready_list(job[4], job[5]), -1, id)" => "call('LREM', WORK .. job[4], -1, id)";
    "cancel": "a parked job is parked no more", "call('ZREM', SCHEDULED, id)" => "";
    "retry": "an unknown job is not made", "if not status then" => "if false then";
    "retry": "only failed and cancelled jobs", "(status ~= 'failed' and status ~= 'cancelled') or" => "";
    "retry": "only those of the wanted status", " or (wanted ~= '' and status ~= wanted)" => "";
    "retry": "a live holder keeps its key", "elseif held and not is_final(held) then" => "elseif false then";
    "retry": "a holder that has ended holds nothing", "elseif held and not is_final(held) then" => "elseif held then";
    "retry": "its key is taken back", "if unique_key then call('SET', UNIQUE .. unique_key, id) end" => "";
    "retry": "a new life has no crashes", "'attempts', 0, 'crashes', 0)" => "'attempts', 0)";
    "retry": "a new life has its attempts", "'attempts', 0, 'crashes', 0)" => "'crashes', 0)";
    "retry": "it leaves the dead letters", "call('ZREM', status == 'failed' and DLQ or DONE, id)" => "";
    "delete": "only what has ended", "not is_final(status) or" => "";
    "delete": "only those of the wanted status", " or (wanted ~= '' and status ~= wanted)" => "";
    "delete": "it leaves the index", "index_remove(id, job[2], status)" => "";
    "delete": "it leaves the sorted set", "call('ZREM', status == 'failed' and DLQ or DONE, id)" => "";
    "prune": "a queue that holds jobs keeps its name",
        "if call('EXISTS', WORK .. queue, WORK .. queue .. SUSPECTS) == 0 then" => "if true then";
    "purge": "only what has ended", "if job[1] and is_final(job[1]) then" => "if job[1] then";
    "purge": "by count", "over > 0 and call('ZRANGE', key, 0, over - 1) or {}" => "{}";
    "purge": "not below the count", "call('ZCARD', key) - keep" => "call('ZCARD', key)";
    "purge": "by age", "if #ids == 0 then ids =" => "if false then ids =";
    "purge": "not before the age", "now_ms() - keep_ms" => "now_ms()";
    "purge": "it leaves the index", "    index_remove(id, job[2], job[1])" => "";
    // Reading.
    "list": "a key that is no hash does not stop a listing",
        "redis.pcall('HGETALL', JOB .. id)" => "redis.call('HGETALL', JOB .. id)";
    "list": "an entry that stands twice runs once", "if not seen[id] and" => "if";
    "list": "running jobs before the page are skipped", "if rank and rank <= from then from = from + 1 end" => "";
    "list": "running jobs are not queued", "if not is_running[id] and #page < limit" => "if #page < limit";
    "list": "a page of all begins at its offset", "if above > offset then low" => "if above > 0 then low";
    "list": "the type is filtered for", "(kind ~= '' and ':' .. kind or '')" => "''";
    "stats": "an entry that stands twice runs once", "if not seen[id] and" => "if";
    "stats": "a dead server is not shown", "if string.sub(beat, 1, 1) ~= 'D' then" => "if true then";
    "get": "a key that is no hash is no job", "redis.pcall('HGETALL'" => "redis.call('HGETALL'";
};

/// A script as the queue loads it: which it is, and as it is to be run.
pub fn on_the_wire(loaded: &str) -> (&'static str, String) {
    let longest =
        SCRIPTS.iter().filter(|(_, text)| loaded.ends_with(text)).max_by_key(|(_, text)| text.len());
    let (script, _) = longest.expect("a script of the queue: the tests were built with it");
    let removed = std::env::var("THREADQ_WITHOUT_GUARD").unwrap_or_default();
    match GUARDS.iter().find(|guard| guard.full_name() == removed) {
        Some(guard) if guard.script == *script || guard.script == "common" => {
            (script, loaded.replacen(guard.text, guard.without, 1))
        }
        _ => (script, loaded.to_owned()),
    }
}

impl Guard {
    fn full_name(&self) -> String {
        format!("{}: {}", self.script, self.name)
    }

    fn source(&self) -> &'static str {
        SCRIPTS.iter().find(|(name, _)| *name == self.script).unwrap_or_else(|| panic!("{}", self.script)).1
    }
}

#[test]
fn every_guard_of_the_table_stands_in_its_script_once_and_leaves_lua_behind() {
    let place = Place::new();
    for guard in GUARDS {
        let found = guard.source().matches(guard.text).count();
        assert_eq!(found, 1, "{}: {:?}", guard.full_name(), guard.text);
        let without = guard.source().replacen(guard.text, guard.without, 1);
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(format!("#!lua\n{without}"));
        let _: String = place.run(&load);
    }
    let mut names: Vec<String> = GUARDS.iter().map(Guard::full_name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), GUARDS.len(), "a name is given twice");
}

/// All tests of this program without one guard: those that fail. The random test is left out, which would find many of
/// them; each guard has a test that says what it is for.
fn failures_without(guard: &str) -> Vec<String> {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--skip", "random", "--skip", "every_guard"])
        .env("THREADQ_WITHOUT_GUARD", guard)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&run.stdout);
    assert!(output.contains("test result: "), "without {guard:?} the tests do not run: {output}");
    let failed = output.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    let mut failed: Vec<String> = failed.map(str::to_owned).collect();
    failed.sort();
    failed
}

#[test]
fn the_table_knows_every_script() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/queue/lua");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<String> =
        files.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    let mut known: Vec<String> = SCRIPTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    files.sort();
    known.sort();
    assert_eq!(files, known);
}

#[test]
#[ignore = "runs all tests once for each guard: about ten minutes"]
fn every_guard_is_needed() {
    assert_eq!(failures_without("none of them"), [""; 0]);
    let only = std::env::var("THREADQ_GUARDS").unwrap_or_default();
    let mut unnoticed = Vec::new();
    for guard in GUARDS.iter().filter(|guard| guard.full_name().contains(&only)) {
        let name = guard.full_name();
        let failed = failures_without(&name);
        let first = failed.first().map_or("NOT NOTICED", String::as_str);
        println!("{:>3} failed  {name:<70} {first}", failed.len());
        if failed.is_empty() {
            unnoticed.push(name);
        }
    }
    assert!(unnoticed.is_empty(), "without these guards every test passes: {unnoticed:#?}");
}
