//! `threadq enqueue`: submits one job (`one`), whose fields are flags (`submission`), or the jobs of a file (`file`).

mod file;
mod one;
mod submission;
mod unserved;

use std::process::ExitCode;

use crate::cli::args::{Args, Command, Flag, Run};
use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::terminal::console::Console;

pub(crate) static ENQUEUE: Command = Command {
    name: "enqueue",
    operands: "TYPE|--file FILE",
    about: "Submits a job and prints its id.\n\
            With --wait, waits until the job ends: exit code 0 if it completed, 1 if it failed or was cancelled.\n\n\
            With --file, submits one job per line. A line is a JSON object with the fields of POST /jobs: type,\n\
            payload, queue, delay_ms, run_at, max_attempts, timeout_ms, unique_key, unique, expires_at,\n\
            expires_in_ms, retain_ms, meta, tags, limits. Jobs are sent in batches of up to 1,000. A batch is\n\
            stored once, also if a response is lost and the batch is sent again. The same command with the\n\
            same --idempotency-key, within 24 h, submits only the jobs that are not stored yet.",
    flags: &[
        Flag {
            name: "payload",
            value: "JSON|@FILE|-",
            help: "the payload, or @ and a file, or - for stdin [default: {}]",
        },
        Flag { name: "queue", value: "NAME", help: "the queue [default: default]" },
        Flag {
            name: "delay",
            value: "TIME",
            help: "start the job after this time, such as 5s or 2h, up to 365d",
        },
        Flag {
            name: "run-at",
            value: "TIME",
            help: "start the job at this time, such as 2026-11-24T08:00:00Z; not with --delay",
        },
        Flag {
            name: "max-attempts",
            value: "N",
            help: "number of attempts, 1 to 100 [default: that of the handler, else 5]",
        },
        Flag {
            name: "timeout",
            value: "TIME",
            help: "time limit of one attempt, up to 24h [default: that of the handler, else 5m]",
        },
        Flag {
            name: "expires-in",
            value: "TIME",
            help: "start no attempt later than this after the submission, up to 365d",
        },
        Flag {
            name: "expires-at",
            value: "TIME",
            help: "start no attempt after this time; not with --expires-in",
        },
        Flag {
            name: "retain",
            value: "TIME",
            help: "keep the job for this time after its end, up to 365d [default: that of the server]",
        },
        Flag {
            name: "tag",
            value: "TAG..",
            help: "a word by which the job is found; can be repeated, up to 5 tags",
        },
        Flag { name: "meta", value: "NAME=VALUE..", help: "a text for the handler; can be repeated" },
        Flag {
            name: "limit",
            value: "NAME[:KEY]..",
            help: "start the job only when this limit has room; can be repeated, up to 4 limits",
        },
        Flag {
            name: "unique",
            value: "KEY",
            help: "refuse the job while another job with this key has not ended",
        },
        Flag { name: "unique-key", value: "KEY", help: "the same as --unique" },
        Flag {
            name: "unique-for",
            value: "TIME",
            help: "hold the key for this time from now, however the job ends, up to 365d",
        },
        Flag {
            name: "unique-until",
            value: "end|start",
            help: "hold the key until the job has ended, or until its first start [default: end]",
        },
        Flag {
            name: "on-conflict",
            value: "reject|existing|replace",
            help: "if another job holds the key: refuse, print its id, or give it these fields [default: reject]",
        },
        Flag {
            name: "max-wait",
            value: "TIME",
            help: "with --on-conflict replace: make the job ready at most this long after its own submission",
        },
        Flag {
            name: "idempotency-key",
            value: "KEY",
            help: "the same key within 24 h returns the id of the same job",
        },
        Flag {
            name: "file",
            value: "FILE|-",
            help: "submit the jobs in this file or stdin, one JSON object per line",
        },
        Flag { name: "wait", value: "", help: "wait until the job is completed, failed or cancelled" },
        Flag {
            name: "json",
            value: "",
            help: "print the JSON of the server, with --file one line per batch; with --wait the ended job",
        },
    ],
    examples: &[
        "enqueue \"Encode Video\" --payload '{\"file\": \"a.mp4\"}'",
        "enqueue report --payload @report.json --delay 10m --max-attempts 3",
        "enqueue echo --payload 42 --wait --json",
        "enqueue index --delay 5s --unique index:7 --on-conflict replace --max-wait 1m",
        "enqueue notify --unique notify:7 --unique-for 10m --on-conflict existing --tag customer-7",
        "enqueue mail --limit smtp --limit tenant:42",
        "enqueue --file jobs.ndjson --idempotency-key import-2026-11-24",
    ],
    run: Run::Client(enqueue),
};

/// The flags for a single job, which the lines of a file replace.
const SINGLE_JOB_FLAGS: [&str; 19] = [
    "payload",
    "queue",
    "delay",
    "run-at",
    "max-attempts",
    "timeout",
    "expires-in",
    "expires-at",
    "retain",
    "tag",
    "meta",
    "limit",
    "unique",
    "unique-key",
    "unique-for",
    "unique-until",
    "on-conflict",
    "max-wait",
    "wait",
];

fn enqueue(args: &Args, client: &Client, console: &mut Console) -> Result<ExitCode, Error> {
    let Some(file) = args.text("file") else { return one::enqueue_one(args, client, console) };
    args.no_operands()?;
    args.refuse(&SINGLE_JOB_FLAGS, "--file")?;
    file::enqueue_file(file, args, client, console)
}
