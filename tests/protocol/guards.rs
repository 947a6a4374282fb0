//! The guards in the Lua scripts, each with what it is to be replaced by: without any one of them some test must fail.
//! A condition that is no guard is named with the reason, so that a new one cannot be forgotten.
//!
//! A test run whose environment names a guard in `THREADQ_WITHOUT_GUARD` runs without it: `lua_proxy.rs` changes the script
//! on its way to Redis. `every_guard_is_needed` runs all tests once for each guard and prints what noticed;
//! `THREADQ_GUARDS` names a part of the table (`take:`).

use std::process::Command;

use crate::fixture::Place;

/// Another text in a script.
#[derive(Clone, Copy)]
pub struct Change {
    script: &'static str,
    /// Stands there exactly once.
    text: &'static str,
    replacement: &'static str,
}

impl Change {
    /// Panics where the script has no such text.
    pub fn new(script: &'static str, text: &'static str, replacement: &'static str) -> Change {
        let change = Change { script, text, replacement };
        assert_eq!(change.source().matches(text).count(), 1, "{script}: {text:?}");
        change
    }

    fn source(&self) -> &'static str {
        SCRIPTS.iter().find(|(name, _)| *name == self.script).unwrap_or_else(|| panic!("{}", self.script)).1
    }

    /// Makes it in a script as it is loaded: its own may stand in front of others, as common.lua and audit_common.lua do.
    pub fn apply(&self, loaded: &str) -> String {
        let title = self.source().lines().next().unwrap_or_default();
        let (before, script) = loaded.split_at(loaded.find(title).unwrap_or(loaded.len()));
        before.to_owned() + &script.replacen(self.text, self.replacement, 1)
    }
}

/// One condition of one script.
pub struct Guard {
    name: &'static str,
    removal: Change,
}

macro_rules! scripts {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../src/queue/lua/", $name, ".lua")))),*]
    };
}

const SCRIPTS: &[(&str, &str)] = scripts![
    "common",
    "permit",
    "enqueue",
    "start_jobs",
    "settle",
    "recover",
    "promote",
    "register",
    "heartbeat",
    "reclaim",
    "cancel",
    "retry",
    "delete",
    "expire_jobs",
    "prune_queues",
    "pause",
    "ready",
    "get",
    "statuses",
    "list",
    "dead_ids",
    "queues",
    "stats",
    "history",
    "add_history",
    "workers",
    "report_activity",
    // Those of the doctor.
    "audit_jobs",
    "audit_list",
    "audit_record",
    "audit_servers",
    "audit_set",
    "audit_common",
    "repair",
];

macro_rules! guards {
    ($($script:literal: $name:literal, $text:literal => $without:literal;)*) => {
        &[$(Guard { name: $name, removal: Change { script: $script, text: $text, replacement: $without } }),*]
    };
}

const GUARDS: &[Guard] = guards! {
    // Shared.
    "common": "a dead server is not registered", "return beat and string.sub(beat, 1, 1) ~= 'D'" => "return beat";
    "common": "an unknown server is not registered",
        "return beat and string.sub(beat, 1, 1) ~= 'D'" => "return not beat or string.sub(beat, 1, 1) ~= 'D'";
    "common": "an unknown server is watched from then on",
        "if not beat then call('HSET', SERVERS, server, 'D' .. digits(now_ms())) end" => "";
    "common": "a key that is no hash is no job",
        "local fields = try_call('HMGET', JOB .. id, ...)" => "local fields = call('HMGET', JOB .. id, ...)";
    "common": "a job that becomes ready brings its queue's name back", "  call('SADD', QUEUES, queue)\n  return" => "  return";
    "common": "a job without a crash is on no last chance",
        "return crashes > 0 and crashes + 1 >= max_crashes" => "return crashes + 1 >= max_crashes";
    "common": "a job with crashes to spare is on no last chance",
        "return crashes > 0 and crashes + 1 >= max_crashes" => "return crashes > 0";
    "common": "errors are bounded",
        "for _ = 10, breaks do errors = string.sub(errors, string.find(errors, '\\n', 1, true) + 1) end" => "";
    "common": "a key is released by its holder only",
        "if key and call('GET', UNIQUE .. key) == id then" => "if key then";
    "common": "a key is released at the end",
        "if key and call('GET', UNIQUE .. key) == id then" => "if false then";
    "common": "a job without a type is listed all the same",
        "if job_type then call('ZADD', key .. ':' .. job_type, unpack(scored)) end"
        => "call('ZADD', key .. ':' .. job_type, unpack(scored))";
    "common": "a job without a type leaves its list all the same",
        "if job_type then call('ZREM', key .. ':' .. job_type, unpack(ids)) end" => "call('ZREM', key .. ':' .. job_type, unpack(ids))";
    "common": "a job moves from one index to the other", "    index_remove(ids, job_type, from)" => "";
    "common": "failed jobs and ended ones are kept apart", "to == 'failed' and DLQ or DONE, at, id)" => "DONE, at, id)";
    "common": "ready and running jobs share an index",
        "if status == 'queued' or status == 'processing' then return READY end" => "";
    "common": "only what was left is forgotten", "if number < 1 then return false end" => "";
    "common": "an entry may be left twice", "if number == 1 then call('HDEL', key, id) else" => "if true then call('HDEL', key, id) else";
    "common": "the last one goes with its count", "if call('HINCRBY', key, 'all', -1) < 1 then call('DEL', key) end" => "call('HINCRBY', key, 'all', -1)";
    "common": "the gap that a repair has left is no lost job", "if id == '0' then return end" => "";
    "permit": "a right to a key is told from one to a command", "if may(command, SERVERS, SERVERS, SERVERS) then" => "if false then";
    "permit": "a command that is refused is told from a key", "if may(command, SERVERS, SERVERS, SERVERS) then" => "if true then";
    "ready": "a lack is noticed", "if not is_known or not is_allowed then" => "if false then";
    "ready": "a command that is refused is no key that is refused",
        "is_for_key and '' or ARGV[i]" => "''";
    "ready": "a key that is refused is no command that is refused",
        "is_for_key and '' or ARGV[i]" => "ARGV[i]";
    // Submission.
    "enqueue": "a repeated request is replayed", "    if answer then" => "    if false then";
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
    "enqueue": "a queue has a limit", "if over > 0 and over > math.min(count_tombstones(queue), max_length) then return {'full', queue} end" => "";
    "enqueue": "entries without a job take no room", "math.min(count_tombstones(queue), max_length)" => "0";
    "enqueue": "a list with many entries without a job is bounded", "math.min(count_tombstones(queue), max_length)" => "count_tombstones(queue)";
    "enqueue": "suspects count against the limit", " + call('LLEN', WORK .. queue .. SUSPECTS)" => "";
    "enqueue": "only ready jobs count against the limit",
        "    if not due[i] or due[i] <= now then" => "    ready[queue] = (ready[queue] or 0) + 1\n    if not due[i] or due[i] <= now then";
    "enqueue": "a time that has passed means at once", "if not due[i] or due[i] <= now then" => "if not due[i] then";
    "enqueue": "a key that nobody holds is free", "      if holder then" => "      if true then";
    "enqueue": "a job without a unique key holds none",
        "if unique ~= '' then\n      call('HSET'" => "if true then\n      call('HSET'";
    "enqueue": "a job that has a time is parked", "  if due[i] then\n      call('HSET'" => "  if false then\n      call('HSET'";
    "enqueue": "the earliest time is told", "if earliest < 0 or due[i] - now < earliest then" => "if true then";
    "enqueue": "a repeated request is known beside the first one", "local answer = kept[key] or call(" => "local answer = call(";
    "enqueue": "what is taken in the same step counts against the limit",
        "for queue, number in pairs(ready) do lengths[queue] = lengths[queue] + number end" => "";
    // Taking.
    "start_jobs": "a fenced server takes nothing", "if not is_registered(server) then return {'fenced'} end" => "";
    "start_jobs": "only what stands in the own list is started",
        "if claimed ~= '' and call('LPOS', list, claimed) then" => "if claimed ~= '' then";
    "start_jobs": "only a queued job is started", "  if status ~= 'queued' then" => "  if not status then";
    "start_jobs": "what is not started leaves the list",
        "  call('LREM', list, 1, id)\n  if not drop_tombstone" => "  if not drop_tombstone";
    "start_jobs": "what runs here keeps its entry",
        "if runs_here and #call('LPOS', list, id, 'COUNT', 2) < 2 then return end" => "";
    "start_jobs": "what runs here has one entry",
        "if runs_here and #call('LPOS', list, id, 'COUNT', 2) < 2 then" => "if runs_here then";
    "start_jobs": "what runs elsewhere is no entry of this list",
        "status == 'processing' and owner == server" => "status == 'processing'";
    "start_jobs": "an entry that was left is counted no more", "if not drop_tombstone(queue, id) and not status then" => "if not status then";
    "start_jobs": "an entry that was left is no lost job",
        "if not drop_tombstone(queue, id) and not status then" => "drop_tombstone(queue, id)\n  if not status then";
    "start_jobs": "behind entries without a job there may be one", "    number = drops - dropped_before" => "    number = 0";
    "start_jobs": "so many entries are dropped in one step", "not is_paused[queue] and drops < MAX_DROPS do" => "not is_paused[queue] do";
    "start_jobs": "so many entries are dropped of the suspects", "bytes < MAX_BYTES and drops < MAX_DROPS do" => "bytes < MAX_BYTES do";
    "start_jobs": "the end of a step is told", "if drops >= MAX_DROPS then taken[5] = 1 end" => "";
    "start_jobs": "the end of a step is told where jobs are large", "left, taken[5] = 0, 1" => "left = 0";
    "start_jobs": "large records of dropped entries count",
        "for i = 2, fields.err and 0 or #fields, 2 do bytes = bytes + #fields[i] end" => "";
    "start_jobs": "only a queued job is put back", "    if job[1] == 'queued' then" => "    if job[1] then";
    "start_jobs": "an id without a job is noted", "and not status then note_lost(id, at) end" => "and false then end";
    "start_jobs": "only an id without a job is noted", "and not status then note_lost(id, at) end" => "then note_lost(id, at) end";
    "start_jobs": "a key that is no hash does not stop a take",
        "try_call('HGETALL', JOB .. id)" => "call('HGETALL', JOB .. id)";
    "start_jobs": "an entry that is no id is not started", "if not fields.err and is_id(id) then" => "if not fields.err then";
    "start_jobs": "every start has a token of its own", "starts = starts and is_id(starts) and digits(starts + 1) or '1'" => "starts = '1'";
    "start_jobs": "what was claimed needs a free worker", "if left > 0 and not is_paused[claimed_from] then" => "if not is_paused[claimed_from] then";
    "start_jobs": "what was claimed of a paused queue waits", "if left > 0 and not is_paused[claimed_from] then" => "if left > 0 then";
    "start_jobs": "what was claimed uses up a worker", "if start(claimed, claimed_from) then left = left - 1 end" => "start(claimed, claimed_from)";
    "start_jobs": "what was claimed may be on its last chance",
        "if start(claimed, claimed_from) then left = left - 1 end" => "if start(claimed) then left = left - 1 end";
    "start_jobs": "a last chance in an ordinary list is put aside", "  if not is_suspect and needs_quarantine(crashes, max_crashes) then" => "  if false then";
    "start_jobs": "a suspect whose turn has come starts",
        "  if not is_suspect and needs_quarantine(crashes, max_crashes) then" => "  if needs_quarantine(crashes, max_crashes) then";
    "start_jobs": "what is put aside leaves the list", "    call('LREM', list, 1, id)\n    call('LPUSH', fill_list" => "    call('LPUSH', fill_list";
    "start_jobs": "what is put aside brings its queue's name back", "fill_list(queue) .. SUSPECTS" => "WORK .. queue .. SUSPECTS";
    "start_jobs": "suspects that were put aside wait in their order", "    call('LPUSH', fill_list(queue)" => "    call('RPUSH', fill_list(queue)";
    "start_jobs": "what is put back leaves the list", "      call('LREM', list, 1, claimed)" => "";
    "start_jobs": "the turn of the others is theirs", "if quarantine ~= 'skip' then" => "if true then";
    "start_jobs": "no suspect without a free worker", "while left > 0 and bytes < MAX_BYTES and" => "while bytes < MAX_BYTES and";
    "start_jobs": "large jobs among the suspects are not taken all at once",
        "while left > 0 and bytes < MAX_BYTES and" => "while left > 0 and";
    "start_jobs": "suspects of a paused queue wait",
        "if not is_paused[ARGV[i]] and start_quarantined(ARGV[i])" => "if start_quarantined(ARGV[i])";
    "start_jobs": "the last chance is known", "needs_quarantine(read(id, 'crashes')[1], max_crashes)" => "false";
    "start_jobs": "a suspect that is none is one like any other", "needs_quarantine(read(id, 'crashes')[1], max_crashes)" => "true";
    "start_jobs": "the last chance waits for an empty server", "(quarantine ~= 'start' or #taken > HEAD)" => "#taken > HEAD";
    "start_jobs": "one server empties itself for the last chance",
        "if chosen and chosen ~= server and is_registered(chosen) then return false end" => "";
    "start_jobs": "the chosen server stays chosen", "chosen ~= server and is_registered(chosen)" => "is_registered(chosen)";
    "start_jobs": "a dead server makes no room", "chosen ~= server and is_registered(chosen)" => "chosen ~= server";
    "start_jobs": "where no suspect waits nobody is chosen", "call('DEL', LAST_CHANCE .. queue) end" => "end";
    "start_jobs": "while suspects wait the chosen server stays the one",
        "if call('EXISTS', waiting) == 0 then" => "if true then";
    "start_jobs": "the last chance is not beside what was claimed", "(quarantine ~= 'start' or #taken > HEAD)" => "quarantine ~= 'start'";
    "start_jobs": "nothing starts beside the last chance", "      if alone then return true end" => "";
    "start_jobs": "nothing else starts beside the last chance", "and start_quarantined(ARGV[i]) then return taken end" => "and start_quarantined(ARGV[i]) then end";
    "start_jobs": "a suspect that was found here starts at once", "if quarantine ~= 'skip' and start_quarantined(queue) then return taken end" => "";
    "start_jobs": "a suspect that was found waits for the turn of the others to end",
        "if quarantine ~= 'skip' and start_quarantined(queue) then" => "if start_quarantined(queue) then";
    "start_jobs": "nothing more starts while the last chance waits", "if taken[3] == 1 then return taken end" => "";
    "start_jobs": "who is none of the suspects uses up a worker", "      left = left - 1\n" => "";
    "start_jobs": "large jobs are not taken all at once", "    if bytes >= MAX_BYTES then" => "    if false then";
    "start_jobs": "what is too much goes back in its order", "for back = #ids, i, -1 do" => "for back = i, #ids do";
    "start_jobs": "nothing starts in a paused queue",
        "while number > 0 and not is_paused[queue] and" => "while number > 0 and";
    "start_jobs": "a share is not exceeded", "math.min(left, tonumber(ARGV[i + 1]))" => "left";
    "start_jobs": "what is left is filled up", "for i = 6, #ARGV, 2 do take(ARGV[i], left) end" => "";
    "start_jobs": "paused queues are known", "if call('SISMEMBER', PAUSED, ARGV[i]) == 1 then" => "if false then";
    "start_jobs": "without a suspect none is taken", "if not id then return false end" => "";
    "start_jobs": "who makes no room goes on", "if reserve_server(queue) then taken[3] = 1 end" => "taken[3] = 1";
    "start_jobs": "a suspect that is not started leaves room for another",
        "    if start(id, queue, true) then\n" => "    start(id, queue, true)\n    if true then\n";
    "start_jobs": "an empty queue gives nothing", "if not ids then return end" => "";
    "start_jobs": "what is not started uses up no worker",
        "if start(ids[i], queue) then left = left - 1 end" => "start(ids[i], queue)\n      left = left - 1";
    // Settling.
    "settle": "the server must be the owner", "if job[2] ~= server or job[3] ~= token then return" => "if job[3] ~= token then return";
    "settle": "the token must be the attempt's", "if job[2] ~= server or job[3] ~= token then return" => "if job[2] ~= server then return";
    "settle": "what is settled is not settled again", "if status ~= 'processing' then return 'repeated' end" => "";
    "settle": "a release charges nothing", "if what ~= 'release' then attempts = attempts + 1 end" => "attempts = attempts + 1";
    "settle": "who asked for a stop gets it", "elseif cancelled then" => "elseif false then";
    "settle": "what completed is completed, cancel or not",
        "if what == 'complete' then\n    to" => "if what == 'complete' and not cancelled then\n    to";
    "settle": "attempts are bounded", "what == 'fail' or attempts >= (tonumber(read(id, 'max_attempts')[1] or DEFAULT_MAX_ATTEMPTS) or 0)"
        => "what == 'fail'";
    "settle": "what is settled leaves the list", "if to ~= 'processing' then call('LREM', list, -1, id) end" => "";
    "settle": "what starts again stays in the list", "if to ~= 'processing' then call('LREM', list, -1, id) end" => "call('LREM', list, -1, id)";
    "settle": "what starts again has a new token", "'starts', digits(token + 1)" => "'starts', token";
    "settle": "a settled stop is forgotten", "if cancelled and to ~= 'processing' then" => "if false then";
    "settle": "a released job is nobody's", "    call('HDEL', JOB .. id, 'server')" => "";
    "settle": "a released job waits from now on", "'status', to, 'ready_at', at)" => "'status', to)";
    "settle": "errors are kept", "if what == 'retry' or what == 'retry_inline' or what == 'fail' then" => "if false then";
    "settle": "a release is no error", "if what == 'retry' or what == 'retry_inline' or what == 'fail' then" => "if true then";
    "settle": "a release goes back", "elseif what == 'release' then" => "elseif false then";
    "settle": "a retry is parked", "elseif what == 'retry' or is_paused(id) then" => "elseif is_paused(id) then";
    "settle": "a paused queue holds a short backoff", " or is_paused(id) then" => " then";
    "settle": "only a paused queue holds it", ") == 1\nend\n\nlocal function settle" => ") ~= 2\nend\n\nlocal function settle";
    "settle": "a job without a queue is of the default one", "read(id, 'queue')[1] or DEFAULT_QUEUE" => "read(id, 'queue')[1] or ''";
    "settle": "what completed has a result", "if to == 'completed' then" => "if false then";
    "settle": "what ends is ended", "elseif is_final(to) then" => "elseif false then";
    "settle": "what starts again goes on", "elseif to == 'processing' then" => "elseif false then";
    "settle": "what is retried waits for its time", "elseif to == 'retrying' then" => "elseif false then";
    // Recovery.
    "recover": "a fenced server recovers nothing", "if not is_registered(server) then return 0 end" => "";
    "recover": "only what stands in the list", "if call('LREM', list, 1, id) == 1 then" => "if call('LREM', list, 1, id) >= 0 then";
    "recover": "only what this server ran",
        "local running = job[1] == 'processing' and job[2] == server" => "local running = job[1] == 'processing'";
    "recover": "only what lives", "elseif running or job[1] == 'queued' then" => "elseif job[1] then";
    "recover": "a stop that was asked for is carried out", "if running and job[4] then" => "if false then";
    "recover": "an id without a job is noted", "and not job[1] then" => "and false then";
    "recover": "only an id without a job is noted", " and not job[1] then" => " then";
    "recover": "an entry that was left is no lost job", "elseif not drop_tombstone(job[3], id) and not" => "elseif not";
    "recover": "what goes back is queued", "call('HSET', JOB .. id, 'status', 'queued')" => "";
    "recover": "what goes back is nobody's", "      call('HDEL', JOB .. id, 'server')" => "";
    // Heartbeat.
    "heartbeat": "a fenced server cannot beat", "if not is_registered(server, own) then return {'fenced'} end" => "";
    "heartbeat": "a server knows its own beat", "if all[i] == server then own = all[i + 1] end" => "";
    "heartbeat": "the beat of another server is not its own", "if all[i] == server then own = all[i + 1] end" => "own = all[i + 1]";
    "heartbeat": "dead servers with jobs are no quiet",
        "if string.sub(all[i + 1], 1, 1) == 'D' then keys[#keys + 1] = IN_PROGRESS .. all[i] end" => "";
    "heartbeat": "what is not asked for is not there", "if is_quiet then return {'beating', 0, {}, others, 0, 0, -1} end" => "if true then return {'beating', 0, {}, others, 0, 0, -1} end";
    "heartbeat": "a beat counts", "call('HINCRBY', SERVERS, server, 1)" => "";
    "heartbeat": "an empty dead server is not shown",
        "if not died or (not is_quiet and call('LLEN', IN_PROGRESS .. id) > 0) then" => "if true then";
    "heartbeat": "a dead server with jobs is shown",
        "if not died or (not is_quiet and call('LLEN', IN_PROGRESS .. id) > 0) then" => "if not died then";
    "heartbeat": "a dead server is remembered for a while",
        "elseif now - tonumber(died) > tonumber(ARGV[4]) then" => "else";
    // Taking over.
    "reclaim": "a server that beat is alive", "(mode == 'crash' and beat ~= ARGV[2])" => "false";
    "reclaim": "an unknown server has nothing", "if not beat or (mode" => "beat = beat or ARGV[2]\nif (mode";
    "reclaim": "the server is fenced", "  call('HSET', SERVERS, server, beat)" => "";
    "reclaim": "only what the server ran itself",
        "return job[1] == 'processing' and job[2] == server end" => "return job[1] == 'processing' end";
    "reclaim": "only what ran was alone",
        "if is_running(job) and not running[id] then" => "if not running[id] then";
    "reclaim": "a job that stands twice is no other one", "if is_running(job) and not running[id] then" => "if is_running(job) then";
    "reclaim": "only a job that ran alone fails", "not next(running) and needs_quarantine" => "needs_quarantine";
    "reclaim": "only a job on its last chance fails",
        "not next(running) and needs_quarantine(job[3], max_crashes) and id" => "not next(running) and id";
    "reclaim": "a job on its last chance fails", "    if alone then beat" => "    if false then beat";
    "reclaim": "who is to blame is decided once", "if string.sub(beat, 1, 1) ~= 'D' then" => "if true then";
    "reclaim": "leaving charges nobody", "    if running and mode == 'crash' then" => "    if running then";
    "reclaim": "only what ran is charged", "    if running and mode == 'crash' then" => "    if mode == 'crash' then";
    "reclaim": "an entry that stands twice is handled once", "  handled[id] = true" => "";
    "reclaim": "a stop that was asked for is carried out", "elseif running and job[6] then" => "elseif false then";
    "reclaim": "only what lives goes back", "elseif running or job[1] == 'queued' then" => "elseif job[1] then";
    "reclaim": "what goes back is queued",
        "      call('HSET', JOB .. id, 'status', 'queued')" => "";
    "reclaim": "what goes back is nobody's", "    call('HDEL', JOB .. id, 'server')\n    if not fails" => "    if not fails";
    "reclaim": "an id without a job is noted", "and not job[1] then" => "and false then";
    "reclaim": "only an id without a job is noted", " and not job[1] then" => " then";
    "reclaim": "an entry that was left is counted no more", "elseif not drop_tombstone(job[4], id) and not" => "elseif not";
    "reclaim": "a second entry that was left is counted no more", "  if handled[id] then\n    drop_tombstone(job[4], id)" => "  if handled[id] then";
    "reclaim": "what ran waits from now on", "if running then call('HSET', JOB .. id, 'ready_at', at) end" => "";
    "reclaim": "what did not run has waited all the time", "if running then call('HSET', JOB .. id, 'ready_at', at) end"
        => "call('HSET', JOB .. id, 'ready_at', at)";
    "reclaim": "a crash is one of the errors", "      add_error(id, attempt, at, digits(tonumber(job[9]) or 0) .. 'c'," => "      local _ = (";
    "reclaim": "crashes are bounded", "fails = suspect == id or max_crashes == 1" => "fails = max_crashes == 1";
    "reclaim": "where one crash is allowed every job fails", "fails = suspect == id or max_crashes == 1" => "fails = suspect == id";
    "reclaim": "what its servers died of too often fails", "      if fails then" => "      if false then";
    "reclaim": "what has failed does not go back", "    if not fails then" => "    if true then";
    "reclaim": "a crash is counted", "call('HSET', JOB .. id, 'crashes', digits(crashes))" => "";
    "reclaim": "what was handled leaves the list", "call('LTRIM', list, digits(#ids), -1)" => "call('DEL', list)";
    "reclaim": "the oldest goes to the front", "call('RPUSH', fill_list(job[4]), id)" => "call('LPUSH', fill_list(job[4]), id)";
    "reclaim": "the set of stops goes with the last job", "if left == 0 then call('DEL', CANCELS .. server) end" => "";
    // The scheduler.
    "promote": "only what is due", "'-inf', at, 'LIMIT'" => "'-inf', '+inf', 'LIMIT'";
    "promote": "only what waits for its time", "if job[1] == 'scheduled' or job[1] == 'retrying' then" => "if job[1] then";
    "promote": "what was looked at leaves the set", "call('ZREM', SCHEDULED, id)" => "";
    "promote": "what is promoted is queued", "call('HSET', JOB .. id, 'status', 'queued')" => "";
    "promote": "an id without a job is noted", "elseif not job[1] then" => "elseif false then";
    // What a person does.
    "cancel": "an unknown job is not made", "if not status then return {'missing'} end" => "";
    "cancel": "what has ended stays", "if is_final(status) then return {'final'} end" => "";
    "cancel": "a running job is only asked", "if status == 'processing' then" => "if false then";
    "cancel": "a queued job is looked for in its queue", "if status == 'queued' then" => "if false then";
    "cancel": "its server is told", "call('SADD', CANCELS .. job[2], id)" => "";
    "cancel": "a queued job leaves its queue", "return call('LREM', list, -1, id) == 1 end" => "return false end";
    "cancel": "a suspect leaves the suspects", "not (job[5] and remove_entry(list .. SUSPECTS)) and" => "";
    "cancel": "a long list is not searched", "if call('LLEN', list) <= SHORT then" => "if true then";
    "cancel": "what is left in a long list is counted", "and is_long then add_tombstone(job[4], id) end" => "then end";
    "cancel": "nothing is left in a short list", "and is_long then add_tombstone(job[4], id) end" => "then add_tombstone(job[4], id) end";
    "cancel": "what was left comes out at the end of the list", "for _ = 1, is_long and 8 or 0 do" => "for _ = 1, 0 do";
    "cancel": "the end of a list may be near", "  if not last or not drop_tombstone(job[4], last)" => "  if not drop_tombstone(job[4], last)";
    "cancel": "what is no left entry stays", " or not drop_tombstone(job[4], last) then break end" => " then break end";
    "cancel": "a parked job is parked no more", "call('ZREM', SCHEDULED, id)" => "";
    "retry": "an unknown job is not made", "if not status then" => "if false then";
    "retry": "only failed and cancelled jobs", "(status ~= 'failed' and status ~= 'cancelled') or" => "";
    "retry": "only those of the wanted status", " or (wanted ~= '' and status ~= wanted)" => "";
    "retry": "a live holder keeps its key", "elseif held and not is_final(held) then" => "elseif false then";
    "retry": "a holder that has ended holds nothing", "elseif held and not is_final(held) then" => "elseif held then";
    "retry": "its key is taken back", "if unique_key then call('SET', UNIQUE .. unique_key, id) end" => "";
    "retry": "a new life has no crashes", "'attempts', 0, 'crashes', 0, 'ready_at'" => "'attempts', 0, 'ready_at'";
    "retry": "a new life has its attempts", "'attempts', 0, 'crashes', 0, 'ready_at'" => "'crashes', 0, 'ready_at'";
    "retry": "it waits from now on", "'crashes', 0, 'ready_at', at)" => "'crashes', 0)";
    "retry": "it leaves the dead letters", "call('ZREM', status == 'failed' and DLQ or DONE, id)" => "";
    "delete": "an unknown job is missing", "if not status then" => "if false then";
    "delete": "only what has ended", "not is_final(status) or" => "";
    "delete": "only those of the wanted status", " or (wanted ~= '' and status ~= wanted)" => "";
    "delete": "it leaves the index", "index_remove({id}, job[2], status)" => "";
    "delete": "it leaves the sorted set", "call('ZREM', status == 'failed' and DLQ or DONE, id)" => "";
    "prune_queues": "what is counted goes with the last entry", "    call('DEL', TOMBSTONES .. queue)\n" => "";
    "prune_queues": "a queue that holds jobs keeps its name",
        "if call('EXISTS', WORK .. queue, WORK .. queue .. SUSPECTS) == 0 then" => "if true then";
    "expire_jobs": "only what has ended", "if job[1] and is_final(job[1]) then" => "if job[1] then";
    "expire_jobs": "by count", "over > 0 and call('ZRANGE', key, 0, digits(over - 1)) or {}" => "{}";
    "expire_jobs": "not below the count", "call('ZCARD', key) - keep" => "call('ZCARD', key)";
    "expire_jobs": "by age", "if #ids == 0 then ids =" => "if false then ids =";
    "expire_jobs": "not before the age", "now_ms() - keep_ms" => "now_ms()";
    "expire_jobs": "it leaves the index", "    index_remove({id}, job[2], job[1])" => "";
    // Reading.
    "list": "a key that is no hash does not stop a listing",
        "try_call('HGETALL', JOB .. id)" => "call('HGETALL', JOB .. id)";
    "list": "the length of a text in a key that is no hash is no number",
        "try_call('HSTRLEN', JOB .. id, name)" => "call('HSTRLEN', JOB .. id, name)";
    "list": "an id without a record is no job", "if #fields > 2 then" => "if true then";
    "list": "a page by id begins below the id", "offset or call('ZCOUNT', set, before, '+inf')" => "offset or 0";
    "list": "a page of running jobs by id begins below the id",
        "while not offset and skip < #ids and" => "while false and";
    "list": "the place of an id among ready jobs counts the running ones already",
        "local rank = offset and call('ZREVRANK', set, id)" => "local rank = call('ZREVRANK', set, id)";
    "list": "a page of all by id begins below the id", "offset and digits(low) or '(' .. before" => "digits(low)";
    "list": "a page of all by id needs no search", "while offset and low < high do" => "while low < high do";
    "list": "only a page with more behind it has a next one", "if #ids > limit then" => "if #ids > 0 then";
    "list": "a large text is left out", "    if lengths[name] > LARGE then lengths[name] = nil end" => "";
    "list": "a page is bounded", "if sum > MOST then" => "if false then";
    "list": "a text in pieces stays whole", "if is_long and bytes" => "if bytes";
    "list": "small jobs of a page that is too large stay whole",
        "if is_long and bytes(lengths[i]) > MOST / #ids then" => "if is_long then";
    "list": "what is left out is named", "if not shown[name] then omitted" => "if false then omitted";
    "list": "a record with a text left out is read by fields", "if #omitted == 0 then" => "if true then";
    "list": "texts that are left out are not read", "if not is_text or shown[name] or name" => "if true or name";
    "list": "the last error stays", "or name == 'errors' then" => "then";
    "list": "errors are left out but for the last",
        "if name == 'errors' and not shown[name] then value" => "if false then value";
    "list": "an entry that stands twice runs once", "if not seen[id] and" => "if";
    "list": "running jobs before the page are skipped", "if rank and rank <= from then from = from + 1 end" => "";
    "list": "running jobs are not queued", "if not is_running[id] and #page < wanted" => "if #page < wanted";
    "list": "a page of all begins at its offset", "if above > offset then low" => "if above > 0 then low";
    "list": "the type is filtered for", "(job_type ~= '' and ':' .. job_type or '')" => "''";
    "list": "an empty index has no ends", "    if size > 0 then" => "    if true then";
    "list": "behind the last page is nothing", "if (offset or 0) >= total then return total, {} end" => "";
    "list": "running jobs are listed by themselves", "if status == 'processing' then\n  total" => "if false then\n  total";
    "list": "queued jobs are listed by themselves", "elseif status == 'queued' then" => "elseif false then";
    "list": "the status is filtered for", "elseif status ~= '' then" => "elseif false then";
    "queues": "a queue is shown once", "if seen[queue] then return end" => "";
    "queues": "an entry that is no id has no age", " and tonumber(ids[i]) then" => " then";
    "queues": "entries that were left are not counted", " - count_tombstones(queue))" => ")";
    "queues": "there are never fewer jobs than none", "math.max(0, call('LLEN', list)" => "(call('LLEN', list)";
    "queues": "an entry without a queued job has no age", "if job[1] == 'queued' and" => "if";
    "queues": "an age counts from when a job became ready again", ", tonumber(job[3]) or 0)" => ")";
    "queues": "an age counts from the end of a delay", "tonumber(job[2]) or 0, " => "";
    "queues": "the look goes on behind jobs that became ready again", "if not job[3] then return oldest end" => "return oldest";
    "queues": "the look ends at a job that became ready once", "if not job[3] then return oldest end" => "";
    "queues": "the look ends at the end of the list", "until is_end or left <= 0" => "until left <= -200";
    "queues": "a dead server takes from no queue", "if string.sub(servers[i + 1], 1, 1) ~= 'D' then" => "if true then";
    "pause": "an ended job is in no queue", "job[1] and not is_final(job[1]) and" => "job[1] and";
    "pause": "an entry without a job is in no queue", "job[1] and not is_final(job[1]) and" => "not is_final(job[1]) and";
    "pause": "a job of another queue does not count", " and (job[2] or DEFAULT_QUEUE) == queue" => "";
    "pause": "queued jobs count", "call('EXISTS', WORK .. queue, WORK .. queue .. SUSPECTS) > 0 or" => "";
    "pause": "suspects count", ", WORK .. queue .. SUSPECTS) > 0" => ") > 0";
    "pause": "behind many parked jobs there may be one", " or call('ZCARD', SCHEDULED) > tonumber(ARGV[3])" => "";
    "pause": "parked jobs count", "  if is_of_queue(id) then return 1 end\nend\nfor" => "end\nfor";
    "pause": "running jobs count", "    if is_of_queue(id) then return 1 end\n  end" => "  end";
    "stats": "an entry that stands twice runs once", "if not seen[id] and" => "if";
    "common": "a dead server is not shown", "if string.sub(all[i + 1], 1, 1) ~= 'D' then" => "if true then";
    "get": "a key that is no hash is no job", "redis.pcall('HGETALL'" => "redis.call('HGETALL'";

    // What the doctor holds to be sound.
    "audit_common": "a key of a wrong type stops no look",
        "if type(answer) == 'table' and answer.err then return false end" => "";
    "audit_common": "of a long list only the entries of the job", "if entry == id then found" => "if true then found";
    "audit_common": "a gap is nobody's", "if id == TOMBSTONE and is_list(key) then return nil end" => "";
    "audit_common": "an index is of a status", "word ~= indexed(status)" => "false";
    "audit_common": "an index is of a type", "(job_type ~= '' and job_type ~= job[2])" => "false";
    "audit_common": "an index is in the order of the ids", "tonumber(try('ZSCORE', key, id) or 0) ~= tonumber(id)" => "false";
    "audit_common": "a wish to cancel is for what runs", "if status ~= 'processing' or job[3] ~= cancels" => "if job[3] ~= cancels";
    "audit_common": "a wish to cancel is for what runs there", "job[3] ~= cancels" => "false";
    "audit_common": "a wish to cancel is for what is asked to stop", "or not job[6] then return 'cancel_stale'" => "then return 'cancel_stale'";
    "audit_common": "wishes to cancel are judged as such", "  elseif cancels then" => "  elseif false then";
    "audit_common": "index entries are judged as such", "  if index then" => "  if false then";
    "audit_common": "an entry without a job dangles", "  elseif not status then" => "  elseif false then";
    "audit_common": "what waits for its time belongs among the parked",
        "    fits = status == 'scheduled' or status == 'retrying'" => "    fits = true";
    "audit_common": "what is retried belongs among the parked",
        "    fits = status == 'scheduled' or status == 'retrying'" => "    fits = status == 'scheduled'";
    "audit_common": "the parked are known", "  if key == SCHEDULED then" => "  if false then";
    "audit_common": "only failed jobs are dead letters", "    fits = status == 'failed'" => "    fits = true";
    "audit_common": "dead letters are known", "  elseif key == DLQ then" => "  elseif false then";
    "audit_common": "only ended jobs are done", "    fits = status == 'completed' or status == 'cancelled'" => "    fits = true";
    "audit_common": "cancelled jobs are done", "    fits = status == 'completed' or status == 'cancelled'" => "    fits = status == 'completed'";
    "audit_common": "the ended are known", "  elseif key == DONE then" => "  elseif false then";
    "audit_common": "only queued jobs are ready", "fits = status == 'queued' and (key" => "fits = (key";
    "audit_common": "a queued job is in its own queue", "(key == list or (key == list .. SUSPECTS" => "(true or (key == list .. SUSPECTS";
    "audit_common": "a job on its last chance waits apart", "(key == list or (key == list .. SUSPECTS and (tonumber(job[5]) or 0) > 0))" => "key == list";
    "audit_common": "only a job with a crash on its record waits apart", " and (tonumber(job[5]) or 0) > 0))" => "))";
    "audit_common": "queues are known", "  elseif rest(key, WORK) then" => "  elseif false then";
    "audit_common": "what is fetched and not started is in its server's list",
        "fits = status == 'queued' or (status" => "fits = (status";
    "audit_common": "a server's list holds what lives", "(status == 'processing' and job[3] ==" => "(job[3] ==";
    "audit_common": "a running job is in the list of its own server",
        "(status == 'processing' and job[3] == rest(key, IN_PROGRESS))" => "status == 'processing'";
    "audit_common": "what does not fit is told", "if not fits then return 'misplaced' end" => "";
    "audit_common": "a status that is none is no fault of a list", "if not KNOWN[status] or not job_type then" => "if not job_type then";
    "audit_common": "without a type there is no index", "if not KNOWN[status] or not job_type then" => "if not KNOWN[status] then";
    "audit_common": "a parked job waits among the parked", "if not try('ZSCORE', SCHEDULED, id) then" => "if false then";
    "audit_common": "who waits for its time is known", "  if status == 'scheduled' or status == 'retrying' then" => "  if false then";
    "audit_common": "a running job has a server", "if not server or not entries(" => "if not entries(";
    "audit_common": "a running job stands in its server's list", "or not entries(IN_PROGRESS .. server)[id] then" => "then";
    "audit_common": "who runs is known", "  elseif status == 'processing' then" => "  elseif false then";
    "audit_common": "an ended job is known to retention",
        "if not try('ZSCORE', status == 'failed' and DLQ or DONE, id) then" => "if false then";
    "audit_common": "failed jobs are kept apart", "status == 'failed' and DLQ or DONE" => "DONE";
    "audit_common": "who has ended is known", "  elseif is_final(status) then" => "  elseif false then";
    "audit_common": "a job is in the index of its status", "if not try('ZSCORE', index, id) or" => "if";
    "audit_common": "a job is in the index of its type", " or not try('ZSCORE', index .. ':' .. job_type, id)" => "";
    "audit_common": "a job without a key holds none", "if unique and not is_final(status)" => "if not is_final(status)";
    "audit_common": "an ended job holds no key", "unique and not is_final(status) and" => "unique and";
    "audit_common": "a live job holds its key", "and try('GET', UNIQUE .. unique) ~= id then" => "and false then";
    "audit_common": "nobody holds nothing", "if not holder then return false end" => "";
    "audit_common": "an ended holder holds nothing", "and not is_final(job[1]) and job[2] == unique" => "and job[2] == unique";
    "audit_common": "a holder holds its own key", " and job[2] == unique" => "";
    "audit_jobs": "a job is looked at", "if redis_type == 'hash' then" => "if false then";
    "audit_jobs": "a key that is no hash is told", "elseif redis_type ~= 'none' then" => "elseif false then";
    "audit_list": "what does not fit in a list is told", "  if fault then" => "  if false then";
    "audit_set": "what does not fit in a set is told", "  if fault then" => "  if false then";
    // What the doctor mends, each looked at anew.
    "repair": "a job in its queue is not stranded",
        "if entries(WORK .. queue)[id] or entries(" => "if entries(";
    "repair": "a job among the suspects is not stranded", " or entries(WORK .. queue .. SUSPECTS)[id]" => "";
    "repair": "a job in a server's list is not stranded", "if entries(IN_PROGRESS .. server)[id] then return true end" => "";
    "repair": "a job in the list of an unknown server is not stranded", "if entries(key)[id] then return true end" => "";
    "repair": "a queued job that is somewhere is not put back", "if is_listed(id, queue) or (starts" => "if (starts";
    "repair": "a job that was started meanwhile is not put back", " or (starts ~= '' and starts ~= (job[4] or '0'))" => "";
    "repair": "a queued job is looked for in its lists", "  if status == 'queued' then" => "  if false then";
    "repair": "what is no longer stranded is left", "elseif not job_faults(id).stranded then" => "elseif false then";
    "repair": "a parked job is parked again", "    if status == 'scheduled' or status == 'retrying' then" => "    if false then";
    "repair": "a running job goes to its server", "    elseif status == 'processing' and job[3] then" => "    elseif false then";
    "repair": "a running job without a server goes to its queue",
        "elseif status == 'processing' and job[3] then" => "elseif status == 'processing' then";
    "repair": "what is no longer unlisted is left", "if not job_faults(id).unlisted then return end" => "";
    "repair": "what failed becomes a dead letter", "job[1] == 'failed' and DLQ or DONE, job[2]" => "DONE, job[2]";
    "repair": "what is in the index again is left", "if not job_faults(id).index_missing then return end" => "";
    "repair": "what holds its key again is left", "if not job_faults(id).unique_missing then return end" => "";
    "repair": "a key is not taken from a live holder",
        "if holds(try('GET', UNIQUE .. unique), unique) then" => "if false then";
    "repair": "a key that is gone is no finding", "if not holder or holds(" => "if holds(";
    "repair": "a key with a live holder is no finding", " or holds(holder, rest(key, UNIQUE))" => "";
    "repair": "an entry that is gone is no finding", "if not at or entry_fault(key, id) ~= kind then" => "if entry_fault(key, id) ~= kind then";
    "repair": "an entry that fits by now is no finding", " or entry_fault(key, id) ~= kind" => "";
    "repair": "entries of lists have places", "  if is_list(key) then\n    at" => "  if false then\n    at";
    "repair": "wishes to cancel stand in plain sets", "  elseif rest(key, CANCELS) then\n    at" => "  elseif false then\n    at";
    "repair": "entries are taken out of lists", "    if is_list(key) then\n      remove_entry" => "    if false then\n      remove_entry";
    "repair": "an id without a job is noted", "if kind == 'dangling' then note_lost(id, at_now) end" => "";
    "repair": "only an id without a job is noted", "if kind == 'dangling' then note_lost(id, at_now) end" => "note_lost(id, at_now)";
    "repair": "a queued job in a wrong queue goes to its own", "if rest(key, WORK) and job[1] == 'queued'" => "if false";
    "repair": "only a queued job goes to its queue", "if rest(key, WORK) and job[1] == 'queued'" => "if rest(key, WORK)";
    "repair": "a job that stands in its queue is not put there again", " and not is_listed(id, job[2] or 'default') then" => " then";
    "repair": "an entry is counted once", "if not known[key .. ' ' .. place] then" => "if true then";
    "repair": "what stands once is left", "if too_many < 1 or (job" => "if (job";
    "repair": "an entry that was left is not one too many", "#found - 1 - tombstones_of(job[3] or DEFAULT_QUEUE, id)" => "#found - 1";
    "repair": "a gap is counted", "  elseif queue_of(key) then\n    add_tombstone(queue_of(key), TOMBSTONE)" => "";
    "repair": "a gap in the list of a server is not counted", "  elseif queue_of(key) then\n" => "  else\n";
    "audit_common": "an entry that was left is no fault", "if queue and tombstones_of(queue, id) > 0 then return nil end" => "";
    "audit_common": "only lists of ready jobs have entries that were left", "if queue and tombstones_of" => "if tombstones_of";
    "repair": "what has ended needs no entry", " or (job[1] ~= 'queued' and job[1] ~= 'processing') then return end" => " then return end";
    "repair": "the entry that a job needs is kept", "if (a[1] == home) ~= (b[1] == home) then return a[1] == home end" => "";
    "repair": "the foremost entry is kept", "return a[2] > b[2]" => "return a[2] < b[2]";
    "repair": "a key that is gone has no wrong type", "if redis_type == 'none' or redis_type == right" => "if redis_type == right";
    "repair": "a key of the right type is left", " or redis_type == right then return end" => " then return end";
    "repair": "what was set aside before stays", "if call('EXISTS', to) == 1 then" => "if false then";
    "repair": "a record that was changed meanwhile is left", " or fingerprint(id) ~= print" => "";
    "repair": "a record in the hand of a server is left", "if job[1] == 'processing' then return nil," => "if false then return nil,";
    "repair": "what has no type is in no index", "if job[1] and job[2] then" => "if job[1] then";
    "repair": "what has no status is in no index", "if job[1] and job[2] then" => "if job[2] then";
    "repair": "a live server's list is its own", "if (beat and string.sub(beat, 1, 1) ~= 'D') or" => "if";
    "repair": "a list that is gone is no finding", " or call('EXISTS', key) == 0 then return end\n  return beat" => " then return end\n  return beat";
    "repair": "wishes to cancel are forgotten", "    if rest(key, CANCELS) then\n      call('DEL'" => "    if false then\n      call('DEL'";
    "repair": "an unknown server is entered to be taken over", "if not beat then call('HSET', SERVERS, server, 0) end" => "";
    "repair": "a dead server stays dead", "if not beat then call('HSET', SERVERS, server, 0) end" => "call('HSET', SERVERS, server, 0)";
    "repair": "what has passed is gone", "  if not repair then" => "  if false then";
    "repair": "a look changes nothing", "  elseif not repairs then" => "  elseif false then";
    "repair": "a repair that failed is none", "    if not went then" => "    if false then";
    "repair": "a repair that was not done is none", "    elseif done then" => "    elseif true then";
    "repair": "entries are mended as such", "if check[kind] then note" => "if true then note";
};

/// A line with a condition whose absence no test has to notice.
struct NoGuard {
    script: &'static str,
    line: &'static str,
    why: &'static str,
}

macro_rules! no_guards {
    ($($script:literal: $line:literal => $why:literal;)*) => {
        &[$(NoGuard { script: $script, line: $line, why: $why }),*]
    };
}

const NO_GUARDS: &[NoGuard] = no_guards! {
    "common": "if fields.err then return {} end" => "an error has none of the fields either; that it is one is a guard";
    "common": "if indexed(from) ~= indexed(to) then" => "without it an entry is taken out and put in again";
    "enqueue": "if over > 0 and" => "saves a command where there is room";
    "enqueue": "if key ~= '' then" => "stands there twice, and either of them is enough";
    "enqueue": "if key ~= '' then kept[key]" => "the same";
    "enqueue": "if delay ~= '' then due[i] =" => "reads an argument";
    "enqueue": "if unique ~= '' then" => "nobody ever holds the empty key; that nobody gets it is a guard";
    "common": "if #text <= PIECE or" => "without it no text ever ends";
    "common": "if number < 1e8 then" => "without it small numbers have zeros in front";
    "common": "if ids then ids[#ids + 1] = id else" => "without it the first of a group has no place";
    "enqueue": "if queue ~= DEFAULT_QUEUE or" => "saves bytes: what is as by default is read as such";
    "enqueue": "if ids[1] then call('LPUSH'" => "without it Redis refuses a command without words";
    "settle": "if #done > 0 then" => "without it Redis refuses a command without words";
    "common": "if beat == nil then beat = call('HGET'" => "reads what the caller does not know";
    "start_jobs": "if fields[i] == 'status' then status =" => "reads a record";
    "start_jobs": "elseif fields[i] == 'starts' then" => "reads a record";
    "start_jobs": "elseif fields[i] == 'server' then" => "reads a record";
    "start_jobs": "elseif fields[i] == 'crashes' then" => "reads a record";
    "reclaim": "if mode == 'crash' then" => "who leaves in order charges nobody, whoever is named; that is a guard";
    "reclaim": "if handled[id] then" => "the guard is where an id is entered as handled";
    "audit_jobs": "if size > 4096 or" => "saves time: a large record is read by itself";
    "audit_common": "if lists[key] then return lists[key] end" => "saves time: what was read already";
    "audit_common": "if length <= SHORT then" => "saves time: how much of a list is read";
    "repair": "if place < SHORT then" => "saves time: a gap is closed where that is quick; one that stays is nobody's";
    "repair": "elseif length - place <= SHORT then" => "the same from the other end";
    "repair": "if a[1] ~= b[1] then return a[1] < b[1] end" => "any order of the other lists will do";
    "repair": "if spent > 2 * SHORT and" => "saves time: how much one step does";
};

/// Stands in front of every script that the tests run: a number that is handed to Redis as such is an error, but for the
/// few that every version of Redis writes alike.
const NUMBERS_ARE_TEXTS: &str = r"local redis = (function(real)
  local function strict(run)
    return function(...)
      for i = 1, select('#', ...) do
        local word = select(i, ...)
        if type(word) == 'number' and word ~= 0 and word ~= 1 and word ~= 2 and word ~= -1 then
          error('the number ' .. word .. ' is handed to ' .. select(1, ...) .. ' without digits()')
        end
      end
      return run(...)
    end
  end
  return {call = strict(real.call), pcall = strict(real.pcall), sha1hex = real.sha1hex,
    error_reply = real.error_reply, acl_check_cmd = real.acl_check_cmd}
end)(redis)
";

/// A script with that check in it.
pub fn with_checked_numbers(loaded: &str) -> String {
    let (flags, body) = loaded.split_once('\n').expect("a script begins with a line of flags");
    format!("{flags}\n{NUMBERS_ARE_TEXTS}{body}")
}

/// A script as the queue loads it: which it is, and as it is to be run.
pub fn on_the_wire(loaded: &str) -> (&'static str, String) {
    let longest =
        SCRIPTS.iter().filter(|(_, text)| loaded.ends_with(text)).max_by_key(|(_, text)| text.len());
    let (script, _) = longest.expect("a script of the queue: the tests were built with it");
    let removed = std::env::var("THREADQ_WITHOUT_GUARD").unwrap_or_default();
    let run = match GUARDS.iter().find(|guard| guard.full_name() == removed) {
        Some(guard) => guard.removal.apply(loaded),
        _ => loaded.to_owned(),
    };
    (script, with_checked_numbers(&run))
}

impl Guard {
    /// All of the table.
    pub fn all() -> impl Iterator<Item = &'static Guard> {
        GUARDS.iter()
    }

    pub fn full_name(&self) -> String {
        format!("{}: {}", self.removal.script, self.name)
    }

    /// What takes it out of its script.
    pub fn removal(&self) -> Change {
        self.removal
    }
}

#[test]
fn every_guard_of_the_table_stands_in_its_script_once_and_leaves_lua_behind() {
    let place = Place::new();
    for guard in GUARDS {
        let Change { script, text, replacement } = guard.removal;
        let without = Change::new(script, text, replacement).apply(guard.removal.source());
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(format!("#!lua\n{without}"));
        let _: String = place.run(&load);
    }
    let mut names: Vec<String> = GUARDS.iter().map(Guard::full_name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), GUARDS.len(), "a name is given twice");
}

#[test]
fn a_number_that_is_handed_to_redis_as_such_is_noticed() {
    let place = Place::new();
    let run = |body: &str| {
        let mut eval = redis::cmd("EVAL");
        eval.arg(with_checked_numbers(&format!("#!lua\n{body}"))).arg(0);
        place.try_run(&eval)
    };
    let key = place.key("x");
    for call in ["call", "pcall"] {
        let set = |number: &str| run(&format!("return redis.{call}('SET', '{key}', {number})"));
        let error = set("1800000000000").unwrap_err().to_string();
        assert!(error.contains("is handed to SET without digits()"), "{error}");
        assert!(set("3").is_err() && set("-1").is_ok() && set("'1800000000000'").is_ok());
    }
}

/// All tests of this program without one guard: those that fail. The random test and the explorer are left out,
/// which would find many of them; each guard has a test that says what it is for.
fn failures_without(guard: &str) -> Vec<String> {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--skip", "random", "--skip", "explorer", "--skip", "every_guard"])
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

/// The places of a text.
fn places<'a>(source: &'a str, text: &'a str) -> impl Iterator<Item = std::ops::Range<usize>> + 'a {
    source.match_indices(text).map(|(at, text)| at..at + text.len())
}

#[test]
fn every_condition_is_a_guard_or_said_to_be_none() {
    let mut unknown = Vec::new();
    for (script, source) in SCRIPTS {
        let guards = GUARDS.iter().filter(|guard| guard.removal.script == *script);
        let guarded: Vec<_> = guards.flat_map(|guard| places(source, guard.removal.text)).collect();
        let others: Vec<_> = NO_GUARDS.iter().filter(|other| other.script == *script).collect();
        for other in &others {
            assert!(source.contains(other.line) && !other.why.is_empty(), "{script}: {}", other.line);
        }
        let mut at = 0;
        for line in source.split_inclusive('\n') {
            let here = at..at + line.len();
            at = here.end;
            let code = line.trim();
            let is_condition =
                code.split(|c: char| !c.is_alphanumeric()).any(|word| matches!(word, "if" | "elseif"));
            let is_guard = guarded.iter().any(|guard| guard.start < here.end && here.start < guard.end);
            let is_none = others.iter().any(|other| code.starts_with(other.line));
            if is_condition && !code.starts_with("--") && !is_guard && !is_none {
                unknown.push(format!("{script}: {code}"));
            }
        }
    }
    assert!(unknown.is_empty(), "neither in the table of guards nor said to be none: {unknown:#?}");
}

#[test]
#[ignore = "runs all tests once for each guard: about twenty minutes"]
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
