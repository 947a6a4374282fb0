//! The mutants that no test has to notice, each with the reason.

use super::Exception;

macro_rules! exceptions {
    ($($script:literal: $line:literal, $change:literal => $why:literal;)*) => {
        &[$(Exception { script: $script, line: $line, change: $change, why: $why }),*]
    };
}

pub const EXCEPTIONS: &[Exception] = exceptions! {
    // Code that several scripts share.
    "common": "if fields.err then return {} end", "fields.err => false"
        => "an error has none of the fields either; that an error must not end the script is shown";
    "common": "if indexed(from) ~= indexed(to) then", "indexed(from) ~= indexed(to) => true"
        => "an entry is taken out and put in again";
    "common": "type_names = type_names or call(", "without type_names" => "saves commands";
    "common": "index = index or index_of(job_type)", "without index"
        => "saves commands: the index of the type is looked up again";
    "common": "if found == #ids then return 'type' end", "found == #ids => false"
        => "saves commands: these jobs have no entry in another index, and their type has a type index";
    "common": "tonumber(call('HGET', key, id) or 0) or 0", "without 0"
        => "either of the two is enough: tonumber(false) is nil";
    "common": "tonumber(call('HGET', TOMBSTONES .. queue, 'all') or 0) or 0", "without 0"
        => "either of the two is enough: tonumber(false) is nil";
    // Submission.
    "enqueue": "if over > 0 and", "without over > 0" => "saves a command while the queue has room";
    "enqueue": "if key ~= '' then", "key ~= '' => true"
        => "a submission without a key is asked for and kept under the empty key; either condition prevents it";
    "enqueue": "if unique ~= '' then", "unique ~= '' => true"
        => "the first of the two looks for a holder of the empty key, and the second one prevents that there is one";
    "enqueue_plain": "if count_entries(queue) + number > tonumber(ARGV[1]) then", "count_entries(queue) + number > tonumber(ARGV[1]) => true"
        => "saves time: enqueue.lua stores the same jobs";
    // Taking.
    "start_jobs": "found[queue] = true", "true => false" => "only the name of the queue is read";
    "start_jobs": "if claimed ~= '' and", "without claimed ~= ''"
        => "saves a command: no list has an empty entry";
    // Settling.
    "settle": "local has_cancels = call('EXISTS'", "call('EXISTS', CANCELS .. server) == 1 => true"
        => "saves a command per attempt: the field decides";
    "settle": "local cancelled = has_cancels and", "without has_cancels"
        => "saves a command per attempt: the field decides";
    "settle": "if cancelled then", "cancelled => true" => "saves two commands: there is nothing to remove";
    // Reading.
    "list": "if is_above then it.from = it.middle else it.above = it.middle end", "without it.from = it.middle"
        => "saves commands: the set is counted again, although it has no id between the bounds";
    "list": "if is_above then it.from = it.middle else it.above = it.middle end", "without it.above = it.middle"
        => "saves commands: the set is counted again, although it has no id between the bounds";
    "list": "if it.from == it.above then", "it.from == it.above => false"
        => "saves commands: the set is counted again, although it has no id between the bounds";
    "list": "if #sets == 1 then", "#sets == 1 => false"
        => "saves commands: one set needs no bisection";
    "list": "elseif skipped > 0 then", "skipped > 0 => true"
        => "saves commands: the first page begins at the newest id";
    "list_queue": "if count_tombstones(queue) == 0 then", "count_tombstones(queue) == 0 => false"
        => "saves commands: without tombstones the search finds none";
    "queues": "elseif servers[i] == PULL then", "servers[i] == PULL => true"
        => "saves a command: without pull workers no queue was asked for";
    // Retention.
    "prune_names": "ipairs(ARGV[1] == '0' and", "without ARGV[1] == '0'"
        => "saves time: the types are read at each step";
    // The heartbeat.
    "heartbeat": "if string.sub(all[i + 1], 1, 1) == 'D' then keys", "string.sub(all[i + 1], 1, 1) == 'D' => true"
        => "saves commands: the list of a living server makes no difference to the reply";
    // The doctor.
    "audit_common": "tonumber(try('HGET', TOMBSTONES .. queue, id) or 0) or 0", "without 0"
        => "either of the two is enough: tonumber(false) is nil";
    "audit_common": "if lists[key] then return lists[key] end", "lists[key] => false"
        => "saves time: the list was read already";
    "audit_common": "lists[key] = ids", "" => "saves time: the list is not read again";
    "audit_common": "spent = spent + #page", "" => "saves time: how much one step reads before it ends";
    "audit_common": "if length <= SHORT then", "length <= SHORT => true"
        => "saves time: a long list is read as a whole";
    "audit_common": "if length <= SHORT then return entries", "length <= SHORT => false"
        => "near its place an entry is found in a short list too";
    "audit_common": "local from = math.max(0, seen - 64)", "math.max(0, seen - 64) => 0"
        => "saves time: more of the list is read";
    "audit_common": "local length = try('LLEN', key) or 0", "without 0"
        => "a list was found there a moment before; where the key has another type by now, this step is an error and the \
            next one is not";
    "audit_common": "local page = try('LRANGE', key, digits(from), digits(seen", "without {}"
        => "a list was found there a moment before; where the key has another type by now, this step is an error and the \
            next one is not";
    "audit_common": "if not status or word ~= indexed(status)", "without not status"
        => "no word of an index is that of a job without a status";
    "audit_common": "or tonumber(try('ZSCORE', key, id) or 0) ~= tonumber(id)", "without 0"
        => "tonumber(false) is nil, which is no id either";
    "audit_common": "return job[1] and not is_final(job[1]) and job[2] == unique", "without job[1]"
        => "a job without a record has no unique key either";
    "audit_common": "try('HGETALL', JOB .. id) or {}", "without {}"
        => "a hash was found there a moment before; where the key has another type by now, this step is an error and the \
            next one is not";
    "audit_jobs": "call('HGET', key, 'status') or ''", "without ''"
        => "a status that is missing is read as an empty one";
    "audit_jobs": "if size > 4096 or", "" => "saves time: a large record is read by itself";
    "audit_record": "return {fingerprint(ARGV[1])", "without {}"
        => "a hash was found there a moment before; where the key has another type by now, this step is an error and the \
            next one is not";
    "repair": "if place < SHORT then", "place < SHORT => false"
        => "saves time: a gap is closed where that is quick; a gap that stays is nobody's entry";
    "repair": "elseif length - place <= SHORT then", "length - place <= SHORT => false"
        => "saves time: a gap is closed where that is quick; a gap that stays is nobody's entry";
    "repair": "if a[1] ~= b[1] then return a[1] < b[1] end", ""
        => "any order of the other lists will do";
    "repair": "if spent > 2 * SHORT and", "" => "saves time: how much one step does";
};
